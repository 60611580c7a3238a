//! Programs that are run in an instance for whoever asks: what the node, the shim and process 1 tell each other of them.
//!
//! ```text
//!  node ── a connection for each session ──► shim ──► process 1 ──► the program, leader of a session of its own
//!    ▲                                                    │
//!    └───── the terminal's or the pipes' open files ◄─────┘
//! ```
//!
//! The bytes of a session pass through neither the shim nor process 1. The connection is the session: when it ends, as it
//! does with the node, the program is hung up; nothing of a session is written down.

mod identity;
mod inside;
mod program;
mod table;

use serde::{Deserialize, Serialize};

pub(crate) use self::{identity::User, inside::Inside, program::become_program_of_session, table::Table};

/// What is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRequest {
    /// The program and its arguments; none: the user's login shell.
    pub command: Vec<String>,
    /// Absent: it gets pipes.
    pub terminal: Option<Terminal>,
    /// A name of the instance's `/etc/passwd`.
    pub user: String,
}

/// A terminal that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// The value of TERM.
    pub kind: String,
    pub rows: u16,
    pub columns: u16,
}

/// What the node wants of a session that it has, as a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionCommand {
    /// Sends a signal, by its number, to the processes of the program's group.
    Signal(i32),
}

/// What is said of a session, as a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionTold {
    /// It begins. With a terminal one open file goes with this line, the terminal's other end; else the three other ends
    /// of standard input, output and error.
    Opened,
    /// It does not begin.
    Refused { message: String },
    /// Its program ended.
    Ended(Exit),
    /// The instance ended, or ends.
    Closed { message: String },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// For one that a signal ended, 128 and the signal's number.
    pub code: i32,
    pub signal: Option<i32>,
}

impl SessionRequest {
    /// Open files that go with [`SessionTold::Opened`].
    pub fn files(&self) -> usize {
        if self.terminal.is_some() { 1 } else { 3 }
    }
}
