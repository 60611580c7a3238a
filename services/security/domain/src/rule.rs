//! Rules: adding them to a group, removing them, and changing them in place. All or none.

use std::{borrow::Cow, collections::BTreeSet};

pub use gureum_firewall::Direction;
use gureum_model::{
    Filterable, IdSource, Refusal, RefusalKind, Tags,
    id::{PrefixListId, SecurityGroupId, SecurityGroupRuleId, VpcId},
    refusal::{Violation, Violations},
};
use serde::{Deserialize, Serialize};

use crate::{
    Directory, SecurityGroup,
    permission::{Peer, PeerSpec, PermissionInput, RuleSpec, check_description, parse_ipv4, parse_ipv6, parse_permissions},
    prefix_list::AddressFamily,
    some_of,
    traffic::Traffic,
};

/// Rules that a group may have in each direction for each of IPv4 and IPv6, as EC2 counts them by
/// default: a CIDR counts in its family; a group in both; a prefix list in its family as many times as
/// it has room for, empty or not. More get `RulesPerSecurityGroupLimitExceeded`.
pub const MAX_RULES: usize = 60;

/// One rule of a group: one kind of traffic, from or to one peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    pub id: SecurityGroupRuleId,
    pub direction: Direction,
    pub traffic: Traffic,
    pub peer: Peer,
    /// Empty if the user gave none.
    pub description: String,
    pub tags: Tags,
}

impl SecurityGroupRule {
    /// What makes two rules of a group the same rule to EC2.
    fn key(&self) -> (Direction, Traffic, Peer) {
        (self.direction, self.traffic, self.peer)
    }
}

/// A group as it shall be, and the rules that were added, removed or changed.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleChange {
    pub next: SecurityGroup,
    /// In the order of the request for added and changed rules, of the group for removed ones.
    pub rules: Vec<SecurityGroupRule>,
}

/// Adds rules to a group, all or none. Each gets an id of its own and all of `tags`.
///
/// Errors: `InvalidPermission.Duplicate`, `InvalidParameterValue` (twice in the request),
/// `InvalidGroup.NotFound`, `InvalidPrefixListID.NotFound`, `RulesPerSecurityGroupLimitExceeded`.
pub fn authorize(
    group: &SecurityGroup,
    direction: Direction,
    wanted: &[RuleSpec],
    tags: &Tags,
    ids: &IdSource,
    directory: &impl Directory,
) -> Result<RuleChange, RuleError> {
    let present: BTreeSet<_> = group.rules.iter().map(SecurityGroupRule::key).collect();
    let (mut seen, mut repeated, mut duplicate) = (BTreeSet::new(), Vec::new(), Vec::new());
    let mut added = Vec::with_capacity(wanted.len());
    let mut errors = Vec::new();
    for spec in wanted {
        let peer = match known_peer(group, spec, directory) {
            Ok(peer) => peer,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let key = (direction, spec.traffic, peer);
        if !seen.insert(key) {
            repeated.push(Named::new(&spec.field, &spec.traffic, &peer));
        } else if present.contains(&key) {
            duplicate.push(Named::new(&spec.field, &spec.traffic, &peer));
        }
        added.push((spec, peer));
    }
    if !repeated.is_empty() {
        errors.push(RuleError::Repeated { rules: repeated });
    }
    if !duplicate.is_empty() {
        errors.push(RuleError::Duplicate { rules: duplicate });
    }
    none_of(errors)?;
    let peers = group.rules_of(direction).map(|rule| rule.peer).chain(added.iter().map(|(_, peer)| *peer));
    check_limit(group.id, direction, peers, directory)?;
    let make = |(spec, peer): (&RuleSpec, Peer)| SecurityGroupRule {
        id: ids.next(),
        direction,
        traffic: spec.traffic,
        peer,
        description: spec.description.clone(),
        tags: tags.clone(),
    };
    let added: Vec<_> = added.into_iter().map(make).collect();
    let mut next = group.clone();
    let place = match direction {
        Direction::Ingress => next.rules.iter().take_while(|rule| rule.direction == Direction::Ingress).count(),
        Direction::Egress => next.rules.len(),
    };
    next.rules.splice(place..place, added.iter().cloned());
    Ok(RuleChange { next, rules: added })
}

/// Which rules a request wants removed. A rule that is named twice is removed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub ids: Vec<SecurityGroupRuleId>,
    /// By traffic and peer; descriptions play no part, as in EC2.
    pub specs: Vec<RuleSpec>,
}

