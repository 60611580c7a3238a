//! Nodes: they register and send heartbeats; an operator gives lost ones up.

use std::{sync::Arc, time::Duration};

use gureum_compute_domain::node::{HEARTBEATS_PER_LEASE, Node, NodeError, Registration, declare_dead, register};
use gureum_model::{Filters, PageRequest, Refusal, id::NodeId, refusal::Violations};
use gureum_proto::compute::v1 as proto;
use gureum_service::{Error, mutate, scope, wire};
use gureum_store::{Record, Row};

use crate::{
    convert,
    core::Core,
    identity,
    reconcile::follow,
    store::{NodeRow, put_node},
};

/// Makes a node known, or known again.
pub async fn register_node(core: &Arc<Core>, request: proto::RegisterNodeRequest) -> Result<proto::RegisterNodeResponse, Error> {
    let said = Registration {
        id: Refusal::parse_id("node_id", &request.node_id)?,
        zone: request.zone,
        capacity: request.capacity.map(convert::node::read_capacity).unwrap_or_default(),
        driver: request.driver,
        endpoint: request.endpoint,
        software_version: request.software_version,
        incarnation: request.incarnation,
    };
    let peer = core.fleet.reach(&said.endpoint)?;
    let places = core.places.clone();
    let registered = core.store.write(move |tx| {
        let known = tx.nodes.get(&said.id.to_string()).map(|row| row.record.0.clone());
        let node = register(known.as_ref(), &said, tx.now())?;
        if known.as_ref() != Some(&node) {
            let kind = if known.is_none() { "NodeRegistered" } else { "NodeChanged" };
            put_node(tx, &places, kind, node.clone());
        }
        Ok::<Node, Refusal>(node)
    });
    let node = registered.await?;
    if let Some(admitted) = core.fleet.admit(&node, peer) {
        follow::start(core, &node, admitted);
    }
    // What was wanted while the node was away can be told now.
    core.wake_node(node.id);
    let lease = core.settings.node_lease();
    Ok(proto::RegisterNodeResponse {
        node: Some(shown(core, &node)),
        heartbeat_interval: Some(duration(lease / HEARTBEATS_PER_LEASE)),
        lease_duration: Some(duration(lease)),
        region_time: core.clock.is_virtual().then(|| wire::timestamp(core.clock.now())),
    })
}

/// Tells by which key identity documents are signed.
pub async fn get_identity_key(core: &Arc<Core>, _: proto::GetIdentityKeyRequest) -> Result<proto::GetIdentityKeyResponse, Error> {
    Ok(proto::GetIdentityKeyResponse { identity_key: identity::key_bytes(core).await? })
}

/// Notes that a node is there.
pub async fn node_heartbeat(core: &Arc<Core>, request: proto::NodeHeartbeatRequest) -> Result<proto::NodeHeartbeatResponse, Error> {
    let id: NodeId = Refusal::parse_id("node_id", &request.node_id)?;
    let state = core.read();
    let registered =
        gureum_compute_domain::node::check_incarnation(state.nodes.get(&id.to_string()).map(|row| &row.record.0), id, request.incarnation);
    // Also one that is not up shall not be taken for silent once it has registered.
    let known = core.fleet.heard(id, request.incarnation);
    Ok(proto::NodeHeartbeatResponse { must_register: registered.is_err() || !known })
}

/// One page of the nodes, by id.
pub async fn describe_nodes(core: &Arc<Core>, request: proto::DescribeNodesRequest) -> Result<proto::DescribeNodesResponse, Error> {
    let state = core.read();
    let mut violations = Violations::new();
    let ids: Vec<NodeId> = violations.ids("node_ids", &request.node_ids);
    let filters = violations.check("", Filters::for_kind::<Node>(wire::filters(request.filters))).unwrap_or_default();
    violations.finish()?;
    let page = PageRequest::new(request.page_size, &request.page_token, &("nodes", &filters))?;
    let passing = |row: &&Arc<Row<NodeRow>>| filters.pass(&row.record.0);
    let (rows, next_page_token) = if ids.is_empty() {
        let rows: Vec<_> = state.nodes.scan("", page.after.as_deref()).filter(passing).take(page.size + 1).cloned().collect();
        page.cut(rows, |row| row.record.key())
    } else {
        let found = |id: &NodeId| state.nodes.get(&id.to_string()).cloned().ok_or(NodeError::NotFound { id: *id });
        let mut rows = ids.iter().map(found).collect::<Result<Vec<_>, _>>().map_err(Refusal::from)?;
        rows.sort_by_key(|row| row.id);
        rows.dedup_by_key(|row| row.id);
        rows.retain(|row| passing(&row));
        (rows, String::new())
    };
    Ok(proto::DescribeNodesResponse { nodes: rows.iter().map(|row| shown(core, row)).collect(), next_page_token })
}

/// Gives a lost node up. What it had follows, instance by instance.
pub async fn declare_node_dead(core: &Arc<Core>, request: proto::DeclareNodeDeadRequest) -> Result<proto::DeclareNodeDeadResponse, Error> {
    let id: NodeId = Refusal::parse_id("node_id", &request.node_id)?;
    let places = core.places.clone();
    let caller = scope();
    let declared = mutate(&core.store, &caller, &request, move |tx| {
        let row = tx.nodes.get(&id.to_string()).cloned().ok_or(NodeError::NotFound { id })?;
        let node = match declare_dead(&row, tx.now())? {
            None => row.record.0.clone(),
            Some(dead) => {
                put_node(tx, &places, "NodeDead", dead.clone());
                dead
            }
        };
        let available = places.lock().of_node(id);
        Ok(proto::DeclareNodeDeadResponse { node: Some(convert::node::node(&node, available)) })
    });
    let answer = declared.await?;
    core.fleet.dismiss(id);
    core.wake_node(id);
    Ok(answer)
}

fn shown(core: &Core, node: &Node) -> proto::Node {
    convert::node::node(node, core.places.lock().of_node(node.id))
}

fn duration(duration: Duration) -> prost_types::Duration {
    // A lease is seconds; what does not fit could never be waited for.
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}
