//! The process that leaves the host's namespaces, and starts process 1 of the instance in new ones.
//!
//! It has no thread but one, as leaving a user namespace demands. Its ids are mapped by the shim, which is outside.

use std::{
    env,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{prctl, signal::Signal},
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

use crate::{
    Doing, Failure, INIT, SHIM,
    init::Told,
    protocol::{PLAN_FILE, Plan, read_json},
    volumes,
};

/// Exit code of an instance whose first process was killed by a signal, less the signal's number: the shell's custom.
const KILLED: i32 = 128;

pub fn run(directory: &Path) -> Result<ExitCode, Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL).doing(|| "asking to end with the shim".into())?;
    let plan = directory.join(PLAN_FILE);
    let plan: Plan = read_json(&plan).doing(|| format!("reading {}", plan.display()))?.ok_or(Failure::Usage)?;
    // The stream to the shim is this process's standard input, and that of process 1 after it.
    let mut shim = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().doing(|| "taking the shim's stream".into())?);

    let namespaces = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(namespaces).doing(|| "making namespaces (does the host grant user namespaces?)".into())?;
    // While this process still is who may look into the state directory, which nobody within may.
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).doing(|| "making the mounts private".into())?;
    mount(Some(&plan.root), &plan.root, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .doing(|| format!("mounting the root volume {}", plan.root.display()))?;
    env::set_current_dir(&plan.root).doing(|| format!("entering {}", plan.root.display()))?;
    volumes::mount_all(&plan);

    let mut line = serde_json::to_vec(&Told::Unshared).map_err(std::io::Error::from).doing(|| "telling the shim".into())?;
    line.push(b'\n');
    shim.write_all(&line).and_then(|()| read_line(&mut shim)).doing(|| "waiting for the ids to be mapped".into())?;
    let (root_group, root_user) = (Gid::from_raw(0), Uid::from_raw(0));
    if plan.first_id.is_some() {
        setgroups(&[]).doing(|| "leaving the host's groups".into())?;
    }
    setresgid(root_group, root_group, root_group).doing(|| "becoming root within (group)".into())?;
    setresuid(root_user, root_user, root_user).doing(|| "becoming root within".into())?;
    // Changing ids has cleared it.
    prctl::set_pdeathsig(Signal::SIGKILL).doing(|| "asking to end with the shim".into())?;

    let stream = Stdio::from(OwnedFd::from(shim));
    let mut init = Command::new("/proc/self/exe");
    let status = init.args([SHIM, INIT, "-"]).env_clear().stdin(stream).status().doing(|| "starting process 1".into())?;
    let code = status.code().or_else(|| status.signal().map(|signal| KILLED + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Reads to the end of a line and no further: what follows is for process 1.
fn read_line(stream: &mut UnixStream) -> std::io::Result<()> {
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte)?;
    }
    Ok(())
}
