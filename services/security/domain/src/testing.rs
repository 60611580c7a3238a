//! What the tests of several modules need: a scope in memory, and strategies for random inputs.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use gureum_model::{
    IdSource, Scope, Tags,
    id::{PrefixListId, ResourceId, SecurityGroupId, SecurityGroupRuleId, VpcId},
};
use ipnet::IpNet;
use proptest::prelude::*;

use crate::{
    Directory, PrefixList, SecurityGroup, SecurityGroupRule,
    group::name_key,
    permission::{Peer, PeerSpec, RuleSpec},
    prefix_list::{AddressFamily, PrefixListEntry},
    rule::Direction,
    traffic::{IcmpMatch, Packet, PortRange, Traffic},
};

/// A scope in memory.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub groups: BTreeMap<SecurityGroupId, SecurityGroup>,
    pub prefix_lists: BTreeMap<PrefixListId, PrefixList>,
}

impl Directory for World {
    fn group(&self, id: SecurityGroupId) -> Option<&SecurityGroup> {
        self.groups.get(&id)
    }

    fn group_named(&self, vpc: VpcId, key: &str) -> Option<&SecurityGroup> {
        self.groups.values().find(|group| group.vpc_id == vpc && name_key(&group.name) == key)
    }

    fn prefix_list(&self, id: PrefixListId) -> Option<&PrefixList> {
        self.prefix_lists.get(&id)
    }
}

impl World {
    pub fn put(&mut self, group: SecurityGroup) {
        self.groups.insert(group.id, group);
    }
}

pub fn vpc(number: u128) -> VpcId {
    VpcId::from_number(number)
}

pub fn sg(number: u128) -> SecurityGroupId {
    SecurityGroupId::from_number(number)
}

pub fn sgr(number: u128) -> SecurityGroupRuleId {
    SecurityGroupRuleId::from_number(number)
}

pub fn pl(number: u128) -> PrefixListId {
    PrefixListId::from_number(number)
}

/// A list with these networks and no room for more, counted as IPv4.
pub fn list(id: PrefixListId, mut networks: Vec<IpNet>) -> PrefixList {
    networks.sort();
    networks.dedup();
    PrefixList {
        scope: Scope::default(),
        id,
        name: "list".into(),
        family: AddressFamily::Ipv4,
        max_entries: networks.len().max(1) as u32,
        version: 1,
        entries: networks.into_iter().map(|cidr| PrefixListEntry { cidr, description: String::new() }).collect(),
        modified: false,
        tags: Tags::default(),
    }
}

pub fn ids() -> IdSource {
    IdSource::seeded(1)
}

/// A group without rules, named `g<number>`, in VPC 1.
pub fn bare_group(number: u128) -> SecurityGroup {
    SecurityGroup {
        scope: Scope::default(),
        id: sg(number),
        name: format!("g{number}"),
        description: "a group".into(),
        vpc_id: vpc(1),
        rules: Vec::new(),
        tags: Tags::default(),
    }
}

pub fn rule(number: u128, direction: Direction, traffic: Traffic, peer: Peer) -> SecurityGroupRule {
    SecurityGroupRule { id: sgr(number), direction, traffic, peer, description: String::new(), tags: Tags::default() }
}

pub fn spec(traffic: Traffic, peer: Peer) -> RuleSpec {
    RuleSpec { traffic, peer: PeerSpec::Known(peer), description: String::new(), field: String::new() }
}

pub fn v4(text: &str) -> Peer {
    Peer::Ipv4(text.parse().unwrap())
}

pub fn tcp(from: u16, to: u16) -> Traffic {
    Traffic::Tcp(PortRange { from, to })
}

/// Ports from a few, so that ranges and packets meet often.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![0..6u16, Just(u16::MAX)]
}

fn ports() -> impl Strategy<Value = PortRange> {
    (port(), port()).prop_map(|(a, b)| PortRange { from: a.min(b), to: a.max(b) })
}

fn icmp() -> impl Strategy<Value = IcmpMatch> {
    prop_oneof![
        Just(IcmpMatch::All),
        (0..3u8).prop_map(IcmpMatch::Type),
        (0..3u8, prop_oneof![0..3u8, Just(u8::MAX)]).prop_map(|(kind, code)| IcmpMatch::TypeAndCode(kind, code)),
    ]
}

pub fn traffic() -> impl Strategy<Value = Traffic> {
    prop_oneof![
        Just(Traffic::All),
        ports().prop_map(Traffic::Tcp),
        ports().prop_map(Traffic::Udp),
        icmp().prop_map(Traffic::Icmp),
        icmp().prop_map(Traffic::Icmpv6),
        prop_oneof![Just(0u8), Just(50), Just(255)].prop_map(Traffic::Other),
    ]
}

pub fn packet() -> impl Strategy<Value = Packet> {
    let code = || prop_oneof![0..3u8, Just(u8::MAX)];
    prop_oneof![
        port().prop_map(Packet::Tcp),
        port().prop_map(Packet::Udp),
        (0..3u8, code()).prop_map(|(kind, code)| Packet::Icmp(kind, code)),
        (0..3u8, code()).prop_map(|(kind, code)| Packet::Icmpv6(kind, code)),
        prop_oneof![Just(0u8), Just(50), Just(255)].prop_map(Packet::Other),
    ]
}

/// Addresses from a few small networks of one family.
pub fn address(v6: bool) -> BoxedStrategy<IpAddr> {
    if v6 {
        (0..2u16, 0..4u16).prop_map(|(net, host)| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, net, 0, 0, 0, host))).boxed()
    } else {
        (0..2u8, 0..4u8).prop_map(|(net, host)| IpAddr::V4(Ipv4Addr::new(10, 0, net, host))).boxed()
    }
}

pub fn network() -> impl Strategy<Value = IpNet> {
    let v4 = (address(false), prop_oneof![Just(0u8), 22..=32u8]);
    let v6 = (address(true), prop_oneof![Just(0u8), 62..=64u8, 124..=128u8]);
    prop_oneof![v4, v6].prop_map(|(address, length)| IpNet::new(address, length).unwrap().trunc())
}

/// Peers: networks, prefix lists 1 to 3 (3 is unknown), groups 1 to `groups`.
pub fn peer(groups: u128) -> impl Strategy<Value = Peer> {
    let network = network().prop_map(|network| match network {
        IpNet::V4(network) => Peer::Ipv4(network),
        IpNet::V6(network) => Peer::Ipv6(network),
    });
    prop_oneof![
        3 => network,
        1 => (1..4u128).prop_map(|number| Peer::PrefixList(pl(number))),
        2 => (1..=groups).prop_map(|number| Peer::Group(sg(number))),
    ]
}

pub fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Ingress), Just(Direction::Egress)]
}
