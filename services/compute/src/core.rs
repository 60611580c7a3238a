//! What handlers and loops share.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use gureum_compute_domain::plan::Reach;
use gureum_model::{
    IdSource, Scope,
    id::{NodeId, ReservationId},
};
use gureum_service::{Activity, CancellationToken, Clock, Error, Followed, context::RequestContext, reconcile::Waker};
use gureum_store::{Record, State, Store};
use tokio_util::task::TaskTracker;

use crate::{
    fleet::{Fleet, reach_of},
    identity::Identity,
    network::Network,
    places::Places,
    reconcile::due::DueKey,
    security::Security,
    setbacks::Setbacks,
    settings::Settings,
    store::{LaunchRow, NODE_INDEX, Schema, Tx, needs_work},
};

/// Time that one call of a reconcile step may take. Peers answer in milliseconds; beyond this one is
/// stuck, and the step is tried again.
const STEP_DEADLINE: Duration = Duration::from_secs(10);

/// Everything that handlers and loops share.
pub struct Core {
    pub store: Store<Schema>,
    pub ids: Arc<IdSource>,
    /// Tells the calls of loops apart.
    pub call_ids: Arc<IdSource>,
    pub clock: Clock,
    pub settings: Settings,
    pub places: Places,
    pub fleet: Fleet,
    pub network: Network,
    pub security: Security,
    pub shutdown: CancellationToken,
    pub tasks: TaskTracker,
    pub activity: Activity,
    /// Wakes the loop of instances, by their keys.
    pub instances: Waker<String>,
    /// Wakes the loop of launches, by their keys.
    pub launches: Waker<String>,
    /// Wakes the loop of what time alone changes.
    pub due: Waker<DueKey>,
    /// Wakes the loop of what nodes have to do for volumes and snapshots, by the keys of their rows.
    pub disks: Waker<String>,
    /// Wakes the loop that reads instances' interfaces anew, by the instances' keys.
    pub interfaces: Waker<String>,
    /// Instances that the loop of interfaces looks at again when their records change.
    pub awaited: Awaited,
    /// Who tells network how many interfaces an instance may have, one after another, by its key: a call that changes its
    /// type, until that is decided, or the loop of interfaces.
    pub limiting: Turns,
    /// How far network is followed: what shows its data waits for it.
    pub network_followed: Followed,
    pub turns: Turns,
    pub in_flight: InFlight,
    pub setbacks: Setbacks,
    pub identity: Identity,
}

impl Core {
    /// Everything as it is now.
    pub fn read(&self) -> Arc<State<Schema>> {
        self.store.read()
    }

    /// Commits what no user's call asked for and what is never refused.
    pub async fn commit<R: Send + 'static>(&self, write: impl FnOnce(&mut Tx<'_>) -> R + Send + 'static) -> Result<R, Error> {
        Ok(self.store.write(move |tx| Ok::<_, gureum_model::Refusal>(write(tx))).await?)
    }

    /// Does work of a loop in a scope, with a deadline of its own.
    pub async fn in_scope<F: Future>(&self, scope: &Scope, work: F) -> F::Output {
        gureum_service::context::with(RequestContext::background(scope.clone(), &self.call_ids, STEP_DEADLINE), work).await
    }

    /// Has everything looked at that a node has and that is not settled.
    pub fn wake_node(&self, node: NodeId) {
        let state = self.read();
        let dead = reach_of(&state, node) == Reach::Dead;
        let rows = state.instances.find(NODE_INDEX, &node.to_string()).filter(|row| dead || needs_work(row)).map(|row| row.key());
        self.instances.wake(rows.collect::<Vec<_>>());
    }

    /// Has interfaces read anew of instances whose rows were written from what network answered: it may
    /// have told of something newer meanwhile.
    pub fn read_interfaces_again(&self, keys: &[String]) {
        self.network_followed.open(keys, 0);
        self.interfaces.wake(keys.iter().cloned());
    }

    /// A random number, for placement.
    pub fn random(&self) -> u64 {
        // The low half is as random as the whole.
        self.ids.next_number() as u64
    }
}

/// Instances whose nodes have yet to carry out what network waits for, by their keys. Rebuilt after a restart
/// by following network.
#[derive(Default)]
pub struct Awaited(Mutex<HashSet<String>>);

impl Awaited {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn insert(&self, key: String) {
        self.lock().insert(key);
    }

    pub fn remove(&self, key: &str) {
        self.lock().remove(key);
    }

    /// Those of these keys that are awaited.
    pub fn among<'a>(&self, keys: impl Iterator<Item = &'a String>) -> Vec<String> {
        let awaited = self.lock();
        if awaited.is_empty() { Vec::new() } else { keys.filter(|key| awaited.contains(*key)).cloned().collect() }
    }
}

/// Lets what has the same name go one after another: a repeat of a call waits for the first with its client token, and finds
/// its answer.
#[derive(Default)]
pub struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

/// Holds a token's turn until it is dropped.
pub struct Turn<'a> {
    turns: &'a Turns,
    key: String,
    guard: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<()>>>> {
        // Each change is one insert or remove, so a poisoned lock is as good as any.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits until nobody else has the turn of this token in this scope.
    pub async fn take(&self, scope: &Scope, token: &str) -> Turn<'_> {
        let key = format!("{scope}|{token}");
        let turn = self.lock().entry(key.clone()).or_default().clone();
        Turn { turns: self, key, guard: Some(turn.lock_owned().await) }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.turns.lock();
        drop(self.guard.take());
        // Who waits holds the map's lock while it takes its share, so a count of one means nobody.
        if turns.get(&self.key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.key);
        }
    }
}

/// The launches whose calls are at work in this process.
#[derive(Clone, Default)]
pub struct InFlight(Arc<Mutex<HashSet<ReservationId>>>);

/// A launch whose call is at work until this is dropped; then its loop looks at what is left of it.
pub struct LaunchUnderWay {
    in_flight: InFlight,
    reservation: ReservationId,
    key: String,
    waker: Waker<String>,
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, HashSet<ReservationId>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Notes that a call is at work on a launch.
    pub fn begin(&self, scope: &Scope, reservation: ReservationId, waker: Waker<String>) -> LaunchUnderWay {
        self.lock().insert(reservation);
        LaunchUnderWay { in_flight: self.clone(), reservation, key: LaunchRow::key_of(scope, reservation), waker }
    }

    pub fn contains(&self, reservation: ReservationId) -> bool {
        self.lock().contains(&reservation)
    }
}

impl Drop for LaunchUnderWay {
    fn drop(&mut self) {
        self.in_flight.lock().remove(&self.reservation);
        self.waker.wake([std::mem::take(&mut self.key)]);
    }
}
