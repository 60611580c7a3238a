//! What a node reports of an instance, and what follows from it.
//!
//! A report counts only if it comes from the node that has the instance and tells of the generation
//! that is wanted: an older one tells of an intent that is no longer there.

use gureum_model::{
    Timestamp,
    id::{InstanceId, NodeId},
};

use crate::{
    instance::{Instance, InstanceState, Observed, Origin, Reason, ShutdownBehavior},
    runtime::RuntimeReport,
    terminate::ending,
};

/// What a node sees of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub instance: InstanceId,
    pub node: NodeId,
    /// The newest generation that the node has taken over.
    pub generation: u64,
    /// The generation as which it runs.
    pub live_generation: u64,
    pub seen: Seen,
    /// Reboots that are over; absent: one is under way.
    pub reboots: Option<u64>,
    /// The driver's own check fails: it runs and does not answer.
    pub unreachable: bool,
    /// How it runs; none: nothing is told.
    pub runtime: Option<RuntimeReport>,
}

/// What is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Booting,
    Running,
    /// It does not run, and what it had is kept.
    Stopped,
    /// It is gone with all it had.
    Terminated,
    /// It could not be booted, or ended by a fault; in words.
    Failed(String),
}

/// What follows from a report.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// Nothing new.
    Unchanged,
    /// It tells of another generation than the one that is wanted.
    Stale,
    /// The instance is not that node's: it has to end and forget it.
    Disowned,
    /// The record as it is to be from now on.
    Change(Box<Instance>),
}

/// Decides what a report changes.
pub fn observe(it: &Instance, report: &Report, now: Timestamp) -> Observation {
    if it.node != Some(report.node) {
        return from_another_node(it, report);
    }
    if report.generation != it.generation {
        return Observation::Stale;
    }
    let next = match (&it.state, &report.seen) {
        (InstanceState::Terminated { .. }, Seen::Terminated) => None,
        (InstanceState::Terminated { .. }, _) => return Observation::Disowned,
        (InstanceState::Pending { addresses_ready: false, .. }, _) => None,
        (InstanceState::Pending { .. } | InstanceState::Running { .. }, Seen::Booting) => None,
        (InstanceState::Pending { .. }, Seen::Running) => Some(it.arrived(InstanceState::Running { since: now })),
        (InstanceState::Running { .. }, Seen::Running) => None,
        (InstanceState::Pending { .. } | InstanceState::Running { .. }, Seen::Stopped) => Some(own_shutdown(it, now)),
        (InstanceState::Pending { .. } | InstanceState::Running { .. }, Seen::Failed(words)) => {
            Some(failed(it, Reason::Internal(words.clone()), now))
        }
        (InstanceState::Pending { .. } | InstanceState::Running { .. }, Seen::Terminated) => {
            Some(failed(it, Reason::Internal("The node no longer has the instance".to_owned()), now))
        }
        (InstanceState::Stopping { released: false, .. }, Seen::Stopped | Seen::Terminated | Seen::Failed(_)) => Some(released(it)),
        (InstanceState::ShuttingDown { released: false, .. }, Seen::Terminated) => Some(released(it)),
        (InstanceState::Stopping { .. } | InstanceState::Stopped { .. } | InstanceState::ShuttingDown { .. }, _) => None,
    };
    noted(it, next, report, now)
}

/// The change with what the report says about itself; unchanged if neither says anything new.
fn noted(it: &Instance, next: Option<Instance>, report: &Report, now: Timestamp) -> Observation {
    let mut noted = next.unwrap_or_else(|| it.clone());
    let unreachable = report.unreachable && matches!(report.seen, Seen::Running);
    noted.observed = Observed {
        generation: report.generation,
        // While it boots nothing depends on it, and it is not worth a commit.
        live_generation: if report.seen == Seen::Running { report.live_generation } else { it.observed.live_generation },
        reboots: report.reboots.filter(|_| report.seen == Seen::Running).unwrap_or(it.observed.reboots),
        unreachable_since: if unreachable { it.observed.unreachable_since.or(Some(now)) } else { None },
    };
    if let Some(runtime) = report.runtime.as_ref().filter(|_| report.seen != Seen::Booting) {
        noted.runtime = Some(runtime.clone());
    }
    if noted == *it { Observation::Unchanged } else { Observation::Change(Box::new(noted)) }
}

fn from_another_node(it: &Instance, report: &Report) -> Observation {
    let told = it.former_nodes.contains(&report.node);
    if told && report.seen == Seen::Terminated {
        return Observation::Change(Box::new(forgotten_by(it, report.node)));
    }
    Observation::Disowned
}

/// The operating system in it shut down: what that means is the instance's own attribute. The node
/// hears of it as a new intent, so that it does not boot the instance again after a restart of its own.
fn own_shutdown(it: &Instance, now: Timestamp) -> Instance {
    match it.shutdown_behavior {
        ShutdownBehavior::Stop => {
            it.towards(InstanceState::Stopping { since: now, reason: Reason::OwnShutdown, force: false, released: false })
        }
        ShutdownBehavior::Terminate => ending(it, Reason::OwnShutdown, false, now),
    }
}

/// It could not be booted or ended by a fault: a launch is undone, anything else leads to stopped,
/// because volumes of an instance that once ran may hold what a user needs.
pub fn failed(it: &Instance, reason: Reason, now: Timestamp) -> Instance {
    match &it.state {
        InstanceState::Pending { origin: Origin::Launch, .. } => ending(it, reason, true, now),
        InstanceState::Pending { origin: Origin::Start, .. } | InstanceState::Running { .. } => {
            let released = it.node.is_none();
            it.towards(InstanceState::Stopping { since: now, reason, force: true, released })
        }
        InstanceState::Stopping { .. }
        | InstanceState::Stopped { .. }
        | InstanceState::ShuttingDown { .. }
        | InstanceState::Terminated { .. } => it.clone(),
    }
}

/// The node has let go of it.
fn released(it: &Instance) -> Instance {
    match &it.state {
        InstanceState::Stopping { since, reason, force, released: _ } => {
            it.arrived(InstanceState::Stopping { since: *since, reason: reason.clone(), force: *force, released: true })
        }
        InstanceState::ShuttingDown { since, reason, force, released: _, interfaces_gone } => it.arrived(InstanceState::ShuttingDown {
            since: *since,
            reason: reason.clone(),
            force: *force,
            released: true,
            interfaces_gone: *interfaces_gone,
        }),
        InstanceState::Pending { .. }
        | InstanceState::Running { .. }
        | InstanceState::Stopped { .. }
        | InstanceState::Terminated { .. } => it.clone(),
    }
}

/// The instance after its node was given up for good: what ran is stopped, what was to be let go is.
pub fn node_dead(it: &Instance, node: NodeId, now: Timestamp) -> Instance {
    let mut next = forgotten_by(it, node);
    if it.node != Some(node) {
        return next;
    }
    next.node = None;
    next.holds_capacity = false;
    next.observed.unreachable_since = None;
    match &next.state {
        InstanceState::Pending { .. } | InstanceState::Running { .. } => failed(&next, Reason::NodeDead, now),
        InstanceState::Stopping { .. } | InstanceState::ShuttingDown { .. } => released(&next),
        InstanceState::Stopped { .. } | InstanceState::Terminated { .. } => next,
    }
}

/// The instance after a node said that it no longer knows it.
pub fn forgotten_by(it: &Instance, node: NodeId) -> Instance {
    let mut next = it.clone();
    next.former_nodes.retain(|former| *former != node);
    if matches!(it.state, InstanceState::Terminated { .. }) && it.node == Some(node) {
        next.node = None;
    }
    next
}
