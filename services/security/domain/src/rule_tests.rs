//! Random commands against a simple model, and EC2's exact codes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::testing::{World, bare_group, direction, ids, list, peer, pl, sg, sgr, spec, tcp, traffic, v4, vpc};

/// The model: what a rule is, by its id.
type Model = BTreeMap<SecurityGroupRuleId, (Direction, Traffic, Peer)>;

#[derive(Debug, Clone)]
enum Command {
    Authorize(Direction, Vec<(Traffic, Peer)>),
    RevokeValues(Direction, Vec<(Traffic, Peer)>),
    /// Places among the rules that are there; one beyond them is an id that is not.
    RevokeIds(Direction, Vec<usize>),
    Modify(usize, Traffic, Peer),
}

fn values() -> impl Strategy<Value = Vec<(Traffic, Peer)>> {
    prop::collection::vec((traffic(), peer(3)), 1..5)
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        3 => (direction(), values()).prop_map(|(direction, values)| Command::Authorize(direction, values)),
        1 => (direction(), prop::collection::vec((traffic(), peer(3)), 1..2)).prop_map(|(direction, values)| Command::RevokeValues(direction, values)),
        1 => (direction(), prop::collection::vec(0..8usize, 1..3)).prop_map(|(direction, places)| Command::RevokeIds(direction, places)),
        1 => (0..8usize, traffic(), peer(3)).prop_map(|(place, traffic, peer)| Command::Modify(place, traffic, peer)),
    ]
}

fn world() -> World {
    let mut world = World::default();
    world.put(bare_group(1));
    world.put(bare_group(2));
    let mut elsewhere = bare_group(3);
    elsewhere.vpc_id = vpc(2);
    world.put(elsewhere);
    world.prefix_lists.insert(pl(1), list(pl(1), vec!["10.0.0.0/24".parse().unwrap(), "10.0.1.0/24".parse().unwrap()]));
    world.prefix_lists.insert(pl(2), list(pl(2), Vec::new()));
    world
}

fn exists(peer: &Peer) -> bool {
    match peer {
        Peer::Ipv4(_) | Peer::Ipv6(_) => true,
        Peer::PrefixList(id) => *id != pl(3),
        Peer::Group(id) => *id != sg(3),
    }
}

fn specs(values: &[(Traffic, Peer)]) -> Vec<RuleSpec> {
    values.iter().map(|(traffic, peer)| spec(*traffic, *peer)).collect()
}

/// The same command on the model; `None` where it must be refused. New rules are left to the caller.
fn expected(model: &Model, order: &[SecurityGroupRuleId], command: &Command) -> Option<Model> {
    let mut next = model.clone();
    match command {
        Command::Authorize(direction, values) => {
            let wanted: BTreeSet<_> = values.iter().map(|(traffic, peer)| (*direction, *traffic, *peer)).collect();
            let fresh = wanted.len() == values.len() && wanted.iter().all(|key| !model.values().any(|present| present == key));
            (fresh && values.iter().all(|(_, peer)| exists(peer))).then_some(next)
        }
        Command::RevokeValues(direction, values) => {
            for (traffic, peer) in values {
                let key = (*direction, *traffic, *peer);
                model.values().find(|present| **present == key)?;
                next.retain(|_, present| *present != key);
            }
            Some(next)
        }
        Command::RevokeIds(direction, places) => {
            for place in places {
                let id = order.get(*place)?;
                (model[id].0 == *direction).then_some(())?;
                next.remove(id);
            }
            Some(next)
        }
        Command::Modify(place, traffic, peer) => {
            let id = order.get(*place)?;
            let key = (model[id].0, *traffic, *peer);
            next.insert(*id, key);
            (exists(peer) && next.values().filter(|present| **present == key).count() == 1).then_some(next)
        }
    }
}

fn run(
    group: &SecurityGroup,
    order: &[SecurityGroupRuleId],
    command: &Command,
    ids: &IdSource,
    world: &World,
) -> Result<RuleChange, RuleError> {
    let id = |place: &usize| order.get(*place).copied().unwrap_or(sgr(u128::MAX));
    match command {
        Command::Authorize(direction, values) => authorize(group, *direction, &specs(values), &Tags::default(), ids, world),
        Command::RevokeValues(direction, values) => revoke(group, *direction, &Revocation { ids: Vec::new(), specs: specs(values) }, world),
        Command::RevokeIds(direction, places) => {
            revoke(group, *direction, &Revocation { ids: places.iter().map(id).collect(), specs: Vec::new() }, world)
        }
        Command::Modify(place, traffic, peer) => modify(group, &[RuleUpdate { id: id(place), spec: spec(*traffic, *peer) }], world),
    }
}

