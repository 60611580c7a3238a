//! What this node knows of a service, and who is told of which change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use gureum_model::Scope;
use tokio::sync::Notify;

use super::Table;

/// A table as its service last told it. Clones share it.
pub struct Known<T: Table>(Arc<Mutex<Inner<T>>>);

struct Inner<T: Table> {
    /// None until the service has been heard once.
    table: Option<T>,
    /// Who is to be told of a change of a part, by a number of their own.
    interested: BTreeMap<(Scope, T::Key), BTreeMap<u64, Arc<Notify>>>,
    interests: u64,
}

impl<T: Table> Default for Known<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Inner { table: None, interested: BTreeMap::new(), interests: 0 })))
    }
}

impl<T: Table> Clone for Known<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Table> Known<T> {
    /// Reads the table. `None`: its service has not been heard since this process began, so nobody knows.
    pub fn with<R>(&self, read: impl FnOnce(&T) -> R) -> Option<R> {
        self.inner().table.as_ref().map(read)
    }

    /// An interest in nothing yet.
    pub fn interest(&self) -> Interest<T> {
        let mut inner = self.inner();
        inner.interests += 1;
        Interest { number: inner.interests, known: self.clone(), of: BTreeSet::new(), changed: Arc::default() }
    }

    /// One thing has changed; those are told whom it concerns.
    pub(super) fn apply(&self, scope: &Scope, change: T::Change) {
        let mut inner = self.inner();
        let changed = inner.table.get_or_insert_default().apply(scope, change);
        for key in changed {
            inner.tell(&(scope.clone(), key));
        }
    }

    /// All is so, whatever was known before: those are told for whom that is something else.
    pub(super) fn replace(&self, table: T) {
        let mut inner = self.inner();
        let before = inner.table.replace(table);
        let is_same = |(scope, key): &(Scope, T::Key)| match (&before, &inner.table) {
            (Some(before), Some(now)) => before.is_same(now, scope, key),
            _ => false,
        };
        let changed: Vec<_> = inner.interested.keys().filter(|key| !is_same(key)).collect();
        for key in changed {
            inner.tell(key);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner<T>> {
        // Each change is of single maps; at worst one that panicked is told again when its service is followed anew.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<T: Table> Inner<T> {
    fn tell(&self, key: &(Scope, T::Key)) {
        self.interested.get(key).into_iter().flat_map(BTreeMap::values).for_each(|who| who.notify_one());
    }
}

/// Of which parts one wants to know when they change, until it is dropped.
pub struct Interest<T: Table> {
    number: u64,
    known: Known<T>,
    of: BTreeSet<(Scope, T::Key)>,
    changed: Arc<Notify>,
}

impl<T: Table> Interest<T> {
    /// These parts from now on, in place of those before. What changes after this is told, so they are read after it.
    pub fn set(&mut self, scope: &Scope, keys: impl IntoIterator<Item = T::Key>) {
        let wanted: BTreeSet<_> = keys.into_iter().map(|key| (scope.clone(), key)).collect();
        let mut inner = self.known.inner();
        for key in self.of.difference(&wanted) {
            if let Some(interested) = inner.interested.get_mut(key) {
                interested.remove(&self.number);
                if interested.is_empty() {
                    inner.interested.remove(key);
                }
            }
        }
        for key in wanted.difference(&self.of) {
            inner.interested.entry(key.clone()).or_default().insert(self.number, self.changed.clone());
        }
        drop(inner);
        self.of = wanted;
    }

    /// Ends when one of the parts has changed since this last ended; many changes are one. For one task.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// See [`Known::with`].
    pub fn with<R>(&self, read: impl FnOnce(&T) -> R) -> Option<R> {
        self.known.with(read)
    }
}

impl<T: Table> Drop for Interest<T> {
    fn drop(&mut self) {
        self.set(&Scope::default(), []);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use gureum_firewall::{Direction, Rule};
    use gureum_model::id::{ResourceId, SecurityGroupId, SecurityGroupRuleId};

    use super::*;
    use crate::firewall::{
        Groups,
        table::{Change, GroupRule, GroupRulePeer, Table},
    };
    use crate::followed::Table as _;

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

    fn rules_of(groups: &Groups, scope: &Scope, of: &[SecurityGroupId]) -> Option<Vec<Rule>> {
        groups.with(|table| table.rules_of(scope, of))
    }

    fn is_told(interest: &Interest<Table>) -> bool {
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
        assert_eq!(rules_of(&groups, &scope, &[sg(1)]), None, "nobody has said what there is");
        groups.replace(snapshot(&scope, vec![group(1, 1), group(2, 1)]));
        assert!(is_told(&one) && is_told(&other), "from now on it is known, also that there is no rule");
        assert_eq!(rules_of(&groups, &scope, &[sg(1), sg(2), sg(3)]).map(|rules| rules.len()), Some(2));
        groups.apply(&scope, group(2, 2));
        groups.apply(&scope, group(2, 3));
        assert!(!is_told(&one) && is_told(&other) && !is_told(&other));
        // Another snapshot: one group is as it was, one has gone.
        groups.replace(snapshot(&scope, vec![group(1, 1)]));
        assert!(!is_told(&one) && is_told(&other));
        assert_eq!(rules_of(&groups, &scope, &[sg(2)]), Some(Vec::new()));
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
        assert!(groups.inner().interested.is_empty());
    }
}
