//! Public addresses that an instance has yet to let go of.
//!
//! ```text
//!            taken away from A                A's node has let go, or A is off, or ended
//!  A holds ───────────────────▶ A is to let go ─────────────────────────────▶ free, or B's
//!                                (B waits)
//! ```
//!
//! Where an address leads is decided at once; who holds it is not. An instance that loses an address may hold it
//! until its node has heard of that, so the address stands at the instance's primary interface, which it has
//! as long as it lives, until compute says that it is let go. Until then nobody else gets the address: an
//! elastic IP waits, and one of the pool is not given out again.

use std::net::Ipv4Addr;

use gureum_model::{Timestamp, id::InstanceId};
use serde::{Deserialize, Serialize};

use crate::{
    Draft, ElasticAddress, NetworkInterface, View,
    address::{AddressAssociation, AssociationState},
    interface::PublicAddress,
};

/// Addresses that one instance may have yet to let go of. An instance whose node is away gets no more elastic
/// IPs beyond it.
pub const MAX_RELEASING: usize = 64;

/// An address that an instance is to let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Releasing {
    pub address: Ipv4Addr,
    /// Tells one time from another that the instance loses the same address: a late word about the first must
    /// not count for the second.
    pub release: u64,
    pub since: Timestamp,
}

/// One time that an instance loses an address, as compute names it.
pub type Release = (Ipv4Addr, u64);

/// The interface at which an instance's addresses stand that it is to let go of.
fn primary_of<'a>(draft: &'a Draft<impl View>, instance: InstanceId) -> Option<&'a NetworkInterface> {
    draft.interfaces_of(instance).into_iter().next()
}

/// An instance is to let go of an address. Answers whether it may hold it: nobody does at a free interface.
pub(crate) fn leave(draft: &mut Draft<impl View>, instance: Option<InstanceId>, address: Ipv4Addr, now: Timestamp) -> bool {
    let Some(primary) = instance.and_then(|id| primary_of(draft, id)) else { return false };
    let mut primary = primary.clone();
    if primary.releasing.iter().all(|known| known.address != address) {
        primary.releases += 1;
        primary.releasing.push(Releasing { address, release: primary.releases, since: now });
        draft.put_interface(primary);
    }
    true
}

/// An address is to lead to an instance: what that one was to let go of it keeps. Answers which other instance has
/// yet to let go of it.
pub(crate) fn claim(draft: &mut Draft<impl View>, instance: Option<InstanceId>, address: Ipv4Addr) -> Option<InstanceId> {
    let mut holder = draft.releasing(address)?.clone();
    if holder.instance() != instance {
        return holder.instance();
    }
    holder.releasing.retain(|known| known.address != address);
    draft.put_interface(holder);
    None
}

/// Of what an instance is to let go, an address of the pool: it may as well keep it.
pub(crate) fn keep_pool_address(draft: &mut Draft<impl View>, instance: InstanceId) -> Option<Ipv4Addr> {
    let releasing = primary_of(draft, instance)?.releasing.iter().map(|known| known.address);
    let address = releasing.into_iter().find(|address| draft.address_at(*address).is_err())?;
    claim(draft, Some(instance), address);
    Some(address)
}

/// How many addresses an instance has yet to let go of.
pub(crate) fn count(draft: &Draft<impl View>, instance: InstanceId) -> usize {
    primary_of(draft, instance).map_or(0, |primary| primary.releasing.len())
}

/// An instance has let go of addresses. Those that it was not to let go of, or no longer, are passed over.
pub fn settle(draft: &mut Draft<impl View>, instance: InstanceId, done: &[Release], now: Timestamp) {
    let Some(primary) = primary_of(draft, instance) else { return };
    let mut primary = primary.clone();
    let (gone, kept) =
        std::mem::take(&mut primary.releasing).into_iter().partition(|known: &Releasing| done.contains(&(known.address, known.release)));
    primary.releasing = kept;
    draft.put_interface(primary);
    hand_over(draft, gone, now);
}

/// What is said of an instance that cannot let go because its node is not heard of: who waits is told.
pub fn unreachable(draft: &mut Draft<impl View>, instance: InstanceId, open: &[Release]) {
    let Some(primary) = primary_of(draft, instance) else { return };
    let stuck: Vec<_> = primary.releasing.iter().filter(|known| open.contains(&(known.address, known.release))).copied().collect();
    for Releasing { address, .. } in stuck {
        change_state(draft, address, |state| match state {
            AssociationState::Waiting { since, holder, .. } => AssociationState::Waiting { since, holder, unreachable: true },
            AssociationState::Associated { .. } => state,
        });
    }
}

/// Addresses that nobody holds any more go to whom they lead, or back to the pool.
pub(crate) fn hand_over(draft: &mut Draft<impl View>, gone: Vec<Releasing>, now: Timestamp) {
    for Releasing { address, .. } in gone {
        if draft.address_at(address).is_err() {
            draft.give_back_public(address);
            continue;
        }
        change_state(draft, address, |_| AssociationState::Associated { since: now });
        set_waiting(draft, address, false);
    }
}

/// An elastic IP that goes on leading to an interface which an instance loses waits for that instance.
pub(crate) fn wait(draft: &mut Draft<impl View>, address: Ipv4Addr, holder: InstanceId, now: Timestamp) {
    change_state(draft, address, |_| AssociationState::Waiting { since: now, holder, unreachable: false });
    set_waiting(draft, address, true);
}

fn change_state(draft: &mut Draft<impl View>, address: Ipv4Addr, change: impl FnOnce(AssociationState) -> AssociationState) {
    let Ok(elastic) = draft.address_at(address).cloned() else { return };
    let association = elastic.association.map(|known| AddressAssociation { state: change(known.state), ..known });
    draft.put_address(ElasticAddress { association, ..elastic });
}

/// The interface's side of an association's state.
fn set_waiting(draft: &mut Draft<impl View>, address: Ipv4Addr, on: bool) {
    let target = draft.address_at(address).ok().and_then(|elastic| Some(elastic.association.as_ref()?.interface_id));
    let Some(mut interface) = target.and_then(|id| draft.interface(id).ok()).cloned() else { return };
    for private in &mut interface.private_addresses {
        if let Some(PublicAddress::Elastic { address: known, waiting, .. }) = &mut private.public
            && *known == address
        {
            *waiting = on;
        }
    }
    draft.put_interface(interface);
}
