//! Security's events as changes of the table. What cannot be read is an error of ours; nothing passes by it.

use gureum_firewall::{Direction, protocol};
use gureum_model::{
    Scope,
    id::{PrefixListId, SecurityGroupId},
};
use gureum_proto::security::v1::{self as proto, event::Resource, security_group_rule::Peer};

use super::table::{Change, GroupRule, GroupRulePeer};
use crate::followed;

/// What an event changes for connections; a key pair does nothing.
pub fn change(event: proto::Event) -> Option<(Scope, Change)> {
    let metadata = event.metadata.unwrap_or_default();
    let is_there = !metadata.deleted;
    let change = match event.resource? {
        Resource::SecurityGroup(group) => {
            let id: SecurityGroupId = read("security group", &group.group_id, group.group_id.parse().ok())?;
            Change::Group(id, is_there.then(|| group.rules.iter().filter_map(rule).collect()))
        }
        Resource::PrefixList(contents) => {
            let text = contents.prefix_list.unwrap_or_default().prefix_list_id;
            let id: PrefixListId = read("prefix list", &text, text.parse().ok())?;
            let networks = contents.entries.iter().filter_map(|entry| read("entry of a prefix list", &entry.cidr, entry.cidr.parse().ok()));
            Change::PrefixList(id, is_there.then(|| networks.collect()))
        }
        Resource::KeyPair(_) => return None,
    };
    let scope = read("scope", &metadata.account_id, Scope::parse(&metadata.account_id, &metadata.region).ok())?;
    Some((scope, change))
}

fn rule(rule: &proto::SecurityGroupRule) -> Option<GroupRule> {
    read("rule", &rule.security_group_rule_id, read_rule(rule))
}

fn read_rule(rule: &proto::SecurityGroupRule) -> Option<GroupRule> {
    let protocol = protocol::parse(&rule.ip_protocol)?;
    let (first, last) = protocol::points(protocol, rule.from_port, rule.to_port)?;
    let peer = match rule.peer.as_ref()? {
        Peer::CidrIpv4(text) | Peer::CidrIpv6(text) => GroupRulePeer::Network(text.parse().ok()?),
        Peer::PrefixListId(text) => GroupRulePeer::PrefixList(text.parse().ok()?),
        Peer::ReferencedGroupId(text) => GroupRulePeer::Group(text.parse().ok()?),
    };
    let direction = if rule.is_egress { Direction::Egress } else { Direction::Ingress };
    Some(GroupRule { id: rule.security_group_rule_id.parse().ok()?, direction, protocol, first, last, peer })
}

fn read<T>(what: &'static str, named: &str, read: Option<T>) -> Option<T> {
    followed::read("security", what, named, read)
}
