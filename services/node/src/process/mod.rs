//! The `process` driver: programs in namespaces of their own, without root, daemon or virtual machine. Where the host grants no
//! namespaces ([`grants`]) they are programs of the host, as users of their own or, if that is wanted, as the node's.
//!
//! ```text
//!  driver ──► keeper (a task for each instance) ── control.sock ──► shim ──► the instance
//!     ▲            │
//!     └─ reports ──┘
//! ```
//!
//! What it has stands in a directory: `instances/<id>/` with the plan of the last boot, the shim's state and the
//! console. In another, which nodes of a host may share: `volumes/<id>/`, and snapshots of them. A driver that starts finds there what runs, by the shim's number and start time.

mod aliases;
mod bare;
mod boot;
mod changes;
mod connection;
mod disks;
mod following;
mod grants;
mod identity;
mod ids;
mod images;
mod inside;
mod keeper;
mod machine;
mod quota;
mod removal;
mod rules;
mod runtime;
mod sessions;
mod usage;
mod volumes;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use gureum_model::{
    Timestamp,
    id::{InstanceId, SnapshotId},
};
use gureum_node_domain::{
    BootSpec, Capabilities, DriverEvent, DriverReport, ExitReason, Found, InstanceSpec, NodeInstance, Usage, driver::DriverKind,
    spec::Platform,
};
use gureum_service::{Clock, clock::monotonic};
use gureum_shim::{
    console,
    protocol::{Confinement, STATE_FILE, State, Status, read_json},
};
use tokio::sync::mpsc;

pub use self::{connection::Connections, identity::Signer};
use self::{
    disks::Disks,
    grants::Grants,
    keeper::{Keeper, Order},
    quota::Quota,
    rules::Interfaces,
    usage::Meters,
};
use crate::{
    driver::{DiskTask, Driver, DriverError, Part, Run},
    session::{ConsoleStream, Session, SessionError, Start},
};

/// Bytes of a console that are answered.
const CONSOLE_TAIL: usize = 64 << 10;

/// A shim's time to write its first state, and between two looks whether it has.
const SHIM_BEGINS_WITHIN: Duration = Duration::from_secs(5);
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Where a driver keeps what.
#[derive(Debug, Clone)]
struct Places {
    instances: PathBuf,
    volumes: PathBuf,
    snapshots: PathBuf,
    /// By what the sizes of volumes are enforced, if they are.
    quota: Option<Quota>,
}

impl Places {
    fn instance(&self, id: InstanceId) -> PathBuf {
        self.instances.join(id.to_string())
    }
}

/// What all keepers share.
struct Shared {
    places: Places,
    disks: Disks,
    clock: Clock,
    /// Instances end with this process.
    volatile: bool,
    /// What instances get of this host.
    grants: Grants,
    connections: Connections,
    meters: Arc<Meters>,
    signer: Signer,
    reports: mpsc::UnboundedSender<DriverReport>,
}

