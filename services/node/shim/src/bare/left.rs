//! What runs of an instance that has no process namespace, found so that all of it ends.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid, setresuid},
};

use super::MARK;
use crate::{
    Doing, Failure, SHIM, SWEEP,
    clock::monotonic,
    process::{Entry, Process, all},
    protocol::{Confinement, PLAN_FILE, Plan, STATE_FILE, State, read_json},
};

/// What is not ended by then hangs in the kernel.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Looks in a row that find nothing.
const EMPTY_LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// All that descends from a process and lives.
pub fn descendants(of: i32) -> Vec<Process> {
    let entries = all();
    let mut family = BTreeSet::from([of]);
    loop {
        let before = family.len();
        family.extend(entries.iter().filter(|entry| family.contains(&entry.parent)).map(|entry| entry.process.pid).collect::<Vec<_>>());
        if family.len() == before {
            break;
        }
    }
    entries.iter().map(|entry| entry.process).filter(|process| process.pid != of && family.contains(&process.pid)).collect()
}

/// Ends all that runs of an instance, and answers what did not end.
///
/// A user of the instance's own, and its control groups, are nobody else's. Without either it is what descends from its shim,
/// which says its number, and what has the instance's id in its environment.
pub fn end(plan: &Plan, groups: &[PathBuf], shim: Option<i32>) -> Vec<Process> {
    let deadline = monotonic() + ENDS_WITHIN;
    // What is ended by its user is ended at once; elsewhere something may have come and gone between two places that were looked at.
    let enough = if own_user(plan).is_some() { 1 } else { EMPTY_LOOKS };
    let mut empty = 0;
    loop {
        if let Some(user) = own_user(plan) {
            sweep(user);
        }
        let found = find(plan, groups, shim);
        empty = if found.is_empty() { empty + 1 } else { 0 };
        if empty >= enough || monotonic() >= deadline {
            return found;
        }
        for process in found {
            // One that may not be ended is found again, and answered.
            let _ = process.kill();
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

/// Ends what a shim left that was killed, and the shim itself if it was not.
pub fn end_left(directory: &Path) -> Result<ExitCode, Failure> {
    let read = |name: &str| directory.join(name);
    let plan: Option<Plan> = read_json(&read(PLAN_FILE)).doing(|| format!("reading {}", read(PLAN_FILE).display()))?;
    let state: Option<State> = read_json(&read(STATE_FILE)).doing(|| format!("reading {}", read(STATE_FILE).display()))?;
    let plan = plan.ok_or(Failure::Usage)?;
    let (shim, groups) = state.map(|state| (state.shim, state.groups)).unzip();
    if let Some(shim) = shim {
        shim.kill().doing(|| format!("ending the shim {}", shim.pid))?;
    }
    let left = end(&plan, &groups.unwrap_or_default(), None);
    let pids = || left.iter().map(|process| process.pid.to_string()).collect::<Vec<_>>().join(", ");
    let busy = || std::io::Error::other(format!("they do not end: {}", pids()));
    if left.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(busy()).doing(|| format!("ending the processes of {}", plan.id)) }
}

fn own_user(plan: &Plan) -> Option<u32> {
    plan.first_id.filter(|_| plan.confinement == Confinement::User)
}

fn find(plan: &Plan, groups: &[PathBuf], shim: Option<i32>) -> Vec<Process> {
    let (user, mark) = (own_user(plan), format!("{MARK}={}", plan.id));
    let is_own = |entry: &Entry| user.map_or_else(|| is_marked(entry.process.pid, &mark), |user| entry.user == user);
    let marked = all().into_iter().filter(is_own).map(|entry| entry.process);
    let grouped = groups.iter().flat_map(|group| members(group));
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    shim.map(descendants).into_iter().flatten().chain(grouped).chain(marked).filter(|process| process.pid != own).collect()
}

fn members(group: &Path) -> Vec<Process> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| Process::of(line.parse().ok()?)).collect()
}

fn is_marked(pid: i32, mark: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|text| text.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()))
}

/// Has a process that becomes the user end all that the user runs at once: what forks faster than it is counted is caught so.
fn sweep(user: u32) {
    let mut command = Command::new("/proc/self/exe");
    let _ = command.args([SHIM, SWEEP, &user.to_string()]).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).status();
}

/// Ends all that the user runs: as that user, but by a real one that is none, so that nothing of his can signal this process.
pub fn become_sweeper(user: &OsStr) -> Result<ExitCode, Failure> {
    let user: u32 = user.to_string_lossy().parse().ok().filter(|user| *user >= LEAST).ok_or(Failure::Usage)?;
    // Ids are given by the range, and without namespaces an instance uses the first of its range alone.
    let (user, nobody) = (Uid::from_raw(user), Uid::from_raw(user + 1));
    setresuid(nobody, user, nobody).doing(|| format!("becoming the user {user}"))?;
    kill(Pid::from_raw(-1), Signal::SIGKILL).doing(|| format!("ending what the user {user} runs"))?;
    Ok(ExitCode::SUCCESS)
}

/// Users of the host below this are no instance's.
const LEAST: u32 = 65_536;
