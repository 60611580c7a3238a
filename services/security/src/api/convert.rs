//! The contract's messages and the domain's records, each as the other.

use gureum_proto::security::v1 as proto;
use gureum_security_domain::{
    KeyPair, PrefixList, SecurityGroup, SecurityGroupRule,
    evaluate::{FlowInput, SideInput, Verdict},
    hold::HoldInput,
    key_pair::KeyType,
    permission::{GroupPeerInput, Peer, PeerInput, PermissionInput},
    prefix_list::PrefixListEntry,
    private_key::KeyFormat,
    rule::{Direction, RulePeerInput, RuleUpdateInput},
};
use gureum_service::wire;

pub fn group(group: &SecurityGroup) -> proto::SecurityGroup {
    proto::SecurityGroup {
        group_id: group.id.to_string(),
        group_name: group.name.clone(),
        description: group.description.clone(),
        vpc_id: group.vpc_id.to_string(),
        owner_id: group.scope.account.to_string(),
        arn: group.arn(),
        rules: group.rules.iter().map(|one| rule(group, one)).collect(),
        tags: wire::tags(&group.tags),
    }
}

pub fn rule(group: &SecurityGroup, rule: &SecurityGroupRule) -> proto::SecurityGroupRule {
    use proto::security_group_rule::Peer as Shown;
    proto::SecurityGroupRule {
        security_group_rule_id: rule.id.to_string(),
        group_id: group.id.to_string(),
        group_owner_id: group.scope.account.to_string(),
        is_egress: rule.direction == Direction::Egress,
        ip_protocol: rule.traffic.protocol(),
        from_port: rule.traffic.from_port(),
        to_port: rule.traffic.to_port(),
        peer: Some(match &rule.peer {
            Peer::Ipv4(network) => Shown::CidrIpv4(network.to_string()),
            Peer::Ipv6(network) => Shown::CidrIpv6(network.to_string()),
            Peer::PrefixList(id) => Shown::PrefixListId(id.to_string()),
            Peer::Group(id) => Shown::ReferencedGroupId(id.to_string()),
        }),
        description: rule.description.clone(),
        tags: wire::tags(&rule.tags),
    }
}

pub fn key_pair(pair: &KeyPair) -> proto::KeyPair {
    proto::KeyPair {
        key_pair_id: pair.id.to_string(),
        key_name: pair.name.clone(),
        key_type: match pair.key_type {
            KeyType::Rsa => proto::KeyType::Rsa,
            KeyType::Ed25519 => proto::KeyType::Ed25519,
        }
        .into(),
        key_fingerprint: pair.fingerprint.clone(),
        public_key: pair.public_key.clone(),
        create_time: Some(wire::timestamp(pair.create_time)),
        tags: wire::tags(&pair.tags),
    }
}

pub fn prefix_list(list: &PrefixList) -> proto::ManagedPrefixList {
    let state = if list.modified { proto::PrefixListState::ModifyComplete } else { proto::PrefixListState::CreateComplete };
    proto::ManagedPrefixList {
        prefix_list_id: list.id.to_string(),
        prefix_list_name: list.name.clone(),
        address_family: list.family.as_str().to_owned(),
        max_entries: i32::try_from(list.max_entries).unwrap_or(i32::MAX),
        version: i64::try_from(list.version).unwrap_or(i64::MAX),
        state: state.into(),
        owner_id: list.scope.account.to_string(),
        prefix_list_arn: list.arn(),
        tags: wire::tags(&list.tags),
    }
}

pub fn prefix_list_entry(entry: &PrefixListEntry) -> proto::PrefixListEntry {
    proto::PrefixListEntry { cidr: entry.cidr.to_string(), description: entry.description.clone() }
}

pub fn prefix_list_contents(list: &PrefixList) -> proto::PrefixListContents {
    let entries = list.entries.iter().map(prefix_list_entry).collect();
    proto::PrefixListContents { prefix_list: Some(prefix_list(list)), entries }
}

