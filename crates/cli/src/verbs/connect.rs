//! `gureum connect`: a shell or a program in an instance.

use std::io::Read;

use clap::Args as ClapArgs;
use gureum_proto::{
    common::v1::{EndOfInput, SessionSignal, SessionStart, Terminal},
    compute::v1::{connect_instance_request::Message as Asked, connect_instance_response::Message as Told},
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tonic::Streaming;

use crate::{
    client::Client,
    failure::Failure,
    output::Output,
    resolve,
    session::{Input, PART, Session},
    terminal::{self, Raw},
};

/// What a shell adds to the number of the signal that ended a process.
const BY_SIGNAL: u8 = 128;

/// Open a shell in an instance, or run a program in it
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum connect web                              a shell
  gureum connect i-00000000000000001 -- uname -a
  gureum connect web -- tar -c /etc > etc.tar     standard error stays apart
  gureum connect web --user www-data -- id
  gureum connect web --no-terminal -- top -b -n 1

Ctrl-C and all other keys go to the program. It ends with the program's exit code; the program is hung up
if this command ends before it.")]
pub struct Args {
    /// Instance, by id or name
    instance: String,
    /// Who runs the program: a user of the instance
    #[arg(short, long, value_name = "NAME", default_value = "root")]
    user: String,
    /// Give the program a terminal, also where standard input or output is none
    #[arg(short, long, conflicts_with = "no_terminal")]
    terminal: bool,
    /// Give the program pipes in place of a terminal
    #[arg(short = 'T', long)]
    no_terminal: bool,
    /// The program and its arguments; the user's shell if not given
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the program, and ends with its exit code.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    let instance_id = resolve::instance(client, &args.instance).await?;
    let wanted = args.terminal || (!args.no_terminal && terminal::is_there());
    let kind = || std::env::var("TERM").ok().filter(|kind| !kind.is_empty()).unwrap_or_default();
    let terminal = wanted.then(|| Terminal { r#type: kind(), size: terminal::size() });
    let start = SessionStart { instance_id, command: args.command, terminal, user: args.user };
    let signals = Signals::take().map_err(|error| Failure::Broken(format!("signals cannot be taken: {error}")))?;
    let session = Session::open(client, start).await?;
    let raw = wanted.then(Raw::enter).flatten();
    let input = session.input.clone();
    std::thread::spawn(move || type_in(&input));
    let ended = tokio::select! {
        ended = show(session.output, client, out) => ended,
        failure = pass_on(signals, session.input, wanted) => Err(failure),
    };
    drop(raw);
    match ended? {
        0 => Ok(()),
        code => Err(Failure::Exit(code)),
    }
}

/// Sends what is typed, to its end. On a thread of its own, which ends with the process: nobody can call off a read.
fn type_in(input: &Input) {
    let mut bytes = vec![0; PART];
    let mut stdin = std::io::stdin().lock();
    loop {
        match stdin.read(&mut bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => {
                input.send_waiting(Asked::EndOfInput(EndOfInput {}));
                return;
            }
            Ok(count) => {
                if !input.send_waiting(Asked::Input(bytes[..count].to_vec())) {
                    return;
                }
            }
        }
    }
}

/// Shows what the program writes, and answers its exit code.
async fn show(
    mut output: Streaming<gureum_proto::compute::v1::ConnectInstanceResponse>,
    client: &Client,
    out: &Output,
) -> Result<u8, Failure> {
    loop {
        match output.message().await.map_err(|status| client.failed(status))? {
            Some(told) => match told.message {
                Some(Told::Stdout(bytes)) => out.write_bytes(&bytes)?,
                Some(Told::Stderr(bytes)) => out.write_error_bytes(&bytes)?,
                Some(Told::Exit(exit)) => return Ok(u8::try_from(exit.code).unwrap_or(u8::MAX)),
                None => {}
            },
            None => return Err(Failure::Broken("the region ended the session without a word".into())),
        }
    }
}

struct Signals {
    window: Signal,
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn take() -> std::io::Result<Self> {
        Ok(Self {
            window: signal(SignalKind::window_change())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// Passes on what this process is told: a new size, and Ctrl-C where it is no key of a terminal's. Ends with what ends this
/// process: then the terminal is still put back.
async fn pass_on(mut signals: Signals, input: Input, has_terminal: bool) -> Failure {
    let mut interrupted = false;
    loop {
        let message = tokio::select! {
            _ = signals.window.recv() => terminal::size().filter(|_| has_terminal).map(Asked::Resize),
            // A program that takes no notice of the first is left by the second.
            _ = signals.interrupt.recv() => {
                if std::mem::replace(&mut interrupted, true) {
                    return Failure::Exit(BY_SIGNAL + 2);
                }
                Some(Asked::Signal(SessionSignal::Int.into()))
            }
            _ = signals.terminate.recv() => return Failure::Exit(BY_SIGNAL + 15),
            _ = signals.hang_up.recv() => return Failure::Exit(BY_SIGNAL + 1),
        };
        if let Some(message) = message
            && !input.send(message).await
        {
            // How the session ended is told.
            return std::future::pending().await;
        }
    }
}
