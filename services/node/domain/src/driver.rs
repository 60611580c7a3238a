//! What passes between the node and its driver, as data. The driver's own interface, which waits and
//! calls, is in the service.
//!
//! The contract of every driver:
//! - each call may be repeated and then changes nothing: booting a boot number that was booted,
//!   stopping what is stopped, terminating what is gone;
//! - calls return once they are accepted, and what came of them comes as a [`DriverReport`] later;
//! - a report carries the boot number to which it belongs, so that a late one harms nobody;
//! - at start a driver lists what it has ([`Found`]): whatever outlived the node's process.

use gureum_model::{Scope, Timestamp, id::InstanceId};
use serde::{Deserialize, Serialize};

use crate::{
    runtime::RuntimeReport,
    spec::{InstanceSpec, Platform},
};

/// What a driver needs in order to boot an instance, or to follow a change of it while it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BootSpec {
    pub scope: Scope,
    pub id: InstanceId,
    /// Which boot this is. A driver that has booted this number already does nothing.
    pub boot: u64,
    /// The generation of the specification.
    pub generation: u64,
    /// It never was up before: user data is to be run.
    pub first: bool,
    pub spec: InstanceSpec,
}

/// What a driver tells about one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriverReport {
    pub id: InstanceId,
    /// The boot to which it belongs.
    pub boot: u64,
    /// When it happened.
    pub at: Timestamp,
    pub event: DriverEvent,
}

/// What can happen to an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverEvent {
    /// It booted and is up.
    Up,
    /// It could not be booted; what was begun is undone, but for its volumes.
    BootFailed { message: String },
    /// It is up again after a reboot, whoever asked for it.
    Rebooted,
    /// It runs no more; its volumes are kept.
    Exited { reason: ExitReason },
    /// It is gone, with all that goes with it.
    Removed,
    /// It runs but does not answer.
    Unresponsive { message: String },
    /// It answers again.
    Responsive,
    /// It runs as this generation has it.
    Reconfigured { generation: u64 },
    /// It could not be changed while it runs; it goes on as it was.
    ReconfigureFailed { generation: u64, message: String },
    /// How it runs, and what came of its scripts so far. Told before [`Self::Up`] where it is more than what the
    /// driver's capabilities say, and whenever it changes.
    Told { runtime: Box<RuntimeReport> },
}

/// Why an instance runs no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// The node asked for it.
    Asked,
    /// The instance shut itself down.
    InstanceInitiated,
    /// It ended by a fault: killed from outside, out of memory, a broken shim.
    Crashed { message: String },
}

/// What a driver that starts finds of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It boots, and a report will follow.
    Booting { boot: u64 },
    /// It is up.
    Up { boot: u64, since: Timestamp },
    /// It ended while nobody looked.
    Off { boot: u64, at: Timestamp, reason: ExitReason },
    /// Nothing runs, and nobody knows since when.
    Absent,
}

/// The kind of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverKind {
    /// No process at all: a model.
    Sim,
    /// Programs in a directory, confined by what the host grants.
    Process,
    /// A root file system with an interface of its own.
    Container,
    /// A virtual machine.
    Vm,
}

impl DriverKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sim => "sim",
            Self::Process => "process",
            Self::Container => "container",
            Self::Vm => "vm",
        }
    }
}

/// What separates an instance from the host and from its neighbours, strongest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Nothing runs, so there is nothing to separate.
    Simulated,
    /// Nothing; only with the operator's explicit consent.
    None,
    /// A user id of its own, no capabilities, Landlock.
    User,
    /// Namespaces, with or without a root file system of its own.
    Namespaces,
    /// Hardware virtualisation.
    Hardware,
}

impl Isolation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Simulated => "simulated",
            Self::None => "none",
            Self::User => "user",
            Self::Namespaces => "namespaces",
            Self::Hardware => "hardware",
        }
    }
}

/// By what a limit of the type is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Nothing runs that could exceed it.
    Simulated,
    /// Not at all.
    None,
    /// nice and rlimit: a hint for processors, a bound per process for memory.
    Rlimit,
    /// Control groups, version 1.
    CgroupV1,
    /// Control groups, version 2.
    CgroupV2,
    /// The virtual machine itself.
    Machine,
}

impl Limit {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Simulated => "simulated",
            Self::None => "none",
            Self::Rlimit => "rlimit",
            Self::CgroupV1 => "cgroup-v1",
            Self::CgroupV2 => "cgroup-v2",
            Self::Machine => "machine",
        }
    }
}

/// How an instance has its private address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressMode {
    /// As a text only.
    Simulated,
    /// An alias of the loopback interface that it must bind by name.
    LoopbackAlias,
    /// On an interface of its own, in a network namespace of its own or in a machine.
    OwnInterface,
}

impl AddressMode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Simulated => "simulated",
            Self::LoopbackAlias => "loopback-alias",
            Self::OwnInterface => "own-interface",
        }
    }
}

/// What a driver can do on this host, found out when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub driver: DriverKind,
    pub isolation: Isolation,
    pub cpu_limit: Limit,
    pub memory_limit: Limit,
    pub address_mode: AddressMode,
    /// Whether the size of a volume is enforced.
    pub disk_limit: bool,
    /// Programs really run: user data, console, logins.
    pub executes: bool,
    /// Volumes and interfaces can come and go while the instance runs.
    pub hot_plug: bool,
    /// Instances outlive the node's process and are adopted by the next.
    pub survives_restart: bool,
    /// Operating systems that it can boot.
    pub platforms: Vec<Platform>,
    /// Instances at once; absent: as many as fit.
    pub max_instances: Option<usize>,
}

impl Capabilities {
    /// Those of the simulation.
    pub fn sim() -> Self {
        Self {
            driver: DriverKind::Sim,
            isolation: Isolation::Simulated,
            cpu_limit: Limit::Simulated,
            memory_limit: Limit::Simulated,
            address_mode: AddressMode::Simulated,
            disk_limit: true,
            executes: false,
            hot_plug: true,
            survives_restart: true,
            platforms: vec![Platform::Linux, Platform::Windows],
            max_instances: None,
        }
    }

    /// Why this driver cannot boot such an instance at all, if so.
    pub fn objection(&self, spec: &InstanceSpec) -> Option<String> {
        let platform = spec.image.platform;
        (!self.platforms.contains(&platform)).then(|| {
            format!("the image {} is for {platform:?}, which the {} driver of this node cannot boot", spec.image.id, self.driver.as_str())
        })
    }
}

/// What an instance uses. The counters begin at 0 with each boot and never go back within one.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Of all its vCPUs together: 0 to 100, in steps of 0.1.
    pub cpu_percent: f64,
    /// Bytes in use.
    pub memory_used_bytes: u64,
    /// Bytes that the type has.
    pub memory_total_bytes: u64,
    pub disk_read_bytes: u64,
    pub disk_written_bytes: u64,
    pub disk_read_operations: u64,
    pub disk_write_operations: u64,
    pub network_received_bytes: u64,
    pub network_sent_bytes: u64,
    pub network_received_packets: u64,
    pub network_sent_packets: u64,
}
