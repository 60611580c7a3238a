//! What a node sees of an instance, as the domain reads it.

use gureum_compute_domain::{
    instance::{Desired, Instance},
    observe::{Report, Seen},
};
use gureum_model::{
    Refusal, Scope,
    id::{InstanceId, NodeId},
};
use gureum_proto::{common::v1::RuntimeReport, node::v1 as proto};

use super::instance::runtime_report;

/// One observation of one instance.
#[derive(Debug, Clone)]
pub struct Observation {
    pub scope: Scope,
    pub instance: InstanceId,
    /// The newest intent that the node has made durable.
    pub generation: u64,
    /// The generation as which it runs; 0 if the driver has refused the last change.
    pub live_generation: u64,
    /// The last boot that was taken up.
    pub boot: u64,
    state: proto::ObservedState,
    crashed: bool,
    message: String,
    /// Reboots that were begun.
    reboots: u64,
    unreachable: bool,
    runtime: Option<RuntimeReport>,
    /// The event that told of it; empty in a snapshot.
    pub event_id: String,
}

impl Observation {
    /// Reads what a node sent. Errors: it cannot be read, which a node of this version never sends.
    pub fn read(seen: proto::InstanceObservation, event_id: String) -> Result<Self, Refusal> {
        let state = seen.state();
        let words = match seen.reason() {
            proto::ObservedReason::Unspecified | proto::ObservedReason::Asked | proto::ObservedReason::InstanceInitiated => "",
            proto::ObservedReason::Crashed => "The instance ended by a fault",
            proto::ObservedReason::NoRoom => "The node has too little left",
            proto::ObservedReason::TooMany => "The node runs as many instances as it can",
            proto::ObservedReason::Unsupported => "The node cannot boot such an image",
            proto::ObservedReason::BootFailed => "The instance failed to boot",
            proto::ObservedReason::BootTimedOut => "The instance was not up in the time allowed",
        };
        Ok(Self {
            scope: Scope::parse(&seen.account_id, &seen.region)?,
            instance: seen.instance_id.parse().map_err(Refusal::from)?,
            generation: seen.generation,
            live_generation: if seen.change_refused.is_empty() { seen.live_generation } else { 0 },
            boot: seen.boot,
            state,
            crashed: seen.reason() == proto::ObservedReason::Crashed,
            message: match (words, seen.reason_message.as_str()) {
                ("", message) => message.to_owned(),
                (words, "") => words.to_owned(),
                (words, message) => format!("{words}: {message}"),
            },
            reboots: seen.reboot,
            unreachable: seen.impaired_since.is_some(),
            runtime: seen.runtime,
            event_id,
        })
    }

    /// The instance is gone with all it had.
    pub fn is_terminated(&self) -> bool {
        self.state == proto::ObservedState::Terminated
    }

    /// It is gone, or is being removed.
    pub fn is_ending(&self) -> bool {
        matches!(self.state, proto::ObservedState::Terminated | proto::ObservedState::Terminating)
    }

    /// The report on an instance; none where the node is on its way from one state to another and its own
    /// next report says where it arrived.
    pub fn report(&self, node: NodeId, it: &Instance) -> Option<Report> {
        let of_boot_before = it.state.desired() == Desired::Run && self.boot < it.boots;
        let seen = match self.state {
            proto::ObservedState::Stopped | proto::ObservedState::Failed | proto::ObservedState::Running if of_boot_before => Seen::Booting,
            proto::ObservedState::Pending | proto::ObservedState::Booting => Seen::Booting,
            proto::ObservedState::Running | proto::ObservedState::Rebooting => Seen::Running,
            proto::ObservedState::Stopped if self.crashed => Seen::Failed(self.message.clone()),
            proto::ObservedState::Stopped => Seen::Stopped,
            proto::ObservedState::Failed => Seen::Failed(self.message.clone()),
            proto::ObservedState::Terminated => Seen::Terminated,
            proto::ObservedState::Stopping | proto::ObservedState::Terminating | proto::ObservedState::Unspecified => return None,
        };
        Some(Report {
            instance: self.instance,
            node,
            generation: self.generation,
            live_generation: self.live_generation,
            seen,
            reboots: (self.state == proto::ObservedState::Running).then_some(self.reboots),
            unreachable: self.unreachable,
            runtime: self.runtime.clone().map(runtime_report),
        })
    }
}
