//! Block device mappings: what is at each device of an image, and what a launch puts there.
//!
//! A request's mappings change a base: the image's own for a launch, the instance's volumes for CreateImage,
//! nothing for RegisterImage. [`resolve`] does it for all three; [`launch_volumes`] gives what a launch makes.

use gureum_model::{Refusal, Scope, id::SnapshotId};
use serde::{Deserialize, Serialize};

use crate::{
    instance::Platform,
    launch_check::VolumeFacts,
    launch_spec::BlockDeviceSpec,
    snapshot::Snapshot,
    volume::{VolumeType, attach::MAX_VOLUMES},
};

mod resolve;

pub use resolve::{Purpose, resolve};

/// Disks of instance storage that one may name: `ephemeral0` to `ephemeral23`, as EC2 has it.
const MAX_EPHEMERAL: u32 = 24;

/// The size of a root volume that nothing else says: 8 GiB for Linux, 30 for Windows.
pub fn default_root_gib(platform: Platform) -> u32 {
    match platform {
        Platform::Linux => 8,
        Platform::Windows => 30,
    }
}

/// What is at a device. Stored in images as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMapping {
    /// Such as `/dev/xvda`.
    pub device_name: String,
    pub target: Target,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Ebs(Ebs),
    /// Instance storage: `ephemeral0` and on.
    Ephemeral(String),
}

/// A volume to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ebs {
    /// None: it begins empty.
    pub snapshot_id: Option<SnapshotId>,
    pub size_gib: u32,
    pub volume_type: VolumeType,
    /// None where the type has no number.
    pub iops: Option<u32>,
    /// MiB/s; only gp3.
    pub throughput_mibps: Option<u32>,
    pub delete_on_termination: bool,
    pub encrypted: bool,
    /// Only if encrypted.
    pub kms_key_id: Option<String>,
}

impl DeviceMapping {
    /// The volume, if it is one.
    pub fn ebs(&self) -> Option<&Ebs> {
        match &self.target {
            Target::Ebs(ebs) => Some(ebs),
            Target::Ephemeral(_) => None,
        }
    }
}

/// One volume of a launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedVolume {
    pub device_name: String,
    pub ebs: Ebs,
    /// Products of the marketplace that are in its snapshot.
    pub product_codes: Vec<String>,
}

impl PlannedVolume {
    /// What the launch keeps in the instance.
    pub fn facts(&self) -> VolumeFacts {
        VolumeFacts { device_name: self.device_name.clone(), delete_on_termination: self.ebs.delete_on_termination }
    }
}

/// The volumes of a launch, root first: the image's mappings with the request's over them.
///
/// `find` gives a snapshot only if the caller may use it, and those of the image in any case. `field` is the path of
/// the list in the request. Errors, all at once: those of [`resolve`].
pub fn launch_volumes<'a>(
    base: &[DeviceMapping],
    root: &str,
    specs: &[BlockDeviceSpec],
    scope: &Scope,
    find: impl Fn(SnapshotId) -> Option<&'a Snapshot>,
    field: &str,
) -> Result<Vec<PlannedVolume>, Refusal> {
    let resolved = resolve(base, root, specs, Purpose::Launch, scope, &find, field)?;
    let planned = resolved.into_iter().filter_map(|mapping| match mapping.target {
        Target::Ebs(ebs) => {
            let product_codes = ebs.snapshot_id.and_then(&find).map(|snapshot| snapshot.product_codes.clone()).unwrap_or_default();
            Some(PlannedVolume { device_name: mapping.device_name, ebs, product_codes })
        }
        // Instance storage comes with the type and is nobody's volume.
        Target::Ephemeral(_) => None,
    });
    let planned: Vec<PlannedVolume> = planned.collect();
    if planned.len() > MAX_VOLUMES {
        let words = format!("{} volumes are more than the {MAX_VOLUMES} that an instance may have", planned.len());
        return Err(Refusal::invalid_as("AttachmentLimitExceeded", field, words));
    }
    Ok(planned)
}

/// Whether EC2 knows this as the name of a device: `/dev/sdf`, `/dev/sda1`, `/dev/xvdf`, `/dev/xvdba`, `xvdf`,
/// `/dev/hdb`. AWS: sd and hd take a partition of 1 to 15, xvd a second letter.
pub fn is_device_name(name: &str) -> bool {
    let short = name.strip_prefix("/dev/").unwrap_or(name);
    let (letters, second) = match (short.strip_prefix("xvd"), short.strip_prefix("sd").or_else(|| short.strip_prefix("hd"))) {
        (Some(rest), _) => (rest, true),
        (None, Some(rest)) => (rest, false),
        (None, None) => return false,
    };
    let digits = letters.trim_start_matches(|letter: char| letter.is_ascii_lowercase());
    let count = letters.len() - digits.len();
    let partition = digits.is_empty() || (!digits.starts_with('0') && digits.parse::<u8>().is_ok_and(|number| (1..=15).contains(&number)));
    // A sign would be read as part of a number.
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    plain && partition && (count == 1 || (second && count == 2))
}

/// Whether this names instance storage.
fn is_ephemeral(name: &str) -> bool {
    let number =
        name.strip_prefix("ephemeral").filter(|digits| !digits.starts_with('+') && (digits.len() == 1 || !digits.starts_with('0')));
    number.is_some_and(|digits| digits.parse::<u32>().is_ok_and(|number| number < MAX_EPHEMERAL))
}
