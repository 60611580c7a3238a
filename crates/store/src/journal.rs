//! The journal: a file of groups, each with a checksum, made durable by one `fdatasync`.
//!
//! ```text
//! journal = header · record · record …
//! header  = magic "GURJ" · version u32 · mark u64 · revision before it u64 · crc32c of these u32
//! record  = mark u64 · payload length u32 · crc32c of the payload u32 · payload
//! payload = a group, compressed by LZ4, its length before it; in version 1, the group as it is
//! group   = revision u64 · sequence u64 · count u32 · count × change
//! ```
//!
//! All numbers are little-endian; a change is written as `codec` says.
//!
//! - A crash can cut the last record of the last journal short, and nothing else: it was never
//!   acknowledged, so it is dropped. A bad record with a good one behind it is damage, and refused.
//! - The mark is random, another for each journal. So nothing that a user stores can look like a record
//!   when a cut one is searched for good ones behind it.
//! - The header tells after which revision the journal begins, so that a missing one is noticed.

use std::{
    fs::{File, OpenOptions},
    hash::{BuildHasher, RandomState},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use lz4_flex::block::{compress_into, decompress_size_prepended, get_maximum_output_size};

use crate::{
    codec::{Reader, encode_change},
    engine::{EngineError, Group},
};

const MAGIC: [u8; 4] = *b"GURJ";

/// How the payloads of a journal are written. One that is found goes on as it was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Plain = 1,
    Compressed = 2,
}

const FILE_HEADER: usize = 28;
const RECORD_HEADER: usize = 16;

/// An open journal, written at its end.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    begun: Begun,
    /// A group as it is, and as it is written.
    buffers: [Vec<u8>; 2],
}

/// What a journal's header tells.
#[derive(Debug, Clone, Copy)]
struct Begun {
    version: Version,
    mark: [u8; 8],
    /// The revision after which it begins.
    revision: u64,
}

/// Which journal of a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Others follow it, so it was whole when they were begun.
    Earlier,
    /// A crash may have cut it, but not its header: that was durable before what stands beside it.
    Last,
    /// A crash may have cut even its header.
    Begun,
}

impl Journal {
    /// Makes a new, empty journal, which goes on after `revision`. Its directory must be synced
    /// before a group in it is durable.
    pub fn create(path: &Path, revision: u64) -> Result<Self, EngineError> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).map_err(io_error("create", path))?;
        Self::begin(path, file, revision)
    }

    fn begin(path: &Path, file: File, revision: u64) -> Result<Self, EngineError> {
        // The hasher's keys are the standard library's only source of randomness.
        let begun = Begun { version: Version::Compressed, mark: RandomState::new().hash_one(revision).to_le_bytes(), revision };
        let header = begun.header();
        file.set_len(0).and_then(|()| file.write_all_at(&header, 0)).map_err(io_error("write", path))?;
        file.sync_all().map_err(io_error("sync", path))?;
        Ok(Self { path: path.to_owned(), file, length: FILE_HEADER as u64, begun, buffers: Default::default() })
    }

    /// Opens a journal that goes on after `revision`, hands over each group in it, and cuts off what
    /// a crash left unfinished. What it handed over is durable when it returns.
    pub fn replay(
        path: &Path,
        place: Place,
        revision: u64,
        mut each: impl FnMut(Group) -> Result<(), EngineError>,
    ) -> Result<Self, EngineError> {
        let mut bytes = Vec::new();
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(io_error("open", path))?;
        file.read_to_end(&mut bytes).map_err(io_error("read", path))?;
        let damaged = |offset: usize| EngineError::Damaged { path: path.to_owned(), offset: offset as u64 };
        let begun = match Begun::read(&bytes) {
            Some(begun) => begun,
            // Its maker died before it was synced, so no group was ever written to it.
            None if place == Place::Begun && bytes.len() <= FILE_HEADER => return Self::begin(path, file, revision),
            None => return Err(damaged(0)),
        };
        if begun.revision != revision {
            return Err(EngineError::Gap { path: path.to_owned(), begins: begun.revision, revision });
        }
        let (mut at, mut last) = (FILE_HEADER, FILE_HEADER);
        while let Some((group, next)) = read_record(&bytes, at, begun) {
            each(group)?;
            (last, at) = (at, next);
        }
        if at < bytes.len() {
            if place == Place::Earlier || valid_record_behind(&bytes, at + 1, begun) {
                return Err(damaged(at));
            }
            let bytes = bytes.len() - at;
            tracing::warn!(journal = %path.display(), bytes, "what a crash left unfinished at the end of the journal is cut off");
            file.set_len(at as u64).map_err(io_error("truncate", path))?;
        }
        if place != Place::Earlier {
            // What was read may stand in the kernel's cache alone: its writer may have died before
            // the sync, or the sync may have failed, after which the kernel takes these pages for
            // clean. Writing the last record once more, as it is, makes the sync a real one.
            file.write_all_at(&bytes[last..at], last as u64).map_err(io_error("write", path))?;
            file.sync_all().map_err(io_error("sync", path))?;
        }
        Ok(Self { path: path.to_owned(), file, length: at as u64, begun, buffers: Default::default() })
    }

    /// Appends a group and makes it durable. After an error the journal must not be used again.
    pub fn append(&mut self, group: &Group) -> Result<(), EngineError> {
        let [plain, record] = &mut self.buffers;
        plain.clear();
        record.clear();
        record.resize(RECORD_HEADER, 0);
        let whole = encode(group, plain) && write_payload(self.begun.version, plain, record);
        let length = u32::try_from(record.len() - RECORD_HEADER).ok().filter(|_| whole);
        let length = length.ok_or_else(|| EngineError::Io {
            operation: "a group of over 4 GiB does not fit",
            path: self.path.clone(),
            source: io::ErrorKind::FileTooLarge.into(),
        })?;
        let check = crc32c::crc32c(&record[RECORD_HEADER..]);
        record[..8].copy_from_slice(&self.begun.mark);
        record[8..12].copy_from_slice(&length.to_le_bytes());
        record[12..16].copy_from_slice(&check.to_le_bytes());
        self.file.write_all_at(record, self.length).map_err(io_error("write", &self.path))?;
        self.file.sync_data().map_err(io_error("sync", &self.path))?;
        self.length += record.len() as u64;
        self.buffers.iter_mut().for_each(|buffer| buffer.shrink_to(KEPT_BUFFER));
        Ok(())
    }

    /// Bytes in the journal.
    pub fn length(&self) -> u64 {
        self.length
    }
}

