//! RunInstances: what it makes, and what it refuses.

use std::collections::BTreeSet;

use gureum_proto::{
    common::v1::Tag,
    compute::v1::{self as proto, InstanceState},
    network::v1 as network,
    security::v1::CreateKeyPairRequest,
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::region::{Options, Region, reason, run, spec};

#[tokio::test]
async fn many_at_once_have_addresses_of_their_own() {
    let region = Region::start(Options::default()).await;
    let launched = region.launch(120).await;
    let addresses: BTreeSet<_> = launched.iter().map(|instance| instance.private_ip_address.clone()).collect();
    let ids: BTreeSet<_> = launched.iter().map(|instance| instance.instance_id.clone()).collect();
    let reservations: BTreeSet<_> = launched.iter().map(|instance| instance.reservation_id.clone()).collect();
    assert_eq!((addresses.len(), ids.len(), reservations.len()), (120, 120, 1));
    region.until_all(120, InstanceState::Running).await;
    assert_eq!(region.interfaces().await, 120);
}

#[tokio::test]
async fn a_token_launches_once_also_at_the_same_time() {
    let region = Region::start(Options::default()).await;
    let request = proto::RunInstancesRequest { client_token: "one".to_owned(), ..run(2) };
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (mut compute, request) = (region.compute(), request.clone());
            tokio::spawn(async move { compute.run_instances(request).await.unwrap().into_inner() })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(region.instances().await.len(), 2);
    let other = proto::RunInstancesRequest { client_token: "one".to_owned(), ..run(3) };
    assert_eq!(reason(&region.compute().run_instances(other).await.unwrap_err()), "IdempotentParameterMismatch");
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let region = Region::start(Options::default()).await;
    let refused = region.compute().run_instances(proto::RunInstancesRequest { dry_run: true, ..run(1) }).await.unwrap_err();
    assert_eq!(reason(&refused), "DryRunOperation");
    assert_eq!((region.instances().await.len(), region.interfaces().await, region.promised().await), (0, 0, 0));
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anything_is_written() {
    let region = Region::start(Options { zones: "a", vcpus: 8, ..Options::default() }).await;
    let mut compute = region.compute();
    let bad = |spec: proto::LaunchSpec| proto::RunInstancesRequest { spec: Some(spec), ..run(1) };
    let cases = [
        (bad(proto::LaunchSpec { image_id: Some("ami-00000000000000001".to_owned()), ..spec() }), "InvalidAMIID.NotFound"),
        (bad(proto::LaunchSpec { image_id: Some("ami-1".to_owned()), ..spec() }), "InvalidAMIID.Malformed"),
        (bad(proto::LaunchSpec { image_id: None, ..spec() }), "MissingParameter"),
        (bad(proto::LaunchSpec { instance_type: Some("t9.huge".to_owned()), ..spec() }), "InvalidParameterValue"),
        (bad(proto::LaunchSpec { instance_type: Some("m6g.large".to_owned()), ..spec() }), "InvalidParameterValue"),
        (bad(proto::LaunchSpec { key_name: Some("nobody".to_owned()), ..spec() }), "InvalidKeyPair.NotFound"),
        (bad(proto::LaunchSpec { subnet_id: Some("subnet-00000000000000001".to_owned()), ..spec() }), "InvalidSubnetID.NotFound"),
        (bad(proto::LaunchSpec { security_group_ids: vec!["sg-00000000000000001".to_owned()], ..spec() }), "InvalidGroup.NotFound"),
        (run(0), "InvalidParameterValue"),
        (proto::RunInstancesRequest { min_count: 3, max_count: 2, ..run(1) }, "InvalidParameterValue"),
        (run(5), "InsufficientInstanceCapacity"),
    ];
    for (request, expected) in cases {
        let refused = compute.run_instances(request).await.unwrap_err();
        assert_eq!(reason(&refused), expected, "{refused}");
    }
    // What is malformed, and what does not exist here and at the peers, in one answer.
    let several = proto::LaunchSpec {
        instance_type: Some("t9.huge".to_owned()),
        image_id: Some("ami-00000000000000001".to_owned()),
        key_name: Some("nobody".to_owned()),
        ..spec()
    };
    let refused = compute.run_instances(bad(several)).await.unwrap_err();
    let fields = refused.get_details_bad_request().unwrap().field_violations.into_iter().map(|it| it.field).collect::<Vec<_>>();
    assert_eq!(fields, ["spec.instance_type", "spec.image_id", "spec.key_name"], "{refused}");
    let elsewhere =
        proto::LaunchSpec { key_name: Some("nobody".to_owned()), subnet_id: Some("subnet-00000000000000001".to_owned()), ..spec() };
    let refused = compute.run_instances(bad(elsewhere)).await.unwrap_err();
    assert_eq!(reason(&refused), "InvalidKeyPair.NotFound");
    assert!(["'nobody'", "subnet-00000000000000001"].iter().all(|name| refused.message().contains(name)), "{refused}");
    let long = proto::LaunchSpec { user_data: Some(vec![0; 16 * 1024 + 1]), ..spec() };
    assert_eq!(compute.run_instances(bad(long)).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!((region.instances().await.len(), region.interfaces().await, region.promised().await), (0, 0, 0));
    // As many as there is room for, where that is enough.
    let some = proto::RunInstancesRequest { min_count: 1, max_count: 9, ..run(1) };
    assert_eq!(compute.run_instances(some).await.unwrap().into_inner().instances.len(), 4);
}

#[tokio::test]
async fn keys_tags_and_volumes_go_along() {
    let region = Region::start(Options::default()).await;
    let made = region.security().create_key_pair(CreateKeyPairRequest { key_name: "mine".to_owned(), ..Default::default() }).await;
    assert!(made.is_ok());
    let tags = |kind: &str| proto::TagSpecification {
        resource_type: kind.to_owned(),
        tags: vec![Tag { key: "of".to_owned(), value: kind.to_owned() }],
    };
    let data = proto::EbsBlockDevice { size_gib: Some(20), ..Default::default() };
    let mapping =
        proto::BlockDeviceMapping { device_name: "/dev/sdf".to_owned(), device: Some(proto::block_device_mapping::Device::Ebs(data)) };
    let request = proto::RunInstancesRequest {
        spec: Some(proto::LaunchSpec {
            key_name: Some("mine".to_owned()),
            tag_specifications: vec![tags("instance"), tags("volume")],
            block_device_mappings: vec![mapping],
            ..spec()
        }),
        ..run(1)
    };
    let launched = region.compute().run_instances(request).await.unwrap().into_inner().instances.remove(0);
    assert_eq!(launched.key_name, "mine");
    assert_eq!(launched.tags, [Tag { key: "of".to_owned(), value: "instance".to_owned() }]);
    let devices: Vec<_> = launched.block_device_mappings.iter().map(|mapping| mapping.device_name.as_str()).collect();
    assert_eq!(devices, ["/dev/xvda", "/dev/sdf"]);
    region.until_instance(&launched.instance_id, InstanceState::Running).await;
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let region = Region::start(Options::default()).await;
    let launched = region.launch(7).await;
    region.until_all(7, InstanceState::Running).await;
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = proto::DescribeInstancesRequest { page_size: 3, page_token, ..Default::default() };
        let answer = region.compute().describe_instances(request).await.unwrap().into_inner();
        seen.extend(answer.instances.into_iter().map(|instance| instance.instance_id));
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let mut expected: Vec<_> = launched.iter().map(|instance| instance.instance_id.clone()).collect();
    expected.sort();
    assert_eq!(seen, expected);
    let filtered = async |name: &str, value: &str| {
        let filter = gureum_proto::common::v1::Filter { name: name.to_owned(), values: vec![value.to_owned()] };
        let request = proto::DescribeInstancesRequest { filters: vec![filter], ..Default::default() };
        region.compute().describe_instances(request).await.map(|answer| answer.into_inner().instances.len())
    };
    assert_eq!(filtered("private-ip-address", &launched[3].private_ip_address).await.unwrap(), 1);
    assert_eq!(filtered("reservation-id", &launched[0].reservation_id).await.unwrap(), 7);
    assert_eq!(filtered("instance-state-name", "stop*").await.unwrap(), 0);
    assert_eq!(reason(&filtered("colour", "red").await.unwrap_err()), "InvalidParameterValue");
}

#[tokio::test]
async fn a_limit_holds() {
    let options = Options::default();
    let compute = gureum_compute::settings::Settings { instance_limit: Some(3), ..options.compute.clone() };
    let region = Region::start(Options { compute, ..options }).await;
    region.launch(2).await;
    assert_eq!(reason(&region.compute().run_instances(run(2)).await.unwrap_err()), "InstanceLimitExceeded");
    region.launch(1).await;
}

/// A subnet with eleven addresses.
async fn small_subnet(region: &Region) -> String {
    let vpc = network::CreateVpcRequest { cidr_block: "10.9.0.0/16".to_owned(), ..Default::default() };
    let vpc_id = region.network().create_vpc(vpc).await.unwrap().into_inner().vpc.unwrap().vpc_id;
    let subnet = network::CreateSubnetRequest {
        vpc_id,
        cidr_block: "10.9.0.0/28".to_owned(),
        availability_zone: "us-east-1a".to_owned(),
        ..Default::default()
    };
    region.network().create_subnet(subnet).await.unwrap().into_inner().subnet.unwrap().subnet_id
}

fn into_subnet(subnet: &str, min_count: i32, max_count: i32) -> proto::RunInstancesRequest {
    let spec = proto::LaunchSpec { subnet_id: Some(subnet.to_owned()), ..spec() };
    proto::RunInstancesRequest { spec: Some(spec), min_count, max_count, ..run(1) }
}

#[tokio::test]
async fn as_many_are_launched_as_a_subnet_has_addresses_for() {
    let region = Region::start(Options { zones: "a", ..Options::default() }).await;
    let subnet = small_subnet(&region).await;
    let refused = region.compute().run_instances(into_subnet(&subnet, 12, 20)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "InsufficientFreeAddressesInSubnet"));
    assert_eq!((region.instances().await.len(), region.interfaces().await, region.promised().await), (0, 0, 0));
    let launched = region.compute().run_instances(into_subnet(&subnet, 11, 20)).await.unwrap().into_inner().instances;
    let indexes: Vec<_> = launched.iter().map(|instance| instance.launch_index).collect();
    assert_eq!(indexes, (0..11).collect::<Vec<_>>());
    assert_eq!(region.interfaces().await, 11);
    let refused = region.compute().run_instances(into_subnet(&subnet, 1, 1)).await.unwrap_err();
    assert_eq!(reason(&refused), "InsufficientFreeAddressesInSubnet");
    region.until_all(11, InstanceState::Running).await;
}

#[tokio::test]
async fn launches_that_race_for_a_subnets_addresses_share_them() {
    let region = Region::start(Options { zones: "a", ..Options::default() }).await;
    let subnet = small_subnet(&region).await;
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let (mut compute, request) = (region.compute(), into_subnet(&subnet, 1, 5));
            tokio::spawn(async move { compute.run_instances(request).await })
        })
        .collect();
    let mut launched = 0;
    for call in calls {
        launched += call.await.unwrap().unwrap().into_inner().instances.len();
    }
    assert_eq!((launched, region.interfaces().await), (11, 11));
    region.until_all(11, InstanceState::Running).await;
    assert_eq!(region.promised().await, 11 * 2_000);
}
