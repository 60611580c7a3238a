//! The decisions of Gureum's node service: pure.
//!
//! A node is told what each of its instances shall be ([`Desired`], made by compute), keeps a record
//! of each ([`NodeInstance`]) and drives it there through a driver, which alone makes an instance
//! real. Nothing here does I/O, asks for the time or draws random numbers.
//!
//! ```text
//!  compute ── Desired ──► apply ──► NodeInstance ──► plan ──► Step ──► begin ──► driver
//!                                        ▲                                        │
//!   compute ◄── Observation ─────────────┴──────────── observed ◄── DriverReport ─┘
//! ```
//!
//! How a node survives being killed between any two of these: [`apply`](apply::apply) is committed
//! before it is acknowledged; [`begin`] is committed before the driver is called (it may
//! share a commit with `apply` or `observed`, as it needs nothing but the record); and at start
//! [`recover`](recover::recover) holds every record against what the driver really has. Every call of
//! a driver can be repeated, so a step of which nobody knows whether it was done is done again.
//!
//! What is never done here: nothing moves to another node, nothing is booted twice for one boot
//! number, no instance gets room that the node does not have, and the disk of an instance goes only
//! when compute says "terminated".

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on should panic"))]

pub mod apply;
pub mod capacity;
pub mod driver;
pub mod error;
pub mod input;
pub mod instance;
pub mod observe;
pub mod plan;
pub mod recover;
pub mod runtime;
pub mod sim;
pub mod spec;
pub mod timers;

pub use apply::{Applied, Known, Tombstone, apply, forget};
pub use capacity::{Demand, Ledger};
pub use driver::{BootSpec, Capabilities, DriverEvent, DriverReport, ExitReason, Found, Usage};
pub use error::{ApplyError, FaultError, ForgetError};
pub use instance::{Desired, DesiredState, NodeInstance, Observation, ObservedState};
pub use observe::observed;
pub use plan::{Step, begin, plan};
pub use recover::{Recovered, recover};
pub use runtime::{RuntimeReport, ScriptEnd};
pub use spec::InstanceSpec;
pub use timers::Timers;
