//! Volumes of their own: made, attached, detached, deleted.

use std::collections::{BTreeMap, BTreeSet};

use gureum_proto::compute::v1::{compute_service_client::ComputeServiceClient, *};

use super::client::{Client, change};
use crate::{
    audit::Account,
    harness::{all_pages, until},
};

/// Where one is attached: there is one at most in each instance.
const DEVICE: &str = "/dev/sdf";

/// By id.
#[derive(Debug, Clone, Default)]
pub struct Volumes {
    pub living: BTreeMap<String, Known>,
    pub deleted: BTreeSet<String>,
}

/// What a client knows of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    pub zone: String,
    pub attached: Option<String>,
}

impl Volumes {
    pub fn merge(&mut self, other: Self) {
        self.living.extend(other.living);
        self.deleted.extend(other.deleted);
    }

    /// What was attached later outlives the instance.
    pub fn freed_by(&mut self, instance: &str) {
        for known in self.living.values_mut() {
            known.attached.take_if(|of| of == instance);
        }
    }

    pub fn of<'a>(&'a self, instance: &'a str) -> impl Iterator<Item = &'a String> {
        self.living.iter().filter(move |(_, known)| known.attached.as_deref() == Some(instance)).map(|(id, _)| id)
    }
}

/// What is still coming, going, or with an instance that is.
const PASSING: &[&str] = &["IncorrectState", "VolumeInUse"];

pub async fn act(client: &mut Client) {
    let all = &client.known.volumes.living;
    let free = client.pick(all.iter().filter(|(_, known)| known.attached.is_none()).map(|(id, _)| id.clone()));
    let attached = client.pick(all.iter().filter(|(_, known)| known.attached.is_some()).map(|(id, _)| id.clone()));
    match (client.chance.below(6), free, attached) {
        (0, Some(id), _) => delete(client, id).await,
        (1..=3, Some(id), _) => attach(client, id).await,
        (4, _, Some(id)) => detach(client, id).await,
        _ => create(client).await,
    }
}

async fn create(client: &mut Client) {
    let zone = format!("us-east-1{}", client.pick(["a", "b", "c"]).unwrap());
    let availability_zone = zone.clone();
    let made = change!(
        client,
        ComputeServiceClient,
        create_volume,
        CreateVolumeRequest { availability_zone: availability_zone, size_gib: Some(1) }
    );
    let before = client.known.volumes.living.insert(made.unwrap().volume.unwrap().volume_id, Known { zone, attached: None });
    assert_eq!(before, None, "a volume was made twice");
}

async fn attach(client: &mut Client, id: String) {
    let known = &client.known;
    let zone = &known.volumes.living[&id].zone;
    let fits = known.instances.living().filter(|(of, it)| it.zone == *zone && known.volumes.of(of).next().is_none());
    let Some(instance) = client.pick(fits.map(|(id, _)| id.clone())) else { return };
    let (volume_id, instance_id) = (id.clone(), instance.clone());
    let attached = change!(
        client,
        ComputeServiceClient,
        attach_volume,
        AttachVolumeRequest { volume_id: volume_id, instance_id: instance_id, device: DEVICE.to_owned() }
    );
    match attached {
        Ok(_) => client.known.volumes.living.get_mut(&id).unwrap().attached = Some(instance),
        Err(status) => client.refused("AttachVolume", &status, PASSING),
    }
}

async fn detach(client: &mut Client, id: String) {
    let volume_id = id.clone();
    match change!(client, ComputeServiceClient, detach_volume, DetachVolumeRequest { volume_id: volume_id }) {
        Ok(_) => client.known.volumes.living.get_mut(&id).unwrap().attached = None,
        Err(status) => client.refused("DetachVolume", &status, PASSING),
    }
}

async fn delete(client: &mut Client, id: String) {
    let volume_id = id.clone();
    match change!(client, ComputeServiceClient, delete_volume, DeleteVolumeRequest { volume_id: volume_id }) {
        Ok(_) => {
            client.known.volumes.living.remove(&id);
            client.known.volumes.deleted.insert(id);
        }
        Err(status) => client.refused("DeleteVolume", &status, PASSING),
    }
}

/// These, and those that instances were launched with.
pub async fn audit(account: &Account) {
    // Where instances run, one that is in use is asked for again, and no service counts that as work.
    let all = until("every volume to be where it was asked to be", async || {
        let all = all_pages!(account.door, ComputeServiceClient, describe_volumes, DescribeVolumesRequest, volumes);
        let moves = |one: &&Volume| one.attachments.iter().any(|at| at.state() != VolumeAttachmentState::Attached);
        let moving: Vec<&Volume> = all.iter().filter(moves).collect();
        if moving.is_empty() { Ok(all) } else { Err(format!("{moving:?}")) }
    })
    .await;
    let all: Vec<Volume> = all.into_iter().filter(|one| one.state() != VolumeState::Deleting).collect();
    let found: BTreeSet<String> = all.iter().map(|one| one.volume_id.clone()).collect();
    assert_eq!(found.len(), all.len(), "a volume is listed twice");
    let known = &account.known;
    let mut wanted: BTreeSet<String> = known.volumes.living.keys().cloned().collect();
    wanted.extend(known.instances.living().flat_map(|(_, it)| it.volumes.iter().cloned()));
    assert_eq!(found, wanted, "volumes found, and acknowledged");
    for one in &all {
        let attached: Vec<&String> = one.attachments.iter().map(|at| &at.instance_id).collect();
        if let Some(mine) = known.volumes.living.get(&one.volume_id) {
            assert_eq!(attached, mine.attached.iter().collect::<Vec<_>>(), "what {} is attached to", one.volume_id);
        } else {
            assert_eq!(attached.len(), 1, "{} belongs to an instance", one.volume_id);
        }
    }
}
