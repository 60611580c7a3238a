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
//! A commit is one append and one `fdatasync`. When the journal has grown to the size of the live data, a
//! new one is begun and a thread writes all live rows into a fresh sled, closes it, reads it back,
//! syncs it, and renames it into place; only then do its predecessors go. So:
//!
//! - sled's `flush` is no disk barrier (its issue 1452) and it may fail to open after an abrupt stop
//!   (1527, 1533); neither can touch what was acknowledged, because a sled that a crash interrupts is
//!   thrown away and the journals still hold everything. Once in place it is only read; what sled writes
//!   on opening is zeros over the zeros behind its end, as a test holds.
//! - Rows are packed: a sled that is written once, in order, takes 1.44 times its rows, where one that is
//!   updated in place grows to three or four times. With the journal the directory stays
//!   under three times its live data. Up to six times were seen while one checkpoint replaces another.
//! - Opening reads the journals, cuts off what the crash left unfinished, then takes from the checkpoint what
//!   they do not replace, and removes what is no longer needed. It never asks a person.
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
};

use crate::{
    checkpoint::{self, Checkpoint, sync_directory},
    engine::{Change, Engine, EngineError, Group, Loaded, Snapshot},
    journal::{Journal, Place, io_error},
};

/// Below this a checkpoint is not worth its file: replaying 2 MiB takes a hundredth of a second.
const SMALLEST_JOURNAL_TO_CHECKPOINT: u64 = 2 << 20;

/// A journal of so many times the live data is worth a checkpoint. More saves writing, less saves room on the
/// disk. A checkpoint that cannot be compressed takes 1.5 times the live data, so that both stay below three times.
const JOURNAL_TO_LIVE_DATA: u64 = 1;

/// While a checkpoint is written, the journal may grow to so many times what begins one. Writes that
/// outrun the disk by more than that wait, so that the directory stays in proportion to what it holds.
const JOURNALS_BEFORE_WAITING: u64 = 2;

/// Keeps a store in a directory.
#[derive(Debug)]
pub struct DurableEngine {
    directory: PathBuf,
    generation: u64,
    /// The store's revision at the journal's end.
    revision: u64,
    /// None before the load and after a failed append, which is never tried again.
    journal: Option<Journal>,
    /// Bytes of the journals that were found before this one and are still needed.
    earlier_journals: u64,
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
        create_directory(directory)?;
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
            revision: 0,
            journal: None,
            earlier_journals: 0,
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

    /// Loads, and shows every change that the files tell of, also of rows that are gone or are others since.
    pub(crate) fn read(
        &mut self,
        seen: &mut dyn FnMut(&Change),
        entry: &mut dyn FnMut(Change) -> Result<(), EngineError>,
    ) -> Result<Loaded, EngineError> {
        let found = Found::look(&self.directory)?;
        let base = found.checkpoints.keys().next_back().copied().unwrap_or(0);
        let checkpoint = if base > 0 { Some(Checkpoint::open(&self.checkpoint_path(base))?) } else { None };
        let mut loaded = checkpoint.as_ref().map_or_else(Loaded::default, |it| Loaded { revision: it.revision, sequence: it.sequence });
        let last = found.journals.keys().next_back().copied().filter(|last| *last >= base);
        let mut later = Later::default();
        for generation in found.journals.keys().copied().filter(|generation| *generation >= base) {
            let place = if Some(generation) == last { Place::Last } else { Place::Earlier };
            let begins = loaded.revision;
            let journal = Journal::replay(&self.journal_path(generation), place, begins, |group| {
                loaded = Loaded { revision: group.revision, sequence: group.sequence };
                for change in group.changes {
                    seen(&change);
                    later.note(change);
                }
                Ok(())
            })?;
            self.earlier_journals += self.journal.replace(journal).map_or(0, |earlier| earlier.length());
        }
        if let Some(checkpoint) = checkpoint {
            let contents = checkpoint.read(&mut |change| {
                seen(&change);
                if later.replaces(&change) { Ok(()) } else { entry(change) }
            })?;
            self.live_bytes.store(contents.bytes, Ordering::Relaxed);
        }
        later.into_changes().try_for_each(entry)?;
        self.generation = last.unwrap_or(base);
        self.revision = loaded.revision;
        if self.journal.is_none() {
            self.journal = Some(Journal::create(&self.journal_path(base), loaded.revision)?);
        }
        remove_older(&self.directory, &found, base)?;
        Ok(loaded)
    }

