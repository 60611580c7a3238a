//! Faults that tests inject. Only the `sim` driver has them.

use gureum_model::id::InstanceId;

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The next boots fail: those of one instance, or any on the node.
    FailBoots { count: u32, id: Option<InstanceId>, message: String },
    /// An instance that is up ends by a fault, at once.
    Kill { id: InstanceId, message: String },
    /// An instance that is up stops answering, or answers again.
    Hang { id: InstanceId, hangs: bool },
    /// An instance that is up shuts itself down, at once.
    ShutDown { id: InstanceId },
}

/// Boots that are yet to fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BootFault {
    pub remaining: u32,
    pub id: Option<InstanceId>,
    pub message: String,
}

/// Takes the fault that strikes a boot of `id`, if there is one: the instance's own before the node's.
pub(super) fn strike(faults: &mut Vec<BootFault>, id: InstanceId) -> Option<String> {
    let own = faults.iter().position(|fault| fault.id == Some(id));
    let place = own.or_else(|| faults.iter().position(|fault| fault.id.is_none()))?;
    let fault = faults.get_mut(place)?;
    let message = fault.message.clone();
    fault.remaining -= 1;
    if fault.remaining == 0 {
        faults.remove(place);
    }
    Some(message)
}
