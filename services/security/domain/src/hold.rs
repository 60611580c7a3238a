//! Holds: who uses which groups. A held group cannot be deleted.

use std::collections::BTreeSet;

use gureum_model::{
    Refusal, RefusalKind, Scope,
    id::{SecurityGroupId, VpcId},
    refusal::{Violation, Violations},
};
use serde::{Deserialize, Serialize};

use crate::{
    Directory,
    group::{DEFAULT_GROUP_NAME, name_key},
    some_of,
};

/// Groups that one holder may be in: EC2's highest quota for an interface. More get
/// `SecurityGroupsPerInterfaceLimitExceeded`.
pub const MAX_HELD_GROUPS: usize = 16;

/// Which groups one holder uses: a row as long as it uses any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub scope: Scope,
    /// The network interface or other resource that uses them.
    pub holder_id: String,
    /// All the groups are in it.
    pub vpc_id: VpcId,
    /// 1 to [`MAX_HELD_GROUPS`], in the order asked for, none twice.
    pub groups: Vec<SecurityGroupId>,
}

/// What a caller wants held.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HoldInput {
    pub holder_id: String,
    /// Empty where nothing is wanted.
    pub vpc_id: String,
    pub group_ids: Vec<String>,
    /// Names in that VPC, beside the ids.
    pub group_names: Vec<String>,
    /// Without ids and names: the VPC's default group in place of none.
    pub default_if_empty: bool,
}

/// A checked [`HoldInput`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRequest {
    pub holder_id: String,
    pub wanted: Wanted,
}

/// The groups that a holder wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// None: it lets go of all.
    Nothing,
    /// The VPC's default group.
    Default { vpc: VpcId },
    /// These of the VPC: ids first, then names.
    Groups { vpc: VpcId, ids: Vec<SecurityGroupId>, names: Vec<String> },
}

/// Reads what holders want; every violation is recorded with its path under `field`, a holder named
/// twice among them.
pub fn parse_holds(field: &str, holds: &[HoldInput], violations: &mut Violations) -> Vec<HoldRequest> {
    let mut seen = BTreeSet::new();
    let mut requests = Vec::with_capacity(holds.len());
    for (place, hold) in holds.iter().enumerate() {
        let path = format!("{field}[{place}]");
        if hold.holder_id.is_empty() {
            violations.add_as("MissingParameter", format!("{path}.holder_id"), "a hold needs a holder");
        } else if !seen.insert(hold.holder_id.as_str()) {
            violations.add(format!("{path}.holder_id"), format!("the holder {} is given twice", hold.holder_id));
        }
        if let Some(wanted) = parse_wanted(&path, hold, violations) {
            requests.push(HoldRequest { holder_id: hold.holder_id.clone(), wanted });
        }
    }
    requests
}

fn parse_wanted(path: &str, hold: &HoldInput, violations: &mut Violations) -> Option<Wanted> {
    let named = !hold.group_ids.is_empty() || !hold.group_names.is_empty();
    if !named && !hold.default_if_empty {
        return Some(Wanted::Nothing);
    }
    let vpc = if hold.vpc_id.is_empty() {
        violations.add_as("MissingParameter", format!("{path}.vpc_id"), "vpc_id is required where a group is wanted");
        None
    } else {
        violations.id(format!("{path}.vpc_id"), &hold.vpc_id)
    };
    let ids = violations.ids(&format!("{path}.group_ids"), &hold.group_ids);
    let vpc = vpc?;
    Some(if named { Wanted::Groups { vpc, ids, names: hold.group_names.clone() } } else { Wanted::Default { vpc } })
}

/// What setting a hold does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldDecision {
    /// The holder holds exactly this already, or held nothing and wants nothing.
    Unchanged,
    /// It holds these from now on, in place of those it held.
    Set(Hold),
    /// It lets go of all; its row goes.
    Release,
}

