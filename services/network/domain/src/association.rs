//! Where elastic IPs lead: associating, moving and disassociating them.
//!
//! An association stands twice, in the elastic IP and in the interface, and both change in one commit. While another
//! instance has yet to let go of the address, both say that it waits: see [`crate::letting_go`].

use std::net::Ipv4Addr;

use gureum_model::{
    Refusal, Timestamp,
    id::{AllocationId, AssociationId, InstanceId, NetworkInterfaceId, VpcId},
    refusal::Violations,
};

use crate::{
    Draft, ElasticAddress, Missing, NetworkInterface, View,
    address::{AddressAssociation, AddressName, AssociationState},
    cidr,
    draft::AddressingError,
    interface::{AutoPublic, PublicAddress},
    letting_go::{self, MAX_RELEASING, leave},
    subnet,
};

/// Parameters of AssociateAddress as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssociateInput {
    pub allocation_id: String,
    pub public_ip: String,
    pub network_interface_id: String,
    pub instance_id: String,
    /// Empty: the primary.
    pub private_ip_address: String,
    pub allow_reassociation: bool,
}

/// An association to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Associate {
    pub address: AddressName,
    pub target: Target,
    pub private_address: Option<Ipv4Addr>,
    /// Takes the elastic IP away from where it leads, and another one away from the target.
    pub allow_reassociation: bool,
}

/// To what an elastic IP shall lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Interface(NetworkInterfaceId),
    /// An instance with one interface.
    Instance(InstanceId),
}

impl AssociateInput {
    /// As [`Self::parse`], with what it names that does not exist beside what is malformed.
    pub fn parse_among(&self, known: &impl View) -> Result<Associate, Refusal> {
        let absent = || {
            let address = match (self.allocation_id.parse(), self.public_ip.parse()) {
                (Ok(id), _) => known.address(id).is_none().then_some(Missing::Allocation(id)),
                (Err(_), Ok(address)) => known.address_at(address).is_none().then_some(Missing::Address(address)),
                (Err(_), Err(_)) => None,
            };
            let interface = self.network_interface_id.parse().ok();
            let interface = interface.filter(|id| known.interface(*id).is_none()).map(Missing::Interface);
            let instance = self.instance_id.parse().ok();
            let instance = instance.filter(|id| known.interfaces_of(*id).is_empty()).map(Missing::Instance);
            [address, interface, instance].into_iter().flatten().map(Refusal::from)
        };
        self.parse().map_err(|malformed| absent().fold(malformed, Refusal::and))
    }

    /// Errors: `MissingParameter`, `InvalidParameterCombination`, `Invalid….Malformed`, `InvalidParameterValue`.
    pub fn parse(&self) -> Result<Associate, Refusal> {
        let mut violations = Violations::new();
        let address = AddressName::parse(&self.allocation_id, &self.public_ip, &mut violations);
        let interface = violations.optional_id("network_interface_id", &self.network_interface_id);
        let instance = violations.optional_id("instance_id", &self.instance_id);
        match (self.network_interface_id.is_empty(), self.instance_id.is_empty()) {
            (true, true) => {
                violations.add_as("MissingParameter", "instance_id", "Either instance ID or network interface id must be specified");
            }
            (false, false) => violations.add_as(
                "InvalidParameterCombination",
                "network_interface_id",
                "You may specify either an instance ID or a network interface ID, but not both in the same call",
            ),
            (true, false) | (false, true) => {}
        }
        let private =
            violations.check("private_ip_address", cidr::parse_optional_address("private_ip_address", &self.private_ip_address)).flatten();
        violations.finish()?;
        let target = interface.map(Target::Interface).or(instance.map(Target::Instance));
        match (address, target) {
            (Some(address), Some(target)) => {
                Ok(Associate { address, target, private_address: private, allow_reassociation: self.allow_reassociation })
            }
            _ => Err(Refusal::missing("allocation_id")),
        }
    }
}

