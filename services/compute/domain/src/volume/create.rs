//! CreateVolume, and the volumes that a launch makes.

use std::collections::BTreeSet;

use gureum_model::{
    Refusal, Scope, Tags, Timestamp,
    id::{InstanceId, SnapshotId, VolumeId},
    refusal::Violations,
};

use super::{
    Attachment, AttachmentState, Volume, VolumeState, VolumeType,
    kind::{Asked, Performance, check},
    with_missing,
};
use crate::{
    block_device::PlannedVolume,
    snapshot::{Snapshot, usable},
};

/// What a caller says of a new volume.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NewVolume {
    /// The zone's name.
    pub availability_zone: String,
    pub size_gib: Option<i32>,
    /// Empty for none.
    pub snapshot_id: String,
    /// None: gp2, as in EC2.
    pub volume_type: Option<VolumeType>,
    pub iops: Option<i32>,
    pub throughput_mibps: Option<i32>,
    pub encrypted: Option<bool>,
    /// Empty for none.
    pub kms_key_id: String,
    pub multi_attach: bool,
    pub tags: Tags,
}

/// Makes a volume, creating.
///
/// `find` gives a snapshot only if the caller may use it. Errors, all at once: `InvalidZone.NotFound`,
/// `InvalidSnapshotID.Malformed`, `InvalidSnapshot.NotFound`, `IncorrectState` (a snapshot that is not complete),
/// `MissingParameter`, `InvalidParameterValue`, `InvalidParameterCombination`, `InvalidParameterDependency`.
pub fn create<'a>(
    new: &NewVolume,
    scope: &Scope,
    find: impl Fn(SnapshotId) -> Option<&'a Snapshot>,
    id: VolumeId,
    now: Timestamp,
) -> Result<Volume, Refusal> {
    let mut violations = Violations::new();
    let mut missing = Vec::new();
    let zone = scope.region.zone_letter(&new.availability_zone);
    if zone.is_none() {
        let zones = scope.region.zones().join(", ");
        let words = format!("the zone '{}' does not exist; expected one of {zones}", new.availability_zone);
        violations.add_as("InvalidZone.NotFound", "availability_zone", words);
    }
    let snapshot_id: Option<SnapshotId> = violations.optional_id("snapshot_id", &new.snapshot_id);
    let snapshot = snapshot_id.and_then(|id| match usable(id, find(id)) {
        Ok(snapshot) => Some(snapshot),
        Err(error) => {
            missing.push(("snapshot_id".to_owned(), error.into()));
            None
        }
    });
    let kind = new.volume_type.unwrap_or_default();
    let (size_gib, performance) = dimensions(new, kind, snapshot, &mut violations);
    if new.multi_attach && !kind.shareable() {
        let words = format!("multi-attach is not supported for {kind} volumes; choose io1 or io2");
        violations.add_as("InvalidParameterCombination", "multi_attach_enabled", words);
    }
    let key = Some(new.kms_key_id.as_str()).filter(|key| !key.is_empty());
    let encryption = encryption(scope, new.encrypted, key, snapshot, "", &mut violations);
    with_missing(violations.finish(), missing)?;
    Ok(Volume {
        scope: scope.clone(),
        id,
        // Present, for nothing was refused.
        zone: zone.unwrap_or_default(),
        size_gib,
        volume_type: kind,
        iops: performance.iops,
        throughput_mibps: performance.throughput_mibps,
        snapshot_id,
        product_codes: snapshot.map(|snapshot| snapshot.product_codes.clone()).unwrap_or_default(),
        encrypted: encryption.is_some(),
        kms_key_id: encryption,
        multi_attach: new.multi_attach,
        create_time: now,
        state: VolumeState::Creating { since: now },
        node: None,
        tags: new.tags.clone(),
    })
}

