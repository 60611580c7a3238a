//! The instance: its record and its states.
//!
//! ```text
//!            launch                start
//!              │   ┌────────────────────────────────┐
//!              ▼   ▼                                │
//!           pending ──node runs it──▶ running       │
//!              │                       │            │
//!              │ start failed          │ stop, own shutdown, fault, node dead
//!              ├───────────────▶ stopping ──node let go, addresses back──▶ stopped
//!              │ launch failed         │                                      │
//!              ▼                       ▼ terminate (from every state)         ▼
//!           shutting-down ◀────────────┴──────────────────────────────────────┘
//!              │ node let go, interfaces gone, volumes settled
//!              ▼
//!           terminated ──one hour──▶ (forgotten)
//! ```
//!
//! Intent and its reaching are two things. An API call or a report changes the state, and raises
//! [`Instance::generation`] whenever the node has something new to do; the reconciler then carries out
//! what [`crate::plan`] says. A report counts only for the generation to which it belongs.

use std::{fmt, time::Duration};

use gureum_model::{
    Refusal, RefusalKind, Scope, Tags, Timestamp,
    id::{
        AllocationId, AssociationId, AttachmentId, ImageId, InstanceId, NetworkInterfaceId, NodeId, ReservationId, SecurityGroupId,
        SubnetId, VolumeId, VpcId,
    },
};
use serde::{Deserialize, Serialize};

use crate::{metadata_options::MetadataOptions, runtime::RuntimeReport, user_data::UserData};

/// A terminated instance stays visible this long, as in EC2.
pub const TERMINATED_VISIBLE: Duration = Duration::from_secs(3600);
/// Pending may take this long: beyond it the launch fails, or a start goes back to stopped.
pub const PENDING_ALLOWED: Duration = Duration::from_secs(600);
/// Stopping may take this long before the node is told to force it.
pub const STOPPING_ALLOWED: Duration = Duration::from_secs(300);
/// Shutting down may take this long before the node is told to force it.
pub const SHUTTING_DOWN_ALLOWED: Duration = Duration::from_secs(300);

/// A virtual server. Stored as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub scope: Scope,
    pub id: InstanceId,
    pub reservation_id: ReservationId,
    /// Its place in the launch, from 0.
    pub launch_index: u32,
    /// The launch's; empty if there was none.
    pub client_token: String,
    pub state: InstanceState,
    /// Counts what the node has to do: raised by every change of intent or of what the node needs to know.
    pub generation: u64,
    /// Starts so far, the launch among them.
    pub boots: u64,
    /// Reboots so far that a user asked for.
    pub reboots: u64,
    /// What was last reported of it.
    pub observed: Observed,
    /// How it runs, or last ran, as its node tells it; none before it first ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeReport>,
    /// The node that runs it or keeps what it has; none before its first placement and when that node is dead.
    pub node: Option<NodeId>,
    /// The node's capacity is set aside for it.
    pub holds_capacity: bool,
    /// Nodes where it once was, and that have not yet been told to forget it.
    pub former_nodes: Vec<NodeId>,
    /// When it was made.
    pub create_time: Timestamp,
    /// When it was last started.
    pub launch_time: Timestamp,
    pub image_id: ImageId,
    /// Where a driver finds what is in the image: the name of one that ships, or its root volume's snapshot.
    pub image_source: String,
    /// The type and what of it is needed here.
    pub kind: Kind,
    pub platform: Platform,
    /// Such as `Linux/UNIX`.
    pub platform_details: String,
    /// The billing code, such as `RunInstances`.
    pub usage_operation: String,
    pub root_device_name: String,
    pub boot_mode: BootMode,
    /// Marketplace products in its image.
    pub product_codes: Vec<String>,
    /// Empty for none.
    pub key_name: String,
    /// The key pair's public half as it was at the launch, in OpenSSH form: deleting the key pair later
    /// shuts nobody out.
    pub public_key: String,
    pub user_data: UserData,
    /// The letter of its zone, for its whole life.
    pub zone: char,
    pub tenancy: Tenancy,
    /// Empty for none.
    pub placement_group: String,
    /// By device index; the first is 0.
    pub interfaces: Vec<Interface>,
    /// The root first.
    pub volumes: Vec<AttachedVolume>,
    /// Volumes that were taken from it by force while it ran; the last of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pulled_volumes: Vec<VolumeId>,
    /// Name or ARN; empty for none.
    pub iam_instance_profile: String,
    pub detailed_monitoring: bool,
    pub metadata_options: MetadataOptions,
    pub credits: Option<CpuCredits>,
    pub ebs_optimized: bool,
    pub shutdown_behavior: ShutdownBehavior,
    pub disable_api_termination: bool,
    pub disable_api_stop: bool,
    pub tags: Tags,
}

