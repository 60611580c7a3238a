//! Follows what each node sees of its instances.
//!
//! One task per process of a node. What a batch tells, and how far that is, are one commit. A process
//! that was not followed before begins with a snapshot: what it lacks of what it should have is told to
//! it again.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::StreamExt;
use gureum_compute_domain::{
    instance::{Instance, Observed},
    node::Node,
    observe::{Observation as Decided, observe},
};
use gureum_model::id::{InstanceId, NodeId};
use gureum_proto::node::v1::{self as proto, WatchInstancesRequest, event::Resource, watch_instances_response::Message};
use gureum_service::{Error, Peer};
use gureum_store::{Listed, Record};
use tonic::{Code, Status, Streaming};

use super::nodes;
use crate::{
    convert::{desired::ended, observation::Observation},
    core::Core,
    fleet::Admitted,
    store::{InstanceRow, NODE_INDEX, NodeCursor, Schema, needs_work, put_instance, settle_volumes},
};

/// Observations that become durable together at most.
const BATCH: usize = 512;

/// Pause before a node that is away is followed again, in real time. It delays what is seen after a
/// restart, and changes nothing else.
const RETRY: Duration = Duration::from_millis(100);

/// Begins to follow a node's process; it ends when another process of the node registers.
pub fn start(core: &Arc<Core>, node: &Node, admitted: Admitted) {
    let Admitted { peer, follower } = admitted;
    let following = Following { core: core.clone(), node: node.id, incarnation: node.incarnation, peer };
    let shutdown = core.shutdown.clone();
    core.tasks.spawn(async move {
        tokio::select! {
            () = following.run() => {}
            () = follower.cancelled() => {}
            () = shutdown.cancelled() => {}
        }
    });
}

struct Following {
    core: Arc<Core>,
    node: NodeId,
    incarnation: u64,
    peer: Peer,
}

/// Why the following was interrupted.
enum Stop {
    /// This service's store is gone.
    Store(Error),
    Stream(Box<Status>),
}

/// What a batch of messages tells.
#[derive(Default)]
struct Batch {
    observations: Vec<Observation>,
    /// How far the stream is; none in the midst of a snapshot.
    reached: Option<u64>,
    broken: Option<Status>,
}

