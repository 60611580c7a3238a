//! A request's mappings over a base.

use gureum_model::{Refusal, Scope, id::SnapshotId, refusal::Violations};

use super::{DeviceMapping, Ebs, Target, is_device_name, is_ephemeral};
use crate::{
    launch_spec::BlockDeviceSpec,
    snapshot::{Snapshot, usable},
    volume::{
        VolumeType,
        create::{encryption, too_small},
        kind::{Asked, check},
        with_missing,
    },
};

/// What the mappings are for: it decides what may be said of a device that the base has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The base is the image's.
    Launch,
    /// The base is what the instance has; its snapshots are about to be taken.
    CreateImage,
    /// There is no base.
    RegisterImage,
}

/// Everything that one mapping's reading needs.
struct Reader<'r, F> {
    purpose: Purpose,
    root: &'r str,
    scope: &'r Scope,
    find: F,
    violations: Violations,
    missing: Vec<(String, Refusal)>,
}

/// Puts `specs` over `base`; the root comes first, then the base's order, then what is new.
///
/// `find` gives a snapshot only if the caller may use it, and those of the base in any case. Defaults, as AWS
/// documents them: what the base says; a new volume is gp2, has its snapshot's size, and stays when its instance
/// goes, unless it is the root.
///
/// Errors, all at once: `InvalidBlockDeviceMapping` (a device twice, without its base or root, smaller than its
/// snapshot), `InvalidParameterValue`, `InvalidParameterCombination`, `InvalidParameterDependency`,
/// `MissingParameter`, `InvalidSnapshotID.Malformed`, `InvalidSnapshot.NotFound`, `IncorrectState` (of a snapshot).
pub fn resolve<'a>(
    base: &[DeviceMapping],
    root: &str,
    specs: &[BlockDeviceSpec],
    purpose: Purpose,
    scope: &Scope,
    find: impl Fn(SnapshotId) -> Option<&'a Snapshot>,
    field: &str,
) -> Result<Vec<DeviceMapping>, Refusal> {
    let mut reader = Reader { purpose, root, scope, find, violations: Violations::new(), missing: Vec::new() };
    let mut resolved: Vec<DeviceMapping> = base.to_vec();
    for (place, spec) in specs.iter().enumerate() {
        let field = format!("{field}[{place}]");
        if specs[..place].iter().any(|other| other.device_name == spec.device_name) {
            reader.refuse(&field, "device_name", format!("the device '{}' is given twice", spec.device_name));
            continue;
        }
        let existing = resolved.iter().position(|mapping| mapping.device_name == spec.device_name);
        if existing.is_none() && !is_device_name(&spec.device_name) {
            let words = format!("invalid device name '{}': expected one such as /dev/sdf", spec.device_name);
            reader.violations.add(format!("{field}.device_name"), words);
        }
        let mapping = reader.mapping(spec, existing.map(|place| &resolved[place]), &field);
        match (existing, mapping) {
            (Some(place), Some(mapping)) => resolved[place] = mapping,
            (Some(place), None) => {
                resolved.remove(place);
            }
            (None, Some(mapping)) => resolved.push(mapping),
            (None, None) => {}
        }
    }
    reader.check_root(&resolved, field);
    with_missing(reader.violations.finish(), reader.missing)?;
    resolved.sort_by_key(|mapping| mapping.device_name != root);
    Ok(resolved)
}

