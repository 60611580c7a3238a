//! A list means what its CIDRs mean, counts for its size, and changes all or nothing.

use std::collections::BTreeMap;

use gureum_firewall::Firewall;
use gureum_model::id::ResourceId;
use proptest::prelude::*;

use super::*;
use crate::{
    evaluate::{Flow, Side, evaluate},
    firewall,
    permission::Peer,
    rule::{Direction, MAX_RULES},
    testing::{World, address, bare_group, direction, list, network, packet, pl, rule, sg, tcp, traffic, v4},
    traffic::Traffic,
};

/// Rules, each with the networks that it shall mean.
fn rules() -> impl Strategy<Value = Vec<(Direction, Traffic, Vec<IpNet>)>> {
    prop::collection::vec((direction(), traffic(), prop::collection::vec(network(), 0..4)), 0..6)
}

/// The same rules by lists, and by their CIDRs one by one.
fn both_ways(rules: &[(Direction, Traffic, Vec<IpNet>)]) -> (World, World) {
    let (mut by_list, mut by_cidr) = (World::default(), World::default());
    let (mut listed, mut plain) = (bare_group(1), bare_group(1));
    for (place, (direction, traffic, networks)) in rules.iter().enumerate() {
        let id = pl(place as u128 + 1);
        by_list.prefix_lists.insert(id, list(id, networks.clone()));
        listed.rules.push(rule(place as u128, *direction, *traffic, Peer::PrefixList(id)));
        for network in networks {
            let peer = match network {
                IpNet::V4(network) => Peer::Ipv4(*network),
                IpNet::V6(network) => Peer::Ipv6(*network),
            };
            // The same id, so that the same rule is named.
            plain.rules.push(rule(place as u128, *direction, *traffic, peer));
        }
    }
    by_list.put(listed);
    by_cidr.put(plain);
    (by_list, by_cidr)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_rule_by_list_is_the_same_rules_by_its_cidrs(
        rules in rules(),
        (source, destination) in any::<bool>().prop_flat_map(|v6| (address(v6), address(v6))),
        packet in packet(),
    ) {
        let (by_list, by_cidr) = both_ways(&rules);
        let side = |address| Side { address, groups: vec![sg(1)] };
        let flow = Flow { source: side(source), destination: side(destination), packet };
        let (one, other) = (evaluate(&flow, &by_list).unwrap(), evaluate(&flow, &by_cidr).unwrap());
        prop_assert_eq!((one.egress, one.ingress), (other.egress, other.ingress));
        for direction in [Direction::Ingress, Direction::Egress] {
            let decide = |world: &World| {
                let compiled = Firewall::compile(firewall::rules(world.groups.values(), world));
                compiled.decide(direction, packet.into(), destination, &[])
            };
            prop_assert_eq!(decide(&by_list), decide(&by_cidr));
        }
    }

    /// Random changes against a map of CIDRs.
    #[test]
    fn changes_do_what_the_model_does(changes in prop::collection::vec((prop::collection::vec(0..6u8, 0..3), prop::collection::vec(0..6u8, 0..3)), 1..20)) {
        let mut it = PrefixList { max_entries: 4, ..list(pl(1), Vec::new()) };
        let mut model: BTreeMap<String, String> = BTreeMap::new();
        for (step, (add, remove)) in changes.into_iter().enumerate() {
            let cidr = |number: &u8| format!("10.{number}.0.0/16");
            let input = ModifyInput {
                current_version: Some(it.version as i64),
                add: add.iter().map(|number| EntryInput { cidr: cidr(number), description: step.to_string() }).collect(),
                remove: remove.iter().map(cidr).collect(),
                ..ModifyInput::default()
            };
            let mut next = model.clone();
            let mut fits = !(add.is_empty() && remove.is_empty()) && add.iter().all(|number| !remove.contains(number));
            for number in remove.iter().collect::<BTreeSet<_>>() {
                fits &= next.remove(&cidr(number)).is_some();
            }
            for number in &add {
                fits &= next.insert(cidr(number), step.to_string()).is_none();
            }
            fits &= next.len() <= 4;
            match change(&it, &input, &[]) {
                Ok(changed) => {
                    prop_assert!(fits, "{input:?} was accepted");
                    prop_assert_eq!(changed.version, it.version + 1);
                    (it, model) = (changed, next);
                }
                Err(refusal) => prop_assert!(!fits, "{input:?}: {refusal}"),
            }
            let shown: BTreeMap<_, _> = it.entries.iter().map(|entry| (entry.cidr.to_string(), entry.description.clone())).collect();
            prop_assert_eq!(&shown, &model);
            prop_assert!(it.entries.is_sorted_by_key(|entry| entry.cidr));
        }
    }
}

fn change(it: &PrefixList, input: &ModifyInput, naming: &[&SecurityGroup]) -> Result<PrefixList, Refusal> {
    let mut violations = Violations::new();
    let change = input.parse(&mut violations);
    violations.finish()?;
    let mut world = World::default();
    world.prefix_lists.insert(it.id, it.clone());
    modify(it, &change, naming, &world)
}

fn entry(cidr: &str) -> EntryInput {
    EntryInput { cidr: cidr.into(), description: String::new() }
}

