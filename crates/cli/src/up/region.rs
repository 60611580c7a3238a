//! What a region consists of: its directory, its members, and what each of them is told.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use gureum_compute::settings::Settings as ComputeSettings;
use gureum_gateway::settings::Settings as GatewaySettings;
use gureum_model::{ClockSetting, Timestamp};
use gureum_network::Settings as NetworkSettings;
use gureum_node::{DriverSetting, Settings as NodeSettings, TrackingSetting};
use gureum_service::{
    Clock, Listen, ServiceConfig,
    config::{ClockConfig, NoSettings, StoreConfig, TelemetryConfig},
};
use serde::{Deserialize, Serialize};

use super::slice::{Slice, SliceError};

/// The longest path of a Unix socket that Linux takes, less a margin for the names in it.
const MAX_DIRECTORY_LENGTH: usize = 80;

/// Calls of one account a second if nothing else is said: the gateway's own default.
pub const CALLS_PER_SECOND: u32 = 20_000;

/// What outlives a region's processes beside the services' stores.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Remembered {
    /// The slice of 127.0.0.0/8 from which its public addresses come.
    slice: u8,
    clock: ClockSetting,
    /// When it first started.
    origin: Timestamp,
    /// None: it began when sim was what nodes had unless they were told otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    driver: Option<DriverSetting>,
}

/// Why a region cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    #[error("{operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} cannot be read: {reason}", path.display())]
    Remembered { path: PathBuf, reason: String },
    #[error("the region in {} began with the time scale {before}; it cannot go on with {wanted}. Start it with --time-scale {before}, or choose another directory", path.display())]
    OtherClock { path: PathBuf, before: ClockSetting, wanted: ClockSetting },
    #[error("the region in {} began with the driver {before}, whose instances {wanted} does not have. Start it without --driver, or choose another directory", path.display())]
    OtherDriver { path: PathBuf, before: DriverSetting, wanted: DriverSetting },
    #[error("the directory {} is too long for the sockets in it: Linux allows 107 characters", path.display())]
    TooLong { path: PathBuf },
    #[error("the region in {} is run by another process; stop that one, or choose another directory with --directory", path.display())]
    InUse { path: PathBuf },
    #[error("the region in {} cannot have its addresses", path.display())]
    Addresses {
        path: PathBuf,
        #[source]
        source: SliceError,
    },
    #[error(transparent)]
    Slice(#[from] SliceError),
}

/// How a region shall be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where its state is; none keeps it in memory.
    pub directory: Option<PathBuf>,
    pub door: SocketAddr,
    /// None takes what the region began with, or real time.
    pub clock: Option<ClockSetting>,
    pub nodes_per_zone: u32,
    pub node_vcpus: u32,
    pub node_memory_gib: u32,
    /// Of one account, in the long run.
    pub calls_per_second: u32,
    pub telemetry: TelemetryConfig,
    /// Of everybody's ids and of what the simulated nodes do; none: ids are random.
    pub seed: Option<u64>,
    /// What makes instances real. None takes what the region began with, or what suits its time.
    pub driver: Option<DriverSetting>,
    /// Added to each port of a public address.
    pub port_offset: u16,
    /// Instances run also where nothing keeps them from the host.
    pub unconfined: bool,
    /// What becomes of open connections whose rule is revoked.
    pub security_group_tracking: TrackingSetting,
}

/// One service of a region and what it is told.
#[derive(Debug, Clone)]
pub enum Member {
    Security(ServiceConfig<NoSettings>),
    Network(ServiceConfig<NetworkSettings>),
    Compute(ServiceConfig<ComputeSettings>),
    Node(ServiceConfig<NodeSettings>),
    Gateway(ServiceConfig<GatewaySettings>),
}

impl Member {
    /// The kind, as `gureum serve` takes it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Security(_) => "security",
            Self::Network(_) => "network",
            Self::Compute(_) => "compute",
            Self::Node(_) => "node",
            Self::Gateway(_) => "gateway",
        }
    }

    /// Its logs and traces.
    pub fn telemetry(&self) -> &TelemetryConfig {
        match self {
            Self::Security(config) => &config.telemetry,
            Self::Compute(config) => &config.telemetry,
            Self::Network(config) => &config.telemetry,
            Self::Node(config) => &config.telemetry,
            Self::Gateway(config) => &config.telemetry,
        }
    }

    /// Its configuration as a file.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        match self {
            Self::Security(config) => toml::to_string(config),
            Self::Compute(config) => toml::to_string(config),
            Self::Network(config) => toml::to_string(config),
            Self::Node(config) => toml::to_string(config),
            Self::Gateway(config) => toml::to_string(config),
        }
    }
}

