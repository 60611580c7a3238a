//! Snapshots: copying, sharing, and who may do what.

mod common;

use common::NOW;
use gureum_compute_domain::{
    image::permission::{Change, Grantee},
    snapshot::{
        Snapshot, SnapshotAt, SnapshotError, SnapshotQuery, SnapshotState, copy_time, create, delete, due, modify_permissions, settle,
        usable,
    },
    volume::{
        CREATING_FOR, Decision, Volume, VolumeState,
        create::{NewVolume, create as create_volume},
        settle as settle_volume,
    },
};
use gureum_model::{
    AccountId, Filter, Filterable, Filters, Refusal, RefusalKind, Scope, Tags,
    id::{ImageId, ResourceId, SnapshotId, VolumeId},
};
use proptest::prelude::*;

fn scope(account: u64) -> Scope {
    Scope { account: AccountId::from_number(account).expect("an account"), ..Scope::default() }
}

fn volume(size: i32) -> Volume {
    let new = NewVolume { availability_zone: "us-east-1a".to_owned(), size_gib: Some(size), ..NewVolume::default() };
    let volume = create_volume(&new, &scope(1), |_| None, VolumeId::from_number(1), NOW).expect("a plain volume");
    settle_volume(&volume, NOW + CREATING_FOR).after(&volume).expect("kept")
}

fn snapshot(size: i32) -> Snapshot {
    let tags = Tags([("a".to_owned(), "1".to_owned())].into());
    create(&volume(size), "words", tags, SnapshotId::from_number(1), NOW).expect("a plain snapshot")
}

fn code(error: SnapshotError) -> (RefusalKind, &'static str) {
    let refusal = Refusal::from(error);
    (refusal.kind, refusal.reason)
}

fn shared(change: Change) -> Snapshot {
    let it = snapshot(8);
    modify_permissions(&it, &scope(1), &change).expect("the owner may").after(&it).expect("kept")
}

fn grant(grantee: Grantee) -> Change {
    Change { add: vec![grantee], remove: Vec::new() }
}

#[test]
fn only_what_has_contents_can_be_copied() {
    let gone = Volume { state: VolumeState::Deleted { since: NOW }, ..volume(8) };
    assert_eq!(
        create(&gone, "", Tags::default(), SnapshotId::from_number(1), NOW).map_err(code).err(),
        Some((RefusalKind::NotFound, "InvalidVolume.NotFound"))
    );
    let new = Volume { state: VolumeState::Creating { since: NOW }, ..volume(8) };
    assert_eq!(
        create(&new, "", Tags::default(), SnapshotId::from_number(1), NOW).map_err(code).err(),
        Some((RefusalKind::WrongState, "IncorrectState"))
    );
    let long = "x".repeat(256);
    assert_eq!(
        create(&volume(8), &long, Tags::default(), SnapshotId::from_number(1), NOW).map_err(code).err(),
        Some((RefusalKind::Invalid, "InvalidParameterValue"))
    );
}

#[test]
fn volumes_are_made_of_completed_ones() {
    let it = snapshot(8);
    assert_eq!(usable(it.id, Some(&it)).map_err(code).err(), Some((RefusalKind::WrongState, "IncorrectState")));
    let done = settle(&it, NOW + copy_time(8)).after(&it).expect("kept");
    assert_eq!(usable(it.id, Some(&done)).map(|found| found.id), Ok(it.id));
    assert_eq!(usable(it.id, None).map_err(code).err(), Some((RefusalKind::NotFound, "InvalidSnapshot.NotFound")));
    let of = |size| NewVolume {
        availability_zone: "us-east-1a".to_owned(),
        snapshot_id: it.id.to_string(),
        size_gib: size,
        ..NewVolume::default()
    };
    let make = |size| create_volume(&of(size), &scope(1), |_| Some(&done), VolumeId::from_number(2), NOW);
    assert_eq!(make(None).map(|volume| volume.size_gib), Ok(8));
    assert_eq!(make(Some(7)).map_err(|refusal| refusal.reason).err(), Some("InvalidParameterValue"));
}

#[test]
fn an_image_keeps_its_snapshots() {
    let it = snapshot(8);
    let image = ImageId::from_number(1);
    assert_eq!(delete(&it, &scope(1), &[image]).map_err(code).err(), Some((RefusalKind::WrongState, "InvalidSnapshot.InUse")));
    assert_eq!(delete(&it, &scope(1), &[]), Ok(Decision::Remove));
}

