//! What decisions see of the world.

use std::net::Ipv4Addr;

use gureum_model::{
    Scope,
    id::{
        AllocationId, AssociationId, AttachmentId, InstanceId, InternetGatewayId, NetworkInterfaceId, RouteTableAssociationId,
        RouteTableId, SubnetId, VpcId,
    },
};

use crate::{ElasticAddress, EndedInstance, HoldMark, InternetGateway, NetworkInterface, PublicPool, RouteTable, ScopeBirth, Subnet, Vpc};

/// The records of one scope, as they are at the moment of the decision, and who uses which address.
///
/// It must show no other scope's records: what it does not show does not exist. Each look-up costs
/// O(log n) and what it returns, so the tables need indexes for them.
pub trait View {
    fn scope(&self) -> &Scope;
    fn birth(&self) -> Option<&ScopeBirth>;

    fn vpc(&self, id: VpcId) -> Option<&Vpc>;
    fn default_vpc(&self) -> Option<&Vpc>;
    /// How many VPCs there are; counting may end at `up_to`.
    fn vpc_count(&self, up_to: usize) -> usize;

    fn subnet(&self, id: SubnetId) -> Option<&Subnet>;
    fn subnets_of(&self, vpc: VpcId) -> Vec<&Subnet>;

    fn gateway(&self, id: InternetGatewayId) -> Option<&InternetGateway>;
    /// The gateway attached to the VPC.
    fn gateway_of(&self, vpc: VpcId) -> Option<&InternetGateway>;
    /// How many internet gateways there are; counting may end at `up_to`.
    fn gateway_count(&self, up_to: usize) -> usize;

    fn route_table(&self, id: RouteTableId) -> Option<&RouteTable>;
    fn route_tables_of(&self, vpc: VpcId) -> Vec<&RouteTable>;
    /// The table that has this association, the main one included.
    fn route_table_with(&self, association: RouteTableAssociationId) -> Option<&RouteTable>;

    fn interface(&self, id: NetworkInterfaceId) -> Option<&NetworkInterface>;
    fn interface_with(&self, attachment: AttachmentId) -> Option<&NetworkInterface>;
    /// In any order.
    fn interfaces_of(&self, instance: InstanceId) -> Vec<&NetworkInterface>;
    /// Any of them, at most `limit`.
    fn interfaces_in(&self, subnet: SubnetId, limit: usize) -> Vec<&NetworkInterface>;
    /// Any of those with a public address, at most `limit`.
    fn public_interfaces_in(&self, vpc: VpcId, limit: usize) -> Vec<&NetworkInterface>;
    /// The first address of the subnet, not before `from`, that an interface has.
    fn next_private(&self, subnet: SubnetId, from: Ipv4Addr) -> Option<Ipv4Addr>;

    fn address(&self, id: AllocationId) -> Option<&ElasticAddress>;
    fn address_at(&self, address: Ipv4Addr) -> Option<&ElasticAddress>;
    fn address_with(&self, association: AssociationId) -> Option<&ElasticAddress>;
    /// The interface whose instance has yet to let go of this public address.
    fn releasing(&self, address: Ipv4Addr) -> Option<&NetworkInterface>;
    /// How many elastic IPs there are; counting may end at `up_to`.
    fn address_count(&self, up_to: usize) -> usize;

    fn hold_mark(&self, interface: NetworkInterfaceId) -> Option<&HoldMark>;
    fn ended(&self, instance: InstanceId) -> Option<&EndedInstance>;

    /// The first public address, not before `from`, that an interface or an elastic IP of **any** scope holds, or that
    /// an instance has yet to let go of.
    fn next_public(&self, from: Ipv4Addr) -> Option<Ipv4Addr>;
    /// The region's pool, one for all scopes.
    fn public_pool(&self) -> PublicPool;
}
