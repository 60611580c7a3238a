//! Typed tables in memory: rows by key, and the secondary indexes that lists need.

use std::{
    fmt::{Debug, Display, Write},
    ops::Bound,
    sync::Arc,
};

use imbl::{OrdMap, OrdSet};
use serde::{Serialize, de::DeserializeOwned};

use crate::engine::{EngineError, RowSink};

/// Takes the name of an index and a value under which a row stands in it.
pub type IndexSink<'a> = &'a mut dyn FnMut(&'static str, &dyn Display);

/// What a table holds.
pub trait Record: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static {
    /// The table's name on disk. Never changes.
    const TABLE: &'static str;

    /// Version of the stored form. A field may be added with `#[serde(default)]` without a new one;
    /// anything else raises it, and [`Record::upgrade`] reads the older ones.
    const FORMAT: u16 = 1;

    /// The row's key, unique in its table. Lists are in its order.
    fn key(&self) -> String;

    /// Names the row in secondary indexes: `add(index, value)`, any number of times.
    fn index(&self, add: IndexSink<'_>) {
        let _ = add;
    }

    /// Reads a stored form older than [`Record::FORMAT`].
    fn upgrade(format: u16, bytes: &[u8]) -> Result<Self, String> {
        let _ = bytes;
        Err(format!("format {format} is not one that this version reads"))
    }
}

/// A record and when it was last written.
#[derive(Debug)]
pub struct Row<R> {
    /// The store's revision that wrote it.
    pub revision: u64,
    pub record: R,
    /// Its index entries, shared with the index: a change of the row need not work out where it stood.
    entries: Box<[IndexEntry]>,
}

impl<R> std::ops::Deref for Row<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.record
    }
}

/// An index entry: index, value and key in one text, ended and parted by NUL.
///
/// One allocation each: for the sake of older snapshots, a change copies the entries beside it and as many on
/// every level of the tree above, and each reference that an entry holds is counted up and down for
/// that. NUL sorts before everything, so the order is that of index, value and key. Where a value holds a
/// NUL itself, what is found beside the sought is no row's key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct IndexEntry(Arc<str>);

impl IndexEntry {
    fn key(&self) -> &str {
        self.0.rsplit_once('\0').map_or("", |(_, key)| key)
    }

    /// The value, if the entry is of the index whose prefix this is.
    fn value(&self, index: &str) -> Option<&str> {
        self.0.strip_prefix(index)?.rsplit_once('\0').map(|(value, _)| value)
    }
}

impl std::borrow::Borrow<str> for IndexEntry {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Rows by key, with indexes. A clone is a snapshot and costs nothing.
#[derive(Debug)]
pub struct Table<R> {
    rows: OrdMap<Arc<str>, Arc<Row<R>>>,
    indexes: OrdSet<IndexEntry>,
}

impl<R> Clone for Table<R> {
    fn clone(&self) -> Self {
        Self { rows: self.rows.clone(), indexes: self.indexes.clone() }
    }
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self { rows: OrdMap::new(), indexes: OrdSet::new() }
    }
}

impl<R: Record> Table<R> {
    /// The row with this key.
    pub fn get(&self, key: &str) -> Option<&Arc<Row<R>>> {
        self.rows.get(key)
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Row<R>>> {
        self.rows.values()
    }

    /// Rows whose key begins with `prefix` and is greater than `after`, in order.
    pub fn scan(&self, prefix: &str, after: Option<&str>) -> impl Iterator<Item = &Arc<Row<R>>> + use<'_, R> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let rows = self.rows.range::<_, str>((start, Bound::Unbounded));
        let prefix: Arc<str> = Arc::from(prefix);
        rows.take_while(move |(key, _)| key.starts_with(&*prefix)).map(|(_, row)| row)
    }

