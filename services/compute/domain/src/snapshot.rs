//! Snapshots: copies of a volume at one moment.
//!
//! ```text
//!  CreateSnapshot, CreateImage ──▶ pending ──copied──▶ completed ──delete──▶ (removed)
//!                                     └──────────fault──▶ error ──delete──▶ (removed)
//! ```
//!
//! How long copying takes depends on the size alone: [`copy_time`]. Progress is a function of the time, and never
//! stored.

use std::{borrow::Cow, time::Duration};

use gureum_model::{
    AccountId, Filterable, Refusal, RefusalKind, Scope, Tags, Timestamp,
    id::{ImageId, NodeId, SnapshotId, VolumeId},
    refusal::Violations,
};
use serde::{Deserialize, Serialize};

use crate::{
    image::{
        permission::{Change, Permissions},
        visibility::{OwnerRef, UserRef},
    },
    volume::{Decision, Volume, VolumeState},
};

/// Copying takes at least this long.
pub const COPY_AT_LEAST: Duration = Duration::from_secs(1);
/// Copying takes at most this long: who waits for a snapshot in a test waits for no more.
pub const COPY_AT_MOST: Duration = Duration::from_secs(60);
/// GiB that are copied in a second.
pub const COPY_GIB_PER_SECOND: u32 = 8;
/// Characters of a description at most, as EC2 limits them.
pub const MAX_DESCRIPTION_CHARS: usize = 255;
/// The alias of the accounts that own what ships.
pub const SHIPPED_ALIAS: &str = "amazon";

/// A snapshot. Stored as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The owner's.
    pub scope: Scope,
    pub id: SnapshotId,
    /// What it was taken from; it may be gone.
    pub volume_id: VolumeId,
    pub volume_size_gib: u32,
    pub description: String,
    pub encrypted: bool,
    /// Only if encrypted.
    pub kms_key_id: Option<String>,
    pub start_time: Timestamp,
    pub state: SnapshotState,
    /// Who may make volumes of it beside the owner.
    pub permissions: Permissions,
    /// Products of the marketplace that are in it: whoever launches an image of it accepts their terms first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub product_codes: Vec<String>,
    /// Where its files are, if a node keeps any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Of an image that ships: nobody can change it.
    pub shipped: bool,
    pub tags: Tags,
}

/// Where a snapshot is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// It is being copied until then.
    Pending {
        until: Timestamp,
    },
    Completed {
        since: Timestamp,
    },
    /// It cannot be used; in words.
    Error {
        since: Timestamp,
        reason: String,
    },
}

impl SnapshotState {
    /// EC2's word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Completed { .. } => "completed",
            Self::Error { .. } => "error",
        }
    }
}

/// How long a snapshot of so large a volume takes.
pub fn copy_time(size_gib: u32) -> Duration {
    (COPY_AT_LEAST + Duration::from_secs(u64::from(size_gib)) / COPY_GIB_PER_SECOND).min(COPY_AT_MOST)
}

impl Snapshot {
    /// How much is copied, in percent.
    pub fn progress_percent(&self, now: Timestamp) -> u8 {
        match self.state {
            SnapshotState::Completed { .. } => 100,
            SnapshotState::Error { .. } => 0,
            SnapshotState::Pending { until } => {
                let whole = until.since(self.start_time).as_micros().max(1);
                let done = now.since(self.start_time).as_micros() * 100 / whole;
                // It is whole only once it is completed.
                u8::try_from(done.min(99)).unwrap_or(99)
            }
        }
    }

    /// When it was complete.
    pub fn completion_time(&self) -> Option<Timestamp> {
        match self.state {
            SnapshotState::Completed { since } => Some(since),
            SnapshotState::Pending { .. } | SnapshotState::Error { .. } => None,
        }
    }

    /// `amazon` for those of the shipped images.
    pub fn owner_alias(&self) -> Option<&'static str> {
        self.shipped.then_some(SHIPPED_ALIAS)
    }

    /// Whether this account in this region may see it and make volumes of it.
    pub fn visible_to(&self, viewer: &Scope) -> bool {
        self.scope.region == viewer.region && (self.scope.account == viewer.account || self.permissions.contains(viewer.account))
    }

    /// As the viewer sees it: tags and permissions are the owner's alone.
    pub fn seen_by(&self, viewer: AccountId) -> Cow<'_, Self> {
        let bare = self.tags.is_empty() && self.permissions == Permissions::default();
        if bare || self.scope.account == viewer {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Self { tags: Tags::default(), permissions: Permissions::default(), ..self.clone() })
    }
}

