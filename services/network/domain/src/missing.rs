//! That a resource does not exist in the scope.

use std::net::Ipv4Addr;

use gureum_model::{
    Refusal, RefusalKind,
    id::{
        AllocationId, AssociationId, AttachmentId, InstanceId, InternetGatewayId, NetworkInterfaceId, RouteTableAssociationId,
        RouteTableId, SubnetId, VpcId,
    },
};

/// What does not exist, or is another account's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    #[error("the vpc ID '{0}' does not exist")]
    Vpc(VpcId),
    #[error("the subnet ID '{0}' does not exist")]
    Subnet(SubnetId),
    #[error("the internetGateway ID '{0}' does not exist")]
    Gateway(InternetGatewayId),
    #[error("the routeTable ID '{0}' does not exist")]
    RouteTable(RouteTableId),
    #[error("the association ID '{0}' does not exist")]
    RouteTableAssociation(RouteTableAssociationId),
    #[error("the networkInterface ID '{0}' does not exist")]
    Interface(NetworkInterfaceId),
    #[error("the attachment ID '{0}' does not exist")]
    Attachment(AttachmentId),
    #[error("the allocation ID '{0}' does not exist")]
    Allocation(AllocationId),
    #[error("the association ID '{0}' does not exist")]
    Association(AssociationId),
    #[error("address '{0}' not found: it is no elastic IP of this account and region")]
    Address(Ipv4Addr),
    #[error("the instance ID '{0}' does not exist, or has no network interface")]
    Instance(InstanceId),
}

impl From<Missing> for Refusal {
    fn from(missing: Missing) -> Self {
        use gureum_model::id::ResourceId as _;
        let reason = match missing {
            Missing::Vpc(_) => VpcId::NOT_FOUND,
            Missing::Subnet(_) => SubnetId::NOT_FOUND,
            Missing::Gateway(_) => InternetGatewayId::NOT_FOUND,
            Missing::RouteTable(_) => RouteTableId::NOT_FOUND,
            Missing::RouteTableAssociation(_) => RouteTableAssociationId::NOT_FOUND,
            Missing::Interface(_) => NetworkInterfaceId::NOT_FOUND,
            Missing::Attachment(_) => AttachmentId::NOT_FOUND,
            Missing::Allocation(_) => AllocationId::NOT_FOUND,
            Missing::Association(_) => AssociationId::NOT_FOUND,
            Missing::Address(_) => "InvalidAddress.NotFound",
            Missing::Instance(_) => InstanceId::NOT_FOUND,
        };
        Self::new(RefusalKind::NotFound, reason, missing.to_string()).of_field(missing.field())
    }
}

impl Missing {
    /// The field by which most requests name it; a request that names it otherwise says so itself.
    fn field(self) -> &'static str {
        match self {
            Self::Vpc(_) => "vpc_id",
            Self::Subnet(_) => "subnet_id",
            Self::Gateway(_) => "internet_gateway_id",
            Self::RouteTable(_) => "route_table_id",
            Self::RouteTableAssociation(_) | Self::Association(_) => "association_id",
            Self::Interface(_) => "network_interface_id",
            Self::Attachment(_) => "attachment_id",
            Self::Allocation(_) => "allocation_id",
            Self::Address(_) => "public_ip",
            Self::Instance(_) => "instance_id",
        }
    }
}

/// Two that do not exist, of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}; {1}")]
pub struct BothMissing(pub Missing, pub Missing);

impl From<BothMissing> for Refusal {
    fn from(both: BothMissing) -> Self {
        Self::from(both.0).and(both.1.into())
    }
}

/// Both, or all of them that do not exist.
pub(crate) fn both<A, B, E: From<Missing> + From<BothMissing>>(one: Result<A, Missing>, other: Result<B, Missing>) -> Result<(A, B), E> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(missing), Ok(_)) | (Ok(_), Err(missing)) => Err(missing.into()),
        (Err(one), Err(other)) => Err(BothMissing(one, other).into()),
    }
}
