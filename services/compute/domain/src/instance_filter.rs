//! EC2's filters on instances.

use std::borrow::Cow;

use gureum_model::{Filterable, Tags};

use crate::instance::{Instance, Interface, Platform, PublicAddress};

impl Filterable for Instance {
    const FILTER_NAMES: &'static [&'static str] = &[
        "architecture",
        "availability-zone",
        "availability-zone-id",
        "block-device-mapping.attach-time",
        "block-device-mapping.delete-on-termination",
        "block-device-mapping.device-name",
        "block-device-mapping.status",
        "block-device-mapping.volume-id",
        "boot-mode",
        "client-token",
        "current-instance-boot-mode",
        "dns-name",
        "ebs-optimized",
        "ena-support",
        "hypervisor",
        "iam-instance-profile.arn",
        "iam-instance-profile.name",
        "image-id",
        "instance-id",
        "instance-lifecycle",
        "instance-state-code",
        "instance-state-name",
        "instance-type",
        "instance.group-id",
        "instance.group-name",
        "ip-address",
        "key-name",
        "launch-index",
        "launch-time",
        "metadata-options.http-endpoint",
        "metadata-options.http-protocol-ipv6",
        "metadata-options.http-put-response-hop-limit",
        "metadata-options.http-tokens",
        "metadata-options.instance-metadata-tags",
        "metadata-options.state",
        "monitoring-state",
        "network-interface.addresses.association.allocation-id",
        "network-interface.addresses.association.association-id",
        "network-interface.addresses.association.ip-owner-id",
        "network-interface.addresses.association.public-dns-name",
        "network-interface.addresses.association.public-ip",
        "network-interface.addresses.primary",
        "network-interface.addresses.private-ip-address",
        "network-interface.association.allocation-id",
        "network-interface.association.association-id",
        "network-interface.association.ip-owner-id",
        "network-interface.association.public-dns-name",
        "network-interface.association.public-ip",
        "network-interface.attachment.attach-time",
        "network-interface.attachment.attachment-id",
        "network-interface.attachment.delete-on-termination",
        "network-interface.attachment.device-index",
        "network-interface.attachment.instance-id",
        "network-interface.attachment.instance-owner-id",
        "network-interface.attachment.status",
        "network-interface.availability-zone",
        "network-interface.description",
        "network-interface.group-id",
        "network-interface.group-name",
        "network-interface.mac-address",
        "network-interface.network-interface-id",
        "network-interface.owner-id",
        "network-interface.private-dns-name",
        "network-interface.private-ip-address",
        "network-interface.public-dns-name",
        "network-interface.requester-managed",
        "network-interface.source-dest-check",
        "network-interface.status",
        "network-interface.subnet-id",
        "network-interface.vpc-id",
        "owner-id",
        "placement-group-name",
        "platform",
        "platform-details",
        "private-dns-name",
        "private-ip-address",
        "product-code",
        "product-code.type",
        "reason",
        "reservation-id",
        "root-device-name",
        "root-device-type",
        "source-dest-check",
        "state-reason-code",
        "state-reason-message",
        "subnet-id",
        "tenancy",
        "usage-operation",
        "virtualization-type",
        "vpc-id",
    ];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        if let Some(name) = name.strip_prefix("network-interface.") {
            return self.interfaces.iter().flat_map(|interface| interface_values(self, interface, name)).collect();
        }
        if let Some(name) = name.strip_prefix("block-device-mapping.") {
            return volume_values(self, name);
        }
        if let Some(name) = name.strip_prefix("metadata-options.") {
            return metadata_values(self, name);
        }
        state_values(self, name).or_else(|| network_values(self, name)).unwrap_or_else(|| plain_values(self, name))
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }
}

fn one<'a>(value: impl Into<Cow<'a, str>>) -> Vec<Cow<'a, str>> {
    vec![value.into()]
}

/// A text that counts as absent when it is empty.
fn some(value: &str) -> Vec<Cow<'_, str>> {
    if value.is_empty() { Vec::new() } else { one(value) }
}

fn enabled<'a>(on: bool) -> Vec<Cow<'a, str>> {
    one(if on { "enabled" } else { "disabled" })
}

