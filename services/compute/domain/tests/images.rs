//! Images: names, visibility, sharing, and what is made of instances and snapshots.

mod common;

use std::collections::BTreeSet;

use common::{NOW, launch_facts, launched, lookups, node, spec};
use gureum_compute_domain::{
    image::{
        Change, DEREGISTERED_KEPT, Image, ImageError, ImageQuery, ImageState,
        create::{Created, FromInstance, NewImage, Registration, of_instance, register},
        deregister, due, modify, permission,
        permission::Grantee,
        settle, shipped,
    },
    instance::{AttachedVolume, Instance, InstanceState, Reason},
    instance_type, launch, launch_check,
    launch_check::Lookups,
    launch_spec::{BlockDeviceSpec, LaunchSpec},
    snapshot,
    snapshot::Snapshot,
    volume::{Decision, Volume, attach, create::launched as launched_volume},
};
use gureum_model::{
    AccountId, Filter, Filterable, Filters, IdSource, Refusal, RefusalKind, Region, Scope, Tags, Timestamp,
    id::{ImageId, InstanceId, ResourceId, SnapshotId, VolumeId},
};
use proptest::prelude::*;

fn scope(account: u64) -> Scope {
    Scope { account: AccountId::from_number(account).expect("an account"), ..Scope::default() }
}

fn code(refusal: impl Into<Refusal>) -> (RefusalKind, &'static str) {
    let refusal = refusal.into();
    (refusal.kind, refusal.reason)
}

/// An instance of account 1 with a root of 8 GiB and a disk of 5, and its volumes.
fn machine() -> (Instance, Vec<Volume>) {
    let scope = scope(1);
    let shipped = shipped::table().first().expect("one ships");
    let snapshot = shipped.snapshot(&scope.region);
    let data = BlockDeviceSpec { device_name: "/dev/sdf".to_owned(), size_gib: Some(5), ..BlockDeviceSpec::default() };
    let image = shipped.image(&scope.region);
    let planned = gureum_compute_domain::block_device::launch_volumes(
        &image.block_devices,
        &image.root_device_name,
        &[data],
        &scope,
        |_| Some(&snapshot),
        "",
    );
    let planned = planned.expect("a good request");
    let id = InstanceId::from_number(1);
    let ids = IdSource::seeded(1);
    let volumes: Vec<Volume> =
        planned.iter().map(|plan| launched_volume(&scope, plan, (ids.next(), id), 'a', &[], &Tags::default(), NOW)).collect();
    let seen = planned.iter().zip(&volumes).map(|(plan, volume)| AttachedVolume {
        device_name: plan.device_name.clone(),
        volume_id: volume.id,
        attach_time: NOW,
        delete_on_termination: plan.ebs.delete_on_termination,
    });
    let instance = Instance {
        scope,
        id,
        state: InstanceState::Running { since: NOW },
        volumes: seen.collect(),
        product_codes: vec!["code".to_owned()],
        ..launched()
    };
    (instance, volumes)
}

fn named(name: &str) -> NewImage {
    NewImage { name: name.to_owned(), ..NewImage::default() }
}

fn try_image(new: &NewImage, no_reboot: bool, instance: &Instance, taken: Option<ImageId>) -> Result<Created, Refusal> {
    let (_, volumes) = machine();
    let find = |id| volumes.iter().find(|volume| volume.id == id);
    of_instance(
        &FromInstance { new: new.clone(), no_reboot, ..FromInstance::default() },
        instance,
        taken,
        find,
        |_| None,
        &IdSource::seeded(2),
        NOW,
    )
}

fn made() -> Created {
    try_image(&named("web server"), false, &machine().0, None).expect("a good request")
}

/// Available, of account 1.
fn image() -> Image {
    Image { state: ImageState::Available { since: NOW }, ..made().image }
}

fn shared(change: permission::Change) -> Image {
    let image = image();
    modify(&image, &scope(1), &Change::Permissions(change)).expect("the owner may").after(&image).expect("kept")
}

fn grant(grantee: Grantee) -> permission::Change {
    permission::Change { add: vec![grantee], remove: Vec::new() }
}

