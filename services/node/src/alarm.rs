//! One task that sleeps until the earliest of many times.

use std::{
    future::pending,
    pin::pin,
    sync::{Mutex, MutexGuard},
};

use gureum_model::Timestamp;
use gureum_service::Clock;
use tokio::sync::Notify;

/// Wakes its one task when the earliest time has come, also when that changes while it sleeps.
///
/// It knows for which time the clock has its timer: virtual time must not move on while a nearer one is
/// not yet entered ([`Alarm::is_set_for`]).
pub struct Alarm {
    clock: Clock,
    changed: Notify,
    set_for: Mutex<Option<Option<Timestamp>>>,
}

impl Alarm {
    pub fn new(clock: Clock) -> Self {
        Self { clock, changed: Notify::new(), set_for: Mutex::default() }
    }

    /// The earliest time may have changed.
    pub fn changed(&self) {
        self.changed.notify_one();
    }

    /// Ends when the time that `earliest` tells has come. For one task.
    pub async fn due(&self, earliest: impl Fn() -> Option<Timestamp> + Send + Sync) {
        loop {
            let at = earliest();
            let mut sleep = pin!(async {
                match at {
                    Some(at) => self.clock.sleep_until(at).await,
                    None => pending().await,
                }
            });
            if futures::poll!(sleep.as_mut()).is_ready() {
                *self.set_for() = None;
                return;
            }
            // From its first poll on the clock knows of the timer.
            *self.set_for() = Some(at);
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// Whether its task sleeps until exactly this time.
    pub fn is_set_for(&self, earliest: Option<Timestamp>) -> bool {
        *self.set_for() == Some(earliest)
    }

    fn set_for(&self) -> MutexGuard<'_, Option<Option<Timestamp>>> {
        // It is written whole, so a poisoned lock is as good as any.
        self.set_for.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
