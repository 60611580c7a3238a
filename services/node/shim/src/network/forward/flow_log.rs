//! What was let in and out of an instance, and what was not, by which rule: lines of JSON in a file beside the console.

use std::{
    cell::{Cell, RefCell},
    fs::{File, OpenOptions},
    io::{self, Write},
    net::SocketAddrV4,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    clock::{monotonic, now_micros},
    network::Transport,
};

pub const FLOW_LOG_FILE: &str = "flow.log";
/// Bytes of the file at which it becomes the older one.
const ROTATED_AT: u64 = 4 << 20;
/// Lines that are written each second at most: who scans ports must not fill the disk.
const LINES_A_SECOND: u32 = 200;

/// One connection, or of UDP what goes between two addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// `eni-…`.
    pub interface: String,
    pub direction: &'static str,
    pub protocol: Transport,
    pub source: SocketAddrV4,
    pub destination: SocketAddrV4,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Event {
    Begin,
    End,
    Rejected,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    /// Microseconds since the epoch.
    time: u64,
    event: Event,
    /// As the original's flow logs have it.
    action: &'static str,
    #[serde(flatten)]
    flow: &'a Flow,
    /// What let it pass; none: nothing did, or no rule is asked.
    rule: Option<&'a str>,
    /// Why not, or how it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_received: Option<u64>,
    /// Lines that were left out before this one, because there were too many.
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands it so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

pub struct FlowLog {
    path: PathBuf,
    file: RefCell<Option<File>>,
    second: Cell<Instant>,
    lines: Cell<u32>,
    left_out: Cell<u32>,
}

impl FlowLog {
    pub fn open(directory: &Path) -> Self {
        let path = directory.join(FLOW_LOG_FILE);
        Self { path, file: RefCell::default(), second: Cell::new(monotonic()), lines: Cell::new(0), left_out: Cell::new(0) }
    }

    pub fn begin(&self, flow: &Flow, rule: Option<&str>) {
        self.write(Event::Begin, "ACCEPT", flow, rule, None, None);
    }

    /// A connection ended after so many bytes from its source, and back.
    pub fn end(&self, flow: &Flow, rule: Option<&str>, reason: Option<&str>, sent: u64, received: u64) {
        self.write(Event::End, "ACCEPT", flow, rule, reason, Some((sent, received)));
    }

    pub fn reject(&self, flow: &Flow, reason: &str) {
        self.write(Event::Rejected, "REJECT", flow, None, Some(reason), None);
    }

    fn write(&self, event: Event, action: &'static str, flow: &Flow, rule: Option<&str>, reason: Option<&str>, bytes: Option<(u64, u64)>) {
        let now = monotonic();
        if now.duration_since(self.second.get()) >= Duration::from_secs(1) {
            self.second.set(now);
            self.lines.set(0);
        }
        if self.lines.get() >= LINES_A_SECOND {
            self.left_out.set(self.left_out.get() + 1);
            return;
        }
        self.lines.set(self.lines.get() + 1);
        let (bytes_sent, bytes_received) = bytes.unzip();
        let left_out = self.left_out.take();
        let line = Line { time: now_micros(), event, action, flow, rule, reason, bytes_sent, bytes_received, left_out };
        // A full disk must not keep traffic from flowing; the next line tries again.
        if self.append(&line).is_err() {
            self.file.replace(None);
        }
    }

    fn append(&self, line: &Line<'_>) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        let mut file = self.file.borrow_mut();
        let mut open = match file.take() {
            Some(open) => open,
            None => OpenOptions::new().create(true).append(true).open(&self.path)?,
        };
        if open.metadata()?.len() >= ROTATED_AT {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            open = OpenOptions::new().create(true).append(true).open(&self.path)?;
        }
        open.write_all(&bytes)?;
        *file = Some(open);
        Ok(())
    }
}
