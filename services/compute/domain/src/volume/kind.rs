//! Types of volumes, and what AWS documents of their sizes and performance.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use gureum_model::{Refusal, refusal::Violations};
use serde::{Deserialize, Serialize};

/// A type of volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeType {
    /// General purpose SSD whose performance follows its size. EC2's default where none is named.
    #[default]
    Gp2,
    /// General purpose SSD whose performance is chosen.
    Gp3,
    /// Provisioned IOPS SSD.
    Io1,
    /// Provisioned IOPS SSD, more durable.
    Io2,
    /// Throughput optimised HDD.
    St1,
    /// Cold HDD.
    Sc1,
    /// Magnetic.
    Standard,
}

/// IOPS that every gp3 volume has without asking.
pub const GP3_IOPS: u32 = 3000;
/// MiB/s that every gp3 volume has without asking.
pub const GP3_THROUGHPUT: u32 = 125;
/// MiB/s that a gp3 volume may have at most.
pub const GP3_MAX_THROUGHPUT: u32 = 2000;
/// IOPS of gp3 for each MiB/s at least: AWS's ratio is at most 0.25 MiB/s for an IOPS.
const GP3_IOPS_PER_MIBPS: u32 = 4;

impl VolumeType {
    pub const ALL: [Self; 7] = [Self::Gp2, Self::Gp3, Self::Io1, Self::Io2, Self::St1, Self::Sc1, Self::Standard];

    /// EC2's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gp2 => "gp2",
            Self::Gp3 => "gp3",
            Self::Io1 => "io1",
            Self::Io2 => "io2",
            Self::St1 => "st1",
            Self::Sc1 => "sc1",
            Self::Standard => "standard",
        }
    }

    /// Sizes in GiB, as AWS documents them for CreateVolume.
    pub fn sizes(self) -> RangeInclusive<u32> {
        match self {
            Self::Gp2 => 1..=16_384,
            Self::Gp3 => 1..=65_536,
            Self::Io1 => 4..=16_384,
            Self::Io2 => 4..=65_536,
            Self::St1 | Self::Sc1 => 125..=16_384,
            Self::Standard => 1..=1024,
        }
    }

    /// IOPS that one may ask for, as AWS documents them for CreateVolume; none where one may not ask.
    pub fn iops(self) -> Option<RangeInclusive<u32>> {
        match self {
            Self::Gp3 => Some(GP3_IOPS..=80_000),
            Self::Io1 => Some(100..=64_000),
            Self::Io2 => Some(100..=256_000),
            Self::Gp2 | Self::St1 | Self::Sc1 | Self::Standard => None,
        }
    }

    /// IOPS for each GiB at most, as AWS documents them; none where one may not ask.
    fn iops_per_gib(self) -> Option<u32> {
        match self {
            Self::Gp3 => Some(500),
            Self::Io1 => Some(50),
            Self::Io2 => Some(1000),
            Self::Gp2 | Self::St1 | Self::Sc1 | Self::Standard => None,
        }
    }

    /// Whether an instance can boot from it. AWS: not from st1 and sc1.
    pub fn bootable(self) -> bool {
        match self {
            Self::Gp2 | Self::Gp3 | Self::Io1 | Self::Io2 | Self::Standard => true,
            Self::St1 | Self::Sc1 => false,
        }
    }

    /// Whether several instances may have it at once. AWS: only io1 and io2.
    pub fn shareable(self) -> bool {
        match self {
            Self::Io1 | Self::Io2 => true,
            Self::Gp2 | Self::Gp3 | Self::St1 | Self::Sc1 | Self::Standard => false,
        }
    }
}

impl fmt::Display for VolumeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for VolumeType {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        Self::ALL.into_iter().find(|it| it.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            Refusal::invalid("volume_type", format!("value ({text}) for parameter volumeType is invalid: expected one of {known}"))
        })
    }
}

/// The performance of a volume: what was asked for, or what its type and size give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Performance {
    /// None where the type has no number.
    pub iops: Option<u32>,
    /// MiB/s; only gp3.
    pub throughput_mibps: Option<u32>,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    pub size_gib: u32,
    pub iops: Option<i32>,
    pub throughput_mibps: Option<i32>,
}

