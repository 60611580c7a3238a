//! Images as users see them.

use gureum_compute_domain::{
    block_device::{DeviceMapping, Target},
    image::{Image, ImageState},
    instance::Platform,
};
use gureum_proto::compute::v1 as proto;
use gureum_service::wire;

use super::launch_spec::read_volume_type;

/// `it` as [`Image::seen_by`] shows it to the caller.
pub fn shown(it: &Image) -> proto::Image {
    proto::Image {
        image_id: it.id.to_string(),
        owner_id: it.scope.account.to_string(),
        owner_alias: it.owner_alias().unwrap_or_default().to_owned(),
        name: it.name.clone(),
        description: it.description.clone(),
        image_location: it.location(),
        state: match it.state {
            ImageState::Pending { .. } => proto::ImageState::Pending,
            ImageState::Available { .. } => proto::ImageState::Available,
            ImageState::Failed { .. } => proto::ImageState::Failed,
            ImageState::Deregistered { .. } => proto::ImageState::Deregistered,
        }
        .into(),
        state_reason: it.state.reason().map(|(code, message)| proto::StateReason { code: code.to_owned(), message: message.to_owned() }),
        creation_time: Some(wire::timestamp(it.create_time)),
        deprecation_time: it.deprecation_time.map(wire::timestamp),
        architecture: it.architecture.as_str().to_owned(),
        platform: match it.platform {
            Platform::Linux => String::new(),
            Platform::Windows => "windows".to_owned(),
        },
        platform_details: it.platform_details().to_owned(),
        usage_operation: it.usage_operation().to_owned(),
        image_type: "machine".to_owned(),
        virtualization_type: "hvm".to_owned(),
        hypervisor: "xen".to_owned(),
        root_device_type: "ebs".to_owned(),
        root_device_name: it.root_device_name.clone(),
        block_device_mappings: it.block_devices.iter().map(mapping).collect(),
        public: it.permissions.all,
        product_codes: it
            .product_codes
            .iter()
            .map(|code| proto::ProductCode { product_code_id: code.clone(), product_code_type: "marketplace".to_owned() })
            .collect(),
        source_instance_id: it.source_instance().map(|id| id.to_string()).unwrap_or_default(),
        ena_support: it.ena_support,
        sriov_net_support: "simple".to_owned(),
        boot_mode: it.boot_mode.map(|mode| mode.as_str().to_owned()).unwrap_or_default(),
        imds_support: if it.demands_tokens { "v2.0".to_owned() } else { String::new() },
        tags: wire::tags(&it.tags),
    }
}

pub fn mapping(it: &DeviceMapping) -> proto::BlockDeviceMapping {
    use proto::block_device_mapping::Device;
    let int = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let device = match &it.target {
        Target::Ephemeral(name) => Device::VirtualName(name.clone()),
        Target::Ebs(ebs) => Device::Ebs(proto::EbsBlockDevice {
            snapshot_id: ebs.snapshot_id.map(|id| id.to_string()),
            size_gib: Some(int(ebs.size_gib)),
            volume_type: read_volume_type(ebs.volume_type.as_str()).into(),
            iops: ebs.iops.map(int),
            throughput_mibps: ebs.throughput_mibps.map(int),
            delete_on_termination: Some(ebs.delete_on_termination),
            encrypted: Some(ebs.encrypted),
            kms_key_id: ebs.kms_key_id.clone(),
        }),
    };
    proto::BlockDeviceMapping { device_name: it.device_name.clone(), device: Some(device) }
}
