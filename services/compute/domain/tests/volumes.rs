//! Volumes: what is refused, and random calls against a simple model.

mod common;

use std::collections::BTreeMap;

use common::{NOW, launched};
use gureum_compute_domain::{
    instance::{Instance, InstanceState, Reason},
    volume::{
        AttachmentState, BUSY_AFTER, CREATING_FOR, Decision, Volume, VolumeError, VolumeState, VolumeType,
        attach::{MAX_INSTANCES, attach, attached, detach, detached, instance_to_detach, set_delete_on_termination, terminated},
        create::{NewVolume, create},
        delete, due,
        kind::{Asked, check},
        settle,
    },
};
use gureum_model::{
    Filter, Filterable, Filters, Refusal, RefusalKind, Scope, Timestamp,
    id::{InstanceId, ResourceId, SnapshotId, VolumeId},
    refusal::Violations,
};
use proptest::prelude::*;

fn id(number: u128) -> VolumeId {
    VolumeId::from_number(number)
}

fn new() -> NewVolume {
    NewVolume { availability_zone: "us-east-1a".to_owned(), size_gib: Some(10), ..NewVolume::default() }
}

fn made(new: &NewVolume, number: u128) -> Result<Volume, Refusal> {
    create(new, &Scope::default(), |_| None, id(number), NOW)
}

fn available(number: u128) -> Volume {
    let volume = made(&new(), number).expect("a plain volume");
    settle(&volume, NOW + CREATING_FOR).after(&volume).expect("it is kept")
}

fn running(number: u128) -> Instance {
    Instance { id: InstanceId::from_number(number), state: InstanceState::Running { since: NOW }, volumes: Vec::new(), ..launched() }
}

fn stopped(number: u128) -> Instance {
    Instance { state: InstanceState::Stopped { since: NOW, reason: Reason::User }, ..running(number) }
}

fn code(error: VolumeError) -> &'static str {
    Refusal::from(error).reason
}

fn refused(change: impl Fn(&mut NewVolume)) -> Refusal {
    let mut bad = new();
    change(&mut bad);
    made(&bad, 1).expect_err("it has to be refused")
}

#[test]
fn every_violation_of_a_new_volume_is_named() {
    let refusal = refused(|bad| {
        bad.availability_zone = "eu-west-1a".to_owned();
        bad.snapshot_id = "snap-x".to_owned();
        bad.volume_type = Some(VolumeType::St1);
        bad.iops = Some(100);
        bad.throughput_mibps = Some(200);
        bad.kms_key_id = "key".to_owned();
        bad.multi_attach = true;
    });
    let fields: Vec<_> = refusal.violations.iter().map(|violation| violation.field.as_str()).collect();
    let expected = ["availability_zone", "snapshot_id", "size_gib", "iops", "throughput_mibps", "multi_attach_enabled", "kms_key_id"];
    assert_eq!((refusal.reason, fields), ("InvalidZone.NotFound", expected.to_vec()));
}

#[test]
fn sizes_and_performance_are_as_aws_documents_them() {
    assert_eq!(refused(|bad| bad.size_gib = None).reason, "MissingParameter");
    assert_eq!(refused(|bad| bad.size_gib = Some(16_385)).reason, "InvalidParameterValue");
    assert_eq!(refused(|bad| bad.volume_type = Some(VolumeType::Io2)).reason, "MissingParameter");
    assert_eq!(refused(|bad| (bad.volume_type, bad.iops) = (Some(VolumeType::Io1), Some(501))).reason, "InvalidParameterValue");
    assert_eq!(refused(|bad| (bad.volume_type, bad.iops) = (Some(VolumeType::Gp3), Some(5001))).reason, "InvalidParameterValue");
    assert_eq!(refused(|bad| (bad.volume_type, bad.throughput_mibps) = (Some(VolumeType::Gp3), Some(751))).reason, "InvalidParameterValue");
    let missing = refused(|bad| bad.snapshot_id = SnapshotId::from_number(1).to_string());
    assert_eq!((missing.kind, missing.reason), (RefusalKind::NotFound, "InvalidSnapshot.NotFound"));
    let plain = made(&new(), 1).expect("a plain volume");
    assert_eq!((plain.volume_type, plain.iops, plain.throughput_mibps, plain.encrypted), (VolumeType::Gp2, Some(100), None, false));
    let small =
        made(&NewVolume { volume_type: Some(VolumeType::Gp3), size_gib: Some(1), encrypted: Some(true), ..new() }, 1).expect("small");
    assert_eq!((small.iops, small.throughput_mibps), (Some(3000), Some(125)));
    assert_eq!(small.kms_key_id.as_deref(), Some("arn:aws:kms:us-east-1:000000000000:alias/aws/ebs"));
}

