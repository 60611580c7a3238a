//! The one way in which records change: row, event, books and deadlines together.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
};

use gureum_model::{Refusal, Timestamp, id::InstanceId};
use gureum_node_domain::{Capabilities, Demand, DriverReport, Known, Ledger, NodeInstance, Timers, Tombstone, apply::Room, observed};
use gureum_proto::node::v1::{self as proto, event::Resource};
use gureum_service::{Clock, Error, reconcile::Waker};
use gureum_store::{EventDraft, Row, Store, Transaction};
use prost::Message;

use crate::{
    alarm::Alarm,
    api::show,
    store::{BY_UNTIL, InstanceRow, Schema, TombstoneRow, instance_key, next_look, time_value},
};

/// Tombstones that one change clears away at most: more than go at once on average, few enough that
/// nobody waits for it.
const TOMBSTONES_SWEPT_PER_CHANGE: usize = 16;

/// All records of the node, and what follows from them. Clones share them.
#[derive(Clone)]
pub struct Records(Arc<Inner>);

struct Inner {
    store: Store<Schema>,
    capabilities: Capabilities,
    books: Mutex<Books>,
    alarm: Alarm,
    clock: Clock,
    waker: Waker<InstanceId>,
}

/// What follows from the records and is kept in memory. Written on the store's writer thread alone, as
/// the last act of a change, so it is never behind a decision nor ahead of the one that made it.
struct Books {
    ledger: Ledger,
    /// When the driver's answers are overdue.
    deadlines: Timers<InstanceId>,
}

impl Records {
    /// Opens the books on what is stored.
    pub fn open(store: Store<Schema>, total: Demand, capabilities: Capabilities, clock: Clock, waker: Waker<InstanceId>) -> Self {
        let state = store.read();
        let ledger = Ledger::new(total, state.instances.iter().map(|row| &row.record.0));
        let books = Mutex::new(Books { ledger, deadlines: Timers::new() });
        Self(Arc::new(Inner { store, capabilities, books, alarm: Alarm::new(clock.clone()), clock, waker }))
    }

    pub fn store(&self) -> &Store<Schema> {
        &self.0.store
    }

    /// Runs a decision on the writer thread and makes it durable; then has looked at what is due.
    pub async fn change<R: Send + 'static>(&self, decide: impl FnOnce(&mut Draft<'_, '_>) -> R + Send + 'static) -> Result<R, Error> {
        let inner = self.0.clone();
        let written = self.0.store.write(move |transaction| -> Result<(R, Vec<InstanceId>), Refusal> {
            let ledger = inner.books().ledger;
            let mut draft = Draft { transaction, capabilities: &inner.capabilities, ledger, touched: BTreeSet::new() };
            let answer = decide(&mut draft);
            Ok((answer, inner.keep(draft)))
        });
        let (answer, due) = written.await?;
        self.0.alarm.changed();
        if !due.is_empty() {
            self.0.waker.wake(due);
        }
        Ok(answer)
    }

    /// What is promised, all of it durable.
    pub async fn ledger(&self) -> Result<Ledger, Error> {
        self.change(|draft| draft.ledger).await
    }

    /// Has looked at what is overdue, until it is dropped.
    pub async fn watch_deadlines(self) {
        loop {
            self.0.alarm.due(|| self.0.books().deadlines.next_at()).await;
            let mut books = self.0.books();
            let now = self.0.clock.now();
            // Woken under the lock: in between, nobody may take the node for idle.
            self.0.waker.wake(std::iter::from_fn(|| books.deadlines.pop_due(now)).map(|(_, id)| id));
        }
    }

    /// Whether nothing is overdue. Virtual time waits for it.
    pub fn is_idle(&self) -> bool {
        let next = self.0.books().deadlines.next_at();
        next.is_none_or(|next| next > self.0.clock.now()) && self.0.alarm.is_set_for(next)
    }
}

impl Inner {
    fn books(&self) -> MutexGuard<'_, Books> {
        // Nothing between lock and unlock calls what could panic half-way through a change.
        self.books.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes over a decision's books. Answers what is due now.
    fn keep(&self, mut draft: Draft<'_, '_>) -> Vec<InstanceId> {
        if draft.touched.is_empty() {
            return Vec::new();
        }
        draft.sweep_tombstones();
        let now = draft.transaction.now();
        let looks: Vec<_> = draft.touched.iter().map(|id| (*id, draft.row(*id).and_then(|row| next_look(&row)))).collect();
        let mut books = self.books();
        books.ledger = draft.ledger;
        let mut due = Vec::new();
        for (id, look) in looks {
            let is_due = look.is_some_and(|at| at <= now);
            books.deadlines.set(id, look.filter(|_| !is_due));
            due.extend(is_due.then_some(id));
        }
        due
    }
}

