//! What an account may have, and what the region gives.

use crate::pool::Ranges;

/// How much one scope may have. Beyond a limit a call gets EC2's code for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Elastic IPs: EC2's 5. `AddressLimitExceeded`.
    pub elastic_addresses: usize,
    /// VPCs: 1000, where EC2 begins with 5, so that tests that make many need no setting. `VpcLimitExceeded`.
    pub vpcs: usize,
    /// Subnets of a VPC: EC2's 200. `SubnetLimitExceeded`.
    pub subnets_per_vpc: usize,
    /// Internet gateways: as VPCs, since each VPC has one at most. `InternetGatewayLimitExceeded`.
    pub internet_gateways: usize,
    /// Route tables of a VPC: EC2's 200. `RouteTableLimitExceeded`.
    pub route_tables_per_vpc: usize,
    /// Routes of a table: 500, EC2's highest without asking. `RouteLimitExceeded`.
    pub routes_per_table: usize,
    /// Interfaces of an instance whose type says nothing: EC2's highest, 15. `AttachmentLimitExceeded`.
    pub interfaces_per_instance: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            elastic_addresses: 5,
            vpcs: 1000,
            subnets_per_vpc: 200,
            internet_gateways: 1000,
            route_tables_per_vpc: 200,
            routes_per_table: 500,
            interfaces_per_instance: 15,
        }
    }
}

/// What holds for all decisions of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    pub limits: Limits,
    /// Where public addresses come from.
    pub public: Ranges,
}