#[test]
fn attaching_is_refused_with_ec2s_codes() {
    let (volume, instance) = (available(1), running(1));
    let moved = attach(&volume, &instance, "/dev/sdf", NOW).expect("it can be attached");
    assert_eq!(moved.attachment.map(|it| it.state), Some(AttachmentState::Attaching { since: NOW }));
    assert_eq!(moved.instance.generation, instance.generation + 1);
    assert_eq!(attach(&moved.volume, &running(2), "/dev/sdf", NOW).map_err(code).err(), Some("VolumeInUse"));
    assert_eq!(attach(&available(2), &moved.instance, "/dev/sdf", NOW).map_err(code).err(), Some("InvalidParameterValue"));
    assert_eq!(attach(&available(2), &instance, "sdf0", NOW).map_err(code).err(), Some("InvalidParameterValue"));
    assert_eq!(attach(&available(2), &launched(), "/dev/sdf", NOW).map_err(code).err(), Some("IncorrectState"));
    assert_eq!(
        attach(&Volume { zone: 'b', ..volume.clone() }, &instance, "/dev/sdf", NOW).map_err(code).err(),
        Some("InvalidVolume.ZoneMismatch")
    );
    assert_eq!(attach(&made(&new(), 3).expect("new"), &instance, "/dev/sdf", NOW).map_err(code).err(), Some("IncorrectState"));
    let at_rest = attach(&volume, &stopped(1), "/dev/sdf", NOW).expect("it can be attached");
    assert_eq!(at_rest.attachment.map(|it| it.state), Some(AttachmentState::Attached));
    assert_eq!(delete(&moved.volume, NOW).map_err(code).err(), Some("VolumeInUse"));
}

#[test]
fn the_root_of_a_running_instance_stays() {
    let root = attach(&available(1), &stopped(1), "/dev/xvda", NOW).expect("a root can be put back");
    let running = Instance { state: InstanceState::Running { since: NOW }, ..root.instance.clone() };
    assert_eq!(detach(&root.volume, &running, "", false, NOW).map_err(code).err(), Some("OperationNotPermitted"));
    assert_eq!(detach(&root.volume, &running, "", true, NOW).map_err(code).err(), Some("OperationNotPermitted"));
    let off = detach(&root.volume, &root.instance, "/dev/xvda", false, NOW).expect("a stopped instance lets go");
    assert_eq!((off.volume.state.as_str(), off.instance.volumes.len()), ("available", 0));
    assert_eq!(detach(&root.volume, &root.instance, "/dev/sdx", false, NOW).map_err(code).err(), Some("InvalidAttachment.NotFound"));
    assert_eq!(instance_to_detach(&root.volume, Some(InstanceId::from_number(9))).map_err(code).err(), Some("InvalidAttachment.NotFound"));
    assert_eq!(instance_to_detach(&available(1), None).map_err(code).err(), Some("IncorrectState"));
}

