//! Security groups: making, naming, finding and deleting them.

use std::{borrow::Cow, collections::BTreeSet};

use gureum_model::{
    Filter, Filterable, Filters, IdSource, Refusal, RefusalKind, Scope, Tags,
    filter::matches_pattern,
    id::{PrefixListId, SecurityGroupId, VpcId},
    refusal::Violations,
};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{
    Directory, Hold, MAX_TEXT_CHARS, SecurityGroupRule, Vpc, is_text_char, permission::Peer, rule::Direction, some_of, traffic::Traffic,
};

/// Groups that one scope may have, as EC2 has it by default. More get `SecurityGroupLimitExceeded`.
pub const MAX_GROUPS: usize = 2500;
/// The name of the group that each VPC has from its birth to its end; no other may have it.
pub const DEFAULT_GROUP_NAME: &str = "default";

/// A named set of rules that says which flows the interfaces in it accept and make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub scope: Scope,
    pub id: SecurityGroupId,
    /// Unique in its VPC, whatever the case of its letters.
    pub name: String,
    pub description: String,
    pub vpc_id: VpcId,
    /// Ingress first, each direction in the order in which its rules were added; no two are the same.
    pub rules: Vec<SecurityGroupRule>,
    pub tags: Tags,
}

impl SecurityGroup {
    /// Whether it is its VPC's default group, which nobody can delete.
    pub fn is_default(&self) -> bool {
        self.name == DEFAULT_GROUP_NAME
    }

    /// `arn:aws:ec2:REGION:ACCOUNT:security-group/ID`.
    pub fn arn(&self) -> String {
        self.scope.arn("ec2", format_args!("security-group/{}", self.id))
    }

    /// The rules of one direction, in order.
    pub fn rules_of(&self, direction: Direction) -> impl Iterator<Item = &SecurityGroupRule> {
        self.rules.iter().filter(move |rule| rule.direction == direction)
    }

    /// The other groups that its rules name: what keeps them from being deleted.
    pub fn references(&self) -> BTreeSet<SecurityGroupId> {
        let named = self.rules.iter().filter_map(|rule| match rule.peer {
            Peer::Group(id) => Some(id),
            Peer::Ipv4(_) | Peer::Ipv6(_) | Peer::PrefixList(_) => None,
        });
        named.filter(|id| *id != self.id).collect()
    }

    /// The prefix lists that its rules name, which cannot be deleted.
    pub fn prefix_lists(&self) -> BTreeSet<PrefixListId> {
        let named = self.rules.iter().filter_map(|rule| match rule.peer {
            Peer::PrefixList(id) => Some(id),
            Peer::Ipv4(_) | Peer::Ipv6(_) | Peer::Group(_) => None,
        });
        named.collect()
    }
}

/// What two names must not share within a VPC. EC2's names are unique without regard to case.
pub fn name_key(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// A checked request for a new group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGroup {
    pub name: String,
    pub description: String,
    pub tags: Tags,
}

impl NewGroup {
    /// Checks name and description; every violation is recorded.
    ///
    /// Both have 1 to 255 characters of EC2's set. A name does not begin with `sg-` and is not
    /// `default` (`InvalidGroup.Reserved`); spaces at its end are dropped, as EC2 drops them.
    pub fn parse(name: &str, description: &str, tags: Tags, violations: &mut Violations) -> Option<Self> {
        let name = name.trim_end_matches(' ');
        let fits = |text: &str| (1..=MAX_TEXT_CHARS).contains(&text.chars().count()) && text.chars().all(is_text_char);
        let (good_name, good_description) = (fits(name), fits(description));
        let set = "a-z, A-Z, 0-9, spaces, and ._-:/()#,@[]+=&;{}!$*";
        if !good_name {
            violations.add(
                "group_name",
                format!("Value ({name}) for parameter GroupName is invalid: expected 1 to {MAX_TEXT_CHARS} characters out of {set}"),
            );
        } else if name == DEFAULT_GROUP_NAME {
            violations.add_as("InvalidGroup.Reserved", "group_name", "Cannot use reserved security group name: default");
        } else if name_key(name).starts_with("sg-") {
            violations.add(
                "group_name",
                format!("Value ({name}) for parameter GroupName is invalid. Group names may not be in the format sg-*."),
            );
        }
        if !good_description {
            violations
                .add("description", format!("Invalid security group description: expected 1 to {MAX_TEXT_CHARS} characters out of {set}"));
        }
        (good_name && good_description).then(|| Self { name: name.to_owned(), description: description.to_owned(), tags })
    }
}