fn state_values<'a>(it: &'a Instance, name: &str) -> Option<Vec<Cow<'a, str>>> {
    let reason = it.state.reason();
    Some(match name {
        "instance-state-code" => one(it.state.name().code().to_string()),
        "instance-state-name" => one(it.state.name().as_str()),
        "reason" => one(it.transition_reason()),
        "state-reason-code" => reason.map(|reason| Cow::from(reason.code())).into_iter().collect(),
        "state-reason-message" => reason.map(|reason| Cow::from(reason.message())).into_iter().collect(),
        _ => return None,
    })
}

fn network_values<'a>(it: &'a Instance, name: &str) -> Option<Vec<Cow<'a, str>>> {
    let of_primary = |value: fn(&'a Interface) -> Vec<Cow<'a, str>>| it.primary().map(value).unwrap_or_default();
    Some(match name {
        "dns-name" => of_primary(|primary| primary.public.iter().map(|public| Cow::from(public.dns_name.as_str())).collect()),
        "instance.group-id" => of_primary(|primary| primary.groups.iter().map(|group| Cow::from(group.id.to_string())).collect()),
        "instance.group-name" => of_primary(|primary| primary.groups.iter().map(|group| Cow::from(group.name.as_str())).collect()),
        "ip-address" => of_primary(|primary| primary.public.iter().map(|public| Cow::from(public.address.as_str())).collect()),
        "private-dns-name" => of_primary(|primary| some(&primary.private_dns_name)),
        "private-ip-address" => {
            of_primary(|primary| primary.private_addresses.first().map(|first| Cow::from(first.as_str())).into_iter().collect())
        }
        "source-dest-check" => of_primary(|primary| one(primary.source_dest_check.to_string())),
        "subnet-id" => of_primary(|primary| one(primary.subnet_id.to_string())),
        "vpc-id" => of_primary(|primary| one(primary.vpc_id.to_string())),
        _ => return None,
    })
}

fn plain_values<'a>(it: &'a Instance, name: &str) -> Vec<Cow<'a, str>> {
    match name {
        "architecture" => one(it.kind.architecture.as_str()),
        "availability-zone" => one(it.availability_zone()),
        "availability-zone-id" => one(it.availability_zone_id()),
        // What an instance is to boot in is what it boots in.
        "boot-mode" | "current-instance-boot-mode" => one(it.boot_mode.as_str()),
        "client-token" => some(&it.client_token),
        "ebs-optimized" => one(it.ebs_optimized.to_string()),
        "ena-support" => one(it.kind.ena_support.to_string()),
        // EC2 says xen for both of its hypervisors.
        "hypervisor" => one("xen"),
        "iam-instance-profile.arn" if it.iam_instance_profile.starts_with("arn:") => one(it.iam_instance_profile.as_str()),
        "iam-instance-profile.name" => some(it.iam_instance_profile.rsplit('/').next().unwrap_or_default()),
        "image-id" => one(it.image_id.to_string()),
        "instance-id" => one(it.id.to_string()),
        "instance-type" => one(it.kind.name.as_str()),
        "key-name" => some(&it.key_name),
        "launch-index" => one(it.launch_index.to_string()),
        "launch-time" => one(it.launch_time.to_string()),
        "monitoring-state" => enabled(it.detailed_monitoring),
        "owner-id" => one(it.scope.account.to_string()),
        "placement-group-name" => some(&it.placement_group),
        "platform" => match it.platform {
            Platform::Windows => one("windows"),
            Platform::Linux => Vec::new(),
        },
        "platform-details" => one(it.platform_details.as_str()),
        "product-code" => it.product_codes.iter().map(|code| Cow::from(code.as_str())).collect(),
        "product-code.type" => it.product_codes.first().map(|_| Cow::from("marketplace")).into_iter().collect(),
        "reservation-id" => one(it.reservation_id.to_string()),
        "root-device-name" => one(it.root_device_name.as_str()),
        "root-device-type" => one("ebs"),
        "tenancy" => one(it.tenancy.as_str()),
        "usage-operation" => one(it.usage_operation.as_str()),
        "virtualization-type" => one("hvm"),
        // instance-lifecycle is only there for spot instances.
        _ => Vec::new(),
    }
}