/// Checks size and performance by the rules of the type; `prefix` is the path of the fields: empty, or
/// `block_device_mappings[0].ebs.`.
///
/// Violations: `InvalidParameterValue` (out of range, ratios), `MissingParameter` (io1 and io2 without IOPS),
/// `InvalidParameterCombination` (numbers that the type does not take).
pub fn check(kind: VolumeType, asked: Asked, prefix: &str, violations: &mut Violations) -> Performance {
    let sizes = kind.sizes();
    if !sizes.contains(&asked.size_gib) {
        violations.add(
            format!("{prefix}size_gib"),
            format!("volume of {} GiB is invalid: {kind} volumes have {} to {} GiB", asked.size_gib, sizes.start(), sizes.end()),
        );
    }
    let iops = check_iops(kind, asked, prefix, violations);
    Performance { iops, throughput_mibps: check_throughput(kind, asked, iops, prefix, violations) }
}

fn check_iops(kind: VolumeType, asked: Asked, prefix: &str, violations: &mut Violations) -> Option<u32> {
    let field = format!("{prefix}iops");
    let (Some(range), Some(per_gib)) = (kind.iops(), kind.iops_per_gib()) else {
        if asked.iops.is_some() {
            let words = format!("the parameter iops is not supported for {kind} volumes; leave it out, or choose gp3, io1 or io2");
            violations.add_as("InvalidParameterCombination", field, words);
        }
        // AWS: a gp2 volume has 3 IOPS for each GiB, at least 100 and at most 16,000.
        return (kind == VolumeType::Gp2).then(|| asked.size_gib.saturating_mul(3).clamp(100, 16_000));
    };
    let Some(given) = asked.iops else {
        if kind != VolumeType::Gp3 {
            violations.add_as("MissingParameter", field, format!("the parameter iops must be specified for {kind} volumes"));
        }
        return (kind == VolumeType::Gp3).then_some(GP3_IOPS);
    };
    let iops = u32::try_from(given).unwrap_or_default();
    if !range.contains(&iops) {
        violations.add(field, format!("volume iops of {given} is invalid: {kind} volumes have {} to {}", range.start(), range.end()));
        return None;
    }
    // Every gp3 volume has its base, however small it is.
    let free = if kind == VolumeType::Gp3 { GP3_IOPS } else { 0 };
    if iops > free && iops > asked.size_gib.saturating_mul(per_gib) {
        violations.add(
            field,
            format!("the ratio of {iops} iops to a volume size of {} GiB is too high: the maximum for {kind} is {per_gib}", asked.size_gib),
        );
    }
    Some(iops)
}

fn check_throughput(kind: VolumeType, asked: Asked, iops: Option<u32>, prefix: &str, violations: &mut Violations) -> Option<u32> {
    let field = format!("{prefix}throughput_mibps");
    if kind != VolumeType::Gp3 {
        if asked.throughput_mibps.is_some() {
            let words = format!("the parameter throughput is not supported for {kind} volumes; leave it out, or choose gp3");
            violations.add_as("InvalidParameterCombination", field, words);
        }
        return None;
    }
    let Some(given) = asked.throughput_mibps else { return Some(GP3_THROUGHPUT) };
    let throughput = u32::try_from(given).unwrap_or_default();
    if !(GP3_THROUGHPUT..=GP3_MAX_THROUGHPUT).contains(&throughput) {
        violations.add(field, format!("throughput of {given} MiB/s is invalid: gp3 volumes have {GP3_THROUGHPUT} to {GP3_MAX_THROUGHPUT}"));
    } else if let Some(iops) = iops.filter(|iops| throughput.saturating_mul(GP3_IOPS_PER_MIBPS) > *iops) {
        violations.add(field, format!("the ratio of {throughput} MiB/s to {iops} iops is too high: the maximum is 0.25 MiB/s for each"));
    }
    Some(throughput)
}
