//! The model behind the `sim` driver: instances without a process.
//!
//! Nothing is polled. An instance is a few numbers and the one time at which it will next do
//! something ([`SimInstance::next_event_at`]); [`SimFleet`] keeps those times in order. What an instance
//! uses ([`load`]) and prints ([`mod@console`]) is computed when somebody asks. So 100,000 instances that
//! nobody looks at cost memory and nothing else.
//!
//! Everything follows from the seed, the instance's id, its boot number and the time: the same calls
//! at the same domain times give the same day. After a restart the fleet is rebuilt from the node's
//! records ([`SimFleet::adopt`]); faults that were injected and have not struck yet are forgotten then.
//!
//! Users steer an instance by a line of its user data ([`Steer`]).

pub mod chance;
pub mod console;
pub mod fault;
pub mod fleet;
pub mod load;
pub mod machine;
pub mod settings;
pub mod steer;

pub use console::console;
pub use fault::Fault;
pub use fleet::SimFleet;
pub use machine::{Phase, SimInstance};
pub use settings::{SimRule, SimSettings, Span};
pub use steer::Steer;