impl Shared {
    fn report(&self, id: InstanceId, boot: u64, event: DriverEvent) {
        // Nobody takes reports any more when the node ends.
        let _ = self.reports.send(DriverReport { id, boot, at: self.clock.now(), event });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is changed by single operations, so it is whole.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Instances that are processes.
pub struct ProcessDriver {
    capabilities: Capabilities,
    shared: Arc<Shared>,
    keepers: Mutex<BTreeMap<InstanceId, mpsc::UnboundedSender<Order>>>,
    reports: tokio::sync::Mutex<mpsc::UnboundedReceiver<DriverReport>>,
}

impl ProcessDriver {
    /// A driver whose instances are kept in a directory, and outlive this process unless it is `volatile`. Their volumes
    /// and snapshots are in `storage`. What nothing keeps from the host is booted only if that is wanted: `unconfined`.
    pub fn new(
        directory: &Path,
        storage: &Path,
        volatile: bool,
        clock: Clock,
        connections: Connections,
        signer: Signer,
        unconfined: bool,
    ) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&connections.fabric)?;
        let mut places = Places {
            instances: directory.join("instances"),
            volumes: storage.join("volumes"),
            snapshots: storage.join("snapshots"),
            quota: None,
        };
        // Whatever users within volumes made must be out of reach of the host's users of the same number.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(storage)?;
        for place in [&places.instances, &places.volumes, &places.snapshots] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(place)?;
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let root = fs::metadata("/proc/self")?;
        let root = std::os::unix::fs::MetadataExt::uid(&root) == 0;
        places.quota = root.then(|| Quota::find(&places.volumes)).flatten();
        let disks = Disks::open(places.clone())?;
        let grants = Grants::find(storage, &places.volumes, root, unconfined)?;
        if let Some(refusal) = &grants.refusal {
            tracing::warn!("no instance can be launched: {refusal}");
        } else if grants.confinement == Confinement::Nothing {
            tracing::warn!("instances are not kept from this host: programs in them may do whatever this node's user may");
        }
        let capabilities = capabilities(!volatile, &grants, places.quota.is_some());
        let meters = Arc::new(Meters::new());
        let shared = Shared { places, disks, clock, volatile, grants, connections, meters, signer, reports: sender };
        Ok(Self { capabilities, shared: Arc::new(shared), keepers: Mutex::default(), reports: tokio::sync::Mutex::new(receiver) })
    }

    /// Hands an order to the instance's keeper, of whom there is one from the first order on.
    fn order(&self, id: InstanceId, order: Order) {
        let mut keepers = lock(&self.keepers);
        let keeper = keepers.entry(id).or_insert_with(|| Keeper::start(id, self.shared.clone()));
        if let Err(mpsc::error::SendError(order)) = keeper.send(order) {
            // It has ended with an instance that was removed.
            let again = Keeper::start(id, self.shared.clone());
            let _ = again.send(order);
            *keeper = again;
        }
    }
}

/// What the host grants, found by looking.
fn capabilities(survives_restart: bool, grants: &Grants, disk_limit: bool) -> Capabilities {
    let limit = runtime::limit(gureum_shim::limited_by());
    Capabilities {
        driver: DriverKind::Process,
        isolation: runtime::isolation(grants.confinement),
        cpu_limit: limit,
        memory_limit: limit,
        address_mode: runtime::address_mode(grants.confinement),
        disk_limit,
        executes: true,
        hot_plug: false,
        survives_restart,
        platforms: vec![Platform::Linux],
        max_instances: None,
    }
}