/// Decides which groups a holder holds from now on. `held` is its row as it is.
///
/// Errors: `InvalidGroup.NotFound` (all that are missing are named), `InvalidParameterValue` (a group of
/// another VPC), `SecurityGroupsPerInterfaceLimitExceeded`.
pub fn set(scope: &Scope, request: &HoldRequest, held: Option<&Hold>, directory: &impl Directory) -> Result<HoldDecision, HoldError> {
    let (vpc_id, groups) = match &request.wanted {
        Wanted::Nothing => return Ok(if held.is_some() { HoldDecision::Release } else { HoldDecision::Unchanged }),
        Wanted::Default { vpc } => (*vpc, find_groups(*vpc, &[], &[DEFAULT_GROUP_NAME.to_owned()], directory)?),
        Wanted::Groups { vpc, ids, names } => (*vpc, find_groups(*vpc, ids, names, directory)?),
    };
    if groups.len() > MAX_HELD_GROUPS {
        return Err(HoldError::TooMany { holder: request.holder_id.clone(), count: groups.len() });
    }
    let next = Hold { scope: scope.clone(), holder_id: request.holder_id.clone(), vpc_id, groups };
    Ok(if held == Some(&next) { HoldDecision::Unchanged } else { HoldDecision::Set(next) })
}

fn find_groups(
    vpc: VpcId,
    ids: &[SecurityGroupId],
    names: &[String],
    directory: &impl Directory,
) -> Result<Vec<SecurityGroupId>, HoldError> {
    let (mut found, mut missing, mut elsewhere) = (Vec::new(), Vec::new(), Vec::new());
    for (place, id) in ids.iter().enumerate() {
        let field = format!("group_ids[{place}]");
        match directory.group(*id) {
            Some(group) if group.vpc_id == vpc => found.push(*id),
            Some(group) => elsewhere.push((field, format!("{id} of {}", group.vpc_id))),
            None => missing.push((field, id.to_string())),
        }
    }
    for (place, name) in names.iter().enumerate() {
        match directory.group_named(vpc, &name_key(name)) {
            Some(group) => found.push(group.id),
            None => missing.push((format!("group_names[{place}]"), name.clone())),
        }
    }
    if !missing.is_empty() {
        return Err(HoldError::NotFound { groups: missing, vpc });
    }
    if !elsewhere.is_empty() {
        return Err(HoldError::OtherVpc { groups: elsewhere, vpc });
    }
    let mut seen = BTreeSet::new();
    found.retain(|id| seen.insert(*id));
    Ok(found)
}

/// Why groups are not held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// The groups with where they stand in the hold.
    #[error("The security group '{}' does not exist in VPC '{vpc}'", some_of(&names(groups)))]
    NotFound { groups: Vec<(String, String)>, vpc: VpcId },
    #[error("the security groups {} do not belong to VPC '{vpc}'", some_of(&names(groups)))]
    OtherVpc { groups: Vec<(String, String)>, vpc: VpcId },
    #[error("{holder} would be in {count} security groups, and {MAX_HELD_GROUPS} are the limit")]
    TooMany { holder: String, count: usize },
}

fn names(groups: &[(String, String)]) -> Vec<String> {
    groups.iter().map(|(_, name)| name.clone()).collect()
}