#[test]
fn an_instance_that_does_not_let_go_keeps_a_volume_busy() {
    let on = attach(&available(1), &running(1), "/dev/sdf", NOW).expect("attached");
    let off = detach(&on.volume, &on.instance, "", false, NOW).expect("detaching");
    assert_eq!(detach(&off.volume, &off.instance, "", false, NOW).map_err(code).err(), Some("IncorrectState"));
    assert_eq!(due(&off.volume), Some(NOW + BUSY_AFTER));
    let busy = settle(&off.volume, NOW + BUSY_AFTER).after(&off.volume).expect("kept");
    assert_eq!(busy.attachments().first().map(|it| it.state.as_str()), Some("busy"));
    let forced = detach(&busy, &off.instance, "", true, NOW).expect("forced");
    assert_eq!((forced.volume.state.as_str(), forced.attachment), ("available", None));
}

#[test]
fn several_instances_share_only_what_may_be_shared() {
    let shared = NewVolume { volume_type: Some(VolumeType::Io2), iops: Some(100), multi_attach: true, ..new() };
    let mut volume = made(&shared, 1).expect("shared");
    volume = settle(&volume, NOW + CREATING_FOR).after(&volume).expect("kept");
    for number in 0..16 {
        volume = attach(&volume, &running(number), "/dev/sdf", NOW).expect("there is room").volume;
    }
    assert_eq!((MAX_INSTANCES, attach(&volume, &running(99), "/dev/sdf", NOW).map_err(code).err()), (16, Some("AttachmentLimitExceeded")));
    assert_eq!(instance_to_detach(&volume, None).map_err(code).err(), Some("MissingParameter"));
    let first = InstanceId::from_number(0);
    let Decision::Change(marked) = set_delete_on_termination(&volume, first, true) else { panic!("it changes") };
    let left = terminated(&marked, first, NOW).after(&marked).expect("others have it");
    assert_eq!(left.attachments().len(), 15);
}

#[test]
fn filters_see_attachments() {
    let on = attach(&available(1), &running(7), "/dev/sdf", NOW).expect("attached").volume;
    let pass = |name: &str, value: &str| {
        let filters = Filters::for_kind::<Volume>(vec![Filter { name: name.to_owned(), values: vec![value.to_owned()] }]);
        filters.expect("a known filter").pass(&on)
    };
    assert!(pass("status", "in-use") && pass("attachment.status", "attaching") && pass("attachment.device", "/dev/sd?"));
    assert!(pass("attachment.instance-id", &InstanceId::from_number(7).to_string()) && !pass("size", "11") && pass("volume-type", "gp2"));
    for name in Volume::FILTER_NAMES {
        assert!(*name == "snapshot-id" || !on.filter_values(name).is_empty(), "{name}");
    }
}

#[test]
fn every_state_is_stored() {
    let on = attach(&available(1), &running(1), "/dev/sdf", NOW).expect("attached");
    let off = detach(&on.volume, &on.instance, "", false, NOW).expect("detaching").volume;
    let busy = settle(&off, NOW + BUSY_AFTER).after(&off).expect("kept");
    let gone = Volume { state: VolumeState::Deleted { since: NOW }, ..available(1) };
    let broken = Volume { state: VolumeState::Error { since: NOW, reason: "worn".to_owned() }, ..available(1) };
    for volume in [made(&new(), 1).expect("new"), available(1), on.volume, off, busy, gone, broken] {
        let bytes = rmp_serde::to_vec_named(&volume).expect("a volume is stored");
        assert_eq!(rmp_serde::from_slice::<Volume>(&bytes).ok(), Some(volume));
    }
}

/// What can happen to a volume and an instance.
#[derive(Debug, Clone, Copy)]
enum Step {
    Create(usize),
    Attach(usize, usize, usize),
    Detach(usize, usize, bool),
    Delete(usize),
    NodeTook(usize, usize),
    NodeLetGo(usize, usize),
    Stop(usize),
    Start(usize),
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3usize).prop_map(Step::Create),
        (0..3usize, 0..2usize, 0..2usize).prop_map(|(volume, instance, device)| Step::Attach(volume, instance, device)),
        (0..3usize, 0..2usize, any::<bool>()).prop_map(|(volume, instance, force)| Step::Detach(volume, instance, force)),
        (0..3usize).prop_map(Step::Delete),
        (0..3usize, 0..2usize).prop_map(|(volume, instance)| Step::NodeTook(volume, instance)),
        (0..3usize, 0..2usize).prop_map(|(volume, instance)| Step::NodeLetGo(volume, instance)),
        (0..2usize).prop_map(Step::Stop),
        (0..2usize).prop_map(Step::Start),
        Just(Step::Wait),
    ]
}

