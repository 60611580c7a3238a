//! The outbox: a change and the event that tells of it are one commit.
//!
//! Events have a sequence without gap or repeat. The last [`OUTBOX_EVENTS`] of the last
//! [`OUTBOX_AGE`] are kept; who comes back later than that begins with a snapshot.

use std::{sync::Arc, time::Duration};

use gureum_model::{Scope, Timestamp};
use imbl::Vector;
use serde::{Deserialize, Serialize};

use crate::{
    engine::{EngineError, RowSink},
    table::{Record, decode_row, encode_row},
};

/// Events kept at most. At 1,000 instances launched per minute, four events each, it is a quarter of
/// an hour: many times what a follower's restart takes. Beyond it the oldest go.
pub const OUTBOX_EVENTS: usize = 65_536;

/// Age, in domain time, at which events go whatever their number.
pub const OUTBOX_AGE: Duration = Duration::from_secs(24 * 3600);

/// Events that one write may let go of because of their age.
const EVENTS_TRIMMED_PER_WRITE: usize = 4;

/// An event about to be told.
#[derive(Debug, Clone)]
pub struct EventDraft {
    /// What happened, without the package: `SecurityGroupCreated`.
    pub kind: &'static str,
    pub scope: Scope,
    /// The resource of which it tells.
    pub resource_id: String,
    /// The event or call that led to it; empty if a user's call did.
    pub causation_id: String,
    /// The resource is gone.
    pub deleted: bool,
    /// The service's `Event` message, encoded, without metadata.
    pub payload: Vec<u8>,
}

/// An event as it is kept and told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OutboxEvent {
    pub sequence: u64,
    pub kind: String,
    pub time: Timestamp,
    pub scope: Scope,
    pub resource_id: String,
    pub causation_id: String,
    pub deleted: bool,
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
}

impl Record for OutboxEvent {
    const TABLE: &'static str = "outbox";

    fn key(&self) -> String {
        sequence_key(self.sequence)
    }
}

/// Sequences as keys, in the order of their numbers.
fn sequence_key(sequence: u64) -> String {
    format!("{sequence:020}")
}

/// The events that are kept, in order and without a gap. A clone is a snapshot and costs nothing.
///
/// What goes from its front is told to no journal: a start finds it again and lets it go again, which harms nobody.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox(Vector<Arc<Kept>>);

#[derive(Debug)]
struct Kept {
    /// The store's revision that wrote it.
    revision: u64,
    event: OutboxEvent,
}

impl Outbox {
    pub fn push(&mut self, event: OutboxEvent, revision: u64) {
        self.0.push_back(Arc::new(Kept { revision, event }));
    }

    /// Takes back the last one.
    pub fn pop(&mut self) {
        self.0.pop_back();
    }

    /// The sequence of the oldest.
    pub fn oldest(&self) -> Option<u64> {
        self.0.front().map(|kept| kept.event.sequence)
    }

    /// Events after a sequence, in order.
    pub fn after(&self, sequence: u64) -> impl Iterator<Item = &OutboxEvent> {
        let first = self.oldest().map_or(0, |oldest| sequence.saturating_add(1).saturating_sub(oldest));
        let places = usize::try_from(first).unwrap_or(usize::MAX)..self.0.len();
        places.filter_map(|place| self.0.get(place)).map(|kept| &kept.event)
    }

    /// Lets go of what is beyond the number kept, and of some that are older than the time kept.
    pub fn trim(&mut self, now: Timestamp) {
        let excess = self.0.len().saturating_sub(OUTBOX_EVENTS);
        (0..excess).for_each(|_| drop(self.0.pop_front()));
        let oldest_kept = now - OUTBOX_AGE;
        for _ in 0..EVENTS_TRIMMED_PER_WRITE {
            if self.0.front().is_none_or(|kept| kept.event.time >= oldest_kept) {
                break;
            }
            self.0.pop_front();
        }
    }

    /// Takes one change as the engine stored it. Older versions told their journals of what went.
    pub fn load(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), EngineError> {
        match value {
            Some(value) => {
                let (revision, event) = decode_row(key, value)?;
                self.push(event, revision);
            }
            None if self.0.front().is_some_and(|kept| kept.event.key() == key) => drop(self.0.pop_front()),
            None => {}
        }
        Ok(())
    }

    /// Hands over every event in its stored form.
    pub fn dump(&self, entry: RowSink<'_>) -> Result<(), EngineError> {
        self.0.iter().try_for_each(|kept| {
            let key = kept.event.key();
            entry(OutboxEvent::TABLE, &key, encode_row(&key, &kept.event, kept.revision)?)
        })
    }
}
