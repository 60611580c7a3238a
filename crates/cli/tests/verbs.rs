//! The program against a region that answers what the test says: what it asks, prints, and ends with.

mod region;

use std::sync::atomic::{AtomicUsize, Ordering};

use gureum_proto::{
    compute::v1::{
        DescribeImagesRequest, DescribeImagesResponse, DescribeInstanceTypesResponse, DescribeInstancesRequest, DescribeInstancesResponse,
        Event, Image, Instance, InstanceState, InstanceTypeInfo, ProcessorInfo, RunInstancesRequest, RunInstancesResponse, WatchResponse,
        event,
    },
    gateway::v1::{CloudEvent, GetClockResponse, SubscribeRequest, SubscribeResponse, subscribe_response},
};
use prost::Message;
use region::{Answer, Call, Region};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

fn instance(number: usize, state: InstanceState) -> Instance {
    Instance { instance_id: format!("i-{number:017x}"), state: state.into(), ..Default::default() }
}

fn instances(instances: Vec<Instance>) -> Answer {
    Answer::one(&DescribeInstancesResponse { instances, ..Default::default() })
}

fn clock() -> Answer {
    Answer::one(&GetClockResponse { now: Some(prost_types::Timestamp { seconds: 1_767_225_660, nanos: 0 }), setting: "virtual".into() })
}

fn unknown(call: &Call) -> Answer {
    Answer::refused(Status::unimplemented(call.method.clone()))
}

#[tokio::test]
async fn a_list_takes_all_pages_and_carries_the_scope() {
    let region = Region::start(|call| match call.method.as_str() {
        "DescribeInstances" => {
            let request = DescribeInstancesRequest::decode(call.message.clone()).unwrap();
            let page: usize = request.page_token.parse().unwrap_or(0);
            let next_page_token = if page < 2 { (page + 1).to_string() } else { String::new() };
            Answer::one(&DescribeInstancesResponse { instances: vec![instance(page, InstanceState::Running)], next_page_token })
        }
        _ => unknown(call),
    })
    .await;
    let variables = [("GUREUM_ACCESS_KEY", "AK:secret")];
    let run = region.run_with("ps -o id --account 000000000007 --region eu-west-1", &variables).await;
    assert_eq!(run.stdout, "i-00000000000000000\ni-00000000000000001\ni-00000000000000002\n", "{run:?}");
    assert_eq!(run.code, Some(0));
    let calls = region.calls("DescribeInstances");
    assert_eq!(calls.len(), 3);
    assert_eq!(calls[2].metadata["gureum-account"], "000000000007");
    assert_eq!(calls[2].metadata["gureum-region"], "eu-west-1");
    assert_eq!(calls[2].metadata["authorization"], "Bearer AK:secret");
    let request = DescribeInstancesRequest::decode(calls[0].message.clone()).unwrap();
    assert_eq!(request.filters[0].name, "instance-state-name");
    assert!(!request.filters[0].values.contains(&"terminated".to_owned()));
}

#[tokio::test]
async fn a_refusal_tells_reason_and_violations_and_ends_with_1() {
    let region = Region::start(|_| {
        let mut details = ErrorDetails::with_error_info("InvalidParameterValue", "gureum", []);
        details.set_bad_request(vec![FieldViolation::new("spec.instance_type", "there is no type x9.huge")]);
        Answer::refused(Status::with_error_details(Code::InvalidArgument, "the launch is not valid", details))
    })
    .await;
    let run = region.run("launch --image ami-00000000000000001 --type x9.huge").await;
    assert_eq!(run.code, Some(1), "{run:?}");
    assert_eq!(run.stdout, "");
    assert_eq!(run.stderr, "error: InvalidParameterValue: the launch is not valid\n  spec.instance_type: there is no type x9.huge\n");
    let run = region.run("launch --image ami-00000000000000001 --type x9.huge -o json").await;
    assert!(run.stderr.contains("\"reason\": \"InvalidParameterValue\""), "{run:?}");
}

#[tokio::test]
async fn usage_and_absence_have_their_own_exit_codes() {
    let region = Region::start(unknown).await;
    assert_eq!(region.run("launch --count 0").await.code, Some(2));
    assert_eq!(region.run("keys import a @/nowhere").await.code, Some(2));
    let run = region.run("ps --endpoint http://127.0.0.1:1").await;
    assert_eq!(run.code, Some(3), "{run:?}");
    assert!(run.stderr.contains("no region answers at http://127.0.0.1:1"), "{run:?}");
    assert_eq!(region.run("ps --endpoint nonsense").await.code, Some(2));
}