/// Fields as they stand in a hold.
impl From<HoldError> for Refusal {
    fn from(error: HoldError) -> Self {
        let text = error.to_string();
        let each = |groups: &[(String, String)], words: &dyn Fn(&str) -> String| {
            groups.iter().map(|(field, name)| Violation { field: field.clone(), description: words(name) }).collect()
        };
        match &error {
            HoldError::NotFound { groups, vpc } => Self {
                violations: each(groups, &|name| format!("The security group '{name}' does not exist in VPC '{vpc}'")),
                ..Self::new(RefusalKind::NotFound, "InvalidGroup.NotFound", text)
            },
            HoldError::OtherVpc { groups, vpc } => Self {
                violations: each(groups, &|name| format!("the security group {name} does not belong to VPC '{vpc}'")),
                ..Self::invalid("group_ids", text)
            },
            HoldError::TooMany { .. } => {
                Self::new(RefusalKind::Exhausted, "SecurityGroupsPerInterfaceLimitExceeded", text).of_field("group_ids")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Vpc,
        group::{default_group, delete},
        testing::{World, bare_group, ids, sg, vpc},
    };
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// VPC 1 with groups 1 to 4 and a default one; group 5 is in VPC 2.
    fn world() -> World {
        let mut world = World::default();
        (1..=5).for_each(|number| world.put(bare_group(number)));
        world.groups.get_mut(&sg(5)).unwrap().vpc_id = vpc(2);
        world.put(default_group(&Vpc { scope: Scope::default(), id: vpc(1), is_default: true }, &ids()));
        world
    }

    fn parse(inputs: &[HoldInput]) -> Result<Vec<HoldRequest>, Refusal> {
        let mut violations = Violations::new();
        let requests = parse_holds("holds", inputs, &mut violations);
        violations.finish().map(|()| requests)
    }

    fn want(ids: &[u128], names: &[&str]) -> HoldInput {
        HoldInput {
            holder_id: "eni-1".into(),
            vpc_id: vpc(1).to_string(),
            group_ids: ids.iter().map(|number| sg(*number).to_string()).collect(),
            group_names: names.iter().map(|name| (*name).to_owned()).collect(),
            default_if_empty: false,
        }
    }

    fn decide(input: HoldInput, held: Option<&Hold>) -> Result<HoldDecision, &'static str> {
        let requests = parse(&[input]).map_err(|refusal| refusal.reason)?;
        set(&Scope::default(), &requests[0], held, &world()).map_err(|error| Refusal::from(error).reason)
    }

    proptest! {
        /// Holds and deletes in any order: no group that is held is ever gone.
        #[test]
        fn no_held_group_goes(commands in prop::collection::vec((any::<bool>(), 0..3usize, prop::collection::vec(1..5u128, 0..4)), 1..40)) {
            let mut world = world();
            let mut holds: BTreeMap<String, Hold> = BTreeMap::new();
            for (deletes, holder, groups) in commands {
                let holder = format!("eni-{holder}");
                if deletes {
                    for group in groups.iter().filter_map(|number| world.groups.get(&sg(*number)).cloned()).collect::<Vec<_>>() {
                        let holders: Vec<_> = holds.values().collect();
                        if delete(&group, &holders, &[]).is_ok() {
                            world.groups.remove(&group.id);
                        }
                    }
                    continue;
                }
                let input = HoldInput { holder_id: holder.clone(), ..want(&groups, &[]) };
                let request = &parse(&[input]).unwrap()[0];
                match set(&Scope::default(), request, holds.get(&holder), &world) {
                    Ok(HoldDecision::Set(hold)) => drop(holds.insert(holder.clone(), hold)),
                    Ok(HoldDecision::Release) => drop(holds.remove(&holder)),
                    Ok(HoldDecision::Unchanged) | Err(_) => {}
                }
                // Setting again what was just set changes nothing.
                if groups.iter().all(|number| world.groups.contains_key(&sg(*number))) {
                    prop_assert_eq!(set(&Scope::default(), request, holds.get(&holder), &world), Ok(HoldDecision::Unchanged));
                }
                for hold in holds.values() {
                    prop_assert!(hold.groups.iter().all(|id| world.groups.contains_key(id)));
                }
            }
        }
    }

    #[test]
    fn groups_are_held_by_id_by_name_and_by_default() {
        let held = |decision: Result<HoldDecision, &'static str>| match decision {
            Ok(HoldDecision::Set(hold)) => hold.groups,
            other => panic!("{other:?}"),
        };
        assert_eq!(held(decide(want(&[2, 1, 2], &["G3"]), None)), [sg(2), sg(1), sg(3)]);
        let default = held(decide(HoldInput { default_if_empty: true, ..want(&[], &[]) }, None));
        assert!(world().groups[&default[0]].is_default());
        assert_eq!(held(decide(HoldInput { default_if_empty: true, ..want(&[1], &[]) }, None)), [sg(1)]);
        let nothing = HoldInput { holder_id: "eni-1".into(), ..HoldInput::default() };
        assert_eq!(decide(nothing.clone(), None), Ok(HoldDecision::Unchanged));
        let row = Hold { scope: Scope::default(), holder_id: "eni-1".into(), vpc_id: vpc(1), groups: vec![sg(1)] };
        assert_eq!(decide(nothing, Some(&row)), Ok(HoldDecision::Release));
    }

    #[test]
    fn each_fault_has_its_code() {
        assert_eq!(decide(want(&[9], &[]), None), Err("InvalidGroup.NotFound"));
        assert_eq!(decide(want(&[], &["g5"]), None), Err("InvalidGroup.NotFound"));
        assert_eq!(decide(want(&[5], &[]), None), Err("InvalidParameterValue"));
        assert_eq!(decide(HoldInput { vpc_id: String::new(), ..want(&[1], &[]) }, None), Err("MissingParameter"));
        let two = [want(&[1], &[]), HoldInput { group_ids: vec!["sg-1".into()], ..want(&[], &[]) }];
        let fields: Vec<_> = parse(&two).unwrap_err().violations.into_iter().map(|violation| violation.field).collect();
        assert_eq!(fields, ["holds[1].holder_id", "holds[1].group_ids[0]"]);
    }
}
