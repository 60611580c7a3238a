//! What is known of groups and prefix lists: a table that says of each change which groups mean something else by it.

use std::collections::{BTreeMap, BTreeSet};

use gureum_firewall::{Direction, Peer, Rule};
use gureum_model::{
    Scope,
    id::{PrefixListId, SecurityGroupId, SecurityGroupRuleId},
};
use gureum_proto::security::v1 as proto;
use ipnet::IpNet;

use super::convert;
use crate::followed;

/// A rule as its group has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupRule {
    pub id: SecurityGroupRuleId,
    pub direction: Direction,
    pub protocol: Option<u8>,
    pub first: u16,
    pub last: u16,
    pub peer: GroupRulePeer,
}

/// The other side of a rule as its group has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupRulePeer {
    Network(IpNet),
    Group(SecurityGroupId),
    /// The networks of a list, as they are whenever the rule is read.
    PrefixList(PrefixListId),
}

/// One thing that is as it now is; none: it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Group(SecurityGroupId, Option<Vec<GroupRule>>),
    PrefixList(PrefixListId, Option<Vec<IpNet>>),
}

/// All groups and prefix lists of all scopes.
#[derive(Debug, Default)]
pub struct Table(BTreeMap<Scope, OfScope>);

#[derive(Debug, Default)]
struct OfScope {
    groups: BTreeMap<SecurityGroupId, Vec<GroupRule>>,
    prefix_lists: BTreeMap<PrefixListId, Vec<IpNet>>,
    /// The groups with rules that name a list, whether the list is known or not.
    naming: BTreeMap<PrefixListId, BTreeSet<SecurityGroupId>>,
}

impl followed::Table for Table {
    type Event = proto::Event;
    type Change = Change;
    type Key = SecurityGroupId;

    fn change(event: proto::Event) -> Option<(Scope, Change)> {
        convert::change(event)
    }

    fn apply(&mut self, scope: &Scope, change: Change) -> BTreeSet<SecurityGroupId> {
        let of_scope = self.0.entry(scope.clone()).or_default();
        let changed = match change {
            Change::Group(id, rules) => of_scope.set_group(id, rules),
            Change::PrefixList(id, networks) => of_scope.set_prefix_list(id, networks),
        };
        if of_scope.groups.is_empty() && of_scope.prefix_lists.is_empty() {
            self.0.remove(scope);
        }
        changed
    }

    fn is_same(&self, other: &Self, scope: &Scope, group: &SecurityGroupId) -> bool {
        self.rules_of(scope, &[*group]) == other.rules_of(scope, &[*group])
    }
}

impl Table {
    /// The rules of these groups, in their order, with the lists that they name as they are now. A group or a list that
    /// is not known has none, so that nothing passes by it.
    pub fn rules_of(&self, scope: &Scope, groups: &[SecurityGroupId]) -> Vec<Rule> {
        let Some(of_scope) = self.0.get(scope) else { return Vec::new() };
        groups.iter().filter_map(|id| of_scope.groups.get(id)).flatten().flat_map(|rule| of_scope.resolved(rule)).collect()
    }
}

impl OfScope {
    fn set_group(&mut self, id: SecurityGroupId, rules: Option<Vec<GroupRule>>) -> BTreeSet<SecurityGroupId> {
        if self.groups.get(&id) == rules.as_ref() {
            return BTreeSet::new();
        }
        for list in self.groups.get(&id).into_iter().flatten().filter_map(named_list) {
            if let Some(naming) = self.naming.get_mut(&list) {
                naming.remove(&id);
                if naming.is_empty() {
                    self.naming.remove(&list);
                }
            }
        }
        for list in rules.iter().flatten().filter_map(named_list) {
            self.naming.entry(list).or_default().insert(id);
        }
        match rules {
            Some(rules) => drop(self.groups.insert(id, rules)),
            None => drop(self.groups.remove(&id)),
        }
        BTreeSet::from([id])
    }

    fn set_prefix_list(&mut self, id: PrefixListId, networks: Option<Vec<IpNet>>) -> BTreeSet<SecurityGroupId> {
        if self.prefix_lists.get(&id) == networks.as_ref() {
            return BTreeSet::new();
        }
        match networks {
            Some(networks) => drop(self.prefix_lists.insert(id, networks)),
            None => drop(self.prefix_lists.remove(&id)),
        }
        self.naming.get(&id).cloned().unwrap_or_default()
    }

