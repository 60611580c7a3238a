//! Volumes and snapshots: their lives, and what they do not let happen.

use gureum_proto::compute::v1::{self as proto, InstanceState, SnapshotState, VolumeAttachmentState, VolumeState};

use crate::{
    lifecycle::terminate,
    region::{Options, Region, reason, until},
};

pub async fn volume(region: &Region, id: &str) -> proto::Volume {
    let request = proto::DescribeVolumesRequest { volume_ids: vec![id.to_owned()], ..Default::default() };
    region.compute().describe_volumes(request).await.unwrap().into_inner().volumes.remove(0)
}

async fn until_volume(region: &Region, id: &str, state: VolumeState) -> proto::Volume {
    until(&format!("{id} {state:?}"), async || volume(region, id).await.state() == state).await;
    volume(region, id).await
}

pub async fn snapshot(region: &Region, id: &str) -> proto::Snapshot {
    let request = proto::DescribeSnapshotsRequest { snapshot_ids: vec![id.to_owned()], ..Default::default() };
    region.compute().describe_snapshots(request).await.unwrap().into_inner().snapshots.remove(0)
}

pub async fn completed(region: &Region, id: &str) -> proto::Snapshot {
    until(id, async || snapshot(region, id).await.state() == SnapshotState::Completed).await;
    snapshot(region, id).await
}

fn ten_gib(zone: &str) -> proto::CreateVolumeRequest {
    proto::CreateVolumeRequest {
        availability_zone: zone.to_owned(),
        size_gib: Some(10),
        volume_type: proto::VolumeType::Gp3.into(),
        ..Default::default()
    }
}

async fn available(region: &Region, zone: &str) -> String {
    let made = region.compute().create_volume(ten_gib(zone)).await.unwrap().into_inner().volume.unwrap();
    assert_eq!((made.state(), made.iops, made.throughput_mibps), (VolumeState::Creating, 3000, 125));
    until_volume(region, &made.volume_id, VolumeState::Available).await.volume_id
}

#[tokio::test]
async fn a_volume_comes_to_an_instance_and_leaves_it() {
    let region = Region::start(Options { zones: "a", ..Options::default() }).await;
    let mut compute = region.compute();
    let instance = region.running().await;
    let id = available(&region, &instance.placement.clone().unwrap().availability_zone).await;
    let attach = proto::AttachVolumeRequest {
        volume_id: id.clone(),
        instance_id: instance.instance_id.clone(),
        device: "/dev/sdf".to_owned(),
        ..Default::default()
    };
    let dry = proto::AttachVolumeRequest { dry_run: true, ..attach.clone() };
    assert_eq!(reason(&compute.attach_volume(dry).await.unwrap_err()), "DryRunOperation");
    assert_eq!(volume(&region, &id).await.state(), VolumeState::Available);
    let attached = compute.attach_volume(attach.clone()).await.unwrap().into_inner().attachment.unwrap();
    assert_eq!((attached.state(), attached.delete_on_termination), (VolumeAttachmentState::Attaching, false));
    let is = |state| async move |region: &Region, id: &str| volume(region, id).await.attachments.first().map(|held| held.state()) == state;
    let attached = is(Some(VolumeAttachmentState::Attached));
    until("attached", async || attached(&region, &id).await).await;
    assert_eq!(region.instance(&instance.instance_id).await.block_device_mappings.len(), 2);
    assert_eq!(reason(&compute.attach_volume(attach.clone()).await.unwrap_err()), "VolumeInUse");
    let delete = proto::DeleteVolumeRequest { volume_id: id.clone(), ..Default::default() };
    assert_eq!(reason(&compute.delete_volume(delete.clone()).await.unwrap_err()), "VolumeInUse");

    let detach = proto::DetachVolumeRequest { volume_id: id.clone(), ..Default::default() };
    let root = region.instance(&instance.instance_id).await.block_device_mappings[0].volume_id.clone();
    let of_root = proto::DetachVolumeRequest { volume_id: root, ..Default::default() };
    assert_eq!(reason(&compute.detach_volume(of_root).await.unwrap_err()), "OperationNotPermitted");
    let detaching = compute.detach_volume(detach.clone()).await.unwrap().into_inner().attachment.unwrap();
    assert_eq!(detaching.state(), VolumeAttachmentState::Detaching);
    until_volume(&region, &id, VolumeState::Available).await;
    assert_eq!(reason(&compute.detach_volume(detach).await.unwrap_err()), "IncorrectState");

    // One that is attached later stays when its instance goes.
    compute.attach_volume(attach).await.unwrap();
    compute.terminate_instances(terminate(&[&instance.instance_id])).await.unwrap();
    region.until_instance(&instance.instance_id, InstanceState::Terminated).await;
    until_volume(&region, &id, VolumeState::Available).await;
    compute.delete_volume(delete.clone()).await.unwrap();
    let gone = async || {
        let named = proto::DescribeVolumesRequest { volume_ids: vec![id.clone()], ..Default::default() };
        region.compute().describe_volumes(named).await.is_err_and(|status| reason(&status) == "InvalidVolume.NotFound")
    };
    until("the volume's end", gone).await;
    assert_eq!(reason(&compute.delete_volume(delete).await.unwrap_err()), "InvalidVolume.NotFound");
}

