//! The key by which the region vouches for its instances' identity documents: made when it is first needed, then kept.

use std::sync::Arc;

use gureum_identity::Key;
use gureum_model::Refusal;
use gureum_service::Error;
use tokio::sync::OnceCell;

use crate::{core::Core, store::IdentityRow};

/// The key, once it was needed.
pub type Identity = OnceCell<Arc<Key>>;

/// The region's key. That it is made does not depend on whether its caller waits for it.
pub async fn key(core: &Arc<Core>) -> Result<Arc<Key>, Error> {
    if let Some(key) = core.identity.get() {
        return Ok(key.clone());
    }
    let begun = core.clone();
    let made = core.tasks.spawn(async move { begun.identity.get_or_try_init(|| find_or_make(&begun)).await.cloned() });
    made.await.map_err(broken)?
}

async fn find_or_make(core: &Core) -> Result<Arc<Key>, Error> {
    let kept = |key: &[u8]| Key::from_bytes(key).map(Arc::new).map_err(broken);
    if let Some(row) = core.read().identities.get(IdentityRow::ONLY) {
        return kept(&row.key);
    }
    let made = tokio::task::spawn_blocking(|| Key::make().and_then(|key| key.to_bytes()));
    let key = made.await.map_err(broken)?.map_err(broken)?;
    let row = IdentityRow { key };
    let written = core.store.write(move |tx| {
        // Another may have been quicker, and nodes have its key.
        let row = tx.identities.get(IdentityRow::ONLY).map_or(row, |known| known.record.clone());
        tx.put(row.clone());
        Ok::<IdentityRow, Refusal>(row)
    });
    kept(&written.await?.key)
}

/// What is no caller's fault.
fn broken(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}

/// The key as nodes are given it.
pub async fn key_bytes(core: &Arc<Core>) -> Result<Vec<u8>, Error> {
    key(core).await?.to_bytes().map_err(broken)
}
