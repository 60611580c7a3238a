//! Volumes: made, attached, detached and deleted.

use std::sync::Arc;

use gureum_compute_domain::volume::{
    Decision, Volume, VolumeError,
    attach::{Moved, attach, detach, instance_to_detach},
    create::{NewVolume, create},
    delete,
};
use gureum_model::{
    Filters, PageRequest, Refusal, Scope, Tags,
    id::{InstanceId, VolumeId},
    refusal::Violations,
};
use gureum_proto::compute::v1 as proto;
use gureum_service::{Answer, Error, mutate::mutate, scope, wire};
use gureum_store::{Listed, list};

use super::instances;
use crate::{
    catalog::Snapshots,
    convert::volume::{attachment, detached, read_type, shown},
    core::Core,
    store::{Schema, VolumeRow, decide_volume, left_by, put_instance, put_volume, work_for_deleted_volume, work_for_new_volume},
};

/// One page of the caller's volumes.
pub async fn describe_volumes(core: &Arc<Core>, request: proto::DescribeVolumesRequest) -> Result<proto::DescribeVolumesResponse, Error> {
    let (scope, state) = (scope(), core.read());
    let mut violations = Violations::new();
    let ids: Vec<VolumeId> = violations.ids("volume_ids", &request.volume_ids);
    let filters = violations.check("", Filters::for_kind::<Volume>(wire::filters(request.filters))).unwrap_or_default();
    violations.finish()?;
    if !ids.is_empty() {
        let named = ids
            .iter()
            .enumerate()
            .map(|(place, id)| get(&state, &scope, *id).map_err(|refusal| refusal.of_field(format!("volume_ids[{place}]"))));
        let mut named: Vec<&Volume> = Refusal::all(named)?;
        named.sort_unstable_by_key(|it| it.id);
        named.dedup_by_key(|it| it.id);
        let volumes = named.into_iter().filter(|it| filters.pass(*it)).map(shown).collect();
        return Ok(proto::DescribeVolumesResponse { volumes, next_page_token: String::new() });
    }
    let page = PageRequest::new(request.page_size, &request.page_token, &("volumes", &scope, &filters))?;
    let (rows, next_page_token) = list(&state.volumes, &scope, &filters, &page);
    let volumes = rows.iter().filter(|row| row.visible()).map(|row| shown(row)).collect();
    Ok(proto::DescribeVolumesResponse { volumes, next_page_token })
}

/// A volume that users still see. Errors: `InvalidVolume.NotFound`.
pub fn get<'a>(tables: &'a Schema, scope: &Scope, id: VolumeId) -> Result<&'a Volume, Refusal> {
    let row = tables.volumes.get(&VolumeRow::list_key(scope, id)).filter(|row| row.visible());
    Ok(row.map(|row| &row.record.0).ok_or(VolumeError::NotFound { id })?)
}

/// Makes a volume, empty or of a snapshot.
pub async fn create_volume(core: &Arc<Core>, request: proto::CreateVolumeRequest) -> Result<proto::CreateVolumeResponse, Error> {
    let (scope, id) = (scope(), core.ids.next::<VolumeId>());
    let tags = Tags::from_user("tags", wire::tag_pairs(request.tags.clone()));
    let new = NewVolume {
        availability_zone: request.availability_zone.clone(),
        size_gib: request.size_gib,
        snapshot_id: request.snapshot_id.clone(),
        volume_type: read_type(request.volume_type()),
        iops: request.iops,
        throughput_mibps: request.throughput_mibps,
        encrypted: request.encrypted,
        kms_key_id: request.kms_key_id.clone(),
        multi_attach: request.multi_attach_enabled,
        tags: tags.clone().unwrap_or_default(),
    };
    let caller = scope.clone();
    let created = mutate(&core.store, &caller, &request, move |tx| {
        let made = {
            // A malformed id is refused with the rest.
            let snapshots = Snapshots::named(tx, &scope, new.snapshot_id.parse().ok());
            create(&new, &scope, |id| snapshots.find(id), id, tx.now())
        };
        let (volume, _) = Refusal::both(made, tags)?;
        let answer = proto::CreateVolumeResponse { volume: Some(shown(&volume)) };
        work_for_new_volume(tx, &volume);
        put_volume(tx, "VolumeCreated", volume);
        Ok(Answer::created::<VolumeRow>(answer, VolumeRow::list_key(&scope, id)))
    });
    created.await
}

