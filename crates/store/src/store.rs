//! The store: one writer thread that groups what waits, and snapshots for readers.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use arc_swap::ArcSwap;
use gureum_model::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    engine::{Change, Engine, EngineError, Group, RowSink, Snapshot},
    outbox::{Outbox, OutboxEvent},
    schema::Tables,
    table::{Record, Table},
    token::{Recall, TokenKey, TokenRecord},
    transaction::Transaction,
};

/// Writes that may wait. Beyond it callers wait for a place, so a slow disk slows them down instead
/// of filling memory.
const QUEUE: usize = 1024;

/// Writes that become durable by one sync at most. With more, the first would wait for the decisions
/// of too many others.
const GROUP_WRITES: usize = 512;

/// Bytes of a group at which no more writes join it.
const GROUP_BYTES: usize = 4 << 20;

/// Everything that a store holds at one revision. A clone costs nothing.
#[derive(Debug, Clone, Default)]
pub struct State<T> {
    /// The service's own tables.
    pub tables: T,
    pub(crate) outbox: Outbox,
    pub(crate) tokens: Table<TokenRecord>,
    pub(crate) revision: u64,
    pub(crate) sequence: u64,
}

impl<T> std::ops::Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.tables
    }
}

impl<T: Tables> State<T> {
    /// Grows with every commit.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The sequence of the last event.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The lowest `after` for which no event is missing.
    pub fn oldest_after(&self) -> u64 {
        self.outbox.oldest().map_or(self.sequence, |oldest| oldest - 1)
    }

    /// Events after a sequence, in order.
    pub fn events_after(&self, sequence: u64) -> impl Iterator<Item = &OutboxEvent> {
        self.outbox.after(sequence)
    }

    /// What is known of a client token used with these parameters, at this time. Calls that are still being
    /// decided are not known here: that is for whoever lets calls with one token go one after another.
    pub fn recall(&self, key: &TokenKey, fingerprint: u128, now: Timestamp) -> Recall {
        match self.tokens.get(key.as_str()) {
            Some(token) if token.is_expired(now) => Recall::New,
            Some(token) if token.fingerprint == format!("{fingerprint:032x}") => Recall::Answered(token.answer.clone()),
            Some(_) => Recall::Mismatch,
            None => Recall::New,
        }
    }

    pub(crate) fn load(&mut self, change: &Change) -> Result<(), EngineError> {
        let (key, value) = (change.key.as_str(), change.value.as_deref());
        match change.table.as_str() {
            OutboxEvent::TABLE => self.outbox.load(key, value),
            TokenRecord::TABLE => self.tokens.load(key, value),
            table => self.tables.load(table, key, value),
        }
    }
}

impl<T: Tables> Snapshot for State<T> {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn for_each(&self, entry: RowSink<'_>) -> Result<(), EngineError> {
        self.outbox.dump(entry)?;
        self.tokens.dump(entry)?;
        self.tables.dump(entry)
    }
}

/// Why the store cannot answer. A service that sees [`StoreError::Stopped`] ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the store has stopped: {0}")]
    Stopped(Arc<str>),
    #[error("a decision panicked; nothing of it was written")]
    Panicked,
    #[error("the call that would write is refused already")]
    Barred,
}

/// Why a write did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError<E> {
    /// The decision refused.
    #[error("{0}")]
    Refused(E),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How a store is opened.
pub struct Options {
    /// Name of the writer thread.
    pub name: String,
    /// Domain time.
    pub now: Box<dyn Fn() -> Timestamp + Send>,
}

