//! Network interfaces: the record, and what it says of itself.
//!
//! ```text
//!             create                    attach              settle
//!  (nothing) ───────▶ Available ───────────────▶ Attaching ───────▶ InUse
//!                        ▲  │                                       │  │
//!                 delete │  └──── made with its instance ──────────▶│  │ detach
//!               (nothing)│                                          │  ▼
//!                        └──────────── settle, or force ──────── Detaching
//! ```

use std::{borrow::Cow, net::Ipv4Addr};

use gureum_model::{
    Filterable, Scope, Tags, Timestamp,
    id::{AllocationId, AssociationId, AttachmentId, InstanceId, NetworkInterfaceId, ResourceId, SecurityGroupId, SubnetId, VpcId},
};
use serde::{Deserialize, Serialize};

use crate::{dns, letting_go::Releasing, text, zone};

/// Private addresses that one interface may have: EC2's highest of any instance type.
pub const MAX_PRIVATE_ADDRESSES: usize = 50;
/// Groups that one interface may be in: EC2's highest quota. More get `SecurityGroupsPerInterfaceLimitExceeded`.
pub const MAX_GROUPS: usize = 16;
/// The longest description, in characters, as in EC2.
pub const MAX_DESCRIPTION_CHARS: usize = 255;

/// A card with addresses in one subnet, which an instance can have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    pub scope: Scope,
    pub id: NetworkInterfaceId,
    pub vpc_id: VpcId,
    pub subnet_id: SubnetId,
    /// The subnet's zone.
    pub zone: String,
    pub description: String,
    /// 1 to [`MAX_PRIVATE_ADDRESSES`]; the first is the primary and stays for life.
    pub private_addresses: Vec<PrivateAddress>,
    /// 1 to [`MAX_GROUPS`].
    pub groups: Vec<Group>,
    pub source_dest_check: bool,
    pub state: InterfaceState,
    /// Public addresses that its instance has yet to let go of; only at the instance's primary interface.
    #[serde(default)]
    pub releasing: Vec<Releasing>,
    /// How many addresses its instance was ever to let go of here.
    #[serde(default)]
    pub releases: u64,
    pub tags: Tags,
}

/// One private address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateAddress {
    pub address: Ipv4Addr,
    /// The public address that leads to it.
    pub public: Option<PublicAddress>,
}

/// A public address that leads to a private one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PublicAddress {
    /// Of the pool: it comes and goes with the instance.
    Pool { address: Ipv4Addr },
    /// An elastic IP.
    Elastic {
        address: Ipv4Addr,
        allocation: AllocationId,
        association: AssociationId,
        /// Another instance has yet to let go of it.
        #[serde(default)]
        waiting: bool,
    },
}

impl PublicAddress {
    pub fn address(&self) -> Ipv4Addr {
        match self {
            Self::Pool { address } | Self::Elastic { address, .. } => *address,
        }
    }

    /// Whether the interface's instance may hold it already.
    pub fn is_waiting(&self) -> bool {
        match self {
            Self::Pool { .. } => false,
            Self::Elastic { waiting, .. } => *waiting,
        }
    }

    /// The elastic IP and its association.
    pub fn elastic(&self) -> Option<(AllocationId, AssociationId)> {
        match self {
            Self::Pool { .. } => None,
            Self::Elastic { allocation, association, .. } => Some((*allocation, *association)),
        }
    }
}

/// A security group by both its names; neither ever changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub id: SecurityGroupId,
    pub name: String,
}

/// Whether an instance has an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InterfaceState {
    Available,
    /// The instance's side has yet to plug it in.
    Attaching {
        since: Timestamp,
        attachment: Attachment,
    },
    InUse {
        attachment: Attachment,
    },
    /// The instance's side has yet to let go of it.
    Detaching {
        since: Timestamp,
        attachment: Attachment,
    },
}

impl InterfaceState {
    /// EC2's word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Attaching { .. } => "attaching",
            Self::InUse { .. } => "in-use",
            Self::Detaching { .. } => "detaching",
        }
    }

    /// EC2's word for the attachment's own state.
    pub fn attachment_status(&self) -> Option<&'static str> {
        match self {
            Self::Available => None,
            Self::Attaching { .. } => Some("attaching"),
            Self::InUse { .. } => Some("attached"),
            Self::Detaching { .. } => Some("detaching"),
        }
    }
}

/// That an instance has an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub id: AttachmentId,
    pub instance_id: InstanceId,
    /// 0 is the primary interface, which stays as long as the instance.
    pub device_index: u32,
    pub attached_at: Timestamp,
    pub delete_on_termination: bool,
    pub auto_public: AutoPublic,
    /// Interfaces that the instance's type allows; what the primary interface says counts.
    pub interface_limit: u32,
}

/// Whether an interface gets a public address of the pool while its instance runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AutoPublic {
    /// Not by its launch.
    Never,
    /// By its launch, and the instance runs.
    Running,
    /// By its launch, and the instance is stopped.
    Stopped,
}

impl NetworkInterface {
    pub fn attachment(&self) -> Option<&Attachment> {
        match &self.state {
            InterfaceState::Available => None,
            InterfaceState::Attaching { attachment, .. }
            | InterfaceState::InUse { attachment }
            | InterfaceState::Detaching { attachment, .. } => Some(attachment),
        }
    }

    pub fn attachment_mut(&mut self) -> Option<&mut Attachment> {
        match &mut self.state {
            InterfaceState::Available => None,
            InterfaceState::Attaching { attachment, .. }
            | InterfaceState::InUse { attachment }
            | InterfaceState::Detaching { attachment, .. } => Some(attachment),
        }
    }

