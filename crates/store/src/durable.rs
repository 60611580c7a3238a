//! The embedded engine: a journal that is the truth, and sled for the checkpoints that shorten it.
//!
//! ```text
//! LOCK                        one process at a time
//! checkpoint-0000000007/      sled: every live row as of the end of journal 6
//! checkpoint-0000000007.copy  the same once more, for the day on which sled does not open
//! journal-0000000007          every group since, one fdatasync each
//! checkpoint-0000000008.new/  being written; not yet believed
//! journal-0000000008          groups since that checkpoint was begun
//! ```
//!
//! A commit is one append and one `fdatasync`. When the journal has grown to half the size of the live data, a
//! new one is begun and a thread writes all live rows into a fresh sled, closes it, reads it back,
//! syncs it, and renames it into place; only then do its predecessors go. The copy of its predecessor
//! makes room before, and its own is written after. So:
//!
//! - sled's `flush` is no disk barrier (its issue 1452) and it may fail to open after an abrupt stop
//!   (1527, 1533); neither can touch what was acknowledged, because a sled that a crash interrupts is
//!   thrown away and the journals still hold everything. Once in place it is only read; what sled writes
//!   on opening is zeros over the zeros behind its end, as a test holds.
//! - A checkpoint that was damaged later is made anew from its copy, piece by piece where need be.
//! - Rows are packed and compressed, and a sled that is written once, in order, takes little more room than its pieces,
//!   where one that is updated in place grows to three or four times. So the directory stays under three times its live
//!   data, at rest and while one checkpoint replaces another; only what is below a few MiB has files as large as those.
//! - Opening reads the journals, cuts off what the crash left unfinished, then takes from the checkpoint what
//!   they do not replace, and removes what is no longer needed. It never asks a person.
//!
//! The other way, each group as one sled batch with `flush` and `fdatasync` of sled's own file, is
//! measured beside this one in `benches/`.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::{
    checkpoint::{self, Broken, Contents, Description, Pieces, Rows, sync_directory},
    copy,
    engine::{Change, Engine, EngineError, Group, Loaded, Snapshot},
    journal::{Journal, Place, io_error},
};

/// Below this a checkpoint is not worth its file: replaying 2 MiB takes a hundredth of a second.
const SMALLEST_JOURNAL_TO_CHECKPOINT: u64 = 2 << 20;

/// How long a journal may grow before it is worth a checkpoint: at most half the live data, and no longer than that two
/// checkpoints, one replacing the other, and the journals meanwhile stay under three times the live data. Room for
/// one group is left.
fn longest_journal(live: u64, checkpoint: u64) -> u64 {
    let left = (live * 27 / 10).saturating_sub(2 * checkpoint);
    // The one that began the checkpoint stays until it is written, and may have grown while the one before was.
    (left / (2 * JOURNALS_BEFORE_WAITING)).clamp(live / 8, live / 2)
}

