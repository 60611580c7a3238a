//! Who an instance is, signed by the region: the node has the key, an instance and its shim never do.

use std::{sync::Arc, time::Duration};

use gureum_identity::Key;
use gureum_shim::network::{
    Network,
    metadata::{self, Identity, Machine},
};
use tokio::sync::watch;

/// How long a boot waits for compute to give this node its key. One that is away keeps nothing from booting.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

/// What this node knows of the region's key. Clones are the same.
#[derive(Clone)]
pub struct Signer(Arc<watch::Sender<Known>>);

#[derive(Clone, Default)]
enum Known {
    /// Compute was not heard of.
    #[default]
    Nothing,
    /// What it gave is none.
    NoKey,
    Key(Arc<Key>),
}

impl Default for Signer {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }
}

impl Signer {
    /// Takes what compute gave.
    pub fn take(&self, key: &[u8]) {
        let known = match Key::from_bytes(key) {
            Ok(key) => Known::Key(Arc::new(key)),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "identity documents will not be signed");
                Known::NoKey
            }
        };
        self.0.send_replace(known);
    }

    /// Waits until it is known whether there is a key, or it was waited for long enough.
    pub async fn known(&self) {
        let mut known = self.0.subscribe();
        // Whatever came of it, the instance boots.
        let _ = tokio::time::timeout(KNOWN_WITHIN, known.wait_for(|known| !matches!(known, Known::Nothing))).await;
    }

    /// The machine with its identity signed, if there is a key.
    pub fn sign(&self, mut machine: Machine, network: &Network) -> Machine {
        let Known::Key(key) = self.0.borrow().clone() else { return machine };
        let document = metadata::document(&machine, network);
        machine.identity = match key.sign(document.as_bytes()) {
            Ok(signed) => Some(Identity { document, signature: signed.signature, pkcs7: signed.pkcs7 }),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, id = machine.id, "an identity document is not signed");
                None
            }
        };
        machine
    }
}