#[async_trait]
impl Driver for ProcessDriver {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn adopt(&self, records: &[&NodeInstance]) -> Result<Vec<(InstanceId, Found)>, DriverError> {
        let unreadable = |error: io::Error| DriverError::Unavailable(format!("{}: {error}", self.shared.places.instances.display()));
        let records: BTreeMap<InstanceId, &NodeInstance> = records.iter().map(|record| (record.id, *record)).collect();
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.shared.places.instances).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let Some(id) = path.file_name().and_then(|name| name.to_str()?.parse::<InstanceId>().ok()) else { continue };
            let state = state_of(&path).await.map_err(unreadable)?;
            // Where nobody knows it, it is about to be removed.
            let spec = records.get(&id).and_then(|record| Some((&record.scope, record.spec.as_ref()?)));
            let interfaces = spec.map(|(scope, spec)| Interfaces::of(scope, spec)).unwrap_or_default();
            found.push((id, state.map_or(Found::Absent, |state| self.adopt_one(id, state, interfaces))));
        }
        Ok(found)
    }

    async fn boot(&self, spec: &BootSpec) -> Result<(), DriverError> {
        if let Some(refusal) = &self.shared.grants.refusal {
            return Err(DriverError::Refused(refusal.clone()));
        }
        self.order(spec.id, Order::Boot(Box::new(spec.clone())));
        Ok(())
    }

    async fn stop(&self, run: Run, grace: Duration) -> Result<(), DriverError> {
        self.order(run.id, Order::Stop { run, grace });
        Ok(())
    }

    async fn kill(&self, run: Run) -> Result<(), DriverError> {
        self.order(run.id, Order::Kill(run));
        Ok(())
    }

    async fn reboot(&self, run: Run, grace: Duration) -> Result<(), DriverError> {
        self.order(run.id, Order::Reboot { run, grace });
        Ok(())
    }

    async fn reconfigure(&self, spec: &BootSpec) -> Result<(), DriverError> {
        self.order(spec.id, Order::Reconfigure(Box::new(spec.clone())));
        Ok(())
    }

    async fn terminate(&self, run: Run, spec: Option<&InstanceSpec>) -> Result<(), DriverError> {
        self.order(run.id, Order::Terminate { run, spec: spec.cloned().map(Box::new) });
        Ok(())
    }

    async fn work(&self, task: DiskTask) -> Result<bool, DriverError> {
        self.shared.disks.work(task).await
    }

    async fn receive(&self, snapshot: SnapshotId, part: Part) -> Result<(), DriverError> {
        self.shared.disks.receive(snapshot, part).await
    }

    async fn usage(&self, ids: &[InstanceId]) -> Vec<(InstanceId, Usage)> {
        let (meters, ids) = (self.shared.meters.clone(), ids.to_vec());
        tokio::task::spawn_blocking(move || meters.look(&ids)).await.unwrap_or_default()
    }

    async fn console(&self, record: &NodeInstance) -> Result<Vec<u8>, DriverError> {
        let directory = self.shared.places.instance(record.id);
        console::tail(&directory, CONSOLE_TAIL).map_err(|error| DriverError::Unavailable(format!("{}: {error}", directory.display())))
    }

    async fn open_session(&self, record: &NodeInstance, start: Start) -> Result<Session, SessionError> {
        sessions::open(record.id, &self.shared.places.instance(record.id), start).await
    }

    async fn watch_console(&self, record: &NodeInstance, follow: bool, tail: u64) -> Result<ConsoleStream, SessionError> {
        Ok(following::console(self.shared.places.instance(record.id), follow, tail))
    }

    async fn reports(&self, most: usize) -> Vec<DriverReport> {
        let mut reports = Vec::new();
        self.reports.lock().await.recv_many(&mut reports, most).await;
        reports
    }
}

/// What the shim in a directory says. One that has just begun, its node having been killed meanwhile, is waited for: it
/// would be taken for absent, and the instance booted twice.
async fn state_of(directory: &Path) -> io::Result<Option<State>> {
    let deadline = monotonic() + SHIM_BEGINS_WITHIN;
    loop {
        let state = read_json(&directory.join(STATE_FILE))?;
        if state.is_some() || !boot::is_held(directory) || monotonic() >= deadline {
            return Ok(state);
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

impl ProcessDriver {
    /// What an instance's directory says that there is of it.
    fn adopt_one(&self, id: InstanceId, state: State, interfaces: Interfaces) -> Found {
        let boot = state.boot;
        let at = Timestamp::from_micros(state.since).min(self.shared.clock.now());
        if state.shim.lives() && !keeper::is_over(&state.status) {
            self.order(id, Order::Adopt { state: Box::new(state.clone()), interfaces });
        } else {
            // What came of its scripts while nobody looked.
            self.shared.report(id, boot, DriverEvent::Told { runtime: Box::new(runtime::of(&state)) });
        }
        match &state.status {
            Status::Off { reason } => Found::Off { boot, at, reason: keeper::exit_reason(reason) },
            Status::Failed { message } => Found::Off { boot, at, reason: ExitReason::Crashed { message: message.clone() } },
            _ if !state.shim.lives() => {
                let directory = self.shared.places.instance(id);
                if let Err(error) = removal::end_what_is_left(&directory, &state) {
                    tracing::warn!(%id, error = &error as &dyn std::error::Error, "processes of an instance could not be ended");
                }
                removal::leave_addresses(&directory);
                let message = "its shim was gone when the node came back".to_owned();
                Found::Off { boot, at: self.shared.clock.now(), reason: ExitReason::Crashed { message } }
            }
            Status::Booting | Status::Rebooting => Found::Booting { boot },
            Status::Up | Status::Stopping => Found::Up { boot, since: at },
        }
    }
}
