//! The metadata service of an instance, at http://169.254.169.254 within it.
//!
//! ```text
//!  connection ─► serve (HTTP, limits) ─► answer (tokens, refusals; pure) ─► tree (what there is to know; pure)
//! ```
//!
//! The shim serves it from what it was told last, so an instance can ask about itself whoever else is down.

mod answer;
mod machine;
mod page;
mod serve;
mod token;
mod tree;

pub use self::{
    answer::{Asked, Said, answer},
    machine::{BlockDevice, Identity, Interruption, Key, Machine, Options, ScheduledEvent},
    serve::{Service, serve},
    token::Tokens,
    tree::document,
};