/// Makes a group in `vpc` with EC2's one rule: egress of everything to 0.0.0.0/0.
///
/// `groups_in_scope` is how many there are already. Errors: `InvalidGroup.Duplicate`,
/// `SecurityGroupLimitExceeded`.
pub fn create(
    new: NewGroup,
    vpc: &Vpc,
    groups_in_scope: usize,
    ids: &IdSource,
    directory: &impl Directory,
) -> Result<SecurityGroup, GroupError> {
    if let Some(taken) = directory.group_named(vpc.id, &name_key(&new.name)) {
        return Err(GroupError::Duplicate { name: new.name, vpc: vpc.id, id: taken.id });
    }
    if groups_in_scope >= MAX_GROUPS {
        return Err(GroupError::LimitExceeded);
    }
    Ok(SecurityGroup {
        scope: vpc.scope.clone(),
        id: ids.next(),
        name: new.name,
        description: new.description,
        vpc_id: vpc.id,
        rules: vec![default_rule(ids, Direction::Egress, Peer::Ipv4(Ipv4Net::default()))],
        tags: new.tags,
    })
}

/// The group that a VPC is born with: ingress of everything from itself, egress of everything to
/// 0.0.0.0/0, as EC2 makes it. It does not count against [`MAX_GROUPS`] at its making.
pub fn default_group(vpc: &Vpc, ids: &IdSource) -> SecurityGroup {
    let id = ids.next();
    SecurityGroup {
        scope: vpc.scope.clone(),
        id,
        name: DEFAULT_GROUP_NAME.to_owned(),
        description: "default VPC security group".to_owned(),
        vpc_id: vpc.id,
        rules: vec![
            default_rule(ids, Direction::Ingress, Peer::Group(id)),
            default_rule(ids, Direction::Egress, Peer::Ipv4(Ipv4Net::default())),
        ],
        tags: Tags::default(),
    }
}

fn default_rule(ids: &IdSource, direction: Direction, peer: Peer) -> SecurityGroupRule {
    SecurityGroupRule { id: ids.next(), direction, traffic: Traffic::All, peer, description: String::new(), tags: Tags::default() }
}

/// Whether a group may go: it is no default group, no holder uses it, and no other group's rule names it.
///
/// `holders` are the holds that hold it, `naming` the groups whose rules name it; both empty let it go.
pub fn delete(group: &SecurityGroup, holders: &[&Hold], naming: &[&SecurityGroup]) -> Result<(), GroupError> {
    if group.is_default() {
        return Err(GroupError::Default { id: group.id });
    }
    refuse_if_used(group, holders, naming)
}

/// Refuses if a holder uses the group or another group's rule names it.
pub(crate) fn refuse_if_used(group: &SecurityGroup, holders: &[&Hold], naming: &[&SecurityGroup]) -> Result<(), GroupError> {
    let holders: Vec<_> = holders.iter().filter(|hold| hold.groups.contains(&group.id)).map(|hold| hold.holder_id.clone()).collect();
    let naming: Vec<_> = naming.iter().filter(|other| other.references().contains(&group.id)).map(|other| other.id).collect();
    if holders.is_empty() && naming.is_empty() { Ok(()) } else { Err(GroupError::InUse { id: group.id, holders, naming }) }
}