#[test]
fn others_see_only_what_is_shared() {
    assert_eq!(delete(&snapshot(8), &scope(2), &[]).map_err(code).err(), Some((RefusalKind::NotFound, "InvalidSnapshot.NotFound")));
    let one = shared(grant(Grantee::Account(scope(2).account)));
    assert_eq!(delete(&one, &scope(2), &[]).map_err(code).err(), Some((RefusalKind::Denied, "AuthFailure")));
    assert!(one.visible_to(&scope(2)) && !one.visible_to(&scope(3)) && one.seen_by(scope(2).account).tags.is_empty());
    let elsewhere = Scope { region: "eu-west-1".parse().expect("a region"), ..scope(1) };
    assert!(!one.visible_to(&elsewhere));
    let query = |owners: &[&str], users: &[&str]| {
        let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        SnapshotQuery::parse(&texts(owners), &texts(users))
    };
    let admits = |owners: &[&str], users: &[&str], viewer: u64| query(owners, users).expect("known words").admits(&one, &scope(viewer));
    assert!(admits(&["self"], &[], 1) && !admits(&["self"], &[], 2) && admits(&["000000000001"], &["self"], 2));
    assert!(!admits(&[], &["all"], 2) && admits(&[], &["000000000002"], 1) && !admits(&["amazon"], &[], 1));
    assert_eq!(
        query(&["me"], &["x"]).map_err(|refusal| (refusal.reason, refusal.violations.len())).err(),
        Some(("InvalidUserID.Malformed", 2))
    );
}

#[test]
fn encrypted_ones_are_never_public() {
    let it = Snapshot { encrypted: true, ..snapshot(8) };
    let refused = modify_permissions(&it, &scope(1), &grant(Grantee::All)).map_err(code).err();
    assert_eq!(refused, Some((RefusalKind::WrongState, "OperationNotPermitted")));
    let nothing = Change { add: Vec::new(), remove: vec![Grantee::All] };
    assert_eq!(modify_permissions(&it, &scope(1), &nothing), Ok(Decision::Unchanged));
}

#[test]
fn filters_and_stored_form() {
    let it = snapshot(8);
    let at = SnapshotAt { snapshot: &it, now: NOW + copy_time(8) / 2 };
    let pass = |name: &str, value: &str| {
        let filters = Filters::for_kind::<SnapshotAt<'_>>(vec![Filter { name: name.to_owned(), values: vec![value.to_owned()] }]);
        filters.expect("a known filter").pass(&at)
    };
    assert_eq!(it.progress_percent(NOW + copy_time(8) * 2), 99, "it is whole only once it is completed");
    assert!(pass("progress", "50%") && pass("status", "pending") && pass("volume-size", "8") && pass("tag:a", "1"));
    for name in SnapshotAt::FILTER_NAMES {
        assert!(*name == "owner-alias" || !at.filter_values(name).is_empty(), "{name}");
    }
    let failed = Snapshot { state: SnapshotState::Error { since: NOW, reason: "torn".to_owned() }, ..snapshot(8) };
    let done = settle(&it, NOW + copy_time(8)).after(&it).expect("kept");
    for stored in [shared(grant(Grantee::Account(scope(2).account))), failed, done] {
        let bytes = rmp_serde::to_vec_named(&stored).expect("a snapshot is stored");
        assert_eq!(rmp_serde::from_slice::<Snapshot>(&bytes).ok(), Some(stored));
    }
}

proptest! {
    /// Progress never goes back, is whole only when it is completed, and completion comes when it is due.
    #[test]
    fn progress_is_a_function_of_the_time(size in 1i32..16_384, mut at in prop::collection::vec(0u64..70_000, 1..10)) {
        let it = snapshot(size);
        let end = due(&it).expect("pending");
        at.sort_unstable();
        let mut last = 0;
        for millis in at {
            let now = NOW + std::time::Duration::from_millis(millis);
            let seen = settle(&it, now).after(&it).expect("kept");
            let percent = seen.progress_percent(now);
            prop_assert!(percent >= last && (percent == 100) == (now >= end));
            prop_assert_eq!(seen.completion_time().is_some(), now >= end);
            last = percent;
        }
    }
}
