//! The interfaces of instances: made at launch, and following the instance through its life.
//!
//! Compute makes ids first and records its launch, then calls; it repeats a call whose answer it missed, and
//! undoes a launch that it gives up.
//!
//! | call of compute | calls to security before | commit | after |
//! | --- | --- | --- | --- |
//! | CreateInstanceInterfaces | hold the groups of all new interfaces, by their ids | [`create`] | if refused: [`give_up`], then marks settle |
//! | DeleteInstanceInterfaces | | [`delete`] | marks settle: see [`crate::hold`] |
//! | AssignPublicAddresses | | [`assign_public`] | |
//! | ReleasePublicAddresses | | [`release_public`] | |
//!
//! Killed after the hold and before [`create`]: compute repeats the call (same ids: the same hold) or undoes it, and
//! [`delete`] releases what was held for every interface that the launch named, made or not. A call to make them that
//! is still under way then must not succeed later: an [`EndedInstance`] row refuses it, and what it may have held in
//! vain, its process having been killed meanwhile, [`expire`] releases once more: soon, and when the row goes.

use std::{collections::BTreeSet, time::Duration};

use gureum_model::{
    Refusal, RefusalKind, Scope, Timestamp,
    id::{AttachmentId, InstanceId, NetworkInterfaceId, VpcId},
    refusal::Violations,
};
use serde::{Deserialize, Serialize};

use crate::{
    Draft, Missing, NetworkInterface, View,
    association::give_pool_address,
    attachment::{AttachError, Leaving, check_place, let_go, point_elastic},
    draft::AddressingError,
    hold,
    interface::{Attachment, AutoPublic, Group, InterfaceState, PublicAddress},
    interface_create::{NewInterface, NewInterfaceInput, build, remove},
    letting_go::hand_over,
    vpc::refresh_routes,
};

/// How long an ended launch is remembered: longer than any call can be under way.
pub const ENDED_KEPT: Duration = Duration::from_secs(3600);

/// When what a late call held is released: its process was killed, so only what it had sent can still arrive.
pub const LATE_CALL: Duration = Duration::from_secs(10);

/// An instance for which no interface may be made any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedInstance {
    pub scope: Scope,
    pub instance_id: InstanceId,
    /// Those that its launch had named and that were not there.
    pub interface_ids: Vec<NetworkInterfaceId>,
    pub ended_at: Timestamp,
    /// What a late call held was released.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub released: bool,
}

/// One interface of one instance, as compute asks for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstanceInterfaceInput {
    pub network_interface_id: String,
    pub attachment_id: String,
    pub instance_id: String,
    pub device_index: u32,
    /// Make it so; none: attach the one that has the id.
    pub create: Option<(NewInterfaceInput, Option<bool>)>,
    pub delete_on_termination: bool,
    pub interface_limit: u32,
}

/// One interface of one instance, as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceInterface {
    pub interface_id: NetworkInterfaceId,
    pub attachment_id: AttachmentId,
    pub instance_id: InstanceId,
    pub device_index: u32,
    pub source: Source,
    pub delete_on_termination: bool,
    /// 0: the region's.
    pub interface_limit: u32,
}

/// How to come by an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Make it. `public`: whether it gets a public address; none: as the subnet says.
    Create { new: NewInterface, public: Option<bool> },
    /// Attach the one that has the id.
    Existing,
}

/// Reads a batch, with every violation at once. An interface that is named twice is one.
pub fn parse_batch(inputs: Vec<InstanceInterfaceInput>) -> Result<Vec<InstanceInterface>, Refusal> {
    let mut violations = Violations::new();
    let mut seen = BTreeSet::new();
    let mut items = Vec::with_capacity(inputs.len());
    for (place, input) in inputs.into_iter().enumerate() {
        let path = format!("interfaces[{place}].");
        if !seen.insert(input.network_interface_id.clone()) {
            violations.add(format!("{path}network_interface_id"), format!("{} is given twice", input.network_interface_id));
        }
        items.extend(parse_item(input, &path, &mut violations));
    }
    violations.finish()?;
    Ok(items)
}

fn parse_item(input: InstanceInterfaceInput, path: &str, violations: &mut Violations) -> Option<InstanceInterface> {
    let interface_id = violations.id(format!("{path}network_interface_id"), &input.network_interface_id);
    let attachment_id = violations.id(format!("{path}attachment_id"), &input.attachment_id);
    let instance_id = violations.id(format!("{path}instance_id"), &input.instance_id);
    let source = match input.create {
        Some((new, public)) => Source::Create { new: new.parse(&format!("{path}create."), violations)?, public },
        None => Source::Existing,
    };
    Some(InstanceInterface {
        interface_id: interface_id?,
        attachment_id: attachment_id?,
        instance_id: instance_id?,
        device_index: input.device_index,
        source,
        delete_on_termination: input.delete_on_termination,
        interface_limit: input.interface_limit,
    })
}

