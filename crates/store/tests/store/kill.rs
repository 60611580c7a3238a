//! kill -9 at random moments, then an audit in both directions.
//!
//! The test's binary starts itself as the child. Sixteen tasks of the child each write one record after
//! another: a new row, an old row's end, the task's count, an event and a client token in one commit,
//! and tell the parent of every answer by one write to the pipe. So at most one write for each task is
//! unanswered when the kill comes, and everything that must stand in the store follows from the counts.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write as _},
    panic::resume_unwind,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use gureum_model::Scope;
use gureum_store::{DurableEngine, EngineError, Listed, Recall, Store, StoreError, TokenKey, Transaction, WriteError};

use crate::support::{Counter, Item, ItemRow, Random, Schema, TestClock, draft, engine, item, names};

const DIRECTORY: &str = "GUREUM_STORE_TEST_DIRECTORY";
const TASKS: u64 = 16;
/// Rows that each task keeps.
const KEPT: u64 = 8;
/// So small that a checkpoint is nearly always being written.
const SMALLEST_JOURNAL: u64 = 64 << 10;
const LIVES: u64 = 3;
const KILLS_PER_LIFE: u64 = 10;

fn counter_key(task: u64) -> String {
    format!("task-{task:02}")
}

fn record(task: u64, number: u64) -> Item {
    let name = write_name(task, number);
    Item { body: name.repeat(64).into_bytes(), peer: Some(counter_key(task)), name, ..item(number * TASKS + task) }
}

fn write_name(task: u64, number: u64) -> String {
    format!("w-{task:02}-{number:06}")
}

fn token(task: u64, number: u64) -> TokenKey {
    TokenKey::new(&Scope::default(), "test.Write", &write_name(task, number))
}

fn key(task: u64, number: u64) -> String {
    ItemRow::list_key(&Scope::default(), record(task, number).id)
}

/// Write `number` of a task, and the sequence of its event. Done once, however often it is asked for.
fn write_once(transaction: &mut Transaction<'_, Schema>, task: u64, number: u64) -> u64 {
    if let Recall::Answered(answer) = transaction.recall(&token(task, number), number.into()) {
        return u64::from_le_bytes(answer.try_into().unwrap());
    }
    transaction.put(ItemRow(record(task, number)));
    if number > KEPT {
        transaction.delete::<ItemRow>(&key(task, number - KEPT));
    }
    transaction.put(Counter { name: counter_key(task), value: number });
    let sequence = transaction.emit(draft(write_name(task, number), false));
    transaction.remember(&token(task, number), number.into(), sequence.to_le_bytes().into());
    sequence
}

