//! Machine images: what instances are launched from.
//!
//! ```text
//!  CreateImage ──▶ pending ──snapshots completed──▶ available ──deregister──▶ deregistered ──[`DEREGISTERED_KEPT`]──▶ (removed)
//!                     └──a snapshot failed──▶ failed ──deregister──▶ ┘           ▲
//!  RegisterImage, [`shipped`] ─────────────────────────▶ available ──────────────┘
//! ```

use std::{borrow::Cow, time::Duration};

use gureum_model::{
    AccountId, Refusal, RefusalKind, Scope, Tags, Timestamp,
    id::{ImageId, InstanceId, SnapshotId},
};
use serde::{Deserialize, Serialize};

use crate::{
    block_device::DeviceMapping,
    instance::{BootMode, Platform, StateName},
    launch_check::ImageFacts,
    snapshot::{SHIPPED_ALIAS, Snapshot, SnapshotState},
    volume::Decision,
};

pub mod create;
mod filter;
pub mod permission;
pub mod shipped;
pub mod visibility;

pub use permission::Permissions;
pub use visibility::ImageQuery;

/// The alias of owners of images that are on the marketplace.
pub const MARKETPLACE_ALIAS: &str = "aws-marketplace";
/// A deregistered image's record is kept this long, so that whoever still names it learns what happened to it.
pub const DEREGISTERED_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Characters of a description at most, as EC2 limits them.
pub const MAX_DESCRIPTION_CHARS: usize = 255;

/// An image. Stored as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// The owner's.
    pub scope: Scope,
    pub id: ImageId,
    /// Unique among those of its owner that are not deregistered.
    pub name: String,
    pub description: String,
    pub state: ImageState,
    pub source: ImageSource,
    pub architecture: Architecture,
    pub platform: Platform,
    pub root_device_name: String,
    /// The root first.
    pub block_devices: Vec<DeviceMapping>,
    /// Who may launch it beside the owner.
    pub permissions: Permissions,
    /// On the marketplace: everyone sees it, and launches it once the terms are accepted.
    pub listed: bool,
    /// Marketplace products in it, its own or inherited from an instance.
    pub product_codes: Vec<String>,
    pub create_time: Timestamp,
    pub deprecation_time: Option<Timestamp>,
    /// When an instance was last launched from it.
    pub last_launched: Option<Timestamp>,
    pub ena_support: bool,
    pub boot_mode: Option<ImageBootMode>,
    /// Its instances demand tokens of the metadata endpoint.
    pub demands_tokens: bool,
    pub tags: Tags,
}

/// Where an image comes from: it decides what is in its root volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSource {
    /// It comes with Gureum: the key of its line in `data/images.csv`.
    Shipped {
        name: String,
    },
    FromInstance {
        instance_id: InstanceId,
        image_id: ImageId,
    },
    /// Of snapshots.
    Registered,
}

/// Where an image is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageState {
    /// Its snapshots are being made.
    Pending {
        since: Timestamp,
    },
    Available {
        since: Timestamp,
    },
    /// It could not be made; in words.
    Failed {
        since: Timestamp,
        reason: String,
    },
    Deregistered {
        since: Timestamp,
    },
}

impl ImageState {
    /// EC2's word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Available { .. } => "available",
            Self::Failed { .. } => "failed",
            Self::Deregistered { .. } => "deregistered",
        }
    }

    /// EC2's `stateReason`: code and message.
    pub fn reason(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Failed { reason, .. } => Some(("Server.InternalError", reason)),
            Self::Pending { .. } | Self::Available { .. } | Self::Deregistered { .. } => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    X86_64,
    Arm64,
}

impl Architecture {
    /// EC2's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageBootMode {
    LegacyBios,
    Uefi,
    /// UEFI where the type can.
    UefiPreferred,
}

impl ImageBootMode {
    /// EC2's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LegacyBios => "legacy-bios",
            Self::Uefi => "uefi",
            Self::UefiPreferred => "uefi-preferred",
        }
    }
}