#[tokio::test]
async fn what_is_wrong_with_a_volume_is_said_at_once() {
    let region = Region::start(Options { zones: "ab", ..Options::default() }).await;
    let mut compute = region.compute();
    let bad = proto::CreateVolumeRequest {
        availability_zone: "us-east-1x".to_owned(),
        snapshot_id: "snap-1".to_owned(),
        size_gib: Some(9_000_000),
        multi_attach_enabled: true,
        tags: vec![gureum_proto::common::v1::Tag { key: "aws:mine".to_owned(), value: String::new() }],
        ..Default::default()
    };
    let refused = compute.create_volume(bad).await.unwrap_err();
    let fields: Vec<String> =
        tonic_types::StatusExt::get_details_bad_request(&refused).unwrap().field_violations.into_iter().map(|it| it.field).collect();
    assert_eq!(fields, ["availability_zone", "snapshot_id", "size_gib", "multi_attach_enabled", "tags[0].key"]);
    let missing = proto::CreateVolumeRequest { size_gib: None, ..ten_gib("us-east-1a") };
    assert_eq!(reason(&compute.create_volume(missing.clone()).await.unwrap_err()), "MissingParameter");
    let unknown = proto::CreateVolumeRequest { snapshot_id: "snap-00000000000000001".to_owned(), ..missing };
    assert_eq!(reason(&compute.create_volume(unknown).await.unwrap_err()), "InvalidSnapshot.NotFound");

    // The same token makes one volume.
    let once = proto::CreateVolumeRequest { client_token: "once".to_owned(), ..ten_gib("us-east-1b") };
    let first = compute.create_volume(once.clone()).await.unwrap().into_inner();
    assert_eq!(compute.create_volume(once.clone()).await.unwrap().into_inner(), first);
    let other = proto::CreateVolumeRequest { size_gib: Some(11), ..once };
    assert_eq!(reason(&compute.create_volume(other).await.unwrap_err()), "IdempotentParameterMismatch");

    let launched = region.compute().run_instances(in_zone("us-east-1a")).await.unwrap().into_inner().instances.remove(0);
    region.until_instance(&launched.instance_id, InstanceState::Running).await;
    let elsewhere = first.volume.unwrap().volume_id;
    until_volume(&region, &elsewhere, VolumeState::Available).await;
    let attach = proto::AttachVolumeRequest {
        volume_id: elsewhere,
        instance_id: launched.instance_id,
        device: "/dev/sdf".to_owned(),
        ..Default::default()
    };
    assert_eq!(reason(&compute.attach_volume(attach.clone()).await.unwrap_err()), "InvalidVolume.ZoneMismatch");
    let nobody = proto::AttachVolumeRequest { instance_id: "i-00000000000000001".to_owned(), ..attach };
    assert_eq!(reason(&compute.attach_volume(nobody).await.unwrap_err()), "InvalidInstanceID.NotFound");
}

fn in_zone(zone: &str) -> proto::RunInstancesRequest {
    let placement = proto::PlacementSpec { availability_zone: Some(zone.to_owned()), ..Default::default() };
    let spec = proto::LaunchSpec { placement: Some(placement), ..crate::region::spec() };
    proto::RunInstancesRequest { spec: Some(spec), ..crate::region::run(1) }
}