impl Revocation {
    /// Reads ids and permissions, of which at least one is given (`MissingParameter`).
    pub fn parse(ids: &[String], permissions: &[PermissionInput], violations: &mut Violations) -> Self {
        if ids.is_empty() && permissions.is_empty() {
            violations.add_as(
                "MissingParameter",
                "ip_permissions",
                "Either 'ip_permissions' or 'security_group_rule_ids' must be provided",
            );
        }
        Self { ids: violations.ids("security_group_rule_ids", ids), specs: parse_permissions("ip_permissions", permissions, violations) }
    }
}

/// Removes rules of one direction from a group, all or none.
///
/// Errors: `InvalidSecurityGroupRuleId.NotFound` (also for a rule of the other direction),
/// `InvalidPermission.NotFound`, `InvalidGroup.NotFound` (a peer by a name that no group has).
pub fn revoke(
    group: &SecurityGroup,
    direction: Direction,
    unwanted: &Revocation,
    directory: &impl Directory,
) -> Result<RuleChange, RuleError> {
    let mut gone = BTreeSet::new();
    let present: BTreeSet<_> = group.rules_of(direction).map(|rule| rule.id).collect();
    let missing = unwanted.ids.iter().enumerate().filter(|(_, id)| !present.contains(id));
    let missing: Vec<_> =
        missing.map(|(place, id)| Named { field: format!("security_group_rule_ids[{place}]"), name: id.to_string() }).collect();
    let mut errors = Vec::new();
    if !missing.is_empty() {
        errors.push(RuleError::IdNotFound { ids: missing, group: group.id, direction: Some(direction) });
    }
    gone.extend(unwanted.ids.iter().copied());
    let mut missing = Vec::new();
    for spec in &unwanted.specs {
        let peer = match spec.resolve(group.vpc_id, directory) {
            Ok(peer) => peer,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let found = group.rules_of(direction).find(|rule| rule.traffic == spec.traffic && rule.peer == peer);
        match found {
            Some(rule) => drop(gone.insert(rule.id)),
            None => missing.push(Named::new(&spec.field, &spec.traffic, &peer)),
        }
    }
    if !missing.is_empty() {
        errors.push(RuleError::NotFound { rules: missing, group: group.id });
    }
    none_of(errors)?;
    let mut next = group.clone();
    let (removed, kept) = next.rules.into_iter().partition(|rule| gone.contains(&rule.id));
    next.rules = kept;
    Ok(RuleChange { next, rules: removed })
}

/// One rule as a request wants it to be from now on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleUpdateInput {
    pub security_group_rule_id: String,
    pub ip_protocol: String,
    pub from_port: Option<i32>,
    pub to_port: Option<i32>,
    pub peer: RulePeerInput,
    pub description: String,
}

/// The one peer of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RulePeerInput {
    /// The request names none.
    #[default]
    Absent,
    CidrIpv4(String),
    CidrIpv6(String),
    PrefixListId(String),
    ReferencedGroupId(String),
}

/// A checked [`RuleUpdateInput`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleUpdate {
    pub id: SecurityGroupRuleId,
    pub spec: RuleSpec,
}

