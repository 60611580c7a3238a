//! An elastic IP moves when its old holder has let go, also where the holder's node stands still.

use std::time::Duration;

use gureum_proto::{
    compute::v1::{compute_peer_service_client::ComputePeerServiceClient, compute_service_client::ComputeServiceClient, *},
    network::v1::{network_service_client::NetworkServiceClient, *},
};
use gureum_service::clock::monotonic;

use crate::{
    harness::{Deployment, Door, insist},
    journeys::{launch, run, shipped_image, wait_for},
    region::{Shape, region_like},
};

/// For what takes as long as a node's lease and a step that is tried again.
const PATIENCE: Duration = Duration::from_secs(40);

/// Short, so that a node that stands still is soon missed.
const LEASE_MS: u32 = 2_000;

struct Scene {
    region: Deployment,
    door: Door,
    /// In the zones a and b, and so on the nodes a and b.
    one: String,
    other: String,
    address: Address,
}

impl Scene {
    /// Two instances, and an elastic IP that leads to the first.
    async fn new(account: &str) -> Self {
        let mut region = region_like(&Shape { lease_ms: LEASE_MS, ..Shape::default() });
        region.expect_complaint("nodes were not heard of");
        let door = region.door(account);
        let image = shipped_image(&door, "gureum-shell").await;
        let (one, other) = (launch_in(&door, &image, "us-east-1a").await, launch_in(&door, &image, "us-east-1b").await);
        let allocate = AllocateAddressRequest { client_token: "ip".into(), ..Default::default() };
        let address = insist(|| {
            door.call(NetworkServiceClient::new, &allocate, |mut client, request| async move { client.allocate_address(request).await })
        })
        .await;
        let scene = Self { region, door, one, other, address: address.unwrap().address.unwrap() };
        scene.associate(&scene.one, "first").await;
        scene.arrives_at(&scene.one).await;
        scene
    }

    /// Leads the address to an instance, and answers what is said of it at once.
    async fn associate(&self, instance: &str, token: &str) -> AddressAssociation {
        let request = AssociateAddressRequest {
            client_token: token.into(),
            allocation_id: self.address.allocation_id.clone(),
            instance_id: instance.to_owned(),
            allow_reassociation: true,
            ..Default::default()
        };
        let answer = insist(|| {
            let call = |mut client: NetworkServiceClient<_>, request| async move { client.associate_address(request).await };
            self.door.call(NetworkServiceClient::new, &request, call)
        })
        .await;
        answer.unwrap().address.unwrap().association.unwrap()
    }

    async fn association(&self) -> AddressAssociation {
        let request = DescribeAddressesRequest { allocation_ids: vec![self.address.allocation_id.clone()], ..Default::default() };
        let answer = insist(|| {
            let call = |mut client: NetworkServiceClient<_>, request| async move { client.describe_addresses(request).await };
            self.door.call(NetworkServiceClient::new, &request, call)
        })
        .await;
        answer.unwrap().addresses.remove(0).association.unwrap()
    }

    async fn shown_at(&self, instance: &str) -> bool {
        let request = DescribeInstancesRequest { instance_ids: vec![instance.to_owned()], ..Default::default() };
        let answer = insist(|| {
            let call = |mut client: ComputeServiceClient<_>, request| async move { client.describe_instances(request).await };
            self.door.call(ComputeServiceClient::new, &request, call)
        })
        .await;
        answer.unwrap().instances.remove(0).public_ip_address == self.address.public_ip
    }

    /// Waits until the address has moved, and answers how long that took.
    async fn arrives_at(&self, instance: &str) -> Duration {
        let begun = monotonic();
        loop {
            let association = self.association().await;
            if association.state() == AddressAssociationState::Associated {
                let took = begun.elapsed();
                assert_eq!((association.instance_id.as_str(), association.state_reason.as_str()), (instance, ""));
                assert!(self.shown_at(instance).await, "what network has given, compute shows");
                return took;
            }
            assert!(begun.elapsed() < PATIENCE, "the address still waits: {}", association.state_reason);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Moves the address away from the first instance, whose node stands still, and waits until it is said why it waits.
    async fn gets_stuck(&self) {
        self.region.freeze("node-a");
        let association = self.associate(&self.other, "stuck").await;
        assert_eq!((association.state(), association.instance_id.as_str()), (AddressAssociationState::Waiting, self.other.as_str()));
        assert!(association.state_reason.contains(&self.one), "{}", association.state_reason);
        let patience = monotonic() + PATIENCE;
        loop {
            let association = self.association().await;
            assert_eq!(association.state(), AddressAssociationState::Waiting, "nobody has let go");
            assert!(!self.shown_at(&self.other).await, "two hold the address");
            if association.state_reason.contains("not heard of") {
                return;
            }
            assert!(monotonic() < patience, "it is never said that the node is missed: {}", association.state_reason);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn launch_in(door: &Door, image: &str, zone: &str) -> String {
    let mut request = launch(image, zone);
    if let Some(spec) = &mut request.spec {
        spec.placement = Some(PlacementSpec { availability_zone: Some(zone.to_owned()), ..Default::default() });
    }
    let id = run(door, &request).await.instance_id;
    wait_for(door, &id, InstanceState::Running).await;
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_takes_no_longer_than_it_takes_to_let_go() {
    let scene = Scene::new("000000000301").await;
    let mut took = Vec::new();
    for round in 0..20 {
        let target = if round % 2 == 0 { &scene.other } else { &scene.one };
        let begun = monotonic();
        scene.associate(target, &format!("move {round}")).await;
        scene.arrives_at(target).await;
        took.push(begun.elapsed());
    }
    took.sort();
    println!("a move, with the call: median {:?}, slowest {:?}", took[took.len() / 2], took[took.len() - 1]);
    scene.region.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_waits_for_a_node_that_stands_still() {
    let scene = Scene::new("000000000302").await;
    scene.gets_stuck().await;
    scene.region.thaw("node-a");
    let took = scene.arrives_at(&scene.other).await;
    println!("moved {took:?} after the node went on");
    assert!(!scene.shown_at(&scene.one).await);
    scene.region.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_goes_on_when_the_node_is_declared_dead() {
    let mut scene = Scene::new("000000000303").await;
    scene.gets_stuck().await;
    // Also where whoever drives it begins anew.
    scene.region.kill("compute");
    scene.region.restart("compute");
    let mut compute = ComputePeerServiceClient::new(scene.region.client("compute", "000000000303"));
    let patience = monotonic() + PATIENCE;
    loop {
        let nodes = compute.describe_nodes(DescribeNodesRequest::default()).await.unwrap().into_inner().nodes;
        let node = nodes.into_iter().find(|node| node.zone == "a").unwrap();
        let dead = DeclareNodeDeadRequest { node_id: node.node_id, ..Default::default() };
        match compute.declare_node_dead(dead).await {
            Ok(_) => break,
            // It is not lost yet.
            Err(status) => assert!(monotonic() < patience, "{status}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = scene.arrives_at(&scene.other).await;
    println!("moved {took:?} after the node was declared dead");
    scene.region.thaw("node-a");
    scene.region.finish();
}
