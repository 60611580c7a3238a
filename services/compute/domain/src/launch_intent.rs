//! A launch between its being accepted and its being answered.
//!
//! ```text
//! (checked, placed) ──commit──▶ preparing ──network made the interfaces──▶ instances pending, answered
//!                                  │ network refused, or compute was restarted meanwhile
//!                                  ▼
//!                               undoing ──interfaces deleted──▶ (removed)
//! ```
//!
//! The record is there before network is called, so that nothing leaks whenever compute is killed:
//! its instances' ids are what network is asked to delete. Users do not see it, and the places of its
//! instances are held. A launch that nobody waits for any more is undone and never finished: its
//! caller has no answer, and will ask again.

use gureum_model::{
    Scope, Timestamp,
    id::{InstanceId, ReservationId},
};
use serde::{Deserialize, Serialize};

use crate::instance::{Instance, Interface};

/// A launch under way. Stored as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    pub scope: Scope,
    pub reservation_id: ReservationId,
    pub since: Timestamp,
    pub state: LaunchState,
    /// As they will be, but for what network says of their interfaces.
    pub instances: Vec<Instance>,
}

/// How far a launch is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaunchState {
    /// Network is asked for the interfaces.
    Preparing,
    /// What network may have made is taken back; why, in words.
    Undoing { why: String },
}

/// The next step of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchStep {
    /// The call that made it is still at work in this process.
    Wait,
    /// Nobody waits for it: commit [`undo`].
    Undo,
    /// Network deletes the interfaces of all its instances, by their ids; then the record is removed
    /// and the places are given back, in one commit.
    DeleteInterfaces,
}

/// What to do next for a launch. `in_flight`: the call that made it is at work in this process.
pub fn plan_launch(launch: &Launch, in_flight: bool) -> LaunchStep {
    match (&launch.state, in_flight) {
        (LaunchState::Preparing, true) => LaunchStep::Wait,
        (LaunchState::Preparing, false) => LaunchStep::Undo,
        (LaunchState::Undoing { .. }, _) => LaunchStep::DeleteInterfaces,
    }
}

/// The launch as it is to be taken back.
pub fn undo(launch: &Launch, why: &str) -> Launch {
    match launch.state {
        LaunchState::Preparing => Launch { state: LaunchState::Undoing { why: why.to_owned() }, ..launch.clone() },
        LaunchState::Undoing { .. } => launch.clone(),
    }
}

/// The instances with their interfaces as network made them: what is committed in place of the launch,
/// together with their volumes, the client token and the answer. None if the launch is being undone,
/// or network's answer lacks an instance.
pub fn finish(launch: &Launch, mut interfaces: impl FnMut(InstanceId) -> Option<Vec<Interface>>) -> Option<Vec<Instance>> {
    match launch.state {
        LaunchState::Undoing { .. } => None,
        LaunchState::Preparing => launch
            .instances
            .iter()
            .map(|instance| {
                let mut made = interfaces(instance.id)?;
                made.sort_by_key(|interface| interface.device_index);
                Some(Instance { interfaces: made, ..instance.clone() })
            })
            .collect(),
    }
}