/// What an instance is like by its type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kind {
    /// Such as `t3.micro`.
    pub name: String,
    /// What a node sets aside for it.
    pub capacity: Capacity,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    pub cores: u32,
    pub threads_per_core: u32,
    pub ena_support: bool,
    pub burstable: bool,
}

/// Processors and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct Capacity {
    /// Thousandths of a virtual processor.
    pub vcpu_milli: u64,
    /// MiB.
    pub memory_mib: u64,
}

/// Where an instance is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// It is placed and is being booted.
    Pending {
        since: Timestamp,
        origin: Origin,
        /// Its public addresses are there: so from the beginning for a launch, after a call for a start.
        addresses_ready: bool,
    },
    Running {
        since: Timestamp,
    },
    /// It is being stopped.
    Stopping {
        since: Timestamp,
        reason: Reason,
        force: bool,
        /// The node has let go, or is dead; what remains is to give the public addresses back.
        released: bool,
    },
    Stopped {
        since: Timestamp,
        reason: Reason,
    },
    /// It is being ended.
    ShuttingDown {
        since: Timestamp,
        reason: Reason,
        force: bool,
        /// The node has let go, or is dead, or none ever had it.
        released: bool,
        /// Network has taken the interfaces back.
        interfaces_gone: bool,
    },
    Terminated {
        since: Timestamp,
        reason: Reason,
    },
}

/// Why an instance is pending: it decides what a failure leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A failure undoes everything: terminated.
    Launch,
    /// A failure leads back to stopped.
    Start,
}

/// Why an instance is no longer running, with EC2's code and words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// An API call.
    User,
    /// The operating system in it.
    OwnShutdown,
    /// It could not be booted, or ended by a fault; in words.
    Internal(String),
    /// No node had room.
    Capacity,
    /// Its node was given up.
    NodeDead,
}

impl Reason {
    /// EC2's `stateReason.code`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::User => "Client.UserInitiatedShutdown",
            Self::OwnShutdown => "Client.InstanceInitiatedShutdown",
            Self::Internal(_) | Self::NodeDead => "Server.InternalError",
            Self::Capacity => "Server.InsufficientInstanceCapacity",
        }
    }

    /// EC2's `stateReason.message`: the code and words.
    pub fn message(&self) -> String {
        let words = match self {
            Self::User => "User initiated shutdown",
            Self::OwnShutdown => "Instance initiated shutdown",
            Self::Internal(words) if words.is_empty() => "Internal error on launch",
            Self::Internal(words) => words,
            Self::Capacity => "Insufficient capacity to satisfy instance request",
            Self::NodeDead => "The node of the instance was given up",
        };
        format!("{}: {words}", self.code())
    }

    /// EC2's `reason` of an instance, with the time as EC2 writes it there.
    pub fn transition(&self, at: Timestamp) -> String {
        match self {
            // EC2 shows no time for what the instance did itself.
            Self::OwnShutdown => String::new(),
            Self::User => format!("User initiated ({})", gmt(at)),
            Self::Internal(_) | Self::NodeDead | Self::Capacity => format!("{} ({})", self.code(), gmt(at)),
        }
    }
}

/// `2026-01-31 08:30:00 GMT`.
fn gmt(at: Timestamp) -> String {
    let text = at.to_string();
    // RFC 3339 always has these places: `2026-01-31T08:30:00.000Z`.
    let (date, time) = (text.get(..10).unwrap_or_default(), text.get(11..19).unwrap_or_default());
    format!("{date} {time} GMT")
}

/// What the node is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    Run,
    Stop { force: bool },
    Terminate { force: bool },
}

/// The name of a state, for answers and comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StateName {
    Pending,
    Running,
    Stopping,
    Stopped,
    ShuttingDown,
    Terminated,
}

