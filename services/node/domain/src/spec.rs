//! What an instance is made of, as compute describes it to the node.
//!
//! The names of things (types, images, groups) are compute's; the node looks none of them up. What a
//! driver or the instance's metadata endpoint needs to know is therefore all in here.

use std::net::Ipv4Addr;

use gureum_model::{
    Tags,
    id::{ImageId, NetworkInterfaceId, ReservationId, SecurityGroupId, SnapshotId, SubnetId, VolumeId, VpcId},
};
use serde::{Deserialize, Serialize};

use crate::capacity::Demand;

/// The largest user data, in bytes, as EC2 limits it.
pub const MAX_USER_DATA_BYTES: usize = 16 * 1024;
/// Interfaces that one instance may have: the most that any of EC2's types allows.
pub const MAX_INTERFACES: usize = 15;
/// Volumes that one instance may have: more than any of EC2's Xen types allows, and all that device
/// names can tell apart.
pub const MAX_VOLUMES: usize = 40;

/// Everything about an instance that its node needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// `t3.micro`.
    pub type_name: String,
    /// What it takes of the node.
    pub demand: Demand,
    pub image: ImageSpec,
    /// At most [`MAX_USER_DATA_BYTES`], as the user gave it (not base64).
    pub user_data: Vec<u8>,
    /// By device index; the first is the primary one.
    pub interfaces: Vec<InterfaceSpec>,
    /// The root volume first.
    pub volumes: Vec<VolumeSpec>,
    /// Volumes that go though programs use them. At most [`MAX_VOLUMES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pulled_volumes: Vec<VolumeId>,
    pub key: Option<KeySpec>,
    /// `ip-172-31-0-4.ec2.internal`.
    pub hostname: String,
    pub metadata_options: MetadataOptions,
    pub tags: Tags,
    /// What the user chose. The node only tells it to the instance: whether an instance that shut
    /// itself down is then terminated is compute's decision, because the user may just have changed it.
    pub shutdown_behavior: ShutdownBehavior,
    pub placement: PlacementSpec,
}

/// From what the root volume is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSpec {
    pub id: ImageId,
    /// Where its files are, in a form that the driver knows: `builtin:shell`, `file:///…`; empty for
    /// a driver that boots nothing.
    pub source: String,
    pub platform: Platform,
}

/// The operating system of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Platform {
    Linux,
    Windows,
}

/// A network interface of the instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceSpec {
    pub id: NetworkInterfaceId,
    pub device_index: u32,
    /// Six bytes in hexadecimal with colons.
    pub mac_address: String,
    pub vpc: VpcId,
    pub subnet: SubnetId,
    /// The subnet's prefix length: 16 to 28.
    pub prefix_length: u8,
    /// The primary one first.
    pub private_addresses: Vec<Ipv4Addr>,
    /// The address by which the outside reaches the primary private one, if there is one now.
    pub public_address: Option<Ipv4Addr>,
    /// The name of that address; empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub public_name: String,
    pub groups: Vec<GroupSpec>,
    /// Off: the instance may forward what is not its own.
    pub source_dest_check: bool,
}

/// A security group, with the name that the metadata endpoint shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSpec {
    pub id: SecurityGroupId,
    pub name: String,
}

/// A volume of the instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    pub id: VolumeId,
    /// `/dev/xvda`.
    pub device_name: String,
    pub size_gib: u32,
    /// Made from the image, and never detached while the instance runs.
    pub root: bool,
    /// From which an additional volume is made; absent: empty.
    pub snapshot: Option<SnapshotId>,
    /// Goes with the instance. Else the node keeps it when the instance is terminated.
    pub delete_on_termination: bool,
}

/// The public half of the key that may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySpec {
    pub name: String,
    /// In OpenSSH form.
    pub public_key: String,
}

/// How the instance may ask about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataOptions {
    pub enabled: bool,
    /// Only with a session token (IMDSv2).
    pub tokens_required: bool,
    /// 1 to 64.
    pub hop_limit: u32,
    /// Whether tags are shown.
    pub tags_enabled: bool,
}

impl Default for MetadataOptions {
    /// EC2's defaults for an image that says nothing.
    fn default() -> Self {
        Self { enabled: true, tokens_required: false, hop_limit: 1, tags_enabled: false }
    }
}

/// What becomes of an instance that shuts itself down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShutdownBehavior {
    Stop,
    Terminate,
}

/// Where and with whom it was launched; shown by the metadata endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementSpec {
    /// `us-east-1a`.
    pub zone: String,
    pub reservation: ReservationId,
    /// Its place among the instances of its reservation, from 0.
    pub launch_index: u32,
}

impl InstanceSpec {
    /// The first interface's first address, if it has one.
    pub fn primary_address(&self) -> Option<Ipv4Addr> {
        self.interfaces.first().and_then(|interface| interface.private_addresses.first()).copied()
    }

    /// The root volume's size, or 0 without one.
    pub fn root_size_gib(&self) -> u32 {
        self.volumes.iter().find(|volume| volume.root).map_or(0, |volume| volume.size_gib)
    }
}
