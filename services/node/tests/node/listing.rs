//! What is listed, printed and used.

use gureum_proto::{
    common::v1::{Filter, SessionStart},
    node::v1::*,
};
use tonic::Code;

use crate::support::{Setup, id, reason, run};

#[tokio::test]
async fn instances_are_paged_filtered_and_shown_with_what_is_wanted() {
    let node = Setup::new().start().await;
    let mut desired: Vec<DesiredInstance> = (1..=7).map(|number| run(number, "")).collect();
    for (place, item) in desired.iter_mut().enumerate() {
        // Four and a half MiB of user data do not fit one message.
        let spec = item.spec.as_mut().unwrap();
        spec.user_data = vec![b'x'; 16 * 1024];
        (spec.vcpu_milli, spec.type_name) = (10, if place < 3 { "t3.nano".into() } else { "t3.micro".into() });
    }
    desired[6].account_id = "000000000007".into();
    node.apply(desired.clone()).await;
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = DescribeNodeInstancesRequest { page_size: 3, page_token, include_desired: true, ..Default::default() };
        let page = node.client().describe_node_instances(request).await.unwrap().into_inner();
        assert!(page.instances.len() <= 3);
        seen.extend(page.instances);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let shown: Vec<DesiredInstance> = seen.into_iter().map(|item| item.desired.unwrap()).collect();
    assert_eq!(shown.len(), 7);
    for (shown, wanted) in shown.iter().zip(&desired) {
        let (shown, wanted) = (shown.spec.as_ref().unwrap(), wanted.spec.as_ref().unwrap());
        assert_eq!((&shown.user_data, &shown.interfaces, &shown.volumes), (&wanted.user_data, &wanted.interfaces, &wanted.volumes));
    }

    let find = async |name: &str, value: &str, ids: Vec<String>| {
        let filters = vec![Filter { name: name.into(), values: vec![value.into()] }];
        let request = DescribeNodeInstancesRequest { filters, instance_ids: ids, ..Default::default() };
        let found = node.client().describe_node_instances(request).await?.into_inner();
        Ok::<_, tonic::Status>(found.instances.into_iter().map(|item| item.observation.unwrap().instance_id).collect::<Vec<_>>())
    };
    assert_eq!(find("instance-type", "t3.nano", vec![]).await.unwrap(), [id(1), id(2), id(3)]);
    assert_eq!(find("owner-id", "000000000007", vec![]).await.unwrap(), [id(7)]);
    assert_eq!(find("instance-type", "t3.*", vec![id(5), id(2)]).await.unwrap(), [id(2), id(5)]);
    assert_eq!(reason(find("instance-type", "*", vec![id(5), id(99)]).await), (Code::NotFound, "InvalidInstanceID.NotFound".into()));
    assert_eq!(reason(find("colour", "red", vec![]).await).0, Code::InvalidArgument);
}

#[tokio::test]
async fn pages_with_specifications_fit_a_message() {
    let mut setup = Setup::new();
    (setup.settings.vcpus, setup.settings.memory_mib) = (1_000, 1_000 * 512);
    let node = setup.start().await;
    let item = |number| {
        let mut item = run(number, "");
        item.spec.as_mut().unwrap().user_data = vec![b'x'; 16 * 1024];
        item
    };
    for first in [0, 150] {
        node.apply((first..first + 150).map(item).collect()).await;
    }
    let request = DescribeNodeInstancesRequest { include_desired: true, ..Default::default() };
    let page = node.client().describe_node_instances(request.clone()).await.unwrap().into_inner();
    assert!(page.instances.len() < 300 && !page.next_page_token.is_empty());
    let rest = DescribeNodeInstancesRequest { page_token: page.next_page_token, ..request };
    let rest = node.client().describe_node_instances(rest).await.unwrap().into_inner();
    assert_eq!((page.instances.len() + rest.instances.len(), rest.next_page_token.as_str()), (300, ""));
}