    /// Rows that an index has under exactly this value, in the order of their keys.
    pub fn find(&self, index: &'static str, value: &str) -> impl Iterator<Item = &Arc<Row<R>>> + use<'_, R> {
        self.find_after(index, value, None)
    }

    /// As [`Table::find`], but only keys greater than `after`.
    pub fn find_after(&self, index: &'static str, value: &str, after: Option<&str>) -> impl Iterator<Item = &Arc<Row<R>>> + use<'_, R> {
        let prefix = format!("{index}\0{value}\0");
        let start = match after {
            Some(after) => Bound::Excluded(format!("{prefix}{after}")),
            None => Bound::Included(prefix.clone()),
        };
        self.indexes
            .range::<_, str>((start.as_ref().map(String::as_str), Bound::Unbounded))
            .map_while(move |entry| entry.0.strip_prefix(&*prefix))
            .filter_map(|key| self.rows.get(key))
    }

    /// Entries of an index whose value is at least `from`, in the order of the values: value and row.
    pub fn find_from<'a>(&'a self, index: &'static str, from: &str) -> impl Iterator<Item = (&'a str, &'a Arc<Row<R>>)> + use<'a, R> {
        let (prefix, start) = (format!("{index}\0"), format!("{index}\0{from}"));
        self.indexes
            .range::<_, str>((Bound::Included(start.as_str()), Bound::Unbounded))
            .map_while(move |entry| Some((entry.value(&prefix)?, entry)))
            .filter_map(|(value, entry)| self.rows.get(entry.key()).map(|row| (value, row)))
    }

    /// Writes a row, and answers the one that it replaces.
    pub(crate) fn put(&mut self, record: R, revision: u64) -> Option<Arc<Row<R>>> {
        let key = record.key();
        let (key, before): (Arc<str>, &[IndexEntry]) = match self.rows.get_key_value(key.as_str()) {
            Some((key, row)) => (key.clone(), &row.entries),
            None => (Arc::from(key), &[]),
        };
        let entries = entries(&record, &key, before);
        self.replace(key, Arc::new(Row { revision, record, entries }))
    }

    /// Puts back a row as it was, or takes away one that was not there.
    pub(crate) fn restore(&mut self, key: &str, row: Option<Arc<Row<R>>>) {
        match row {
            Some(row) => drop(self.replace(Arc::from(key), row)),
            None => drop(self.remove(key)),
        }
    }

    /// Only index entries that differ from those before are touched.
    fn replace(&mut self, key: Arc<str>, row: Arc<Row<R>>) -> Option<Arc<Row<R>>> {
        let old = self.rows.insert(key, row.clone());
        let before: &[IndexEntry] = old.as_ref().map_or(&[], |old| &old.entries);
        for gone in before.iter().filter(|entry| !row.entries.contains(entry)) {
            self.indexes.remove(gone);
        }
        for come in row.entries.iter().filter(|entry| !before.contains(entry)) {
            self.indexes.insert(come.clone());
        }
        old
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<Arc<Row<R>>> {
        let row = self.rows.remove(key)?;
        for entry in &row.entries {
            self.indexes.remove(entry);
        }
        Some(row)
    }

    /// Takes one change as the engine stored it.
    pub(crate) fn load(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), EngineError> {
        match value {
            Some(value) => {
                let (revision, record) = decode_row::<R>(key, value)?;
                drop(self.put(record, revision));
            }
            None => drop(self.remove(key)),
        }
        Ok(())
    }

    /// Hands over every row in its stored form.
    pub(crate) fn dump(&self, entry: RowSink<'_>) -> Result<(), EngineError> {
        self.rows.iter().try_for_each(|(key, row)| entry(R::TABLE, key, encode_row(key, &row.record, row.revision)?))
    }
}

/// A row's index entries. Those that it had before are taken over as they are.
fn entries<R: Record>(record: &R, key: &str, before: &[IndexEntry]) -> Box<[IndexEntry]> {
    let mut entries: Vec<IndexEntry> = Vec::with_capacity(before.len());
    let mut text = String::new();
    record.index(&mut |index, value| {
        text.clear();
        // Writing to a String cannot fail.
        let _ = write!(text, "{index}\0{value}\0{key}");
        let same = |entry: &&IndexEntry| *entry.0 == *text;
        if !entries.iter().any(|entry| same(&entry)) {
            let entry = before.iter().find(same).cloned().unwrap_or_else(|| IndexEntry(Arc::from(text.as_str())));
            entries.push(entry);
        }
    });
    entries.into()
}

/// Bytes before the record: format u16 and revision u64, little-endian.
const ROW_HEADER: usize = 10;

/// The stored form: version of the format, revision that wrote it, MessagePack with field names.
pub(crate) fn encode_row<R: Record>(key: &str, record: &R, revision: u64) -> Result<Vec<u8>, EngineError> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(&R::FORMAT.to_le_bytes());
    bytes.extend_from_slice(&revision.to_le_bytes());
    rmp_serde::encode::write_named(&mut bytes, record).map_err(|error| row_error::<R>(key, error.to_string()))?;
    Ok(bytes)
}

pub(crate) fn decode_row<R: Record>(key: &str, bytes: &[u8]) -> Result<(u64, R), EngineError> {
    let (header, body) = bytes.split_at_checked(ROW_HEADER).ok_or_else(|| row_error::<R>(key, "shorter than its header".into()))?;
    let (format, revision) = header.split_at(2);
    let format = u16::from_le_bytes([format[0], format[1]]);
    let revision = revision.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let record = if format == R::FORMAT {
        rmp_serde::from_slice(body).map_err(|error| row_error::<R>(key, error.to_string()))
    } else {
        R::upgrade(format, body).map_err(|reason| row_error::<R>(key, reason))
    }?;
    if record.key() != key {
        return Err(row_error::<R>(key, format!("its record names itself {}", record.key())));
    }
    Ok((revision, record))
}

fn row_error<R: Record>(key: &str, reason: String) -> EngineError {
    EngineError::Row { table: R::TABLE.into(), key: key.into(), reason }
}