/// Takes a snapshot of a volume, pending.
///
/// Errors: `InvalidVolume.NotFound` (deleted), `IncorrectState`, `InvalidParameterValue` (description).
pub fn create(volume: &Volume, description: &str, tags: Tags, id: SnapshotId, now: Timestamp) -> Result<Snapshot, SnapshotError> {
    check_description(description)?;
    match &volume.state {
        VolumeState::Available { .. } | VolumeState::InUse { .. } => Ok(of_volume(volume, description, tags, id, now)),
        VolumeState::Deleted { .. } => Err(SnapshotError::VolumeNotFound { id: volume.id }),
        VolumeState::Creating { .. } | VolumeState::Deleting { .. } | VolumeState::Error { .. } => {
            Err(SnapshotError::VolumeState { id: volume.id, state: volume.state.as_str() })
        }
    }
}

pub(crate) fn of_volume(volume: &Volume, description: &str, tags: Tags, id: SnapshotId, now: Timestamp) -> Snapshot {
    Snapshot {
        scope: volume.scope.clone(),
        id,
        volume_id: volume.id,
        volume_size_gib: volume.size_gib,
        description: description.to_owned(),
        encrypted: volume.encrypted,
        kms_key_id: volume.kms_key_id.clone(),
        start_time: now,
        state: SnapshotState::Pending { until: now + copy_time(volume.size_gib) },
        permissions: Permissions::default(),
        product_codes: volume.product_codes.clone(),
        node: None,
        shipped: false,
        tags,
    }
}

fn check_description(description: &str) -> Result<(), SnapshotError> {
    let chars = description.chars().count();
    if chars > MAX_DESCRIPTION_CHARS { Err(SnapshotError::LongDescription { chars }) } else { Ok(()) }
}

/// What time alone has changed.
pub fn settle(it: &Snapshot, now: Timestamp) -> Decision<Snapshot> {
    match it.state {
        SnapshotState::Pending { until } if now >= until => {
            Decision::Change(Snapshot { state: SnapshotState::Completed { since: now }, ..it.clone() })
        }
        SnapshotState::Pending { .. } | SnapshotState::Completed { .. } | SnapshotState::Error { .. } => Decision::Unchanged,
    }
}

/// When [`settle`] will change something; none if it never will.
pub fn due(it: &Snapshot) -> Option<Timestamp> {
    match it.state {
        SnapshotState::Pending { until } => Some(until),
        SnapshotState::Completed { .. } | SnapshotState::Error { .. } => None,
    }
}

/// A snapshot of which volumes can be made now.
///
/// `found` is none where the caller may not use it. Errors: `InvalidSnapshot.NotFound`, `IncorrectState` (AWS:
/// volumes can be made only of completed ones).
pub fn usable(id: SnapshotId, found: Option<&Snapshot>) -> Result<&Snapshot, SnapshotError> {
    let snapshot = found.ok_or(SnapshotError::NotFound { id })?;
    match snapshot.state {
        SnapshotState::Completed { .. } => Ok(snapshot),
        SnapshotState::Pending { .. } | SnapshotState::Error { .. } => Err(SnapshotError::State { id, state: snapshot.state.as_str() }),
    }
}

/// Only the owner may change it; who does not see it does not learn that it exists.
fn check_owner(it: &Snapshot, caller: &Scope) -> Result<(), SnapshotError> {
    let own = it.scope == *caller && !it.shipped;
    match (own, it.visible_to(caller)) {
        (true, _) => Ok(()),
        (false, true) => Err(SnapshotError::NotOwner { id: it.id }),
        (false, false) => Err(SnapshotError::NotFound { id: it.id }),
    }
}

/// Deletes a snapshot; `used_by` are the images with a mapping of it that are not deregistered.
///
/// Errors: `InvalidSnapshot.NotFound`, `AuthFailure`, `InvalidSnapshot.InUse`.
pub fn delete(it: &Snapshot, caller: &Scope, used_by: &[ImageId]) -> Result<Decision<Snapshot>, SnapshotError> {
    check_owner(it, caller)?;
    match used_by.first() {
        Some(image) => Err(SnapshotError::InUse { id: it.id, image: *image }),
        None => Ok(Decision::Remove),
    }
}

/// Changes who may make volumes of it.
///
/// Errors: `InvalidSnapshot.NotFound`, `AuthFailure`, `OperationNotPermitted` (AWS: encrypted snapshots cannot be
/// public), `InvalidParameterValue` (more than [`crate::image::permission::MAX_ACCOUNTS`] accounts).
pub fn modify_permissions(it: &Snapshot, caller: &Scope, change: &Change) -> Result<Decision<Snapshot>, SnapshotError> {
    check_owner(it, caller)?;
    let permissions = it.permissions.changed(change);
    if permissions.all && it.encrypted {
        return Err(SnapshotError::EncryptedPublic { id: it.id });
    }
    if permissions.accounts.len() > crate::image::permission::MAX_ACCOUNTS {
        return Err(SnapshotError::TooManyAccounts { id: it.id });
    }
    Ok(if permissions == it.permissions { Decision::Unchanged } else { Decision::Change(Snapshot { permissions, ..it.clone() }) })
}

/// Which snapshots a caller asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotQuery {
    pub owners: Vec<OwnerRef>,
    pub restorable_by: Vec<UserRef>,
}