/// EC2's default is RSA. A number without a meaning was refused with the request.
pub fn key_type(kind: proto::KeyType) -> KeyType {
    match kind {
        proto::KeyType::Unspecified | proto::KeyType::Rsa => KeyType::Rsa,
        proto::KeyType::Ed25519 => KeyType::Ed25519,
    }
}

/// EC2's default is PEM.
pub fn key_format(format: proto::KeyFormat) -> KeyFormat {
    match format {
        proto::KeyFormat::Unspecified | proto::KeyFormat::Pem => KeyFormat::Pem,
        proto::KeyFormat::Ppk => KeyFormat::Ppk,
    }
}

pub fn permissions(permissions: Vec<proto::IpPermission>) -> Vec<PermissionInput> {
    let ranges = |ranges: Vec<proto::IpRange>| {
        ranges.into_iter().map(|range| PeerInput { peer: range.cidr, description: range.description }).collect()
    };
    let one = |permission: proto::IpPermission| PermissionInput {
        ip_protocol: permission.ip_protocol,
        from_port: permission.from_port,
        to_port: permission.to_port,
        ip_ranges: ranges(permission.ip_ranges),
        ipv6_ranges: ranges(permission.ipv6_ranges),
        prefix_lists: permission
            .prefix_lists
            .into_iter()
            .map(|list| PeerInput { peer: list.prefix_list_id, description: list.description })
            .collect(),
        groups: permission
            .groups
            .into_iter()
            .map(|group| GroupPeerInput { group_id: group.group_id, group_name: group.group_name, description: group.description })
            .collect(),
    };
    permissions.into_iter().map(one).collect()
}

pub fn updates(updates: Vec<proto::SecurityGroupRuleUpdate>) -> Vec<RuleUpdateInput> {
    use proto::security_group_rule_update::Peer as Wanted;
    let one = |update: proto::SecurityGroupRuleUpdate| RuleUpdateInput {
        security_group_rule_id: update.security_group_rule_id,
        ip_protocol: update.ip_protocol,
        from_port: update.from_port,
        to_port: update.to_port,
        peer: match update.peer {
            None => RulePeerInput::Absent,
            Some(Wanted::CidrIpv4(text)) => RulePeerInput::CidrIpv4(text),
            Some(Wanted::CidrIpv6(text)) => RulePeerInput::CidrIpv6(text),
            Some(Wanted::PrefixListId(text)) => RulePeerInput::PrefixListId(text),
            Some(Wanted::ReferencedGroupId(text)) => RulePeerInput::ReferencedGroupId(text),
        },
        description: update.description,
    };
    updates.into_iter().map(one).collect()
}

pub fn holds(holds: Vec<proto::SecurityGroupHold>) -> Vec<HoldInput> {
    let one = |hold: proto::SecurityGroupHold| HoldInput {
        holder_id: hold.holder_id,
        vpc_id: hold.vpc_id,
        group_ids: hold.group_ids,
        group_names: hold.group_names,
        default_if_empty: hold.default_if_empty,
    };
    holds.into_iter().map(one).collect()
}

pub fn flow_input(request: proto::EvaluateRequest) -> FlowInput {
    let side =
        |side: Option<proto::Endpoint>| side.map(|side| SideInput { address: side.address, group_ids: side.group_ids }).unwrap_or_default();
    FlowInput {
        source: side(request.source),
        destination: side(request.destination),
        ip_protocol: request.ip_protocol,
        port: request.port,
        icmp_code: request.icmp_code,
    }
}

pub fn verdict(verdict: &Verdict) -> proto::EvaluateResponse {
    let id = |rule: Option<gureum_model::id::SecurityGroupRuleId>| rule.map(|id| id.to_string()).unwrap_or_default();
    proto::EvaluateResponse {
        allowed: verdict.allowed(),
        egress_rule_id: id(verdict.egress.rule()),
        ingress_rule_id: id(verdict.ingress.rule()),
        reason: verdict.reason.clone(),
    }
}
