//! Volumes, snapshots and images with files in them, under the process driver.

use std::{
    fs,
    path::{Path, PathBuf},
};

use gureum_proto::compute::v1::{compute_service_client::ComputeServiceClient, *};

use crate::{
    harness::{Deployment, Door, ask, until},
    region::{instance, until_state},
    running::{launch, running_region, until_console},
};

/// Every file and directory below a place, but for what is always there.
fn all_in(place: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![place.to_owned()];
    while let Some(folder) = folders.pop() {
        // What goes away meanwhile is gone.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            folders.extend(entry.file_type().is_ok_and(|kind| kind.is_dir()).then(|| entry.path()));
            found.push(entry.path());
        }
    }
    let always =
        ["snapshots/receiving", "snapshots/LOCK", "snapshots/manifests", "snapshots/pieces", "snapshots/incoming", "snapshots/leaving"];
    found.retain(|path| !always.iter().any(|name| path.ends_with(name)));
    found
}

/// What the node in zone a keeps of instances, volumes and snapshots.
fn left(region: &Deployment) -> Vec<PathBuf> {
    ["instances", "volumes", "snapshots"].iter().flat_map(|name| all_in(&region.directory("node-a").join(name))).collect()
}

/// Bytes of all pieces of snapshots.
fn bytes_of_pieces(region: &Deployment) -> u64 {
    let pieces = all_in(&region.directory("node-a").join("snapshots/pieces"));
    pieces.iter().filter_map(|path| fs::metadata(path).ok()).filter(fs::Metadata::is_file).map(|found| found.len()).sum()
}

async fn root_of(door: &Door, instance_id: &str) -> String {
    let found = instance(door, instance_id).await;
    found.block_device_mappings.iter().find(|device| device.device_name == found.root_device_name).unwrap().volume_id.clone()
}

async fn terminate(door: &Door, id: &str) {
    let request = TerminateInstancesRequest { instance_ids: vec![id.to_owned()], ..Default::default() };
    ask!(door, ComputeServiceClient, terminate_instances, request).unwrap();
    until_state(door, id, InstanceState::Terminated).await;
}

async fn until_image(door: &Door, id: &str) -> Image {
    until(format!("{id} available"), async || {
        let request = DescribeImagesRequest { image_ids: vec![id.to_owned()], ..Default::default() };
        let image = ask!(door, ComputeServiceClient, describe_images, request).unwrap().images.remove(0);
        if image.state() == ImageState::Available { Ok(image) } else { Err(format!("{image:?}")) }
    })
    .await
}

async fn create_image(door: &Door, instance_id: &str, name: &str, no_reboot: bool) -> Image {
    let request = CreateImageRequest { instance_id: instance_id.to_owned(), name: name.into(), no_reboot, ..Default::default() };
    let id = ask!(door, ComputeServiceClient, create_image, request).unwrap().image.unwrap().image_id;
    until_image(door, &id).await
}

async fn snapshot(door: &Door, volume_id: &str) -> String {
    let request = CreateSnapshotRequest { volume_id: volume_id.to_owned(), ..Default::default() };
    let id = ask!(door, ComputeServiceClient, create_snapshot, request).unwrap().snapshot.unwrap().snapshot_id;
    until_snapshot(door, &id).await;
    id
}