impl SnapshotQuery {
    /// Reads a request. Errors: `InvalidUserID.Malformed`.
    pub fn parse(owners: &[String], restorable_by: &[String]) -> Result<Self, Refusal> {
        let mut violations = Violations::new();
        let query = Self {
            owners: OwnerRef::parse_all(owners, "owner_ids", &mut violations),
            restorable_by: UserRef::parse_all(restorable_by, "restorable_by_user_ids", &mut violations),
        };
        violations.finish()?;
        Ok(query)
    }

    /// Whether the viewer gets it, by visibility and by what was asked. Filters come on top.
    pub fn admits(&self, it: &Snapshot, viewer: &Scope) -> bool {
        let owner = |owner: &OwnerRef| owner.is(it.scope.account, it.owner_alias(), viewer.account);
        let user = |user: &UserRef| user.is_in(&it.permissions, it.scope.account, viewer.account);
        it.visible_to(viewer)
            && (self.owners.is_empty() || self.owners.iter().any(owner))
            && (self.restorable_by.is_empty() || self.restorable_by.iter().any(user))
    }
}

/// A snapshot as it is at one time, for filters: its progress depends on it.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotAt<'a> {
    pub snapshot: &'a Snapshot,
    pub now: Timestamp,
}

impl Filterable for SnapshotAt<'_> {
    const FILTER_NAMES: &'static [&'static str] = &[
        "description",
        "encrypted",
        "owner-alias",
        "owner-id",
        "progress",
        "snapshot-id",
        "start-time",
        "status",
        "storage-tier",
        "volume-id",
        "volume-size",
    ];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        let it = self.snapshot;
        match name {
            "description" => vec![it.description.as_str().into()],
            "encrypted" => vec![it.encrypted.to_string().into()],
            "owner-alias" => it.owner_alias().map(Cow::from).into_iter().collect(),
            "owner-id" => vec![it.scope.account.to_string().into()],
            "progress" => vec![format!("{}%", it.progress_percent(self.now)).into()],
            "snapshot-id" => vec![it.id.to_string().into()],
            "start-time" => vec![it.start_time.to_string().into()],
            "status" => vec![it.state.as_str().into()],
            "storage-tier" => vec!["standard".into()],
            "volume-id" => vec![it.volume_id.to_string().into()],
            "volume-size" => vec![it.volume_size_gib.to_string().into()],
            _ => Vec::new(),
        }
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.snapshot.tags)
    }
}

/// Why a call on a snapshot was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("the snapshot '{id}' does not exist")]
    NotFound { id: SnapshotId },
    #[error("the snapshot '{id}' is {state}, and not 'completed'")]
    State { id: SnapshotId, state: &'static str },
    #[error("the snapshot '{id}' is currently in use by {image}; deregister the image first")]
    InUse { id: SnapshotId, image: ImageId },
    #[error("not authorized for the snapshot '{id}': it is another account's")]
    NotOwner { id: SnapshotId },
    #[error("the snapshot '{id}' is encrypted and cannot be public; name accounts")]
    EncryptedPublic { id: SnapshotId },
    #[error("the snapshot '{id}' would be shared with more than {} accounts", crate::image::permission::MAX_ACCOUNTS)]
    TooManyAccounts { id: SnapshotId },
    #[error("the volume '{id}' does not exist")]
    VolumeNotFound { id: VolumeId },
    #[error("the volume '{id}' is {state}; a snapshot is taken of one that is available or in-use")]
    VolumeState { id: VolumeId, state: &'static str },
    #[error("the description has {chars} characters, more than {MAX_DESCRIPTION_CHARS}")]
    LongDescription { chars: usize },
}

impl From<SnapshotError> for Refusal {
    fn from(error: SnapshotError) -> Self {
        let text = error.to_string();
        match error {
            SnapshotError::NotFound { .. } => Self::new(RefusalKind::NotFound, "InvalidSnapshot.NotFound", text).of_field("snapshot_id"),
            SnapshotError::State { .. } | SnapshotError::VolumeState { .. } => Self::wrong_state("IncorrectState", text),
            SnapshotError::InUse { .. } => Self::wrong_state("InvalidSnapshot.InUse", text),
            SnapshotError::NotOwner { .. } => Self::new(RefusalKind::Denied, "AuthFailure", text).of_field("snapshot_id"),
            SnapshotError::EncryptedPublic { .. } => {
                Self::wrong_state("OperationNotPermitted", text).of_field("add_create_volume_permissions")
            }
            SnapshotError::TooManyAccounts { .. } => Self::invalid("add_create_volume_permissions", text),
            SnapshotError::VolumeNotFound { .. } => Self::new(RefusalKind::NotFound, "InvalidVolume.NotFound", text).of_field("volume_id"),
            SnapshotError::LongDescription { .. } => Self::invalid("description", text),
        }
    }
}
