//! Nodes as the region's services see them.

use gureum_compute_domain::{
    instance::Capacity,
    node::{Node, NodeState},
};
use gureum_proto::compute::v1 as proto;
use gureum_service::wire;

/// A node, and what placement says of its room and of the instances that hold the rest.
pub fn node(node: &Node, available: Option<(Capacity, usize)>) -> proto::Node {
    let (free, instances) = available.unwrap_or_default();
    proto::Node {
        node_id: node.id.to_string(),
        zone: node.zone.to_string(),
        capacity: Some(capacity(node.capacity)),
        available: Some(capacity(free)),
        driver: node.driver.clone(),
        endpoint: node.endpoint.clone(),
        software_version: node.software_version.clone(),
        incarnation: node.incarnation,
        state: match node.state {
            NodeState::Up { .. } => proto::NodeState::Up,
            NodeState::Lost { .. } => proto::NodeState::Lost,
            NodeState::Dead { .. } => proto::NodeState::Dead,
        }
        .into(),
        state_since: Some(wire::timestamp(node.state.since())),
        register_time: Some(wire::timestamp(node.register_time)),
        instance_count: i64::try_from(instances).unwrap_or(i64::MAX),
    }
}

fn capacity(capacity: Capacity) -> proto::NodeCapacity {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    proto::NodeCapacity { vcpu_milli: signed(capacity.vcpu_milli), memory_mib: signed(capacity.memory_mib) }
}

/// What a node says that it can carry. The contract lets nothing negative through.
pub fn read_capacity(capacity: proto::NodeCapacity) -> Capacity {
    let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
    Capacity { vcpu_milli: unsigned(capacity.vcpu_milli), memory_mib: unsigned(capacity.memory_mib) }
}
