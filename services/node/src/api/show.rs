//! The domain as messages.

use std::time::Duration;

use gureum_model::{Scope, id::InstanceId};
use gureum_node_domain::{
    Capabilities, DesiredState, ExitReason, InstanceSpec, Known, NodeInstance, ObservedState, RuntimeReport, ScriptEnd, Usage,
    driver::{AddressMode, Isolation, Limit},
    instance::{FailReason, Health},
    spec::{InterfaceSpec, Platform, ShutdownBehavior, VolumeSpec},
};
use gureum_proto::{common::v1 as common, node::v1 as proto};
use gureum_service::wire;

pub fn observation(record: &NodeInstance) -> proto::InstanceObservation {
    let (reason, reason_message) = reason(&record.state);
    let (impaired_since, impaired_message) = match &record.health {
        Health::Ok => (None, String::new()),
        Health::Impaired { since, message } => (Some(wire::timestamp(*since)), message.clone()),
    };
    proto::InstanceObservation {
        instance_id: record.id.to_string(),
        account_id: record.scope.account.to_string(),
        region: record.scope.region.to_string(),
        generation: record.wanted.generation,
        live_generation: record.live_generation,
        boot: record.boot,
        reboot: record.reboot,
        state: state(&record.state).into(),
        state_since: Some(wire::timestamp(record.state.since())),
        reason: reason.into(),
        reason_message,
        impaired_since,
        impaired_message,
        change_refused: record.change_refused.clone().unwrap_or_default(),
        runtime: record.runtime.as_ref().map(runtime),
    }
}

fn runtime(it: &RuntimeReport) -> common::RuntimeReport {
    let end = |it: &ScriptEnd| common::ScriptEnd { exit_code: Some(it.exit_code), last_lines: it.last_lines.clone() };
    common::RuntimeReport {
        isolation: it.isolation.as_str().to_owned(),
        cpu_limit: it.cpu_limit.as_str().to_owned(),
        memory_limit: it.memory_limit.as_str().to_owned(),
        address_mode: it.address_mode.as_str().to_owned(),
        user_data: it.user_data.as_ref().map(end),
        boot_script: it.boot_script.as_ref().map(end),
        stuck_ports: it.stuck_ports.clone(),
    }
}

fn state(state: &ObservedState) -> proto::ObservedState {
    match state {
        ObservedState::Pending { .. } => proto::ObservedState::Pending,
        ObservedState::Booting { .. } => proto::ObservedState::Booting,
        ObservedState::Running { .. } => proto::ObservedState::Running,
        ObservedState::Rebooting { .. } => proto::ObservedState::Rebooting,
        ObservedState::Stopping { .. } => proto::ObservedState::Stopping,
        ObservedState::Stopped { .. } => proto::ObservedState::Stopped,
        ObservedState::Terminating { .. } => proto::ObservedState::Terminating,
        ObservedState::Terminated { .. } => proto::ObservedState::Terminated,
        ObservedState::Failed { .. } => proto::ObservedState::Failed,
    }
}

fn reason(state: &ObservedState) -> (proto::ObservedReason, String) {
    match state {
        ObservedState::Stopped { reason, .. } => match reason {
            ExitReason::Asked => (proto::ObservedReason::Asked, "it was stopped as it was wanted".to_owned()),
            ExitReason::InstanceInitiated => (proto::ObservedReason::InstanceInitiated, "the instance shut itself down".to_owned()),
            ExitReason::Crashed { message } => (proto::ObservedReason::Crashed, message.clone()),
        },
        ObservedState::Failed { reason, .. } => {
            let code = match reason {
                FailReason::NoRoom { .. } => proto::ObservedReason::NoRoom,
                FailReason::TooMany { .. } => proto::ObservedReason::TooMany,
                FailReason::Unsupported { .. } => proto::ObservedReason::Unsupported,
                FailReason::BootFailed { .. } => proto::ObservedReason::BootFailed,
                FailReason::BootTimedOut { .. } => proto::ObservedReason::BootTimedOut,
            };
            (code, reason.to_string())
        }
        ObservedState::Pending { .. }
        | ObservedState::Booting { .. }
        | ObservedState::Running { .. }
        | ObservedState::Rebooting { .. }
        | ObservedState::Stopping { .. }
        | ObservedState::Terminating { .. }
        | ObservedState::Terminated { .. } => (proto::ObservedReason::Unspecified, String::new()),
    }
}

