//! Transport only: scope, parse, decide, commit, convert. One file per resource.

mod addresses;
pub mod convert;
mod interfaces;
mod list;
mod peers;
mod routes;
mod tags;
mod vpcs;
mod zones;

use gureum_model::Scope;
use gureum_proto::network::v1::{self as proto, event::Resource, network_service_server::NetworkService};
use gureum_service::{
    CancellationToken, Error, scope,
    watch::{SnapshotItem, WatchStream, watch},
};
use gureum_store::State;
use tonic::{Request, Response, Status};

use crate::{
    drive::Driver,
    store::{Schema, show_interface},
};

/// Serves NetworkService and NetworkPeerService.
#[derive(Clone)]
pub struct Api {
    pub driver: Driver,
    pub shutdown: CancellationToken,
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(result: Result<T, Error>) -> Answer<T> {
    Ok(Response::new(result?))
}

#[tonic::async_trait]
impl NetworkService for Api {
    type WatchStream = WatchStream<proto::WatchResponse>;

    async fn create_vpc(&self, request: Request<proto::CreateVpcRequest>) -> Answer<proto::CreateVpcResponse> {
        answer(self.make_vpc(scope(), request.into_inner()).await)
    }

    async fn create_default_vpc(&self, request: Request<proto::CreateDefaultVpcRequest>) -> Answer<proto::CreateDefaultVpcResponse> {
        answer(self.make_default_vpc(scope(), request.into_inner()).await)
    }

    async fn describe_vpcs(&self, request: Request<proto::DescribeVpcsRequest>) -> Answer<proto::DescribeVpcsResponse> {
        answer(vpcs::describe(&self.driver.store.read(), &scope(), request.into_inner()))
    }

    async fn describe_vpc_attribute(
        &self,
        request: Request<proto::DescribeVpcAttributeRequest>,
    ) -> Answer<proto::DescribeVpcAttributeResponse> {
        answer(vpcs::describe_attribute(&self.driver.store.read(), &scope(), request.get_ref()))
    }

    async fn modify_vpc_attribute(&self, request: Request<proto::ModifyVpcAttributeRequest>) -> Answer<proto::ModifyVpcAttributeResponse> {
        answer(self.modify_vpc(scope(), request.into_inner()).await)
    }

    async fn delete_vpc(&self, request: Request<proto::DeleteVpcRequest>) -> Answer<proto::DeleteVpcResponse> {
        answer(self.remove_vpc(scope(), request.into_inner()).await)
    }

    async fn create_subnet(&self, request: Request<proto::CreateSubnetRequest>) -> Answer<proto::CreateSubnetResponse> {
        answer(self.make_subnet(scope(), request.into_inner()).await)
    }

    async fn describe_subnets(&self, request: Request<proto::DescribeSubnetsRequest>) -> Answer<proto::DescribeSubnetsResponse> {
        answer(vpcs::describe_subnets(&self.driver.store.read(), &scope(), request.into_inner()))
    }

    async fn modify_subnet_attribute(
        &self,
        request: Request<proto::ModifySubnetAttributeRequest>,
    ) -> Answer<proto::ModifySubnetAttributeResponse> {
        answer(self.modify_subnet(scope(), request.into_inner()).await)
    }

    async fn delete_subnet(&self, request: Request<proto::DeleteSubnetRequest>) -> Answer<proto::DeleteSubnetResponse> {
        answer(self.remove_subnet(scope(), request.into_inner()).await)
    }

    async fn create_network_interface(
        &self,
        request: Request<proto::CreateNetworkInterfaceRequest>,
    ) -> Answer<proto::CreateNetworkInterfaceResponse> {
        answer(self.create_interface(scope(), request.into_inner()).await)
    }

    async fn describe_network_interfaces(
        &self,
        request: Request<proto::DescribeNetworkInterfacesRequest>,
    ) -> Answer<proto::DescribeNetworkInterfacesResponse> {
        answer(interfaces::describe(&self.driver.store.read(), &scope(), request.into_inner()))
    }

    async fn describe_network_interface_attribute(
        &self,
        request: Request<proto::DescribeNetworkInterfaceAttributeRequest>,
    ) -> Answer<proto::DescribeNetworkInterfaceAttributeResponse> {
        answer(interfaces::describe_attribute(&self.driver.store.read(), &scope(), request.get_ref()))
    }

    async fn modify_network_interface_attribute(
        &self,
        request: Request<proto::ModifyNetworkInterfaceAttributeRequest>,
    ) -> Answer<proto::ModifyNetworkInterfaceAttributeResponse> {
        answer(self.modify_interface(scope(), request.into_inner()).await)
    }

