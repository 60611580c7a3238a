//! Where subnets' traffic may go, for drivers whose instances have traffic: VPCs' addresses and route tables. Network
//! owns them.

mod convert;
mod table;

use gureum_proto::network::v1::{WatchAllRequest, network_peer_service_client::NetworkPeerServiceClient};
use gureum_service::Peer;
use tonic::Response;

use self::table::Table;
use crate::followed;

/// The route tables as network last told of them.
pub type RouteTables = followed::Known<Table>;
/// Of which VPCs one wants to know when their route tables change.
pub type Interest = followed::Interest<Table>;

/// Follows network until it is dropped.
pub async fn follow(network: Peer, tables: RouteTables) {
    let watch = |after_sequence| {
        let mut client = NetworkPeerServiceClient::new(network.channel());
        async move { client.watch_all(WatchAllRequest { after_sequence }).await.map(Response::into_inner) }
    };
    followed::follow(tables, watch).await;
}
