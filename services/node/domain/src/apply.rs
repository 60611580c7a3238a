//! Taking over what compute wants, and forgetting what compute needs no more.

use gureum_model::{Scope, Timestamp, id::InstanceId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::{
    capacity::{Demand, Ledger},
    driver::{Capabilities, ExitReason},
    error::{ApplyError, ForgetError},
    instance::{Desired, DesiredState, FailReason, Health, NodeInstance, ObservedState, StepKind},
};

/// How long a forgotten instance's id is kept, in domain time: longer than any call that still tries
/// to start it can be under way, also where time is scaled.
pub const TOMBSTONE_KEPT: Duration = Duration::from_secs(24 * 3600);

/// What the node knows of an id.
#[derive(Debug, Clone, Copy)]
pub enum Known<'a> {
    Nothing,
    Instance(&'a NodeInstance),
    Forgotten(&'a Tombstone),
}

/// What is left of an instance that was terminated and acknowledged. Without it, a call that was
/// delayed on its way could bring the instance back. Only a newer generation begins it anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    pub scope: Scope,
    pub id: InstanceId,
    pub generation: u64,
    /// Until then it is kept.
    pub until: Timestamp,
}

/// What an intent does.
#[derive(Debug, Clone, PartialEq)]
pub enum Applied {
    /// It was taken over before.
    Unchanged,
    /// A newer one was taken over before; this one is ignored.
    Superseded { generation: u64 },
    /// The instance was terminated and forgotten: there is nothing to do any more. If this end is a newer one, the
    /// tombstone remembers it instead.
    Gone { newer: Option<Tombstone> },
    /// The next record.
    Change(Box<NodeInstance>),
}

/// What the node can give.
#[derive(Debug, Clone, Copy)]
pub struct Room<'a> {
    pub free: Demand,
    pub holders: usize,
    pub capabilities: &'a Capabilities,
}

impl Ledger {
    /// What is there for the next instance, under a driver that can do this.
    pub fn room<'a>(&self, capabilities: &'a Capabilities) -> Room<'a> {
        Room { free: self.free(), holders: self.holders(), capabilities }
    }
}

impl<'a> Room<'a> {
    /// The room if `record` held nothing.
    fn without(self, record: &NodeInstance) -> Self {
        let holds = usize::from(record.held != Demand::NOTHING);
        Self { free: self.free.plus(record.held), holders: self.holders - holds.min(self.holders), ..self }
    }

    fn objection(self, record: &NodeInstance) -> Result<Demand, FailReason> {
        let Some(spec) = &record.spec else {
            return Err(FailReason::Unsupported { message: format!("the specification of {} is not known", record.id) });
        };
        if let Some(message) = self.capabilities.objection(spec) {
            return Err(FailReason::Unsupported { message });
        }
        if let Some(limit) = self.capabilities.max_instances.filter(|limit| self.holders >= *limit) {
            return Err(FailReason::TooMany { limit });
        }
        if !spec.demand.fits(self.free) {
            return Err(FailReason::NoRoom { wanted: spec.demand, free: self.free });
        }
        Ok(spec.demand)
    }
}

/// Takes over an intent.
///
/// Idempotent: the same generation again changes nothing, an older one is ignored. A run that does not
/// fit is taken over too, as a failure that the observation tells of: the node never has more promised
/// than it has.
pub fn apply(known: Known<'_>, desired: &Desired, room: Room<'_>, now: Timestamp) -> Result<Applied, ApplyError> {
    let (id, generation) = (desired.id, desired.wanted.generation);
    match known {
        Known::Nothing => new(desired, room, now).map(|next| Applied::Change(Box::new(next))),
        Known::Instance(record) => change(record, desired, room, now),
        Known::Forgotten(tombstone) => match desired.wanted.state {
            DesiredState::Terminated if generation <= tombstone.generation => Ok(Applied::Gone { newer: None }),
            DesiredState::Terminated => {
                Ok(Applied::Gone { newer: Some(Tombstone { generation, until: now + TOMBSTONE_KEPT, ..tombstone.clone() }) })
            }
            _ if generation <= tombstone.generation => Ok(Applied::Superseded { generation: tombstone.generation }),
            DesiredState::Running | DesiredState::Stopped { .. } if tombstone.scope != desired.scope => {
                Err(ApplyError::ScopeChanged { id, generation })
            }
            // Compute once had it elsewhere and has placed it here again: what is newer than the end was not delayed.
            DesiredState::Running | DesiredState::Stopped { .. } => new(desired, room, now).map(|next| Applied::Change(Box::new(next))),
        },
    }
}

