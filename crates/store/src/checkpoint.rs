//! Checkpoints: every live row at one revision, in a sled of its own that is written once.
//!
//! The rows are one stream of changes (as `codec` writes them), cut into pieces that are sled's
//! values. A piece is checked as it is read:
//!
//! ```text
//! "\0meta"      = revision u64 · sequence u64 · rows u64 · form u64
//! number u64 BE = crc32c of number and bytes u32 · bytes compressed by LZ4, their length before them
//! ```
//!
//! In form 2 a tree of its own holds every three pieces. In the forms of older versions all stand in one tree, in
//! form 0, which has no number, without compression.
//!
//! sled writes a value, then, when a page has several, the whole page once more: with a row for each value the file
//! took 2.0 to 2.4 times its rows, with pieces of any size in one tree 1.6 to 2.7 times. A page with three values at
//! most is never written again: 1.04 times.
//!
//! When it is in its place its pieces are written once more, as they are, into a file beside it: the
//! [`copy`](crate::copy), for the day on which sled does not open or a piece is not what it was.

use std::{
    borrow::Cow,
    fs::{self, File},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use lz4_flex::block::{compress_prepend_size, decompress_size_prepended};

use crate::{
    codec::{Reader, encode_change},
    engine::{Change, EngineError, Loaded, Snapshot},
    journal::io_error,
};

/// sled frees its lock a moment after it is dropped, when its threads have ended.
const SLED_LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// sled's page cache while a checkpoint is written or read. Rows pass through it once.
const SLED_CACHE_BYTES: u64 = 8 << 20;

/// Bytes of rows in one piece, before they are compressed.
const PIECE: usize = 1 << 20;

/// Pieces that stand in one tree.
const PIECES_IN_A_TREE: u64 = 3;

const COMPRESSED: u64 = 1;
const IN_TREES: u64 = 2;

const META_KEY: &[u8] = b"\0meta";

/// What a checkpoint tells of itself.
#[derive(Debug, Default)]
pub struct Contents {
    pub loaded: Loaded,
    pub rows: u64,
    /// Bytes of the rows, keys included.
    pub bytes: u64,
}

/// Writes a checkpoint beside its place, reads it back, syncs it and puts it in its place. If that
/// fails, nothing of it is left.
pub fn write(path: &Path, snapshot: &dyn Snapshot) -> Result<Contents, EngineError> {
    let unfinished = path.with_extension("new");
    let written = write_unfinished(&unfinished, snapshot)
        .and_then(|contents| fs::rename(&unfinished, path).map_err(io_error("rename", &unfinished)).map(|()| contents));
    if written.is_err() {
        // The next start removes what cannot be removed now.
        let _ = fs::remove_dir_all(&unfinished);
    }
    written
}

fn write_unfinished(path: &Path, snapshot: &dyn Snapshot) -> Result<Contents, EngineError> {
    if path.exists() {
        fs::remove_dir_all(path).map_err(io_error("remove", path))?;
    }
    fill(path, snapshot)?;
    let contents = read(path, &mut |_| Ok(()))?;
    if (contents.loaded.revision, contents.loaded.sequence) != (snapshot.revision(), snapshot.sequence()) {
        return Err(EngineError::Checkpoint { path: path.to_owned(), reason: "it tells another revision than was written".into() });
    }
    sync_tree(path)?;
    Ok(contents)
}

fn fill(path: &Path, snapshot: &dyn Snapshot) -> Result<(), EngineError> {
    let failed = |reason: String| bad(path)(reason);
    let database = open_sled(path)?;
    let (mut rows, mut number, mut stream) = (0u64, 0u64, Vec::new());
    let mut store = |bytes: &[u8]| {
        let bytes = compress_prepend_size(bytes);
        let value = [&check(number, &bytes).to_le_bytes(), bytes.as_slice()].concat();
        let tree = database.open_tree(tree_name(number / PIECES_IN_A_TREE)).map_err(|error| failed(error.to_string()))?;
        let key = number.to_be_bytes();
        number += 1;
        tree.insert(key, value).map(drop).map_err(|error| failed(error.to_string()))
    };
    snapshot.for_each(&mut |table, key, value| {
        if !encode_change(table, key, Some(&value), &mut stream) {
            return Err(failed(format!("the row {key} of {table} has 4 GiB or more")));
        }
        rows += 1;
        let mut pieces = stream.chunks_exact(PIECE);
        pieces.by_ref().try_for_each(&mut store)?;
        let stored = stream.len() - pieces.remainder().len();
        stream.drain(..stored);
        Ok(())
    })?;
    if !stream.is_empty() {
        store(&stream)?;
    }
    let description = Description { revision: snapshot.revision(), sequence: snapshot.sequence(), rows, form: IN_TREES };
    database.insert(META_KEY, description.write()).and_then(|_| database.flush()).map(drop).map_err(|error| failed(error.to_string()))
}

/// Reads a checkpoint that has no copy yet, and checks every piece.
fn read(path: &Path, entry: &mut dyn FnMut(Change) -> Result<(), EngineError>) -> Result<Contents, EngineError> {
    let (mut sled, description) = Pieces::of_sled(path).map_err(bad(path))?;
    let mut rows = Rows::new(description);
    rows.take(&mut sled, entry).map_err(|broken| broken.error(path))?;
    rows.finish().map_err(bad(path))
}

fn bad(path: &Path) -> impl FnOnce(String) -> EngineError {
    let path = path.to_owned();
    move |reason| EngineError::Checkpoint { path, reason }
}

/// What a checkpoint says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    pub revision: u64,
    pub sequence: u64,
    rows: u64,
    form: u64,
}

