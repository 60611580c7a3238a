//! Routes: adding, leading elsewhere and removing them.

use gureum_model::{
    Refusal, RefusalKind,
    id::{InstanceId, InternetGatewayId, NetworkInterfaceId, RouteTableId},
    refusal::Violations,
};
use ipnet::Ipv4Net;

use crate::{
    Draft, Missing, RouteTable, View, cidr,
    missing::{BothMissing, both},
    route_table::{Route, RouteTarget, state_of},
};

/// Where a route shall lead, as a request names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedTarget {
    Gateway(InternetGatewayId),
    Interface(NetworkInterfaceId),
    /// An instance with exactly one interface.
    Instance(InstanceId),
}

/// The texts of a request of which one names the target; the others are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteInput {
    pub route_table_id: String,
    pub destination_cidr_block: String,
    pub gateway_id: String,
    pub network_interface_id: String,
    pub instance_id: String,
}

/// A route to make or to lead elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewRoute {
    pub table: RouteTableId,
    pub destination: Ipv4Net,
    pub target: WantedTarget,
}

impl RouteInput {
    /// Errors: `Invalid….Malformed`, `InvalidParameterValue`, `MissingParameter` (no target),
    /// `InvalidParameterCombination` (several).
    pub fn parse(&self) -> Result<NewRoute, Refusal> {
        let mut violations = Violations::new();
        let table = violations.id("route_table_id", &self.route_table_id);
        let destination = violations.check("destination_cidr_block", cidr::parse("destination_cidr_block", &self.destination_cidr_block));
        let mut targets = Vec::new();
        targets.extend(violations.optional_id("gateway_id", &self.gateway_id).map(WantedTarget::Gateway));
        targets.extend(violations.optional_id("network_interface_id", &self.network_interface_id).map(WantedTarget::Interface));
        targets.extend(violations.optional_id("instance_id", &self.instance_id).map(WantedTarget::Instance));
        violations.finish()?;
        match (table, destination, targets.as_slice()) {
            (Some(table), Some(destination), [target]) => Ok(NewRoute { table, destination, target: *target }),
            (_, _, []) => Err(Refusal::missing("target")),
            _ => Err(Refusal::invalid_as("InvalidParameterCombination", "target", "a route leads to one target; give one")),
        }
    }
}

/// Adds a route.
pub fn create(draft: &mut Draft<impl View>, new: NewRoute) -> Result<RouteTable, RouteError> {
    let mut table = find_both(draft, new)?;
    if table.routes.iter().any(|route| route.destination == new.destination) {
        return Err(RouteError::Exists(new.destination));
    }
    let limit = draft.rules().limits.routes_per_table;
    if table.routes.len() >= limit {
        return Err(RouteError::Limit { table: new.table, limit });
    }
    let target = resolve(draft, &table, new)?;
    table.routes.push(Route { destination: new.destination, target, state: state_of(draft, table.vpc_id, target) });
    draft.put_route_table(table.clone());
    Ok(table)
}

/// Leads a route elsewhere.
pub fn replace(draft: &mut Draft<impl View>, new: NewRoute) -> Result<RouteTable, RouteError> {
    let mut table = find_both(draft, new)?;
    let place = find(&table, new.destination)?;
    let target = resolve(draft, &table, new)?;
    table.routes[place].target = target;
    table.routes[place].state = state_of(draft, table.vpc_id, target);
    draft.put_route_table(table.clone());
    Ok(table)
}

/// Removes a route.
pub fn delete(draft: &mut Draft<impl View>, id: RouteTableId, destination: Ipv4Net) -> Result<RouteTable, RouteError> {
    let mut table = draft.route_table(id)?.clone();
    let place = find(&table, destination)?;
    table.routes.remove(place);
    draft.put_route_table(table.clone());
    Ok(table)
}

fn find(table: &RouteTable, destination: Ipv4Net) -> Result<usize, RouteError> {
    let found = table.routes.iter().position(|route| route.destination == destination);
    match found {
        Some(place) if table.routes[place].target == RouteTarget::Local => Err(RouteError::Local { destination, table: table.id }),
        Some(place) => Ok(place),
        None => Err(RouteError::NotFound { destination, table: table.id }),
    }
}

