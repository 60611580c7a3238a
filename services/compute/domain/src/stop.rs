//! StopInstances.

use gureum_model::Timestamp;

use crate::instance::{Decision, Instance, InstanceError, InstanceState, Origin, Reason};

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StopMode {
    /// Does not wait for the operating system.
    pub force: bool,
    /// Not offered.
    pub hibernate: bool,
}

/// Stops an instance.
///
/// One that is stopped or stopping is left as it is; force makes a stopping one hurry. One that is
/// launching has never run and cannot be stopped; one that starts again can, as in EC2.
/// Errors: `IncorrectInstanceState`, `OperationNotPermitted` (stop protection), `UnsupportedOperation`.
pub fn stop(it: &Instance, mode: StopMode, now: Timestamp) -> Result<Decision, InstanceError> {
    if mode.hibernate {
        return Err(InstanceError::Hibernate { id: it.id });
    }
    match &it.state {
        InstanceState::Pending { origin: Origin::Launch, .. } => Err(InstanceError::NeverRan { id: it.id }),
        InstanceState::Pending { origin: Origin::Start, .. } | InstanceState::Running { .. } => {
            if it.disable_api_stop {
                return Err(InstanceError::StopProtected { id: it.id, verb: "stopped" });
            }
            let state = InstanceState::Stopping { since: now, reason: Reason::User, force: mode.force, released: false };
            Ok(Decision::change(it.towards(state)))
        }
        InstanceState::Stopping { since, reason, force: false, released } if mode.force && !released => {
            let state = InstanceState::Stopping { since: *since, reason: reason.clone(), force: true, released: false };
            Ok(Decision::change(it.towards(state)))
        }
        InstanceState::Stopping { .. } | InstanceState::Stopped { .. } => Ok(Decision::Unchanged),
        InstanceState::ShuttingDown { .. } | InstanceState::Terminated { .. } => {
            Err(InstanceError::State { id: it.id, state: it.state.name(), verb: "stopped" })
        }
    }
}
