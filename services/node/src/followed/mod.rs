//! What other services tell of all that they own, as far as this node's instances need it.
//!
//! ```text
//!  security, network ── WatchAll ──► follow ──► Known ──► Interest: what it asked for has changed
//!                                                 └─────► with: what it is now
//! ```
//!
//! A node only watches, and asks for nothing when a connection is made. While a service is away, what it told last
//! stands. A node that starts meanwhile knows nothing at all, and says so rather than that there is nothing: instances
//! that it finds running keep what they were given.

mod follow;
mod known;

use std::{collections::BTreeSet, fmt::Debug};

use gureum_model::Scope;

pub use self::{
    follow::follow,
    known::{Interest, Known},
};

/// What is kept of one service: a table that says of each change which of its parts are something else by it.
pub trait Table: Default + Send + 'static {
    /// What the service tells.
    type Event: Send;
    /// One thing that is as it now is.
    type Change: Send;
    /// A part in which one may be interested.
    type Key: Debug + Clone + Ord + Send;

    /// What an event changes, if anything that is kept here.
    fn change(event: Self::Event) -> Option<(Scope, Self::Change)>;
    /// Takes a change, and answers the parts that are something else from now on.
    fn apply(&mut self, scope: &Scope, change: Self::Change) -> BTreeSet<Self::Key>;
    /// Whether a part is the same in another table.
    fn is_same(&self, other: &Self, scope: &Scope, key: &Self::Key) -> bool;
}

/// Something of a service's that is to be read. What cannot be is an error of ours, and is as if it were not there.
pub fn read<T>(service: &'static str, what: &'static str, named: &str, read: Option<T>) -> Option<T> {
    if read.is_none() {
        tracing::error!(service, what, named, "a service told of something that cannot be read; nothing passes by it");
    }
    read
}
