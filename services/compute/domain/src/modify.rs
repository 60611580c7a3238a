//! Changes of an instance's attributes, and of what it knows of its interfaces.

use gureum_model::{Tags, id::VolumeId, refusal::Violations};

use crate::{
    instance::{CpuCredits, Decision, Instance, InstanceError, InstanceState, Interface, Kind, ShutdownBehavior, StateName},
    instance_type,
    metadata_options::MetadataOptionsSpec,
    user_data::UserData,
};

/// One change, parsed. Source/destination checks and groups are network's; they come back by [`interfaces`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only while stopped.
    Kind(Kind),
    /// Only while stopped.
    UserData(UserData),
    /// Only while stopped.
    EbsOptimized(bool),
    /// Only while stopped, and only on: every type here has it or never will.
    EnaSupport(bool),
    DisableApiTermination(bool),
    DisableApiStop(bool),
    ShutdownBehavior(ShutdownBehavior),
    /// Whether the volumes at these devices go with the instance.
    DeleteOnTermination(Vec<(String, bool)>),
    MetadataOptions(MetadataOptionsSpec),
    DetailedMonitoring(bool),
}

impl Change {
    fn needs_stopped(&self) -> bool {
        match self {
            Self::Kind(_) | Self::UserData(_) | Self::EbsOptimized(_) | Self::EnaSupport(_) => true,
            Self::DisableApiTermination(_)
            | Self::DisableApiStop(_)
            | Self::ShutdownBehavior(_)
            | Self::DeleteOnTermination(_)
            | Self::MetadataOptions(_)
            | Self::DetailedMonitoring(_) => false,
        }
    }

    /// A running instance's node has to hear of it.
    fn concerns_node(&self) -> bool {
        match self {
            // What goes with the instance the node has to know before it ends it.
            Self::MetadataOptions(_) | Self::ShutdownBehavior(_) | Self::DeleteOnTermination(_) => true,
            Self::Kind(_)
            | Self::UserData(_)
            | Self::EbsOptimized(_)
            | Self::EnaSupport(_)
            | Self::DisableApiTermination(_)
            | Self::DisableApiStop(_)
            | Self::DetailedMonitoring(_) => false,
        }
    }
}

/// Applies one change.
///
/// Errors: `IncorrectInstanceState` (terminated; or not stopped where that is needed), `InvalidParameterValue`,
/// `AttachmentLimitExceeded` (a type that allows fewer interfaces than the instance has),
/// `InvalidInstanceAttributeValue` (a device that is not there).
pub fn modify(it: &Instance, change: &Change) -> Result<Decision, InstanceError> {
    check_state(it, change)?;
    let mut next = it.clone();
    match change {
        Change::Kind(kind) => set_kind(&mut next, kind)?,
        Change::UserData(data) => next.user_data = data.clone(),
        Change::EbsOptimized(on) => next.ebs_optimized = *on,
        Change::EnaSupport(true) => next.kind.ena_support = true,
        Change::EnaSupport(false) => {
            let words = "enhanced networking cannot be switched off; leave ena_support out".to_owned();
            return Err(InstanceError::BadValue { field: "ena_support", words });
        }
        Change::DisableApiTermination(on) => next.disable_api_termination = *on,
        Change::DisableApiStop(on) => next.disable_api_stop = *on,
        Change::ShutdownBehavior(behavior) => next.shutdown_behavior = *behavior,
        Change::DeleteOnTermination(devices) => set_delete_on_termination(&mut next, devices)?,
        Change::MetadataOptions(spec) => set_metadata_options(&mut next, spec)?,
        Change::DetailedMonitoring(on) => next.detailed_monitoring = *on,
    }
    Ok(settle(it, next, change.concerns_node()))
}

fn check_state(it: &Instance, change: &Change) -> Result<(), InstanceError> {
    let state = it.state.name();
    match state {
        StateName::ShuttingDown | StateName::Terminated => Err(InstanceError::State { id: it.id, state, verb: "modified" }),
        StateName::Stopped => Ok(()),
        StateName::Pending | StateName::Running | StateName::Stopping if change.needs_stopped() => {
            Err(InstanceError::NotStopped { id: it.id, state })
        }
        StateName::Pending | StateName::Running | StateName::Stopping => Ok(()),
    }
}

/// Checks that an instance would not have more interfaces than a type allows. Network has the last word: it knows of
/// those that are being attached.
///
/// Errors: `AttachmentLimitExceeded`.
pub(crate) fn check_interfaces(it: &Instance, kind: &Kind) -> Result<(), InstanceError> {
    let (count, limit) = (it.interfaces.len(), usize::try_from(interface_limit(kind)).unwrap_or(usize::MAX));
    if limit > 0 && count > limit {
        return Err(InstanceError::TooManyInterfaces { id: it.id, kind: kind.name.clone(), count, limit });
    }
    Ok(())
}

/// Interfaces that instances of a type may have; 0 (as many as the region allows) for one that is no longer offered.
pub fn interface_limit(kind: &Kind) -> u32 {
    instance_type::find(&kind.name).map_or(0, |known| known.network.max_interfaces)
}

