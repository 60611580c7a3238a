//! The life of an instance.

#[path = "../common/mod.rs"]
mod common;
mod lives;
mod transitions;
