//! An instance as its node records it: what is wanted, and what is.
//!
//! ```text
//!            apply         begin          Up
//!  (unknown) ────► Pending ────► Booting ────► Running ◄───► Rebooting
//!      │ no room      ▲             │ fails       │ stop wanted      │
//!      ▼              │             ▼             ▼                  ▼
//!    Failed ──────────┤           Failed       Stopping ─────────► Stopped
//!                     │                           (own shutdown or crash: at once)
//!                     └── from Failed and Stopped, when a newer boot is wanted and there is room
//!
//!  any state ── terminated is wanted ──► Terminating ──► Terminated ──► forgotten
//! ```
//!
//! Boots and reboots are wanted by number, not by a state alone: an instance that shut itself down
//! while "running" was wanted stays down until a higher boot number is wanted, and a repeated or late
//! intent never boots or reboots twice.

use std::{borrow::Cow, time::Duration};

use gureum_model::{Filterable, Scope, Tags, Timestamp, id::InstanceId};
use serde::{Deserialize, Serialize};

use crate::{capacity::Demand, driver::ExitReason, runtime::RuntimeReport, spec::InstanceSpec};

/// What compute wants of one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    pub scope: Scope,
    pub id: InstanceId,
    pub wanted: Wanted,
    /// May be absent if the node knows the instance, and if it shall be terminated.
    pub spec: Option<InstanceSpec>,
}

/// The changing part of an intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Grows with every change that compute makes. From 1.
    pub generation: u64,
    pub state: DesiredState,
    /// Which boot shall have happened, from 1. The node boots when this is above the last boot it
    /// took up.
    pub boot: u64,
    /// How many reboots shall have happened.
    pub reboot: u64,
}

/// In which state an instance shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DesiredState {
    Running,
    /// Off, with its volumes kept. It may shut down for so long; then it is killed.
    Stopped {
        grace: Duration,
    },
    /// Gone. Final until it is forgotten: then a later intent begins anew, as for an instance that comes back.
    Terminated,
}

/// An instance, as the node keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeInstance {
    pub scope: Scope,
    pub id: InstanceId,
    pub wanted: Wanted,
    /// Absent only if the node was told to terminate what it never had.
    pub spec: Option<InstanceSpec>,
    pub state: ObservedState,
    pub health: Health,
    /// The last boot that was taken up, whatever came of it; 0 before the first.
    pub boot: u64,
    /// Reboots that were begun, or that a boot has made needless.
    pub reboot: u64,
    /// The generation as which it runs, or last ran.
    pub live_generation: u64,
    /// Why the last change could not be made while it runs, if so. The next boot makes it.
    pub change_refused: Option<String>,
    /// What it holds of the node.
    pub held: Demand,
    /// What the driver was asked and has not answered.
    pub asked: Option<Asked>,
    /// When the node first heard of it.
    pub created_at: Timestamp,
    /// When it was first up: from then on user data is not run again.
    pub first_up_at: Option<Timestamp>,
    /// When the present or last boot or reboot began.
    pub boot_began_at: Option<Timestamp>,
    /// When the present or last run came up.
    pub up_at: Option<Timestamp>,
    /// How it runs, or last ran; none before it was first up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeReport>,
}

/// What an instance is seen to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObservedState {
    /// It has its room, and the driver is to be called.
    Pending {
        since: Timestamp,
    },
    Booting {
        since: Timestamp,
    },
    Running {
        since: Timestamp,
    },
    /// Users see it as running.
    Rebooting {
        since: Timestamp,
    },
    Stopping {
        since: Timestamp,
        because: StopCause,
    },
    Stopped {
        since: Timestamp,
        reason: ExitReason,
    },
    Terminating {
        since: Timestamp,
    },
    Terminated {
        since: Timestamp,
    },
    /// This boot came to nothing; a newer one may be tried.
    Failed {
        since: Timestamp,
        reason: FailReason,
    },
}

/// Why the node stops an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCause {
    /// "Stopped" is wanted, or a newer boot.
    Wanted,
    /// It did not come up in [`BOOT_ALLOWED`](crate::plan::BOOT_ALLOWED).
    BootTimedOut,
}

/// Why a boot came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailReason {
    #[error(
        "the node has no room: {} vCPU and {} MiB are wanted, {} vCPU and {} MiB are free",
        f64::from(u32::try_from(wanted.vcpu_milli).unwrap_or(u32::MAX)) / 1000.0, wanted.memory_mib,
        f64::from(u32::try_from(free.vcpu_milli).unwrap_or(u32::MAX)) / 1000.0, free.memory_mib
    )]
    NoRoom { wanted: Demand, free: Demand },
    #[error("the node runs {limit} instances, and its driver allows no more")]
    TooMany { limit: usize },
    #[error("{message}")]
    Unsupported { message: String },
    #[error("the boot failed: {message}")]
    BootFailed { message: String },
    #[error("the instance was not up {allowed_secs} s after its boot began")]
    BootTimedOut { allowed_secs: u64 },
}

impl FailReason {
    /// A short name for programs: `no_room`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoRoom { .. } => "no_room",
            Self::TooMany { .. } => "too_many",
            Self::Unsupported { .. } => "unsupported",
            Self::BootFailed { .. } => "boot_failed",
            Self::BootTimedOut { .. } => "boot_timed_out",
        }
    }
}

