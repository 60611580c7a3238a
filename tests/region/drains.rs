//! A service that is told to stop is gone at once, whoever listens to it, and tells its listeners.

use std::time::Duration;

use gureum_proto::{
    compute::v1::{WatchRequest as ComputeWatch, compute_service_client::ComputeServiceClient},
    gateway::v1::{SubscribeRequest, event_service_client::EventServiceClient},
    network::v1::{WatchRequest as NetworkWatch, network_service_client::NetworkServiceClient},
    security::v1::{DescribeKeyPairsRequest, WatchRequest as SecurityWatch, security_service_client::SecurityServiceClient},
};
use gureum_service::clock::monotonic;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use crate::{
    harness::{Deployment, Door, ask, insist},
    region::region,
};

/// Nothing is under way, so nothing is waited for: far less than the drain's time limit of 10 s, and than the
/// gateway's looks at its services.
const AT_ONCE: Duration = Duration::from_secs(1);

async fn is_told<T>(who: &str, mut stream: Streaming<T>) {
    let status: Status = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("{who}'s watch ended as if there were no more to tell"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{who}: {status}");
    assert!(status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()), "{who}: {status}");
}

macro_rules! watch {
    ($door:expr, $service:ident, $method:ident, $request:expr) => {{
        let call = || $door.call($service::new, &$request, |mut client, request| async move { client.$method(request).await });
        insist(call).await.unwrap()
    }};
}

fn stops_at_once(region: &mut Deployment, name: &str) {
    let begun = monotonic();
    region.tell_to_stop(name);
    while !region.has_ended(name) {
        assert!(begun.elapsed() < AT_ONCE, "{name} still runs after {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(2));
    }
}

async fn answers(door: &Door) {
    ask!(door, SecurityServiceClient, describe_key_pairs, DescribeKeyPairsRequest::default()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_told_to_stop_waits_for_no_listener() {
    let mut region = region();
    let door = region.door("000000000305");
    answers(&door).await;
    for name in ["security", "network", "compute"] {
        let security = watch!(door, SecurityServiceClient, watch, SecurityWatch::default());
        let network = watch!(door, NetworkServiceClient, watch, NetworkWatch::default());
        let compute = watch!(door, ComputeServiceClient, watch, ComputeWatch::default());
        stops_at_once(&mut region, name);
        match name {
            "security" => is_told(name, security).await,
            "network" => is_told(name, network).await,
            _ => is_told(name, compute).await,
        }
        region.restart(name);
        answers(&door).await;
    }
    let proxied = watch!(door, ComputeServiceClient, watch, ComputeWatch::default());
    let subscribed = watch!(door, EventServiceClient, subscribe, SubscribeRequest::default());
    stops_at_once(&mut region, "gateway");
    is_told("the gateway's watch of compute", proxied).await;
    is_told("the gateway's subscriber", subscribed).await;
    region.restart("gateway");
    answers(&region.door("000000000305")).await;
    region.finish();
}
