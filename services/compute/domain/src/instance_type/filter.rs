//! EC2's filters on instance types.

use std::borrow::Cow;

use gureum_model::Filterable;

use super::InstanceType;

impl Filterable for InstanceType {
    const FILTER_NAMES: &'static [&'static str] = &[
        "auto-recovery-supported",
        "bare-metal",
        "burstable-performance-supported",
        "current-generation",
        "dedicated-hosts-supported",
        "ebs-info.ebs-optimized-info.baseline-bandwidth-in-mbps",
        "ebs-info.ebs-optimized-info.baseline-iops",
        "ebs-info.ebs-optimized-info.baseline-throughput-in-mbps",
        "ebs-info.ebs-optimized-info.maximum-bandwidth-in-mbps",
        "ebs-info.ebs-optimized-info.maximum-iops",
        "ebs-info.ebs-optimized-info.maximum-throughput-in-mbps",
        "ebs-info.ebs-optimized-support",
        "ebs-info.encryption-support",
        "ebs-info.nvme-support",
        "free-tier-eligible",
        "hibernation-supported",
        "hypervisor",
        "instance-storage-info.disk.count",
        "instance-storage-info.disk.size-in-gb",
        "instance-storage-info.disk.type",
        "instance-storage-info.nvme-support",
        "instance-storage-info.total-size-in-gb",
        "instance-storage-supported",
        "instance-type",
        "memory-info.size-in-mib",
        "network-info.efa-supported",
        "network-info.ena-support",
        "network-info.ipv4-addresses-per-interface",
        "network-info.ipv6-addresses-per-interface",
        "network-info.ipv6-supported",
        "network-info.maximum-network-interfaces",
        "network-info.network-performance",
        "processor-info.supported-architecture",
        "processor-info.sustained-clock-speed-in-ghz",
        "supported-boot-mode",
        "supported-root-device-type",
        "supported-usage-class",
        "supported-virtualization-type",
        "vcpu-info.default-cores",
        "vcpu-info.default-threads-per-core",
        "vcpu-info.default-vcpus",
        "vcpu-info.valid-cores",
        "vcpu-info.valid-threads-per-core",
    ];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        if let Some(name) = name.strip_prefix("ebs-info.") {
            return ebs_values(self, name);
        }
        if let Some(name) = name.strip_prefix("instance-storage-info.") {
            return disk_values(self, name);
        }
        if let Some(name) = name.strip_prefix("network-info.") {
            return network_values(self, name);
        }
        match name {
            "auto-recovery-supported" => number(self.auto_recovery()),
            "bare-metal" => number(self.bare_metal()),
            "burstable-performance-supported" => number(self.burst.is_some()),
            "current-generation" => number(self.family.current_generation),
            "dedicated-hosts-supported" => number(self.family.dedicated_hosts),
            "free-tier-eligible" => number(self.free_tier),
            "hibernation-supported" => number(self.hibernation()),
            "hypervisor" => word(self.hypervisor()),
            "instance-storage-supported" => number(self.disks.is_some()),
            "instance-type" => word(self.name),
            "memory-info.size-in-mib" => number(self.memory_mib),
            "processor-info.supported-architecture" => words(self.architectures()),
            "processor-info.sustained-clock-speed-in-ghz" => self.clock_ghz().map(number).unwrap_or_default(),
            "supported-boot-mode" => words(self.boot_modes()),
            "supported-root-device-type" => words(&self.family.root_devices),
            "supported-usage-class" => words(&self.family.usage_classes),
            "supported-virtualization-type" => words(&self.family.virtualization),
            "vcpu-info.default-cores" => number(self.cores),
            "vcpu-info.default-threads-per-core" => number(self.family.threads_per_core),
            "vcpu-info.default-vcpus" => number(self.vcpus),
            // Those that a launch may ask for.
            "vcpu-info.valid-cores" => (1..=self.cores).flat_map(number).collect(),
            "vcpu-info.valid-threads-per-core" => (1..=self.family.threads_per_core).flat_map(number).collect(),
            _ => Vec::new(),
        }
    }
}

fn number<'a>(value: impl ToString) -> Vec<Cow<'a, str>> {
    vec![value.to_string().into()]
}

/// A word that counts as absent when it is empty.
fn word(value: &str) -> Vec<Cow<'_, str>> {
    if value.is_empty() { Vec::new() } else { vec![value.into()] }
}

fn words<'a>(values: &[&'static str]) -> Vec<Cow<'a, str>> {
    values.iter().map(|value| Cow::Borrowed(*value)).collect()
}

/// MB/s of so many Mbit/s.
fn throughput(mbps: u32) -> f64 {
    f64::from(mbps) / 8.0
}

fn ebs_values<'a>(it: &'a InstanceType, name: &str) -> Vec<Cow<'a, str>> {
    let bandwidth = |value: fn(super::EbsBandwidth) -> String| it.ebs.map(value).into_iter().map(Cow::from).collect();
    match name {
        "ebs-optimized-info.baseline-bandwidth-in-mbps" => bandwidth(|ebs| ebs.baseline_mbps.to_string()),
        "ebs-optimized-info.baseline-iops" => bandwidth(|ebs| ebs.baseline_iops.to_string()),
        "ebs-optimized-info.baseline-throughput-in-mbps" => bandwidth(|ebs| throughput(ebs.baseline_mbps).to_string()),
        "ebs-optimized-info.maximum-bandwidth-in-mbps" => bandwidth(|ebs| ebs.peak_mbps.to_string()),
        "ebs-optimized-info.maximum-iops" => bandwidth(|ebs| ebs.peak_iops.to_string()),
        "ebs-optimized-info.maximum-throughput-in-mbps" => bandwidth(|ebs| throughput(ebs.peak_mbps).to_string()),
        "ebs-optimized-support" => word(it.ebs_optimized()),
        // AWS: all types of which volumes can be attached take encrypted ones.
        "encryption-support" => word("supported"),
        "nvme-support" => word(it.ebs_nvme()),
        _ => Vec::new(),
    }
}

fn disk_values<'a>(it: &'a InstanceType, name: &str) -> Vec<Cow<'a, str>> {
    let Some(disks) = it.disks else { return Vec::new() };
    match name {
        "disk.count" => number(disks.count),
        "disk.size-in-gb" => number(disks.size_gb),
        "disk.type" => word(it.family.disk_type),
        "nvme-support" => word(it.family.disk_nvme),
        "total-size-in-gb" => number(u64::from(disks.count) * disks.size_gb),
        _ => Vec::new(),
    }
}

fn network_values<'a>(it: &'a InstanceType, name: &str) -> Vec<Cow<'a, str>> {
    match name {
        "efa-supported" => number(it.network.efa),
        "ena-support" => word(it.family.ena),
        "ipv4-addresses-per-interface" | "ipv6-addresses-per-interface" => number(it.network.addresses_per_interface),
        "ipv6-supported" => number(true),
        "maximum-network-interfaces" => number(it.network.max_interfaces),
        "network-performance" => vec![it.network_performance()],
        _ => Vec::new(),
    }
}