/// Makes the interfaces of a batch, all or none. Each item comes with the groups that security holds for it (an existing
/// interface keeps its own). One that is there as wanted is left as it is. Answers in the order of the items.
pub fn create(
    draft: &mut Draft<impl View>,
    items: &[(InstanceInterface, Vec<Group>)],
    now: Timestamp,
) -> Result<Vec<NetworkInterface>, InstanceError> {
    let mut vpcs = BTreeSet::new();
    for (item, groups) in items {
        if draft.ended(item.instance_id).is_some() {
            return Err(InstanceError::Ended(item.instance_id));
        }
        if !is_there(draft, item)? {
            let vpc = create_one(draft, item, groups, now)?;
            // Only an interface that exists can have routes to it.
            if item.source == Source::Existing {
                vpcs.insert(vpc);
            }
        }
    }
    for vpc in vpcs {
        refresh_routes(draft, vpc);
    }
    items.iter().map(|(item, _)| Ok(draft.interface(item.interface_id)?.clone())).collect()
}

/// Whether an earlier call made it already.
fn is_there(draft: &Draft<impl View>, item: &InstanceInterface) -> Result<bool, InstanceError> {
    let Ok(interface) = draft.interface(item.interface_id) else { return Ok(false) };
    match (interface.attachment(), &item.source) {
        (Some(known), _) if known.id == item.attachment_id && known.instance_id == item.instance_id => Ok(true),
        (Some(known), _) => Err(AttachError::InUse { id: item.interface_id, by: known.instance_id }.into()),
        (None, Source::Existing) => Ok(false),
        (None, Source::Create { .. }) => Err(InstanceError::IdTaken(item.interface_id)),
    }
}

fn create_one(draft: &mut Draft<impl View>, item: &InstanceInterface, groups: &[Group], now: Timestamp) -> Result<VpcId, InstanceError> {
    let attachment = |auto_public| Attachment {
        id: item.attachment_id,
        instance_id: item.instance_id,
        device_index: item.device_index,
        attached_at: now,
        delete_on_termination: item.delete_on_termination,
        auto_public,
        interface_limit: item.interface_limit,
    };
    let mut interface = match &item.source {
        Source::Existing => draft.interface(item.interface_id)?.clone(),
        Source::Create { new, .. } => build(draft, item.interface_id, new, groups.to_vec(), InterfaceState::Available)?,
    };
    check_place(draft, &interface, item.instance_id, item.device_index, item.interface_limit)?;
    let auto_public = match &item.source {
        Source::Create { public, .. } if item.device_index == 0 => {
            let by_default = draft.subnet(interface.subnet_id)?.map_public_ip_on_launch;
            if public.unwrap_or(by_default) { AutoPublic::Running } else { AutoPublic::Never }
        }
        Source::Create { .. } | Source::Existing => AutoPublic::Never,
    };
    interface.state = InterfaceState::InUse { attachment: attachment(auto_public) };
    let vpc = interface.vpc_id;
    point_elastic(draft, &interface);
    draft.put_interface(interface);
    give_pool_address(draft, item.interface_id)?;
    Ok(vpc)
}

/// After a batch was refused: what security holds for interfaces that were not made is to be released.
pub fn give_up(draft: &mut Draft<impl View>, interfaces: &[NetworkInterfaceId], now: Timestamp) {
    for id in interfaces {
        if draft.interface(*id).is_err() {
            hold::settle(draft, *id, now);
        }
    }
}

/// An instance that ends, or whose launch is undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceEnd {
    pub instance_id: InstanceId,
    /// The interfaces that its launch asked for.
    pub interface_ids: Vec<NetworkInterfaceId>,
}

/// Ends instances' use of the network: interfaces with delete_on_termination go, the others become available and
/// keep their elastic IPs; addresses of the pool go back.
pub fn delete(draft: &mut Draft<impl View>, ends: &[InstanceEnd], now: Timestamp) -> Result<(), InstanceError> {
    let mut vpcs = BTreeSet::new();
    for end in ends {
        let held: Vec<NetworkInterface> = draft.interfaces_of(end.instance_id).into_iter().cloned().collect();
        remember_missing(draft, end, &held, now);
        for interface in held {
            vpcs.insert(interface.vpc_id);
            if interface.attachment().is_some_and(|attachment| attachment.delete_on_termination) {
                remove(draft, interface.id, now)?;
            } else {
                // Read again: the end of the one before may have handed an address over to it.
                let interface = draft.interface(interface.id)?.clone();
                let_go(draft, interface, Leaving::Ended, now)?;
            }
        }
    }
    for vpc in vpcs {
        refresh_routes(draft, vpc);
    }
    Ok(())
}

