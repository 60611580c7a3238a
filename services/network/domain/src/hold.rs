//! Holds of security groups: an interface is never without a hold on its groups, and no hold stays behind.
//!
//! Security keeps, by the interface's id, which groups it uses; setting that is idempotent and replaces what
//! was held. A [`HoldMark`] is the row that says "what security holds for this interface may differ from its
//! record". It is written before or with whatever makes them differ, and goes when they agree.
//!
//! | workflow | commit | call to security | commit |
//! | --- | --- | --- | --- |
//! | create | [`begin`]: mark Taking | hold the groups | `interface_create::create`: interface, mark gone |
//! | change groups | [`begin`]: mark Taking | hold [`both`] old and new | `interface_modify::modify`: groups, mark Settling |
//! | delete | `interface_create::delete`: interface gone, mark Settling | | |
//! | launch | (none: compute's own launch record knows the ids) | hold the groups of the batch | `instance::create` |
//! | end, or undone launch | `instance::delete`: interfaces gone, marks Settling | | |
//! | settle | | hold what the record says, or nothing | [`told`]: mark gone |
//!
//! A Taking mark belongs to the call that wrote it. When that call fails, is cancelled, or the process ended
//! (after a restart no call is under way), [`settle`] takes the mark over: from then on the call's last commit
//! is refused by [`finish_taking`], and the reconciler makes security agree with the record.

use gureum_model::{
    Refusal, RefusalKind, Scope, Timestamp,
    id::{NetworkInterfaceId, SecurityGroupId, VpcId},
};
use serde::{Deserialize, Serialize};

use crate::{Draft, NetworkInterface, View, interface::MAX_GROUPS};

/// What security holds for an interface may differ from its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldMark {
    pub scope: Scope,
    pub interface_id: NetworkInterfaceId,
    pub phase: HoldPhase,
}

/// Who makes them agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldPhase {
    /// The call that wrote the mark, by its last commit.
    Taking { since: Timestamp },
    /// The reconciler.
    Settling { since: Timestamp },
}

/// Begins to take groups for an interface that is to be made or changed.
pub fn begin(draft: &mut Draft<impl View>, interface_id: NetworkInterfaceId, now: Timestamp) -> Result<(), HoldError> {
    if draft.hold_mark(interface_id).is_some() {
        return Err(HoldError::Busy(interface_id));
    }
    let mark = HoldMark { scope: draft.scope().clone(), interface_id, phase: HoldPhase::Taking { since: now } };
    draft.put_hold_mark(mark);
    Ok(())
}

/// Whether the call may still make its last commit; the mark goes.
pub(crate) fn finish_taking(draft: &mut Draft<impl View>, interface_id: NetworkInterfaceId) -> Result<(), HoldError> {
    match draft.hold_mark(interface_id).map(|mark| mark.phase) {
        Some(HoldPhase::Taking { .. }) => {
            draft.remove_hold_mark(interface_id);
            Ok(())
        }
        Some(HoldPhase::Settling { .. }) | None => Err(HoldError::Lost(interface_id)),
    }
}

/// Leaves it to the reconciler to make security agree with the record, whatever there was before.
pub fn settle(draft: &mut Draft<impl View>, interface_id: NetworkInterfaceId, now: Timestamp) {
    let mark = HoldMark { scope: draft.scope().clone(), interface_id, phase: HoldPhase::Settling { since: now } };
    draft.put_hold_mark(mark);
}

/// What is due for a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldPlan {
    /// The call that wrote it is under way.
    Leave,
    /// The call that wrote it is gone: commit [`settle`].
    TakeOver,
    /// Security SetSecurityGroupHolds with these groups of this VPC, then [`told`].
    Hold { vpc_id: VpcId, groups: Vec<SecurityGroupId> },
    /// Security SetSecurityGroupHolds with no groups, then [`told`].
    Release,
}

/// What is due, from the records and from whether the call that wrote the mark is under way in this process.
pub fn plan(mark: &HoldMark, interface: Option<&NetworkInterface>, under_way: bool) -> HoldPlan {
    match (mark.phase, interface) {
        (HoldPhase::Taking { .. }, _) if under_way => HoldPlan::Leave,
        (HoldPhase::Taking { .. }, _) => HoldPlan::TakeOver,
        (HoldPhase::Settling { .. }, Some(interface)) => HoldPlan::Hold { vpc_id: interface.vpc_id, groups: interface.group_ids() },
        (HoldPhase::Settling { .. }, None) => HoldPlan::Release,
    }
}

/// Commit after security was told to hold these groups (none: to release): the mark goes if that is what the record
/// says now; else it stays, and the plan says what is due.
pub fn told(draft: &mut Draft<impl View>, interface_id: NetworkInterfaceId, groups: &[SecurityGroupId]) {
    let wanted = draft.interface(interface_id).map_or_else(|_| Vec::new(), NetworkInterface::group_ids);
    let settling = draft.hold_mark(interface_id).is_some_and(|mark| matches!(mark.phase, HoldPhase::Settling { .. }));
    if settling && wanted == groups {
        draft.remove_hold_mark(interface_id);
    }
}

/// What is held while groups change: old and new together, so that neither can vanish meanwhile.
pub fn both(old: &[SecurityGroupId], new: &[SecurityGroupId]) -> Result<Vec<SecurityGroupId>, HoldError> {
    let mut all = new.to_vec();
    all.extend(old.iter().filter(|id| !new.contains(id)));
    if all.len() > MAX_GROUPS { Err(HoldError::TooMany(all.len())) } else { Ok(all) }
}

/// Why groups are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    #[error("the security groups of {0} are being changed; try again")]
    Busy(NetworkInterfaceId),
    #[error("the call for {0} took too long and was undone; try again")]
    Lost(NetworkInterfaceId),
    #[error("old and new security groups together are {0}, more than the {MAX_GROUPS} that one interface may hold; change fewer at once")]
    TooMany(usize),
}

impl From<HoldError> for Refusal {
    fn from(error: HoldError) -> Self {
        let text = error.to_string();
        match error {
            HoldError::Busy(_) | HoldError::Lost(_) => Self::new(RefusalKind::Conflict, "IncorrectState", text),
            HoldError::TooMany(_) => {
                Self::new(RefusalKind::Exhausted, "SecurityGroupsPerInterfaceLimitExceeded", text).of_field("group_ids")
            }
        }
    }
}