/// How a request names a group: by id, or by its name in the default VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupSelector {
    Id(SecurityGroupId),
    Name(String),
}

impl GroupSelector {
    /// Reads `group_id` and `group_name`, of which exactly one is given.
    ///
    /// Codes: `MissingParameter`, `InvalidParameterCombination`, `InvalidGroupId.Malformed`.
    pub fn parse(group_id: &str, group_name: &str, violations: &mut Violations) -> Option<Self> {
        match (group_id.is_empty(), group_name.is_empty()) {
            (true, true) => {
                violations.add_as("MissingParameter", "group_id", "group_id or group_name is required");
                None
            }
            (false, false) => {
                let text = "The parameter 'groupName' may not be used in combination with 'groupId'";
                violations.add_as("InvalidParameterCombination", "group_name", text);
                None
            }
            (false, true) => violations.id("group_id", group_id).map(Self::Id),
            (true, false) => Some(Self::Name(group_name.to_owned())),
        }
    }

    /// The group that is meant. Errors: `InvalidGroup.NotFound`, `VPCIdNotSpecified` (a name without a
    /// default VPC).
    pub fn find<'a>(&self, default_vpc: Option<&Vpc>, directory: &'a impl Directory) -> Result<&'a SecurityGroup, GroupError> {
        match self {
            Self::Id(id) => directory.group(*id).ok_or_else(|| GroupError::NotFound { groups: vec![id.to_string()] }),
            Self::Name(name) => {
                let vpc = default_vpc.ok_or(GroupError::NoDefaultVpc)?;
                let missing = || GroupError::NameNotFound { name: name.clone(), vpc: vpc.id };
                directory.group_named(vpc.id, &name_key(name)).ok_or_else(missing)
            }
        }
    }
}

/// Why something is not done with a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    #[error("The security group '{name}' already exists for VPC '{vpc}', as {id}; choose another name")]
    Duplicate { name: String, vpc: VpcId, id: SecurityGroupId },
    #[error("the account has {MAX_GROUPS} security groups in this region already; delete one that is not used")]
    LimitExceeded,
    #[error("the specified group: \"{id}\" name: \"default\" cannot be deleted by a user; it goes with its VPC")]
    Default { id: SecurityGroupId },
    #[error("resource {id} has a dependent object: {}", users(holders, naming))]
    InUse { id: SecurityGroupId, holders: Vec<String>, naming: Vec<SecurityGroupId> },
    #[error("The security group '{}' does not exist", some_of(groups))]
    NotFound { groups: Vec<String> },
    #[error("The security group '{name}' does not exist in default VPC '{vpc}'")]
    NameNotFound { name: String, vpc: VpcId },
    #[error("No default VPC for this user; name the VPC, or the group by its id")]
    NoDefaultVpc,
}

fn users(holders: &[String], naming: &[SecurityGroupId]) -> String {
    match (holders.is_empty(), naming.is_empty()) {
        (false, false) => format!("it is used by {}, and named in rules of {}", some_of(holders), some_of(naming)),
        (false, true) => format!("it is used by {}", some_of(holders)),
        (true, _) => format!("it is named in rules of {}", some_of(naming)),
    }
}

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Self {
        let text = error.to_string();
        match error {
            GroupError::Duplicate { .. } => Self::new(RefusalKind::AlreadyExists, "InvalidGroup.Duplicate", text).of_field("group_name"),
            GroupError::LimitExceeded => Self::new(RefusalKind::Exhausted, "SecurityGroupLimitExceeded", text),
            GroupError::Default { .. } => Self::wrong_state("CannotDelete", text),
            GroupError::InUse { .. } => Self::wrong_state("DependencyViolation", text),
            GroupError::NotFound { .. } => Self::new(RefusalKind::NotFound, "InvalidGroup.NotFound", text).of_field("group_id"),
            GroupError::NameNotFound { .. } => Self::new(RefusalKind::NotFound, "InvalidGroup.NotFound", text).of_field("group_name"),
            GroupError::NoDefaultVpc => Self::invalid_as("VPCIdNotSpecified", "vpc_id", text),
        }
    }
}