impl Image {
    /// `amazon` for what ships, `aws-marketplace` for what is listed.
    pub fn owner_alias(&self) -> Option<&'static str> {
        match (&self.source, self.listed) {
            (ImageSource::Shipped { .. }, _) => Some(SHIPPED_ALIAS),
            (ImageSource::FromInstance { .. } | ImageSource::Registered, true) => Some(MARKETPLACE_ALIAS),
            (ImageSource::FromInstance { .. } | ImageSource::Registered, false) => None,
        }
    }

    /// EC2's `imageLocation`: owner and name.
    pub fn location(&self) -> String {
        match self.owner_alias() {
            Some(alias) => format!("{alias}/{}", self.name),
            None => format!("{}/{}", self.scope.account, self.name),
        }
    }

    /// The instance from which it was made.
    pub fn source_instance(&self) -> Option<InstanceId> {
        match self.source {
            ImageSource::FromInstance { instance_id, .. } => Some(instance_id),
            ImageSource::Shipped { .. } | ImageSource::Registered => None,
        }
    }

    /// EC2's words for the operating system.
    pub fn platform_details(&self) -> &'static str {
        match self.platform {
            Platform::Linux => "Linux/UNIX",
            Platform::Windows => "Windows",
        }
    }

    /// The billing code.
    pub fn usage_operation(&self) -> &'static str {
        match self.platform {
            Platform::Linux => "RunInstances",
            Platform::Windows => "RunInstances:0002",
        }
    }

    /// The snapshots that its mappings name: they cannot be deleted while it is not deregistered.
    pub fn snapshots(&self) -> impl Iterator<Item = SnapshotId> {
        self.block_devices.iter().filter_map(|mapping| mapping.ebs()?.snapshot_id)
    }

    /// Whether it keeps its snapshots from being deleted.
    pub fn holds_snapshots(&self) -> bool {
        !matches!(self.state, ImageState::Deregistered { .. })
    }

    /// As the viewer sees it: tags and the accounts it is shared with are the owner's alone.
    pub fn seen_by(&self, viewer: AccountId) -> Cow<'_, Self> {
        let bare = self.tags.is_empty() && self.permissions.accounts.is_empty();
        if bare || self.scope.account == viewer {
            return Cow::Borrowed(self);
        }
        let permissions = Permissions { all: self.permissions.all, ..Permissions::default() };
        Cow::Owned(Self { tags: Tags::default(), permissions, ..self.clone() })
    }

    /// How an instance of it boots: as it says, or as its architecture does.
    pub fn instance_boot_mode(&self) -> BootMode {
        match (self.boot_mode, self.architecture) {
            (Some(ImageBootMode::LegacyBios), _) | (None, Architecture::X86_64) => BootMode::LegacyBios,
            (Some(ImageBootMode::Uefi | ImageBootMode::UefiPreferred), _) | (None, Architecture::Arm64) => BootMode::Uefi,
        }
    }

    /// What a launch checks. `terms_missing` comes from [`crate::marketplace::terms_missing`]; the caller must see the
    /// image ([`Image::visible_to`]).
    pub fn facts(&self, terms_missing: Option<String>) -> ImageFacts {
        ImageFacts {
            id: self.id,
            available: matches!(self.state, ImageState::Available { .. }),
            architecture: self.architecture.as_str().to_owned(),
            platform: self.platform,
            platform_details: self.platform_details().to_owned(),
            usage_operation: self.usage_operation().to_owned(),
            root_device_name: self.root_device_name.clone(),
            boot_mode: self.instance_boot_mode(),
            demands_tokens: self.demands_tokens,
            product_codes: self.product_codes.clone(),
            terms_missing,
        }
    }

    fn with_state(&self, state: ImageState) -> Self {
        Self { state, ..self.clone() }
    }
}

/// What time and the image's snapshots have changed; `find` gives a snapshot if it is there.
pub fn settle<'a>(it: &Image, find: impl Fn(SnapshotId) -> Option<&'a Snapshot>, now: Timestamp) -> Decision<Image> {
    match &it.state {
        ImageState::Pending { .. } => match progress(it, find) {
            Progress::Waits => Decision::Unchanged,
            Progress::Done => Decision::Change(it.with_state(ImageState::Available { since: now })),
            Progress::Failed(reason) => Decision::Change(it.with_state(ImageState::Failed { since: now, reason })),
        },
        ImageState::Deregistered { since } if now >= *since + DEREGISTERED_KEPT => Decision::Remove,
        ImageState::Available { .. } | ImageState::Failed { .. } | ImageState::Deregistered { .. } => Decision::Unchanged,
    }
}

/// How far the snapshots of an image are.
enum Progress {
    Waits,
    Done,
    Failed(String),
}

fn progress<'a>(it: &Image, find: impl Fn(SnapshotId) -> Option<&'a Snapshot>) -> Progress {
    let mut waits = false;
    for id in it.snapshots() {
        match find(id).map(|snapshot| &snapshot.state) {
            Some(SnapshotState::Completed { .. }) => {}
            Some(SnapshotState::Pending { .. }) => waits = true,
            Some(SnapshotState::Error { reason, .. }) => return Progress::Failed(format!("the snapshot {id} failed: {reason}")),
            None => return Progress::Failed(format!("the snapshot {id} is gone")),
        }
    }
    if waits { Progress::Waits } else { Progress::Done }
}

/// When time alone will next change something.
pub fn due(it: &Image) -> Option<Timestamp> {
    match it.state {
        ImageState::Deregistered { since } => Some(since + DEREGISTERED_KEPT),
        ImageState::Pending { .. } | ImageState::Available { .. } | ImageState::Failed { .. } => None,
    }
}

