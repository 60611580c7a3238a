//! Compute stops in the midst of work and goes on.

use std::time::Duration;

use gureum_proto::compute::v1::{self as proto, InstanceState};

use crate::{
    lifecycle::terminate,
    region::{Options, Region, run, until},
};

fn durable() -> Options {
    Options { durable: true, durable_nodes: true, ..Options::default() }
}

#[tokio::test]
async fn what_was_answered_is_there_and_goes_on() {
    let mut region = Region::start(durable()).await;
    let launched = region.launch(40).await;
    region.stop_compute().await;
    region.start_compute().await;
    region.until_all(40, InstanceState::Running).await;
    let addresses: Vec<_> = region.instances().await.into_iter().map(|instance| instance.private_ip_address).collect();
    let mut before: Vec<_> = launched.iter().map(|instance| (instance.instance_id.clone(), instance.private_ip_address.clone())).collect();
    before.sort();
    assert_eq!(addresses, before.into_iter().map(|(_, address)| address).collect::<Vec<_>>());
    // Places are what the rows say: two vCPUs each.
    assert_eq!(region.promised().await, 40 * 2_000);

    let ids: Vec<_> = launched.iter().map(|instance| instance.instance_id.as_str()).collect();
    region.compute().terminate_instances(terminate(&ids)).await.unwrap();
    region.stop_compute().await;
    region.start_compute().await;
    region.until_all(40, InstanceState::Terminated).await;
    assert_eq!((region.interfaces().await, region.promised().await), (0, 0));
}

#[tokio::test]
async fn a_launch_that_was_cut_off_leaves_nothing() {
    let mut region = Region::start(durable()).await;
    for round in 0u64..6 {
        let calls: Vec<_> = (0..8)
            .map(|_| {
                let mut compute = region.compute();
                tokio::spawn(async move { compute.run_instances(run(3)).await.map(|answer| answer.into_inner().instances) })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(round * 30)).await;
        region.kill_compute().await;
        region.start_compute().await;
        let mut acknowledged = Vec::new();
        for call in calls {
            acknowledged.extend(call.await.unwrap().unwrap_or_default());
        }
        let instances = region.instances().await;
        assert!(acknowledged.iter().all(|answered| instances.iter().any(|instance| instance.instance_id == answered.instance_id)));
    }
    let count = region.instances().await.len();
    region.until_all(count, InstanceState::Running).await;
    assert!(count > 0);
    let places = i64::try_from(count).unwrap() * 2_000;
    until("what was cut off", async || region.interfaces().await == count && region.promised().await == places).await;
}

#[tokio::test]
async fn a_token_is_remembered_over_a_restart() {
    let mut region = Region::start(durable()).await;
    let request = proto::RunInstancesRequest { client_token: "again".to_owned(), ..run(2) };
    let first = region.compute().run_instances(request.clone()).await.unwrap().into_inner();
    region.stop_compute().await;
    region.start_compute().await;
    assert_eq!(region.compute().run_instances(request).await.unwrap().into_inner(), first);
    assert_eq!(region.instances().await.len(), 2);
}

#[tokio::test]
async fn a_node_that_is_told_of_an_instance_compute_lost_ends_it() {
    // Compute's state is gone, the node's is not.
    let mut region = Region::start(Options { durable_nodes: true, zones: "a", ..Options::default() }).await;
    region.launch(3).await;
    region.until_all(3, InstanceState::Running).await;
    region.stop_compute().await;
    region.start_compute().await;
    until("the strangers", async || {
        let known =
            region.node('a').describe_node_instances(gureum_proto::node::v1::DescribeNodeInstancesRequest::default()).await.unwrap();
        known.into_inner().instances.is_empty()
    })
    .await;
}