type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
type Job<T> = Box<dyn FnOnce(&mut Transaction<'_, T>) -> Decided + Send>;

struct Decided {
    accepted: bool,
    answer: Answer,
}

struct Queued<T> {
    job: Job<T>,
    /// Answers in the job's place if it panics.
    panicked: Answer,
}

/// A service's store. Clones share it; the writer ends when the last one is dropped.
pub struct Store<T> {
    published: Arc<ArcSwap<State<T>>>,
    queue: mpsc::Sender<Queued<T>>,
    sequence: watch::Receiver<u64>,
    stopped: watch::Receiver<Option<Arc<str>>>,
    /// Whether whoever writes, in its own task, may.
    may_write: fn() -> bool,
}

impl<T> Clone for Store<T> {
    fn clone(&self) -> Self {
        Self {
            published: self.published.clone(),
            queue: self.queue.clone(),
            sequence: self.sequence.clone(),
            stopped: self.stopped.clone(),
            may_write: self.may_write,
        }
    }
}

impl<T: Tables> Store<T> {
    /// Loads everything that the engine holds and starts the writer. Blocks while it reads.
    pub fn open(mut engine: impl Engine, options: Options) -> Result<Self, EngineError> {
        let mut state = State::<T>::default();
        let loaded = engine.load(&mut |change| state.load(&change))?;
        state.revision = loaded.revision;
        state.sequence = loaded.sequence;
        state.outbox.trim((options.now)());
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (sequence_sender, sequence) = watch::channel(state.sequence);
        let (stopped_sender, stopped) = watch::channel(None);
        let published = Arc::new(ArcSwap::from_pointee(state.clone()));
        let last = state.events_after(state.sequence.saturating_sub(1)).next().map_or(Timestamp::EPOCH, |event| event.time);
        let writer = Writer { engine, state, jobs, published: published.clone(), sequence: sequence_sender, now: options.now, last };
        thread::Builder::new()
            .name(format!("{}-store", options.name))
            .spawn(move || writer.run(&stopped_sender))
            .map_err(|source| EngineError::Io { operation: "start the writer thread", path: options.name.into(), source })?;
        Ok(Self { published, queue, sequence, stopped, may_write: || true })
    }

    /// The same store, which asks this in the task of whoever writes, and runs no decision that it bars.
    #[must_use]
    pub fn guarded(self, may_write: fn() -> bool) -> Self {
        Self { may_write, ..self }
    }

    /// Everything as it is now: what is durable, nothing else.
    pub fn read(&self) -> Arc<State<T>> {
        self.published.load_full()
    }

    /// Runs a decision, makes what it staged durable, and answers.
    ///
    /// The decision runs on the writer thread, alone: it must not block and must not take long.
    pub async fn write<R, E>(
        &self,
        decide: impl FnOnce(&mut Transaction<'_, T>) -> Result<R, E> + Send + 'static,
    ) -> Result<R, WriteError<E>>
    where
        R: Send + 'static,
        E: Send + 'static,
    {
        if !(self.may_write)() {
            return Err(StoreError::Barred.into());
        }
        let (sender, receiver) = oneshot::channel();
        let (panic_sender, panicked) = oneshot::channel();
        let job: Job<T> = Box::new(move |transaction| {
            let result = decide(transaction);
            Decided {
                accepted: result.is_ok(),
                answer: Box::new(move |durable| {
                    // A caller who has gone needs no answer.
                    let _ = sender.send(durable.map(|()| result));
                }),
            }
        });
        let panicked_answer: Answer = Box::new(move |result| {
            let _ = panic_sender.send(result);
        });
        if self.queue.send(Queued { job, panicked: panicked_answer }).await.is_err() {
            return Err(self.stop_reason().into());
        }
        match receiver.await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(refusal))) => Err(WriteError::Refused(refusal)),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => match panicked.await {
                Ok(Err(error)) => Err(error.into()),
                Ok(Ok(())) | Err(_) => Err(self.stop_reason().into()),
            },
        }
    }

    /// The sequence of the last durable event, and how it grows.
    pub fn sequence(&self) -> watch::Receiver<u64> {
        self.sequence.clone()
    }

    /// Ends when the store has stopped, with the reason. A service that sees it must end too.
    pub async fn stopped(&self) -> Arc<str> {
        let mut stopped = self.stopped.clone();
        match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_else(|| "the writer ended".into()),
            Err(_) => "the writer ended".into(),
        }
    }

    fn stop_reason(&self) -> StoreError {
        StoreError::Stopped(self.stopped.borrow().clone().unwrap_or_else(|| "the writer ended".into()))
    }
}

