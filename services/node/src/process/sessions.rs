//! Sessions: the shim is asked for one, and answers with the terminal's or the pipes' ends. From then on a task carries the
//! bytes, and the connection to the shim tells how the program ended; when this process ends, both end with it.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use gureum_model::id::InstanceId;
use gureum_shim::{
    control::Lines,
    protocol::{CONTROL_SOCKET, Command},
    session::{Exit, SessionCommand, SessionRequest, SessionTold, Terminal},
};
use rustix::{
    fs::{OFlags, fcntl_setfl},
    termios::{Winsize, tcsetwinsize},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, watch},
};

use super::keeper::connect;
use crate::session::{Input, Output, Session, SessionError, Size, Start, WAITING};

/// Bytes that are read at a time: half of what a pipe holds.
const READ: usize = 32 << 10;

/// How long a shim may take to answer. One of an earlier version does not know the question, and never will.
const OPENED_WITHIN: Duration = Duration::from_secs(10);

/// The kernel's time to hang a terminal up when the program that leads its session has ended. What a terminal has not shown
/// by then is not waited for.
const HUNG_UP_WITHIN: Duration = Duration::from_secs(1);

/// What a terminal takes for the end of its input: Ctrl-D.
const END_OF_FILE: &[u8] = b"\x04";

type Port = Arc<AsyncFd<OwnedFd>>;

/// The ends of what a program reads and writes.
struct Ends {
    input: Port,
    output: Port,
    /// None for a terminal.
    errors: Option<Port>,
}

/// Begins a session in the instance of this directory.
pub async fn open(id: InstanceId, directory: &Path, start: Start) -> Result<Session, SessionError> {
    let stream = connect(&directory.join(CONTROL_SOCKET)).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => SessionError::NotUp { id },
        _ => SessionError::Away(format!("the shim of {id} is not reached: {error}")),
    })?;
    let away = |error: io::Error| SessionError::Away(format!("the shim of {id} does not answer: {error}"));
    let mut lines = stream.into_std().and_then(Lines::new).map_err(away)?;
    let terminal = start.terminal.map(|it| Terminal { kind: it.kind, rows: it.size.rows, columns: it.size.columns });
    let request = SessionRequest { command: start.command, terminal, user: start.user };
    let (has_terminal, expected) = (request.terminal.is_some(), request.files());
    if !lines.write(&Command::Session { request }) {
        return Err(away(io::ErrorKind::BrokenPipe.into()));
    }
    let mut link = waited_for(lines).map_err(away)?;
    let told = tokio::time::timeout(OPENED_WITHIN, next(&mut link)).await;
    let earlier =
        || SessionError::Away(format!("the shim of {id} does not answer; if it was booted by an earlier version, stop it and start it"));
    let mut told = told.map_err(|_| earlier())?.into_iter();
    match told.next() {
        Some(SessionTold::Opened) => {}
        Some(SessionTold::Refused { message }) => return Err(SessionError::Refused(message)),
        Some(SessionTold::Ended(_) | SessionTold::Closed { .. }) | None => return Err(SessionError::NotUp { id }),
    }
    let mut files = link.get_mut().take_files().into_iter().map(port).collect::<io::Result<Vec<_>>>().map_err(away)?.into_iter();
    let ends = match (has_terminal, files.len() == expected, files.next()) {
        (true, true, Some(terminal)) => Some(Ends { input: terminal.clone(), output: terminal, errors: None }),
        (false, true, Some(input)) => files.next().map(|output| Ends { input, output, errors: files.next() }),
        _ => None,
    };
    let ends = ends.ok_or_else(|| away(io::ErrorKind::InvalidData.into()))?;
    let (input, inputs) = mpsc::channel(WAITING);
    let (outputs, output) = mpsc::channel(WAITING);
    // It may have ended by the time that it was told to have begun.
    tokio::spawn(carry(link, told.next(), ends, inputs, outputs));
    Ok(Session { input, output })
}

fn port(file: OwnedFd) -> io::Result<Port> {
    fcntl_setfl(&file, OFlags::NONBLOCK | rustix::fs::fcntl_getfl(&file)?)?;
    waited_for(file).map(Arc::new)
}

#[allow(
    deprecated,
    reason = "what replaces it is unsafe, for types that change their descriptor: these keep theirs until they are dropped"
)]
fn waited_for<T: AsRawFd>(file: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(file)
}

