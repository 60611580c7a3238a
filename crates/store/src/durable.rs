//! The embedded engine: a journal that is the truth, and sled for the checkpoints that shorten it.
//!
//! ```text
//! LOCK                        one process at a time
//! checkpoint-0000000007/      sled: every live row as of the end of journal 6
//! journal-0000000007          every group since, one fdatasync each
//! checkpoint-0000000008.new/  being written; not yet believed
//! journal-0000000008          groups since that checkpoint was begun
//! ```
//!
//! A commit is one append and one `fdatasync`. When the journal has grown to half of the live data, a
//! new one is begun and a thread writes all live rows into a fresh sled, closes it, reads it back,
//! syncs it, and renames it into place; only then do its predecessors go. So:
//!
//! - sled is never written while it is the truth. sled's `flush` is no disk barrier (its issue 1452)
//!   and it may fail to open after an abrupt stop (1527, 1533); neither can touch what was acknowledged,
//!   because a sled that a crash interrupts is thrown away and the journals still hold everything.
//! - Rows are packed: a sled that is written once, in order, has no garbage, where one that is updated
//!   in place grows to three or four times its live data.
//! - Opening reads the checkpoint, then the journals, cuts off what the crash left unfinished, and
//!   removes what is no longer needed. It never asks a person.
//!
//! The other way, each group as one sled batch with `flush` and `fdatasync` of sled's own file, is
//! measured beside this one in `benches/`.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    engine::{Change, Engine, EngineError, Group, Loaded, Snapshot},
    journal::{Journal, io_error},
};

/// Below this a checkpoint is not worth its file: replaying 4 MiB takes a few hundredths of a second.
const SMALLEST_JOURNAL_TO_CHECKPOINT: u64 = 4 << 20;

/// sled frees its lock a moment after it is dropped, when its threads have ended.
const SLED_LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// sled's page cache while a checkpoint is written or read. Rows pass through it once.
const SLED_CACHE_BYTES: u64 = 8 << 20;

const META_KEY: &[u8] = b"\0meta";

/// Keeps a store in a directory.
#[derive(Debug)]
pub struct DurableEngine {
    directory: PathBuf,
    generation: u64,
    journal: Option<Journal>,
    /// Bytes of live rows at the last checkpoint.
    live_bytes: Arc<AtomicU64>,
    checkpointing: Option<JoinHandle<()>>,
    journal_before_checkpoint: u64,
    /// Held as long as the engine lives.
    _lock: File,
}

impl DurableEngine {
    /// Opens a directory, which is made if there is none. Only one process may have it open.
    pub fn open(directory: &Path) -> Result<Self, EngineError> {
        fs::create_dir_all(directory).map_err(io_error("create", directory))?;
        let path = directory.join("LOCK");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io_error("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(EngineError::InUse { path: directory.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
        }
        Ok(Self {
            directory: directory.to_owned(),
            generation: 0,
            journal: None,
            live_bytes: Arc::default(),
            checkpointing: None,
            journal_before_checkpoint: SMALLEST_JOURNAL_TO_CHECKPOINT,
            _lock: lock,
        })
    }

    /// Checkpoints already at this many bytes of journal, for tests that want many of them.
    pub fn with_smallest_journal(mut self, bytes: u64) -> Self {
        self.journal_before_checkpoint = bytes;
        self
    }

    fn checkpoint_path(&self, generation: u64) -> PathBuf {
        self.directory.join(format!("checkpoint-{generation:010}"))
    }

    fn journal_path(&self, generation: u64) -> PathBuf {
        self.directory.join(format!("journal-{generation:010}"))
    }
}

impl Engine for DurableEngine {
    fn load(&mut self, entry: &mut dyn FnMut(Change) -> Result<(), EngineError>) -> Result<Loaded, EngineError> {
        let found = Found::look(&self.directory)?;
        let base = found.checkpoints.keys().next_back().copied().unwrap_or(0);
        let mut loaded = Loaded::default();
        if base > 0 {
            let (checkpoint, bytes) = read_checkpoint(&self.checkpoint_path(base), entry)?;
            loaded = checkpoint;
            self.live_bytes.store(bytes, Ordering::Relaxed);
        }
        for generation in found.journals.keys().copied().filter(|generation| *generation >= base) {
            let journal = Journal::replay(&self.journal_path(generation), |group| {
                if group.revision > loaded.revision {
                    loaded = Loaded { revision: group.revision, sequence: group.sequence };
                    group.changes.into_iter().try_for_each(&mut *entry)?;
                }
                Ok(())
            })?;
            self.generation = generation;
            self.journal = Some(journal);
        }
        if self.journal.is_none() {
            self.generation = base;
            self.journal = Some(Journal::create(&self.journal_path(base))?);
        }
        remove_older(&self.directory, &found, base)?;
        sync_directory(&self.directory)?;
        Ok(loaded)
    }

