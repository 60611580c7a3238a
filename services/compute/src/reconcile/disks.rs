//! The loop of what nodes have to do for volumes and snapshots: it asks until that is done.

use std::sync::Arc;

use futures::{StreamExt, stream};
use gureum_compute_domain::{
    disk_work::{DiskWork, Step, Task, World, plan},
    node::{Node, NodeState},
};
use gureum_model::{Scope, id::NodeId};
use gureum_proto::node::v1 as proto;
use gureum_service::{
    Error,
    reconcile::{Outcome, Reconcile},
};
use gureum_store::Record;
use tonic::{Code, Status};

use super::due::DueKey;
use crate::{
    core::Core,
    fleet::reach_of,
    store::{Schema, Tx, choose_node, conclude_work, fail_work, keeps_files, waits},
};

/// Calls at once. Each keeps a node's disk busy.
const CALLS_AT_ONCE: usize = 8;

/// How long until what has to wait is looked at again, in domain time.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(200);

/// Drives the work; the keys are those of its rows.
pub struct Disks(pub Arc<Core>);

impl Reconcile for Disks {
    type Key = String;

    const NAME: &'static str = "disks";

    fn unsettled(&self) -> Vec<String> {
        self.0.read().disk_work.iter().map(|row| row.record.key()).collect()
    }

    async fn run(&self, keys: Vec<String>) -> Vec<(String, Outcome)> {
        let runs = keys.into_iter().map(async |key| {
            let outcome = self.run_one(&key).await;
            (key, outcome)
        });
        stream::iter(runs).buffer_unordered(CALLS_AT_ONCE).collect().await
    }
}

/// What a node answered.
enum Answered {
    Done,
    UnderWay,
    /// It never will; in words.
    Refused(String),
}

impl Disks {
    async fn run_one(&self, key: &str) -> Outcome {
        let (state, now) = (self.0.read(), self.0.clock.now());
        let Some(work) = state.disk_work.get(key).map(|row| row.record.0.clone()) else { return Outcome::Settled };
        let world =
            World { node: work.node.map(|node| reach_of(&state, node)), candidate: candidate(&state, &work), waits: waits(&state, &work) };
        match plan(&work, world, now) {
            Step::Wait => Outcome::Waiting { until: now + LOOK_AGAIN },
            Step::WaitUntil(until) => Outcome::Waiting { until },
            Step::Choose(node) => self.commit(key, move |tx, key| choose_node(tx, key, node)).await,
            Step::Done => self.commit(key, conclude_work).await,
            Step::Fail(reason) => self.commit(key, |tx, key| fail_work(tx, key, reason)).await,
            Step::Ask(node) => match self.ask(node, &work.task).await {
                Ok(Answered::Done) => self.commit(key, conclude_work).await,
                Ok(Answered::UnderWay) => Outcome::Moved,
                Ok(Answered::Refused(reason)) => {
                    tracing::info!(%node, id = work.id(), reason, "a node cannot do what is wanted of its disks");
                    self.commit(key, |tx, key| fail_work(tx, key, reason)).await
                }
                Err(error) => Outcome::Retry { reason: error.to_string() },
            },
        }
    }

    async fn commit(&self, key: &str, write: impl FnOnce(&mut Tx<'_>, &str) + Send + 'static) -> Outcome {
        let (of, due) = (key.to_owned(), due_key(key));
        match self.0.commit(move |tx| write(tx, &of)).await {
            Ok(()) => {
                // What waited for it may be due by now, or will be.
                self.0.due.wake(due);
                Outcome::Moved
            }
            Err(error) => Outcome::Retry { reason: error.to_string() },
        }
    }

    async fn ask(&self, node: NodeId, task: &Task) -> Result<Answered, Error> {
        let unknown = || Error::Internal(format!("the node {node} is not known to this process yet"));
        let (peer, mut client) = self.0.fleet.client(node).ok_or_else(unknown)?;
        let call = async {
            match task {
                Task::CreateVolume { volume, snapshot, size_gib, .. } => {
                    let request = proto::CreateVolumeRequest {
                        volume_id: volume.to_string(),
                        snapshot_id: snapshot.to_string(),
                        size_gib: *size_gib,
                    };
                    client.create_volume(request).await.map(|answer| answer.into_inner().done)
                }
                Task::DeleteVolume { volume } => {
                    let request = proto::DeleteVolumeRequest { volume_id: volume.to_string() };
                    client.delete_volume(request).await.map(|answer| answer.into_inner().done)
                }
                Task::CreateSnapshot { snapshot, volume, may_be_unused, .. } => {
                    let request = proto::CreateSnapshotRequest {
                        snapshot_id: snapshot.to_string(),
                        volume_id: volume.to_string(),
                        may_be_unused: *may_be_unused,
                    };
                    client.create_snapshot(request).await.map(|answer| answer.into_inner().done)
                }
                Task::ReadSnapshot { snapshot, blocks, checksum, size_gib } => {
                    let request = proto::CompleteSnapshotRequest {
                        snapshot_id: snapshot.to_string(),
                        block_count: *blocks,
                        checksum: checksum.clone(),
                        size_gib: *size_gib,
                    };
                    client.complete_snapshot(request).await.map(|answer| answer.into_inner().done)
                }
                // It waits, and is never asked for.
                Task::ReceiveSnapshot { .. } => Ok(false),
                Task::DeleteSnapshot { snapshot } => {
                    let request = proto::DeleteSnapshotRequest { snapshot_id: snapshot.to_string() };
                    client.delete_snapshot(request).await.map(|answer| answer.into_inner().done)
                }
            }
        };
        match self.0.in_scope(&Scope::default(), call).await {
            Ok(true) => Ok(Answered::Done),
            Ok(false) => Ok(Answered::UnderWay),
            Err(status) if is_refusal(&status) => Ok(Answered::Refused(status.message().to_owned())),
            Err(status) => Err(peer.error(status)),
        }
    }
}

fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), Code::FailedPrecondition | Code::InvalidArgument | Code::NotFound | Code::Unimplemented)
}

/// A node that can do it: one that is up and keeps files, in the zone where it has to be.
fn candidate(tables: &Schema, work: &DiskWork) -> Option<NodeId> {
    let able = |node: &Node| {
        let is_up = matches!(node.state, NodeState::Up { .. });
        is_up && work.zone().is_none_or(|zone| zone == node.zone) && keeps_files(tables, node.id)
    };
    // Where the snapshot is, if that is there too.
    let of_snapshot = match work.task {
        Task::CreateVolume { snapshot, .. } => {
            tables.snapshots.find(crate::store::ID_INDEX, &snapshot.to_string()).next().and_then(|row| row.node)
        }
        Task::DeleteVolume { .. }
        | Task::CreateSnapshot { .. }
        | Task::DeleteSnapshot { .. }
        | Task::ReceiveSnapshot { .. }
        | Task::ReadSnapshot { .. } => None,
    };
    let nodes = || tables.nodes.iter().map(|row| &row.record.0).filter(|node| able(node));
    nodes().find(|node| Some(node.id) == of_snapshot).or_else(|| nodes().next()).map(|node| node.id)
}

fn due_key(key: &str) -> Option<DueKey> {
    let (scope, id) = key.rsplit_once('/')?;
    DueKey::of(&scope, id)
}
