//! What a launch says, both ways.

use gureum_compute_domain::{
    instance::ShutdownBehavior,
    launch_spec::{BlockDeviceSpec, InterfaceSpec, LaunchSpec, PlacementSpec, TagSpecification, TenancySpec},
    metadata_options::{HttpTokens, MetadataOptionsSpec},
    user_data::UserData,
};
use gureum_model::Refusal;
use gureum_proto::{common::v1::Tag, compute::v1 as proto};

use super::instance::shutdown_behavior as show_shutdown_behavior;

/// Reads a launch's words. Errors: `InvalidParameterValue` (user data above 16 KiB).
pub fn read(spec: proto::LaunchSpec) -> Result<LaunchSpec, Refusal> {
    let shutdown_behavior = read_shutdown_behavior(spec.instance_initiated_shutdown_behavior());
    Ok(LaunchSpec {
        image_id: spec.image_id,
        instance_type: spec.instance_type,
        key_name: spec.key_name,
        security_group_ids: spec.security_group_ids,
        security_groups: spec.security_groups,
        subnet_id: spec.subnet_id,
        placement: spec.placement.map(placement).unwrap_or_default(),
        private_ip_address: spec.private_ip_address,
        associate_public_ip_address: spec.associate_public_ip_address,
        user_data: spec.user_data.map(|bytes| UserData::new(&bytes)).transpose()?,
        block_devices: spec.block_device_mappings.into_iter().map(block_device).collect(),
        tag_specifications: spec.tag_specifications.into_iter().map(tag_specification).collect(),
        shutdown_behavior,
        disable_api_termination: spec.disable_api_termination,
        disable_api_stop: spec.disable_api_stop,
        monitoring_enabled: spec.monitoring_enabled,
        metadata_options: spec.metadata_options.map(metadata_options).unwrap_or_default(),
        cpu_credits: spec.cpu_credits,
        ebs_optimized: spec.ebs_optimized,
        hibernation: spec.hibernation_configured,
        iam_instance_profile: spec.iam_instance_profile,
        network_interfaces: spec.network_interfaces.into_iter().map(interface).collect(),
        core_count: spec.cpu_options.and_then(|options| options.core_count),
        threads_per_core: spec.cpu_options.and_then(|options| options.threads_per_core),
    })
}

pub fn read_shutdown_behavior(behavior: proto::ShutdownBehavior) -> Option<ShutdownBehavior> {
    match behavior {
        proto::ShutdownBehavior::Unspecified => None,
        proto::ShutdownBehavior::Stop => Some(ShutdownBehavior::Stop),
        proto::ShutdownBehavior::Terminate => Some(ShutdownBehavior::Terminate),
    }
}

pub fn metadata_options(spec: proto::InstanceMetadataOptionsSpec) -> MetadataOptionsSpec {
    MetadataOptionsSpec {
        http_tokens: match spec.http_tokens() {
            proto::HttpTokens::Unspecified => None,
            proto::HttpTokens::Optional => Some(HttpTokens::Optional),
            proto::HttpTokens::Required => Some(HttpTokens::Required),
        },
        hop_limit: spec.http_put_response_hop_limit,
        endpoint_enabled: spec.http_endpoint_enabled,
        ipv6_enabled: spec.http_protocol_ipv6_enabled,
        tags_enabled: spec.instance_metadata_tags_enabled,
    }
}

fn placement(spec: proto::PlacementSpec) -> PlacementSpec {
    PlacementSpec {
        tenancy: match spec.tenancy() {
            proto::Tenancy::Unspecified => None,
            proto::Tenancy::Default => Some(TenancySpec::Default),
            proto::Tenancy::Dedicated => Some(TenancySpec::Dedicated),
            proto::Tenancy::Host => Some(TenancySpec::Host),
        },
        availability_zone: spec.availability_zone,
        group_name: spec.group_name,
    }
}

