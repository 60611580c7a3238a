//! What instances know of their interfaces, kept as network has it.
//!
//! Elastic IPs move, interfaces are attached and detached, groups change: network tells of each. Only
//! what an instance does not know yet is asked for. After a start everything is looked through once.
//!
//! The other way network is told when a node has carried such a change out: only then does an address that an
//! instance has lost go to another.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use gureum_compute_domain::{
    instance::{Decision, Instance, InstanceState, Interface},
    modify,
    plan::Reach,
};
use gureum_model::{
    Scope,
    id::{InstanceId, NetworkInterfaceId},
};
use gureum_proto::{WatchMessage, WatchPart, network::v1 as proto, network::v1::event::Resource};
use gureum_service::{
    Error,
    reconcile::{Outcome, Reconcile},
};
use gureum_store::{Listed, Record};
use tonic::{Code, Status, Streaming};

use crate::{
    core::Core,
    fleet::reach_of,
    network::{Release, Seen},
    store::{INTERFACE_INDEX, InstanceRow, Schema, put_instance},
};

/// Pause before network is followed again, in real time.
const RETRY: Duration = Duration::from_millis(100);

/// When an attachment that a node has not carried out is looked at again, in domain time.
const CARRIED_OUT_AGAIN: Duration = Duration::from_secs(1);

/// What instances have lost and have yet to let go of.
type Releasing = BTreeMap<InstanceId, Vec<proto::ReleasingAddress>>;

