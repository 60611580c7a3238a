//! A node that is not heard of: what users see, what is kept for its return, and what giving it up means.

use std::time::Duration;

use gureum_proto::{
    compute::v1::{compute_peer_service_client::ComputePeerServiceClient, compute_service_client::ComputeServiceClient, *},
    node::v1::{DescribeNodeInstancesRequest, NodeInstance, node_service_client::NodeServiceClient},
};

use crate::{
    harness::{Deployment, Door, ask, until},
    region::{LAUNCHABLE, OPERATOR, Shape, image, instance, launch_spec, region_like, until_state},
};

/// Short, and yet so long that a busy machine loses no healthy node.
const LEASE_MS: u32 = 2_000;

fn two_zones() -> Deployment {
    let mut region = region_like(&Shape { zones: &["a", "b"], lease_ms: LEASE_MS, quick_boots: true, ..Shape::default() });
    region.expect_complaint("nodes were not heard of for the time of their lease and are lost");
    region
}

/// A running instance in a zone.
async fn running_in(door: &Door, zone: &str) -> String {
    let placement = PlacementSpec { availability_zone: Some(format!("us-east-1{zone}")), ..Default::default() };
    let spec = LaunchSpec { placement: Some(placement), ..launch_spec(&image(door, LAUNCHABLE).await) };
    let request = RunInstancesRequest { spec: Some(spec), min_count: 1, max_count: 1, ..Default::default() };
    let id = ask!(door, ComputeServiceClient, run_instances, request).unwrap().instances[0].instance_id.clone();
    until_state(door, &id, InstanceState::Running).await;
    id
}

async fn host_check(door: &Door, id: &str) -> CheckStatus {
    let request = DescribeInstanceStatusRequest { instance_ids: vec![id.to_owned()], ..Default::default() };
    let found = ask!(door, ComputeServiceClient, describe_instance_status, request).unwrap().instance_statuses.remove(0);
    found.system_status.unwrap().status()
}

async fn until_impaired(door: &Door, id: &str) {
    until(format!("{id} impaired"), async || match host_check(door, id).await {
        CheckStatus::Impaired => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// What a node itself has.
async fn has(region: &Deployment, node: &str) -> Vec<NodeInstance> {
    let mut client = NodeServiceClient::new(region.client(node, OPERATOR));
    client.describe_node_instances(DescribeNodeInstancesRequest::default()).await.unwrap().into_inner().instances
}

async fn nodes(region: &Deployment) -> Vec<Node> {
    let mut compute = ComputePeerServiceClient::new(region.client("compute", OPERATOR));
    compute.describe_nodes(DescribeNodesRequest::default()).await.unwrap().into_inner().nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_impairs_its_instances_and_ends_on_return_what_was_terminated_meanwhile() {
    let region = two_zones();
    let door = region.door("000000000301");
    let (ended, kept, elsewhere) = (running_in(&door, "a").await, running_in(&door, "a").await, running_in(&door, "b").await);
    region.freeze("node-a");
    until_impaired(&door, &ended).await;
    until_impaired(&door, &kept).await;
    assert_ne!(host_check(&door, &elsewhere).await, CheckStatus::Impaired, "the other zone's node is well");

    let terminate = TerminateInstancesRequest { instance_ids: vec![ended.clone()], ..Default::default() };
    ask!(door, ComputeServiceClient, terminate_instances, terminate).unwrap();
    let waiting = instance(&door, &ended).await;
    assert_eq!(
        (waiting.state(), waiting.waiting_reason.as_str()),
        (InstanceState::ShuttingDown, "waits for its node, which is not heard of")
    );
    assert_eq!(instance(&door, &kept).await.state(), InstanceState::Running, "nothing is moved silently");
    let of_b: Vec<String> = has(&region, "node-b").await.into_iter().map(|one| one.observation.unwrap().instance_id).collect();
    assert_eq!(of_b, [elsewhere], "nothing is moved silently");

    region.thaw("node-a");
    until_state(&door, &ended, InstanceState::Terminated).await;
    until("the node well again", async || match host_check(&door, &kept).await {
        CheckStatus::Impaired => Err("impaired".to_owned()),
        _ => Ok(()),
    })
    .await;
    until("the node to have what it should", async || {
        let found: Vec<String> = has(&region, "node-a").await.into_iter().map(|one| one.observation.unwrap().instance_id).collect();
        if found == [kept.clone()] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    assert_eq!(instance(&door, &kept).await.state(), InstanceState::Running);
    region.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_gives_its_instances_up_and_takes_them_again_when_it_is_back() {
    let mut region = two_zones();
    let door = region.door("000000000302");
    let (stopped, ended) = (running_in(&door, "b").await, running_in(&door, "b").await);
    let node_id = nodes(&region).await.into_iter().find(|node| node.zone == "b").unwrap().node_id;
    region.kill("node-b");
    until_impaired(&door, &stopped).await;
    let terminate = TerminateInstancesRequest { instance_ids: vec![ended.clone()], ..Default::default() };
    ask!(door, ComputeServiceClient, terminate_instances, terminate).unwrap();

    let mut compute = ComputePeerServiceClient::new(region.client("compute", OPERATOR));
    compute.declare_node_dead(DeclareNodeDeadRequest { node_id, ..Default::default() }).await.unwrap();
    let given_up = until_state(&door, &stopped, InstanceState::Stopped).await;
    assert_eq!(given_up.state_reason.unwrap().code, "Server.InternalError");
    until_state(&door, &ended, InstanceState::Terminated).await;
    assert!(nodes(&region).await.iter().all(|node| node.instance_count == 0), "what was promised is given back");

    region.restart("node-b");
    until("the returned node to end what was given up", async || {
        let up = nodes(&region).await.iter().any(|node| node.zone == "b" && node.state() == NodeState::Up);
        let left = has(&region, "node-b").await.len();
        if up && left == 0 { Ok(()) } else { Err(format!("up: {up}, {left} instances")) }
    })
    .await;
    // The same node takes the same instance in again, which it has ended and forgotten just now.
    let start = StartInstancesRequest { instance_ids: vec![stopped.clone()], ..Default::default() };
    ask!(door, ComputeServiceClient, start_instances, start).unwrap();
    until_state(&door, &stopped, InstanceState::Running).await;
    assert_eq!(has(&region, "node-b").await.len(), 1);
    region.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_not_lost_because_compute_stood_still() {
    let region = two_zones();
    let door = region.door("000000000303");
    let id = running_in(&door, "a").await;
    region.freeze("compute");
    // Nothing tells of time that a process does not have.
    tokio::time::sleep(2 * Duration::from_millis(LEASE_MS.into())).await;
    region.thaw("compute");
    until_state(&door, &id, InstanceState::Running).await;
    running_in(&door, "b").await;
    assert_eq!(region.logged("compute", &["not heard of"]), 0);
    assert!(nodes(&region).await.iter().all(|node| node.state() == NodeState::Up));
    region.finish();
}
