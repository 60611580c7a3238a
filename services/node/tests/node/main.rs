//! What the node promises, through gRPC over its socket.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod faults;
mod lifecycle;
mod listing;
mod recovery;
mod registration;
mod rules;
mod support;
mod time;