/// Makes an elastic IP lead to a private address. One that leads there already is left as it is, with its association.
pub fn associate(
    draft: &mut Draft<impl View>,
    wanted: Associate,
    new: AssociationId,
    now: Timestamp,
) -> Result<ElasticAddress, AssociationError> {
    let (elastic, (interface_id, private_address)) = match (wanted.address.find(draft), find_target(draft, &wanted)) {
        (Ok(elastic), Ok(target)) => (elastic.clone(), target),
        (Err(missing), Ok(_)) => return Err(missing.into()),
        (Ok(_), Err(error)) => return Err(error),
        (Err(address), Err(target)) => return Err(AssociationError::AlsoNoAddress { address, target: Box::new(target) }),
    };
    let vpc = draft.interface(interface_id)?.vpc_id;
    if draft.gateway_of(vpc).is_none() {
        return Err(AssociationError::NoGateway(vpc));
    }
    if let Some(known) = &elastic.association {
        if known.interface_id == interface_id && known.private_address == private_address {
            return Ok(elastic);
        }
        if !wanted.allow_reassociation {
            return Err(AssociationError::AlreadyAssociated { resource: elastic.id.to_string(), association: known.id });
        }
        end_association(draft, elastic.id, known.interface_id == interface_id, now)?;
    }
    clear_target(draft, interface_id, private_address, wanted.allow_reassociation, now)?;
    let instance_id = draft.interface(interface_id)?.instance();
    if let Some(instance) = instance_id.filter(|instance| letting_go::count(draft, *instance) >= MAX_RELEASING) {
        return Err(AssociationError::TooManyToLetGo(instance));
    }
    let holder = letting_go::claim(draft, instance_id, elastic.address);
    let mut interface = draft.interface(interface_id)?.clone();
    for private in interface.private_addresses.iter_mut().filter(|private| private.address == private_address) {
        let (address, waiting) = (elastic.address, holder.is_some());
        private.public = Some(PublicAddress::Elastic { address, allocation: elastic.id, association: new, waiting });
    }
    draft.put_interface(interface);
    let state = match holder {
        None => AssociationState::Associated { since: now },
        Some(holder) => AssociationState::Waiting { since: now, holder, unreachable: false },
    };
    let next =
        ElasticAddress { association: Some(AddressAssociation { id: new, interface_id, private_address, instance_id, state }), ..elastic };
    draft.put_address(next.clone());
    Ok(next)
}

fn find_target(draft: &Draft<impl View>, wanted: &Associate) -> Result<(NetworkInterfaceId, Ipv4Addr), AssociationError> {
    let has = |interface: &NetworkInterface, address: Ipv4Addr| interface.private_addresses.iter().any(|known| known.address == address);
    let interface = match wanted.target {
        Target::Interface(id) => draft.interface(id)?,
        Target::Instance(id) => {
            let interfaces = draft.interfaces_of(id);
            match (interfaces.as_slice(), wanted.private_address) {
                ([], _) => return Err(Missing::Instance(id).into()),
                ([only], _) => *only,
                // A private address says which of several is meant.
                (several, Some(address)) => several
                    .iter()
                    .copied()
                    .find(|interface| has(interface, address))
                    .ok_or(AssociationError::NoSuchPrivateAddress { address, holder: id.to_string() })?,
                (_, None) => return Err(AssociationError::SeveralInterfaces(id)),
            }
        }
    };
    let address = match (wanted.private_address, interface.primary()) {
        (Some(address), _) if has(interface, address) => address,
        (Some(address), _) => return Err(AssociationError::NoSuchPrivateAddress { address, holder: interface.id.to_string() }),
        (None, Some(primary)) => primary.address,
        (None, None) => return Err(Missing::Interface(interface.id).into()),
    };
    Ok((interface.id, address))
}

/// Frees the target of its public address: one of the pool goes back, another elastic IP is let go if that is allowed.
fn clear_target(
    draft: &mut Draft<impl View>,
    id: NetworkInterfaceId,
    private_address: Ipv4Addr,
    allow_reassociation: bool,
    now: Timestamp,
) -> Result<(), AssociationError> {
    let mut interface = draft.interface(id)?.clone();
    let instance = interface.instance();
    let Some(private) = interface.private_addresses.iter_mut().find(|private| private.address == private_address) else { return Ok(()) };
    let Some(public) = private.public.take() else { return Ok(()) };
    draft.put_interface(interface);
    match public {
        PublicAddress::Pool { address } => {
            if !leave(draft, instance, address, now) {
                draft.give_back_public(address);
            }
        }
        PublicAddress::Elastic { association, .. } if !allow_reassociation => {
            return Err(AssociationError::AlreadyAssociated { resource: id.to_string(), association });
        }
        PublicAddress::Elastic { address, allocation, waiting, .. } => {
            clear_elastic(draft, allocation)?;
            if !waiting {
                leave(draft, instance, address, now);
            }
        }
    }
    Ok(())
}

/// Which association a request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssociationName {
    Association(AssociationId),
    /// The one of this elastic IP.
    Public(Ipv4Addr),
}

impl AssociationName {
    /// Errors: `MissingParameter` (neither), `InvalidParameterCombination` (both), `InvalidAssociationID.Malformed`,
    /// `InvalidParameterValue`.
    pub fn parse(association_id: &str, public_ip: &str) -> Result<Self, Refusal> {
        match (association_id.is_empty(), public_ip.is_empty()) {
            (true, true) => {
                Err(Refusal::invalid_as("MissingParameter", "association_id", "Either public IP or association id must be specified"))
            }
            (false, false) => Err(Refusal::invalid_as(
                "InvalidParameterCombination",
                "public_ip",
                "You may specify public IP or association id, but not both in the same call",
            )),
            (false, true) => {
                let mut violations = Violations::new();
                let id = violations.id("association_id", association_id);
                violations.finish()?;
                id.map(Self::Association).ok_or_else(|| Refusal::missing("association_id"))
            }
            (true, false) => cidr::parse_address("public_ip", public_ip).map(Self::Public),
        }
    }
}

