//! Intents, and what becomes of them.

use gureum_proto::node::v1::*;
use gureum_service::clock::monotonic;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{PATIENCE, Setup, id, reason, run, then};

#[tokio::test]
async fn an_instance_boots_reboots_stops_starts_and_ends() {
    let node = Setup::new().start().await;
    let mut follower = node.watch(None).await;
    let first = run(1, "");
    let applied = node.apply(vec![first.clone()]).await;
    assert_eq!((applied.results[0].outcome(), applied.results[0].generation), (ApplyOutcome::Applied, 1));
    let up = follower.until(1, ObservedState::Running).await;
    assert_eq!((up.generation, up.live_generation, up.boot, up.account_id.as_str()), (1, 1, 1, "000000000042"));
    assert!(follower.states(1).ends_with(&[ObservedState::Booting, ObservedState::Running]), "{:?}", follower.states(1));

    node.apply(vec![DesiredInstance { reboot: 1, ..then(&first, 2, DesiredState::Running) }]).await;
    follower.until(1, ObservedState::Rebooting).await;
    assert_eq!(follower.until(1, ObservedState::Running).await.reboot, 1);

    node.apply(vec![DesiredInstance { reboot: 1, ..then(&first, 3, DesiredState::Stopped) }]).await;
    let stopped = follower.until(1, ObservedState::Stopped).await;
    assert_eq!(stopped.reason(), ObservedReason::Asked);
    assert_eq!(node.node().await.running_count, 0);

    node.apply(vec![DesiredInstance { reboot: 1, boot: 2, ..then(&first, 4, DesiredState::Running) }]).await;
    assert_eq!(follower.until(1, ObservedState::Running).await.boot, 2);

    node.apply(vec![then(&first, 5, DesiredState::Terminated)]).await;
    follower.until(1, ObservedState::Terminated).await;
    let states = follower.states(1);
    assert!(states.ends_with(&[ObservedState::Terminating, ObservedState::Terminated]), "{states:?}");

    let forget = |generation| ForgetTerminatedRequest { instances: vec![TerminatedInstance { instance_id: id(1), generation }] };
    let kept = node.client().forget_terminated(forget(4)).await.unwrap().into_inner();
    assert_eq!(kept.kept_instance_ids, [id(1)]);
    for _ in 0..2 {
        let forgotten = node.client().forget_terminated(forget(5)).await.unwrap().into_inner();
        assert_eq!(forgotten.forgotten_instance_ids, [id(1)]);
    }
    while !follower.events.last().is_some_and(|event| event.metadata.as_ref().unwrap().deleted) {
        follower.next().await;
    }
    assert!(node.describe().await.is_empty());
    // A late intent does not bring it back, a newer one does.
    let ended = then(&run(1, ""), 10, DesiredState::Terminated);
    let late = node.apply(vec![first.clone(), DesiredInstance { generation: 9, ..first }, ended]).await;
    let outcomes: Vec<ApplyOutcome> = late.results.iter().map(ApplyResult::outcome).collect();
    assert_eq!(outcomes, [ApplyOutcome::Superseded, ApplyOutcome::Applied, ApplyOutcome::Applied]);
}

