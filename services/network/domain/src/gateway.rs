//! Internet gateways: the way between a VPC and the outside.

use std::borrow::Cow;

use gureum_model::{
    Filterable, Refusal, RefusalKind, Scope, Tags,
    id::{InternetGatewayId, NetworkInterfaceId, VpcId},
};
use serde::{Deserialize, Serialize};

use crate::{
    Draft, Missing, NAMES_IN_MESSAGE, View,
    missing::{BothMissing, both},
    some_of, text,
    vpc::{VpcError, refresh_routes},
};

/// An internet gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InternetGateway {
    pub scope: Scope,
    pub id: InternetGatewayId,
    /// The VPC to which it is attached; a VPC has one at most.
    pub vpc_id: Option<VpcId>,
    pub tags: Tags,
}

/// Makes a gateway, attached to nothing.
pub fn create(draft: &mut Draft<impl View>, id: InternetGatewayId, tags: Tags) -> Result<InternetGateway, GatewayError> {
    let limit = draft.rules().limits.internet_gateways;
    if draft.gateway_count(limit) >= limit {
        return Err(GatewayError::Limit(limit));
    }
    let gateway = InternetGateway { scope: draft.scope().clone(), id, vpc_id: None, tags };
    draft.put_gateway(gateway.clone());
    Ok(gateway)
}

/// Attaches a gateway to a VPC; routes to it come alive.
pub fn attach(draft: &mut Draft<impl View>, id: InternetGatewayId, vpc_id: VpcId) -> Result<InternetGateway, GatewayError> {
    let (gateway, vpc) = both::<_, _, GatewayError>(draft.gateway(id), draft.vpc(vpc_id))?;
    let gateway = gateway.clone();
    vpc.check_usable()?;
    if let Some(vpc) = gateway.vpc_id {
        return Err(GatewayError::Attached { id, vpc });
    }
    if let Some(other) = draft.gateway_of(vpc_id) {
        return Err(GatewayError::VpcHasOne { vpc: vpc_id, other: other.id });
    }
    let next = InternetGateway { vpc_id: Some(vpc_id), ..gateway };
    draft.put_gateway(next.clone());
    refresh_routes(draft, vpc_id);
    Ok(next)
}

/// Detaches a gateway from its VPC; routes to it become black holes.
pub fn detach(draft: &mut Draft<impl View>, id: InternetGatewayId, vpc_id: VpcId) -> Result<InternetGateway, GatewayError> {
    let gateway = draft.gateway(id)?.clone();
    if gateway.vpc_id != Some(vpc_id) {
        return Err(GatewayError::NotAttached { id, vpc: vpc_id });
    }
    let public: Vec<NetworkInterfaceId> =
        draft.public_interfaces_in(vpc_id, NAMES_IN_MESSAGE + 1).iter().map(|interface| interface.id).collect();
    if !public.is_empty() {
        return Err(GatewayError::Mapped { vpc: vpc_id, interfaces: public });
    }
    let next = InternetGateway { vpc_id: None, ..gateway };
    draft.put_gateway(next.clone());
    refresh_routes(draft, vpc_id);
    Ok(next)
}

/// Deletes a gateway that is attached to nothing. Routes that still name it stay black holes.
pub fn delete(draft: &mut Draft<impl View>, id: InternetGatewayId) -> Result<(), GatewayError> {
    if let Some(vpc) = draft.gateway(id)?.vpc_id {
        return Err(GatewayError::StillAttached { id, vpc });
    }
    draft.remove_gateway(id);
    Ok(())
}

/// Why a gateway is not made, attached, detached or deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error(transparent)]
    BothMissing(#[from] BothMissing),
    #[error(transparent)]
    Vpc(#[from] VpcError),
    #[error("the maximum number of internet gateways has been reached: {0}")]
    Limit(usize),
    #[error("resource {id} is already attached to network {vpc}")]
    Attached { id: InternetGatewayId, vpc: VpcId },
    #[error("Network {vpc} already has an internet gateway attached: {other}")]
    VpcHasOne { vpc: VpcId, other: InternetGatewayId },
    #[error("resource {id} is not attached to network {vpc}")]
    NotAttached { id: InternetGatewayId, vpc: VpcId },
    #[error(
        "Network {vpc} has some mapped public address(es), of {}: unmap those public address(es) before detaching the gateway",
        some_of(interfaces)
    )]
    Mapped { vpc: VpcId, interfaces: Vec<NetworkInterfaceId> },
    #[error("the internetGateway '{id}' has dependencies and cannot be deleted: it is attached to {vpc}")]
    StillAttached { id: InternetGatewayId, vpc: VpcId },
}

impl From<GatewayError> for Refusal {
    fn from(error: GatewayError) -> Self {
        let text = error.to_string();
        match error {
            GatewayError::Missing(missing) => missing.into(),
            GatewayError::BothMissing(missing) => missing.into(),
            GatewayError::Vpc(error) => error.into(),
            GatewayError::Limit(_) => Self::new(RefusalKind::Exhausted, "InternetGatewayLimitExceeded", text),
            GatewayError::Attached { .. } => Self::wrong_state("Resource.AlreadyAssociated", text),
            GatewayError::VpcHasOne { .. } => Self::invalid("vpc_id", text),
            GatewayError::NotAttached { .. } => Self::wrong_state("Gateway.NotAttached", text),
            GatewayError::Mapped { .. } | GatewayError::StillAttached { .. } => Self::wrong_state("DependencyViolation", text),
        }
    }
}

impl Filterable for InternetGateway {
    const FILTER_NAMES: &'static [&'static str] = &["attachment.state", "attachment.vpc-id", "internet-gateway-id", "owner-id"];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "attachment.state" => self.vpc_id.iter().map(|_| "available".into()).collect(),
            "attachment.vpc-id" => self.vpc_id.iter().map(text).collect(),
            "internet-gateway-id" => vec![text(self.id)],
            "owner-id" => vec![text(self.scope.account)],
            _ => Vec::new(),
        }
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }
}
