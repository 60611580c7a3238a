//! Tags of groups, rules, key pairs and prefix lists: which resource an id means, and the rows of a tag listing.

use std::borrow::Cow;

use gureum_model::{
    Filterable, Refusal, Tags,
    id::{KeyPairId, PrefixListId, ResourceId, SecurityGroupId, SecurityGroupRuleId},
    refusal::Violations,
};

use crate::{KeyPair, PrefixList, SecurityGroup};

/// One of this service's resources that can be tagged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaggedId {
    Group(SecurityGroupId),
    Rule(SecurityGroupRuleId),
    KeyPair(KeyPairId),
    PrefixList(PrefixListId),
}

impl TaggedId {
    /// Reads an id. Errors: `InvalidID` (another service's), or the kind's own code for a malformed one.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        if text.starts_with(SecurityGroupRuleId::PREFIX) {
            Ok(Self::Rule(text.parse()?))
        } else if text.starts_with(SecurityGroupId::PREFIX) {
            Ok(Self::Group(text.parse()?))
        } else if text.starts_with(KeyPairId::PREFIX) {
            Ok(Self::KeyPair(text.parse()?))
        } else if text.starts_with(PrefixListId::PREFIX) {
            Ok(Self::PrefixList(text.parse()?))
        } else {
            let text = format!(
                "The ID '{text}' is not valid: expected the id of a security group (sg-), a security group rule (sgr-), a key pair (key-) or a prefix list (pl-)"
            );
            Err(Refusal::invalid_as("InvalidID", "resource_ids", text))
        }
    }

    /// Reads ids; a bad one is named by its place, one that is given twice counts once.
    pub fn parse_all(field: &str, texts: &[String], violations: &mut Violations) -> Vec<Self> {
        let mut ids = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter().enumerate() {
            ids.extend(violations.check(format!("{field}[{place}]"), Self::parse(text)));
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Where it stands in a request's list of ids.
    pub fn field(self, list: &str, texts: &[String]) -> String {
        let place = texts.iter().position(|text| Self::parse(text) == Ok(self)).unwrap_or_default();
        format!("{list}[{place}]")
    }

    /// EC2's word for the kind.
    pub fn resource_type(self) -> &'static str {
        match self {
            Self::Group(_) => "security-group",
            Self::Rule(_) => "security-group-rule",
            Self::KeyPair(_) => "key-pair",
            Self::PrefixList(_) => "prefix-list",
        }
    }

    /// No resource with this id in this scope.
    pub fn not_found(self) -> Refusal {
        match self {
            Self::Group(id) => Refusal::not_found(id),
            Self::Rule(id) => Refusal::not_found(id),
            Self::KeyPair(id) => Refusal::not_found(id),
            Self::PrefixList(id) => Refusal::not_found(id),
        }
    }
}

impl std::fmt::Display for TaggedId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Group(id) => id.fmt(f),
            Self::Rule(id) => id.fmt(f),
            Self::KeyPair(id) => id.fmt(f),
            Self::PrefixList(id) => id.fmt(f),
        }
    }
}

/// A change of tags, the same for every resource that a call names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagChange {
    /// Adds or overwrites.
    Put(Tags),
    /// Removes these keys, a pair with a value only where it has that value; an empty list removes all.
    Remove(Vec<(String, Option<String>)>),
}

impl TagChange {
    /// The tags after the change. Error: `TagLimitExceeded`.
    pub fn apply(&self, tags: &Tags) -> Result<Tags, Refusal> {
        match self {
            Self::Put(added) => tags.with(added),
            Self::Remove(removed) => Ok(tags.without(removed)),
        }
    }

    /// The key pair after the change.
    pub fn apply_to_key_pair(&self, pair: &KeyPair) -> Result<KeyPair, Refusal> {
        Ok(KeyPair { tags: self.apply(&pair.tags)?, ..pair.clone() })
    }

    /// The prefix list after the change; its version stays.
    pub fn apply_to_prefix_list(&self, list: &PrefixList) -> Result<PrefixList, Refusal> {
        Ok(PrefixList { tags: self.apply(&list.tags)?, ..list.clone() })
    }

    /// The group after the change of its own tags.
    pub fn apply_to_group(&self, group: &SecurityGroup) -> Result<SecurityGroup, Refusal> {
        Ok(SecurityGroup { tags: self.apply(&group.tags)?, ..group.clone() })
    }

    /// The group after the change of one of its rules' tags.
    pub fn apply_to_rule(&self, group: &SecurityGroup, id: SecurityGroupRuleId) -> Result<SecurityGroup, Refusal> {
        let mut next = group.clone();
        let rule = next.rules.iter_mut().find(|rule| rule.id == id).ok_or_else(|| Refusal::not_found(id))?;
        rule.tags = self.apply(&rule.tags)?;
        Ok(next)
    }
}

