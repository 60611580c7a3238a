//! Programs that a driver runs in an instance for whoever asks, and consoles that are followed, as data.

use gureum_model::{Refusal, RefusalKind, id::InstanceId};
use tokio::sync::mpsc;

/// Messages of a session that wait for a slow reader, of 32 KiB each at most: beyond them its program waits, which is how a
/// session never costs more memory than this.
pub const WAITING: usize = 4;

/// What is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The program and its arguments; none: the user's login shell.
    pub command: Vec<String>,
    /// Absent: it gets pipes.
    pub terminal: Option<Terminal>,
    pub user: String,
}

/// A terminal, as the value of TERM and its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminal {
    pub kind: String,
    pub size: Size,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

/// A program that runs. Whoever drops the receiver hangs it up; the sender may go before.
#[derive(Debug)]
pub struct Session {
    pub input: mpsc::Sender<Input>,
    pub output: mpsc::Receiver<Output>,
}

/// What a session's program gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    Bytes(Vec<u8>),
    End,
    Resize(Size),
    /// By its number.
    Signal(i32),
}

/// What comes of a session. [`Output::Exit`] and [`Output::Closed`] are the last of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Exit {
        code: i32,
        signal: Option<i32>,
    },
    /// The instance ended, or its shim did; said is what happened.
    Closed {
        message: String,
    },
}

/// What is read of a console; the stream ends with the instance's end, or where it is not followed, with what there is.
pub type ConsoleStream = mpsc::Receiver<std::io::Result<Vec<u8>>>;

/// Why no session begins, or no console is followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error(
        "the {driver} driver executes nothing, so there is no program to run and no console to follow; use nodes of the process driver"
    )]
    NothingExecutes { driver: &'static str },
    #[error("the instance {id} is not up; start it, or wait until it runs")]
    NotUp { id: InstanceId },
    #[error("{0}")]
    Refused(String),
    #[error("{0}; try again")]
    Away(String),
}

impl From<SessionError> for Refusal {
    fn from(error: SessionError) -> Self {
        let text = error.to_string();
        match error {
            SessionError::NothingExecutes { .. } => Self::new(RefusalKind::Unsupported, "UnsupportedOperation", text),
            SessionError::NotUp { .. } => Self::wrong_state("IncorrectInstanceState", text),
            SessionError::Refused(_) => Self::invalid("start", text),
            SessionError::Away(_) => Self::new(RefusalKind::Unavailable, "ServiceUnavailable", text),
        }
    }
}