#[test]
fn an_image_of_an_instance_waits_for_its_snapshots() {
    let Created { image, snapshots, reboot } = made();
    assert_eq!((image.state.as_str(), snapshots.len(), reboot, image.product_codes.len()), ("pending", 2, true, 1));
    let sizes: Vec<_> =
        image.block_devices.iter().filter_map(|mapping| mapping.ebs()).map(|ebs| (ebs.size_gib, ebs.delete_on_termination)).collect();
    assert_eq!(sizes, [(8, true), (5, false)]);
    let find = |all: &[Snapshot], id: SnapshotId| all.iter().find(|snapshot| snapshot.id == id).cloned();
    let done: Vec<Snapshot> =
        snapshots.iter().map(|it| snapshot::settle(it, NOW + snapshot::COPY_AT_MOST).after(it).expect("kept")).collect();
    let half = [done[0].clone(), snapshots[1].clone()];
    let settled = |all: &[Snapshot]| {
        let known: Vec<Snapshot> = snapshots.iter().filter_map(|it| find(all, it.id)).collect();
        settle(&image, |id| known.iter().find(|it| it.id == id), NOW)
    };
    assert_eq!(settled(&half), Decision::Unchanged);
    assert_eq!(settled(&done).after(&image).map(|it| it.state), Some(ImageState::Available { since: NOW }));
    let failed = settled(&done[..1]).after(&image).expect("kept");
    assert_eq!((failed.state.as_str(), failed.state.reason().map(|(code, _)| code)), ("failed", Some("Server.InternalError")));
}

#[test]
fn a_request_changes_what_is_copied() {
    let device = |name: &str| BlockDeviceSpec { device_name: name.to_owned(), ..BlockDeviceSpec::default() };
    let with = |specs: Vec<BlockDeviceSpec>| try_image(&NewImage { block_devices: specs, ..named("web") }, false, &machine().0, None);
    let left_out = with(vec![BlockDeviceSpec { no_device: true, ..device("/dev/sdf") }]).expect("a disk can stay behind");
    assert_eq!((left_out.snapshots.len(), left_out.image.block_devices.len()), (1, 1));
    let larger = with(vec![
        BlockDeviceSpec { size_gib: Some(9), ..device("/dev/xvda") },
        BlockDeviceSpec { size_gib: Some(1), ..device("/dev/sdg") },
    ])
    .expect("larger");
    assert_eq!((larger.snapshots.len(), larger.image.block_devices.len()), (2, 3));
    for bad in [
        BlockDeviceSpec { no_device: true, ..device("/dev/xvda") },
        BlockDeviceSpec { size_gib: Some(7), ..device("/dev/xvda") },
        BlockDeviceSpec { snapshot_id: Some(SnapshotId::from_number(1).to_string()), ..device("/dev/sdf") },
    ] {
        let refused = with(vec![bad.clone()]).map_err(|refusal| refusal.reason).err();
        assert_eq!(refused, Some("InvalidBlockDeviceMapping"), "{bad:?}");
    }
    assert_eq!(
        with(vec![BlockDeviceSpec { encrypted: Some(true), ..device("/dev/xvda") }]).map_err(|refusal| refusal.reason).err(),
        Some("InvalidParameterCombination")
    );
}

#[test]
fn refusals_of_create_image_are_ec2s() {
    let running = machine().0;
    let refused = |new: &NewImage, instance: &Instance, taken| try_image(new, false, instance, taken).map_err(code).err();
    let other = Some(ImageId::from_number(7));
    assert_eq!(refused(&named("web"), &running, other), Some((RefusalKind::AlreadyExists, "InvalidAMIName.Duplicate")));
    assert_eq!(refused(&named("ab"), &running, None), Some((RefusalKind::Invalid, "InvalidAMIName.Malformed")));
    assert_eq!(refused(&named("web*"), &running, None), Some((RefusalKind::Invalid, "InvalidAMIName.Malformed")));
    let gone = Instance { state: InstanceState::Terminated { since: NOW, reason: Reason::User }, ..running.clone() };
    assert_eq!(refused(&named("web"), &gone, None), Some((RefusalKind::WrongState, "IncorrectState")));
    let calm = try_image(&named("web"), true, &running, None).expect("no reboot");
    assert!(!calm.reboot);
}

