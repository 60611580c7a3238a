//! Reading the permissions of a request: one permission of EC2 becomes one rule per peer.

use std::fmt;

use gureum_model::{
    id::{PrefixListId, SecurityGroupId, VpcId},
    refusal::Violations,
};
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{Directory, MAX_TEXT_CHARS, group::name_key, is_text_char, rule::RuleError, traffic::Traffic};

/// The other side of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Peer {
    /// Addresses; always the network address, so that equal networks are equal.
    Ipv4(Ipv4Net),
    /// Addresses; always the network address.
    Ipv6(Ipv6Net),
    /// The CIDRs of a prefix list, as they are when a flow is judged.
    PrefixList(PrefixListId),
    /// The interfaces that are in a group of the same VPC.
    Group(SecurityGroupId),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(network) => network.fmt(f),
            Self::Ipv6(network) => network.fmt(f),
            Self::PrefixList(id) => id.fmt(f),
            Self::Group(id) => id.fmt(f),
        }
    }
}

/// The other side of a rule as a request names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerSpec {
    Known(Peer),
    /// A group of the same VPC, by name.
    GroupNamed(String),
}

/// One rule as a request wants it, before the group it names is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSpec {
    pub traffic: Traffic,
    pub peer: PeerSpec,
    /// No part of what makes two rules the same.
    pub description: String,
    /// Where its peer stands in the request: `ip_permissions[0].groups[1].group_id`.
    pub field: String,
}

impl RuleSpec {
    /// The peer that is meant; a name is looked up in `vpc`. Whether an id exists is not asked here.
    pub(crate) fn resolve(&self, vpc: VpcId, directory: &impl Directory) -> Result<Peer, RuleError> {
        match &self.peer {
            PeerSpec::Known(peer) => Ok(*peer),
            PeerSpec::GroupNamed(name) => match directory.group_named(vpc, &name_key(name)) {
                Some(group) => Ok(Peer::Group(group.id)),
                None => Err(RuleError::GroupNotFound { group: name.clone(), field: self.field.clone() }),
            },
        }
    }
}

/// Rules that share protocol and ports, as users write them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PermissionInput {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `-1`, or a number from 0 to 255.
    pub ip_protocol: String,
    /// First port or ICMP type; -1 means all types.
    pub from_port: Option<i32>,
    /// Last port or ICMP code; -1 means all codes.
    pub to_port: Option<i32>,
    /// IPv4 CIDRs.
    pub ip_ranges: Vec<PeerInput>,
    /// IPv6 CIDRs.
    pub ipv6_ranges: Vec<PeerInput>,
    /// Prefix list ids.
    pub prefix_lists: Vec<PeerInput>,
    pub groups: Vec<GroupPeerInput>,
}

/// A CIDR or a prefix list's id, with its rule's description.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerInput {
    pub peer: String,
    pub description: String,
}

/// A group by id or name. If both are given, as callers do that send back what they read, the id counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupPeerInput {
    pub group_id: String,
    pub group_name: String,
    pub description: String,
}

/// Reads permissions; every violation is recorded with its path under `field`.
///
/// Codes: `InvalidParameterValue`, `InvalidPermission.Malformed`, `MissingParameter` (no peer),
/// `InvalidGroupId.Malformed`, `InvalidPrefixListID.Malformed`.
pub fn parse_permissions(field: &str, permissions: &[PermissionInput], violations: &mut Violations) -> Vec<RuleSpec> {
    let mut specs = Vec::new();
    for (place, permission) in permissions.iter().enumerate() {
        parse_permission(&format!("{field}[{place}]"), permission, violations, &mut specs);
    }
    specs
}

