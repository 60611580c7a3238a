//! Virtual time: nothing happens before its time, and the same day is the same twice.

use std::time::Duration;

use gureum_model::Timestamp;
use gureum_proto::{
    clock::v1::{GetStateRequest, GetStateResponse, SetTimeRequest},
    node::v1::*,
};
use gureum_service::{clock::monotonic, wire};

use crate::support::{Node, PATIENCE, Setup, run, then};

const START: Timestamp = Timestamp::from_secs(1_767_225_600);

/// As the gateway asks: twice, with nothing begun in between.
async fn quiet(node: &Node) -> GetStateResponse {
    let began = monotonic();
    let mut last: Option<GetStateResponse> = None;
    loop {
        assert!(began.elapsed() < PATIENCE, "it never comes to rest");
        let state = node.clock().get_state(GetStateRequest {}).await.unwrap().into_inner();
        if state.idle && last.as_ref() == Some(&state) {
            return state;
        }
        last = Some(state);
    }
}

async fn advance(node: &Node, target: Timestamp) {
    loop {
        let next = quiet(node).await.next_timer.map(|next| wire::from_timestamp(&next));
        let time = next.map_or(target, |next| next.min(target));
        node.clock().set_time(SetTimeRequest { time: Some(wire::timestamp(time)) }).await.unwrap();
        if time == target {
            quiet(node).await;
            return;
        }
    }
}

#[tokio::test]
async fn a_boot_ends_when_time_says_so() {
    let node = Setup::virtual_time(START).start().await;
    node.apply(vec![run(1, "#gureum-sim boot=90s"), run(2, "#gureum-sim boot=20m")]).await;
    let due = quiet(&node).await.next_timer.map(|next| wire::from_timestamp(&next));
    assert_eq!(due, Some(START + Duration::from_secs(90)));
    advance(&node, START + Duration::from_secs(89)).await;
    assert_eq!(node.describe().await[0].observation.as_ref().unwrap().state(), ObservedState::Booting);
    advance(&node, START + Duration::from_secs(90)).await;
    let up = node.describe().await.remove(0).observation.unwrap();
    assert_eq!((up.state(), up.state_since), (ObservedState::Running, Some(wire::timestamp(START + Duration::from_secs(90)))));
    // What is not up in ten minutes has failed, at the very time.
    assert_eq!(quiet(&node).await.next_timer, Some(wire::timestamp(START + Duration::from_secs(600))));
    advance(&node, START + Duration::from_secs(601)).await;
    let late = node.describe().await.remove(1).observation.unwrap();
    assert_eq!((late.state(), late.reason()), (ObservedState::Failed, ObservedReason::BootTimedOut));
    assert_eq!(quiet(&node).await.next_timer, None, "nothing is left to wait for");
}

#[tokio::test]
async fn a_day_is_the_same_twice() {
    let mut days = Vec::new();
    for _ in 0..2 {
        let mut setup = Setup::virtual_time(START);
        (setup.settings.seed, setup.settings.sim.boot_failures_per_million) = (7, 200_000);
        setup.settings.sim.boot = gureum_node_domain::sim::Span::millis(200, 2_000);
        let node = setup.start().await;
        node.apply((1..=8).map(|number| run(number, "#gureum-sim exit-after=1h")).collect()).await;
        advance(&node, START + Duration::from_secs(60)).await;
        node.apply((1..=4).map(|number| then(&run(number, ""), 2, DesiredState::Stopped)).collect()).await;
        advance(&node, START + Duration::from_secs(2 * 3600)).await;
        let mut follower = node.watch(Some(0)).await;
        let last = quiet(&node).await.sequence;
        while follower.events.len() < last as usize {
            follower.next().await;
        }
        days.push(follower.events);
    }
    let second = days.pop().unwrap();
    assert!(second.len() > 20);
    assert_eq!(days.pop().unwrap(), second);
}

#[tokio::test]
async fn samples_hold_virtual_time() {
    let node = Setup::virtual_time(START).start().await;
    node.apply(vec![run(1, "#gureum-sim boot=1s")]).await;
    let request = WatchUsageRequest { interval: Some(prost_types::Duration { seconds: 60, nanos: 0 }), instance_ids: Vec::new() };
    let mut stream = node.client().watch_usage(request).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().unwrap().usages.is_empty());
    advance(&node, START + Duration::from_secs(180)).await;
    for minute in 1..=3 {
        let sample = stream.message().await.unwrap().unwrap();
        assert_eq!((sample.time, sample.usages.len()), (Some(wire::timestamp(START + Duration::from_secs(60 * minute))), 1));
    }
}
