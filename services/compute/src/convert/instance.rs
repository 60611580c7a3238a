//! Instances as users see them.

use gureum_compute_domain::{
    instance::{AttachedVolume, Instance, Interface, Platform, ShutdownBehavior, StateName, Tenancy},
    metadata_options::{HttpTokens, MetadataOptions},
    plan::{Plan, Reach, World, plan},
    runtime::{RuntimeReport, ScriptEnd},
    status_check::{Check, InstanceStatus},
};
use gureum_model::Timestamp;
use gureum_proto::{common::v1 as common, compute::v1 as proto};
use gureum_service::wire;

/// An instance in the event of a change: whether its node is heard of is not part of it.
pub fn told(it: &Instance) -> proto::Instance {
    shown(it, Reach::Up, it.state.since())
}

/// An instance as a call shows it.
pub fn shown(it: &Instance, node: Reach, now: Timestamp) -> proto::Instance {
    let primary = it.primary();
    let public = primary.and_then(|interface| interface.public.as_ref());
    proto::Instance {
        instance_id: it.id.to_string(),
        reservation_id: it.reservation_id.to_string(),
        owner_id: it.scope.account.to_string(),
        launch_index: int(it.launch_index),
        client_token: it.client_token.clone(),
        state: state(it.state.name()).into(),
        state_reason: it.state.reason().map(|reason| proto::StateReason { code: reason.code().to_owned(), message: reason.message() }),
        state_transition_reason: it.transition_reason(),
        launch_time: Some(wire::timestamp(it.launch_time)),
        image_id: it.image_id.to_string(),
        instance_type: it.kind.name.clone(),
        architecture: it.kind.architecture.clone(),
        hypervisor: "xen".to_owned(),
        virtualization_type: "hvm".to_owned(),
        platform: match it.platform {
            Platform::Linux => String::new(),
            Platform::Windows => "windows".to_owned(),
        },
        platform_details: it.platform_details.clone(),
        usage_operation: it.usage_operation.clone(),
        key_name: it.key_name.clone(),
        placement: Some(proto::Placement {
            availability_zone: it.availability_zone(),
            tenancy: match it.tenancy {
                Tenancy::Default => proto::Tenancy::Default,
                Tenancy::Dedicated => proto::Tenancy::Dedicated,
            }
            .into(),
            group_name: it.placement_group.clone(),
        }),
        vpc_id: primary.map(|interface| interface.vpc_id.to_string()).unwrap_or_default(),
        subnet_id: primary.map(|interface| interface.subnet_id.to_string()).unwrap_or_default(),
        private_ip_address: primary.and_then(|interface| interface.private_addresses.first()).cloned().unwrap_or_default(),
        private_dns_name: primary.map(|interface| interface.private_dns_name.clone()).unwrap_or_default(),
        public_ip_address: public.map(|public| public.address.clone()).unwrap_or_default(),
        public_dns_name: public.map(|public| public.dns_name.clone()).unwrap_or_default(),
        security_groups: primary.map(groups).unwrap_or_default(),
        network_interfaces: it.interfaces.iter().map(|interface| network_interface(it, interface)).collect(),
        block_device_mappings: it.volumes.iter().map(volume).collect(),
        root_device_name: it.root_device_name.clone(),
        root_device_type: "ebs".to_owned(),
        ebs_optimized: it.ebs_optimized,
        ena_support: it.kind.ena_support,
        source_dest_check: primary.is_some_and(|interface| interface.source_dest_check),
        iam_instance_profile: it.iam_instance_profile.clone(),
        monitoring: monitoring(it.detailed_monitoring).into(),
        metadata_options: Some(metadata_options(&it.metadata_options, it.observed.generation == it.generation)),
        cpu_options: Some(proto::CpuOptions { core_count: int(it.kind.cores), threads_per_core: int(it.kind.threads_per_core) }),
        product_codes: product_codes(it),
        boot_mode: it.boot_mode.as_str().to_owned(),
        instance_initiated_shutdown_behavior: shutdown_behavior(it.shutdown_behavior).into(),
        generation: it.generation,
        tags: wire::tags(&it.tags),
        waiting_reason: waiting(it, node, now),
        runtime: it.runtime.clone().map(runtime),
    }
}

fn runtime(it: RuntimeReport) -> common::RuntimeReport {
    let end = |it: ScriptEnd| common::ScriptEnd { exit_code: Some(it.exit_code), last_lines: it.last_lines };
    common::RuntimeReport {
        isolation: it.isolation,
        cpu_limit: it.cpu_limit,
        memory_limit: it.memory_limit,
        address_mode: it.address_mode,
        user_data: it.user_data.map(end),
        boot_script: it.boot_script.map(end),
        stuck_ports: it.stuck_ports,
    }
}

/// What a node tells, as it is recorded.
pub fn runtime_report(it: common::RuntimeReport) -> RuntimeReport {
    let end = |it: common::ScriptEnd| ScriptEnd { exit_code: it.exit_code(), last_lines: it.last_lines };
    RuntimeReport {
        isolation: it.isolation,
        cpu_limit: it.cpu_limit,
        memory_limit: it.memory_limit,
        address_mode: it.address_mode,
        user_data: it.user_data.map(end),
        boot_script: it.boot_script.map(end),
        stuck_ports: it.stuck_ports,
    }
}

/// For what a passing state waits, in words.
fn waiting(it: &Instance, node: Reach, now: Timestamp) -> String {
    match it.state.name() {
        StateName::Pending | StateName::Stopping | StateName::ShuttingDown => {
            let world = World { node, applied: it.generation, resync: false };
            match plan(it, &world, now) {
                Plan::Wait { reason, .. } => reason.as_str().to_owned(),
                Plan::Do(_) | Plan::Settled | Plan::Gone => String::new(),
            }
        }
        StateName::Running | StateName::Stopped | StateName::Terminated => String::new(),
    }
}