#[tokio::test]
async fn a_stopped_instance_changes_its_root_and_starts_only_with_one() {
    let region = Region::start(Options { zones: "a", ..Options::default() }).await;
    let mut compute = region.compute();
    let instance = region.running().await;
    let id = instance.instance_id.clone();
    compute.stop_instances(proto::StopInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() }).await.unwrap();
    region.until_instance(&id, InstanceState::Stopped).await;
    let root = instance.block_device_mappings[0].clone();
    let detach = proto::DetachVolumeRequest { volume_id: root.volume_id.clone(), ..Default::default() };
    let detached = compute.detach_volume(detach).await.unwrap().into_inner().attachment.unwrap();
    assert_eq!(detached.state(), VolumeAttachmentState::Detached);
    let start = proto::StartInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() };
    assert_eq!(reason(&compute.start_instances(start.clone()).await.unwrap_err()), "IncorrectInstanceState");

    // A copy of the old root takes its place.
    let take = proto::CreateSnapshotRequest { volume_id: root.volume_id, description: "before".to_owned(), ..Default::default() };
    let taken = compute.create_snapshot(take).await.unwrap().into_inner().snapshot.unwrap();
    let of_it = proto::CreateVolumeRequest { snapshot_id: taken.snapshot_id.clone(), size_gib: None, ..ten_gib("us-east-1a") };
    assert_eq!(reason(&compute.create_volume(of_it.clone()).await.unwrap_err()), "IncorrectState");
    assert_eq!(completed(&region, &taken.snapshot_id).await.progress, "100%");
    let copy = compute.create_volume(of_it).await.unwrap().into_inner().volume.unwrap();
    assert_eq!((copy.size_gib, copy.snapshot_id.as_str()), (8, taken.snapshot_id.as_str()));
    until_volume(&region, &copy.volume_id, VolumeState::Available).await;
    let attach = proto::AttachVolumeRequest {
        volume_id: copy.volume_id.clone(),
        instance_id: id.clone(),
        device: root.device_name,
        ..Default::default()
    };
    let attached = compute.attach_volume(attach).await.unwrap().into_inner().attachment.unwrap();
    assert_eq!(attached.state(), VolumeAttachmentState::Attached);
    compute.start_instances(start).await.unwrap();
    region.until_instance(&id, InstanceState::Running).await;
    assert_eq!(volume(&region, &copy.volume_id).await.state(), VolumeState::InUse);
}

#[tokio::test]
async fn what_is_under_way_goes_on_after_a_kill() {
    let mut region = Region::start(Options { zones: "a", durable: true, ..Options::default() }).await;
    let made = region.compute().create_volume(ten_gib("us-east-1a")).await.unwrap().into_inner().volume.unwrap().volume_id;
    region.kill_compute().await;
    region.start_compute().await;
    until_volume(&region, &made, VolumeState::Available).await;
    let take = proto::CreateSnapshotRequest { volume_id: made.clone(), ..Default::default() };
    let taken = region.compute().create_snapshot(take).await.unwrap().into_inner().snapshot.unwrap().snapshot_id;
    region.compute().delete_volume(proto::DeleteVolumeRequest { volume_id: made, ..Default::default() }).await.unwrap();
    region.kill_compute().await;
    region.start_compute().await;
    let of_mine = proto::DescribeSnapshotsRequest { owner_ids: vec!["self".to_owned()], ..Default::default() };
    let mine = region.compute().describe_snapshots(of_mine).await.unwrap().into_inner().snapshots;
    assert_eq!(mine.iter().map(|it| it.snapshot_id.as_str()).collect::<Vec<_>>(), [taken.as_str()]);
    completed(&region, &taken).await;
    let none =
        async || region.compute().describe_volumes(proto::DescribeVolumesRequest::default()).await.unwrap().into_inner().volumes.is_empty();
    until("no volume", none).await;
    region.compute().delete_snapshot(proto::DeleteSnapshotRequest { snapshot_id: taken.clone(), ..Default::default() }).await.unwrap();
    let named = proto::DescribeSnapshotsRequest { snapshot_ids: vec![taken], ..Default::default() };
    assert_eq!(reason(&region.compute().describe_snapshots(named).await.unwrap_err()), "InvalidSnapshot.NotFound");
}
