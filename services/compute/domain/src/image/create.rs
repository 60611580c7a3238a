//! CreateImage and RegisterImage.

use std::ops::RangeInclusive;

use gureum_model::{
    IdSource, Refusal, Scope, Tags, Timestamp,
    id::{ImageId, SnapshotId, VolumeId},
    refusal::Violations,
};

use super::{Architecture, Image, ImageBootMode, ImageError, ImageSource, ImageState, MAX_DESCRIPTION_CHARS, Permissions};
use crate::{
    block_device::{DeviceMapping, Ebs, Purpose, Target, resolve},
    instance::{AttachedVolume, Instance, Platform, StateName},
    launch_spec::BlockDeviceSpec,
    snapshot::{Snapshot, of_volume},
    volume::{Volume, create::products},
};

/// Characters of an image's name, as EC2 limits them.
pub const NAME_CHARS: RangeInclusive<usize> = 3..=128;

/// Whether EC2 takes it as the name of an image.
pub fn check_name(name: &str) -> Result<(), ImageError> {
    let plain = |character: char| character.is_ascii_alphanumeric() || " ()[]./-'@_".contains(character);
    if NAME_CHARS.contains(&name.chars().count()) && name.chars().all(plain) {
        return Ok(());
    }
    Err(ImageError::NameMalformed { name: name.to_owned() })
}

pub(super) fn check_description(text: &str) -> Result<(), ImageError> {
    let chars = text.chars().count();
    if chars > MAX_DESCRIPTION_CHARS { Err(ImageError::LongDescription { chars }) } else { Ok(()) }
}

/// What both calls say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NewImage {
    pub name: String,
    pub description: String,
    pub block_devices: Vec<BlockDeviceSpec>,
    pub tags: Tags,
}

impl NewImage {
    fn note(&self, violations: &mut Violations) {
        violations.check("name", check_name(&self.name));
        violations.check("description", check_description(&self.description));
    }

    /// Errors: what no instance or snapshot could make right: `InvalidAMIName.Malformed`, `InvalidParameterValue`.
    pub fn check(&self) -> Result<(), Refusal> {
        let mut violations = Violations::new();
        self.note(&mut violations);
        violations.finish()
    }
}

/// What CreateImage says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FromInstance {
    pub new: NewImage,
    /// A running instance is not rebooted; what it has not yet written is missing.
    pub no_reboot: bool,
    pub snapshot_tags: Tags,
}

/// What CreateImage comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// Pending until its snapshots are completed.
    pub image: Image,
    pub snapshots: Vec<Snapshot>,
    /// The instance is to be rebooted first.
    pub reboot: bool,
}

/// Makes an image of an instance: a snapshot of each of its volumes that the request does not leave out.
///
/// `taken` is the caller's image that has the name and is not deregistered; `volume` gives the instance's volumes,
/// `snapshot` a snapshot only if the caller may use it. Errors: `IncorrectState`, `InvalidAMIName.Malformed`,
/// `InvalidAMIName.Duplicate`, `InvalidParameterValue`, and those of [`resolve`], all at once.
pub fn of_instance<'a>(
    from: &FromInstance,
    instance: &Instance,
    taken: Option<ImageId>,
    volume: impl Fn(VolumeId) -> Option<&'a Volume>,
    snapshot: impl Fn(SnapshotId) -> Option<&'a Snapshot>,
    ids: &IdSource,
    now: Timestamp,
) -> Result<Created, Refusal> {
    let reboot = match instance.state.name() {
        StateName::Running => !from.no_reboot,
        StateName::Stopped => false,
        state @ (StateName::Pending | StateName::Stopping | StateName::ShuttingDown | StateName::Terminated) => {
            let refusal = ImageError::InstanceState { id: instance.id, state }.into();
            return Err(from.new.check().err().into_iter().fold(refusal, Refusal::and));
        }
    };
    let new = &from.new;
    let mut violations = Violations::new();
    new.note(&mut violations);
    let id: ImageId = ids.next();
    let description = format!("Created by CreateImage({}) for {id}", instance.id);
    let mut snapshots = Vec::new();
    let mut base = Vec::new();
    for attached in &instance.volumes {
        let Some(volume) = volume(attached.volume_id) else { continue };
        let copy = of_volume(volume, &description, from.snapshot_tags.clone(), ids.next(), now);
        base.push(mapping_of(attached, volume, copy.id));
        snapshots.push(copy);
    }
    let root = &instance.root_device_name;
    let resolved = resolve(&base, root, &new.block_devices, Purpose::CreateImage, &instance.scope, snapshot, "block_device_mappings");
    let resolved = violations.check("", resolved).unwrap_or_default();
    violations.finish()?;
    check_free(new, taken)?;
    // What the request leaves out is not copied.
    snapshots.retain(|copy| resolved.iter().any(|mapping| mapping.ebs().is_some_and(|ebs| ebs.snapshot_id == Some(copy.id))));
    let of_snapshots = snapshots.iter().map(|snapshot| snapshot.product_codes.as_slice());
    let image = Image {
        scope: instance.scope.clone(),
        id,
        name: new.name.clone(),
        description: new.description.clone(),
        state: ImageState::Pending { since: now },
        source: ImageSource::FromInstance { instance_id: instance.id, image_id: instance.image_id },
        architecture: if instance.kind.architecture == Architecture::Arm64.as_str() { Architecture::Arm64 } else { Architecture::X86_64 },
        platform: instance.platform,
        root_device_name: root.clone(),
        block_devices: resolved,
        permissions: Permissions::default(),
        listed: false,
        product_codes: products(of_snapshots.chain([instance.product_codes.as_slice()])),
        create_time: now,
        deprecation_time: None,
        last_launched: None,
        ena_support: instance.kind.ena_support,
        boot_mode: Some(match instance.boot_mode {
            crate::instance::BootMode::LegacyBios => ImageBootMode::LegacyBios,
            crate::instance::BootMode::Uefi => ImageBootMode::Uefi,
        }),
        demands_tokens: false,
        tags: new.tags.clone(),
    };
    Ok(Created { image, snapshots, reboot })
}

