//! The life of an instance.

use gureum_proto::{
    compute::v1::{self as proto, InstanceState},
    network::v1 as network,
    node::v1::{self as node, inject_fault_request::Fault},
};

use crate::region::{Options, Region, reason, run, spec, until};

fn stop(id: &str) -> proto::StopInstancesRequest {
    proto::StopInstancesRequest { instance_ids: vec![id.to_owned()], ..Default::default() }
}

fn start(id: &str) -> proto::StartInstancesRequest {
    proto::StartInstancesRequest { instance_ids: vec![id.to_owned()], ..Default::default() }
}

pub fn terminate(ids: &[&str]) -> proto::TerminateInstancesRequest {
    proto::TerminateInstancesRequest { instance_ids: ids.iter().map(|id| (*id).to_owned()).collect(), ..Default::default() }
}

#[tokio::test]
async fn from_launch_to_termination() {
    let region = Region::start(Options::default()).await;
    let mut compute = region.compute();
    let launched = region.launch(1).await.remove(0);
    assert_eq!(launched.state(), InstanceState::Pending);
    assert!(!launched.private_ip_address.is_empty() && !launched.public_ip_address.is_empty());
    assert_eq!(launched.block_device_mappings.len(), 1);
    let id = launched.instance_id.as_str();

    let running = region.until_instance(id, InstanceState::Running).await;
    assert_eq!(running.public_ip_address, launched.public_ip_address);
    let asked = proto::GetConsoleOutputRequest { instance_id: id.to_owned(), latest: false };
    let console = compute.get_console_output(asked).await.unwrap().into_inner();
    assert!(!console.output.is_empty() && console.update_time.is_some());
    let statuses = compute.describe_instance_status(proto::DescribeInstanceStatusRequest::default()).await.unwrap().into_inner();
    assert_eq!(statuses.instance_statuses[0].instance_status.unwrap().status(), proto::CheckStatus::Ok);

    let changes = compute.stop_instances(stop(id)).await.unwrap().into_inner().changes;
    assert_eq!((changes[0].previous_state(), changes[0].current_state()), (InstanceState::Running, InstanceState::Stopping));
    let stopped = region.until_instance(id, InstanceState::Stopped).await;
    assert_eq!(stopped.public_ip_address, "");
    assert_eq!(stopped.private_ip_address, launched.private_ip_address);
    assert_eq!(stopped.state_reason.unwrap().code, "Client.UserInitiatedShutdown");
    assert_eq!(region.promised().await, 0);

    compute.start_instances(start(id)).await.unwrap();
    let again = region.until_instance(id, InstanceState::Running).await;
    assert!(!again.public_ip_address.is_empty());
    assert_eq!(again.private_ip_address, launched.private_ip_address);

    compute.reboot_instances(proto::RebootInstancesRequest { instance_ids: vec![id.to_owned()], ..Default::default() }).await.unwrap();
    assert_eq!(region.instance(id).await.state(), InstanceState::Running);

    compute.terminate_instances(terminate(&[id])).await.unwrap();
    let gone = region.until_instance(id, InstanceState::Terminated).await;
    assert!(gone.network_interfaces.is_empty() && gone.block_device_mappings.is_empty());
    assert_eq!((region.interfaces().await, region.promised().await), (0, 0));
    // The node was let to forget it.
    until("the node's memory", async || {
        let mut left = 0;
        for zone in ['a', 'b', 'c'] {
            let known = region.node(zone).describe_node_instances(node::DescribeNodeInstancesRequest::default()).await.unwrap();
            left += known.into_inner().instances.len();
        }
        left == 0
    })
    .await;
}

