//! The VPCs that network has made known: which there are, and which is the scope's default.

use gureum_model::{IdSource, Refusal, RefusalKind, Scope, id::VpcId};
use serde::{Deserialize, Serialize};

use crate::{
    Hold, SecurityGroup,
    group::{GroupError, default_group, refuse_if_used},
    some_of,
};

/// A VPC as far as its groups need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vpc {
    pub scope: Scope,
    pub id: VpcId,
    /// The scope's default VPC: where a group without a VPC is made, and where names are looked up.
    pub is_default: bool,
}

/// What registering does.
#[derive(Debug, Clone, PartialEq)]
pub enum Registration {
    /// It is known already, and as wanted.
    Unchanged,
    /// It is known, and becomes or stops being the default.
    Changed(Vpc),
    /// It is new, and so is its default group.
    New(Vpc, SecurityGroup),
}

/// Makes a VPC known with its default group. Idempotent by its id.
///
/// `known` is the record of the same id, `default` the scope's default VPC as it is. Error:
/// `DefaultVpcAlreadyExists`.
pub fn register(
    scope: &Scope,
    id: VpcId,
    is_default: bool,
    known: Option<&Vpc>,
    default: Option<&Vpc>,
    ids: &IdSource,
) -> Result<Registration, VpcError> {
    if let Some(other) = default.filter(|other| is_default && other.id != id) {
        return Err(VpcError::DefaultExists { id: other.id });
    }
    let vpc = Vpc { scope: scope.clone(), id, is_default };
    Ok(match known {
        Some(known) if known.is_default == is_default => Registration::Unchanged,
        Some(_) => Registration::Changed(vpc),
        None => {
            let group = default_group(&vpc, ids);
            Registration::New(vpc, group)
        }
    })
}

/// Whether a VPC may be forgotten with its default group: it has no other group, and nothing uses that one.
///
/// `groups` are all groups of the VPC, `holders` the holds on its default group. Error: `DependencyViolation`.
pub fn unregister(vpc: &Vpc, groups: &[&SecurityGroup], holders: &[&Hold]) -> Result<(), VpcError> {
    let others: Vec<_> = groups.iter().filter(|group| !group.is_default()).map(|group| group.id.to_string()).collect();
    if !others.is_empty() {
        return Err(VpcError::HasGroups { id: vpc.id, groups: others });
    }
    for default in groups {
        refuse_if_used(default, holders, &[])?;
    }
    Ok(())
}

/// Why a VPC is not registered or forgotten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VpcError {
    #[error("{id} is the default VPC already, and there can be only one")]
    DefaultExists { id: VpcId },
    #[error("the vpc '{id}' has dependencies and cannot be deleted: the security groups {}; delete them first", some_of(groups))]
    HasGroups { id: VpcId, groups: Vec<String> },
    #[error(transparent)]
    DefaultGroup(#[from] GroupError),
}

impl From<VpcError> for Refusal {
    fn from(error: VpcError) -> Self {
        let text = error.to_string();
        match error {
            VpcError::DefaultExists { .. } => Self::new(RefusalKind::AlreadyExists, "DefaultVpcAlreadyExists", text),
            VpcError::HasGroups { .. } => Self::wrong_state("DependencyViolation", text),
            VpcError::DefaultGroup(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bare_group, ids, vpc};

    #[test]
    fn registering_twice_is_once() {
        let scope = Scope::default();
        let Ok(Registration::New(known, group)) = register(&scope, vpc(1), true, None, None, &ids()) else { panic!("it is new") };
        assert!(group.is_default() && group.vpc_id == vpc(1));
        assert_eq!(register(&scope, vpc(1), true, Some(&known), Some(&known), &ids()), Ok(Registration::Unchanged));
        assert_eq!(register(&scope, vpc(2), true, None, Some(&known), &ids()), Err(VpcError::DefaultExists { id: vpc(1) }));
        let plain = Vpc { is_default: false, ..known.clone() };
        assert_eq!(register(&scope, vpc(1), false, Some(&known), Some(&known), &ids()), Ok(Registration::Changed(plain)));
    }

    #[test]
    fn a_vpc_with_groups_stays() {
        let Ok(Registration::New(known, default)) = register(&Scope::default(), vpc(1), false, None, None, &ids()) else {
            panic!("it is new")
        };
        assert_eq!(unregister(&known, &[&default], &[]), Ok(()));
        let reason = |result: Result<(), VpcError>| result.map_err(|error| Refusal::from(error).reason);
        assert_eq!(reason(unregister(&known, &[&default, &bare_group(1)], &[])), Err("DependencyViolation"));
        let hold = Hold { scope: Scope::default(), holder_id: "eni-1".into(), vpc_id: vpc(1), groups: vec![default.id] };
        assert_eq!(reason(unregister(&known, &[&default], &[&hold])), Err("DependencyViolation"));
    }
}
