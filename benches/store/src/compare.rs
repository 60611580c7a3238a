//! Three ways to be durable, side by side: a 512-byte value and one index entry in each write.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use gureum_store::{IndexSink, Record, Store};
use serde::{Deserialize, Serialize};

use crate::{
    Failure, open_patiently, options, percentile,
    ways::{Put, RawAppend, SledBatch, Way, Writer},
};

/// Written before anything is measured; what is measured overwrites them in random order.
const ROWS: u64 = 20_000;
const VALUE: usize = 512;
const MEASURED: Duration = Duration::from_secs(8);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Note {
    key: String,
    index: String,
    value: String,
}

impl Record for Note {
    const TABLE: &'static str = "note";

    fn key(&self) -> String {
        self.key.clone()
    }

    fn index(&self, add: IndexSink<'_>) {
        add("value", &self.index);
    }
}

gureum_store::schema! {
    pub struct Schema { notes: Note }
}

/// Where the writes of one way go.
#[derive(Clone)]
enum Target {
    Gureum(Store<Schema>),
    Other(Writer),
}

impl Target {
    async fn put(&self, put: Put) -> Result<(), Failure> {
        match self {
            Self::Gureum(store) => {
                let value = String::from_utf8(put.value)?;
                let note = Note { key: put.key, index: put.index, value };
                let written = store.write(move |transaction| {
                    transaction.put(note);
                    Ok::<_, Arc<str>>(())
                });
                Ok(written.await.map_err(|error| error.to_string())?)
            }
            Self::Other(writer) => writer.put(put).await,
        }
    }
}

struct Measured {
    per_second: f64,
    p50: Duration,
    p99: Duration,
    /// Bytes on disk over live bytes, and the time to open again; where there is something to open.
    size: f64,
    reopen: Option<Duration>,
}

pub async fn run(folder: &Path) -> Result<(), Failure> {
    println!("a {VALUE}-byte value and an index entry in one transaction; {ROWS} rows, overwritten at random for {MEASURED:?}");
    println!("| way | callers | tx/s | p50 | p99 | bytes on disk / live | open again |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for callers in [1, 64] {
        print(callers, "Gureum: journal, sled checkpoints", gureum(folder, callers).await?);
        print(callers, "sled batch, flush, fdatasync", other::<SledBatch>(folder, callers).await?);
        print(callers, "raw append, fdatasync", other::<RawAppend>(folder, callers).await?);
    }
    Ok(())
}

fn print(callers: u64, way: &str, measured: Measured) {
    let Measured { per_second, p50, p99, size, reopen } = measured;
    let milliseconds = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
    let (size, reopen) = match reopen {
        Some(reopen) => (format!("{size:.2}"), milliseconds(reopen)),
        None => ("–".into(), "–".into()),
    };
    println!("| {way} | {callers} | {per_second:.0} | {} | {} | {size} | {reopen} |", milliseconds(p50), milliseconds(p99));
}

async fn gureum(folder: &Path, callers: u64) -> Result<Measured, Failure> {
    let folder = tempfile::tempdir_in(folder)?;
    let open = || -> Result<Store<Schema>, Failure> { Ok(Store::open(open_patiently(folder.path())?, options())?) };
    let mut measured = drive(Target::Gureum(open()?), callers).await?;
    drop(open_patiently(folder.path())?);
    measured.size = bytes(folder.path())? / live_bytes();
    let begun = Instant::now();
    let rows = open()?.read().notes.len();
    measured.reopen = Some(begun.elapsed());
    assert_eq!(rows as u64, ROWS);
    Ok(measured)
}

async fn other<W: Way<Write = Put>>(folder: &Path, callers: u64) -> Result<Measured, Failure> {
    let folder = tempfile::tempdir_in(folder)?;
    let (writer, thread) = Writer::start(W::open(folder.path())?);
    let mut measured = drive(Target::Other(writer), callers).await?;
    thread.join().map_err(|_| "the writer panicked")?;
    measured.size = bytes(folder.path())? / live_bytes();
    let begun = Instant::now();
    let rows = W::open(folder.path())?.rows();
    if rows > 0 {
        measured.reopen = Some(begun.elapsed());
        assert_eq!(rows as u64, ROWS);
    }
    Ok(measured)
}

async fn drive(target: Target, callers: u64) -> Result<Measured, Failure> {
    let fillers: Vec<_> = (0..256).map(|filler| tokio::spawn(fill(target.clone(), filler))).collect();
    for filler in fillers {
        filler.await??;
    }
    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers).map(|caller| tokio::spawn(call(target.clone(), caller, begun))).collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let per_second = times.len() as f64 / begun.elapsed().as_secs_f64();
    Ok(Measured { per_second, p50: percentile(&mut times, 50), p99: percentile(&mut times, 99), size: 0.0, reopen: None })
}

async fn fill(target: Target, filler: u64) -> Result<(), Failure> {
    for number in (filler..ROWS).step_by(256) {
        target.put(row(number)).await?;
    }
    Ok(())
}

async fn call(target: Target, caller: u64, begun: Instant) -> Result<Vec<Duration>, Failure> {
    let mut random = caller.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut times = Vec::new();
    while begun.elapsed() < MEASURED {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let put = row(random % ROWS);
        let sent = Instant::now();
        target.put(put).await?;
        times.push(sent.elapsed());
    }
    Ok(times)
}

fn row(number: u64) -> Put {
    Put { key: format!("row/i-{number:017x}"), index: format!("index/{}", number % 1000), value: vec![b'x'; VALUE] }
}

fn live_bytes() -> f64 {
    (0..ROWS).map(row).map(|put| put.value.len() + 2 * put.key.len() + put.index.len()).sum::<usize>() as f64
}

fn bytes(path: &Path) -> Result<f64, Failure> {
    let mut sum = 0.0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() { bytes(&entry.path())? } else { metadata.len() as f64 };
    }
    Ok(sum)
}