struct Writer<T, E> {
    engine: E,
    /// The published state and what the group in the making adds to it.
    state: State<T>,
    jobs: mpsc::Receiver<Queued<T>>,
    published: Arc<ArcSwap<State<T>>>,
    sequence: watch::Sender<u64>,
    now: Box<dyn Fn() -> Timestamp + Send>,
    last: Timestamp,
}

impl<T: Tables, E: Engine> Writer<T, E> {
    fn run(mut self, stopped: &watch::Sender<Option<Arc<str>>>) {
        // Who ended while a checkpoint was written may have left a journal of twice the live data, and nothing
        // says that anything will be written in this life.
        if let Err(error) = self.checkpoint_if_due() {
            self.stop(&error, Vec::new(), stopped);
            return;
        }
        while let Some(first) = self.jobs.blocking_recv() {
            let mut group = Group::default();
            let mut answers = Vec::new();
            let (mut bytes, mut next) = (0, Some(first));
            while let Some(queued) = next.take() {
                bytes += self.decide(queued, &mut group, &mut answers);
                if answers.len() < GROUP_WRITES && bytes < GROUP_BYTES {
                    next = self.jobs.try_recv().ok();
                }
            }
            if let Err(error) = self.commit(group) {
                self.stop(&error, answers, stopped);
                return;
            }
            for answer in answers {
                answer(Ok(()));
            }
            // Only now, so that nobody waits for it.
            if let Err(error) = self.checkpoint_if_due() {
                self.stop(&error, Vec::new(), stopped);
                return;
            }
        }
    }

    fn stop(mut self, error: &EngineError, answers: Vec<Answer>, stopped: &watch::Sender<Option<Arc<str>>>) {
        let reason: Arc<str> = Arc::from(full_text(error));
        tracing::error!(error = &*reason, "the store stops: nothing more can be made durable");
        stopped.send_replace(Some(reason.clone()));
        self.jobs.close();
        for answer in answers {
            answer(Err(StoreError::Stopped(reason.clone())));
        }
    }

    /// Runs one decision on the state, which stays as it was unless the decision accepts. Answers the
    /// bytes that it adds to the group.
    fn decide(&mut self, queued: Queued<T>, group: &mut Group, answers: &mut Vec<Answer>) -> usize {
        // Clocks may be set back; what a user sees must not.
        self.last = self.last.max((self.now)());
        let Queued { job, panicked } = queued;
        let mut transaction = Transaction::new(&mut self.state, self.last);
        // Rolled back after a panic, so nothing half-done is ever seen.
        match catch_unwind(AssertUnwindSafe(|| job(&mut transaction))) {
            Ok(Decided { accepted: true, answer }) => match transaction.finish() {
                Ok(changes) => {
                    let bytes = changes.iter().map(|change| change.key.len() + change.value.as_ref().map_or(0, Vec::len)).sum();
                    group.changes.extend(changes);
                    answers.push(answer);
                    bytes
                }
                Err(error) => {
                    tracing::error!(error = full_text(&error), "a row could not be encoded; its write was dropped");
                    answers.push(Box::new(move |_| answer(Err(StoreError::Panicked))));
                    0
                }
            },
            Ok(Decided { accepted: false, answer }) => {
                transaction.roll_back();
                answers.push(answer);
                0
            }
            Err(_) => {
                transaction.roll_back();
                answers.push(Box::new(move |_| panicked(Err(StoreError::Panicked))));
                0
            }
        }
    }

    fn commit(&mut self, mut group: Group) -> Result<(), EngineError> {
        if group.changes.is_empty() {
            return Ok(());
        }
        group.revision = self.state.revision;
        group.sequence = self.state.sequence;
        self.engine.append(&group)?;
        self.published.store(Arc::new(self.state.clone()));
        self.sequence.send_if_modified(|sequence| {
            let grown = *sequence != group.sequence;
            *sequence = group.sequence;
            grown
        });
        Ok(())
    }

    fn checkpoint_if_due(&mut self) -> Result<(), EngineError> {
        if self.engine.wants_checkpoint() { self.engine.checkpoint(Box::new(self.state.clone())) } else { Ok(()) }
    }
}

/// An error and its causes.
fn full_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
