//! What the node has, and how much of it is promised.
//!
//! An instance holds its demand from the moment its run is accepted until it is stopped, failed or
//! terminated: while it stops it still holds, because it still runs. What an instance holds is in its
//! record ([`NodeInstance::held`]), so the [`Ledger`] is a sum that can be made again at any time.

use serde::{Deserialize, Serialize};

use crate::instance::NodeInstance;

/// Processors and memory, as a demand or as an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Demand {
    /// Thousandths of a vCPU.
    pub vcpu_milli: u64,
    /// MiB.
    pub memory_mib: u64,
}

impl Demand {
    pub const NOTHING: Self = Self { vcpu_milli: 0, memory_mib: 0 };

    pub const fn new(vcpu_milli: u64, memory_mib: u64) -> Self {
        Self { vcpu_milli, memory_mib }
    }

    /// Whether all of it is there in `room`.
    pub const fn fits(self, room: Self) -> bool {
        self.vcpu_milli <= room.vcpu_milli && self.memory_mib <= room.memory_mib
    }

    /// Both together; never beyond what the numbers can say.
    pub const fn plus(self, other: Self) -> Self {
        Self { vcpu_milli: self.vcpu_milli.saturating_add(other.vcpu_milli), memory_mib: self.memory_mib.saturating_add(other.memory_mib) }
    }

    /// What is left; never below nothing.
    pub const fn minus(self, other: Self) -> Self {
        Self { vcpu_milli: self.vcpu_milli.saturating_sub(other.vcpu_milli), memory_mib: self.memory_mib.saturating_sub(other.memory_mib) }
    }
}

/// The node's books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ledger {
    total: Demand,
    used: Demand,
    holders: usize,
}

impl Ledger {
    /// Books of a node that has `total`, with what these records hold.
    ///
    /// A node whose configuration shrank may hold more than it has: it keeps what runs and takes
    /// nothing new until enough has gone.
    pub fn new<'a>(total: Demand, records: impl IntoIterator<Item = &'a NodeInstance>) -> Self {
        let mut ledger = Self { total, used: Demand::NOTHING, holders: 0 };
        for record in records {
            ledger.replace(None, Some(record));
        }
        ledger
    }

    /// Books a change of one record. To be called for each committed change, once.
    pub fn replace(&mut self, before: Option<&NodeInstance>, after: Option<&NodeInstance>) {
        let held = |record: Option<&NodeInstance>| record.map_or(Demand::NOTHING, |record| record.held);
        let (gone, come) = (held(before), held(after));
        self.used = self.used.minus(gone).plus(come);
        self.holders -= usize::from(gone != Demand::NOTHING).min(self.holders);
        self.holders += usize::from(come != Demand::NOTHING);
    }

    pub fn total(&self) -> Demand {
        self.total
    }

    pub fn used(&self) -> Demand {
        self.used
    }

    /// Instances that hold something.
    pub fn holders(&self) -> usize {
        self.holders
    }

    /// What can still be promised.
    pub fn free(&self) -> Demand {
        self.total.minus(self.used)
    }
}
