//! The placement index, shared by all who place.
//!
//! It lives in memory and is rebuilt from the rows on start: rows are the truth. A place is set aside
//! on the writer thread, in the very decision that commits who holds it, so that a call whose caller
//! goes away can neither leak a place nor give away one that is held.

use std::sync::{Arc, Mutex, MutexGuard};

use gureum_compute_domain::{instance::Capacity, node::NodeState, placement::Placement};
use gureum_model::id::{InstanceId, NodeId};

use crate::store::Schema;

/// The index. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Places(Arc<Mutex<Placement>>);

impl Places {
    /// The index as the rows have it.
    pub fn rebuild(tables: &Schema) -> Self {
        let mut placement = Placement::new();
        for node in tables.nodes.iter() {
            placement.set_node(node.id, node.zone, node.capacity, matches!(node.state, NodeState::Up { .. }));
        }
        let launching = tables.launches.iter().flat_map(|launch| &launch.instances);
        for it in tables.instances.iter().map(|row| &row.record.0).chain(launching) {
            if let (Some(node), true) = (it.node, it.holds_capacity) {
                placement.adopt(it.id, node, it.kind.capacity);
            }
        }
        Self(Arc::new(Mutex::new(placement)))
    }

    /// The index, for as long as the guard lives. Never held over an await.
    pub fn lock(&self) -> MutexGuard<'_, Placement> {
        // Placement leaves no change half-done when it panics on a bug, and the rows can rebuild it.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Gives an instance's place back.
    pub fn release(&self, instance: InstanceId) {
        self.lock().release(instance);
    }

    /// Begins a decision that may still refuse.
    pub fn reserve(&self) -> Reservation {
        Reservation { places: self.clone(), instances: Vec::new() }
    }
}

/// Places that are set aside, and given back unless the decision keeps them.
#[derive(Debug)]
pub struct Reservation {
    places: Places,
    instances: Vec<InstanceId>,
}

impl Reservation {
    /// A place for one instance, where it was before if there is room.
    pub fn one(&mut self, instance: InstanceId, zone: char, need: Capacity, preferred: Option<NodeId>, random: u64) -> Option<NodeId> {
        let node = self.places.lock().place(instance, zone, need, preferred, random)?;
        self.instances.push(instance);
        Some(node)
    }

    /// Places for as many as there is room for, but for at least `min`.
    pub fn all(&mut self, instances: &[InstanceId], min: usize, zone: char, need: Capacity, random: u64) -> Option<Vec<NodeId>> {
        let nodes = self.places.lock().place_all(instances, min, zone, need, random)?;
        self.instances.extend(&instances[..nodes.len()]);
        Some(nodes)
    }

    /// The decision stands: its rows hold the places from now on.
    pub fn keep(mut self) {
        self.instances.clear();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.instances.is_empty() {
            return;
        }
        let mut placement = self.places.lock();
        for instance in &self.instances {
            placement.release(*instance);
        }
    }
}
