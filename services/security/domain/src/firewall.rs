//! Groups as the rules that a data plane is given: prefix lists resolved, ports and ICMP messages as numbers.
//!
//! It stands here for the property that whoever compiles these rules ([`gureum_firewall::Firewall`]) decides as
//! [`crate::evaluate`] says.

use gureum_firewall::{Peer as RulePeer, Rule};
use ipnet::IpNet;

use crate::{Directory, PrefixList, SecurityGroup, SecurityGroupRule, permission::Peer};

/// The rules of these groups, in their order. A prefix list that is not known has no networks.
pub fn rules<'a>(groups: impl IntoIterator<Item = &'a SecurityGroup>, directory: &impl Directory) -> Vec<Rule> {
    groups.into_iter().flat_map(|group| &group.rules).flat_map(|rule| translate(rule, directory)).collect()
}

fn translate(rule: &SecurityGroupRule, directory: &impl Directory) -> Vec<Rule> {
    let (protocol, first, last) = rule.traffic.interval();
    let with = |peer| Rule { id: rule.id, direction: rule.direction, protocol, first, last, peer };
    match rule.peer {
        Peer::Ipv4(network) => vec![with(RulePeer::Network(IpNet::V4(network)))],
        Peer::Ipv6(network) => vec![with(RulePeer::Network(IpNet::V6(network)))],
        Peer::Group(group) => vec![with(RulePeer::Group(group))],
        Peer::PrefixList(id) => {
            let networks = directory.prefix_list(id).into_iter().flat_map(PrefixList::networks);
            networks.map(|network| with(RulePeer::Network(network))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use gureum_firewall::Firewall;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        evaluate::{Decision, Flow, Side, evaluate},
        rule::Direction,
        testing::{World, address, bare_group, direction, list, network, packet, peer, pl, rule, sg, traffic},
    };

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
                let compiled = Firewall::compile(rules(own.groups.iter().filter_map(|id| world.group(*id)), &world));
                compiled.decide(direction, packet.into(), peer.address, &peer.groups)
            };
            let out = ask(&flow.source, Direction::Egress, &flow.destination);
            let into = ask(&flow.destination, Direction::Ingress, &flow.source);
            prop_assert_eq!(out, verdict.egress.rule());
            prop_assert_eq!(into, verdict.ingress.rule());
            // Without groups there is no rule, and the plain form says why that is no refusal.
            prop_assert_eq!(verdict.egress == Decision::Outside, flow.source.groups.is_empty());
        }
    }
}