/// A larger buffer is given back after the group that needed it.
const KEPT_BUFFER: usize = 1 << 20;

pub fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EngineError {
    let path = path.to_owned();
    move |source| EngineError::Io { operation, path, source }
}

impl Begun {
    fn header(self) -> Vec<u8> {
        let version = (self.version as u32).to_le_bytes();
        let mut header = [MAGIC.as_slice(), &version, &self.mark, &self.revision.to_le_bytes()].concat();
        header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
        header
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..FILE_HEADER)?;
        let mark = header[8..16].try_into().ok()?;
        let revision = u64::from_le_bytes(header[16..24].try_into().ok()?);
        let versions = [Version::Plain, Version::Compressed].into_iter();
        versions.map(|version| Self { version, mark, revision }).find(|begun| header == begun.header())
    }
}

/// Adds a group's bytes as the payload of a record. Answers false if it has 4 GiB or more.
#[must_use]
fn write_payload(version: Version, group: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(length) = u32::try_from(group.len()) else { return false };
    match version {
        Version::Plain => out.extend_from_slice(group),
        Version::Compressed => {
            out.extend_from_slice(&length.to_le_bytes());
            let at = out.len();
            out.resize(at + get_maximum_output_size(group.len()), 0);
            let Ok(written) = compress_into(group, &mut out[at..]) else { return false };
            out.truncate(at + written);
        }
    }
    true
}

