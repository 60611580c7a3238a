//! What a node is told of an instance.
//!
//! It follows from the record alone: the same generation has the same contents, whenever it is told.
//! What users may change without a new generation stands nowhere in it.

use gureum_compute_domain::{
    instance::{Desired, Instance, Interface, Platform, STOPPING_ALLOWED, ShutdownBehavior},
    metadata_options::{HttpTokens, MetadataOptions},
};
use gureum_proto::node::v1 as proto;
use gureum_service::wire;

/// A volume's size and origin, which its own record has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFacts {
    pub size_gib: u32,
    /// Empty for none.
    pub snapshot_id: String,
}

/// The intent for an instance's present generation. `volume` tells of each of its volumes.
pub fn desired(it: &Instance, volume: impl Fn(gureum_model::id::VolumeId) -> VolumeFacts) -> proto::DesiredInstance {
    let (state, stop_grace) = match it.state.desired() {
        Desired::Run => (proto::DesiredState::Running, None),
        Desired::Stop { force: true } => (proto::DesiredState::Stopped, None),
        Desired::Stop { force: false } => (proto::DesiredState::Stopped, Some(STOPPING_ALLOWED)),
        Desired::Terminate { .. } => (proto::DesiredState::Terminated, None),
    };
    proto::DesiredInstance {
        instance_id: it.id.to_string(),
        account_id: it.scope.account.to_string(),
        region: it.scope.region.to_string(),
        generation: it.generation,
        state: state.into(),
        stop_grace: stop_grace.map(|grace| prost_types::Duration { seconds: i64::try_from(grace.as_secs()).unwrap_or(i64::MAX), nanos: 0 }),
        boot: it.boots,
        reboot: it.reboots,
        spec: Some(spec(it, volume)),
    }
}

/// The intent that something which is not the node's to run should end there.
pub fn ended(scope: &gureum_model::Scope, instance: gureum_model::id::InstanceId, generation: u64) -> proto::DesiredInstance {
    proto::DesiredInstance {
        instance_id: instance.to_string(),
        account_id: scope.account.to_string(),
        region: scope.region.to_string(),
        generation,
        state: proto::DesiredState::Terminated.into(),
        stop_grace: None,
        boot: 0,
        reboot: 0,
        spec: None,
    }
}

fn spec(it: &Instance, volume: impl Fn(gureum_model::id::VolumeId) -> VolumeFacts) -> proto::InstanceSpec {
    proto::InstanceSpec {
        type_name: it.kind.name.clone(),
        vcpu_milli: it.kind.capacity.vcpu_milli,
        memory_mib: it.kind.capacity.memory_mib,
        image_id: it.image_id.to_string(),
        image_source: it.image_source.clone(),
        platform: match it.platform {
            Platform::Linux => proto::Platform::Linux,
            Platform::Windows => proto::Platform::Windows,
        }
        .into(),
        user_data: it.user_data.as_bytes().to_vec(),
        interfaces: it.interfaces.iter().filter(|interface| !interface.private_addresses.is_empty()).map(interface).collect(),
        volumes: it.volumes.iter().map(|attached| volume_spec(it, attached, volume(attached.volume_id))).collect(),
        key: (!it.key_name.is_empty()).then(|| proto::KeySpec { key_name: it.key_name.clone(), public_key: it.public_key.clone() }),
        hostname: it.primary().map(|interface| interface.private_dns_name.clone()).unwrap_or_default(),
        metadata_options: Some(metadata_options(&it.metadata_options)),
        // Other tags change without the node's hearing of it.
        tags: if it.metadata_options.tags_enabled { wire::tags(&it.tags) } else { Vec::new() },
        shutdown_behavior: match it.shutdown_behavior {
            ShutdownBehavior::Stop => proto::ShutdownBehavior::Stop,
            ShutdownBehavior::Terminate => proto::ShutdownBehavior::Terminate,
        }
        .into(),
        availability_zone: it.availability_zone(),
        reservation_id: it.reservation_id.to_string(),
        launch_index: it.launch_index,
        pulled_volume_ids: it.pulled_volumes.iter().map(ToString::to_string).collect(),
    }
}

fn volume_spec(it: &Instance, attached: &gureum_compute_domain::instance::AttachedVolume, facts: VolumeFacts) -> proto::VolumeSpec {
    proto::VolumeSpec {
        volume_id: attached.volume_id.to_string(),
        device_name: attached.device_name.clone(),
        size_gib: facts.size_gib.max(1),
        root: attached.device_name == it.root_device_name,
        snapshot_id: facts.snapshot_id,
        delete_on_termination: attached.delete_on_termination,
    }
}

fn metadata_options(options: &MetadataOptions) -> proto::MetadataOptions {
    proto::MetadataOptions {
        enabled: Some(options.endpoint_enabled),
        tokens_required: options.http_tokens == HttpTokens::Required,
        hop_limit: Some(options.hop_limit),
        tags_enabled: options.tags_enabled,
    }
}

fn interface(interface: &Interface) -> proto::InterfaceSpec {
    let group = |group: &gureum_compute_domain::instance::Group| proto::GroupSpec {
        group_id: group.id.to_string(),
        group_name: group.name.clone(),
    };
    proto::InterfaceSpec {
        network_interface_id: interface.id.to_string(),
        device_index: interface.device_index,
        mac_address: interface.mac_address.clone(),
        vpc_id: interface.vpc_id.to_string(),
        subnet_id: interface.subnet_id.to_string(),
        prefix_length: u32::from(interface.prefix_length),
        private_ip_addresses: interface.private_addresses.clone(),
        public_ip: interface.public.as_ref().map(|public| public.address.clone()).unwrap_or_default(),
        groups: interface.groups.iter().map(group).collect(),
        source_dest_check: interface.source_dest_check,
        public_dns_name: interface.public.as_ref().map(|public| public.dns_name.clone()).unwrap_or_default(),
    }
}