    fn resolved(&self, rule: &GroupRule) -> Vec<Rule> {
        let GroupRule { id, direction, protocol, first, last, peer } = *rule;
        let with = |peer| Rule { id, direction, protocol, first, last, peer };
        match peer {
            GroupRulePeer::Network(network) => vec![with(Peer::Network(network))],
            GroupRulePeer::Group(group) => vec![with(Peer::Group(group))],
            GroupRulePeer::PrefixList(list) => {
                self.prefix_lists.get(&list).into_iter().flatten().map(|network| with(Peer::Network(*network))).collect()
            }
        }
    }
}

fn named_list(rule: &GroupRule) -> Option<PrefixListId> {
    match rule.peer {
        GroupRulePeer::PrefixList(id) => Some(id),
        GroupRulePeer::Network(_) | GroupRulePeer::Group(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use gureum_model::id::ResourceId;

    use super::*;
    use crate::followed::Table as _;

    fn sg(number: u128) -> SecurityGroupId {
        SecurityGroupId::from_number(number)
    }

    fn pl(number: u128) -> PrefixListId {
        PrefixListId::from_number(number)
    }

    fn rule(number: u128, peer: GroupRulePeer) -> GroupRule {
        let id = SecurityGroupRuleId::from_number(number);
        GroupRule { id, direction: Direction::Ingress, protocol: Some(6), first: 80, last: 80, peer }
    }

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    }

    fn peers(rules: &[Rule]) -> Vec<String> {
        let shown = |peer: &Peer| match peer {
            Peer::Network(network) => network.to_string(),
            Peer::Group(group) => group.to_string(),
        };
        rules.iter().map(|rule| shown(&rule.peer)).collect()
    }

    #[test]
    fn a_change_is_one_of_the_groups_that_mean_something_else() {
        let (mut table, scope) = (Table::default(), Scope::default());
        let by_list = vec![rule(1, GroupRulePeer::PrefixList(pl(1)))];
        assert_eq!(table.apply(&scope, Change::Group(sg(1), Some(by_list.clone()))), BTreeSet::from([sg(1)]));
        assert_eq!(table.apply(&scope, Change::Group(sg(1), Some(by_list.clone()))), BTreeSet::new(), "it says nothing new");
        table.apply(&scope, Change::Group(sg(2), Some(vec![rule(2, GroupRulePeer::Group(sg(1)))])));
        // A list that was named before it was known.
        let listed = Change::PrefixList(pl(1), Some(networks(&["10.0.0.0/8", "10.1.0.0/16"])));
        assert_eq!(table.apply(&scope, listed.clone()), BTreeSet::from([sg(1)]));
        assert_eq!(table.apply(&scope, listed), BTreeSet::new());
        assert_eq!(peers(&table.rules_of(&scope, &[sg(1), sg(2)])), ["10.0.0.0/8", "10.1.0.0/16", &sg(1).to_string()]);
        // Nobody names it any more.
        table.apply(&scope, Change::Group(sg(1), Some(Vec::new())));
        assert_eq!(table.apply(&scope, Change::PrefixList(pl(1), Some(Vec::new()))), BTreeSet::new());
        assert!(table.rules_of(&scope, &[sg(1)]).is_empty());
    }

    #[test]
    fn what_is_gone_or_of_another_scope_has_no_rules() -> Result<(), gureum_model::Refusal> {
        let (mut table, scope, other) = (Table::default(), Scope::default(), Scope::parse("000000000042", "eu-west-1")?);
        table.apply(&scope, Change::Group(sg(1), Some(vec![rule(1, GroupRulePeer::Group(sg(1)))])));
        assert!(table.rules_of(&other, &[sg(1)]).is_empty());
        assert_eq!(table.apply(&scope, Change::Group(sg(1), None)), BTreeSet::from([sg(1)]));
        assert!(table.rules_of(&scope, &[sg(1)]).is_empty() && table.0.is_empty());
        Ok(())
    }
}