impl Description {
    pub fn write(self) -> Vec<u8> {
        [self.revision, self.sequence, self.rows, self.form].map(u64::to_le_bytes).concat()
    }

    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut bytes = Reader(bytes);
        let (Some(revision), Some(sequence), Some(rows)) = (bytes.u64(), bytes.u64(), bytes.u64()) else {
            return Err("its description is cut short".into());
        };
        let form = bytes.u64().unwrap_or_default();
        if form > IN_TREES {
            return Err(format!("its form {form} is not one that this version reads; it was written by a newer one"));
        }
        Ok(Self { revision, sequence, rows, form })
    }
}

/// The pieces of a checkpoint in order, each with the checksum before its bytes.
pub struct Pieces<'a>(Box<dyn Iterator<Item = Result<Vec<u8>, String>> + 'a>);

impl<'a> Pieces<'a> {
    pub fn new(pieces: impl Iterator<Item = Result<Vec<u8>, String>> + 'a) -> Self {
        Self(Box::new(pieces))
    }

    pub fn of_sled(path: &Path) -> Result<(Self, Description), String> {
        let database = guarded(|| open_sled(path).map_err(|error| error.to_string()))?;
        let description = guarded(|| database.get(META_KEY).map_err(|error| error.to_string()))?;
        let description = Description::read(&description.ok_or("it was never finished")?)?;
        let trees = if description.form < IN_TREES { vec![(*database).clone()] } else { guarded(|| trees_of(&database))? };
        let mut entries =
            trees.into_iter().flat_map(|tree| tree.iter()).filter(|entry| !entry.as_ref().is_ok_and(|(key, _)| key == META_KEY));
        let mut number = 0u64;
        let pieces =
            std::iter::from_fn(move || {
                let entry = guarded(|| entries.next().transpose().map_err(|error| error.to_string())).transpose()?;
                let expected = number.to_be_bytes();
                number += 1;
                Some(entry.and_then(|(key, piece)| {
                    if *key == expected { Ok(piece.to_vec()) } else { Err(format!("its piece {} is missing", number - 1)) }
                }))
            });
        Ok((Self::new(pieces), description))
    }
}

fn tree_name(number: u64) -> String {
    format!("pieces-{number:010}")
}

/// The trees of a checkpoint's pieces in order.
fn trees_of(database: &sled::Db) -> Result<Vec<sled::Tree>, String> {
    let mut names = database.tree_names();
    names.retain(|name| name.starts_with(b"pieces-"));
    names.sort();
    names.iter().map(|name| database.open_tree(name).map_err(|error| error.to_string())).collect()
}

/// Some damage makes sled 0.34 panic instead of answering.
fn guarded<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("sled panicked over it".into()))
}

impl Iterator for Pieces<'_> {
    type Item = Result<Vec<u8>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// Why rows could not be taken.