#[test]
fn an_image_can_be_made_of_snapshots() {
    let source = Snapshot { shipped: false, ..shipped::table()[0].snapshot(&Region::default()) };
    let root =
        BlockDeviceSpec { device_name: "/dev/sda1".to_owned(), snapshot_id: Some(source.id.to_string()), ..BlockDeviceSpec::default() };
    let new = NewImage { block_devices: vec![root], ..named("made here") };
    let registration = Registration {
        root_device_name: "/dev/sda1".to_owned(),
        architecture: "arm64".to_owned(),
        imds_support: "v2.0".to_owned(),
        ..Registration::default()
    };
    let run = |new: &NewImage, registration: &Registration, known: bool| {
        register(new, registration, &scope(1), None, |_| known.then_some(&source), ImageId::from_number(1), NOW)
    };
    let image = run(&new, &registration, true).expect("a good request");
    assert_eq!((image.state.as_str(), image.demands_tokens, image.facts(None).architecture), ("available", true, "arm64".to_owned()));
    assert_eq!(run(&new, &registration, false).map_err(code).err(), Some((RefusalKind::NotFound, "InvalidSnapshot.NotFound")));
    let bad = Registration {
        architecture: "i386".to_owned(),
        boot_mode: "fast".to_owned(),
        virtualization_type: "paravirtual".to_owned(),
        imds_support: "v1".to_owned(),
        ..Registration::default()
    };
    let refusal = run(&NewImage { block_devices: Vec::new(), ..named("x") }, &bad, true).expect_err("all of it is bad");
    let fields: Vec<_> = refusal.violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(
        fields,
        ["name", "architecture", "boot_mode", "virtualization_type", "imds_support", "root_device_name", "block_device_mappings"]
    );
}

#[test]
fn only_the_owner_changes_an_image() {
    let private = image();
    let stranger = modify(&private, &scope(2), &Change::DemandsTokens).map_err(code).err();
    assert_eq!(stranger, Some((RefusalKind::NotFound, "InvalidAMIID.NotFound")));
    let friend = deregister(&shared(grant(Grantee::Account(scope(2).account))), &scope(2), NOW).map_err(code).err();
    assert_eq!(friend, Some((RefusalKind::Denied, "AuthFailure")));
    let ships = shipped::images(&Region::default()).remove(0);
    // Not even the account whose number the publisher has.
    let publisher = Scope { account: ships.scope.account, ..scope(1) };
    assert_eq!(deregister(&ships, &publisher, NOW).map_err(code).err(), Some((RefusalKind::Denied, "AuthFailure")));
    assert_eq!(
        modify(&private, &scope(1), &Change::Description("x".repeat(256))).map_err(code).err(),
        Some((RefusalKind::Invalid, "InvalidParameterValue"))
    );
    assert_eq!(modify(&private, &scope(1), &Change::Description(String::new())), Ok(Decision::Unchanged));
}

#[test]
fn a_deregistered_image_is_no_longer_available() {
    let it = image();
    let gone = deregister(&it, &scope(1), NOW).expect("the owner may").after(&it).expect("it is kept a while");
    assert_eq!(deregister(&gone, &scope(1), NOW).map_err(code).err(), Some((RefusalKind::WrongState, "InvalidAMIID.Unavailable")));
    assert!(!gone.holds_snapshots() && !gone.facts(None).available);
    let query = ImageQuery { ids: vec![it.id], ..ImageQuery::default() };
    assert_eq!(query.check_ids(&scope(1), |_| Some(&gone)), Err(ImageError::Unavailable { id: it.id }));
    assert_eq!(query.check_ids(&scope(2), |_| Some(&gone)), Err(ImageError::NotFound { ids: vec![it.id] }));
    let end = NOW + DEREGISTERED_KEPT;
    assert_eq!((due(&gone), settle(&gone, |_| None, end)), (Some(end), Decision::Remove));
}

#[test]
fn owners_and_users_choose() {
    let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let admits = |image: &Image, owners: &[&str], users: &[&str], viewer: u64| {
        ImageQuery::parse(&[], &texts(owners), &texts(users), false).expect("known words").admits(image, &scope(viewer), NOW)
    };
    let ships = shipped::images(&Region::default()).remove(0);
    assert!(admits(&ships, &[], &[], 2) && admits(&ships, &["amazon"], &["all"], 2) && admits(&ships, &["137112412989"], &[], 2));
    assert!(!admits(&ships, &["self"], &[], 2) && !admits(&ships, &[], &["self"], 2));
    let private = image();
    assert!(admits(&private, &["self"], &[], 1) && !admits(&private, &[], &[], 2));
    let one = shared(grant(Grantee::Account(scope(2).account)));
    assert!(
        admits(&one, &[], &["self"], 2)
            && admits(&one, &["000000000001"], &["000000000002"], 1)
            && !admits(&one, &[], &["000000000002"], 3)
    );
    let listed = Image { listed: true, ..image() };
    assert!(admits(&listed, &["aws-marketplace"], &[], 3) && !admits(&Image { listed: true, ..made().image }, &[], &[], 3));
    let refusal = ImageQuery::parse(&texts(&["ami-1"]), &texts(&["me"]), &texts(&["you"]), false).expect_err("three are bad");
    assert_eq!((refusal.reason, refusal.violations.len()), ("InvalidAMIID.Malformed", 3));
    let old = Image { deprecation_time: Some(NOW), ..shared(grant(Grantee::All)) };
    let all = ImageQuery { include_deprecated: true, ..ImageQuery::default() };
    let by_id = ImageQuery { ids: vec![old.id], ..ImageQuery::default() };
    assert!(
        !admits(&old, &[], &[], 2) && admits(&old, &[], &[], 1) && all.admits(&old, &scope(2), NOW) && by_id.admits(&old, &scope(2), NOW)
    );
}

