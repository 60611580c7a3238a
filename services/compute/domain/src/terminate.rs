//! TerminateInstances.

use gureum_model::Timestamp;

use crate::instance::{Decision, Instance, InstanceError, InstanceState, Reason};

/// Ends an instance for good.
///
/// One that is terminated or shutting down is left as it is; force makes the latter hurry.
/// Stop protection protects from termination too, as AWS's user guide on stop protection says.
/// Errors: `OperationNotPermitted`.
pub fn terminate(it: &Instance, force: bool, now: Timestamp) -> Result<Decision, InstanceError> {
    match &it.state {
        InstanceState::Pending { .. } | InstanceState::Running { .. } | InstanceState::Stopping { .. } | InstanceState::Stopped { .. } => {
            if it.disable_api_termination {
                return Err(InstanceError::TerminationProtected { id: it.id });
            }
            if it.disable_api_stop {
                return Err(InstanceError::StopProtected { id: it.id, verb: "terminated" });
            }
            Ok(Decision::change(ending(it, Reason::User, force, now)))
        }
        InstanceState::ShuttingDown { since, reason, force: false, released: false, interfaces_gone } if force => {
            let state = InstanceState::ShuttingDown {
                since: *since,
                reason: reason.clone(),
                force: true,
                released: false,
                interfaces_gone: *interfaces_gone,
            };
            Ok(Decision::change(it.towards(state)))
        }
        InstanceState::ShuttingDown { .. } | InstanceState::Terminated { .. } => Ok(Decision::Unchanged),
    }
}

/// The instance on its way out. Without a node there is nobody to wait for.
pub(crate) fn ending(it: &Instance, reason: Reason, force: bool, now: Timestamp) -> Instance {
    it.towards(InstanceState::ShuttingDown { since: now, reason, force, released: it.node.is_none(), interfaces_gone: false })
}
