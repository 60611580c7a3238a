//! What an instance uses, seen from outside.
//!
//! Who looks at a thousand instances every second must not open a file for each number: a [`Meter`] keeps the kernel's files
//! open, where it may, and reads them again. To read one again takes a fifth of the time.

use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt, path::PathBuf, time::Duration};

use crate::{
    process::{self, Process},
    protocol::{LimitedBy, State},
};

/// Generations of processes that are counted, where no group says which there are.
const DEEPEST: u32 = 64;
/// Processes whose files are kept open. Those of others are opened each time.
const KEPT_PROCESSES: usize = 12;
/// Files that a meter keeps open at most: three beside those of the processes.
pub const KEPT_FILES: usize = KEPT_PROCESSES + 3;
/// Processes that are asked at one look what they read and wrote. Of an instance with more, each is asked in its turn.
const ASKED_AT_ONCE: usize = 16;
/// The kernel answers in parts of a page; a smaller one than this is the last.
const LAST_PART: usize = 2048;
/// An operation of a volume moves so much at least, and so much at most ("I/O characteristics" of the original's volumes).
const SMALLEST_OPERATION: u64 = 4 << 10;
const LARGEST_OPERATION: u64 = 256 << 10;

/// What an instance has used since it was booted, and of memory what it uses now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Processor time of all its processes.
    pub cpu: Duration,
    pub memory_bytes: u64,
    pub disk_read: Moved,
    pub disk_written: Moved,
    pub received: Moved,
    pub sent: Moved,
}

/// Bytes, and in how many operations or packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    pub bytes: u64,
    pub count: u64,
}

/// Looks at one instance, for as long as its process 1 is the same.
pub struct Meter {
    init: Process,
    limited_by: LimitedBy,
    keeps: bool,
    cpu: Source,
    memory: Source,
    members: Source,
    network: Source,
    /// Where its processes say what they read and wrote, by their numbers, and what each said last.
    disks: BTreeMap<i32, (Source, Disk)>,
    /// The process that was asked last.
    asked: i32,
    /// The most that was seen of it. Of a process that has ended and was not yet reaped nobody tells.
    disk: Disk,
    buffer: Vec<u8>,
}

impl Meter {
    /// A meter of an instance that runs; `keeps` says whether it may keep files open. None: nothing runs.
    pub fn new(state: &State, keeps: bool) -> Option<Self> {
        let init = state.init.filter(Process::lives)?;
        // Each controller has its own groups; where there is one for all, it is that.
        let of = |file: &str| {
            let place = state.groups.iter().map(|group| group.join(file)).find(|path| path.exists());
            Source::new(place.unwrap_or_default(), keeps)
        };
        let (cpu, memory) = match state.limited_by {
            LimitedBy::CgroupV1 => ("cpuacct.usage", "memory.usage_in_bytes"),
            LimitedBy::CgroupV2 | LimitedBy::Rlimit => ("cpu.stat", "memory.current"),
        };
        Some(Self {
            limited_by: state.limited_by,
            keeps,
            cpu: of(cpu),
            memory: of(memory),
            // The first version's answers the same for as long as it stays open.
            members: Source { keeps: keeps && state.limited_by == LimitedBy::CgroupV2, ..of("cgroup.procs") },
            network: Source::new(format!("/proc/{}/net/dev", init.pid).into(), keeps),
            init,
            disks: BTreeMap::new(),
            disk: Disk::default(),
            asked: 0,
            buffer: Vec::new(),
        })
    }

    /// Looks once. None: it runs no more, or the host does not tell.
    pub fn read(&mut self) -> Option<Used> {
        let mut used = self.computed()?;
        // Whose process 1 has ended is told of no more, or it would be told of as of one that begins.
        (used.received, used.sent) = interfaces(self.network.read(&mut self.buffer).ok()?);
        (used.disk_read, used.disk_written) = (self.disk.read.operations(), self.disk.written.operations());
        Some(used)
    }

    /// Processors and memory; what its processes read and wrote is noted on the way.
    fn computed(&mut self) -> Option<Used> {
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let cpu = match self.limited_by {
            LimitedBy::Rlimit => {
                let mut tree = Vec::new();
                let used = below(self.init.pid, 0, &mut tree);
                self.look_at_disks(tree);
                return Some(used);
            }
            LimitedBy::CgroupV1 => Duration::from_nanos(number(self.cpu.read(&mut self.buffer).ok()?)?),
            LimitedBy::CgroupV2 => {
                let stat = self.cpu.read(&mut self.buffer).ok()?;
                Duration::from_micros(number(stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?)?)
            }
        };
        let memory_bytes = number(self.memory.read(&mut self.buffer).ok()?)?;
        let members = self.members.read(&mut self.buffer).ok()?;
        let members = members.lines().filter_map(|pid| pid.parse().ok()).collect();
        self.look_at_disks(members);
        Some(Used { cpu, memory_bytes, ..Used::default() })
    }

