//! The marketplace: images offered to all accounts, under terms to accept first.

use std::sync::Arc;

use gureum_compute_domain::{
    marketplace::{Listing, MarketplaceError, NewListing, ProductCode, accept, list},
    volume::Decision,
};
use gureum_model::{Filters, PageRequest, Refusal, Scope, id::ImageId, refusal::Violations};
use gureum_proto::compute::v1 as proto;
use gureum_service::{Answer, Error, mutate::mutate, scope, wire};
use gureum_store::Record;

use crate::{
    catalog,
    convert::listing::shown,
    core::Core,
    store::{AcceptanceRow, ID_INDEX, ListingRow, Schema, put_acceptance, put_image, put_listing},
};

/// A product's listing, whoever sells it.
fn find<'a>(tables: &'a Schema, code: &ProductCode) -> Option<&'a Listing> {
    tables.listings.find(ID_INDEX, code.as_str()).next().map(|row| &row.record.0)
}

fn accepted(tables: &Schema, scope: &Scope, listing: &Listing) -> bool {
    let acceptance = tables.acceptances.get(&AcceptanceRow::key_of(scope.account, listing.product_code.as_str()));
    listing.accepted_by(scope.account, acceptance.map(|row| &row.record.0))
}

/// Whether its image can still be launched.
fn on_sale(tables: &Schema, scope: &Scope, listing: &Listing) -> bool {
    catalog::image(tables, scope, listing.image_id).is_some_and(|image| image.listed)
}

/// What is on offer in the region, in the order of the product codes.
pub async fn describe_marketplace_listings(
    core: &Arc<Core>,
    request: proto::DescribeMarketplaceListingsRequest,
) -> Result<proto::DescribeMarketplaceListingsResponse, Error> {
    let (scope, state) = (scope(), core.read());
    let mut violations = Violations::new();
    let mut codes: Vec<ProductCode> = Vec::with_capacity(request.product_codes.len());
    for (place, text) in request.product_codes.iter().enumerate() {
        codes.extend(violations.check(format!("product_codes[{place}]"), text.parse()));
    }
    let filters = violations.check("", Filters::for_kind::<Listing>(wire::filters(request.filters))).unwrap_or_default();
    violations.finish()?;
    let page = PageRequest::new(request.page_size, &request.page_token, &("listings", &scope, &filters, &codes))?;
    let candidates: Vec<&Listing> = if codes.is_empty() {
        let listed = state.listings.iter().map(|row| &row.record.0);
        listed.filter(|it| it.visible_to(&scope) && on_sale(&state, &scope, it)).collect()
    } else {
        let named = |code: &ProductCode| {
            let found = find(&state, code).filter(|it| it.visible_to(&scope));
            found.ok_or_else(|| Refusal::from(MarketplaceError::NotFound { code: code.clone() }))
        };
        codes.iter().map(named).collect::<Result<_, _>>()?
    };
    let passing = candidates.into_iter().filter(|it| filters.pass(*it));
    let (found, next_page_token) = page.select(passing, |it| it.product_code.to_string());
    let listings = found.into_iter().map(|it| shown(it, accepted(&state, &scope, it))).collect();
    Ok(proto::DescribeMarketplaceListingsResponse { listings, next_page_token })
}

/// Offers an image to all accounts.
pub async fn create_marketplace_listing(
    core: &Arc<Core>,
    request: proto::CreateMarketplaceListingRequest,
) -> Result<proto::CreateMarketplaceListingResponse, Error> {
    let (scope, code) = (scope(), ProductCode::new(&core.ids));
    let image_id: ImageId = Refusal::parse_id("image_id", &request.image_id)?;
    let new = NewListing {
        title: request.title.clone(),
        description: request.description.clone(),
        terms: request.terms.clone(),
        price: request.price.clone(),
        ..NewListing::default()
    };
    let caller = scope.clone();
    let created = mutate(&core.store, &caller, &request, move |tx| {
        let image = catalog::get_image(tx, &scope, image_id)?;
        let (listing, image) = list(&image, &scope, &new, code, tx.now())?;
        let answer = proto::CreateMarketplaceListingResponse { listing: Some(shown(&listing, true)) };
        let key = ListingRow(listing.clone()).key();
        put_image(tx, "ImageChanged", image);
        put_listing(tx, listing);
        Ok(Answer::created::<ListingRow>(answer, key))
    });
    created.await
}

/// Accepts a product's terms, so that it can be launched.
pub async fn accept_marketplace_terms(
    core: &Arc<Core>,
    request: proto::AcceptMarketplaceTermsRequest,
) -> Result<proto::AcceptMarketplaceTermsResponse, Error> {
    let scope = scope();
    let code: ProductCode = request.product_code.parse().map_err(Refusal::from)?;
    let caller = scope.clone();
    let accepted = mutate(&core.store, &caller, &request, move |tx| {
        let found = find(tx, &code).cloned();
        let existing = tx.acceptances.get(&AcceptanceRow::key_of(scope.account, code.as_str()));
        let decision = accept(&code, found.as_ref(), &scope, existing.map(|row| &row.record.0), tx.now())?;
        if let (Decision::Change(acceptance), Some(listing)) = (decision, &found) {
            put_acceptance(tx, listing, acceptance);
        }
        Ok(proto::AcceptMarketplaceTermsResponse { listing: found.map(|listing| shown(&listing, true)) })
    });
    accepted.await
}
