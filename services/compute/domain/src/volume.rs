//! Volumes: disks of their own, which instances of their zone have attached.
//!
//! ```text
//!  CreateVolume ──▶ creating ──[`CREATING_FOR`]──▶ available ◀──last let go──┐
//!                                                    │  └────attach────▶ in-use ◀── launch
//!                                                    │ delete              │ its instance is terminated
//!                                                    ▼                     ▼
//!                                        deleting ──[`DELETING_FOR`]──▶ deleted ──[`DELETED_KEPT`]──▶ (removed)
//!
//!  an attachment:  attaching ──node took it──▶ attached ──detach──▶ detaching ──node let go──▶ (gone)
//!                                                                     └─[`BUSY_AFTER`]─▶ busy ─┘
//! ```
//!
//! What depends on time alone is done by [`settle`]; [`due`] says when to call it. What depends on a node is
//! told by [`attach::attached`] and [`attach::detached`].

use std::time::Duration;

use gureum_model::{
    Refusal, RefusalKind, Scope, Tags, Timestamp,
    id::{InstanceId, NodeId, SnapshotId, VolumeId},
};
use serde::{Deserialize, Serialize};

use crate::instance::StateName;

pub mod attach;
pub mod create;
mod filter;
pub mod kind;

pub use kind::VolumeType;

/// A new volume is available after this time.
pub const CREATING_FOR: Duration = Duration::from_millis(500);
/// A volume is deleted after this time.
pub const DELETING_FOR: Duration = Duration::from_millis(500);
/// A deleted volume's record is kept this long, invisible, so that whoever watches sees its state.
pub const DELETED_KEPT: Duration = Duration::from_secs(60);
/// An instance that has not let go of a volume after this time keeps it busy.
pub const BUSY_AFTER: Duration = Duration::from_secs(60);

/// What a decision on a volume, snapshot, image or listing comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision<T> {
    /// It is so already.
    Unchanged,
    /// The record as it is to be from now on.
    Change(T),
    /// The record goes.
    Remove,
}

impl<T> Decision<T> {
    /// The same decision on a record that is changed once more.
    #[must_use]
    pub fn map(self, change: impl FnOnce(T) -> T) -> Self {
        match self {
            Self::Change(next) => Self::Change(change(next)),
            Self::Unchanged | Self::Remove => self,
        }
    }
}

impl<T: Clone> Decision<T> {
    /// The record after the decision; none if it goes.
    pub fn after(self, before: &T) -> Option<T> {
        match self {
            Self::Unchanged => Some(before.clone()),
            Self::Change(next) => Some(next),
            Self::Remove => None,
        }
    }
}

/// A volume. Stored as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    pub scope: Scope,
    pub id: VolumeId,
    /// The letter of its zone.
    pub zone: char,
    pub size_gib: u32,
    pub volume_type: VolumeType,
    /// Operations per second; none where the type has no number.
    pub iops: Option<u32>,
    /// MiB/s; only gp3.
    pub throughput_mibps: Option<u32>,
    /// What it was made from.
    pub snapshot_id: Option<SnapshotId>,
    /// Products of the marketplace that are in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub product_codes: Vec<String>,
    pub encrypted: bool,
    /// Only if encrypted.
    pub kms_key_id: Option<String>,
    /// Several instances may have it at once.
    pub multi_attach: bool,
    pub create_time: Timestamp,
    pub state: VolumeState,
    /// Where its files are, if a node keeps any: known since it was made of a snapshot, or an instance had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    pub tags: Tags,
}

/// Where a volume is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    Creating {
        since: Timestamp,
    },
    Available {
        since: Timestamp,
    },
    /// At least one attachment; more than one only with multi-attach.
    InUse {
        attachments: Vec<Attachment>,
    },
    Deleting {
        since: Timestamp,
    },
    Deleted {
        since: Timestamp,
    },
    /// It cannot be used; in words.
    Error {
        since: Timestamp,
        reason: String,
    },
}

impl VolumeState {
    /// EC2's word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Creating { .. } => "creating",
            Self::Available { .. } => "available",
            Self::InUse { .. } => "in-use",
            Self::Deleting { .. } => "deleting",
            Self::Deleted { .. } => "deleted",
            Self::Error { .. } => "error",
        }
    }
}

/// An instance's hold on a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub instance_id: InstanceId,
    /// Such as `/dev/sdf`.
    pub device: String,
    pub attach_time: Timestamp,
    /// The volume goes with the instance. The instance's own record says the same; a call changes both.
    pub delete_on_termination: bool,
    pub state: AttachmentState,
}

