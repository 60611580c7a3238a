//! Programs that users run in instances, and consoles that they follow: relayed to the instance's node, message by message,
//! so that a slow end holds up the other and nothing is gathered here.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use gureum_compute_domain::{instance::StateName, plan::Reach};
use gureum_model::{
    Refusal,
    id::{InstanceId, NodeId},
};
use gureum_proto::{
    common::v1::{EndOfInput, SessionStart},
    compute::v1::{self as proto, connect_instance_request::Message as Asked, connect_instance_response::Message as Told},
    node::v1::{self as node, connect_instance_request::Message as ToNode, connect_instance_response::Message as FromNode},
};
use gureum_service::{CancellationToken, Error, Peer, error::ending, scope};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{console, instances::get};
use crate::{core::Core, fleet::reach_of};

pub type ConnectStream = Pin<Box<dyn Stream<Item = Result<proto::ConnectInstanceResponse, Status>> + Send>>;
pub type WatchConsoleStream = Pin<Box<dyn Stream<Item = Result<proto::WatchConsoleResponse, Status>> + Send>>;

/// How often, and after what pause, a node is asked again that has not heard of an instance yet: it is told within
/// milliseconds of the launch.
const TRIES: u32 = 50;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// Runs a program in a running instance for as long as its caller listens.
pub async fn connect_instance(core: &Arc<Core>, mut requests: Streaming<proto::ConnectInstanceRequest>) -> Result<ConnectStream, Status> {
    let first = requests.message().await?.and_then(|request| request.message);
    let Some(Asked::Start(start)) = first else { return Err(Error::from(Refusal::missing("start")).into()) };
    let node = node_of_running(core, &start).map_err(Error::from)?;
    let Some((peer, mut client)) = core.fleet.client(node) else { return Err(Error::from(console::away()).into()) };
    let (fail, failed) = mpsc::channel(1);
    let first = node::ConnectInstanceRequest { message: Some(ToNode::Start(start)) };
    let to_node = stream::once(async { first }).chain(relayed(requests, fail));
    let from_node = client.connect_instance(to_node).await.map_err(|status| Status::from(peer.error(status)))?.into_inner();
    let session = Session { from_node, failed, peer, shutdown: core.shutdown.clone() };
    Ok(Box::pin(stream::unfold(Some(session), |session| async { session?.next().await })))
}

/// Where the instance that a call names runs.
fn node_of_running(core: &Core, start: &SessionStart) -> Result<NodeId, Refusal> {
    let id: InstanceId = Refusal::parse_id("start.instance_id", &start.instance_id)?;
    let state = core.read();
    let it = get(&state, &scope(), id, core.clock.now())?;
    match (it.state.name(), it.node) {
        (StateName::Running, Some(node)) if reach_of(&state, node) == Reach::Up => Ok(node),
        (StateName::Running, _) => Err(console::away()),
        (other, _) => {
            let text = format!("the instance '{id}' is {}; a program can be run in a running one", other.as_str());
            Err(Refusal::wrong_state("IncorrectInstanceState", text))
        }
    }
}

/// What a caller sends, for the node. Where he says no more, that is said to the node, which takes the mere end of its
/// stream for nothing: it comes also where he breaks off, and then the program's input must not seem whole.
fn relayed(
    requests: Streaming<proto::ConnectInstanceRequest>,
    fail: mpsc::Sender<Status>,
) -> impl Stream<Item = node::ConnectInstanceRequest> + Send {
    stream::unfold(Some((requests, fail)), |state| async {
        let (mut requests, fail) = state?;
        match requests.message().await {
            Ok(Some(request)) => Some((node::ConnectInstanceRequest { message: request.message.map(to_node) }, Some((requests, fail)))),
            Ok(None) => Some((node::ConnectInstanceRequest { message: Some(ToNode::EndOfInput(EndOfInput {})) }, None)),
            Err(status) => {
                // Where nobody waits for it, the session has ended.
                let _ = fail.try_send(status);
                None
            }
        }
    })
}

