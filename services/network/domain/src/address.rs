//! Elastic IPs: taking them from the pool and giving them back.

use std::{borrow::Cow, net::Ipv4Addr};

use gureum_model::{
    Filterable, Refusal, RefusalKind, Scope, Tags, Timestamp,
    id::{AllocationId, AssociationId, InstanceId, NetworkInterfaceId},
    refusal::Violations,
};
use serde::{Deserialize, Serialize};

use crate::{Draft, Missing, View, cidr, draft::AddressingError, text};

/// A public address that a scope holds until it releases it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElasticAddress {
    pub scope: Scope,
    pub id: AllocationId,
    pub address: Ipv4Addr,
    pub association: Option<AddressAssociation>,
    pub tags: Tags,
}

/// Where an elastic IP leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressAssociation {
    pub id: AssociationId,
    pub interface_id: NetworkInterfaceId,
    pub private_address: Ipv4Addr,
    /// The instance that has the interface.
    pub instance_id: Option<InstanceId>,
    pub state: AssociationState,
}

/// Whether an elastic IP leads to its interface already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AssociationState {
    Associated {
        since: Timestamp,
    },
    /// Another instance has yet to let go of it.
    Waiting {
        since: Timestamp,
        holder: InstanceId,
        /// The holder's node is not heard of.
        unreachable: bool,
    },
}

impl AssociationState {
    /// Since when it is in this state.
    pub fn since(self) -> Timestamp {
        match self {
            Self::Associated { since } | Self::Waiting { since, .. } => since,
        }
    }

    /// For what it waits, in words; empty if for nothing.
    pub fn reason(self) -> String {
        match self {
            Self::Associated { .. } => String::new(),
            Self::Waiting { holder, unreachable: false, .. } => format!("{holder} has not let go of the address yet"),
            Self::Waiting { holder, unreachable: true, .. } => format!(
                "{holder} has not let go of the address, and its node is not heard of: the address moves when the node returns or is declared dead"
            ),
        }
    }
}

/// The pool and the domain that every elastic IP has, in EC2's words.
pub const POOL: &str = "amazon";
pub const DOMAIN: &str = "vpc";

/// Parameters of AllocateAddress as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllocateInput {
    /// Empty or `vpc`.
    pub domain: String,
    /// Empty: the next free one.
    pub address: String,
    pub tags: Vec<(String, String)>,
}

impl AllocateInput {
    /// The wanted address and the tags. Errors: `InvalidParameterValue`.
    pub fn parse(self) -> Result<(Option<Ipv4Addr>, Tags), Refusal> {
        let mut violations = Violations::new();
        if !matches!(self.domain.as_str(), "" | DOMAIN) {
            violations.add("domain", format!("Value ({}) for parameter domain is invalid: there is only {DOMAIN}", self.domain));
        }
        let address = violations.check("address", cidr::parse_optional_address("address", &self.address));
        let tags = violations.check("", Tags::from_user("tags", self.tags));
        violations.finish()?;
        Ok((address.flatten(), tags.unwrap_or_default()))
    }
}

/// Which elastic IP a request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressName {
    Allocation(AllocationId),
    Public(Ipv4Addr),
}

impl AddressName {
    /// Errors: `MissingParameter` (neither), `InvalidParameterCombination` (both), `InvalidAllocationID.Malformed`,
    /// `InvalidParameterValue`.
    pub fn parse(allocation_id: &str, public_ip: &str, violations: &mut Violations) -> Option<Self> {
        match (allocation_id.is_empty(), public_ip.is_empty()) {
            (true, true) => {
                violations.add_as("MissingParameter", "allocation_id", "Either public IP or allocation id must be specified");
                None
            }
            (false, false) => {
                violations.add_as(
                    "InvalidParameterCombination",
                    "public_ip",
                    "You may specify public IP or allocation id, but not both in the same call",
                );
                None
            }
            (false, true) => violations.id("allocation_id", allocation_id).map(Self::Allocation),
            (true, false) => violations.check("public_ip", cidr::parse_address("public_ip", public_ip)).map(Self::Public),
        }
    }

    pub(crate) fn find<'a>(self, draft: &'a Draft<impl View>) -> Result<&'a ElasticAddress, Missing> {
        match self {
            Self::Allocation(id) => draft.address(id),
            Self::Public(address) => draft.address_at(address),
        }
    }
}

/// Takes an elastic IP from the pool: `wanted`, or the next that is free.
pub fn allocate(
    draft: &mut Draft<impl View>,
    id: AllocationId,
    wanted: Option<Ipv4Addr>,
    tags: Tags,
) -> Result<ElasticAddress, AddressError> {
    let limit = draft.rules().limits.elastic_addresses;
    if draft.address_count(limit) >= limit {
        return Err(AddressError::Limit(limit));
    }
    let address = draft.take_public(wanted)?;
    let elastic = ElasticAddress { scope: draft.scope().clone(), id, address, association: None, tags };
    draft.put_address(elastic.clone());
    Ok(elastic)
}

/// Gives an elastic IP back to the pool. Answers its allocation.
pub fn release(draft: &mut Draft<impl View>, name: AddressName) -> Result<AllocationId, AddressError> {
    let elastic = name.find(draft)?.clone();
    if let Some(association) = &elastic.association {
        return Err(AddressError::InUse { address: elastic.address, association: association.id });
    }
    // One that an instance has yet to let go of goes back when it has.
    if draft.releasing(elastic.address).is_none() {
        draft.give_back_public(elastic.address);
    }
    draft.remove_address(elastic.id);
    Ok(elastic.id)
}

/// Why an elastic IP is not allocated or released.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error(transparent)]
    Addressing(#[from] AddressingError),
    #[error("The maximum number of addresses has been reached: {0}; release one first")]
    Limit(usize),
    #[error("Address {address} is in use by {association}; disassociate it first")]
    InUse { address: Ipv4Addr, association: AssociationId },
}

impl From<AddressError> for Refusal {
    fn from(error: AddressError) -> Self {
        let text = error.to_string();
        match error {
            AddressError::Missing(missing) => missing.into(),
            AddressError::Addressing(error) => error.into(),
            AddressError::Limit(_) => Self::new(RefusalKind::Exhausted, "AddressLimitExceeded", text),
            AddressError::InUse { .. } => Self::wrong_state("InvalidIPAddress.InUse", text),
        }
    }
}

impl Filterable for ElasticAddress {
    const FILTER_NAMES: &'static [&'static str] = &[
        "allocation-id",
        "association-id",
        "domain",
        "instance-id",
        "network-border-group",
        "network-interface-id",
        "network-interface-owner-id",
        "private-ip-address",
        "public-ip",
    ];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        let association = self.association.iter();
        match name {
            "allocation-id" => vec![text(self.id)],
            "association-id" => association.map(|known| text(known.id)).collect(),
            "domain" => vec![DOMAIN.into()],
            "instance-id" => association.filter_map(|known| known.instance_id).map(text).collect(),
            "network-border-group" => vec![Cow::Borrowed(self.scope.region.as_str())],
            "network-interface-id" => association.map(|known| text(known.interface_id)).collect(),
            "network-interface-owner-id" => association.map(|_| text(self.scope.account)).collect(),
            "private-ip-address" => association.map(|known| text(known.private_address)).collect(),
            "public-ip" => vec![text(self.address)],
            _ => Vec::new(),
        }
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }
}
