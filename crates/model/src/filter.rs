//! EC2's filters: a resource passes if for every filter at least one value matches.

use std::borrow::Cow;

use crate::refusal::{Refusal, Violations};

/// Filters that one call may carry, as EC2 limits them.
pub const MAX_FILTERS: usize = 50;
/// Values that all filters of a call may carry together, as EC2 limits them.
pub const MAX_FILTER_VALUES: usize = 200;

/// One filter: a name and the values of which one must match. `*` stands for any characters, `?`
/// for one; a backslash takes the next character as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub name: String,
    pub values: Vec<String>,
}

/// What a kind of resource lets itself be filtered by.
pub trait Filterable {
    /// The names that this kind knows. `tag:<key>` and `tag-key` are known for all that have tags.
    const FILTER_NAMES: &'static [&'static str];

    /// The resource's values for one of the names; a filter matches if any of them does.
    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>>;

    /// The resource's tags, if its kind has any.
    fn filter_tags(&self) -> Option<&crate::Tags> {
        None
    }

    /// The value of the resource's tag with this key, if it has one.
    fn filter_tag(&self, key: &str) -> Option<&str> {
        self.filter_tags()?.get(key)
    }
}

/// All filters of a call, checked against the names that `R` knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(Vec<Filter>);

impl Filters {
    /// Checks names and counts.
    pub fn for_kind<R: Filterable>(filters: Vec<Filter>) -> Result<Self, Refusal> {
        let mut violations = Violations::new();
        if filters.len() > MAX_FILTERS {
            violations.add("filters", format!("{} filters are more than {MAX_FILTERS}", filters.len()));
        }
        let values = filters.iter().map(|filter| filter.values.len()).sum::<usize>();
        if values > MAX_FILTER_VALUES {
            violations.add_as("FilterLimitExceeded", "filters", format!("{values} filter values are more than {MAX_FILTER_VALUES}"));
        }
        for (place, filter) in filters.iter().enumerate() {
            let name = filter.name.as_str();
            let known =
                R::FILTER_NAMES.contains(&name) || name == "tag-key" || name.strip_prefix("tag:").is_some_and(|key| !key.is_empty());
            if !known {
                violations.add(
                    format!("filters[{place}].name"),
                    format!("the filter \"{name}\" is unknown here; known are tag:<key>, tag-key, {}", R::FILTER_NAMES.join(", ")),
                );
            }
            if filter.values.is_empty() {
                violations.add(format!("filters[{place}].values"), format!("the filter \"{name}\" has no value"));
            }
        }
        violations.finish()?;
        Ok(Self(filters))
    }

    /// Whether `resource` passes all filters.
    pub fn pass<R: Filterable>(&self, resource: &R) -> bool {
        self.0.iter().all(|filter| passes(filter, resource))
    }

    /// The same filters, some of them in other words: what a resource knows by another name.
    #[must_use]
    pub fn reworded(self, reword: impl FnMut(Filter) -> Filter) -> Self {
        Self(self.0.into_iter().map(reword).collect())
    }

    /// The plain (wildcard-free) values of the filter with this name: what an index can look up.
    pub fn exact(&self, name: &str) -> Option<&[String]> {
        let filter = self.0.iter().find(|filter| filter.name == name)?;
        let plain = |value: &String| !value.contains(['*', '?', '\\']);
        filter.values.iter().all(plain).then_some(&filter.values)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Filter> {
        self.0.iter()
    }
}

fn passes<R: Filterable>(filter: &Filter, resource: &R) -> bool {
    let any = |actual: &str| filter.values.iter().any(|pattern| matches_pattern(pattern, actual));
    let tags = resource.filter_tags();
    if let Some(key) = filter.name.strip_prefix("tag:") {
        return resource.filter_tag(key).is_some_and(any);
    }
    if let (Some(tags), "tag-key") = (tags, filter.name.as_str()) {
        return tags.0.keys().any(|key| any(key));
    }
    resource.filter_values(&filter.name).iter().any(|value| any(value))
}

/// Whether `text` matches a pattern with `*`, `?` and `\`. Takes time in proportion to the product
/// of the lengths at most, never more, whatever the pattern.
pub fn matches_pattern(pattern: &str, text: &str) -> bool {
    if !pattern.contains(['*', '?', '\\']) {
        return pattern == text;
    }
    let pattern = compile(pattern);
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut seen) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(Part::Any) => {
                last_star = Some((at, seen));
                at += 1;
            }
            Some(Part::One) => (at, seen) = (at + 1, seen + 1),
            Some(Part::Exactly(expected)) if *expected == text[seen] => (at, seen) = (at + 1, seen + 1),
            _ => match last_star {
                // The last star takes one more character; earlier stars need no second try.
                Some((star, taken)) => {
                    last_star = Some((star, taken + 1));
                    (at, seen) = (star + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|part| matches!(part, Part::Any))
}

enum Part {
    Any,
    One,
    Exactly(char),
}

fn compile(pattern: &str) -> Vec<Part> {
    let mut parts = Vec::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        parts.push(match character {
            '*' => Part::Any,
            '?' => Part::One,
            '\\' => Part::Exactly(characters.next().unwrap_or('\\')),
            other => Part::Exactly(other),
        });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The plainest definition of matching, as a model.
    fn model(pattern: &[char], text: &[char]) -> bool {
        match pattern.first() {
            None => text.is_empty(),
            Some('*') => (0..=text.len()).any(|taken| model(&pattern[1..], &text[taken..])),
            Some('?') => !text.is_empty() && model(&pattern[1..], &text[1..]),
            Some(plain) => text.first() == Some(plain) && model(&pattern[1..], &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn matching_is_as_the_model_has_it(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            let (p, t): (Vec<_>, Vec<_>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(matches_pattern(&pattern, &text), model(&p, &t));
        }
    }

    #[test]
    fn a_backslash_takes_a_star_as_it_is() {
        assert!(matches_pattern(r"a\*", "a*"));
        assert!(!matches_pattern(r"a\*", "ab"));
    }
}
