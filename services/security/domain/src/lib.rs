//! The decisions of Gureum's security service: pure.
//!
//! Given the records as they are, the time and an input, each function here says what the records
//! shall be, or refuses with EC2's code. Nothing here does I/O, asks for the time, or makes a
//! random number of its own: new ids come from the caller's `IdSource`, and the randomness of a new
//! key from the caller's generator.
//!
//! ```text
//! request ──parse──▶ typed input ──decide(records, input)──▶ next records | refusal
//!           permission, group,      group, rule, hold,
//!           hold, evaluate, key_pair, vpc, key_pair, tag,
//!           prefix_list             prefix_list
//! ```
//!
//! Invariants:
//! - A group's rules are all different in direction, traffic and peer; ingress stands before egress.
//! - A rule names only groups of its group's own VPC, and a named or held group cannot be deleted.
//! - A rule names only prefix lists that exist, and a named list cannot be deleted.
//! - A CIDR is stored as its network address; two ways to write one network are one rule.
//! - No record can carry a private key: no record has a field of a type that could.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps fails where it should"))]

pub mod directory;
pub mod evaluate;
pub mod firewall;
pub mod group;
pub mod hold;
pub mod key_pair;
pub mod permission;
pub mod prefix_list;
pub mod private_key;
pub mod public_key;
pub mod rule;
pub mod tag;
pub mod traffic;
pub mod vpc;

#[cfg(test)]
mod testing;

pub use directory::Directory;
pub use group::SecurityGroup;
pub use hold::Hold;
pub use key_pair::KeyPair;
pub use prefix_list::PrefixList;
pub use rule::SecurityGroupRule;
pub use vpc::Vpc;

/// The longest name or description, in characters, as EC2 limits them.
pub const MAX_TEXT_CHARS: usize = 255;

/// Whether EC2 takes this character in a group's name and in all descriptions: `a-z`, `A-Z`, `0-9`,
/// spaces, and `._-:/()#,@[]+=&;{}!$*`.
fn is_text_char(character: char) -> bool {
    character.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(character)
}

/// Some of a list in words, so that no message grows with the data: `a, b and 7 more`.
fn some_of<T: std::fmt::Display>(items: &[T]) -> String {
    /// Names that a message carries: enough to act on, short enough for a status line.
    const SHOWN: usize = 10;
    let shown = items.iter().take(SHOWN).map(T::to_string).collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gureum_model::{Scope, Tags, Timestamp, id::KeyPairId, id::ResourceId};
    use proptest::prelude::*;
    use serde::{Serialize, de::DeserializeOwned};

    fn stored<R: Serialize + DeserializeOwned>(record: &R) -> R {
        rmp_serde::from_slice(&rmp_serde::to_vec_named(record).unwrap()).unwrap()
    }

    proptest! {
        /// Each kind of traffic and peer comes back from its stored form as it went in.
        #[test]
        fn groups_survive_being_stored(rules in prop::collection::vec((testing::direction(), testing::traffic(), testing::peer(3)), 0..20)) {
            let mut group = testing::bare_group(1);
            group.tags = Tags([("a".to_owned(), "1".to_owned())].into());
            group.rules = rules.into_iter().enumerate().map(|(place, (direction, traffic, peer))| testing::rule(place as u128, direction, traffic, peer)).collect();
            prop_assert_eq!(stored(&group), group);
        }
    }

    #[test]
    fn the_other_records_survive_being_stored() {
        let scope = Scope::default();
        let hold = Hold { scope: scope.clone(), holder_id: "eni-1".into(), vpc_id: testing::vpc(1), groups: vec![testing::sg(1)] };
        assert_eq!(stored(&hold), hold);
        let vpc = Vpc { scope: scope.clone(), id: testing::vpc(1), is_default: true };
        assert_eq!(stored(&vpc), vpc);
        let name = key_pair::KeyName::parse("web").unwrap();
        let public = public_key::import(include_bytes!("../testdata/ed25519.pub"), &name).unwrap();
        let new = key_pair::NewKeyPair { id: KeyPairId::from_number(1), name, public, tags: Tags::default() };
        let pair = key_pair::add(&scope, new, key_pair::Present::default(), Timestamp::from_secs(1)).unwrap();
        assert_eq!(stored(&pair), pair);
    }
}
