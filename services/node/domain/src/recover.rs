//! After the node's process was away: every record held against what the driver has.

use gureum_model::Timestamp;

use crate::{
    apply::{Room, settled},
    driver::{DriverEvent, DriverReport, ExitReason, Found},
    instance::{Asked, NodeInstance, ObservedState, StepKind},
    observe::observed,
    plan::BOOT_ALLOWED,
};

/// What a start makes of one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovered {
    /// The next record; `None`: as it is.
    pub next: Option<NodeInstance>,
    /// The driver runs something that it should not: it is to be killed before anything else.
    pub kill: bool,
}

/// Holds a record against what the driver found.
///
/// What the driver was asked before is forgotten, so that [`plan`](crate::plan::plan) asks again. A
/// driver that has something for which there is no record at all is told to terminate it.
pub fn recover(record: &NodeInstance, found: &Found, room: Room<'_>, now: Timestamp) -> Recovered {
    let (found, stray) = of_this_boot(record, found);
    let next = match record.state {
        ObservedState::Pending { .. } | ObservedState::Booting { .. } => while_booting(record, &found, room, now),
        ObservedState::Running { .. } | ObservedState::Rebooting { .. } => while_running(record, &found, room, now),
        ObservedState::Stopping { .. } => match found {
            Found::Booting { .. } | Found::Up { .. } => NodeInstance { asked: None, ..record.clone() },
            Found::Off { at, .. } => told(record, DriverEvent::Exited { reason: ExitReason::Asked }, at, room),
            Found::Absent => told(record, DriverEvent::Exited { reason: ExitReason::Asked }, now, room),
        },
        ObservedState::Terminating { .. } => NodeInstance { asked: None, ..record.clone() },
        ObservedState::Stopped { .. } | ObservedState::Failed { .. } | ObservedState::Terminated { .. } => {
            let runs = matches!(found, Found::Booting { .. } | Found::Up { .. });
            return Recovered { next: None, kill: stray || runs };
        }
    };
    let next = settled(next, room, now);
    Recovered { next: (next != *record).then_some(next), kill: stray }
}

/// What was found, as far as it is of the recorded boot; and whether something of another boot runs.
fn of_this_boot(record: &NodeInstance, found: &Found) -> (Found, bool) {
    match found {
        Found::Booting { boot } | Found::Up { boot, .. } if *boot != record.boot => (Found::Absent, true),
        Found::Off { boot, .. } if *boot != record.boot => (Found::Absent, false),
        Found::Booting { .. } | Found::Up { .. } | Found::Off { .. } | Found::Absent => (found.clone(), false),
    }
}

fn while_booting(record: &NodeInstance, found: &Found, room: Room<'_>, now: Timestamp) -> NodeInstance {
    let asked = record.asked.unwrap_or(Asked { step: StepKind::Boot, at: now, until: now + BOOT_ALLOWED });
    let state = ObservedState::Booting { since: record.state.since() };
    let booting = NodeInstance { asked: Some(asked), state, ..record.clone() };
    match found {
        Found::Booting { .. } => booting,
        Found::Up { since, .. } => told(&booting, DriverEvent::Up, *since, room),
        Found::Off { at, reason, .. } => told(&booting, DriverEvent::Exited { reason: reason.clone() }, *at, room),
        // The driver was never called, or lost everything: the same boot begins again.
        Found::Absent => NodeInstance { asked: None, state: ObservedState::Pending { since: now }, ..record.clone() },
    }
}

fn while_running(record: &NodeInstance, found: &Found, room: Room<'_>, now: Timestamp) -> NodeInstance {
    match found {
        Found::Booting { .. } => {
            let asked = Asked { step: StepKind::Reboot, at: now, until: now + BOOT_ALLOWED };
            NodeInstance { state: ObservedState::Rebooting { since: now }, asked: Some(asked), ..record.clone() }
        }
        // A reboot that was recorded and never reached the driver: it is asked for again.
        Found::Up { since, .. } if matches!(record.state, ObservedState::Rebooting { since: began } if *since <= began) => {
            NodeInstance { asked: None, ..record.clone() }
        }
        Found::Up { since, .. } => {
            // It may have come up again, by itself or as it was told, while nobody looked.
            let since = record.up_at.map_or(*since, |up_at| up_at.max(*since));
            NodeInstance {
                state: ObservedState::Running { since },
                asked: None,
                up_at: Some(since),
                first_up_at: record.first_up_at.or(Some(since)),
                ..record.clone()
            }
        }
        Found::Off { at, reason, .. } => told(record, DriverEvent::Exited { reason: reason.clone() }, *at, room),
        Found::Absent => {
            let message = "the instance was gone when the node came back".to_owned();
            told(record, DriverEvent::Exited { reason: ExitReason::Crashed { message } }, now, room)
        }
    }
}

fn told(record: &NodeInstance, event: DriverEvent, at: Timestamp, room: Room<'_>) -> NodeInstance {
    let report = DriverReport { id: record.id, boot: record.boot, at, event };
    observed(record, &report, room).unwrap_or_else(|| record.clone())
}
