//! Consoles outlive the memory of nodes, and of compute.

use std::{collections::BTreeSet, time::Duration};

use gureum_model::{ClockSetting, Timestamp};
use gureum_proto::{
    common::v1::SessionStart,
    compute::v1::{self as proto, InstanceState},
    node::v1 as node,
};
use gureum_service::faults::FaultRule;
use gureum_store::{DurableEngine, Engine, EngineError, engine::Change};
use tonic::Status;

use crate::{
    lifecycle::terminate,
    region::{Options, Region, reason, until},
};

fn durable() -> Options {
    Options { durable: true, durable_nodes: true, zones: "a", ..Options::default() }
}

async fn read(region: &Region, id: &str) -> Result<proto::GetConsoleOutputResponse, Status> {
    let asked = proto::GetConsoleOutputRequest { instance_id: id.to_owned(), latest: false };
    region.compute().get_console_output(asked).await.map(tonic::Response::into_inner)
}

async fn end(region: &Region, id: &str) {
    region.compute().terminate_instances(terminate(&[id])).await.unwrap();
    region.until_instance(id, InstanceState::Terminated).await;
}

async fn known(region: &Region) -> usize {
    let known = region.node('a').describe_node_instances(node::DescribeNodeInstancesRequest::default()).await.unwrap();
    known.into_inner().instances.len()
}

async fn until_forgotten(region: &Region) {
    until("the node's memory", async || known(region).await == 0).await;
}

#[tokio::test]
async fn of_an_instance_that_ended_it_survives_a_restart() {
    let mut region = Region::start(durable()).await;
    let (shown, unseen) = (region.running().await.instance_id, region.running().await.instance_id);
    let running = read(&region, &shown).await.unwrap();
    end(&region, &shown).await;
    end(&region, &unseen).await;
    until_forgotten(&region).await;
    let before = (read(&region, &shown).await.unwrap(), read(&region, &unseen).await.unwrap());
    assert!(before.0.output.starts_with(&running.output) && before.0.output.len() > running.output.len());
    assert!(!before.1.output.is_empty() && before.1.update_time.is_some(), "also one that nobody has asked for");
    region.kill_compute().await;
    region.start_compute().await;
    assert_eq!((read(&region, &shown).await.unwrap(), read(&region, &unseen).await.unwrap()), before);
}

#[tokio::test]
async fn of_an_instance_whose_node_is_away_the_last_one_survives_a_restart() {
    let mut region = Region::start(durable()).await;
    let (shown, unseen) = (region.running().await.instance_id, region.running().await.instance_id);
    let before = read(&region, &shown).await.unwrap();
    assert!(!before.output.is_empty());
    region.stop_node('a').await;
    region.kill_compute().await;
    region.start_compute().await;
    assert_eq!(read(&region, &shown).await.unwrap(), before);
    assert_eq!(reason(&read(&region, &unseen).await.unwrap_err()), "ServiceUnavailable");
}

#[tokio::test]
async fn a_node_that_does_not_tell_it_is_asked_again_and_the_end_does_not_wait() {
    let silent = FaultRule { call: "GetConsoleOutput".to_owned(), times: 0, ..FaultRule::default() };
    let mut region = Region::start(Options { faults: vec![silent], ..durable() }).await;
    let id = region.running().await.instance_id;
    end(&region, &id).await;
    assert_eq!((region.interfaces().await, region.promised().await, known(&region).await), (0, 0, 1));
    region.kill_compute().await;
    region.options.faults.clear();
    region.start_compute().await;
    until_forgotten(&region).await;
    assert!(!read(&region, &id).await.unwrap().output.is_empty());
}

#[tokio::test]
async fn it_goes_with_its_instance() {
    let mut region = Region::start(durable()).await;
    let (gone, stays) = (region.running().await.instance_id, region.running().await.instance_id);
    read(&region, &stays).await.unwrap();
    end(&region, &gone).await;
    until("the node's memory", async || known(&region).await == 1).await;
    region.stop_compute().await;
    assert_eq!(stored(&region).await, BTreeSet::from([gone.clone(), stays.clone()]));
    // An hour is over long since. What is no longer shown is removed a moment later.
    region.options.clock.setting = ClockSetting::Virtual { start: Timestamp::from_secs(4_000_000_000) };
    for _ in 0..100 {
        region.start_compute().await;
        assert_eq!(reason(&read(&region, &gone).await.unwrap_err()), "InvalidInstanceID.NotFound");
        region.stop_compute().await;
        if stored(&region).await == BTreeSet::from([stays.clone()]) {
            return;
        }
    }
    panic!("the console of an instance that is gone is still stored");
}

/// The instances whose consoles are on disk.
async fn stored(region: &Region) -> BTreeSet<String> {
    let mut engine = loop {
        match DurableEngine::open(&region.directory("compute")) {
            // The writer of the service before ends a moment after it.
            Err(EngineError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            opened => break opened.unwrap(),
        }
    };
    let mut stored = BTreeSet::new();
    let mut note = |change: Change| {
        if change.table == "console" {
            let id = change.key.rsplit('/').next().unwrap_or_default().to_owned();
            if change.value.is_some() {
                stored.insert(id)
            } else {
                stored.remove(&id)
            };
        }
        Ok(())
    };
    engine.load(&mut note).unwrap();
    stored
}

#[tokio::test]
async fn who_connects_is_told_what_does_not_run_and_what_executes_nothing() {
    let region = Region::start(Options { zones: "a", ..Options::default() }).await;
    let id = region.running().await.instance_id;
    let connect = async |id: &str| {
        let start = SessionStart { instance_id: id.to_owned(), ..Default::default() };
        let first = proto::ConnectInstanceRequest { message: Some(proto::connect_instance_request::Message::Start(start)) };
        region.compute().connect_instance(tokio_stream::once(first)).await
    };
    assert_eq!(reason(&connect(&id).await.unwrap_err()), "UnsupportedOperation");
    assert_eq!(reason(&connect("i-0000000000000dead").await.unwrap_err()), "InvalidInstanceID.NotFound");
    assert_eq!(reason(&connect("web").await.unwrap_err()), "InvalidInstanceID.Malformed");
    assert_eq!(reason(&region.compute().connect_instance(tokio_stream::empty()).await.unwrap_err()), "MissingParameter");
    end(&region, &id).await;
    assert_eq!(reason(&connect(&id).await.unwrap_err()), "IncorrectInstanceState");
    // What it wrote is told also when its node has forgotten it.
    until_forgotten(&region).await;
    let asked = proto::WatchConsoleRequest { instance_id: id.clone(), follow: true, tail_bytes: 0 };
    let mut stream = region.compute().watch_console(asked).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().output, read(&region, &id).await.unwrap().output);
    assert_eq!(stream.message().await.unwrap(), None);
}
