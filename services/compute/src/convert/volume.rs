//! Volumes as users see them.

use gureum_compute_domain::volume::{Attachment, AttachmentState, Volume, VolumeState, VolumeType};
use gureum_proto::compute::v1 as proto;
use gureum_service::wire;

use super::launch_spec::{read_volume_type, volume_type};

pub fn shown(it: &Volume) -> proto::Volume {
    proto::Volume {
        volume_id: it.id.to_string(),
        owner_id: it.scope.account.to_string(),
        state: match it.state {
            VolumeState::Creating { .. } => proto::VolumeState::Creating,
            VolumeState::Available { .. } => proto::VolumeState::Available,
            VolumeState::InUse { .. } => proto::VolumeState::InUse,
            VolumeState::Deleting { .. } => proto::VolumeState::Deleting,
            VolumeState::Deleted { .. } => proto::VolumeState::Deleted,
            VolumeState::Error { .. } => proto::VolumeState::Error,
        }
        .into(),
        state_message: match &it.state {
            VolumeState::Error { reason, .. } => reason.clone(),
            VolumeState::Creating { .. }
            | VolumeState::Available { .. }
            | VolumeState::InUse { .. }
            | VolumeState::Deleting { .. }
            | VolumeState::Deleted { .. } => String::new(),
        },
        size_gib: int(it.size_gib),
        volume_type: read_volume_type(it.volume_type.as_str()).into(),
        iops: it.iops.map(int).unwrap_or_default(),
        throughput_mibps: it.throughput_mibps.map(int).unwrap_or_default(),
        availability_zone: it.availability_zone(),
        snapshot_id: it.snapshot_id.map(|id| id.to_string()).unwrap_or_default(),
        create_time: Some(wire::timestamp(it.create_time)),
        encrypted: it.encrypted,
        kms_key_id: it.kms_key_id.clone().unwrap_or_default(),
        multi_attach_enabled: it.multi_attach,
        attachments: it.attachments().iter().map(|held| attachment(it, held)).collect(),
        tags: wire::tags(&it.tags),
    }
}

pub fn attachment(it: &Volume, held: &Attachment) -> proto::VolumeAttachment {
    proto::VolumeAttachment {
        volume_id: it.id.to_string(),
        instance_id: held.instance_id.to_string(),
        device: held.device.clone(),
        state: match held.state {
            AttachmentState::Attaching { .. } => proto::VolumeAttachmentState::Attaching,
            AttachmentState::Attached => proto::VolumeAttachmentState::Attached,
            AttachmentState::Detaching { .. } => proto::VolumeAttachmentState::Detaching,
            AttachmentState::Busy { .. } => proto::VolumeAttachmentState::Busy,
        }
        .into(),
        attach_time: Some(wire::timestamp(held.attach_time)),
        delete_on_termination: held.delete_on_termination,
    }
}

/// An attachment that there is no more, as it was.
pub fn detached(it: &Volume, held: &Attachment) -> proto::VolumeAttachment {
    proto::VolumeAttachment { state: proto::VolumeAttachmentState::Detached.into(), ..attachment(it, held) }
}

/// EC2's kind of disk; none where it is not said.
pub fn read_type(kind: proto::VolumeType) -> Option<VolumeType> {
    volume_type(kind).and_then(|word| word.parse().ok())
}

/// Sizes and rates have limits far below.
fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
