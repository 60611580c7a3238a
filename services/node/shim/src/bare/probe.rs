//! What this host grants to instances, found by asking for it in a process of its own.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    process::{Command, ExitCode, Stdio},
};

use rustix::thread::{CapabilitySet, capabilities};

use super::confine::become_user;
use crate::{Failure, PROBE, SHIM, confine, shim::map_ids};

/// Why an instance cannot have it; none: it can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    pub namespaces: Option<String>,
    pub user: Option<String>,
}

const NAMESPACES: &str = "namespaces";
/// As one whose ids are the node's own.
const ALONE: &str = "alone";
const PROC: &str = "proc";

/// Asks for an instance whose ids would begin at `first`; none: the node is not root.
pub fn look(first: Option<u32>, ids: u32) -> Grants {
    let namespaces = namespaces(first, ids).err();
    // Nobody asks for more than is needed.
    let user = namespaces.as_ref().and_then(|_| user(first).err());
    Grants { namespaces, user }
}

fn namespaces(first: Option<u32>, ids: u32) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut child = part(if first.is_some() { NAMESPACES } else { ALONE }).spawn().map_err(failed)?;
    let (mut input, mut output) = (child.stdin.take(), child.stdout.take());
    let unshared = output.as_mut().is_some_and(|output| output.read_exact(&mut [0]).is_ok());
    let mapped = if unshared { map_ids(child.id(), first, ids) } else { Ok(()) };
    if let (Some(input), true) = (&mut input, mapped.is_ok()) {
        // One that has failed says why.
        let _ = input.write_all(b"m");
    }
    drop(input);
    let found = told(child.wait_with_output().map_err(failed)?);
    mapped.map_err(|error| format!("mapping ids: {error}")).and(found)
}

fn user(first: Option<u32>) -> Result<(), String> {
    let Some(first) = first else { return Err("the node is not root".to_owned()) };
    let needed = [
        ("CAP_CHOWN", CapabilitySet::CHOWN),
        ("CAP_DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE),
        ("CAP_FOWNER", CapabilitySet::FOWNER),
        ("CAP_KILL", CapabilitySet::KILL),
        ("CAP_SETGID", CapabilitySet::SETGID),
        ("CAP_SETUID", CapabilitySet::SETUID),
    ];
    let own = capabilities(None).map_or(CapabilitySet::empty(), |own| own.effective);
    let missing: Vec<&str> = needed.into_iter().filter(|(_, one)| !own.contains(*one)).map(|(name, _)| name).collect();
    if !missing.is_empty() {
        return Err(format!("the node is root without {}", missing.join(", ")));
    }
    part(&first.to_string()).output().map_err(|error| error.to_string()).and_then(told)
}

fn part(what: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args([SHIM, PROBE, what]).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn told(output: std::process::Output) -> Result<(), String> {
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(text.trim().trim_start_matches("gureum: ").to_owned())
}

/// Is the process that asks.
pub fn run(what: &OsStr) -> Result<ExitCode, Failure> {
    match what.to_str().ok_or(Failure::Usage)? {
        NAMESPACES => confine::try_namespaces(true, PROC),
        ALONE => confine::try_namespaces(false, PROC),
        PROC => confine::try_proc(),
        user => {
            become_user(user.parse().map_err(|_| Failure::Usage)?, false)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
