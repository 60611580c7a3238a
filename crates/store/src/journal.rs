//! The journal: a file of groups, each with a checksum, made durable by one `fdatasync`.
//!
//! ```text
//! record = magic "GUR1" · payload length u32 · crc32c of the payload u32 · payload
//! payload = revision u64 · sequence u64 · count u32 · count × change
//! change = kind u8 (1 put, 0 delete) · table · key · value          each text u32 length and bytes
//! ```
//!
//! All numbers are little-endian. A crash can cut the last record short, and nothing else: it was
//! never acknowledged, so it is dropped. A bad record with a good one behind it is damage, and refused.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use crate::engine::{Change, EngineError, Group};

const MAGIC: [u8; 4] = *b"GUR1";
const HEADER: usize = 12;

/// An open journal, written at its end.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    buffer: Vec<u8>,
}

impl Journal {
    /// Makes a new, empty journal. Its directory must be synced before a group in it is durable.
    pub fn create(path: &Path) -> Result<Self, EngineError> {
        let file = OpenOptions::new().append(true).create_new(true).open(path).map_err(io_error("create", path))?;
        Ok(Self { path: path.to_owned(), file, length: 0, buffer: Vec::new() })
    }

    /// Opens a journal, hands over each group in it, and cuts off what a crash left unfinished.
    pub fn replay(path: &Path, mut each: impl FnMut(Group) -> Result<(), EngineError>) -> Result<Self, EngineError> {
        let mut bytes = Vec::new();
        let mut file = OpenOptions::new().read(true).append(true).open(path).map_err(io_error("open", path))?;
        file.read_to_end(&mut bytes).map_err(io_error("read", path))?;
        let mut at = 0;
        while let Some((group, next)) = read_record(&bytes, at) {
            each(group)?;
            at = next;
        }
        if at < bytes.len() {
            if valid_record_behind(&bytes, at + 1) {
                return Err(EngineError::Damaged { path: path.to_owned(), offset: at as u64 });
            }
            file.set_len(at as u64).map_err(io_error("truncate", path))?;
            file.sync_all().map_err(io_error("sync", path))?;
        }
        Ok(Self { path: path.to_owned(), file, length: at as u64, buffer: Vec::new() })
    }

    /// Appends a group and makes it durable.
    pub fn append(&mut self, group: &Group) -> Result<(), EngineError> {
        self.buffer.clear();
        self.buffer.extend_from_slice(&[0; HEADER]);
        encode(group, &mut self.buffer);
        let payload = &self.buffer[HEADER..];
        let length = u32::try_from(payload.len()).map_err(|_| EngineError::Io {
            operation: "a group of over 4 GiB does not fit",
            path: self.path.clone(),
            source: io::ErrorKind::FileTooLarge.into(),
        })?;
        let check = crc32c::crc32c(payload);
        self.buffer[..4].copy_from_slice(&MAGIC);
        self.buffer[4..8].copy_from_slice(&length.to_le_bytes());
        self.buffer[8..12].copy_from_slice(&check.to_le_bytes());
        self.file.write_all(&self.buffer).map_err(io_error("write", &self.path))?;
        self.file.sync_data().map_err(io_error("sync", &self.path))?;
        self.length += self.buffer.len() as u64;
        Ok(())
    }

    /// Bytes in the journal.
    pub fn length(&self) -> u64 {
        self.length
    }
}

pub fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EngineError {
    let path = path.to_owned();
    move |source| EngineError::Io { operation, path, source }
}