const DEVICES: [&str; 2] = ["/dev/sdf", "/dev/sdg"];

/// The model: who holds a volume where, and whether it is being taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Free,
    By { instance: usize, device: usize, leaving: bool },
}

struct World {
    volumes: BTreeMap<usize, Volume>,
    instances: Vec<Instance>,
    model: BTreeMap<usize, Held>,
    now: Timestamp,
}

impl World {
    fn runs(&self, instance: usize) -> bool {
        matches!(self.instances[instance].state, InstanceState::Running { .. })
    }

    fn keep(&mut self, volume: usize, decision: Decision<Volume>) {
        let before = self.volumes[&volume].clone();
        match decision.after(&before) {
            Some(next) => self.volumes.insert(volume, next),
            None => self.volumes.remove(&volume),
        };
    }

    fn attach(&mut self, volume: usize, instance: usize, device: usize) {
        let taken = self
            .model
            .values()
            .any(|held| matches!(held, Held::By { instance: by, device: at, leaving: false } if *by == instance && *at == device));
        let Some(record) = self.volumes.get(&volume).cloned() else { return };
        let may = self.model.get(&volume) == Some(&Held::Free) && !taken;
        match attach(&record, &self.instances[instance], DEVICES[device], self.now) {
            Ok(moved) => {
                assert!(may, "it was attached though the model says no");
                self.volumes.insert(volume, moved.volume);
                self.instances[instance] = moved.instance;
                self.model.insert(volume, Held::By { instance, device, leaving: false });
            }
            Err(error) => assert!(!may, "{error}"),
        }
    }

    fn detach(&mut self, volume: usize, instance: usize, force: bool) {
        let Some(record) = self.volumes.get(&volume).cloned() else { return };
        let held = self.model.get(&volume).copied();
        let may = matches!(held, Some(Held::By { instance: by, leaving, .. }) if by == instance && (force || !leaving));
        match detach(&record, &self.instances[instance], "", force, self.now) {
            Ok(moved) => {
                assert!(may, "it was detached though the model says no");
                self.volumes.insert(volume, moved.volume);
                self.instances[instance] = moved.instance;
                let waits = self.runs(instance) && !force;
                let next = match held {
                    Some(Held::By { instance, device, .. }) if waits => Held::By { instance, device, leaving: true },
                    _ => Held::Free,
                };
                self.model.insert(volume, next);
            }
            Err(error) => assert!(!may, "{error}"),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Create(volume) if !self.volumes.contains_key(&volume) => {
                self.volumes.insert(volume, available(volume as u128));
                self.model.insert(volume, Held::Free);
            }
            Step::Create(_) => {}
            Step::Attach(volume, instance, device) => self.attach(volume, instance, device),
            Step::Detach(volume, instance, force) => self.detach(volume, instance, force),
            Step::Delete(volume) => {
                let Some(record) = self.volumes.get(&volume).cloned() else { return };
                let held = matches!(self.model.get(&volume), Some(Held::By { .. }));
                match delete(&record, self.now) {
                    Ok(decision) => {
                        assert!(!held);
                        self.keep(volume, decision);
                        self.model.remove(&volume);
                    }
                    Err(error) => assert!(held || !record.visible(), "{error}"),
                }
            }
            Step::NodeTook(volume, instance) => {
                let Some(record) = self.volumes.get(&volume) else { return };
                let decision = attached(record, self.instances[instance].id);
                self.keep(volume, decision);
            }
            Step::NodeLetGo(volume, instance) => {
                let Some(record) = self.volumes.get(&volume) else { return };
                let decision = detached(record, self.instances[instance].id, self.now);
                self.keep(volume, decision);
                if matches!(self.model.get(&volume), Some(Held::By { instance: by, leaving: true, .. }) if *by == instance) {
                    self.model.insert(volume, Held::Free);
                }
            }
            Step::Stop(instance) => self.instances[instance].state = InstanceState::Stopped { since: self.now, reason: Reason::User },
            Step::Start(instance) => self.instances[instance].state = InstanceState::Running { since: self.now },
            Step::Wait => {
                self.now = self.now + BUSY_AFTER;
                let volumes: Vec<usize> = self.volumes.keys().copied().collect();
                for volume in volumes {
                    let decision = settle(&self.volumes[&volume], self.now);
                    self.keep(volume, decision);
                }
            }
        }
    }