fn parse_permission(field: &str, permission: &PermissionInput, violations: &mut Violations, specs: &mut Vec<RuleSpec>) {
    let traffic = Traffic::parse(&permission.ip_protocol, permission.from_port, permission.to_port, field, violations);
    let mut peers: Vec<(PeerSpec, &str, String)> = Vec::new();
    for (place, range) in permission.ip_ranges.iter().enumerate() {
        let path = format!("{field}.ip_ranges[{place}]");
        check_description(&path, &range.description, violations);
        let peer = parse_ipv4(&format!("{path}.cidr"), &range.peer, violations);
        peers.extend(peer.map(|peer| (PeerSpec::Known(peer), range.description.as_str(), format!("{path}.cidr"))));
    }
    for (place, range) in permission.ipv6_ranges.iter().enumerate() {
        let path = format!("{field}.ipv6_ranges[{place}]");
        check_description(&path, &range.description, violations);
        let peer = parse_ipv6(&format!("{path}.cidr"), &range.peer, violations);
        peers.extend(peer.map(|peer| (PeerSpec::Known(peer), range.description.as_str(), format!("{path}.cidr"))));
    }
    for (place, list) in permission.prefix_lists.iter().enumerate() {
        let path = format!("{field}.prefix_lists[{place}]");
        check_description(&path, &list.description, violations);
        let id = violations.id(format!("{path}.prefix_list_id"), &list.peer);
        let field = format!("{path}.prefix_list_id");
        peers.extend(id.map(|id| (PeerSpec::Known(Peer::PrefixList(id)), list.description.as_str(), field)));
    }
    for (place, group) in permission.groups.iter().enumerate() {
        let path = format!("{field}.groups[{place}]");
        check_description(&path, &group.description, violations);
        let field = format!("{path}.{}", if group.group_id.is_empty() { "group_name" } else { "group_id" });
        peers.extend(parse_group(&path, group, violations).map(|peer| (peer, group.description.as_str(), field)));
    }
    let named = permission.ip_ranges.len() + permission.ipv6_ranges.len() + permission.prefix_lists.len() + permission.groups.len();
    if named == 0 {
        violations.add_as("MissingParameter", field, "a permission needs a peer: one of ip_ranges, ipv6_ranges, prefix_lists, groups");
    }
    if let Some(traffic) = traffic {
        let spec =
            |(peer, description, field): (PeerSpec, &str, String)| RuleSpec { traffic, peer, description: description.to_owned(), field };
        specs.extend(peers.into_iter().map(spec));
    }
}

fn parse_group(path: &str, group: &GroupPeerInput, violations: &mut Violations) -> Option<PeerSpec> {
    if !group.group_id.is_empty() {
        return violations.id(format!("{path}.group_id"), &group.group_id).map(|id| PeerSpec::Known(Peer::Group(id)));
    }
    if group.group_name.is_empty() {
        violations.add_as("MissingParameter", format!("{path}.group_id"), "a peer group needs its id or its name");
        return None;
    }
    Some(PeerSpec::GroupNamed(group.group_name.clone()))
}

/// Reads an IPv4 CIDR; bits behind the mask are dropped, as EC2 canonicalizes them.
pub(crate) fn parse_ipv4(field: &str, text: &str, violations: &mut Violations) -> Option<Peer> {
    let network = text.parse::<Ipv4Net>().ok().map(|network| Peer::Ipv4(network.trunc()));
    if network.is_none() {
        violations.add(field, malformed_cidr(text, "IPv4", "10.0.0.0/16"));
    }
    network
}

/// Reads an IPv6 CIDR; bits behind the mask are dropped.
pub(crate) fn parse_ipv6(field: &str, text: &str, violations: &mut Violations) -> Option<Peer> {
    let network = text.parse::<Ipv6Net>().ok().map(|network| Peer::Ipv6(network.trunc()));
    if network.is_none() {
        violations.add(field, malformed_cidr(text, "IPv6", "2001:db8::/32"));
    }
    network
}

fn malformed_cidr(text: &str, family: &str, example: &str) -> String {
    format!("CIDR block {text} is malformed: expected an {family} network such as {example}")
}

