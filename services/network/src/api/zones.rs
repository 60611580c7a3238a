//! Zones and regions: every region's name has them.

use gureum_model::{Filters, PageRequest, Refusal, Scope, refusal::Violations};
use gureum_network_domain::zone::{RegionRow, Zone, regions, zones};
use gureum_proto::network::v1 as proto;
use gureum_service::{Error, wire};

pub fn describe_zones(
    scope: &Scope,
    request: proto::DescribeAvailabilityZonesRequest,
) -> Result<proto::DescribeAvailabilityZonesResponse, Error> {
    let filters = Filters::for_kind::<Zone>(wire::filters(request.filters))?;
    let page = PageRequest::new(request.page_size, &request.page_token, &("zones", scope, &filters, &request.zone_names))?;
    let known = zones(&scope.region);
    let mut violations = Violations::new();
    for (place, name) in request.zone_names.iter().enumerate().filter(|(_, name)| known.iter().all(|zone| zone.name != **name)) {
        violations.add(format!("zone_names[{place}]"), format!("Invalid availability zone: [{name}]"));
    }
    violations.finish()?;
    let wanted = |zone: &Zone| (request.zone_names.is_empty() || request.zone_names.contains(&zone.name)) && filters.pass(zone);
    let rest = known.into_iter().filter(|zone| wanted(zone) && page.after.as_ref().is_none_or(|after| zone.name > *after));
    let (rows, next_page_token) = page.cut(rest.take(page.size + 1).collect(), |zone: &Zone| zone.name.clone());
    let shown = |zone: Zone| proto::AvailabilityZone {
        zone_name: zone.name.clone(),
        zone_id: zone.id.clone(),
        region_name: zone.region.to_string(),
        state: Zone::STATE.to_owned(),
        zone_type: Zone::TYPE.to_owned(),
        opt_in_status: Zone::OPT_IN_STATUS.to_owned(),
        group_name: zone.group_name(),
        network_border_group: zone.region.to_string(),
    };
    Ok(proto::DescribeAvailabilityZonesResponse { availability_zones: rows.into_iter().map(shown).collect(), next_page_token })
}

pub fn describe_regions(scope: &Scope, request: proto::DescribeRegionsRequest) -> Result<proto::DescribeRegionsResponse, Error> {
    let filters = Filters::for_kind::<RegionRow>(wire::filters(request.filters))?;
    let page = PageRequest::new(request.page_size, &request.page_token, &("regions", scope, &filters, &request.region_names))?;
    // A region that is named is meant, also one that an AWS account must opt into.
    let known = regions(&scope.region, !request.region_names.is_empty());
    for name in &request.region_names {
        if known.iter().all(|row| row.region.as_str() != name) {
            return Err(Refusal::invalid("region_names", format!("Invalid region provided: {name}")).into());
        }
    }
    let wanted = |row: &RegionRow| {
        (request.region_names.is_empty() || request.region_names.iter().any(|name| name == row.region.as_str())) && filters.pass(row)
    };
    let rest = known.into_iter().filter(|row| wanted(row) && page.after.as_ref().is_none_or(|after| row.region.as_str() > after.as_str()));
    let (rows, next_page_token) = page.cut(rest.take(page.size + 1).collect(), |row: &RegionRow| row.region.to_string());
    let shown = |row: RegionRow| proto::Region {
        region_name: row.region.to_string(),
        endpoint: row.endpoint(),
        opt_in_status: row.opt_in_status().to_owned(),
    };
    Ok(proto::DescribeRegionsResponse { regions: rows.into_iter().map(shown).collect(), next_page_token })
}