/// Whether a running instance answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    #[default]
    Ok,
    Impaired {
        since: Timestamp,
        message: String,
    },
}

/// A call of the driver that is not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub step: StepKind,
    pub at: Timestamp,
    /// From then on the answer is overdue.
    pub until: Timestamp,
}

/// Calls that a driver knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    Boot,
    Stop,
    Kill,
    Reboot,
    Reconfigure,
    Terminate,
}

/// What the node tells of an instance. An event goes out whenever this changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    pub scope: Scope,
    pub id: InstanceId,
    /// The newest intent that the node has made durable.
    pub generation: u64,
    pub live_generation: u64,
    pub boot: u64,
    pub reboot: u64,
    pub state: ObservedState,
    pub health: Health,
    pub change_refused: Option<String>,
    pub runtime: Option<RuntimeReport>,
}

impl ObservedState {
    /// A short name: `booting`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Booting { .. } => "booting",
            Self::Running { .. } => "running",
            Self::Rebooting { .. } => "rebooting",
            Self::Stopping { .. } => "stopping",
            Self::Stopped { .. } => "stopped",
            Self::Terminating { .. } => "terminating",
            Self::Terminated { .. } => "terminated",
            Self::Failed { .. } => "failed",
        }
    }

    /// When it began.
    pub fn since(&self) -> Timestamp {
        match self {
            Self::Pending { since }
            | Self::Booting { since }
            | Self::Running { since }
            | Self::Rebooting { since }
            | Self::Stopping { since, .. }
            | Self::Stopped { since, .. }
            | Self::Terminating { since }
            | Self::Terminated { since }
            | Self::Failed { since, .. } => *since,
        }
    }

    /// The driver has, or may have, something that runs.
    pub fn is_active(&self) -> bool {
        match self {
            Self::Booting { .. } | Self::Running { .. } | Self::Rebooting { .. } | Self::Stopping { .. } | Self::Terminating { .. } => true,
            Self::Pending { .. } | Self::Stopped { .. } | Self::Terminated { .. } | Self::Failed { .. } => false,
        }
    }

    /// It runs nothing and holds nothing, and stays so until compute wants something else.
    pub fn is_off(&self) -> bool {
        match self {
            Self::Stopped { .. } | Self::Terminated { .. } | Self::Failed { .. } => true,
            Self::Pending { .. }
            | Self::Booting { .. }
            | Self::Running { .. }
            | Self::Rebooting { .. }
            | Self::Stopping { .. }
            | Self::Terminating { .. } => false,
        }
    }
}

impl NodeInstance {
    /// What is told of it.
    pub fn observation(&self) -> Observation {
        Observation {
            scope: self.scope.clone(),
            id: self.id,
            generation: self.wanted.generation,
            live_generation: self.live_generation,
            boot: self.boot,
            reboot: self.reboot,
            state: self.state.clone(),
            health: self.health.clone(),
            change_refused: self.change_refused.clone(),
            runtime: self.runtime.clone(),
        }
    }

    /// A newer boot is wanted than the one that was taken up.
    pub fn wants_newer_boot(&self) -> bool {
        match self.wanted.state {
            DesiredState::Running => self.wanted.boot > self.boot,
            DesiredState::Stopped { .. } | DesiredState::Terminated => false,
        }
    }

    /// Lets go of what the run needed, in `state`.
    pub(crate) fn off(&self, state: ObservedState) -> Self {
        Self { state, held: Demand::NOTHING, asked: None, health: Health::Ok, ..self.clone() }
    }
}

impl Filterable for NodeInstance {
    const FILTER_NAMES: &'static [&'static str] = &[
        "availability-zone",
        "image-id",
        "instance-id",
        "instance-state-name",
        "instance-type",
        "network-interface-id",
        "owner-id",
        "private-ip-address",
        "region",
    ];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        let from_spec = |value: fn(&InstanceSpec) -> Vec<Cow<'_, str>>| self.spec.as_ref().map(value).unwrap_or_default();
        match name {
            "availability-zone" => from_spec(|spec| vec![spec.placement.zone.as_str().into()]),
            "image-id" => from_spec(|spec| vec![spec.image.id.to_string().into()]),
            "instance-id" => vec![self.id.to_string().into()],
            "instance-state-name" => vec![self.state.name().into()],
            "instance-type" => from_spec(|spec| vec![spec.type_name.as_str().into()]),
            "network-interface-id" => from_spec(|spec| spec.interfaces.iter().map(|interface| interface.id.to_string().into()).collect()),
            "owner-id" => vec![self.scope.account.to_string().into()],
            "private-ip-address" => from_spec(|spec| {
                spec.interfaces
                    .iter()
                    .flat_map(|interface| &interface.private_addresses)
                    .map(|address| address.to_string().into())
                    .collect()
            }),
            "region" => vec![self.scope.region.as_str().into()],
            _ => Vec::new(),
        }
    }

    fn filter_tags(&self) -> Option<&Tags> {
        self.spec.as_ref().map(|spec| &spec.tags)
    }
}
