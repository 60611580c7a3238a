//! Which interfaces' groups are being taken by calls of this process right now.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gureum_model::id::NetworkInterfaceId;
use gureum_service::reconcile::Waker;

use crate::reconcile::Key;

/// How many calls are at each interface. All but one are refused, and may end while that one is still at work: so they
/// are counted. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Taking(Arc<Mutex<HashMap<NetworkInterfaceId, usize>>>);

impl Taking {
    /// Says, as long as the guard lives, that a call is taking groups for an interface.
    pub fn begin(&self, id: NetworkInterfaceId, waker: Waker<Key>) -> TakingGuard {
        *self.calls().entry(id).or_default() += 1;
        TakingGuard { taking: self.clone(), id, waker }
    }

    pub fn is_under_way(&self, id: NetworkInterfaceId) -> bool {
        self.calls().contains_key(&id)
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<NetworkInterfaceId, usize>> {
        // A count is changed whole or not at all, so a poisoned lock is as good as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a taking, also when its call is cancelled; the reconciler looks at what it left.
pub struct TakingGuard {
    taking: Taking,
    id: NetworkInterfaceId,
    waker: Waker<Key>,
}

impl Drop for TakingGuard {
    fn drop(&mut self) {
        let mut calls = self.taking.calls();
        if let Some(count) = calls.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                calls.remove(&self.id);
            }
        }
        drop(calls);
        self.waker.wake([Key::Unsettled]);
    }
}

#[cfg(test)]
mod tests {
    use gureum_model::id::ResourceId;

    use super::*;

    #[test]
    fn a_refused_call_does_not_end_the_one_that_is_at_work() {
        let (taking, id) = (Taking::default(), NetworkInterfaceId::from_number(1));
        let at_work = taking.begin(id, Waker::default());
        drop(taking.begin(id, Waker::default()));
        assert!(taking.is_under_way(id));
        drop(at_work);
        assert!(!taking.is_under_way(id));
    }
}