impl Following {
    async fn run(self) {
        let mut fresh = false;
        loop {
            let after = if fresh { None } else { self.cursor() };
            match self.follow(after).await {
                Err(Stop::Store(error)) => {
                    tracing::error!(node = %self.node, %error, "what a node sees cannot be recorded");
                    return;
                }
                Err(Stop::Stream(status)) => {
                    // The node keeps no event that old any more: everything is looked at anew.
                    fresh = status.code() == Code::OutOfRange;
                    tracing::debug!(node = %self.node, %status, "following is interrupted");
                }
                Ok(()) => fresh = false,
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn cursor(&self) -> Option<u64> {
        let state = self.core.read();
        let cursor = state.node_cursors.get(&self.node.to_string()).filter(|cursor| cursor.incarnation == self.incarnation);
        cursor.map(|cursor| cursor.sequence)
    }

    async fn follow(&self, after_sequence: Option<u64>) -> Result<(), Stop> {
        let mut client = proto::node_service_client::NodeServiceClient::new(self.peer.channel());
        let watched = client.watch_instances(WatchInstancesRequest { after_sequence }).await;
        let stream: Streaming<proto::WatchInstancesResponse> = watched.map_err(|status| Stop::Stream(Box::new(status)))?.into_inner();
        let mut snapshot = after_sequence.is_none().then(BTreeSet::new);
        let mut messages = stream.ready_chunks(BATCH);
        while let Some(messages) = messages.next().await {
            let batch = read(messages);
            if let Some(known) = &mut snapshot {
                known.extend(batch.observations.iter().map(|seen| seen.instance));
            }
            // While a snapshot is under way there is no place to begin at again.
            let reached = batch.reached;
            let complete = if reached.is_some() { snapshot.take() } else { None };
            self.end_strangers(&batch.observations).await?;
            self.commit(batch.observations, reached.filter(|_| snapshot.is_none()), complete).await?;
            if let Some(status) = batch.broken {
                return Err(Stop::Stream(Box::new(status)));
            }
        }
        Ok(())
    }

    /// Has the node end and forget what is not its own: before the place is committed, so that it is
    /// done again if this process dies here.
    async fn end_strangers(&self, observations: &[Observation]) -> Result<(), Stop> {
        let (mut to_end, mut to_forget) = (Vec::new(), Vec::new());
        {
            let state = self.core.read();
            for seen in observations.iter().filter(|seen| self.is_stranger(&state, seen)) {
                let generation = seen.generation;
                if seen.is_terminated() {
                    to_forget.push(proto::TerminatedInstance { instance_id: seen.instance.to_string(), generation });
                } else if !seen.is_ending() {
                    to_end.push(ended(&seen.scope, seen.instance, generation + 1));
                }
            }
        }
        if !to_end.is_empty() {
            tracing::info!(node = %self.node, instances = to_end.len(), "a node has instances that are not its own; it is told to end them");
            self.asked(nodes::apply(&self.core, self.node, to_end).await)?;
        }
        if !to_forget.is_empty() {
            self.asked(nodes::forget(&self.core, self.node, to_forget).await)?;
        }
        Ok(())
    }

    fn asked<T>(&self, answer: Result<T, Error>) -> Result<(), Stop> {
        answer.map(drop).map_err(|error| Stop::Stream(Box::new(error.into())))
    }

    /// Neither has the instance been placed on this node, nor is it on its way from it: the loop of
    /// instances sees to the latter.
    fn is_stranger(&self, tables: &Schema, seen: &Observation) -> bool {
        let row = tables.instances.get(&InstanceRow::list_key(&seen.scope, seen.instance));
        row.is_none_or(|row| row.node != Some(self.node) && !row.former_nodes.contains(&self.node))
    }

    /// Records what was seen, and how far that is: one commit. `complete` has all that the node has.
    async fn commit(
        &self,
        observations: Vec<Observation>,
        reached: Option<u64>,
        complete: Option<BTreeSet<InstanceId>>,
    ) -> Result<(), Stop> {
        if observations.is_empty() && reached.is_none() {
            return Ok(());
        }
        let (node, incarnation, places, fleet) = (self.node, self.incarnation, self.core.places.clone(), self.core.fleet.clone());
        let _active = self.core.activity.begin();
        let committed = self.core.commit(move |tx| {
            let now = tx.now();
            let mut wake = Vec::new();
            for seen in observations {
                let key = InstanceRow::list_key(&seen.scope, seen.instance);
                let Some(row) = tx.instances.get(&key).cloned() else { continue };
                if row.node != Some(node) {
                    wake.push(key);
                    continue;
                }
                let Some(report) = seen.report(node, &row) else { continue };
                match observe(&row, &report, now) {
                    Decided::Change(next) => {
                        put_instance(tx, &places, (*next).clone(), &seen.event_id);
                        settle_volumes(tx, &next);
                    }
                    Decided::Unchanged | Decided::Stale => {}
                    Decided::Disowned => wake.push(key),
                }
            }
            if let Some(complete) = complete {
                wake.extend(forget_reports(tx, &places, &fleet, node, &complete));
            }
            if let Some(sequence) = reached {
                tx.put(NodeCursor { node, incarnation, sequence });
            }
            wake
        });
        let wake = committed.await.map_err(Stop::Store)?;
        self.core.instances.wake(wake);
        Ok(())
    }
}

/// What the node should have and has not is told to it again: its earlier reports count no more. Answers
/// the keys for which there is something to do now that the node has been seen through.
fn forget_reports(
    tx: &mut crate::store::Tx<'_>,
    places: &crate::places::Places,
    fleet: &crate::fleet::Fleet,
    node: NodeId,
    complete: &BTreeSet<InstanceId>,
) -> Vec<String> {
    let rows: Vec<_> = tx.instances.find(NODE_INDEX, &node.to_string()).cloned().collect();
    let mut wake = Vec::new();
    for row in rows {
        let told_since = fleet.world(tx, &row).applied >= row.generation;
        if row.node == Some(node) && !complete.contains(&row.id) && row.observed.generation != 0 && !told_since {
            let observed = Observed { generation: 0, ..row.observed };
            put_instance(tx, places, Instance { observed, ..row.record.0.clone() }, "");
        } else if needs_work(&row) {
            wake.push(row.record.key());
        }
    }
    wake
}

fn read(messages: Vec<Result<proto::WatchInstancesResponse, Status>>) -> Batch {
    let mut batch = Batch::default();
    for message in messages {
        match message {
            Ok(proto::WatchInstancesResponse { message: Some(Message::Event(event)) }) => {
                let metadata = event.metadata.unwrap_or_default();
                // A snapshot's items tell what is, not what happened; they have no id.
                if !metadata.id.is_empty() {
                    batch.reached = Some(metadata.sequence);
                }
                let Some(Resource::Instance(seen)) = event.resource.filter(|_| !metadata.deleted) else { continue };
                match Observation::read(seen, metadata.id) {
                    Ok(seen) => batch.observations.push(seen),
                    Err(refusal) => tracing::error!(%refusal, "a node told of an instance in a way that cannot be read"),
                }
            }
            Ok(proto::WatchInstancesResponse { message: Some(Message::CaughtUpToSequence(sequence)) }) => batch.reached = Some(sequence),
            Ok(proto::WatchInstancesResponse { message: None }) => {}
            Err(status) => batch.broken = Some(status),
        }
    }
    batch
}
