//! Attaching and detaching, and what an instance's end does to its volumes.
//!
//! The instance's record says which volumes it is to have, and its node follows that record; the volume's says how
//! far that is. A call changes both in one commit. Nobody has to follow for a stopped instance, nor for a forced
//! detachment.

use gureum_model::{
    Timestamp,
    id::{InstanceId, VolumeId},
};

use super::{Attachment, AttachmentState, Decision, Volume, VolumeError, VolumeState};
use crate::{
    block_device::is_device_name,
    instance::{AttachedVolume, Instance, StateName},
    modify,
};

/// Volumes of one instance at most: what a node takes, and about what EC2's hypervisors do.
pub const MAX_VOLUMES: usize = 40;
/// Instances that share a volume at most, as AWS limits multi-attach.
pub const MAX_INSTANCES: usize = 16;

/// Both records after a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Moved {
    pub volume: Volume,
    pub instance: Instance,
    /// The attachment as the answer shows it; none if it is gone already.
    pub attachment: Option<Attachment>,
}

/// Attaches a volume.
///
/// Errors: `InvalidVolume.NotFound`, `VolumeInUse`, `IncorrectState` (of volume or instance),
/// `InvalidVolume.ZoneMismatch`, `InvalidParameterValue` (device), `AttachmentLimitExceeded`.
pub fn attach(volume: &Volume, instance: &Instance, device: &str, now: Timestamp) -> Result<Moved, VolumeError> {
    let mut attachments = attachable(volume, instance)?;
    let running = instance_at_rest(instance)?;
    if volume.zone != instance.zone {
        return Err(VolumeError::Zone {
            id: volume.id,
            instance: instance.id,
            volume_zone: volume.availability_zone(),
            instance_zone: instance.availability_zone(),
        });
    }
    if !is_device_name(device) {
        return Err(VolumeError::DeviceName { device: device.to_owned() });
    }
    if instance.volumes.iter().any(|other| other.device_name == device) {
        return Err(VolumeError::DeviceTaken { device: device.to_owned(), instance: instance.id });
    }
    if instance.volumes.len() >= MAX_VOLUMES {
        return Err(VolumeError::TooManyVolumes { instance: instance.id });
    }
    let attachment = Attachment {
        instance_id: instance.id,
        device: device.to_owned(),
        attach_time: now,
        // AWS: a volume that is attached later stays when its instance goes.
        delete_on_termination: false,
        state: if running { AttachmentState::Attaching { since: now } } else { AttachmentState::Attached },
    };
    let mut volumes = instance.volumes.clone();
    let seen = AttachedVolume { device_name: device.to_owned(), volume_id: volume.id, attach_time: now, delete_on_termination: false };
    if device == instance.root_device_name {
        volumes.insert(0, seen)
    } else {
        volumes.push(seen)
    }
    attachments.push(attachment.clone());
    Ok(Moved {
        volume: volume.with_attachments(attachments, now),
        instance: modify::volumes(instance, volumes, pulled(instance, volume.id, false)).after(instance).clone(),
        attachment: Some(attachment),
    })
}

/// The attachments to which one more can be added.
fn attachable(volume: &Volume, instance: &Instance) -> Result<Vec<Attachment>, VolumeError> {
    let id = volume.id;
    match &volume.state {
        VolumeState::Available { .. } => Ok(Vec::new()),
        VolumeState::InUse { attachments } => {
            let own = attachments.iter().any(|attachment| attachment.instance_id == instance.id);
            if own || !volume.multi_attach {
                let instances = attachments.iter().map(|attachment| attachment.instance_id.to_string()).collect::<Vec<_>>();
                return Err(VolumeError::InUse { id, instances: instances.join(", ") });
            }
            if attachments.len() >= MAX_INSTANCES { Err(VolumeError::TooManyInstances { id }) } else { Ok(attachments.clone()) }
        }
        VolumeState::Deleted { .. } => Err(VolumeError::NotFound { id }),
        VolumeState::Creating { .. } | VolumeState::Deleting { .. } | VolumeState::Error { .. } => {
            Err(VolumeError::State { id, state: volume.state.as_str(), wanted: "available" })
        }
    }
}

/// Whether it runs; refused where volumes cannot come and go.
fn instance_at_rest(instance: &Instance) -> Result<bool, VolumeError> {
    let state = instance.state.name();
    match state {
        StateName::Running => Ok(true),
        StateName::Stopped => Ok(false),
        StateName::Pending | StateName::Stopping | StateName::ShuttingDown | StateName::Terminated => {
            Err(VolumeError::InstanceState { instance: instance.id, state })
        }
    }
}

/// The instance that a detachment means: the one named, or the only one there is.
pub fn instance_to_detach(volume: &Volume, named: Option<InstanceId>) -> Result<InstanceId, VolumeError> {
    let id = volume.id;
    match (&volume.state, named) {
        (VolumeState::Deleted { .. }, _) => Err(VolumeError::NotFound { id }),
        (VolumeState::InUse { attachments }, None) => match attachments.as_slice() {
            [only] => Ok(only.instance_id),
            _ => Err(VolumeError::WhichInstance { id }),
        },
        (VolumeState::InUse { .. }, Some(instance)) => {
            volume.attachment(instance).map(|attachment| attachment.instance_id).ok_or(VolumeError::NotAttached { id, instance })
        }
        (VolumeState::Creating { .. } | VolumeState::Available { .. } | VolumeState::Deleting { .. } | VolumeState::Error { .. }, _) => {
            Err(VolumeError::State { id, state: volume.state.as_str(), wanted: "in-use" })
        }
    }
}

