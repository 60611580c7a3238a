//! Subnets: parts of a VPC's addresses, each in one zone.

use std::{borrow::Cow, net::Ipv4Addr};

use gureum_model::{
    Filterable, Refusal, RefusalKind, Region, Scope, Tags,
    id::{NetworkInterfaceId, SubnetId, VpcId},
    refusal::Violations,
};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{
    Draft, Missing, NAMES_IN_MESSAGE, RouteTable, View, cidr,
    pool::Ranges,
    route_table, some_of, text,
    vpc::VpcError,
    zone::{self, Zone},
};

/// A part of a VPC's addresses, in one zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub scope: Scope,
    pub id: SubnetId,
    pub vpc_id: VpcId,
    pub cidr: Ipv4Net,
    /// `us-east-1a`.
    pub zone: String,
    /// `use1-az1`.
    pub zone_id: String,
    /// Where instances go that name no subnet in this zone.
    pub default_for_zone: bool,
    pub map_public_ip_on_launch: bool,
    pub tags: Tags,
    /// Behind the address given out last.
    pub cursor: Ipv4Addr,
    /// Addresses that interfaces have.
    pub used: u32,
}

impl Subnet {
    /// `arn:aws:ec2:REGION:ACCOUNT:subnet/ID`.
    pub fn arn(&self) -> String {
        self.scope.arn("ec2", format_args!("subnet/{}", self.id))
    }

    /// Addresses that are free.
    pub fn available_addresses(&self) -> u32 {
        let capacity = u32::try_from(Ranges::subnet(self.cidr).capacity()).unwrap_or(u32::MAX);
        capacity.saturating_sub(self.used)
    }
}

/// Parameters of CreateSubnet as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateSubnetInput {
    pub vpc_id: String,
    pub cidr_block: String,
    /// By name, by id, or neither: the region's first.
    pub availability_zone: String,
    pub availability_zone_id: String,
    pub tags: Vec<(String, String)>,
}

/// A subnet to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSubnet {
    pub vpc_id: VpcId,
    pub cidr: Ipv4Net,
    pub zone: Zone,
    pub tags: Tags,
}

impl CreateSubnetInput {
    /// As [`Self::parse`], with what does not fit the VPC beside what is malformed.
    pub fn parse_among(self, region: &Region, known: &impl View) -> Result<NewSubnet, Refusal> {
        let (vpc, cidr) = (self.vpc_id.parse::<VpcId>(), cidr::parse_sized("cidr_block", &self.cidr_block, "InvalidSubnet.Range"));
        self.parse(region).map_err(|malformed| {
            let Ok(id) = vpc else { return malformed };
            let misfit = match (known.vpc(id), cidr) {
                (None, _) => Some(SubnetError::from(Missing::Vpc(id))),
                (Some(vpc), Ok(cidr)) if !vpc.cidr.contains(&cidr) => Some(SubnetError::OutsideVpc { cidr, vpc: vpc.cidr }),
                (Some(_), Ok(cidr)) => conflict(&known.subnets_of(id), cidr),
                (Some(_), Err(_)) => None,
            };
            misfit.map(Refusal::from).into_iter().fold(malformed, Refusal::and)
        })
    }

    /// Errors: `InvalidSubnet.Range`, `InvalidVpcID.Malformed`, `InvalidParameterValue`.
    pub fn parse(self, region: &Region) -> Result<NewSubnet, Refusal> {
        let mut violations = Violations::new();
        let vpc_id = violations.id("vpc_id", &self.vpc_id);
        let cidr = violations.check("cidr_block", cidr::parse_sized("cidr_block", &self.cidr_block, "InvalidSubnet.Range"));
        let zone = violations.check("", zone::parse(region, &self.availability_zone, &self.availability_zone_id));
        let tags = violations.check("", Tags::from_user("tags", self.tags));
        violations.finish()?;
        let zone = zone.flatten().or_else(|| zone::zones(region).into_iter().next());
        match (vpc_id, cidr, zone, tags) {
            (Some(vpc_id), Some(cidr), Some(zone), Some(tags)) => Ok(NewSubnet { vpc_id, cidr, zone, tags }),
            _ => Err(Refusal::missing("vpc_id")),
        }
    }
}

/// Makes a subnet.
pub fn create(draft: &mut Draft<impl View>, id: SubnetId, new: NewSubnet) -> Result<Subnet, SubnetError> {
    let vpc = draft.vpc(new.vpc_id)?;
    vpc.check_usable()?;
    if !vpc.cidr.contains(&new.cidr) {
        return Err(SubnetError::OutsideVpc { cidr: new.cidr, vpc: vpc.cidr });
    }
    let others = draft.subnets_of(new.vpc_id);
    if let Some(conflict) = conflict(&others, new.cidr) {
        return Err(conflict);
    }
    let limit = draft.rules().limits.subnets_per_vpc;
    if others.len() >= limit {
        return Err(SubnetError::Limit { vpc: new.vpc_id, limit });
    }
    let subnet = bare(draft.scope(), id, new.vpc_id, new.cidr, new.zone, new.tags);
    draft.put_subnet(subnet.clone());
    Ok(subnet)
}