    /// Sums what processes read and wrote. What ended and was reaped counts with who reaped it, in the end process 1.
    fn look_at_disks(&mut self, processes: Vec<i32>) {
        self.disks.retain(|pid, _| processes.contains(pid));
        for pid in processes {
            let keeps = self.keeps && self.disks.len() < KEPT_PROCESSES;
            let source = || Source::new(format!("/proc/{pid}/io").into(), keeps);
            self.disks.entry(pid).or_insert_with(|| (source(), Disk::default()));
        }
        let next = self.disks.range(self.asked + 1..).chain(self.disks.range(..=self.asked));
        let next: Vec<i32> = next.map(|(pid, _)| *pid).take(ASKED_AT_ONCE).collect();
        for pid in next {
            let Some((source, said)) = self.disks.get_mut(&pid) else { continue };
            // One that has ended meanwhile tells nothing more.
            if let Ok(text) = source.read(&mut self.buffer) {
                *said = Disk::of(text);
            }
            self.asked = pid;
        }
        self.disk = self.disk.or_more(self.disks.values().fold(Disk::default(), |sum, (_, said)| sum.and(*said)));
    }
}

/// A file of the kernel's that is read again and again.
struct Source {
    path: PathBuf,
    keeps: bool,
    file: Option<File>,
}

impl Source {
    fn new(path: PathBuf, keeps: bool) -> Self {
        Self { path, keeps, file: None }
    }

    fn read<'a>(&mut self, buffer: &'a mut Vec<u8>) -> io::Result<&'a str> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(&self.path)?,
        };
        let mut length = 0;
        loop {
            buffer.resize((length + 2 * LAST_PART).max(buffer.len()), 0);
            // Whose file was open may have ended, and another have its number: the next look opens that one's.
            let read = file.read_at(&mut buffer[length..], length as u64)?;
            length += read;
            if read < LAST_PART {
                break;
            }
        }
        self.file = Some(file).filter(|_| self.keeps);
        std::str::from_utf8(&buffer[..length]).map_err(io::Error::other)
    }
}

/// What processes moved from and to disks, and how often they asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Disk {
    read: Moved,
    written: Moved,
}

impl Disk {
    /// What `/proc/<pid>/io` says.
    fn of(text: &str) -> Self {
        let mut disk = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once(": ")) {
            let place = match name {
                "read_bytes" => &mut disk.read.bytes,
                "write_bytes" => &mut disk.written.bytes,
                "syscr" => &mut disk.read.count,
                "syscw" => &mut disk.written.count,
                _ => continue,
            };
            *place = value.parse().unwrap_or(0);
        }
        disk
    }

    fn with(self, other: Self, how: impl Fn(u64, u64) -> u64) -> Self {
        let both = |one: Moved, other: Moved| Moved { bytes: how(one.bytes, other.bytes), count: how(one.count, other.count) };
        Self { read: both(self.read, other.read), written: both(self.written, other.written) }
    }

    fn and(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    fn or_more(self, other: Self) -> Self {
        self.with(other, u64::max)
    }
}

impl Moved {
    /// Operations of a volume, reckoned from bytes that went to disks and from calls, of which those of pipes are some: the
    /// kernel counts no operations for processes. It does not go back where these do not.
    fn operations(self) -> Self {
        let (least, most) = (self.bytes.div_ceil(LARGEST_OPERATION), self.bytes.div_ceil(SMALLEST_OPERATION));
        Self { count: self.count.clamp(least, most), ..self }
    }
}

/// What `/proc/<pid>/net/dev` says of interfaces that an instance was given: received, and sent.
fn interfaces(text: &str) -> (Moved, Moved) {
    let (mut received, mut sent) = (Moved::default(), Moved::default());
    for (name, numbers) in text.lines().filter_map(|line| line.split_once(':')) {
        if !name.trim().starts_with("eth") {
            continue;
        }
        // Bytes and packets are the first of eight numbers in each direction.
        let mut numbers = numbers.split_ascii_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
        let mut next = |skipped: usize| numbers.nth(skipped).unwrap_or(0);
        received.bytes += next(0);
        received.count += next(0);
        sent.bytes += next(6);
        sent.count += next(0);
    }
    (received, sent)
}

/// What a process and all below it use, and who they are. What ended and was reaped counts with who reaped it.
fn below(pid: i32, depth: u32, all: &mut Vec<i32>) -> Used {
    all.push(pid);
    let mut sum = process::used(pid);
    let children = if depth < DEEPEST { process::child_numbers(pid) } else { Vec::new() };
    for used in children.into_iter().map(|child| below(child, depth + 1, all)) {
        sum.cpu += used.cpu;
        sum.memory_bytes += used.memory_bytes;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:     900       9    0    0    0     0          0         0      900       9    0    0    0     0       0          0\n  \
            eth0:    1000      10    1    2    3     4          5         6     2000      20    0    0    0     0       0          0\n  \
            eth1:       1       1    0    0    0     0          0         0        2       1    0    0    0     0       0          0\n";
        assert_eq!(interfaces(text), (Moved { bytes: 1_001, count: 11 }, Moved { bytes: 2_002, count: 21 }));
        let disk = Disk::of("rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 8192\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n");
        assert_eq!(disk.and(disk).read, Moved { bytes: 16_384, count: 6 });
        assert_eq!(disk.or_more(Disk::default()), disk);
    }

    #[test]
    fn operations_follow_from_bytes_and_calls() {
        let operations = |bytes, count| Moved { bytes, count }.operations().count;
        assert_eq!(operations(0, 1_000_000), 0, "calls for pipes are none");
        assert_eq!(operations(40 << 10, 10), 10);
        assert_eq!(operations(1 << 20, 1), 4, "one call, as the volume is asked for it");
        assert_eq!(operations(4 << 10, 1_000), 1);
    }
}
