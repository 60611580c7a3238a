//! Whole regions of real processes: journeys across services, and what is left after they are killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod door;
mod dynamic;
mod harness;
mod image_journey;
mod journeys;
mod refusals;
mod security_recovery;
mod stored_forms;
mod traces;
mod webhooks;
