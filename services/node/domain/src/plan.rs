//! What to do next about an instance, and the record once it is being done.
//!
//! [`plan`] looks at nothing but the record and the time. The executor commits [`begin`] before it
//! calls the driver, so that the record never shows less than may have happened.

use std::time::Duration;

use gureum_model::Timestamp;

use crate::{
    driver::BootSpec,
    instance::{Asked, DesiredState, Health, NodeInstance, ObservedState, StepKind, StopCause},
    runtime::RuntimeReport,
};

/// An instance that is not up so long after its boot began has failed. EC2's own boots end within it,
/// and a driver that copies a large image needs most of it.
pub const BOOT_ALLOWED: Duration = Duration::from_secs(600);
/// What a driver may need beyond the grace of a stop: then the instance is killed.
pub const STOP_SLACK: Duration = Duration::from_secs(5);
/// A kill is tried again after this long.
pub const KILL_ALLOWED: Duration = Duration::from_secs(10);
/// A change of a running instance is tried again after this long.
pub const RECONFIGURE_ALLOWED: Duration = Duration::from_secs(60);
/// Removing an instance is tried again after this long; large volumes take their time.
pub const TERMINATE_ALLOWED: Duration = Duration::from_secs(120);
/// The grace where a newer boot makes the node turn an instance off and on by itself.
pub const POWER_CYCLE_GRACE: Duration = Duration::from_secs(30);

/// The next thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Make it run.
    Boot(Box<BootSpec>),
    /// Let it shut down, and kill it after the grace.
    Stop { grace: Duration },
    /// End it at once.
    Kill,
    /// Restart it with its addresses and disks.
    Reboot { grace: Duration },
    /// Change it while it runs: addresses, groups, volumes, tags, options.
    Reconfigure(Box<BootSpec>),
    /// End it at once and remove all that goes with it.
    Terminate,
    /// Nothing for the driver; the record is to say that a reboot did not come back.
    ReportImpaired { message: String },
    /// The driver is at it, or there will be nothing to do before.
    WaitUntil(Timestamp),
    /// It is as it is wanted.
    Nothing,
}

impl Step {
    /// Which call of the driver it is, if it is one.
    pub fn kind(&self) -> Option<StepKind> {
        match self {
            Self::Boot(_) => Some(StepKind::Boot),
            Self::Stop { .. } => Some(StepKind::Stop),
            Self::Kill => Some(StepKind::Kill),
            Self::Reboot { .. } => Some(StepKind::Reboot),
            Self::Reconfigure(_) => Some(StepKind::Reconfigure),
            Self::Terminate => Some(StepKind::Terminate),
            Self::ReportImpaired { .. } | Self::WaitUntil(_) | Self::Nothing => None,
        }
    }
}

/// What to do about the instance now.
pub fn plan(record: &NodeInstance, now: Timestamp) -> Step {
    let step = toward_wanted(record);
    match (record.asked, step.kind()) {
        (Some(asked), Some(kind)) if asked.step == kind => {
            if now < asked.until {
                Step::WaitUntil(asked.until)
            } else {
                overdue(kind, step)
            }
        }
        _ => step,
    }
}

fn toward_wanted(record: &NodeInstance) -> Step {
    match record.wanted.state {
        DesiredState::Terminated => match record.state {
            ObservedState::Terminated { .. } => Step::Nothing,
            ObservedState::Pending { .. }
            | ObservedState::Booting { .. }
            | ObservedState::Running { .. }
            | ObservedState::Rebooting { .. }
            | ObservedState::Stopping { .. }
            | ObservedState::Stopped { .. }
            | ObservedState::Terminating { .. }
            | ObservedState::Failed { .. } => Step::Terminate,
        },
        DesiredState::Stopped { grace } => match record.state {
            ObservedState::Booting { .. } | ObservedState::Running { .. } | ObservedState::Rebooting { .. } => Step::Stop { grace },
            ObservedState::Stopping { because, .. } => go_on_stopping(record, because, grace),
            ObservedState::Pending { .. }
            | ObservedState::Stopped { .. }
            | ObservedState::Terminating { .. }
            | ObservedState::Terminated { .. }
            | ObservedState::Failed { .. } => Step::Nothing,
        },
        DesiredState::Running => toward_running(record),
    }
}

fn toward_running(record: &NodeInstance) -> Step {
    let cycle = Step::Stop { grace: POWER_CYCLE_GRACE };
    match record.state {
        ObservedState::Booting { .. } | ObservedState::Running { .. } | ObservedState::Rebooting { .. } if record.wants_newer_boot() => {
            cycle
        }
        ObservedState::Pending { .. } | ObservedState::Booting { .. } => boot_spec(record).map_or(Step::Nothing, Step::Boot),
        ObservedState::Running { .. } if record.wanted.reboot > record.reboot => Step::Reboot { grace: POWER_CYCLE_GRACE },
        ObservedState::Running { .. } if record.live_generation < record.wanted.generation => {
            boot_spec(record).map_or(Step::Nothing, Step::Reconfigure)
        }
        ObservedState::Rebooting { .. } => Step::Reboot { grace: POWER_CYCLE_GRACE },
        ObservedState::Stopping { because, .. } => go_on_stopping(record, because, POWER_CYCLE_GRACE),
        ObservedState::Running { .. }
        | ObservedState::Stopped { .. }
        | ObservedState::Terminating { .. }
        | ObservedState::Terminated { .. }
        | ObservedState::Failed { .. } => Step::Nothing,
    }
}