impl<'a, F: Fn(SnapshotId) -> Option<&'a Snapshot>> Reader<'_, F> {
    fn refuse(&mut self, field: &str, name: &str, words: String) {
        self.violations.add_as("InvalidBlockDeviceMapping", format!("{field}.{name}"), words);
    }

    /// What is at the device from now on; none for nothing.
    fn mapping(&mut self, spec: &BlockDeviceSpec, existing: Option<&DeviceMapping>, field: &str) -> Option<DeviceMapping> {
        let says_ebs = spec.snapshot_id.is_some() || spec.size_gib.is_some() || spec.volume_type.is_some();
        let kinds = [spec.no_device, spec.virtual_name.is_some(), says_ebs].into_iter().filter(|given| *given).count();
        if kinds > 1 {
            self.refuse(
                field,
                "device",
                format!("more than one thing is said of '{}': give a volume, a virtual name or no_device", spec.device_name),
            );
        }
        if spec.no_device {
            return None;
        }
        let target = match &spec.virtual_name {
            Some(name) => {
                if !is_ephemeral(name) {
                    self.violations
                        .add(format!("{field}.virtual_name"), format!("'{name}' is no virtual name: expected ephemeral0 to ephemeral23"));
                }
                Target::Ephemeral(name.clone())
            }
            None => Target::Ebs(self.volume(spec, existing.and_then(DeviceMapping::ebs), field)),
        };
        Some(DeviceMapping { device_name: spec.device_name.clone(), target })
    }

    fn volume(&mut self, spec: &BlockDeviceSpec, existing: Option<&Ebs>, field: &str) -> Ebs {
        let prefix = format!("{field}.ebs.");
        let named = spec.snapshot_id.as_deref().and_then(|text| self.violations.optional_id(format!("{prefix}snapshot_id"), text));
        if let (Some(named), Some(ebs)) = (named, existing) {
            self.check_replaced(named, ebs, spec, &prefix);
        }
        let snapshot_id: Option<SnapshotId> = named.or(existing.and_then(|ebs| ebs.snapshot_id));
        // The base's own are trusted: for CreateImage they are only about to be taken.
        let snapshot = match named {
            Some(id) => self.usable(id, &prefix),
            None => snapshot_id.and_then(|id| (self.find)(id)),
        };
        let kind = self.volume_type(spec, existing, &prefix);
        let size_gib = self.size(spec, existing, snapshot, &prefix);
        let asked = Asked { size_gib: size_gib.unwrap_or_default(), ..performance(spec, existing, kind) };
        // Where the size is not known, the reason for that is refused already.
        let performance = size_gib.map(|_| check(kind, asked, &prefix, &mut self.violations)).unwrap_or_default();
        let key = self.encryption(spec, existing, snapshot, &prefix);
        let root = spec.device_name == self.root;
        Ebs {
            snapshot_id,
            size_gib: asked.size_gib,
            volume_type: kind,
            iops: performance.iops,
            throughput_mibps: performance.throughput_mibps,
            delete_on_termination: spec.delete_on_termination.or(existing.map(|ebs| ebs.delete_on_termination)).unwrap_or(root),
            encrypted: key.is_some(),
            kms_key_id: key,
        }
    }

    /// AWS: the snapshot of an image's root cannot be replaced, nor any of what CreateImage is about to copy.
    fn check_replaced(&mut self, named: SnapshotId, existing: &Ebs, spec: &BlockDeviceSpec, prefix: &str) {
        let fixed = match self.purpose {
            Purpose::Launch => spec.device_name == self.root && existing.snapshot_id != Some(named),
            Purpose::CreateImage => true,
            Purpose::RegisterImage => false,
        };
        if fixed {
            let words = format!("the snapshot of the device '{}' cannot be replaced; leave snapshot_id out", spec.device_name);
            self.violations.add_as("InvalidBlockDeviceMapping", format!("{prefix}snapshot_id"), words);
        }
    }

    fn usable(&mut self, id: SnapshotId, prefix: &str) -> Option<&'a Snapshot> {
        match usable(id, (self.find)(id)) {
            Ok(snapshot) => Some(snapshot),
            Err(error) => {
                self.missing.push((format!("{prefix}snapshot_id"), error.into()));
                None
            }
        }
    }

    fn volume_type(&mut self, spec: &BlockDeviceSpec, existing: Option<&Ebs>, prefix: &str) -> VolumeType {
        let given = spec.volume_type.as_deref().filter(|text| !text.is_empty());
        let given = given.and_then(|text| self.violations.check(format!("{prefix}volume_type"), text.parse::<VolumeType>()));
        given.or(existing.map(|ebs| ebs.volume_type)).unwrap_or_default()
    }

    fn size(&mut self, spec: &BlockDeviceSpec, existing: Option<&Ebs>, snapshot: Option<&Snapshot>, prefix: &str) -> Option<u32> {
        let least = existing.filter(|_| self.purpose == Purpose::CreateImage).map(|ebs| ebs.size_gib);
        let inherited = match spec.snapshot_id.as_deref() {
            // Another snapshot brings its own size.
            Some(text) if !text.is_empty() => snapshot.map(|snapshot| snapshot.volume_size_gib),
            _ => existing.map(|ebs| ebs.size_gib).or(snapshot.map(|snapshot| snapshot.volume_size_gib)),
        };
        let size = spec.size_gib.map(|size| u32::try_from(size).unwrap_or_default()).or(inherited);
        let Some(size) = size else {
            if spec.snapshot_id.is_none() {
                let words = format!("the device '{}' must contain the parameter size or snapshotId", spec.device_name);
                self.violations.add_as("MissingParameter", format!("{prefix}size_gib"), words);
            }
            return None;
        };
        if let Some(snapshot) = snapshot.filter(|snapshot| size < snapshot.volume_size_gib) {
            self.violations.add_as("InvalidBlockDeviceMapping", format!("{prefix}size_gib"), too_small(size, snapshot));
        } else if let Some(least) = least.filter(|least| size < *least) {
            let words = format!("volume of size {size}GB is smaller than the instance's volume, expect size >= {least}GB");
            self.violations.add_as("InvalidBlockDeviceMapping", format!("{prefix}size_gib"), words);
        }
        Some(size)
    }

    /// The key of an encrypted volume.
    fn encryption(&mut self, spec: &BlockDeviceSpec, existing: Option<&Ebs>, snapshot: Option<&Snapshot>, prefix: &str) -> Option<String> {
        let key = spec.kms_key_id.as_deref().filter(|key| !key.is_empty());
        // AWS: CreateImage cannot encrypt what is not encrypted, nor RegisterImage say anything of a snapshot's volume.
        let fixed = match self.purpose {
            Purpose::Launch => false,
            Purpose::CreateImage => existing.is_some_and(|ebs| !ebs.encrypted && spec.encrypted == Some(true)),
            Purpose::RegisterImage => snapshot.is_some() && spec.encrypted.is_some(),
        };
        if fixed {
            let words = format!("the encryption of the device '{}' is that of its snapshot; leave encrypted out", spec.device_name);
            self.violations.add_as("InvalidParameterCombination", format!("{prefix}encrypted"), words);
            return None;
        }
        match existing.filter(|ebs| ebs.encrypted) {
            // AWS: encryption is never taken away; another key may be chosen.
            Some(ebs) if key.is_none() && (spec.encrypted != Some(false) || self.purpose == Purpose::CreateImage) => ebs.kms_key_id.clone(),
            Some(_) | None => encryption(self.scope, spec.encrypted, key, snapshot, prefix, &mut self.violations),
        }
    }

    /// Every image and every instance has a root volume from which it can boot.
    fn check_root(&mut self, resolved: &[DeviceMapping], field: &str) {
        let root = self.root;
        let Some(mapping) = resolved.iter().find(|mapping| mapping.device_name == root) else {
            let words = format!("there is nothing at the root device '{root}'; give it a volume with a snapshot");
            self.violations.add_as("InvalidBlockDeviceMapping", field, words);
            return;
        };
        match mapping.ebs() {
            None => self.violations.add_as("InvalidBlockDeviceMapping", field, format!("the root device '{root}' must be a volume")),
            Some(ebs) => {
                if !ebs.volume_type.bootable() {
                    let words = format!("{} volumes cannot be boot volumes; choose another type for '{root}'", ebs.volume_type);
                    self.violations.add(field, words);
                }
                if ebs.snapshot_id.is_none() && self.purpose == Purpose::RegisterImage {
                    let words = format!("the root device '{root}' has no snapshot");
                    self.violations.add_as("InvalidBlockDeviceMapping", field, words);
                }
            }
        }
    }
}

/// What the spec says of the performance; what the base says counts only for its own type.
fn performance(spec: &BlockDeviceSpec, existing: Option<&Ebs>, kind: VolumeType) -> Asked {
    let base = existing.filter(|ebs| ebs.volume_type == kind);
    let number = |value: Option<u32>| value.and_then(|value| i32::try_from(value).ok());
    let iops = kind.iops().and(base.and_then(|ebs| number(ebs.iops)));
    Asked {
        size_gib: 0,
        iops: spec.iops.or(iops),
        throughput_mibps: spec.throughput_mibps.or(base.and_then(|ebs| number(ebs.throughput_mibps))),
    }
}