/// Follows network until it is dropped: wakes the loop for instances that do not know their interfaces
/// as they are.
pub async fn follow(core: Arc<Core>) {
    let mut after = None;
    loop {
        match core.network.watch(after).await {
            Ok(stream) => {
                // What could not be asked for while network was away need not wait for its next attempt.
                core.interfaces.wake(core.network_followed.open_keys());
                if let Err(status) = take(&core, stream, &mut after).await {
                    tracing::debug!(%status, "following network is interrupted");
                    if status.code() == Code::OutOfRange {
                        after = None;
                    }
                }
            }
            Err(status) if status.code() == Code::OutOfRange => after = None,
            Err(status) => tracing::debug!(%status, "network cannot be followed"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn take(core: &Core, mut stream: Streaming<proto::WatchAllResponse>, after: &mut Option<u64>) -> Result<(), Status> {
    let mut snapshot = after.is_none().then(HashSet::new);
    while let Some(message) = stream.next().await {
        match message?.into_parts() {
            WatchPart::Event(event) => {
                let metadata = event.metadata.unwrap_or_default();
                if let Some(Resource::NetworkInterface(interface)) = event.resource {
                    if let Some(told) = &mut snapshot {
                        told.insert(interface.network_interface_id.clone());
                    }
                    let scope = Scope::parse(&metadata.account_id, &metadata.region).unwrap_or_default();
                    let keys = unknown_to(&core.read(), core, &scope, interface);
                    core.network_followed.open(&keys, metadata.sequence);
                    core.interfaces.wake(keys);
                }
                if snapshot.is_none() {
                    *after = Some(metadata.sequence);
                    core.network_followed.reached(metadata.sequence);
                }
            }
            WatchPart::CaughtUp(sequence) => {
                *after = Some(sequence);
                match snapshot.take() {
                    Some(told) => {
                        let keys = without(&core.read(), &told);
                        core.network_followed.open(&keys, sequence);
                        core.interfaces.wake(keys);
                        core.network_followed.began(sequence);
                    }
                    None => core.network_followed.reached(sequence),
                }
            }
            WatchPart::Unknown => {}
        }
    }
    Ok(())
}

/// The instances that do not know an interface as it is now: who has it, and who believes to have it.
fn unknown_to(tables: &Schema, core: &Core, scope: &Scope, interface: proto::NetworkInterface) -> Vec<String> {
    let Ok(id) = interface.network_interface_id.parse::<NetworkInterfaceId>() else { return Vec::new() };
    let all = core.network.peek(interface);
    let Seen { interfaces, moving, releasing, limits } = &all;
    let unsettled = moving.keys().chain(releasing.keys());
    let mut keys: Vec<String> = unsettled.map(|instance| InstanceRow::list_key(scope, *instance)).collect();
    let limited = limits.keys().map(|instance| InstanceRow::list_key(scope, *instance));
    keys.extend(limited.filter(|key| tables.instances.get(key).is_some_and(|row| all.has_other_limit(row))));
    for (instance, seen) in interfaces {
        let key = InstanceRow::list_key(scope, *instance);
        let is_open = core.network_followed.is_open(&key);
        // What is being written may be older than what its row now has.
        if tables.instances.get(&key).is_some_and(|row| is_open || seen.iter().any(|interface| !knows(row, interface))) {
            keys.push(key);
        }
    }
    let believers = tables.instances.find(INTERFACE_INDEX, &id.to_string()).filter(|row| !interfaces.contains_key(&row.id));
    keys.extend(believers.filter(|row| is_alive(row)).map(|row| row.record.key()));
    keys.retain(|key| tables.instances.get(key).is_some_and(|row| is_alive(row)));
    keys.sort();
    keys.dedup();
    keys
}

/// The instances that believe to have an interface which a snapshot did not tell of: it went while nobody followed.
fn without(tables: &Schema, told: &HashSet<String>) -> Vec<String> {
    let lacks = |it: &Instance| it.interfaces.iter().any(|interface| !told.contains(&interface.id.to_string()));
    tables.instances.iter().filter(|row| is_alive(row) && lacks(row)).map(|row| row.record.key()).collect()
}

/// What network deletes for the end of an instance is that workflow's own.
fn is_alive(it: &Instance) -> bool {
    match it.state {
        InstanceState::Pending { .. } | InstanceState::Running { .. } | InstanceState::Stopping { .. } | InstanceState::Stopped { .. } => {
            true
        }
        InstanceState::ShuttingDown { .. } | InstanceState::Terminated { .. } => false,
    }
}

fn knows(it: &Instance, seen: &Interface) -> bool {
    let known = it.interfaces.iter().find(|interface| interface.id == seen.id);
    known.is_some_and(|known| *known == Interface { prefix_length: known.prefix_length, ..seen.clone() })
}

/// Reads the interfaces of instances anew; the keys are those of the instances' rows.
pub struct Interfaces(pub Arc<Core>);

impl Reconcile for Interfaces {
    type Key = String;

    const NAME: &'static str = "interfaces";

    fn unsettled(&self) -> Vec<String> {
        // Following begins with everything, so nothing is missed.
        Vec::new()
    }

    async fn run(&self, keys: Vec<String>) -> Vec<(String, Outcome)> {
        let mut by_scope: BTreeMap<Scope, Vec<InstanceId>> = BTreeMap::new();
        {
            let state = self.0.read();
            for key in &keys {
                match state.instances.get(key) {
                    Some(row) => by_scope.entry(row.scope.clone()).or_default().push(row.id),
                    // Forgotten meanwhile: there is nothing to apply to.
                    None => self.0.network_followed.applied(self.0.network_followed.begin([key])),
                }
            }
        }
        let mut outcomes = Vec::with_capacity(keys.len());
        let setbacks = self.0.setbacks.begin(Self::NAME, &keys);
        for (scope, ids) in by_scope {
            let outcome = self.run_scope(&scope, &ids).await;
            outcomes.extend(ids.iter().map(|id| (InstanceRow::list_key(&scope, *id), outcome.clone())));
        }
        self.0.setbacks.end(setbacks);
        outcomes
    }
}

impl Interfaces {
    /// A peer is away: the same again, and users read of it.
    fn away(&self, scope: &Scope, ids: impl Iterator<Item = InstanceId>, call: &str, error: &Error) -> Outcome {
        let keys: Vec<String> = ids.map(|id| InstanceRow::list_key(scope, id)).collect();
        self.0.setbacks.note(Self::NAME, keys.iter().map(String::as_str), call, error);
        Outcome::Retry { reason: error.to_string() }
    }

    async fn run_scope(&self, scope: &Scope, ids: &[InstanceId]) -> Outcome {
        let core = &self.0;
        let keys: Vec<String> = ids.iter().map(|id| InstanceRow::list_key(scope, *id)).collect();
        let applying = core.network_followed.begin(&keys);
        let seen = match core.in_scope(scope, core.network.describe(ids)).await {
            Ok(seen) => seen,
            Err(error) => return self.away(scope, ids.iter().copied(), "DescribeInstanceInterfaces", &error),
        };
        let (moving, releasing) = (seen.moving.clone(), seen.releasing.clone());
        let (places, scope_of, of) = (core.places.clone(), scope.clone(), ids.to_vec());
        let written = core.commit(move |tx| {
            let mut limited = Vec::new();
            for id in of {
                let Some(row) = tx.instances.get(&InstanceRow::list_key(&scope_of, id)).cloned() else { continue };
                if let Decision::Change(next) = modify::interfaces(&row, seen.of(id)) {
                    put_instance(tx, &places, *next, "");
                }
                if seen.has_other_limit(&row) && is_alive(&row) {
                    limited.push(id);
                }
            }
            limited
        });
        let limited = match written.await {
            Ok(limited) => limited,
            Err(error) => return Outcome::Retry { reason: error.to_string() },
        };
        core.network_followed.applied(applying);
        for id in limited {
            if let Err(error) = self.limit(scope, id).await {
                return self.away(scope, std::iter::once(id), "SetInterfaceLimits", &error);
            }
        }
        let plugged = self.settle(scope, moving).await;
        let let_go = self.settle_addresses(scope, ids, releasing).await;
        match (plugged, let_go) {
            (Outcome::Settled, other) | (other, Outcome::Settled) => other,
            (retry @ Outcome::Retry { .. }, _) | (_, retry) => retry,
        }
    }

    /// Tells network how many interfaces an instance may have, by the type on record: no call is about to change that
    /// meanwhile, and what one has just decided is read.
    async fn limit(&self, scope: &Scope, id: InstanceId) -> Result<(), Error> {
        let core = &self.0;
        let _turn = core.limiting.take(scope, &id.to_string()).await;
        let key = InstanceRow::list_key(scope, id);
        let limit = core.commit(move |tx| tx.instances.get(&key).map(|row| modify::interface_limit(&row.kind))).await?;
        match limit {
            Some(limit) => core.in_scope(scope, core.network.limit(id, limit)).await,
            None => Ok(()),
        }
    }

    /// Tells network which of the addresses that instances have lost their nodes have let go of.
    async fn settle_addresses(&self, scope: &Scope, ids: &[InstanceId], mut releasing: Releasing) -> Outcome {
        let core = &self.0;
        let (mut told, mut open) = (Vec::new(), false);
        for instance in releasing.keys() {
            // Before the records are read, so that no report slips between.
            core.awaited.insert(InstanceRow::list_key(scope, *instance));
        }
        {
            let state = core.read();
            for instance in ids {
                let key = InstanceRow::list_key(scope, *instance);
                let addresses = releasing.remove(instance).unwrap_or_default();
                let row = state.instances.get(&key);
                let has_let_go = row.is_none_or(|row| modify::has_let_go(row, addresses.iter().map(|address| address.public_ip.as_str())));
                if addresses.is_empty() || has_let_go {
                    core.awaited.remove(&key);
                } else {
                    open = true;
                    if row.and_then(|row| row.node).is_none_or(|node| reach_of(&state, node) == Reach::Up) {
                        continue;
                    }
                }
                if !addresses.is_empty() {
                    told.push(Release { instance: *instance, addresses, node_unreachable: !has_let_go });
                }
            }
        }
        let holders: Vec<InstanceId> = told.iter().map(|release| release.instance).collect();
        if !told.is_empty()
            && let Err(error) = core.in_scope(scope, core.network.settle_addresses(told)).await
        {
            return self.away(scope, holders.into_iter(), "SettlePublicAddresses", &error);
        }
        if open { Outcome::Waiting { until: core.clock.now() + CARRIED_OUT_AGAIN } } else { Outcome::Settled }
    }

    /// Tells network of what the nodes have carried out. An instance that is off has nothing to carry out.
    async fn settle(&self, scope: &Scope, moving: BTreeMap<InstanceId, Vec<gureum_model::id::AttachmentId>>) -> Outcome {
        let core = &self.0;
        let (mut done, mut open) = (Vec::new(), false);
        {
            let state = core.read();
            for (instance, attachments) in &moving {
                let row = state.instances.get(&InstanceRow::list_key(scope, *instance));
                let carried_out = row.is_none_or(|row| match row.state {
                    InstanceState::Pending { .. } | InstanceState::Running { .. } => row.observed.generation == row.generation,
                    InstanceState::Stopping { .. }
                    | InstanceState::Stopped { .. }
                    | InstanceState::ShuttingDown { .. }
                    | InstanceState::Terminated { .. } => true,
                });
                if carried_out {
                    done.extend(attachments);
                } else {
                    open = true;
                }
            }
        }
        if !done.is_empty()
            && let Err(error) = core.in_scope(scope, core.network.settle(&done)).await
        {
            return self.away(scope, moving.into_keys(), "SettleInterfaceAttachments", &error);
        }
        if open { Outcome::Waiting { until: core.clock.now() + CARRIED_OUT_AGAIN } } else { Outcome::Settled }
    }
}