#[tokio::test]
async fn a_launch_waits_for_events_until_all_run() {
    let looks = AtomicUsize::new(0);
    let region = Region::start(move |call| match call.method.as_str() {
        "RunInstances" => Answer::one(&RunInstancesResponse {
            instances: vec![instance(1, InstanceState::Pending), instance(2, InstanceState::Pending)],
            ..Default::default()
        }),
        "Subscribe" => {
            let request = SubscribeRequest::decode(call.message.clone()).unwrap();
            assert_eq!(request.filter.unwrap().subjects.len(), 2);
            let told = |message| SubscribeResponse { message: Some(message) }.encode_to_vec();
            let (caught_up, event) =
                (subscribe_response::Message::CaughtUpToPlace(1), subscribe_response::Message::Event(CloudEvent::default()));
            Answer { messages: vec![told(caught_up), told(event.clone()), told(event)], end: None }
        }
        // One more runs at each look; what runs already is not asked for again.
        "DescribeInstances" => match looks.fetch_add(1, Ordering::SeqCst) {
            0 => instances(vec![instance(1, InstanceState::Pending), instance(2, InstanceState::Pending)]),
            1 => instances(vec![instance(1, InstanceState::Pending), instance(2, InstanceState::Running)]),
            _ => {
                let request = DescribeInstancesRequest::decode(call.message.clone()).unwrap();
                assert_eq!(request.instance_ids, ["i-00000000000000001"]);
                instances(vec![instance(1, InstanceState::Running)])
            }
        },
        "GetClock" => clock(),
        _ => unknown(call),
    })
    .await;
    let run = region.run("launch --image ami-00000000000000001 --type t3.micro --count 2 --wait").await;
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(run.stdout.lines().filter(|line| line.contains("running")).count(), 2, "{run:?}");
}

#[tokio::test]
async fn a_wait_that_cannot_succeed_shows_what_is_and_ends_with_1() {
    let region = Region::start(|call| match call.method.as_str() {
        "RunInstances" => Answer::one(&RunInstancesResponse { instances: vec![instance(1, InstanceState::Pending)], ..Default::default() }),
        "DescribeInstances" => instances(vec![instance(1, InstanceState::Terminated)]),
        _ => unknown(call),
    })
    .await;
    let run = region.run("launch --image ami-00000000000000001 --type t3.micro --wait -o id").await;
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), "i-00000000000000001\n"), "{run:?}");
    assert!(run.stderr.contains("i-00000000000000001 is terminated"), "{run:?}");
}

#[tokio::test]
async fn a_name_finds_its_instance_or_says_why_not() {
    let region = Region::start(|call| match call.method.as_str() {
        "DescribeInstances" => {
            let request = DescribeInstancesRequest::decode(call.message.clone()).unwrap();
            match request.filters[0].values[0].as_str() {
                "web" => instances(vec![instance(1, InstanceState::Running)]),
                "many" => instances(vec![instance(1, InstanceState::Running), instance(2, InstanceState::Running)]),
                _ => instances(Vec::new()),
            }
        }
        "RebootInstances" => Answer::one(&gureum_proto::compute::v1::RebootInstancesResponse {}),
        _ => unknown(call),
    })
    .await;
    assert_eq!(region.run("reboot web -o id").await.stdout, "i-00000000000000001\n");
    assert_eq!(region.run("reboot stage=many").await.stdout, "i-00000000000000001 reboots\ni-00000000000000002 reboots\n");
    let run = region.run("reboot many").await;
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("2 instances are named \"many\": i-00000000000000001, i-00000000000000002"), "{run:?}");
    let run = region.run("reboot gone").await;
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.starts_with("error: InvalidInstanceID.NotFound: "), "{run:?}");
}

#[tokio::test]
async fn a_watch_goes_on_from_the_list() {
    let region = Region::start(|call| match call.method.as_str() {
        "Watch" => {
            use gureum_proto::compute::v1::watch_response::Message::{CaughtUpToSequence, Event as Told};
            let event = |number, state| {
                let resource = Some(event::Resource::Instance(instance(number, state)));
                WatchResponse { message: Some(Told(Event { metadata: None, resource })) }.encode_to_vec()
            };
            let caught_up = WatchResponse { message: Some(CaughtUpToSequence(5)) }.encode_to_vec();
            let mut unseen = instance(1, InstanceState::Pending);
            unseen.generation = 7;
            let unseen = Event { metadata: None, resource: Some(event::Resource::Instance(unseen)) };
            let unseen = WatchResponse { message: Some(Told(unseen)) }.encode_to_vec();
            let messages = vec![event(1, InstanceState::Pending), caught_up, unseen, event(1, InstanceState::Running)];
            Answer { messages, end: Some(Status::unavailable("going down")) }
        }
        "DescribeInstances" => instances(vec![instance(1, InstanceState::Pending)]),
        "GetClock" => clock(),
        _ => unknown(call),
    })
    .await;
    let run = region.run("ps --watch").await;
    let states: Vec<_> = run.stdout.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(states, ["STATE", "pending", "running"], "a row that says nothing new is shown: {run:?}");
    assert_eq!(run.code, Some(3), "{run:?}");
    let run = region.run("ps --watch -o json").await;
    assert_eq!(run.stdout.lines().count(), 3, "JSON shows every field: {run:?}");
}