/// Reads updates; every violation is recorded with its path under `field`, a rule named twice among them.
pub fn parse_updates(field: &str, updates: &[RuleUpdateInput], violations: &mut Violations) -> Vec<RuleUpdate> {
    let mut seen = BTreeSet::new();
    let mut parsed = Vec::with_capacity(updates.len());
    for (place, update) in updates.iter().enumerate() {
        let path = format!("{field}[{place}]");
        let id = violations.id::<SecurityGroupRuleId>(format!("{path}.security_group_rule_id"), &update.security_group_rule_id);
        if id.is_some_and(|id| !seen.insert(id)) {
            violations.add(format!("{path}.security_group_rule_id"), format!("the rule {} is given twice", update.security_group_rule_id));
        }
        check_description(&path, &update.description, violations);
        let traffic = Traffic::parse(&update.ip_protocol, update.from_port, update.to_port, &path, violations);
        let peer_field = match &update.peer {
            RulePeerInput::Absent => format!("{path}.peer"),
            RulePeerInput::CidrIpv4(_) => format!("{path}.cidr_ipv4"),
            RulePeerInput::CidrIpv6(_) => format!("{path}.cidr_ipv6"),
            RulePeerInput::PrefixListId(_) => format!("{path}.prefix_list_id"),
            RulePeerInput::ReferencedGroupId(_) => format!("{path}.referenced_group_id"),
        };
        let peer = match &update.peer {
            RulePeerInput::Absent => {
                violations.add_as(
                    "MissingParameter",
                    peer_field.as_str(),
                    "a rule needs one of cidr_ipv4, cidr_ipv6, prefix_list_id, referenced_group_id",
                );
                None
            }
            RulePeerInput::CidrIpv4(text) => parse_ipv4(&peer_field, text, violations),
            RulePeerInput::CidrIpv6(text) => parse_ipv6(&peer_field, text, violations),
            RulePeerInput::PrefixListId(text) => violations.id(peer_field.as_str(), text).map(Peer::PrefixList),
            RulePeerInput::ReferencedGroupId(text) => violations.id(peer_field.as_str(), text).map(Peer::Group),
        };
        if let (Some(id), Some(traffic), Some(peer)) = (id, traffic, peer) {
            let spec = RuleSpec { traffic, peer: PeerSpec::Known(peer), description: update.description.clone(), field: peer_field };
            parsed.push(RuleUpdate { id, spec });
        }
    }
    parsed
}

/// Replaces rules of a group in place, all or none; ids, directions, places and tags stay.
///
/// Errors: `InvalidSecurityGroupRuleId.NotFound`, `InvalidPermission.Duplicate` (two rules would be
/// the same afterwards), and those of [`authorize`] for peers and the limit.
pub fn modify(group: &SecurityGroup, updates: &[RuleUpdate], directory: &impl Directory) -> Result<RuleChange, RuleError> {
    let mut next = group.clone();
    let (mut changed, mut missing) = (Vec::with_capacity(updates.len()), Vec::new());
    let mut errors = Vec::new();
    for (place, update) in updates.iter().enumerate() {
        let peer = known_peer(group, &update.spec, directory).map_err(|error| errors.push(error));
        let Some(rule) = next.rules.iter_mut().find(|rule| rule.id == update.id) else {
            missing.push(Named { field: format!("updates[{place}].security_group_rule_id"), name: update.id.to_string() });
            continue;
        };
        let Ok(peer) = peer else { continue };
        rule.peer = peer;
        rule.traffic = update.spec.traffic;
        rule.description.clone_from(&update.spec.description);
        changed.push(rule.clone());
    }
    if !missing.is_empty() {
        errors.push(RuleError::IdNotFound { ids: missing, group: group.id, direction: None });
    }
    none_of(errors)?;
    let mut seen = BTreeSet::new();
    // Either of two that are the same may be the one that was changed.
    let to_blame = |rule: &SecurityGroupRule| {
        let of = |same: &dyn Fn(&SecurityGroupRule) -> bool| changed.iter().position(same).and_then(|place| updates.get(place));
        let update = of(&|it| it.id == rule.id).or_else(|| of(&|it| it.key() == rule.key()));
        update.map(|update| update.spec.field.as_str()).unwrap_or("updates")
    };
    let same = next.rules.iter().filter(|rule| !seen.insert(rule.key()));
    let same: Vec<_> = same.map(|rule| Named::new(to_blame(rule), &rule.traffic, &rule.peer)).collect();
    if !same.is_empty() {
        return Err(RuleError::Duplicate { rules: same });
    }
    for direction in [Direction::Ingress, Direction::Egress] {
        check_limit(group.id, direction, next.rules_of(direction).map(|rule| rule.peer), directory)?;
    }
    Ok(RuleChange { next, rules: changed })
}

