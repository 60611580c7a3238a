//! The scaffold on which every Gureum service stands.
//!
//! ```text
//!  listener (Unix socket or mTLS)
//!    └─ context: request id, trace, scope, deadline, panic guard, metrics      [context]
//!         └─ codec: declared validation (crates/proto)
//!              └─ handler: scope → parse → decide → commit → convert           [mutate, watch]
//!                   └─ store (crates/store), peers                             [peer, faults]
//!  reconcile loops                                                             [reconcile]
//! ```
//!
//! A service opens a [`Service`], hands it its tonic servers, and is served with health, reflection,
//! metrics, graceful shutdown and everything above. Nothing here is global to the process, so that many
//! services, and many regions, can share one.

pub mod activity;
mod bare;
mod broken;
pub mod clock;
mod clock_service;
pub mod config;
pub mod context;
mod contract;
mod drain;
pub mod error;
pub mod faults;
mod fitting;
pub mod followed;
pub mod metrics;
pub mod mutate;
pub mod peer;
pub mod reconcile;
mod reflection;
pub mod sequences;
pub mod server;
pub mod telemetry;
pub mod watch;
pub mod wire;

pub use activity::Activity;
pub use clock::Clock;
pub use config::{Listen, ServiceConfig};
pub use context::{RequestContext, scope};
pub use error::Error;
pub use faults::Faults;
pub use followed::Followed;
pub use mutate::{Answer, mutate};
pub use peer::Peer;
pub use reflection::Reflection;
pub use server::{Ready, Running, Service, StartError};
pub use tokio_util::sync::CancellationToken;
