//! Block device mappings of launches and images.

mod common;

use common::NOW;
use gureum_compute_domain::{
    block_device::{DeviceMapping, Ebs, PlannedVolume, Purpose, Target, is_device_name, launch_volumes, resolve},
    image::{Image, Permissions, shipped},
    instance::Platform,
    launch_spec::BlockDeviceSpec,
    snapshot::{Snapshot, SnapshotState},
    volume::VolumeType,
};
use gureum_model::{
    Refusal, RefusalKind, Region, Scope, Tags,
    id::{ResourceId, SnapshotId, VolumeId},
};
use proptest::prelude::*;

const FIELD: &str = "spec.block_device_mappings";

fn image(key: &str) -> Image {
    shipped::table().iter().find(|it| it.key == key).expect(key).image(&Region::default())
}

fn snapshot(number: u128, encrypted: bool) -> Snapshot {
    Snapshot {
        scope: Scope::default(),
        id: SnapshotId::from_number(number),
        volume_id: VolumeId::from_number(1),
        volume_size_gib: 20,
        description: String::new(),
        encrypted,
        kms_key_id: encrypted.then(|| "own-key".to_owned()),
        start_time: NOW,
        state: SnapshotState::Completed { since: NOW },
        permissions: Permissions::default(),
        product_codes: Vec::new(),
        node: None,
        shipped: false,
        tags: Tags::default(),
    }
}

fn spec(device: &str) -> BlockDeviceSpec {
    BlockDeviceSpec { device_name: device.to_owned(), ..BlockDeviceSpec::default() }
}

/// With the snapshots 1 (plain) and 2 (encrypted), 3 (pending), and the image's own.
fn launch_of(image: &Image, specs: &[BlockDeviceSpec]) -> Result<Vec<PlannedVolume>, Refusal> {
    let mut known = shipped::snapshots(&Region::default());
    known.extend([snapshot(1, false), snapshot(2, true)]);
    known.push(Snapshot { state: SnapshotState::Pending { until: NOW }, ..snapshot(3, false) });
    let find = |id| known.iter().find(|snapshot| snapshot.id == id);
    launch_volumes(&image.block_devices, &image.root_device_name, specs, &Scope::default(), find, FIELD)
}

fn launch(specs: &[BlockDeviceSpec]) -> Result<Vec<PlannedVolume>, Refusal> {
    launch_of(&image("amazon-linux-2023-x86_64"), specs)
}

fn reason(specs: &[BlockDeviceSpec]) -> &'static str {
    launch(specs).expect_err("it has to be refused").reason
}

fn of(number: u128) -> Option<String> {
    Some(SnapshotId::from_number(number).to_string())
}

#[test]
fn roots_have_the_size_of_their_platform() {
    for (key, platform, gib) in [("debian-12-x86_64", Platform::Linux, 8), ("windows-2022-x86_64", Platform::Windows, 30)] {
        let image = image(key);
        let planned = launch_of(&image, &[]).expect("a plain launch");
        assert_eq!((image.platform, planned.len()), (platform, 1));
        let Ebs { size_gib, volume_type, iops, delete_on_termination, .. } = planned[0].ebs;
        assert_eq!((size_gib, volume_type, iops, delete_on_termination), (gib, VolumeType::Gp3, Some(3000), true));
    }
}

#[test]
fn a_request_overrides_the_image() {
    let root = BlockDeviceSpec {
        size_gib: Some(50),
        volume_type: Some("gp2".to_owned()),
        delete_on_termination: Some(false),
        ..spec("/dev/xvda")
    };
    let data = BlockDeviceSpec { size_gib: Some(5), ..spec("/dev/sdf") };
    let copied = BlockDeviceSpec { snapshot_id: of(2), delete_on_termination: Some(true), ..spec("/dev/sdg") };
    let local = BlockDeviceSpec { virtual_name: Some("ephemeral0".to_owned()), ..spec("/dev/sdh") };
    let planned = launch(&[data, local, copied, root]).expect("a good request");
    let seen: Vec<_> = planned
        .iter()
        .map(|it| (it.device_name.as_str(), it.ebs.size_gib, it.ebs.volume_type, it.ebs.iops, it.ebs.delete_on_termination))
        .collect();
    let expected = [
        ("/dev/xvda", 50, VolumeType::Gp2, Some(150), false),
        ("/dev/sdf", 5, VolumeType::Gp2, Some(100), false),
        ("/dev/sdg", 20, VolumeType::Gp2, Some(100), true),
    ];
    assert_eq!(seen, expected);
    assert_eq!((planned[2].ebs.encrypted, planned[2].ebs.kms_key_id.as_deref()), (true, Some("own-key")));
}

