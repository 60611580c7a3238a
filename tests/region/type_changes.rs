//! An instance may have as many interfaces as its type allows, whatever its type was before.

use std::time::Duration;

use gureum_proto::{
    compute::v1::{compute_service_client::ComputeServiceClient, modify_instance_attribute_request::Change, *},
    network::v1::{network_service_client::NetworkServiceClient, *},
};
use gureum_service::clock::monotonic;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    harness::{Deployment, Door, PATIENCE, ask, attempt, until},
    region::{LAUNCHABLE, Shape, image, launch_spec, region_like},
};

/// Allows two interfaces.
const SMALL: &str = "t3.micro";
/// Allows three.
const LARGE: &str = "t3.medium";

struct Scene {
    door: Door,
    instance: String,
    interfaces: Vec<String>,
}

impl Scene {
    /// A stopped instance of the small type, and interfaces that are free.
    async fn new(region: &Deployment, account: &str, interfaces: usize) -> Self {
        let door = region.door(account);
        let spec = launch_spec(&image(&door, LAUNCHABLE).await);
        let launch = RunInstancesRequest { client_token: "one".into(), spec: Some(spec), min_count: 1, max_count: 1, ..Default::default() };
        let launched = ask!(door, ComputeServiceClient, run_instances, launch).unwrap().instances.remove(0);
        let mut scene = Self { door, instance: launched.instance_id, interfaces: Vec::new() };
        scene.comes_to(InstanceState::Running).await;
        let stop = StopInstancesRequest { instance_ids: vec![scene.instance.clone()], ..Default::default() };
        ask!(scene.door, ComputeServiceClient, stop_instances, stop).unwrap();
        scene.comes_to(InstanceState::Stopped).await;
        for number in 0..interfaces {
            let make = CreateNetworkInterfaceRequest {
                subnet_id: launched.subnet_id.clone(),
                client_token: number.to_string(),
                ..Default::default()
            };
            let made = ask!(scene.door, NetworkServiceClient, create_network_interface, make).unwrap();
            scene.interfaces.push(made.network_interface.unwrap().network_interface_id);
        }
        scene
    }

    async fn instance(&self) -> Instance {
        let request = DescribeInstancesRequest { instance_ids: vec![self.instance.clone()], ..Default::default() };
        ask!(self.door, ComputeServiceClient, describe_instances, request).unwrap().instances.remove(0)
    }

    async fn comes_to(&self, state: InstanceState) {
        until(format!("{} {state:?}", self.instance), async || {
            let it = self.instance().await;
            if it.state() == state { Ok(()) } else { Err(format!("{:?} {}", it.state(), it.waiting_reason)) }
        })
        .await;
    }

    fn change_to(&self, kind: &str) -> ModifyInstanceAttributeRequest {
        ModifyInstanceAttributeRequest {
            instance_id: self.instance.clone(),
            change: Some(Change::InstanceType(kind.into())),
            ..Default::default()
        }
    }

    async fn change(&self, kind: &str) -> Result<(), Status> {
        ask!(self.door, ComputeServiceClient, modify_instance_attribute, self.change_to(kind)).map(drop)
    }

    /// Attaches one of the interfaces; answers the attachment.
    async fn attach(&self, number: usize) -> Result<String, Status> {
        let request = AttachNetworkInterfaceRequest {
            network_interface_id: self.interfaces[number].clone(),
            instance_id: self.instance.clone(),
            device_index: i32::try_from(number).unwrap() + 1,
            ..Default::default()
        };
        ask!(self.door, NetworkServiceClient, attach_network_interface, request).map(|attached| attached.attachment_id)
    }

    async fn detach(&self, attachment_id: String, number: usize) {
        let request = DetachNetworkInterfaceRequest { attachment_id, force: true, ..Default::default() };
        ask!(self.door, NetworkServiceClient, detach_network_interface, request).unwrap();
        until("the interface to be free", async || {
            let all = self.of_network().await;
            let one = all.into_iter().find(|one| one.network_interface_id == self.interfaces[number]).unwrap();
            if one.attachment.is_none() { Ok(()) } else { Err(format!("{:?}", one.attachment)) }
        })
        .await;
    }

    async fn of_network(&self) -> Vec<NetworkInterface> {
        let request = DescribeNetworkInterfacesRequest::default();
        ask!(self.door, NetworkServiceClient, describe_network_interfaces, request).unwrap().network_interfaces
    }

    /// Waits until network knows the limit of the type that the instance has.
    async fn agrees_on(&self, kind: &str, limit: i32) {
        until(format!("{kind} with {limit} interfaces"), async || {
            let is = self.instance().await.instance_type;
            let attached = self.of_network().await.into_iter().filter_map(|one| one.attachment);
            let known: Vec<i32> = attached.map(|attachment| attachment.interface_limit).collect();
            if is == kind && known.iter().all(|known| *known == limit) { Ok(()) } else { Err(format!("{is} with {known:?}")) }
        })
        .await;
    }
}

fn assert_exceeded<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let status = answer.unwrap_err();
    let reason = status.get_details_error_info().map(|info| info.reason);
    assert_eq!((status.code(), reason.as_deref()), (Code::ResourceExhausted, Some("AttachmentLimitExceeded")), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_brings_its_own_limit_of_interfaces() {
    let region = region_like(&Shape { zones: &["a"], quick_boots: true, ..Shape::default() });
    let scene = Scene::new(&region, "210000000001", 3).await;
    scene.attach(0).await.unwrap();
    assert_exceeded(scene.attach(1).await);
    scene.change(LARGE).await.unwrap();
    let second = scene.attach(1).await.unwrap();
    assert_exceeded(scene.attach(2).await);
    // Three are more than the small type allows, and the refused change changes nothing.
    assert_exceeded(scene.change(SMALL).await);
    scene.agrees_on(LARGE, 3).await;
    scene.detach(second, 1).await;
    scene.change(SMALL).await.unwrap();
    assert_exceeded(scene.attach(1).await);
    let start = StartInstancesRequest { instance_ids: vec![scene.instance.clone()], ..Default::default() };
    ask!(scene.door, ComputeServiceClient, start_instances, start).unwrap();
    scene.comes_to(InstanceState::Running).await;
    assert_exceeded(scene.attach(1).await);
    region.finish();
}

/// Network has the new limit and the instance the old type: nobody repeats the call, and they agree all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_change_that_dies_between_its_writes_leaves_the_limit_of_the_type() {
    let mut region = region_like(&Shape { zones: &["a"], quick_boots: true, ..Shape::default() });
    region.expect_complaint("a configured fault strikes");
    let faults = [
        ("compute", "faults=[{ call = \"SetInterfaceLimits\", fault = \"exit\" }]"),
        ("network", "faults=[{ commit = \"NetworkInterfaceChanged\", fault = \"exit\" }]"),
    ];
    for (number, (name, fault)) in faults.into_iter().enumerate() {
        let scene = Scene::new(&region, &format!("21000000001{number}"), 0).await;
        scene.agrees_on(SMALL, 2).await;
        region.kill(name);
        region.restart_with(name, &[fault.to_owned()]);
        // Compute is told UNAVAILABLE where it is network that dies, and so is the caller.
        let answer = attempt!(scene.door, ComputeServiceClient, modify_instance_attribute, scene.change_to(LARGE));
        assert!(answer.is_err(), "{name} did not die: {answer:?}");
        let patience = monotonic() + PATIENCE;
        while !region.has_ended(name) {
            assert!(monotonic() < patience, "{name} did not die");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        region.restart(name);
        scene.agrees_on(SMALL, 2).await;
    }
    region.finish();
}