fn remember_missing(draft: &mut Draft<impl View>, end: &InstanceEnd, held: &[NetworkInterface], now: Timestamp) {
    let missing: Vec<_> = end.interface_ids.iter().copied().filter(|id| !held.iter().any(|known| known.id == *id)).collect();
    if missing.is_empty() {
        return;
    }
    give_up(draft, &missing, now);
    if draft.ended(end.instance_id).is_none() {
        draft.put_ended(EndedInstance {
            scope: draft.scope().clone(),
            instance_id: end.instance_id,
            interface_ids: missing,
            ended_at: now,
            released: false,
        });
    }
}

/// When an [`EndedInstance`] is due for [`expire`].
pub fn due_at(ended: &EndedInstance) -> Timestamp {
    ended.ended_at + if ended.released { ENDED_KEPT } else { LATE_CALL }
}

/// Releases what a late call may have held for an ended instance, and forgets it in the end.
pub fn expire(draft: &mut Draft<impl View>, instance: InstanceId, now: Timestamp) {
    let Some(ended) = draft.ended(instance).cloned() else { return };
    if due_at(&ended) > now {
        return;
    }
    give_up(draft, &ended.interface_ids, now);
    if ended.released {
        draft.remove_ended(instance);
    } else {
        draft.put_ended(EndedInstance { released: true, ..ended });
    }
}

/// Instances start: those launched with a public address get one again, unless an elastic IP leads to them. Answers their
/// interfaces, by instance in the order given and device index.
pub fn assign_public(draft: &mut Draft<impl View>, instances: &[InstanceId]) -> Result<Vec<NetworkInterface>, InstanceError> {
    let mut all = Vec::new();
    for instance in instances {
        set_auto_public(draft, *instance, AutoPublic::Stopped, AutoPublic::Running);
        let ids: Vec<_> = draft.interfaces_of(*instance).iter().map(|interface| interface.id).collect();
        if ids.is_empty() {
            return Err(Missing::Instance(*instance).into());
        }
        for id in ids {
            give_pool_address(draft, id)?;
            all.push(draft.interface(id)?.clone());
        }
    }
    Ok(all)
}

/// Instances have stopped: their addresses of the pool go back, elastic IPs stay, and what they were to let go of they have. Answers their interfaces as
/// [`assign_public`] does; an unknown instance has none.
pub fn release_public(
    draft: &mut Draft<impl View>,
    instances: &[InstanceId],
    now: Timestamp,
) -> Result<Vec<NetworkInterface>, InstanceError> {
    let (mut ids, mut gone) = (Vec::new(), Vec::new());
    for instance in instances {
        set_auto_public(draft, *instance, AutoPublic::Running, AutoPublic::Stopped);
        let held: Vec<NetworkInterface> = draft.interfaces_of(*instance).into_iter().cloned().collect();
        for mut interface in held {
            for private in &mut interface.private_addresses {
                if let Some(PublicAddress::Pool { address }) = private.public {
                    draft.give_back_public(address);
                    private.public = None;
                }
            }
            gone.append(&mut interface.releasing);
            ids.push(interface.id);
            draft.put_interface(interface);
        }
    }
    // An instance that is off holds nothing.
    hand_over(draft, gone, now);
    ids.into_iter().map(|id| Ok(draft.interface(id)?.clone())).collect()
}

fn set_auto_public(draft: &mut Draft<impl View>, instance: InstanceId, from: AutoPublic, to: AutoPublic) {
    let held: Vec<NetworkInterface> = draft.interfaces_of(instance).into_iter().cloned().collect();
    for mut interface in held {
        if let Some(attachment) = interface.attachment_mut().filter(|attachment| attachment.auto_public == from) {
            attachment.auto_public = to;
            draft.put_interface(interface);
        }
    }
}

/// Why a batch for instances is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstanceError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error(transparent)]
    Addressing(#[from] AddressingError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error("the instance {0} has ended; no interface can be made for it")]
    Ended(InstanceId),
    #[error("the id {0} belongs to another interface")]
    IdTaken(NetworkInterfaceId),
}

impl From<InstanceError> for Refusal {
    fn from(error: InstanceError) -> Self {
        let text = error.to_string();
        match error {
            InstanceError::Missing(missing) => missing.into(),
            InstanceError::Addressing(error) => error.into(),
            InstanceError::Attach(error) => error.into(),
            InstanceError::Ended(_) => Self::wrong_state("IncorrectInstanceState", text),
            InstanceError::IdTaken(_) => Self::new(RefusalKind::AlreadyExists, "InvalidNetworkInterface.InUse", text),
        }
    }
}