#[test]
fn a_root_that_is_smaller_than_its_image_is_refused_with_the_least_size() {
    let root = |size_gib| BlockDeviceSpec { size_gib: Some(size_gib), ..spec("/dev/xvda") };
    let refusal = launch(&[root(7)]).expect_err("it has to be refused");
    assert_eq!(refusal.reason, "InvalidBlockDeviceMapping");
    assert!(refusal.to_string().contains("volume of size 7GB is smaller than snapshot"), "{refusal}");
    assert!(refusal.to_string().contains("expect size >= 8GB"), "{refusal}");
    assert_eq!(launch(&[root(8)]).expect("it fits")[0].ebs.size_gib, 8);
}

#[test]
fn every_violation_is_named_at_once() {
    let specs = [
        BlockDeviceSpec { size_gib: Some(7), snapshot_id: of(1), ..spec("/dev/xvda") },
        BlockDeviceSpec { size_gib: Some(1), volume_type: Some("gp9".to_owned()), ..spec("bad") },
        spec("/dev/sdf"),
        BlockDeviceSpec { size_gib: Some(1), ..spec("/dev/sdf") },
        BlockDeviceSpec { size_gib: Some(1), no_device: true, ..spec("/dev/sdg") },
        BlockDeviceSpec { virtual_name: Some("ephemeral24".to_owned()), ..spec("/dev/sdh") },
        BlockDeviceSpec { snapshot_id: of(9), ..spec("/dev/sdi") },
        BlockDeviceSpec { snapshot_id: of(3), ..spec("/dev/sdj") },
        BlockDeviceSpec { snapshot_id: of(2), encrypted: Some(false), ..spec("/dev/sdk") },
    ];
    let refusal = launch(&specs).expect_err("all of it is bad");
    let fields: Vec<_> = refusal.violations.iter().map(|violation| violation.field.trim_start_matches(FIELD)).collect();
    let expected = [
        "[0].ebs.snapshot_id",
        "[0].ebs.size_gib",
        "[1].device_name",
        "[1].ebs.volume_type",
        "[2].ebs.size_gib",
        "[3].device_name",
        "[4].device",
        "[5].virtual_name",
        "[8].ebs.encrypted",
        "[6].ebs.snapshot_id",
        "[7].ebs.snapshot_id",
    ];
    assert_eq!((refusal.reason, fields), ("InvalidBlockDeviceMapping", expected.to_vec()));
}

#[test]
fn codes_are_ec2s() {
    assert_eq!(reason(&[BlockDeviceSpec { size_gib: Some(7), ..spec("/dev/xvda") }]), "InvalidBlockDeviceMapping");
    assert_eq!(reason(&[BlockDeviceSpec { no_device: true, ..spec("/dev/xvda") }]), "InvalidBlockDeviceMapping");
    assert_eq!(
        reason(&[BlockDeviceSpec { virtual_name: Some("ephemeral0".to_owned()), ..spec("/dev/xvda") }]),
        "InvalidBlockDeviceMapping"
    );
    assert_eq!(
        reason(&[BlockDeviceSpec { size_gib: Some(500), volume_type: Some("st1".to_owned()), ..spec("/dev/xvda") }]),
        "InvalidParameterValue"
    );
    assert_eq!(reason(&[spec("/dev/sdf")]), "MissingParameter");
    let missing = launch(&[BlockDeviceSpec { snapshot_id: of(9), ..spec("/dev/sdf") }]).expect_err("there is none");
    assert_eq!((missing.kind, missing.reason), (RefusalKind::NotFound, "InvalidSnapshot.NotFound"));
    let many: Vec<_> = ('a'..='z')
        .flat_map(|one| ['b', 'c'].map(|two| BlockDeviceSpec { size_gib: Some(1), ..spec(&format!("/dev/xvd{two}{one}")) }))
        .collect();
    assert_eq!(reason(&many), "AttachmentLimitExceeded");
}

