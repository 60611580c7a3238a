//! What the driver tells, as the next record.

use gureum_model::Timestamp;

use crate::{
    apply::{Room, settled},
    driver::{DriverEvent, DriverReport, ExitReason},
    instance::{FailReason, Health, NodeInstance, ObservedState, StepKind, StopCause},
    plan::BOOT_ALLOWED,
    runtime::RuntimeReport,
};

/// The record after a report, or `None` if the report changes nothing: because it is of another boot,
/// because it was told before, or because the state has left it behind.
///
/// An instance that is off and of which a newer boot is wanted is taken up at once, if there is room.
pub fn observed(record: &NodeInstance, report: &DriverReport, room: Room<'_>) -> Option<NodeInstance> {
    let at = report.at;
    if let DriverEvent::Removed = report.event {
        return removed(record, at);
    }
    if report.boot != record.boot {
        return None;
    }
    let next = match &report.event {
        DriverEvent::Up => up(record, room, at),
        DriverEvent::Rebooted => rebooted(record, at),
        DriverEvent::BootFailed { message } => boot_failed(record, message, at),
        DriverEvent::Exited { reason } => exited(record, reason, at),
        DriverEvent::Removed => removed(record, at),
        DriverEvent::Unresponsive { message } => health(record, Health::Impaired { since: at, message: message.clone() }),
        DriverEvent::Responsive => health(record, Health::Ok),
        DriverEvent::Reconfigured { generation } => reconfigured(record, *generation, None),
        DriverEvent::ReconfigureFailed { generation, message } => reconfigured(record, *generation, Some(message.clone())),
        DriverEvent::Told { runtime } => told(record, runtime),
    }?;
    Some(settled(next, room, at))
}

fn up(record: &NodeInstance, room: Room<'_>, at: Timestamp) -> Option<NodeInstance> {
    match record.state {
        ObservedState::Booting { .. } => {
            let runtime = record.runtime.clone().or_else(|| Some(RuntimeReport::of(room.capabilities)));
            Some(NodeInstance { runtime, ..running(record, at) })
        }
        ObservedState::Pending { .. }
        | ObservedState::Running { .. }
        | ObservedState::Rebooting { .. }
        | ObservedState::Stopping { .. }
        | ObservedState::Stopped { .. }
        | ObservedState::Terminating { .. }
        | ObservedState::Terminated { .. }
        | ObservedState::Failed { .. } => None,
    }
}

fn rebooted(record: &NodeInstance, at: Timestamp) -> Option<NodeInstance> {
    match record.state {
        // Running: the instance rebooted itself, or a reboot came back after it was given up.
        ObservedState::Rebooting { .. } => Some(running(record, at)),
        ObservedState::Running { since } if since < at => {
            Some(NodeInstance { asked: record.asked, boot_began_at: Some(at), ..running(record, at) })
        }
        ObservedState::Running { .. }
        | ObservedState::Pending { .. }
        | ObservedState::Booting { .. }
        | ObservedState::Stopping { .. }
        | ObservedState::Stopped { .. }
        | ObservedState::Terminating { .. }
        | ObservedState::Terminated { .. }
        | ObservedState::Failed { .. } => None,
    }
}

fn running(record: &NodeInstance, at: Timestamp) -> NodeInstance {
    NodeInstance {
        state: ObservedState::Running { since: at },
        health: Health::Ok,
        asked: None,
        first_up_at: record.first_up_at.or(Some(at)),
        up_at: Some(at),
        ..record.clone()
    }
}

fn boot_failed(record: &NodeInstance, message: &str, at: Timestamp) -> Option<NodeInstance> {
    let failed = |reason| Some(record.off(ObservedState::Failed { since: at, reason }));
    match record.state {
        ObservedState::Booting { .. } | ObservedState::Rebooting { .. } => failed(FailReason::BootFailed { message: message.to_owned() }),
        ObservedState::Stopping { because, .. } => Some(record.off(after_stop(because, at))),
        ObservedState::Pending { .. }
        | ObservedState::Running { .. }
        | ObservedState::Stopped { .. }
        | ObservedState::Terminating { .. }
        | ObservedState::Terminated { .. }
        | ObservedState::Failed { .. } => None,
    }
}