    fn wait_for_checkpoint(&mut self) {
        if let Some(thread) = self.checkpointing.take() {
            // A checkpoint that panicked left only a directory that nobody believes.
            let _ = thread.join();
        }
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
        self.read(&mut |_| {}, entry)
    }

    fn append(&mut self, group: &Group) -> Result<(), EngineError> {
        if group.revision <= self.revision {
            return Err(EngineError::Stale { revision: group.revision, last: self.revision });
        }
        let Some(mut journal) = self.journal.take() else {
            let source = io::ErrorKind::NotConnected.into();
            return Err(EngineError::Io { operation: "append before a load or after a failure to", path: self.directory.clone(), source });
        };
        journal.append(group)?;
        self.journal = Some(journal);
        self.revision = group.revision;
        Ok(())
    }

    fn wants_checkpoint(&self) -> bool {
        let threshold = self.journal_before_checkpoint.max(self.live_bytes.load(Ordering::Relaxed) * JOURNAL_TO_LIVE_DATA);
        let busy = self.checkpointing.as_ref().is_some_and(|thread| !thread.is_finished());
        let limit = if busy { threshold.saturating_mul(JOURNALS_BEFORE_WAITING) } else { threshold };
        self.journal.as_ref().is_some_and(|journal| self.earlier_journals + journal.length() >= limit)
    }

    fn checkpoint(&mut self, snapshot: Box<dyn Snapshot>) -> Result<(), EngineError> {
        if snapshot.revision() != self.revision {
            return Err(EngineError::Stale { revision: snapshot.revision(), last: self.revision });
        }
        self.wait_for_checkpoint();
        let generation = self.generation + 1;
        self.journal = Some(Journal::create(&self.journal_path(generation), self.revision)?);
        // Before a group in the new journal is acknowledged, the journal's name must be durable.
        sync_directory(&self.directory)?;
        self.generation = generation;
        self.earlier_journals = 0;
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

/// What the journals say of each row last: a row that was written many times is read once.
#[derive(Default)]
struct Later(BTreeMap<String, BTreeMap<String, Option<Vec<u8>>>>);

impl Later {
    fn note(&mut self, change: Change) {
        match self.0.get_mut(&change.table) {
            Some(rows) => drop(rows.insert(change.key, change.value)),
            None => drop(self.0.insert(change.table, BTreeMap::from([(change.key, change.value)]))),
        }
    }

    /// Whether a row of the checkpoint is not what it was any more.
    fn replaces(&self, change: &Change) -> bool {
        self.0.get(&change.table).is_some_and(|rows| rows.contains_key(&change.key))
    }

    /// The rows that are there.
    fn into_changes(self) -> impl Iterator<Item = Change> {
        let row = |table: String, (key, value): (String, Option<Vec<u8>>)| {
            let value = value?;
            Some(Change { table, key, value: Some(value) })
        };
        self.0.into_iter().flat_map(move |(table, rows)| rows.into_iter().filter_map(move |one| row(table.clone(), one)))
    }
}

impl Drop for DurableEngine {
    fn drop(&mut self) {
        self.wait_for_checkpoint();
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
            } else if name.starts_with("checkpoint-") && name.ends_with(".new") {
                // Nothing else: the directory holds others' files too.
                found.unfinished.push(path);
            }
        }
        Ok(found)
    }
}

/// Removes what a checkpoint replaces, and what was never finished.
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
    let contents = checkpoint::write(path, snapshot)?;
    // Its predecessors may go only when its name is durable.
    sync_directory(directory)?;
    remove_older(directory, &Found { unfinished: Vec::new(), ..Found::look(directory)? }, generation)?;
    tracing::debug!(rows = contents.rows, bytes = contents.bytes, generation, "checkpoint written");
    Ok(contents.bytes)
}

/// Makes a directory whose name is durable, that of each directory above it that was missing too.
fn create_directory(directory: &Path) -> Result<(), EngineError> {
    let parent = |path: &Path| path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let missing = directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
    // Its own name is always synced: who made it may have died before.
    let parents: Vec<PathBuf> = missing.chain([directory]).map(parent).collect();
    fs::create_dir_all(directory).map_err(io_error("create", directory))?;
    parents.iter().try_for_each(|parent| match sync_directory(parent) {
        // It could not be read by us, so it was not made by us.
        Err(EngineError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    })
}
