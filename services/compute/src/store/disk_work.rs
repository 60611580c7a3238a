//! What nodes have to do for volumes and snapshots: how it is recorded, and what follows when it is done.
//!
//! Regions whose nodes keep no files have none of it.

use gureum_compute_domain::{
    disk_work::{AfterReboot, DiskWork, Task},
    instance::{Instance, StateName},
    plan::Reach,
    snapshot::{self, Snapshot, SnapshotState},
    volume::{self, Volume, VolumeState},
};
use gureum_model::id::{NodeId, SnapshotId, VolumeId};
use gureum_store::{Listed, Record};

use super::{DiskWorkRow, ID_INDEX, InstanceRow, Schema, SnapshotRow, Tx, VolumeRow, decide_snapshot, decide_volume, put_volume};

/// The driver whose nodes keep no files.
const SIM: &str = "sim";

impl Record for DiskWorkRow {
    const TABLE: &'static str = "disk_work";

    fn key(&self) -> String {
        format!("{}/{}", self.scope, self.id())
    }
}

/// Whether a node keeps files.
pub fn keeps_files(tables: &Schema, node: NodeId) -> bool {
    tables.nodes.get(&node.to_string()).is_some_and(|row| row.driver != SIM)
}

/// A node that is up and keeps files, in whatever zone.
pub fn keeper_of_files(tables: &Schema) -> Option<NodeId> {
    tables.nodes.iter().find(|row| row.driver != SIM && row.state.reach() == Reach::Up).map(|row| row.id)
}

fn any_keeps_files(tables: &Schema, zone: char) -> bool {
    tables.nodes.iter().any(|row| row.driver != SIM && row.zone == zone)
}

/// The node that has a volume now, by its instance.
fn user(tables: &Schema, it: &Volume) -> Option<NodeId> {
    it.attachments().iter().find_map(|held| tables.instances.get(&InstanceRow::list_key(&it.scope, held.instance_id))?.node)
}

/// A volume as it is once an instance has had it: its files stay where that was.
pub fn left_by(tables: &Schema, it: Volume, instance: &Instance) -> Volume {
    let node = instance.node.filter(|node| keeps_files(tables, *node)).or(it.node);
    Volume { node, ..it }
}

/// Has a new volume made, if it is made of something.
pub fn work_for_new_volume(tx: &mut Tx<'_>, it: &Volume) {
    let Some(snapshot) = it.snapshot_id.filter(|id| has_files(tx, *id)) else { return };
    if !any_keeps_files(tx, it.zone) {
        return;
    }
    let task = Task::CreateVolume { volume: it.id, snapshot, size_gib: it.size_gib, zone: it.zone };
    tx.put(DiskWorkRow(DiskWork { scope: it.scope.clone(), task, node: None }));
}

fn has_files(tables: &Schema, id: SnapshotId) -> bool {
    tables.snapshots.find(ID_INDEX, &id.to_string()).any(|row| row.node.is_some())
}

/// Has a volume removed that is being deleted, if a node may have it.
pub fn work_for_deleted_volume(tx: &mut Tx<'_>, it: &Volume) {
    if it.node.is_some() {
        tx.put(DiskWorkRow(DiskWork { scope: it.scope.clone(), task: Task::DeleteVolume { volume: it.id }, node: it.node }));
    }
}

/// Has a snapshot taken.
pub fn work_for_new_snapshot(tx: &mut Tx<'_>, it: &Snapshot, after: Option<AfterReboot>) {
    let Some(volume) = tx.volumes.get(&VolumeRow::list_key(&it.scope, it.volume_id)).cloned() else { return };
    let node = match user(tx, &volume) {
        Some(node) if keeps_files(tx, node) => Some(node),
        // A model has it, and writes nothing.
        Some(_) => return,
        None if volume.node.is_none() && !any_keeps_files(tx, volume.zone) => return,
        None => volume.node,
    };
    let task = Task::CreateSnapshot { snapshot: it.id, volume: volume.id, zone: volume.zone, may_be_unused: volume.node.is_none(), after };
    tx.put(DiskWorkRow(DiskWork { scope: it.scope.clone(), task, node }));
}

/// Has a snapshot removed that is deleted, also one that is still being taken.
pub fn work_for_deleted_snapshot(tx: &mut Tx<'_>, it: &Snapshot) {
    let key = SnapshotRow::key_of(&it.scope, it.id);
    let being_taken = tx.delete::<DiskWorkRow>(&key).and_then(|row| row.node);
    if let Some(node) = it.node.or(being_taken) {
        let task = Task::DeleteSnapshot { snapshot: it.id };
        tx.put(DiskWorkRow(DiskWork { scope: it.scope.clone(), task, node: Some(node) }));
    }
}