fn metadata_values<'a>(it: &'a Instance, name: &str) -> Vec<Cow<'a, str>> {
    let options = &it.metadata_options;
    match name {
        "http-endpoint" => enabled(options.endpoint_enabled),
        "http-protocol-ipv6" => enabled(options.ipv6_enabled),
        "http-put-response-hop-limit" => one(options.hop_limit.to_string()),
        "http-tokens" => one(options.http_tokens.as_str()),
        "instance-metadata-tags" => enabled(options.tags_enabled),
        "state" => one(if it.observed.generation == it.generation { "applied" } else { "pending" }),
        _ => Vec::new(),
    }
}

fn volume_values<'a>(it: &'a Instance, name: &str) -> Vec<Cow<'a, str>> {
    it.volumes
        .iter()
        .filter_map(|volume| {
            Some(match name {
                "attach-time" => Cow::from(volume.attach_time.to_string()),
                "delete-on-termination" => Cow::from(volume.delete_on_termination.to_string()),
                "device-name" => Cow::from(volume.device_name.as_str()),
                "status" => Cow::from("attached"),
                "volume-id" => Cow::from(volume.volume_id.to_string()),
                _ => return None,
            })
        })
        .collect()
}

fn interface_values<'a>(it: &Instance, interface: &'a Interface, name: &str) -> Vec<Cow<'a, str>> {
    if let Some(name) = name.strip_prefix("association.").or_else(|| name.strip_prefix("addresses.association.")) {
        return interface.public.as_ref().map(|public| association_values(it, public, name)).unwrap_or_default();
    }
    if let Some(name) = name.strip_prefix("attachment.") {
        return attachment_values(it, interface, name);
    }
    match name {
        "addresses.primary" => {
            interface.private_addresses.iter().enumerate().map(|(place, _)| Cow::from((place == 0).to_string())).collect()
        }
        "addresses.private-ip-address" => interface.private_addresses.iter().map(|address| Cow::from(address.as_str())).collect(),
        "availability-zone" => one(it.availability_zone()),
        "description" => one(interface.description.as_str()),
        "group-id" => interface.groups.iter().map(|group| Cow::from(group.id.to_string())).collect(),
        "group-name" => interface.groups.iter().map(|group| Cow::from(group.name.as_str())).collect(),
        "mac-address" => some(&interface.mac_address),
        "network-interface-id" => one(interface.id.to_string()),
        "owner-id" => one(it.scope.account.to_string()),
        "private-dns-name" => some(&interface.private_dns_name),
        "private-ip-address" => interface.private_addresses.first().map(|first| Cow::from(first.as_str())).into_iter().collect(),
        "public-dns-name" => interface.public.iter().map(|public| Cow::from(public.dns_name.as_str())).collect(),
        // No other service makes interfaces for an account.
        "requester-managed" => one("false"),
        "source-dest-check" => one(interface.source_dest_check.to_string()),
        "status" => one("in-use"),
        "subnet-id" => one(interface.subnet_id.to_string()),
        "vpc-id" => one(interface.vpc_id.to_string()),
        _ => Vec::new(),
    }
}

fn association_values<'a>(it: &Instance, public: &'a PublicAddress, name: &str) -> Vec<Cow<'a, str>> {
    match name {
        "allocation-id" => public.elastic.iter().map(|elastic| Cow::from(elastic.allocation_id.to_string())).collect(),
        "association-id" => public.elastic.iter().map(|elastic| Cow::from(elastic.association_id.to_string())).collect(),
        "ip-owner-id" => match public.elastic {
            Some(_) => one(it.scope.account.to_string()),
            None => one("amazon"),
        },
        "public-dns-name" => some(&public.dns_name),
        "public-ip" => one(public.address.as_str()),
        _ => Vec::new(),
    }
}

fn attachment_values<'a>(it: &Instance, interface: &'a Interface, name: &str) -> Vec<Cow<'a, str>> {
    match name {
        "attach-time" => one(interface.attach_time.to_string()),
        "attachment-id" => one(interface.attachment_id.to_string()),
        "delete-on-termination" => one(interface.delete_on_termination.to_string()),
        "device-index" => one(interface.device_index.to_string()),
        "instance-id" => one(it.id.to_string()),
        "instance-owner-id" => one(it.scope.account.to_string()),
        "status" => one("attached"),
        _ => Vec::new(),
    }
}
