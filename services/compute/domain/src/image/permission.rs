//! Who may use an image or a snapshot beside its owner.

use std::collections::BTreeSet;

use gureum_model::{AccountId, Refusal, refusal::Violations};
use serde::{Deserialize, Serialize};

/// Everyone, some accounts, or nobody. Stored as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Permissions {
    /// Everyone.
    pub all: bool,
    pub accounts: BTreeSet<AccountId>,
}

/// Accounts that may be named explicitly on one image or snapshot; beyond it the change is refused.
pub const MAX_ACCOUNTS: usize = 1000;

/// Everyone, or one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grantee {
    All,
    Account(AccountId),
}

/// How a caller names a grantee.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GranteeSpec {
    /// 12 digits.
    UserId(String),
    /// `all`.
    Group(String),
}

/// What is granted and what is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    pub add: Vec<Grantee>,
    pub remove: Vec<Grantee>,
}

impl Change {
    /// Reads the two lists of a request; `reason` is EC2's code for a grantee that is none, and `fields` the paths.
    ///
    /// Errors: that, `InvalidParameterCombination` (both lists are empty).
    pub fn parse(add: &[GranteeSpec], remove: &[GranteeSpec], fields: [&str; 2], reason: &'static str) -> Result<Self, Refusal> {
        let mut violations = Violations::new();
        let mut read = |specs: &[GranteeSpec], field: &str| {
            let mut grantees = Vec::with_capacity(specs.len());
            for (place, spec) in specs.iter().enumerate() {
                match spec.parse() {
                    Ok(grantee) => grantees.push(grantee),
                    Err(words) => violations.add_as(reason, format!("{field}[{place}]"), words),
                }
            }
            grantees
        };
        let change = Self { add: read(add, fields[0]), remove: read(remove, fields[1]) };
        violations.finish()?;
        if change.add.is_empty() && change.remove.is_empty() {
            // EC2's words are "No attributes specified".
            let words = "no attribute is given; name an account or the group \"all\" to grant it to, or to take it from";
            return Err(Refusal::invalid_as("InvalidParameterCombination", fields[0], words));
        }
        Ok(change)
    }
}

impl GranteeSpec {
    fn parse(&self) -> Result<Grantee, String> {
        match self {
            Self::Group(group) if group == "all" => Ok(Grantee::All),
            Self::Group(group) => Err(format!("invalid attribute item value \"{group}\" for the group: expected \"all\"")),
            Self::UserId(text) => {
                let account = text.parse::<AccountId>().map(Grantee::Account);
                account.map_err(|_| format!("invalid attribute item value \"{text}\" for userId: expected an account of 12 digits"))
            }
        }
    }
}

impl Permissions {
    pub fn contains(&self, account: AccountId) -> bool {
        self.all || self.accounts.contains(&account)
    }

    /// These after a change. What is granted twice or taken from nobody changes nothing, as in EC2; what is both
    /// granted and taken is taken.
    pub fn changed(&self, change: &Change) -> Self {
        let mut next = self.clone();
        for (grantees, given) in [(&change.add, true), (&change.remove, false)] {
            for grantee in grantees {
                match grantee {
                    Grantee::All => next.all = given,
                    Grantee::Account(account) if given => {
                        next.accounts.insert(*account);
                    }
                    Grantee::Account(account) => {
                        next.accounts.remove(account);
                    }
                }
            }
        }
        next
    }

    /// All of them, everyone first.
    pub fn iter(&self) -> impl Iterator<Item = Grantee> {
        self.all.then_some(Grantee::All).into_iter().chain(self.accounts.iter().copied().map(Grantee::Account))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grantee() -> impl Strategy<Value = Grantee> {
        prop_oneof![Just(Grantee::All), (0u64..4).prop_map(|number| Grantee::Account(AccountId::from_number(number).unwrap_or_default()))]
    }

    proptest! {
        /// A set of grantees, changed one by one, is the model.
        #[test]
        fn changes_are_as_a_set_has_them(steps in prop::collection::vec((prop::collection::vec(grantee(), 0..3), prop::collection::vec(grantee(), 0..3)), 0..8)) {
            let (mut permissions, mut model) = (Permissions::default(), BTreeSet::new());
            for (add, remove) in steps {
                model.extend(add.iter().copied());
                model.retain(|grantee| !remove.contains(grantee));
                permissions = permissions.changed(&Change { add, remove });
                prop_assert_eq!(permissions.iter().collect::<BTreeSet<_>>(), model.clone());
            }
        }
    }

    #[test]
    fn every_bad_grantee_is_named() {
        let specs = [GranteeSpec::UserId("12".into()), GranteeSpec::Group("all".into()), GranteeSpec::Group("some".into())];
        let refusal = Change::parse(&specs, &specs[..1], ["add", "remove"], "InvalidAMIAttributeItemValue").expect_err("three are bad");
        let fields: Vec<_> = refusal.violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!((refusal.reason, fields), ("InvalidAMIAttributeItemValue", vec!["add[0]", "add[2]", "remove[0]"]));
    }
}
