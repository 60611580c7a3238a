//! The engine contract: where commits become durable.
//!
//! It asks for what etcd offers too: an ordered scan, and one atomic transaction that is refused
//! unless the revision is the expected one. Reads, indexes and watches are served above it from
//! memory, so an engine need not offer them.

use std::{io, path::PathBuf};

use crate::{
    outbox::OutboxEvent,
    table::{Record, decode_row},
};

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The table.
    pub table: String,
    /// The key in the table.
    pub key: String,
    /// The new value, or none if the key is deleted.
    pub value: Option<Vec<u8>>,
}

impl Change {
    /// The event that it puts into the outbox, if it is one.
    pub fn event(&self) -> Option<OutboxEvent> {
        let value = self.value.as_ref().filter(|_| self.table == OutboxEvent::TABLE)?;
        decode_row(&self.key, value).ok().map(|(_, event)| event)
    }
}

/// What is durable all at once or not at all: the changes of a group of writes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// The store's revision after the group. The engine refuses any but a higher one.
    pub revision: u64,
    /// The outbox's last sequence after the group.
    pub sequence: u64,
    /// In order; of several changes of one key the last holds.
    pub changes: Vec<Change>,
}

/// What an engine holds when it is opened.
#[derive(Debug, Default)]
pub struct Loaded {
    pub revision: u64,
    pub sequence: u64,
}

/// Takes table, key and value of one row.
pub type RowSink<'a> = &'a mut dyn FnMut(&str, &str, Vec<u8>) -> Result<(), EngineError>;

/// Everything live at one revision, for a checkpoint. Cheap to make, readable from another thread.
pub trait Snapshot: Send + 'static {
    fn revision(&self) -> u64;
    fn sequence(&self) -> u64;
    /// Calls `entry` with table, key and value of every row, until it fails.
    fn for_each(&self, entry: RowSink<'_>) -> Result<(), EngineError>;
}

/// Why an engine cannot go on. Each one stops the store.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("{operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the store {} is in use by another process; stop that one or choose another directory", path.display())]
    InUse { path: PathBuf },
    #[error("{} is damaged at byte {offset} which is not what a crash leaves; restore the directory from a backup", path.display())]
    Damaged { path: PathBuf, offset: u64 },
    #[error("{} goes on after revision {begins}, but what stands before it ends at {revision}: a file of the store is missing; restore the directory from a backup", path.display())]
    Gap { path: PathBuf, begins: u64, revision: u64 },
    #[error("{} is missing, and with it what was written last; restore the directory from a backup", path.display())]
    Missing { path: PathBuf },
    #[error("revision {revision} was given to an engine that holds revision {last}; the store has another writer")]
    Stale { revision: u64, last: u64 },
    #[error("the checkpoint {} cannot be read back: {reason}; if the disk is full, make room, else restore the directory from a backup", path.display())]
    Checkpoint { path: PathBuf, reason: String },
    #[error("a row of table {table} with key {key} cannot be read: {reason}")]
    Row { table: String, key: String, reason: String },
    #[error("the store holds the table {table}, which this version does not know; it was written by a newer one")]
    UnknownTable { table: String },
    #[error("a fault was injected: {0}")]
    Injected(&'static str),
}

/// Where commits become durable. Called by the store's writer thread alone; may block.
pub trait Engine: Send + 'static {
    /// Hands over every live entry. Called once, first.
    fn load(&mut self, entry: &mut dyn FnMut(Change) -> Result<(), EngineError>) -> Result<Loaded, EngineError>;

    /// Makes a group durable: when this returns, a power cut does not undo it. After an error it is
    /// not known whether the group is durable, and no further one is taken.
    fn append(&mut self, group: &Group) -> Result<(), EngineError>;

    /// Asked after the load and after each append: whether a snapshot should be taken and handed to [`Engine::checkpoint`].
    fn wants_checkpoint(&self) -> bool;

    /// Writes down everything live, so that what led to it can be dropped. Holds up appends only if
    /// the checkpoint before it is not yet written.
    fn checkpoint(&mut self, snapshot: Box<dyn Snapshot>) -> Result<(), EngineError>;
}

/// Keeps nothing: for regions in memory and for tests.
#[derive(Debug, Default)]
pub struct MemoryEngine;

impl Engine for MemoryEngine {
    fn load(&mut self, _entry: &mut dyn FnMut(Change) -> Result<(), EngineError>) -> Result<Loaded, EngineError> {
        Ok(Loaded::default())
    }

    fn append(&mut self, _group: &Group) -> Result<(), EngineError> {
        Ok(())
    }

    fn wants_checkpoint(&self) -> bool {
        false
    }

    fn checkpoint(&mut self, _snapshot: Box<dyn Snapshot>) -> Result<(), EngineError> {
        Ok(())
    }
}
