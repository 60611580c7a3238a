//! Messages as input of the domain.

use std::time::Duration;

use gureum_model::{Refusal, refusal::Violations};
use gureum_node_domain::{
    Desired,
    input::{DesiredInput, DesiredStateInput, InterfaceInput, SpecInput, VolumeInput},
    spec::{KeySpec, MetadataOptions, Platform, ShutdownBehavior},
};
use gureum_proto::node::v1 as proto;
use gureum_service::wire;

/// A duration that cannot be negative; absent is zero.
pub fn duration(field: &str, given: Option<&prost_types::Duration>, violations: &mut Violations) -> Duration {
    match given.map(|given| Duration::try_from(*given)) {
        None => Duration::ZERO,
        Some(Ok(duration)) => duration,
        Some(Err(_)) => {
            violations.add(field, "a duration cannot be negative");
            Duration::ZERO
        }
    }
}

/// An intent; `field` is its path in the request.
pub fn desired(item: proto::DesiredInstance, field: &str) -> Result<Desired, Refusal> {
    let mut violations = Violations::new();
    let grace = duration(&format!("{field}.stop_grace"), item.stop_grace.as_ref(), &mut violations);
    let state = match item.state() {
        proto::DesiredState::Unspecified => None,
        proto::DesiredState::Running => Some(DesiredStateInput::Running),
        proto::DesiredState::Stopped => Some(DesiredStateInput::Stopped { grace }),
        proto::DesiredState::Terminated => Some(DesiredStateInput::Terminated),
    };
    let input = DesiredInput {
        instance_id: item.instance_id,
        account_id: item.account_id,
        region: item.region,
        generation: item.generation,
        state,
        boot: item.boot,
        reboot: item.reboot,
        spec: item.spec.map(spec),
    };
    let desired = violations.check("", input.read(field));
    violations.finish()?;
    desired.ok_or_else(|| Refusal::missing(field))
}

fn spec(spec: proto::InstanceSpec) -> SpecInput {
    let (platform, shutdown_behavior) = (spec.platform(), spec.shutdown_behavior());
    SpecInput {
        type_name: spec.type_name,
        vcpu_milli: spec.vcpu_milli,
        memory_mib: spec.memory_mib,
        image_id: spec.image_id,
        image_source: spec.image_source,
        platform: match platform {
            proto::Platform::Unspecified => None,
            proto::Platform::Linux => Some(Platform::Linux),
            proto::Platform::Windows => Some(Platform::Windows),
        },
        user_data: spec.user_data,
        interfaces: spec.interfaces.into_iter().map(interface).collect(),
        volumes: spec.volumes.into_iter().map(volume).collect(),
        pulled_volumes: spec.pulled_volume_ids,
        key: spec.key.map(|key| KeySpec { name: key.key_name, public_key: key.public_key }),
        hostname: spec.hostname,
        metadata_options: spec.metadata_options.map(metadata_options),
        tags: wire::tag_pairs(spec.tags).collect(),
        shutdown_behavior: match shutdown_behavior {
            proto::ShutdownBehavior::Unspecified => None,
            proto::ShutdownBehavior::Stop => Some(ShutdownBehavior::Stop),
            proto::ShutdownBehavior::Terminate => Some(ShutdownBehavior::Terminate),
        },
        zone: spec.availability_zone,
        reservation_id: spec.reservation_id,
        launch_index: spec.launch_index,
    }
}

fn interface(interface: proto::InterfaceSpec) -> InterfaceInput {
    InterfaceInput {
        network_interface_id: interface.network_interface_id,
        device_index: interface.device_index,
        mac_address: interface.mac_address,
        vpc_id: interface.vpc_id,
        subnet_id: interface.subnet_id,
        prefix_length: interface.prefix_length,
        private_addresses: interface.private_ip_addresses,
        public_address: interface.public_ip,
        public_name: interface.public_dns_name,
        groups: interface.groups.into_iter().map(|group| (group.group_id, group.group_name)).collect(),
        source_dest_check: interface.source_dest_check,
    }
}

fn volume(volume: proto::VolumeSpec) -> VolumeInput {
    VolumeInput {
        volume_id: volume.volume_id,
        device_name: volume.device_name,
        size_gib: volume.size_gib,
        root: volume.root,
        snapshot_id: volume.snapshot_id,
        delete_on_termination: volume.delete_on_termination,
    }
}

fn metadata_options(options: proto::MetadataOptions) -> MetadataOptions {
    let default = MetadataOptions::default();
    MetadataOptions {
        enabled: options.enabled.unwrap_or(default.enabled),
        tokens_required: options.tokens_required,
        hop_limit: options.hop_limit.unwrap_or(default.hop_limit),
        tags_enabled: options.tags_enabled,
    }
}
