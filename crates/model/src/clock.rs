//! How a region's domain time passes. The clock itself, which waits, is in `gureum-service`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Timestamp, refusal::Refusal};

/// How domain time (life-cycles, periods, cool-downs, schedules) passes in a region.
///
/// Deadlines, retries, leases and signatures never follow it: they use real monotonic time.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockSetting {
    /// As the wall clock goes.
    #[default]
    Real,
    /// So many times as fast as the wall clock, from the moment the region first started.
    Scaled { factor: f64 },
    /// It stands still until someone advances it.
    Virtual { start: Timestamp },
}

/// Time may pass at most this many times as fast as the wall clock: beyond it a second of real
/// scheduling delay would be most of a day, and nothing would be in order any more.
pub const MAX_TIME_SCALE: f64 = 100_000.0;

impl FromStr for ClockSetting {
    type Err = Refusal;

    /// `1` or `real`, `60` or `0.5` (a factor), `virtual` (from the epoch of the region's choice).
    fn from_str(text: &str) -> Result<Self, Refusal> {
        match text {
            "real" | "1" => Ok(Self::Real),
            "virtual" => Ok(Self::Virtual { start: VIRTUAL_START }),
            _ => match text.parse::<f64>() {
                Ok(factor) if factor > 0.0 && factor <= MAX_TIME_SCALE => Ok(Self::Scaled { factor }),
                _ => Err(Refusal::invalid(
                    "time_scale",
                    format!("\"{text}\" is no time scale: expected a factor above 0 and at most {MAX_TIME_SCALE}, \"real\" or \"virtual\""),
                )),
            },
        }
    }
}

/// Where virtual time begins: 2026-01-01T00:00:00Z, a Thursday. Fixed, so that two runs are alike.
pub const VIRTUAL_START: Timestamp = Timestamp::from_secs(1_767_225_600);

impl fmt::Display for ClockSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Real => f.write_str("real"),
            Self::Scaled { factor } => write!(f, "{factor}"),
            Self::Virtual { .. } => f.write_str("virtual"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_read_and_checked() {
        assert_eq!("60".parse(), Ok(ClockSetting::Scaled { factor: 60.0 }));
        assert_eq!("real".parse(), Ok(ClockSetting::Real));
        assert_eq!(VIRTUAL_START.to_string(), "2026-01-01T00:00:00.000Z");
        for bad in ["0", "-1", "NaN", "inf", "fast", ""] {
            assert!(bad.parse::<ClockSetting>().is_err(), "{bad}");
        }
    }
}
