//! A process that is known again: by number and start time, never by number alone.

use std::{fs, thread, time::Duration};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::{clock::monotonic, usage::Used};

/// Between two looks whether a process that was killed has ended: the kernel tells nobody but its parent.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// A process of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Clock ticks after the host's start at which it began (`proc_pid_stat(5)`, field 22).
    pub started: u64,
}

impl Process {
    /// The process that has a number now.
    pub fn of(pid: i32) -> Option<Self> {
        let (state, started) = stat(pid)?;
        (!ended(state)).then_some(Self { pid, started })
    }

    pub fn current() -> Option<Self> {
        Self::of(i32::try_from(std::process::id()).ok()?)
    }

    /// Whether it is there and has not ended.
    pub fn lives(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// Sends a signal. That it is gone is no error.
    pub fn signal(&self, signal: Signal) -> Result<(), Errno> {
        if !self.lives() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Err(Errno::ESRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends it at once.
    pub fn kill(&self) -> std::io::Result<()> {
        self.signal(Signal::SIGKILL).map_err(std::io::Error::from)
    }

    /// Waits until it has ended, for this long at most, and answers whether it has.
    pub fn ends_within(&self, limit: Duration) -> bool {
        let deadline = monotonic() + limit;
        while self.lives() {
            if monotonic() >= deadline {
                return false;
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        true
    }

    /// Its children that live.
    pub fn children(&self) -> Vec<Self> {
        child_numbers(self.pid).into_iter().filter_map(Self::of).collect()
    }
}

/// Numbers of the children of a process.
pub(crate) fn child_numbers(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// The processor time of the process that has a number now, with that of its children that it reaped, and the memory that it
/// holds.
pub(crate) fn used(pid: i32) -> Used {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .map_or_else(Vec::new, |(_, fields)| fields.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect());
    // utime, stime, cutime and cstime are fields 14 to 17 of proc_pid_stat(5), rss is field 24.
    let ticks: u64 = fields.iter().skip(11).take(4).sum();
    let pages = fields.get(21).copied().unwrap_or(0);
    let cpu = Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second());
    Used { cpu, memory_bytes: pages * rustix::param::page_size() as u64, ..Used::default() }
}

/// A process of this host, and where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub process: Process,
    pub parent: i32,
    /// The user that it runs as.
    pub user: u32,
}

/// All processes of this host that live, as far as this one may see them.
pub(crate) fn all() -> Vec<Entry> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| entry(name.to_str()?.parse().ok()?)).collect()
}

fn entry(pid: i32) -> Option<Entry> {
    let process = Process::of(pid)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next();
    Some(Entry { process, parent: field("PPid:")?.parse().ok()?, user: field("Uid:")?.parse().ok()? })
}

/// It only waits to be reaped.
fn ended(state: char) -> bool {
    matches!(state, 'Z' | 'X')
}

fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_another_process_has_is_not_taken_for_it() {
        let own = Process::current().unwrap();
        assert!(own.lives());
        assert!(!Process { started: own.started + 1, ..own }.lives());
        // Nobody is signalled by its number alone.
        assert_eq!(Process { started: own.started + 1, ..own }.signal(Signal::SIGKILL), Ok(()));
    }

    #[test]
    fn a_process_that_has_ended_does_not_live_though_nobody_has_reaped_it() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while stat(pid).is_some_and(|(state, _)| !ended(state)) {
            std::thread::yield_now();
        }
        assert_eq!(Process::of(pid), None);
        child.wait().unwrap();
    }
}