fn dimensions(new: &NewVolume, kind: VolumeType, snapshot: Option<&Snapshot>, violations: &mut Violations) -> (u32, Performance) {
    let size = new.size_gib.map(|size| u32::try_from(size).unwrap_or_default()).or(snapshot.map(|snapshot| snapshot.volume_size_gib));
    let Some(size_gib) = size else {
        // A snapshot that was named but not found says enough by itself.
        if new.snapshot_id.is_empty() {
            violations.add_as("MissingParameter", "size_gib", "the request must contain the parameter size or snapshotId");
        }
        return (0, Performance::default());
    };
    if let Some(snapshot) = snapshot.filter(|snapshot| size_gib < snapshot.volume_size_gib) {
        violations.add("size_gib", too_small(size_gib, snapshot));
    }
    let asked = Asked { size_gib, iops: new.iops, throughput_mibps: new.throughput_mibps };
    (size_gib, check(kind, asked, "", violations))
}

/// Why a volume cannot be so small.
pub(crate) fn too_small(size_gib: u32, snapshot: &Snapshot) -> String {
    let (id, least) = (snapshot.id, snapshot.volume_size_gib);
    format!("volume of size {size_gib}GB is smaller than snapshot '{id}', expect size >= {least}GB")
}

/// The key of a volume that is encrypted, or none.
///
/// AWS: a volume of an encrypted snapshot is always encrypted; a key without encryption is refused; the default
/// key is the account's own for EBS.
pub(crate) fn encryption(
    scope: &Scope,
    encrypted: Option<bool>,
    key: Option<&str>,
    snapshot: Option<&Snapshot>,
    prefix: &str,
    violations: &mut Violations,
) -> Option<String> {
    let source = snapshot.filter(|snapshot| snapshot.encrypted);
    if let (Some(source), Some(false)) = (source, encrypted) {
        let words = format!("the snapshot '{}' is encrypted, and so are its volumes; leave encrypted out", source.id);
        violations.add_as("InvalidParameterCombination", format!("{prefix}encrypted"), words);
    }
    let wanted = encrypted.unwrap_or(source.is_some());
    match key {
        Some(_) if encrypted != Some(true) => {
            let words = "the parameter KmsKeyId requires the parameter Encrypted to be set";
            violations.add_as("InvalidParameterDependency", format!("{prefix}kms_key_id"), words);
            None
        }
        Some(key) => Some(key.to_owned()),
        None if wanted => {
            // A snapshot that another account shares is copied under one's own key.
            let own = source.filter(|source| source.scope == *scope).and_then(|source| source.kms_key_id.clone());
            Some(own.unwrap_or_else(|| scope.arn("kms", "alias/aws/ebs")))
        }
        None => None,
    }
}

/// A volume that a launch makes: it is there, attached, with its instance. What is made of the image's snapshots, or of
/// others, has the products `of_image` in it too.
pub fn launched(
    scope: &Scope,
    planned: &PlannedVolume,
    at: (VolumeId, InstanceId),
    zone: char,
    of_image: &[String],
    tags: &Tags,
    now: Timestamp,
) -> Volume {
    let of_image = if planned.ebs.snapshot_id.is_some() { of_image } else { &[] };
    let attachment = Attachment {
        instance_id: at.1,
        device: planned.device_name.clone(),
        attach_time: now,
        delete_on_termination: planned.ebs.delete_on_termination,
        state: AttachmentState::Attached,
    };
    Volume {
        scope: scope.clone(),
        id: at.0,
        zone,
        size_gib: planned.ebs.size_gib,
        volume_type: planned.ebs.volume_type,
        iops: planned.ebs.iops,
        throughput_mibps: planned.ebs.throughput_mibps,
        snapshot_id: planned.ebs.snapshot_id,
        product_codes: products([planned.product_codes.as_slice(), of_image]),
        encrypted: planned.ebs.encrypted,
        kms_key_id: planned.ebs.kms_key_id.clone(),
        multi_attach: false,
        create_time: now,
        state: VolumeState::InUse { attachments: vec![attachment] },
        node: None,
        tags: tags.clone(),
    }
}

/// Products of several sources, each once.
pub(crate) fn products<'a>(sources: impl IntoIterator<Item = &'a [String]>) -> Vec<String> {
    let all: BTreeSet<&String> = sources.into_iter().flatten().collect();
    all.into_iter().cloned().collect()
}
