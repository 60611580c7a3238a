//! Engines that block and fail, decisions that panic: who gets which answer, and when.

use std::{
    collections::BTreeMap,
    io,
    panic::resume_unwind,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use futures::{FutureExt, future::join_all, poll};
use gureum_store::{
    Engine, EngineError, MemoryEngine, Store, StoreError, WriteError,
    engine::{Change, Group, Loaded, Snapshot},
};
use tokio::time::timeout;

use crate::support::{Counter, Schema, TestClock, UNSTORABLE, draft, engine, fast_folder, names, open};

type Groups = Arc<Mutex<Vec<Group>>>;

/// What an append ends in.
enum Verdict {
    Durable,
    Failed,
}

/// Tells of each group that it is given, and waits to be told what becomes of it.
struct GatedEngine {
    entered: mpsc::Sender<Group>,
    verdicts: mpsc::Receiver<Verdict>,
    failing_checkpoint: bool,
    appended: bool,
}

/// The test's side of a [`GatedEngine`].
struct Gate {
    entered: mpsc::Receiver<Group>,
    verdicts: mpsc::Sender<Verdict>,
}

impl Gate {
    fn new() -> (GatedEngine, Self) {
        let (entered_sender, entered) = mpsc::channel();
        let (verdicts, verdict_receiver) = mpsc::channel();
        let engine = GatedEngine { entered: entered_sender, verdicts: verdict_receiver, failing_checkpoint: false, appended: false };
        (engine, Self { entered, verdicts })
    }

    /// Waits until a group stands before the disk.
    fn next_group(&self) -> Group {
        self.entered.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    fn let_pass(&self) {
        self.verdicts.send(Verdict::Durable).unwrap();
    }
}

fn failure(operation: &'static str) -> EngineError {
    EngineError::Io { operation, path: "/disk/journal".into(), source: io::Error::from_raw_os_error(5) }
}

impl Engine for GatedEngine {
    fn load(&mut self, _entry: &mut dyn FnMut(Change) -> Result<(), EngineError>) -> Result<Loaded, EngineError> {
        Ok(Loaded::default())
    }

    fn append(&mut self, group: &Group) -> Result<(), EngineError> {
        self.entered.send(group.clone()).unwrap();
        self.appended = true;
        match self.verdicts.recv_timeout(Duration::from_secs(10)).unwrap() {
            Verdict::Durable => Ok(()),
            Verdict::Failed => Err(failure("sync")),
        }
    }

    fn wants_checkpoint(&self) -> bool {
        self.failing_checkpoint && self.appended
    }

    fn checkpoint(&mut self, _snapshot: Box<dyn Snapshot>) -> Result<(), EngineError> {
        Err(failure("create"))
    }
}

/// Remembers the groups that it was given.
#[derive(Default)]
struct RecordingEngine(Groups);

impl Engine for RecordingEngine {
    fn load(&mut self, _entry: &mut dyn FnMut(Change) -> Result<(), EngineError>) -> Result<Loaded, EngineError> {
        Ok(Loaded::default())
    }

    fn append(&mut self, group: &Group) -> Result<(), EngineError> {
        self.0.lock().unwrap().push(group.clone());
        Ok(())
    }

    fn wants_checkpoint(&self) -> bool {
        false
    }

    fn checkpoint(&mut self, _snapshot: Box<dyn Snapshot>) -> Result<(), EngineError> {
        Ok(())
    }
}

fn counter(name: impl Into<String>, value: u64) -> Counter {
    Counter { name: name.into(), value }
}

async fn put(store: &Store<Schema>, name: &str, value: u64) -> Result<(), WriteError<String>> {
    let counter = counter(name, value);
    store
        .write(move |transaction| {
            transaction.emit(draft(&counter.name, false));
            transaction.put(counter);
            Ok(())
        })
        .await
}

/// Refuses, and tells what it saw.
async fn look(store: &Store<Schema>, name: &'static str) -> Result<(), WriteError<String>> {
    store.write(move |transaction| Err(format!("{:?}", transaction.counters.get(name).map(|row| row.value)))).await
}

async fn panics(store: &Store<Schema>) -> Result<(), WriteError<String>> {
    store
        .write(|transaction| {
            transaction.put(counter("half", 1));
            transaction.emit(draft("half", false));
            resume_unwind(Box::new("a decision panics"))
        })
        .await
}

fn stopped<T: std::fmt::Debug>(answer: &Result<T, WriteError<String>>) -> bool {
    matches!(answer, Err(WriteError::Store(StoreError::Stopped(reason))) if reason.contains("sync /disk/journal"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_append_stops_everything_and_publishes_nothing() {
    let (engine, gate) = Gate::new();
    let store = open(engine);
    let before = tokio::spawn({
        let store = store.clone();
        async move { put(&store, "before", 1).await }
    });
    gate.next_group();
    // These wait behind it, and become one group.
    let group = tokio::spawn({
        let store = store.clone();
        async move {
            let puts = (0..20).map(|number| {
                let store = store.clone();
                async move { put(&store, &format!("lost-{number}"), 1).await }
            });
            let (puts, saw, panicked) = futures::join!(join_all(puts), look(&store, "lost-0"), panics(&store));
            (puts, saw, panicked)
        }
    });
    let queued = store.sequence();
    tokio::time::sleep(Duration::from_millis(50)).await;
    gate.let_pass();
    assert_eq!(before.await.unwrap(), Ok(()));
    let lost = gate.next_group();
    assert_eq!(lost.sequence, 21, "the writes were not one group");
    // And this one is queued when the disk fails.
    let behind = tokio::spawn({
        let store = store.clone();
        async move { put(&store, "behind", 1).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    gate.verdicts.send(Verdict::Failed).unwrap();

    let (puts, saw, panicked) = group.await.unwrap();
    assert!(puts.iter().all(stopped), "{puts:?}");
    assert!(stopped(&saw), "a refusal that saw what was lost must not be told: {saw:?}");
    assert_eq!(panicked, Err(WriteError::Store(StoreError::Panicked)));
    assert!(stopped(&behind.await.unwrap()));
    let reason = timeout(Duration::from_secs(5), store.stopped()).await.unwrap();
    assert!(reason.contains("sync /disk/journal") && reason.contains("os error 5"), "{reason}");
    assert!(stopped(&put(&store, "after", 1).await));
    assert!(stopped(&look(&store, "before").await));

    let state = store.read();
    assert!(state.counters.iter().map(|row| row.name.as_str()).eq(["before"]));
    assert_eq!((state.sequence(), state.events_after(0).count(), *queued.borrow()), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_waits_for_what_it_saw() {
    let (engine, gate) = Gate::new();
    let store = open(engine);
    let mut first = Box::pin(put(&store, "first", 1));
    assert!(poll!(&mut first).is_pending());
    gate.next_group();
    let mut write = Box::pin(put(&store, "seen", 7));
    let mut refusal = Box::pin(look(&store, "seen"));
    assert!(poll!(&mut write).is_pending() && poll!(&mut refusal).is_pending());
    gate.let_pass();
    gate.next_group();
    // Both decisions have run; neither is on disk.
    assert_eq!(first.await, Ok(()));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(poll!(&mut refusal).is_pending(), "a refusal told of a state that a power cut could undo");
    assert!(poll!(&mut write).is_pending());
    assert!(store.read().counters.get("seen").is_none(), "a reader saw a state that a power cut could undo");
    gate.let_pass();
    assert_eq!(refusal.await, Err(WriteError::Refused("Some(7)".into())));
    assert_eq!(write.await, Ok(()));
    assert_eq!(store.read().counters.get("seen").unwrap().value, 7);
}

#[tokio::test]
async fn a_bad_write_harms_no_neighbour_in_its_group() {
    let groups = Groups::default();
    let store = open(RecordingEngine(groups.clone()));
    let unstorable = store.write(|transaction| {
        transaction.put(counter("fine", 1));
        transaction.put(counter("bad", UNSTORABLE));
        Ok::<_, String>(())
    });
    let deletes_and_refuses = store.write(|transaction| {
        transaction.delete::<Counter>("one");
        transaction.emit(draft("one", true));
        Err::<(), _>(format!("{} counters", transaction.counters.len()))
    });
    let answers = futures::join!(
        put(&store, "one", 1),
        panics(&store),
        put(&store, "two", 2),
        deletes_and_refuses,
        unstorable,
        put(&store, "three", 3),
        look(&store, "half"),
    );
    let panicked = Err(WriteError::Store(StoreError::Panicked));
    assert_eq!(answers.0, Ok(()));
    assert_eq!(answers.1, panicked);
    assert_eq!(answers.2, Ok(()));
    assert_eq!(answers.3, Err(WriteError::Refused("1 counters".into())));
    assert_eq!(answers.4, panicked);
    assert_eq!(answers.5, Ok(()));
    assert_eq!(answers.6, Err(WriteError::Refused("None".into())));

    let state = store.read();
    let counters: BTreeMap<_, _> = state.counters.iter().map(|row| (row.name.as_str(), (row.value, row.revision))).collect();
    assert_eq!(counters, BTreeMap::from([("one", (1, 1)), ("two", (2, 2)), ("three", (3, 3))]));
    assert!(state.events_after(0).map(|event| (event.sequence, event.resource_id.as_str())).eq([(1, "one"), (2, "two"), (3, "three")]));
    let groups = groups.lock().unwrap();
    let keys: Vec<&str> = groups.iter().flat_map(|group| &group.changes).filter(|it| it.table == "counter").map(|it| &*it.key).collect();
    assert_eq!(keys, ["one", "two", "three"], "what was refused reached the engine");
    assert_eq!(groups.last().map(|group| (group.revision, group.sequence)), Some((3, 3)));
}

#[tokio::test]
async fn a_write_whose_caller_has_gone_still_happens() {
    let (engine, gate) = Gate::new();
    let store = open(engine);
    assert_eq!(put(&store, "left", 1).now_or_never(), None);
    gate.next_group();
    gate.let_pass();
    let mut sequence = store.sequence();
    timeout(Duration::from_secs(5), sequence.wait_for(|sequence| *sequence == 1)).await.unwrap().unwrap();
    assert_eq!(store.read().counters.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_cannot_begin_stops_the_store_but_takes_nothing_back() {
    let (mut engine, gate) = Gate::new();
    engine.failing_checkpoint = true;
    let store = open(engine);
    gate.let_pass();
    assert_eq!(put(&store, "kept", 1).await, Ok(()), "what is durable was not acknowledged");
    let reason = timeout(Duration::from_secs(5), store.stopped()).await.unwrap();
    assert!(reason.contains("create /disk/journal"), "{reason}");
    assert_eq!(store.read().counters.len(), 1);
}

#[tokio::test]
async fn a_snapshot_never_changes() {
    let store = open(RecordingEngine::default());
    put(&store, "a", 1).await.unwrap();
    let snapshot = store.read();
    put(&store, "a", 2).await.unwrap();
    put(&store, "b", 1).await.unwrap();
    assert_eq!((snapshot.counters.len(), snapshot.counters.get("a").unwrap().value, snapshot.sequence()), (1, 1, 1));
    assert_eq!(store.read().counters.get("a").unwrap().value, 2);
}

#[tokio::test]
async fn time_never_goes_back_not_even_over_a_restart() {
    let folder = fast_folder();
    let (early, late) = (TestClock::default(), TestClock::default());
    late.advance(Duration::from_secs(60));
    let now = |store: Store<Schema>| async move {
        store
            .write(|transaction| {
                transaction.emit(draft("a", false));
                Ok::<_, ()>(transaction.now())
            })
            .await
            .unwrap()
    };
    let first = now(Store::open(engine(folder.path(), 1 << 20), late.options()).unwrap()).await;
    let second = now(Store::open(engine(folder.path(), 1 << 20), early.options()).unwrap()).await;
    assert_eq!((first, second), (late.now(), late.now()));
}

/// A snapshot that ends in an error or a panic half-way.
struct BadSnapshot {
    revision: u64,
    panics: bool,
}

impl Snapshot for BadSnapshot {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn sequence(&self) -> u64 {
        0
    }

    fn for_each(&self, entry: gureum_store::engine::RowSink<'_>) -> Result<(), EngineError> {
        entry("counter", "c", vec![0; 100])?;
        if self.panics {
            resume_unwind(Box::new("a snapshot panics"));
        }
        Err(failure("read"))
    }
}

fn group(revision: u64) -> Group {
    let change = Change { table: "counter".into(), key: format!("{revision:03}"), value: Some(vec![1; 50]) };
    Group { revision, sequence: 0, changes: vec![change] }
}

#[test]
fn a_checkpoint_that_fails_leaves_the_journals_in_charge() {
    let folder = fast_folder();
    {
        let mut engine = engine(folder.path(), 1);
        engine.load(&mut |_| Ok(())).unwrap();
        for (revision, panics) in [(1, false), (2, true), (3, false)] {
            engine.append(&group(revision)).unwrap();
            assert!(engine.wants_checkpoint() || revision > 1);
            engine.checkpoint(Box::new(BadSnapshot { revision, panics })).unwrap();
        }
        engine.append(&group(4)).unwrap();
    }
    assert_eq!(names(folder.path(), "journal-").len(), 4);
    assert_eq!(names(folder.path(), "checkpoint-").len(), 1, "only the one that panicked may have left something");
    let (mut engine, mut rows) = (engine(folder.path(), 1), 0);
    let loaded = engine.load(&mut |_| {
        rows += 1;
        Ok(())
    });
    assert_eq!((loaded.unwrap().revision, rows), (4, 4));
    assert_eq!(names(folder.path(), "checkpoint-").len(), 0);
}

#[test]
fn an_engine_takes_only_higher_revisions() {
    let folder = fast_folder();
    let mut engine = engine(folder.path(), 1 << 20);
    assert!(matches!(engine.append(&group(1)), Err(EngineError::Io { .. })), "an append before the load");
    engine.load(&mut |_| Ok(())).unwrap();
    engine.append(&group(5)).unwrap();
    for revision in [0, 4, 5] {
        assert!(matches!(engine.append(&group(revision)), Err(EngineError::Stale { last: 5, .. })));
    }
    engine.append(&group(6)).unwrap();
}

#[tokio::test]
async fn a_barred_write_runs_no_decision() {
    tokio::task_local! {
        static BARRED: bool;
    }
    let store = open(MemoryEngine).guarded(|| !BARRED.try_with(|barred| *barred).unwrap_or(false));
    let ran = Arc::new(Mutex::new(0));
    let write = || {
        let ran = ran.clone();
        store.write(move |transaction| {
            *ran.lock().unwrap() += 1;
            transaction.emit(draft("a", false));
            Ok::<_, ()>(())
        })
    };
    assert_eq!(BARRED.scope(true, write()).await, Err(WriteError::Store(StoreError::Barred)));
    assert_eq!((*ran.lock().unwrap(), store.read().revision()), (0, 0));
    // A clone asks too, and others may write meanwhile.
    assert_eq!(BARRED.scope(true, store.clone().write(|_| Ok::<_, ()>(()))).await, Err(WriteError::Store(StoreError::Barred)));
    write().await.unwrap();
    assert_eq!((*ran.lock().unwrap(), store.read().revision()), (1, 1));
}
