//! Route tables: where traffic that leaves a subnet goes, and which subnets a table serves.

use std::borrow::Cow;

use gureum_model::{
    Filterable, Refusal, RefusalKind, Scope, Tags,
    id::{InstanceId, InternetGatewayId, NetworkInterfaceId, RouteTableAssociationId, RouteTableId, SubnetId, VpcId},
};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{
    Draft, Missing, Subnet, View, Vpc,
    missing::{BothMissing, both},
    some_of, text,
    vpc::VpcError,
};

/// Where traffic that leaves a subnet goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    pub scope: Scope,
    pub id: RouteTableId,
    pub vpc_id: VpcId,
    /// The VPC's own first, then in the order in which they were made; destinations differ.
    pub routes: Vec<Route>,
    /// The main one first, if this table is its VPC's main one.
    pub associations: Vec<Association>,
    pub tags: Tags,
}

/// One route: the longest destination that fits wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub destination: Ipv4Net,
    pub target: RouteTarget,
    pub state: RouteState,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteTarget {
    /// The VPC itself. Made with the table, and never changed.
    Local,
    Gateway(InternetGatewayId),
    Interface(NetworkInterfaceId),
}

/// Whether a route's target is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteState {
    /// It is; an interface in an instance says in which.
    Active { instance: Option<InstanceId> },
    /// The gateway is not attached to the VPC, or the interface is in no instance: what goes there is dropped.
    Blackhole,
}

/// That a table serves a subnet, or is its VPC's main one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Association {
    pub id: RouteTableAssociationId,
    /// `None`: the table serves all subnets of its VPC that have none of their own.
    pub subnet: Option<SubnetId>,
}

impl Association {
    pub fn is_main(&self) -> bool {
        self.subnet.is_none()
    }
}

impl Route {
    fn local(vpc: &Vpc) -> Self {
        Self { destination: vpc.cidr, target: RouteTarget::Local, state: RouteState::Active { instance: None } }
    }

    /// EC2's word for how it came about.
    pub fn origin(&self) -> &'static str {
        match self.target {
            RouteTarget::Local => "CreateRouteTable",
            RouteTarget::Gateway(_) | RouteTarget::Interface(_) => "CreateRoute",
        }
    }

    /// EC2's gateway id: `local` or an internet gateway's.
    pub fn gateway_id(&self) -> Option<String> {
        match self.target {
            RouteTarget::Local => Some("local".to_owned()),
            RouteTarget::Gateway(id) => Some(id.to_string()),
            RouteTarget::Interface(_) => None,
        }
    }

    /// The instance behind the interface.
    pub fn instance(&self) -> Option<InstanceId> {
        match self.state {
            RouteState::Active { instance } => instance,
            RouteState::Blackhole => None,
        }
    }
}

impl RouteState {
    /// EC2's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active { .. } => "active",
            Self::Blackhole => "blackhole",
        }
    }
}

impl RouteTable {
    pub(crate) fn bare(vpc: &Vpc, id: RouteTableId, tags: Tags) -> Self {
        Self { scope: vpc.scope.clone(), id, vpc_id: vpc.id, routes: vec![Route::local(vpc)], associations: Vec::new(), tags }
    }

    pub(crate) fn main_of(vpc: &Vpc, association: RouteTableAssociationId) -> Self {
        let mut table = Self::bare(vpc, vpc.main_route_table, Tags::default());
        table.associations.push(Association { id: association, subnet: None });
        table
    }

    /// Whether it is its VPC's main table.
    pub fn is_main(&self) -> bool {
        self.associations.iter().any(Association::is_main)
    }

    /// Whether it serves this subnet by an association of the subnet's own.
    pub fn serves(&self, subnet: SubnetId) -> bool {
        self.associations.iter().any(|association| association.subnet == Some(subnet))
    }

    /// Whether it leads to an internet gateway that is attached.
    pub fn leads_out(&self) -> bool {
        self.routes.iter().any(|route| matches!((route.target, route.state), (RouteTarget::Gateway(_), RouteState::Active { .. })))
    }
}

/// The table that serves a subnet: its own, or the VPC's main one.
pub fn serving<'a>(draft: &'a Draft<impl View>, subnet: &Subnet) -> Option<&'a RouteTable> {
    let own = draft.route_tables_of(subnet.vpc_id).into_iter().find(|table| table.serves(subnet.id));
    own.or_else(|| draft.route_table(draft.vpc(subnet.vpc_id).ok()?.main_route_table).ok())
}

