//! What is left after the process was away.

use std::{collections::BTreeMap, time::Duration};

use gureum_model::IdSource;
use gureum_node_domain::sim::Span;
use gureum_proto::node::v1::*;

use crate::support::{Setup, id, run, then};

#[tokio::test]
async fn instances_go_on_over_a_restart() {
    let setup = Setup::durable();
    let node = setup.start().await;
    node.apply(vec![run(1, ""), run(2, "#gureum-sim boot=400ms"), run(3, "#gureum-sim exit-after=50ms"), run(4, "")]).await;
    let mut follower = node.watch(None).await;
    let up = follower.until(1, ObservedState::Running).await;
    follower.until(3, ObservedState::Stopped).await;
    follower.until(4, ObservedState::Running).await;
    node.apply(vec![then(&run(4, ""), 2, DesiredState::Terminated)]).await;
    assert_eq!(follower.seen[&id(2)].state(), ObservedState::Booting);
    let before = node.node().await;
    node.kill().await;

    let node = setup.start().await;
    let after = node.node().await;
    assert_eq!((after.node_id, after.incarnation), (before.node_id, before.incarnation + 1));
    let mut follower = node.watch(None).await;
    assert_eq!(follower.until(1, ObservedState::Running).await, up, "it never noticed");
    assert_eq!(follower.until(2, ObservedState::Running).await.boot, 1);
    follower.until(3, ObservedState::Stopped).await;
    follower.until(4, ObservedState::Terminated).await;
    assert_eq!(node.node().await.running_count, 2);
}

/// Random intents, and the process killed at random moments: nothing acknowledged is lost, nothing
/// boots that should not, and in the end all is as it was wanted and the books agree.
#[tokio::test]
async fn killed_at_any_moment_it_converges() {
    const INSTANCES: u64 = 12;
    let random = IdSource::seeded(20);
    let draw = |below: u64| (random.next_number() % u128::from(below)) as u64;
    let mut setup = Setup::durable();
    (setup.settings.vcpus, setup.settings.sim.boot) = (16, Span::millis(0, 40));
    let mut wanted: BTreeMap<u64, DesiredInstance> = BTreeMap::new();
    for _round in 0..15 {
        let node = setup.start().await;
        for described in node.describe().await {
            let seen = described.observation.unwrap();
            let number = u64::from_str_radix(seen.instance_id.trim_start_matches("i-"), 16).unwrap();
            assert_eq!(seen.generation, wanted[&number].generation, "what was acknowledged is there");
        }
        for _ in 0..draw(4) {
            let number = draw(INSTANCES);
            let next = match wanted.get(&number) {
                None => run(number, ""),
                Some(before) if before.state() == DesiredState::Terminated => continue,
                Some(before) => {
                    let state =
                        [DesiredState::Running, DesiredState::Running, DesiredState::Stopped, DesiredState::Terminated][draw(4) as usize];
                    let next = then(before, before.generation + 1, state);
                    // What was wanted off stays off until a newer boot is wanted.
                    let starts = before.state() == DesiredState::Stopped && state == DesiredState::Running;
                    let boot = before.boot + u64::from(starts).max(draw(2));
                    DesiredInstance { boot, reboot: before.reboot + draw(2), ..next }
                }
            };
            assert_eq!(node.apply(vec![next.clone()]).await.results[0].outcome(), ApplyOutcome::Applied);
            wanted.insert(number, next);
        }
        tokio::time::sleep(Duration::from_millis(draw(50))).await;
        node.kill().await;
    }
    assert!(wanted.len() > 5);
    let node = setup.start().await;
    let mut follower = node.watch(None).await;
    for (number, last) in &wanted {
        let state = match last.state() {
            DesiredState::Terminated => ObservedState::Terminated,
            DesiredState::Stopped => ObservedState::Stopped,
            DesiredState::Running | DesiredState::Unspecified => ObservedState::Running,
        };
        let seen = follower.until(*number, state).await;
        assert!(seen.boot <= last.boot, "booted more often than wanted: {seen:?}");
    }
    let (books, listed) = (node.node().await, node.describe().await);
    let held: u64 = listed.iter().map(|item| item.held_vcpu_milli).sum();
    assert_eq!(books.total_vcpu_milli - books.free_vcpu_milli, held);
    let running = wanted.values().filter(|last| last.state() == DesiredState::Running).count();
    assert_eq!(books.running_count as usize, running);
}
