//! A service's configuration: defaults, then a file, then the environment, then flags.
//!
//! The file is TOML with the fields of [`ServiceConfig`]. The environment has the same fields as
//! `GUREUM_STORE__DIRECTORY=…` (two underscores between levels), flags as `--set store.directory=…`.
//! Everything is read and checked as a whole before a port opens; all faults are told at once.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use gureum_model::{ClockSetting, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

use crate::faults::FaultRule;

/// Where a service listens, or where a peer does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `unix:/run/gureum/security.sock`: only this user may connect.
    Unix(PathBuf),
    /// `127.0.0.1:7001`: demands TLS on both sides, also on loopback, where instances live too.
    Tcp(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(PathBuf::from(path))),
            Some(path) => Err(format!("\"unix:{path}\" is no address: a socket's path must begin with \"/\"")),
            None => text.parse().map(Self::Tcp).map_err(|_| format!("\"{text}\" is no address: expected unix:/path/of.sock or IP:PORT")),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What every service is told; `S` is what only one kind of service is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig<S = NoSettings> {
    /// Where it listens.
    pub listen: Listen,
    /// Where its state is.
    #[serde(default)]
    pub store: StoreConfig,
    /// Where its peers listen, by name: `security = "unix:/run/gureum/security.sock"`.
    #[serde(default)]
    pub peers: BTreeMap<String, Listen>,
    /// Certificates; needed if anything above is not a Unix socket.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// How the region's time passes; the same in every service of a region.
    #[serde(default)]
    pub clock: ClockConfig,
    /// Logs and traces.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
    /// Time that calls under way are given to end when the service is told to stop, in milliseconds.
    /// Default 10,000.
    #[serde(default = "default_drain_timeout_ms")]
    pub drain_timeout_ms: u64,
    /// The largest message accepted, in bytes. Default 4 MiB, gRPC's own.
    #[serde(default = "default_max_message_bytes")]
    pub max_message_bytes: usize,
    /// Faults that befall its calls to peers and its commits, for experiments; see [`crate::faults`]. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultRule>,
    /// The service's own settings.
    #[serde(default)]
    pub settings: S,
}

/// Of services without settings of their own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

fn default_drain_timeout_ms() -> u64 {
    10_000
}

fn default_max_message_bytes() -> usize {
    4 << 20
}

/// Where state is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// The directory; it is made if there is none. Absent: in memory, and lost at the end.
    #[serde(default)]
    pub directory: Option<PathBuf>,
}

/// Certificates in PEM.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// This service's certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority that signed every service's certificate: whom it believes.
    pub authority: PathBuf,
    /// The name in peers' certificates. Default "gureum".
    #[serde(default = "default_server_name")]
    pub server_name: String,
}

fn default_server_name() -> String {
    "gureum".to_owned()
}

/// How the region's time passes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockConfig {
    /// Real, scaled or virtual. Default real.
    #[serde(default)]
    pub setting: ClockSetting,
    /// When the region first started, in microseconds since 1970; scaled time runs from there.
    #[serde(default)]
    pub origin: Timestamp,
}

/// Logs and traces.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// What is logged, as `tracing` filters are written. Default "info".
    #[serde(default = "default_log")]
    pub log: String,
    /// One JSON object a line instead of text. Default false.
    #[serde(default)]
    pub log_json: bool,
    /// Where traces are sent by OTLP over gRPC: `http://127.0.0.1:4317`. Absent: nowhere.
    #[serde(default)]
    pub otlp_endpoint: Option<String>,
}

