//! The rules of security groups, for drivers whose instances have connections to decide on.
//!
//! ```text
//!  security ── WatchAll ──► follow ──► Groups ──► Interest: what it asked for has changed
//!                                        └──────► rules_of: what it is now
//! ```
//!
//! Security owns the groups; a node only watches them, and asks for nothing when a connection is made. While security
//! is away the last rules stand. A node that starts meanwhile knows no rules at all, and says so rather than that there
//! are none: instances that it finds running keep what they were given.

mod convert;
mod follow;
mod groups;
mod table;

pub use self::{
    follow::follow,
    groups::{Groups, Interest},
};
