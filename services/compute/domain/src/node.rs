//! What compute knows of a node: the host on which instances run.
//!
//! ```text
//! registers ──▶ up ◀──registers again── lost ──declared dead──▶ dead ──registers again──▶ up
//!                └───── silent too long ──▲
//! ```
//!
//! Heartbeats are not written down: after a restart of compute every node that was up has one lease of
//! time to be heard of. What a returning node has it reports, and what is not its own any more it ends.

use std::{borrow::Cow, time::Duration};

use gureum_model::{Filterable, Refusal, RefusalKind, Timestamp, id::NodeId, refusal::Violations, scope::ZONE_LETTERS};
use serde::{Deserialize, Serialize};

use crate::{instance::Capacity, plan::Reach};

/// A node is lost so long after its last heartbeat, unless configured otherwise. Real time.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(10);
/// How often nodes send heartbeats under a lease: four may be lost before the node is.
pub const HEARTBEATS_PER_LEASE: u32 = 5;

/// A host that runs instances. Stored as it is; nodes belong to no scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    /// The letter of its zone, in every region.
    pub zone: char,
    /// What it can carry in all.
    pub capacity: Capacity,
    /// Such as `sim`.
    pub driver: String,
    /// Where compute reaches it.
    pub endpoint: String,
    pub software_version: String,
    /// Grows with each start of the node's process.
    pub incarnation: u64,
    pub state: NodeState,
    pub register_time: Timestamp,
}

/// Whether a node is heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    Up {
        since: Timestamp,
    },
    /// It was not heard of for too long. Nothing is moved; its instances show impaired.
    Lost {
        since: Timestamp,
    },
    /// A person said that it will not come back.
    Dead {
        since: Timestamp,
    },
}

impl NodeState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up { .. } => "up",
            Self::Lost { .. } => "lost",
            Self::Dead { .. } => "dead",
        }
    }

    /// When it began.
    pub fn since(self) -> Timestamp {
        match self {
            Self::Up { since } | Self::Lost { since } | Self::Dead { since } => since,
        }
    }

    /// As plans see it.
    pub fn reach(self) -> Reach {
        match self {
            Self::Up { .. } => Reach::Up,
            Self::Lost { .. } => Reach::Lost,
            Self::Dead { .. } => Reach::Dead,
        }
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    pub id: NodeId,
    pub zone: String,
    pub capacity: Capacity,
    pub driver: String,
    pub endpoint: String,
    pub software_version: String,
    pub incarnation: u64,
}

/// Why a call about a node was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    #[error("the node {id} does not exist")]
    NotFound { id: NodeId },
    #[error("the node {id} is known with incarnation {known}, and {given} is older: another process of the same node has registered since")]
    OldIncarnation { id: NodeId, given: u64, known: u64 },
    #[error("the node {id} is in zone {known} and cannot register in zone {given}; give it a new id")]
    Moved { id: NodeId, given: char, known: char },
    #[error("the node {id} is up; only a lost node can be declared dead")]
    Up { id: NodeId },
    #[error("the node {id} has to register with incarnation {given} first")]
    NotRegistered { id: NodeId, given: u64 },
}

impl From<NodeError> for Refusal {
    fn from(error: NodeError) -> Self {
        let text = error.to_string();
        match error {
            NodeError::NotFound { .. } => Self::new(RefusalKind::NotFound, "InvalidNodeID.NotFound", text),
            NodeError::OldIncarnation { .. } | NodeError::Moved { .. } | NodeError::Up { .. } | NodeError::NotRegistered { .. } => {
                Self::wrong_state("IncorrectState", text)
            }
        }
    }
}

/// Makes a node known, or known again. A dead one that comes back begins anew: what it once had was
/// given up, and it will be told to end it.
///
/// Errors: `InvalidParameterValue` (zone, capacity); `IncorrectState` (older incarnation, other zone).
pub fn register(known: Option<&Node>, said: &Registration, now: Timestamp) -> Result<Node, Refusal> {
    let mut violations = Violations::new();
    let mut letters = said.zone.chars();
    let zone = match (letters.next(), letters.next()) {
        (Some(letter), None) if ZONE_LETTERS.contains(&letter) => letter,
        _ => {
            violations.add("zone", format!("\"{}\" is no zone: expected one of {ZONE_LETTERS:?}", said.zone));
            ZONE_LETTERS[0]
        }
    };
    if said.capacity.vcpu_milli == 0 || said.capacity.memory_mib == 0 {
        violations.add("capacity", "a node needs more than 0 vCPUs and more than 0 MiB of memory");
    }
    violations.finish()?;
    if let Some(known) = known {
        if said.incarnation < known.incarnation {
            return Err(NodeError::OldIncarnation { id: said.id, given: said.incarnation, known: known.incarnation }.into());
        }
        if zone != known.zone {
            return Err(NodeError::Moved { id: said.id, given: zone, known: known.zone }.into());
        }
    }
    let state = match known.map(|known| known.state) {
        Some(NodeState::Up { since }) => NodeState::Up { since },
        Some(NodeState::Lost { .. } | NodeState::Dead { .. }) | None => NodeState::Up { since: now },
    };
    Ok(Node {
        id: said.id,
        zone,
        capacity: said.capacity,
        driver: said.driver.clone(),
        endpoint: said.endpoint.clone(),
        software_version: said.software_version.clone(),
        incarnation: said.incarnation,
        state,
        register_time: known.map_or(now, |known| known.register_time),
    })
}

/// Whether a node with this incarnation may report. Errors: `IncorrectState`.
pub fn check_incarnation(known: Option<&Node>, id: NodeId, incarnation: u64) -> Result<(), NodeError> {
    match known {
        Some(node) if node.incarnation == incarnation && node.state.reach() == Reach::Up => Ok(()),
        Some(_) | None => Err(NodeError::NotRegistered { id, given: incarnation }),
    }
}

/// The node as it is to be after it was silent for so long (real time); none if nothing changes.
pub fn judge(node: &Node, silent: Duration, lease: Duration, now: Timestamp) -> Option<Node> {
    match node.state {
        NodeState::Up { .. } if silent > lease => Some(Node { state: NodeState::Lost { since: now }, ..node.clone() }),
        NodeState::Up { .. } | NodeState::Lost { .. } | NodeState::Dead { .. } => None,
    }
}

/// Gives a lost node up; none if it is given up already. Its instances follow by their own plans.
///
/// Errors: `IncorrectState` (it is up).
pub fn declare_dead(node: &Node, now: Timestamp) -> Result<Option<Node>, NodeError> {
    match node.state {
        NodeState::Up { .. } => Err(NodeError::Up { id: node.id }),
        NodeState::Lost { .. } => Ok(Some(Node { state: NodeState::Dead { since: now }, ..node.clone() })),
        NodeState::Dead { .. } => Ok(None),
    }
}

impl Filterable for Node {
    const FILTER_NAMES: &'static [&'static str] = &["driver", "node-id", "state", "zone"];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "driver" => vec![Cow::from(self.driver.as_str())],
            "node-id" => vec![Cow::from(self.id.to_string())],
            "state" => vec![Cow::from(self.state.as_str())],
            "zone" => vec![Cow::from(self.zone.to_string())],
            _ => Vec::new(),
        }
    }
}
