//! Snapshots that are brought in from outside: StartSnapshot, PutSnapshotBlock, CompleteSnapshot.
//!
//! A snapshot that is begun has work on a node that waits for its blocks, and becomes the work of reading them.

use std::time::Duration;

use gureum_model::{
    Refusal, RefusalKind, Scope, Tags, Timestamp,
    id::{NodeId, ResourceId, SnapshotId, VolumeId},
};

use crate::{
    disk_work::{DiskWork, Task},
    image::Permissions,
    snapshot::{Snapshot, SnapshotError, SnapshotState},
};

/// Blocks are waited for so long, and then what has come is removed.
pub const RECEIVED_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// What StartSnapshot says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NewUpload {
    pub size_gib: u32,
    pub description: String,
    pub tags: Tags,
}

/// Begins a snapshot whose blocks come to this node, and the work that waits for them. `node` is none where no node keeps
/// files.
///
/// Errors: `UnsupportedOperation`.
pub fn start(
    new: NewUpload,
    scope: &Scope,
    node: Option<NodeId>,
    id: SnapshotId,
    now: Timestamp,
) -> Result<(Snapshot, DiskWork), UploadError> {
    let node = node.ok_or(UploadError::NoFiles)?;
    let snapshot = Snapshot {
        scope: scope.clone(),
        id,
        // As EC2 has it: no volume.
        volume_id: VolumeId::from_number(u128::MAX),
        volume_size_gib: new.size_gib,
        description: new.description,
        encrypted: false,
        kms_key_id: None,
        start_time: now,
        state: SnapshotState::Pending { until: now },
        permissions: Permissions::default(),
        product_codes: Vec::new(),
        node: None,
        shipped: false,
        tags: new.tags,
    };
    let task = Task::ReceiveSnapshot { snapshot: id, until: now + RECEIVED_WITHIN };
    Ok((snapshot, DiskWork { scope: scope.clone(), task, node: Some(node) }))
}

/// The node to which the blocks of a snapshot go.
///
/// Errors: `InvalidSnapshot.NotFound`, `IncorrectState` (it is not one that is being brought in).
pub fn receiver(id: SnapshotId, snapshot: Option<&Snapshot>, work: Option<&DiskWork>) -> Result<NodeId, UploadError> {
    let snapshot = snapshot.ok_or(UploadError::Snapshot(SnapshotError::NotFound { id }))?;
    let receives = work.filter(|work| matches!(work.task, Task::ReceiveSnapshot { .. }));
    receives.and_then(|work| work.node).ok_or(UploadError::NotReceived { id, state: snapshot.state.as_str() })
}

/// The work once all blocks are there. Errors: as those of [`receiver`].
pub fn complete(
    id: SnapshotId,
    snapshot: Option<&Snapshot>,
    work: Option<&DiskWork>,
    blocks: u32,
    checksum: &[u8],
) -> Result<DiskWork, UploadError> {
    let node = receiver(id, snapshot, work)?;
    let snapshot = snapshot.ok_or(UploadError::Snapshot(SnapshotError::NotFound { id }))?;
    let checksum = checksum.iter().map(|byte| format!("{byte:02x}")).collect();
    let task = Task::ReadSnapshot { snapshot: id, blocks, checksum, size_gib: snapshot.volume_size_gib };
    Ok(DiskWork { scope: snapshot.scope.clone(), task, node: Some(node) })
}

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    #[error("no node of this region keeps files; start it with `gureum up --driver process`")]
    NoFiles,
    #[error(transparent)]
    Snapshot(SnapshotError),
    #[error("the snapshot '{id}' is {state} and takes no blocks: only one that StartSnapshot began does, until it is completed")]
    NotReceived { id: SnapshotId, state: &'static str },
}

impl From<UploadError> for Refusal {
    fn from(error: UploadError) -> Self {
        let text = error.to_string();
        match error {
            UploadError::NoFiles => Self::new(RefusalKind::Unsupported, "UnsupportedOperation", text),
            UploadError::Snapshot(error) => error.into(),
            UploadError::NotReceived { .. } => Self::wrong_state("IncorrectState", text).of_field("snapshot_id"),
        }
    }
}