fn mapping_of(attached: &AttachedVolume, volume: &Volume, copy: SnapshotId) -> DeviceMapping {
    let ebs = Ebs {
        snapshot_id: Some(copy),
        size_gib: volume.size_gib,
        volume_type: volume.volume_type,
        iops: volume.iops,
        throughput_mibps: volume.throughput_mibps,
        delete_on_termination: attached.delete_on_termination,
        encrypted: volume.encrypted,
        kms_key_id: volume.kms_key_id.clone(),
    };
    DeviceMapping { device_name: attached.device_name.clone(), target: Target::Ebs(ebs) }
}

fn check_free(new: &NewImage, taken: Option<ImageId>) -> Result<(), ImageError> {
    taken.map_or(Ok(()), |by| Err(ImageError::NameTaken { name: new.name.clone(), by }))
}

/// What RegisterImage says beside [`NewImage`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Registration {
    /// `x86_64`, `arm64`; empty for x86_64.
    pub architecture: String,
    pub root_device_name: String,
    /// `hvm`, or empty for it.
    pub virtualization_type: String,
    pub ena_support: bool,
    /// Empty for none.
    pub boot_mode: String,
    /// `v2.0` or empty.
    pub imds_support: String,
}

/// Makes an image of snapshots, available at once. AWS: the platform of such an image is Linux.
///
/// `taken` is the caller's image that has the name and is not deregistered; `snapshot` gives a snapshot only if the
/// caller may use it. Errors, all at once: `InvalidAMIName.Malformed`, `InvalidParameterValue`, `MissingParameter`,
/// and those of [`resolve`]; then `InvalidAMIName.Duplicate`.
pub fn register<'a>(
    new: &NewImage,
    registration: &Registration,
    scope: &Scope,
    taken: Option<ImageId>,
    snapshot: impl Fn(SnapshotId) -> Option<&'a Snapshot>,
    id: ImageId,
    now: Timestamp,
) -> Result<Image, Refusal> {
    let mut violations = Violations::new();
    new.note(&mut violations);
    let architecture = architecture(&registration.architecture, &mut violations);
    let boot_mode = boot_mode(&registration.boot_mode, &mut violations);
    if !matches!(registration.virtualization_type.as_str(), "" | "hvm") {
        let words = format!("the virtualization type '{}' is not offered; expected hvm", registration.virtualization_type);
        violations.add("virtualization_type", words);
    }
    if !matches!(registration.imds_support.as_str(), "" | "v2.0") {
        violations.add("imds_support", format!("'{}' is no metadata version: expected v2.0, or nothing", registration.imds_support));
    }
    let root = &registration.root_device_name;
    if root.is_empty() {
        violations.check("", Err::<(), _>(Refusal::missing("root_device_name")));
    }
    let resolved = resolve(&[], root, &new.block_devices, Purpose::RegisterImage, scope, &snapshot, "block_device_mappings");
    let resolved = match resolved {
        // One that only names what is not there keeps its own code where nothing else is wrong.
        Err(refusal) => {
            violations.finish().map_err(|mut invalid| {
                invalid.message = format!("{}; {}", invalid.message, refusal.message);
                invalid.violations.extend(refusal.violations.iter().cloned());
                invalid
            })?;
            return Err(refusal);
        }
        Ok(resolved) => resolved,
    };
    violations.finish()?;
    check_free(new, taken)?;
    // As on EC2, products stay with what they are in, or a copy would be free of their terms.
    let of_snapshots = resolved.iter().filter_map(|mapping| snapshot(mapping.ebs()?.snapshot_id?));
    let product_codes = products(of_snapshots.map(|snapshot| snapshot.product_codes.as_slice()));
    Ok(Image {
        scope: scope.clone(),
        id,
        name: new.name.clone(),
        description: new.description.clone(),
        state: ImageState::Available { since: now },
        source: ImageSource::Registered,
        architecture,
        platform: Platform::Linux,
        root_device_name: root.clone(),
        block_devices: resolved,
        permissions: Permissions::default(),
        listed: false,
        product_codes,
        create_time: now,
        deprecation_time: None,
        last_launched: None,
        ena_support: registration.ena_support,
        boot_mode,
        demands_tokens: registration.imds_support == "v2.0",
        tags: new.tags.clone(),
    })
}

fn architecture(text: &str, violations: &mut Violations) -> Architecture {
    match text {
        "" | "x86_64" => Architecture::X86_64,
        "arm64" => Architecture::Arm64,
        other => {
            violations.add("architecture", format!("the architecture '{other}' is not offered: expected x86_64 or arm64"));
            Architecture::X86_64
        }
    }
}

fn boot_mode(text: &str, violations: &mut Violations) -> Option<ImageBootMode> {
    let known = [ImageBootMode::LegacyBios, ImageBootMode::Uefi, ImageBootMode::UefiPreferred];
    let found = known.into_iter().find(|mode| mode.as_str() == text);
    if found.is_none() && !text.is_empty() {
        violations.add("boot_mode", format!("'{text}' is no boot mode: expected {}", known.map(ImageBootMode::as_str).join(", ")));
    }
    found
}