/// The peer of a rule to be, if what it names exists: a group in the same VPC, a prefix list.
fn known_peer(group: &SecurityGroup, spec: &RuleSpec, directory: &impl Directory) -> Result<Peer, RuleError> {
    let peer = spec.resolve(group.vpc_id, directory)?;
    let field = || spec.field.clone();
    match peer {
        Peer::Ipv4(_) | Peer::Ipv6(_) => {}
        Peer::PrefixList(id) => {
            directory.prefix_list(id).ok_or_else(|| RuleError::PrefixListNotFound { id, field: field() })?;
        }
        Peer::Group(id) => {
            let named = directory.group(id).ok_or_else(|| RuleError::GroupNotFound { group: id.to_string(), field: field() })?;
            if named.vpc_id != group.vpc_id {
                let (vpc, peer_vpc) = (group.vpc_id, named.vpc_id);
                return Err(RuleError::OtherVpc { group: group.id, vpc, peer: id, peer_vpc, field: field() });
            }
        }
    }
    Ok(peer)
}

fn check_limit(
    group: SecurityGroupId,
    direction: Direction,
    peers: impl Iterator<Item = Peer>,
    directory: &impl Directory,
) -> Result<(), RuleError> {
    let (mut v4, mut v6) = (0_usize, 0_usize);
    for peer in peers {
        match peer {
            Peer::Ipv4(_) => v4 += 1,
            Peer::Ipv6(_) => v6 += 1,
            Peer::Group(_) => (v4, v6) = (v4 + 1, v6 + 1),
            Peer::PrefixList(id) => {
                let Some(list) = directory.prefix_list(id) else { continue };
                let counted = match list.family {
                    AddressFamily::Ipv4 => &mut v4,
                    AddressFamily::Ipv6 => &mut v6,
                };
                *counted += usize::try_from(list.max_entries).unwrap_or(usize::MAX);
            }
        }
    }
    let count = v4.max(v6);
    if count > MAX_RULES { Err(RuleError::LimitExceeded { group, direction, count }) } else { Ok(()) }
}

/// Whether a group's rules are within the limit, as the prefix lists are that they name.
pub(crate) fn within_limit(group: &SecurityGroup, directory: &impl Directory) -> bool {
    let fits = |direction| check_limit(group.id, direction, group.rules_of(direction).map(|rule| rule.peer), directory).is_ok();
    fits(Direction::Ingress) && fits(Direction::Egress)
}

/// As EC2 names a rule in its errors: `peer: 0.0.0.0/0, TCP, from port: 22, to port: 22, ALLOW`.
fn in_words(traffic: &Traffic, peer: &Peer) -> String {
    format!("peer: {peer}, {traffic}, ALLOW")
}

/// What a refusal names, and where it stands in the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub field: String,
    pub name: String,
}