/// A change in the making.
pub struct Draft<'a, 't> {
    transaction: &'a mut Transaction<'t, Schema>,
    capabilities: &'a Capabilities,
    ledger: Ledger,
    touched: BTreeSet<InstanceId>,
}

impl Draft<'_, '_> {
    /// The time of this change.
    pub fn now(&self) -> Timestamp {
        self.transaction.now()
    }

    /// The sequence of the last event, this change's own included.
    pub fn sequence(&self) -> u64 {
        self.transaction.sequence()
    }

    /// The instance as it is, changes of this draft included.
    pub fn row(&self, id: InstanceId) -> Option<Arc<Row<InstanceRow>>> {
        self.transaction.instances.get(&instance_key(id)).cloned()
    }

    fn tombstone(&self, id: InstanceId) -> Option<Arc<Row<TombstoneRow>>> {
        self.transaction.tombstones.get(&instance_key(id)).cloned()
    }

    /// Decides with what is known of an id.
    pub fn with_known<R>(&self, id: InstanceId, decide: impl FnOnce(Known<'_>) -> R) -> R {
        match (self.row(id), self.tombstone(id)) {
            (Some(row), _) => decide(Known::Instance(&row.record.0)),
            (None, Some(row)) => decide(Known::Forgotten(&row.record.0)),
            (None, None) => decide(Known::Nothing),
        }
    }

    /// What is there for the next instance.
    pub fn room(&self) -> Room<'_> {
        self.ledger.room(self.capabilities)
    }

    /// Writes an instance as it is now, and tells of it if that shows.
    pub fn put(&mut self, next: NodeInstance) {
        let before = self.row(next.id);
        let before = before.as_deref().map(|row| &row.record.0);
        self.ledger.replace(before, Some(&next));
        let observation = next.observation();
        if before.map(NodeInstance::observation).as_ref() != Some(&observation) {
            self.transaction.emit(told("InstanceObserved", &next, false));
        }
        self.touched.insert(next.id);
        self.transaction.put(InstanceRow(next));
    }

    /// Has its deadline entered, though nothing of it changed: after a start there is none yet.
    pub fn touch(&mut self, id: InstanceId) {
        self.touched.insert(id);
    }

    /// Takes what the driver tells. A report of what is no longer known changes nothing.
    pub fn observe(&mut self, report: &DriverReport) {
        let Some(row) = self.row(report.id) else { return };
        if let Some(next) = observed(&row, report, self.room()) {
            self.put(next);
        }
    }

    /// Puts a tombstone in the place of an instance, and tells that it is gone.
    pub fn bury(&mut self, record: &NodeInstance, tombstone: Tombstone) {
        self.ledger.replace(Some(record), None);
        self.transaction.emit(told("InstanceForgotten", record, true));
        self.touched.insert(record.id);
        self.transaction.delete::<InstanceRow>(&instance_key(record.id));
        self.transaction.put(TombstoneRow(tombstone));
    }

    /// Has a tombstone tell of a newer end.
    pub fn remember_end(&mut self, tombstone: Tombstone) {
        self.transaction.put(TombstoneRow(tombstone));
    }

    fn sweep_tombstones(&mut self) {
        let limit = time_value(self.now());
        let gone = self.transaction.tombstones.find_from(BY_UNTIL, "").take_while(|(until, _)| **until <= *limit);
        let keys: Vec<String> = gone.take(TOMBSTONES_SWEPT_PER_CHANGE).map(|(_, row)| instance_key(row.record.0.id)).collect();
        for key in keys {
            self.transaction.delete::<TombstoneRow>(&key);
        }
    }
}

fn told(kind: &'static str, record: &NodeInstance, deleted: bool) -> EventDraft {
    EventDraft {
        kind,
        scope: record.scope.clone(),
        resource_id: record.id.to_string(),
        causation_id: String::new(),
        deleted,
        payload: proto::Event { metadata: None, resource: Some(Resource::Instance(show::observation(record))) }.encode_to_vec(),
    }
}