/// Detaches a volume from `instance`, which [`instance_to_detach`] named. `device` is empty or must be right.
///
/// A forced detachment does not wait for the node. One that is under way is refused unless it is forced.
/// Errors: `InvalidAttachment.NotFound`, `IncorrectState`, `OperationNotPermitted` (the root of an instance that is
/// not stopped).
pub fn detach(volume: &Volume, instance: &Instance, device: &str, force: bool, now: Timestamp) -> Result<Moved, VolumeError> {
    let id = volume.id;
    let attachment = volume.attachment(instance.id).ok_or(VolumeError::NotAttached { id, instance: instance.id })?;
    if !device.is_empty() && device != attachment.device {
        return Err(VolumeError::NotAttachedThere { id, instance: instance.id, device: device.to_owned() });
    }
    let state = instance.state.name();
    if attachment.device == instance.root_device_name && state != StateName::Stopped {
        return Err(VolumeError::Root { id, instance: instance.id });
    }
    let under_way = match attachment.state {
        AttachmentState::Attaching { .. } | AttachmentState::Attached => false,
        AttachmentState::Detaching { .. } | AttachmentState::Busy { .. } => true,
    };
    if under_way && !force {
        return Err(VolumeError::State { id, state: attachment.state.as_str(), wanted: "attached" });
    }
    let waits = match state {
        StateName::Running | StateName::Pending | StateName::Stopping => !force,
        StateName::Stopped => false,
        StateName::ShuttingDown | StateName::Terminated => return Err(VolumeError::InstanceState { instance: instance.id, state }),
    };
    let left = instance.volumes.iter().filter(|other| other.volume_id != id).cloned().collect();
    let (next, attachment) = if waits {
        let detaching = Attachment { state: AttachmentState::Detaching { since: now }, ..attachment.clone() };
        (replaced(volume, detaching.clone()), Some(detaching))
    } else {
        (without(volume, instance.id, now), None)
    };
    let pulled = pulled(instance, id, force && state == StateName::Running);
    let instance = modify::volumes(instance, left, pulled).after(instance).clone();
    Ok(Moved { volume: next, instance, attachment })
}

/// The volumes that an instance's node lets go of whatever uses them: the last so many, for one of before is gone long since.
fn pulled(instance: &Instance, id: VolumeId, by_force: bool) -> Vec<VolumeId> {
    let others = instance.pulled_volumes.iter().copied().filter(|other| *other != id);
    let mut pulled: Vec<VolumeId> = others.chain(by_force.then_some(id)).collect();
    pulled.drain(..pulled.len().saturating_sub(MAX_VOLUMES));
    pulled
}

/// The node has taken the volume.
pub fn attached(volume: &Volume, instance: InstanceId) -> Decision<Volume> {
    match volume.attachment(instance) {
        Some(attachment) if matches!(attachment.state, AttachmentState::Attaching { .. }) => {
            Decision::Change(replaced(volume, Attachment { state: AttachmentState::Attached, ..attachment.clone() }))
        }
        Some(_) | None => Decision::Unchanged,
    }
}

/// The node has let go of a volume that was to be detached; also when its instance has stopped meanwhile.
pub fn detached(volume: &Volume, instance: InstanceId, now: Timestamp) -> Decision<Volume> {
    match volume.attachment(instance).map(|attachment| attachment.state) {
        Some(AttachmentState::Detaching { .. } | AttachmentState::Busy { .. }) => Decision::Change(without(volume, instance, now)),
        Some(AttachmentState::Attaching { .. } | AttachmentState::Attached) | None => Decision::Unchanged,
    }
}

/// The instance is terminated: a volume that goes with it is deleted, others are available again.
///
/// A volume that another instance has too stays with that one.
pub fn terminated(volume: &Volume, instance: InstanceId, now: Timestamp) -> Decision<Volume> {
    match volume.attachment(instance) {
        None => Decision::Unchanged,
        Some(attachment) if attachment.delete_on_termination && volume.attachments().len() == 1 => {
            Decision::Change(volume.with_state(VolumeState::Deleted { since: now }))
        }
        Some(_) => Decision::Change(without(volume, instance, now)),
    }
}

/// ModifyInstanceAttribute changed whether the volume goes with the instance.
pub fn set_delete_on_termination(volume: &Volume, instance: InstanceId, goes: bool) -> Decision<Volume> {
    match volume.attachment(instance) {
        Some(attachment) if attachment.delete_on_termination != goes => {
            Decision::Change(replaced(volume, Attachment { delete_on_termination: goes, ..attachment.clone() }))
        }
        Some(_) | None => Decision::Unchanged,
    }
}

fn replaced(volume: &Volume, changed: Attachment) -> Volume {
    let other = |attachment: &Attachment| if attachment.instance_id == changed.instance_id { changed.clone() } else { attachment.clone() };
    volume.with_state(VolumeState::InUse { attachments: volume.attachments().iter().map(other).collect() })
}

fn without(volume: &Volume, instance: InstanceId, now: Timestamp) -> Volume {
    let left = volume.attachments().iter().filter(|attachment| attachment.instance_id != instance).cloned().collect();
    volume.with_attachments(left, now)
}