/// One write, so that the parent sees a line or nothing.
fn tell(line: String) {
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

async fn work(store: Store<Schema>, task: u64) {
    let mut number = store.read().counters.get(&counter_key(task)).map_or(0, |row| row.value);
    let mut random = Random(task << 32 | u64::from(std::process::id()));
    loop {
        // A caller who does not know whether its last call came through makes it again.
        let again = number > 0 && random.below(4) == 0;
        number += u64::from(!again);
        match random.below(12) {
            0 => {
                let refused = store.write(move |transaction| {
                    write_once(transaction, task, number + 1);
                    Err::<(), _>("refused")
                });
                assert_eq!(refused.await, Err(WriteError::Refused("refused")));
            }
            1 => {
                let panicked = store.write(move |transaction| -> Result<(), ()> {
                    write_once(transaction, task, number + 1);
                    resume_unwind(Box::new("a decision panics"))
                });
                assert_eq!(panicked.await, Err(WriteError::Store(StoreError::Panicked)));
            }
            _ => {}
        }
        let sequence = store.write(move |transaction| Ok::<_, ()>(write_once(transaction, task, number))).await.unwrap();
        tell(format!("\nack {task} {number} {sequence}\n"));
    }
}

/// Not a test of its own: what the parent starts.
#[test]
#[ignore = "the tests of this file start it"]
fn child() {
    let Some(directory) = env::var_os(DIRECTORY) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let engine = DurableEngine::open(Path::new(&directory)).unwrap().with_smallest_journal(SMALLEST_JOURNAL);
    let store: Store<Schema> = Store::open(engine, TestClock::default().options()).unwrap();
    tell("\nready\n".into());
    let tasks: Vec<_> = (0..TASKS).map(|task| runtime.spawn(work(store.clone(), task))).collect();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
}

fn start_child(directory: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["kill::child", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// What a child said until it was killed.
#[derive(Debug, Default)]
struct Said {
    ready: bool,
    /// Sequences by task and number.
    acknowledged: BTreeMap<(u64, u64), u64>,
    answers: u64,
}

enum Moment {
    AfterStart(Duration),
    AfterReady(Duration),
}

fn run_and_kill(directory: &Path, moment: Moment) -> Said {
    let mut child = start_child(directory);
    let (ready_sender, ready) = mpsc::channel();
    let output = BufReader::new(child.stdout.take().unwrap());
    let reader = thread::spawn(move || {
        let mut said = Said::default();
        // A line that the kill cut is no answer: it has no end, or is cut before its last number.
        let whole = |line: &str| line.ends_with('\n');
        let mut output = output;
        let mut line = String::new();
        while output.read_line(&mut line).unwrap() > 0 {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["ready"] => {
                    said.ready = true;
                    let _ = ready_sender.send(());
                }
                ["ack", numbers @ ..] if whole(&line) => {
                    let numbers: Vec<u64> = numbers.iter().map(|number| number.parse().unwrap()).collect();
                    let [task, number, sequence] = numbers.try_into().unwrap();
                    said.answers += 1;
                    let before = said.acknowledged.insert((task, number), sequence);
                    assert!(before.is_none_or(|before| before == sequence), "a repeated call got another answer");
                }
                _ => {}
            }
            line.clear();
        }
        said
    });
    match moment {
        Moment::AfterStart(delay) => thread::sleep(delay),
        Moment::AfterReady(delay) => {
            let _ = ready.recv_timeout(Duration::from_secs(60));
            thread::sleep(delay);
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

/// What was acknowledged in all lives of one directory.
type Ledger = BTreeMap<(u64, u64), u64>;

/// Everything acknowledged is there, nothing is there twice, and nothing else is there.
fn audit(directory: &Path, ledger: &Ledger) -> u64 {
    let store: Store<Schema> = Store::open(engine(directory, SMALLEST_JOURNAL), TestClock::default().options()).unwrap();
    let state = store.read();
    let events: Vec<(u64, &str)> = state.events_after(0).map(|event| (event.sequence, event.resource_id.as_str())).collect();
    assert!(events.iter().map(|(sequence, _)| *sequence).eq(1..=state.sequence()), "the outbox has a gap or a repeat");
    let mut expected_rows = 0;
    let mut written = Vec::new();
    for task in 0..TASKS {
        let count = state.counters.get(&counter_key(task)).map_or(0, |row| row.value);
        let acknowledged = ledger.range((task, 0)..(task + 1, 0)).next_back().map_or(0, |((_, number), _)| *number);
        assert!(count >= acknowledged, "task {task}: {acknowledged} writes were acknowledged, {count} are there");
        assert!(count <= acknowledged + KILLS_PER_LIFE, "task {task}: more is there than was ever asked for");
        for number in count.saturating_sub(KEPT) + 1..=count {
            let row = state.items.get(&key(task, number)).unwrap_or_else(|| panic!("task {task}: row {number} is lost"));
            assert_eq!(row.record.0, record(task, number));
            expected_rows += 1;
        }
        assert_eq!(state.items.find("peer", &counter_key(task)).count() as u64, count.min(KEPT));
        let own = write_name(task, 0)[..5].to_owned();
        let of_task = events.iter().filter(|(_, name)| name.starts_with(&own)).map(|(_, name)| (*name).to_owned());
        assert!(of_task.eq((1..=count).map(|number| write_name(task, number))), "task {task}: an event is lost, doubled or out of order");
        written.push(count);
    }
    assert_eq!(state.items.len() as u64, expected_rows, "rows are there that nobody wrote");
    assert_eq!(written.iter().sum::<u64>(), state.sequence());
    for ((task, number), sequence) in ledger {
        assert_eq!(events[*sequence as usize - 1].1, write_name(*task, *number), "an acknowledged event is another one now");
    }
    audit_tokens(&store, ledger.clone(), written);
    drop(store);
    // Waits until this process has let go of it.
    drop(engine(directory, SMALLEST_JOURNAL));
    state.sequence()
}

fn audit_tokens(store: &Store<Schema>, ledger: Ledger, written: Vec<u64>) {
    let looked = store.write(move |transaction| {
        for ((task, number), sequence) in ledger {
            let answer = transaction.recall(&token(task, number), number.into());
            assert_eq!(answer, Recall::Answered(sequence.to_le_bytes().into()));
            assert_eq!(transaction.recall(&token(task, number), 0), Recall::Mismatch);
        }
        for (task, count) in (0..TASKS).zip(written) {
            assert_eq!(transaction.recall(&token(task, count + 1), (count + 1).into()), Recall::New);
        }
        Err::<(), _>("looked")
    });
    let looked = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(looked);
    assert_eq!(looked, Err(WriteError::Refused("looked")));
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_and_nothing_happens_twice() {
    let seed = env::var("GUREUM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64);
    let (mut random, begun) = (Random(seed), Instant::now());
    let (mut kills, mut answers, mut events, mut while_opening, mut in_checkpoint) = (0, 0, 0, 0, 0);
    println!("seed {seed} (GUREUM_SEED repeats the delays)");
    for _ in 0..LIVES {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::new();
        for kill in 0..KILLS_PER_LIFE {
            let moment = if kill % 3 == 2 {
                Moment::AfterStart(Duration::from_micros(random.below(60_000)))
            } else {
                Moment::AfterReady(Duration::from_micros(random.below(220_000)))
            };
            let said = run_and_kill(folder.path(), moment);
            kills += 1;
            answers += said.answers;
            while_opening += u64::from(!said.ready);
            in_checkpoint += u64::from(names(folder.path(), "checkpoint-").iter().any(|name| name.ends_with(".new")));
            for (write, sequence) in said.acknowledged {
                let before = ledger.insert(write, sequence);
                assert!(before.is_none_or(|before| before == sequence), "a repeated call got another answer");
            }
            // Now and then it is killed again before anyone has looked.
            if random.below(3) > 0 || kill + 1 == KILLS_PER_LIFE {
                audit(folder.path(), &ledger);
            }
        }
        events += audit(folder.path(), &ledger);
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "seed {seed}: {kills} kills ({while_opening} before the store was open, {in_checkpoint} within a checkpoint), \
         {answers} answers, {events} events, {seconds:.1} s"
    );
    assert!(answers > kills * 10, "the children hardly wrote: this run shows nothing");
}

#[test]
fn a_directory_has_one_user_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = start_child(folder.path());
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while line.trim() != "ready" {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0);
    }
    let refusal = DurableEngine::open(folder.path()).unwrap_err();
    assert!(matches!(&refusal, EngineError::InUse { path } if path == folder.path()), "{refusal}");
    assert!(refusal.to_string().contains("in use"));
    child.kill().unwrap();
    child.wait().unwrap();
    let own = DurableEngine::open(folder.path()).unwrap();
    assert!(matches!(DurableEngine::open(folder.path()), Err(EngineError::InUse { .. })), "twice in one process");
    drop(own);
    DurableEngine::open(folder.path()).unwrap();
}
