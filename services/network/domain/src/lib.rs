//! The decisions of Gureum's network service: pure.
//!
//! Given the records as they are, the time and an input, each function here says what the records
//! shall be, or refuses with EC2's code. Nothing here does I/O, asks for the time, or makes a random
//! number of its own: new ids come as arguments.
//!
//! ```text
//! request ──parse──▶ typed input ──decide(&mut Draft, input)──▶ Changes | refusal
//!                                        │
//!                     View: the scope's records, and which addresses are used
//! ```
//!
//! A decision reads through a [`Draft`] and stages rows in it; [`Draft::finish`] hands over what really
//! changed, for one atomic commit. A refusal leaves the draft to be dropped.
//!
//! Invariants:
//! - A private address belongs to one interface, a public one to one interface or one elastic IP, ever.
//! - An elastic IP leads to an interface exactly if that interface says so of the elastic IP.
//! - Each VPC has one main route table; each subnet is served by one table.
//! - Subnets of a VPC do not overlap; each lies inside its VPC.
//! - An interface is never without a hold on its security groups: see [`hold`].
//! - What waits for the security service is a state or a row, never memory: see [`vpc`], [`hold`],
//!   [`scope`] and [`instance`], which say how each workflow goes on after a kill between any two steps.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps fails where it should"))]

pub mod address;
pub mod association;
pub mod attachment;
pub mod cidr;
pub mod dns;
pub mod draft;
pub mod gateway;
pub mod hold;
pub mod instance;
pub mod interface;
pub mod interface_create;
pub mod interface_modify;
pub mod launch;
pub mod letting_go;
pub mod limits;
pub mod missing;
pub mod pool;
pub mod route;
pub mod route_table;
pub mod scope;
pub mod subnet;
pub mod tag;
pub mod view;
pub mod vpc;
pub mod zone;

pub use address::ElasticAddress;
pub use draft::{Changes, Draft, Row};
pub use gateway::InternetGateway;
pub use hold::HoldMark;
pub use instance::EndedInstance;
pub use interface::NetworkInterface;
pub use limits::{Limits, Rules};
pub use missing::Missing;
pub use pool::PublicPool;
pub use route_table::RouteTable;
pub use scope::ScopeBirth;
pub use subnet::Subnet;
pub use view::View;
pub use vpc::Vpc;

/// Names that a message carries at most: enough to act on, short enough for a status line.
pub const NAMES_IN_MESSAGE: usize = 10;

/// Some of a list in words, so that no message grows with the data: `a, b and 7 more`.
fn some_of<T: std::fmt::Display>(items: &[T]) -> String {
    let shown = items.iter().take(NAMES_IN_MESSAGE).map(T::to_string).collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(NAMES_IN_MESSAGE) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A value that a filter compares.
fn text<'a>(value: impl ToString) -> std::borrow::Cow<'a, str> {
    std::borrow::Cow::Owned(value.to_string())
}
