//! What drives the world to what is recorded.

mod consoles;
pub mod disks;
pub mod due;
pub mod follow;
pub mod instances;
pub mod interfaces;
pub mod launches;
pub mod leases;
mod nodes;
pub mod wake;
