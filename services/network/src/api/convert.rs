//! The domain's records as the contract shows them.

use gureum_model::id::RouteTableId;
use gureum_network_domain::{
    ElasticAddress, InternetGateway, NetworkInterface, RouteTable, Subnet, Vpc,
    address::{self, AssociationState},
    dns,
    interface::{Attachment, Group, InterfaceState, PrivateAddress, PublicAddress},
    letting_go::Releasing,
    route_table::{Association, Route, RouteState, RouteTarget},
    vpc::{DHCP_OPTIONS, VpcState},
};
use gureum_proto::network::v1 as proto;
use gureum_service::wire;

pub fn vpc(vpc: &Vpc) -> proto::Vpc {
    proto::Vpc {
        vpc_id: vpc.id.to_string(),
        state: match vpc.state {
            VpcState::Pending { .. } => proto::VpcState::Pending,
            VpcState::Available => proto::VpcState::Available,
            VpcState::Deleting { .. } => proto::VpcState::Deleting,
        }
        .into(),
        cidr_block: vpc.cidr.to_string(),
        cidr_block_association_id: vpc.cidr_association_id(),
        is_default: vpc.is_default,
        instance_tenancy: vpc.tenancy.as_str().to_owned(),
        dhcp_options_id: DHCP_OPTIONS.to_owned(),
        owner_id: vpc.scope.account.to_string(),
        enable_dns_support: vpc.dns_support,
        enable_dns_hostnames: vpc.dns_hostnames,
        default_security_group_id: vpc.default_group.map(|id| id.to_string()).unwrap_or_default(),
        main_route_table_id: vpc.main_route_table.to_string(),
        tags: wire::tags(&vpc.tags),
    }
}

pub fn subnet(subnet: &Subnet) -> proto::Subnet {
    proto::Subnet {
        subnet_id: subnet.id.to_string(),
        subnet_arn: subnet.arn(),
        vpc_id: subnet.vpc_id.to_string(),
        state: proto::SubnetState::Available.into(),
        cidr_block: subnet.cidr.to_string(),
        availability_zone: subnet.zone.clone(),
        availability_zone_id: subnet.zone_id.clone(),
        available_ip_address_count: i32::try_from(subnet.available_addresses()).unwrap_or(i32::MAX),
        default_for_az: subnet.default_for_zone,
        map_public_ip_on_launch: subnet.map_public_ip_on_launch,
        owner_id: subnet.scope.account.to_string(),
        tags: wire::tags(&subnet.tags),
    }
}

pub fn gateway(gateway: &InternetGateway) -> proto::InternetGateway {
    proto::InternetGateway {
        internet_gateway_id: gateway.id.to_string(),
        vpc_id: gateway.vpc_id.map(|id| id.to_string()).unwrap_or_default(),
        owner_id: gateway.scope.account.to_string(),
        tags: wire::tags(&gateway.tags),
    }
}

pub fn route_table(table: &RouteTable) -> proto::RouteTable {
    proto::RouteTable {
        route_table_id: table.id.to_string(),
        vpc_id: table.vpc_id.to_string(),
        routes: table.routes.iter().map(route).collect(),
        associations: table.associations.iter().map(|one| association(table.id, one)).collect(),
        owner_id: table.scope.account.to_string(),
        tags: wire::tags(&table.tags),
    }
}

fn route(route: &Route) -> proto::Route {
    use proto::route::Target;
    proto::Route {
        destination_cidr_block: route.destination.to_string(),
        target: Some(match route.target {
            RouteTarget::Local => Target::GatewayId("local".to_owned()),
            RouteTarget::Gateway(id) => Target::GatewayId(id.to_string()),
            RouteTarget::Interface(id) => Target::NetworkInterfaceId(id.to_string()),
        }),
        instance_id: route.instance().map(|id| id.to_string()).unwrap_or_default(),
        state: match route.state {
            RouteState::Active { .. } => proto::RouteState::Active,
            RouteState::Blackhole => proto::RouteState::Blackhole,
        }
        .into(),
        origin: match route.target {
            RouteTarget::Local => proto::RouteOrigin::CreateRouteTable,
            RouteTarget::Gateway(_) | RouteTarget::Interface(_) => proto::RouteOrigin::CreateRoute,
        }
        .into(),
    }
}

pub fn association(table: RouteTableId, association: &Association) -> proto::RouteTableAssociation {
    proto::RouteTableAssociation {
        route_table_association_id: association.id.to_string(),
        route_table_id: table.to_string(),
        subnet_id: association.subnet.map(|id| id.to_string()).unwrap_or_default(),
        main: association.is_main(),
    }
}

pub fn groups(groups: &[Group]) -> Vec<proto::GroupIdentifier> {
    groups.iter().map(|group| proto::GroupIdentifier { group_id: group.id.to_string(), group_name: group.name.clone() }).collect()
}