fn go_on_stopping(record: &NodeInstance, because: StopCause, grace: Duration) -> Step {
    let killing = record.asked.is_some_and(|asked| asked.step == StepKind::Kill);
    match because {
        StopCause::BootTimedOut => Step::Kill,
        StopCause::Wanted if killing => Step::Kill,
        StopCause::Wanted => Step::Stop { grace },
    }
}

/// What to do when the driver does not answer in time.
fn overdue(kind: StepKind, again: Step) -> Step {
    match kind {
        StepKind::Boot | StepKind::Stop | StepKind::Kill => Step::Kill,
        StepKind::Reboot => {
            Step::ReportImpaired { message: format!("the instance was not up {} s after its reboot began", BOOT_ALLOWED.as_secs()) }
        }
        StepKind::Reconfigure | StepKind::Terminate => again,
    }
}

fn boot_spec(record: &NodeInstance) -> Option<Box<BootSpec>> {
    let spec = record.spec.clone()?;
    Some(Box::new(BootSpec {
        scope: record.scope.clone(),
        id: record.id,
        boot: record.boot,
        generation: record.wanted.generation,
        first: record.first_up_at.is_none(),
        spec,
    }))
}

/// The record once `step` is being done; to be committed before the driver is called.
pub fn begin(record: &NodeInstance, step: &Step, now: Timestamp) -> NodeInstance {
    let mut next = record.clone();
    next.asked = step.kind().map(|kind| Asked { step: kind, at: now, until: now + allowed(step) }).or(record.asked);
    match step {
        Step::Boot(spec) => {
            next.state = ObservedState::Booting { since: now };
            next.health = Health::Ok;
            next.live_generation = spec.generation;
            next.change_refused = None;
            next.boot_began_at = Some(now);
            next.runtime = record.runtime.clone().map(RuntimeReport::at_next_boot);
        }
        Step::Stop { .. } => next.state = stopping(record, StopCause::Wanted, now),
        Step::Kill => {
            let because = match record.wanted.state {
                DesiredState::Running if !record.wants_newer_boot() => StopCause::BootTimedOut,
                DesiredState::Running | DesiredState::Stopped { .. } | DesiredState::Terminated => StopCause::Wanted,
            };
            next.state = stopping(record, because, now);
        }
        Step::Reboot { .. } => {
            next.state = ObservedState::Rebooting { since: now };
            next.health = Health::Ok;
            next.reboot = record.wanted.reboot;
            next.boot_began_at = Some(now);
        }
        Step::Terminate => {
            next.health = Health::Ok;
            next.state = match record.state {
                ObservedState::Terminating { since } => ObservedState::Terminating { since },
                ObservedState::Pending { .. }
                | ObservedState::Booting { .. }
                | ObservedState::Running { .. }
                | ObservedState::Rebooting { .. }
                | ObservedState::Stopping { .. }
                | ObservedState::Stopped { .. }
                | ObservedState::Terminated { .. }
                | ObservedState::Failed { .. } => ObservedState::Terminating { since: now },
            };
        }
        Step::ReportImpaired { message } => {
            next.asked = None;
            next.state = ObservedState::Running { since: record.state.since() };
            next.health = Health::Impaired { since: now, message: message.clone() };
        }
        Step::Reconfigure(_) | Step::WaitUntil(_) | Step::Nothing => {}
    }
    next
}

fn stopping(record: &NodeInstance, because: StopCause, now: Timestamp) -> ObservedState {
    match record.state {
        ObservedState::Stopping { since, because } => ObservedState::Stopping { since, because },
        ObservedState::Pending { .. }
        | ObservedState::Booting { .. }
        | ObservedState::Running { .. }
        | ObservedState::Rebooting { .. }
        | ObservedState::Stopped { .. }
        | ObservedState::Terminating { .. }
        | ObservedState::Terminated { .. }
        | ObservedState::Failed { .. } => ObservedState::Stopping { since: now, because },
    }
}

fn allowed(step: &Step) -> Duration {
    match step {
        Step::Boot(_) => BOOT_ALLOWED,
        Step::Reboot { grace } => *grace + BOOT_ALLOWED,
        Step::Stop { grace } => *grace + STOP_SLACK,
        Step::Kill => KILL_ALLOWED,
        Step::Reconfigure(_) => RECONFIGURE_ALLOWED,
        Step::Terminate => TERMINATE_ALLOWED,
        Step::ReportImpaired { .. } | Step::WaitUntil(_) | Step::Nothing => Duration::ZERO,
    }
}