pub enum Broken {
    /// A piece is not what was written; those before it were taken.
    Piece(String),
    /// Whoever takes the rows refused one.
    Refused(EngineError),
}

impl Broken {
    pub fn error(self, path: &Path) -> EngineError {
        match self {
            Self::Piece(reason) => bad(path)(reason),
            Self::Refused(error) => error,
        }
    }
}

/// The rows that a checkpoint's pieces make, which may come from sled and, from the first that is not what was
/// written, from the copy.
pub struct Rows {
    description: Description,
    /// Pieces that were taken.
    pub pieces: u64,
    rows: u64,
    bytes: u64,
    /// What was taken and does not end a row.
    stream: Vec<u8>,
}

impl Rows {
    pub fn new(description: Description) -> Self {
        Self { description, pieces: 0, rows: 0, bytes: 0, stream: Vec::new() }
    }

    /// Checks every piece, and hands over every row.
    pub fn take(&mut self, pieces: &mut Pieces<'_>, entry: &mut dyn FnMut(Change) -> Result<(), EngineError>) -> Result<(), Broken> {
        for piece in pieces {
            let piece = piece.map_err(Broken::Piece)?;
            let opened = self.open(&piece);
            let bytes = opened.ok_or_else(|| Broken::Piece(format!("the checksum of its piece {} does not hold", self.pieces)))?;
            self.pieces += 1;
            self.bytes += bytes.len() as u64;
            self.stream.extend_from_slice(&bytes);
            let rows = &mut self.rows;
            let taken = take_rows(&self.stream, |change| {
                *rows += 1;
                entry(change)
            });
            self.stream.drain(..taken.map_err(Broken::Refused)?);
        }
        match self.missing() {
            Some(reason) => Err(Broken::Piece(reason)),
            None => Ok(()),
        }
    }

    pub fn finish(self) -> Result<Contents, String> {
        let Description { revision, sequence, .. } = self.description;
        match self.missing() {
            Some(reason) => Err(reason),
            None => Ok(Contents { loaded: Loaded { revision, sequence }, rows: self.rows, bytes: self.bytes }),
        }
    }

    fn missing(&self) -> Option<String> {
        let whole = self.rows == self.description.rows && self.stream.is_empty();
        (!whole).then(|| format!("it holds {} rows of {}", self.rows, self.description.rows))
    }

    /// The bytes of the next piece, if they are the ones that were written.
    fn open<'a>(&self, piece: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let (sum, bytes) = piece.split_first_chunk()?;
        if u32::from_le_bytes(*sum) != check(self.pieces, bytes) {
            return None;
        }
        let compressed = self.description.form >= COMPRESSED;
        if compressed { decompress_size_prepended(bytes).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(bytes)) }
    }
}

/// Hands over the rows that stand whole at the front, and answers how many bytes they took.
fn take_rows(stream: &[u8], mut entry: impl FnMut(Change) -> Result<(), EngineError>) -> Result<usize, EngineError> {
    let mut reader = Reader(stream);
    let mut left = stream.len();
    while let Some(change) = reader.change() {
        entry(change)?;
        left = reader.0.len();
    }
    Ok(stream.len() - left)
}

fn check(number: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_be_bytes()), bytes)
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

/// Makes the names in a directory durable.
pub fn sync_directory(directory: &Path) -> Result<(), EngineError> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(io_error("sync", directory))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// As versions before compression wrote it.
    #[test]
    fn a_checkpoint_without_a_form_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut rows = Vec::new();
        assert!(encode_change("table", "key", Some(b"value"), &mut rows));
        let database = open_sled(folder.path()).unwrap();
        let key = 0u64.to_be_bytes();
        database.insert(key, [&check(0, &rows).to_le_bytes(), rows.as_slice()].concat()).unwrap();
        database.insert(META_KEY, [7u64, 3, 1].map(u64::to_le_bytes).concat()).unwrap();
        database.flush().unwrap();
        drop(database);
        let mut found = Vec::new();
        let contents = read(folder.path(), &mut |change| {
            found.push((change.table, change.key, change.value));
            Ok(())
        });
        let contents = contents.unwrap();
        assert_eq!((contents.loaded.revision, contents.loaded.sequence, contents.rows), (7, 3, 1));
        assert_eq!(found, [("table".to_owned(), "key".to_owned(), Some(b"value".to_vec()))]);
    }
}
