//! Writes to a store from several tasks at once and says `ack KEY;` for each answer, by one write(2).
//!
//! `acknowledge DIRECTORY COUNT`: for `tests/durability/syscalls.py`, which watches its system calls.

use std::{env, error::Error, io::Write as _, path::Path, sync::Arc};

use gureum_model::Timestamp;
use gureum_store::{DurableEngine, Options, Record, Store};
use serde::{Deserialize, Serialize};

const TASKS: usize = 16;

/// Small, so that a short run goes through several checkpoints.
const SMALLEST_JOURNAL: u64 = 64 << 10;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Note {
    key: String,
    text: String,
}

impl Record for Note {
    const TABLE: &'static str = "note";

    fn key(&self) -> String {
        self.key.clone()
    }
}

gureum_store::schema! {
    /// One table is enough to be durable or not.
    pub struct Schema {
        notes: Note,
    }
}

type Failure = Box<dyn Error + Send + Sync>;

/// 400 characters that compress to a half, as what services write does.
fn text(number: usize) -> String {
    let mut state = number as u64;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{state:016x}")
    };
    (0..25).map(|_| word()).collect()
}

async fn write(store: Store<Schema>, task: usize, count: usize) -> Result<(), Failure> {
    for number in 0..count {
        let key = format!("k-{task:02}-{number:05};");
        let note = Note { key: key.clone(), text: text(task * count + number) };
        let written = store.write(move |transaction| {
            transaction.put(note);
            Ok::<_, Arc<str>>(())
        });
        written.await.map_err(|error| error.to_string())?;
        let line = format!("ack {key}\n");
        std::io::stdout().lock().write_all(line.as_bytes())?;
    }
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let usage = "usage: acknowledge DIRECTORY COUNT";
    let directory = env::args().nth(1).ok_or(usage)?;
    let count: usize = env::args().nth(2).ok_or(usage)?.parse()?;
    let engine = DurableEngine::open(Path::new(&directory))?.with_smallest_journal(SMALLEST_JOURNAL);
    let options = Options { name: "acknowledge".into(), now: Box::new(|| Timestamp::EPOCH) };
    let store = Store::<Schema>::open(engine, options)?;
    let tasks: Vec<_> = (0..TASKS).map(|task| tokio::spawn(write(store.clone(), task, count / TASKS))).collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}