#[tokio::test]
async fn refusals_of_states_have_ec2s_codes() {
    let region = Region::start(Options::default()).await;
    let mut compute = region.compute();
    let mut request = run(1);
    request.spec = Some(proto::LaunchSpec { disable_api_termination: Some(true), disable_api_stop: Some(true), ..spec() });
    let id = compute.run_instances(request).await.unwrap().into_inner().instances.remove(0).instance_id;
    region.until_instance(&id, InstanceState::Running).await;
    assert_eq!(reason(&compute.terminate_instances(terminate(&[&id])).await.unwrap_err()), "OperationNotPermitted");
    assert_eq!(reason(&compute.stop_instances(stop(&id)).await.unwrap_err()), "OperationNotPermitted");
    let hibernate = proto::StopInstancesRequest { hibernate: true, ..stop(&id) };
    assert_eq!(reason(&compute.stop_instances(hibernate).await.unwrap_err()), "UnsupportedOperation");
    let missing = ["i-00000000000000001", "i-00000000000000002"];
    let refused = compute.terminate_instances(terminate(&missing)).await.unwrap_err();
    assert_eq!(reason(&refused), "InvalidInstanceID.NotFound");
    assert!(missing.iter().all(|id| refused.message().contains(id)));
    assert_eq!(reason(&compute.stop_instances(stop("i-x")).await.unwrap_err()), "InvalidInstanceID.Malformed");
    // All or nothing.
    let second = region.running().await.instance_id;
    assert!(compute.terminate_instances(terminate(&[&second, &id])).await.is_err());
    assert_eq!(region.instance(&second).await.state(), InstanceState::Running);
    // What runs already is left as it is.
    let changes = compute.start_instances(start(&second)).await.unwrap().into_inner().changes;
    assert_eq!((changes[0].previous_state(), changes[0].current_state()), (InstanceState::Running, InstanceState::Running));
}

#[tokio::test]
async fn its_own_shutdown_stops_or_terminates_it() {
    let region = Region::start(Options { zones: "a", ..Options::default() }).await;
    let mut compute = region.compute();
    let stopping = region.running().await.instance_id;
    let mut request = run(1);
    request.spec = Some(proto::LaunchSpec { instance_initiated_shutdown_behavior: proto::ShutdownBehavior::Terminate.into(), ..spec() });
    let ending = compute.run_instances(request).await.unwrap().into_inner().instances.remove(0).instance_id;
    region.until_instance(&ending, InstanceState::Running).await;
    for id in [&stopping, &ending] {
        let fault = Fault::ShutDownInstance(node::ShutDownInstance { instance_id: id.clone() });
        region.node('a').inject_fault(node::InjectFaultRequest { fault: Some(fault) }).await.unwrap();
    }
    let stopped = region.until_instance(&stopping, InstanceState::Stopped).await;
    assert_eq!(stopped.state_reason.unwrap().code, "Client.InstanceInitiatedShutdown");
    region.until_instance(&ending, InstanceState::Terminated).await;
    // And it starts again.
    compute.start_instances(start(&stopping)).await.unwrap();
    region.until_instance(&stopping, InstanceState::Running).await;
}

#[tokio::test]
async fn a_boot_that_fails_undoes_the_launch() {
    let region = Region::start(Options { zones: "a", ..Options::default() }).await;
    let fault = Fault::FailBoots(node::FailBoots { count: 1, instance_id: String::new(), message: "no disk".to_owned() });
    region.node('a').inject_fault(node::InjectFaultRequest { fault: Some(fault) }).await.unwrap();
    let id = region.launch(1).await.remove(0).instance_id;
    let gone = region.until_instance(&id, InstanceState::Terminated).await;
    let reason = gone.state_reason.unwrap();
    assert_eq!(reason.code, "Server.InternalError");
    assert!(reason.message.contains("no disk"), "{}", reason.message);
    assert_eq!((region.interfaces().await, region.promised().await), (0, 0));
}

#[tokio::test]
async fn an_elastic_ip_shows_and_stays() {
    let region = Region::start(Options::default()).await;
    let (mut compute, mut network) = (region.compute(), region.network());
    let id = region.running().await.instance_id;
    let allocated = network.allocate_address(network::AllocateAddressRequest::default()).await.unwrap().into_inner();
    let address = allocated.address.unwrap();
    let associate =
        network::AssociateAddressRequest { allocation_id: address.allocation_id.clone(), instance_id: id.clone(), ..Default::default() };
    network.associate_address(associate).await.unwrap();
    until("the elastic IP", async || region.instance(&id).await.public_ip_address == address.public_ip).await;
    compute.stop_instances(stop(&id)).await.unwrap();
    let stopped = region.until_instance(&id, InstanceState::Stopped).await;
    assert_eq!(stopped.public_ip_address, address.public_ip);
    compute.start_instances(start(&id)).await.unwrap();
    assert_eq!(region.until_instance(&id, InstanceState::Running).await.public_ip_address, address.public_ip);
}