/// The limit that network has to know before a change is decided; none if it stays, or if the change is refused for another
/// reason than that limit: on what is attached network has the last word.
pub fn limit_before(it: &Instance, change: &Change) -> Option<u32> {
    let Change::Kind(kind) = change else { return None };
    let possible = check_state(it, change).is_ok() && kind.architecture == it.kind.architecture;
    Some(interface_limit(kind)).filter(|limit| possible && *limit != interface_limit(&it.kind))
}

fn set_kind(next: &mut Instance, kind: &Kind) -> Result<(), InstanceError> {
    check_interfaces(next, kind)?;
    if kind.architecture != next.kind.architecture {
        return Err(InstanceError::Architecture {
            id: next.id,
            kind: kind.name.clone(),
            expected: next.kind.architecture.clone(),
            actual: kind.architecture.clone(),
        });
    }
    next.credits = default_credits(kind, next.credits);
    next.kind = kind.clone();
    Ok(())
}

/// Burstable types pay for bursts as they did before, or as is the default of their family: t2
/// standard, all later ones unlimited, as AWS documents it. Others have no credits.
pub fn default_credits(kind: &Kind, wanted: Option<CpuCredits>) -> Option<CpuCredits> {
    let default = if kind.name.starts_with("t2.") { CpuCredits::Standard } else { CpuCredits::Unlimited };
    kind.burstable.then(|| wanted.unwrap_or(default))
}

fn set_delete_on_termination(next: &mut Instance, devices: &[(String, bool)]) -> Result<(), InstanceError> {
    let id = next.id;
    for (device, goes) in devices {
        let volume = next.volumes.iter_mut().find(|volume| volume.device_name == *device);
        let volume = volume.ok_or_else(|| InstanceError::NoDevice { id, device: device.clone() })?;
        volume.delete_on_termination = *goes;
    }
    Ok(())
}

fn set_metadata_options(next: &mut Instance, spec: &MetadataOptionsSpec) -> Result<(), InstanceError> {
    let mut violations = Violations::new();
    next.metadata_options = next.metadata_options.with(spec, "metadata_options", &mut violations);
    violations.finish().map_err(|refusal| InstanceError::BadValue { field: "metadata_options", words: refusal.message })
}

/// What the instance knows of its interfaces, as network has them now: after an elastic IP moved, an
/// interface was attached or detached, or groups changed. A running instance's node hears of it.
pub fn interfaces(it: &Instance, mut seen: Vec<Interface>) -> Decision {
    match it.state {
        // What network deletes for the end of an instance is committed by that workflow.
        InstanceState::ShuttingDown { .. } | InstanceState::Terminated { .. } => Decision::Unchanged,
        InstanceState::Pending { .. } | InstanceState::Running { .. } | InstanceState::Stopping { .. } | InstanceState::Stopped { .. } => {
            seen.sort_by_key(|interface| interface.device_index);
            settle(it, Instance { interfaces: seen, ..it.clone() }, true)
        }
    }
}

/// Whether the node has let go of these public addresses, which the instance has lost.
pub fn has_let_go<'a>(it: &Instance, addresses: impl IntoIterator<Item = &'a str>) -> bool {
    let has =
        |address: &str| it.interfaces.iter().any(|interface| interface.public.as_ref().is_some_and(|public| public.address == address));
    match it.state {
        // The record is behind.
        InstanceState::Running { .. } if addresses.into_iter().any(has) => false,
        InstanceState::Running { .. } => it.observed.generation == it.generation && it.observed.live_generation == it.generation,
        // It boots as what it was told first; what has changed since the node hears when it runs.
        InstanceState::Pending { .. } => false,
        InstanceState::Stopping { released, .. } | InstanceState::ShuttingDown { released, .. } => released,
        InstanceState::Stopped { .. } | InstanceState::Terminated { .. } => true,
    }
}

/// The instance with other tags. Its node hears of them only if the instance may ask for them.
pub fn tags(it: &Instance, tags: Tags) -> Decision {
    settle(it, Instance { tags, ..it.clone() }, it.metadata_options.tags_enabled)
}

/// The instance with its volumes as they are now: after an attachment or detachment. A running
/// instance's node hears of it.
pub fn volumes(it: &Instance, volumes: Vec<crate::instance::AttachedVolume>, pulled_volumes: Vec<VolumeId>) -> Decision {
    settle(it, Instance { volumes, pulled_volumes, ..it.clone() }, true)
}

fn settle(before: &Instance, mut next: Instance, concerns_node: bool) -> Decision {
    if next == *before {
        return Decision::Unchanged;
    }
    let at_node = match next.state {
        // Its node is told nothing of this boot before its addresses are there, and then all of it.
        InstanceState::Pending { addresses_ready, .. } => addresses_ready,
        InstanceState::Running { .. } => true,
        // The next start tells the node all of it.
        InstanceState::Stopping { .. } | InstanceState::Stopped { .. } => false,
        InstanceState::ShuttingDown { .. } | InstanceState::Terminated { .. } => false,
    };
    if concerns_node && at_node {
        next.generation += 1;
    }
    Decision::change(next)
}
