//! The rules of an interface's groups, compiled: what a data plane asks for every new connection.
//!
//! Compiling sorts the rules by protocol; asking then compares numbers only: no parsing, no look-up of groups, no
//! allocation. It must be compiled anew when the rules of one of the groups change.

use std::{collections::BTreeSet, net::IpAddr};

use gureum_model::id::{SecurityGroupId, SecurityGroupRuleId};
use ipnet::IpNet;

use crate::{Direction, Packet, Peer, Rule};

/// The rules of all groups of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Firewall {
    ingress: Rules,
    egress: Rules,
}

impl Firewall {
    /// Compiles these rules. Their order decides which one is named, never whether one is found. Without any, nothing passes.
    pub fn compile(rules: impl IntoIterator<Item = Rule>) -> Self {
        let (ingress, egress): (Vec<Rule>, Vec<Rule>) = rules.into_iter().partition(|rule| rule.direction == Direction::Ingress);
        Self { ingress: Rules::compile(&ingress), egress: Rules::compile(&egress) }
    }

    /// The first rule that lets a packet pass from or to a peer that is in `peer_groups`; `None` refuses it.
    ///
    /// An IPv4 address that is written as an IPv6 one counts as the IPv4 address.
    pub fn decide(
        &self,
        direction: Direction,
        packet: Packet,
        peer: IpAddr,
        peer_groups: &[SecurityGroupId],
    ) -> Option<SecurityGroupRuleId> {
        self.of(direction).decide(packet, peer.to_canonical(), peer_groups)
    }

    /// Whether there is a peer for whom a packet would pass: `port` is the packet's [point](Packet::point). One who
    /// forwards opens a listener only then.
    pub fn could_allow(&self, direction: Direction, protocol: u8, port: u16) -> bool {
        self.of(direction).could_allow(Packet { protocol, point: port })
    }

    /// The groups that the rules name: those whose members a data plane must know.
    pub fn named_groups(&self) -> BTreeSet<SecurityGroupId> {
        [&self.ingress, &self.egress]
            .into_iter()
            .flat_map(|rules| &rules.buckets)
            .flat_map(|(_, bucket)| &bucket.groups)
            .map(|entry| entry.peer)
            .collect()
    }

    fn of(&self, direction: Direction) -> &Rules {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// The rules of one direction, by protocol.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Rules {
    /// By rank: the place of a rule among all, which decides who is first.
    ids: Vec<SecurityGroupRuleId>,
    /// One per protocol number that some rule names, and one (`None`) for all other protocols. Rules for
    /// every protocol stand in each. A handful, so a linear search is the fastest.
    buckets: Vec<(Option<u8>, Bucket)>,
}

/// The rules for one protocol, by kind of peer, each list in ascending order of rank.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Bucket {
    v4: Vec<Entry<(u32, u32)>>,
    v6: Vec<Entry<(u128, u128)>>,
    groups: Vec<Entry<SecurityGroupId>>,
}

/// One rule, or one entry of its prefix list. A network is its address and its mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry<P> {
    first: u16,
    last: u16,
    peer: P,
    rank: u32,
}

impl Rules {
    fn compile(rules: &[Rule]) -> Self {
        let named: BTreeSet<u8> = rules.iter().filter_map(|rule| rule.protocol).collect();
        let protocols = named.into_iter().map(Some).chain([None]);
        let mut buckets: Vec<_> = protocols.map(|protocol| (protocol, Bucket::default())).collect();
        let mut ids = Vec::with_capacity(rules.len());
        for rule in rules {
            // What an interface may have of rules is far from the end of u32; beyond it ranks would only tie.
            let rank = u32::try_from(ids.len()).unwrap_or(u32::MAX);
            ids.push(rule.id);
            for (_, bucket) in buckets.iter_mut().filter(|(number, _)| rule.protocol.is_none() || rule.protocol == *number) {
                bucket.add(rule, rank);
            }
        }
        Self { ids, buckets }
    }