/// Checks a rule's description: at most 255 characters of EC2's set.
pub(crate) fn check_description(path: &str, description: &str, violations: &mut Violations) {
    if description.chars().count() > MAX_TEXT_CHARS || !description.chars().all(is_text_char) {
        violations.add(
            format!("{path}.description"),
            "Invalid rule description. Valid descriptions are strings less than 256 characters from the following set: a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{network, sg, tcp, v4};
    use gureum_model::Refusal;
    use ipnet::IpNet;
    use proptest::prelude::*;

    fn parse(permission: PermissionInput) -> Result<Vec<RuleSpec>, Refusal> {
        let mut violations = Violations::new();
        let specs = parse_permissions("ip_permissions", &[permission], &mut violations);
        violations.finish().map(|()| specs)
    }

    fn range(peer: &str) -> PeerInput {
        PeerInput { peer: peer.into(), description: String::new() }
    }

    fn ssh() -> PermissionInput {
        PermissionInput { ip_protocol: "tcp".into(), from_port: Some(22), to_port: Some(22), ..PermissionInput::default() }
    }

    proptest! {
        #[test]
        fn every_network_is_read_as_its_own_address(network in network(), host in any::<u128>()) {
            // Any host's address with the network's mask means the network.
            let text = match network {
                IpNet::V4(net) => format!("{}/{}", std::net::Ipv4Addr::from_bits(net.addr().to_bits() | (host as u32 & net.hostmask().to_bits())), net.prefix_len()),
                IpNet::V6(net) => format!("{}/{}", std::net::Ipv6Addr::from_bits(net.addr().to_bits() | (host & net.hostmask().to_bits())), net.prefix_len()),
            };
            let permission = match network {
                IpNet::V4(_) => PermissionInput { ip_ranges: vec![range(&text)], ..ssh() },
                IpNet::V6(_) => PermissionInput { ipv6_ranges: vec![range(&text)], ..ssh() },
            };
            let expected = match network { IpNet::V4(net) => Peer::Ipv4(net), IpNet::V6(net) => Peer::Ipv6(net) };
            prop_assert_eq!(parse(permission).map(|specs| specs[0].peer.clone()), Ok(PeerSpec::Known(expected)));
        }

        #[test]
        fn no_text_breaks_the_reading(text in ".{0,40}") {
            let _ = parse(PermissionInput { ip_protocol: text.clone(), ip_ranges: vec![range(&text)], ipv6_ranges: vec![range(&text)], ..ssh() });
        }
    }

    #[test]
    fn one_permission_becomes_a_rule_per_peer() {
        let permission = PermissionInput {
            ip_ranges: vec![range("100.68.0.18/18"), range("0.0.0.0/0")],
            groups: vec![
                GroupPeerInput { group_id: sg(7).to_string(), group_name: "ignored".into(), description: "the web".into() },
                GroupPeerInput { group_name: "db".into(), ..GroupPeerInput::default() },
            ],
            ..ssh()
        };
        let specs = parse(permission).unwrap();
        assert!(specs.iter().all(|spec| spec.traffic == tcp(22, 22)));
        let peers: Vec<_> = specs.into_iter().map(|spec| spec.peer).collect();
        let known = |peer| PeerSpec::Known(peer);
        assert_eq!(
            peers,
            [known(v4("100.68.0.0/18")), known(v4("0.0.0.0/0")), known(Peer::Group(sg(7))), PeerSpec::GroupNamed("db".into())]
        );
    }

    #[test]
    fn every_violation_is_named_at_once() {
        let permission = PermissionInput {
            ip_protocol: "tcp".into(),
            from_port: Some(70_000),
            to_port: Some(-2),
            ip_ranges: vec![range("10.0.0.0/33"), range("10.0.0.1"), PeerInput { peer: "10.0.0.0/8".into(), description: "naïve".into() }],
            ipv6_ranges: vec![range("10.0.0.0/8")],
            prefix_lists: vec![range("pl-1")],
            groups: vec![GroupPeerInput::default(), GroupPeerInput { group_id: "sg-x".into(), ..GroupPeerInput::default() }],
        };
        let refusal = parse(permission).unwrap_err();
        assert_eq!(refusal.reason, "InvalidPermission.Malformed");
        let fields: Vec<_> = refusal.violations.iter().map(|violation| violation.field.trim_start_matches("ip_permissions[0].")).collect();
        let expected = [
            "from_port",
            "to_port",
            "ip_ranges[0].cidr",
            "ip_ranges[1].cidr",
            "ip_ranges[2].description",
            "ipv6_ranges[0].cidr",
            "prefix_lists[0].prefix_list_id",
            "groups[0].group_id",
            "groups[1].group_id",
        ];
        assert_eq!(fields, expected);
        assert!(refusal.violations[2].description.starts_with("CIDR block 10.0.0.0/33 is malformed"));
    }

    #[test]
    fn a_permission_without_a_peer_is_refused() {
        assert_eq!(parse(ssh()).map_err(|refusal| refusal.reason), Err("MissingParameter"));
    }
}
