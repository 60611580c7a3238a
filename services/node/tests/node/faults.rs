//! Faults that tests inject.

use gureum_proto::node::v1::{inject_fault_request::Fault, *};
use tonic::Code;

use crate::support::{Setup, id, reason, run, then};

#[tokio::test]
async fn boots_fail_as_they_are_told() {
    let node = Setup::new().start().await;
    let fail = FailBoots { count: 1, instance_id: id(2), message: "no such disk".into() };
    node.inject(Fault::FailBoots(fail)).await.unwrap();
    node.apply(vec![run(1, ""), run(2, ""), run(3, "#gureum-sim fail=boot")]).await;
    let mut follower = node.watch(None).await;
    follower.until(1, ObservedState::Running).await;
    let failed = follower.until(2, ObservedState::Failed).await;
    assert_eq!(failed.reason(), ObservedReason::BootFailed);
    assert!(failed.reason_message.contains("no such disk"));
    follower.until(3, ObservedState::Failed).await;
    node.apply(vec![DesiredInstance { boot: 2, ..then(&run(2, ""), 2, DesiredState::Running) }]).await;
    follower.until(2, ObservedState::Running).await;
}

#[tokio::test]
async fn what_is_up_is_killed_hangs_or_shuts_itself_down() {
    let node = Setup::new().start().await;
    node.apply(vec![run(1, ""), run(2, ""), run(3, "")]).await;
    let mut follower = node.watch(None).await;
    follower.until_all(&[1, 2, 3], |it| it.state() == ObservedState::Running).await;

    node.inject(Fault::KillInstance(KillInstance { instance_id: id(1), message: "out of memory".into() })).await.unwrap();
    let killed = follower.until(1, ObservedState::Stopped).await;
    assert_eq!((killed.reason(), killed.reason_message.as_str()), (ObservedReason::Crashed, "out of memory"));

    let hang = |resume| Fault::HangInstance(HangInstance { instance_id: id(2), resume });
    node.inject(hang(false)).await.unwrap();
    follower.until_all(&[2], |it| it.impaired_since.is_some()).await;
    node.inject(hang(true)).await.unwrap();
    follower.until_all(&[2], |it| it.impaired_since.is_none()).await;

    let shut_down = |number| Fault::ShutDownInstance(ShutDownInstance { instance_id: id(number) });
    node.inject(shut_down(3)).await.unwrap();
    assert_eq!(follower.until(3, ObservedState::Stopped).await.reason(), ObservedReason::InstanceInitiated);
    // "Running" is still wanted; without a newer boot it stays down.
    assert_eq!(node.node().await.running_count, 1);

    assert_eq!(reason(node.inject(shut_down(3)).await), (Code::FailedPrecondition, "IncorrectInstanceState".into()));
    assert_eq!(reason(node.inject(shut_down(9)).await), (Code::NotFound, "InvalidInstanceID.NotFound".into()));
    assert_eq!(
        reason(node.inject(Fault::KillInstance(KillInstance { instance_id: "x".into(), message: String::new() })).await).0,
        Code::InvalidArgument
    );
    let forever = PauseHeartbeats { duration: Some(prost_types::Duration { seconds: 90_000, nanos: 0 }) };
    assert_eq!(reason(node.inject(Fault::PauseHeartbeats(forever)).await).0, Code::InvalidArgument);
}