/// While a checkpoint is written, the next journal may grow to so many times what begins one. Writes that
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
    /// Bytes of journal that are worth a checkpoint, if they are more than `journal_before_checkpoint`.
    longest_journal: Arc<AtomicU64>,
    checkpointing: Option<JoinHandle<()>>,
    journal_before_checkpoint: u64,
    /// The checkpoint or its copy is not what it should be.
    incomplete: bool,
    /// The last checkpoint can be read from its copy alone, which must stay until there is another.
    needs_copy: Arc<AtomicBool>,
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
            longest_journal: Arc::default(),
            checkpointing: None,
            journal_before_checkpoint: SMALLEST_JOURNAL_TO_CHECKPOINT,
            incomplete: false,
            needs_copy: Arc::default(),
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
        let base = found.checkpoints.keys().chain(found.copies.keys()).max().copied().unwrap_or(0);
        let mut checkpoint = if base > 0 { Some(Checkpoint::open(&self.checkpoint_path(base), &self.copy_path(base))?) } else { None };
        let mut loaded = checkpoint.as_ref().map_or_else(Loaded::default, Checkpoint::loaded);
        let last = found.journals.keys().next_back().copied().filter(|last| *last >= base);
        // A checkpoint is begun after its journal is durable, so a crash leaves none without one.
        if base > 0 && !found.journals.contains_key(&base) {
            return Err(EngineError::Missing { path: self.journal_path(base) });
        }
        let mut later = Later::default();
        for generation in found.journals.keys().copied().filter(|generation| *generation >= base) {
            let place = match last {
                Some(last) if last == generation && (generation > base || base == 0) => Place::Begun,
                Some(last) if last == generation => Place::Last,
                _ => Place::Earlier,
            };
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
        if let Some(checkpoint) = &mut checkpoint {
            let contents = checkpoint.read(&mut |change| {
                seen(&change);
                if later.replaces(&change) { Ok(()) } else { entry(change) }
            })?;
            let longest = longest_journal(contents.bytes, size_of(&self.checkpoint_path(base)));
            self.longest_journal.store(longest, Ordering::Relaxed);
            self.needs_copy.store(checkpoint.is_damaged, Ordering::Relaxed);
            self.incomplete = checkpoint.is_damaged || !found.copies.contains_key(&base);
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

    fn copy_path(&self, generation: u64) -> PathBuf {
        copy_of(&self.checkpoint_path(generation))
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
        if self.incomplete {
            return true;
        }
        let threshold = self.journal_before_checkpoint.max(self.longest_journal.load(Ordering::Relaxed));
        let busy = self.checkpointing.as_ref().is_some_and(|thread| !thread.is_finished());
        let limit = if busy { threshold.saturating_mul(JOURNALS_BEFORE_WAITING) } else { threshold };
        self.journal.as_ref().is_some_and(|journal| self.earlier_journals + journal.length() >= limit)
    }

    fn checkpoint(&mut self, snapshot: Box<dyn Snapshot>) -> Result<(), EngineError> {
        if snapshot.revision() != self.revision {
            return Err(EngineError::Stale { revision: snapshot.revision(), last: self.revision });
        }
        self.wait_for_checkpoint();
        // Whether or not it comes to be: if the disk is full, the next is tried when the journal is long.
        self.incomplete = false;
        let generation = self.generation + 1;
        self.journal = Some(Journal::create(&self.journal_path(generation), self.revision)?);
        // Before a group in the new journal is acknowledged, the journal's name must be durable.
        sync_directory(&self.directory)?;
        self.generation = generation;
        self.earlier_journals = 0;
        let (directory, path, longest) = (self.directory.clone(), self.checkpoint_path(generation), self.longest_journal.clone());
        let needs_copy = self.needs_copy.clone();
        let write = move || match write_checkpoint(&directory, &path, snapshot.as_ref(), generation, needs_copy.load(Ordering::Relaxed)) {
            Ok(bytes) => {
                longest.store(bytes, Ordering::Relaxed);
                needs_copy.store(false, Ordering::Relaxed);
            }
            // The journals still hold everything, so the next checkpoint may try again.
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "a checkpoint was not written; the journal goes on"),
        };
        let thread = thread::Builder::new().name("checkpoint".into()).spawn(write);
        self.checkpointing = Some(thread.map_err(io_error("start the checkpoint of", &self.directory))?);
        Ok(())
    }
}

/// A checkpoint whose description was read, from its sled or from its copy.
struct Checkpoint {
    path: PathBuf,
    copy: PathBuf,
    pieces: Pieces<'static>,
    description: Description,
    /// Its sled is not what was written.
    is_damaged: bool,
}

impl Checkpoint {
    fn open(path: &Path, copy: &Path) -> Result<Self, EngineError> {
        let of = |(pieces, description), is_damaged| Self { path: path.to_owned(), copy: copy.to_owned(), pieces, description, is_damaged };
        Pieces::of_sled(path).map(|opened| of(opened, false)).or_else(|reason| {
            let opened = copy::open(copy).map_err(|of_copy| unreadable(path, &reason, &of_copy))?;
            warn_of_copy(path, &reason);
            Ok(of(opened, true))
        })
    }

    fn loaded(&self) -> Loaded {
        Loaded { revision: self.description.revision, sequence: self.description.sequence }
    }