    fn bucket(&self, protocol: u8) -> Option<&Bucket> {
        let own = self.buckets.iter().find(|(number, _)| *number == Some(protocol));
        own.or_else(|| self.buckets.last()).map(|(_, bucket)| bucket)
    }

    fn decide(&self, packet: Packet, peer: IpAddr, peer_groups: &[SecurityGroupId]) -> Option<SecurityGroupRuleId> {
        let (bucket, point) = (self.bucket(packet.protocol)?, packet.point);
        let by_address = match peer {
            IpAddr::V4(address) => {
                let bits = address.to_bits();
                first(&bucket.v4, point, |(network, mask)| bits & mask == network)
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                first(&bucket.v6, point, |(network, mask)| bits & mask == network)
            }
        };
        let by_group = first(&bucket.groups, point, |group| peer_groups.contains(&group));
        let rank = match (by_address, by_group) {
            (Some(one), Some(other)) => one.min(other),
            (one, other) => one.or(other)?,
        };
        self.ids.get(usize::try_from(rank).ok()?).copied()
    }

    fn could_allow(&self, packet: Packet) -> bool {
        let point = packet.point;
        self.bucket(packet.protocol).is_some_and(|bucket| {
            let ranks = [first(&bucket.v4, point, |_| true), first(&bucket.v6, point, |_| true), first(&bucket.groups, point, |_| true)];
            ranks.iter().any(Option::is_some)
        })
    }
}

/// The rank of the first entry that covers this point and peer.
fn first<P: Copy>(entries: &[Entry<P>], point: u16, is_peer: impl Fn(P) -> bool) -> Option<u32> {
    entries.iter().find(|entry| (entry.first..=entry.last).contains(&point) && is_peer(entry.peer)).map(|entry| entry.rank)
}