/// The generation that the node has of an instance; 0 if it has none.
pub fn generation_of(known: Known<'_>) -> u64 {
    match known {
        Known::Nothing => 0,
        Known::Instance(record) => record.wanted.generation,
        Known::Forgotten(tombstone) => tombstone.generation,
    }
}

pub fn instance(record: &NodeInstance, include_desired: bool) -> proto::NodeInstance {
    proto::NodeInstance {
        observation: Some(observation(record)),
        desired: include_desired.then(|| desired(record)),
        held_vcpu_milli: record.held.vcpu_milli,
        held_memory_mib: record.held.memory_mib,
        create_time: Some(wire::timestamp(record.created_at)),
        first_up_time: record.first_up_at.map(wire::timestamp),
        up_time: record.up_at.map(wire::timestamp),
    }
}

fn desired(record: &NodeInstance) -> proto::DesiredInstance {
    let (state, stop_grace) = match record.wanted.state {
        DesiredState::Running => (proto::DesiredState::Running, None),
        DesiredState::Stopped { grace } => (proto::DesiredState::Stopped, Some(duration(grace))),
        DesiredState::Terminated => (proto::DesiredState::Terminated, None),
    };
    proto::DesiredInstance {
        instance_id: record.id.to_string(),
        account_id: record.scope.account.to_string(),
        region: record.scope.region.to_string(),
        generation: record.wanted.generation,
        state: state.into(),
        stop_grace,
        boot: record.wanted.boot,
        reboot: record.wanted.reboot,
        spec: record.spec.as_ref().map(spec),
    }
}

/// Graces are bounded, so they fit.
fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or_default()
}

fn spec(spec: &InstanceSpec) -> proto::InstanceSpec {
    let shutdown_behavior = match spec.shutdown_behavior {
        ShutdownBehavior::Stop => proto::ShutdownBehavior::Stop,
        ShutdownBehavior::Terminate => proto::ShutdownBehavior::Terminate,
    };
    let options = spec.metadata_options;
    proto::InstanceSpec {
        type_name: spec.type_name.clone(),
        vcpu_milli: spec.demand.vcpu_milli,
        memory_mib: spec.demand.memory_mib,
        image_id: spec.image.id.to_string(),
        image_source: spec.image.source.clone(),
        platform: platform(spec.image.platform).into(),
        user_data: spec.user_data.clone(),
        interfaces: spec.interfaces.iter().map(interface).collect(),
        volumes: spec.volumes.iter().map(volume).collect(),
        key: spec.key.as_ref().map(|key| proto::KeySpec { key_name: key.name.clone(), public_key: key.public_key.clone() }),
        hostname: spec.hostname.clone(),
        metadata_options: Some(proto::MetadataOptions {
            enabled: Some(options.enabled),
            tokens_required: options.tokens_required,
            hop_limit: Some(options.hop_limit),
            tags_enabled: options.tags_enabled,
        }),
        tags: wire::tags(&spec.tags),
        shutdown_behavior: shutdown_behavior.into(),
        availability_zone: spec.placement.zone.clone(),
        reservation_id: spec.placement.reservation.to_string(),
        launch_index: spec.placement.launch_index,
        pulled_volume_ids: spec.pulled_volumes.iter().map(ToString::to_string).collect(),
    }
}

fn platform(platform: Platform) -> proto::Platform {
    match platform {
        Platform::Linux => proto::Platform::Linux,
        Platform::Windows => proto::Platform::Windows,
    }
}