/// How far an attachment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachmentState {
    Attaching {
        since: Timestamp,
    },
    Attached,
    Detaching {
        since: Timestamp,
    },
    /// The instance does not let go.
    Busy {
        since: Timestamp,
    },
}

impl AttachmentState {
    /// EC2's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attaching { .. } => "attaching",
            Self::Attached => "attached",
            Self::Detaching { .. } => "detaching",
            Self::Busy { .. } => "busy",
        }
    }
}

impl Volume {
    /// The instances' holds on it.
    pub fn attachments(&self) -> &[Attachment] {
        match &self.state {
            VolumeState::InUse { attachments } => attachments,
            VolumeState::Creating { .. }
            | VolumeState::Available { .. }
            | VolumeState::Deleting { .. }
            | VolumeState::Deleted { .. }
            | VolumeState::Error { .. } => &[],
        }
    }

    /// The hold of one instance.
    pub fn attachment(&self, instance: InstanceId) -> Option<&Attachment> {
        self.attachments().iter().find(|attachment| attachment.instance_id == instance)
    }

    /// The zone's name, such as `us-east-1a`.
    pub fn availability_zone(&self) -> String {
        self.scope.region.zone(self.zone)
    }

    /// Whether users see it: all but deleted ones.
    pub fn visible(&self) -> bool {
        !matches!(self.state, VolumeState::Deleted { .. })
    }

    fn with_state(&self, state: VolumeState) -> Self {
        Self { state, ..self.clone() }
    }

    /// In use by these, or available if there are none.
    fn with_attachments(&self, attachments: Vec<Attachment>, now: Timestamp) -> Self {
        self.with_state(if attachments.is_empty() { VolumeState::Available { since: now } } else { VolumeState::InUse { attachments } })
    }
}

/// Deletes a volume.
///
/// One that is being deleted is left as it is. Errors: `InvalidVolume.NotFound` (deleted), `VolumeInUse`,
/// `IncorrectState` (creating).
pub fn delete(it: &Volume, now: Timestamp) -> Result<Decision<Volume>, VolumeError> {
    match &it.state {
        VolumeState::Available { .. } | VolumeState::Error { .. } => {
            Ok(Decision::Change(it.with_state(VolumeState::Deleting { since: now })))
        }
        VolumeState::Deleting { .. } => Ok(Decision::Unchanged),
        VolumeState::Deleted { .. } => Err(VolumeError::NotFound { id: it.id }),
        VolumeState::Creating { .. } => Err(VolumeError::State { id: it.id, state: it.state.as_str(), wanted: "available" }),
        VolumeState::InUse { attachments } => {
            let instances = attachments.iter().map(|attachment| attachment.instance_id.to_string()).collect::<Vec<_>>();
            Err(VolumeError::InUse { id: it.id, instances: instances.join(", ") })
        }
    }
}

/// What time alone has changed.
pub fn settle(it: &Volume, now: Timestamp) -> Decision<Volume> {
    match &it.state {
        VolumeState::Creating { since } if now >= *since + CREATING_FOR => {
            Decision::Change(it.with_state(VolumeState::Available { since: now }))
        }
        VolumeState::Deleting { since } if now >= *since + DELETING_FOR => {
            Decision::Change(it.with_state(VolumeState::Deleted { since: now }))
        }
        VolumeState::Deleted { since } if now >= *since + DELETED_KEPT => Decision::Remove,
        VolumeState::InUse { attachments } => {
            let next: Vec<Attachment> = attachments.iter().map(|attachment| busy(attachment, now)).collect();
            if next == *attachments {
                Decision::Unchanged
            } else {
                Decision::Change(it.with_state(VolumeState::InUse { attachments: next }))
            }
        }
        VolumeState::Creating { .. }
        | VolumeState::Available { .. }
        | VolumeState::Deleting { .. }
        | VolumeState::Deleted { .. }
        | VolumeState::Error { .. } => Decision::Unchanged,
    }
}

fn busy(attachment: &Attachment, now: Timestamp) -> Attachment {
    let state = match attachment.state {
        AttachmentState::Detaching { since } if now >= since + BUSY_AFTER => AttachmentState::Busy { since: now },
        state @ (AttachmentState::Attaching { .. }
        | AttachmentState::Attached
        | AttachmentState::Detaching { .. }
        | AttachmentState::Busy { .. }) => state,
    };
    Attachment { state, ..attachment.clone() }
}

