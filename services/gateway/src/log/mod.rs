//! The event log: every event of every service, with a place.
//!
//! The log is the outbox of the gateway's own store. An event, its place and how far its source has
//! been followed are one commit, so that nothing is lost or logged twice whoever dies when.

mod cloud_event;
mod follow;
mod subscribe;
mod webhook;
mod webhook_api;

pub use cloud_event::Describer;
pub use follow::{Source, follow};
pub use subscribe::{Log, LogApi};
pub use webhook::Deliveries;

use gureum_model::{Filterable, Scope, Tags, Timestamp, id::WebhookId};
use gureum_store::{Listed, Record, list::text};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

use crate::filter::EventFilter;

gureum_store::schema! {
    /// What the gateway keeps, beside the log itself.
    pub struct Schema {
        /// How far each service has been followed.
        pub cursors: Cursor,
        pub webhooks: Webhook,
        pub dead_letters: DeadLetter,
    }
}

/// How far a service's outbox is in the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cursor {
    pub service: String,
    pub sequence: u64,
}

impl Record for Cursor {
    const TABLE: &'static str = "cursor";

    fn key(&self) -> String {
        self.service.clone()
    }
}

/// Where events are delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Webhook {
    pub scope: Scope,
    pub id: WebhookId,
    pub url: String,
    pub filter: EventFilter,
    pub secret: String,
    pub created: Timestamp,
    /// Everything up to this place was delivered, did not pass the filter, or is a dead letter.
    pub delivered_to: u64,
    pub failed_attempts: u32,
    pub last_error: String,
    pub tags: Tags,
}

impl Record for Webhook {
    const TABLE: &'static str = "webhook";

    fn key(&self) -> String {
        Self::list_key(&self.scope, self.id)
    }
}

impl Listed for Webhook {
    fn scope(&self) -> &Scope {
        &self.scope
    }
}

impl Filterable for Webhook {
    const FILTER_NAMES: &'static [&'static str] = &["webhook-id", "url"];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "webhook-id" => vec![text(self.id)],
            "url" => vec![Cow::Borrowed(&self.url)],
            _ => Vec::new(),
        }
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }
}

/// An event that a webhook did not take.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadLetter {
    pub webhook: WebhookId,
    pub place: u64,
    /// The event, encoded: it may leave the log before the user looks.
    #[serde(with = "serde_bytes")]
    pub event: Vec<u8>,
    pub time: Timestamp,
    pub error: String,
    /// The user asked for it to be delivered again.
    pub redrive: bool,
}

impl DeadLetter {
    pub fn prefix(webhook: WebhookId) -> String {
        format!("{webhook}/")
    }
}

impl Record for DeadLetter {
    const TABLE: &'static str = "dead_letter";

    fn key(&self) -> String {
        format!("{}{:020}", Self::prefix(self.webhook), self.place)
    }
}

#[cfg(test)]
mod stored_forms {
    #[test]
    fn rows_of_every_kind_are_read_as_they_were_written() {
        let faults = gureum_store::stored_forms::faults::<super::Schema>(include_str!("../../tests/stored_forms.txt"));
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}
