//! Instance types as users see them.

use gureum_compute_domain::instance_type::InstanceType;
use gureum_proto::compute::v1 as proto;

pub fn shown(it: &InstanceType) -> proto::InstanceTypeInfo {
    let texts = |texts: &[&'static str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    proto::InstanceTypeInfo {
        instance_type: it.name.to_owned(),
        family_class: it.family.class.as_str().to_owned(),
        current_generation: it.family.current_generation,
        free_tier_eligible: it.free_tier,
        supported_usage_classes: texts(&it.family.usage_classes),
        supported_root_device_types: texts(&it.family.root_devices),
        supported_virtualization_types: texts(&it.family.virtualization),
        bare_metal: it.bare_metal(),
        hypervisor: it.hypervisor().to_owned(),
        processor_info: Some(proto::ProcessorInfo {
            supported_architectures: texts(it.architectures()),
            sustained_clock_speed_ghz: it.clock_ghz().unwrap_or_default(),
            manufacturer: it.family.manufacturer.to_owned(),
        }),
        vcpu_info: Some(proto::VCpuInfo {
            default_vcpus: int(it.vcpus),
            default_cores: int(it.cores),
            default_threads_per_core: int(it.family.threads_per_core),
        }),
        memory_size_mib: long(it.memory_mib),
        instance_storage_info: it.disks.as_ref().map(|disks| proto::InstanceStorageInfo {
            total_size_gb: long(disks.size_gb.saturating_mul(u64::from(disks.count))),
            disks: vec![proto::DiskInfo {
                size_gb: long(disks.size_gb),
                count: int(disks.count),
                disk_type: it.family.disk_type.to_owned(),
            }],
            nvme_support: it.family.disk_nvme.to_owned(),
        }),
        ebs_info: Some(proto::EbsInfo {
            ebs_optimized_support: it.ebs_optimized().to_owned(),
            nvme_support: it.ebs_nvme().to_owned(),
            baseline_bandwidth_mbps: it.ebs.as_ref().map(|ebs| int(ebs.baseline_mbps)).unwrap_or_default(),
            maximum_bandwidth_mbps: it.ebs.as_ref().map(|ebs| int(ebs.peak_mbps)).unwrap_or_default(),
            baseline_iops: it.ebs.as_ref().map(|ebs| int(ebs.baseline_iops)).unwrap_or_default(),
            maximum_iops: it.ebs.as_ref().map(|ebs| int(ebs.peak_iops)).unwrap_or_default(),
        }),
        network_info: Some(network(it)),
        accelerators: it
            .accelerators
            .iter()
            .map(|one| proto::AcceleratorInfo {
                kind: one.kind.to_owned(),
                name: one.name.to_owned(),
                manufacturer: one.manufacturer.to_owned(),
                count: int(one.count),
                memory_mib: long(one.memory_mib),
            })
            .collect(),
        burstable_performance_supported: it.burst.is_some(),
        burstable_info: it.burst.as_ref().map(|burst| proto::BurstableInfo {
            millicredits_per_hour: i64::from(burst.millicredits_per_hour),
            baseline_milli_per_vcpu: int(burst.baseline_milli_per_vcpu),
        }),
        hibernation_supported: it.hibernation(),
        dedicated_hosts_supported: it.family.dedicated_hosts,
        auto_recovery_supported: it.auto_recovery(),
        supported_boot_modes: texts(it.boot_modes()),
        price_class: it.price_class().as_str().to_owned(),
        price_microdollars_per_hour: long(it.price_microdollars_per_hour),
    }
}

fn network(it: &InstanceType) -> proto::NetworkInfo {
    let gbps = |mbps: Option<u32>| mbps.map(|mbps| f64::from(mbps) / 1000.0).unwrap_or_default();
    proto::NetworkInfo {
        network_performance: it.network_performance().into_owned(),
        baseline_bandwidth_gbps: gbps(it.network.baseline_mbps),
        peak_bandwidth_gbps: gbps(it.network.peak_mbps),
        maximum_network_interfaces: int(it.network.max_interfaces),
        ipv4_addresses_per_interface: int(it.network.addresses_per_interface),
        ipv6_addresses_per_interface: 0,
        ena_support: it.family.ena.to_owned(),
        efa_supported: it.network.efa,
    }
}

/// Counts have limits far below.
fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn long(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
