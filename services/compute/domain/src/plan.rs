//! What has to be done next so that the world becomes as an instance's record says.
//!
//! [`plan`] gives one step; the executor carries it out, commits what it led to by the function named
//! beside the step, reads everything again and asks anew. It may be killed between the step and its
//! commit: the step is then done again, and every step is one that may be.
//!
//! | from | steps in order |
//! | --- | --- |
//! | launch | (place and interfaces are settled before the record is there) apply → the node reports running |
//! | start | (place is settled by the call) assign public addresses → apply → the node reports running |
//! | stop | apply → the node reports stopped → release public addresses → stopped, capacity given back |
//! | terminate | apply → the node reports terminated → delete interfaces → terminated with volumes settled, capacity given back → forget on the node |
//! | launch failed | as terminate |
//! | start failed | as stop |
//! | node given up | as stop or terminate, without the node |

use gureum_model::{
    Timestamp,
    id::{NodeId, VolumeId},
};

use crate::{
    instance::{
        Desired, Instance, InstanceState, Interface, PENDING_ALLOWED, Reason, SHUTTING_DOWN_ALLOWED, STOPPING_ALLOWED, TERMINATED_VISIBLE,
    },
    observe::failed,
};

/// What is known of the world beside the record. Rebuilt after a restart: nothing in it has to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct World {
    /// Whether the instance's node can be reached.
    pub node: Reach,
    /// The newest generation that the node has answered to have taken over since compute started.
    pub applied: u64,
    /// The node started anew and may have lost what it once reported: only `applied` counts.
    pub resync: bool,
}

/// Whether a node can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    Up,
    /// It was not heard of for too long, or is not known yet after a restart of compute.
    #[default]
    Lost,
    /// It was given up.
    Dead,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    Do(Step),
    /// Somebody else has to move first. `until` is when to look again even if nobody does.
    Wait {
        reason: Waiting,
        until: Option<Timestamp>,
    },
    /// All is as it should be, until a call or a report.
    Settled,
    /// The record has been shown long enough: remove it.
    Gone,
}

/// One step. Those that only write name no peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Network gives public addresses to interfaces that lost theirs at the last stop. Then [`addresses_assigned`].
    AssignPublicAddresses,
    /// The node takes over the intent of this generation. Nothing to commit; `World::applied` grows.
    Apply { node: NodeId, generation: u64, desired: Desired },
    /// Too long pending: commit [`gave_up`].
    GiveUp,
    /// Too long stopping or shutting down: commit [`forced`].
    Force,
    /// The node was given up: commit [`crate::observe::node_dead`].
    LoseNode { node: NodeId },
    /// Network takes the public addresses of the pool back; elastic ones stay. Then [`stopped`].
    ReleasePublicAddresses,
    /// Network deletes the interfaces that go with the instance and detaches the others. Then [`interfaces_gone`].
    DeleteInterfaces,
    /// Commit [`terminated`] together with its volumes.
    FinishTermination,
    /// The node ends and forgets an instance that is no longer its own. Then [`crate::observe::forgotten_by`].
    Forget { node: NodeId },
}

/// For what an instance waits, in words that users can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    Boot,
    Shutdown,
    End,
    /// Its node was not heard of for too long.
    Node,
    /// It is shown for an hour.
    Visible,
}

impl Waiting {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boot => "waits for its node to boot it",
            Self::Shutdown => "waits for its operating system to shut down",
            Self::End => "waits for its node to end it",
            Self::Node => "waits for its node, which is not heard of",
            Self::Visible => "is shown until an hour after its end",
        }
    }
}

