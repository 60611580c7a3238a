//! The public images that ship: `data/images.csv`, compiled in.
//!
//! They have the same ids in every region and for every account: an id is a hash of the image's key. They are made
//! from the table for each region and never stored, and so are their snapshots.

use std::sync::LazyLock;

use gureum_model::{
    AccountId, Region, Scope, Tags, Timestamp,
    id::{ID_MAX, ImageId, ResourceId, SnapshotId, VolumeId},
};

use super::{Architecture, Image, ImageBootMode, ImageSource, ImageState, Permissions};
use crate::{
    block_device::{DeviceMapping, Ebs, Target},
    instance::Platform,
    snapshot::{Snapshot, SnapshotState},
    volume::{
        VolumeType,
        kind::{GP3_IOPS, GP3_THROUGHPUT},
    },
};

const TEXT: &str = include_str!("../../data/images.csv");

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShippedImage {
    /// Its [`ImageSource::Shipped`] name: a driver finds the contents of the root volume by it.
    pub key: &'static str,
    pub owner: AccountId,
    pub name: &'static str,
    pub description: &'static str,
    pub architecture: Architecture,
    pub platform: Platform,
    pub root_device_name: &'static str,
    pub root_gib: u32,
    pub boot_mode: Option<ImageBootMode>,
    pub demands_tokens: bool,
    pub create_time: Timestamp,
}

// The table is part of the program, and a test reads all of its lines.
static TABLE: LazyLock<Vec<ShippedImage>> = LazyLock::new(|| lines().filter_map(read).collect());

fn lines() -> impl Iterator<Item = &'static str> {
    TEXT.lines().filter(|line| !line.starts_with('#')).skip(1)
}

fn read(line: &'static str) -> Option<ShippedImage> {
    let fields: Vec<&'static str> = line.split(',').collect();
    let &[key, owner, name, description, architecture, platform, root, gib, boot_mode, imds, created] = fields.as_slice() else {
        return None;
    };
    Some(ShippedImage {
        key,
        owner: owner.parse().ok()?,
        name,
        description,
        architecture: [Architecture::X86_64, Architecture::Arm64].into_iter().find(|known| known.as_str() == architecture)?,
        platform: match platform {
            "linux" => Platform::Linux,
            "windows" => Platform::Windows,
            _ => return None,
        },
        root_device_name: root,
        root_gib: gib.parse().ok()?,
        boot_mode: match boot_mode {
            "" => None,
            "legacy-bios" => Some(ImageBootMode::LegacyBios),
            "uefi" => Some(ImageBootMode::Uefi),
            "uefi-preferred" => Some(ImageBootMode::UefiPreferred),
            _ => return None,
        },
        demands_tokens: imds == "v2.0",
        create_time: Timestamp::from_secs(created.parse().ok()?),
    })
}

/// The lines of the table.
pub fn table() -> &'static [ShippedImage] {
    &TABLE
}

/// FNV-1a of 128 bits, folded to the 68 of an id: stable for ever, and nobody gains by a collision.
fn stable_number(text: &str) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = text.bytes().fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    (hash ^ (hash >> 68)) & ID_MAX
}

impl ShippedImage {
    pub fn id(&self) -> ImageId {
        ImageId::from_number(stable_number(self.key))
    }

    pub fn snapshot_id(&self) -> SnapshotId {
        SnapshotId::from_number(stable_number(self.key))
    }

    fn scope(&self, region: &Region) -> Scope {
        Scope { account: self.owner, region: region.clone() }
    }

    /// The image as it is in a region.
    pub fn image(&self, region: &Region) -> Image {
        let root = Ebs {
            snapshot_id: Some(self.snapshot_id()),
            size_gib: self.root_gib,
            volume_type: VolumeType::Gp3,
            iops: Some(GP3_IOPS),
            throughput_mibps: Some(GP3_THROUGHPUT),
            delete_on_termination: true,
            encrypted: false,
            kms_key_id: None,
        };
        Image {
            scope: self.scope(region),
            id: self.id(),
            name: self.name.to_owned(),
            description: self.description.to_owned(),
            state: ImageState::Available { since: self.create_time },
            source: ImageSource::Shipped { name: self.key.to_owned() },
            architecture: self.architecture,
            platform: self.platform,
            root_device_name: self.root_device_name.to_owned(),
            block_devices: vec![DeviceMapping { device_name: self.root_device_name.to_owned(), target: Target::Ebs(root) }],
            permissions: Permissions { all: true, ..Permissions::default() },
            listed: false,
            product_codes: Vec::new(),
            create_time: self.create_time,
            deprecation_time: None,
            last_launched: None,
            ena_support: true,
            boot_mode: self.boot_mode,
            demands_tokens: self.demands_tokens,
            tags: Tags::default(),
        }
    }

    /// The snapshot of its root volume, as it is in a region.
    pub fn snapshot(&self, region: &Region) -> Snapshot {
        Snapshot {
            scope: self.scope(region),
            id: self.snapshot_id(),
            // EC2 names a volume that there never was for copied snapshots, too.
            volume_id: VolumeId::from_number(ID_MAX),
            volume_size_gib: self.root_gib,
            description: self.description.to_owned(),
            encrypted: false,
            kms_key_id: None,
            start_time: self.create_time,
            state: SnapshotState::Completed { since: self.create_time },
            permissions: Permissions { all: true, ..Permissions::default() },
            product_codes: Vec::new(),
            node: None,
            shipped: true,
            tags: Tags::default(),
        }
    }
}

/// All shipped images of a region.
pub fn images(region: &Region) -> Vec<Image> {
    table().iter().map(|it| it.image(region)).collect()
}

/// All snapshots of the shipped images of a region.
pub fn snapshots(region: &Region) -> Vec<Snapshot> {
    table().iter().map(|it| it.snapshot(region)).collect()
}

/// The shipped image with this id.
pub fn find(id: ImageId) -> Option<&'static ShippedImage> {
    table().iter().find(|it| it.id() == id)
}

/// The shipped image whose snapshot has this id.
pub fn find_snapshot(id: SnapshotId) -> Option<&'static ShippedImage> {
    table().iter().find(|it| it.snapshot_id() == id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{block_device::default_root_gib, image::create::check_name};

    #[test]
    fn the_table_can_be_read() {
        assert_eq!(table().len(), lines().count());
        assert_eq!(table().iter().map(ShippedImage::id).collect::<BTreeSet<_>>().len(), table().len());
        for it in table() {
            assert_eq!((it.root_gib, check_name(it.name)), (default_root_gib(it.platform), Ok(())), "{}", it.key);
            assert!(it.architecture != Architecture::Arm64 || it.boot_mode != Some(ImageBootMode::LegacyBios), "{}", it.key);
        }
    }

    #[test]
    fn ids_never_change() {
        let ids = |key: &str| table().iter().find(|it| it.key == key).map(|it| it.id().to_string());
        assert_eq!(ids("amazon-linux-2023-x86_64").as_deref(), Some("ami-785631745be5cbbd7"));
        assert_eq!(ids("gureum-shell").as_deref(), Some("ami-84236e62da78bad3c"));
        let (here, there): (Region, Region) = (Region::default(), "eu-west-1".parse().expect("a region"));
        assert!(images(&here).iter().zip(images(&there)).all(|(one, other)| one.id == other.id && one.scope != other.scope));
    }
}
