//! Internet gateways, route tables and routes.

use gureum_model::{
    Refusal, Scope, Tags,
    id::{InternetGatewayId, RouteTableAssociationId, RouteTableId, SubnetId, VpcId},
    refusal::Violations,
};
use gureum_network_domain::{
    gateway,
    route::{self, NewRoute, RouteInput},
    route_table,
};
use gureum_proto::network::v1 as proto;
use gureum_service::{Answer, Error, wire};
use gureum_store::{Listed, State};
use ipnet::Ipv4Net;

use super::{Api, convert, list::page};
use crate::store::{GatewayRow, RouteTableRow, Schema};

fn parse_tags(tags: &[gureum_proto::common::v1::Tag]) -> Result<Tags, Refusal> {
    Tags::from_user("tags", wire::tag_pairs(tags.to_vec()))
}

fn two_ids<A: gureum_model::id::ResourceId, B: gureum_model::id::ResourceId>(
    one: (&str, &str),
    other: (&str, &str),
) -> Result<(A, B), Refusal> {
    let mut violations = Violations::new();
    let (first, second) = (violations.id::<A>(one.0, one.1), violations.id::<B>(other.0, other.1));
    violations.finish()?;
    first.zip(second).ok_or_else(|| Refusal::missing(one.0))
}

impl Api {
    pub(super) async fn create_gateway(
        &self,
        scope: Scope,
        request: proto::CreateInternetGatewayRequest,
    ) -> Result<proto::CreateInternetGatewayResponse, Error> {
        let (tags, id) = (parse_tags(&request.tags)?, self.driver.ids.next());
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            let made = gateway::create(draft, id, tags)?;
            let key = GatewayRow::list_key(&made.scope, made.id);
            Ok(Answer::created::<GatewayRow>(proto::CreateInternetGatewayResponse { internet_gateway: Some(convert::gateway(&made)) }, key))
        });
        decide.await
    }

    pub(super) async fn attach_gateway(
        &self,
        scope: Scope,
        request: proto::AttachInternetGatewayRequest,
    ) -> Result<proto::AttachInternetGatewayResponse, Error> {
        let (id, vpc) =
            two_ids::<InternetGatewayId, VpcId>(("internet_gateway_id", &request.internet_gateway_id), ("vpc_id", &request.vpc_id))?;
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            let changed = gateway::attach(draft, id, vpc)?;
            Ok(proto::AttachInternetGatewayResponse { internet_gateway: Some(convert::gateway(&changed)) })
        });
        decide.await
    }

    pub(super) async fn detach_gateway(
        &self,
        scope: Scope,
        request: proto::DetachInternetGatewayRequest,
    ) -> Result<proto::DetachInternetGatewayResponse, Error> {
        let (id, vpc) =
            two_ids::<InternetGatewayId, VpcId>(("internet_gateway_id", &request.internet_gateway_id), ("vpc_id", &request.vpc_id))?;
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            let changed = gateway::detach(draft, id, vpc)?;
            Ok(proto::DetachInternetGatewayResponse { internet_gateway: Some(convert::gateway(&changed)) })
        });
        decide.await
    }

    pub(super) async fn delete_gateway(
        &self,
        scope: Scope,
        request: proto::DeleteInternetGatewayRequest,
    ) -> Result<proto::DeleteInternetGatewayResponse, Error> {
        let id = Refusal::parse_id::<InternetGatewayId>("internet_gateway_id", &request.internet_gateway_id)?;
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            gateway::delete(draft, id)?;
            Ok(proto::DeleteInternetGatewayResponse { internet_gateway_id: id.to_string() })
        });
        decide.await
    }

    pub(super) async fn create_table(
        &self,
        scope: Scope,
        request: proto::CreateRouteTableRequest,
    ) -> Result<proto::CreateRouteTableResponse, Error> {
        let mut violations = Violations::new();
        let vpc = violations.id::<VpcId>("vpc_id", &request.vpc_id);
        let tags = violations.check("", parse_tags(&request.tags));
        violations.finish()?;
        let (vpc, tags) = vpc.zip(tags).ok_or_else(|| Refusal::missing("vpc_id"))?;
        let id = self.driver.ids.next();
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            let made = route_table::create(draft, id, vpc, tags)?;
            let key = RouteTableRow::list_key(&made.scope, made.id);
            Ok(Answer::created::<RouteTableRow>(proto::CreateRouteTableResponse { route_table: Some(convert::route_table(&made)) }, key))
        });
        decide.await
    }

    pub(super) async fn delete_table(
        &self,
        scope: Scope,
        request: proto::DeleteRouteTableRequest,
    ) -> Result<proto::DeleteRouteTableResponse, Error> {
        let id = Refusal::parse_id::<RouteTableId>("route_table_id", &request.route_table_id)?;
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            route_table::delete(draft, id)?;
            Ok(proto::DeleteRouteTableResponse { route_table_id: id.to_string() })
        });
        decide.await
    }

    pub(super) async fn add_route(&self, scope: Scope, request: proto::CreateRouteRequest) -> Result<proto::CreateRouteResponse, Error> {
        use proto::create_route_request::Target;
        let (gateway, interface, instance) = match request.target.clone() {
            Some(Target::GatewayId(id)) => (id, String::new(), String::new()),
            Some(Target::NetworkInterfaceId(id)) => (String::new(), id, String::new()),
            Some(Target::InstanceId(id)) => (String::new(), String::new(), id),
            None => Default::default(),
        };
        let new = parse_route(&request.route_table_id, &request.destination_cidr_block, gateway, interface, instance)?;
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            let changed = route::create(draft, new)?;
            Ok(proto::CreateRouteResponse { route_table: Some(convert::route_table(&changed)) })
        });
        decide.await
    }

    pub(super) async fn lead_route(&self, scope: Scope, request: proto::ReplaceRouteRequest) -> Result<proto::ReplaceRouteResponse, Error> {
        use proto::replace_route_request::Target;
        let (gateway, interface, instance) = match request.target.clone() {
            Some(Target::GatewayId(id)) => (id, String::new(), String::new()),
            Some(Target::NetworkInterfaceId(id)) => (String::new(), id, String::new()),
            Some(Target::InstanceId(id)) => (String::new(), String::new(), id),
            None => Default::default(),
        };
        let new = parse_route(&request.route_table_id, &request.destination_cidr_block, gateway, interface, instance)?;
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            let changed = route::replace(draft, new)?;
            Ok(proto::ReplaceRouteResponse { route_table: Some(convert::route_table(&changed)) })
        });
        decide.await
    }

    pub(super) async fn remove_route(&self, scope: Scope, request: proto::DeleteRouteRequest) -> Result<proto::DeleteRouteResponse, Error> {
        let mut violations = Violations::new();
        let id = violations.id::<RouteTableId>("route_table_id", &request.route_table_id);
        let text = &request.destination_cidr_block;
        let parsed =
            text.parse::<Ipv4Net>().map_err(|_| Refusal::invalid("destination_cidr_block", format!("CIDR block {text} is malformed")));
        let destination = violations.check("", parsed);
        violations.finish()?;
        let (id, destination) = id.zip(destination).ok_or_else(|| Refusal::missing("route_table_id"))?;
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            let changed = route::delete(draft, id, destination)?;
            Ok(proto::DeleteRouteResponse { route_table: Some(convert::route_table(&changed)) })
        });
        decide.await
    }

    pub(super) async fn associate_table(
        &self,
        scope: Scope,
        request: proto::AssociateRouteTableRequest,
    ) -> Result<proto::AssociateRouteTableResponse, Error> {
        let (id, subnet) =
            two_ids::<RouteTableId, SubnetId>(("route_table_id", &request.route_table_id), ("subnet_id", &request.subnet_id))?;
        let new = self.driver.ids.next();
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            let association = route_table::associate(draft, id, subnet, new)?;
            Ok(proto::AssociateRouteTableResponse { association: Some(convert::association(id, &association)) })
        });
        decide.await
    }

    pub(super) async fn replace_association(
        &self,
        scope: Scope,
        request: proto::ReplaceRouteTableAssociationRequest,
    ) -> Result<proto::ReplaceRouteTableAssociationResponse, Error> {
        let ids = (("association_id", request.association_id.as_str()), ("route_table_id", request.route_table_id.as_str()));
        let (old, to) = two_ids::<RouteTableAssociationId, RouteTableId>(ids.0, ids.1)?;
        let new = self.driver.ids.next();
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            let association = route_table::replace_association(draft, old, to, new)?;
            Ok(proto::ReplaceRouteTableAssociationResponse { association: Some(convert::association(to, &association)) })
        });
        decide.await
    }

    pub(super) async fn disassociate_table(
        &self,
        scope: Scope,
        request: proto::DisassociateRouteTableRequest,
    ) -> Result<proto::DisassociateRouteTableResponse, Error> {
        let id = Refusal::parse_id::<RouteTableAssociationId>("association_id", &request.association_id)?;
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            route_table::disassociate(draft, id)?;
            Ok(proto::DisassociateRouteTableResponse { association_id: id.to_string() })
        });
        decide.await
    }
}

