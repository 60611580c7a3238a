//! A first day with the region, over the gateway, while every service is killed and started again.

use std::time::Duration;

use gureum_proto::{
    common::v1::{Filter, Tag},
    compute::v1::{compute_service_client::ComputeServiceClient, *},
    gateway::v1::{
        CloudEvent, CreateTagsRequest as TagAll, DescribeTagsRequest as AllTags, SubscribeRequest,
        event_service_client::EventServiceClient, subscribe_response::Message, tagging_service_client::TaggingServiceClient,
    },
    network::v1::{network_service_client::NetworkServiceClient, *},
    security::v1::{security_service_client::SecurityServiceClient, *},
};
use gureum_service::clock::monotonic;
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    harness::{Door, insist},
    region::{kill_all, region},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// The instance once it is in this state.
pub async fn wait_for(door: &Door, id: &str, state: InstanceState) -> Instance {
    let patience = monotonic() + PATIENCE;
    loop {
        let request = DescribeInstancesRequest { instance_ids: vec![id.to_owned()], ..Default::default() };
        let found = insist(|| {
            door.call(ComputeServiceClient::new, &request, |mut client, request| async move { client.describe_instances(request).await })
        })
        .await;
        let instance = found.unwrap().instances.remove(0);
        if instance.state() == state {
            return instance;
        }
        assert!(monotonic() < patience, "{id} is {:?}, not {state:?}: {}", instance.state(), instance.state_transition_reason);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn shipped_image(door: &Door, name: &str) -> String {
    let filter = Filter { name: "name".into(), values: vec![name.into()] };
    let request = DescribeImagesRequest { filters: vec![filter], owners: vec!["amazon".into()], ..Default::default() };
    let found = insist(|| {
        door.call(ComputeServiceClient::new, &request, |mut client, request| async move { client.describe_images(request).await })
    })
    .await;
    found.unwrap().images.remove(0).image_id
}

pub fn launch(image_id: &str, token: &str) -> RunInstancesRequest {
    let spec = LaunchSpec { image_id: Some(image_id.to_owned()), instance_type: Some("t3.micro".into()), ..Default::default() };
    RunInstancesRequest { client_token: token.into(), spec: Some(spec), min_count: 1, max_count: 1, ..Default::default() }
}

pub async fn run(door: &Door, request: &RunInstancesRequest) -> Instance {
    let answer =
        insist(|| door.call(ComputeServiceClient::new, request, |mut client, request| async move { client.run_instances(request).await }))
            .await;
    answer.unwrap().instances.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_lives_through_the_death_of_every_service() {
    let mut region = region();
    let mut door = region.door("000000000101");
    let image = shipped_image(&door, "gureum-shell").await;
    let request = launch(&image, "first");
    let id = run(&door, &request).await.instance_id;
    assert_eq!(wait_for(&door, &id, InstanceState::Running).await.launch_index, 0);

    kill_all(&mut region);
    door = region.door("000000000101");
    let running = wait_for(&door, &id, InstanceState::Running).await;
    assert_eq!(run(&door, &request).await.instance_id, id, "the same token launches nothing more");
    let (private, public) = (running.private_ip_address.clone(), running.public_ip_address.clone());
    assert!(!private.is_empty() && !public.is_empty());

    let stop = StopInstancesRequest { instance_ids: vec![id.clone()], client_token: "stop".into(), ..Default::default() };
    insist(|| door.call(ComputeServiceClient::new, &stop, |mut client, request| async move { client.stop_instances(request).await }))
        .await
        .unwrap();
    let stopped = wait_for(&door, &id, InstanceState::Stopped).await;
    assert_eq!((stopped.private_ip_address.as_str(), stopped.public_ip_address.as_str()), (private.as_str(), ""));

    kill_all(&mut region);
    door = region.door("000000000101");
    let start = StartInstancesRequest { instance_ids: vec![id.clone()], client_token: "start".into(), ..Default::default() };
    insist(|| door.call(ComputeServiceClient::new, &start, |mut client, request| async move { client.start_instances(request).await }))
        .await
        .unwrap();
    let again = wait_for(&door, &id, InstanceState::Running).await;
    assert_eq!(again.private_ip_address, private, "the private address stays");
    assert_ne!(again.public_ip_address, public, "the public one changes");

    let end = TerminateInstancesRequest { instance_ids: vec![id.clone()], client_token: "end".into(), ..Default::default() };
    insist(|| door.call(ComputeServiceClient::new, &end, |mut client, request| async move { client.terminate_instances(request).await }))
        .await
        .unwrap();
    kill_all(&mut region);
    door = region.door("000000000101");
    wait_for(&door, &id, InstanceState::Terminated).await;
    nothing_left(&door).await;
    region.finish();
}

/// No interface and no volume of what was terminated.
pub async fn nothing_left(door: &Door) {
    let interfaces = DescribeNetworkInterfacesRequest::default();
    let found =
        insist(|| {
            door.call(NetworkServiceClient::new, &interfaces, |mut client, request| async move {
                client.describe_network_interfaces(request).await
            })
        })
        .await;
    assert_eq!(found.unwrap().network_interfaces, vec![], "an interface leaked");
    let volumes = DescribeVolumesRequest::default();
    let found = insist(|| {
        door.call(ComputeServiceClient::new, &volumes, |mut client, request| async move { client.describe_volumes(request).await })
    })
    .await;
    assert_eq!(found.unwrap().volumes, vec![], "a volume leaked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_elastic_ip_moves_and_stays() {
    let mut region = region();
    let mut door = region.door("000000000102");
    let image = shipped_image(&door, "gureum-shell").await;
    let (one, other) = (run(&door, &launch(&image, "one")).await.instance_id, run(&door, &launch(&image, "other")).await.instance_id);
    wait_for(&door, &one, InstanceState::Running).await;
    wait_for(&door, &other, InstanceState::Running).await;
    let allocate = AllocateAddressRequest { client_token: "ip".into(), ..Default::default() };
    let address = insist(|| {
        door.call(NetworkServiceClient::new, &allocate, |mut client, request| async move { client.allocate_address(request).await })
    })
    .await;
    let address = address.unwrap().address.unwrap();

    for (target, token, reassociate) in [(&one, "a", false), (&other, "b", true)] {
        let associate = AssociateAddressRequest {
            client_token: token.into(),
            allocation_id: address.allocation_id.clone(),
            instance_id: target.clone(),
            allow_reassociation: reassociate,
            ..Default::default()
        };
        insist(|| {
            door.call(NetworkServiceClient::new, &associate, |mut client, request| async move { client.associate_address(request).await })
        })
        .await
        .unwrap();
        shows_address(&door, target, &address.public_ip).await;
        kill_all(&mut region);
        door = region.door("000000000102");
        shows_address(&door, target, &address.public_ip).await;
    }
    let first = wait_for(&door, &one, InstanceState::Running).await;
    assert_ne!(first.public_ip_address, address.public_ip, "an address never points at two");

    let release = ReleaseAddressRequest { allocation_id: address.allocation_id.clone(), ..Default::default() };
    let refused = door
        .call(NetworkServiceClient::new, &release, |mut client, request| async move { client.release_address(request).await })
        .await
        .unwrap_err();
    assert_eq!(refused.get_details_error_info().map(|info| info.reason).as_deref(), Some("InvalidIPAddress.InUse"));
    region.finish();
}

/// Compute learns of addresses by network's events.
async fn shows_address(door: &Door, id: &str, address: &str) {
    let patience = monotonic() + PATIENCE;
    while wait_for(door, id, InstanceState::Running).await.public_ip_address != address {
        assert!(monotonic() < patience, "{id} never shows {address}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_tells_everything_once_and_refuses_what_is_wrong() {
    let mut region = region();
    let mut door = region.door("000000000103");
    let image = shipped_image(&door, "gureum-shell").await;
    let id = run(&door, &launch(&image, "one")).await.instance_id;
    wait_for(&door, &id, InstanceState::Running).await;
    let before = states(&events(&door, &id, "running").await);
    assert_eq!(before, ["pending", "running"]);
    kill_all(&mut region);
    door = region.door("000000000103");
    let after = events(&door, &id, "running").await;
    assert_eq!(states(&after), before, "no event is lost or told twice in the log");
    assert!(after.windows(2).all(|pair| pair[0].place < pair[1].place));

    let tag = TagAll {
        client_token: "tag".into(),
        resource_ids: vec![id.clone(), default_group(&door).await],
        tags: vec![Tag { key: "Name".into(), value: "both".into() }],
        ..Default::default()
    };
    insist(|| door.call(TaggingServiceClient::new, &tag, |mut client, request| async move { client.create_tags(request).await }))
        .await
        .unwrap();
    let all = AllTags::default();
    let tags =
        insist(|| door.call(TaggingServiceClient::new, &all, |mut client, request| async move { client.describe_tags(request).await }))
            .await
            .unwrap()
            .tags;
    assert_eq!(tags.iter().filter(|tag| tag.key == "Name" && tag.value == "both").count(), 2);

    let other = region.door("000000000104");
    let look = DescribeInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() };
    let refused = insist(|| {
        other.call(ComputeServiceClient::new, &look, |mut client, request| async move { client.describe_instances(request).await })
    })
    .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(refused.get_details_error_info().map(|info| info.reason).as_deref(), Some("InvalidInstanceID.NotFound"));
    let too_many = RunInstancesRequest { max_count: 1001, ..launch(&image, "many") };
    let refused = door
        .call(ComputeServiceClient::new, &too_many, |mut client, request| async move { client.run_instances(request).await })
        .await
        .unwrap_err();
    assert_eq!(refused.get_details_bad_request().unwrap().field_violations[0].field, "max_count");
    region.finish();
}

async fn default_group(door: &Door) -> String {
    let request = DescribeSecurityGroupsRequest::default();
    let found = insist(|| {
        door.call(SecurityServiceClient::new, &request, |mut client, request| async move { client.describe_security_groups(request).await })
    })
    .await;
    found.unwrap().security_groups.remove(0).group_id
}

/// The events of an instance, up to the first that shows this state.
async fn events(door: &Door, id: &str, until: &str) -> Vec<CloudEvent> {
    let filter = gureum_proto::gateway::v1::EventFilter { subjects: vec![id.to_owned()], ..Default::default() };
    let request = SubscribeRequest { filter: Some(filter), after_place: Some(0) };
    let stream = door.call(EventServiceClient::new, &request, |mut client, request| async move { client.subscribe(request).await });
    let mut stream = stream.await.unwrap().into_inner();
    let mut seen = Vec::new();
    loop {
        let next = tokio::time::timeout(PATIENCE, stream.message()).await.expect("an event is missing").unwrap().unwrap();
        if let Some(Message::Event(event)) = next.message {
            let done = state_of(&event) == until;
            seen.push(event);
            if done {
                return seen;
            }
        }
    }
}

fn state_of(event: &CloudEvent) -> String {
    use prost_types::value::Kind;
    let state = event.data.as_ref().and_then(|data| data.fields.get("state")).and_then(|value| value.kind.clone());
    match state {
        Some(Kind::StringValue(name)) => name.trim_start_matches("INSTANCE_STATE_").to_lowercase(),
        _ => String::new(),
    }
}

/// The states in order, each once: an instance's other changes repeat them.
fn states(events: &[CloudEvent]) -> Vec<String> {
    let mut states: Vec<String> = events.iter().map(state_of).collect();
    states.dedup();
    states
}
