//! What is known of nodes beside their rows: when they were last heard of, how to reach them, and what
//! they have taken over. Nothing in it has to last: it is empty after a restart, and fills again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use gureum_compute_domain::{
    instance::Instance,
    node::Node,
    plan::{Reach, World},
};
use gureum_model::{
    Refusal,
    id::{InstanceId, NodeId},
};
use gureum_proto::node::v1::node_service_client::NodeServiceClient;
use gureum_service::{
    CancellationToken, Faults, Listen, Peer,
    clock::monotonic,
    config::TlsConfig,
    peer::{PeerChannel, PeerError},
};

use crate::store::Schema;

/// Nodes in memory. Clones are the same.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    tls: Option<TlsConfig>,
    faults: Faults,
    members: Mutex<HashMap<NodeId, Member>>,
    /// The newest generation that a node has answered to have taken over, by instance.
    applied: Mutex<HashMap<InstanceId, Applied>>,
}

#[derive(Debug, Clone, Copy)]
struct Applied {
    node: NodeId,
    generation: u64,
}

/// One node's process.
struct Member {
    incarnation: u64,
    peer: Peer,
    heard: Instant,
    /// Ends the following of this process.
    follower: CancellationToken,
}

/// A node that was taken in, to be followed by whoever did that.
pub struct Admitted {
    pub peer: Peer,
    pub follower: CancellationToken,
}

impl Fleet {
    /// Nobody is known yet. Nodes on TCP are reached with these certificates, all with these faults.
    pub fn new(tls: Option<TlsConfig>, faults: Faults) -> Self {
        Self(Arc::new(Inner { tls, faults, members: Mutex::default(), applied: Mutex::default() }))
    }

    fn members(&self) -> MutexGuard<'_, HashMap<NodeId, Member>> {
        // Each change is one insert or remove, so a poisoned lock is as good as any.
        self.0.members.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn applied(&self) -> MutexGuard<'_, HashMap<InstanceId, Applied>> {
        self.0.applied.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Where a node says that it can be reached. Errors: `InvalidParameterValue`.
    pub fn reach(&self, endpoint: &str) -> Result<Peer, Refusal> {
        let address: Listen = endpoint.parse().map_err(|words: String| Refusal::invalid("endpoint", words))?;
        if matches!(address, Listen::Tcp(_)) && self.0.tls.is_none() {
            let words = format!("{address} is a TCP port, and compute has no certificates; set tls, or use a Unix socket");
            return Err(Refusal::invalid("endpoint", words));
        }
        let peer = Peer::new("node", &address, self.0.tls.as_ref());
        let peer = peer.map_err(|error: PeerError| Refusal::invalid("endpoint", error.to_string()))?;
        Ok(peer.with_faults(self.0.faults.clone()))
    }

    /// Notes that a node was heard of. Takes it in if its process is another one than is known, and
    /// answers then how to follow it.
    pub fn admit(&self, node: &Node, peer: Peer) -> Option<Admitted> {
        let mut members = self.members();
        if let Some(member) = members.get_mut(&node.id).filter(|member| member.incarnation == node.incarnation) {
            member.heard = monotonic();
            return None;
        }
        let follower = CancellationToken::new();
        let member = Member { incarnation: node.incarnation, peer: peer.clone(), heard: monotonic(), follower: follower.clone() };
        if let Some(before) = members.insert(node.id, member) {
            before.follower.cancel();
        }
        drop(members);
        // The new process may have lost what the one before took over.
        self.applied().retain(|_, applied| applied.node != node.id);
        Some(Admitted { peer, follower })
    }

    /// Notes a heartbeat. False if this process of the node is not known.
    pub fn heard(&self, node: NodeId, incarnation: u64) -> bool {
        match self.members().get_mut(&node) {
            Some(member) if member.incarnation == incarnation => {
                member.heard = monotonic();
                true
            }
            Some(_) | None => false,
        }
    }

    /// Nobody could be heard for this time, by this process's own fault: no node's silence counts it.
    pub fn excuse(&self, deaf: Duration) {
        for member in self.members().values_mut() {
            // No later than now: a heartbeat may have been read first.
            member.heard = monotonic().min(member.heard + deaf);
        }
    }

    /// For how long a node was not heard of; none if it is not known.
    pub fn silence(&self, node: NodeId) -> Option<Duration> {
        self.members().get(&node).map(|member| monotonic().saturating_duration_since(member.heard))
    }

    /// Lets a node go that was given up.
    pub fn dismiss(&self, node: NodeId) {
        if let Some(member) = self.members().remove(&node) {
            member.follower.cancel();
        }
        self.applied().retain(|_, applied| applied.node != node);
    }

    /// A client of a node; none if it is not known.
    pub fn client(&self, node: NodeId) -> Option<(Peer, NodeServiceClient<PeerChannel>)> {
        let peer = self.members().get(&node).map(|member| member.peer.clone())?;
        let client = NodeServiceClient::new(peer.channel());
        Some((peer, client))
    }

    /// A node has taken this generation over.
    pub fn note_applied(&self, instance: InstanceId, node: NodeId, generation: u64) {
        let mut applied = self.applied();
        let entry = applied.entry(instance).or_insert(Applied { node, generation });
        *entry =
            if entry.node == node { Applied { node, generation: entry.generation.max(generation) } } else { Applied { node, generation } };
    }

    /// Forgets what is known of an instance.
    pub fn forget_applied(&self, instance: InstanceId) {
        self.applied().remove(&instance);
    }

    /// The world as the plan for an instance sees it.
    pub fn world(&self, tables: &Schema, it: &Instance) -> World {
        let Some(node) = it.node else { return World { node: Reach::Lost, ..World::default() } };
        let row = tables.nodes.get(&node.to_string());
        let applied = self.applied().get(&it.id).filter(|applied| applied.node == node).map_or(0, |applied| applied.generation);
        let followed = tables.node_cursors.get(&node.to_string()).map(|cursor| cursor.incarnation);
        World {
            node: row.map_or(Reach::Lost, |row| row.state.reach()),
            applied,
            // Until a new process of the node has been seen through, what the one before told counts for nothing.
            resync: row.is_some_and(|row| followed != Some(row.incarnation)),
        }
    }
}

/// Whether a node can be reached, by its row.
pub fn reach_of(tables: &Schema, node: NodeId) -> Reach {
    tables.nodes.get(&node.to_string()).map_or(Reach::Lost, |row| row.state.reach())
}
