//! Leases: a node that is silent for too long is lost. Real time, because nodes and networks are real.

use std::sync::Arc;

use gureum_compute_domain::node::{HEARTBEATS_PER_LEASE, Node, judge};
use gureum_model::id::NodeId;
use gureum_service::clock::monotonic;

use crate::{core::Core, store::put_node};

/// Judges all nodes again and again until it is dropped.
pub async fn run(core: Arc<Core>) {
    let period = core.settings.node_lease() / HEARTBEATS_PER_LEASE;
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = monotonic();
    loop {
        ticks.tick().await;
        let since = monotonic().saturating_duration_since(last);
        last = monotonic();
        if since > 2 * period {
            // This process stood still, and heard nothing because of that.
            core.fleet.excuse(since);
        }
        judge_all(&core).await;
    }
}

async fn judge_all(core: &Core) {
    let now = core.clock.now();
    let lease = core.settings.node_lease();
    let lost = |node: &Node| core.fleet.silence(node.id).and_then(|silent| judge(node, silent, lease, now));
    let silent: Vec<NodeId> = core.read().nodes.iter().filter(|row| lost(row).is_some()).map(|row| row.id).collect();
    if silent.is_empty() {
        return;
    }
    let (places, fleet) = (core.places.clone(), core.fleet.clone());
    let written = core.commit(move |tx| {
        let now = tx.now();
        // One that was heard of since stays.
        let judged = |id: &NodeId| judge(tx.nodes.get(&id.to_string())?, fleet.silence(*id)?, lease, now);
        let lost: Vec<Node> = silent.iter().filter_map(judged).collect();
        let ids: Vec<NodeId> = lost.iter().map(|node| node.id).collect();
        for node in lost {
            put_node(tx, &places, "NodeLost", node);
        }
        ids
    });
    match written.await {
        Ok(nodes) => tracing::warn!(?nodes, "nodes were not heard of for the time of their lease and are lost"),
        Err(error) => tracing::error!(%error, "lost nodes cannot be recorded"),
    }
}
