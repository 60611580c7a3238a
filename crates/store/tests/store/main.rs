//! What the store promises, and how it keeps it when processes are killed, disks fail and decisions panic.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and measures real time")]

mod faults;
mod kill;
mod lists;
mod model;
mod opening;
mod size;
mod stored_forms;
mod support;
