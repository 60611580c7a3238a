//! The rules of an interface's groups, compiled: what a data plane asks for every new connection.
//!
//! Compiling resolves prefix lists and sorts the rules by protocol; asking then compares numbers
//! only: no parsing, no look-up of groups or lists, no allocation. It must be compiled anew when one of the
//! groups, or a prefix list that they name, changes.

use std::{collections::BTreeSet, net::IpAddr};

use gureum_model::id::{SecurityGroupId, SecurityGroupRuleId};
use ipnet::IpNet;

use crate::{Directory, PrefixList, SecurityGroup, permission::Peer, rule::Direction, traffic::Packet};

/// The rules of all groups of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CompiledGroups {
    ingress: Rules,
    egress: Rules,
}

impl CompiledGroups {
    /// Compiles these groups. Their order decides which rule is named, never whether one is found.
    pub fn compile<'a>(groups: impl IntoIterator<Item = &'a SecurityGroup>, directory: &impl Directory) -> Self {
        let groups: Vec<_> = groups.into_iter().collect();
        Self {
            ingress: Rules::compile(&groups, Direction::Ingress, directory),
            egress: Rules::compile(&groups, Direction::Egress, directory),
        }
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
        let rules = match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        };
        rules.decide(packet, peer.to_canonical(), peer_groups)
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
    fn compile(groups: &[&SecurityGroup], direction: Direction, directory: &impl Directory) -> Self {
        let rules: Vec<_> = groups.iter().flat_map(|group| group.rules_of(direction)).collect();
        let named: BTreeSet<u8> = rules.iter().filter_map(|rule| rule.traffic.interval().0).collect();
        let protocols = named.into_iter().map(Some).chain([None]);
        let mut buckets: Vec<_> = protocols.map(|protocol| (protocol, Bucket::default())).collect();
        let mut ids = Vec::with_capacity(rules.len());
        for rule in rules {
            // 16 groups of 120 rules are far from the end of u32; beyond it ranks would only tie.
            let rank = u32::try_from(ids.len()).unwrap_or(u32::MAX);
            ids.push(rule.id);
            let (protocol, first, last) = rule.traffic.interval();
            for (_, bucket) in buckets.iter_mut().filter(|(number, _)| protocol.is_none() || protocol == *number) {
                bucket.add(rule.peer, first, last, rank, directory);
            }
        }
        Self { ids, buckets }
    }

    fn decide(&self, packet: Packet, peer: IpAddr, peer_groups: &[SecurityGroupId]) -> Option<SecurityGroupRuleId> {
        let (protocol, point) = packet.point();
        let own = self.buckets.iter().find(|(number, _)| *number == Some(protocol));
        let (_, bucket) = own.or_else(|| self.buckets.last())?;
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
}

/// The rank of the first entry that covers this point and peer.
fn first<P: Copy>(entries: &[Entry<P>], point: u16, is_peer: impl Fn(P) -> bool) -> Option<u32> {
    entries.iter().find(|entry| (entry.first..=entry.last).contains(&point) && is_peer(entry.peer)).map(|entry| entry.rank)
}

impl Bucket {
    fn add(&mut self, peer: Peer, first: u16, last: u16, rank: u32, directory: &impl Directory) {
        match peer {
            Peer::Ipv4(network) => self.add_network(IpNet::V4(network), first, last, rank),
            Peer::Ipv6(network) => self.add_network(IpNet::V6(network), first, last, rank),
            Peer::PrefixList(id) => {
                for network in directory.prefix_list(id).into_iter().flat_map(PrefixList::networks) {
                    self.add_network(network, first, last, rank);
                }
            }
            Peer::Group(peer) => self.groups.push(Entry { first, last, peer, rank }),
        }
    }

    fn add_network(&mut self, network: IpNet, first: u16, last: u16, rank: u32) {
        match network {
            IpNet::V4(network) => {
                self.v4.push(Entry { first, last, peer: (network.network().to_bits(), network.netmask().to_bits()), rank })
            }
            IpNet::V6(network) => {
                self.v6.push(Entry { first, last, peer: (network.network().to_bits(), network.netmask().to_bits()), rank })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evaluate::{Decision, Flow, Side, evaluate},
        testing::{World, address, bare_group, direction, list, network, packet, peer, pl, rule, sg, tcp, traffic, v4},
        traffic::Traffic,
    };
    use proptest::prelude::*;

    fn world() -> impl Strategy<Value = World> {
        let rules = || prop::collection::vec((direction(), traffic(), peer(3)), 0..8);
        let lists = prop::collection::vec(prop::collection::vec(network(), 0..3), 2);
        (prop::collection::vec(rules(), 3), lists).prop_map(|(groups, lists)| {
            let mut world = World::default();
            for (place, rules) in groups.into_iter().enumerate() {
                let mut group = bare_group(place as u128 + 1);
                let id = |number: usize| (place * 100 + number) as u128;
                group.rules = rules
                    .into_iter()
                    .enumerate()
                    .map(|(number, (direction, traffic, peer))| rule(id(number), direction, traffic, peer))
                    .collect();
                group.rules.sort_by_key(|rule| rule.direction);
                world.put(group);
            }
            for (place, networks) in lists.into_iter().enumerate() {
                let id = pl(place as u128 + 1);
                world.prefix_lists.insert(id, list(id, networks));
            }
            world
        })
    }

    fn sides() -> impl Strategy<Value = (Side, Side)> {
        let side = |v6| {
            (address(v6), prop::sample::subsequence(vec![sg(1), sg(2), sg(3)], 0..=3))
                .prop_map(|(address, groups)| Side { address, groups })
        };
        any::<bool>().prop_flat_map(move |v6| (side(v6), side(v6)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn compiled_rules_say_what_plain_rules_say(world in world(), (source, destination) in sides(), packet in packet()) {
            let flow = Flow { source, destination, packet };
            let verdict = evaluate(&flow, &world).unwrap();
            let ask = |own: &Side, direction, peer: &Side| {
                let compiled = CompiledGroups::compile(own.groups.iter().filter_map(|id| world.group(*id)), &world);
                compiled.decide(direction, packet, peer.address, &peer.groups)
            };
            let out = ask(&flow.source, Direction::Egress, &flow.destination);
            let into = ask(&flow.destination, Direction::Ingress, &flow.source);
            prop_assert_eq!(out, verdict.egress.rule());
            prop_assert_eq!(into, verdict.ingress.rule());
            // Without groups there is no rule, and the plain form says why that is no refusal.
            prop_assert_eq!(verdict.egress == Decision::Outside, flow.source.groups.is_empty());
        }
    }

    #[test]
    fn the_named_groups_are_those_whose_members_matter() {
        let mut group = bare_group(1);
        group.rules.push(rule(1, Direction::Ingress, tcp(1, 2), Peer::Group(sg(2))));
        group.rules.push(rule(2, Direction::Ingress, tcp(1, 2), v4("10.0.0.0/8")));
        group.rules.push(rule(3, Direction::Egress, Traffic::All, Peer::Group(sg(3))));
        assert_eq!(CompiledGroups::compile([&group], &World::default()).named_groups(), BTreeSet::from([sg(2), sg(3)]));
    }
}
