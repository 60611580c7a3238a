//! Snapshots as users see them.

use gureum_compute_domain::snapshot::{Snapshot, SnapshotState};
use gureum_model::Timestamp;
use gureum_proto::compute::v1 as proto;
use gureum_service::wire;

/// `it` as [`Snapshot::seen_by`] shows it to the caller.
pub fn shown(it: &Snapshot, now: Timestamp) -> proto::Snapshot {
    proto::Snapshot {
        snapshot_id: it.id.to_string(),
        owner_id: it.scope.account.to_string(),
        volume_id: it.volume_id.to_string(),
        volume_size_gib: i32::try_from(it.volume_size_gib).unwrap_or(i32::MAX),
        state: match it.state {
            SnapshotState::Pending { .. } => proto::SnapshotState::Pending,
            SnapshotState::Completed { .. } => proto::SnapshotState::Completed,
            SnapshotState::Error { .. } => proto::SnapshotState::Error,
        }
        .into(),
        state_message: match &it.state {
            SnapshotState::Error { reason, .. } => reason.clone(),
            SnapshotState::Pending { .. } | SnapshotState::Completed { .. } => String::new(),
        },
        progress: format!("{}%", it.progress_percent(now)),
        start_time: Some(wire::timestamp(it.start_time)),
        completion_time: it.completion_time().map(wire::timestamp),
        description: it.description.clone(),
        encrypted: it.encrypted,
        kms_key_id: it.kms_key_id.clone().unwrap_or_default(),
        owner_alias: it.owner_alias().unwrap_or_default().to_owned(),
        tags: wire::tags(&it.tags),
    }
}
