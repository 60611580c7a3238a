//! A peer that neither answers nor ends: its callers say so within their own callers' deadline.

use std::time::Duration;

use gureum_proto::{
    compute::v1::{compute_service_client::ComputeServiceClient, *},
    network::v1::{network_service_client::NetworkServiceClient, *},
};
use gureum_service::clock::monotonic;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::{
    harness::{ask, until},
    region::{LAUNCHABLE, Shape, image, launch_spec, region_like},
};

/// The deadline that a caller sets.
const DEADLINE: Duration = Duration::from_secs(1);

fn soon<Q>(request: Q) -> Request<Q> {
    let mut request = Request::new(request);
    request.set_timeout(DEADLINE);
    request
}

/// A client that gives up at the very moment may do so before it hears; then it asks again.
fn told(status: Option<Status>) -> Result<(), String> {
    let status = status.ok_or("it was answered")?;
    let names = status.message().contains("the network service");
    let retries = status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some());
    if status.code() == Code::Unavailable && names && retries { Ok(()) } else { Err(status.to_string()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_peer_is_named_within_the_deadline() {
    let region = region_like(&Shape { zones: &["a"], ..Shape::default() });
    let door = region.door("000000000303");
    let spec = launch_spec(&image(&door, LAUNCHABLE).await);
    ask!(door, NetworkServiceClient, describe_vpcs, DescribeVpcsRequest::default()).unwrap();
    region.freeze("network");
    let begun = monotonic();
    until("the gateway names who hangs", async || {
        let call = door.call(NetworkServiceClient::new, &DescribeVpcsRequest::default(), |mut client, request| async move {
            client.describe_vpcs(soon(request)).await
        });
        told(call.await.err())
    })
    .await;
    until("compute names who hangs", async || {
        let request = RunInstancesRequest { spec: Some(spec.clone()), min_count: 1, max_count: 1, ..Default::default() };
        let call =
            door.call(ComputeServiceClient::new, &request, |mut client, request| async move { client.run_instances(soon(request)).await });
        told(call.await.err())
    })
    .await;
    assert!(begun.elapsed() >= DEADLINE, "nobody waited");
    region.thaw("network");
    ask!(door, NetworkServiceClient, describe_vpcs, DescribeVpcsRequest::default()).unwrap();
    region.finish();
}