/// What the shim says next; nothing if it has gone.
async fn next(link: &mut AsyncFd<Lines>) -> Vec<SessionTold> {
    loop {
        let Ok(mut ready) = link.readable_mut().await else { return Vec::new() };
        match ready.get_inner_mut().read::<SessionTold>() {
            // All that there is was read, or it would not be looked at again.
            Some(told) if told.is_empty() => ready.clear_ready(),
            told => return told.unwrap_or_default(),
        }
    }
}

/// Carries a session until its program has ended and all that it wrote was taken, or whoever has it lets it go.
async fn carry(
    mut link: AsyncFd<Lines>,
    told: Option<SessionTold>,
    ends: Ends,
    inputs: mpsc::Receiver<Input>,
    outputs: mpsc::Sender<Output>,
) {
    let Ok(writer) = link.get_ref().writer() else { return };
    let (ended, ending) = watch::channel(false);
    // Its input's end must be nowhere else: it is closed where the input ends.
    let Ends { input, output, errors } = ends;
    let terminal = errors.is_none();
    let end = async {
        let told = match told {
            None => next(&mut link).await.into_iter().next(),
            told => told,
        };
        let _ = ended.send(true);
        match told {
            Some(SessionTold::Ended(Exit { code, signal })) => Output::Exit { code, signal },
            Some(SessionTold::Closed { message }) => Output::Closed { message },
            Some(SessionTold::Opened | SessionTold::Refused { .. }) | None => {
                Output::Closed { message: "the instance's shim ended".into() }
            }
        }
    };
    let errors = async {
        if let Some(errors) = &errors {
            read_all(errors, Output::Stderr, &outputs, ending.clone(), false).await;
        }
    };
    let all = async {
        let output = read_all(&output, Output::Stdout, &outputs, ending.clone(), terminal);
        let (last, (), ()) = tokio::join!(end, output, errors);
        // Who does not take it has gone.
        let _ = outputs.send(last).await;
    };
    tokio::select! {
        () = all => {}
        () = feed(inputs, input, writer, terminal) => {}
        () = outputs.closed() => {}
    }
}

/// Reads to the end; or once the program has ended, what there still is: what it left in the background is not waited for.
async fn read_all(
    from: &Port,
    wrap: impl Fn(Vec<u8>) -> Output,
    to: &mpsc::Sender<Output>,
    mut ending: watch::Receiver<bool>,
    terminal: bool,
) {
    let mut bytes = vec![0; READ];
    loop {
        let ended = *ending.borrow();
        // The kernel is asked, not what was heard of it: that it has something may not have been heard yet.
        let read = if ended {
            rustix::io::read(from.get_ref(), &mut bytes).map_err(io::Error::from)
        } else {
            from.try_io(Interest::READABLE, |file| Ok(rustix::io::read(file, &mut bytes)?))
        };
        let read = match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && ended && !terminal => return,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && ended => {
                match tokio::time::timeout(HUNG_UP_WITHIN, from.readable()).await {
                    Ok(Ok(mut ready)) => ready.clear_ready(),
                    _ => return,
                }
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::select! {
                    ready = from.readable() => if ready.is_err() { return },
                    changed = ending.changed() => if changed.is_err() { return },
                }
                continue;
            }
            read => read,
        };
        match read {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A terminal that no program has open any more answers EIO.
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if to.send(wrap(bytes[..count].to_vec())).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Gives a program what it gets. Never ends: a program goes on without its input.
async fn feed(mut inputs: mpsc::Receiver<Input>, port: Port, mut shim: Lines, terminal: bool) {
    let mut port = Some(port);
    while let Some(input) = inputs.recv().await {
        match (input, &port) {
            (Input::Bytes(bytes), Some(open)) => {
                if write_all(open, &bytes).await.is_err() {
                    // It has closed its standard input.
                    port = None;
                }
            }
            (Input::End, Some(open)) if terminal => drop(write_all(open, END_OF_FILE).await),
            (Input::End, _) => port = None,
            (Input::Resize(Size { rows, columns }), Some(open)) if terminal => {
                let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                let _ = tcsetwinsize(open.get_ref(), size);
            }
            // A shim that does not hear it has ended, which is told.
            (Input::Signal(signal), _) => drop(shim.write(&SessionCommand::Signal(signal))),
            (Input::Bytes(_) | Input::Resize(_), _) => {}
        }
    }
    std::future::pending().await
}

async fn write_all(to: &Port, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = to.async_io(Interest::WRITABLE, |file| Ok(rustix::io::write(file, bytes)?)).await?;
        bytes = &bytes[count..];
    }
    Ok(())
}