impl StateName {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 6] = [Self::Pending, Self::Running, Self::Stopping, Self::Stopped, Self::ShuttingDown, Self::Terminated];

    /// EC2's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
        }
    }

    /// EC2's number.
    pub fn code(self) -> u16 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
            Self::Stopping => 64,
            Self::Stopped => 80,
        }
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl InstanceState {
    pub fn name(&self) -> StateName {
        match self {
            Self::Pending { .. } => StateName::Pending,
            Self::Running { .. } => StateName::Running,
            Self::Stopping { .. } => StateName::Stopping,
            Self::Stopped { .. } => StateName::Stopped,
            Self::ShuttingDown { .. } => StateName::ShuttingDown,
            Self::Terminated { .. } => StateName::Terminated,
        }
    }

    /// When it began.
    pub fn since(&self) -> Timestamp {
        match self {
            Self::Pending { since, .. }
            | Self::Running { since }
            | Self::Stopping { since, .. }
            | Self::Stopped { since, .. }
            | Self::ShuttingDown { since, .. }
            | Self::Terminated { since, .. } => *since,
        }
    }

    /// Why it is not running; none while it is, or is about to be.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Pending { .. } | Self::Running { .. } => None,
            Self::Stopping { reason, .. }
            | Self::Stopped { reason, .. }
            | Self::ShuttingDown { reason, .. }
            | Self::Terminated { reason, .. } => Some(reason),
        }
    }

    /// What the node is to do in this state.
    pub fn desired(&self) -> Desired {
        match self {
            Self::Pending { .. } | Self::Running { .. } => Desired::Run,
            Self::Stopping { force, .. } => Desired::Stop { force: *force },
            Self::Stopped { .. } => Desired::Stop { force: false },
            Self::ShuttingDown { force, .. } => Desired::Terminate { force: *force },
            Self::Terminated { .. } => Desired::Terminate { force: false },
        }
    }
}

/// What was last reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Observed {
    /// The generation of which the node told; 0 before the first report.
    pub generation: u64,
    /// The generation as which it runs: what came before it the node no longer has. Noted only of what runs.
    #[serde(default)]
    pub live_generation: u64,
    /// The driver's own check fails since then.
    pub unreachable_since: Option<Timestamp>,
    /// How many of the reboots that were wanted are over. Noted only of what runs.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub reboots: u64,
}

fn is_none_yet(count: &u64) -> bool {
    *count == 0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Platform {
    Linux,
    Windows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootMode {
    LegacyBios,
    Uefi,
}

impl BootMode {
    /// EC2's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LegacyBios => "legacy-bios",
            Self::Uefi => "uefi",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tenancy {
    #[default]
    Default,
    Dedicated,
}

impl Tenancy {
    /// EC2's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Dedicated => "dedicated",
        }
    }
}

/// How a burstable instance pays for bursts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuCredits {
    Standard,
    Unlimited,
}

impl CpuCredits {
    /// EC2's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Unlimited => "unlimited",
        }
    }
}

/// What the shutdown of an instance's own operating system does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShutdownBehavior {
    #[default]
    Stop,
    Terminate,
}

impl ShutdownBehavior {
    /// EC2's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Terminate => "terminate",
        }
    }
}

/// What an instance knows of one of its interfaces. Network owns it; this is the view that answers
/// and the node need, kept up to date by following network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub id: NetworkInterfaceId,
    pub attachment_id: AttachmentId,
    pub device_index: u32,
    pub delete_on_termination: bool,
    pub attach_time: Timestamp,
    pub subnet_id: SubnetId,
    pub vpc_id: VpcId,
    /// Empty until network has said.
    pub mac_address: String,
    /// Bits of the subnet's prefix; 0 until network has said.
    pub prefix_length: u8,
    /// The primary first.
    pub private_addresses: Vec<String>,
    pub private_dns_name: String,
    pub public: Option<PublicAddress>,
    pub groups: Vec<Group>,
    pub source_dest_check: bool,
    pub description: String,
}

/// A public address that leads to an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicAddress {
    pub address: String,
    pub dns_name: String,
    /// None for one of the pool, which goes when the instance stops.
    pub elastic: Option<Elastic>,
}

/// The elastic IP behind a public address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elastic {
    pub allocation_id: AllocationId,
    pub association_id: AssociationId,
}

/// A security group by both its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub id: SecurityGroupId,
    pub name: String,
}

/// A volume at a device. The volume's own record has the attachment's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedVolume {
    pub device_name: String,
    pub volume_id: VolumeId,
    pub attach_time: Timestamp,
    pub delete_on_termination: bool,
}