#[test]
fn an_image_of_snapshots_needs_a_root() {
    let (plain, scope) = (snapshot(1, false), Scope::default());
    let register = |specs: &[BlockDeviceSpec]| {
        resolve(&[], "/dev/sda1", specs, Purpose::RegisterImage, &scope, |_| Some(&plain), "block_device_mappings")
    };
    let root = BlockDeviceSpec { snapshot_id: of(1), ..spec("/dev/sda1") };
    assert_eq!(register(std::slice::from_ref(&root)).map(|mappings| mappings.len()), Ok(1));
    assert_eq!(register(&[]).map_err(|refusal| refusal.reason).err(), Some("InvalidBlockDeviceMapping"));
    assert_eq!(
        register(&[BlockDeviceSpec { size_gib: Some(8), ..spec("/dev/sda1") }]).map_err(|refusal| refusal.reason).err(),
        Some("InvalidBlockDeviceMapping")
    );
    assert_eq!(
        register(&[BlockDeviceSpec { encrypted: Some(true), ..root }]).map_err(|refusal| refusal.reason).err(),
        Some("InvalidParameterCombination")
    );
}

#[test]
fn device_names_are_ec2s() {
    for good in ["/dev/sda1", "/dev/sdf", "sdh", "xvdf", "/dev/xvda", "/dev/xvdba", "/dev/sdp15", "/dev/hdb"] {
        assert!(is_device_name(good), "{good}");
    }
    for bad in [
        "",
        "/dev/",
        "/dev/sd",
        "/dev/sd1",
        "/dev/sda0",
        "/dev/sda16",
        "/dev/sda01",
        "/dev/sda+1",
        "/dev/sdab",
        "/dev/xvdabc",
        "/dev/nvme0n1",
        "/dev/SDF",
    ] {
        assert!(!is_device_name(bad), "{bad}");
    }
}

fn any_spec() -> impl Strategy<Value = BlockDeviceSpec> {
    let device = prop::sample::select(vec!["/dev/xvda", "/dev/sdf", "/dev/sdg", "bad"]);
    let kind = prop::option::of(prop::sample::select(vec!["gp2", "gp3", "io1", "st1", "none"]));
    let snapshot = prop::option::of(prop::sample::select(vec![1u128, 2, 3, 9]));
    let numbers = (prop::option::of(-1i32..600), prop::option::of(-1i32..20_000), prop::option::of(-1i32..2_100));
    let flags = (any::<bool>(), any::<Option<bool>>(), any::<Option<bool>>());
    (device, kind, snapshot, numbers, flags).prop_map(
        |(device, kind, snapshot, (size_gib, iops, throughput_mibps), (no_device, delete_on_termination, encrypted))| BlockDeviceSpec {
            no_device,
            snapshot_id: snapshot.and_then(of),
            size_gib,
            volume_type: kind.map(str::to_owned),
            iops,
            throughput_mibps,
            delete_on_termination,
            encrypted,
            ..spec(device)
        },
    )
}

proptest! {
    /// Whatever is accepted boots, has each device once, and is no smaller than what it is made of.
    #[test]
    fn what_is_accepted_can_be_made(specs in prop::collection::vec(any_spec(), 0..4)) {
        match launch(&specs) {
            Ok(planned) => {
                prop_assert_eq!(planned[0].device_name.as_str(), "/dev/xvda");
                prop_assert!(planned[0].ebs.volume_type.bootable() && planned[0].ebs.snapshot_id.is_some());
                for (place, volume) in planned.iter().enumerate() {
                    prop_assert!(planned[..place].iter().all(|other| other.device_name != volume.device_name));
                    let least = match volume.ebs.snapshot_id { None => 1, Some(_) if place == 0 => 8, Some(_) => 20 };
                    prop_assert!(volume.ebs.size_gib >= least && volume.ebs.volume_type.sizes().contains(&volume.ebs.size_gib));
                    prop_assert_eq!(volume.ebs.encrypted, volume.ebs.kms_key_id.is_some());
                    prop_assert!(volume.ebs.encrypted || volume.ebs.snapshot_id != Some(SnapshotId::from_number(2)));
                }
            }
            Err(refusal) => prop_assert!(!refusal.violations.is_empty()),
        }
    }

    /// Saying nothing changes nothing.
    #[test]
    fn nothing_said_is_the_base(count in 0usize..4) {
        let mut base = image("debian-12-x86_64").block_devices;
        base.extend((0..count).map(|place| DeviceMapping { device_name: format!("/dev/sd{}", ['f', 'g', 'h', 'i'][place]), target: Target::Ephemeral(format!("ephemeral{place}")) }));
        for purpose in [Purpose::Launch, Purpose::CreateImage] {
            prop_assert_eq!(resolve(&base, "/dev/xvda", &[], purpose, &Scope::default(), |_| None, FIELD), Ok(base.clone()));
        }
    }
}
