//! VPCs, and the workflows that make and unmake them together with the security service.
//!
//! ```text
//!  create ──▶ Pending ──registered──▶ Available ──begin_delete──▶ Deleting ──unregistered──▶ (gone)
//!                                         ▲                          │
//!                                         └──────delete_refused──────┘
//! ```
//!
//! | state | step | then |
//! | --- | --- | --- |
//! | Pending | security RegisterVpc(id, is_default), idempotent by the id | commit [`registered`] |
//! | Deleting | security UnregisterVpc(id), idempotent | commit [`unregistered`], or on DependencyViolation [`delete_refused`] |
//!
//! [`plan`] says which step is due from the record alone. One driver per VPC runs it at a time: the call
//! itself within its deadline, and the reconciler whenever a record rests in one of these states, so a kill
//! between a step and its commit repeats the step and nothing else. While a VPC is deleted nothing can be
//! made in it, so what [`begin_delete`] found stays true until the end.

use std::borrow::Cow;

use gureum_model::{
    Filterable, IdSource, Refusal, RefusalKind, Scope, Tags, Timestamp,
    id::{InternetGatewayId, ResourceId, RouteTableAssociationId, RouteTableId, SecurityGroupId, SubnetId, VpcId},
    refusal::Violations,
};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{Draft, Missing, RouteTable, View, cidr, route_table, some_of, text};

/// A network of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vpc {
    pub scope: Scope,
    pub id: VpcId,
    pub cidr: Ipv4Net,
    pub is_default: bool,
    pub tenancy: Tenancy,
    pub dns_support: bool,
    pub dns_hostnames: bool,
    pub main_route_table: RouteTableId,
    /// What security made for it; none while pending.
    pub default_group: Option<SecurityGroupId>,
    pub state: VpcState,
    pub tags: Tags,
}

/// How far a VPC's making or unmaking is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VpcState {
    /// Security has not yet made its default group.
    Pending {
        since: Timestamp,
    },
    Available,
    /// Security has not yet said whether its groups let it go.
    Deleting {
        since: Timestamp,
    },
}

impl VpcState {
    /// EC2's word; it knows no deleting VPC, only one that is still there.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Available | Self::Deleting { .. } => "available",
        }
    }
}

/// On what hardware instances run unless they say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Tenancy {
    #[default]
    Default,
    Dedicated,
}

impl Tenancy {
    /// EC2's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Dedicated => "dedicated",
        }
    }
}

/// The options of every VPC: EC2's word for none of one's own.
pub const DHCP_OPTIONS: &str = "default";

impl Vpc {
    /// The association of its CIDR: `vpc-cidr-assoc-` and the VPC's own digits.
    pub fn cidr_association_id(&self) -> String {
        format!("vpc-cidr-assoc-{:017x}", self.id.number())
    }

    /// Whether public addresses in it have names: as in EC2 both attributes are needed.
    pub fn has_public_names(&self) -> bool {
        self.dns_support && self.dns_hostnames
    }

    /// Refuses to put anything into a VPC that is being deleted.
    pub fn check_usable(&self) -> Result<(), VpcError> {
        match self.state {
            VpcState::Pending { .. } | VpcState::Available => Ok(()),
            VpcState::Deleting { .. } => Err(VpcError::Deleting(self.id)),
        }
    }
}

/// Parameters of CreateVpc as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateVpcInput {
    pub cidr_block: String,
    /// Empty: default.
    pub instance_tenancy: String,
    pub tags: Vec<(String, String)>,
}

/// A VPC to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVpc {
    pub cidr: Ipv4Net,
    pub tenancy: Tenancy,
    pub tags: Tags,
}

impl CreateVpcInput {
    /// Errors: `InvalidVpc.Range`, `InvalidParameterValue`.
    pub fn parse(self) -> Result<NewVpc, Refusal> {
        let mut violations = Violations::new();
        let cidr = violations.check("cidr_block", cidr::parse_sized("cidr_block", &self.cidr_block, "InvalidVpc.Range"));
        let tenancy = match self.instance_tenancy.as_str() {
            "" | "default" => Tenancy::Default,
            "dedicated" => Tenancy::Dedicated,
            other => {
                violations.add("instance_tenancy", format!("'{other}' is no tenancy: expected default or dedicated"));
                Tenancy::Default
            }
        };
        let tags = violations.check("", Tags::from_user("tags", self.tags));
        violations.finish()?;
        match (cidr, tags) {
            (Some(cidr), Some(tags)) => Ok(NewVpc { cidr, tenancy, tags }),
            _ => Err(Refusal::missing("cidr_block")),
        }
    }
}

