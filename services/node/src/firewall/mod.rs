//! The rules of security groups, for drivers whose instances have connections to decide on. Security owns the groups.

mod convert;
pub(crate) mod table;

use gureum_firewall::Rule;
use gureum_model::{Scope, id::SecurityGroupId};
use gureum_proto::security::v1::{WatchAllRequest, security_peer_service_client::SecurityPeerServiceClient};
use gureum_service::Peer;
use tonic::Response;

use self::table::Table;
use crate::followed;

/// The groups as security last told of them.
pub type Groups = followed::Known<Table>;
/// Of which groups one wants to know when their rules change.
pub type Interest = followed::Interest<Table>;

impl Interest {
    /// The rules of these groups, in their order, prefix lists resolved. A group that security does not have has none.
    /// `None`: security has not been heard since this process began, so nobody knows.
    pub fn rules_of(&self, scope: &Scope, groups: &[SecurityGroupId]) -> Option<Vec<Rule>> {
        self.with(|table| table.rules_of(scope, groups))
    }
}

/// Follows security until it is dropped.
pub async fn follow(security: Peer, groups: Groups) {
    let watch = |after_sequence| {
        let mut client = SecurityPeerServiceClient::new(security.channel());
        async move { client.watch_all(WatchAllRequest { after_sequence }).await.map(Response::into_inner) }
    };
    followed::follow(groups, watch).await;
}