fn exited(record: &NodeInstance, reason: &ExitReason, at: Timestamp) -> Option<NodeInstance> {
    let stopped = || ObservedState::Stopped { since: at, reason: reason.clone() };
    let state = match record.state {
        ObservedState::Booting { .. } => match reason {
            ExitReason::Asked | ExitReason::InstanceInitiated => stopped(),
            ExitReason::Crashed { message } => {
                ObservedState::Failed { since: at, reason: FailReason::BootFailed { message: message.clone() } }
            }
        },
        ObservedState::Running { .. } | ObservedState::Rebooting { .. } => stopped(),
        ObservedState::Stopping { because, .. } => after_stop(because, at),
        // Terminating goes on until the driver has removed everything.
        ObservedState::Pending { .. }
        | ObservedState::Stopped { .. }
        | ObservedState::Terminating { .. }
        | ObservedState::Terminated { .. }
        | ObservedState::Failed { .. } => return None,
    };
    Some(record.off(state))
}

fn after_stop(because: StopCause, at: Timestamp) -> ObservedState {
    match because {
        StopCause::Wanted => ObservedState::Stopped { since: at, reason: ExitReason::Asked },
        StopCause::BootTimedOut => {
            ObservedState::Failed { since: at, reason: FailReason::BootTimedOut { allowed_secs: BOOT_ALLOWED.as_secs() } }
        }
    }
}

fn removed(record: &NodeInstance, at: Timestamp) -> Option<NodeInstance> {
    match record.state {
        ObservedState::Terminating { .. } => Some(record.off(ObservedState::Terminated { since: at })),
        ObservedState::Pending { .. }
        | ObservedState::Booting { .. }
        | ObservedState::Running { .. }
        | ObservedState::Rebooting { .. }
        | ObservedState::Stopping { .. }
        | ObservedState::Stopped { .. }
        | ObservedState::Terminated { .. }
        | ObservedState::Failed { .. } => None,
    }
}

fn health(record: &NodeInstance, health: Health) -> Option<NodeInstance> {
    match record.state {
        ObservedState::Running { .. } => {
            let same = match (&record.health, &health) {
                (Health::Ok, Health::Ok) => true,
                // Still impaired: since when is what counts.
                (Health::Impaired { message: before, .. }, Health::Impaired { message, .. }) => before == message,
                (Health::Ok, Health::Impaired { .. }) | (Health::Impaired { .. }, Health::Ok) => false,
            };
            (!same).then(|| NodeInstance { health, ..record.clone() })
        }
        ObservedState::Pending { .. }
        | ObservedState::Booting { .. }
        | ObservedState::Rebooting { .. }
        | ObservedState::Stopping { .. }
        | ObservedState::Stopped { .. }
        | ObservedState::Terminating { .. }
        | ObservedState::Terminated { .. }
        | ObservedState::Failed { .. } => None,
    }
}

fn told(record: &NodeInstance, runtime: &RuntimeReport) -> Option<NodeInstance> {
    match record.state {
        ObservedState::Pending { .. } | ObservedState::Terminating { .. } | ObservedState::Terminated { .. } => return None,
        ObservedState::Booting { .. }
        | ObservedState::Running { .. }
        | ObservedState::Rebooting { .. }
        | ObservedState::Stopping { .. }
        | ObservedState::Stopped { .. }
        | ObservedState::Failed { .. } => {}
    }
    let runtime = Some(runtime.clone().after(record.runtime.as_ref()));
    (runtime != record.runtime).then(|| NodeInstance { runtime, ..record.clone() })
}

fn reconfigured(record: &NodeInstance, generation: u64, refused: Option<String>) -> Option<NodeInstance> {
    match record.state {
        ObservedState::Running { .. } if generation > record.live_generation => {}
        ObservedState::Running { .. }
        | ObservedState::Pending { .. }
        | ObservedState::Booting { .. }
        | ObservedState::Rebooting { .. }
        | ObservedState::Stopping { .. }
        | ObservedState::Stopped { .. }
        | ObservedState::Terminating { .. }
        | ObservedState::Terminated { .. }
        | ObservedState::Failed { .. } => return None,
    }
    Some(NodeInstance {
        live_generation: generation,
        change_refused: refused,
        asked: record.asked.filter(|asked| asked.step != StepKind::Reconfigure),
        ..record.clone()
    })
}
