//! Checkpoints: every live row at one revision, in a sled of its own that is written once.
//!
//! The rows are one stream of changes (as `codec` writes them), cut into pieces that are sled's
//! values. A piece is checked as it is read:
//!
//! ```text
//! "\0meta"      = revision u64 · sequence u64 · rows u64 · form u64
//! number u64 BE = crc32c of number and bytes u32 · bytes
//! ```
//!
//! In form 1 the bytes of a piece are compressed by LZ4, their length before them; in form 0, which has no
//! number and which older versions wrote, they are as they are.
//!
//! sled writes an entry, then the page that holds it: with a row for each entry the file took 2.0
//! times its rows (800 bytes each), in pieces of 64,000 bytes 1.44 times, and is read four times as fast.

use std::{
    borrow::Cow,
    fs::{self, File},
    path::{Path, PathBuf},
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
const PIECE: usize = 64_000;

/// How pieces are written.
const COMPRESSED: u64 = 1;

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
    let failed = |reason: String| EngineError::Checkpoint { path: path.to_owned(), reason };
    let database = open_sled(path)?;
    let (mut rows, mut number, mut stream) = (0u64, 0u64, Vec::new());
    let mut store = |bytes: &[u8]| {
        let key = number.to_be_bytes();
        let bytes = compress_prepend_size(bytes);
        let value = [&check(&key, &bytes).to_le_bytes(), bytes.as_slice()].concat();
        number += 1;
        database.insert(key, value).map(drop).map_err(|error| failed(error.to_string()))
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
    let meta = [snapshot.revision(), snapshot.sequence(), rows, COMPRESSED].map(u64::to_le_bytes).concat();
    database.insert(META_KEY, meta).and_then(|_| database.flush()).map(drop).map_err(|error| failed(error.to_string()))
}

/// Reads a checkpoint, checks every piece, and hands over every row.
fn read(path: &Path, entry: &mut dyn FnMut(Change) -> Result<(), EngineError>) -> Result<Contents, EngineError> {
    Checkpoint::open(path)?.read(entry)
}

/// A checkpoint whose description was read.
pub struct Checkpoint {
    path: PathBuf,
    database: sled::Db,
    rows: u64,
    form: u64,
    pub revision: u64,
    pub sequence: u64,
}

impl Checkpoint {
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let bad = |reason: &str| EngineError::Checkpoint { path: path.to_owned(), reason: reason.to_owned() };
        let database = open_sled(path)?;
        let meta = database.get(META_KEY).map_err(|error| bad(&error.to_string()))?.ok_or_else(|| bad("it was never finished"))?;
        let mut meta = Reader(&meta);
        let (Some(revision), Some(sequence), Some(rows)) = (meta.u64(), meta.u64(), meta.u64()) else {
            return Err(bad("its description is cut short"));
        };
        let form = meta.u64().unwrap_or_default();
        if form > COMPRESSED {
            return Err(bad(&format!("its form {form} is not one that this version reads; it was written by a newer one")));
        }
        Ok(Self { path: path.to_owned(), database, rows, form, revision, sequence })
    }

    /// Checks every piece, and hands over every row.
    pub fn read(self, entry: &mut dyn FnMut(Change) -> Result<(), EngineError>) -> Result<Contents, EngineError> {
        let bad = |reason: &str| EngineError::Checkpoint { path: self.path.clone(), reason: reason.to_owned() };
        let mut contents = Contents { loaded: Loaded { revision: self.revision, sequence: self.sequence }, rows: 0, bytes: 0 };
        let (mut number, mut stream) = (0u64, Vec::new());
        for item in self.database.iter() {
            let (key, value) = item.map_err(|error| bad(&error.to_string()))?;
            if key == META_KEY {
                continue;
            }
            let piece = self.piece(number, &key, &value);
            let Some(bytes) = piece else {
                return Err(bad(&format!("the checksum of its piece {number} does not hold, or the piece is missing")));
            };
            number += 1;
            contents.bytes += bytes.len() as u64;
            stream.extend_from_slice(&bytes);
            let taken = take_rows(&stream, |change| {
                contents.rows += 1;
                entry(change)
            })?;
            stream.drain(..taken);
        }
        if contents.rows != self.rows || !stream.is_empty() {
            return Err(bad(&format!("it holds {} rows of {}", contents.rows, self.rows)));
        }
        Ok(contents)
    }

    /// The bytes of a piece, if they are the ones that were written.
    fn piece<'a>(&self, number: u64, key: &[u8], value: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let (sum, bytes) = value.split_first_chunk()?;
        if *key != number.to_be_bytes() || u32::from_le_bytes(*sum) != check(key, bytes) {
            return None;
        }
        if self.form == COMPRESSED { decompress_size_prepended(bytes).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(bytes)) }
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

fn check(key: &[u8], bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), bytes)
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
        database.insert(key, [&check(&key, &rows).to_le_bytes(), rows.as_slice()].concat()).unwrap();
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
