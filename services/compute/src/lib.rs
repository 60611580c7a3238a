//! Gureum's compute service: what runs, what it is made of, and where.
//!
//! ```text
//!  callers ──► api ──► domain's decision ──► store ──► outbox ──► whoever watches
//!               │                              ▲  │
//!               │ RunInstances                 │  └─► wake ──► loop of instances ──► nodes, network
//!               ▼                              │
//!        security (keys), network (interfaces) │
//!                                              │
//!  node ──► RegisterNode, NodeHeartbeat        │
//!  node ◄── follow: one task per node ─────────┘
//! ```
//!
//! It owns instances, launch templates, images, volumes, snapshots, the marketplace, and what is known of
//! nodes. The intent is recorded first; the loops then drive nodes and network to it, and may be killed
//! between any two steps.
//!
//! Invariants:
//! - An instance that is answered has its addresses, its place, and its volumes. A launch that was not
//!   answered leaves nothing behind.
//! - A place is given out once: it is set aside in the decision that commits its holder, and the rows
//!   rebuild the index.
//! - Only decisions on this service's writer change a state; what a node reports is one of their inputs.
//! - A report counts for the generation to which it belongs. A node that has what is not its own is told
//!   to end it.
//!
//! It never moves an instance to another node by itself, and never decides what a node has not reported
//! unless that node was given up.

mod api;
mod catalog;
mod convert;
mod core;
mod fleet;
mod identity;
mod network;
mod places;
mod reconcile;
mod security;
mod setbacks;
pub mod settings;
mod store;

use std::sync::Arc;

use gureum_compute_domain::node::NodeState;
use gureum_model::id::NodeId;
use gureum_proto::compute::v1::{compute_peer_service_server::ComputePeerServiceServer, compute_service_server::ComputeServiceServer};
use gureum_service::{CancellationToken, Followed, Ready, Running, Service, ServiceConfig, StartError, reconcile::Waker};
use tonic::service::Routes;

use crate::{
    api::Api,
    core::Core,
    fleet::Fleet,
    places::Places,
    reconcile::{
        disks::Disks, due::Due, follow, instances::Instances, interfaces, interfaces::Interfaces, launches::Launches, leases, wake,
    },
    settings::Settings,
    store::Schema,
};

/// Runs compute until it is told to stop. `ready` is told once it accepts.
pub fn run(config: ServiceConfig<Settings>, shutdown: CancellationToken, ready: Ready) -> Running {
    Box::pin(open_and_serve(config, shutdown, ready))
}

async fn open_and_serve(config: ServiceConfig<Settings>, shutdown: CancellationToken, ready: Ready) -> Result<(), StartError> {
    config.check()?;
    let service = Service::<Schema>::open("compute", &config, shutdown).await?;
    let core = Arc::new(Core {
        store: service.store.clone(),
        ids: service.ids.clone(),
        call_ids: service.call_ids.clone(),
        clock: service.clock.clone(),
        settings: config.settings.clone(),
        places: Places::rebuild(&service.store.read()),
        fleet: Fleet::new(config.tls.clone(), service.faults()),
        network: network::Network::new(service.peer("network")?),
        security: security::Security::new(service.peer("security")?),
        shutdown: service.shutdown.clone(),
        tasks: service.tasks.clone(),
        activity: service.activity.clone(),
        instances: Waker::default(),
        launches: Waker::default(),
        due: Waker::default(),
        disks: Waker::default(),
        interfaces: Waker::default(),
        awaited: core::Awaited::default(),
        limiting: core::Turns::default(),
        network_followed: Followed::new("network"),
        turns: core::Turns::default(),
        in_flight: core::InFlight::default(),
        setbacks: setbacks::Setbacks::default(),
        identity: identity::Identity::default(),
    });
    follow_known_nodes(&core);
    start_loops(&service, &core);
    let api = Api(core);
    let limit = service.max_message_bytes();
    let routes = Routes::default()
        .add_service(ComputeServiceServer::new(api.clone()).max_decoding_message_size(limit))
        .add_service(ComputePeerServiceServer::new(api).max_decoding_message_size(limit));
    service.serve(routes, ready).await
}

fn start_loops(service: &Service<Schema>, core: &Arc<Core>) {
    let seen = wake::Seen::from_now(core);
    // The store alone: the core knows the activity, and the two would keep each other alive.
    let (idle, store) = (seen.clone(), core.store.clone());
    service.activity.add_loop(move || idle.is_idle(&store));
    let (network, store) = (core.network_followed.clone(), core.store.clone());
    service.activity.add_followed(move || {
        let state = store.read();
        // One that is not up is not waited for: it may never say anything again.
        let is_up = |node: NodeId| state.nodes.get(&node.to_string()).is_some_and(|row| matches!(row.state, NodeState::Up { .. }));
        let nodes = state.node_cursors.iter().filter(|cursor| is_up(cursor.node));
        nodes.map(|cursor| (cursor.node.to_string(), cursor.sequence)).chain([network.place()]).collect()
    });
    service.spawn(wake::follow(core.clone(), seen));
    service.run_reconciler(Arc::new(Instances::new(core.clone())), core.instances.clone());
    service.run_reconciler(Arc::new(Launches(core.clone())), core.launches.clone());
    service.run_reconciler(Arc::new(Due::new(core.clone())), core.due.clone());
    service.run_reconciler(Arc::new(Disks(core.clone())), core.disks.clone());
    service.run_reconciler(Arc::new(Interfaces(core.clone())), core.interfaces.clone());
    service.spawn(interfaces::follow(core.clone()));
    service.spawn(leases::run(core.clone()));
}

/// After a restart every node that was not given up has one lease of time to be heard of, and is followed
/// from where it was left.
fn follow_known_nodes(core: &Arc<Core>) {
    let state = core.read();
    for node in state.nodes.iter().filter(|row| !matches!(row.state, NodeState::Dead { .. })) {
        match core.fleet.reach(&node.endpoint) {
            Ok(peer) => {
                if let Some(admitted) = core.fleet.admit(node, peer) {
                    follow::start(core, node, admitted);
                }
            }
            Err(refusal) => {
                tracing::warn!(node = %node.id, %refusal, "a node cannot be reached where it last was; it has to register again")
            }
        }
    }
}
