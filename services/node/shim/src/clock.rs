//! The time of a shim: the host's. It has no region whose time it could ask for; its node translates.
#![allow(clippy::disallowed_methods, reason = "the one place of this crate that asks for the time")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Microseconds since the epoch.
pub fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// For the graces after which what does not end is killed.
pub fn monotonic() -> Instant {
    Instant::now()
}
