//! RebootInstances.

use crate::instance::{Decision, Instance, InstanceError, InstanceState};

/// Reboots an instance. It stays running and keeps its addresses and its place.
///
/// Each accepted call reboots once more.
/// Errors: `IncorrectInstanceState`.
pub fn reboot(it: &Instance) -> Result<Decision, InstanceError> {
    match &it.state {
        InstanceState::Running { .. } => {
            let mut next = it.towards(it.state.clone());
            next.reboots += 1;
            Ok(Decision::change(next))
        }
        InstanceState::Pending { .. }
        | InstanceState::Stopping { .. }
        | InstanceState::Stopped { .. }
        | InstanceState::ShuttingDown { .. }
        | InstanceState::Terminated { .. } => Err(InstanceError::State { id: it.id, state: it.state.name(), verb: "rebooted" }),
    }
}