/// Attaches a volume to an instance of its zone.
pub async fn attach_volume(core: &Arc<Core>, request: proto::AttachVolumeRequest) -> Result<proto::AttachVolumeResponse, Error> {
    let (scope, places) = (scope(), core.places.clone());
    let (volume_id, instance_id) = Refusal::both(
        Refusal::parse_id::<VolumeId>("volume_id", &request.volume_id),
        Refusal::parse_id::<InstanceId>("instance_id", &request.instance_id),
    )?;
    let (caller, device, dry_run) = (scope.clone(), request.device.clone(), request.dry_run);
    let attached = mutate(&core.store, &caller, &request, move |tx| {
        let now = tx.now();
        let (volume, instance) = Refusal::both(get(tx, &scope, volume_id), instances::get(tx, &scope, instance_id, now))?;
        let moved = attach(volume, instance, &device, now)?;
        let answer = proto::AttachVolumeResponse { attachment: moved.attachment.as_ref().map(|held| attachment(&moved.volume, held)) };
        if !dry_run {
            put_volume(tx, "VolumeStateChanged", moved.volume);
            put_instance(tx, &places, moved.instance, "");
        }
        Ok(answer)
    });
    attached.await
}

/// Detaches a volume.
pub async fn detach_volume(core: &Arc<Core>, request: proto::DetachVolumeRequest) -> Result<proto::DetachVolumeResponse, Error> {
    let (scope, places) = (scope(), core.places.clone());
    let mut violations = Violations::new();
    let volume_id = violations.id::<VolumeId>("volume_id", &request.volume_id);
    let named = violations.optional_id::<InstanceId>("instance_id", &request.instance_id);
    violations.finish()?;
    let volume_id = volume_id.ok_or_else(|| Refusal::missing("volume_id"))?;
    let (caller, device, force) = (scope.clone(), request.device.clone(), request.force);
    let dry_run = request.dry_run;
    let detached_volume = mutate(&core.store, &caller, &request, move |tx| {
        let now = tx.now();
        let volume = get(tx, &scope, volume_id)?.clone();
        let instance = instances::get(tx, &scope, instance_to_detach(&volume, named)?, now)?;
        let Moved { volume: next, instance: without, attachment: left } = detach(&volume, instance, &device, force, now)?;
        let shown = match (&left, volume.attachment(instance.id)) {
            (Some(held), _) => Some(attachment(&next, held)),
            (None, before) => before.map(|held| detached(&next, held)),
        };
        if !dry_run {
            let next = left_by(tx, next, &without);
            put_volume(tx, "VolumeStateChanged", next);
            put_instance(tx, &places, without, "");
        }
        Ok(proto::DetachVolumeResponse { attachment: shown })
    });
    detached_volume.await
}

/// Deletes a volume that nobody has.
pub async fn delete_volume(core: &Arc<Core>, request: proto::DeleteVolumeRequest) -> Result<proto::DeleteVolumeResponse, Error> {
    let scope = scope();
    let id: VolumeId = Refusal::parse_id("volume_id", &request.volume_id)?;
    let caller = scope.clone();
    let deleted = mutate::<_, _, _, proto::DeleteVolumeResponse, _>(&core.store, &caller, &request, move |tx| {
        let volume = get(tx, &scope, id)?.clone();
        let decision = delete(&volume, tx.now())?;
        if let Decision::Change(_) = decision {
            work_for_deleted_volume(tx, &volume);
        }
        decide_volume(tx, "VolumeStateChanged", &volume, decision);
        Ok(proto::DeleteVolumeResponse {})
    });
    deleted.await
}
