//! Steps that failed when they were last tried, in words that users read as an instance's `waiting_reason`.
//!
//! Only in memory: a step that is due is tried again after a restart, and fails again if it still does.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use gureum_service::Error;

/// Setbacks by loop and key. A loop forgets those of its keys when a run of them had none.
#[derive(Debug, Default)]
pub struct Setbacks {
    known: Mutex<HashMap<(&'static str, String), Setback>>,
    /// Grows with every note and every run.
    time: AtomicU64,
}

#[derive(Debug)]
struct Setback {
    words: String,
    at: u64,
}

/// A run of a loop: what was noted before it counts no more after it.
#[derive(Debug)]
pub struct Run {
    name: &'static str,
    keys: Vec<String>,
    since: u64,
}

impl Setbacks {
    fn known(&self) -> MutexGuard<'_, HashMap<(&'static str, String), Setback>> {
        // Each change is one insert or remove, so a poisoned lock is as good as any.
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn tick(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    /// Begins a run of the loop of this name.
    pub fn begin(&self, name: &'static str, keys: &[String]) -> Run {
        Run { name, keys: keys.to_vec(), since: self.tick() }
    }

    /// Notes that a run's call for these keys failed.
    pub fn note<'a>(&self, name: &'static str, keys: impl IntoIterator<Item = &'a str>, call: &str, error: &Error) {
        let (words, at) = (words(call, error), self.tick());
        let mut known = self.known();
        for key in keys {
            known.insert((name, key.to_owned()), Setback { words: words.clone(), at });
        }
    }

    /// Ends a run.
    pub fn end(&self, run: Run) {
        let mut known = self.known();
        for key in run.keys {
            let place = (run.name, key);
            if known.get(&place).is_some_and(|setback| setback.at < run.since) {
                known.remove(&place);
            }
        }
    }

    /// What keeps a loop from going on with a key; none if nothing does.
    pub fn of(&self, name: &'static str, key: &str) -> Option<String> {
        let known = self.known();
        if known.is_empty() {
            return None;
        }
        known.get(&(name, key.to_owned())).map(|setback| setback.words.clone())
    }
}

fn words(call: &str, error: &Error) -> String {
    match error {
        Error::Peer { peer, status } => format!("waits to call {call} of the {peer} service again: {}", status.message()),
        Error::Refused(_) | Error::Store(_) | Error::Internal(_) => format!("waits to call {call} again: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    #[test]
    fn a_setback_is_shown_until_a_run_goes_well() {
        let (setbacks, keys) = (Setbacks::default(), ["a".to_owned(), "b".to_owned()]);
        let away = Error::Peer { peer: "network", status: Box::new(Status::unavailable("the peer does not answer")) };
        let run = setbacks.begin("loop", &keys);
        setbacks.note("loop", ["a"], "AssignPublicAddresses", &away);
        setbacks.end(run);
        let shown = "waits to call AssignPublicAddresses of the network service again: the peer does not answer";
        assert_eq!(setbacks.of("loop", "a").as_deref(), Some(shown));
        assert_eq!((setbacks.of("loop", "b"), setbacks.of("other", "a")), (None, None));
        let run = setbacks.begin("loop", &keys);
        assert!(setbacks.of("loop", "a").is_some(), "it is shown until the run has ended");
        setbacks.end(run);
        assert_eq!(setbacks.of("loop", "a"), None);
    }
}