fn encode(group: &Group, out: &mut Vec<u8>) {
    out.extend_from_slice(&group.revision.to_le_bytes());
    out.extend_from_slice(&group.sequence.to_le_bytes());
    out.extend_from_slice(&(group.changes.len() as u32).to_le_bytes());
    let text = |bytes: &[u8], out: &mut Vec<u8>| {
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    for change in &group.changes {
        out.push(u8::from(change.value.is_some()));
        text(change.table.as_bytes(), out);
        text(change.key.as_bytes(), out);
        text(change.value.as_deref().unwrap_or_default(), out);
    }
}

/// The record that begins at `at` and the place behind it, if it is whole and its checksum holds.
fn read_record(bytes: &[u8], at: usize) -> Option<(Group, usize)> {
    let header = bytes.get(at..at.checked_add(HEADER)?)?;
    if header[..4] != MAGIC {
        return None;
    }
    let length = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
    let check = u32::from_le_bytes(header[8..12].try_into().ok()?);
    let start = at + HEADER;
    let payload = bytes.get(start..start.checked_add(length)?)?;
    if crc32c::crc32c(payload) != check {
        return None;
    }
    Some((decode(payload)?, start + length))
}

fn decode(payload: &[u8]) -> Option<Group> {
    let mut reader = Reader(payload);
    let (revision, sequence, count) = (reader.u64()?, reader.u64()?, reader.u32()?);
    let mut changes = Vec::new();
    for _ in 0..count {
        let put = reader.take(1)?[0] == 1;
        let (table, key, value) = (reader.text()?, reader.text()?, reader.bytes()?.to_vec());
        changes.push(Change { table, key, value: put.then_some(value) });
    }
    reader.0.is_empty().then_some(Group { revision, sequence, changes })
}

fn valid_record_behind(bytes: &[u8], from: usize) -> bool {
    let candidates = bytes.get(from..).unwrap_or_default().windows(MAGIC.len());
    candidates.enumerate().any(|(offset, window)| window == MAGIC && read_record(bytes, from + offset).is_some())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use proptest::prelude::*;

    fn group(revision: u64, keys: &[String]) -> Group {
        let change = |key: &String| Change {
            table: "t".into(),
            key: key.clone(),
            value: (!key.len().is_multiple_of(3)).then(|| key.as_bytes().to_vec()),
        };
        Group { revision, sequence: revision * 2, changes: keys.iter().map(change).collect() }
    }

    fn replayed(path: &Path) -> Result<Vec<Group>, EngineError> {
        let mut groups = Vec::new();
        Journal::replay(path, |group| {
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
            let mut journal = Journal::create(&path).unwrap();
            let mut ends = Vec::new();
            for (number, keys) in keys.iter().enumerate() {
                journal.append(&group(number as u64 + 1, keys)).unwrap();
                ends.push(journal.length());
            }
            let length = (journal.length() as f64 * cut) as u64;
            OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
            let whole = ends.iter().filter(|end| **end <= length).count();
            let expected: Vec<_> = keys.iter().take(whole).enumerate().map(|(number, keys)| group(number as u64 + 1, keys)).collect();
            prop_assert_eq!(replayed(&path).unwrap(), expected);
            let mut again = Journal::replay(&path, |_| Ok(())).unwrap();
            again.append(&group(99, &[])).unwrap();
            prop_assert_eq!(replayed(&path).unwrap().len(), whole + 1);
        }

        /// A flipped byte is never read as something else: what was before it stays, and damage with
        /// good records behind it is refused.
        #[test]
        fn a_flipped_byte_is_seen(place in 0.0..1.0f64) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("journal");
            let mut journal = Journal::create(&path).unwrap();
            for revision in 1..=3 {
                journal.append(&group(revision, &["key".into()])).unwrap();
            }
            let mut bytes = std::fs::read(&path).unwrap();
            let place = ((bytes.len() - 1) as f64 * place) as usize;
            bytes[place] ^= 0x40;
            std::fs::write(&path, &bytes).unwrap();
            let last = place >= bytes.len() / 3 * 2;
            match replayed(&path) {
                Ok(groups) => prop_assert!(last && groups.len() == 2),
                Err(error) => {
                    let refused = matches!(error, EngineError::Damaged { .. });
                    prop_assert!(!last && refused);
                },
            }
        }
    }
}