#[tokio::test]
async fn intents_are_idempotent_and_one_that_cannot_be_read_keeps_all_from_being_taken() {
    let node = Setup::new().start().await;
    let first = run(1, "");
    let sequence = node.apply(vec![first.clone()]).await.sequence;
    assert!(sequence > 0);
    node.until(1, ObservedState::Running).await;
    let mut other = DesiredInstance { generation: 1, ..first.clone() };
    other.spec.as_mut().unwrap().type_name = "m5.large".into();
    let no_spec = DesiredInstance { spec: None, ..run(2, "") };
    let answer = node.apply(vec![first.clone(), other, no_spec]).await;
    let told: Vec<_> = answer.results.iter().map(|result| (result.outcome(), result.reason.as_str(), result.generation)).collect();
    let expected = [
        (ApplyOutcome::Unchanged, "", 1),
        (ApplyOutcome::Refused, "IdempotentParameterMismatch", 1),
        (ApplyOutcome::Refused, "MissingParameter", 0),
    ];
    assert_eq!(told, expected);

    let bad = DesiredInstance { account_id: "42".into(), stop_grace: Some(prost_types::Duration { seconds: -1, nanos: 0 }), ..run(4, "") };
    let request = ApplyInstancesRequest { instances: vec![run(3, ""), bad] };
    let status = node.client().apply_instances(request).await.unwrap_err();
    let fields: Vec<String> = status.get_details_bad_request().unwrap().field_violations.into_iter().map(|it| it.field).collect();
    assert_eq!((status.code(), fields), (Code::InvalidArgument, vec!["instances[1].stop_grace".to_owned(), "instances[1]".to_owned()]));
    assert_eq!(node.describe().await.len(), 1);

    // A change that can be made while it runs is made.
    let mut changed = then(&first, 2, DesiredState::Running);
    changed.spec = first.spec.clone();
    changed.spec.as_mut().unwrap().hostname = "web".into();
    node.apply(vec![changed]).await;
    let mut follower = node.watch(None).await;
    follower.until_all(&[1], |it| it.live_generation == 2).await;
    assert_eq!(follower.seen[&id(1)].state(), ObservedState::Running);
}

#[tokio::test]
async fn what_does_not_fit_fails_and_is_tried_again_by_a_newer_boot() {
    let node = Setup::new().start().await;
    let answer = node.apply((1..=9).map(|number| run(number, "")).collect()).await;
    assert!(answer.results.iter().all(|result| result.outcome() == ApplyOutcome::Applied), "a failure is taken over too");
    let failed = node.until(9, ObservedState::Failed).await;
    assert_eq!(failed.reason(), ObservedReason::NoRoom);
    assert!(failed.reason_message.contains("0 vCPU"), "{}", failed.reason_message);
    let mut follower = node.watch(None).await;
    follower.until_all(&[1, 2, 3, 4, 5, 6, 7, 8], |it| it.state() == ObservedState::Running).await;
    let books = node.node().await;
    assert_eq!((books.total_vcpu_milli, books.free_vcpu_milli, books.free_memory_mib, books.running_count), (8_000, 0, 4_096, 8));
    node.apply(vec![then(&run(1, ""), 2, DesiredState::Terminated)]).await;
    follower.until(1, ObservedState::Terminated).await;
    node.apply(vec![DesiredInstance { boot: 2, ..then(&run(9, ""), 2, DesiredState::Running) }]).await;
    follower.until(9, ObservedState::Running).await;
    assert_eq!(node.node().await.running_count, 8);
}

#[tokio::test]
async fn ten_thousand_instances_boot_in_bounded_time() {
    const COUNT: u64 = 10_000;
    let mut setup = Setup::durable();
    (setup.settings.vcpus, setup.settings.memory_mib) = (10_000, 10_000 * 512);
    let node = setup.start().await;
    let began = monotonic();
    for first in (0..COUNT).step_by(250) {
        node.apply((first..first + 250).map(|number| run(number, "")).collect()).await;
    }
    let applied = began.elapsed();
    let mut follower = node.watch(None).await;
    while follower.seen.len() < COUNT as usize || follower.seen.values().any(|it| it.state() != ObservedState::Running) {
        let missing = follower.seen.values().filter(|it| it.state() != ObservedState::Running).count();
        // At least one event for each that is missing.
        for _ in 0..missing.max(1) {
            follower.next().await;
        }
        assert!(began.elapsed() < PATIENCE * 2, "{missing} are still not up");
    }
    println!("{COUNT} applied in {applied:?}, up in {:?}", began.elapsed());
    assert_eq!(node.node().await.running_count, COUNT as u32);
    let began = monotonic();
    node.stop().await;
    let node = setup.start().await;
    println!("stopped, and started again, in {:?}", began.elapsed());
    assert_eq!(node.node().await.running_count, COUNT as u32);
}

#[tokio::test]
async fn a_place_that_never_was_is_out_of_range() {
    let node = Setup::new().start().await;
    let refused = node.client().watch_instances(WatchInstancesRequest { after_sequence: Some(99) }).await;
    assert_eq!(reason(refused).0, Code::OutOfRange);
}
