//! The outbox: a change and the event that tells of it are one commit.
//!
//! Events have a sequence without gap or repeat. The last [`OUTBOX_EVENTS`] of the last
//! [`OUTBOX_AGE`] are kept; who comes back later than that begins with a snapshot.

use std::time::Duration;

use gureum_model::{Scope, Timestamp};
use serde::{Deserialize, Serialize};

use crate::table::Record;

/// Events kept at most. At 1,000 instances launched per minute, four events each, it is a quarter of
/// an hour: many times what a follower's restart takes. Beyond it the oldest go.
pub const OUTBOX_EVENTS: usize = 65_536;

/// Age, in domain time, at which events go whatever their number.
pub const OUTBOX_AGE: Duration = Duration::from_secs(24 * 3600);

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
pub(crate) fn sequence_key(sequence: u64) -> String {
    format!("{sequence:020}")
}