    fn check(&self) {
        for (number, volume) in &self.volumes {
            let held = match volume.attachments() {
                [] => Held::Free,
                [only] => {
                    let instance = self.instances.iter().position(|it| it.id == only.instance_id).expect("a known instance");
                    let device = DEVICES.iter().position(|device| *device == only.device).expect("a known device");
                    let leaving = matches!(only.state, AttachmentState::Detaching { .. } | AttachmentState::Busy { .. });
                    let seen = self.instances[instance].volumes.iter().any(|it| it.volume_id == volume.id && it.device_name == only.device);
                    assert_eq!(seen, !leaving, "the instance's record and the volume's say different things");
                    Held::By { instance, device, leaving }
                }
                _ => panic!("two instances have one volume"),
            };
            let deleting = matches!(volume.state, VolumeState::Deleting { .. } | VolumeState::Deleted { .. });
            assert_eq!(self.model.get(number).copied(), (!deleting).then_some(held));
            assert!(due(volume).is_none_or(|due| settle(volume, due) != Decision::Unchanged));
        }
        let seen: usize = self.instances.iter().map(|it| it.volumes.len()).sum();
        assert!(seen <= self.volumes.len());
    }
}

proptest! {
    #[test]
    fn random_calls_agree_with_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World { volumes: BTreeMap::new(), instances: vec![running(1), running(2)], model: BTreeMap::new(), now: NOW };
        for step in steps {
            world.take(step);
            world.check();
        }
    }

    /// Whatever is accepted is within the documented ranges.
    #[test]
    fn what_is_accepted_is_within_the_limits(
        kind in prop::sample::select(VolumeType::ALL.to_vec()), size_gib in 0u32..70_000,
        iops in prop::option::of(-1i32..300_000), throughput_mibps in prop::option::of(-1i32..2_500),
    ) {
        let mut violations = Violations::new();
        let performance = check(kind, Asked { size_gib, iops, throughput_mibps }, "", &mut violations);
        if violations.finish().is_ok() {
            prop_assert!(kind.sizes().contains(&size_gib));
            prop_assert_eq!(performance.throughput_mibps.is_some(), kind == VolumeType::Gp3);
            if let Some(range) = kind.iops() {
                prop_assert!(performance.iops.is_some_and(|iops| range.contains(&iops)));
            }
            if let (Some(iops), Some(throughput)) = (performance.iops, performance.throughput_mibps) {
                prop_assert!(throughput * 4 <= iops);
            }
        }
    }

    #[test]
    fn nothing_a_caller_writes_ends_the_process(zone in ".{0,16}", snapshot in ".{0,24}", size in any::<Option<i32>>(), iops in any::<Option<i32>>(), throughput in any::<Option<i32>>()) {
        for kind in VolumeType::ALL {
            let odd = NewVolume {
                availability_zone: zone.clone(), snapshot_id: snapshot.clone(), size_gib: size, volume_type: Some(kind),
                iops, throughput_mibps: throughput, ..NewVolume::default()
            };
            prop_assert!(made(&odd, 1).is_err());
        }
    }
}
