//! Calls to nodes, in batches that fit.

use gureum_model::{Scope, id::NodeId};
use gureum_proto::node::v1 as proto;
use gureum_service::Error;
use prost::Message;

use crate::core::Core;

/// Intents that one call carries at most: the node's own limit.
const APPLY_ITEMS: usize = 256;

/// Bytes that one call carries at most: below the limit of a message, which user data of 256 instances
/// would reach.
const APPLY_BYTES: usize = 3 << 20;

/// Instances that one call may let a node forget: the node's own limit.
const FORGET_ITEMS: usize = 1000;

/// Why a node was not asked.
fn unknown(node: NodeId) -> Error {
    Error::Internal(format!("the node {node} is not known to this process yet"))
}

/// Tells a node what instances shall be. The answers are in the order of the intents.
pub async fn apply(core: &Core, node: NodeId, intents: Vec<proto::DesiredInstance>) -> Result<Vec<proto::ApplyResult>, Error> {
    let (peer, mut client) = core.fleet.client(node).ok_or_else(|| unknown(node))?;
    let mut results = Vec::with_capacity(intents.len());
    for instances in batches(intents) {
        let call = client.apply_instances(proto::ApplyInstancesRequest { instances });
        let answer = core.in_scope(&Scope::default(), call).await.map_err(|status| peer.error(status))?;
        results.extend(answer.into_inner().results);
    }
    Ok(results)
}

fn batches(intents: Vec<proto::DesiredInstance>) -> Vec<Vec<proto::DesiredInstance>> {
    let mut batches: Vec<Vec<proto::DesiredInstance>> = Vec::new();
    let mut bytes = 0;
    for intent in intents {
        let size = intent.encoded_len();
        match batches.last_mut() {
            Some(batch) if batch.len() < APPLY_ITEMS && bytes + size <= APPLY_BYTES => {
                bytes += size;
                batch.push(intent);
            }
            Some(_) | None => {
                bytes = size;
                batches.push(vec![intent]);
            }
        }
    }
    batches
}

/// Lets a node forget instances that have ended there. Answers those that it no longer has.
pub async fn forget(core: &Core, node: NodeId, ended: Vec<proto::TerminatedInstance>) -> Result<Vec<String>, Error> {
    let (peer, mut client) = core.fleet.client(node).ok_or_else(|| unknown(node))?;
    let mut forgotten = Vec::with_capacity(ended.len());
    for instances in ended.chunks(FORGET_ITEMS) {
        let call = client.forget_terminated(proto::ForgetTerminatedRequest { instances: instances.to_vec() });
        let answer = core.in_scope(&Scope::default(), call).await.map_err(|status| peer.error(status))?;
        forgotten.extend(answer.into_inner().forgotten_instance_ids);
    }
    Ok(forgotten)
}
