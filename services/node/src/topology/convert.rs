//! Network's events as changes of the table.

use gureum_model::Scope;
use gureum_proto::network::v1::{self as proto, event::Resource, route::Target as RouteTarget};
use gureum_shim::network::{Route, Target};

use super::table::{Change, RouteTable};
use crate::followed;

/// What EC2 calls the VPC itself as a route's target.
const LOCAL: &str = "local";

/// What an event changes for traffic: only route tables do, which say all about gateways and VPCs that traffic asks.
pub fn change(event: proto::Event) -> Option<(Scope, Change)> {
    let metadata = event.metadata.unwrap_or_default();
    let Resource::RouteTable(table) = event.resource? else { return None };
    let id = read("route table", &table.route_table_id, table.route_table_id.parse().ok())?;
    let vpc = read("VPC", &table.vpc_id, table.vpc_id.parse().ok())?;
    let scope = read("scope", &metadata.account_id, Scope::parse(&metadata.account_id, &metadata.region).ok())?;
    Some((scope, Change { id, vpc, table: (!metadata.deleted).then(|| route_table(&table)) }))
}

fn route_table(table: &proto::RouteTable) -> RouteTable {
    let subnet = |it: &proto::RouteTableAssociation| read("subnet of a route table", &it.subnet_id, it.subnet_id.parse().ok());
    RouteTable {
        routes: table.routes.iter().filter_map(|it| read("route", &it.destination_cidr_block, route(it))).collect(),
        main: table.associations.iter().any(|association| association.main),
        subnets: table.associations.iter().filter(|association| !association.main).filter_map(subnet).collect(),
    }
}

fn route(route: &proto::Route) -> Option<Route> {
    let target = match route.target.as_ref()? {
        RouteTarget::GatewayId(gateway) if gateway == LOCAL => Target::Local,
        _ if route.state() != proto::RouteState::Active => Target::Blackhole,
        RouteTarget::GatewayId(_) => Target::InternetGateway,
        RouteTarget::NetworkInterfaceId(_) => Target::NetworkInterface,
    };
    Some(Route { destination: route.destination_cidr_block.parse().ok()?, target })
}

fn read<T>(what: &'static str, named: &str, read: Option<T>) -> Option<T> {
    followed::read("network", what, named, read)
}
