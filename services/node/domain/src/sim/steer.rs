//! How users steer a simulated instance: by a line of its user data.
//!
//! ```text
//! #!/bin/sh
//! #gureum-sim cpu=70 boot=100ms exit-after=30s
//! ```
//!
//! | setting | meaning |
//! | --- | --- |
//! | `cpu=70` | CPU percent, always exactly this: 0 to 100, one decimal |
//! | `memory=40` | memory in use, percent: 0 to 100 |
//! | `network-in=`, `network-out=`, `disk-read=`, `disk-write=` | bytes per second, always exactly this; `k`, `M` and `G` for thousands, millions and billions; below 4.2 G |
//! | `boot=100ms` | how long a boot takes: `ms`, `s`, `m`, `h` |
//! | `stop=5s` | how long a shutdown takes, if its grace allows |
//! | `fail=boot` | every boot fails |
//! | `exit-after=30s` | the instance shuts itself down so long after each boot |
//! | `hang-after=30s` | the instance stops answering so long after each boot |
//!
//! A later setting overrides an earlier one. What is not understood is told on the console and has no
//! other effect: user data belongs to the user and is never refused for its contents.

use std::time::Duration;

/// What stands in front of the settings on their line.
pub const MARK: &str = "#gureum-sim";

/// Settings of one instance; what is absent is left to the model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steer {
    /// Tenths of a percent.
    pub cpu_tenths: Option<u32>,
    /// Percent.
    pub memory_percent: Option<u32>,
    /// Bytes per second, as all rates.
    pub network_in: Option<u32>,
    pub network_out: Option<u32>,
    pub disk_read: Option<u32>,
    pub disk_write: Option<u32>,
    pub boot: Option<Duration>,
    pub stop: Option<Duration>,
    pub fail_boot: bool,
    pub exit_after: Option<Duration>,
    pub hang_after: Option<Duration>,
    /// What was not understood.
    pub unknown: Vec<String>,
}

/// Settings beyond these are not told one by one: user data could be full of them.
const MAX_UNKNOWN: usize = 8;

impl Steer {
    /// Reads all lines of the user data that begin with [`MARK`].
    pub fn from_user_data(user_data: &[u8]) -> Self {
        let mut steer = Self::default();
        // Most instances say nothing, and a binary is searched as fast as a text.
        if !user_data.windows(MARK.len()).any(|window| window == MARK.as_bytes()) {
            return steer;
        }
        for line in String::from_utf8_lossy(user_data).lines() {
            let Some(settings) = line.trim().strip_prefix(MARK).filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
            else {
                continue;
            };
            for setting in settings.split_whitespace() {
                if steer.set(setting).is_none() && steer.unknown.len() < MAX_UNKNOWN {
                    steer.unknown.push(setting.chars().take(80).collect());
                }
            }
        }
        steer
    }

    fn set(&mut self, setting: &str) -> Option<()> {
        let (name, value) = setting.split_once('=')?;
        match name {
            "cpu" => self.cpu_tenths = Some(tenths(value).filter(|tenths| *tenths <= 1000)?),
            "memory" => self.memory_percent = Some(value.parse().ok().filter(|percent| *percent <= 100)?),
            "network-in" => self.network_in = Some(rate(value)?),
            "network-out" => self.network_out = Some(rate(value)?),
            "disk-read" => self.disk_read = Some(rate(value)?),
            "disk-write" => self.disk_write = Some(rate(value)?),
            "boot" => self.boot = Some(duration(value)?),
            "stop" => self.stop = Some(duration(value)?),
            "fail" if value == "boot" => self.fail_boot = true,
            "exit-after" => self.exit_after = Some(duration(value)?),
            "hang-after" => self.hang_after = Some(duration(value)?),
            _ => return None,
        }
        Some(())
    }
}

fn tenths(text: &str) -> Option<u32> {
    let (whole, tenth) = text.split_once('.').unwrap_or((text, "0"));
    let digit = (tenth.len() == 1).then(|| tenth.parse::<u32>().ok()).flatten()?;
    whole.parse::<u32>().ok()?.checked_mul(10)?.checked_add(digit)
}

fn rate(text: &str) -> Option<u32> {
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u32>().ok()?.checked_mul(factor)
}

fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => number,
        "s" => number.checked_mul(1_000)?,
        "m" => number.checked_mul(60_000)?,
        "h" => number.checked_mul(3_600_000)?,
        _ => return None,
    };
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn settings_are_read_from_their_lines_only() {
        let text = b"#!/bin/sh\necho cpu=3\n  #gureum-sim cpu=70 boot=100ms fail=boot\n#gureum-simple cpu=1\n#gureum-sim exit-after=30s disk-read=5M cpu=12.5 fail=now cpu=101\n";
        let steer = Steer::from_user_data(text);
        let expected = Steer {
            cpu_tenths: Some(125),
            boot: Some(Duration::from_millis(100)),
            fail_boot: true,
            exit_after: Some(Duration::from_secs(30)),
            disk_read: Some(5_000_000),
            unknown: vec!["fail=now".into(), "cpu=101".into()],
            ..Steer::default()
        };
        assert_eq!(steer, expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200), tail in ".{0,60}") {
            let mut data = bytes;
            data.extend_from_slice(b"\n#gureum-sim ");
            data.extend_from_slice(tail.as_bytes());
            prop_assert!(Steer::from_user_data(&data).unknown.len() <= MAX_UNKNOWN);
        }
    }
}