/// The ids of a VPC and of what is made with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VpcIds {
    pub vpc: VpcId,
    pub route_table: RouteTableId,
    pub main_association: RouteTableAssociationId,
}

impl VpcIds {
    pub fn new(ids: &IdSource) -> Self {
        Self { vpc: ids.next(), route_table: ids.next(), main_association: ids.next() }
    }
}

/// Makes a VPC with its main route table: pending until [`registered`].
pub fn create(draft: &mut Draft<impl View>, ids: VpcIds, new: NewVpc, now: Timestamp) -> Result<Vpc, VpcError> {
    check_limit(draft)?;
    let vpc = Vpc {
        scope: draft.scope().clone(),
        id: ids.vpc,
        cidr: new.cidr,
        is_default: false,
        tenancy: new.tenancy,
        dns_support: true,
        dns_hostnames: false,
        main_route_table: ids.route_table,
        default_group: None,
        state: VpcState::Pending { since: now },
        tags: new.tags,
    };
    draft.put_route_table(RouteTable::main_of(&vpc, ids.main_association));
    draft.put_vpc(vpc.clone());
    Ok(vpc)
}

pub(crate) fn check_limit(draft: &Draft<impl View>) -> Result<(), VpcError> {
    let limit = draft.rules().limits.vpcs;
    if draft.vpc_count(limit) >= limit { Err(VpcError::Limit(limit)) } else { Ok(()) }
}

/// Changes attributes; `None` leaves one as it is.
pub fn modify(draft: &mut Draft<impl View>, id: VpcId, dns_support: Option<bool>, dns_hostnames: Option<bool>) -> Result<Vpc, VpcError> {
    let mut next = draft.vpc(id)?.clone();
    if dns_support.is_none() && dns_hostnames.is_none() {
        return Err(VpcError::NothingToModify);
    }
    // Only the wish for names is refused: support can be taken away below them, as in EC2.
    if dns_hostnames == Some(true) && !dns_support.unwrap_or(next.dns_support) {
        return Err(VpcError::NamesNeedSupport(id));
    }
    next.dns_support = dns_support.unwrap_or(next.dns_support);
    next.dns_hostnames = dns_hostnames.unwrap_or(next.dns_hostnames);
    draft.put_vpc(next.clone());
    Ok(next)
}

/// What is due for a VPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VpcPlan {
    /// Security RegisterVpc, then [`registered`].
    Register {
        is_default: bool,
    },
    /// Security UnregisterVpc, then [`unregistered`] or [`delete_refused`].
    Unregister,
    Settled,
}

/// What is due, from the record alone.
pub fn plan(vpc: &Vpc) -> VpcPlan {
    match vpc.state {
        VpcState::Pending { .. } => VpcPlan::Register { is_default: vpc.is_default },
        VpcState::Available => VpcPlan::Settled,
        VpcState::Deleting { .. } => VpcPlan::Unregister,
    }
}

/// Commit of Register. A VPC that is no longer pending, or gone, is left as it is.
pub fn registered(draft: &mut Draft<impl View>, id: VpcId, default_group: SecurityGroupId) {
    let Ok(vpc) = draft.vpc(id) else { return };
    match vpc.state {
        VpcState::Pending { .. } => {
            let next = Vpc { default_group: Some(default_group), state: VpcState::Available, ..vpc.clone() };
            draft.put_vpc(next);
        }
        VpcState::Available | VpcState::Deleting { .. } => {}
    }
}

/// Begins to delete a VPC. One that is being deleted already is left as it is.
pub fn begin_delete(draft: &mut Draft<impl View>, id: VpcId, now: Timestamp) -> Result<Vpc, VpcError> {
    let vpc = draft.vpc(id)?.clone();
    match vpc.state {
        VpcState::Pending { .. } => return Err(VpcError::Pending(id)),
        VpcState::Deleting { .. } => return Ok(vpc),
        VpcState::Available => {}
    }
    check_empty(draft, &vpc)?;
    let next = Vpc { state: VpcState::Deleting { since: now }, ..vpc };
    draft.put_vpc(next.clone());
    Ok(next)
}

