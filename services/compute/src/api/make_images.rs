//! CreateImage, RegisterImage and DeregisterImage.

use std::sync::Arc;

use gureum_compute_domain::{
    disk_work::AfterReboot,
    image::{
        self, Image,
        create::{Created, FromInstance, NewImage, Registration, of_instance, register},
    },
    instance::Decision,
    launch_spec::BlockDeviceSpec,
    reboot::reboot,
    tag_specification,
};
use gureum_model::{
    Refusal, Scope, Tags,
    id::{ImageId, InstanceId},
    refusal::Violations,
};
use gureum_proto::compute::v1 as proto;
use gureum_service::{Answer, Error, mutate::mutate, scope};
use gureum_store::Listed;

use super::instances;
use crate::{
    catalog::{self, Snapshots},
    convert::{
        image::shown,
        launch_spec::{block_device, tag_specification as read_specification},
    },
    core::Core,
    store::{
        IMAGE_NAME_INDEX, ImageRow, Schema, VolumeRow, decide_image, put_image, put_instance, put_snapshot, settle_image,
        work_for_new_snapshot,
    },
};

fn block_devices(mappings: &[proto::BlockDeviceMapping]) -> Vec<BlockDeviceSpec> {
    mappings.iter().cloned().map(block_device).collect()
}

/// The tags for each of `kinds`. Errors: all that is wrong with them.
fn tags<const KINDS: usize>(specifications: &[proto::TagSpecification], kinds: [&str; KINDS]) -> Result<[Tags; KINDS], Refusal> {
    let mut violations = Violations::new();
    let specifications: Vec<_> = specifications.iter().cloned().map(read_specification).collect();
    let tags = tag_specification::read(&specifications, "tag_specifications", kinds, &mut violations);
    violations.finish().map(|()| tags)
}

/// The caller's image that has this name.
fn taken(tables: &Schema, scope: &Scope, name: &str) -> Option<ImageId> {
    tables.images.find(IMAGE_NAME_INDEX, &ImageRow::name_value(scope, name)).next().map(|row| row.id)
}

/// What is wrong with the instance, and what is wrong whatever instance it is.
fn beside<T>(instance: Refusal, new: &NewImage, tags: &Result<T, Refusal>) -> Refusal {
    new.check().err().into_iter().chain(tags.as_ref().err().cloned()).fold(instance, Refusal::and)
}

/// Makes an image of an instance, with a snapshot of each of its volumes.
pub async fn create_image(core: &Arc<Core>, request: proto::CreateImageRequest) -> Result<proto::CreateImageResponse, Error> {
    let (scope, places, ids) = (scope(), core.places.clone(), core.ids.clone());
    let tags = tags(&request.tag_specifications, ["image", "snapshot"]);
    let [of_image, of_snapshots] = tags.clone().unwrap_or_default();
    let new = NewImage {
        name: request.name.clone(),
        description: request.description.clone(),
        block_devices: block_devices(&request.block_device_mappings),
        tags: of_image,
    };
    let instance_id = Refusal::parse_id::<InstanceId>("instance_id", &request.instance_id);
    let instance_id = instance_id.map_err(|malformed| beside(malformed, &new, &tags))?;
    let from = FromInstance { new, no_reboot: request.no_reboot, snapshot_tags: of_snapshots };
    let caller = scope.clone();
    let created = mutate(&core.store, &caller, &request, move |tx| {
        let now = tx.now();
        let instance = instances::get(tx, &scope, instance_id, now);
        let instance = instance.map_err(|absent| beside(absent, &from.new, &tags))?.clone();
        let made = {
            let tables: &Schema = tx;
            let snapshots = Snapshots::of_mappings(tables, &scope, &from.new.block_devices);
            let volume = |id| tables.volumes.get(&VolumeRow::list_key(&scope, id)).map(|row| &row.record.0);
            let name = taken(tables, &scope, &from.new.name);
            of_instance(&from, &instance, name, volume, |id| snapshots.find(id), &ids, now)
        };
        let (Created { image, snapshots, reboot: first }, _) = Refusal::both(made, tags)?;
        let mut after = None;
        if first && let Decision::Change(next) = reboot(&instance)? {
            after = Some(AfterReboot { instance: next.id, reboots: next.reboots });
            put_instance(tx, &places, *next, "");
        }
        for snapshot in snapshots {
            work_for_new_snapshot(tx, &snapshot, after);
            put_snapshot(tx, "SnapshotCreated", snapshot);
        }
        let key = ImageRow::key_of(&scope, image.id);
        put_image(tx, "ImageCreated", image.clone());
        // Where no volume is copied, there is nothing to wait for.
        settle_image(tx, &image);
        Ok(Answer::created::<ImageRow>(proto::CreateImageResponse { image: Some(shown(&image)) }, key))
    });
    created.await
}

/// Makes an image of snapshots.
pub async fn register_image(core: &Arc<Core>, request: proto::RegisterImageRequest) -> Result<proto::RegisterImageResponse, Error> {
    let (scope, id) = (scope(), core.ids.next::<ImageId>());
    let tags = tags(&request.tag_specifications, ["image"]);
    let [of_image] = tags.clone().unwrap_or_default();
    let new = NewImage {
        name: request.name.clone(),
        description: request.description.clone(),
        block_devices: block_devices(&request.block_device_mappings),
        tags: of_image,
    };
    let registration = Registration {
        architecture: request.architecture.clone(),
        root_device_name: request.root_device_name.clone(),
        virtualization_type: request.virtualization_type.clone(),
        ena_support: request.ena_support,
        boot_mode: request.boot_mode.clone(),
        imds_support: request.imds_support.clone(),
    };
    let caller = scope.clone();
    let registered = mutate(&core.store, &caller, &request, move |tx| {
        let made = {
            let snapshots = Snapshots::of_mappings(tx, &scope, &new.block_devices);
            let name = taken(tx, &scope, &new.name);
            register(&new, &registration, &scope, name, |id| snapshots.find(id), id, tx.now())
        };
        let (image, _) = Refusal::both(made, tags)?;
        let answer = proto::RegisterImageResponse { image: Some(shown(&image)) };
        put_image(tx, "ImageCreated", image);
        Ok(Answer::created::<ImageRow>(answer, ImageRow::key_of(&scope, id)))
    });
    registered.await
}

/// Ends an image. What was launched from it stays.
pub async fn deregister_image(core: &Arc<Core>, request: proto::DeregisterImageRequest) -> Result<proto::DeregisterImageResponse, Error> {
    let scope = scope();
    let id: ImageId = Refusal::parse_id("image_id", &request.image_id)?;
    let caller = scope.clone();
    let deregistered = mutate(&core.store, &caller, &request, move |tx| {
        let it: Image = catalog::get_image(tx, &scope, id)?.into_owned();
        let decision = image::deregister(&it, &scope, tx.now())?;
        decide_image(tx, "ImageStateChanged", &it, decision);
        Ok(proto::DeregisterImageResponse {})
    });
    deregistered.await
}