fn default_log() -> String {
    "info".to_owned()
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { log: default_log(), log_json: false, otlp_endpoint: None }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[error("the configuration is not usable:\n  - {}", faults.join("\n  - "))]
pub struct ConfigError {
    pub faults: Vec<String>,
}

impl ConfigError {
    fn one(fault: String) -> Self {
        Self { faults: vec![fault] }
    }
}

impl<S: DeserializeOwned + Default> ServiceConfig<S> {
    /// Reads file, environment (pairs as [`std::env::vars`] gives them) and flags (`key=value`), later
    /// ones over earlier ones, and checks the whole.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[String],
    ) -> Result<Self, ConfigError> {
        let mut table = match file {
            None => toml::Table::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| ConfigError::one(format!("{}: {error}", path.display())))?;
                text.parse().map_err(|error| ConfigError::one(format!("{}: {error}", path.display())))?
            }
        };
        let mut faults = Vec::new();
        for (name, value) in environment {
            if let Some(key) =
                name.strip_prefix("GUREUM_").filter(|key| key.contains("__") || TOP_LEVEL.contains(&key.to_lowercase().as_str()))
            {
                set(&mut table, &key.to_lowercase().replace("__", "."), &value, &mut faults);
            }
        }
        for flag in flags {
            match flag.split_once('=') {
                Some((key, value)) => set(&mut table, key, value, &mut faults),
                None => faults.push(format!("\"{flag}\" is no setting: expected KEY=VALUE")),
            }
        }
        match toml::Value::Table(table).try_into::<Self>() {
            Ok(config) => {
                faults.extend(config.faults());
                if faults.is_empty() { Ok(config) } else { Err(ConfigError { faults }) }
            }
            Err(error) => {
                faults.push(error.message().to_owned());
                Err(ConfigError { faults })
            }
        }
    }

    /// Everything that is wrong although each field alone is well-formed.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let tcp = std::iter::once(("listen", &self.listen)).chain(self.peers.iter().map(|(name, listen)| (name.as_str(), listen)));
        for (name, address) in tcp.filter(|(_, listen)| matches!(listen, Listen::Tcp(_))) {
            if self.tls.is_none() {
                faults.push(format!("{name} is {address}, a TCP port, which instances can reach too: set tls, or use a Unix socket"));
            }
        }
        if let Some(tls) = &self.tls {
            for path in [&tls.certificate, &tls.key, &tls.authority] {
                if let Err(error) = std::fs::File::open(path) {
                    faults.push(format!("tls: {}: {error}", path.display()));
                }
            }
        }
        if self.max_message_bytes < 64 << 10 {
            faults.push(format!("max_message_bytes is {}, below 65536 ordinary calls fail", self.max_message_bytes));
        }
        faults.extend(self.faults.iter().flat_map(FaultRule::faults));
        if let Err(error) = self.telemetry.log.parse::<tracing_subscriber::EnvFilter>() {
            faults.push(format!("telemetry.log is \"{}\": {error}", self.telemetry.log));
        }
        faults
    }
}

/// Fields without a level above them; other variables that begin with GUREUM_ are someone else's.
const TOP_LEVEL: [&str; 4] = ["listen", "drain_timeout_ms", "max_message_bytes", "faults"];

fn set(table: &mut toml::Table, key: &str, value: &str, faults: &mut Vec<String>) {
    // A value that is no TOML is text: paths and addresses need no quotes.
    let parsed = format!("v = {value}").parse::<toml::Table>().ok().and_then(|mut parsed| parsed.remove("v"));
    let parsed = parsed.unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let (path, last) = key.rsplit_once('.').map_or(("", key), |(path, last)| (path, last));
    let mut place = table;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let entry = place.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        match entry {
            toml::Value::Table(inner) => place = inner,
            _ => {
                faults.push(format!("\"{key}\" is no setting: \"{part}\" holds a value, not more settings"));
                return;
            }
        }
    }
    place.insert(last.to_owned(), parsed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(environment: &[(&str, &str)], flags: &[&str]) -> Result<ServiceConfig, ConfigError> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        ServiceConfig::load(None, environment, &flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn flags_win_over_the_environment() {
        let config = load(&[("GUREUM_LISTEN", "unix:/a"), ("GUREUM_STORE__DIRECTORY", "/b"), ("GUREUM_PORT", "1")], &["listen=unix:/c"]);
        let config = config.map(|config| (config.listen.to_string(), config.store.directory));
        assert_eq!(config.ok(), Some(("unix:/c".to_owned(), Some(PathBuf::from("/b")))));
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let error = load(&[], &["listen=127.0.0.1:80", "peers.security=127.0.0.1:81", "max_message_bytes=1"])
            .map(|_| ())
            .map_err(|error| error.faults.len());
        assert_eq!(error, Err(3));
        let rules = load(&[("GUREUM_FAULTS", r#"[{ call = "RegisterVpc" }, { call = "RegisterVPC" }]"#)], &["listen=unix:/a"]);
        assert_eq!(rules.map(|_| ()).map_err(|error| error.faults.len()), Err(1));
        let unknown = load(&[], &["listen=unix:/a", "colour=red"]).map(|_| ()).map_err(|error| error.to_string());
        assert!(unknown.is_err_and(|text| text.contains("colour")));
    }
}
