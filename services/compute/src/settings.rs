//! What only compute is told.

use std::time::Duration;

use gureum_compute_domain::{node, status_check};
use gureum_service::config;
use serde::{Deserialize, Serialize};

/// Settings of the compute service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// A node is lost so long after its last heartbeat, in milliseconds of real time. Default 10,000.
    pub node_lease_ms: u64,
    /// The first status checks of an instance are through so long after it began to run, in
    /// milliseconds of domain time. Default 10,000.
    pub status_initializing_ms: u64,
    /// Instances that an account may have in a region beside terminated ones. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_limit: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node_lease_ms: millis(node::DEFAULT_LEASE),
            status_initializing_ms: millis(status_check::DEFAULT_INITIALIZING),
            instance_limit: None,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A lease below this would lose nodes because of a slow disk.
const SHORTEST_LEASE_MS: u64 = 100;

impl config::Settings for Settings {
    const PEERS: &'static [&'static str] = &["security", "network"];

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.node_lease_ms < SHORTEST_LEASE_MS {
            faults.push(format!("settings.node_lease_ms is {}, below {SHORTEST_LEASE_MS} healthy nodes get lost", self.node_lease_ms));
        }
        faults
    }
}

impl Settings {
    pub fn node_lease(&self) -> Duration {
        Duration::from_millis(self.node_lease_ms)
    }

    pub fn status_initializing(&self) -> Duration {
        Duration::from_millis(self.status_initializing_ms)
    }
}
