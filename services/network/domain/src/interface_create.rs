//! Making and deleting network interfaces.
//!
//! Making one is a workflow with the security service, because an interface holds its groups: see
//! [`crate::hold`]. [`create`] is its last commit; deleting one leaves a mark from which the hold is released.

use std::{collections::BTreeSet, net::Ipv4Addr};

use gureum_model::{
    Refusal, RefusalKind, Tags, Timestamp,
    id::{InstanceId, NetworkInterfaceId, SecurityGroupId, SubnetId},
    refusal::Violations,
};

use crate::{
    Draft, Missing, NetworkInterface, View,
    association::clear_elastic,
    cidr,
    draft::AddressingError,
    hold::{self, HoldError},
    interface::{Group, InterfaceState, MAX_DESCRIPTION_CHARS, MAX_GROUPS, MAX_PRIVATE_ADDRESSES, PrivateAddress, PublicAddress},
    letting_go::hand_over,
    vpc::refresh_routes,
};

/// An interface to make, as a request says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewInterfaceInput {
    pub subnet_id: String,
    pub description: String,
    /// Empty: a free one.
    pub private_ip_address: String,
    pub secondary_private_ip_addresses: Vec<String>,
    pub secondary_private_ip_address_count: u32,
    pub group_ids: Vec<String>,
    /// Groups by their names in the VPC: only launches can name them so.
    pub group_names: Vec<String>,
    pub tags: Vec<(String, String)>,
}

/// An interface to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInterface {
    pub subnet_id: SubnetId,
    pub description: String,
    pub private_address: Option<Ipv4Addr>,
    pub secondary: Secondary,
    /// What security shall be asked to hold: the default group if both lists are empty.
    pub group_ids: Vec<SecurityGroupId>,
    pub group_names: Vec<String>,
    pub tags: Tags,
}

/// Private addresses beside the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secondary {
    /// These.
    Named(Vec<Ipv4Addr>),
    /// So many that are free.
    Chosen(u32),
}

impl NewInterfaceInput {
    /// Reads it; every violation is recorded with its path under `path` (empty, or ending in a dot).
    pub fn parse(self, path: &str, violations: &mut Violations) -> Option<NewInterface> {
        let subnet_id = violations.id(format!("{path}subnet_id"), &self.subnet_id);
        if self.description.chars().count() > MAX_DESCRIPTION_CHARS {
            violations.add(format!("{path}description"), format!("the description is longer than {MAX_DESCRIPTION_CHARS} characters"));
        }
        let field = format!("{path}private_ip_address");
        let private_address = violations.check(field.clone(), cidr::parse_optional_address(&field, &self.private_ip_address));
        let secondary = parse_secondary(
            path,
            &self.secondary_private_ip_addresses,
            self.secondary_private_ip_address_count,
            private_address.flatten(),
            violations,
        );
        let group_ids = violations.ids(&format!("{path}group_ids"), &self.group_ids);
        let groups = self.group_ids.len() + self.group_names.len();
        if groups > MAX_GROUPS {
            violations.add_as(
                "SecurityGroupsPerInterfaceLimitExceeded",
                format!("{path}group_ids"),
                format!("{groups} security groups are more than the {MAX_GROUPS} that an interface may be in"),
            );
        }
        let tags = violations.check("", Tags::from_user(&format!("{path}tags"), self.tags));
        Some(NewInterface {
            subnet_id: subnet_id?,
            description: self.description,
            private_address: private_address?,
            secondary,
            group_ids,
            group_names: self.group_names,
            tags: tags?,
        })
    }
}

