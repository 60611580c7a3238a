//! Programs that are run in instances, and consoles that are followed.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use gureum_model::{Refusal, id::InstanceId, refusal::Violations};
use gureum_node_domain::ObservedState;
use gureum_proto::{
    common::v1 as common,
    node::v1::{self as proto, connect_instance_request::Message as Asked, connect_instance_response::Message as Told},
};
use gureum_service::{Error, error::ending};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{
    api::{Api, instances},
    session::{Input, Output, Session, SessionError, Size, Start, Terminal},
};

/// Bytes of a command: it goes to the shim as one line.
const LONGEST_COMMAND: usize = 32 << 10;
const DEFAULT_USER: &str = "root";
const DEFAULT_TERMINAL: &str = "dumb";
const DEFAULT_SIZE: Size = Size { rows: 24, columns: 80 };

pub type ConnectStream = Pin<Box<dyn Stream<Item = Result<proto::ConnectInstanceResponse, Status>> + Send>>;
pub type WatchConsoleStream = Pin<Box<dyn Stream<Item = Result<proto::WatchConsoleResponse, Status>> + Send>>;

/// Follows a console.
pub async fn watch_console(api: &Api, request: proto::WatchConsoleRequest) -> Result<WatchConsoleStream, Error> {
    let id: InstanceId = Refusal::parse_id("instance_id", &request.instance_id)?;
    let row = instances::find(&api.records.store().read(), Some(id))?;
    let output = api.driver.watch_console(&row, request.follow, request.tail_bytes).await.map_err(Refusal::from)?;
    let output = ReceiverStream::new(output).map(move |read| match read {
        Ok(output) => Ok(proto::WatchConsoleResponse { output }),
        Err(error) => Err(Status::from(Error::Internal(format!("reading the console of {id}: {error}")))),
    });
    Ok(Box::pin(output))
}