#[tokio::test]
async fn a_broken_event_stream_is_taken_up_where_it_broke() {
    let told = |place| {
        let event = CloudEvent { id: format!("evt-{place}"), place, ..Default::default() };
        SubscribeResponse { message: Some(subscribe_response::Message::Event(event)) }.encode_to_vec()
    };
    let region = Region::start(move |call| match SubscribeRequest::decode(call.message.clone()).unwrap().after_place {
        Some(0) => Answer { messages: vec![told(1), told(2)], end: Some(Status::unavailable("going down")) },
        Some(2) => Answer { messages: vec![told(3)], end: None },
        other => panic!("asked for what is behind {other:?}"),
    })
    .await;
    let run = region.run("events --follow --after 0 --limit 3 -o id").await;
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "evt-1\nevt-2\nevt-3\n"), "{run:?}");
}

#[tokio::test]
async fn a_reader_that_has_enough_is_no_fault() {
    let region = Region::start(|call| match call.method.as_str() {
        "DescribeInstances" => instances((0..20_000).map(|number| instance(number, InstanceState::Running)).collect()),
        _ => unknown(call),
    })
    .await;
    let script = format!("set -o pipefail; '{}' ps | head -n 1", env!("CARGO_BIN_EXE_gureum"));
    let output =
        tokio::process::Command::new("bash").args(["-c", &script]).env("GUREUM_ENDPOINT", &region.endpoint).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.stdout.starts_with(b"ID "), "{output:?}");
}

#[tokio::test]
async fn a_private_key_goes_to_a_file_of_its_own_or_nowhere() {
    use gureum_proto::security::v1::{CreateKeyPairResponse, KeyPair};
    let region = Region::start(|call| match call.method.as_str() {
        "CreateKeyPair" if call.message.windows(5).any(|part| part == b"taken") => Answer::refused(Status::already_exists("it is taken")),
        "CreateKeyPair" => {
            let key_pair = Some(KeyPair { key_pair_id: "key-00000000000000001".into(), key_name: "ops".into(), ..Default::default() });
            Answer::one(&CreateKeyPairResponse { key_pair, key_material: "secret\n".into() })
        }
        _ => unknown(call),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ops.pem");
    let run = region.run(&format!("keys create ops --out {} -o json", path.display())).await;
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(!run.stdout.contains("secret"), "{run:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "secret\n");
    assert_eq!(region.run(&format!("keys create ops --out {}", path.display())).await.code, Some(2));
    assert_eq!(region.calls("CreateKeyPair").len(), 1);
    let run = region.run("keys create ops -o id").await;
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{run:?}");
    assert!(run.stderr.contains("add --out FILE"), "{run:?}");
    assert_eq!(region.calls("CreateKeyPair").len(), 1);
    let third = folder.path().join("third.pem");
    let run = region.run(&format!("keys create ops --out {} -o id", third.display())).await;
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "key-00000000000000001\n"), "{run:?}");
    assert_eq!(std::fs::read_to_string(&third).unwrap(), "secret\n");
    let other = folder.path().join("other.pem");
    assert_eq!(region.run(&format!("keys create taken --out {}", other.display())).await.code, Some(1));
    assert!(!other.exists());
}

#[tokio::test]
async fn whatever_has_an_id_is_described_by_it() {
    let region = Region::start(unknown).await;
    let kinds = [
        ("i", "DescribeInstances"),
        ("vol", "DescribeVolumes"),
        ("snap", "DescribeSnapshots"),
        ("ami", "DescribeImages"),
        ("lt", "DescribeLaunchTemplates"),
        ("sg", "DescribeSecurityGroups"),
        ("sgr", "DescribeSecurityGroupRules"),
        ("key", "DescribeKeyPairs"),
        ("pl", "DescribeManagedPrefixLists"),
        ("vpc", "DescribeVpcs"),
        ("subnet", "DescribeSubnets"),
        ("eni", "DescribeNetworkInterfaces"),
        ("eni-attach", "DescribeNetworkInterfaces"),
        ("eipalloc", "DescribeAddresses"),
        ("eipassoc", "DescribeAddresses"),
        ("igw", "DescribeInternetGateways"),
        ("rtb", "DescribeRouteTables"),
        ("rtbassoc", "DescribeRouteTables"),
        ("wh", "DescribeWebhooks"),
    ];
    for (kind, method) in kinds {
        let run = region.run(&format!("describe {kind}-00000000000000001")).await;
        assert_eq!(run.stderr, format!("error: {method} (UNIMPLEMENTED)\n"), "{kind}");
    }
}

#[tokio::test]
async fn zones_are_described_by_name_and_what_is_not_known_says_what_is() {
    use gureum_proto::network::v1::{AvailabilityZone, DescribeAvailabilityZonesRequest, DescribeAvailabilityZonesResponse};
    let region = Region::start(|call| match call.method.as_str() {
        "DescribeAvailabilityZones" => {
            let request = DescribeAvailabilityZonesRequest::decode(call.message.clone()).unwrap();
            let found = request.filters[0].values == ["us-east-1a"];
            let zone = AvailabilityZone { zone_name: "us-east-1a".into(), zone_id: "use1-az1".into(), ..Default::default() };
            Answer::one(&DescribeAvailabilityZonesResponse {
                availability_zones: if found { vec![zone] } else { Vec::new() },
                ..Default::default()
            })
        }
        "DescribeInstances" => instances(Vec::new()),
        "GetClock" => clock(),
        _ => unknown(call),
    })
    .await;
    let run = region.run("describe us-east-1a").await;
    assert!(run.stdout.contains("zone id: use1-az1\n"), "{run:?}");
    for absent in ["acl-00000000000000001", "web-1b"] {
        let run = region.run(&format!("describe {absent}")).await;
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.stderr.contains(absent) && run.stderr.contains("ids begin with i-, vol-, "), "{run:?}");
    }
}

