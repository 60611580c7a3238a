//! The gateway's own settings.

use std::{net::SocketAddr, path::PathBuf};

use gureum_model::AccountId;
use serde::{Deserialize, Serialize};

/// What only the gateway is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where callers come in. Default 127.0.0.1:4566. Port 0 takes a free one.
    #[serde(default = "default_door")]
    pub door: SocketAddr,
    /// Certificate for callers. Needed if the door is open beyond loopback.
    #[serde(default)]
    pub door_tls: Option<DoorTls>,
    /// Whether callers must show an access key. Needed if the door is open beyond loopback. Without it
    /// they name their account themselves.
    #[serde(default)]
    pub require_credentials: bool,
    /// The keys that are accepted.
    #[serde(default)]
    pub access_keys: Vec<AccessKey>,
    /// Calls a second that one account may make in the long run. Default 20,000.
    #[serde(default = "default_rate")]
    pub calls_per_second: f64,
    /// Calls that one account may make at once. Default 40,000.
    #[serde(default = "default_burst")]
    pub calls_burst: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            door: default_door(),
            door_tls: None,
            require_credentials: false,
            access_keys: Vec::new(),
            calls_per_second: default_rate(),
            calls_burst: default_burst(),
        }
    }
}

/// A certificate for callers, in PEM.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoorTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// An access key and whose it is. Shown as metadata `authorization: Bearer ID:SECRET`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    pub id: String,
    pub secret: String,
    /// 12 digits.
    pub account: String,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccessKey({} of {})", self.id, self.account)
    }
}

/// No client that behaves meets it; one that loops without end does not take the region down.
fn default_rate() -> f64 {
    20_000.0
}

fn default_burst() -> f64 {
    40_000.0
}

fn default_door() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 4566))
}

impl Settings {
    /// Everything that is wrong; told at once, before a port opens.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if !self.door.ip().is_loopback() {
            if !self.require_credentials {
                faults.push(format!("the door {} is open beyond loopback, so require_credentials must be true", self.door));
            }
            if self.door_tls.is_none() {
                faults.push(format!("the door {} is open beyond loopback, so door_tls must be set", self.door));
            }
        }
        if self.require_credentials && self.access_keys.is_empty() {
            faults.push("require_credentials is true, but there are no access_keys: nobody could call".to_owned());
        }
        for key in &self.access_keys {
            if key.account.parse::<AccountId>().is_err() {
                faults.push(format!("the account \"{}\" of the access key {} is not 12 digits", key.account, key.id));
            }
            if key.secret.len() < 16 {
                faults.push(format!("the secret of the access key {} has fewer than 16 characters", key.id));
            }
        }
        if self.calls_per_second.is_nan() || self.calls_per_second <= 0.0 || self.calls_burst.is_nan() || self.calls_burst < 1.0 {
            faults.push("calls_per_second must be above 0 and calls_burst at least 1".to_owned());
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_loopback_demands_credentials_and_tls() {
        let open = Settings { door: SocketAddr::from(([0, 0, 0, 0], 4566)), ..Settings::default() };
        assert_eq!(open.faults().len(), 2);
        assert!(Settings::default().faults().is_empty());
    }
}