    fn append(&mut self, group: &Group) -> Result<(), EngineError> {
        match &mut self.journal {
            Some(journal) => journal.append(group),
            None => Err(EngineError::Io {
                operation: "append before load to",
                path: self.directory.clone(),
                source: io::ErrorKind::NotConnected.into(),
            }),
        }
    }

    fn wants_checkpoint(&self) -> bool {
        let threshold = self.journal_before_checkpoint.max(self.live_bytes.load(Ordering::Relaxed) / 2);
        let busy = self.checkpointing.as_ref().is_some_and(|thread| !thread.is_finished());
        !busy && self.journal.as_ref().is_some_and(|journal| journal.length() >= threshold)
    }

    fn checkpoint(&mut self, snapshot: Box<dyn Snapshot>) -> Result<(), EngineError> {
        let generation = self.generation + 1;
        self.journal = Some(Journal::create(&self.journal_path(generation))?);
        // Before a group in the new journal is acknowledged, the journal's name must be durable.
        sync_directory(&self.directory)?;
        self.generation = generation;
        let (directory, path, live_bytes) = (self.directory.clone(), self.checkpoint_path(generation), self.live_bytes.clone());
        let write = move || match write_checkpoint(&directory, &path, snapshot.as_ref(), generation) {
            Ok(bytes) => live_bytes.store(bytes, Ordering::Relaxed),
            // The journals still hold everything, so the next checkpoint may try again.
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "a checkpoint was not written; the journal goes on"),
        };
        let thread = thread::Builder::new().name("checkpoint".into()).spawn(write);
        self.checkpointing = Some(thread.map_err(io_error("start the checkpoint of", &self.directory))?);
        Ok(())
    }
}

impl Drop for DurableEngine {
    fn drop(&mut self) {
        if let Some(thread) = self.checkpointing.take() {
            // A checkpoint that panicked left only a directory that nobody believes.
            let _ = thread.join();
        }
    }
}

/// What stands in a store's directory.
#[derive(Debug, Default)]
struct Found {
    checkpoints: BTreeMap<u64, PathBuf>,
    journals: BTreeMap<u64, PathBuf>,
    unfinished: Vec<PathBuf>,
}

impl Found {
    fn look(directory: &Path) -> Result<Self, EngineError> {
        let mut found = Self::default();
        for entry in fs::read_dir(directory).map_err(io_error("list", directory))? {
            let path = entry.map_err(io_error("list", directory))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            let number = |prefix: &str| name.strip_prefix(prefix).and_then(|digits| digits.parse::<u64>().ok());
            if let Some(generation) = number("checkpoint-") {
                found.checkpoints.insert(generation, path);
            } else if let Some(generation) = number("journal-") {
                found.journals.insert(generation, path);
            } else if name.ends_with(".new") {
                found.unfinished.push(path);
            }
        }
        Ok(found)
    }
}

fn remove_older(directory: &Path, found: &Found, base: u64) -> Result<(), EngineError> {
    for path in &found.unfinished {
        fs::remove_dir_all(path).map_err(io_error("remove", path))?;
    }
    for (_, path) in found.checkpoints.range(..base) {
        fs::remove_dir_all(path).map_err(io_error("remove", path))?;
    }
    for (_, path) in found.journals.range(..base) {
        fs::remove_file(path).map_err(io_error("remove", path))?;
    }
    sync_directory(directory)
}

/// Writes, checks and publishes a checkpoint, and removes what it replaces. Answers the bytes of its rows.
fn write_checkpoint(directory: &Path, path: &Path, snapshot: &dyn Snapshot, generation: u64) -> Result<u64, EngineError> {
    let unfinished = path.with_extension("new");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(io_error("remove", &unfinished))?;
    }
    let bytes = fill(&unfinished, snapshot)?;
    let mut rows = 0u64;
    let (read, _) = read_checkpoint(&unfinished, &mut |_| {
        rows += 1;
        Ok(())
    })?;
    if (read.revision, read.sequence) != (snapshot.revision(), snapshot.sequence()) {
        return Err(EngineError::Checkpoint { path: unfinished, reason: "it tells another revision than was written".into() });
    }
    sync_tree(&unfinished)?;
    fs::rename(&unfinished, path).map_err(io_error("rename", &unfinished))?;
    sync_directory(directory)?;
    remove_older(directory, &Found { unfinished: Vec::new(), ..Found::look(directory)? }, generation)?;
    tracing::debug!(rows, bytes, generation, "checkpoint written");
    Ok(bytes)
}