/// Numbers here are small: indexes, cores, seconds.
fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

pub fn state(name: StateName) -> proto::InstanceState {
    match name {
        StateName::Pending => proto::InstanceState::Pending,
        StateName::Running => proto::InstanceState::Running,
        StateName::Stopping => proto::InstanceState::Stopping,
        StateName::Stopped => proto::InstanceState::Stopped,
        StateName::ShuttingDown => proto::InstanceState::ShuttingDown,
        StateName::Terminated => proto::InstanceState::Terminated,
    }
}

pub fn monitoring(detailed: bool) -> proto::MonitoringState {
    if detailed { proto::MonitoringState::Enabled } else { proto::MonitoringState::Disabled }
}

pub fn shutdown_behavior(behavior: ShutdownBehavior) -> proto::ShutdownBehavior {
    match behavior {
        ShutdownBehavior::Stop => proto::ShutdownBehavior::Stop,
        ShutdownBehavior::Terminate => proto::ShutdownBehavior::Terminate,
    }
}

pub fn product_codes(it: &Instance) -> Vec<proto::ProductCode> {
    let code = |code: &String| proto::ProductCode { product_code_id: code.clone(), product_code_type: "marketplace".to_owned() };
    it.product_codes.iter().map(code).collect()
}

pub fn groups(interface: &Interface) -> Vec<proto::GroupIdentifier> {
    let group = |group: &gureum_compute_domain::instance::Group| proto::GroupIdentifier {
        group_id: group.id.to_string(),
        group_name: group.name.clone(),
    };
    interface.groups.iter().map(group).collect()
}

/// `applied`: the node has taken them over.
pub fn metadata_options(options: &MetadataOptions, applied: bool) -> proto::InstanceMetadataOptions {
    proto::InstanceMetadataOptions {
        applied,
        http_tokens: match options.http_tokens {
            HttpTokens::Optional => proto::HttpTokens::Optional,
            HttpTokens::Required => proto::HttpTokens::Required,
        }
        .into(),
        http_put_response_hop_limit: int(options.hop_limit),
        http_endpoint_enabled: options.endpoint_enabled,
        http_protocol_ipv6_enabled: options.ipv6_enabled,
        instance_metadata_tags_enabled: options.tags_enabled,
    }
}

fn network_interface(it: &Instance, interface: &Interface) -> proto::InstanceNetworkInterface {
    let public = interface.public.as_ref();
    let elastic = public.and_then(|public| public.elastic);
    let owner = |_: &_| if elastic.is_some() { it.scope.account.to_string() } else { "amazon".to_owned() };
    proto::InstanceNetworkInterface {
        network_interface_id: interface.id.to_string(),
        attachment_id: interface.attachment_id.to_string(),
        device_index: int(interface.device_index),
        delete_on_termination: interface.delete_on_termination,
        attach_time: Some(wire::timestamp(interface.attach_time)),
        subnet_id: interface.subnet_id.to_string(),
        vpc_id: interface.vpc_id.to_string(),
        mac_address: interface.mac_address.clone(),
        private_ip_address: interface.private_addresses.first().cloned().unwrap_or_default(),
        private_dns_name: interface.private_dns_name.clone(),
        public_ip_address: public.map(|public| public.address.clone()).unwrap_or_default(),
        public_dns_name: public.map(|public| public.dns_name.clone()).unwrap_or_default(),
        public_ip_owner_id: public.map(owner).unwrap_or_default(),
        association_id: elastic.map(|elastic| elastic.association_id.to_string()).unwrap_or_default(),
        allocation_id: elastic.map(|elastic| elastic.allocation_id.to_string()).unwrap_or_default(),
        groups: groups(interface),
        source_dest_check: interface.source_dest_check,
        description: interface.description.clone(),
        private_ip_addresses: interface.private_addresses.clone(),
    }
}

/// A volume as its instance shows it. Attaching takes no time that anyone could see.
pub fn volume(volume: &AttachedVolume) -> proto::InstanceBlockDeviceMapping {
    proto::InstanceBlockDeviceMapping {
        device_name: volume.device_name.clone(),
        volume_id: volume.volume_id.to_string(),
        state: proto::VolumeAttachmentState::Attached.into(),
        attach_time: Some(wire::timestamp(volume.attach_time)),
        delete_on_termination: volume.delete_on_termination,
    }
}

/// One row of DescribeInstanceStatus.
pub fn status(status: &InstanceStatus<'_>) -> proto::InstanceStatus {
    proto::InstanceStatus {
        instance_id: status.instance.id.to_string(),
        availability_zone: status.instance.availability_zone(),
        instance_state: state(status.instance.state.name()).into(),
        instance_status: Some(summary(status.instance_check)),
        system_status: Some(summary(status.system_check)),
        attached_ebs_status: Some(summary(status.ebs_check)),
    }
}

fn summary(check: Check) -> proto::StatusSummary {
    let (status, impaired_since) = match check {
        Check::Ok => (proto::CheckStatus::Ok, None),
        Check::Impaired { since } => (proto::CheckStatus::Impaired, Some(wire::timestamp(since))),
        Check::Initializing => (proto::CheckStatus::Initializing, None),
        Check::InsufficientData => (proto::CheckStatus::InsufficientData, None),
        Check::NotApplicable => (proto::CheckStatus::NotApplicable, None),
    };
    proto::StatusSummary { status: status.into(), impaired_since }
}
