//! What compute promises, through gRPC over its socket, with real peers and simulated instances.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod attributes;
mod consoles;
mod images;
mod launch;
mod lifecycle;
mod nodes;
mod recovery;
mod region;
mod tags;
mod templates;
mod volumes;
