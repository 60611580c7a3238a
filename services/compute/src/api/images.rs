//! Images: what ships, and what accounts made and share.

use std::sync::Arc;

use gureum_compute_domain::image::{Image, ImageQuery, shipped};
use gureum_model::{Filters, PageRequest, Refusal, Scope, refusal::Violations};
use gureum_proto::compute::v1 as proto;
use gureum_service::{Error, scope, wire};

use crate::{
    convert::image::shown,
    core::Core,
    store::{ID_INDEX, Schema, VISIBLE_INDEX, seen_by, seen_by_all},
};

/// Every image that the caller may see, in ascending order of the id.
pub async fn describe_images(core: &Arc<Core>, request: proto::DescribeImagesRequest) -> Result<proto::DescribeImagesResponse, Error> {
    let (scope, state, now) = (scope(), core.read(), core.clock.now());
    let mut violations = Violations::new();
    let query =
        violations.check("", ImageQuery::parse(&request.image_ids, &request.owners, &request.executable_users, request.include_deprecated));
    let filters = violations.check("", Filters::for_kind::<Image>(wire::filters(request.filters))).unwrap_or_default();
    violations.finish()?;
    let query = query.ok_or_else(|| Refusal::missing("image_ids"))?;
    let ships = shipped::images(&scope.region);
    let find =
        |id| ships.iter().find(|image| image.id == id).or_else(|| Some(&state.images.find(ID_INDEX, &format!("{id}")).next()?.record.0));
    query.check_ids(&scope, find).map_err(Refusal::from)?;
    let page = PageRequest::new(request.page_size, &request.page_token, &("images", &scope, &filters, &query))?;
    let admitted = |image: &&Image| query.admits(image, &scope, now) && filters.pass(image.seen_by(scope.account).as_ref());
    let admitted = visible(&state, &scope, &ships).into_iter().filter(admitted);
    let (images, next_page_token) = page.select(admitted, |image| image.id.to_string());
    Ok(proto::DescribeImagesResponse {
        images: images.into_iter().map(|image| shown(image.seen_by(scope.account).as_ref())).collect(),
        next_page_token,
    })
}

/// One's own, those of others that one may launch, and those that ship; the query says which of them are wanted.
fn visible<'a>(tables: &'a Schema, scope: &Scope, ships: &'a [Image]) -> Vec<&'a Image> {
    let own = tables.images.scan(&format!("{scope}/"), None);
    let public = tables.images.find(VISIBLE_INDEX, &seen_by_all(&scope.region));
    let shared = tables.images.find(VISIBLE_INDEX, &seen_by(scope));
    ships.iter().chain(own.chain(public).chain(shared).map(|row| &row.record.0)).collect()
}
