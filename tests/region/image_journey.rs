//! The life of an image and of volumes, over the gateway, while every service is killed and started again.

use gureum_proto::compute::v1::{compute_service_client::ComputeServiceClient, *};
use tonic::Status;
use tonic_types::StatusExt;

use crate::{
    harness::{Deployment, Door, ask, attempt, until},
    journeys::{launch, nothing_left, run, shipped_image, wait_for},
    region::{kill_all, region},
};

const ACCOUNT: &str = "000000000105";

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_else(|| status.to_string())
}

async fn volume(door: &Door, id: &str) -> Volume {
    let request = DescribeVolumesRequest { volume_ids: vec![id.to_owned()], ..Default::default() };
    ask!(door, ComputeServiceClient, describe_volumes, request).unwrap().volumes.remove(0)
}

async fn until_volume(door: &Door, id: &str, state: VolumeState) -> Volume {
    until(format!("{id} {state:?}"), async || {
        let seen = volume(door, id).await;
        if seen.state() == state { Ok(seen) } else { Err(format!("{:?}", seen.state())) }
    })
    .await
}

async fn until_image(door: &Door, id: &str, state: ImageState) {
    until(format!("{id} {state:?}"), async || {
        let request = DescribeImagesRequest { image_ids: vec![id.to_owned()], ..Default::default() };
        let seen = ask!(door, ComputeServiceClient, describe_images, request).unwrap().images[0].state();
        if seen == state { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await
}

fn again(region: &mut Deployment) -> Door {
    kill_all(region);
    region.door(ACCOUNT)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_lives_through_the_death_of_every_service() {
    let mut region = region();
    let mut door = region.door(ACCOUNT);
    let shell = shipped_image(&door, "gureum-shell").await;
    let instance = run(&door, &launch(&shell, "source")).await.instance_id;
    let source = wait_for(&door, &instance, InstanceState::Running).await;

    // A disk of its own, attached before the image is made, is part of the image.
    let disk = CreateVolumeRequest {
        client_token: "disk".into(),
        availability_zone: source.placement.unwrap_or_default().availability_zone,
        size_gib: Some(1),
        ..Default::default()
    };
    let disk = ask!(door, ComputeServiceClient, create_volume, disk.clone()).unwrap().volume.unwrap().volume_id;
    door = again(&mut region);
    until_volume(&door, &disk, VolumeState::Available).await;
    let attach = AttachVolumeRequest {
        client_token: "attach".into(),
        volume_id: disk.clone(),
        instance_id: instance.clone(),
        device: "/dev/sdf".into(),
        ..Default::default()
    };
    ask!(door, ComputeServiceClient, attach_volume, attach.clone()).unwrap();
    door = again(&mut region);
    until("attached", async || {
        let attachments = volume(&door, &disk).await.attachments;
        let attached = attachments.iter().any(|held| held.state() == VolumeAttachmentState::Attached);
        attached.then_some(()).ok_or_else(|| format!("{attachments:?}"))
    })
    .await;

    let create =
        CreateImageRequest { client_token: "image".into(), instance_id: instance.clone(), name: "golden".into(), ..Default::default() };
    let image = ask!(door, ComputeServiceClient, create_image, create.clone()).unwrap().image.unwrap();
    assert_eq!((image.state(), image.block_device_mappings.len()), (ImageState::Pending, 2));
    door = again(&mut region);
    assert_eq!(
        ask!(door, ComputeServiceClient, create_image, create.clone()).unwrap().image.unwrap().image_id,
        image.image_id,
        "the same token makes no other"
    );
    until_image(&door, &image.image_id, ImageState::Available).await;
    let mine = DescribeSnapshotsRequest { owner_ids: vec!["self".into()], ..Default::default() };
    let snapshots = ask!(door, ComputeServiceClient, describe_snapshots, mine.clone()).unwrap().snapshots;
    assert_eq!(snapshots.len(), 2);
    assert!(snapshots.iter().all(|it| it.state() == SnapshotState::Completed && it.progress == "100%"));

    let copy = run(&door, &launch(&image.image_id, "copy")).await;
    assert_eq!(copy.block_device_mappings.len(), 2);
    door = again(&mut region);
    wait_for(&door, &copy.instance_id, InstanceState::Running).await;

    let first = DeleteSnapshotRequest { snapshot_id: snapshots[0].snapshot_id.clone(), ..Default::default() };
    assert_eq!(reason(&ask!(door, ComputeServiceClient, delete_snapshot, first.clone()).unwrap_err()), "InvalidSnapshot.InUse");
    let deregister = DeregisterImageRequest { client_token: "end".into(), image_id: image.image_id.clone(), ..Default::default() };
    ask!(door, ComputeServiceClient, deregister_image, deregister.clone()).unwrap();
    door = again(&mut region);
    let refused = attempt!(door, ComputeServiceClient, run_instances, launch(&image.image_id, "late"));
    assert_eq!(reason(&refused.unwrap_err()), "InvalidAMIID.Unavailable");
    for snapshot in &snapshots {
        let delete = DeleteSnapshotRequest {
            client_token: snapshot.snapshot_id.clone(),
            snapshot_id: snapshot.snapshot_id.clone(),
            ..Default::default()
        };
        ask!(door, ComputeServiceClient, delete_snapshot, delete.clone()).unwrap();
    }

    let end = TerminateInstancesRequest {
        client_token: "terminate".into(),
        instance_ids: vec![instance.clone(), copy.instance_id.clone()],
        ..Default::default()
    };
    ask!(door, ComputeServiceClient, terminate_instances, end.clone()).unwrap();
    door = again(&mut region);
    for id in [&instance, &copy.instance_id] {
        wait_for(&door, id, InstanceState::Terminated).await;
    }
    // The disk was made by a call of its own and stays, and so does the copy's of it, as the image says.
    let data = copy.block_device_mappings.iter().find(|mapping| mapping.device_name == "/dev/sdf").unwrap();
    for id in [&disk, &data.volume_id] {
        until_volume(&door, id, VolumeState::Available).await;
        let delete = DeleteVolumeRequest { client_token: id.clone(), volume_id: id.clone(), ..Default::default() };
        ask!(door, ComputeServiceClient, delete_volume, delete.clone()).unwrap();
    }
    door = again(&mut region);
    until("no volume", async || {
        let left = ask!(door, ComputeServiceClient, describe_volumes, DescribeVolumesRequest::default()).unwrap().volumes;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    assert_eq!(ask!(door, ComputeServiceClient, describe_snapshots, mine.clone()).unwrap().snapshots, vec![]);
    nothing_left(&door).await;
    region.finish();
}
