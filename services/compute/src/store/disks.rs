//! How volumes and snapshots are written, and what the life of an instance does to its volumes.

use std::sync::Arc;

use gureum_compute_domain::{
    instance::{Instance, InstanceState},
    snapshot::Snapshot,
    volume::{self, Decision, Volume},
};
use gureum_proto::compute::v1 as proto;
use gureum_store::{Listed, Row};

use super::{ATTACHMENT_INDEX, ImageRow, SNAPSHOT_INDEX, Schema, SnapshotRow, Told, Tx, VolumeRow, emit, images::settle_image, left_by};
use crate::convert;

/// Writes a volume and tells of it.
pub fn put_volume(tx: &mut Tx<'_>, kind: &'static str, it: Volume) {
    let resource = proto::event::Resource::Volume(convert::volume::shown(&it));
    emit(tx, Told::new(kind), it.scope.clone(), it.id.to_string(), false, resource);
    tx.put(VolumeRow(it));
}

/// Volumes that were on their way to or from an instance have arrived, once its node has taken the
/// instance's record over, or it does not run.
pub fn settle_volumes(tx: &mut Tx<'_>, it: &Instance) {
    let settled = match it.state {
        InstanceState::Running { .. } => it.observed.generation == it.generation && it.observed.live_generation == it.generation,
        InstanceState::Stopped { .. } => true,
        InstanceState::Pending { .. } | InstanceState::Stopping { .. } => false,
        InstanceState::ShuttingDown { .. } | InstanceState::Terminated { .. } => false,
    };
    if !settled {
        return;
    }
    let now = tx.now();
    for row in volumes_of(tx, it) {
        let wanted = it.volumes.iter().any(|attached| attached.volume_id == row.id);
        let decision = if wanted { volume::attach::attached(&row, it.id) } else { volume::attach::detached(&row, it.id, now) };
        let decision = decision.map(|next| left_by(tx, next, it));
        decide_volume(tx, "VolumeStateChanged", &row, decision);
    }
}

/// The volumes' records say the same as the instance's of whether they go with it.
pub fn match_volumes(tx: &mut Tx<'_>, it: &Instance) {
    for row in volumes_of(tx, it) {
        let Some(attached) = it.volumes.iter().find(|attached| attached.volume_id == row.id) else { continue };
        let decision = volume::attach::set_delete_on_termination(&row, it.id, attached.delete_on_termination);
        decide_volume(tx, "VolumeChanged", &row, decision);
    }
}

/// What the end of an instance does to its volumes.
pub fn release_volumes(tx: &mut Tx<'_>, it: &Instance) {
    let now = tx.now();
    for row in volumes_of(tx, it) {
        let decision = volume::attach::terminated(&row, it.id, now).map(|next| left_by(tx, next, it));
        decide_volume(tx, "VolumeStateChanged", &row, decision);
    }
}

fn volumes_of(tables: &Schema, it: &Instance) -> Vec<Arc<Row<VolumeRow>>> {
    tables.volumes.find(ATTACHMENT_INDEX, &format!("{}/{}", it.scope, it.id)).cloned().collect()
}

/// Writes what a decision on a volume came to, if it changes it, and tells of it.
pub fn decide_volume(tx: &mut Tx<'_>, kind: &'static str, it: &Volume, decision: Decision<Volume>) {
    match decision {
        Decision::Unchanged => {}
        Decision::Change(next) => put_volume(tx, kind, next),
        Decision::Remove => remove_volume(tx, it),
    }
}

/// Removes a deleted volume's record and tells of it.
fn remove_volume(tx: &mut Tx<'_>, it: &Volume) {
    tx.delete::<VolumeRow>(&VolumeRow::list_key(&it.scope, it.id));
    let resource = proto::event::Resource::Volume(convert::volume::shown(it));
    emit(tx, Told::new("VolumeForgotten"), it.scope.clone(), it.id.to_string(), true, resource);
}

/// Writes a snapshot and tells of it.
pub fn put_snapshot(tx: &mut Tx<'_>, kind: &'static str, it: Snapshot) {
    let resource = proto::event::Resource::Snapshot(convert::snapshot::shown(&it, tx.now()));
    emit(tx, Told::new(kind), it.scope.clone(), it.id.to_string(), false, resource);
    tx.put(SnapshotRow(it));
}

/// Writes what a decision on a snapshot came to, if it changes it, tells of it, and settles the images that it is part of.
pub fn decide_snapshot(tx: &mut Tx<'_>, kind: &'static str, it: &Snapshot, decision: Decision<Snapshot>) {
    match decision {
        Decision::Unchanged => return,
        Decision::Change(next) => put_snapshot(tx, kind, next),
        Decision::Remove => {
            tx.delete::<SnapshotRow>(&SnapshotRow::key_of(&it.scope, it.id));
            let resource = proto::event::Resource::Snapshot(convert::snapshot::shown(it, tx.now()));
            emit(tx, Told::new("SnapshotDeleted"), it.scope.clone(), it.id.to_string(), true, resource);
        }
    }
    let images: Vec<Arc<Row<ImageRow>>> = tx.images.find(SNAPSHOT_INDEX, &it.id.to_string()).cloned().collect();
    for image in images {
        settle_image(tx, &image);
    }
}
