//! Snapshots of volumes, and images of instances with the snapshots that they are made of.

use std::collections::BTreeSet;

use gureum_proto::compute::v1::{compute_service_client::ComputeServiceClient, *};

use super::client::{Client, change};
use crate::{audit::Account, harness::all_pages};

/// By id.
#[derive(Debug, Clone, Default)]
pub struct Images {
    pub images: BTreeSet<String>,
    pub snapshots: BTreeSet<String>,
}

impl Images {
    pub fn merge(&mut self, other: Self) {
        self.images.extend(other.images);
        self.snapshots.extend(other.snapshots);
    }
}

pub async fn act(client: &mut Client) {
    let (image, snapshot) = (client.pick(client.known.images.images.clone()), client.pick(client.known.images.snapshots.clone()));
    match (client.chance.below(6), image, snapshot) {
        (0, Some(id), _) => deregister(client, id).await,
        (1, _, Some(id)) => delete_snapshot(client, id).await,
        (2 | 3, ..) => create_image(client).await,
        _ => create_snapshot(client).await,
    }
}

async fn create_snapshot(client: &mut Client) {
    let Some(volume_id) = client.pick(client.known.volumes.living.keys().cloned()) else { return };
    match change!(client, ComputeServiceClient, create_snapshot, CreateSnapshotRequest { volume_id: volume_id }) {
        Ok(made) => assert!(client.known.images.snapshots.insert(made.snapshot.unwrap().snapshot_id), "a snapshot was made twice"),
        // The volume is being made.
        Err(status) => client.refused("CreateSnapshot", &status, &["IncorrectState"]),
    }
}

async fn create_image(client: &mut Client) {
    // A disk that was attached later stays when its instance ends, and so do its copies: without one, all that is launched
    // from the image goes with it.
    let known = &client.known;
    let bare = known.instances.living().filter(|(id, _)| known.volumes.of(id).next().is_none());
    let Some(instance_id) = client.pick(bare.map(|(id, _)| id.clone())) else { return };
    let name = client.name("image");
    let made =
        change!(client, ComputeServiceClient, create_image, CreateImageRequest { instance_id: instance_id, name: name, no_reboot: true });
    match made {
        Ok(made) => {
            let image = made.image.unwrap();
            for mapping in image.block_device_mappings {
                if let Some(block_device_mapping::Device::Ebs(disk)) = mapping.device {
                    client.known.images.snapshots.extend(disk.snapshot_id);
                }
            }
            assert!(client.known.images.images.insert(image.image_id), "an image was made twice");
        }
        // The instance is on its way.
        Err(status) => client.refused("CreateImage", &status, &["IncorrectState"]),
    }
}

/// Its snapshots stay.
async fn deregister(client: &mut Client, id: String) {
    let image_id = id.clone();
    change!(client, ComputeServiceClient, deregister_image, DeregisterImageRequest { image_id: image_id }).unwrap();
    client.known.images.images.remove(&id);
}

async fn delete_snapshot(client: &mut Client, id: String) {
    let snapshot_id = id.clone();
    match change!(client, ComputeServiceClient, delete_snapshot, DeleteSnapshotRequest { snapshot_id: snapshot_id }) {
        Ok(_) => drop(client.known.images.snapshots.remove(&id)),
        Err(status) => client.refused("DeleteSnapshot", &status, &["InvalidSnapshot.InUse", "IncorrectState"]),
    }
}

pub async fn audit(account: &Account) {
    let images = all_pages!(account.door, ComputeServiceClient, describe_images, DescribeImagesRequest, images);
    let found: BTreeSet<String> = images.into_iter().filter(|image| image.owner_alias.is_empty()).map(|image| image.image_id).collect();
    assert_eq!(found, account.known.images.images, "images found, and acknowledged");
    let snapshots = all_pages!(account.door, ComputeServiceClient, describe_snapshots, DescribeSnapshotsRequest, snapshots);
    let own = snapshots.into_iter().filter(|snapshot| snapshot.owner_alias.is_empty());
    let found: BTreeSet<String> = own.map(|snapshot| snapshot.snapshot_id).collect();
    assert_eq!(found, account.known.images.snapshots, "snapshots found, and acknowledged");
}
