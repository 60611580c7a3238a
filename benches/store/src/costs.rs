//! What one write and one start cost: `put` of a row with many index entries in a full table, and
//! opening a store of 100,000 rows from its checkpoint and from its journal.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use gureum_store::{DurableEngine, Engine, IndexSink, MemoryEngine, Record, Store, Tables};
use serde::{Deserialize, Serialize};

use crate::{Failure, open_patiently, options, percentile};

const ROWS: usize = 100_000;

/// As a busy instance has it: state, type, zone, subnet, image and some tags.
const INDEX_NAMES: [&str; 12] = ["f00", "f01", "f02", "f03", "f04", "f05", "f06", "f07", "f08", "f09", "f10", "f11"];

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resource {
    id: String,
    values: Vec<String>,
    body: String,
}

impl Record for Resource {
    const TABLE: &'static str = "resource";

    fn key(&self) -> String {
        format!("000000000000/us-east-1/{}", self.id)
    }

    fn index(&self, add: IndexSink<'_>) {
        for (name, value) in INDEX_NAMES.iter().zip(&self.values) {
            add(name, &format_args!("000000000000/us-east-1/{value}"));
        }
    }
}

gureum_store::schema! {
    pub struct Schema { resources: Resource }
}

impl Resource {
    /// Half of the values are shared by many rows, half by few, as states and subnets are.
    fn new(number: usize, round: usize, indexes: usize, body: usize) -> Self {
        let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let value = |place: usize| match place % 2 {
            0 => format!("{:02}", (number + round + place) % 7),
            _ => format!("subnet-{:017x}", (scattered >> 8).wrapping_add(round + place) % 20_000),
        };
        Self { id: format!("i-{scattered:017x}"), values: (0..indexes).map(value).collect(), body: "x".repeat(body) }
    }
}

async fn fill<T: Tables + gureum_store::Has<Resource>>(store: &Store<T>, indexes: usize, body: usize) -> Result<(), Failure> {
    for first in (0..ROWS).step_by(100) {
        let rows: Vec<_> = (first..first + 100).map(|number| Resource::new(number, 0, indexes, body)).collect();
        store
            .write(move |transaction| {
                rows.into_iter().for_each(|row| transaction.put(row));
                Ok::<_, Failure>(())
            })
            .await?;
    }
    Ok(())
}

pub async fn run(folder: &Path) -> Result<(), Failure> {
    puts().await?;
    loads(folder).await
}

/// Time of `put` alone, one row for each write, every index entry changed or none.
async fn puts() -> Result<(), Failure> {
    let store = Store::<Schema>::open(MemoryEngine, options())?;
    fill(&store, INDEX_NAMES.len(), 256).await?;
    println!("\nput of a row with 12 index entries, {ROWS} rows, one row for each write");
    for (what, round, from) in [("no entry changes", 0, 0), ("every entry changes", 1, 0), ("a new row", 0, ROWS)] {
        let mut times = Vec::new();
        let begun = Instant::now();
        for number in (0..ROWS).step_by(5) {
            let row = Resource::new(from + number, round, INDEX_NAMES.len(), 256);
            let taken = store.write(move |transaction| {
                let begun = Instant::now();
                transaction.put(row);
                Ok::<_, Failure>(begun.elapsed())
            });
            times.push(taken.await?);
        }
        let whole = begun.elapsed() / times.len() as u32;
        let mean = times.iter().sum::<Duration>() / times.len() as u32;
        println!(
            "  {what:20} put mean {mean:?}, p50 {:?}, p99 {:?}; the whole write {whole:?}",
            percentile(&mut times, 50),
            percentile(&mut times, 99)
        );
    }
    Ok(())
}

/// Time to open, rows of 1 KB with three index entries.
async fn loads(folder: &Path) -> Result<(), Failure> {
    println!("\nopening {ROWS} rows of 1 KB with three index entries");
    for (what, smallest) in [("from a journal", u64::MAX), ("from a checkpoint", 1 << 20)] {
        let folder = tempfile::tempdir_in(folder)?;
        let path = folder.path();
        let engine = DurableEngine::open(path)?.with_smallest_journal(smallest);
        let store = Store::<Schema>::open(engine, options())?;
        fill(&store, 3, 900).await?;
        drop(store);
        let mut times = Vec::new();
        for _ in 0..3 {
            let engine = open_patiently(path)?.with_smallest_journal(u64::MAX);
            let begun = Instant::now();
            let store = Store::<Schema>::open(engine, options())?;
            times.push(begun.elapsed());
            assert_eq!(store.read().resources.len(), ROWS);
        }
        let engine_only = {
            let mut engine = open_patiently(path)?;
            let begun = Instant::now();
            engine.load(&mut |_| Ok(()))?;
            begun.elapsed()
        };
        println!("  {what:20} {:?} (reading without decoding {engine_only:?})", percentile(&mut times, 50));
    }
    Ok(())
}