/// What to do next for an instance.
pub fn plan(it: &Instance, world: &World, now: Timestamp) -> Plan {
    if let (Some(node), Reach::Dead) = (it.node, world.node) {
        return Plan::Do(Step::LoseNode { node });
    }
    match &it.state {
        InstanceState::Pending { since, addresses_ready, .. } => pending(it, world, *since, *addresses_ready, now),
        InstanceState::Running { .. } => running(it, world),
        InstanceState::Stopping { released: true, .. } => Plan::Do(Step::ReleasePublicAddresses),
        InstanceState::Stopping { since, force, released: false, .. } => {
            leaving(it, world, *force, *since + STOPPING_ALLOWED, Waiting::Shutdown, now)
        }
        InstanceState::Stopped { .. } => Plan::Settled,
        InstanceState::ShuttingDown { released: true, interfaces_gone: false, .. } => Plan::Do(Step::DeleteInterfaces),
        InstanceState::ShuttingDown { released: true, interfaces_gone: true, .. } => Plan::Do(Step::FinishTermination),
        InstanceState::ShuttingDown { since, force, released: false, .. } => {
            leaving(it, world, *force, *since + SHUTTING_DOWN_ALLOWED, Waiting::End, now)
        }
        InstanceState::Terminated { since, .. } => over(it, world, *since, now),
    }
}

/// The next step towards former nodes: beside [`plan`], because it depends on other nodes and nothing
/// waits for it.
pub fn plan_former(it: &Instance, reach: impl Fn(NodeId) -> Reach) -> Option<Step> {
    it.former_nodes.iter().copied().find_map(|node| match reach(node) {
        Reach::Up => Some(Step::Forget { node }),
        Reach::Dead => Some(Step::LoseNode { node }),
        Reach::Lost => None,
    })
}

fn pending(it: &Instance, world: &World, since: Timestamp, addresses_ready: bool, now: Timestamp) -> Plan {
    let until = since + PENDING_ALLOWED;
    if now >= until {
        return Plan::Do(Step::GiveUp);
    }
    if !addresses_ready {
        return Plan::Do(Step::AssignPublicAddresses);
    }
    reach(it, world).unwrap_or_else(|waiting| Plan::Wait { reason: waiting.unwrap_or(Waiting::Boot), until: Some(until) })
}

fn running(it: &Instance, world: &World) -> Plan {
    reach(it, world).unwrap_or_else(|waiting| match waiting {
        Some(reason) => Plan::Wait { reason, until: None },
        None => Plan::Settled,
    })
}

fn leaving(it: &Instance, world: &World, force: bool, until: Timestamp, reason: Waiting, now: Timestamp) -> Plan {
    if !force && now >= until {
        return Plan::Do(Step::Force);
    }
    let until = (!force).then_some(until);
    reach(it, world).unwrap_or_else(|waiting| Plan::Wait { reason: waiting.unwrap_or(reason), until })
}

fn over(it: &Instance, world: &World, since: Timestamp, now: Timestamp) -> Plan {
    let until = since + TERMINATED_VISIBLE;
    match (it.node, world.node) {
        (Some(node), Reach::Up) => Plan::Do(Step::Forget { node }),
        // A node that is away reports what it has when it returns, and is told then that it is not its own.
        (Some(_) | None, _) if now >= until => Plan::Gone,
        (Some(_) | None, _) => Plan::Wait { reason: Waiting::Visible, until: Some(until) },
    }
}

/// The step that brings the intent to the node; or for what it waits, none if the node has it.
fn reach(it: &Instance, world: &World) -> Result<Plan, Option<Waiting>> {
    let Some(node) = it.node else { return Err(None) };
    let taken = if world.resync { world.applied } else { world.applied.max(it.observed.generation) };
    match world.node {
        Reach::Lost | Reach::Dead => Err(Some(Waiting::Node)),
        Reach::Up if taken < it.generation => Ok(Plan::Do(Step::Apply { node, generation: it.generation, desired: it.state.desired() })),
        Reach::Up => Err(None),
    }
}