/// EC2's filters. A rule knows the groups it names by id: `ip-permission.group-name` is for [`by_group_id`] first.
/// A filter matches if any rule does, so several filters may be met by several rules, as in EC2.
impl Filterable for SecurityGroup {
    const FILTER_NAMES: &'static [&'static str] = &[
        "description",
        "egress.ip-permission.cidr",
        "egress.ip-permission.from-port",
        "egress.ip-permission.group-id",
        "egress.ip-permission.group-name",
        "egress.ip-permission.ipv6-cidr",
        "egress.ip-permission.prefix-list-id",
        "egress.ip-permission.protocol",
        "egress.ip-permission.to-port",
        "egress.ip-permission.user-id",
        "group-id",
        "group-name",
        "ip-permission.cidr",
        "ip-permission.from-port",
        "ip-permission.group-id",
        "ip-permission.group-name",
        "ip-permission.ipv6-cidr",
        "ip-permission.prefix-list-id",
        "ip-permission.protocol",
        "ip-permission.to-port",
        "ip-permission.user-id",
        "owner-id",
        "vpc-id",
    ];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "description" => vec![Cow::Borrowed(&self.description)],
            "group-id" => vec![Cow::Owned(self.id.to_string())],
            "group-name" => vec![Cow::Borrowed(&self.name)],
            "owner-id" => vec![Cow::Owned(self.scope.account.to_string())],
            "vpc-id" => vec![Cow::Owned(self.vpc_id.to_string())],
            _ => {
                let (direction, rest) = name.strip_prefix("egress.").map_or((Direction::Ingress, name), |rest| (Direction::Egress, rest));
                let field = rest.strip_prefix("ip-permission.").unwrap_or_default();
                self.rules_of(direction).filter_map(|rule| self.rule_value(rule, field)).map(Cow::Owned).collect()
            }
        }
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }
}

/// Filters by the names of groups in rules, as filters by the ids of those that have the names. `ids` are those of
/// the groups whose names pass.
pub fn by_group_id(filters: Filters, ids: impl Fn(&dyn Fn(&str) -> bool) -> Vec<SecurityGroupId>) -> Filters {
    filters.reworded(|filter| {
        let Some(direction) = filter.name.strip_suffix("ip-permission.group-name") else { return filter };
        let named = ids(&|name| filter.values.iter().any(|pattern| matches_pattern(pattern, name)));
        // With no value nothing passes.
        Filter { name: format!("{direction}ip-permission.group-id"), values: named.iter().map(ToString::to_string).collect() }
    })
}