fn new(name: &str, family: &str, size: i32, entries: &[EntryInput]) -> Result<NewList, Refusal> {
    let mut violations = Violations::new();
    let new = NewList::parse(name, family, size, entries, Tags::default(), &mut violations);
    violations.finish().map(|()| new.unwrap())
}

#[test]
fn a_new_list_is_checked_as_a_whole() {
    let fields = |refused: Result<NewList, Refusal>| {
        let refusal = refused.unwrap_err();
        (refusal.reason, refusal.violations.into_iter().map(|violation| violation.field).collect::<Vec<_>>())
    };
    let bad = [entry("10.0.0.0/8"), entry("10.1.2.3/8"), entry("nonsense")];
    let (reason, named) = fields(new("com.amazonaws.mine", "IPv5", 0, &bad));
    assert_eq!(reason, "InvalidParameterValue");
    assert_eq!(named, ["prefix_list_name", "address_family", "max_entries", "entries[1].cidr", "entries[2].cidr"]);
    assert_eq!(fields(new("office", "IPv6", 5, &bad[..1])), ("InvalidParameterValue", vec!["entries".to_owned()]));
    assert_eq!(fields(new("office", "IPv4", 1, &[entry("10.0.0.0/8"), entry("11.0.0.0/8")])).0, "PrefixListMaxEntriesExceeded");
    assert_eq!(fields(new("office", "IPv4", 1001, &[])).1, ["max_entries"]);
    let good = new("office", "IPv4", 2, &[entry("192.0.2.9/24"), entry("10.0.0.0/8")]).unwrap();
    let made = create(good.clone(), &Scope::default(), pl(1), 0).unwrap();
    assert_eq!(made.networks().map(|network| network.to_string()).collect::<Vec<_>>(), ["10.0.0.0/8", "192.0.2.0/24"]);
    assert_eq!((made.version, made.arn()), (1, format!("arn:aws:ec2:us-east-1:000000000000:prefix-list/{}", pl(1))));
    let full = create(good, &Scope::default(), pl(2), MAX_LISTS).map_err(|error| Refusal::from(error).reason);
    assert_eq!(full, Err("PrefixListLimitExceeded"));
}

#[test]
fn a_change_has_ec2s_refusals() {
    let it = list(pl(1), vec!["10.0.0.0/8".parse().unwrap()]);
    let reason = |input: ModifyInput| change(&it, &input, &[]).map(|_| ()).map_err(|refusal| refusal.reason);
    let add = |cidr: &str| ModifyInput { add: vec![entry(cidr)], ..ModifyInput::default() };
    assert_eq!(reason(ModifyInput { current_version: Some(7), ..add("11.0.0.0/8") }), Err("PrefixListVersionMismatch"));
    assert_eq!(reason(add("10.0.0.0/8")), Err("InvalidRequest"));
    assert_eq!(reason(ModifyInput { remove: vec!["11.0.0.0/8".into()], ..ModifyInput::default() }), Err("InvalidRequest"));
    assert_eq!(reason(ModifyInput { remove: vec!["10.0.0.0/8".into()], ..add("10.0.0.0/8") }), Err("InvalidParameterValue"));
    assert_eq!(reason(ModifyInput { max_entries: Some(5), ..add("11.0.0.0/8") }), Err("InvalidParameterCombination"));
    assert_eq!(reason(ModifyInput::default()), Err("MissingParameter"));
    assert_eq!(reason(add("fd00::/8")), Err("InvalidParameterValue"));
    let renamed = change(&it, &ModifyInput { name: Some("new".into()), ..ModifyInput::default() }, &[]).unwrap();
    assert_eq!((renamed.name.as_str(), renamed.version), ("new", 1), "a name makes no version");
}

#[test]
fn a_list_counts_for_its_size_wherever_it_is_named() {
    let it = PrefixList { max_entries: 10, ..list(pl(1), Vec::new()) };
    let mut group = bare_group(1);
    for number in 0..MAX_RULES as u16 - 20 {
        group.rules.push(rule(u128::from(number), Direction::Ingress, tcp(number, number), v4("10.0.0.0/8")));
    }
    group.rules.push(rule(900, Direction::Ingress, Traffic::All, Peer::PrefixList(pl(1))));
    let resize = |size| change(&it, &ModifyInput { max_entries: Some(size), ..ModifyInput::default() }, &[&group]);
    assert_eq!(resize(20).map(|next| next.max_entries), Ok(20));
    let refusal = resize(21).unwrap_err();
    assert_eq!(refusal.reason, "RulesPerSecurityGroupLimitExceeded");
    assert!(refusal.message.contains(&sg(1).to_string()), "{refusal}");
    let refusal = Refusal::from(delete(&it, &[&group]).unwrap_err());
    assert_eq!(refusal.reason, "DependencyViolation");
    assert!(refusal.message.contains(&sg(1).to_string()), "{refusal}");
    assert_eq!(delete(&it, &[]), Ok(()));
}

#[test]
fn a_list_survives_being_stored() {
    let it = PrefixList { modified: true, ..list(PrefixListId::from_number(7), vec!["fd00::/64".parse().unwrap()]) };
    let stored: PrefixList = rmp_serde::from_slice(&rmp_serde::to_vec_named(&it).unwrap()).unwrap();
    assert_eq!(stored, it);
}