fn interface(interface: &InterfaceSpec) -> proto::InterfaceSpec {
    let group =
        |group: &gureum_node_domain::spec::GroupSpec| proto::GroupSpec { group_id: group.id.to_string(), group_name: group.name.clone() };
    proto::InterfaceSpec {
        network_interface_id: interface.id.to_string(),
        device_index: interface.device_index,
        mac_address: interface.mac_address.clone(),
        vpc_id: interface.vpc.to_string(),
        subnet_id: interface.subnet.to_string(),
        prefix_length: u32::from(interface.prefix_length),
        private_ip_addresses: interface.private_addresses.iter().map(ToString::to_string).collect(),
        public_ip: interface.public_address.map(|address| address.to_string()).unwrap_or_default(),
        groups: interface.groups.iter().map(group).collect(),
        source_dest_check: interface.source_dest_check,
        public_dns_name: interface.public_name.clone(),
    }
}

fn volume(volume: &VolumeSpec) -> proto::VolumeSpec {
    proto::VolumeSpec {
        volume_id: volume.id.to_string(),
        device_name: volume.device_name.clone(),
        size_gib: volume.size_gib,
        root: volume.root,
        snapshot_id: volume.snapshot.map(|snapshot| snapshot.to_string()).unwrap_or_default(),
        delete_on_termination: volume.delete_on_termination,
    }
}

/// `counters`: the boot and the reboot to which they belong.
pub fn usage(id: InstanceId, scope: &Scope, [boot, reboot]: [u64; 2], usage: &Usage) -> proto::InstanceUsage {
    proto::InstanceUsage {
        instance_id: id.to_string(),
        account_id: scope.account.to_string(),
        region: scope.region.to_string(),
        boot,
        cpu_percent: usage.cpu_percent,
        memory_used_bytes: usage.memory_used_bytes,
        memory_total_bytes: usage.memory_total_bytes,
        disk_read_bytes: usage.disk_read_bytes,
        disk_written_bytes: usage.disk_written_bytes,
        disk_read_operations: usage.disk_read_operations,
        disk_write_operations: usage.disk_write_operations,
        network_received_bytes: usage.network_received_bytes,
        network_sent_bytes: usage.network_sent_bytes,
        network_received_packets: usage.network_received_packets,
        network_sent_packets: usage.network_sent_packets,
        reboot,
    }
}

pub fn capabilities(it: &Capabilities) -> proto::DriverCapabilities {
    let isolation = match it.isolation {
        Isolation::Simulated => proto::Isolation::Simulated,
        Isolation::None => proto::Isolation::None,
        Isolation::User => proto::Isolation::User,
        Isolation::Namespaces => proto::Isolation::Namespaces,
        Isolation::Hardware => proto::Isolation::Hardware,
    };
    let address_mode = match it.address_mode {
        AddressMode::Simulated => proto::AddressMode::Simulated,
        AddressMode::LoopbackAlias => proto::AddressMode::LoopbackAlias,
        AddressMode::OwnInterface => proto::AddressMode::OwnInterface,
    };
    proto::DriverCapabilities {
        driver: it.driver.as_str().to_owned(),
        isolation: isolation.into(),
        cpu_limit: limit(it.cpu_limit).into(),
        memory_limit: limit(it.memory_limit).into(),
        address_mode: address_mode.into(),
        disk_limit: it.disk_limit,
        executes: it.executes,
        hot_plug: it.hot_plug,
        survives_restart: it.survives_restart,
        platforms: it.platforms.iter().map(|it| platform(*it).into()).collect(),
        max_instances: it.max_instances.map(|most| most as u64),
    }
}

fn limit(limit: Limit) -> proto::LimitKind {
    match limit {
        Limit::Simulated => proto::LimitKind::Simulated,
        Limit::None => proto::LimitKind::None,
        Limit::Rlimit => proto::LimitKind::Rlimit,
        Limit::CgroupV1 => proto::LimitKind::CgroupV1,
        Limit::CgroupV2 => proto::LimitKind::CgroupV2,
        Limit::Machine => proto::LimitKind::Machine,
    }
}