/// Makes an elastic IP lead nowhere. One that does so already, named by its address, is left as it is.
pub fn disassociate(draft: &mut Draft<impl View>, name: AssociationName, now: Timestamp) -> Result<ElasticAddress, AssociationError> {
    let id = match name {
        AssociationName::Association(id) => draft.address_with(id)?.id,
        AssociationName::Public(address) => draft.address_at(address)?.id,
    };
    end_association(draft, id, false, now)?;
    Ok(draft.address(id)?.clone())
}

/// Ends an association on both sides. The interface gets an address of the pool in its place if it may have one, as EC2 gives
/// it, unless `stays` says that the elastic IP stays at this interface.
fn end_association(draft: &mut Draft<impl View>, id: AllocationId, stays: bool, now: Timestamp) -> Result<(), AssociationError> {
    let Some(association) = draft.address(id)?.association.clone() else { return Ok(()) };
    clear_elastic(draft, id)?;
    let mut interface = draft.interface(association.interface_id)?.clone();
    let (instance, mut held) = (interface.instance(), None);
    for private in &mut interface.private_addresses {
        if private.public.and_then(|public| public.elastic()).is_some_and(|(allocation, _)| allocation == id) {
            held = private.public.take().filter(|public| !public.is_waiting());
        }
    }
    draft.put_interface(interface);
    if let Some(public) = held {
        leave(draft, instance, public.address(), now);
    }
    if !stays {
        // An empty pool is no reason to refuse: the instance then has no public address.
        match give_pool_address(draft, association.interface_id) {
            Ok(()) | Err(AddressingError::PoolEmpty(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The elastic IP's side of ending an association.
pub(crate) fn clear_elastic(draft: &mut Draft<impl View>, id: AllocationId) -> Result<(), Missing> {
    let next = ElasticAddress { association: None, ..draft.address(id)?.clone() };
    draft.put_address(next);
    Ok(())
}

/// Gives an interface's primary private address a public one of the pool, if its launch said so, its instance runs, its
/// subnet is public and it has none.
pub(crate) fn give_pool_address(draft: &mut Draft<impl View>, id: NetworkInterfaceId) -> Result<(), AddressingError> {
    let interface = draft.interface(id)?;
    let runs = interface.attachment().is_some_and(|attachment| attachment.auto_public == AutoPublic::Running);
    let has_one = interface.primary().is_none_or(|primary| primary.public.is_some());
    if !runs || has_one || !subnet::is_public(draft, draft.subnet(interface.subnet_id)?) {
        return Ok(());
    }
    let kept = interface.instance().and_then(|instance| letting_go::keep_pool_address(draft, instance));
    let address = match kept {
        Some(address) => address,
        None => draft.take_public(None)?,
    };
    let mut next = draft.interface(id)?.clone();
    if let Some(primary) = next.private_addresses.first_mut() {
        primary.public = Some(PublicAddress::Pool { address });
    }
    draft.put_interface(next);
    Ok(())
}

/// Why an elastic IP is not associated or disassociated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssociationError {
    #[error(transparent)]
    Missing(#[from] Missing),
    /// Neither the elastic IP nor that to which it shall lead.
    #[error("{address}; {target}")]
    AlsoNoAddress { address: Missing, target: Box<AssociationError> },
    #[error(transparent)]
    Addressing(#[from] AddressingError),
    #[error("Network {0} is not attached to any internet gateway")]
    NoGateway(VpcId),
    #[error("resource {resource} is already associated with associate-id {association}; allow reassociation to move it")]
    AlreadyAssociated { resource: String, association: AssociationId },
    #[error("Address {address} is no private address of {holder}")]
    NoSuchPrivateAddress { address: Ipv4Addr, holder: String },
    #[error("There are multiple interfaces attached to instance '{0}'. Please specify an interface ID for the operation instead.")]
    SeveralInterfaces(InstanceId),
    #[error("the instance {0} has yet to let go of {MAX_RELEASING} addresses; its node is behind: try again later")]
    TooManyToLetGo(InstanceId),
}

impl From<AssociationError> for Refusal {
    fn from(error: AssociationError) -> Self {
        let text = error.to_string();
        match error {
            AssociationError::Missing(missing) => missing.into(),
            AssociationError::AlsoNoAddress { address, target } => Self::from(address).and((*target).into()),
            AssociationError::Addressing(error) => error.into(),
            AssociationError::NoGateway(_) => Self::wrong_state("Gateway.NotAttached", text),
            AssociationError::AlreadyAssociated { .. } => Self::wrong_state("Resource.AlreadyAssociated", text),
            AssociationError::NoSuchPrivateAddress { .. } => Self::invalid("private_ip_address", text),
            AssociationError::TooManyToLetGo(_) => Self::wrong_state("IncorrectState", text),
            AssociationError::SeveralInterfaces(_) => Self::invalid_as("InvalidInstanceID", "instance_id", text),
        }
    }
}