/// The images whose names match the filter, which is plain or ends in a star, of the wanted architectures.
fn shipped(call: &Call) -> Answer {
    let request = DescribeImagesRequest::decode(call.message.clone()).expect("it is a request for images");
    let wanted = |name: &str| request.filters.iter().find(|filter| filter.name == name).map(|filter| filter.values.clone());
    let pattern = wanted("name").expect("they are asked for by name").remove(0);
    let (architectures, public) = (wanted("architecture"), wanted("is-public").is_some());
    let images = [
        ("ami-1", "al2023-ami-2023.6-x86_64", "x86_64", true),
        ("ami-2", "al2023-ami-2023.6-arm64", "arm64", true),
        ("ami-3", "ubuntu-jammy-22.04-arm64", "arm64", true),
        ("ami-4", "ubuntu-noble-24.04-arm64", "arm64", true),
        ("ami-5", "ubuntu-own", "arm64", false),
    ];
    let fits = |name: &str| pattern.strip_suffix('*').map_or(name == pattern, |start| name.starts_with(start));
    let images = images.into_iter().filter(|(_, name, architecture, all)| {
        fits(name) && (*all || !public) && architectures.as_ref().is_none_or(|wanted| wanted.contains(&(*architecture).to_owned()))
    });
    let image = |(id, name, architecture, public): (&str, &str, &str, bool)| Image {
        image_id: id.into(),
        name: name.into(),
        description: name.into(),
        architecture: architecture.into(),
        public,
        ..Default::default()
    };
    Answer::one(&DescribeImagesResponse { images: images.map(image).collect(), ..Default::default() })
}

