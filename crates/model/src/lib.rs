//! The vocabulary that every Gureum crate shares.
//!
//! Nothing here does I/O, and nothing here asks the system for the time or for a random number
//! except through [`IdSource`], which can be seeded. Domain crates may depend on this crate alone.

pub mod clock;
pub mod filter;
pub mod id;
pub mod page;
pub mod refusal;
pub mod scope;
pub mod tag;
pub mod time;

pub use clock::ClockSetting;
pub use filter::{Filter, Filterable, Filters};
pub use id::{IdError, IdSource};
pub use page::{PageRequest, PageToken};
pub use refusal::{Refusal, RefusalKind};
pub use scope::{AccountId, Region, Scope};
pub use tag::Tags;
pub use time::Timestamp;
