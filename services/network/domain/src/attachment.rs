//! Plugging interfaces into instances and pulling them out.
//!
//! Network knows an instance by its interfaces: the primary one (device index 0) is made with it and stays as
//! long as it does. A record that is attaching or detaching waits for whoever plugs: compute, told by network's events, has
//! the node do it and says so ([`settle`]). Where a driver has nothing to plug, it may be said at once.

use gureum_model::{
    Refusal, RefusalKind, Timestamp,
    id::{AttachmentId, InstanceId, NetworkInterfaceId},
};

use crate::{
    Draft, Missing, NetworkInterface, View,
    draft::AddressingError,
    interface::{Attachment, AutoPublic, InterfaceState, PublicAddress},
    letting_go::{hand_over, leave, wait},
    missing::{BothMissing, both},
    vpc::refresh_routes,
};

/// The highest device index.
pub const MAX_DEVICE_INDEX: u32 = 63;

/// Begins to plug an interface into an instance.
pub fn attach(
    draft: &mut Draft<impl View>,
    id: NetworkInterfaceId,
    instance: InstanceId,
    device_index: u32,
    attachment: AttachmentId,
    now: Timestamp,
) -> Result<NetworkInterface, AttachError> {
    // Network knows an instance by its interfaces.
    let known = if draft.interfaces_of(instance).is_empty() { Err(Missing::Instance(instance)) } else { Ok(()) };
    let (interface, ()) = both::<_, _, AttachError>(draft.interface(id), known)?;
    let interface = interface.clone();
    if let Some(by) = interface.instance() {
        return Err(AttachError::InUse { id, by });
    }
    let limit = check_place(draft, &interface, instance, device_index, 0)?.ok_or(Missing::Instance(instance))?;
    let attachment = Attachment {
        id: attachment,
        instance_id: instance,
        device_index,
        attached_at: now,
        // As in EC2, an interface that a user attached outlives the instance.
        delete_on_termination: false,
        auto_public: AutoPublic::Never,
        interface_limit: limit,
    };
    let next = NetworkInterface { state: InterfaceState::Attaching { since: now, attachment }, ..interface };
    let vpc = next.vpc_id;
    point_elastic(draft, &next);
    draft.put_interface(next.clone());
    refresh_routes(draft, vpc);
    Ok(next)
}

/// Checks that an instance can have this interface at this index. Answers the instance's limit, or none if it
/// has no interface yet; then `own_limit` counts (0: the region's).
pub(crate) fn check_place(
    draft: &Draft<impl View>,
    interface: &NetworkInterface,
    instance: InstanceId,
    device_index: u32,
    own_limit: u32,
) -> Result<Option<u32>, AttachError> {
    if device_index > MAX_DEVICE_INDEX {
        return Err(AttachError::IndexTooHigh(device_index));
    }
    let others = draft.interfaces_of(instance);
    if others.iter().any(|other| other.attachment().is_some_and(|known| known.device_index == device_index)) {
        return Err(AttachError::IndexInUse { instance, device_index });
    }
    let known = others.first().and_then(|first| first.attachment()).map(|attachment| attachment.interface_limit);
    let limit = match known.unwrap_or(own_limit) {
        0 => draft.rules().limits.interfaces_per_instance,
        limit => limit,
    };
    if others.len() as u64 >= u64::from(limit) {
        return Err(AttachError::Limit { instance, limit });
    }
    if let Some(other) = others.iter().find(|other| other.zone != interface.zone) {
        return Err(AttachError::OtherZone { id: interface.id, zone: interface.zone.clone(), instance, other: other.zone.clone() });
    }
    if others.iter().any(|other| other.vpc_id != interface.vpc_id) {
        return Err(AttachError::OtherVpc { id: interface.id, instance });
    }
    Ok(known.map(|_| limit))
}

/// What becomes of interfaces that are more than a new limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// The limit is refused.
    Refused,
    /// They stay, and no more can be attached.
    Stays,
}

/// Says how many interfaces an instance may have (0: as many as the region allows). One that is being pulled out
/// counts until it is out. An instance without interfaces is passed over.
///
/// Errors: `AttachmentLimitExceeded`.
pub fn set_limit(draft: &mut Draft<impl View>, instance: InstanceId, limit: u32, excess: Excess) -> Result<(), AttachError> {
    let all: Vec<NetworkInterface> = draft.interfaces_of(instance).into_iter().cloned().collect();
    let effective = if limit == 0 { draft.rules().limits.interfaces_per_instance } else { limit };
    if excess == Excess::Refused && all.len() as u64 > u64::from(effective) {
        return Err(AttachError::Excess { instance, count: all.len(), limit: effective });
    }
    for mut interface in all {
        if let Some(attachment) = interface.attachment_mut().filter(|attachment| attachment.interface_limit != limit) {
            attachment.interface_limit = limit;
            draft.put_interface(interface);
        }
    }
    Ok(())
}

/// Begins to pull an interface out of its instance; with `force` it is out at once.
pub fn detach(draft: &mut Draft<impl View>, id: AttachmentId, force: bool, now: Timestamp) -> Result<NetworkInterface, AttachError> {
    let interface = draft.interface_with(id)?.clone();
    let Some(attachment) = interface.attachment().cloned() else { return Err(Missing::Attachment(id).into()) };
    if attachment.device_index == 0 {
        return Err(AttachError::Primary(id));
    }
    if force {
        let vpc = interface.vpc_id;
        let next = let_go(draft, interface, Leaving::Alive, now)?;
        refresh_routes(draft, vpc);
        return Ok(next);
    }
    match interface.state {
        InterfaceState::Attaching { .. } => Err(AttachError::NotAttachedYet(id)),
        InterfaceState::Available | InterfaceState::Detaching { .. } => Ok(interface),
        InterfaceState::InUse { .. } => {
            let next = NetworkInterface { state: InterfaceState::Detaching { since: now, attachment }, ..interface };
            draft.put_interface(next.clone());
            Ok(next)
        }
    }
}