    async fn attach_network_interface(
        &self,
        request: Request<proto::AttachNetworkInterfaceRequest>,
    ) -> Answer<proto::AttachNetworkInterfaceResponse> {
        answer(self.attach_interface(scope(), request.into_inner()).await)
    }

    async fn detach_network_interface(
        &self,
        request: Request<proto::DetachNetworkInterfaceRequest>,
    ) -> Answer<proto::DetachNetworkInterfaceResponse> {
        answer(self.detach_interface(scope(), request.into_inner()).await)
    }

    async fn delete_network_interface(
        &self,
        request: Request<proto::DeleteNetworkInterfaceRequest>,
    ) -> Answer<proto::DeleteNetworkInterfaceResponse> {
        answer(self.delete_interface(scope(), request.into_inner()).await)
    }

    async fn allocate_address(&self, request: Request<proto::AllocateAddressRequest>) -> Answer<proto::AllocateAddressResponse> {
        answer(self.allocate(scope(), request.into_inner()).await)
    }

    async fn associate_address(&self, request: Request<proto::AssociateAddressRequest>) -> Answer<proto::AssociateAddressResponse> {
        answer(self.associate(scope(), request.into_inner()).await)
    }

    async fn describe_addresses(&self, request: Request<proto::DescribeAddressesRequest>) -> Answer<proto::DescribeAddressesResponse> {
        answer(addresses::describe(&self.driver.store.read(), &scope(), request.into_inner()))
    }

    async fn describe_addresses_attribute(
        &self,
        request: Request<proto::DescribeAddressesAttributeRequest>,
    ) -> Answer<proto::DescribeAddressesAttributeResponse> {
        answer(addresses::describe_attribute(&self.driver.store.read(), &scope(), request.into_inner()))
    }

    async fn disassociate_address(
        &self,
        request: Request<proto::DisassociateAddressRequest>,
    ) -> Answer<proto::DisassociateAddressResponse> {
        answer(self.disassociate(scope(), request.into_inner()).await)
    }

    async fn release_address(&self, request: Request<proto::ReleaseAddressRequest>) -> Answer<proto::ReleaseAddressResponse> {
        answer(self.release(scope(), request.into_inner()).await)
    }

    async fn create_internet_gateway(
        &self,
        request: Request<proto::CreateInternetGatewayRequest>,
    ) -> Answer<proto::CreateInternetGatewayResponse> {
        answer(self.create_gateway(scope(), request.into_inner()).await)
    }

    async fn attach_internet_gateway(
        &self,
        request: Request<proto::AttachInternetGatewayRequest>,
    ) -> Answer<proto::AttachInternetGatewayResponse> {
        answer(self.attach_gateway(scope(), request.into_inner()).await)
    }

    async fn describe_internet_gateways(
        &self,
        request: Request<proto::DescribeInternetGatewaysRequest>,
    ) -> Answer<proto::DescribeInternetGatewaysResponse> {
        answer(routes::describe_gateways(&self.driver.store.read(), &scope(), request.into_inner()))
    }

    async fn detach_internet_gateway(
        &self,
        request: Request<proto::DetachInternetGatewayRequest>,
    ) -> Answer<proto::DetachInternetGatewayResponse> {
        answer(self.detach_gateway(scope(), request.into_inner()).await)
    }

    async fn delete_internet_gateway(
        &self,
        request: Request<proto::DeleteInternetGatewayRequest>,
    ) -> Answer<proto::DeleteInternetGatewayResponse> {
        answer(self.delete_gateway(scope(), request.into_inner()).await)
    }

    async fn create_route_table(&self, request: Request<proto::CreateRouteTableRequest>) -> Answer<proto::CreateRouteTableResponse> {
        answer(self.create_table(scope(), request.into_inner()).await)
    }

    async fn create_route(&self, request: Request<proto::CreateRouteRequest>) -> Answer<proto::CreateRouteResponse> {
        answer(self.add_route(scope(), request.into_inner()).await)
    }

    async fn replace_route(&self, request: Request<proto::ReplaceRouteRequest>) -> Answer<proto::ReplaceRouteResponse> {
        answer(self.lead_route(scope(), request.into_inner()).await)
    }

    async fn associate_route_table(
        &self,
        request: Request<proto::AssociateRouteTableRequest>,
    ) -> Answer<proto::AssociateRouteTableResponse> {
        answer(self.associate_table(scope(), request.into_inner()).await)
    }

