//! What compute hears of the node.

use std::{sync::atomic::Ordering, time::Duration};

use gureum_proto::node::v1::{inject_fault_request::Fault, *};

use crate::support::{FakeCompute, Setup, eventually, id, run};

#[tokio::test]
async fn it_registers_once_compute_is_there_and_again_when_asked() {
    let setup = Setup::durable();
    let node = setup.start().await;
    // Compute is away, and the node serves.
    node.apply(vec![run(1, "")]).await;
    node.until(1, ObservedState::Running).await;
    let compute = FakeCompute::default();
    compute.serve(setup.folder.path());
    eventually("the registration", || compute.registrations().len() == 1).await;
    let described = node.node().await;
    let registered = compute.registrations().remove(0);
    let capacity = registered.capacity.unwrap();
    assert_eq!(
        (registered.node_id.as_str(), registered.zone.as_str(), registered.driver.as_str()),
        (described.node_id.as_str(), "a", "sim")
    );
    assert_eq!((capacity.vcpu_milli, capacity.memory_mib, registered.incarnation), (8_000, 8_192, 1));
    assert_eq!(registered.endpoint, format!("unix:{}", setup.folder.path().join("node.sock").display()));

    eventually("a heartbeat", || compute.heartbeats() > 2).await;
    compute.0.must_register.store(true, Ordering::SeqCst);
    eventually("another registration", || compute.registrations().len() == 2).await;

    let pause = |seconds| Fault::PauseHeartbeats(PauseHeartbeats { duration: Some(prost_types::Duration { seconds, nanos: 0 }) });
    node.inject(pause(3_600)).await.unwrap();
    // One may be under way.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = compute.heartbeats();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(compute.heartbeats(), before);
    node.inject(pause(0)).await.unwrap();
    eventually("a heartbeat after the pause", || compute.heartbeats() > before).await;

    node.stop().await;
    let node = setup.start().await;
    eventually("the registration of the next process", || compute.registrations().len() == 3).await;
    let again = compute.registrations().remove(2);
    assert_eq!((again.node_id, again.incarnation), (registered.node_id, 2));
    assert_eq!(node.describe().await[0].observation.as_ref().unwrap().instance_id, id(1));
}

#[tokio::test]
async fn a_store_is_of_one_node_and_settings_are_checked() {
    let mut setup = Setup::durable();
    setup.start().await.stop().await;
    setup.settings.name = "another".into();
    let mut refused = setup.try_start().await.map(|_| ()).unwrap_err();
    while refused.contains("opening the store") {
        refused = setup.try_start().await.map(|_| ()).unwrap_err();
    }
    assert!(refused.contains("is of the node \"node\""), "{refused}");
    setup.settings.zone = 'q';
    setup.settings.vcpus = 0;
    let refused = setup.try_start().await.map(|_| ()).unwrap_err();
    assert!(refused.contains("zone is 'q'") && refused.contains("vcpus is 0"), "{refused}");
}

#[tokio::test]
async fn a_node_without_a_disk_counts_its_starts_by_the_wall_clock() {
    let setup = Setup::new();
    let first = setup.start().await;
    let before = first.node().await;
    first.stop().await;
    let after = setup.start().await.node().await;
    assert_eq!(before.node_id, after.node_id);
    assert!(after.incarnation > before.incarnation);
}