fn to_node(message: Asked) -> ToNode {
    match message {
        Asked::Start(start) => ToNode::Start(start),
        Asked::Input(bytes) => ToNode::Input(bytes),
        Asked::EndOfInput(end) => ToNode::EndOfInput(end),
        Asked::Resize(size) => ToNode::Resize(size),
        Asked::Signal(signal) => ToNode::Signal(signal),
    }
}

fn from_node(message: FromNode) -> Told {
    match message {
        FromNode::Stdout(bytes) => Told::Stdout(bytes),
        FromNode::Stderr(bytes) => Told::Stderr(bytes),
        FromNode::Exit(exit) => Told::Exit(exit),
    }
}

/// A session on its way to its caller. Dropped, it ends on the node.
struct Session {
    from_node: Streaming<node::ConnectInstanceResponse>,
    failed: mpsc::Receiver<Status>,
    peer: Peer,
    shutdown: CancellationToken,
}

impl Session {
    async fn next(mut self) -> Option<(Result<proto::ConnectInstanceResponse, Status>, Option<Self>)> {
        let told = tokio::select! {
            told = self.from_node.message() => told.map_err(|status| Status::from(self.peer.error(status))),
            // None: he has sent all that he will.
            Some(status) = self.failed.recv() => Err(status),
            () = self.shutdown.cancelled() => Err(ending("connect again")),
        };
        match told {
            Ok(None) => None,
            Ok(Some(told)) => Some((Ok(proto::ConnectInstanceResponse { message: told.message.map(from_node) }), Some(self))),
            Err(status) => Some((Err(status), None)),
        }
    }
}

/// Follows a console. What an instance wrote whose node has forgotten it, or is given up, is what was last kept of it.
pub async fn watch_console(core: &Arc<Core>, request: proto::WatchConsoleRequest) -> Result<WatchConsoleStream, Status> {
    let id: InstanceId = Refusal::parse_id("instance_id", &request.instance_id).map_err(Error::from)?;
    for _ in 0..TRIES {
        let (node, over) = {
            let state = core.read();
            let it = get(&state, &scope(), id, core.clock.now()).map_err(Error::from)?;
            let over = it.state.name() == StateName::Terminated;
            (it.node.filter(|node| reach_of(&state, *node) != Reach::Dead), over)
        };
        if let Some((peer, mut client)) = node.and_then(|node| core.fleet.client(node)) {
            let asked = node::WatchConsoleRequest { instance_id: id.to_string(), follow: request.follow, tail_bytes: request.tail_bytes };
            match client.watch_console(asked).await.map_err(|status| peer.error(status)) {
                Ok(answer) => return Ok(followed(answer.into_inner(), peer, core.shutdown.clone())),
                Err(error) if error.reason().as_deref() != Some("InvalidInstanceID.NotFound") => return Err(error.into()),
                // It has forgotten it already, or not heard of it yet.
                Err(_) => {}
            }
        } else if node.is_some() {
            return Err(Error::from(console::away()).into());
        }
        if over || !request.follow {
            break;
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
    let kept = console::kept(core, id).map(|console| Ok(proto::WatchConsoleResponse { output: console.output.to_vec() }));
    Ok(Box::pin(stream::iter(kept)))
}

fn followed(from_node: Streaming<node::WatchConsoleResponse>, peer: Peer, shutdown: CancellationToken) -> WatchConsoleStream {
    let output = from_node.map(move |told| match told {
        Ok(told) => Ok(proto::WatchConsoleResponse { output: told.output }),
        Err(status) => Err(Status::from(peer.error(status))),
    });
    let stopped = shutdown.clone();
    let last = stream::once(async move { stopped.is_cancelled().then(|| Err(ending("follow it again"))) });
    Box::pin(output.take_until(shutdown.cancelled_owned()).chain(last.filter_map(std::future::ready)))
}