fn parse_route(table: &str, destination: &str, gateway: String, interface: String, instance: String) -> Result<NewRoute, Refusal> {
    RouteInput {
        route_table_id: table.to_owned(),
        destination_cidr_block: destination.to_owned(),
        gateway_id: gateway,
        network_interface_id: interface,
        instance_id: instance,
    }
    .parse()
}

pub fn describe_gateways(
    state: &State<Schema>,
    scope: &Scope,
    request: proto::DescribeInternetGatewaysRequest,
) -> Result<proto::DescribeInternetGatewaysResponse, Error> {
    let ids = ("internet_gateway_ids", request.internet_gateway_ids.as_slice());
    let (rows, next_page_token) =
        page::<GatewayRow, InternetGatewayId>(&state.gateways, scope, ids, request.filters, request.page_size, &request.page_token)?;
    Ok(proto::DescribeInternetGatewaysResponse {
        internet_gateways: rows.iter().map(|row| convert::gateway(row)).collect(),
        next_page_token,
    })
}

pub fn describe_tables(
    state: &State<Schema>,
    scope: &Scope,
    request: proto::DescribeRouteTablesRequest,
) -> Result<proto::DescribeRouteTablesResponse, Error> {
    let ids = ("route_table_ids", request.route_table_ids.as_slice());
    let (rows, next_page_token) =
        page::<RouteTableRow, RouteTableId>(&state.route_tables, scope, ids, request.filters, request.page_size, &request.page_token)?;
    Ok(proto::DescribeRouteTablesResponse { route_tables: rows.iter().map(|row| convert::route_table(row)).collect(), next_page_token })
}