#[test]
fn filters_choose_and_tags_stay_with_the_owner() {
    let pass = |image: &Image, name: &str, value: &str| {
        let filters = Filters::for_kind::<Image>(vec![Filter { name: name.to_owned(), values: vec![value.to_owned()] }]);
        filters.expect("a known filter").pass(image)
    };
    let names = |name: &str, value: &str| shipped::images(&Region::default()).iter().filter(|image| pass(image, name, value)).count();
    assert_eq!(
        (
            names("name", "ubuntu/images/hvm-ssd*/ubuntu-noble-24.04-amd64-server-*"),
            names("platform", "windows"),
            names("name", "al2023-ami-2023*")
        ),
        (1, 1, 2)
    );
    assert_eq!((names("sriov-net-support", "simple"), names("source-image-region", "*")), (shipped::table().len(), 0));
    assert!(pass(&made().image, "source-image-region", "us-east-1"));
    assert_eq!((names("is-public", "true"), names("owner-alias", "amazon")), (shipped::table().len(), shipped::table().len()));
    let tagged = Image { tags: Tags([("a".to_owned(), "1".to_owned())].into()), ..shared(grant(Grantee::Account(scope(2).account))) };
    assert!(pass(&tagged.seen_by(scope(1).account), "tag:a", "1") && !pass(&tagged.seen_by(scope(2).account), "tag:a", "1"));
    for name in Image::FILTER_NAMES {
        let absent = ["boot-mode", "imds-support", "owner-alias", "platform", "state-reason-code", "state-reason-message"].contains(name);
        assert!(absent || !tagged.filter_values(name).is_empty(), "{name}");
    }
}

#[test]
fn every_state_is_stored() {
    let gone = deregister(&image(), &scope(1), NOW).expect("the owner may").after(&image()).expect("kept");
    let failed = Image { state: ImageState::Failed { since: NOW, reason: "torn".to_owned() }, ..image() };
    let ships = shipped::images(&Region::default()).remove(0);
    for stored in [made().image, shared(grant(Grantee::Account(scope(2).account))), gone, failed, ships] {
        let bytes = rmp_serde::to_vec_named(&stored).expect("an image is stored");
        assert_eq!(rmp_serde::from_slice::<Image>(&bytes).ok(), Some(stored));
    }
}

/// Each shipped image launches on the smallest type of its architecture, and its volumes follow it to its end.
#[test]
fn every_shipped_image_can_be_launched() {
    let scope = Scope::default();
    let snapshots = shipped::snapshots(&scope.region);
    for image in shipped::images(&scope.region) {
        let name = if image.architecture.as_str() == "arm64" { "t4g.micro" } else { "t3.micro" };
        let kind = instance_type::find(name).expect(name);
        let planned = gureum_compute_domain::block_device::launch_volumes(
            &image.block_devices,
            &image.root_device_name,
            &[],
            &scope,
            |id| snapshots.iter().find(|it| it.id == id),
            "",
        );
        let planned = planned.expect("a plain launch");
        let found = Lookups {
            image: Some(image.facts(None)),
            kind: Some(kind.facts()),
            volumes: Ok(planned.iter().map(|plan| plan.facts()).collect()),
            ..lookups()
        };
        let wanted = LaunchSpec { image_id: Some(image.id.to_string()), instance_type: Some(name.to_owned()), ..spec() };
        let plan =
            launch_check::check(launch::parse(&wanted, 1, 1, &scope.region).expect("good words"), found).expect("it can be launched");
        let ids = plan.new_ids(1, &IdSource::seeded(1));
        let instance = plan.instance(&launch_facts(), 0, &ids[0], node(1), NOW);
        let volume = launched_volume(
            &scope,
            &planned[0],
            (instance.volumes[0].volume_id, instance.id),
            instance.zone,
            &instance.product_codes,
            &plan.wanted.tags.volume,
            NOW,
        );
        let after = attach::terminated(&volume, instance.id, NOW).after(&volume).expect("kept a while");
        assert!(!after.visible() && volume.attachment(instance.id).is_some_and(|it| it.device == image.root_device_name));
    }
}