proptest! {
    #[test]
    fn commands_do_what_the_model_does(commands in prop::collection::vec(command(), 1..25)) {
        let (world, ids) = (world(), ids());
        let (mut group, mut model) = (bare_group(1), Model::new());
        for command in commands {
            let order: Vec<_> = group.rules.iter().map(|rule| rule.id).collect();
            match (run(&group, &order, &command, &ids, &world), expected(&model, &order, &command)) {
                (Ok(change), Some(mut next)) => {
                    if let Command::Authorize(_, values) = &command {
                        prop_assert_eq!(change.rules.len(), values.len());
                        next.extend(change.rules.iter().map(|rule| (rule.id, rule.key())));
                    }
                    group = change.next;
                    model = next;
                }
                (Err(RuleError::LimitExceeded { .. }), Some(_)) | (Err(_), None) => {}
                (decided, modelled) => prop_assert!(false, "{command:?}: {decided:?}, but the model has {modelled:?}"),
            }
            let shown: Model = group.rules.iter().map(|rule| (rule.id, rule.key())).collect();
            prop_assert_eq!(&shown, &model);
            prop_assert_eq!(shown.len(), group.rules.len());
            prop_assert!(group.rules.is_sorted_by_key(|rule| rule.direction));
        }
    }

    #[test]
    fn what_was_added_can_be_removed_by_its_values(values in values()) {
        let (world, group) = (world(), bare_group(1));
        if let Ok(change) = authorize(&group, Direction::Ingress, &specs(&values), &Tags::default(), &ids(), &world) {
            let back = revoke(&change.next, Direction::Ingress, &Revocation { ids: Vec::new(), specs: specs(&values) }, &world).unwrap();
            prop_assert_eq!(back.next, group);
            prop_assert_eq!(back.rules, change.rules);
        }
    }
}

fn refused(result: Result<RuleChange, RuleError>) -> (&'static str, String) {
    let refusal = Refusal::from(result.unwrap_err());
    (refusal.reason, refusal.message)
}

fn allow(group: &SecurityGroup, specs: &[RuleSpec]) -> Result<RuleChange, RuleError> {
    authorize(group, Direction::Ingress, specs, &Tags::default(), &ids(), &world())
}

#[test]
fn refusals_are_worded_as_ec2_words_them() {
    let ssh = spec(tcp(22, 22), v4("0.0.0.0/0"));
    let group = allow(&bare_group(1), std::slice::from_ref(&ssh)).unwrap().next;
    let duplicate = (
        "InvalidPermission.Duplicate",
        "the specified rule \"peer: 0.0.0.0/0, TCP, from port: 22, to port: 22, ALLOW\" already exists".to_owned(),
    );
    assert_eq!(refused(allow(&group, std::slice::from_ref(&ssh))), duplicate);
    let everything = spec(Traffic::All, v4("0.0.0.0/0"));
    assert_eq!(refused(allow(&group, &[everything.clone(), everything.clone()])).0, "InvalidParameterValue");
    let by_values = Revocation { ids: Vec::new(), specs: vec![everything] };
    assert_eq!(refused(revoke(&group, Direction::Ingress, &by_values, &world())).0, "InvalidPermission.NotFound");
    // The same rule in the other direction is another rule.
    let egress = Revocation { ids: vec![group.rules[0].id], specs: Vec::new() };
    assert_eq!(refused(revoke(&group, Direction::Egress, &egress, &world())).0, "InvalidSecurityGroupRuleId.NotFound");
    assert_eq!(refused(allow(&group, &[spec(Traffic::All, Peer::Group(sg(9)))])).0, "InvalidGroup.NotFound");
    assert_eq!(refused(allow(&group, &[spec(Traffic::All, Peer::Group(sg(3)))])).0, "InvalidGroup.NotFound");
    assert_eq!(refused(allow(&group, &[spec(Traffic::All, Peer::PrefixList(pl(3)))])).0, "InvalidPrefixListID.NotFound");
}

#[test]
fn the_limit_counts_each_direction_and_family() {
    let many = |from: usize, count: usize| {
        (from..from + count).map(|host| spec(Traffic::All, v4(&format!("10.0.0.{host}/32")))).collect::<Vec<_>>()
    };
    let full = allow(&bare_group(1), &many(0, MAX_RULES)).unwrap().next;
    assert_eq!(refused(allow(&full, &many(MAX_RULES, 1))).0, "RulesPerSecurityGroupLimitExceeded");
    // A group counts in IPv4 too; an IPv6 network does not, and neither does the other direction.
    assert_eq!(refused(allow(&full, &[spec(Traffic::All, Peer::Group(sg(2)))])).0, "RulesPerSecurityGroupLimitExceeded");
    assert_eq!(refused(allow(&full, &[spec(Traffic::All, Peer::PrefixList(pl(1)))])).0, "RulesPerSecurityGroupLimitExceeded");
    assert!(allow(&full, &[spec(Traffic::All, Peer::Ipv6("::/0".parse().unwrap()))]).is_ok());
    assert!(authorize(&full, Direction::Egress, &many(MAX_RULES, 1), &Tags::default(), &ids(), &world()).is_ok());
}