    /// Hands over every row: from sled, and from the first piece that is not what was written, from the copy.
    fn read(&mut self, entry: &mut dyn FnMut(Change) -> Result<(), EngineError>) -> Result<Contents, EngineError> {
        let mut rows = Rows::new(self.description);
        match rows.take(&mut self.pieces, entry) {
            Ok(()) => {}
            Err(Broken::Refused(error)) => return Err(error),
            Err(Broken::Piece(reason)) if self.is_damaged => return Err(unreadable(&self.path, "its copy is damaged too", &reason)),
            Err(Broken::Piece(reason)) => {
                let failed = |of_copy: String| unreadable(&self.path, &reason, &of_copy);
                let (pieces, description) = copy::open(&self.copy).map_err(failed)?;
                if description != self.description {
                    return Err(failed("its copy is of another checkpoint".into()));
                }
                warn_of_copy(&self.path, &reason);
                self.is_damaged = true;
                let taken = usize::try_from(rows.pieces).unwrap_or(usize::MAX);
                rows.take(&mut Pieces::new(pieces.skip(taken)), entry).map_err(|broken| match broken {
                    Broken::Refused(error) => error,
                    Broken::Piece(of_copy) => failed(of_copy),
                })?;
            }
        }
        rows.finish().map_err(|of_copy| unreadable(&self.path, "its copy is damaged too", &of_copy))
    }
}

fn unreadable(path: &Path, reason: &str, of_copy: &str) -> EngineError {
    EngineError::Checkpoint { path: path.to_owned(), reason: format!("{reason}; nor can its copy: {of_copy}") }
}

fn warn_of_copy(path: &Path, reason: &str) {
    tracing::warn!(checkpoint = %path.display(), reason, "a checkpoint cannot be read back; its copy is read, and it is made anew");
}

/// Where the copy of a checkpoint stands.
fn copy_of(checkpoint: &Path) -> PathBuf {
    checkpoint.with_extension("copy")
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
    copies: BTreeMap<u64, PathBuf>,
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
            let copied = name.strip_suffix(".copy").and_then(|name| name.strip_prefix("checkpoint-")?.parse::<u64>().ok());
            if let Some(generation) = copied {
                found.copies.insert(generation, path);
            } else if let Some(generation) = number("checkpoint-") {
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
    let older = [&found.checkpoints, &found.copies, &found.journals].into_iter().flat_map(|paths| paths.range(..base));
    remove(found.unfinished.iter().chain(older.map(|(_, path)| path)))?;
    sync_directory(directory)
}

fn remove<'a>(mut paths: impl Iterator<Item = &'a PathBuf>) -> Result<(), EngineError> {
    paths.try_for_each(|path| {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.map_err(io_error("remove", path))
    })
}

/// Writes, checks and publishes a checkpoint, and removes what it replaces. Answers how long the journal may grow now.
fn write_checkpoint(directory: &Path, path: &Path, snapshot: &dyn Snapshot, generation: u64, needs_copy: bool) -> Result<u64, EngineError> {
    if !needs_copy {
        // So that there are never two checkpoints and a copy. What it is a copy of was read, or written and read back.
        remove(Found::look(directory)?.copies.values())?;
    }
    let contents = checkpoint::write(path, snapshot)?;
    // Its predecessors may go only when its name is durable.
    sync_directory(directory)?;
    remove_older(directory, &Found { unfinished: Vec::new(), ..Found::look(directory)? }, generation)?;
    if let Err(error) = copy::write(&copy_of(path), path).and_then(|()| sync_directory(directory)) {
        tracing::warn!(error = &error as &dyn std::error::Error, "a checkpoint has no copy until the next one");
    }
    tracing::debug!(rows = contents.rows, bytes = contents.bytes, generation, "checkpoint written");
    Ok(longest_journal(contents.bytes, size_of(path)))
}

/// Bytes of a file, or of all files in a directory; of what cannot be read, none.
fn size_of(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let file = fs::metadata(path).ok().filter(|found| found.is_file()).map_or(0, |found| found.len());
    file + entries.map(|entry| size_of(&entry.path())).sum::<u64>()
}

/// Makes a directory whose name is durable, that of each directory above it that was missing too.
fn create_directory(directory: &Path) -> Result<(), EngineError> {
    let parent = |path: &Path| path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let missing = directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
    // Its own name is always synced: who made it may have died before.
    let parents: Vec<PathBuf> = missing.chain([directory]).map(parent).collect();
    fs::create_dir_all(parent(directory)).map_err(io_error("create", directory))?;
    // What is in a store is nobody else's to read.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io_error("create", directory))?;
    parents.iter().try_for_each(|parent| match sync_directory(parent) {
        // It could not be read by us, so it was not made by us.
        Err(EngineError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    })
}