fn new(desired: &Desired, room: Room<'_>, now: Timestamp) -> Result<NodeInstance, ApplyError> {
    let state = match desired.wanted.state {
        DesiredState::Terminated => ObservedState::Terminated { since: now },
        DesiredState::Running | DesiredState::Stopped { .. } if desired.spec.is_none() => {
            return Err(ApplyError::SpecMissing { id: desired.id });
        }
        DesiredState::Running | DesiredState::Stopped { .. } => ObservedState::Stopped { since: now, reason: ExitReason::Asked },
    };
    let record = NodeInstance {
        scope: desired.scope.clone(),
        id: desired.id,
        wanted: desired.wanted.clone(),
        spec: desired.spec.clone(),
        state,
        health: Health::Ok,
        boot: 0,
        reboot: desired.wanted.reboot,
        live_generation: 0,
        change_refused: None,
        held: Demand::NOTHING,
        asked: None,
        created_at: now,
        first_up_at: None,
        boot_began_at: None,
        up_at: None,
        runtime: None,
    };
    Ok(settled(record, room, now))
}

fn change(record: &NodeInstance, desired: &Desired, room: Room<'_>, now: Timestamp) -> Result<Applied, ApplyError> {
    let (id, generation) = (record.id, desired.wanted.generation);
    if record.scope != desired.scope {
        return Err(ApplyError::ScopeChanged { id, generation });
    }
    let same_spec = desired.spec.is_none() || desired.spec == record.spec;
    if generation < record.wanted.generation {
        return Ok(Applied::Superseded { generation: record.wanted.generation });
    }
    if generation == record.wanted.generation {
        let same = same_spec && desired.wanted == record.wanted;
        return if same { Ok(Applied::Unchanged) } else { Err(ApplyError::GenerationReused { id, generation }) };
    }
    if record.wanted.state == DesiredState::Terminated && desired.wanted.state != DesiredState::Terminated {
        return Err(ApplyError::Terminated { id, generation });
    }
    let live_as_wanted = record.live_generation == record.wanted.generation;
    let mut next = NodeInstance {
        wanted: desired.wanted.clone(),
        spec: desired.spec.clone().or_else(|| record.spec.clone()),
        live_generation: if same_spec && live_as_wanted { generation } else { record.live_generation },
        // A change that takes its time, as one that waits for a volume in use, must not keep the next one waiting.
        asked: record.asked.filter(|asked| same_spec || asked.step != StepKind::Reconfigure),
        ..record.clone()
    };
    if let ObservedState::Pending { .. } = next.state
        && !same_spec
    {
        // What waits for its boot takes the room of its new type.
        next = taken_up(next, room, now);
    }
    Ok(Applied::Change(Box::new(settled(next, room, now))))
}

/// The record after what needs no driver: a newer boot is taken up by what is off, and what only
/// waited for its boot is off at once if it shall be.
pub(crate) fn settled(record: NodeInstance, room: Room<'_>, now: Timestamp) -> NodeInstance {
    match record.state {
        ObservedState::Stopped { .. } | ObservedState::Failed { .. } if record.wants_newer_boot() => taken_up(record, room, now),
        ObservedState::Pending { .. } => match record.wanted.state {
            DesiredState::Running if record.wants_newer_boot() => taken_up(record, room, now),
            DesiredState::Running | DesiredState::Terminated => record,
            DesiredState::Stopped { .. } => record.off(ObservedState::Stopped { since: now, reason: ExitReason::Asked }),
        },
        ObservedState::Stopped { .. }
        | ObservedState::Failed { .. }
        | ObservedState::Booting { .. }
        | ObservedState::Running { .. }
        | ObservedState::Rebooting { .. }
        | ObservedState::Stopping { .. }
        | ObservedState::Terminating { .. }
        | ObservedState::Terminated { .. } => record,
    }
}

/// Takes up the wanted boot, if there is room. A boot covers all reboots that were wanted before it.
fn taken_up(record: NodeInstance, room: Room<'_>, now: Timestamp) -> NodeInstance {
    let (boot, reboot) = (record.wanted.boot, record.wanted.reboot);
    let (state, held) = match room.without(&record).objection(&record) {
        Ok(demand) => (ObservedState::Pending { since: now }, demand),
        Err(reason) => (ObservedState::Failed { since: now, reason }, Demand::NOTHING),
    };
    NodeInstance { state, held, boot, reboot, asked: None, health: Health::Ok, ..record }
}

/// Forgets a terminated instance, because compute has recorded its end. What remains is a tombstone.
pub fn forget(record: &NodeInstance, generation: u64, now: Timestamp) -> Result<Tombstone, ForgetError> {
    let id = record.id;
    match record.state {
        ObservedState::Terminated { .. } => {}
        ObservedState::Pending { .. }
        | ObservedState::Booting { .. }
        | ObservedState::Running { .. }
        | ObservedState::Rebooting { .. }
        | ObservedState::Stopping { .. }
        | ObservedState::Stopped { .. }
        | ObservedState::Terminating { .. }
        | ObservedState::Failed { .. } => {
            return Err(ForgetError::NotTerminated { id, state: record.state.name() });
        }
    }
    if generation < record.wanted.generation {
        return Err(ForgetError::Stale { id, generation: record.wanted.generation, acknowledged: generation });
    }
    Ok(Tombstone { scope: record.scope.clone(), id, generation, until: now + TOMBSTONE_KEPT })
}
