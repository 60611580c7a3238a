//! How images and the marketplace are written.

use gureum_compute_domain::{
    image::{self, Image},
    marketplace::{Acceptance, Listing},
    volume::Decision,
};
use gureum_proto::compute::v1 as proto;

use super::{AcceptanceRow, ImageRow, ListingRow, Told, Tx, emit};
use crate::{catalog::Snapshots, convert};

/// Writes an image and tells of it.
pub fn put_image(tx: &mut Tx<'_>, kind: &'static str, it: Image) {
    let resource = proto::event::Resource::Image(convert::image::shown(&it));
    emit(tx, Told::new(kind), it.scope.clone(), it.id.to_string(), false, resource);
    tx.put(ImageRow(it));
}

/// Writes what a decision on an image came to, if it changes it, and tells of it.
pub fn decide_image(tx: &mut Tx<'_>, kind: &'static str, it: &Image, decision: Decision<Image>) {
    match decision {
        Decision::Unchanged => {}
        Decision::Change(next) => put_image(tx, kind, next),
        Decision::Remove => {
            tx.delete::<ImageRow>(&ImageRow::key_of(&it.scope, it.id));
            let resource = proto::event::Resource::Image(convert::image::shown(it));
            emit(tx, Told::new("ImageForgotten"), it.scope.clone(), it.id.to_string(), true, resource);
        }
    }
}

/// Does what time and its snapshots have changed of an image.
pub fn settle_image(tx: &mut Tx<'_>, it: &Image) {
    let decision = {
        let snapshots = Snapshots::named(tx, &it.scope, it.snapshots());
        image::settle(it, |id| snapshots.find(id), tx.now())
    };
    decide_image(tx, "ImageStateChanged", it, decision);
}

/// Writes a listing and tells its seller of it.
pub fn put_listing(tx: &mut Tx<'_>, it: Listing) {
    let resource = proto::event::Resource::MarketplaceListing(convert::listing::shown(&it, true));
    emit(tx, Told::new("MarketplaceListingCreated"), it.scope.clone(), it.product_code.to_string(), false, resource);
    tx.put(ListingRow(it));
}

/// Writes an acceptance and tells the buyer of it.
pub fn put_acceptance(tx: &mut Tx<'_>, listing: &Listing, it: Acceptance) {
    let resource = proto::event::Resource::MarketplaceListing(convert::listing::shown(listing, true));
    emit(tx, Told::new("MarketplaceTermsAccepted"), it.scope.clone(), it.product_code.to_string(), false, resource);
    tx.put(AcceptanceRow(it));
}
