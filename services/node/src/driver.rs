//! The one interface behind which an instance becomes real.
//!
//! What passes through it is data of the domain ([`gureum_node_domain::driver`], where the contract is
//! told too); this is how it waits. The node calls a driver for one instance at a time, in order, and
//! for many instances at once.
//!
//! It is shaped for drivers in which programs run. A *process*, *container* or *vm* driver has a shim
//! per instance that outlives the node's process: [`Driver::adopt`] finds the shims again, and their
//! reports come by [`Driver::reports`] whoever asked for what they tell of. A call returns once it is
//! accepted: copying an image or shutting down a guest goes on behind it.

use std::time::Duration;

use async_trait::async_trait;
use gureum_model::id::{InstanceId, SnapshotId, VolumeId};
use gureum_node_domain::{BootSpec, Capabilities, DriverReport, FaultError, Found, InstanceSpec, NodeInstance, Usage, sim::Fault};

use crate::session::{ConsoleStream, Session, SessionError, Start};
use crate::snapshots::receive::Complete;

/// One run of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub id: InstanceId,
    /// Which boot it is: a driver leaves a later one alone.
    pub boot: u64,
}

/// Work on what instances have or had, that no instance does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DiskTask {
    CreateVolume {
        volume: VolumeId,
        snapshot: SnapshotId,
        size_gib: u32,
    },
    DeleteVolume(VolumeId),
    CreateSnapshot {
        snapshot: SnapshotId,
        volume: VolumeId,
        /// Where the volume is not there, it is empty.
        may_be_unused: bool,
    },
    DeleteSnapshot(SnapshotId),
    /// Of an archive whose parts are all there.
    ReadSnapshot {
        snapshot: SnapshotId,
        archive: Complete,
    },
}

/// A part of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub index: u32,
    pub bytes: Vec<u8>,
    /// SHA-256.
    pub checksum: Vec<u8>,
}

/// Why a driver did not accept a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// It never will: a boot has failed then, and a change waits for the next boot.
    #[error("{0}")]
    Refused(String),
    /// It may later: the call is made again.
    #[error("{0}")]
    Unavailable(String),
}

/// What makes instances real. Every call may be repeated and then changes nothing.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// What it can do on this host. Found out when it was made; never changes.
    fn capabilities(&self) -> &Capabilities;

    /// Takes back what outlived the node's process. Called once, before anything else, with every
    /// record of the node.
    ///
    /// Answers what it has, also where there is no record; what is left out is absent.
    async fn adopt(&self, records: &[&NodeInstance]) -> Result<Vec<(InstanceId, Found)>, DriverError>;

    /// Makes an instance run. [`DriverEvent::Up`](gureum_node_domain::DriverEvent) or `BootFailed` follows.
    async fn boot(&self, spec: &BootSpec) -> Result<(), DriverError>;

    /// Lets it shut down, and kills it after the grace (domain time). `Exited` follows, also if it did not run.
    async fn stop(&self, run: Run, grace: Duration) -> Result<(), DriverError>;

    /// Ends it at once. `Exited` follows, also if it did not run.
    async fn kill(&self, run: Run) -> Result<(), DriverError>;

    /// Restarts it with its addresses and disks. `Rebooted` follows.
    async fn reboot(&self, run: Run, grace: Duration) -> Result<(), DriverError>;

    /// Changes it while it runs. `Reconfigured` or `ReconfigureFailed` follows.
    async fn reconfigure(&self, spec: &BootSpec) -> Result<(), DriverError>;

    /// Ends it at once and removes all that goes with it; the specification says which volumes do. None:
    /// nobody knows the instance, and all of it goes. `Removed` follows, also if it did not exist.
    async fn terminate(&self, run: Run, spec: Option<&InstanceSpec>) -> Result<(), DriverError>;

    /// What those of these instances that are up use now.
    async fn usage(&self, ids: &[InstanceId]) -> Vec<(InstanceId, Usage)>;

    /// The end of an instance's console: at most 64 KiB. Also of one that is off.
    async fn console(&self, record: &NodeInstance) -> Result<Vec<u8>, DriverError>;

    /// Runs a program in an instance that is up, for whoever asked, until it ends or he lets the session go.
    async fn open_session(&self, record: &NodeInstance, start: Start) -> Result<Session, SessionError> {
        let _ = (record, start);
        Err(SessionError::NothingExecutes { driver: self.capabilities().driver.as_str() })
    }

    /// Reads an instance's console, from so many bytes before its end on (0: from the oldest that is kept), and what is added
    /// to it where it is to be followed. Where nothing executes there is only what [`Driver::console`] tells.
    async fn watch_console(&self, record: &NodeInstance, follow: bool, tail: u64) -> Result<ConsoleStream, SessionError> {
        if follow {
            return Err(SessionError::NothingExecutes { driver: self.capabilities().driver.as_str() });
        }
        let mut output = self.console(record).await.map_err(|error| SessionError::Away(error.to_string()))?;
        if let Some(more) = usize::try_from(tail).ok().filter(|tail| *tail > 0).and_then(|tail| output.len().checked_sub(tail)) {
            output.drain(..more);
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        // There is room for one.
        let _ = sender.try_send(Ok(output));
        Ok(receiver)
    }

    /// Waits until something happened and answers it, in order: 1 to `most` reports.
    ///
    /// Called by one task. What was answered counts as recorded when this is called again. A call that
    /// is dropped while it waits has taken nothing.
    async fn reports(&self, most: usize) -> Vec<DriverReport>;

    /// Whether no report is due or being recorded. Virtual time waits for it.
    fn is_idle(&self) -> bool {
        true
    }

    /// Works on a volume or snapshot, and answers whether that is done. What is not is asked for again; what was done is
    /// done. A driver that keeps no files has nothing to do.
    async fn work(&self, task: DiskTask) -> Result<bool, DriverError> {
        let _ = task;
        Ok(true)
    }

    /// Keeps a part of an archive of which a snapshot is to be made.
    async fn receive(&self, snapshot: SnapshotId, part: Part) -> Result<(), DriverError> {
        let _ = (snapshot, part);
        Err(DriverError::Refused(format!("the {} driver keeps no files", self.capabilities().driver.as_str())))
    }

    /// Makes something go wrong, for tests.
    async fn inject(&self, fault: Fault) -> Result<(), FaultError> {
        let _ = fault;
        Err(FaultError::NotSimulated { driver: self.capabilities().driver.as_str() })
    }
}
