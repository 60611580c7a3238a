//! Whole regions of real processes: journeys across services, and what is left after they are killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod audit;
mod audit_events;
mod harness;
mod hung_peers;
mod journeys;
mod late_answers;
mod lost_nodes;
mod random_kills;
mod region;
mod security_recovery;
mod steps;
mod workload;
