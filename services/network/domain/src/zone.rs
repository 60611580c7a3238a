//! Zones and regions: nobody makes them, every region's name has them.

use std::borrow::Cow;

use gureum_model::{Filterable, Refusal, Region, scope::ZONE_LETTERS};

use crate::text;

/// A zone of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    pub region: Region,
    /// `us-east-1a`.
    pub name: String,
    /// `use1-az1`.
    pub id: String,
}

impl Zone {
    pub const STATE: &'static str = "available";
    pub const TYPE: &'static str = "availability-zone";
    pub const OPT_IN_STATUS: &'static str = "opt-in-not-required";

    /// `us-east-1-zg-1`.
    pub fn group_name(&self) -> String {
        format!("{}-zg-1", self.region)
    }
}

/// The zones of a region, in the order of their names.
pub fn zones(region: &Region) -> Vec<Zone> {
    ZONE_LETTERS.iter().map(|letter| Zone { region: region.clone(), name: region.zone(*letter), id: region.zone_id(*letter) }).collect()
}

/// The zone with this name in the region, if it has one.
pub fn find(region: &Region, name: &str) -> Option<Zone> {
    let letter = region.zone_letter(name)?;
    Some(Zone { region: region.clone(), name: name.to_owned(), id: region.zone_id(letter) })
}

/// The zone that a request names by name or by id; `None` if by neither.
///
/// Errors: `InvalidParameterValue` (no such zone), `InvalidParameterCombination` (both, and they differ).
pub fn parse(region: &Region, name: &str, id: &str) -> Result<Option<Zone>, Refusal> {
    let unknown = |field: &str, value: &str| {
        let known =
            zones(region).into_iter().map(|zone| if field == "availability_zone" { zone.name } else { zone.id }).collect::<Vec<_>>();
        Refusal::invalid(field, format!("Value ({value}) for parameter {field} is invalid: the zones of {region} are {}", known.join(", ")))
    };
    let by_name = if name.is_empty() { None } else { Some(find(region, name).ok_or_else(|| unknown("availability_zone", name))?) };
    let by_id = if id.is_empty() {
        None
    } else {
        Some(zones(region).into_iter().find(|zone| zone.id == id).ok_or_else(|| unknown("availability_zone_id", id))?)
    };
    match (by_name, by_id) {
        (Some(one), Some(other)) if one != other => Err(Refusal::invalid_as(
            "InvalidParameterCombination",
            "availability_zone_id",
            format!("the zone {name} has the id {}, not {id}; give one of them", one.id),
        )),
        (one, other) => Ok(one.or(other)),
    }
}

impl Filterable for Zone {
    const FILTER_NAMES: &'static [&'static str] =
        &["group-name", "opt-in-status", "region-name", "state", "zone-id", "zone-name", "zone-type"];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "group-name" => vec![text(self.group_name())],
            "opt-in-status" => vec![Cow::Borrowed(Self::OPT_IN_STATUS)],
            "region-name" => vec![Cow::Borrowed(self.region.as_str())],
            "state" => vec![Cow::Borrowed(Self::STATE)],
            "zone-id" => vec![Cow::Borrowed(&self.id)],
            "zone-name" => vec![Cow::Borrowed(&self.name)],
            "zone-type" => vec![Cow::Borrowed(Self::TYPE)],
            _ => Vec::new(),
        }
    }
}

/// A region in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionRow {
    pub region: Region,
    /// False for those that an AWS account must opt into.
    pub open: bool,
}

/// The regions that every AWS account has.
const OPEN_REGIONS: &[&str] = &[
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
];

/// The regions that an AWS account must opt into.
const OPT_IN_REGIONS: &[&str] = &[
    "af-south-1",
    "ap-east-1",
    "ap-south-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ca-west-1",
    "eu-central-2",
    "eu-south-1",
    "eu-south-2",
    "il-central-1",
    "me-central-1",
    "me-south-1",
];

impl RegionRow {
    /// `ec2.us-east-1.amazonaws.com`.
    pub fn endpoint(&self) -> String {
        format!("ec2.{}.amazonaws.com", self.region)
    }

    pub fn opt_in_status(&self) -> &'static str {
        if self.open { "opt-in-not-required" } else { "not-opted-in" }
    }
}

/// AWS's regions and the caller's own, in the order of their names; `all` adds those to opt into.
pub fn regions(own: &Region, all: bool) -> Vec<RegionRow> {
    let known =
        |names: &'static [&'static str], open| names.iter().filter_map(move |name| Some(RegionRow { region: name.parse().ok()?, open }));
    let mut rows: Vec<_> = known(OPEN_REGIONS, true).chain(known(OPT_IN_REGIONS, false).filter(|_| all)).collect();
    rows.retain(|row| row.region != *own);
    rows.push(RegionRow { region: own.clone(), open: true });
    rows.sort_by(|one, other| one.region.cmp(&other.region));
    rows
}

impl Filterable for RegionRow {
    const FILTER_NAMES: &'static [&'static str] = &["endpoint", "opt-in-status", "region-name"];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "endpoint" => vec![text(self.endpoint())],
            "opt-in-status" => vec![Cow::Borrowed(self.opt_in_status())],
            "region-name" => vec![Cow::Borrowed(self.region.as_str())],
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_have_awss_ids() {
        for (region, id) in [
            ("us-east-1", "use1-az1"),
            ("ap-northeast-2", "apne2-az1"),
            ("eu-central-1", "euc1-az1"),
            ("us-gov-east-1", "usge1-az1"),
            ("ap-southeast-1", "apse1-az1"),
            ("sa-east-1", "sae1-az1"),
        ] {
            assert_eq!(region.parse::<Region>().unwrap().zone_id('a'), id);
        }
        let region = Region::default();
        assert_eq!(parse(&region, "us-east-1b", "").map(|zone| zone.map(|zone| zone.id)), Ok(Some("use1-az2".into())));
        assert_eq!(parse(&region, "", "use1-az3").map(|zone| zone.map(|zone| zone.name)), Ok(Some("us-east-1c".into())));
        assert!(parse(&region, "us-east-1d", "").is_err());
        assert_eq!(parse(&region, "us-east-1a", "use1-az2").map_err(|refusal| refusal.reason), Err("InvalidParameterCombination"));
    }

    #[test]
    fn the_own_region_is_listed_once() {
        let own: Region = "moon-1".parse().unwrap();
        let rows = regions(&own, false);
        assert_eq!(rows.len(), OPEN_REGIONS.len() + 1);
        assert_eq!(regions(&Region::default(), false).len(), OPEN_REGIONS.len());
        assert_eq!(regions(&Region::default(), true).len(), OPEN_REGIONS.len() + OPT_IN_REGIONS.len());
        assert!(rows.iter().any(|row| row.region == own && row.open));
    }
}
