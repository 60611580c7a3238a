//! Who sees an image, and which ones a caller asks for.

use gureum_model::{AccountId, Refusal, Scope, Timestamp, id::ImageId, refusal::Violations};

use super::{Image, ImageError, ImageState, permission::Permissions};

/// An owner as a caller names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerRef {
    /// `self`.
    Me,
    /// `amazon`, `aws-marketplace`.
    Alias(&'static str),
    Account(AccountId),
}

/// Aliases of owners that there are.
const ALIASES: [&str; 3] = [crate::snapshot::SHIPPED_ALIAS, super::MARKETPLACE_ALIAS, "aws-backup-vault"];

impl OwnerRef {
    /// Reads a list. AWS: what is neither an alias nor an account is `InvalidUserID.Malformed`.
    pub fn parse_all(texts: &[String], field: &str, violations: &mut Violations) -> Vec<Self> {
        let mut owners = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter().enumerate() {
            let alias = ALIASES.into_iter().find(|alias| alias == text);
            match (text.as_str(), alias, text.parse()) {
                ("self", _, _) => owners.push(Self::Me),
                (_, Some(alias), _) => owners.push(Self::Alias(alias)),
                (_, None, Ok(account)) => owners.push(Self::Account(account)),
                (_, None, Err(_)) => {
                    let words = format!("invalid user id: \"{text}\"; expected an account of 12 digits, self, {}", ALIASES.join(", "));
                    violations.add_as("InvalidUserID.Malformed", format!("{field}[{place}]"), words);
                }
            }
        }
        owners
    }

    /// Whether it names the owner of something.
    pub fn is(&self, owner: AccountId, alias: Option<&str>, viewer: AccountId) -> bool {
        match self {
            Self::Me => owner == viewer,
            Self::Alias(name) => alias == Some(name),
            Self::Account(account) => owner == *account,
        }
    }
}

/// Those who may use something, as a caller names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserRef {
    /// `self`: explicitly, not as one of all.
    Me,
    /// `all`.
    All,
    Account(AccountId),
}

impl UserRef {
    /// Reads a list. Errors: `InvalidUserID.Malformed`.
    pub fn parse_all(texts: &[String], field: &str, violations: &mut Violations) -> Vec<Self> {
        let mut users = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter().enumerate() {
            match (text.as_str(), text.parse()) {
                ("self", _) => users.push(Self::Me),
                ("all", _) => users.push(Self::All),
                (_, Ok(account)) => users.push(Self::Account(account)),
                (_, Err(_)) => {
                    let words = format!("invalid user id: \"{text}\"; expected an account of 12 digits, self or all");
                    violations.add_as("InvalidUserID.Malformed", format!("{field}[{place}]"), words);
                }
            }
        }
        users
    }

    /// Whether these have an explicit permission. To whom something is shared beside the viewer is only the owner's
    /// to know.
    pub fn is_in(&self, permissions: &Permissions, owner: AccountId, viewer: AccountId) -> bool {
        match self {
            Self::All => permissions.all,
            Self::Me => permissions.accounts.contains(&viewer),
            Self::Account(account) => permissions.accounts.contains(account) && (*account == viewer || owner == viewer),
        }
    }
}

impl Image {
    /// Whether this account in this region may see and launch it: its own, shared with it, public, or on the
    /// marketplace. Others never learn that it exists.
    pub fn visible_to(&self, viewer: &Scope) -> bool {
        let usable = match self.state {
            ImageState::Available { .. } | ImageState::Deregistered { .. } => true,
            // Unfinished and failed ones are the owner's alone.
            ImageState::Pending { .. } | ImageState::Failed { .. } => false,
        };
        let own = self.scope.account == viewer.account;
        self.scope.region == viewer.region && (own || (usable && (self.listed || self.permissions.contains(viewer.account))))
    }

    pub(crate) fn deprecated(&self, now: Timestamp) -> bool {
        self.deprecation_time.is_some_and(|time| time <= now)
    }
}

/// Which images a caller asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageQuery {
    /// Empty for all.
    pub ids: Vec<ImageId>,
    pub owners: Vec<OwnerRef>,
    pub executable_by: Vec<UserRef>,
    pub include_deprecated: bool,
}

impl ImageQuery {
    /// Reads a request. Errors, all at once: `InvalidAMIID.Malformed`, `InvalidUserID.Malformed`.
    pub fn parse(ids: &[String], owners: &[String], executable_by: &[String], include_deprecated: bool) -> Result<Self, Refusal> {
        let mut violations = Violations::new();
        let query = Self {
            ids: violations.ids("image_ids", ids),
            owners: OwnerRef::parse_all(owners, "owners", &mut violations),
            executable_by: UserRef::parse_all(executable_by, "executable_users", &mut violations),
            include_deprecated,
        };
        violations.finish()?;
        Ok(query)
    }

    /// Every image that was asked for by id must be there for the viewer.
    ///
    /// Errors: `InvalidAMIID.NotFound`, which names all of them, `InvalidAMIID.Unavailable` (deregistered).
    pub fn check_ids<'a>(&self, viewer: &Scope, find: impl Fn(ImageId) -> Option<&'a Image>) -> Result<(), ImageError> {
        let seen = |id: &ImageId| find(*id).filter(|image| image.visible_to(viewer));
        let missing: Vec<ImageId> = self.ids.iter().copied().filter(|id| seen(id).is_none()).collect();
        if !missing.is_empty() {
            return Err(ImageError::NotFound { ids: missing });
        }
        let gone = self.ids.iter().copied().find(|id| seen(id).is_some_and(|image| matches!(image.state, ImageState::Deregistered { .. })));
        gone.map_or(Ok(()), |id| Err(ImageError::Unavailable { id }))
    }

    /// Whether the viewer gets it, by visibility and by what was asked. Filters come on top.
    ///
    /// AWS: deprecated ones are left out of a list unless they are the viewer's own, asked for, or named by id.
    pub fn admits(&self, it: &Image, viewer: &Scope, now: Timestamp) -> bool {
        let own = it.scope.account == viewer.account;
        let current = own || self.include_deprecated || !self.ids.is_empty() || !it.deprecated(now);
        let owner = |owner: &OwnerRef| owner.is(it.scope.account, it.owner_alias(), viewer.account);
        let user = |user: &UserRef| user.is_in(&it.permissions, it.scope.account, viewer.account);
        it.visible_to(viewer)
            && !matches!(it.state, ImageState::Deregistered { .. })
            && current
            && (self.ids.is_empty() || self.ids.contains(&it.id))
            && (self.owners.is_empty() || self.owners.iter().any(owner))
            && (self.executable_by.is_empty() || self.executable_by.iter().any(user))
    }
}
