//! A service's configuration: defaults, then a file, then the environment, then flags.
//!
//! The file is TOML with the fields of [`ServiceConfig`]. The environment has the same fields as
//! `GUREUM_STORE__DIRECTORY=…` (two underscores between levels), flags as `--set store.directory=…`.
//! Everything is read and checked as a whole before a port opens; all faults are told at once. What only one kind
//! of service is told, and which peers it has, are its [`Settings`]. [`ServiceConfig::load`] answers none with faults;
//! a service calls [`ServiceConfig::check`] before it opens anything, because not every configuration was loaded.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use gureum_model::{ClockSetting, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};

use crate::{clock::Clock, faults::FaultRule};

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
    /// What the ids of a region are made from that begins anew, the same in every service: with virtual time, the same calls
    /// in the same order then come to the same ids. Such ids can be foreseen, and a service that is started again
    /// on its directory makes random ones. Default: all ids are random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
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

/// What only one kind of service is told, and whom it calls.
pub trait Settings: DeserializeOwned + Default {
    /// The peers that it calls: each must be configured.
    const PEERS: &'static [&'static str];
    /// How the names of further peers begin, of which there may be any number.
    const PEERS_LIKE: Option<&'static str> = None;

    /// Everything that is wrong, each with the setting's full name, its value, and what to do.
    fn faults(&self) -> Vec<String>;
}

/// Of services without settings of their own, which call nobody.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

impl Settings for NoSettings {
    const PEERS: &'static [&'static str] = &[];

    fn faults(&self) -> Vec<String> {
        Vec::new()
    }
}

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

impl TlsConfig {
    fn faults(&self) -> Vec<String> {
        let mut faults = server_tls("tls", &self.certificate, &self.key, Some(&self.authority)).err().unwrap_or_default();
        let client = ClientTlsConfig::new().domain_name(&self.server_name);
        if let Err(error) = Endpoint::from_static("https://gureum").tls_config(client) {
            faults.push(format!("tls.server_name is \"{}\": {}; set the name in peers' certificates", self.server_name, causes(&error)));
        }
        faults
    }
}

/// What a listener shows its callers, from files in PEM. With an authority, callers must show what it signed.
///
/// # Errors
/// Everything that is wrong with the files, each by the name that it has below `setting`.
pub fn server_tls(setting: &str, certificate: &Path, key: &Path, authority: Option<&Path>) -> Result<ServerTlsConfig, Vec<String>> {
    let mut faults = Vec::new();
    let mut read = |field: &str, path: &Path, what: &str, label: &str| {
        let fault = match std::fs::read(path) {
            Ok(pem) if String::from_utf8_lossy(&pem).contains(label) => return pem,
            Ok(_) => format!("which holds no {what} in PEM"),
            Err(error) => format!("which cannot be read: {error}"),
        };
        faults.push(format!("{setting}.{field} is \"{}\", {fault}; name a file with a {what} in PEM", path.display()));
        Vec::new()
    };
    let certificate_pem = read("certificate", certificate, "certificate", CERTIFICATE_LABEL);
    let key_pem = read("key", key, "private key", KEY_LABEL);
    let authority_pem = authority.map(|path| read("authority", path, "certificate", CERTIFICATE_LABEL));
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate_pem, key_pem));
    if let Some(pem) = authority_pem {
        tls = tls.client_ca_root(Certificate::from_pem(pem)).client_auth_optional(false);
    }
    match Server::builder().tls_config(tls.clone()) {
        Ok(_) => Ok(tls),
        Err(error) => Err(vec![format!(
            "{setting} has the certificate \"{}\" and the key \"{}\", which cannot be used: {}; name a certificate and the key that belongs \
             to it",
            certificate.display(),
            key.display(),
            causes(&error)
        )]),
    }
}

/// Stands in every file that holds a certificate in PEM.
const CERTIFICATE_LABEL: &str = "-----BEGIN CERTIFICATE-----";
/// Stands in every file that holds a private key in PEM, of whichever kind.
const KEY_LABEL: &str = "PRIVATE KEY-----";

