//! Gureum's security service: security groups, key pairs, and whether a flow may pass.
//!
//! ```text
//!  users ──► api ──► decisions (gureum-security-domain) ──► store ──► outbox ──► watchers
//!  network ─► RegisterVpc, UnregisterVpc, SetSecurityGroupHolds
//! ```
//!
//! It owns security groups with their rules, key pairs (the public halves), which VPCs there are as far
//! as groups need to know, and who holds which group. It calls nobody: network tells it of VPCs and
//! holders. It has no reconcile loop, because every call is one commit.
//!
//! Invariants: every registered VPC has exactly one default group; a group that is held or named by
//! another group's rule cannot be deleted; no private key is ever stored, not even for a client token.

mod api;
mod store;

use gureum_proto::security::v1::{security_peer_service_server::SecurityPeerServiceServer, security_service_server::SecurityServiceServer};
use gureum_service::{CancellationToken, Ready, Running, Service, ServiceConfig, StartError, config::NoSettings};
use tonic::service::Routes;

use crate::{api::Api, store::Schema};

/// Runs the service until it is told to stop. `ready` is told once it accepts.
pub fn run(config: ServiceConfig<NoSettings>, shutdown: CancellationToken, ready: Ready) -> Running {
    Box::pin(open_and_serve(config, shutdown, ready))
}

async fn open_and_serve(config: ServiceConfig<NoSettings>, shutdown: CancellationToken, ready: Ready) -> Result<(), StartError> {
    config.check()?;
    let service = Service::<Schema>::open("security", &config, shutdown).await?;
    let api = Api { store: service.store.clone(), ids: service.ids.clone(), shutdown: service.shutdown.clone() };
    let limit = service.max_message_bytes();
    let routes = Routes::default()
        .add_service(SecurityServiceServer::new(api.clone()).max_decoding_message_size(limit))
        .add_service(SecurityPeerServiceServer::new(api).max_decoding_message_size(limit));
    service.serve(routes, ready).await
}
