//! One running instance: the process that owns it, and what is first inside it.
//!
//! ```text
//!  node ── control.sock ──► shim            in the host's namespaces: console, state, limits
//!                            └─ inside      in namespaces of the instance's own, its user ids mapped
//!                                └─ init    process 1 of the instance: mounts, boot, user data, power
//!                                    └─ whatever the instance runs
//! ```
//!
//! A shim belongs to no process: a node that ends leaves it running, and the next node finds it by its state
//! file, in which it stands by number and start time. What it owns ends with it, however it ends: the
//! kernel kills a process namespace with its first process, which dies with the shim.
//!
//! Where a host grants no namespaces there is no inside, and process 1 is one of the host's processes ([`bare`]).
//!
//! All of it is the `gureum` program, called by itself ([`main`]), and none of it has a second thread: a process that
//! has threads cannot leave its user namespace.

pub mod bare;
mod clock;
mod commands;
mod confine;
pub mod console;
pub mod control;
mod ending;
pub mod follow;
mod init;
mod last_lines;
mod limits;
pub mod network;
pub mod process;
pub mod protocol;
mod root;
pub mod session;
mod shim;
pub mod ssh;
pub mod usage;
pub mod volumes;

use std::{ffi::OsString, path::Path, process::ExitCode};

pub use crate::limits::{groups_of, limited_by, remove as remove_groups};

/// The arguments that make the program a shim, in front of the instance's directory.
pub const SHIM: &str = "shim";
const INSIDE: &str = "inside";
const INIT: &str = "init";
const RUN: &str = "run";
const SSHD: &str = "sshd";
const SESSION: &str = "session";
const TREE: &str = "tree";
const BARE: &str = "bare";
const SWEEP: &str = "sweep";
const PROBE: &str = "probe";
/// The argument after [`SHIM`] that ends what a shim left that was killed, of an instance without namespaces: its directory follows.
pub const END: &str = "end";
/// The argument after [`SHIM`] that mounts a volume within an instance: its directory, the volume's name there, and the
/// volume's directory follow.
pub const PLUG: &str = "plug";
/// The argument after [`SHIM`] that takes a volume away from an instance: its directory, and the volume's name there follow.
pub const UNPLUG: &str = "unplug";
/// As [`UNPLUG`], also where programs use it.
pub const PULL: &str = "pull";

/// Is what the arguments after [`SHIM`] say. Must be called before the process has any other thread.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let ran = match arguments {
        [directory] => shim::run(Path::new(directory)),
        [part, directory] if part == INSIDE => confine::run(Path::new(directory)),
        [part, directory] if part == INIT => init::run(Path::new(directory)),
        [part, directory] if part == BARE => bare::run(Path::new(directory)),
        [part, directory] if part == END => bare::end_left(Path::new(directory)),
        [part, user] if part == SWEEP => bare::become_sweeper(user),
        [part, what] if part == PROBE => bare::probe::run(what),
        [part, ids, limits] if part == SSHD => ssh::become_server(ids, limits),
        [part, limits, program] if part == RUN => init::become_program(limits, program),
        [part, leader, program, arguments @ ..] if part == SESSION => session::become_program_of_session(leader, program, arguments),
        [part, directory] if part == TREE => volumes::send_tree(Path::new(directory)),
        [part, instance, name, directory] if part == PLUG => {
            volumes::plug(Path::new(instance), &name.to_string_lossy(), Path::new(directory))
        }
        [part, instance, name] if part == UNPLUG => volumes::unplug(Path::new(instance), &name.to_string_lossy(), false),
        [part, instance, name] if part == PULL => volumes::unplug(Path::new(instance), &name.to_string_lossy(), true),
        _ => Err(Failure::Usage),
    };
    match ran {
        Ok(code) => code,
        Err(failure) => {
            // The console of the instance, or before there is one, the node's log.
            eprintln!("gureum: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Why a part of an instance could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("a shim is started by the node alone: shim DIRECTORY")]
    Usage,
    #[error("{doing}: {error}")]
    System { doing: String, error: std::io::Error },
    #[error("{path}: {error}")]
    Unreadable { path: String, error: serde_json::Error },
}

/// Says what was being done when the system refused.
trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<std::io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::System { doing: what(), error: error.into() })
    }
}