/// EC2's words for kinds of disk.
pub fn volume_type(kind: proto::VolumeType) -> Option<&'static str> {
    match kind {
        proto::VolumeType::Unspecified => None,
        proto::VolumeType::Gp2 => Some("gp2"),
        proto::VolumeType::Gp3 => Some("gp3"),
        proto::VolumeType::Io1 => Some("io1"),
        proto::VolumeType::Io2 => Some("io2"),
        proto::VolumeType::St1 => Some("st1"),
        proto::VolumeType::Sc1 => Some("sc1"),
        proto::VolumeType::Standard => Some("standard"),
    }
}

/// A block device mapping as users write it.
pub fn block_device(mapping: proto::BlockDeviceMapping) -> BlockDeviceSpec {
    let named = BlockDeviceSpec { device_name: mapping.device_name, ..BlockDeviceSpec::default() };
    match mapping.device {
        None => named,
        Some(proto::block_device_mapping::Device::VirtualName(name)) => BlockDeviceSpec { virtual_name: Some(name), ..named },
        Some(proto::block_device_mapping::Device::NoDevice(nothing)) => BlockDeviceSpec { no_device: nothing, ..named },
        Some(proto::block_device_mapping::Device::Ebs(ebs)) => BlockDeviceSpec {
            volume_type: volume_type(ebs.volume_type()).map(str::to_owned),
            snapshot_id: ebs.snapshot_id,
            size_gib: ebs.size_gib,
            iops: ebs.iops,
            throughput_mibps: ebs.throughput_mibps,
            delete_on_termination: ebs.delete_on_termination,
            encrypted: ebs.encrypted,
            kms_key_id: ebs.kms_key_id,
            ..named
        },
    }
}

pub fn tag_specification(specification: proto::TagSpecification) -> TagSpecification {
    TagSpecification {
        resource_type: specification.resource_type,
        tags: specification.tags.into_iter().map(|tag| (tag.key, tag.value)).collect(),
    }
}

fn interface(spec: proto::NetworkInterfaceSpec) -> InterfaceSpec {
    InterfaceSpec {
        device_index: spec.device_index,
        network_interface_id: spec.network_interface_id,
        subnet_id: spec.subnet_id,
        group_ids: spec.group_ids,
        private_ip_address: spec.private_ip_address,
        associate_public_ip_address: spec.associate_public_ip_address,
        delete_on_termination: spec.delete_on_termination,
        description: spec.description,
    }
}

/// What a launch template says, as it was written.
pub fn shown(spec: &LaunchSpec) -> proto::LaunchSpec {
    let cpu = proto::CpuOptionsSpec { core_count: spec.core_count, threads_per_core: spec.threads_per_core };
    proto::LaunchSpec {
        image_id: spec.image_id.clone(),
        instance_type: spec.instance_type.clone(),
        key_name: spec.key_name.clone(),
        security_group_ids: spec.security_group_ids.clone(),
        security_groups: spec.security_groups.clone(),
        subnet_id: spec.subnet_id.clone(),
        placement: (spec.placement != PlacementSpec::default()).then(|| show_placement(&spec.placement)),
        private_ip_address: spec.private_ip_address.clone(),
        associate_public_ip_address: spec.associate_public_ip_address,
        user_data: spec.user_data.as_ref().map(|data| data.as_bytes().to_vec()),
        block_device_mappings: spec.block_devices.iter().map(show_block_device).collect(),
        tag_specifications: spec.tag_specifications.iter().map(show_tag_specification).collect(),
        instance_initiated_shutdown_behavior: spec
            .shutdown_behavior
            .map_or(proto::ShutdownBehavior::Unspecified, show_shutdown_behavior)
            .into(),
        disable_api_termination: spec.disable_api_termination,
        disable_api_stop: spec.disable_api_stop,
        monitoring_enabled: spec.monitoring_enabled,
        metadata_options: (spec.metadata_options != MetadataOptionsSpec::default()).then(|| show_metadata_options(&spec.metadata_options)),
        cpu_credits: spec.cpu_credits.clone(),
        ebs_optimized: spec.ebs_optimized,
        hibernation_configured: spec.hibernation,
        iam_instance_profile: spec.iam_instance_profile.clone(),
        network_interfaces: spec.network_interfaces.iter().map(show_interface).collect(),
        cpu_options: (cpu != proto::CpuOptionsSpec::default()).then_some(cpu),
    }
}