/// Whether something has to be over before the work may begin.
pub fn waits(tables: &Schema, work: &DiskWork) -> bool {
    match &work.task {
        Task::CreateVolume { .. } | Task::ReceiveSnapshot { .. } | Task::ReadSnapshot { .. } => false,
        Task::DeleteVolume { volume } => tables.disk_work.iter().any(|row| copies(&row.record, *volume)),
        Task::CreateSnapshot { after, .. } => after.is_some_and(|after| {
            let instance = tables.instances.get(&InstanceRow::list_key(&work.scope, after.instance));
            instance.is_some_and(|it| is_up(it.state.name()) && it.observed.reboots < after.reboots)
        }),
        Task::DeleteSnapshot { snapshot } => is_needed(tables, work, *snapshot),
    }
}

fn is_up(state: StateName) -> bool {
    matches!(state, StateName::Running | StateName::Stopping)
}

fn copies(work: &DiskWork, of: VolumeId) -> bool {
    matches!(work.task, Task::CreateSnapshot { volume, .. } if volume == of)
}

/// Whether a volume of it has still to be made: by itself, or for an instance that is on its way.
fn is_needed(tables: &Schema, work: &DiskWork, id: SnapshotId) -> bool {
    let by_itself = |row: &DiskWorkRow| matches!(row.task, Task::CreateVolume { snapshot, .. } if snapshot == id);
    let pending = |it: &VolumeRow| {
        let mut instances = it.attachments().iter().map(|held| InstanceRow::list_key(&it.scope, held.instance_id));
        instances.any(|key| tables.instances.get(&key).is_some_and(|row| row.state.name() == StateName::Pending))
    };
    tables.disk_work.iter().any(|row| by_itself(&row.record))
        || tables.volumes.find("snapshot-id", &format!("{}/{id}", work.scope)).any(|row| pending(&row.record))
}

/// Records that the work is done, and what follows.
pub fn conclude_work(tx: &mut Tx<'_>, key: &str) {
    let Some(row) = tx.delete::<DiskWorkRow>(key) else { return };
    let now = tx.now();
    match &row.task {
        Task::CreateVolume { .. } => {
            if let Some(it) = tx.volumes.get(key).map(|it| it.record.0.clone()) {
                let it = Volume { node: row.node, ..it };
                tx.put(VolumeRow(it.clone()));
                decide_volume(tx, "VolumeStateChanged", &it, volume::settle(&it, now));
            }
        }
        Task::DeleteVolume { .. } => {
            if let Some(it) = tx.volumes.get(key).cloned() {
                decide_volume(tx, "VolumeStateChanged", &it, volume::settle(&it, now));
            }
        }
        Task::CreateSnapshot { .. } | Task::ReceiveSnapshot { .. } | Task::ReadSnapshot { .. } => {
            if let Some(it) = tx.snapshots.get(key).map(|it| it.record.0.clone()) {
                let it = Snapshot { node: row.node, ..it };
                tx.put(SnapshotRow(it.clone()));
                decide_snapshot(tx, "SnapshotStateChanged", &it, snapshot::settle(&it, now));
            }
        }
        Task::DeleteSnapshot { .. } => {}
    }
}

/// Records that the work cannot be done, and why.
pub fn fail_work(tx: &mut Tx<'_>, key: &str, reason: String) {
    let Some(row) = tx.delete::<DiskWorkRow>(key) else { return };
    let since = tx.now();
    if let Task::ReceiveSnapshot { snapshot, .. } | Task::ReadSnapshot { snapshot, .. } = row.task {
        // What has come of it takes room.
        tx.put(DiskWorkRow(DiskWork { task: Task::DeleteSnapshot { snapshot }, ..row.record.0.clone() }));
    }
    if let Some(it) = tx.volumes.get(key).map(|it| it.record.0.clone()) {
        put_volume(tx, "VolumeStateChanged", Volume { state: VolumeState::Error { since, reason }, ..it });
    } else if let Some(it) = tx.snapshots.get(key).map(|it| it.record.0.clone()) {
        let failed = Snapshot { state: SnapshotState::Error { since, reason }, ..it.clone() };
        decide_snapshot(tx, "SnapshotStateChanged", &it, volume::Decision::Change(failed));
    }
}

/// Records who is asked.
pub fn choose_node(tx: &mut Tx<'_>, key: &str, node: NodeId) {
    if let Some(row) = tx.disk_work.get(key).map(|row| row.record.0.clone()) {
        tx.put(DiskWorkRow(DiskWork { node: Some(node), ..row }));
    }
}