/// When [`settle`] will next change something; none if time alone never will.
pub fn due(it: &Volume) -> Option<Timestamp> {
    match &it.state {
        VolumeState::Creating { since } => Some(*since + CREATING_FOR),
        VolumeState::Deleting { since } => Some(*since + DELETING_FOR),
        VolumeState::Deleted { since } => Some(*since + DELETED_KEPT),
        VolumeState::InUse { attachments } => attachments.iter().filter_map(busy_at).min(),
        VolumeState::Available { .. } | VolumeState::Error { .. } => None,
    }
}

fn busy_at(attachment: &Attachment) -> Option<Timestamp> {
    match attachment.state {
        AttachmentState::Detaching { since } => Some(since + BUSY_AFTER),
        AttachmentState::Attaching { .. } | AttachmentState::Attached | AttachmentState::Busy { .. } => None,
    }
}

/// Why a call on a volume was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    #[error("the volume '{id}' does not exist")]
    NotFound { id: VolumeId },
    #[error("the volume '{id}' is currently attached to {instances}; detach it first")]
    InUse { id: VolumeId, instances: String },
    #[error("the volume '{id}' is {state}, and not '{wanted}'")]
    State { id: VolumeId, state: &'static str, wanted: &'static str },
    #[error("the instance '{instance}' is {state}, and volumes come and go only while it is running or stopped")]
    InstanceState { instance: InstanceId, state: StateName },
    #[error("the volume '{id}' is not in the same availability zone as the instance '{instance}': {volume_zone} and {instance_zone}")]
    Zone { id: VolumeId, instance: InstanceId, volume_zone: String, instance_zone: String },
    #[error("value ({device}) for parameter device is invalid: it is not a valid EBS device name, such as /dev/sdf")]
    DeviceName { device: String },
    #[error("invalid value '{device}' for unixDevice: the attachment point {device} of '{instance}' is already in use")]
    DeviceTaken { device: String, instance: InstanceId },
    #[error("the instance '{instance}' has {} volumes, which is the limit; detach one first", attach::MAX_VOLUMES)]
    TooManyVolumes { instance: InstanceId },
    #[error("the volume '{id}' is attached to {} instances, which is the limit", attach::MAX_INSTANCES)]
    TooManyInstances { id: VolumeId },
    #[error("the volume '{id}' is not attached to the instance '{instance}'")]
    NotAttached { id: VolumeId, instance: InstanceId },
    #[error("the volume '{id}' is not attached to the instance '{instance}' as device '{device}'")]
    NotAttachedThere { id: VolumeId, instance: InstanceId, device: String },
    #[error("the volume '{id}' is attached to several instances; say from which it is to be detached")]
    WhichInstance { id: VolumeId },
    #[error("unable to detach the root volume '{id}' from the instance '{instance}'; stop the instance first")]
    Root { id: VolumeId, instance: InstanceId },
}

impl From<VolumeError> for Refusal {
    fn from(error: VolumeError) -> Self {
        let text = error.to_string();
        match error {
            VolumeError::NotFound { .. } => Self::new(RefusalKind::NotFound, "InvalidVolume.NotFound", text).of_field("volume_id"),
            VolumeError::InUse { .. } => Self::wrong_state("VolumeInUse", text).of_field("volume_id"),
            VolumeError::State { .. } | VolumeError::InstanceState { .. } => Self::wrong_state("IncorrectState", text),
            VolumeError::Zone { .. } => Self::invalid_as("InvalidVolume.ZoneMismatch", "volume_id", text),
            VolumeError::DeviceName { .. } | VolumeError::DeviceTaken { .. } => Self::invalid("device", text),
            VolumeError::TooManyVolumes { .. } | VolumeError::TooManyInstances { .. } => {
                Self::new(RefusalKind::Exhausted, "AttachmentLimitExceeded", text)
            }
            VolumeError::NotAttached { .. } | VolumeError::NotAttachedThere { .. } => {
                Self::new(RefusalKind::NotFound, "InvalidAttachment.NotFound", text)
            }
            VolumeError::WhichInstance { .. } => Self::invalid_as("MissingParameter", "instance_id", text),
            VolumeError::Root { .. } => Self::wrong_state("OperationNotPermitted", text).of_field("volume_id"),
        }
    }
}

/// One refusal of what is invalid and of what does not exist or is in a wrong state: the second keeps its own
/// code and kind only where nothing is invalid.
pub(crate) fn with_missing(invalid: Result<(), Refusal>, missing: Vec<(String, Refusal)>) -> Result<(), Refusal> {
    let missing = missing.into_iter().map(|(field, refusal)| refusal.of_field(field));
    invalid.err().into_iter().chain(missing).reduce(Refusal::and).map_or(Ok(()), Err)
}
