//! Instance types, as data: what AWS publishes of some two hundred of them.
//!
//! The tables are `data/instance_families.csv` and `data/instance_types.csv`, compiled in and read once.
//! All types are offered in all zones of every region.

use std::borrow::Cow;

use gureum_model::{Filterable, Refusal};

use crate::{
    instance::{Capacity, Kind},
    launch_check::KindFacts,
};

mod catalogue;
mod filter;

pub use catalogue::{CatalogueError, all, read_families, read_types};

/// EC2 hibernates only instances with less memory than this: 150 GiB.
const HIBERNATION_BELOW_MIB: u64 = 150 * 1024;

/// What a family is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FamilyClass {
    General,
    Burstable,
    Compute,
    Memory,
    Storage,
    /// GPUs and other accelerators.
    Accelerated,
}

impl FamilyClass {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::General => "general",
            Self::Burstable => "burstable",
            Self::Compute => "compute",
            Self::Memory => "memory",
            Self::Storage => "storage",
            Self::Accelerated => "accelerated",
        }
    }
}

/// How dear a type is, by its on-demand price: for a first choice, not for a bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PriceClass {
    /// Below 0.10 US dollars an hour.
    Low,
    /// Below 1.
    Medium,
    /// Below 10.
    High,
    /// 10 and more.
    Premium,
}

impl PriceClass {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Premium => "premium",
        }
    }
}

/// What all sizes of a family share. Words are EC2's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// Such as `t3`.
    pub name: &'static str,
    pub class: FamilyClass,
    pub current_generation: bool,
    /// `x86_64`, `arm64`, `i386`.
    pub architectures: Vec<&'static str>,
    /// `Intel`, `AMD`, `AWS`.
    pub manufacturer: &'static str,
    /// Sustained, in MHz; 0 where AWS publishes none.
    pub clock_mhz: u32,
    pub threads_per_core: u32,
    /// `nitro` or `xen`.
    pub hypervisor: &'static str,
    /// Enhanced networking: `unsupported`, `supported`, `required`.
    pub ena: &'static str,
    /// `legacy-bios`, `uefi`.
    pub boot_modes: Vec<&'static str>,
    /// `unsupported`, `supported`, `default`.
    pub ebs_optimized: &'static str,
    pub ebs_nvme: &'static str,
    /// `ssd` or `hdd`; empty without instance storage.
    pub disk_type: &'static str,
    pub disk_nvme: &'static str,
    /// `on-demand`, `spot`.
    pub usage_classes: Vec<&'static str>,
    /// `hvm`, `paravirtual`.
    pub virtualization: Vec<&'static str>,
    /// `ebs`, `instance-store`.
    pub root_devices: Vec<&'static str>,
    pub hibernation: bool,
    pub dedicated_hosts: bool,
    pub auto_recovery: bool,
}

/// An instance type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceType {
    /// Such as `t3.micro`.
    pub name: &'static str,
    pub family: &'static Family,
    pub vcpus: u32,
    pub cores: u32,
    pub memory_mib: u64,
    pub network: Network,
    /// None where EC2 optimises nothing.
    pub ebs: Option<EbsBandwidth>,
    /// Instance storage: disks that are alike.
    pub disks: Option<Disks>,
    pub accelerators: Option<Accelerators>,
    pub burst: Option<Burst>,
    /// On-demand, Linux, us-east-1: millionths of a US dollar for an hour; 0 if not published.
    pub price_microdollars_per_hour: u64,
    pub free_tier: bool,
    /// Where it differs from its family; else empty.
    architectures: Vec<&'static str>,
    /// Where it differs from its family; else 0.
    clock_mhz: u32,
}

/// A type's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Mbit/s at all times; none if not published.
    pub baseline_mbps: Option<u32>,
    /// Mbit/s at best; none if not published.
    pub peak_mbps: Option<u32>,
    /// AWS's words where the numbers do not say them; else empty.
    text: &'static str,
    pub max_interfaces: u32,
    /// IPv4 addresses of one interface, and as many IPv6 ones.
    pub addresses_per_interface: u32,
    /// Elastic Fabric Adapter.
    pub efa: bool,
}

/// A type's throughput to volumes: at all times, and for 30 minutes a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EbsBandwidth {
    pub baseline_mbps: u32,
    pub peak_mbps: u32,
    pub baseline_iops: u32,
    pub peak_iops: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disks {
    pub count: u32,
    /// GB (10^9 bytes) of each.
    pub size_gb: u64,
}

/// GPUs and their like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accelerators {
    pub count: u32,
    /// `gpu`, `inference`, `training`.
    pub kind: &'static str,
    pub manufacturer: &'static str,
    pub name: &'static str,
    /// MiB of each.
    pub memory_mib: u64,
}

/// CPU credits: one is a vCPU for a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// Thousandths of a credit earned in an hour.
    pub millicredits_per_hour: u32,
    /// Thousandths of each vCPU that the credits sustain.
    pub baseline_milli_per_vcpu: u32,
}