    /// The instance that has it.
    pub fn instance(&self) -> Option<InstanceId> {
        self.attachment().map(|attachment| attachment.instance_id)
    }

    /// The private address that it keeps for life.
    pub fn primary(&self) -> Option<&PrivateAddress> {
        self.private_addresses.first()
    }

    pub fn has_public(&self) -> bool {
        self.private_addresses.iter().any(|private| private.public.is_some())
    }

    pub fn group_ids(&self) -> Vec<SecurityGroupId> {
        self.groups.iter().map(|group| group.id).collect()
    }

    /// Unique in its VPC, which has 16 bits of addresses at most: a locally administered address of 24 bits
    /// of the VPC's id and the low 16 bits of the primary private address.
    pub fn mac_address(&self) -> String {
        let [_, _, high, low] = self.primary().map_or([0; 4], |private| private.address.octets());
        let vpc = self.vpc_id.number();
        format!("02:{:02x}:{:02x}:{:02x}:{high:02x}:{low:02x}", (vpc >> 16) & 255, (vpc >> 8) & 255, vpc & 255)
    }

    /// `arn:aws:ec2:REGION:ACCOUNT:network-interface/ID`.
    pub fn arn(&self) -> String {
        self.scope.arn("ec2", format_args!("network-interface/{}", self.id))
    }

    fn publics(&self) -> impl Iterator<Item = &PublicAddress> {
        self.private_addresses.iter().filter_map(|private| private.public.as_ref())
    }

    fn ip_owner(&self, public: &PublicAddress) -> Cow<'_, str> {
        match public {
            PublicAddress::Pool { .. } => Cow::Borrowed("amazon"),
            PublicAddress::Elastic { .. } => text(self.scope.account),
        }
    }

    fn attachment_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        let Some(attachment) = self.attachment() else { return Vec::new() };
        match name {
            "attachment.attach-time" => vec![text(attachment.attached_at)],
            "attachment.attachment-id" => vec![text(attachment.id)],
            "attachment.delete-on-termination" => vec![text(attachment.delete_on_termination)],
            "attachment.device-index" => vec![text(attachment.device_index)],
            "attachment.instance-id" => vec![text(attachment.instance_id)],
            "attachment.instance-owner-id" => vec![text(self.scope.account)],
            "attachment.status" => self.state.attachment_status().into_iter().map(Cow::Borrowed).collect(),
            _ => Vec::new(),
        }
    }

    fn association_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        let region = &self.scope.region;
        match name {
            "addresses.association.owner-id" | "association.ip-owner-id" => self.publics().map(|public| self.ip_owner(public)).collect(),
            "addresses.association.public-ip" | "association.public-ip" => self.publics().map(|public| text(public.address())).collect(),
            "association.public-dns-name" => self.publics().map(|public| text(dns::public_name(region, public.address()))).collect(),
            "association.allocation-id" => self.publics().filter_map(PublicAddress::elastic).map(|(id, _)| text(id)).collect(),
            "association.association-id" => self.publics().filter_map(PublicAddress::elastic).map(|(_, id)| text(id)).collect(),
            _ => Vec::new(),
        }
    }
}

impl Filterable for NetworkInterface {
    const FILTER_NAMES: &'static [&'static str] = &[
        "addresses.association.owner-id",
        "addresses.association.public-ip",
        "addresses.primary",
        "addresses.private-ip-address",
        "association.allocation-id",
        "association.association-id",
        "association.ip-owner-id",
        "association.public-dns-name",
        "association.public-ip",
        "attachment.attach-time",
        "attachment.attachment-id",
        "attachment.delete-on-termination",
        "attachment.device-index",
        "attachment.instance-id",
        "attachment.instance-owner-id",
        "attachment.status",
        "availability-zone",
        "availability-zone-id",
        "description",
        "group-id",
        "group-name",
        "interface-type",
        "mac-address",
        "network-interface-id",
        "owner-id",
        "private-dns-name",
        "private-ip-address",
        "requester-managed",
        "source-dest-check",
        "status",
        "subnet-id",
        "vpc-id",
    ];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        if name.starts_with("attachment.") {
            return self.attachment_values(name);
        }
        if name.starts_with("association.") || name.starts_with("addresses.association.") {
            return self.association_values(name);
        }
        let region = &self.scope.region;
        match name {
            "addresses.primary" => self.private_addresses.iter().enumerate().map(|(place, _)| text(place == 0)).collect(),
            "addresses.private-ip-address" => self.private_addresses.iter().map(|private| text(private.address)).collect(),
            "availability-zone" => vec![Cow::Borrowed(&self.zone)],
            "availability-zone-id" => zone::find(region, &self.zone).map(|zone| text(zone.id)).into_iter().collect(),
            "description" => vec![Cow::Borrowed(&self.description)],
            "group-id" => self.groups.iter().map(|group| text(group.id)).collect(),
            "group-name" => self.groups.iter().map(|group| Cow::Borrowed(group.name.as_str())).collect(),
            "interface-type" => vec!["interface".into()],
            "mac-address" => vec![text(self.mac_address())],
            "network-interface-id" => vec![text(self.id)],
            "owner-id" => vec![text(self.scope.account)],
            "private-dns-name" => self.primary().map(|private| text(dns::private_name(region, private.address))).into_iter().collect(),
            "private-ip-address" => self.primary().map(|private| text(private.address)).into_iter().collect(),
            "requester-managed" => vec!["false".into()],
            "source-dest-check" => vec![text(self.source_dest_check)],
            "status" => vec![self.state.as_str().into()],
            "subnet-id" => vec![text(self.subnet_id)],
            "vpc-id" => vec![text(self.vpc_id)],
            _ => Vec::new(),
        }
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }
}
