//! Whole regions of real processes: journeys across services, and what is left after they are killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod address_moves;
mod audit;
mod audit_events;
mod bare;
mod boots;
mod declared_rules;
mod disks;
mod door;
mod drains;
mod dynamic;
mod gate;
mod harness;
mod hung_peers;
mod identity;
mod image_journey;
mod journeys;
mod late_answers;
mod lost_nodes;
mod put_back;
mod random_kills;
mod read_your_writes;
mod refusals;
mod region;
mod remains;
mod repeatable;
mod routes;
mod running;
mod security_recovery;
mod sessions;
mod steps;
mod stored_forms;
mod tour;
mod traces;
mod type_changes;
mod webhooks;
mod workload;