    async fn replace_route_table_association(
        &self,
        request: Request<proto::ReplaceRouteTableAssociationRequest>,
    ) -> Answer<proto::ReplaceRouteTableAssociationResponse> {
        answer(self.replace_association(scope(), request.into_inner()).await)
    }

    async fn describe_route_tables(
        &self,
        request: Request<proto::DescribeRouteTablesRequest>,
    ) -> Answer<proto::DescribeRouteTablesResponse> {
        answer(routes::describe_tables(&self.driver.store.read(), &scope(), request.into_inner()))
    }

    async fn disassociate_route_table(
        &self,
        request: Request<proto::DisassociateRouteTableRequest>,
    ) -> Answer<proto::DisassociateRouteTableResponse> {
        answer(self.disassociate_table(scope(), request.into_inner()).await)
    }

    async fn delete_route(&self, request: Request<proto::DeleteRouteRequest>) -> Answer<proto::DeleteRouteResponse> {
        answer(self.remove_route(scope(), request.into_inner()).await)
    }

    async fn delete_route_table(&self, request: Request<proto::DeleteRouteTableRequest>) -> Answer<proto::DeleteRouteTableResponse> {
        answer(self.delete_table(scope(), request.into_inner()).await)
    }

    async fn describe_availability_zones(
        &self,
        request: Request<proto::DescribeAvailabilityZonesRequest>,
    ) -> Answer<proto::DescribeAvailabilityZonesResponse> {
        answer(zones::describe_zones(&scope(), request.into_inner()))
    }

    async fn describe_regions(&self, request: Request<proto::DescribeRegionsRequest>) -> Answer<proto::DescribeRegionsResponse> {
        answer(zones::describe_regions(&scope(), request.into_inner()))
    }

    async fn create_tags(&self, request: Request<proto::CreateTagsRequest>) -> Answer<proto::CreateTagsResponse> {
        answer(self.put_tags(scope(), request.into_inner()).await)
    }

    async fn delete_tags(&self, request: Request<proto::DeleteTagsRequest>) -> Answer<proto::DeleteTagsResponse> {
        answer(self.remove_tags(scope(), request.into_inner()).await)
    }

    async fn describe_tags(&self, request: Request<proto::DescribeTagsRequest>) -> Answer<proto::DescribeTagsResponse> {
        answer(tags::describe(&self.driver.store.read(), &scope(), request.into_inner()))
    }

    async fn watch(&self, request: Request<proto::WatchRequest>) -> Answer<Self::WatchStream> {
        let (scope, after) = (scope(), request.into_inner().after_sequence);
        let prefix = format!("{scope}/");
        let stream = watch(self.driver.store.clone(), Some(scope), after, move |state| snapshot(state, &prefix), self.shutdown.clone())?;
        Ok(Response::new(stream))
    }
}

/// Every resource whose key begins with `prefix`, as it is.
fn snapshot(state: &State<Schema>, prefix: &str) -> Vec<SnapshotItem<proto::Event>> {
    let item = |kind, scope: &Scope, resource_id: String, resource| SnapshotItem {
        kind,
        scope: scope.clone(),
        resource_id,
        event: proto::Event { metadata: None, resource: Some(resource) },
    };
    let mut items = Vec::new();
    items.extend(
        state.vpcs.scan(prefix, None).map(|row| item("VpcState", &row.scope, row.id.to_string(), Resource::Vpc(convert::vpc(row)))),
    );
    items.extend(
        state
            .subnets
            .scan(prefix, None)
            .map(|row| item("SubnetState", &row.scope, row.id.to_string(), Resource::Subnet(convert::subnet(row)))),
    );
    items.extend(
        state
            .gateways
            .scan(prefix, None)
            .map(|row| item("InternetGatewayState", &row.scope, row.id.to_string(), Resource::InternetGateway(convert::gateway(row)))),
    );
    items.extend(
        state
            .route_tables
            .scan(prefix, None)
            .map(|row| item("RouteTableState", &row.scope, row.id.to_string(), Resource::RouteTable(convert::route_table(row)))),
    );
    items.extend(
        state.interfaces.scan(prefix, None).map(|row| {
            item("NetworkInterfaceState", &row.scope, row.id.to_string(), Resource::NetworkInterface(show_interface(state, row)))
        }),
    );
    items.extend(
        state
            .addresses
            .scan(prefix, None)
            .map(|row| item("AddressState", &row.scope, row.id.to_string(), Resource::Address(convert::address(row)))),
    );
    items
}