impl Instance {
    /// The interface with device index 0; none only once they are gone.
    pub fn primary(&self) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.device_index == 0)
    }

    /// The zone's name, such as `us-east-1a`.
    pub fn availability_zone(&self) -> String {
        self.scope.region.zone(self.zone)
    }

    pub fn availability_zone_id(&self) -> String {
        self.scope.region.zone_id(self.zone)
    }

    /// EC2's `stateTransitionReason`: empty while it runs or is about to.
    pub fn transition_reason(&self) -> String {
        self.state.reason().map(|reason| reason.transition(self.state.since())).unwrap_or_default()
    }

    /// Whether users still see it. A reconciler removes the record once this is false.
    pub fn visible(&self, now: Timestamp) -> bool {
        match &self.state {
            InstanceState::Terminated { since, .. } => now < *since + TERMINATED_VISIBLE,
            InstanceState::Pending { .. }
            | InstanceState::Running { .. }
            | InstanceState::Stopping { .. }
            | InstanceState::Stopped { .. }
            | InstanceState::ShuttingDown { .. } => true,
        }
    }

    /// This with another state, and with something new to do for the node.
    pub(crate) fn towards(&self, state: InstanceState) -> Self {
        Self { state, generation: self.generation + 1, ..self.clone() }
    }

    /// This with another state; the node has nothing new to do.
    pub(crate) fn arrived(&self, state: InstanceState) -> Self {
        Self { state, ..self.clone() }
    }
}

/// What a decision comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// It is so already.
    Unchanged,
    /// The record as it is to be from now on.
    Change(Box<Instance>),
}

impl Decision {
    pub(crate) fn change(next: Instance) -> Self {
        Self::Change(Box::new(next))
    }

    /// The record after the decision.
    pub fn after<'a>(&'a self, before: &'a Instance) -> &'a Instance {
        match self {
            Self::Unchanged => before,
            Self::Change(next) => next,
        }
    }
}

/// Why a call on an instance was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstanceError {
    #[error("the instance ID '{id}' does not exist")]
    NotFound { id: InstanceId },
    #[error("the instance '{id}' is {state}, a state from which it can not be {verb}")]
    State { id: InstanceId, state: StateName, verb: &'static str },
    #[error("the instance '{id}' does not have a volume attached at root ({device}); attach one first")]
    NoRoot { id: InstanceId, device: String },
    #[error("the instance '{id}' cannot be stopped as it has never reached the 'running' state; wait until it runs, or terminate it")]
    NeverRan { id: InstanceId },
    #[error("the instance '{id}' is {state}, not in the 'stopped' state; stop it first")]
    NotStopped { id: InstanceId, state: StateName },
    #[error("the instance '{id}' may not be terminated; modify its 'disableApiTermination' instance attribute and try again")]
    TerminationProtected { id: InstanceId },
    #[error("the instance '{id}' may not be {verb}; modify its 'disableApiStop' instance attribute and try again")]
    StopProtected { id: InstanceId, verb: &'static str },
    #[error(
        "we currently do not have sufficient {kind} capacity in the Availability Zone you requested ({zone}); try another type or zone, or wait"
    )]
    NoCapacity { kind: String, zone: String },
    #[error("hibernation is not offered; stop the instance '{id}' without it")]
    Hibernate { id: InstanceId },
    #[error("the instance type '{kind}' has the architecture {actual}, and the image of the instance '{id}' needs {expected}")]
    Architecture { id: InstanceId, kind: String, expected: String, actual: String },
    #[error(
        "the instance '{id}' has {count} network interfaces, more than the {limit} that the type {kind} allows; detach some, or choose a larger type"
    )]
    TooManyInterfaces { id: InstanceId, kind: String, count: usize, limit: usize },
    #[error("the instance '{id}' has no device '{device}'")]
    NoDevice { id: InstanceId, device: String },
    #[error("{words}")]
    BadValue { field: &'static str, words: String },
}

impl From<InstanceError> for Refusal {
    fn from(error: InstanceError) -> Self {
        let text = error.to_string();
        match error {
            InstanceError::NotFound { .. } => Self::new(RefusalKind::NotFound, "InvalidInstanceID.NotFound", text).of_field("instance_id"),
            InstanceError::State { .. }
            | InstanceError::NoRoot { .. }
            | InstanceError::NeverRan { .. }
            | InstanceError::NotStopped { .. } => Self::wrong_state("IncorrectInstanceState", text),
            InstanceError::TerminationProtected { .. } | InstanceError::StopProtected { .. } => {
                Self::wrong_state("OperationNotPermitted", text)
            }
            InstanceError::NoCapacity { .. } => Self::new(RefusalKind::Exhausted, "InsufficientInstanceCapacity", text),
            InstanceError::TooManyInterfaces { .. } => Self::new(RefusalKind::Exhausted, "AttachmentLimitExceeded", text),
            InstanceError::Hibernate { .. } => Self::new(RefusalKind::Unsupported, "UnsupportedOperation", text).of_field("hibernate"),
            InstanceError::Architecture { .. } => Self::invalid("instance_type", text),
            InstanceError::NoDevice { .. } => Self::invalid_as("InvalidInstanceAttributeValue", "block_device_mappings", text),
            InstanceError::BadValue { field, .. } => Self::invalid(field, text),
        }
    }
}