#[tokio::test]
async fn an_image_is_found_by_how_its_name_begins_and_for_the_type() {
    let region = Region::start(|call| match call.method.as_str() {
        "DescribeImages" => shipped(call),
        "DescribeInstanceTypes" => {
            let arm = call.message.windows(3).any(|part| part == b"t4g");
            let supported_architectures = vec![if arm { "arm64".to_owned() } else { "x86_64".to_owned() }];
            let processor_info = Some(ProcessorInfo { supported_architectures, ..Default::default() });
            let instance_types = vec![InstanceTypeInfo { processor_info, ..Default::default() }];
            Answer::one(&DescribeInstanceTypesResponse { instance_types, ..Default::default() })
        }
        "RunInstances" => Answer::one(&RunInstancesResponse { instances: vec![instance(1, InstanceState::Pending)], ..Default::default() }),
        "GetClock" => clock(),
        _ => unknown(call),
    })
    .await;
    let launched = async |line: &str| {
        let run = region.run(&format!("launch {line}")).await;
        let request = region.calls("RunInstances").pop().map(|call| RunInstancesRequest::decode(call.message).unwrap());
        (request.and_then(|request| request.spec?.image_id).unwrap_or_default(), run)
    };
    let cases = [
        ("-i al2023 -t t4g.micro", "ami-2"),
        ("-i al2023 -t t3.micro", "ami-1"),
        ("-i al2023-* -t t4g.micro", "ami-2"),
        ("-i ubuntu-own -t t4g.micro", "ami-5"),
    ];
    for (line, expected) in cases {
        let (image, run) = launched(line).await;
        assert_eq!((image.as_str(), run.stderr.as_str()), (expected, ""), "{line}: {run:?}");
    }
    let (image, run) = launched("-i ubuntu -t t4g.micro").await;
    assert_eq!(image, "ami-4");
    assert_eq!(run.stderr, "note: \"ubuntu\" may be one of 2 images; taken is ubuntu-noble-24.04-arm64 (ami-4)\n");
    let (_, run) = launched("-i ubuntu -t t3.micro").await;
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains("is named \"ubuntu*\" and for x86_64, which t3.micro has"), "{run:?}");
    assert_eq!(region.run("launch --type t3.micro --image ").await.code, Some(2));
}

#[tokio::test]
async fn a_move_is_waited_for_until_the_address_points_at_its_new_instance() {
    use gureum_proto::network::v1::{
        Address, AddressAssociation, AddressAssociationState, AssociateAddressResponse, DescribeAddressesResponse,
    };
    let address = |state: AddressAssociationState| Address {
        allocation_id: "eipalloc-00000000000000001".into(),
        public_ip: "127.2.0.7".into(),
        association: Some(AddressAssociation {
            association_id: "eipassoc-00000000000000001".into(),
            instance_id: "i-00000000000000002".into(),
            state: state.into(),
            state_reason: if state == AddressAssociationState::Waiting { "i-1 still has it".into() } else { String::new() },
            ..Default::default()
        }),
        ..Default::default()
    };
    let looks = AtomicUsize::new(0);
    let region = Region::start(move |call| match call.method.as_str() {
        // The first one looks for the allocation.
        "DescribeAddresses" => {
            let settled = looks.fetch_add(1, Ordering::SeqCst) == 2;
            let state = if settled { AddressAssociationState::Associated } else { AddressAssociationState::Waiting };
            Answer::one(&DescribeAddressesResponse { addresses: vec![address(state)], ..Default::default() })
        }
        "AssociateAddress" => Answer::one(&AssociateAddressResponse {
            association_id: "eipassoc-00000000000000001".into(),
            address: Some(address(AddressAssociationState::Waiting)),
        }),
        _ => unknown(call),
    })
    .await;
    let run = region.run("eip associate 127.2.0.7 i-00000000000000002 --move --wait").await;
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains("associated"), "{run:?}");
    let run = region.run("eip associate 127.2.0.7 i-00000000000000002 --move --wait --timeout 100ms -o id").await;
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), "eipalloc-00000000000000001\n"), "{run:?}");
    assert!(run.stderr.contains("not all are associated after 100ms") && run.stderr.contains("i-1 still has it"), "{run:?}");
}

#[tokio::test]
async fn the_wrong_scheme_is_told_with_the_right_one() {
    let answers = |call: &Call| match call.method.as_str() {
        "DescribeInstances" => instances(Vec::new()),
        _ => unknown(call),
    };
    let (plain, (secure, certificate)) = (Region::start(answers).await, Region::start_with_tls(answers).await);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, certificate).unwrap();
    let run = secure.run(&format!("ps -o id --ca {}", path.display())).await;
    assert_eq!(run.code, Some(0), "{run:?}");
    let without_tls = secure.endpoint.replace("https://", "http://");
    for (wrong, right, ca) in [
        (&without_tls, &secure.endpoint, format!(" --ca {}", path.display())),
        (&without_tls, &secure.endpoint, String::new()),
        (&plain.endpoint.replace("http://", "https://"), &plain.endpoint, format!(" --ca {}", path.display())),
    ] {
        let run = plain.run(&format!("ps --endpoint {wrong}{ca}")).await;
        assert_eq!(run.code, Some(3), "{run:?}");
        assert!(run.stderr.starts_with(&format!("error: no region answers at {wrong}: ")), "{run:?}");
        assert!(run.stderr.contains(&format!("try {right}\n")), "{run:?}");
    }
}