/// The state of a route as its target is now.
pub(crate) fn state_of(draft: &Draft<impl View>, vpc: VpcId, target: RouteTarget) -> RouteState {
    match target {
        RouteTarget::Local => RouteState::Active { instance: None },
        RouteTarget::Gateway(id) => match draft.gateway(id) {
            Ok(gateway) if gateway.vpc_id == Some(vpc) => RouteState::Active { instance: None },
            Ok(_) | Err(_) => RouteState::Blackhole,
        },
        RouteTarget::Interface(id) => match draft.interface(id).ok().and_then(|interface| interface.attachment()) {
            Some(attachment) => RouteState::Active { instance: Some(attachment.instance_id) },
            None => RouteState::Blackhole,
        },
    }
}

/// The table with its routes' states as they are now, if any differs.
pub(crate) fn refreshed(draft: &Draft<impl View>, table: &RouteTable) -> Option<RouteTable> {
    let fresh = |route: &Route| state_of(draft, table.vpc_id, route.target);
    if table.routes.iter().all(|route| route.state == fresh(route)) {
        return None;
    }
    let mut next = table.clone();
    for route in &mut next.routes {
        route.state = fresh(route);
    }
    Some(next)
}

/// Makes a table that serves nobody yet.
pub fn create(draft: &mut Draft<impl View>, id: RouteTableId, vpc_id: VpcId, tags: Tags) -> Result<RouteTable, RouteTableError> {
    let vpc = draft.vpc(vpc_id)?;
    vpc.check_usable()?;
    let limit = draft.rules().limits.route_tables_per_vpc;
    if draft.route_tables_of(vpc_id).len() >= limit {
        return Err(RouteTableError::Limit { vpc: vpc_id, limit });
    }
    let table = RouteTable::bare(vpc, id, tags);
    draft.put_route_table(table.clone());
    Ok(table)
}

/// Deletes a table that serves nobody.
pub fn delete(draft: &mut Draft<impl View>, id: RouteTableId) -> Result<(), RouteTableError> {
    let table = draft.route_table(id)?;
    if table.is_main() {
        return Err(RouteTableError::IsMain { id, vpc: table.vpc_id });
    }
    let subnets: Vec<SubnetId> = table.associations.iter().filter_map(|association| association.subnet).collect();
    if !subnets.is_empty() {
        return Err(RouteTableError::InUse { id, subnets });
    }
    draft.remove_route_table(id);
    Ok(())
}

/// Makes a table serve a subnet. One that does so already is left as it is, with its association.
pub fn associate(
    draft: &mut Draft<impl View>,
    id: RouteTableId,
    subnet: SubnetId,
    new: RouteTableAssociationId,
) -> Result<Association, RouteTableError> {
    let (table, served) = both::<_, _, RouteTableError>(draft.route_table(id), draft.subnet(subnet))?;
    let (mut table, vpc) = (table.clone(), served.vpc_id);
    if vpc != table.vpc_id {
        return Err(RouteTableError::OtherVpc { table: id, resource: subnet.to_string() });
    }
    if let Some(known) = table.associations.iter().find(|known| known.subnet == Some(subnet)) {
        return Ok(known.clone());
    }
    if let Some(other) = draft.route_tables_of(vpc).into_iter().find(|other| other.serves(subnet)) {
        return Err(RouteTableError::AlreadyAssociated { subnet, other: other.id });
    }
    let association = Association { id: new, subnet: Some(subnet) };
    table.associations.push(association.clone());
    draft.put_route_table(table);
    Ok(association)
}

/// Makes another table serve a subnet, or be the VPC's main one; the association gets a new id.
pub fn replace_association(
    draft: &mut Draft<impl View>,
    old: RouteTableAssociationId,
    to: RouteTableId,
    new: RouteTableAssociationId,
) -> Result<Association, RouteTableError> {
    let (from, target) = both::<_, _, RouteTableError>(draft.route_table_with(old), draft.route_table(to))?;
    let mut from = from.clone();
    if target.vpc_id != from.vpc_id {
        return Err(RouteTableError::OtherVpc { table: to, resource: old.to_string() });
    }
    let place = from.associations.iter().position(|known| known.id == old).ok_or(Missing::RouteTableAssociation(old))?;
    if from.id == to {
        return Ok(from.associations.swap_remove(place));
    }
    let mut target = target.clone();
    let association = Association { id: new, subnet: from.associations.remove(place).subnet };
    if association.is_main() {
        target.associations.insert(0, association.clone());
        let vpc = draft.vpc(from.vpc_id)?;
        draft.put_vpc(Vpc { main_route_table: to, ..vpc.clone() });
    } else {
        target.associations.push(association.clone());
    }
    draft.put_route_table(from);
    draft.put_route_table(target);
    Ok(association)
}