/// Only the owner may change it; who does not see it does not learn that it exists.
pub fn check_owner(it: &Image, caller: &Scope) -> Result<(), ImageError> {
    let shipped = matches!(it.source, ImageSource::Shipped { .. });
    match (it.scope == *caller && !shipped, it.visible_to(caller)) {
        (true, _) => {}
        (false, true) => return Err(ImageError::NotOwner { id: it.id }),
        (false, false) => return Err(ImageError::NotFound { ids: vec![it.id] }),
    }
    match it.state {
        ImageState::Deregistered { .. } => Err(ImageError::Unavailable { id: it.id }),
        ImageState::Pending { .. } | ImageState::Available { .. } | ImageState::Failed { .. } => Ok(()),
    }
}

/// Deregisters an image: nothing can be launched from it any more. Its instances and snapshots stay.
///
/// Errors: `InvalidAMIID.NotFound`, `AuthFailure`, `InvalidAMIID.Unavailable` (it is deregistered).
pub fn deregister(it: &Image, caller: &Scope, now: Timestamp) -> Result<Decision<Image>, ImageError> {
    check_owner(it, caller)?;
    let next = Image { listed: false, ..it.with_state(ImageState::Deregistered { since: now }) };
    Ok(Decision::Change(next))
}

/// One change of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Description(String),
    Permissions(permission::Change),
    /// From now on its instances demand tokens; AWS: it cannot be taken back.
    DemandsTokens,
}

/// Changes an attribute.
///
/// Errors: `InvalidAMIID.NotFound`, `AuthFailure`, `InvalidAMIID.Unavailable`, `InvalidParameterValue`,
/// `OperationNotPermitted` (AWS: an image with encrypted volumes cannot be public).
pub fn modify(it: &Image, caller: &Scope, change: &Change) -> Result<Decision<Image>, ImageError> {
    check_owner(it, caller)?;
    let mut next = it.clone();
    match change {
        Change::Description(text) => {
            create::check_description(text)?;
            next.description.clone_from(text);
        }
        Change::DemandsTokens => next.demands_tokens = true,
        Change::Permissions(change) => {
            next.permissions = it.permissions.changed(change);
            let encrypted = it.block_devices.iter().filter_map(DeviceMapping::ebs).any(|ebs| ebs.encrypted);
            if next.permissions.all && encrypted {
                return Err(ImageError::EncryptedPublic { id: it.id });
            }
            if next.permissions.accounts.len() > permission::MAX_ACCOUNTS {
                return Err(ImageError::TooManyAccounts { id: it.id });
            }
        }
    }
    Ok(if next == *it { Decision::Unchanged } else { Decision::Change(next) })
}

/// Why a call on an image was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error("the image id '[{}]' does not exist", ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    NotFound { ids: Vec<ImageId> },
    #[error("the image id '[{id}]' is no longer available; choose another one")]
    Unavailable { id: ImageId },
    #[error("not authorized for images: [{id}]; it is another account's")]
    NotOwner { id: ImageId },
    #[error("AMI name {name} is already in use by AMI {by}; choose another one, or deregister that one")]
    NameTaken { name: String, by: ImageId },
    #[error("AMI name '{name}' is malformed: names have 3 to 128 letters, digits, spaces and ( ) [ ] . / - ' @ _")]
    NameMalformed { name: String },
    #[error("the description has {chars} characters, more than {MAX_DESCRIPTION_CHARS}")]
    LongDescription { chars: usize },
    #[error("the image '{id}' has encrypted volumes and cannot be public; name accounts")]
    EncryptedPublic { id: ImageId },
    #[error("the image '{id}' would be shared with more than {} accounts", permission::MAX_ACCOUNTS)]
    TooManyAccounts { id: ImageId },
    #[error("the image '{id}' is {state}, and only an available one can be listed")]
    NotAvailable { id: ImageId, state: &'static str },
    #[error("the instance '{id}' is {state}, and an image is made of one that is running or stopped")]
    InstanceState { id: InstanceId, state: StateName },
}

impl From<ImageError> for Refusal {
    fn from(error: ImageError) -> Self {
        let text = error.to_string();
        match error {
            ImageError::NotFound { .. } => Self::new(RefusalKind::NotFound, "InvalidAMIID.NotFound", text).of_field("image_id"),
            ImageError::Unavailable { .. } | ImageError::NotAvailable { .. } => Self::wrong_state("InvalidAMIID.Unavailable", text),
            ImageError::NotOwner { .. } => Self::new(RefusalKind::Denied, "AuthFailure", text).of_field("image_id"),
            ImageError::NameTaken { .. } => Self::new(RefusalKind::AlreadyExists, "InvalidAMIName.Duplicate", text).of_field("name"),
            ImageError::NameMalformed { .. } => Self::invalid_as("InvalidAMIName.Malformed", "name", text),
            ImageError::LongDescription { .. } => Self::invalid("description", text),
            ImageError::EncryptedPublic { .. } => Self::wrong_state("OperationNotPermitted", text).of_field("launch_permission.add"),
            ImageError::TooManyAccounts { .. } => Self::invalid("launch_permission.add", text),
            ImageError::InstanceState { .. } => Self::wrong_state("IncorrectState", text).of_field("instance_id"),
        }
    }
}
