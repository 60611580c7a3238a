//! What an instance wrote to its console.

use std::sync::Arc;

use gureum_compute_domain::{console::Console, plan::Reach};
use gureum_model::{Refusal, id::InstanceId};
use gureum_proto::{compute::v1 as proto, node::v1 as node};
use gureum_service::{Error, scope, wire};
use gureum_store::Listed;

use super::instances::get;
use crate::{
    core::Core,
    fleet::reach_of,
    store::{InstanceRow, put_console},
};

/// Asks the instance's node. One that has not booted yet has written nothing; for one whose node is
/// away, or that has ended, what was last read is told.
pub async fn get_console_output(
    core: &Arc<Core>,
    request: proto::GetConsoleOutputRequest,
) -> Result<proto::GetConsoleOutputResponse, Error> {
    let id: InstanceId = Refusal::parse_id("instance_id", &request.instance_id)?;
    let node = {
        let state = core.read();
        let it = get(&state, &scope(), id, core.clock.now())?;
        it.node.filter(|node| reach_of(&state, *node) != Reach::Dead)
    };
    let console = match node.and_then(|node| core.fleet.client(node)) {
        None if node.is_some() => Some(kept(core, id).ok_or_else(away)?),
        None => kept(core, id),
        Some((peer, mut client)) => {
            let asked = client.get_console_output(node::GetConsoleOutputRequest { instance_id: id.to_string() }).await;
            match asked.map_err(|status| peer.error(status)) {
                Ok(answer) => keep(core, id, &answer.into_inner()).await,
                // The node has not heard of it yet, or has forgotten it already.
                Err(error) if error.reason().as_deref() == Some("InvalidInstanceID.NotFound") => kept(core, id),
                Err(error) => Some(kept(core, id).ok_or(error)?),
            }
        }
    };
    let update_time = console.as_ref().map(|console| wire::timestamp(console.time));
    let output = console.map(|console| console.output.to_vec()).unwrap_or_default();
    Ok(proto::GetConsoleOutputResponse { instance_id: id.to_string(), output, update_time })
}

/// What was last read, as it is now: the instance may have been forgotten since.
pub fn kept(core: &Core, id: InstanceId) -> Option<Console> {
    core.read().consoles.get(&InstanceRow::list_key(&scope(), id)).map(|row| row.record.0.clone())
}

/// Keeps what the node answered, if it is news, for when the node is away.
async fn keep(core: &Core, id: InstanceId, answer: &node::GetConsoleOutputResponse) -> Option<Console> {
    let time = answer.time.as_ref().map_or(core.clock.now(), wire::from_timestamp);
    let console = Console::read(&scope(), id, &answer.output, time)?;
    if console.replaces(kept(core, id).as_ref()) {
        let written = console.clone();
        if let Err(error) = core.commit(move |tx| put_console(tx, written)).await {
            tracing::warn!(instance = %id, %error, "a console is told and not kept");
        }
    }
    Some(console)
}

/// The instance's node is away, or not known to this process yet.
pub fn away() -> Refusal {
    Refusal::new(gureum_model::RefusalKind::Unavailable, "ServiceUnavailable", "the instance's node is not heard of; try again")
}
