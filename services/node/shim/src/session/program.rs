//! The process that becomes a session's program: it leads a session of its own, and has the terminal as its controlling one.

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
};

use nix::{
    sys::signal::SigSet,
    unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid, setsid},
};
use serde::{Deserialize, Serialize};

use crate::{Doing, Failure, limits::EachProcess};

/// What a shell says of a program that cannot be run.
const CANNOT_BE_RUN: u8 = 126;
/// The same of one that is not there.
const NOT_FOUND: u8 = 127;

/// What process 1 wants of the process that leads a session.
#[derive(Debug, Serialize, Deserialize)]
pub struct Leader {
    /// Its standard input is to be its controlling terminal.
    pub terminal: bool,
    /// The program is a shell that is to read its settings, as at a login.
    pub login: bool,
    pub user: u32,
    pub group: u32,
    pub groups: Vec<u32>,
    pub home: String,
    /// What holds it, if no group does.
    pub limits: Option<EachProcess>,
}

/// Is a session's program, with the arguments that follow what it is told of itself.
pub fn become_program_of_session(leader: &OsString, program: &OsString, arguments: &[OsString]) -> Result<ExitCode, Failure> {
    let leader: Leader = serde_json::from_slice(leader.as_encoded_bytes()).map_err(|_| Failure::Usage)?;
    SigSet::empty().thread_set_mask().doing(|| "unblocking signals".into())?;
    setsid().doing(|| "beginning a session".into())?;
    if leader.terminal {
        rustix::process::ioctl_tiocsctty(std::io::stdin()).doing(|| "taking the terminal".into())?;
    }
    become_user(&leader)?;
    leader.limits.map_or(Ok(()), EachProcess::apply).doing(|| "limiting the program".into())?;
    // A home that is not there, or closed to him, keeps nobody out.
    let _ = std::env::set_current_dir(&leader.home).or_else(|_| std::env::set_current_dir("/"));
    let mut command = Command::new(program);
    if leader.login {
        let name = Path::new(program).file_name().unwrap_or(program);
        command.arg0([OsString::from("-").as_os_str(), name].into_iter().collect::<OsString>());
    }
    let error = command.args(arguments).exec();
    eprintln!("gureum: {} cannot be run: {error}", program.to_string_lossy());
    Ok(ExitCode::from(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_BE_RUN }))
}

/// Who process 1 is, stays who he is: it has no groups.
fn become_user(leader: &Leader) -> Result<(), Failure> {
    if Uid::from_raw(leader.user) == geteuid() {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(leader.user), Gid::from_raw(leader.group));
    let groups: Vec<Gid> = leader.groups.iter().copied().map(Gid::from_raw).collect();
    let only_root = "becoming this user, which needs a node that runs as root; else an instance has no user but root";
    setgroups(&groups).and_then(|()| setresgid(group, group, group)).and_then(|()| setresuid(user, user, user)).doing(|| only_root.into())
}
