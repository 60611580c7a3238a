//! Tags: what users call their resources.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::refusal::{Refusal, Violations};

/// Tags that one resource may carry, as EC2 limits them.
pub const MAX_TAGS: usize = 50;
/// The longest key of a tag, in characters.
pub const MAX_TAG_KEY_CHARS: usize = 128;
/// The longest value of a tag, in characters.
pub const MAX_TAG_VALUE_CHARS: usize = 256;
/// Keys with this prefix are the system's.
pub const RESERVED_TAG_PREFIX: &str = "aws:";

/// A resource's tags, by key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tags(pub BTreeMap<String, String>);

impl Tags {
    /// Tags as a user gave them: keys unique, not reserved, within the limits.
    ///
    /// `field` is the path of the list in the request, for the violations.
    pub fn from_user(field: &str, pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, Refusal> {
        let mut tags = BTreeMap::new();
        let mut violations = Violations::new();
        for (place, (key, value)) in pairs.into_iter().enumerate() {
            check_key(&mut violations, &format!("{field}[{place}].key"), &key);
            if value.chars().count() > MAX_TAG_VALUE_CHARS {
                violations.add(
                    format!("{field}[{place}].value"),
                    format!("the value of tag \"{key}\" is longer than {MAX_TAG_VALUE_CHARS} characters"),
                );
            }
            if tags.insert(key.clone(), value).is_some() {
                violations.add(format!("{field}[{place}].key"), format!("tag key \"{key}\" is given twice"));
            }
        }
        violations.finish()?;
        let tags = Self(tags);
        tags.check_count()?;
        Ok(tags)
    }

    /// These tags with `added` on top, if that is within the limit.
    pub fn with(&self, added: &Self) -> Result<Self, Refusal> {
        let mut tags = self.clone();
        tags.0.extend(added.0.iter().map(|(key, value)| (key.clone(), value.clone())));
        tags.check_count()?;
        Ok(tags)
    }

    /// These tags without `removed`. A pair with a value removes only that value, as EC2 does;
    /// no pairs at all remove every tag that is not the system's.
    pub fn without(&self, removed: &[(String, Option<String>)]) -> Self {
        let goes = |key: &str, value: &str| {
            if removed.is_empty() {
                return !key.starts_with(RESERVED_TAG_PREFIX);
            }
            removed.iter().any(|(gone, only)| gone == key && only.as_deref().is_none_or(|only| only == value))
        };
        Self(self.0.iter().filter(|(key, value)| !goes(key, value)).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn check_count(&self) -> Result<(), Refusal> {
        let count = self.0.keys().filter(|key| !key.starts_with(RESERVED_TAG_PREFIX)).count();
        if count > MAX_TAGS {
            return Err(Refusal::invalid_as(
                "TagLimitExceeded",
                "tags",
                format!("{count} tags are more than the {MAX_TAGS} that a resource may carry"),
            ));
        }
        Ok(())
    }
}

fn check_key(violations: &mut Violations, field: &str, key: &str) {
    if key.is_empty() || key.chars().count() > MAX_TAG_KEY_CHARS {
        violations.add(field, format!("tag key \"{key}\" must have 1 to {MAX_TAG_KEY_CHARS} characters"));
    }
    if key.to_ascii_lowercase().starts_with(RESERVED_TAG_PREFIX) {
        violations.add(field, format!("tag key \"{key}\" begins with \"{RESERVED_TAG_PREFIX}\", which is reserved"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Result<Tags, Refusal> {
        Tags::from_user("tags", pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn every_bad_tag_is_named() {
        let refusal = tags(&[("", "x"), ("aws:x", ""), ("a", "1"), ("a", "2")])
            .err()
            .map(|refusal| refusal.violations.into_iter().map(|violation| violation.field).collect::<Vec<_>>());
        assert_eq!(refusal, Some(vec!["tags[0].key".into(), "tags[1].key".into(), "tags[3].key".into()]));
    }

    #[test]
    fn removing_with_a_value_is_exact() {
        let all = tags(&[("a", "1"), ("b", "2")]).unwrap_or_default();
        assert_eq!(all.without(&[("a".into(), Some("2".into()))]), all);
        assert_eq!(all.without(&[("a".into(), Some("1".into()))]).get("a"), None);
        assert!(all.without(&[]).is_empty());
    }
}
