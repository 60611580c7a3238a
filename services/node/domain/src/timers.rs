//! Who is due when: at most one time per key.

use std::collections::{BTreeMap, BTreeSet};

use gureum_model::Timestamp;

/// Times by key, in order. All operations take O(log n).
///
/// Two keys that are due at the same time come in the keys' order, however they were entered: so a
/// simulated day is the same twice.
#[derive(Debug, Clone)]
pub struct Timers<K> {
    order: BTreeSet<(Timestamp, K)>,
    times: BTreeMap<K, Timestamp>,
}

impl<K: Ord + Copy> Timers<K> {
    pub fn new() -> Self {
        Self { order: BTreeSet::new(), times: BTreeMap::new() }
    }

    /// Sets or moves the key's time; `None` removes it. The answer is the time it had.
    pub fn set(&mut self, key: K, at: Option<Timestamp>) -> Option<Timestamp> {
        let before = match at {
            Some(at) => self.times.insert(key, at),
            None => self.times.remove(&key),
        };
        if before != at {
            if let Some(before) = before {
                self.order.remove(&(before, key));
            }
            if let Some(at) = at {
                self.order.insert((at, key));
            }
        }
        before
    }

    /// Removes the key. The answer is the time it had.
    pub fn remove(&mut self, key: K) -> Option<Timestamp> {
        self.set(key, None)
    }

    /// The earliest time.
    pub fn next_at(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes out the earliest key that is due by `now`.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<(Timestamp, K)> {
        let (at, key) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.order.pop_first();
        self.times.remove(&key);
        Some((at, key))
    }

    /// When the key is due.
    pub fn get(&self, key: K) -> Option<Timestamp> {
        self.times.get(&key).copied()
    }

    pub fn len(&self) -> usize {
        self.times.len()
    }

    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }
}

impl<K: Ord + Copy> Default for Timers<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Command {
        Set(u8, u64),
        Remove(u8),
        PopDue(u64),
    }

    fn command() -> impl Strategy<Value = Command> {
        prop_oneof![
            (0u8..12, 0u64..50).prop_map(|(key, at)| Command::Set(key, at)),
            (0u8..12).prop_map(Command::Remove),
            (0u64..50).prop_map(Command::PopDue),
        ]
    }

    proptest! {
        /// Beside a list that is searched from end to end.
        #[test]
        fn timers_are_as_a_plain_list_has_them(commands in prop::collection::vec(command(), 0..120)) {
            let mut timers = Timers::new();
            let mut model: Vec<(Timestamp, u8)> = Vec::new();
            for command in commands {
                match command {
                    Command::Set(key, at) => {
                        let at = Timestamp::from_micros(at);
                        model.retain(|(_, other)| *other != key);
                        model.push((at, key));
                        timers.set(key, Some(at));
                    }
                    Command::Remove(key) => {
                        let had = model.iter().find(|(_, other)| *other == key).map(|(at, _)| *at);
                        model.retain(|(_, other)| *other != key);
                        prop_assert_eq!(timers.remove(key), had);
                    }
                    Command::PopDue(now) => {
                        let now = Timestamp::from_micros(now);
                        let due = model.iter().min().copied().filter(|(at, _)| *at <= now);
                        model.retain(|entry| Some(*entry) != due);
                        prop_assert_eq!(timers.pop_due(now), due);
                    }
                }
                prop_assert_eq!(timers.next_at(), model.iter().min().map(|(at, _)| *at));
                prop_assert_eq!(timers.len(), model.len());
                prop_assert_eq!(timers.order.len(), model.len());
            }
        }
    }
}
