//! A service's store that is put back to an earlier state, as whoever restores a backup does: what happens afterwards is
//! told by all, although others have seen more of the service than it knows now.

use std::{collections::BTreeSet, path::Path};

use gureum_proto::{
    compute::v1::{compute_service_client::ComputeServiceClient, *},
    network::v1::{
        WatchAllRequest, network_peer_service_client::NetworkPeerServiceClient, network_service_client::NetworkServiceClient, *,
    },
};
use tonic::Code;

use crate::{
    audit_events,
    harness::{Door, ask, attempt, until},
    region::{LAUNCHABLE, OPERATOR, Shape, image, launch_spec, region_like},
};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

async fn allocate(door: &Door, number: u32) -> String {
    let request = AllocateAddressRequest { client_token: format!("address {number}"), ..Default::default() };
    ask!(door, NetworkServiceClient, allocate_address, request).unwrap().address.unwrap().allocation_id
}

async fn is_told(door: &Door, subject: &str) {
    until(format!("{subject} in the log"), async || {
        let events = audit_events::read(door).await?;
        if events.iter().any(|event| event.subject == subject) { Ok(()) } else { Err(format!("{} events", events.len())) }
    })
    .await;
}

async fn interfaces_of(door: &Door, instance: &str, wanted: usize) {
    until(format!("{instance} with {wanted} interfaces"), async || {
        let request = DescribeInstancesRequest { instance_ids: vec![instance.to_owned()], ..Default::default() };
        // Once only: a reader who is told to come back for ever is a fault, too.
        let answer = attempt!(door, ComputeServiceClient, describe_instances, request).map_err(|status| status.to_string())?;
        let shown = answer.instances[0].network_interfaces.len();
        if shown == wanted { Ok(()) } else { Err(format!("{shown}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_go_on_with_a_service_that_was_put_back() {
    let mut region = region_like(&Shape { zones: &["a"], quick_boots: true, ..Shape::default() });
    region.expect_complaint("the log goes on with a snapshot");
    let door = region.door("240000000001");
    let spec = launch_spec(&image(&door, LAUNCHABLE).await);
    let launch = RunInstancesRequest { client_token: "one".into(), spec: Some(spec), min_count: 1, max_count: 1, ..Default::default() };
    let launched = ask!(door, ComputeServiceClient, run_instances, launch.clone()).unwrap().instances.remove(0);
    let first = allocate(&door, 0).await;
    is_told(&door, &first).await;

    let (directory, backup) = (region.directory("network"), tempfile::tempdir().unwrap());
    region.kill("network");
    copy(&directory, backup.path());
    region.restart("network");
    // What the backup does not know: an interface of the instance, and addresses.
    let make = CreateNetworkInterfaceRequest { subnet_id: launched.subnet_id.clone(), client_token: "two".into(), ..Default::default() };
    let network_interface_id =
        ask!(door, NetworkServiceClient, create_network_interface, make).unwrap().network_interface.unwrap().network_interface_id;
    let attach = AttachNetworkInterfaceRequest {
        network_interface_id,
        instance_id: launched.instance_id.clone(),
        device_index: 1,
        ..Default::default()
    };
    ask!(door, NetworkServiceClient, attach_network_interface, attach).unwrap();
    interfaces_of(&door, &launched.instance_id, 2).await;
    let mut lost = String::new();
    for number in 1..5 {
        lost = allocate(&door, number).await;
    }
    is_told(&door, &lost).await;

    region.kill("network");
    std::fs::remove_dir_all(&directory).unwrap();
    copy(backup.path(), &directory);
    region.restart("network");
    // The service itself refuses a place that it has not come to, and says where it is.
    let mut peer = NetworkPeerServiceClient::new(region.client("network", OPERATOR));
    let refused = peer.watch_all(WatchAllRequest { after_sequence: Some(1_000_000) }).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert!(refused.message().contains("the last one is"), "{refused}");
    interfaces_of(&door, &launched.instance_id, 1).await;
    // Each of them has a sequence that the log has seen as another event's.
    for number in 101..104 {
        let made = allocate(&door, number).await;
        is_told(&door, &made).await;
        let again = ask!(door, ComputeServiceClient, describe_instances, DescribeInstancesRequest::default()).unwrap();
        assert_eq!(again.instances.len(), 1);
    }
    let events = audit_events::read(&door).await.unwrap();
    let ids: BTreeSet<_> = events.iter().map(|event| &event.id).collect();
    assert_eq!(ids.len(), events.len(), "two events have one id");
    let launch = RunInstancesRequest { client_token: "two".into(), ..launch };
    let second = ask!(door, ComputeServiceClient, run_instances, launch).unwrap().instances.remove(0);
    interfaces_of(&door, &second.instance_id, 1).await;
    region.finish();
}
