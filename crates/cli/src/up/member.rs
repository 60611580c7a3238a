//! Runs one service, whichever it is.

use std::net::SocketAddr;

use gureum_service::{CancellationToken, StartError};

use super::region::Member;

/// Runs a member until it is told to stop. `ready` is told once it accepts; the gateway says where.
pub async fn run_member(
    member: Member,
    shutdown: CancellationToken,
    ready: Box<dyn FnOnce(Option<SocketAddr>) + Send>,
) -> Result<(), StartError> {
    match member {
        Member::Security(config) => gureum_security::run(config, shutdown, Box::new(move || ready(None))).await,
        Member::Network(config) => gureum_network::run(config, shutdown, Box::new(move || ready(None))).await,
        Member::Compute(config) => gureum_compute::run(config, shutdown, Box::new(move || ready(None))).await,
        Member::Node(config) => gureum_node::run(config, shutdown, Box::new(move || ready(None))).await,
        Member::Gateway(config) => gureum_gateway::run(config, shutdown, Box::new(move |door| ready(Some(door)))).await,
    }
}
