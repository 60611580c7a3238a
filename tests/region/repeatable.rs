//! A region with a seed and virtual time: the same calls tell the same story, to the byte.

use gureum_model::Timestamp;
use gureum_proto::{
    clock::v1::{GetStateRequest, clock_peer_service_client::ClockPeerServiceClient},
    compute::v1::{compute_peer_service_client::ComputePeerServiceClient, compute_service_client::ComputeServiceClient, *},
    gateway::v1::{AdvanceClockRequest, clock_service_client::ClockServiceClient},
    network::v1::{network_service_client::NetworkServiceClient, *},
};
use gureum_service::wire;
use prost::Message;

use crate::{
    harness::{Deployment, Door, all_pages, ask, until},
    region::{LAUNCHABLE, OPERATOR, Shape, image, launch_spec, region_like, virtual_time},
};

const ACCOUNT: &str = "230000000001";

fn seeded(seed: u64) -> Deployment {
    region_like(&Shape { seed: Some(seed), ..Shape::default() })
}

async fn has_nodes(region: &Deployment, count: usize) {
    until(format!("{count} nodes"), async || {
        let mut compute = ComputePeerServiceClient::new(region.client("compute", OPERATOR));
        let nodes = compute.describe_nodes(DescribeNodesRequest::default()).await.unwrap().into_inner().nodes;
        if nodes.len() == count { Ok(()) } else { Err(format!("{}", nodes.len())) }
    })
    .await;
}

async fn advance(door: &Door, seconds: i64) {
    let request = AdvanceClockRequest { by: Some(prost_types::Duration { seconds, nanos: 0 }) };
    ask!(door, ClockServiceClient, advance_clock, request).unwrap();
}

async fn time(region: &Deployment, name: &str) -> Timestamp {
    let state = ClockPeerServiceClient::new(region.client(name, OPERATOR)).get_state(GetStateRequest {}).await.unwrap();
    wire::from_timestamp(&state.into_inner().now.unwrap())
}

/// What an account sees, as it is sent.
async fn look(door: &Door, story: &mut Vec<(String, Vec<u8>)>) {
    for it in all_pages!(door, ComputeServiceClient, describe_instances, DescribeInstancesRequest, instances) {
        story.push((format!("{it:#?}"), it.encode_to_vec()));
    }
    for it in all_pages!(door, NetworkServiceClient, describe_network_interfaces, DescribeNetworkInterfacesRequest, network_interfaces) {
        story.push((format!("{it:#?}"), it.encode_to_vec()));
    }
    for it in all_pages!(door, ComputeServiceClient, describe_volumes, DescribeVolumesRequest, volumes) {
        story.push((format!("{it:#?}"), it.encode_to_vec()));
    }
}

/// A day's script, and what was seen at each of its times.
async fn story(region: &Deployment) -> Vec<(String, Vec<u8>)> {
    has_nodes(region, 3).await;
    let (door, mut story) = (region.door(ACCOUNT), Vec::new());
    let image = image(&door, LAUNCHABLE).await;
    let launch = RunInstancesRequest {
        client_token: "twenty".into(),
        spec: Some(launch_spec(&image)),
        min_count: 20,
        max_count: 20,
        ..Default::default()
    };
    let launched = ask!(door, ComputeServiceClient, run_instances, launch).unwrap();
    let ids: Vec<String> = launched.instances.iter().map(|it| it.instance_id.clone()).collect();
    // In the midst of the boots, too.
    for seconds in [1, 2, 3, 3_594] {
        advance(&door, seconds).await;
        look(&door, &mut story).await;
    }
    let stop = StopInstancesRequest { instance_ids: ids[..7].to_vec(), ..Default::default() };
    ask!(door, ComputeServiceClient, stop_instances, stop).unwrap();
    advance(&door, 2).await;
    look(&door, &mut story).await;
    advance(&door, 600).await;
    let start = StartInstancesRequest { instance_ids: ids[2..5].to_vec(), ..Default::default() };
    ask!(door, ComputeServiceClient, start_instances, start).unwrap();
    let launch = RunInstancesRequest {
        client_token: "two".into(),
        spec: Some(launch_spec(&image)),
        min_count: 2,
        max_count: 2,
        ..Default::default()
    };
    ask!(door, ComputeServiceClient, run_instances, launch).unwrap();
    advance(&door, 4).await;
    look(&door, &mut story).await;
    let terminate = TerminateInstancesRequest { instance_ids: ids[10..].to_vec(), ..Default::default() };
    ask!(door, ComputeServiceClient, terminate_instances, terminate).unwrap();
    advance(&door, 60).await;
    look(&door, &mut story).await;
    story
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_tells_the_same_story_twice() {
    let (one, other) = (seeded(7), seeded(7));
    let (first, second) = tokio::join!(story(&one), story(&other));
    assert_eq!(first.len(), second.len());
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(first.0, second.0);
        assert_eq!(first.1, second.1, "{}", first.0);
    }
    one.finish();
    other.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_started_again_makes_other_ids_and_a_late_node_takes_the_regions_time() {
    let mut region = region_like(&Shape { zones: &["a"], seed: Some(7), ..Shape::default() });
    let door = region.door(ACCOUNT);
    let make = |number: u32| {
        let request = AllocateAddressRequest { client_token: format!("address {number}"), ..Default::default() };
        let door = door.clone();
        async move { ask!(door, NetworkServiceClient, allocate_address, request).unwrap().address.unwrap().allocation_id }
    };
    let mut made = vec![make(1).await, make(2).await];
    for number in 3..6 {
        region.kill("network");
        region.restart("network");
        made.push(make(number).await);
    }
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 5, "{made:?}");

    advance(&door, 86_400).await;
    let now = time(&region, "compute").await;
    let late = ["settings.name=node-b", "settings.zone=b", "settings.vcpus=8", "settings.memory_mib=8192", "settings.driver=sim"];
    let late = late.map(str::to_owned);
    let all: Vec<String> = late.into_iter().chain(virtual_time(7)).collect();
    // It begins at the beginning of virtual time, and nobody advances the clock any more.
    region.start("node-b", "node", &["compute", "network", "security"], &all.iter().map(String::as_str).collect::<Vec<_>>());
    until("the late node to take the region's time", async || {
        let late = time(&region, "node-b").await;
        if late == now { Ok(()) } else { Err(late.to_string()) }
    })
    .await;
    region.finish();
}
