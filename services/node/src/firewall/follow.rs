//! Follows security: everything as it is, then every change.

use std::time::Duration;

use gureum_proto::{
    WatchMessage, WatchPart,
    security::v1::{WatchAllRequest, WatchAllResponse, security_peer_service_client::SecurityPeerServiceClient},
};
use gureum_service::{Peer, peer::PeerChannel};
use tonic::{Code, Status, Streaming};

use super::{Groups, convert, table::Table};

/// Pause before security is followed again, in real time. Until then the rules stand as they were last told.
const RETRY: Duration = Duration::from_millis(100);

/// Follows security until it is dropped.
pub async fn follow(security: Peer, groups: Groups) {
    let mut client = SecurityPeerServiceClient::new(security.channel());
    let mut after = None;
    loop {
        if let Err(status) = follow_once(&mut client, &groups, &mut after).await {
            tracing::debug!(%status, "following security is interrupted");
            if status.code() == Code::OutOfRange {
                // What happened meanwhile is no longer told, or happened in a past that was taken back.
                after = None;
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow_once(client: &mut SecurityPeerServiceClient<PeerChannel>, groups: &Groups, after: &mut Option<u64>) -> Result<(), Status> {
    let stream = client.watch_all(WatchAllRequest { after_sequence: *after }).await?.into_inner();
    take(stream, groups, after).await
}

async fn take(mut stream: Streaming<WatchAllResponse>, groups: &Groups, after: &mut Option<u64>) -> Result<(), Status> {
    // Half a snapshot would be groups without their rules, so it counts when it is whole.
    let mut snapshot = after.is_none().then(Table::default);
    while let Some(message) = stream.message().await? {
        match message.into_parts() {
            WatchPart::Event(event) => {
                let sequence = event.metadata.as_ref().map(|metadata| metadata.sequence);
                let changed = convert::change(*event);
                match (&mut snapshot, changed) {
                    (Some(table), Some((scope, change))) => drop(table.apply(&scope, change)),
                    (None, Some((scope, change))) => groups.apply(&scope, change),
                    (_, None) => {}
                }
                if snapshot.is_none() {
                    *after = sequence.or(*after);
                }
            }
            WatchPart::CaughtUp(sequence) => {
                if let Some(table) = snapshot.take() {
                    groups.replace(table);
                }
                *after = Some(sequence);
            }
            WatchPart::Unknown => {}
        }
    }
    Ok(())
}