/// Ends a table's serving a subnet, which follows the main table from now on.
pub fn disassociate(draft: &mut Draft<impl View>, id: RouteTableAssociationId) -> Result<(), RouteTableError> {
    let mut table = draft.route_table_with(id)?.clone();
    if table.associations.iter().any(|known| known.id == id && known.is_main()) {
        return Err(RouteTableError::MainAssociation(id));
    }
    table.associations.retain(|known| known.id != id);
    draft.put_route_table(table);
    Ok(())
}

/// Why a route table is not made, associated or deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteTableError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error(transparent)]
    BothMissing(#[from] BothMissing),
    #[error(transparent)]
    Vpc(#[from] VpcError),
    #[error("the maximum number of route tables of {vpc} has been reached: {limit}")]
    Limit { vpc: VpcId, limit: usize },
    #[error("the routeTable '{id}' has dependencies and cannot be deleted: it is the main table of {vpc}")]
    IsMain { id: RouteTableId, vpc: VpcId },
    #[error("the routeTable '{id}' has dependencies and cannot be deleted: it serves {}", some_of(subnets))]
    InUse { id: RouteTableId, subnets: Vec<SubnetId> },
    #[error("route table {table} and {resource} belong to different networks")]
    OtherVpc { table: RouteTableId, resource: String },
    #[error(
        "the specified association for subnet {subnet} conflicts with an existing association with route table {other}; replace that one"
    )]
    AlreadyAssociated { subnet: SubnetId, other: RouteTableId },
    #[error("cannot disassociate the main route table association {0}; replace it")]
    MainAssociation(RouteTableAssociationId),
}

impl From<RouteTableError> for Refusal {
    fn from(error: RouteTableError) -> Self {
        let text = error.to_string();
        match error {
            RouteTableError::Missing(missing) => missing.into(),
            RouteTableError::BothMissing(missing) => missing.into(),
            RouteTableError::Vpc(error) => error.into(),
            RouteTableError::Limit { .. } => Self::new(RefusalKind::Exhausted, "RouteTableLimitExceeded", text),
            RouteTableError::IsMain { .. } | RouteTableError::InUse { .. } => Self::wrong_state("DependencyViolation", text),
            RouteTableError::OtherVpc { .. } => Self::invalid("route_table_id", text),
            RouteTableError::AlreadyAssociated { .. } => Self::wrong_state("Resource.AlreadyAssociated", text),
            RouteTableError::MainAssociation(_) => Self::invalid("association_id", text),
        }
    }
}

impl Filterable for RouteTable {
    const FILTER_NAMES: &'static [&'static str] = &[
        "association.main",
        "association.route-table-association-id",
        "association.route-table-id",
        "association.subnet-id",
        "owner-id",
        "route-table-id",
        "route.destination-cidr-block",
        "route.gateway-id",
        "route.instance-id",
        "route.network-interface-id",
        "route.origin",
        "route.state",
        "vpc-id",
    ];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "association.main" => self.associations.iter().map(|association| text(association.is_main())).collect(),
            "association.route-table-association-id" => self.associations.iter().map(|association| text(association.id)).collect(),
            "association.route-table-id" => self.associations.iter().map(|_| text(self.id)).collect(),
            "association.subnet-id" => self.associations.iter().filter_map(|association| association.subnet).map(text).collect(),
            "owner-id" => vec![text(self.scope.account)],
            "route-table-id" => vec![text(self.id)],
            "route.destination-cidr-block" => self.routes.iter().map(|route| text(route.destination)).collect(),
            "route.gateway-id" => self.routes.iter().filter_map(Route::gateway_id).map(Cow::Owned).collect(),
            "route.instance-id" => self.routes.iter().filter_map(Route::instance).map(text).collect(),
            "route.network-interface-id" => self
                .routes
                .iter()
                .filter_map(|route| match route.target {
                    RouteTarget::Interface(id) => Some(text(id)),
                    RouteTarget::Local | RouteTarget::Gateway(_) => None,
                })
                .collect(),
            "route.origin" => self.routes.iter().map(|route| route.origin().into()).collect(),
            "route.state" => self.routes.iter().map(|route| route.state.as_str().into()).collect(),
            "vpc-id" => vec![text(self.vpc_id)],
            _ => Vec::new(),
        }
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }
}
