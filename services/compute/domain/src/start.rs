//! StartInstances.

use gureum_model::Timestamp;

use crate::{
    instance::{Decision, Instance, InstanceError, InstanceState, Origin},
    modify::check_interfaces,
};

/// Decides whether a start needs a place. Only then [`start`] has to be called with one.
pub fn needs_place(it: &Instance) -> bool {
    matches!(it.state, InstanceState::Stopped { .. })
}

/// Starts a stopped instance on `place`, where capacity has been set aside for it.
///
/// One that is pending or running is left as it is, as in EC2.
/// Errors: `IncorrectInstanceState` (also where its root volume was detached);
/// `AttachmentLimitExceeded` (more interfaces than its type allows); `InsufficientInstanceCapacity` where `place` is none.
pub fn start(it: &Instance, place: Option<gureum_model::id::NodeId>, now: Timestamp) -> Result<Decision, InstanceError> {
    match &it.state {
        InstanceState::Pending { .. } | InstanceState::Running { .. } => Ok(Decision::Unchanged),
        InstanceState::Stopped { .. } => {
            if !it.volumes.iter().any(|volume| volume.device_name == it.root_device_name) {
                return Err(InstanceError::NoRoot { id: it.id, device: it.root_device_name.clone() });
            }
            check_interfaces(it, &it.kind)?;
            let no_capacity = || InstanceError::NoCapacity { kind: it.kind.name.clone(), zone: it.availability_zone() };
            let place = place.ok_or_else(no_capacity)?;
            let mut next = it.towards(InstanceState::Pending { since: now, origin: Origin::Start, addresses_ready: false });
            if let Some(old) = it.node.filter(|old| *old != place) {
                next.former_nodes.push(old);
            }
            // It may come back to a node that has not yet been told to forget it.
            next.former_nodes.retain(|former| *former != place);
            next.node = Some(place);
            next.holds_capacity = true;
            next.boots += 1;
            next.launch_time = now;
            next.observed.unreachable_since = None;
            Ok(Decision::change(next))
        }
        InstanceState::Stopping { .. } | InstanceState::ShuttingDown { .. } | InstanceState::Terminated { .. } => {
            Err(InstanceError::State { id: it.id, state: it.state.name(), verb: "started" })
        }
    }
}
