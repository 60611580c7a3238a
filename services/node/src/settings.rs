//! What only a node is told.

use std::{path::PathBuf, time::Duration};

use gureum_model::scope::ZONE_LETTERS;
use gureum_node_domain::{Demand, sim::SimSettings};
use gureum_service::config;
use serde::{Deserialize, Serialize};

/// Settings of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The node's name: its id follows from it, so it stays the same for the life of its store. 1 to 64
    /// letters, digits, dots, hyphens and underscores. Default "node".
    pub name: String,
    /// The letter of its zone in every region: a, b or c. Default a.
    pub zone: char,
    /// vCPUs that it gives to instances. Default 64.
    pub vcpus: u32,
    /// MiB of memory that it gives to instances. Default 262,144 (256 GiB).
    pub memory_mib: u64,
    /// From which all chance of the sim driver follows. Default 0.
    pub seed: u64,
    /// What makes instances real. Default process.
    pub driver: DriverSetting,
    /// Of the process driver: the directory by which the instances of a region find each other on this host, the same for
    /// all nodes of the region on it, and open to their user alone. Default: one in the node's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fabric: Option<PathBuf>,
    /// Of the process driver: added to each port of a public address, for hosts that keep low ports to themselves: with
    /// 10,000, port 80 of an instance is reached at port 10,080. Default 0.
    pub port_offset: u16,
    /// Of the process driver: whether what is open stays open when the rule goes that allowed it. Default tracked.
    pub security_group_tracking: TrackingSetting,
    /// Where the process driver keeps volumes and snapshots. Nodes of a region that are on one host should share it: then a
    /// volume can go from an instance of one to an instance of another. Default: with the node's store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<PathBuf>,
    /// Of the process driver: instances run also where nothing keeps them from the host, for it grants neither namespaces nor
    /// users of their own; they may then do whatever the node's user may. Default false: launching is refused there.
    pub unconfined: bool,
    /// How the sim driver behaves; its seed is [`Settings::seed`].
    pub sim: SimSettings,
    /// Time between two heartbeats, in milliseconds of real time: 10 to 60,000. Compute may ask for
    /// more of them. Default 1,000.
    pub heartbeat_interval_ms: u64,
}

/// Which driver a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverSetting {
    /// A model; nothing runs.
    Sim,
    /// Programs in namespaces of their own.
    #[default]
    Process,
}

impl std::fmt::Display for DriverSetting {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Sim => "sim",
            Self::Process => "process",
        })
    }
}

/// What becomes of open connections whose rule is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrackingSetting {
    /// They stay open, as EC2's tracked connections do.
    #[default]
    Tracked,
    /// They are cut.
    Strict,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "node".to_owned(),
            zone: 'a',
            vcpus: 64,
            memory_mib: 256 * 1024,
            seed: 0,
            driver: DriverSetting::Process,
            fabric: None,
            port_offset: 0,
            security_group_tracking: TrackingSetting::Tracked,
            storage: None,
            unconfined: false,
            sim: SimSettings::default(),
            heartbeat_interval_ms: 1_000,
        }
    }
}

/// Names stand in logs and file names.
const LONGEST_NAME: usize = 64;
/// Beyond an interval of a minute every sensible lease would have run out.
const HEARTBEAT_INTERVALS_MS: std::ops::RangeInclusive<u64> = 10..=60_000;

impl config::Settings for Settings {
    const PEERS: &'static [&'static str] = &["compute", "network", "security"];

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let plain = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        if self.name.is_empty() || self.name.len() > LONGEST_NAME || !self.name.chars().all(plain) {
            let expected = format!("expected 1 to {LONGEST_NAME} letters, digits, dots, hyphens and underscores");
            faults.push(format!("settings.name is \"{}\": {expected}", self.name));
        }
        if !ZONE_LETTERS.contains(&self.zone) {
            faults.push(format!("settings.zone is '{}': expected a, b or c", self.zone));
        }
        for (name, value) in [("vcpus", u64::from(self.vcpus)), ("memory_mib", self.memory_mib)] {
            if value == 0 {
                faults.push(format!("settings.{name} is 0: with nothing to give, no instance runs"));
            }
        }
        if !HEARTBEAT_INTERVALS_MS.contains(&self.heartbeat_interval_ms) {
            faults.push(format!("settings.heartbeat_interval_ms is {}: expected 10 to 60,000", self.heartbeat_interval_ms));
        }
        if self.sim.seed != 0 && self.sim.seed != self.seed {
            faults.push(format!("settings.sim.seed is {} and settings.seed is {}: set settings.seed alone", self.sim.seed, self.seed));
        }
        if let Err(refusal) = self.sim.check() {
            faults.extend(refusal.violations.iter().map(|violation| format!("settings.sim.{violation}")));
        }
        faults
    }
}

impl Settings {
    pub(crate) fn total(&self) -> Demand {
        Demand::new(u64::from(self.vcpus) * 1000, self.memory_mib)
    }

    pub(crate) fn sim_settings(&self) -> SimSettings {
        SimSettings { seed: self.seed, ..self.sim.clone() }
    }

    pub(crate) fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(self.heartbeat_interval_ms)
    }
}

#[cfg(test)]
mod tests {
    use config::Settings as _;

    use super::*;

    #[test]
    fn defaults_are_usable_and_every_fault_is_told() {
        assert!(Settings::default().faults().is_empty());
        let mut bad = Settings { name: "a b".into(), zone: 'z', vcpus: 0, heartbeat_interval_ms: 1, ..Settings::default() };
        bad.sim.boot_failures_per_million = 2_000_000;
        bad.sim.seed = 7;
        assert_eq!(bad.faults().len(), 6, "{:?}", bad.faults());
    }
}
