//! Snapshots that are brought in from outside.

use std::sync::Arc;

use gureum_compute_domain::{
    snapshot::Snapshot,
    upload::{NewUpload, complete, receiver, start},
};
use gureum_model::{Refusal, Scope, Tags, id::SnapshotId};
use gureum_proto::{compute::v1 as proto, node::v1 as node};
use gureum_service::{Answer, Error, mutate::mutate, scope, wire};

use crate::{
    convert::snapshot::shown,
    core::Core,
    store::{DiskWorkRow, Schema, SnapshotRow, keeper_of_files, put_snapshot},
};

/// Begins a snapshot that is brought in.
pub async fn start_snapshot(core: &Arc<Core>, request: proto::StartSnapshotRequest) -> Result<proto::StartSnapshotResponse, Error> {
    let (scope, id) = (scope(), core.ids.next::<SnapshotId>());
    let tags = Tags::from_user("tags", wire::tag_pairs(request.tags.clone()))?;
    let new =
        NewUpload { size_gib: u32::try_from(request.volume_size_gib).unwrap_or_default(), description: request.description.clone(), tags };
    let caller = scope.clone();
    let started = mutate(&core.store, &caller, &request, move |tx| {
        let now = tx.now();
        let (snapshot, work) = start(new, &scope, keeper_of_files(tx), id, now)?;
        let answer = proto::StartSnapshotResponse { snapshot: Some(shown(&snapshot, now)) };
        tx.put(DiskWorkRow(work));
        put_snapshot(tx, "SnapshotCreated", snapshot);
        Ok(Answer::created::<SnapshotRow>(answer, SnapshotRow::key_of(&scope, id)))
    });
    started.await
}

/// The caller's own.
fn own<'a>(tables: &'a Schema, scope: &Scope, id: SnapshotId) -> (Option<&'a Snapshot>, Option<&'a DiskWorkRow>) {
    let key = SnapshotRow::key_of(scope, id);
    (tables.snapshots.get(&key).map(|row| &row.record.0), tables.disk_work.get(&key).map(|row| &row.record))
}

/// Takes a part of one. It is on the node's disk before this answers.
pub async fn put_snapshot_block(
    core: &Arc<Core>,
    request: proto::PutSnapshotBlockRequest,
) -> Result<proto::PutSnapshotBlockResponse, Error> {
    let id: SnapshotId = Refusal::parse_id("snapshot_id", &request.snapshot_id)?;
    let to = {
        let state = core.read();
        let (snapshot, work) = own(&state, &scope(), id);
        receiver(id, snapshot, work.map(|row| &row.0)).map_err(Refusal::from)?
    };
    let away = || Refusal::new(gureum_model::RefusalKind::Unavailable, "ServiceUnavailable", format!("the node {to} is away; try again"));
    let (peer, mut client) = core.fleet.client(to).ok_or_else(away)?;
    let block = node::PutSnapshotBlockRequest {
        snapshot_id: request.snapshot_id,
        block_index: request.block_index,
        block_data: request.block_data,
        checksum: request.checksum,
    };
    client.put_snapshot_block(block).await.map_err(|status| peer.error(status))?;
    Ok(proto::PutSnapshotBlockResponse {})
}

/// Has one read whose parts are all there.
pub async fn complete_snapshot(
    core: &Arc<Core>,
    request: proto::CompleteSnapshotRequest,
) -> Result<proto::CompleteSnapshotResponse, Error> {
    let scope = scope();
    let id: SnapshotId = Refusal::parse_id("snapshot_id", &request.snapshot_id)?;
    let (caller, blocks, checksum, dry_run) = (scope.clone(), request.changed_blocks_count, request.checksum.clone(), request.dry_run);
    let completed = mutate(&core.store, &caller, &request, move |tx| {
        let (snapshot, work) = own(tx, &scope, id);
        let work = complete(id, snapshot, work.map(|row| &row.0), blocks, &checksum)?;
        let answer = snapshot.map(|snapshot| shown(snapshot, tx.now()));
        let changed = snapshot.cloned();
        if !dry_run && let Some(snapshot) = changed {
            tx.put(DiskWorkRow(work));
            // Whoever watches learns of it, and so does the loop.
            put_snapshot(tx, "SnapshotChanged", snapshot);
        }
        Ok(proto::CompleteSnapshotResponse { snapshot: answer })
    });
    completed.await
}
