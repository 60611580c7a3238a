//! Way (a), sled batch and flush and fdatasync, under the kills that `crates/store/tests/store/kill.rs` gives
//! the journal.
//!
//! The program starts itself as the child. Sixteen tasks of the child each write one record after another: a
//! new row, an old row's end, the task's count and an event in one batch, and tell the parent of every
//! answer by one write to the pipe. One write in four is made again. The parent kills at a random moment,
//! now and then while sled is still being opened, and then looks in both directions.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    Failure,
    ways::{SledBatch, Way, Writer},
};

/// The argument that makes this program the child.
pub const CHILD: &str = "kills-child";

const TASKS: u64 = 16;
/// Rows that each task keeps.
const KEPT: u64 = 8;
const LIVES: u64 = 30;
const KILLS_PER_LIFE: u64 = 10;

/// Keys that come with a value or go.
type Changes = Vec<(String, Option<Vec<u8>>)>;

struct Batches(SledBatch);

impl Way for Batches {
    type Write = Changes;

    fn open(folder: &Path) -> Result<Self, Failure> {
        SledBatch::open(folder).map(Self)
    }

    fn commit(&mut self, group: &[Changes]) -> Result<(), Failure> {
        let mut batch = sled::Batch::default();
        for (key, value) in group.iter().flatten() {
            match value {
                Some(value) => batch.insert(key.as_bytes(), value.as_slice()),
                None => batch.remove(key.as_bytes()),
            }
        }
        self.0.commit_batch(batch)
    }

    fn rows(&self) -> usize {
        self.0.rows()
    }
}

fn row_key(task: u64, number: u64) -> String {
    format!("row/{task:02}/{number:06}")
}

fn event_key(task: u64, number: u64) -> String {
    format!("event/{task:02}/{number:06}")
}

fn count_key(task: u64) -> String {
    format!("count/{task:02}")
}

fn body(task: u64, number: u64) -> Vec<u8> {
    format!("w-{task:02}-{number:06}").repeat(64).into_bytes()
}

fn changes(task: u64, number: u64) -> Changes {
    let mut changes = vec![
        (row_key(task, number), Some(body(task, number))),
        (count_key(task), Some(number.to_be_bytes().to_vec())),
        (event_key(task, number), Some(Vec::new())),
    ];
    if number > KEPT {
        changes.push((row_key(task, number - KEPT), None));
    }
    changes
}

fn count_of(database: &sled::Db, task: u64) -> Result<u64, Failure> {
    let value = database.get(count_key(task))?;
    Ok(value.map_or(Ok([0; 8]), |value| <[u8; 8]>::try_from(&*value)).map(u64::from_be_bytes)?)
}

fn tell(line: String) -> Result<(), Failure> {
    Ok(std::io::stdout().lock().write_all(line.as_bytes())?)
}

/// What the parent starts: it writes until it is killed.
pub async fn child(folder: &Path) -> Result<(), Failure> {
    let way = Batches::open(folder)?;
    let counts: Vec<u64> = (0..TASKS).map(|task| count_of(way.0.database(), task)).collect::<Result<_, _>>()?;
    let (writer, _thread) = Writer::start(way);
    tell("\nready\n".into())?;
    let tasks = (0..TASKS).zip(counts).map(|(task, count)| tokio::spawn(work(writer.clone(), task, count)));
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    Ok(())
}

async fn work(writer: Writer<Changes>, task: u64, mut number: u64) -> Result<(), Failure> {
    let mut random = Random(task << 32 | u64::from(std::process::id()));
    loop {
        // A caller who does not know whether its last call came through makes it again.
        let again = number > 0 && random.below(4) == 0;
        number += u64::from(!again);
        writer.put(changes(task, number)).await?;
        tell(format!("\nack {task} {number}\n"))?;
    }
}

/// What a child said until it was killed.
#[derive(Default)]
struct Said {
    ready: bool,
    acknowledged: BTreeMap<u64, u64>,
    answers: u64,
}

