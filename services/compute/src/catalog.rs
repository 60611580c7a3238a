//! What a launch may be made of: images and snapshots, whoever owns them.
//!
//! What ships is in a table and not in the store; what accounts made is in the store, under its owner's
//! scope. A caller sees only what is public, on the marketplace, shared with him, or his own.

use std::{borrow::Cow, collections::BTreeMap};

use gureum_compute_domain::{
    block_device::{PlannedVolume, launch_volumes},
    image::{Image, ImageError, ImageSource, shipped},
    launch_spec::BlockDeviceSpec,
    marketplace,
    snapshot::Snapshot,
};
use gureum_model::{
    Refusal, Scope,
    id::{ImageId, SnapshotId},
};

use crate::store::{AcceptanceRow, ID_INDEX, Schema};

/// An image, if the caller may see it.
pub fn image<'a>(tables: &'a Schema, scope: &Scope, id: ImageId) -> Option<Cow<'a, Image>> {
    let found = match shipped::find(id) {
        Some(shipped) => Cow::Owned(shipped.image(&scope.region)),
        None => Cow::Borrowed(&tables.images.find(ID_INDEX, &id.to_string()).next()?.record.0),
    };
    Some(found).filter(|image| image.visible_to(scope))
}

/// As [`image`], but refuses with `InvalidAMIID.NotFound`.
pub fn get_image<'a>(tables: &'a Schema, scope: &Scope, id: ImageId) -> Result<Cow<'a, Image>, Refusal> {
    image(tables, scope, id).ok_or_else(|| ImageError::NotFound { ids: vec![id] }.into())
}

/// A product in the image whose terms the caller has still to accept.
pub fn terms_missing(tables: &Schema, scope: &Scope, image: &Image) -> Option<String> {
    let listing = |code: &str| tables.listings.find(ID_INDEX, code).next().map(|row| &row.record.0);
    let acceptance = |code: &str| tables.acceptances.get(&AcceptanceRow::key_of(scope.account, code)).map(|row| &row.record.0);
    marketplace::terms_missing(image, scope.account, listing, acceptance)
}

/// Where a driver finds what is in the image.
pub fn image_source(image: &Image) -> String {
    match &image.source {
        ImageSource::Shipped { name } => name.clone(),
        ImageSource::FromInstance { .. } | ImageSource::Registered => {
            let root = image.block_devices.iter().find(|mapping| mapping.device_name == image.root_device_name);
            let snapshot = root.and_then(|mapping| mapping.ebs()?.snapshot_id);
            // What ships is known by its own name.
            let name = |id: SnapshotId| shipped::find_snapshot(id).map_or_else(|| id.to_string(), |image| image.key.to_owned());
            snapshot.map(name).unwrap_or_default()
        }
    }
}

/// The snapshots that a call names, those that ship among them.
pub struct Snapshots<'a> {
    tables: &'a Schema,
    viewer: &'a Scope,
    ships: BTreeMap<SnapshotId, Snapshot>,
}

impl<'a> Snapshots<'a> {
    /// Those with these ids, as far as `viewer` may use them.
    pub fn named(tables: &'a Schema, viewer: &'a Scope, ids: impl IntoIterator<Item = SnapshotId>) -> Self {
        let ships = |id: SnapshotId| Some((id, shipped::find_snapshot(id)?.snapshot(&viewer.region)));
        Self { tables, viewer, ships: ids.into_iter().filter_map(ships).collect() }
    }

    /// Those that mappings name.
    pub fn of_mappings(tables: &'a Schema, viewer: &'a Scope, specs: &[BlockDeviceSpec]) -> Self {
        // One that is malformed is refused where the mapping is read.
        Self::named(tables, viewer, specs.iter().filter_map(|spec| spec.snapshot_id.as_deref()?.parse().ok()))
    }

    /// A snapshot of which the viewer may make volumes.
    pub fn find(&self, id: SnapshotId) -> Option<&Snapshot> {
        self.find_any(id).filter(|snapshot| snapshot.visible_to(self.viewer))
    }

    fn find_any(&self, id: SnapshotId) -> Option<&Snapshot> {
        self.ships.get(&id).or_else(|| Some(&self.tables.snapshots.find(ID_INDEX, &id.to_string()).next()?.record.0))
    }
}

/// The volumes of a launch, root first. Errors: `InvalidBlockDeviceMapping` and its like, all at once.
pub fn volumes(tables: &Schema, scope: &Scope, image: &Image, specs: &[BlockDeviceSpec]) -> Result<Vec<PlannedVolume>, Refusal> {
    let of_image: Vec<SnapshotId> = image.snapshots().collect();
    let named = specs.iter().filter_map(|spec| spec.snapshot_id.as_deref()?.parse::<SnapshotId>().ok());
    let snapshots = Snapshots::named(tables, scope, of_image.iter().copied().chain(named));
    // Whoever may launch an image may have what is in it.
    let find = |id: SnapshotId| if of_image.contains(&id) { snapshots.find_any(id) } else { snapshots.find(id) };
    launch_volumes(&image.block_devices, &image.root_device_name, specs, scope, find, "spec.block_device_mappings")
}
