//! Reconcile loops: they drive the world to what is recorded.
//!
//! A loop has keys. A key is looked at when something woke it, when the time it waits for has come, and
//! at every safety sweep; never twice at once. A run takes no input but the keys: it rereads everything,
//! so it may die between any two steps and be run again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Debug,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use gureum_model::Timestamp;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, monotonic};

/// How often all unsettled keys are looked at again, in real time: the safety net, not the engine.
const SWEEP: Duration = Duration::from_secs(5);

/// First and last pause before a key is tried again whose peer was away, in real time.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// What a run made of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A step was done; look again at once.
    Moved,
    /// Nothing to do before this time.
    Waiting { until: Timestamp },
    /// A peer was away or refused for now: try again after a pause that grows.
    Retry { reason: String },
    /// Nothing to do until something wakes it.
    Settled,
}

/// What a loop does. Implementations hold the store and the peers.
pub trait Reconcile: Send + Sync + 'static {
    type Key: Clone + Ord + Hash + Debug + Send + Sync + 'static;

    /// The loop's name in logs.
    const NAME: &'static str;

    /// Keys that one run takes at most, so that calls to peers can be batched.
    const BATCH: usize = 256;

    /// Runs at once. Each is mostly waiting for a peer.
    const RUNS: usize = 4;

    /// All keys that are not settled: what a start and every sweep look at.
    fn unsettled(&self) -> Vec<Self::Key>;

    /// Does what is due for these keys, and says what became of each. A key that is left out is settled.
    fn run(&self, keys: Vec<Self::Key>) -> impl Future<Output = Vec<(Self::Key, Outcome)>> + Send;
}

/// Wakes a loop. Cheap to clone.
pub struct Waker<K>(Arc<Queue<K>>);

impl<K> Clone for Waker<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Clone + Ord + Hash> Default for Waker<K> {
    fn default() -> Self {
        Self(Arc::new(Queue { state: Mutex::new(Keys::default()), changed: Notify::new() }))
    }
}

impl<K: Clone + Ord + Hash> Waker<K> {
    /// Has these keys looked at as soon as may be.
    pub fn wake(&self, keys: impl IntoIterator<Item = K>) {
        {
            let mut state = self.0.lock();
            for key in keys {
                state.wake(key);
            }
        }
        self.0.changed.notify_one();
    }

    /// Whether no key is due, being looked at, or about to be tried again.
    pub fn is_idle(&self) -> bool {
        let state = self.0.lock();
        state.ready.is_empty() && state.running.is_empty() && state.retrying == 0
    }
}

struct Queue<K> {
    state: Mutex<Keys<K>>,
    changed: Notify,
}

impl<K> Queue<K> {
    fn lock(&self) -> MutexGuard<'_, Keys<K>> {
        // Each change of the sets is whole or not begun, so a poisoned lock is as good as any.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

struct Keys<K> {
    ready: BTreeSet<K>,
    /// Being looked at; true if woken meanwhile.
    running: HashMap<K, bool>,
    waiting: BTreeMap<Timestamp, BTreeSet<K>>,
    failures: HashMap<K, u32>,
    /// Keys that wait, in real time, to be tried again.
    retrying: usize,
}

impl<K> Default for Keys<K> {
    fn default() -> Self {
        Self { ready: BTreeSet::new(), running: HashMap::new(), waiting: BTreeMap::new(), failures: HashMap::new(), retrying: 0 }
    }
}

impl<K: Clone + Ord + Hash> Keys<K> {
    fn wake(&mut self, key: K) {
        match self.running.get_mut(&key) {
            Some(again) => *again = true,
            None => {
                self.ready.insert(key);
            }
        }
    }

    fn take(&mut self, now: Timestamp, most: usize) -> Vec<K> {
        while let Some((time, _)) = self.waiting.first_key_value()
            && *time <= now
        {
            for key in self.waiting.pop_first().into_iter().flat_map(|(_, keys)| keys) {
                self.wake(key);
            }
        }
        let keys: Vec<K> = self.ready.iter().take(most).cloned().collect();
        for key in &keys {
            self.ready.remove(key);
            self.running.insert(key.clone(), false);
        }
        keys
    }

    /// Settles what a run made of its keys; answers keys to try again and after how many failures.
    fn finish(&mut self, keys: Vec<K>, outcomes: Vec<(K, Outcome)>) -> Vec<(K, u32, String)> {
        let mut retries = Vec::new();
        let mut outcomes: HashMap<K, Outcome> = outcomes.into_iter().collect();
        for key in keys {
            let woken = self.running.remove(&key).unwrap_or(false);
            match outcomes.remove(&key).unwrap_or(Outcome::Settled) {
                Outcome::Retry { reason } => {
                    let failures = self.failures.entry(key.clone()).or_default();
                    *failures += 1;
                    retries.push((key, *failures, reason));
                    self.retrying += 1;
                    continue;
                }
                Outcome::Moved => drop(self.ready.insert(key.clone())),
                Outcome::Waiting { until } if !woken => {
                    self.waiting.entry(until).or_default().insert(key.clone());
                }
                Outcome::Waiting { .. } | Outcome::Settled => {
                    if woken {
                        self.ready.insert(key.clone());
                    }
                }
            }
            self.failures.remove(&key);
        }
        retries
    }

    fn next_time(&self) -> Option<Timestamp> {
        self.waiting.keys().next().copied()
    }
}

/// Runs a loop until it is dropped.
pub async fn run<R: Reconcile>(reconciler: Arc<R>, waker: Waker<R::Key>, clock: Clock) {
    let tasks = TaskTracker::new();
    let places = Arc::new(tokio::sync::Semaphore::new(R::RUNS));
    waker.wake(reconciler.unsettled());
    let mut sweep = monotonic() + SWEEP;
    loop {
        // The place comes first: what is taken from the queue is run at once.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (keys, next) = {
            let mut state = waker.0.lock();
            (state.take(clock.now(), R::BATCH), state.next_time())
        };
        if keys.is_empty() {
            drop(place);
            let timer = async {
                match next {
                    Some(time) => clock.sleep_until(time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = waker.0.changed.notified() => {}
                () = timer => {}
                () = tokio::time::sleep_until(sweep.into()) => {
                    sweep = monotonic() + SWEEP;
                    waker.wake(reconciler.unsettled());
                }
            }
            continue;
        }
        let (reconciler, waker) = (reconciler.clone(), waker.clone());
        tasks.spawn(async move {
            let outcomes = reconciler.run(keys.clone()).await;
            let retries = waker.0.lock().finish(keys, outcomes);
            for (key, failures, reason) in retries {
                let pause = RETRY_FIRST.saturating_mul(1 << failures.min(7)).min(RETRY_LAST);
                tracing::debug!(reconciler = R::NAME, ?key, failures, reason, "will be tried again");
                let waker = waker.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    waker.0.lock().retrying -= 1;
                    waker.wake([key]);
                });
            }
            drop(place);
            waker.0.changed.notify_one();
        });
    }
}
