//! How the simulation behaves.

use std::time::Duration;

use gureum_model::{Refusal, filter::matches_pattern, refusal::Violations};
use serde::{Deserialize, Serialize};

use super::{
    chance::{Purpose, draw_text, duration_up_to},
    machine::Profile,
};
use crate::spec::InstanceSpec;

/// A range of durations, in domain time. Both ends count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub min: Duration,
    pub max: Duration,
}

impl Span {
    pub const fn millis(min: u64, max: u64) -> Self {
        Self { min: Duration::from_millis(min), max: Duration::from_millis(max) }
    }

    fn width(self) -> Duration {
        self.max.saturating_sub(self.min)
    }

    /// The duration that belongs to a number.
    pub fn pick(self, number: u64) -> Duration {
        self.min + duration_up_to(number, self.width())
    }
}

/// The behaviour of all simulated instances of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimSettings {
    /// From which all chance follows. Default 0.
    pub seed: u64,
    /// From the beginning of a boot or reboot until the instance is up. Default 200 ms to 2 s. Zero is
    /// allowed.
    pub boot: Span,
    /// How long a shutdown takes, if its grace allows. Default 100 ms to 500 ms.
    pub stop: Span,
    /// How long removing takes. Default 50 ms to 200 ms.
    pub terminate: Span,
    /// Boots of a million that fail. Default 0; at most 1,000,000.
    pub boot_failures_per_million: u32,
    /// Exceptions by type and image; the first that matches counts.
    pub rules: Vec<SimRule>,
}

/// Other boots for some types or images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimRule {
    /// Such as `t3.*`. Default: every type.
    #[serde(default = "anything")]
    pub instance_type: String,
    /// Such as `ami-0…`, with `*` and `?`. Default: every image.
    #[serde(default = "anything")]
    pub image_id: String,
    /// Default: as the settings say.
    #[serde(default)]
    pub boot: Option<Span>,
    /// Default: as the settings say.
    #[serde(default)]
    pub boot_failures_per_million: Option<u32>,
}

fn anything() -> String {
    "*".to_owned()
}

impl Default for SimSettings {
    fn default() -> Self {
        Self {
            seed: 0,
            boot: Span::millis(200, 2000),
            stop: Span::millis(100, 500),
            terminate: Span::millis(50, 200),
            boot_failures_per_million: 0,
            rules: Vec::new(),
        }
    }
}

impl SimSettings {
    /// Settings under which everything happens at once and nothing fails: for tests.
    pub fn instant() -> Self {
        let none = Span { min: Duration::ZERO, max: Duration::ZERO };
        Self { boot: none, stop: none, terminate: none, ..Self::default() }
    }

    /// Every setting that makes no sense.
    pub fn check(&self) -> Result<(), Refusal> {
        let mut violations = Violations::new();
        let mut spans = vec![("boot".to_owned(), self.boot), ("stop".to_owned(), self.stop), ("terminate".to_owned(), self.terminate)];
        let mut rates = vec![("boot_failures_per_million".to_owned(), self.boot_failures_per_million)];
        for (place, rule) in self.rules.iter().enumerate() {
            spans.extend(rule.boot.map(|span| (format!("rules[{place}].boot"), span)));
            rates.extend(rule.boot_failures_per_million.map(|rate| (format!("rules[{place}].boot_failures_per_million"), rate)));
        }
        for (field, span) in spans.into_iter().filter(|(_, span)| span.min > span.max) {
            violations.add(field, format!("the shortest time {:?} is longer than the longest {:?}", span.min, span.max));
        }
        for (field, rate) in rates.into_iter().filter(|(_, rate)| *rate > 1_000_000) {
            violations.add(field, format!("{rate} of a million is more than all"));
        }
        violations.finish()
    }

    /// What the settings say of an instance. Half of what differs between boot times is the instance's
    /// own, a quarter its type's and a quarter its image's, so that users find slow types and slow images.
    pub(super) fn profile(&self, spec: &InstanceSpec) -> Profile {
        let image = spec.image.id.to_string();
        let matches = |rule: &&SimRule| matches_pattern(&rule.instance_type, &spec.type_name) && matches_pattern(&rule.image_id, &image);
        let rule = self.rules.iter().find(matches);
        let boot = rule.and_then(|rule| rule.boot).unwrap_or(self.boot);
        let failures = rule.and_then(|rule| rule.boot_failures_per_million).unwrap_or(self.boot_failures_per_million);
        let quarter = boot.width() / 4;
        let of_type = duration_up_to(draw_text(self.seed, Purpose::TypeBootTime, &spec.type_name), quarter);
        let of_image = duration_up_to(draw_text(self.seed, Purpose::ImageBootTime, &image), quarter);
        Profile {
            boot: Span { min: boot.min + of_type + of_image, max: boot.min + of_type + of_image + boot.width() / 2 },
            boot_failures_per_million: failures,
        }
    }
}