/// The table, if its route's target exists too.
fn find_both(draft: &Draft<impl View>, new: NewRoute) -> Result<RouteTable, RouteError> {
    let target = match new.target {
        WantedTarget::Gateway(id) => draft.gateway(id).map(drop),
        WantedTarget::Interface(id) => draft.interface(id).map(drop),
        WantedTarget::Instance(id) if draft.interfaces_of(id).is_empty() => Err(Missing::Instance(id)),
        WantedTarget::Instance(_) => Ok(()),
    };
    let (table, ()) = both::<_, _, RouteError>(draft.route_table(new.table), target)?;
    Ok(table.clone())
}

fn resolve(draft: &Draft<impl View>, table: &RouteTable, new: NewRoute) -> Result<RouteTarget, RouteError> {
    let interface = match new.target {
        WantedTarget::Gateway(id) => {
            let gateway = draft.gateway(id)?;
            if gateway.vpc_id != Some(table.vpc_id) {
                return Err(RouteError::OtherVpc { table: table.id, target: format!("network gateway {id}") });
            }
            // Traffic within the VPC cannot be sent out of it, as in EC2.
            if draft.vpc(table.vpc_id)?.cidr.contains(&new.destination) {
                return Err(RouteError::InsideVpc { destination: new.destination, gateway: id });
            }
            return Ok(RouteTarget::Gateway(id));
        }
        WantedTarget::Interface(id) => draft.interface(id)?,
        WantedTarget::Instance(id) => match draft.interfaces_of(id).as_slice() {
            [] => return Err(Missing::Instance(id).into()),
            [only] => only,
            _ => return Err(RouteError::SeveralInterfaces(id)),
        },
    };
    if interface.vpc_id != table.vpc_id {
        return Err(RouteError::OtherVpc { table: table.id, target: format!("interface {}", interface.id) });
    }
    Ok(RouteTarget::Interface(interface.id))
}

/// Why a route is not made, changed or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error(transparent)]
    BothMissing(#[from] BothMissing),
    #[error("The route identified by {0} already exists; replace it")]
    Exists(Ipv4Net),
    #[error("the maximum number of routes of {table} has been reached: {limit}")]
    Limit { table: RouteTableId, limit: usize },
    #[error("no route with destination-cidr-block {destination} in route table {table}")]
    NotFound { destination: Ipv4Net, table: RouteTableId },
    #[error("cannot remove or replace local route {destination} in route table {table}")]
    Local { destination: Ipv4Net, table: RouteTableId },
    #[error("route table {table} and {target} belong to different networks")]
    OtherVpc { table: RouteTableId, target: String },
    #[error("the destination {destination} lies in the VPC, and {gateway} leads out of it")]
    InsideVpc { destination: Ipv4Net, gateway: InternetGatewayId },
    #[error("There are multiple interfaces attached to instance '{0}'. Please specify an interface ID for the operation instead.")]
    SeveralInterfaces(InstanceId),
}

/// A request for a route calls a gateway by another field than those of gateways do.
fn of_route(missing: Missing) -> Refusal {
    let gateway = matches!(missing, Missing::Gateway(_));
    let refusal = Refusal::from(missing);
    if gateway { refusal.of_field("gateway_id") } else { refusal }
}

impl From<RouteError> for Refusal {
    fn from(error: RouteError) -> Self {
        let text = error.to_string();
        match error {
            RouteError::Missing(missing) => of_route(missing),
            RouteError::BothMissing(BothMissing(one, other)) => of_route(one).and(of_route(other)),
            RouteError::Exists(_) => Self::new(RefusalKind::AlreadyExists, "RouteAlreadyExists", text).of_field("destination_cidr_block"),
            RouteError::Limit { .. } => Self::new(RefusalKind::Exhausted, "RouteLimitExceeded", text),
            RouteError::NotFound { .. } => {
                Self::new(RefusalKind::NotFound, "InvalidRoute.NotFound", text).of_field("destination_cidr_block")
            }
            RouteError::Local { .. } | RouteError::InsideVpc { .. } => Self::invalid("destination_cidr_block", text),
            RouteError::OtherVpc { .. } => Self::invalid("target", text),
            RouteError::SeveralInterfaces(_) => Self::invalid_as("InvalidInstanceID", "instance_id", text),
        }
    }
}