/// `public_names` is whether the VPC gives names to public addresses.
pub fn interface(interface: &NetworkInterface, public_names: bool) -> proto::NetworkInterface {
    let addresses: Vec<_> =
        interface.private_addresses.iter().enumerate().map(|(place, one)| private(interface, one, place == 0, public_names)).collect();
    let primary = addresses.first().cloned().unwrap_or_default();
    proto::NetworkInterface {
        network_interface_id: interface.id.to_string(),
        state: match interface.state {
            InterfaceState::Available => proto::NetworkInterfaceState::Available,
            InterfaceState::Attaching { .. } => proto::NetworkInterfaceState::Attaching,
            InterfaceState::InUse { .. } => proto::NetworkInterfaceState::InUse,
            InterfaceState::Detaching { .. } => proto::NetworkInterfaceState::Detaching,
        }
        .into(),
        subnet_id: interface.subnet_id.to_string(),
        vpc_id: interface.vpc_id.to_string(),
        availability_zone: interface.zone.clone(),
        description: interface.description.clone(),
        owner_id: interface.scope.account.to_string(),
        mac_address: interface.mac_address(),
        private_ip_address: primary.private_ip_address,
        private_dns_name: primary.private_dns_name,
        association: primary.association,
        private_ip_addresses: addresses,
        groups: groups(&interface.groups),
        attachment: attachment(interface),
        source_dest_check: interface.source_dest_check,
        tags: wire::tags(&interface.tags),
        releasing_addresses: interface.releasing.iter().map(releasing).collect(),
    }
}

fn releasing(known: &Releasing) -> proto::ReleasingAddress {
    proto::ReleasingAddress { public_ip: known.address.to_string(), release: known.release }
}

fn private(interface: &NetworkInterface, one: &PrivateAddress, primary: bool, public_names: bool) -> proto::PrivateIpAddress {
    let region = &interface.scope.region;
    let shown = |public: &PublicAddress| proto::NetworkInterfaceAssociation {
        public_ip: public.address().to_string(),
        public_dns_name: if public_names { dns::public_name(region, public.address()) } else { String::new() },
        allocation_id: public.elastic().map(|(allocation, _)| allocation.to_string()).unwrap_or_default(),
        association_id: public.elastic().map(|(_, association)| association.to_string()).unwrap_or_default(),
        ip_owner_id: match public {
            PublicAddress::Pool { .. } => address::POOL.to_owned(),
            PublicAddress::Elastic { .. } => interface.scope.account.to_string(),
        },
        waiting: public.is_waiting(),
    };
    proto::PrivateIpAddress {
        private_ip_address: one.address.to_string(),
        private_dns_name: dns::private_name(region, one.address),
        primary,
        association: one.public.as_ref().map(shown),
    }
}

pub fn attachment(interface: &NetworkInterface) -> Option<proto::NetworkInterfaceAttachment> {
    let shown = |attachment: &Attachment, state: proto::AttachmentState| proto::NetworkInterfaceAttachment {
        attachment_id: attachment.id.to_string(),
        instance_id: attachment.instance_id.to_string(),
        instance_owner_id: interface.scope.account.to_string(),
        device_index: i32::try_from(attachment.device_index).unwrap_or(i32::MAX),
        state: state.into(),
        attach_time: Some(wire::timestamp(attachment.attached_at)),
        delete_on_termination: attachment.delete_on_termination,
        interface_limit: i32::try_from(attachment.interface_limit).unwrap_or(i32::MAX),
    };
    match &interface.state {
        InterfaceState::Available => None,
        InterfaceState::Attaching { attachment, .. } => Some(shown(attachment, proto::AttachmentState::Attaching)),
        InterfaceState::InUse { attachment } => Some(shown(attachment, proto::AttachmentState::Attached)),
        InterfaceState::Detaching { attachment, .. } => Some(shown(attachment, proto::AttachmentState::Detaching)),
    }
}

pub fn address(elastic: &ElasticAddress) -> proto::Address {
    proto::Address {
        allocation_id: elastic.id.to_string(),
        public_ip: elastic.address.to_string(),
        domain: address::DOMAIN.to_owned(),
        association: elastic.association.as_ref().map(|association| {
            let state = match association.state {
                AssociationState::Associated { .. } => proto::AddressAssociationState::Associated,
                AssociationState::Waiting { .. } => proto::AddressAssociationState::Waiting,
            };
            proto::AddressAssociation {
                association_id: association.id.to_string(),
                network_interface_id: association.interface_id.to_string(),
                network_interface_owner_id: elastic.scope.account.to_string(),
                private_ip_address: association.private_address.to_string(),
                instance_id: association.instance_id.map(|id| id.to_string()).unwrap_or_default(),
                state: state.into(),
                state_time: Some(wire::timestamp(association.state.since())),
                state_reason: association.state.reason(),
            }
        }),
        public_ipv4_pool: address::POOL.to_owned(),
        network_border_group: elastic.scope.region.to_string(),
        tags: wire::tags(&elastic.tags),
    }
}
