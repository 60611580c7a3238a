//! Why the node refuses.

use gureum_model::{Refusal, RefusalKind, id::InstanceId};

/// Why an intent is not taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("generation {generation} of {id} was taken over with other contents; a change needs a higher generation")]
    GenerationReused { id: InstanceId, generation: u64 },
    #[error("{id} comes without a specification, and this node does not know it yet")]
    SpecMissing { id: InstanceId },
    #[error("{id} is terminated; generation {generation} asks for something else: have its end forgotten first")]
    Terminated { id: InstanceId, generation: u64 },
    #[error("{id} belongs to another scope than generation {generation} says")]
    ScopeChanged { id: InstanceId, generation: u64 },
}

impl From<ApplyError> for Refusal {
    fn from(error: ApplyError) -> Self {
        let text = error.to_string();
        match error {
            ApplyError::GenerationReused { .. } => Self::wrong_state("IdempotentParameterMismatch", text),
            ApplyError::SpecMissing { .. } => Self { message: text, ..Self::missing("spec") },
            ApplyError::Terminated { .. } => Self::wrong_state("IncorrectInstanceState", text),
            ApplyError::ScopeChanged { .. } => Self::invalid("account_id", text),
        }
    }
}

/// Why an instance is not forgotten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgetError {
    #[error("{id} is {state}, not terminated; only what is terminated can be forgotten")]
    NotTerminated { id: InstanceId, state: &'static str },
    #[error("{id} is at generation {generation}, and the acknowledgement is for the older {acknowledged}")]
    Stale { id: InstanceId, generation: u64, acknowledged: u64 },
}

impl From<ForgetError> for Refusal {
    fn from(error: ForgetError) -> Self {
        let text = error.to_string();
        match error {
            ForgetError::NotTerminated { .. } => Self::wrong_state("IncorrectInstanceState", text),
            ForgetError::Stale { .. } => Self::new(RefusalKind::Conflict, "IncorrectState", text),
        }
    }
}

/// Why a fault is not injected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    #[error("the {driver} driver injects no faults; only the sim driver does")]
    NotSimulated { driver: &'static str },
    #[error("the instance {id} does not exist on this node")]
    Unknown { id: InstanceId },
    #[error("the instance {id} is not up, so it can neither be killed, nor hang, nor shut itself down")]
    NotUp { id: InstanceId },
}

impl From<FaultError> for Refusal {
    fn from(error: FaultError) -> Self {
        let text = error.to_string();
        match error {
            FaultError::NotSimulated { .. } => Self::new(RefusalKind::Unsupported, "UnsupportedOperation", text),
            FaultError::Unknown { id } => Self::not_found(id),
            FaultError::NotUp { .. } => Self::wrong_state("IncorrectInstanceState", text),
        }
    }
}
