//! Wakes the loops for whatever the outbox tells, so that no writer can forget to.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use gureum_model::id::{InstanceId, ResourceId};

use gureum_store::Store;

use super::due::DueKey;
use crate::{core::Core, store::Schema};

/// Events read at a time.
const BATCH: usize = 1_024;

/// How far the outbox was read.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<AtomicU64>);

impl Seen {
    /// From here on: what is older every loop looks at when it starts.
    pub fn from_now(core: &Core) -> Self {
        Self(Arc::new(AtomicU64::new(core.read().sequence())))
    }

    /// Whether everything that is committed was read.
    pub fn is_idle(&self, store: &Store<Schema>) -> bool {
        self.0.load(Ordering::SeqCst) >= store.read().sequence()
    }
}

/// Follows the own outbox until the store stops.
pub async fn follow(core: Arc<Core>, seen: Seen) {
    let mut sequence = core.store.sequence();
    loop {
        let latest = *sequence.borrow_and_update();
        let mut after = seen.0.load(Ordering::SeqCst);
        while after < latest {
            let state = core.read();
            let batch: Vec<_> = state.events_after(after).take(BATCH).collect();
            let Some(last) = batch.last().map(|event| event.sequence) else { break };
            let of_instances = batch.iter().filter(|event| event.resource_id.starts_with(InstanceId::PREFIX) && !event.deleted);
            let keys: Vec<String> = of_instances.map(|event| format!("{}/{}", event.scope, event.resource_id)).collect();
            // Woken before it counts as read, so that whoever waits for quiet sees one or the other.
            let awaited = core.awaited.among(keys.iter());
            if !awaited.is_empty() {
                core.interfaces.wake(awaited);
            }
            core.instances.wake(keys);
            let disks = batch.iter().map(|event| format!("{}/{}", event.scope, event.resource_id));
            let state = core.read();
            core.disks.wake(disks.filter(|key| state.disk_work.get(key).is_some()));
            let living = batch.iter().filter(|event| !event.deleted);
            core.due.wake(living.filter_map(|event| DueKey::of(&event.scope, &event.resource_id)));
            seen.0.store(last, Ordering::SeqCst);
            after = last;
        }
        if sequence.changed().await.is_err() {
            return;
        }
    }
}
