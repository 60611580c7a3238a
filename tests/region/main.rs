//! Whole regions of real processes: journeys across services, and what is left after they are killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod address_moves;
mod harness;
mod journeys;
mod read_your_writes;
mod security_recovery;