#[must_use]
fn encode(group: &Group, out: &mut Vec<u8>) -> bool {
    let Ok(count) = u32::try_from(group.changes.len()) else { return false };
    out.extend_from_slice(&group.revision.to_le_bytes());
    out.extend_from_slice(&group.sequence.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    group.changes.iter().all(|change| encode_change(&change.table, &change.key, change.value.as_deref(), out))
}

/// The record that begins at `at` and the place behind it, if it is whole and its checksum holds.
fn read_record(bytes: &[u8], at: usize, begun: Begun) -> Option<(Group, usize)> {
    let header = bytes.get(at..at.checked_add(RECORD_HEADER)?)?;
    if header[..8] != begun.mark {
        return None;
    }
    let length = u32::from_le_bytes(header[8..12].try_into().ok()?) as usize;
    let check = u32::from_le_bytes(header[12..16].try_into().ok()?);
    let start = at + RECORD_HEADER;
    let payload = bytes.get(start..start.checked_add(length)?)?;
    if crc32c::crc32c(payload) != check {
        return None;
    }
    let group = match begun.version {
        Version::Plain => decode(payload),
        Version::Compressed => decode(&decompress_size_prepended(payload).ok()?),
    };
    Some((group?, start + length))
}

fn decode(payload: &[u8]) -> Option<Group> {
    let mut reader = Reader(payload);
    let (revision, sequence, count) = (reader.u64()?, reader.u64()?, reader.u32()?);
    let changes = (0..count).map(|_| reader.change()).collect::<Option<Vec<_>>>()?;
    reader.0.is_empty().then_some(Group { revision, sequence, changes })
}

fn valid_record_behind(bytes: &[u8], from: usize, begun: Begun) -> bool {
    let candidates = bytes.get(from..).unwrap_or_default().windows(begun.mark.len());
    candidates.enumerate().any(|(offset, window)| window == begun.mark && read_record(bytes, from + offset, begun).is_some())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::engine::Change;
    use proptest::prelude::*;

    fn group(revision: u64, keys: &[String]) -> Group {
        let change = |key: &String| Change {
            table: "t".into(),
            key: key.clone(),
            value: (!key.len().is_multiple_of(3)).then(|| key.as_bytes().to_vec()),
        };
        Group { revision, sequence: revision * 2, changes: keys.iter().map(change).collect() }
    }

    fn replayed(path: &Path, place: Place) -> Result<Vec<Group>, EngineError> {
        let mut groups = Vec::new();
        Journal::replay(path, place, 0, |group| {
            groups.push(group);
            Ok(())
        })?;
        Ok(groups)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Cut anywhere, a journal gives back exactly the groups that were whole, and takes new ones.
        #[test]
        fn a_cut_loses_only_what_was_not_whole(keys in prop::collection::vec(prop::collection::vec("[a-z]{0,9}", 0..4), 1..6), cut in 0.0..1.0f64) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("journal");
            let mut journal = Journal::create(&path, 0).unwrap();
            let mut ends = Vec::new();
            for (number, keys) in keys.iter().enumerate() {
                journal.append(&group(number as u64 + 1, keys)).unwrap();
                ends.push(journal.length());
            }
            let length = (journal.length() as f64 * cut) as u64;
            OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
            let whole = ends.iter().filter(|end| **end <= length).count();
            let at_an_end = length == FILE_HEADER as u64 || ends.contains(&length);
            prop_assert_eq!(replayed(&path, Place::Earlier).is_ok(), at_an_end);
            let expected: Vec<_> = keys.iter().take(whole).enumerate().map(|(number, keys)| group(number as u64 + 1, keys)).collect();
            prop_assert_eq!(replayed(&path, Place::Begun).unwrap(), expected);
            let mut again = Journal::replay(&path, Place::Begun, 0, |_| Ok(())).unwrap();
            again.append(&group(99, &[])).unwrap();
            prop_assert_eq!(replayed(&path, Place::Begun).unwrap().len(), whole + 1);
        }

        /// A flipped byte is never read as something else: what was before it stays, and damage with
        /// good records behind it is refused.
        #[test]
        fn a_flipped_byte_is_seen(place in 0.0..1.0f64) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("journal");
            let mut journal = Journal::create(&path, 0).unwrap();
            let mut ends = Vec::new();
            for revision in 1..=3 {
                journal.append(&group(revision, &["key".into()])).unwrap();
                ends.push(journal.length());
            }
            let mut bytes = std::fs::read(&path).unwrap();
            let place = ((bytes.len() - 1) as f64 * place) as usize;
            bytes[place] ^= 0x40;
            std::fs::write(&path, &bytes).unwrap();
            let last = place as u64 >= ends[1];
            match replayed(&path, Place::Last) {
                Ok(groups) => prop_assert!(last && groups.len() == 2),
                Err(error) => {
                    let refused = matches!(error, EngineError::Damaged { .. });
                    prop_assert!(!last && refused);
                }
            }
        }
    }

    /// What a user stores can be a journal, whole and well-formed: a cut behind it is still only a cut.
    #[test]
    fn records_within_a_value_are_not_taken_for_records() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        Journal::create(&inner, 0).unwrap().append(&group(1, &["inner".into()])).unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::create(&path, 0).unwrap();
        journal.append(&group(1, &[])).unwrap();
        let change = Change { table: "t".into(), key: "k".into(), value: Some(std::fs::read(&inner).unwrap()) };
        journal.append(&Group { revision: 2, sequence: 4, changes: vec![change] }).unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(journal.length() - 1).unwrap();
        assert_eq!(replayed(&path, Place::Last).unwrap().len(), 1);
    }

    #[test]
    fn a_missing_predecessor_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        Journal::create(&path, 7).unwrap();
        let found = Journal::replay(&path, Place::Last, 5, |_| Ok(())).map(drop).unwrap_err();
        assert!(matches!(found, EngineError::Gap { begins: 7, revision: 5, .. }), "{found}");
    }
}