/// One tag of one resource: a row of a tag listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TagRow<'a> {
    pub resource: TaggedId,
    pub key: &'a str,
    pub value: &'a str,
}

/// The rows of one resource's tags, by key.
pub fn tag_rows(resource: TaggedId, tags: &Tags) -> impl Iterator<Item = TagRow<'_>> {
    tags.0.iter().map(move |(key, value)| TagRow { resource, key, value })
}

impl SecurityGroup {
    /// The rows of its own tags, then those of its rules.
    pub fn tag_rows(&self) -> impl Iterator<Item = TagRow<'_>> {
        let of_rules = self.rules.iter().flat_map(|rule| tag_rows(TaggedId::Rule(rule.id), &rule.tags));
        tag_rows(TaggedId::Group(self.id), &self.tags).chain(of_rules)
    }
}

impl KeyPair {
    /// The rows of its tags.
    pub fn tag_rows(&self) -> impl Iterator<Item = TagRow<'_>> {
        tag_rows(TaggedId::KeyPair(self.id), &self.tags)
    }
}

impl PrefixList {
    /// The rows of its tags.
    pub fn tag_rows(&self) -> impl Iterator<Item = TagRow<'_>> {
        tag_rows(TaggedId::PrefixList(self.id), &self.tags)
    }
}

impl Filterable for TagRow<'_> {
    const FILTER_NAMES: &'static [&'static str] = &["key", "resource-id", "resource-type", "value"];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "key" | "tag-key" => vec![Cow::Borrowed(self.key)],
            "resource-id" => vec![Cow::Owned(self.resource.to_string())],
            "resource-type" => vec![Cow::Borrowed(self.resource.resource_type())],
            "value" => vec![Cow::Borrowed(self.value)],
            _ => Vec::new(),
        }
    }

    /// A row is of one tag.
    fn filter_tag(&self, key: &str) -> Option<&str> {
        (key == self.key).then_some(self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        rule::Direction,
        testing::{bare_group, rule, sg, sgr, tcp, v4},
    };

    #[test]
    fn an_id_says_what_it_is() {
        let texts = [sgr(1).to_string(), sg(1).to_string(), "i-00000000000000001".to_owned(), "sg-1".to_owned(), sg(1).to_string()];
        let mut violations = Violations::new();
        let ids = TaggedId::parse_all("resource_ids", &texts, &mut violations);
        assert_eq!(ids, [TaggedId::Group(sg(1)), TaggedId::Rule(sgr(1))]);
        let refusal = violations.finish().unwrap_err();
        assert_eq!(refusal.reason, "InvalidID");
        assert_eq!(
            refusal.violations.iter().map(|violation| violation.field.as_str()).collect::<Vec<_>>(),
            ["resource_ids[2]", "resource_ids[3]"]
        );
        assert_eq!(TaggedId::Rule(sgr(1)).not_found().reason, "InvalidSecurityGroupRuleId.NotFound");
    }

    #[test]
    fn tags_of_group_and_rule_are_apart() {
        let mut group = bare_group(1);
        group.rules.push(rule(1, Direction::Ingress, tcp(1, 1), v4("0.0.0.0/0")));
        let put = TagChange::Put(Tags([("a".to_owned(), "1".to_owned())].into()));
        let group = put.apply_to_rule(&group, sgr(1)).unwrap();
        assert!(group.tags.is_empty());
        let group = put.apply_to_group(&group).unwrap();
        assert_eq!(group.tag_rows().map(|row| row.resource.resource_type()).collect::<Vec<_>>(), ["security-group", "security-group-rule"]);
        let found = |name: &str, value: &str| {
            let filter = gureum_model::Filter { name: name.into(), values: vec![value.into()] };
            let filters = gureum_model::Filters::for_kind::<TagRow<'_>>(vec![filter]).unwrap();
            group.tag_rows().filter(|row| filters.pass(row)).count()
        };
        assert_eq!((found("tag:a", "1"), found("tag:a", "2"), found("tag:b", "*"), found("tag-key", "a")), (2, 0, 0, 2));
        assert_eq!(put.apply_to_rule(&group, sgr(2)).map_err(|refusal| refusal.reason), Err("InvalidSecurityGroupRuleId.NotFound"));
        let group = TagChange::Remove(Vec::new()).apply_to_rule(&group, sgr(1)).unwrap();
        assert_eq!(group.tag_rows().count(), 1);
    }
}
