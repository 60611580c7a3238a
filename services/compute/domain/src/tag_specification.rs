//! Tags that a creating call gives to each kind of resource that it makes.

use gureum_model::{Tags, refusal::Violations};

use crate::launch_spec::TagSpecification;

/// The tags for each of `kinds`. Each may be named once, and no other.
pub fn read<const KINDS: usize>(
    specifications: &[TagSpecification],
    field: &str,
    kinds: [&str; KINDS],
    violations: &mut Violations,
) -> [Tags; KINDS] {
    let mut given: [Option<Tags>; KINDS] = std::array::from_fn(|_| None);
    for (place, specification) in specifications.iter().enumerate() {
        let (kind, field) = (specification.resource_type.as_str(), format!("{field}[{place}]"));
        let tags = violations.check("", Tags::from_user(&format!("{field}.tags"), specification.tags.iter().cloned()));
        match kinds.iter().position(|known| *known == kind) {
            Some(known) if given[known].is_some() => {
                violations.add(format!("{field}.resource_type"), format!("tags for \"{kind}\" are given twice; give them in one list"));
            }
            Some(known) => given[known] = Some(tags.unwrap_or_default()),
            None => {
                let words = format!("'{kind}' is not a valid taggable resource type for this operation: expected {}", kinds.join(" or "));
                violations.add(format!("{field}.resource_type"), words);
            }
        }
    }
    given.map(Option::unwrap_or_default)
}