/// Commit of [`Step::AssignPublicAddresses`]: the interfaces as network has them now.
pub fn addresses_assigned(it: &Instance, interfaces: Vec<Interface>) -> Instance {
    let mut next = it.clone();
    if let InstanceState::Pending { addresses_ready, .. } = &mut next.state {
        *addresses_ready = true;
        next.interfaces = interfaces;
    }
    next
}

/// Commit of [`Step::GiveUp`].
pub fn gave_up(it: &Instance, now: Timestamp) -> Instance {
    match &it.state {
        InstanceState::Pending { since, .. } if now >= *since + PENDING_ALLOWED => {
            let words = format!("The instance did not boot within {} seconds", PENDING_ALLOWED.as_secs());
            failed(it, Reason::Internal(words), now)
        }
        InstanceState::Pending { .. }
        | InstanceState::Running { .. }
        | InstanceState::Stopping { .. }
        | InstanceState::Stopped { .. }
        | InstanceState::ShuttingDown { .. }
        | InstanceState::Terminated { .. } => it.clone(),
    }
}

/// Commit of [`Step::Force`]: the node gets the same intent again, and hurries.
pub fn forced(it: &Instance) -> Instance {
    match &it.state {
        InstanceState::Stopping { since, reason, force: false, released: false } => {
            it.towards(InstanceState::Stopping { since: *since, reason: reason.clone(), force: true, released: false })
        }
        InstanceState::ShuttingDown { since, reason, force: false, released: false, interfaces_gone } => {
            it.towards(InstanceState::ShuttingDown {
                since: *since,
                reason: reason.clone(),
                force: true,
                released: false,
                interfaces_gone: *interfaces_gone,
            })
        }
        InstanceState::Pending { .. }
        | InstanceState::Running { .. }
        | InstanceState::Stopping { .. }
        | InstanceState::Stopped { .. }
        | InstanceState::ShuttingDown { .. }
        | InstanceState::Terminated { .. } => it.clone(),
    }
}

/// Commit of [`Step::ReleasePublicAddresses`]. In the same commit the capacity is given back.
pub fn stopped(it: &Instance, now: Timestamp) -> Instance {
    let InstanceState::Stopping { reason, released: true, .. } = &it.state else { return it.clone() };
    let mut next = it.arrived(InstanceState::Stopped { since: now, reason: reason.clone() });
    next.holds_capacity = false;
    next.observed.unreachable_since = None;
    for interface in &mut next.interfaces {
        interface.public = interface.public.take().filter(|public| public.elastic.is_some());
    }
    next
}

/// Commit of [`Step::DeleteInterfaces`].
pub fn interfaces_gone(it: &Instance) -> Instance {
    let mut next = it.clone();
    if let InstanceState::ShuttingDown { released: true, interfaces_gone, .. } = &mut next.state {
        *interfaces_gone = true;
        next.interfaces.clear();
    }
    next
}

/// What the end of an instance writes, in one commit.
#[derive(Debug, Clone, PartialEq)]
pub struct Termination {
    pub next: Instance,
    /// Volumes that go with it.
    pub delete: Vec<VolumeId>,
    /// Volumes that stay, and become available.
    pub detach: Vec<VolumeId>,
}

/// Commit of [`Step::FinishTermination`]; none if it is not due. The capacity is given back in it.
pub fn terminated(it: &Instance, now: Timestamp) -> Option<Termination> {
    let InstanceState::ShuttingDown { reason, released: true, interfaces_gone: true, .. } = &it.state else { return None };
    let mut next = it.arrived(InstanceState::Terminated { since: now, reason: reason.clone() });
    next.holds_capacity = false;
    next.observed.unreachable_since = None;
    let (delete, detach): (Vec<_>, Vec<_>) = next.volumes.drain(..).partition(|volume| volume.delete_on_termination);
    let ids = |volumes: Vec<crate::instance::AttachedVolume>| volumes.into_iter().map(|volume| volume.volume_id).collect();
    Some(Termination { next, delete: ids(delete), detach: ids(detach) })
}