/// The causes of a transport's error, which itself says no more than that it is one.
fn causes(error: &tonic::transport::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
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

/// No region started before 2020. What is earlier was forgotten, or is in seconds or milliseconds.
const EARLIEST_ORIGIN: Timestamp = Timestamp::from_secs(1_577_836_800);

impl ClockConfig {
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let ClockSetting::Scaled { factor } = self.setting {
            if let Err(refusal) = factor.to_string().parse::<ClockSetting>() {
                let reasons = refusal.violations.iter().map(|violation| violation.description.as_str()).collect::<Vec<_>>().join("; ");
                faults.push(format!("clock.setting.scaled.factor is {factor}: {reasons}"));
            }
            if self.origin < EARLIEST_ORIGIN {
                faults.push(format!(
                    "clock.origin is {}, which is {}: scaled time runs from there; set it to when the region first started, in microseconds \
                     since 1970 and the same in every service, such as {} for now",
                    self.origin.as_micros(),
                    self.origin,
                    Clock::origin_now().as_micros()
                ));
            }
        }
        faults
    }
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

impl TelemetryConfig {
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Err(error) = self.log.parse::<tracing_subscriber::EnvFilter>() {
            faults.push(format!("telemetry.log is \"{}\": {error}", self.log));
        }
        if let Some(endpoint) = &self.otlp_endpoint {
            let url = endpoint.parse::<http::Uri>().ok().filter(|url| url.scheme_str() == Some("http"));
            if url.and_then(|url| url.host().map(str::is_empty)) != Some(false) {
                faults.push(format!("telemetry.otlp_endpoint is \"{endpoint}\": expected a URL such as http://127.0.0.1:4317"));
            }
        }
        faults
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

impl<S: Settings> ServiceConfig<S> {
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
            } else if let Some(level) = name.strip_prefix("GUREUM_").filter(|key| LEVELS.contains(&key.to_lowercase().as_str())) {
                faults.push(format!("{name} sets a level, not a setting: name the setting too, as in GUREUM_{level}__NAME"));
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
                // Its text has two lines: what is wrong, and the setting's name.
                faults.push(error.to_string().trim().replace('\n', " "));
                Err(ConfigError { faults })
            }
        }
    }

    /// Refuses a configuration that has faults, all of them at once. Nothing is opened, created or bound.
    pub fn check(&self) -> Result<(), ConfigError> {
        let faults = self.faults();
        if faults.is_empty() { Ok(()) } else { Err(ConfigError { faults }) }
    }

    /// Everything that is wrong although each field alone is well-formed.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let peers = self.peers.iter().map(|(name, listen)| (format!("peers.{name}"), listen));
        let tcp = std::iter::once(("listen".to_owned(), &self.listen)).chain(peers);
        for (name, address) in tcp.filter(|(_, listen)| matches!(listen, Listen::Tcp(_))) {
            if self.tls.is_none() {
                faults.push(format!("{name} is {address}, a TCP port, which instances can reach too: set tls, or use a Unix socket"));
            }
        }
        faults.extend(self.peer_faults());
        faults.extend(self.tls.iter().flat_map(TlsConfig::faults));
        faults.extend(self.clock.faults());
        if self.max_message_bytes < 64 << 10 {
            faults.push(format!("max_message_bytes is {}, below 65536 ordinary calls fail", self.max_message_bytes));
        }
        faults.extend(self.faults.iter().flat_map(FaultRule::faults));
        faults.extend(self.telemetry.faults());
        faults.extend(self.settings.faults());
        faults
    }

    fn peer_faults(&self) -> Vec<String> {
        let missing = S::PEERS.iter().filter(|name| !self.peers.contains_key(**name));
        let mut faults: Vec<_> = missing
            .map(|name| format!("peers.{name} is not set: set it to where {name} listens, such as unix:/run/gureum/{name}.sock"))
            .collect();
        let known = |name: &str| S::PEERS.contains(&name) || S::PEERS_LIKE.is_some_and(|kind| name.starts_with(kind));
        let like = S::PEERS_LIKE.map(|kind| format!("names that begin with {kind}"));
        let expected = S::PEERS.iter().map(|name| (*name).to_owned()).chain(like).collect::<Vec<_>>().join(", ");
        for (name, listen) in self.peers.iter().filter(|(name, _)| !known(name)) {
            let instead = if expected.is_empty() { "this service calls nobody" } else { &format!("this service calls {expected}") };
            faults.push(format!("peers.{name} is {listen}, but {instead}: leave it out"));
        }
        faults
    }
}

/// Fields that have others below them.
const LEVELS: [&str; 6] = ["store", "peers", "tls", "clock", "telemetry", "settings"];

/// Fields without a level above them; other variables that begin with GUREUM_ are someone else's.
const TOP_LEVEL: [&str; 5] = ["listen", "seed", "drain_timeout_ms", "max_message_bytes", "faults"];

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
        assert_eq!(error, Err(4), "two ports without tls, a peer that nobody calls, a size");
        let rules = load(&[("GUREUM_FAULTS", r#"[{ call = "RegisterVpc" }, { call = "RegisterVPC" }]"#)], &["listen=unix:/a"]);
        assert_eq!(rules.map(|_| ()).map_err(|error| error.faults.len()), Err(1));
        let unknown = load(&[], &["listen=unix:/a", "colour=red"]).map(|_| ()).map_err(|error| error.to_string());
        assert!(unknown.is_err_and(|text| text.contains("colour")));
        let number = load(&[], &["listen=unix:/a", "store.directory=7"]).map(|_| ()).map_err(|error| error.to_string());
        assert!(number.as_ref().is_err_and(|text| text.contains("store.directory")), "{number:?}");
    }
}