impl SecurityGroup {
    fn rule_value(&self, rule: &SecurityGroupRule, field: &str) -> Option<String> {
        match (field, &rule.peer) {
            ("protocol", _) => Some(rule.traffic.protocol()),
            ("from-port", _) => (rule.traffic != Traffic::All).then(|| rule.traffic.from_port().to_string()),
            ("to-port", _) => (rule.traffic != Traffic::All).then(|| rule.traffic.to_port().to_string()),
            ("cidr", Peer::Ipv4(network)) => Some(network.to_string()),
            ("ipv6-cidr", Peer::Ipv6(network)) => Some(network.to_string()),
            ("prefix-list-id", Peer::PrefixList(id)) => Some(id.to_string()),
            ("group-id", Peer::Group(id)) => Some(id.to_string()),
            // A rule names groups of its own account only.
            ("user-id", Peer::Group(_)) => Some(self.scope.account.to_string()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, bare_group, ids, rule, sg, tcp, v4, vpc};
    use proptest::prelude::*;

    fn new(name: &str, description: &str) -> Result<NewGroup, Refusal> {
        let mut violations = Violations::new();
        let new = NewGroup::parse(name, description, Tags::default(), &mut violations);
        violations.finish().map(|()| new.unwrap())
    }

    fn the_vpc() -> Vpc {
        Vpc { scope: Scope::default(), id: vpc(1), is_default: true }
    }

    proptest! {
        #[test]
        fn a_name_is_taken_whatever_its_case(name in "[a-z][a-zA-Z0-9 ._:/()#,@+=&;{}!$*-]{0,20}[a-z]") {
            prop_assume!(name_key(&name) != "default" && !name_key(&name).starts_with("sg-"));
            let mut world = World::default();
            world.put(create(new(&name, "d").unwrap(), &the_vpc(), 0, &ids(), &world).unwrap());
            let again = create(new(&name.to_ascii_uppercase(), "d").unwrap(), &the_vpc(), 1, &ids(), &world);
            prop_assert_eq!(again.map_err(|error| Refusal::from(error).reason), Err("InvalidGroup.Duplicate"));
        }
    }

    #[test]
    fn names_and_descriptions_are_checked_together() {
        assert_eq!(new("default", "d").unwrap_err().reason, "InvalidGroup.Reserved");
        assert_eq!(new("sg-017c251", "d").unwrap_err().reason, "InvalidParameterValue");
        assert_eq!(new("", "").unwrap_err().violations.len(), 2);
        assert_eq!(new("web", "postgres → aurora").unwrap_err().violations[0].field, "description");
        assert_eq!(new(&"x".repeat(256), "d").unwrap_err().reason, "InvalidParameterValue");
        assert_eq!(new("web servers ", "for the web").map(|new| new.name), Ok("web servers".to_owned()));
        assert!(new("a_b-c:d/e(f)#,@[g]+=&;{h}!$*", "ok").is_ok());
    }

    #[test]
    fn the_groups_of_a_new_vpc() {
        let mut world = World::default();
        let default = default_group(&the_vpc(), &ids());
        assert!(default.is_default());
        assert_eq!(default.rules_of(Direction::Ingress).map(|rule| rule.peer).collect::<Vec<_>>(), [Peer::Group(default.id)]);
        assert_eq!(default.rules_of(Direction::Egress).map(|rule| rule.peer).collect::<Vec<_>>(), [v4("0.0.0.0/0")]);
        assert!(default.references().is_empty());
        world.put(default);
        // The default group's name is taken in any case of its letters.
        let refusal = create(new("Default", "d").unwrap(), &the_vpc(), 1, &ids(), &world).map_err(|error| Refusal::from(error).reason);
        assert_eq!(refusal, Err("InvalidGroup.Duplicate"));
        let made = create(new("web", "d").unwrap(), &the_vpc(), 1, &IdSource::seeded(2), &world).unwrap();
        assert_eq!(made.rules.len(), 1);
        assert_eq!(made.arn(), format!("arn:aws:ec2:us-east-1:000000000000:security-group/{}", made.id));
        let full = create(new("more", "d").unwrap(), &the_vpc(), MAX_GROUPS, &ids(), &world).map_err(|error| Refusal::from(error).reason);
        assert_eq!(full, Err("SecurityGroupLimitExceeded"));
    }

    #[test]
    fn who_uses_a_group_keeps_it() {
        let (web, mut db) = (bare_group(1), bare_group(2));
        assert_eq!(delete(&web, &[], &[&db]), Ok(()));
        db.rules.push(rule(1, Direction::Ingress, tcp(5432, 5432), Peer::Group(sg(1))));
        let hold = Hold { scope: Scope::default(), holder_id: "eni-1".into(), vpc_id: vpc(1), groups: vec![sg(1)] };
        let refusal = Refusal::from(delete(&web, &[&hold], &[&db]).unwrap_err());
        assert_eq!(refusal.reason, "DependencyViolation");
        assert!(refusal.message.contains("eni-1") && refusal.message.contains(&sg(2).to_string()), "{}", refusal.message);
        // Its own rules do not hold a group.
        assert_eq!(delete(&db, &[&hold], &[&web, &db]), Ok(()));
        let mut own = bare_group(3);
        own.name = DEFAULT_GROUP_NAME.into();
        assert_eq!(delete(&own, &[], &[]).map_err(|error| Refusal::from(error).reason), Err("CannotDelete"));
    }

    #[test]
    fn a_group_is_found_by_id_or_by_name_in_the_default_vpc() {
        let mut world = World::default();
        world.put(bare_group(1));
        let find = |id: &str, name: &str, vpc: Option<&Vpc>| -> Result<SecurityGroupId, &'static str> {
            let mut violations = Violations::new();
            let selector = GroupSelector::parse(id, name, &mut violations);
            violations.finish().map_err(|refusal| refusal.reason)?;
            selector.unwrap().find(vpc, &world).map(|group| group.id).map_err(|error| Refusal::from(error).reason)
        };
        let vpc = the_vpc();
        assert_eq!(find(&sg(1).to_string(), "", None), Ok(sg(1)));
        assert_eq!(find("", "G1", Some(&vpc)), Ok(sg(1)));
        assert_eq!(find("", "g1", None), Err("VPCIdNotSpecified"));
        assert_eq!(find("", "g2", Some(&vpc)), Err("InvalidGroup.NotFound"));
        assert_eq!(find(&sg(2).to_string(), "", None), Err("InvalidGroup.NotFound"));
        assert_eq!(find("sg-1", "", None), Err("InvalidGroupId.Malformed"));
        assert_eq!(find("", "", None), Err("MissingParameter"));
        assert_eq!(find("sg-1", "g1", None), Err("InvalidParameterCombination"));
    }

    #[test]
    fn filters_look_into_the_rules() {
        let mut group = bare_group(1);
        group.rules.push(rule(1, Direction::Ingress, tcp(22, 23), v4("10.0.0.0/8")));
        group.rules.push(rule(2, Direction::Egress, Traffic::All, Peer::Group(sg(9))));
        let passes = |name: &str, value: &str| {
            let filter = Filter { name: name.into(), values: vec![value.into()] };
            Filters::for_kind::<SecurityGroup>(vec![filter]).unwrap().pass(&group)
        };
        assert!(passes("ip-permission.cidr", "10.*"));
        assert!(passes("ip-permission.from-port", "22") && passes("ip-permission.to-port", "23"));
        assert!(passes("egress.ip-permission.group-id", &sg(9).to_string()) && passes("egress.ip-permission.user-id", "000000000000"));
        assert!(passes("egress.ip-permission.protocol", "-1") && !passes("ip-permission.protocol", "-1"));
        assert!(!passes("egress.ip-permission.cidr", "*") && !passes("egress.ip-permission.from-port", "*"));
        assert!(passes("owner-id", "000000000000") && passes("vpc-id", &vpc(1).to_string()) && passes("group-name", "g?"));
        for name in SecurityGroup::FILTER_NAMES {
            assert!(!passes(name, "nothing has this value"), "{name}");
        }
        // Named groups are looked up; one that has the name and is in no rule does not count.
        let by_name = |name: &str, value: &str| {
            let filter = Filter { name: name.into(), values: vec![value.into()] };
            let filters = Filters::for_kind::<SecurityGroup>(vec![filter]).unwrap();
            let known = [("web", sg(9)), ("db", sg(8))];
            by_group_id(filters, |passes| known.iter().filter(|(name, _)| passes(name)).map(|(_, id)| *id).collect()).pass(&group)
        };
        assert!(by_name("egress.ip-permission.group-name", "w*") && !by_name("ip-permission.group-name", "w*"));
        assert!(!by_name("egress.ip-permission.group-name", "db") && !by_name("egress.ip-permission.group-name", "nobody"));
    }
}
