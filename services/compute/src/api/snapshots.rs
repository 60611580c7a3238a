//! Snapshots of volumes: taken, listed, shared and deleted.

use std::sync::Arc;

use gureum_compute_domain::{
    image::{permission::Change, shipped},
    snapshot::{self, Snapshot, SnapshotAt, SnapshotError, SnapshotQuery},
};
use gureum_model::{
    Filters, PageRequest, Refusal, Scope, Tags,
    id::{ImageId, SnapshotId, VolumeId},
    refusal::Violations,
};
use gureum_proto::compute::v1 as proto;
use gureum_service::{Answer, Error, mutate::mutate, scope, wire};

use super::volumes;
use crate::{
    catalog::Snapshots,
    convert::{permission, snapshot::shown},
    core::Core,
    store::{
        SNAPSHOT_INDEX, Schema, SnapshotRow, Tx, VISIBLE_INDEX, decide_snapshot, put_snapshot, seen_by, seen_by_all,
        work_for_deleted_snapshot, work_for_new_snapshot,
    },
};

/// Every snapshot that the caller may see, in ascending order of the id.
pub async fn describe_snapshots(
    core: &Arc<Core>,
    request: proto::DescribeSnapshotsRequest,
) -> Result<proto::DescribeSnapshotsResponse, Error> {
    let (scope, state, now) = (scope(), core.read(), core.clock.now());
    let mut violations = Violations::new();
    let ids: Vec<SnapshotId> = violations.ids("snapshot_ids", &request.snapshot_ids);
    let query = violations.check("", SnapshotQuery::parse(&request.owner_ids, &request.restorable_by_user_ids)).unwrap_or_default();
    let filters = violations.check("", Filters::for_kind::<SnapshotAt<'_>>(wire::filters(request.filters))).unwrap_or_default();
    violations.finish()?;
    let page = PageRequest::new(request.page_size, &request.page_token, &("snapshots", &scope, &filters, &query, &ids))?;
    let ships = shipped::snapshots(&scope.region);
    let named = Snapshots::named(&state, &scope, ids.iter().copied());
    let candidates = if ids.is_empty() {
        visible(&state, &scope, &ships)
    } else {
        let find = |(place, id): (usize, &SnapshotId)| {
            let absent = || Refusal::from(SnapshotError::NotFound { id: *id }).of_field(format!("snapshot_ids[{place}]"));
            named.find(*id).ok_or_else(absent)
        };
        Refusal::all(ids.iter().enumerate().map(find))?
    };
    let admitted = |it: &&Snapshot| {
        let seen = it.seen_by(scope.account);
        query.admits(it, &scope) && filters.pass(&SnapshotAt { snapshot: seen.as_ref(), now })
    };
    let (found, next_page_token) = page.select(candidates.into_iter().filter(admitted), |it| it.id.to_string());
    let snapshots = found.into_iter().map(|it| shown(it.seen_by(scope.account).as_ref(), now)).collect();
    Ok(proto::DescribeSnapshotsResponse { snapshots, next_page_token })
}

/// One's own, those of others that one may use, and those that ship.
fn visible<'a>(tables: &'a Schema, scope: &Scope, ships: &'a [Snapshot]) -> Vec<&'a Snapshot> {
    let own = tables.snapshots.scan(&format!("{scope}/"), None);
    let public = tables.snapshots.find(VISIBLE_INDEX, &seen_by_all(&scope.region));
    let shared = tables.snapshots.find(VISIBLE_INDEX, &seen_by(scope));
    ships.iter().chain(own.chain(public).chain(shared).map(|row| &row.record.0)).collect()
}

/// Takes a snapshot of a volume.
pub async fn create_snapshot(core: &Arc<Core>, request: proto::CreateSnapshotRequest) -> Result<proto::CreateSnapshotResponse, Error> {
    let (scope, id) = (scope(), core.ids.next::<SnapshotId>());
    let tags = Tags::from_user("tags", wire::tag_pairs(request.tags.clone()));
    let (volume_id, tags) = Refusal::both(Refusal::parse_id::<VolumeId>("volume_id", &request.volume_id), tags)?;
    let (caller, description) = (scope.clone(), request.description.clone());
    let created = mutate(&core.store, &caller, &request, move |tx| {
        let now = tx.now();
        let taken = snapshot::create(volumes::get(tx, &scope, volume_id)?, &description, tags, id, now)?;
        let answer = proto::CreateSnapshotResponse { snapshot: Some(shown(&taken, now)) };
        work_for_new_snapshot(tx, &taken, None);
        put_snapshot(tx, "SnapshotCreated", taken);
        Ok(Answer::created::<SnapshotRow>(answer, SnapshotRow::key_of(&scope, id)))
    });
    created.await
}

/// Any snapshot that the caller sees: the decision says what he may do with it.
fn get(tables: &Schema, scope: &Scope, id: SnapshotId) -> Result<Snapshot, Refusal> {
    Ok(Snapshots::named(tables, scope, [id]).find(id).cloned().ok_or(SnapshotError::NotFound { id })?)
}

/// The images that need it.
fn used_by(tx: &Tx<'_>, id: SnapshotId) -> Vec<ImageId> {
    tx.images.find(SNAPSHOT_INDEX, &id.to_string()).map(|row| row.id).collect()
}

/// Deletes a snapshot that no image needs.
pub async fn delete_snapshot(core: &Arc<Core>, request: proto::DeleteSnapshotRequest) -> Result<proto::DeleteSnapshotResponse, Error> {
    let scope = scope();
    let id: SnapshotId = Refusal::parse_id("snapshot_id", &request.snapshot_id)?;
    let caller = scope.clone();
    let deleted = mutate(&core.store, &caller, &request, move |tx| {
        let it = get(tx, &scope, id)?;
        let decision = snapshot::delete(&it, &scope, &used_by(tx, id))?;
        work_for_deleted_snapshot(tx, &it);
        decide_snapshot(tx, "SnapshotChanged", &it, decision);
        Ok(proto::DeleteSnapshotResponse {})
    });
    deleted.await
}

/// Changes who may make volumes of a snapshot.
pub async fn modify_snapshot_attribute(
    core: &Arc<Core>,
    request: proto::ModifySnapshotAttributeRequest,
) -> Result<proto::ModifySnapshotAttributeResponse, Error> {
    let scope = scope();
    let change = Change::parse(
        &permission::read(request.add_create_volume_permissions.clone()),
        &permission::read(request.remove_create_volume_permissions.clone()),
        ["add_create_volume_permissions", "remove_create_volume_permissions"],
        "InvalidParameterValue",
    );
    let (id, change) = Refusal::both(Refusal::parse_id::<SnapshotId>("snapshot_id", &request.snapshot_id), change)?;
    let caller = scope.clone();
    let modified = mutate(&core.store, &caller, &request, move |tx| {
        let it = get(tx, &scope, id)?;
        let decision = snapshot::modify_permissions(&it, &scope, &change)?;
        let permissions = decision.clone().after(&it).map(|next| permission::shown(&next.permissions)).unwrap_or_default();
        decide_snapshot(tx, "SnapshotChanged", &it, decision);
        Ok(proto::ModifySnapshotAttributeResponse { create_volume_permissions: permissions })
    });
    modified.await
}
