//! What this node knows of security groups, and who is told of which change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use gureum_firewall::Rule;
use gureum_model::{Scope, id::SecurityGroupId};
use tokio::sync::Notify;

use super::table::{Change, Table};

/// The groups as security last told of them. Clones share it.
#[derive(Clone, Default)]
pub struct Groups(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// None until security has been heard once.
    table: Option<Table>,
    /// Who is to be told of a change of a group, by a number of their own.
    interested: BTreeMap<(Scope, SecurityGroupId), BTreeMap<u64, Arc<Notify>>>,
    interests: u64,
}

impl Groups {
    /// The rules of these groups, in their order, prefix lists resolved. A group that security does not have has none.
    /// `None`: security has not been heard since this process began, so nobody knows.
    pub fn rules_of(&self, scope: &Scope, groups: &[SecurityGroupId]) -> Option<Vec<Rule>> {
        self.known().table.as_ref().map(|table| table.rules_of(scope, groups))
    }

    /// An interest in nothing yet.
    pub fn interest(&self) -> Interest {
        let mut known = self.known();
        known.interests += 1;
        Interest { number: known.interests, groups: self.clone(), of: BTreeSet::new(), changed: Arc::default() }
    }

    /// One thing has changed; those are told whom it concerns.
    pub(super) fn apply(&self, scope: &Scope, change: Change) {
        let mut known = self.known();
        let changed = known.table.get_or_insert_default().apply(scope, change);
        for group in changed {
            known.tell(&(scope.clone(), group));
        }
    }

    /// All is so, whatever was known before: those are told for whom that is something else.
    pub(super) fn replace(&self, table: Table) {
        let mut known = self.known();
        let before = known.table.replace(table);
        let (before, now) = (before.as_ref(), known.table.as_ref());
        let rules = |table: Option<&Table>, (scope, group): &(Scope, SecurityGroupId)| table.map(|table| table.rules_of(scope, &[*group]));
        let changed: Vec<_> = known.interested.keys().filter(|key| rules(before, key) != rules(now, key)).collect();
        for key in changed {
            known.tell(key);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is of single maps; at worst one that panicked is told again when security is followed anew.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Known {
    fn tell(&self, key: &(Scope, SecurityGroupId)) {
        self.interested.get(key).into_iter().flat_map(BTreeMap::values).for_each(|who| who.notify_one());
    }
}

/// Of which groups one wants to know when their rules change, until it is dropped.
pub struct Interest {
    number: u64,
    groups: Groups,
    of: BTreeSet<(Scope, SecurityGroupId)>,
    changed: Arc<Notify>,
}

impl Interest {
    /// These groups from now on, in place of those before. What changes after this is told, so rules are read after it.
    pub fn set(&mut self, scope: &Scope, groups: impl IntoIterator<Item = SecurityGroupId>) {
        let wanted: BTreeSet<_> = groups.into_iter().map(|group| (scope.clone(), group)).collect();
        let mut known = self.groups.known();
        for key in self.of.difference(&wanted) {
            if let Some(interested) = known.interested.get_mut(key) {
                interested.remove(&self.number);
                if interested.is_empty() {
                    known.interested.remove(key);
                }
            }
        }
        for key in wanted.difference(&self.of) {
            known.interested.entry(key.clone()).or_default().insert(self.number, self.changed.clone());
        }
        drop(known);
        self.of = wanted;
    }

    /// Ends when one of the groups has changed since this last ended; many changes are one. For one task.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// See [`Groups::rules_of`].
    pub fn rules_of(&self, scope: &Scope, groups: &[SecurityGroupId]) -> Option<Vec<Rule>> {
        self.groups.rules_of(scope, groups)
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.set(&Scope::default(), []);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use gureum_firewall::Direction;
    use gureum_model::id::{ResourceId, SecurityGroupRuleId};

    use super::*;
    use crate::firewall::table::{GroupRule, GroupRulePeer};

    fn sg(number: u128) -> SecurityGroupId {
        SecurityGroupId::from_number(number)
    }

    fn group(number: u128, rules: u128) -> Change {
        let rule = |id| GroupRule {
            id: SecurityGroupRuleId::from_number(id),
            direction: Direction::Egress,
            protocol: None,
            first: 0,
            last: u16::MAX,
            peer: GroupRulePeer::Group(sg(number)),
        };
        Change::Group(sg(number), Some((0..rules).map(rule).collect()))
    }

    fn is_told(interest: &Interest) -> bool {
        interest.changed().now_or_never().is_some()
    }

    fn snapshot(scope: &Scope, changes: Vec<Change>) -> Table {
        let mut table = Table::default();
        changes.into_iter().for_each(|change| drop(table.apply(scope, change)));
        table
    }

    #[test]
    fn only_who_asked_for_it_is_told_and_only_of_what_changed() {
        let (groups, scope) = (Groups::default(), Scope::default());
        let (mut one, mut other) = (groups.interest(), groups.interest());
        one.set(&scope, [sg(1)]);
        other.set(&scope, [sg(2), sg(3)]);
        assert_eq!(groups.rules_of(&scope, &[sg(1)]), None, "nobody has said what there is");
        groups.replace(snapshot(&scope, vec![group(1, 1), group(2, 1)]));
        assert!(is_told(&one) && is_told(&other), "from now on it is known, also that there is no rule");
        assert_eq!(groups.rules_of(&scope, &[sg(1), sg(2), sg(3)]).map(|rules| rules.len()), Some(2));
        groups.apply(&scope, group(2, 2));
        groups.apply(&scope, group(2, 3));
        assert!(!is_told(&one) && is_told(&other) && !is_told(&other));
        // Another snapshot: one group is as it was, one has gone.
        groups.replace(snapshot(&scope, vec![group(1, 1)]));
        assert!(!is_told(&one) && is_told(&other));
        assert_eq!(groups.rules_of(&scope, &[sg(2)]), Some(Vec::new()));
    }

    #[test]
    fn nobody_is_remembered_for_what_he_no_longer_wants() {
        let (groups, scope) = (Groups::default(), Scope::default());
        let mut interest = groups.interest();
        interest.set(&scope, [sg(1), sg(2)]);
        interest.set(&scope, [sg(2)]);
        groups.apply(&scope, group(1, 1));
        assert!(!is_told(&interest));
        groups.apply(&scope, group(2, 1));
        assert!(is_told(&interest));
        drop(interest);
        assert!(groups.known().interested.is_empty());
    }
}