fn conflict(others: &[&Subnet], cidr: Ipv4Net) -> Option<SubnetError> {
    let other = others.iter().find(|other| cidr::overlap(other.cidr, cidr))?;
    Some(SubnetError::Conflict { cidr, other: other.cidr, id: other.id })
}

pub(crate) fn bare(scope: &Scope, id: SubnetId, vpc_id: VpcId, cidr: Ipv4Net, zone: Zone, tags: Tags) -> Subnet {
    Subnet {
        scope: scope.clone(),
        id,
        vpc_id,
        cidr,
        zone: zone.name,
        zone_id: zone.id,
        default_for_zone: false,
        map_public_ip_on_launch: false,
        tags,
        cursor: cidr.network(),
        used: 0,
    }
}

/// Says whether instances in it get a public address by default.
pub fn modify(draft: &mut Draft<impl View>, id: SubnetId, map_public_ip_on_launch: bool) -> Result<Subnet, SubnetError> {
    let next = Subnet { map_public_ip_on_launch, ..draft.subnet(id)?.clone() };
    draft.put_subnet(next.clone());
    Ok(next)
}

/// Deletes a subnet; its route table lets go of it.
pub fn delete(draft: &mut Draft<impl View>, id: SubnetId) -> Result<(), SubnetError> {
    let subnet = draft.subnet(id)?.clone();
    let interfaces: Vec<NetworkInterfaceId> = draft.interfaces_in(id, NAMES_IN_MESSAGE + 1).iter().map(|interface| interface.id).collect();
    if !interfaces.is_empty() {
        return Err(SubnetError::InUse { id, interfaces });
    }
    let serving: Option<RouteTable> = draft.route_tables_of(subnet.vpc_id).into_iter().find(|table| table.serves(id)).cloned();
    if let Some(mut table) = serving {
        table.associations.retain(|association| association.subnet != Some(id));
        draft.put_route_table(table);
    }
    draft.remove_subnet(id);
    Ok(())
}

/// Whether the subnet's route table leads to an internet gateway that is attached: only then do its
/// interfaces get public addresses of the pool.
pub fn is_public(draft: &Draft<impl View>, subnet: &Subnet) -> bool {
    route_table::serving(draft, subnet).is_some_and(RouteTable::leads_out)
}

/// Why a subnet is not made or deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error(transparent)]
    Vpc(#[from] VpcError),
    #[error("The CIDR '{cidr}' is invalid: it does not lie in the VPC's range {vpc}")]
    OutsideVpc { cidr: Ipv4Net, vpc: Ipv4Net },
    #[error("The CIDR '{cidr}' conflicts with another subnet: {id} has {other}")]
    Conflict { cidr: Ipv4Net, other: Ipv4Net, id: SubnetId },
    #[error("the maximum number of subnets of {vpc} has been reached: {limit}")]
    Limit { vpc: VpcId, limit: usize },
    #[error("the subnet '{id}' has dependencies and cannot be deleted: {}", some_of(interfaces))]
    InUse { id: SubnetId, interfaces: Vec<NetworkInterfaceId> },
}

impl From<SubnetError> for Refusal {
    fn from(error: SubnetError) -> Self {
        let text = error.to_string();
        match error {
            SubnetError::Missing(missing) => missing.into(),
            SubnetError::Vpc(error) => error.into(),
            SubnetError::OutsideVpc { .. } => Self::invalid_as("InvalidSubnet.Range", "cidr_block", text),
            SubnetError::Conflict { .. } => Self::invalid_as("InvalidSubnet.Conflict", "cidr_block", text),
            SubnetError::Limit { .. } => Self::new(RefusalKind::Exhausted, "SubnetLimitExceeded", text),
            SubnetError::InUse { .. } => Self::wrong_state("DependencyViolation", text),
        }
    }
}

impl Filterable for Subnet {
    const FILTER_NAMES: &'static [&'static str] = &[
        "availability-zone",
        "availabilityZone",
        "availability-zone-id",
        "availabilityZoneId",
        "available-ip-address-count",
        "cidr-block",
        "cidr",
        "cidrBlock",
        "default-for-az",
        "defaultForAz",
        "map-public-ip-on-launch",
        "owner-id",
        "state",
        "subnet-arn",
        "subnet-id",
        "vpc-id",
    ];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "availability-zone" | "availabilityZone" => vec![Cow::Borrowed(&self.zone)],
            "availability-zone-id" | "availabilityZoneId" => vec![Cow::Borrowed(&self.zone_id)],
            "available-ip-address-count" => vec![text(self.available_addresses())],
            "cidr-block" | "cidr" | "cidrBlock" => vec![text(self.cidr)],
            "default-for-az" | "defaultForAz" => vec![text(self.default_for_zone)],
            "map-public-ip-on-launch" => vec![text(self.map_public_ip_on_launch)],
            "owner-id" => vec![text(self.scope.account)],
            "state" => vec!["available".into()],
            "subnet-arn" => vec![text(self.arn())],
            "subnet-id" => vec![text(self.id)],
            "vpc-id" => vec![text(self.vpc_id)],
            _ => Vec::new(),
        }
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }
}
