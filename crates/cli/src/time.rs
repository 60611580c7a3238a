//! Time as people read and write it. "Ago" is by the region's clock, which may not be this host's.

use std::time::Duration;

pub use gureum_model::Timestamp;

/// A message's time; none if it is absent or before 1970.
pub fn stamp(time: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    let time = time?;
    let seconds = u64::try_from(time.seconds).ok()?;
    let micros = u64::try_from(time.nanos).ok()? / 1000;
    Some(Timestamp::from_micros(seconds.checked_mul(1_000_000)?.checked_add(micros)?))
}

/// "3m ago", "in 3m", or the full time where the region's is not known.
pub fn ago(time: Option<&prost_types::Timestamp>, now: Option<Timestamp>) -> String {
    match (stamp(time), now) {
        (None, _) => String::new(),
        (Some(time), None) => time.to_string(),
        (Some(time), Some(now)) if time > now => format!("in {}", short(time.since(now))),
        (Some(time), Some(now)) => format!("{} ago", short(now.since(time))),
    }
}

/// The largest unit that fits, rounded down: 45s, 3m, 5h, 12d.
fn short(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86_400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A span as it is given on a command line: 5m, 1h30m, 90s, or a bare number of seconds.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; it is written as 90s, 5m or 1h30m"))
}

/// A span as a message.
pub fn to_proto(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or_default(),
    }
}

/// For how long something takes here: the region's time may pass otherwise.
#[allow(clippy::disallowed_methods, reason = "the one place of the program that asks for it where it knows no service")]
pub fn monotonic() -> std::time::Instant {
    std::time::Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> prost_types::Timestamp {
        prost_types::Timestamp { seconds, nanos: 0 }
    }

    #[test]
    fn ago_takes_the_largest_unit() {
        let now = Some(Timestamp::from_secs(1_000_000));
        let shown = |seconds| ago(Some(&at(seconds)), now);
        assert_eq!(shown(1_000_000), "0s ago");
        assert_eq!(shown(1_000_000 - 59), "59s ago");
        assert_eq!(shown(1_000_000 - 60), "1m ago");
        assert_eq!(shown(1_000_000 - 7_199), "1h ago");
        assert_eq!(shown(1_000_000 - 90_000), "1d ago");
        assert_eq!(shown(1_000_090), "in 1m");
        assert_eq!(ago(None, now), "");
        assert_eq!(ago(Some(&at(-5)), now), "");
        assert!(ago(Some(&at(0)), None).starts_with("1970-01-01T00:00:00"));
    }

    #[test]
    fn spans_are_read() {
        assert_eq!(parse_span("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_span("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(parse_span("soon").is_err());
    }
}
