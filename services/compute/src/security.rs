//! What compute asks of security.

use gureum_proto::security::v1::{DescribeKeyPairsRequest, security_service_client::SecurityServiceClient};
use gureum_service::{Error, Peer};

/// Security, as compute calls it. Every call is in the scope of the current context.
pub struct Security {
    peer: Peer,
}

impl Security {
    pub fn new(peer: Peer) -> Self {
        Self { peer }
    }

    /// The public half of a key pair, in OpenSSH form; none if there is no such key pair.
    pub async fn public_key(&self, name: &str) -> Result<Option<String>, Error> {
        let request = DescribeKeyPairsRequest { key_names: vec![name.to_owned()], ..Default::default() };
        let answer = SecurityServiceClient::new(self.peer.channel()).describe_key_pairs(request).await;
        match answer.map_err(|status| self.peer.error(status)) {
            Ok(answer) => Ok(answer.into_inner().key_pairs.into_iter().next().map(|pair| pair.public_key)),
            Err(error) if error.reason().as_deref() == Some("InvalidKeyPair.NotFound") => Ok(None),
            Err(error) => Err(error),
        }
    }
}