impl InstanceType {
    /// Such as `micro`.
    pub fn size(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(_, size)| size)
    }

    /// A whole machine.
    pub fn bare_metal(&self) -> bool {
        self.size().starts_with("metal")
    }

    pub fn architectures(&self) -> &[&'static str] {
        if self.architectures.is_empty() { &self.family.architectures } else { &self.architectures }
    }

    /// The architecture of images that fit best: never i386 where there is another.
    pub fn main_architecture(&self) -> &'static str {
        self.architectures().iter().copied().find(|architecture| *architecture != "i386").unwrap_or("i386")
    }

    /// Sustained clock in GHz, if AWS publishes one.
    pub fn clock_ghz(&self) -> Option<f64> {
        let mhz = if self.clock_mhz == 0 { self.family.clock_mhz } else { self.clock_mhz };
        (mhz > 0).then(|| f64::from(mhz) / 1000.0)
    }

    /// `nitro` or `xen`; empty for bare metal.
    pub fn hypervisor(&self) -> &'static str {
        if self.bare_metal() { "" } else { self.family.hypervisor }
    }

    /// `legacy-bios`, `uefi`. AWS: bare metal boots by UEFI only where nothing else does.
    pub fn boot_modes(&self) -> &[&'static str] {
        let modes = self.family.boot_modes.as_slice();
        if self.bare_metal() && modes.len() > 1 { &modes[..1] } else { modes }
    }

    /// `unsupported`, `supported` or `default`.
    pub fn ebs_optimized(&self) -> &'static str {
        if self.ebs.is_some() { self.family.ebs_optimized } else { "unsupported" }
    }

    /// How volumes are seen: `unsupported`, `supported` or `required` as NVMe.
    pub fn ebs_nvme(&self) -> &'static str {
        if self.bare_metal() { "required" } else { self.family.ebs_nvme }
    }

    /// AWS: sizes below 150 GiB of memory of some families.
    pub fn hibernation(&self) -> bool {
        self.family.hibernation && !self.bare_metal() && self.memory_mib < HIBERNATION_BELOW_MIB
    }

    pub fn auto_recovery(&self) -> bool {
        self.family.auto_recovery && !self.bare_metal()
    }

    /// In AWS's words: `Up to 5 Gigabit`.
    pub fn network_performance(&self) -> Cow<'static, str> {
        let network = &self.network;
        match (network.text, network.baseline_mbps, network.peak_mbps) {
            ("", Some(baseline), Some(peak)) if baseline < peak => format!("Up to {} Gigabit", gigabit(peak)).into(),
            ("", _, Some(peak)) => format!("{} Gigabit", gigabit(peak)).into(),
            (text, _, _) => text.into(),
        }
    }

    pub fn price_class(&self) -> PriceClass {
        match self.price_microdollars_per_hour {
            0..100_000 => PriceClass::Low,
            100_000..1_000_000 => PriceClass::Medium,
            1_000_000..10_000_000 => PriceClass::High,
            10_000_000.. => PriceClass::Premium,
        }
    }

    /// What an instance keeps of its type.
    pub fn kind(&self) -> Kind {
        Kind {
            name: self.name.to_owned(),
            capacity: Capacity { vcpu_milli: u64::from(self.vcpus) * 1000, memory_mib: self.memory_mib },
            architecture: self.main_architecture().to_owned(),
            cores: self.cores,
            threads_per_core: self.family.threads_per_core,
            ena_support: self.family.ena != "unsupported",
            burstable: self.burst.is_some(),
        }
    }

    /// What a launch checks.
    pub fn facts(&self) -> KindFacts {
        KindFacts {
            kind: self.kind(),
            architectures: self.architectures().iter().map(|architecture| (*architecture).to_owned()).collect(),
            max_interfaces: usize::try_from(self.network.max_interfaces).unwrap_or(usize::MAX),
            ebs_optimized_by_default: self.ebs_optimized() == "default",
            ebs_optimized_supported: self.ebs_optimized() != "unsupported",
        }
    }
}

/// `12500` Mbit/s as `12.5`.
fn gigabit(mbps: u32) -> f64 {
    f64::from(mbps) / 1000.0
}

/// Why a call on instance types was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstanceTypeError {
    #[error("the following supplied instance types do not exist: [{}]; DescribeInstanceTypes without names lists all", names.join(", "))]
    Unknown { names: Vec<String> },
}

impl From<InstanceTypeError> for Refusal {
    fn from(error: InstanceTypeError) -> Self {
        let text = error.to_string();
        match error {
            InstanceTypeError::Unknown { .. } => Self::invalid_as("InvalidInstanceType", "instance_types", text),
        }
    }
}

/// The type with this name, by binary search.
pub fn find(name: &str) -> Option<&'static InstanceType> {
    let types = all();
    types.binary_search_by(|it| it.name.cmp(name)).ok().map(|place| &types[place])
}

/// All types with these names, in their order and once each; unknown ones are all named at once.
pub fn find_all<S: AsRef<str>>(names: &[S]) -> Result<Vec<&'static InstanceType>, InstanceTypeError> {
    let mut found: Vec<&'static InstanceType> = Vec::with_capacity(names.len());
    let mut unknown: Vec<String> = Vec::new();
    for name in names.iter().map(AsRef::as_ref) {
        match find(name) {
            Some(it) if found.iter().any(|other| other.name == it.name) => {}
            Some(it) => found.push(it),
            None => unknown.push(name.to_owned()),
        }
    }
    if unknown.is_empty() { Ok(found) } else { Err(InstanceTypeError::Unknown { names: unknown }) }
}

/// Where a type is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offering {
    pub instance_type: &'static str,
    /// A region, a zone or a zone's id, as was asked for.
    pub location: String,
}

/// Every type at every one of `locations`, by type and location: all types are offered everywhere.
///
/// `locations` are the region's name, its zones' names or their ids, as the caller asked.
pub fn offerings(locations: &[String]) -> impl Iterator<Item = Offering> {
    all().iter().flat_map(move |it| locations.iter().map(move |location| Offering { instance_type: it.name, location: location.clone() }))
}

impl Filterable for Offering {
    const FILTER_NAMES: &'static [&'static str] = &["instance-type", "location"];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "instance-type" => vec![self.instance_type.into()],
            "location" => vec![self.location.as_str().into()],
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