impl Named {
    fn new(field: &str, traffic: &Traffic, peer: &Peer) -> Self {
        Self { field: field.to_owned(), name: in_words(traffic, peer) }
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// One error of all, if there are any.
fn none_of(mut errors: Vec<RuleError>) -> Result<(), RuleError> {
    match errors.len() {
        0 => Ok(()),
        1 => errors.pop().map_or(Ok(()), Err),
        _ => Err(RuleError::Several(errors)),
    }
}

/// Why rules are not added, removed or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("the specified rule \"{}\" already exists", some_of(rules))]
    Duplicate { rules: Vec<Named> },
    #[error("The same permission must not appear multiple times: \"{}\"", some_of(rules))]
    Repeated { rules: Vec<Named> },
    #[error("The specified rule \"{}\" does not exist in security group {group}", some_of(rules))]
    NotFound { rules: Vec<Named>, group: SecurityGroupId },
    #[error("The security group rule ID '{}' does not exist{} in security group {group}", some_of(ids), among(*direction))]
    IdNotFound { ids: Vec<Named>, group: SecurityGroupId, direction: Option<Direction> },
    #[error("The security group '{group}' does not exist")]
    GroupNotFound { group: String, field: String },
    #[error("You have specified two resources that belong to different networks: {group} is in {vpc}, {peer} in {peer_vpc}")]
    OtherVpc { group: SecurityGroupId, vpc: VpcId, peer: SecurityGroupId, peer_vpc: VpcId, field: String },
    #[error("The prefix list '{id}' does not exist")]
    PrefixListNotFound { id: PrefixListId, field: String },
    #[error("The maximum number of rules per security group has been reached: {group} would have {count} {} rules, and {MAX_RULES} for each of IPv4 and IPv6 are the limit; use fewer and wider rules, or another group", direction.as_str())]
    LimitExceeded { group: SecurityGroupId, direction: Direction, count: usize },
    #[error("{}", some_of(.0))]
    Several(Vec<RuleError>),
}

/// A refusal that blames each of these fields.
fn blaming(refusal: Refusal, named: Vec<Named>, words: impl Fn(&str) -> String) -> Refusal {
    let violation = |it: Named| Violation { description: words(&it.name), field: it.field };
    Refusal { violations: named.into_iter().map(violation).collect(), ..refusal }
}

fn among(direction: Option<Direction>) -> String {
    direction.map(|direction| format!(" among the {} rules", direction.as_str())).unwrap_or_default()
}

impl From<RuleError> for Refusal {
    fn from(error: RuleError) -> Self {
        let text = error.to_string();
        match error {
            RuleError::Duplicate { rules } => {
                let refusal = Self::new(RefusalKind::AlreadyExists, "InvalidPermission.Duplicate", text);
                blaming(refusal, rules, |rule| format!("the specified rule \"{rule}\" already exists"))
            }
            RuleError::Repeated { rules } => {
                let refusal = Self::new(RefusalKind::Invalid, "InvalidParameterValue", text);
                blaming(refusal, rules, |rule| format!("The same permission must not appear multiple times: \"{rule}\""))
            }
            RuleError::NotFound { rules, group } => {
                let refusal = Self::new(RefusalKind::NotFound, "InvalidPermission.NotFound", text);
                blaming(refusal, rules, |rule| format!("The specified rule \"{rule}\" does not exist in security group {group}"))
            }
            RuleError::IdNotFound { ids, group, direction } => {
                let refusal = Self::new(RefusalKind::NotFound, "InvalidSecurityGroupRuleId.NotFound", text);
                let among = among(direction);
                blaming(refusal, ids, |id| format!("The security group rule ID '{id}' does not exist{among} in security group {group}"))
            }
            RuleError::GroupNotFound { field, .. } | RuleError::OtherVpc { field, .. } => {
                Self::new(RefusalKind::NotFound, "InvalidGroup.NotFound", text).of_field(field)
            }
            RuleError::PrefixListNotFound { field, .. } => {
                Self::new(RefusalKind::NotFound, "InvalidPrefixListID.NotFound", text).of_field(field)
            }
            // One error is never several of none.
            RuleError::Several(errors) => {
                errors.into_iter().map(Self::from).reduce(Self::and).unwrap_or_else(|| Self::missing("ip_permissions"))
            }
            RuleError::LimitExceeded { .. } => Self::new(RefusalKind::Exhausted, "RulesPerSecurityGroupLimitExceeded", text),
        }
    }
}

/// A rule with its group, as lists of rules show it.
#[derive(Debug, Clone, Copy)]
pub struct RuleInGroup<'a> {
    pub group: &'a SecurityGroup,
    pub rule: &'a SecurityGroupRule,
}

impl SecurityGroup {
    /// Its rules, each with this group.
    pub fn rules_in_group(&self) -> impl Iterator<Item = RuleInGroup<'_>> {
        self.rules.iter().map(|rule| RuleInGroup { group: self, rule })
    }
}

impl Filterable for RuleInGroup<'_> {
    const FILTER_NAMES: &'static [&'static str] = &["group-id", "security-group-rule-id"];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "group-id" => vec![Cow::Owned(self.group.id.to_string())],
            "security-group-rule-id" => vec![Cow::Owned(self.rule.id.to_string())],
            _ => Vec::new(),
        }
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.rule.tags)
    }
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