fn show_placement(spec: &PlacementSpec) -> proto::PlacementSpec {
    proto::PlacementSpec {
        availability_zone: spec.availability_zone.clone(),
        tenancy: match spec.tenancy {
            None => proto::Tenancy::Unspecified,
            Some(TenancySpec::Default) => proto::Tenancy::Default,
            Some(TenancySpec::Dedicated) => proto::Tenancy::Dedicated,
            Some(TenancySpec::Host) => proto::Tenancy::Host,
        }
        .into(),
        group_name: spec.group_name.clone(),
    }
}

fn show_metadata_options(spec: &MetadataOptionsSpec) -> proto::InstanceMetadataOptionsSpec {
    proto::InstanceMetadataOptionsSpec {
        http_tokens: match spec.http_tokens {
            None => proto::HttpTokens::Unspecified,
            Some(HttpTokens::Optional) => proto::HttpTokens::Optional,
            Some(HttpTokens::Required) => proto::HttpTokens::Required,
        }
        .into(),
        http_put_response_hop_limit: spec.hop_limit,
        http_endpoint_enabled: spec.endpoint_enabled,
        http_protocol_ipv6_enabled: spec.ipv6_enabled,
        instance_metadata_tags_enabled: spec.tags_enabled,
    }
}

/// EC2's word for a kind of disk, as the contract has it.
pub fn read_volume_type(word: &str) -> proto::VolumeType {
    let kinds = [
        proto::VolumeType::Gp2,
        proto::VolumeType::Gp3,
        proto::VolumeType::Io1,
        proto::VolumeType::Io2,
        proto::VolumeType::St1,
        proto::VolumeType::Sc1,
        proto::VolumeType::Standard,
    ];
    kinds.into_iter().find(|kind| volume_type(*kind) == Some(word)).unwrap_or(proto::VolumeType::Unspecified)
}

fn show_block_device(spec: &BlockDeviceSpec) -> proto::BlockDeviceMapping {
    let ebs = proto::EbsBlockDevice {
        snapshot_id: spec.snapshot_id.clone(),
        size_gib: spec.size_gib,
        volume_type: spec.volume_type.as_deref().map_or(proto::VolumeType::Unspecified, read_volume_type).into(),
        iops: spec.iops,
        throughput_mibps: spec.throughput_mibps,
        delete_on_termination: spec.delete_on_termination,
        encrypted: spec.encrypted,
        kms_key_id: spec.kms_key_id.clone(),
    };
    let device = match &spec.virtual_name {
        Some(name) => Some(proto::block_device_mapping::Device::VirtualName(name.clone())),
        None if spec.no_device => Some(proto::block_device_mapping::Device::NoDevice(true)),
        None if ebs == proto::EbsBlockDevice::default() => None,
        None => Some(proto::block_device_mapping::Device::Ebs(ebs)),
    };
    proto::BlockDeviceMapping { device_name: spec.device_name.clone(), device }
}

fn show_tag_specification(specification: &TagSpecification) -> proto::TagSpecification {
    let tag = |(key, value): &(String, String)| Tag { key: key.clone(), value: value.clone() };
    proto::TagSpecification { resource_type: specification.resource_type.clone(), tags: specification.tags.iter().map(tag).collect() }
}

fn show_interface(spec: &InterfaceSpec) -> proto::NetworkInterfaceSpec {
    proto::NetworkInterfaceSpec {
        device_index: spec.device_index,
        network_interface_id: spec.network_interface_id.clone(),
        subnet_id: spec.subnet_id.clone(),
        group_ids: spec.group_ids.clone(),
        private_ip_address: spec.private_ip_address.clone(),
        associate_public_ip_address: spec.associate_public_ip_address,
        delete_on_termination: spec.delete_on_termination,
        description: spec.description.clone(),
    }
}