#[test]
fn a_peer_is_found_by_name_in_the_same_vpc() {
    let named = |name: &str| RuleSpec { peer: PeerSpec::GroupNamed(name.into()), ..spec(Traffic::All, v4("0.0.0.0/0")) };
    let group = allow(&bare_group(1), &[named("G2")]).unwrap();
    assert_eq!(group.rules[0].peer, Peer::Group(sg(2)));
    assert_eq!(refused(allow(&group.next, &[named("g3")])).0, "InvalidGroup.NotFound");
}

#[test]
fn everything_that_is_wrong_with_rules_is_named_at_once() {
    let group = allow(&bare_group(1), &[spec(tcp(22, 22), v4("10.0.0.0/8"))]).unwrap().next;
    let at = |field: &str, spec: RuleSpec| RuleSpec { field: field.to_owned(), ..spec };
    let wanted = [
        at("a", spec(Traffic::All, Peer::Group(sg(9)))),
        at("b", spec(Traffic::All, Peer::PrefixList(pl(3)))),
        at("c", spec(tcp(22, 22), v4("10.0.0.0/8"))),
        at("d", spec(tcp(80, 80), v4("10.0.0.0/8"))),
    ];
    let refusal = Refusal::from(allow(&group, &wanted).unwrap_err());
    let fields: Vec<_> = refusal.violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!((refusal.reason, fields), ("InvalidGroup.NotFound", vec!["a", "b", "c"]));
    let unwanted = Revocation { ids: vec![sgr(77)], specs: vec![at("d", wanted[3].clone())] };
    let refusal = Refusal::from(revoke(&group, Direction::Ingress, &unwanted, &world()).unwrap_err());
    let fields: Vec<_> = refusal.violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!((refusal.reason, fields), ("InvalidSecurityGroupRuleId.NotFound", vec!["security_group_rule_ids[0]", "d"]));
}

#[test]
fn an_update_keeps_id_place_and_tags() {
    let tags = Tags([("a".to_owned(), "1".to_owned())].into());
    let wanted = [spec(tcp(80, 80), v4("10.0.0.0/8")), spec(tcp(443, 443), v4("10.0.0.0/8"))];
    let group = authorize(&bare_group(1), Direction::Ingress, &wanted, &tags, &ids(), &world()).unwrap().next;
    let input = |peer| RuleUpdateInput {
        security_group_rule_id: group.rules[0].id.to_string(),
        ip_protocol: "tcp".into(),
        from_port: Some(443),
        to_port: Some(443),
        peer,
        description: "new".into(),
    };
    let parse = |inputs: &[RuleUpdateInput]| {
        let mut violations = Violations::new();
        let updates = parse_updates("updates", inputs, &mut violations);
        violations.finish().map(|()| updates)
    };
    let wide = parse(&[input(RulePeerInput::CidrIpv6("2001:db8::1/32".into()))]).unwrap();
    let change = modify(&group, &wide, &world()).unwrap();
    assert_eq!((change.next.rules[0].id, &change.next.rules[0].tags), (group.rules[0].id, &tags));
    assert_eq!(change.rules[0].peer, Peer::Ipv6("2001:db8::/32".parse().unwrap()));
    let same = parse(&[input(RulePeerInput::CidrIpv4("10.0.0.0/8".into()))]).unwrap();
    assert_eq!(refused(modify(&group, &same, &world())).0, "InvalidPermission.Duplicate");
    let twice = parse(&[input(RulePeerInput::Absent), input(RulePeerInput::ReferencedGroupId("sg-1".into()))]).unwrap_err();
    let fields: Vec<_> = twice.violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["updates[0].peer", "updates[1].security_group_rule_id", "updates[1].referenced_group_id"]);
}

#[test]
fn two_rules_can_change_places() {
    // Each update alone would be a duplicate; together they are none.
    let wanted = [spec(tcp(80, 80), v4("10.0.0.0/8")), spec(tcp(443, 443), v4("10.0.0.0/8"))];
    let group = allow(&bare_group(1), &wanted).unwrap().next;
    let swap =
        [RuleUpdate { id: group.rules[0].id, spec: wanted[1].clone() }, RuleUpdate { id: group.rules[1].id, spec: wanted[0].clone() }];
    assert_eq!(modify(&group, &swap, &world()).unwrap().next.rules[0].traffic, tcp(443, 443));
}
