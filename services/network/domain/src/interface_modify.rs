//! Changing a network interface's attributes.
//!
//! A change of groups is a workflow with the security service: see [`crate::hold`]. [`modify`] is one commit,
//! of everything or, with groups, the second commit of that workflow.

use gureum_model::{
    Refusal, Timestamp,
    id::{AttachmentId, NetworkInterfaceId, SecurityGroupId},
    refusal::Violations,
};

use crate::{
    Draft, Missing, NetworkInterface, View,
    hold::{self, HoldError},
    interface::{Group, MAX_DESCRIPTION_CHARS},
};

/// Parameters of ModifyNetworkInterfaceAttribute as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModifyInput {
    pub network_interface_id: String,
    pub description: Option<String>,
    pub source_dest_check: Option<bool>,
    /// Empty: as they are.
    pub group_ids: Vec<String>,
    /// The attachment and whether the interface goes when the instance terminates.
    pub delete_on_termination: Option<(String, bool)>,
}

/// A change of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modify {
    pub id: NetworkInterfaceId,
    pub description: Option<String>,
    pub source_dest_check: Option<bool>,
    /// Groups to ask security for; empty: as they are.
    pub group_ids: Vec<SecurityGroupId>,
    pub delete_on_termination: Option<(AttachmentId, bool)>,
}

impl ModifyInput {
    /// Errors: `Invalid….Malformed`, `InvalidParameterValue`, `InvalidParameterCombination` (nothing to change).
    pub fn parse(self) -> Result<Modify, Refusal> {
        let mut violations = Violations::new();
        let id = violations.id("network_interface_id", &self.network_interface_id);
        if self.description.as_ref().is_some_and(|text| text.chars().count() > MAX_DESCRIPTION_CHARS) {
            violations.add("description", format!("the description is longer than {MAX_DESCRIPTION_CHARS} characters"));
        }
        let group_ids = violations.ids("group_ids", &self.group_ids);
        let attachment = self.delete_on_termination.and_then(|(text, delete)| {
            violations.id::<AttachmentId>("attachment.attachment_id", &text).map(|attachment| (attachment, delete))
        });
        let nothing = self.description.is_none() && self.source_dest_check.is_none() && self.group_ids.is_empty() && attachment.is_none();
        violations.finish()?;
        if nothing {
            return Err(Refusal::invalid_as("InvalidParameterCombination", "description", "no attribute is given; name one to change"));
        }
        let id = id.ok_or_else(|| Refusal::missing("network_interface_id"))?;
        Ok(Modify {
            id,
            description: self.description,
            source_dest_check: self.source_dest_check,
            group_ids,
            delete_on_termination: attachment,
        })
    }
}

/// Changes an interface. `groups` are what security holds for the change of groups, if there is one.
pub fn modify(
    draft: &mut Draft<impl View>,
    change: &Modify,
    groups: Option<Vec<Group>>,
    now: Timestamp,
) -> Result<NetworkInterface, ModifyError> {
    let mut next = draft.interface(change.id)?.clone();
    if let Some((attachment, delete)) = change.delete_on_termination {
        let known = next.attachment_mut().filter(|known| known.id == attachment).ok_or(Missing::Attachment(attachment))?;
        known.delete_on_termination = delete;
    }
    if let Some(groups) = groups {
        hold::finish_taking(draft, change.id)?;
        // What is held is more than what is now needed.
        hold::settle(draft, change.id, now);
        next.groups = groups;
    }
    next.description = change.description.clone().unwrap_or(next.description);
    next.source_dest_check = change.source_dest_check.unwrap_or(next.source_dest_check);
    draft.put_interface(next.clone());
    Ok(next)
}

/// Why an interface is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModifyError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error(transparent)]
    Hold(#[from] HoldError),
}

impl From<ModifyError> for Refusal {
    fn from(error: ModifyError) -> Self {
        match error {
            ModifyError::Missing(missing) => missing.into(),
            ModifyError::Hold(error) => error.into(),
        }
    }
}