/// As on EC2, a product stays with what it is in: with volumes, snapshots, and images of these, however they are made.
#[test]
fn no_copy_of_a_product_is_free_of_its_terms() {
    use gureum_compute_domain::{
        block_device,
        snapshot::{self, SnapshotState},
        volume::create as make,
    };
    let (scope, ids, code) = (scope(1), IdSource::seeded(9), vec!["product".to_owned()]);
    let ships = &shipped::table()[0];
    let (image, of_image) = (ships.image(&scope.region), ships.snapshot(&scope.region));
    let find = |_| Some(&of_image);
    let planned = block_device::launch_volumes(&image.block_devices, &image.root_device_name, &[], &scope, find, "").expect("its volumes");
    let root = make::launched(&scope, &planned[0], (ids.next(), ids.next()), 'a', &code, &Tags::default(), NOW);
    let copy = snapshot::create(&root, "", Tags::default(), ids.next(), NOW).expect("it is in use");
    let copy = snapshot::Snapshot { state: SnapshotState::Completed { since: NOW }, ..copy };
    assert_eq!(copy.product_codes, code);
    let zone = scope.region.zones()[0].clone();
    let new = make::NewVolume { availability_zone: zone, snapshot_id: copy.id.to_string(), ..make::NewVolume::default() };
    assert_eq!(make::create(&new, &scope, |_| Some(&copy), ids.next(), NOW).expect("a volume").product_codes, code);
    let mapping =
        BlockDeviceSpec { device_name: "/dev/xvda".to_owned(), snapshot_id: Some(copy.id.to_string()), ..BlockDeviceSpec::default() };
    let new = NewImage { name: "washed".to_owned(), block_devices: vec![mapping], ..NewImage::default() };
    let registration = Registration { root_device_name: "/dev/xvda".to_owned(), ..Registration::default() };
    let image = register(&new, &registration, &scope, None, |_| Some(&copy), ids.next(), NOW).expect("an image");
    assert_eq!(image.product_codes, code);
}

#[derive(Debug, Clone)]
enum Step {
    Make(usize),
    Copied,
    Share(usize, Option<u64>, bool),
    Deregister(usize, u64),
    DeleteSnapshots(usize),
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3usize).prop_map(Step::Make),
        Just(Step::Copied),
        (0..3usize, prop::option::of(2u64..4), any::<bool>()).prop_map(|(image, account, given)| Step::Share(image, account, given)),
        (0..3usize, 1u64..4).prop_map(|(image, caller)| Step::Deregister(image, caller)),
        (0..3usize).prop_map(Step::DeleteSnapshots),
        Just(Step::Wait),
    ]
}

/// The model of one image: it lives, can be used, and is shared with these (0 for all).
#[derive(Debug, Clone, Default, PartialEq)]
struct Known {
    alive: bool,
    usable: bool,
    shared: BTreeSet<u64>,
}

#[derive(Default)]
struct World {
    images: [Option<Image>; 3],
    snapshots: Vec<Snapshot>,
    model: [Known; 3],
}

impl World {
    fn settle(&mut self, now: Timestamp) {
        for snapshot in &mut self.snapshots {
            *snapshot = snapshot::settle(snapshot, now).after(snapshot).expect("kept");
        }
        for slot in &mut self.images {
            *slot = slot.take().and_then(|image| settle(&image, |id| self.snapshots.iter().find(|it| it.id == id), now).after(&image));
        }
    }

    fn make(&mut self, place: usize, ids: &IdSource, now: Timestamp) {
        let (instance, volumes) = machine();
        let name = format!("image {place}");
        let taken = self.images[place].as_ref().filter(|it| it.holds_snapshots()).map(|it| it.id);
        let find = |id: VolumeId| volumes.iter().find(|volume| volume.id == id);
        match of_instance(&FromInstance { new: named(&name), ..FromInstance::default() }, &instance, taken, find, |_| None, ids, now) {
            Ok(created) => {
                assert!(!self.model[place].alive);
                self.snapshots.extend(created.snapshots);
                self.images[place] = Some(created.image);
                self.model[place] = Known { alive: true, ..Known::default() };
            }
            Err(refusal) => assert!(self.model[place].alive && refusal.reason == "InvalidAMIName.Duplicate", "{refusal}"),
        }
    }

