//! Instance types and where they are offered.

use std::sync::Arc;

use gureum_compute_domain::instance_type::{self, InstanceType, Offering};
use gureum_model::{Filters, PageRequest, Refusal, refusal::Violations, scope::ZONE_LETTERS};
use gureum_proto::compute::v1 as proto;
use gureum_service::{Error, scope, wire};

use crate::{convert::instance_type::shown, core::Core};

/// The table of types, which every account and region shares.
pub async fn describe_instance_types(
    _: &Arc<Core>,
    request: proto::DescribeInstanceTypesRequest,
) -> Result<proto::DescribeInstanceTypesResponse, Error> {
    let mut violations = Violations::new();
    let filters = violations.check("", Filters::for_kind::<InstanceType>(wire::filters(request.filters))).unwrap_or_default();
    violations.finish()?;
    let page = PageRequest::new(request.page_size, &request.page_token, &("types", &filters, &request.instance_types))?;
    let known: Vec<&InstanceType> = if request.instance_types.is_empty() {
        instance_type::all().iter().collect()
    } else {
        instance_type::find_all(&request.instance_types).map_err(Refusal::from)?
    };
    let (types, next_page_token) = page.select(known.into_iter().filter(|one| filters.pass(*one)), |one| one.name.to_owned());
    Ok(proto::DescribeInstanceTypesResponse { instance_types: types.into_iter().map(shown).collect(), next_page_token })
}

/// All types are offered in all zones of every region.
pub async fn describe_instance_type_offerings(
    _: &Arc<Core>,
    request: proto::DescribeInstanceTypeOfferingsRequest,
) -> Result<proto::DescribeInstanceTypeOfferingsResponse, Error> {
    let (region, kind) = (scope().region, request.location_type());
    let locations = match kind {
        proto::LocationType::Unspecified | proto::LocationType::Region => vec![region.to_string()],
        proto::LocationType::AvailabilityZone => region.zones().to_vec(),
        proto::LocationType::AvailabilityZoneId => ZONE_LETTERS.map(|letter| region.zone_id(letter)).to_vec(),
    };
    let shown_kind = if kind == proto::LocationType::Unspecified { proto::LocationType::Region } else { kind };
    let filters = Filters::for_kind::<Offering>(wire::filters(request.filters))?;
    let page = PageRequest::new(request.page_size, &request.page_token, &("offerings", &region, &filters, kind as i32))?;
    let place = |one: &Offering| format!("{}\0{}", one.instance_type, one.location);
    let (rows, next_page_token) = page.select(instance_type::offerings(&locations).filter(|one| filters.pass(one)), place);
    let shown = |one: Offering| proto::InstanceTypeOffering {
        instance_type: one.instance_type.to_owned(),
        location_type: shown_kind.into(),
        location: one.location,
    };
    Ok(proto::DescribeInstanceTypeOfferingsResponse { instance_type_offerings: rows.into_iter().map(shown).collect(), next_page_token })
}