fn check_empty(draft: &Draft<impl View>, vpc: &Vpc) -> Result<(), VpcError> {
    let subnets: Vec<SubnetId> = draft.subnets_of(vpc.id).iter().map(|subnet| subnet.id).collect();
    let tables = draft.route_tables_of(vpc.id);
    let tables: Vec<RouteTableId> = tables.iter().map(|table| table.id).filter(|table| *table != vpc.main_route_table).collect();
    let gateway: Option<InternetGatewayId> = draft.gateway_of(vpc.id).map(|gateway| gateway.id);
    let mut dependents: Vec<String> = subnets.iter().map(ToString::to_string).collect();
    dependents.extend(gateway.iter().map(ToString::to_string));
    dependents.extend(tables.iter().map(ToString::to_string));
    if dependents.is_empty() { Ok(()) } else { Err(VpcError::HasDependents { id: vpc.id, dependents }) }
}

/// Commit of Unregister: the VPC goes with its main route table.
pub fn unregistered(draft: &mut Draft<impl View>, id: VpcId) {
    let Ok(vpc) = draft.vpc(id) else { return };
    match vpc.state {
        VpcState::Deleting { .. } => {
            let main = vpc.main_route_table;
            draft.remove_route_table(main);
            draft.remove_vpc(id);
        }
        VpcState::Pending { .. } | VpcState::Available => {}
    }
}

/// Commit of an Unregister that was refused: it is as it was.
pub fn delete_refused(draft: &mut Draft<impl View>, id: VpcId) {
    let Ok(vpc) = draft.vpc(id) else { return };
    match vpc.state {
        VpcState::Deleting { .. } => {
            let next = Vpc { state: VpcState::Available, ..vpc.clone() };
            draft.put_vpc(next);
        }
        VpcState::Pending { .. } | VpcState::Available => {}
    }
}

/// Recomputes which of its routes lead somewhere.
pub(crate) fn refresh_routes(draft: &mut Draft<impl View>, id: VpcId) {
    let changed: Vec<RouteTable> = draft.route_tables_of(id).into_iter().filter_map(|table| route_table::refreshed(draft, table)).collect();
    for table in changed {
        draft.put_route_table(table);
    }
}

/// Why a VPC is not made, changed or deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VpcError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error("the maximum number of VPCs has been reached: {0}; delete one first")]
    Limit(usize),
    #[error("no attribute is given: name enable_dns_support or enable_dns_hostnames")]
    NothingToModify,
    #[error("DNS hostnames of {0} need DNS support: enable both")]
    NamesNeedSupport(VpcId),
    #[error("the vpc '{id}' has dependencies and cannot be deleted: {}", some_of(dependents))]
    HasDependents { id: VpcId, dependents: Vec<String> },
    #[error("the vpc '{0}' is still pending; try again when it is available")]
    Pending(VpcId),
    #[error("the vpc '{0}' is being deleted")]
    Deleting(VpcId),
    #[error("a default VPC already exists for this account in this region: {0}")]
    DefaultExists(VpcId),
}

impl From<VpcError> for Refusal {
    fn from(error: VpcError) -> Self {
        let text = error.to_string();
        match error {
            VpcError::Missing(missing) => missing.into(),
            VpcError::Limit(_) => Self::new(RefusalKind::Exhausted, "VpcLimitExceeded", text),
            VpcError::NothingToModify => Self::invalid_as("InvalidParameterCombination", "enable_dns_support", text),
            VpcError::NamesNeedSupport(_) => Self::invalid_as("InvalidParameterCombination", "enable_dns_hostnames", text),
            VpcError::HasDependents { .. } => Self::wrong_state("DependencyViolation", text),
            VpcError::Pending(_) | VpcError::Deleting(_) => Self::wrong_state("IncorrectState", text),
            VpcError::DefaultExists(_) => Self::new(RefusalKind::AlreadyExists, "DefaultVpcAlreadyExists", text),
        }
    }
}

impl Filterable for Vpc {
    const FILTER_NAMES: &'static [&'static str] = &[
        "cidr",
        "cidr-block-association.association-id",
        "cidr-block-association.cidr-block",
        "cidr-block-association.state",
        "dhcp-options-id",
        "is-default",
        "isDefault",
        "owner-id",
        "state",
        "vpc-id",
    ];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "cidr" | "cidr-block-association.cidr-block" => vec![text(self.cidr)],
            "cidr-block-association.association-id" => vec![text(self.cidr_association_id())],
            "cidr-block-association.state" => vec!["associated".into()],
            "dhcp-options-id" => vec![DHCP_OPTIONS.into()],
            "is-default" | "isDefault" => vec![text(self.is_default)],
            "owner-id" => vec![text(self.scope.account)],
            "state" => vec![self.state.as_str().into()],
            "vpc-id" => vec![text(self.id)],
            _ => Vec::new(),
        }
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }
}
