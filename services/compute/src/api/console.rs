//! What an instance wrote to its console.

use std::sync::Arc;

use gureum_compute_domain::plan::Reach;
use gureum_model::{Refusal, id::InstanceId};
use gureum_proto::{compute::v1 as proto, node::v1 as node};
use gureum_service::{Error, scope, wire};

use super::instances::get;
use crate::{
    core::{Console, Core},
    fleet::reach_of,
};

/// Asks the instance's node. One that has not booted yet has written nothing; for one whose node is
/// away, or that has ended, what was last read is told.
pub async fn get_console_output(
    core: &Arc<Core>,
    request: proto::GetConsoleOutputRequest,
) -> Result<proto::GetConsoleOutputResponse, Error> {
    let id: InstanceId = request.instance_id.parse().map_err(Refusal::from)?;
    let node = {
        let state = core.read();
        let it = get(&state, &scope(), id, core.clock.now())?;
        it.node.filter(|node| reach_of(&state, *node) != Reach::Dead)
    };
    let console = match node.and_then(|node| core.fleet.client(node)) {
        None if node.is_some() => core.consoles.get(id).ok_or_else(away)?,
        None => core.consoles.get(id).unwrap_or_default(),
        Some((peer, mut client)) => {
            let asked = client.get_console_output(node::GetConsoleOutputRequest { instance_id: id.to_string() }).await;
            match asked.map_err(|status| peer.error(status)) {
                Ok(answer) => keep(core, id, answer.into_inner()),
                // The node has not heard of it yet, or has forgotten it already.
                Err(error) if error.reason().as_deref() == Some("InvalidInstanceID.NotFound") => core.consoles.get(id).unwrap_or_default(),
                Err(error) => core.consoles.get(id).ok_or(error)?,
            }
        }
    };
    let update_time = console.time.map(wire::timestamp);
    Ok(proto::GetConsoleOutputResponse { instance_id: id.to_string(), output: console.output, update_time })
}

fn keep(core: &Core, id: InstanceId, answer: node::GetConsoleOutputResponse) -> Console {
    let time = answer.time.as_ref().map(wire::from_timestamp).filter(|_| !answer.output.is_empty());
    let console = Console { output: answer.output, time };
    if console.time.is_some() {
        core.consoles.keep(id, console.clone());
    }
    console
}

fn away() -> Refusal {
    Refusal::new(gureum_model::RefusalKind::Unavailable, "ServiceUnavailable", "the instance's node is not heard of; try again")
}
