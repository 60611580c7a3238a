//! Keeps what ended instances wrote, before their nodes forget it.

use futures::{StreamExt, stream};
use gureum_compute_domain::console::{Console, is_last};
use gureum_model::{Scope, id::NodeId};
use gureum_proto::node::v1 as proto;
use gureum_service::{Error, wire};
use tonic::Code;

use super::instances::InstanceRef;
use crate::{core::Core, store::put_console};

/// Consoles that a node is asked for at a time.
const CALLS_AT_ONCE: usize = 16;

/// What became of the consoles of some instances.
pub struct Kept {
    /// Nothing is lost if the node forgets these.
    pub kept: Vec<InstanceRef>,
    /// These were not told, or not recorded, for the time being.
    pub failed: Option<(Vec<InstanceRef>, Error)>,
}

/// Keeps the consoles of those of these instances that are over and that users still see: one commit.
///
/// One that the node cannot read is done without. While the node does not answer, it would not forget either;
/// the end of the instances is recorded already, so nobody waits for it.
pub async fn keep_last(core: &Core, node: NodeId, rows: Vec<InstanceRef>) -> Kept {
    let now = core.clock.now();
    let (ended, mut kept): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| is_last(row, now) && row.node.is_none_or(|its| its == node));
    if ended.is_empty() {
        return Kept { kept, failed: None };
    }
    let asked = stream::iter(ended).map(|row| async { (read(core, node, &row).await, row) });
    let answers: Vec<_> = core.in_scope(&Scope::default(), asked.buffer_unordered(CALLS_AT_ONCE).collect()).await;
    let (mut read, mut consoles, mut unread, mut why) = (Vec::new(), Vec::new(), Vec::new(), None);
    for (answer, row) in answers {
        match answer {
            Ok(console) => {
                consoles.extend(console);
                read.push(row);
            }
            Err(error) => {
                unread.push(row);
                why = Some(error);
            }
        }
    }
    if !consoles.is_empty()
        && let Err(error) = core.commit(move |tx| consoles.into_iter().for_each(|console| put_console(tx, console))).await
    {
        unread.append(&mut read);
        why = Some(error);
    }
    kept.append(&mut read);
    Kept { kept, failed: why.map(|error| (unread, error)) }
}

/// None if it wrote nothing, or the node knows nothing of it or cannot read it.
async fn read(core: &Core, node: NodeId, row: &InstanceRef) -> Result<Option<Console>, Error> {
    let Some((peer, mut client)) = core.fleet.client(node) else {
        return Err(Error::Internal(format!("the node {node} is not known to this process yet")));
    };
    match client.get_console_output(proto::GetConsoleOutputRequest { instance_id: row.id.to_string() }).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            let time = answer.time.as_ref().map_or(core.clock.now(), wire::from_timestamp);
            Ok(Console::read(&row.scope, row.id, &answer.output, time))
        }
        Err(status) if status.code() == Code::Internal => {
            tracing::warn!(%node, instance = %row.id, %status, "the console of an instance that ended cannot be read and is not kept");
            Ok(None)
        }
        Err(status) => {
            let error = peer.error(status);
            if error.is_transient() { Err(error) } else { Ok(None) }
        }
    }
}
