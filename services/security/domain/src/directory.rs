//! What decisions about one resource must know of others.

use gureum_model::id::{PrefixListId, SecurityGroupId, VpcId};

use crate::{PrefixList, SecurityGroup};

/// The security groups and prefix lists of one scope, as they are at the moment of the decision.
///
/// It must show no other scope's: what it does not show does not exist.
pub trait Directory {
    /// The group with this id.
    fn group(&self, id: SecurityGroupId) -> Option<&SecurityGroup>;

    /// The group of this VPC whose [`crate::group::name_key`] is `name_key`.
    fn group_named(&self, vpc: VpcId, name_key: &str) -> Option<&SecurityGroup>;

    /// The prefix list with this id.
    fn prefix_list(&self, id: PrefixListId) -> Option<&PrefixList>;
}