impl Bucket {
    fn add(&mut self, rule: &Rule, rank: u32) {
        let Rule { first, last, .. } = *rule;
        match rule.peer {
            Peer::Network(IpNet::V4(network)) => {
                self.v4.push(Entry { first, last, peer: (network.network().to_bits(), network.netmask().to_bits()), rank })
            }
            Peer::Network(IpNet::V6(network)) => {
                self.v6.push(Entry { first, last, peer: (network.network().to_bits(), network.netmask().to_bits()), rank })
            }
            Peer::Group(peer) => self.groups.push(Entry { first, last, peer, rank }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use gureum_model::id::ResourceId;
    use proptest::prelude::*;

    use super::*;
    use crate::protocol;

    /// Numbers from a few, so that rules and packets meet often.
    fn point() -> impl Strategy<Value = u16> {
        prop_oneof![0..5u16, Just(u16::MAX)]
    }

    fn number() -> impl Strategy<Value = u8> {
        prop_oneof![Just(protocol::TCP), Just(protocol::UDP), Just(protocol::ICMP), Just(50)]
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0..2u8, 0..3u8).prop_map(|(net, host)| IpAddr::V4(Ipv4Addr::new(10, 0, net, host))),
            (0..2u8, 0..3u8).prop_map(|(net, host)| IpAddr::V6(Ipv4Addr::new(10, 0, net, host).to_ipv6_mapped())),
            (0..2u16, 0..3u16).prop_map(|(net, host)| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, net, 0, 0, 0, host))),
        ]
    }

    /// With bits behind the mask, as a rule may come.
    fn network() -> impl Strategy<Value = IpNet> {
        (address(), prop_oneof![Just(0u8), 22..=32u8], any::<bool>()).prop_map(|(address, length, narrow)| match address.to_canonical() {
            IpAddr::V4(address) => IpNet::new(IpAddr::V4(address), length).unwrap(),
            IpAddr::V6(address) => IpNet::new(IpAddr::V6(address), if narrow { 96 + length } else { 2 * length }).unwrap(),
        })
    }

    fn group() -> impl Strategy<Value = SecurityGroupId> {
        (1..4u128).prop_map(SecurityGroupId::from_number)
    }

    fn direction() -> impl Strategy<Value = Direction> {
        prop_oneof![Just(Direction::Ingress), Just(Direction::Egress)]
    }

    /// Rules of which several have the same id, as those of a prefix list do.
    fn rules() -> impl Strategy<Value = Vec<Rule>> {
        let peer = prop_oneof![2 => network().prop_map(Peer::Network), 1 => group().prop_map(Peer::Group)];
        let rule = (direction(), prop::option::weighted(0.8, number()), point(), point(), peer, 0..6u128);
        let rule = rule.prop_map(|(direction, protocol, one, other, peer, id)| Rule {
            id: SecurityGroupRuleId::from_number(id),
            direction,
            protocol,
            first: one.min(other),
            last: one.max(other),
            peer,
        });
        prop::collection::vec(rule, 0..10)
    }

    /// What a rule says, read as it is written.
    fn lets_pass(rule: &Rule, direction: Direction, packet: Packet, peer: IpAddr, groups: &[SecurityGroupId]) -> bool {
        covers(rule, direction, packet)
            && match rule.peer {
                Peer::Network(network) => network.contains(&peer.to_canonical()),
                Peer::Group(group) => groups.contains(&group),
            }
    }

    fn covers(rule: &Rule, direction: Direction, packet: Packet) -> bool {
        let of_protocol = rule.protocol.is_none_or(|protocol| protocol == packet.protocol);
        rule.direction == direction && of_protocol && (rule.first..=rule.last).contains(&packet.point)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_first_rule_that_lets_it_pass_is_named(
            rules in rules(), direction in direction(), (protocol, point) in (number(), point()), peer in address(),
            groups in prop::collection::vec(group(), 0..3),
        ) {
            let packet = Packet { protocol, point };
            let plain = rules.iter().find(|rule| lets_pass(rule, direction, packet, peer, &groups)).map(|rule| rule.id);
            prop_assert_eq!(Firewall::compile(rules).decide(direction, packet, peer, &groups), plain);
        }

        #[test]
        fn a_port_is_open_if_a_rule_covers_it_and_only_then_anything_passes(
            rules in rules(), direction in direction(), (protocol, point) in (number(), point()), peer in address(),
            groups in prop::collection::vec(group(), 0..3),
        ) {
            let packet = Packet { protocol, point };
            let covered = rules.iter().any(|rule| covers(rule, direction, packet));
            let firewall = Firewall::compile(rules);
            prop_assert_eq!(firewall.could_allow(direction, protocol, point), covered);
            prop_assert!(covered || firewall.decide(direction, packet, peer, &groups).is_none());
        }
    }

    #[test]
    fn without_rules_nothing_passes() {
        let firewall = Firewall::compile([]);
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(firewall.decide(Direction::Ingress, Packet::tcp(22), peer, &[SecurityGroupId::from_number(1)]), None);
        assert!(!firewall.could_allow(Direction::Ingress, protocol::TCP, 22));
    }

    #[test]
    fn the_named_groups_are_those_whose_members_matter() {
        let (one, two) = (SecurityGroupId::from_number(1), SecurityGroupId::from_number(2));
        let rule =
            |direction, protocol, peer| Rule { id: SecurityGroupRuleId::from_number(1), direction, protocol, first: 1, last: 2, peer };
        let firewall = Firewall::compile([
            rule(Direction::Ingress, Some(protocol::TCP), Peer::Group(one)),
            rule(Direction::Ingress, Some(protocol::TCP), Peer::Network("10.0.0.0/8".parse().unwrap())),
            rule(Direction::Egress, None, Peer::Group(two)),
        ]);
        assert_eq!(firewall.named_groups(), BTreeSet::from([one, two]));
    }
}