async fn until_snapshot(door: &Door, id: &str) {
    until(format!("{id} completed"), async || {
        let request = DescribeSnapshotsRequest { snapshot_ids: vec![id.to_owned()], ..Default::default() };
        let found = ask!(door, ComputeServiceClient, describe_snapshots, request).unwrap().snapshots.remove(0);
        if found.state() == SnapshotState::Completed { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

async fn delete_snapshot(door: &Door, id: &str) {
    let request = DeleteSnapshotRequest { snapshot_id: id.to_owned(), ..Default::default() };
    ask!(door, ComputeServiceClient, delete_snapshot, request).unwrap();
}

async fn deregister(door: &Door, image: &Image) {
    let request = DeregisterImageRequest { image_id: image.image_id.clone(), ..Default::default() };
    ask!(door, ComputeServiceClient, deregister_image, request).unwrap();
    for mapping in &image.block_device_mappings {
        let Some(block_device_mapping::Device::Ebs(ebs)) = &mapping.device else { continue };
        delete_snapshot(door, ebs.snapshot_id()).await;
    }
}

async fn until_nothing_is_left(region: &Deployment) {
    until("nothing left", async || match left(region) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_of_an_instance_has_its_files_and_a_second_snapshot_costs_what_changed() {
    let region = running_region();
    let door = region.door("000000000921");
    // A user of the instance's own has a file too, and the image shares none of the first instance's keys.
    let script = "mkdir /app; head -c 5000000 /dev/urandom > /app/large; echo precious > /app/kept\n\
        chmod 751 /app/kept; ln -s kept /app/link; sync";
    let first = launch(&door, script, |_| {}).await;
    until_console(&door, &first, "the user data ended with exit code 0").await;
    let image = create_image(&door, &first, "with files", false).await;

    let look = "cat /app/link; stat -c 'mode %a user %u' /app/kept; wc -c < /app/large";
    let second = launch(&door, look, |spec| spec.image_id = Some(image.image_id.clone())).await;
    let console = until_console(&door, &second, "the user data ended with exit code 0").await;
    for words in ["precious", "mode 751 user 0", "5000000"] {
        assert!(console.contains(words), "{console}");
    }

    let volume = root_of(&door, &second).await;
    let place = region.directory("node-a").join("volumes").join(&volume);
    let before = bytes_of_pieces(&region);
    assert!(before >= 5_000_000, "{before}");
    let one = snapshot(&door, &volume).await;
    let after_one = bytes_of_pieces(&region);
    assert!(after_one - before < 100_000, "what the image has is kept once: {}", after_one - before);
    fs::write(place.join("app/small"), "a little").unwrap();
    let two = snapshot(&door, &volume).await;
    let after_two = bytes_of_pieces(&region);
    assert!(after_two > after_one && after_two - after_one < 100_000, "{}", after_two - after_one);

    // The first goes with its instance, and the copy stays whole.
    terminate(&door, &first).await;
    deregister(&door, &image).await;
    let request = CreateVolumeRequest { availability_zone: "us-east-1a".into(), snapshot_id: two.clone(), ..Default::default() };
    let copy = ask!(door, ComputeServiceClient, create_volume, request).unwrap().volume.unwrap().volume_id;
    delete_snapshot(&door, &one).await;
    delete_snapshot(&door, &two).await;
    until(format!("{copy} available"), async || {
        let request = DescribeVolumesRequest { volume_ids: vec![copy.clone()], ..Default::default() };
        let found = ask!(door, ComputeServiceClient, describe_volumes, request).unwrap().volumes.remove(0);
        if found.state() == VolumeState::Available { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    let copied = region.directory("node-a").join("volumes").join(&copy);
    assert_eq!(fs::read_to_string(copied.join("app/small")).unwrap(), "a little");
    assert_eq!(fs::metadata(copied.join("app/large")).unwrap().len(), 5_000_000);

    terminate(&door, &second).await;
    let delete = DeleteVolumeRequest { volume_id: copy.clone(), ..Default::default() };
    ask!(door, ComputeServiceClient, delete_volume, delete).unwrap();
    until_nothing_is_left(&region).await;
    region.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_whole_and_nothing_is_left_whoever_is_killed_meanwhile() {
    let mut region = running_region();
    let door = region.door("000000000922");
    let first = launch(&door, "head -c 3000000 /dev/urandom > /large; echo precious > /kept; sync", |_| {}).await;
    until_console(&door, &first, "the user data ended with exit code 0").await;
    for (round, service) in ["node-a", "compute", "node-a", "compute"].into_iter().enumerate() {
        let name = format!("image {round}");
        let request = CreateImageRequest { instance_id: first.clone(), name, no_reboot: true, ..Default::default() };
        let id = ask!(door, ComputeServiceClient, create_image, request).unwrap().image.unwrap().image_id;
        // At another moment each time.
        let begun = gureum_service::clock::monotonic();
        while begun.elapsed().as_millis() < round as u128 * 15 {
            tokio::task::yield_now().await;
        }
        region.kill(service);
        region.restart(service);
        let image = until_image(&door, &id).await;
        let again = launch(&door, "cat /kept; wc -c < /large", |spec| spec.image_id = Some(id.clone())).await;
        let console = until_console(&door, &again, "the user data ended with exit code 0").await;
        assert!(console.contains("precious") && console.contains("3000000"), "{console}");
        deregister(&door, &image).await;
        region.kill(service);
        region.restart(service);
        terminate(&door, &again).await;
    }
    terminate(&door, &first).await;
    until_nothing_is_left(&region).await;
    region.finish();
}

async fn until_volume(door: &Door, id: &str, state: VolumeState) {
    until(format!("{id} {state:?}"), async || {
        let request = DescribeVolumesRequest { volume_ids: vec![id.to_owned()], ..Default::default() };
        let found = ask!(door, ComputeServiceClient, describe_volumes, request).unwrap().volumes.remove(0);
        let arrived = found.attachments.iter().all(|held| held.state() == VolumeAttachmentState::Attached);
        if found.state() == state && arrived { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

async fn attach(door: &Door, volume: &str, instance: &str) {
    let (volume_id, instance_id) = (volume.to_owned(), instance.to_owned());
    let request = AttachVolumeRequest { volume_id, instance_id, device: "/dev/sdf".into(), ..Default::default() };
    ask!(door, ComputeServiceClient, attach_volume, request).unwrap();
}

async fn detach(door: &Door, volume: &str, force: bool) {
    let request = DetachVolumeRequest { volume_id: volume.to_owned(), force, ..Default::default() };
    ask!(door, ComputeServiceClient, detach_volume, request).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_goes_from_one_running_instance_to_another_with_its_files() {
    let mut region = running_region();
    let door = region.door("000000000923");
    let request = CreateVolumeRequest { availability_zone: "us-east-1a".into(), size_gib: Some(1), ..Default::default() };
    let volume = ask!(door, ComputeServiceClient, create_volume, request).unwrap().volume.unwrap().volume_id;
    until_volume(&door, &volume, VolumeState::Available).await;
    let here = "grep -q ' /media/sdf ' /proc/mounts";
    let script = format!(
        "until {here}; do sleep 0.05; done; echo of the first > /media/sdf/file; echo written\n\
        while {here}; do sleep 0.05; done; echo gone\n\
        until {here}; do sleep 0.05; done; (cd /media/sdf; echo back; exec sleep 600) & while {here}; do sleep 0.05; done; echo pulled"
    );
    let first = launch(&door, &script, |_| {}).await;
    until_state(&door, &first, InstanceState::Running).await;
    attach(&door, &volume, &first).await;
    until_console(&door, &first, "written").await;
    until_volume(&door, &volume, VolumeState::InUse).await;
    // Its node is another process by now.
    region.kill("node-a");
    region.restart("node-a");
    detach(&door, &volume, false).await;
    until_console(&door, &first, "gone").await;
    until_volume(&door, &volume, VolumeState::Available).await;

    // One that is in use stays, until force takes it away.
    attach(&door, &volume, &first).await;
    until_console(&door, &first, "back").await;
    until_volume(&door, &volume, VolumeState::InUse).await;
    detach(&door, &volume, false).await;
    detach(&door, &volume, true).await;
    until_console(&door, &first, "pulled").await;
    until_volume(&door, &volume, VolumeState::Available).await;

    let second = launch(&door, &format!("until {here}; do sleep 0.05; done; cat /media/sdf/file"), |_| {}).await;
    until_state(&door, &second, InstanceState::Running).await;
    attach(&door, &volume, &second).await;
    until_console(&door, &second, "of the first").await;
    // It is there at the next boot too, from its first moment on.
    let reboot = RebootInstancesRequest { instance_ids: vec![second.clone()], ..Default::default() };
    ask!(door, ComputeServiceClient, reboot_instances, reboot).unwrap();
    until_volume(&door, &volume, VolumeState::InUse).await;
    terminate(&door, &first).await;
    terminate(&door, &second).await;
    until_volume(&door, &volume, VolumeState::Available).await;
    let delete = DeleteVolumeRequest { volume_id: volume.clone(), ..Default::default() };
    ask!(door, ComputeServiceClient, delete_volume, delete).unwrap();
    until_nothing_is_left(&region).await;
    region.finish();
}

/// Runs the program against the region: what it prints, and whether it went well.
async fn gureum(region: &Deployment, account: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_gureum"));
    command.args(["--endpoint", &format!("http://{}", region.address()), "--account", account]).args(arguments).env("NO_COLOR", "1");
    let output = command.output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_becomes_an_image_whose_boot_script_runs() {
    let region = running_region();
    let account = "000000000924";
    let (door, folder) = (region.door(account), tempfile::tempdir().unwrap());
    let place = folder.path().to_str().unwrap();
    let (good, told) = gureum(&region, account, &["images", "import", place, "--name", "empty"]).await;
    assert!(!good && told.contains("nothing to boot from"), "{told}");
    fs::create_dir(folder.path().join("site")).unwrap();
    fs::write(folder.path().join("site/index.html"), "brought along").unwrap();
    fs::write(folder.path().join("start.sh"), "#!/bin/sh\ncat /site/index.html\necho started\n").unwrap();
    fs::create_dir_all(folder.path().join("etc/gureum")).unwrap();
    fs::write(folder.path().join("etc/gureum/boot"), "#!/bin/sh\nexec /start.sh\n").unwrap();
    let (good, told) = gureum(&region, account, &["images", "import", place, "--name", "unable"]).await;
    assert!(!good && told.contains("its boot script /etc/gureum/boot may not be run; chmod +x it"), "{told}");
    fs::remove_dir_all(folder.path().join("etc")).unwrap();
    fs::set_permissions(folder.path().join("start.sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // What is in an archive only the region knows.
    let archive = tempfile::NamedTempFile::new().unwrap();
    let packed = std::process::Command::new("tar").arg("-cf").arg(archive.path()).args(["-C", place, "."]).status().unwrap();
    assert!(packed.success());
    let import = ["images", "import", archive.path().to_str().unwrap(), "--name", "lacking", "--boot-script", "stop.sh"];
    let (good, told) = gureum(&region, account, &import).await;
    assert!(!good && told.contains("its boot script /stop.sh is not in it"), "{told}");
    let (good, told) = gureum(&region, account, &["images", "import", place, "--name", "none", "--boot-script", "stop.sh"]).await;
    assert!(!good && told.contains("there is no file"), "{told}");
    let import = ["images", "import", place, "--name", "site", "--size", "1", "--boot-script", "/start.sh", "-o", "id"];
    let (good, told) = gureum(&region, account, &import).await;
    assert!(good, "{told}");
    let id = told.trim().to_owned();
    let image = until_image(&door, &id).await;
    let instance = launch(&door, "echo user data", |spec| spec.image_id = Some(id.clone())).await;
    let console = until_console(&door, &instance, "started").await;
    assert!(console.contains("brought along"), "{console}");
    terminate(&door, &instance).await;
    deregister(&door, &image).await;
    until_nothing_is_left(&region).await;
    region.finish();
}
