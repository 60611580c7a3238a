//! What is still to be done on a node's disks for a volume or a snapshot.
//!
//! ```text
//!  CreateVolume of a snapshot ─┐
//!  CreateSnapshot, CreateImage ┼─▶ no node yet ──chosen──▶ asked, and asked again ──done──▶ (removed, with what it was for)
//!  DeleteVolume                │                                └──refused──▶ the volume or snapshot is in error
//!  DeleteSnapshot ─────────────┘
//! ```
//!
//! It is recorded in the commit that wants it, under the id of what it is for, of which it keeps the next state: a snapshot is
//! completed, a volume available or deleted, when its time has come *and* nothing is left to be done. Where no node keeps
//! files there is none, and time alone decides.

use gureum_model::{
    Scope, Timestamp,
    id::{InstanceId, NodeId, SnapshotId, VolumeId},
};
use serde::{Deserialize, Serialize};

use crate::plan::Reach;

/// Work that a node has to be asked for. Stored as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskWork {
    /// The owner's.
    pub scope: Scope,
    pub task: Task,
    /// Who is asked. It is recorded before it is, so that whoever takes the work back knows whom to ask.
    pub node: Option<NodeId>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    CreateVolume {
        volume: VolumeId,
        snapshot: SnapshotId,
        size_gib: u32,
        /// The letter of the zone whose node makes it.
        zone: char,
    },
    DeleteVolume {
        volume: VolumeId,
    },
    CreateSnapshot {
        snapshot: SnapshotId,
        volume: VolumeId,
        zone: char,
        /// No node has ever had the volume, as far as is known.
        may_be_unused: bool,
        /// The instance is rebooted before.
        after: Option<AfterReboot>,
    },
    DeleteSnapshot {
        snapshot: SnapshotId,
    },
    /// Blocks of it come, until it is completed.
    ReceiveSnapshot {
        snapshot: SnapshotId,
        /// Then it has failed.
        until: Timestamp,
    },
    /// All blocks of it have come.
    ReadSnapshot {
        snapshot: SnapshotId,
        blocks: u32,
        /// SHA-256 of all of them, in hexadecimal.
        checksum: String,
        size_gib: u32,
    },
}

/// A reboot that has to be over first, unless the instance does not run any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AfterReboot {
    pub instance: InstanceId,
    /// How often it was to be rebooted by then.
    pub reboots: u64,
}

impl DiskWork {
    /// The id of what it is for.
    pub fn id(&self) -> String {
        match &self.task {
            Task::CreateVolume { volume, .. } | Task::DeleteVolume { volume } => volume.to_string(),
            Task::CreateSnapshot { snapshot, .. }
            | Task::DeleteSnapshot { snapshot }
            | Task::ReceiveSnapshot { snapshot, .. }
            | Task::ReadSnapshot { snapshot, .. } => snapshot.to_string(),
        }
    }

    /// Where a node for it has to be; none: it is where it is.
    pub fn zone(&self) -> Option<char> {
        match self.task {
            Task::CreateVolume { zone, .. } | Task::CreateSnapshot { zone, .. } => Some(zone),
            Task::DeleteVolume { .. } | Task::DeleteSnapshot { .. } | Task::ReceiveSnapshot { .. } | Task::ReadSnapshot { .. } => None,
        }
    }
}

/// The world as the plan sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct World {
    /// How the node is that was chosen.
    pub node: Option<Reach>,
    /// A node that could be.
    pub candidate: Option<NodeId>,
    /// Something else has to be over first.
    pub waits: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Choose(NodeId),
    Ask(NodeId),
    /// Nothing can be done yet.
    Wait,
    /// Nothing is to be done before.
    WaitUntil(Timestamp),
    /// It went with its node.
    Done,
    /// It cannot be done any more; in words.
    Fail(String),
}

/// What to do about the work now.
pub fn plan(work: &DiskWork, world: World, now: Timestamp) -> Step {
    if let Task::ReceiveSnapshot { until, .. } = work.task {
        return if now < until { Step::WaitUntil(until) } else { Step::Fail("it was not completed in time".to_owned()) };
    }
    if world.waits {
        return Step::Wait;
    }
    let Some(node) = work.node else { return world.candidate.map_or(Step::Wait, Step::Choose) };
    match world.node {
        Some(Reach::Up) => Step::Ask(node),
        Some(Reach::Lost) | None => Step::Wait,
        Some(Reach::Dead) => match work.task {
            Task::CreateVolume { .. } => world.candidate.map_or(Step::Wait, Step::Choose),
            Task::CreateSnapshot { volume, .. } => Step::Fail(format!("the volume {volume} was on the node {node}, which was given up")),
            Task::ReceiveSnapshot { .. } | Task::ReadSnapshot { .. } => {
                Step::Fail(format!("its blocks were on the node {node}, which was given up"))
            }
            Task::DeleteVolume { .. } | Task::DeleteSnapshot { .. } => Step::Done,
        },
    }
}

#[cfg(test)]
mod tests {
    use gureum_model::id::ResourceId;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn work(task: Task, node: Option<NodeId>) -> DiskWork {
        DiskWork { scope: Scope::default(), task, node }
    }

    #[test]
    fn a_node_is_chosen_and_then_asked_and_what_waits_is_not() {
        let (node, other) = (NodeId::from_number(1), NodeId::from_number(2));
        let volume = VolumeId::from_number(3);
        let delete = || Task::DeleteVolume { volume };
        let create = || Task::CreateVolume { volume, snapshot: SnapshotId::from_number(4), size_gib: 1, zone: 'a' };
        let copy = || Task::CreateSnapshot { snapshot: SnapshotId::from_number(4), volume, zone: 'a', may_be_unused: false, after: None };
        let world = |node| World { node, candidate: Some(other), waits: false };
        assert_eq!(plan(&work(create(), None), world(None), NOW), Step::Choose(other));
        assert_eq!(plan(&work(create(), None), World { candidate: None, ..world(None) }, NOW), Step::Wait);
        assert_eq!(plan(&work(delete(), Some(node)), world(Some(Reach::Up)), NOW), Step::Ask(node));
        assert_eq!(plan(&work(delete(), Some(node)), World { waits: true, ..world(Some(Reach::Up)) }, NOW), Step::Wait);
        assert_eq!(plan(&work(copy(), Some(node)), world(Some(Reach::Lost)), NOW), Step::Wait);
        assert_eq!(plan(&work(delete(), Some(node)), world(Some(Reach::Dead)), NOW), Step::Done);
        assert_eq!(plan(&work(create(), Some(node)), world(Some(Reach::Dead)), NOW), Step::Choose(other));
        assert!(matches!(plan(&work(copy(), Some(node)), world(Some(Reach::Dead)), NOW), Step::Fail(_)));
        let receive = work(Task::ReceiveSnapshot { snapshot: SnapshotId::from_number(4), until: NOW }, Some(node));
        assert_eq!(plan(&receive, world(Some(Reach::Up)), Timestamp::from_secs(999)), Step::WaitUntil(NOW));
        assert!(matches!(plan(&receive, world(Some(Reach::Up)), NOW), Step::Fail(_)));
    }
}