/// A region that is set up and not yet started.
#[derive(Debug)]
pub struct Region {
    /// Sockets and, with processes, configurations. Removed at the end if the region is in memory.
    pub run_directory: PathBuf,
    /// By name, in the order in which they start.
    pub members: Vec<(String, Member)>,
    pub in_memory: bool,
    _slice: Slice,
    /// Held as long as the region runs; none in memory.
    _lock: Option<File>,
}

impl Region {
    /// Makes directories, claims a slice, and settles what every member is told.
    pub fn prepare(plan: &Plan) -> Result<Self, RegionError> {
        let run_directory = match &plan.directory {
            Some(directory) => directory.join("run"),
            None => std::env::temp_dir().join(format!("gureum-{}", std::process::id())),
        };
        if run_directory.as_os_str().len() > MAX_DIRECTORY_LENGTH {
            return Err(RegionError::TooLong { path: run_directory });
        }
        private_directory(&run_directory)?;
        let lock = plan.directory.as_deref().map(lock).transpose()?;
        let (slice, remembered) = match &plan.directory {
            Some(directory) => remember(directory, plan)?,
            None => {
                let slice = Slice::claim(None)?;
                let new = Remembered::new(&slice, plan);
                (slice, new)
            }
        };
        let clock = ClockConfig { setting: remembered.clock, origin: remembered.origin };
        let driver = remembered.driver.unwrap_or(DriverSetting::Sim);
        let members = Builder { plan, run_directory: &run_directory, clock, driver, slice: &slice }.members();
        if let Some(directory) = &plan.directory {
            // Also those of an earlier version, which left them open.
            members.iter().map(|(name, _)| directory.join(name)).filter(|store| store.exists()).try_for_each(|store| close(&store))?;
            open_way_to_storage(driver, directory)?;
        }
        Ok(Self { run_directory, members, in_memory: plan.directory.is_none(), _slice: slice, _lock: lock })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.in_memory {
            // Sockets of services that have ended; what is left of them harms nobody.
            let _ = fs::remove_dir_all(&self.run_directory);
            let _ = fs::remove_dir_all(storage_in_memory());
        }
    }
}

fn private_directory(path: &Path) -> Result<(), RegionError> {
    let failed = |operation| move |source| RegionError::Io { operation, path: path.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create"))?;
    close(path)
}

fn close(path: &Path) -> Result<(), RegionError> {
    let failed = |source| RegionError::Io { operation: "close to others", path: path.to_owned(), source };
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)
}

/// Where root runs instances without namespaces, they are users of their own, who pass the region's directory to get to their
/// volumes. All else in it is closed to them.
fn open_way_to_storage(driver: DriverSetting, directory: &Path) -> Result<(), RegionError> {
    let failed = |source| RegionError::Io { operation: "open the way to the storage in", path: directory.to_owned(), source };
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if driver != DriverSetting::Process || !is_root {
        return Ok(());
    }
    let mode = fs::metadata(directory).map_err(failed)?.permissions().mode();
    fs::set_permissions(directory, fs::Permissions::from_mode(mode | 0o011)).map_err(failed)
}

/// The volumes of a region in memory: beside its sockets, which nobody else gets near.
fn storage_in_memory() -> PathBuf {
    std::env::temp_dir().join(format!("gureum-{}-storage", std::process::id()))
}

