//! Volumes and snapshots: work that is asked for until it is done.

use gureum_model::{
    Refusal,
    id::{ResourceId, SnapshotId, VolumeId},
    refusal::Violations,
};
use gureum_proto::node::v1 as proto;
use gureum_service::Error;

use crate::{
    driver::{DiskTask, Driver, DriverError, Part},
    snapshots::receive::Complete,
};

pub async fn create_volume(driver: &dyn Driver, request: proto::CreateVolumeRequest) -> Result<proto::CreateVolumeResponse, Error> {
    let (volume, snapshot): (VolumeId, SnapshotId) = both(("volume_id", &request.volume_id), ("snapshot_id", &request.snapshot_id))?;
    let task = DiskTask::CreateVolume { volume, snapshot, size_gib: request.size_gib };
    Ok(proto::CreateVolumeResponse { done: work(driver, task).await? })
}

pub async fn delete_volume(driver: &dyn Driver, request: proto::DeleteVolumeRequest) -> Result<proto::DeleteVolumeResponse, Error> {
    let id = Refusal::parse_id("volume_id", &request.volume_id)?;
    Ok(proto::DeleteVolumeResponse { done: work(driver, DiskTask::DeleteVolume(id)).await? })
}

pub async fn create_snapshot(driver: &dyn Driver, request: proto::CreateSnapshotRequest) -> Result<proto::CreateSnapshotResponse, Error> {
    let (snapshot, volume): (SnapshotId, VolumeId) = both(("snapshot_id", &request.snapshot_id), ("volume_id", &request.volume_id))?;
    let task = DiskTask::CreateSnapshot { snapshot, volume, may_be_unused: request.may_be_unused };
    Ok(proto::CreateSnapshotResponse { done: work(driver, task).await? })
}

pub async fn delete_snapshot(driver: &dyn Driver, request: proto::DeleteSnapshotRequest) -> Result<proto::DeleteSnapshotResponse, Error> {
    let id = Refusal::parse_id("snapshot_id", &request.snapshot_id)?;
    Ok(proto::DeleteSnapshotResponse { done: work(driver, DiskTask::DeleteSnapshot(id)).await? })
}

/// What is wrong with a block is what its sender sent.
pub async fn put_snapshot_block(
    driver: &dyn Driver,
    request: proto::PutSnapshotBlockRequest,
) -> Result<proto::PutSnapshotBlockResponse, Error> {
    let id = Refusal::parse_id("snapshot_id", &request.snapshot_id)?;
    let part = Part { index: request.block_index, bytes: request.block_data, checksum: request.checksum };
    driver.receive(id, part).await.map_err(|error| match error {
        DriverError::Refused(message) => Refusal::invalid("checksum", message).into(),
        DriverError::Unavailable(message) => Error::Internal(message),
    })?;
    Ok(proto::PutSnapshotBlockResponse {})
}

pub async fn complete_snapshot(
    driver: &dyn Driver,
    request: proto::CompleteSnapshotRequest,
) -> Result<proto::CompleteSnapshotResponse, Error> {
    let snapshot = Refusal::parse_id("snapshot_id", &request.snapshot_id)?;
    let archive = Complete { blocks: request.block_count, checksum: request.checksum, size_gib: request.size_gib };
    Ok(proto::CompleteSnapshotResponse { done: work(driver, DiskTask::ReadSnapshot { snapshot, archive }).await? })
}

fn both<A: ResourceId, B: ResourceId>(one: (&str, &str), other: (&str, &str)) -> Result<(A, B), Refusal> {
    let mut violations = Violations::new();
    let (a, b) = (violations.id(one.0, one.1), violations.id(other.0, other.1));
    violations.finish()?;
    a.zip(b).ok_or_else(|| Refusal::missing(one.0))
}

async fn work(driver: &dyn Driver, task: DiskTask) -> Result<bool, Error> {
    driver.work(task).await.map_err(|error| match error {
        DriverError::Refused(message) => Refusal::wrong_state("IncorrectState", message).into(),
        DriverError::Unavailable(message) => Error::Internal(message),
    })
}
