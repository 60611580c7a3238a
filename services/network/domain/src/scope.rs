//! How a scope is born: whole, once.
//!
//! | found | step |
//! | --- | --- |
//! | no [`ScopeBirth`] | commit [`birth`]: default VPC (pending), subnets, gateway, main route table, and the row itself |
//! | its VPC is pending | as for every pending VPC: see [`crate::vpc`] |
//! | else | the scope is born; the first call may be answered |
//!
//! The row stays for ever, so what a user deletes is not born again; [`create_default_vpc`] is for that.

use std::net::Ipv4Addr;

use gureum_model::{
    IdSource, Scope, Tags, Timestamp,
    id::{InternetGatewayId, SubnetId, VpcId},
};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{
    Draft, InternetGateway, RouteTable, Subnet, View, Vpc,
    route_table::{Route, RouteState, RouteTarget},
    subnet,
    vpc::{Tenancy, VpcError, VpcIds, VpcState, check_limit},
    zone,
};

/// That a scope was born.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeBirth {
    pub scope: Scope,
    /// The VPC it was born with.
    pub vpc_id: VpcId,
    pub born_at: Timestamp,
}

/// The ids of what a default VPC is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultVpcIds {
    pub vpc: VpcIds,
    pub gateway: InternetGatewayId,
    /// One for each zone.
    pub subnets: [SubnetId; 3],
}

impl DefaultVpcIds {
    pub fn new(ids: &IdSource) -> Self {
        Self { vpc: VpcIds::new(ids), gateway: ids.next(), subnets: std::array::from_fn(|_| ids.next()) }
    }
}

/// What is due for a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScopePlan {
    /// Commit [`birth`].
    Birth,
    /// Carry out the plan of this VPC, which is pending.
    Finish { vpc: VpcId },
    /// It is born. `default_vpc` as it is now, if it has one.
    Born { default_vpc: Option<VpcId> },
}

/// What is due before a scope's first call is answered.
pub fn plan(draft: &Draft<impl View>) -> ScopePlan {
    let Some(birth) = draft.birth() else { return ScopePlan::Birth };
    match draft.vpc(birth.vpc_id).map(|vpc| vpc.state) {
        Ok(VpcState::Pending { .. }) => ScopePlan::Finish { vpc: birth.vpc_id },
        Ok(VpcState::Available | VpcState::Deleting { .. }) | Err(_) => {
            ScopePlan::Born { default_vpc: draft.default_vpc().map(|vpc| vpc.id) }
        }
    }
}

/// Births the scope. One that is born already is left as it is.
pub fn birth(draft: &mut Draft<impl View>, ids: DefaultVpcIds, now: Timestamp) {
    if draft.birth().is_some() {
        return;
    }
    draft.put_birth(ScopeBirth { scope: draft.scope().clone(), vpc_id: ids.vpc.vpc, born_at: now });
    put_default_vpc(draft, ids, now);
}

/// Makes a default VPC anew: pending until registered. Errors: `DefaultVpcAlreadyExists`, `VpcLimitExceeded`.
pub fn create_default_vpc(draft: &mut Draft<impl View>, ids: DefaultVpcIds, now: Timestamp) -> Result<Vpc, VpcError> {
    if let Some(known) = draft.default_vpc() {
        return Err(VpcError::DefaultExists(known.id));
    }
    check_limit(draft)?;
    Ok(put_default_vpc(draft, ids, now))
}

/// The range of every default VPC, as EC2 has it: 172.31.0.0/16.
pub const DEFAULT_VPC_CIDR: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(172, 31, 0, 0), 16);
/// The prefix of its subnets: 172.31.0.0/20, 172.31.16.0/20, 172.31.32.0/20.
pub const DEFAULT_SUBNET_PREFIX: u8 = 20;

/// The route to everywhere.
const EVERYWHERE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);

fn put_default_vpc(draft: &mut Draft<impl View>, ids: DefaultVpcIds, now: Timestamp) -> Vpc {
    let scope = draft.scope();
    let vpc = Vpc {
        scope: scope.clone(),
        id: ids.vpc.vpc,
        cidr: DEFAULT_VPC_CIDR,
        is_default: true,
        tenancy: Tenancy::Default,
        dns_support: true,
        dns_hostnames: true,
        main_route_table: ids.vpc.route_table,
        default_group: None,
        state: VpcState::Pending { since: now },
        tags: Tags::default(),
    };
    let mut table = RouteTable::main_of(&vpc, ids.vpc.main_association);
    table.routes.push(Route {
        destination: EVERYWHERE,
        target: RouteTarget::Gateway(ids.gateway),
        state: RouteState::Active { instance: None },
    });
    draft.put_route_table(table);
    draft.put_gateway(InternetGateway { scope: scope.clone(), id: ids.gateway, vpc_id: Some(vpc.id), tags: Tags::default() });
    // A /16 always has /20s; none is lost by the fallback.
    let cidrs = DEFAULT_VPC_CIDR.subnets(DEFAULT_SUBNET_PREFIX).into_iter().flatten();
    for ((zone, cidr), id) in zone::zones(&scope.region).into_iter().zip(cidrs).zip(ids.subnets) {
        let bare = subnet::bare(scope, id, vpc.id, cidr, zone, Tags::default());
        draft.put_subnet(Subnet { default_for_zone: true, map_public_ip_on_launch: true, ..bare });
    }
    draft.put_vpc(vpc.clone());
    vpc
}