    fn share(&mut self, place: usize, account: Option<u64>, given: bool) {
        let Some(image) = &self.images[place] else { return };
        let grantee = account.map_or(Grantee::All, |account| Grantee::Account(scope(account).account));
        let change = if given { grant(grantee) } else { permission::Change { add: Vec::new(), remove: vec![grantee] } };
        match modify(image, &scope(1), &Change::Permissions(change)) {
            Ok(decision) => {
                assert!(self.model[place].alive);
                self.images[place] = decision.after(image);
                let number = account.unwrap_or(0);
                if given {
                    self.model[place].shared.insert(number)
                } else {
                    self.model[place].shared.remove(&number)
                };
            }
            Err(error) => assert!(!self.model[place].alive, "{error}"),
        }
    }

    fn take(&mut self, step: Step, ids: &IdSource, now: &mut Timestamp) {
        match step {
            Step::Make(place) => self.make(place, ids, *now),
            Step::Copied => {
                *now = *now + snapshot::COPY_AT_MOST;
                self.settle(*now);
                for known in &mut self.model {
                    known.usable = known.alive;
                }
            }
            Step::Share(place, account, given) => self.share(place, account, given),
            Step::Deregister(place, caller) => {
                let Some(image) = &self.images[place] else { return };
                match deregister(image, &scope(caller), *now) {
                    Ok(decision) => {
                        assert!(self.model[place].alive && caller == 1);
                        self.images[place] = decision.after(image);
                        self.model[place] = Known::default();
                    }
                    Err(_) => assert!(!self.model[place].alive || caller != 1),
                }
            }
            Step::DeleteSnapshots(place) => {
                let Some(image) = &self.images[place] else { return };
                let holders: Vec<&Image> = self.images.iter().flatten().filter(|it| it.holds_snapshots()).collect();
                for id in image.snapshots() {
                    let Some(found) = self.snapshots.iter().position(|it| it.id == id) else { continue };
                    let used_by: Vec<ImageId> =
                        holders.iter().filter(|it| it.snapshots().any(|other| other == id)).map(|it| it.id).collect();
                    let deleted = snapshot::delete(&self.snapshots[found], &scope(1), &used_by).is_ok();
                    assert_eq!(deleted, !self.model[place].alive);
                    if deleted {
                        self.snapshots.remove(found);
                    }
                }
            }
            Step::Wait => {
                *now = *now + DEREGISTERED_KEPT;
                self.settle(*now);
                for known in &mut self.model {
                    known.usable = known.alive;
                }
            }
        }
    }

    fn check(&self, now: Timestamp) {
        for (slot, known) in self.images.iter().zip(&self.model) {
            for viewer in 1..4 {
                let expected =
                    known.alive && (viewer == 1 || (known.usable && (known.shared.contains(&0) || known.shared.contains(&viewer))));
                let seen = slot.as_ref().is_some_and(|image| ImageQuery::default().admits(image, &scope(viewer), now));
                assert_eq!(seen, expected, "viewer {viewer} of {slot:?}");
            }
            assert_eq!(slot.as_ref().is_some_and(|image| image.facts(None).available), known.usable);
        }
    }
}

proptest! {
    #[test]
    fn random_calls_agree_with_the_model(steps in prop::collection::vec(step(), 1..40)) {
        let (mut world, ids, mut now) = (World::default(), IdSource::seeded(5), NOW);
        for step in steps {
            world.take(step, &ids, &mut now);
            world.check(now);
        }
    }

    #[test]
    fn nothing_a_caller_writes_ends_the_process(name in ".{0,140}", device in ".{0,20}", snapshot in prop::option::of(".{0,24}"), size in any::<Option<i32>>(), kind in prop::option::of(".{0,5}"), root in ".{0,20}") {
        let odd = NewImage {
            block_devices: vec![BlockDeviceSpec { device_name: device, snapshot_id: snapshot, size_gib: size, volume_type: kind, ..BlockDeviceSpec::default() }],
            ..named(&name)
        };
        let registration = Registration { root_device_name: root, ..Registration::default() };
        prop_assert!(register(&odd, &registration, &scope(1), None, |_| None, ImageId::from_number(1), NOW).is_err());
        let _ = try_image(&odd, false, &machine().0, None);
        let _ = ImageQuery::parse(std::slice::from_ref(&odd.name), std::slice::from_ref(&odd.name), &[], true);
    }
}
