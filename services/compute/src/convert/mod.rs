//! Between the contract's messages and the domain's records.

pub mod desired;
pub mod image;
pub mod instance;
pub mod instance_type;
pub mod launch_spec;
pub mod listing;
pub mod node;
pub mod observation;
pub mod permission;
pub mod snapshot;
pub mod template;
pub mod volume;
