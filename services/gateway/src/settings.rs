//! The gateway's own settings.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use gureum_model::AccountId;
use gureum_service::config::{self, server_tls};
use serde::{Deserialize, Serialize};
use tonic::transport::ServerTlsConfig;

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
    /// Origins of web pages that may call by gRPC-web: `https://console.example.org`; `*` is every origin.
    /// Default none: then pages of this host may, such as `http://localhost:3000`.
    #[serde(default)]
    pub web_origins: Vec<String>,
    /// How webhooks are tried again.
    #[serde(default)]
    pub webhooks: Webhooks,
}

/// How a webhook is tried again that does not take an event. All of it in real time.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Webhooks {
    /// Attempts before an event becomes a dead letter. Default 12, at most 20: with pauses of 1, 2, 4 … s, over
    /// half an hour.
    pub attempts: u32,
    /// The first pause, in milliseconds; each is twice the one before. Default 1,000.
    pub first_pause_ms: u64,
    /// Time that one delivery may take, in milliseconds. Default 10,000.
    pub timeout_ms: u64,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self { attempts: 12, first_pause_ms: 1_000, timeout_ms: 10_000 }
    }
}

impl Webhooks {
    /// How long a webhook is left alone after so many attempts that failed.
    pub fn pause(&self, attempts: u32) -> Duration {
        Duration::from_millis(self.first_pause_ms).saturating_mul(1 << attempts.saturating_sub(1).min(MAX_ATTEMPTS))
    }
}

/// Twenty pauses, each twice the one before, from a second on take twelve days.
const MAX_ATTEMPTS: u32 = 20;

impl Default for Settings {
    fn default() -> Self {
        Self {
            door: default_door(),
            door_tls: None,
            require_credentials: false,
            access_keys: Vec::new(),
            calls_per_second: default_rate(),
            calls_burst: default_burst(),
            web_origins: Vec::new(),
            webhooks: Webhooks::default(),
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
    /// What the door shows its callers. Error: everything that is wrong with the files.
    pub fn tls(&self) -> Result<Option<ServerTlsConfig>, Vec<String>> {
        self.door_tls.as_ref().map(|tls| server_tls("settings.door_tls", &tls.certificate, &tls.key, None)).transpose()
    }
}

impl config::Settings for Settings {
    const PEERS: &'static [&'static str] = &["security", "network", "compute"];
    /// Virtual time is moved in nodes too.
    const PEERS_LIKE: Option<&'static str> = Some("node");

    fn faults(&self) -> Vec<String> {
        let mut faults = self.tls().err().unwrap_or_default();
        if !self.door.ip().is_loopback() {
            if !self.require_credentials {
                faults.push(format!("settings.door {} is open beyond loopback, so settings.require_credentials must be true", self.door));
            }
            if self.door_tls.is_none() {
                faults.push(format!("settings.door {} is open beyond loopback, so settings.door_tls must be set", self.door));
            }
        }
        if self.require_credentials && self.access_keys.is_empty() {
            faults.push("settings.require_credentials is true, but there are no settings.access_keys: nobody could call".to_owned());
        }
        for key in &self.access_keys {
            if key.account.parse::<AccountId>().is_err() {
                faults.push(format!("settings.access_keys: the account \"{}\" of {} is not 12 digits", key.account, key.id));
            }
            if key.secret.len() < 16 {
                faults.push(format!("settings.access_keys: the secret of {} has fewer than 16 characters", key.id));
            }
        }
        if !self.calls_per_second.is_finite() || self.calls_per_second <= 0.0 {
            faults.push(format!("settings.calls_per_second is {}: expected a number above 0", self.calls_per_second));
        }
        if !self.calls_burst.is_finite() || self.calls_burst < 1.0 {
            faults.push(format!("settings.calls_burst is {}: expected a number of at least 1", self.calls_burst));
        }
        let webhooks = &self.webhooks;
        if !(1..=MAX_ATTEMPTS).contains(&webhooks.attempts) {
            faults.push(format!("settings.webhooks.attempts is {}: expected 1 to {MAX_ATTEMPTS}", webhooks.attempts));
        }
        for (name, value) in [("first_pause_ms", webhooks.first_pause_ms), ("timeout_ms", webhooks.timeout_ms)] {
            if value == 0 {
                faults.push(format!("settings.webhooks.{name} is 0: expected milliseconds above 0"));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use config::Settings as _;

    use super::*;

    #[test]
    fn beyond_loopback_demands_credentials_and_tls() {
        let open = Settings { door: SocketAddr::from(([0, 0, 0, 0], 4566)), ..Settings::default() };
        assert_eq!(open.faults().len(), 2);
        assert!(Settings::default().faults().is_empty());
    }

    #[test]
    fn pauses_double() {
        let webhooks = Webhooks::default();
        assert_eq!([1, 2, 3].map(|attempts| webhooks.pause(attempts).as_secs()), [1, 2, 4]);
        assert_eq!((1..webhooks.attempts).map(|attempts| webhooks.pause(attempts).as_secs()).sum::<u64>(), 2047, "34 minutes");
    }
}