fn run_and_kill(folder: &Path, after_ready: bool, delay: Duration) -> Result<Said, Failure> {
    let mut child = Command::new(env::current_exe()?).arg(CHILD).arg(folder).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let (ready_sender, ready) = mpsc::channel();
    let mut output = BufReader::new(child.stdout.take().ok_or("no output")?);
    let reader = thread::spawn(move || {
        let (mut said, mut line) = (Said::default(), String::new());
        while output.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["ready"] => {
                    said.ready = true;
                    let _ = ready_sender.send(());
                }
                // A line that the kill cut is no answer.
                ["ack", task, number] if line.ends_with('\n') => {
                    if let (Ok(task), Ok(number)) = (task.parse(), number.parse()) {
                        said.answers += 1;
                        said.acknowledged.insert(task, number);
                    }
                }
                _ => {}
            }
            line.clear();
        }
        said
    });
    if after_ready {
        // A child that cannot open its store ends, and the channel with it.
        let _ = ready.recv_timeout(Duration::from_secs(60));
    }
    thread::sleep(delay);
    child.kill()?;
    child.wait()?;
    reader.join().map_err(|_| "the reader panicked".into())
}

/// Everything acknowledged is there, batches are whole, and nothing else is there. Answers the events.
fn audit(folder: &Path, ledger: &BTreeMap<u64, u64>) -> Result<u64, Failure> {
    let way = Batches::open(folder)?;
    let database = way.0.database();
    let (mut rows, mut events) = (0, 0);
    for task in 0..TASKS {
        let count = count_of(database, task)?;
        let acknowledged = ledger.get(&task).copied().unwrap_or(0);
        if count < acknowledged {
            return Err(format!("task {task}: {acknowledged} writes were acknowledged, {count} are there").into());
        }
        for number in count.saturating_sub(KEPT) + 1..=count {
            if database.get(row_key(task, number))?.as_deref() != Some(&body(task, number)) {
                return Err(format!("task {task}: row {number} of {count} is lost or another one").into());
            }
            rows += 1;
        }
        for number in 1..=count {
            if !database.contains_key(event_key(task, number))? {
                return Err(format!("task {task}: event {number} of {count} is lost").into());
            }
        }
        events += count;
    }
    let there = |prefix: &str| database.scan_prefix(prefix).filter(Result::is_ok).count() as u64;
    let found = (there("row/"), there("event/"));
    if found != (rows, events) {
        return Err(format!("rows and events are {found:?}, but ({rows}, {events}) were written").into());
    }
    Ok(events)
}

pub fn run(folder: &Path) -> Result<(), Failure> {
    let seed = env::var("GUREUM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.map_or_else(|| SystemTime::UNIX_EPOCH.elapsed().map(|time| time.as_nanos() as u64), Ok)?;
    let (mut random, begun) = (Random(seed), Instant::now());
    let (mut kills, mut answers, mut events, mut while_opening, mut failed_lives) = (0u64, 0, 0, 0u64, 0u64);
    for life in 0..LIVES {
        let folder = tempfile::tempdir_in(folder)?;
        let mut ledger = BTreeMap::new();
        for kill in 0..KILLS_PER_LIFE {
            let after_ready = kill % 3 != 2;
            let delay = Duration::from_micros(random.below(if after_ready { 220_000 } else { 60_000 }));
            let said = run_and_kill(folder.path(), after_ready, delay)?;
            kills += 1;
            answers += said.answers;
            while_opening += u64::from(!said.ready);
            ledger.extend(said.acknowledged);
            // sled answers some damage by a panic.
            let looked = catch_unwind(AssertUnwindSafe(|| audit(folder.path(), &ledger))).unwrap_or_else(|_| Err("sled panicked".into()));
            match looked {
                Ok(count) if kill + 1 == KILLS_PER_LIFE => events += count,
                Ok(_) => {}
                Err(failure) => {
                    println!("life {life}, kill {kill}: {failure}");
                    failed_lives += 1;
                    break;
                }
            }
        }
    }
    println!(
        "sled batch, flush, fdatasync; seed {seed}: {kills} kills in {LIVES} lives ({while_opening} before sled was open), {answers} answers, \
         {events} events; {failed_lives} lives ended with a loss or a sled that would not open; {:.0} s",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