#[tokio::test]
async fn the_console_says_that_nothing_ran_and_is_there_after_a_stop() {
    let node = Setup::new().start().await;
    node.apply(vec![run(1, "#!/bin/sh\necho hello\n")]).await;
    node.until(1, ObservedState::Running).await;
    let read = async |number| node.client().get_console_output(GetConsoleOutputRequest { instance_id: id(number) }).await;
    let console = String::from_utf8(read(1).await.unwrap().into_inner().output).unwrap();
    assert!(console.contains("NOT executed") && console.contains("login:"), "{console}");
    assert_eq!(reason(read(2).await), (Code::NotFound, "InvalidInstanceID.NotFound".into()));
    node.apply(vec![crate::support::then(&run(1, ""), 2, DesiredState::Stopped)]).await;
    node.until(1, ObservedState::Stopped).await;
    let console = String::from_utf8(read(1).await.unwrap().into_inner().output).unwrap();
    assert!(console.contains("Power down"), "{console}");
}

#[tokio::test]
async fn where_nothing_executes_there_is_no_session_and_no_console_to_follow() {
    let node = Setup::new().start().await;
    node.apply(vec![run(1, "#!/bin/sh\necho hello\n")]).await;
    node.until(1, ObservedState::Running).await;
    let connect = async |number| {
        let start = SessionStart { instance_id: id(number), ..Default::default() };
        let first = ConnectInstanceRequest { message: Some(connect_instance_request::Message::Start(start)) };
        node.client().connect_instance(tokio_stream::once(first)).await
    };
    assert_eq!(reason(connect(1).await), (Code::Unimplemented, "UnsupportedOperation".into()));
    assert_eq!(reason(connect(2).await), (Code::NotFound, "InvalidInstanceID.NotFound".into()));
    let nothing = node.client().connect_instance(tokio_stream::empty()).await;
    assert_eq!(reason(nothing), (Code::InvalidArgument, "MissingParameter".into()));
    let watch = async |follow, tail_bytes| {
        let asked = WatchConsoleRequest { instance_id: id(1), follow, tail_bytes };
        node.client().watch_console(asked).await
    };
    assert_eq!(reason(watch(true, 0).await), (Code::Unimplemented, "UnsupportedOperation".into()));
    let mut whole = watch(false, 0).await.unwrap().into_inner();
    let told = whole.message().await.unwrap().unwrap().output;
    assert!(String::from_utf8_lossy(&told).contains("NOT executed"));
    assert_eq!(whole.message().await.unwrap(), None);
    let end = watch(false, 10).await.unwrap().into_inner().message().await.unwrap().unwrap().output;
    assert!(end.len() == 10 && told.ends_with(&end));
}

#[tokio::test]
async fn usage_is_told_at_once_and_then_each_interval() {
    let node = Setup::new().start().await;
    node.apply(vec![run(1, "#gureum-sim cpu=70 network-in=1M"), run(2, "")]).await;
    node.watch(None).await.until_all(&[1, 2], |it| it.state() == ObservedState::Running).await;
    let request = |seconds, nanos, ids: &[u64]| WatchUsageRequest {
        interval: Some(prost_types::Duration { seconds, nanos }),
        instance_ids: ids.iter().map(|number| id(*number)).collect(),
    };
    let mut stream = node.client().watch_usage(request(0, 100_000_000, &[])).await.unwrap().into_inner();
    let (mut received, mut time) = (0, 0);
    for _ in 0..3 {
        let sample = stream.message().await.unwrap().unwrap();
        assert!(sample.complete);
        let ids: Vec<&str> = sample.usages.iter().map(|usage| usage.instance_id.as_str()).collect();
        assert_eq!(ids, [id(1), id(2)]);
        let usage = &sample.usages[0];
        assert_eq!((usage.cpu_percent, usage.boot, usage.region.as_str()), (70.0, 1, "us-east-1"));
        assert!(usage.network_received_bytes >= received);
        received = usage.network_received_bytes;
        let at = sample.time.unwrap();
        let micros = at.seconds * 1_000_000 + i64::from(at.nanos) / 1_000;
        assert!(micros > time, "samples come in the order of time");
        time = micros;
    }
    assert!(received > 0);
    let mut stream = node.client().watch_usage(request(1, 0, &[2])).await.unwrap().into_inner();
    let sample = stream.message().await.unwrap().unwrap();
    assert_eq!(sample.usages.iter().map(|usage| usage.instance_id.clone()).collect::<Vec<_>>(), [id(2)]);
    for bad in [request(0, 1, &[]), request(7_200, 0, &[]), request(-1, 0, &[])] {
        assert_eq!(reason(node.client().watch_usage(bad).await).0, Code::InvalidArgument);
    }
}
