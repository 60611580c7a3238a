//! Processors, memory and tasks of an instance: by control groups where they can be made, else by what the kernel
//! limits for each process.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Serialize};

use crate::{
    Doing, Failure,
    protocol::{LimitedBy, Limits},
};

const ROOT: &str = "/sys/fs/cgroup";
/// The group in which all instances' groups are.
const PARENT: &str = "gureum";
/// Microseconds over which a group's processor time is counted.
const PERIOD: u64 = 100_000;
/// The kernel takes no smaller quota.
const SMALLEST_QUOTA: u64 = 1_000;
const TRIES: u32 = 100;
const BETWEEN_TRIES: Duration = Duration::from_millis(2);
/// What an instance that no group limits leaves to others.
pub const NICE: i32 = 5;

/// Makes the groups of an instance, and says by what it is limited. Groups that are there are taken over.
pub fn prepare(id: &str, limits: Limits) -> (LimitedBy, Vec<PathBuf>) {
    let root = Path::new(ROOT);
    let (by, made) = if root.join("cgroup.controllers").exists() {
        (LimitedBy::CgroupV2, second_version(root, id, limits))
    } else {
        (LimitedBy::CgroupV1, first_version(root, id, limits))
    };
    // Without the right to make groups, which is the rule where nobody has granted it.
    made.map_or((LimitedBy::Rlimit, Vec::new()), |groups| (by, groups))
}

fn quota(limits: Limits) -> u64 {
    (limits.cpu_milli * PERIOD / 1000).max(SMALLEST_QUOTA)
}

fn second_version(root: &Path, id: &str, limits: Limits) -> io::Result<Vec<PathBuf>> {
    let parent = root.join(PARENT);
    let group = parent.join(id);
    fs::create_dir_all(&group)?;
    for above in [root, &parent] {
        fs::write(above.join("cgroup.subtree_control"), "+cpu +memory +pids")?;
    }
    fs::write(group.join("cpu.max"), format!("{} {PERIOD}", quota(limits)))?;
    fs::write(group.join("memory.max"), limits.memory_bytes.to_string())?;
    fs::write(group.join("pids.max"), limits.tasks.to_string())?;
    Ok(vec![group])
}

fn first_version(root: &Path, id: &str, limits: Limits) -> io::Result<Vec<PathBuf>> {
    let files = [
        ("cpu", "cpu.cfs_period_us", PERIOD),
        ("cpu", "cpu.cfs_quota_us", quota(limits)),
        ("memory", "memory.limit_in_bytes", limits.memory_bytes),
        ("pids", "pids.max", limits.tasks),
    ];
    let mut groups = Vec::new();
    for (controller, file, value) in files {
        let group = root.join(controller).join(PARENT).join(id);
        fs::create_dir_all(&group)?;
        fs::write(group.join(file), value.to_string())?;
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    // Counts what they use, where the host has it apart.
    let accounting = root.join("cpuacct").join(PARENT).join(id);
    if fs::create_dir_all(&accounting).is_ok() && !groups.contains(&accounting) {
        groups.push(accounting);
    }
    Ok(groups)
}

/// Where the groups of an instance are, if there are any, whichever version made them.
pub fn groups_of(id: &str) -> Vec<PathBuf> {
    let places = ["", "cpu", "memory", "pids", "cpuacct"];
    places.iter().map(|controller| Path::new(ROOT).join(controller).join(PARENT).join(id)).collect()
}

/// By what this host lets instances be limited: found by making a group, and removing it.
pub fn limited_by() -> LimitedBy {
    let probe = Limits { cpu_milli: 1_000, memory_bytes: 64 << 20, tasks: 16 };
    let (by, groups) = prepare(&format!("probe-{}", std::process::id()), probe);
    remove(&groups);
    by
}

/// Puts a process into groups, and all that it starts from then on.
pub fn join(groups: &[PathBuf], pid: u32) -> io::Result<()> {
    groups.iter().try_for_each(|group| fs::write(group.join("cgroup.procs"), pid.to_string()))
}

/// Removes the groups of an instance that has ended. The kernel may need a moment to let go of its last process; what it
/// still holds then stays, empty, and goes with the instance.
pub fn remove(groups: &[PathBuf]) {
    for group in groups {
        let mut tries = 0;
        while fs::remove_dir(group).is_err() && group.exists() && tries < TRIES {
            tries += 1;
            thread::sleep(BETWEEN_TRIES);
        }
    }
}

/// What each process is held to where no group holds all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EachProcess {
    memory_bytes: u64,
    /// Of its user. None where that is not the instance's own: others' would be counted too.
    tasks: Option<u64>,
}

impl EachProcess {
    pub fn of(limits: Limits, has_user: bool) -> Self {
        Self { memory_bytes: limits.memory_bytes, tasks: has_user.then_some(limits.tasks) }
    }

    /// Limits this process and all that it becomes or starts. Process 1 is none of them: it has to go on, and may have reserved
    /// more than it uses.
    pub fn apply(self) -> nix::Result<()> {
        setrlimit(Resource::RLIMIT_DATA, self.memory_bytes, self.memory_bytes)?;
        if let Some(tasks) = self.tasks {
            setrlimit(Resource::RLIMIT_NPROC, tasks, tasks)?;
        }
        let _ = rustix::process::setpriority_process(None, NICE);
        Ok(())
    }
}

/// As an argument of a part of the program.
pub fn argument(limits: Option<EachProcess>) -> String {
    serde_json::to_string(&limits).unwrap_or_default()
}

/// Applies what such an argument says.
pub fn apply(argument: &OsStr) -> Result<(), Failure> {
    let limits: Option<EachProcess> = serde_json::from_slice(argument.as_encoded_bytes()).map_err(|_| Failure::Usage)?;
    limits.map_or(Ok(()), EachProcess::apply).doing(|| "limiting the program".into())
}
