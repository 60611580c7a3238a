//! Points in domain time.

use std::{
    fmt,
    ops::{Add, Sub},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// A point in domain time: microseconds since 1970-01-01T00:00:00Z, never before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(u64);

/// The last second of the year 9999, beyond which RFC 3339 has no form.
const MAX_MICROS: u64 = 253_402_300_799 * 1_000_000;

impl Timestamp {
    pub const EPOCH: Self = Self(0);

    /// From microseconds since the epoch; later than the year 9999 becomes its end.
    pub const fn from_micros(micros: u64) -> Self {
        Self(if micros > MAX_MICROS { MAX_MICROS } else { micros })
    }

    /// From whole seconds since the epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self::from_micros(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The time since `earlier`, or zero.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// From the system's own form; before 1970 becomes 1970.
    pub fn from_system(time: SystemTime) -> Self {
        let micros = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        Self::from_micros(u64::try_from(micros).unwrap_or(MAX_MICROS))
    }

    /// The system's own form.
    pub fn to_system(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.0)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(MAX_MICROS);
        Self::from_micros(self.0.saturating_add(micros))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(micros))
    }
}

/// RFC 3339 in UTC, with milliseconds, as EC2 writes times: `2026-01-31T08:30:00.000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_rfc3339_millis(self.to_system()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_as_ec2_shows_times() {
        let time = Timestamp::from_secs(1_769_848_200) + Duration::from_millis(7);
        assert_eq!(time.to_string(), "2026-01-31T08:30:00.007Z");
        assert_eq!((time + Duration::MAX).to_string(), "9999-12-31T23:59:59.000Z");
        assert_eq!(Timestamp::EPOCH - Duration::from_secs(1), Timestamp::EPOCH);
    }
}
