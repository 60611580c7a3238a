//! What a service has under way, so that virtual time moves only when all is quiet.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

type IdleCheck = Box<dyn Fn() -> bool + Send + Sync>;

/// Answers how far others' outboxes are followed, by their names.
type Followed = Box<dyn Fn() -> Vec<(String, u64)> + Send + Sync>;

/// Counts a service's calls and asks its reconcile loops. Clones count together.
#[derive(Clone, Default)]
pub struct Activity(Arc<Inner>);

#[derive(Default)]
struct Inner {
    begun: AtomicU64,
    ended: AtomicU64,
    loops: Mutex<Vec<IdleCheck>>,
    followed: Mutex<Vec<Followed>>,
}

impl Activity {
    /// Counts work until the guard is dropped.
    pub fn begin(&self) -> ActivityGuard {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        ActivityGuard(self.0.clone())
    }

    /// Asks `is_idle` too, from now on.
    pub fn add_loop(&self, is_idle: impl Fn() -> bool + Send + Sync + 'static) {
        self.loops().push(Box::new(is_idle));
    }

    /// Asks `followed` too how far others are followed. What it has answered must be applied, or show as work, by then.
    pub fn add_followed(&self, followed: impl Fn() -> Vec<(String, u64)> + Send + Sync + 'static) {
        self.followers().push(Box::new(followed));
    }

    /// How far others are followed, by their names.
    pub fn followed(&self) -> Vec<(String, u64)> {
        self.followers().iter().flat_map(|followed| followed()).collect()
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.0.begun.load(Ordering::SeqCst) == self.0.ended.load(Ordering::SeqCst) && self.loops().iter().all(|is_idle| is_idle())
    }

    /// Grows whenever work begins.
    pub fn count(&self) -> u64 {
        self.0.begun.load(Ordering::SeqCst)
    }

    fn followers(&self) -> std::sync::MutexGuard<'_, Vec<Followed>> {
        // As for the loops.
        self.0.followed.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn loops(&self) -> std::sync::MutexGuard<'_, Vec<IdleCheck>> {
        // A push is whole or not begun, so a poisoned lock is as good as any.
        self.0.loops.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Ends its work when dropped.
pub struct ActivityGuard(Arc<Inner>);

impl Drop for ActivityGuard {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}