/// Two processes with one directory would take each other's sockets before their stores told them apart.
fn lock(directory: &Path) -> Result<File, RegionError> {
    let path = directory.join("LOCK");
    let failed = |source| RegionError::Io { operation: "lock", path: path.clone(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RegionError::InUse { path: directory.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

impl Remembered {
    /// What a new region begins with.
    fn new(slice: &Slice, plan: &Plan) -> Self {
        let clock = plan.clock.unwrap_or_default();
        let suitable = if matches!(clock, ClockSetting::Virtual { .. }) { DriverSetting::Sim } else { DriverSetting::Process };
        Self { slice: slice.number, clock, origin: Clock::origin_now(), driver: Some(plan.driver.unwrap_or(suitable)) }
    }
}

fn remember(directory: &Path, plan: &Plan) -> Result<(Slice, Remembered), RegionError> {
    let path = directory.join("region.toml");
    let bad = |reason: String| RegionError::Remembered { path: path.clone(), reason };
    let failed = |operation| {
        let path = path.clone();
        move |source| RegionError::Io { operation, path, source }
    };
    let before: Option<Remembered> = match fs::read_to_string(&path) {
        Ok(text) => Some(toml::from_str(&text).map_err(|error| bad(error.to_string()))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("read")(error)),
    };
    if let Some(before) = before {
        if let Some(wanted) = plan.clock.filter(|wanted| *wanted != before.clock) {
            return Err(RegionError::OtherClock { path: directory.to_owned(), before: before.clock, wanted });
        }
        // One of which nobody wrote it down is taken at the word of whoever starts it.
        let driver = before.driver.or(plan.driver);
        if let (Some(before), Some(wanted)) = (driver, plan.driver.filter(|wanted| Some(*wanted) != driver)) {
            return Err(RegionError::OtherDriver { path: directory.to_owned(), before, wanted });
        }
        let addresses = |source| RegionError::Addresses { path: directory.to_owned(), source };
        let slice = Slice::claim(Some(before.slice)).map_err(addresses)?;
        return Ok((slice, Remembered { driver, ..before }));
    }
    let slice = Slice::claim(None)?;
    let remembered = Remembered::new(&slice, plan);
    let text = toml::to_string(&remembered).map_err(|error| bad(error.to_string()))?;
    // Whole or not there: a crash in between leaves a name that nobody reads.
    let new = path.with_extension("new");
    fs::write(&new, text)
        .and_then(|()| fs::File::open(&new)?.sync_all())
        .and_then(|()| fs::rename(&new, &path))
        .map_err(failed("write"))?;
    Ok((slice, remembered))
}

struct Builder<'a> {
    plan: &'a Plan,
    run_directory: &'a Path,
    clock: ClockConfig,
    driver: DriverSetting,
    slice: &'a Slice,
}

impl Builder<'_> {
    fn members(&self) -> Vec<(String, Member)> {
        let mut members = vec![
            ("security".to_owned(), Member::Security(self.config("security", &[], NoSettings::default()))),
            ("network".to_owned(), Member::Network(self.config("network", &["security"], self.network()))),
            ("compute".to_owned(), Member::Compute(self.config("compute", &["security", "network"], ComputeSettings::default()))),
        ];
        for letter in gureum_model::scope::ZONE_LETTERS {
            for number in 1..=self.plan.nodes_per_zone {
                let name = format!("node-{letter}{number}");
                let settings = self.node(letter, &name);
                members.push((name.clone(), Member::Node(self.config(&name, &["compute", "network", "security"], settings))));
            }
        }
        let gateway = self.gateway();
        // The gateway moves virtual time in every service, the nodes included.
        let nodes: Vec<String> = members.iter().map(|(name, _)| name.clone()).filter(|name| name.starts_with("node")).collect();
        let peers: Vec<&str> = ["security", "network", "compute"].into_iter().chain(nodes.iter().map(String::as_str)).collect();
        members.push(("gateway".to_owned(), Member::Gateway(self.config("gateway", &peers, gateway))));
        members
    }

    fn network(&self) -> NetworkSettings {
        NetworkSettings { public_pool: vec![self.slice.network()], ..NetworkSettings::default() }
    }

    fn gateway(&self) -> GatewaySettings {
        let calls_per_second = f64::from(self.plan.calls_per_second);
        GatewaySettings { door: self.plan.door, calls_per_second, calls_burst: 2.0 * calls_per_second, ..GatewaySettings::default() }
    }

    fn node(&self, letter: char, name: &str) -> NodeSettings {
        NodeSettings {
            name: name.to_owned(),
            zone: letter,
            vcpus: self.plan.node_vcpus,
            memory_mib: u64::from(self.plan.node_memory_gib) * 1024,
            seed: self.plan.seed.unwrap_or_default(),
            driver: self.driver,
            fabric: Some(self.plan.directory.as_deref().unwrap_or(self.run_directory).join("fabric")),
            port_offset: self.plan.port_offset,
            unconfined: self.plan.unconfined,
            security_group_tracking: self.plan.security_group_tracking,
            storage: self.storage(),
            ..NodeSettings::default()
        }
    }

    /// One for all nodes, so that a volume can go from any to any.
    fn storage(&self) -> Option<PathBuf> {
        match self.driver {
            DriverSetting::Sim => None,
            DriverSetting::Process => {
                Some(self.plan.directory.as_ref().map_or_else(storage_in_memory, |directory| directory.join("storage")))
            }
        }
    }

    fn config<S>(&self, name: &str, peers: &[&str], settings: S) -> ServiceConfig<S> {
        ServiceConfig {
            listen: self.socket(name),
            store: StoreConfig { directory: self.plan.directory.as_ref().map(|directory| directory.join(name)) },
            peers: peers.iter().map(|peer| ((*peer).to_owned(), self.socket(peer))).collect::<BTreeMap<_, _>>(),
            tls: None,
            clock: self.clock.clone(),
            seed: self.plan.seed,
            telemetry: self.plan.telemetry.clone(),
            drain_timeout_ms: 3_000,
            max_message_bytes: 4 << 20,
            faults: Vec::new(),
            settings,
        }
    }

    fn socket(&self, name: &str) -> Listen {
        Listen::Unix(self.run_directory.join(format!("{name}.sock")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(directory: &Path, calls_per_second: u32) -> Plan {
        Plan {
            directory: Some(directory.to_owned()),
            door: SocketAddr::from(([127, 0, 0, 1], 0)),
            clock: None,
            nodes_per_zone: 1,
            node_vcpus: 1,
            node_memory_gib: 1,
            calls_per_second,
            telemetry: TelemetryConfig::default(),
            seed: None,
            driver: None,
            port_offset: 0,
            unconfined: false,
            security_group_tracking: TrackingSetting::Tracked,
        }
    }

    fn limits(region: &Region) -> Option<(f64, f64)> {
        region.members.iter().find_map(|(_, member)| match member {
            Member::Gateway(config) => Some((config.settings.calls_per_second, config.settings.calls_burst)),
            Member::Security(_) | Member::Network(_) | Member::Compute(_) | Member::Node(_) => None,
        })
    }

    #[test]
    fn a_directory_has_one_region_at_a_time_and_the_refusal_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let region = Region::prepare(&plan(folder.path(), 1)).unwrap();
        let told = Region::prepare(&plan(folder.path(), 1)).unwrap_err().to_string();
        assert!(told.contains(&format!("the region in {} is run by another process", folder.path().display())), "{told}");
        drop(region);
        assert!(Region::prepare(&plan(folder.path(), 1)).is_ok());
    }

    fn driver(region: &Region) -> Option<DriverSetting> {
        region.members.iter().find_map(|(_, member)| if let Member::Node(config) = member { Some(config.settings.driver) } else { None })
    }

    #[test]
    fn a_region_keeps_the_driver_that_it_began_with() {
        let (folder, simulated, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let with = |folder: &Path, driver| Region::prepare(&Plan { driver, ..plan(folder, 1) });
        assert_eq!(driver(&with(folder.path(), None).unwrap()), Some(DriverSetting::Process));
        let told = with(folder.path(), Some(DriverSetting::Sim)).unwrap_err().to_string();
        assert!(told.contains("began with the driver process"), "{told}");
        assert_eq!(driver(&with(simulated.path(), Some(DriverSetting::Sim)).unwrap()), Some(DriverSetting::Sim));
        assert_eq!(driver(&with(simulated.path(), None).unwrap()), Some(DriverSetting::Sim));
        let clock = Some("virtual".parse().unwrap());
        assert_eq!(driver(&Region::prepare(&Plan { clock, ..plan(other.path(), 1) }).unwrap()), Some(DriverSetting::Sim));
        // One of which nobody wrote it down.
        let path = folder.path().join("region.toml");
        let before = fs::read_to_string(&path).unwrap().replace("driver = \"process\"\n", "");
        fs::write(&path, before).unwrap();
        assert_eq!(driver(&with(folder.path(), None).unwrap()), Some(DriverSetting::Sim));
        assert_eq!(driver(&with(folder.path(), Some(DriverSetting::Process)).unwrap()), Some(DriverSetting::Process));
    }

    #[test]
    fn every_member_is_told_the_seed_also_one_that_is_a_process_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let seeded = Region::prepare(&Plan { seed: Some(7), ..plan(folder.path(), 1) }).unwrap();
        for (name, member) in &seeded.members {
            let told: toml::Table = member.to_toml().unwrap().parse().unwrap();
            assert_eq!(told.get("seed").and_then(toml::Value::as_integer), Some(7), "{name}");
        }
        drop(seeded);
        let random = Region::prepare(&plan(folder.path(), 1)).unwrap();
        assert!(random.members.iter().all(|(_, member)| !member.to_toml().unwrap().starts_with("seed")));
    }

    #[test]
    fn the_gateway_is_told_how_often_an_account_may_call() {
        let folder = tempfile::tempdir().unwrap();
        let usual = GatewaySettings::default();
        let by_default = limits(&Region::prepare(&plan(folder.path(), CALLS_PER_SECOND)).unwrap());
        assert_eq!(by_default, Some((usual.calls_per_second, usual.calls_burst)));
        assert_eq!(limits(&Region::prepare(&plan(folder.path(), 5)).unwrap()), Some((5.0, 10.0)));
    }
}