fn fill(path: &Path, snapshot: &dyn Snapshot) -> Result<u64, EngineError> {
    let failed = |error: sled::Error| EngineError::Checkpoint { path: path.to_owned(), reason: error.to_string() };
    let database = open_sled(path)?;
    let (mut rows, mut bytes) = (0u64, 0u64);
    snapshot.for_each(&mut |table, key, value| {
        let key = sled_key(table, key);
        let mut stored = crc32c::crc32c_append(crc32c::crc32c(&key), &value).to_le_bytes().to_vec();
        stored.extend_from_slice(&value);
        rows += 1;
        bytes += (key.len() + stored.len()) as u64;
        database.insert(key, stored).map(drop).map_err(failed)
    })?;
    let meta = [snapshot.revision(), snapshot.sequence(), rows].map(u64::to_le_bytes).concat();
    database.insert(META_KEY, meta).map_err(failed)?;
    database.flush().map_err(failed)?;
    Ok(bytes)
}

/// Reads a checkpoint, checking every row, and answers what it tells of itself and the bytes of its rows.
fn read_checkpoint(path: &Path, entry: &mut dyn FnMut(Change) -> Result<(), EngineError>) -> Result<(Loaded, u64), EngineError> {
    let bad = |reason: &str| EngineError::Checkpoint { path: path.to_owned(), reason: reason.to_owned() };
    let database = open_sled(path)?;
    let meta = database.get(META_KEY).map_err(|error| bad(&error.to_string()))?.ok_or_else(|| bad("it was never finished"))?;
    let number = |place: usize| meta.get(place * 8..place * 8 + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    let (Some(revision), Some(sequence), Some(expected)) = (number(0), number(1), number(2)) else {
        return Err(bad("its description is cut short"));
    };
    let (mut rows, mut bytes) = (0u64, 0u64);
    for item in database.iter() {
        let (key, stored) = item.map_err(|error| bad(&error.to_string()))?;
        if key == META_KEY {
            continue;
        }
        let change = check_row(&key, &stored).ok_or_else(|| bad("a row's checksum does not hold"))?;
        rows += 1;
        bytes += (key.len() + stored.len()) as u64;
        entry(change)?;
    }
    if rows != expected {
        return Err(bad(&format!("it holds {rows} rows of {expected}")));
    }
    Ok((Loaded { revision, sequence }, bytes))
}

fn check_row(key: &[u8], stored: &[u8]) -> Option<Change> {
    let (check, value) = stored.split_at_checked(4)?;
    let check = u32::from_le_bytes(check.try_into().ok()?);
    if crc32c::crc32c_append(crc32c::crc32c(key), value) != check {
        return None;
    }
    let (table, key) = std::str::from_utf8(key).ok()?.split_once('\0')?;
    Some(Change { table: table.to_owned(), key: key.to_owned(), value: Some(value.to_vec()) })
}

fn sled_key(table: &str, key: &str) -> Vec<u8> {
    [table.as_bytes(), b"\0", key.as_bytes()].concat()
}

fn open_sled(path: &Path) -> Result<sled::Db, EngineError> {
    // A crash while sled was being read may leave these; sled 0.34 stumbles over them (issue 1527) and
    // makes them anew.
    if let Ok(entries) = fs::read_dir(path) {
        for leftover in entries.flatten().map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with(".generating")) {
            fs::remove_file(&leftover).map_err(io_error("remove", &leftover))?;
        }
    }
    let config = sled::Config::new().path(path).flush_every_ms(None).cache_capacity(SLED_CACHE_BYTES).mode(sled::Mode::HighThroughput);
    // Real time, not the region's: this waits for another thread to close a file.
    #[allow(clippy::disallowed_methods, reason = "waits for a thread of this process, not in domain time")]
    let begun = Instant::now();
    loop {
        match config.open() {
            Ok(database) => return Ok(database),
            Err(sled::Error::Io(error)) if begun.elapsed() < SLED_LOCK_PATIENCE && error.to_string().contains("lock") => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(EngineError::Checkpoint { path: path.to_owned(), reason: error.to_string() }),
        }
    }
}

fn sync_tree(directory: &Path) -> Result<(), EngineError> {
    for entry in fs::read_dir(directory).map_err(io_error("list", directory))? {
        let path = entry.map_err(io_error("list", directory))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path).and_then(|file| file.sync_all()).map_err(io_error("sync", &path))?;
        }
    }
    sync_directory(directory)
}

fn sync_directory(directory: &Path) -> Result<(), EngineError> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(io_error("sync", directory))
}