/// Runs a program for as long as its caller listens.
pub async fn connect(api: &Api, mut requests: Streaming<proto::ConnectInstanceRequest>) -> Result<ConnectStream, Status> {
    let first = requests.message().await?.and_then(|request| request.message);
    let (id, start) = read_start(first).map_err(Error::from)?;
    let row = instances::find(&api.records.store().read(), Some(id)).map_err(Error::from)?;
    let up = matches!(row.state, ObservedState::Running { .. });
    let session = if up { api.driver.open_session(&row, start).await } else { Err(SessionError::NotUp { id }) };
    let session = session.map_err(Refusal::from).map_err(Error::from)?;
    let shutdown = api.shutdown.clone();
    // One: what waits further is counted by the session itself.
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let Session { input, mut output } = session;
        let failed = tokio::select! {
            ended = tell(id, &mut output, &sender) => ended,
            failed = hear(requests, &input) => Some(failed),
            () = shutdown.cancelled() => Some(ending("connect again")),
            () = sender.closed() => None,
        };
        if let Some(status) = failed {
            let _ = sender.send(Err(status)).await;
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

/// Passes on what a program writes, to its end. Answers what is wrong if that is not its own.
async fn tell(
    id: InstanceId,
    output: &mut mpsc::Receiver<Output>,
    to: &mpsc::Sender<Result<proto::ConnectInstanceResponse, Status>>,
) -> Option<Status> {
    while let Some(output) = output.recv().await {
        let told = match output {
            Output::Stdout(bytes) => Told::Stdout(bytes),
            Output::Stderr(bytes) => Told::Stderr(bytes),
            Output::Exit { code, signal } => Told::Exit(common::SessionExit { code, signal: signal.unwrap_or_default() }),
            Output::Closed { message } => {
                let text = format!("{message}: the session in {id} ended with it");
                return Some(Error::from(Refusal::wrong_state("IncorrectInstanceState", text)).into());
            }
        };
        let last = matches!(told, Told::Exit(_));
        to.send(Ok(proto::ConnectInstanceResponse { message: Some(told) })).await.ok()?;
        if last {
            return None;
        }
    }
    Some(Error::Internal(format!("the driver lost a session of {id}")).into())
}

/// Passes on what a program gets. Ends only when the caller breaks a rule, or breaks off.
async fn hear(mut requests: Streaming<proto::ConnectInstanceRequest>, input: &mpsc::Sender<Input>) -> Status {
    loop {
        let next = match requests.message().await {
            Ok(Some(request)) => match read_input(request.message) {
                Ok(next) => next,
                Err(refusal) => return Error::from(refusal).into(),
            },
            // What was to be said of its end was said.
            Ok(None) => return std::future::pending().await,
            Err(status) => return status,
        };
        if input.send(next).await.is_err() {
            // It has ended, which is told.
            return std::future::pending().await;
        }
    }
}

fn read_start(first: Option<Asked>) -> Result<(InstanceId, Start), Refusal> {
    let Some(Asked::Start(start)) = first else { return Err(Refusal::missing("start")) };
    let mut violations = Violations::new();
    let id = violations.id("start.instance_id", &start.instance_id);
    let length: usize = start.command.iter().map(|word| word.len() + 1).sum();
    if length > LONGEST_COMMAND {
        violations.add("start.command", format!("{length} bytes are too long for a command: {LONGEST_COMMAND} are the most"));
    }
    let kind = start.terminal.as_ref().map_or("", |terminal| &terminal.r#type);
    let texts = start.command.iter().map(String::as_str).chain([start.user.as_str(), kind]);
    if texts.into_iter().any(|text| text.contains('\0')) {
        violations.add("start.command", "no program can be given a zero byte");
    }
    violations.finish()?;
    let or = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
    let terminal = start
        .terminal
        .map(|terminal| Terminal { kind: or(terminal.r#type, DEFAULT_TERMINAL), size: terminal.size.map_or(DEFAULT_SIZE, read_size) });
    let id = id.ok_or_else(|| Refusal::missing("start.instance_id"))?;
    Ok((id, Start { command: start.command, terminal, user: or(start.user, DEFAULT_USER) }))
}

fn read_size(size: common::WindowSize) -> Size {
    let limited = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    Size { rows: limited(size.rows), columns: limited(size.columns) }
}

fn read_input(message: Option<Asked>) -> Result<Input, Refusal> {
    match message {
        Some(Asked::Input(bytes)) => Ok(Input::Bytes(bytes)),
        Some(Asked::EndOfInput(_)) => Ok(Input::End),
        Some(Asked::Resize(size)) => Ok(Input::Resize(read_size(size))),
        Some(Asked::Signal(signal)) => match common::SessionSignal::try_from(signal).ok().and_then(number) {
            Some(number) => Ok(Input::Signal(number)),
            None => Err(Refusal::invalid("signal", format!("{signal} is no signal that a session takes"))),
        },
        Some(Asked::Start(_)) => Err(Refusal::invalid("start", "a session runs one program: make another call for the next")),
        None => Err(Refusal::missing("message")),
    }
}

/// As Linux counts them (`signal(7)`).
fn number(signal: common::SessionSignal) -> Option<i32> {
    match signal {
        common::SessionSignal::Unspecified => None,
        common::SessionSignal::Hup => Some(1),
        common::SessionSignal::Int => Some(2),
        common::SessionSignal::Quit => Some(3),
        common::SessionSignal::Kill => Some(9),
        common::SessionSignal::Term => Some(15),
    }
}

#[cfg(test)]
mod tests {
    use gureum_model::id::ResourceId;

    use super::*;

    fn start(start: common::SessionStart) -> Result<(InstanceId, Start), Refusal> {
        read_start(Some(Asked::Start(start)))
    }

    #[test]
    fn a_session_is_read_with_its_defaults_and_refused_with_its_field() {
        let id = InstanceId::from_number(7);
        let plain = common::SessionStart { instance_id: id.to_string(), ..Default::default() };
        assert_eq!(start(plain.clone()), Ok((id, Start { command: Vec::new(), terminal: None, user: "root".into() })));
        let terminal = common::SessionStart { terminal: Some(common::Terminal::default()), ..plain.clone() };
        let read = start(terminal).map(|(_, start)| start.terminal);
        assert_eq!(read, Ok(Some(Terminal { kind: "dumb".into(), size: DEFAULT_SIZE })));
        for command in [vec!["x".repeat(LONGEST_COMMAND)], vec!["a\0b".into()]] {
            let refused = start(common::SessionStart { command, ..plain.clone() });
            assert!(refused.is_err_and(|refusal| refusal.violations[0].field == "start.command"));
        }
        assert!(read_start(Some(Asked::Input(Vec::new()))).is_err_and(|refusal| refusal.reason == "MissingParameter"));
        assert!(read_start(None).is_err() && read_input(Some(Asked::Start(plain))).is_err());
        assert!(read_input(Some(Asked::Signal(0))).is_err_and(|refusal| refusal.violations[0].field == "signal"));
    }
}