fn parse_secondary(path: &str, named: &[String], count: u32, primary: Option<Ipv4Addr>, violations: &mut Violations) -> Secondary {
    if count > 0 && !named.is_empty() {
        violations.add_as(
            "InvalidParameterCombination",
            format!("{path}secondary_private_ip_address_count"),
            "give the secondary private addresses or their number, not both",
        );
    }
    if count as usize + named.len() >= MAX_PRIVATE_ADDRESSES {
        violations.add_as(
            "PrivateIpAddressLimitExceeded",
            format!("{path}secondary_private_ip_addresses"),
            format!("an interface may have at most {MAX_PRIVATE_ADDRESSES} private addresses, the primary included"),
        );
    }
    let mut seen: BTreeSet<Ipv4Addr> = primary.into_iter().collect();
    let mut addresses = Vec::with_capacity(named.len());
    for (place, text) in named.iter().enumerate() {
        let field = format!("{path}secondary_private_ip_addresses[{place}]");
        if let Some(address) = violations.check(field.clone(), cidr::parse_address(&field, text)) {
            if !seen.insert(address) {
                violations.add(field, format!("Address {address} is given twice"));
            }
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Secondary::Chosen(count) } else { Secondary::Named(addresses) }
}

/// Makes an interface that no instance has: the last commit of its workflow. `groups` are what security holds for it.
pub fn create(
    draft: &mut Draft<impl View>,
    id: NetworkInterfaceId,
    new: &NewInterface,
    groups: Vec<Group>,
) -> Result<NetworkInterface, InterfaceError> {
    hold::finish_taking(draft, id)?;
    let interface = build(draft, id, new, groups, InterfaceState::Available)?;
    draft.put_interface(interface.clone());
    Ok(interface)
}

/// Takes the private addresses and builds the record; the caller stages it.
pub(crate) fn build(
    draft: &mut Draft<impl View>,
    id: NetworkInterfaceId,
    new: &NewInterface,
    groups: Vec<Group>,
    state: InterfaceState,
) -> Result<NetworkInterface, AddressingError> {
    let subnet = draft.subnet(new.subnet_id)?;
    let (vpc_id, zone) = (subnet.vpc_id, subnet.zone.clone());
    let mut addresses = vec![draft.take_private(new.subnet_id, new.private_address)?];
    match &new.secondary {
        Secondary::Named(named) => {
            for address in named {
                addresses.push(draft.take_private(new.subnet_id, Some(*address))?);
            }
        }
        Secondary::Chosen(count) => {
            for _ in 0..*count {
                addresses.push(draft.take_private(new.subnet_id, None)?);
            }
        }
    }
    Ok(NetworkInterface {
        scope: draft.scope().clone(),
        id,
        vpc_id,
        subnet_id: new.subnet_id,
        zone,
        description: new.description.clone(),
        private_addresses: addresses.into_iter().map(|address| PrivateAddress { address, public: None }).collect(),
        groups,
        source_dest_check: true,
        state,
        releasing: Vec::new(),
        releases: 0,
        tags: new.tags.clone(),
    })
}

/// Deletes an interface that no instance has. An elastic IP that leads to it is disassociated.
pub fn delete(draft: &mut Draft<impl View>, id: NetworkInterfaceId, now: Timestamp) -> Result<(), InterfaceError> {
    let interface = draft.interface(id)?;
    if let Some(instance) = interface.instance() {
        return Err(InterfaceError::InUse { id, instance });
    }
    let vpc = interface.vpc_id;
    remove(draft, id, now)?;
    refresh_routes(draft, vpc);
    Ok(())
}

/// Removes an interface, whoever has it, and gives back all it held. Routes are the caller's to refresh.
pub(crate) fn remove(draft: &mut Draft<impl View>, id: NetworkInterfaceId, now: Timestamp) -> Result<(), AddressingError> {
    let interface = draft.interface(id)?.clone();
    for private in &interface.private_addresses {
        match private.public {
            Some(PublicAddress::Pool { address }) => draft.give_back_public(address),
            Some(PublicAddress::Elastic { allocation, .. }) => clear_elastic(draft, allocation)?,
            None => {}
        }
        draft.give_back_private(interface.subnet_id)?;
    }
    draft.remove_interface(id);
    // Whoever had it is gone.
    hand_over(draft, interface.releasing, now);
    hold::settle(draft, id, now);
    Ok(())
}

/// Why an interface is not made or deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InterfaceError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error(transparent)]
    Addressing(#[from] AddressingError),
    #[error(transparent)]
    Hold(#[from] HoldError),
    #[error("Network interface '{id}' is currently in use by {instance}; detach it first")]
    InUse { id: NetworkInterfaceId, instance: InstanceId },
}

impl From<InterfaceError> for Refusal {
    fn from(error: InterfaceError) -> Self {
        let text = error.to_string();
        match error {
            InterfaceError::Missing(missing) => missing.into(),
            InterfaceError::Addressing(error) => error.into(),
            InterfaceError::Hold(error) => error.into(),
            InterfaceError::InUse { .. } => Self::new(RefusalKind::WrongState, "InvalidNetworkInterface.InUse", text),
        }
    }
}