/// The instance's side has done its part: what was attaching is attached, what was detaching is out. Anything else
/// is left as it is.
pub fn settle(draft: &mut Draft<impl View>, id: AttachmentId, now: Timestamp) -> Result<(), AttachError> {
    let Ok(interface) = draft.interface_with(id).cloned() else { return Ok(()) };
    match interface.state.clone() {
        InterfaceState::Available | InterfaceState::InUse { .. } => {}
        InterfaceState::Attaching { attachment, .. } => {
            draft.put_interface(NetworkInterface { state: InterfaceState::InUse { attachment }, ..interface });
        }
        InterfaceState::Detaching { .. } => {
            let vpc = interface.vpc_id;
            let_go(draft, interface, Leaving::Alive, now)?;
            refresh_routes(draft, vpc);
        }
    }
    Ok(())
}

/// The interface without its instance: an address of the pool goes back, an elastic IP stays. Routes are the caller's
/// to refresh.
pub(crate) fn let_go(
    draft: &mut Draft<impl View>,
    interface: NetworkInterface,
    leaving: Leaving,
    now: Timestamp,
) -> Result<NetworkInterface, AddressingError> {
    let (id, instance) = (interface.id, interface.instance());
    let mut next = NetworkInterface { state: InterfaceState::Available, ..interface };
    let mut freed = Vec::new();
    for private in &mut next.private_addresses {
        if let Some(PublicAddress::Pool { address }) = private.public {
            freed.push(address);
            private.public = None;
        }
    }
    let stays: Vec<_> = next.private_addresses.iter().filter_map(|private| private.public).collect();
    let releasing = std::mem::take(&mut next.releasing);
    point_elastic(draft, &next);
    draft.put_interface(next);
    let alive = instance.filter(|_| leaving == Leaving::Alive);
    for address in freed {
        if !leave(draft, alive, address, now) {
            draft.give_back_public(address);
        }
    }
    // Its instance may still hold what goes on leading to it.
    for public in stays.into_iter().filter(|public| !public.is_waiting()) {
        if let Some(holder) = alive.filter(|_| leave(draft, alive, public.address(), now)) {
            wait(draft, public.address(), holder, now);
        }
    }
    hand_over(draft, releasing, now);
    Ok(draft.interface(id)?.clone())
}

/// Why an interface leaves its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It is pulled out, and the instance lives on.
    Alive,
    /// The instance has ended, and holds nothing any more.
    Ended,
}

/// Elastic IPs that lead to the interface say which instance has it.
pub(crate) fn point_elastic(draft: &mut Draft<impl View>, interface: &NetworkInterface) {
    for (allocation, _) in interface.private_addresses.iter().filter_map(|private| private.public?.elastic()) {
        let Ok(address) = draft.address(allocation) else { continue };
        let mut address = address.clone();
        if let Some(association) = &mut address.association {
            association.instance_id = interface.instance();
        }
        draft.put_address(address);
    }
}

/// Why an interface is not plugged in or pulled out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error(transparent)]
    BothMissing(#[from] BothMissing),
    #[error(transparent)]
    Addressing(#[from] AddressingError),
    #[error("Network interface '{id}' is currently in use by {by}")]
    InUse { id: NetworkInterfaceId, by: InstanceId },
    #[error("the device index {0} is too high: the highest is {MAX_DEVICE_INDEX}")]
    IndexTooHigh(u32),
    #[error("Instance '{instance}' already has an interface attached at device index '{device_index}'.")]
    IndexInUse { instance: InstanceId, device_index: u32 },
    #[error("Interface count exceeds the limit of {limit} for instance '{instance}'")]
    Limit { instance: InstanceId, limit: u32 },
    #[error(
        "the instance '{instance}' has {count} network interfaces, more than the {limit} that the wanted type allows; detach some, or choose a larger type"
    )]
    Excess { instance: InstanceId, count: usize, limit: u32 },
    #[error(
        "You may not attach a network interface to an instance if they are not in the same availability zone: {id} is in {zone}, {instance} in {other}"
    )]
    OtherZone { id: NetworkInterfaceId, zone: String, instance: InstanceId, other: String },
    #[error("interface {id} and instance {instance} belong to different networks")]
    OtherVpc { id: NetworkInterfaceId, instance: InstanceId },
    #[error("The network interface at device index 0 cannot be detached ({0}); it goes with the instance")]
    Primary(AttachmentId),
    #[error("the attachment {0} is not finished yet; wait, or detach with force")]
    NotAttachedYet(AttachmentId),
}

impl From<AttachError> for Refusal {
    fn from(error: AttachError) -> Self {
        let text = error.to_string();
        match error {
            AttachError::Missing(missing) => missing.into(),
            AttachError::BothMissing(missing) => missing.into(),
            AttachError::Addressing(error) => error.into(),
            AttachError::InUse { .. } => Self::wrong_state("InvalidNetworkInterface.InUse", text),
            AttachError::IndexTooHigh(_) | AttachError::IndexInUse { .. } => Self::invalid("device_index", text),
            AttachError::Limit { .. } | AttachError::Excess { .. } => Self::new(RefusalKind::Exhausted, "AttachmentLimitExceeded", text),
            AttachError::OtherZone { .. } | AttachError::OtherVpc { .. } => Self::invalid("instance_id", text),
            AttachError::Primary(_) => Self::wrong_state("OperationNotPermitted", text),
            AttachError::NotAttachedYet(_) => Self::wrong_state("IncorrectState", text),
        }
    }
}
