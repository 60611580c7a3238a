//! Nodes that go away, come back, or start anew.

use gureum_proto::{
    compute::v1::{self as proto, CheckStatus, InstanceState},
    node::v1::{self as node, inject_fault_request::Fault},
};

use crate::{
    lifecycle::terminate,
    region::{Options, Region, reason, until},
};

fn short_lease() -> Options {
    let options = Options::default();
    let compute = gureum_compute::settings::Settings { node_lease_ms: 400, ..options.compute.clone() };
    Options { compute, zones: "a", ..options }
}

async fn system_status(region: &Region) -> CheckStatus {
    let answer = region.compute().describe_instance_status(proto::DescribeInstanceStatusRequest::default()).await.unwrap();
    answer.into_inner().instance_statuses[0].system_status.unwrap().status()
}

#[tokio::test]
async fn a_lost_node_impairs_and_its_return_mends() {
    let mut region = Region::start(short_lease()).await;
    let id = region.running().await.instance_id;
    region.stop_node('a').await;
    region.until_nodes(1, proto::NodeState::Lost).await;
    assert_eq!(region.instance(&id).await.state(), InstanceState::Running);
    assert_eq!(system_status(&region).await, CheckStatus::Impaired);
    // What is ended meanwhile waits, and says for what.
    region.compute().terminate_instances(terminate(&[&id])).await.unwrap();
    let waiting = region.instance(&id).await;
    assert_eq!(waiting.state(), InstanceState::ShuttingDown);
    assert_eq!(waiting.waiting_reason, "waits for its node, which is not heard of");
    region.start_node('a').await;
    region.until_nodes(1, proto::NodeState::Up).await;
    region.until_instance(&id, InstanceState::Terminated).await;
}

#[tokio::test]
async fn a_node_that_lost_everything_is_told_again() {
    let mut region = Region::start(Options { zones: "a", ..Options::default() }).await;
    region.launch(5).await;
    region.until_all(5, InstanceState::Running).await;
    region.stop_node('a').await;
    region.start_node('a').await;
    until("the node's instances", async || {
        let known = region.node('a').describe_node_instances(node::DescribeNodeInstancesRequest::default()).await.unwrap();
        let running =
            |instance: &node::NodeInstance| instance.observation.as_ref().is_some_and(|seen| seen.state() == node::ObservedState::Running);
        known.into_inner().instances.iter().filter(|instance| running(instance)).count() == 5
    })
    .await;
    region.until_all(5, InstanceState::Running).await;
}

#[tokio::test]
async fn a_dead_node_is_given_up_with_what_it_had() {
    let mut region = Region::start(short_lease()).await;
    let id = region.running().await.instance_id;
    let node_id = region.nodes().await[0].node_id.clone();
    let declare = proto::DeclareNodeDeadRequest { node_id, ..Default::default() };
    assert_eq!(reason(&region.compute_peer().declare_node_dead(declare.clone()).await.unwrap_err()), "IncorrectState");
    region.stop_node('a').await;
    region.until_nodes(1, proto::NodeState::Lost).await;
    region.compute_peer().declare_node_dead(declare).await.unwrap();
    let stopped = region.until_instance(&id, InstanceState::Stopped).await;
    assert_eq!(stopped.state_reason.unwrap().code, "Server.InternalError");
    let start = proto::StartInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() };
    assert_eq!(reason(&region.compute().start_instances(start.clone()).await.unwrap_err()), "InsufficientInstanceCapacity");
    assert_eq!(region.promised().await, 0);
    region.start_node('a').await;
    region.until_nodes(1, proto::NodeState::Up).await;
    region.compute().start_instances(start).await.unwrap();
    region.until_instance(&id, InstanceState::Running).await;
}

#[tokio::test]
async fn a_hung_instance_is_impaired() {
    let region = Region::start(Options { zones: "a", ..Options::default() }).await;
    let id = region.running().await.instance_id;
    let hang = Fault::HangInstance(node::HangInstance { instance_id: id.clone(), resume: false });
    region.node('a').inject_fault(node::InjectFaultRequest { fault: Some(hang) }).await.unwrap();
    let status = async || {
        let answer = region.compute().describe_instance_status(proto::DescribeInstanceStatusRequest::default()).await.unwrap();
        answer.into_inner().instance_statuses[0].instance_status.unwrap().status()
    };
    until("the check", async || status().await == CheckStatus::Impaired).await;
    assert_eq!(system_status(&region).await, CheckStatus::Ok);
}

#[tokio::test]
async fn a_node_that_compute_forgot_registers_by_its_next_heartbeat() {
    let mut region = Region::start(Options { zones: "a", ..Options::default() }).await;
    region.stop_compute().await;
    region.start_compute().await;
    region.until_nodes(1, proto::NodeState::Up).await;
    region.running().await;
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_safely_is_refused() {
    let region = Region::start(Options { zones: "a", ..Options::default() }).await;
    let request = proto::RegisterNodeRequest {
        node_id: "node-00000000000000001".to_owned(),
        zone: "a".to_owned(),
        capacity: Some(proto::NodeCapacity { vcpu_milli: 1, memory_mib: 1 }),
        driver: "sim".to_owned(),
        endpoint: "127.0.0.1:1".to_owned(),
        software_version: String::new(),
        incarnation: 1,
    };
    assert_eq!(reason(&region.compute_peer().register_node(request).await.unwrap_err()), "InvalidParameterValue");
}

async fn on_node(region: &Region, name: char) -> Vec<String> {
    let known = region.node(name).describe_node_instances(node::DescribeNodeInstancesRequest::default()).await.unwrap().into_inner();
    known.instances.into_iter().filter_map(|instance| Some(instance.observation?.instance_id)).collect()
}

#[tokio::test]
async fn a_start_goes_where_there_is_room_and_the_old_node_forgets() {
    // Two nodes of one zone, each with room for two.
    let region = Region::start(Options { zones: "aA", vcpus: 4, ..Options::default() }).await;
    let id = region.running().await.instance_id;
    let (old, new) = if on_node(&region, 'a').await.is_empty() { ('A', 'a') } else { ('a', 'A') };
    region.compute().stop_instances(proto::StopInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() }).await.unwrap();
    region.until_instance(&id, InstanceState::Stopped).await;
    for other in region.launch(4).await {
        region.until_instance(&other.instance_id, InstanceState::Running).await;
    }
    let start = proto::StartInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() };
    assert_eq!(reason(&region.compute().start_instances(start.clone()).await.unwrap_err()), "InsufficientInstanceCapacity");
    let leaves = on_node(&region, new).await.remove(0);
    region.compute().terminate_instances(terminate(&[&leaves])).await.unwrap();
    region.until_instance(&leaves, InstanceState::Terminated).await;
    region.compute().start_instances(start).await.unwrap();
    region.until_instance(&id, InstanceState::Running).await;
    assert!(on_node(&region, new).await.contains(&id));
    until("the old node's memory", async || !on_node(&region, old).await.contains(&id)).await;
}
