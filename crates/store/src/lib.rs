//! Gureum's storage: typed tables in memory, durable before acknowledged.
//!
//! ```text
//!  write(|tx| decide) ──► queue ──► one writer thread ──► Engine::append ──► publish ──► answers
//!                                   runs the decisions     one fdatasync     the new      of the
//!                                   one after another      for the group     state        whole group
//!  read() ◄──────────────────────── the last published state: a snapshot that never changes
//! ```
//!
//! - A **write** is a closure that reads the state and stages changes. The writer runs all of them one
//!   after another, so a decision never races another, and none has to be tried twice. One that
//!   refuses leaves nothing behind and harms no neighbour in its group.
//! - An **answer**, a refusal too, leaves only after everything that the decision saw is on disk.
//! - Rows, secondary indexes, the [outbox](outbox) and the [client tokens](token) of a write are one commit.
//! - The tables are persistent maps: a snapshot costs nothing, and a reader never waits for a writer.
//! - A failed sync is never tried again: the kernel may have dropped the pages that it could not
//!   write, so the store stops, and the service with it.
//!
//! What is stored, and what a crash may leave behind, is told in [`durable`].

mod checkpoint;
mod codec;
mod copy;
pub mod durable;
pub mod engine;
mod journal;
pub mod list;
pub mod outbox;
mod row;
mod schema;
#[doc(hidden)]
pub use schema::support as schema_support;
mod store;
pub mod stored_forms;
mod table;
pub mod token;
mod transaction;

pub use durable::DurableEngine;
pub use engine::{Engine, EngineError, MemoryEngine};
pub use list::{Listed, list};
pub use outbox::{EventDraft, OutboxEvent};
pub use schema::{Has, Tables};
pub use store::{Options, State, Store, StoreError, WriteError};
pub use table::{IndexSink, Record, Row, Table};
pub use token::{Recall, TokenKey};
pub use transaction::Transaction;
