//! Lines of JSON over sockets that never wait.

use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd},
    os::unix::net::{UnixListener, UnixStream},
};

use serde::{Serialize, de::DeserializeOwned};

/// A longer line is none that the other side writes.
const LONGEST_LINE: usize = 256 << 10;
/// The same for a node that tells rules: 15 interfaces, each with 16 groups of 240 rules, of 150 bytes, come to 9 MiB.
const LONGEST_COMMAND: usize = 16 << 20;

/// A stream of lines.
pub struct Lines {
    stream: UnixStream,
    unread: Vec<u8>,
    longest: usize,
}

impl Lines {
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, unread: Vec::new(), longest: LONGEST_LINE })
    }

    /// Takes lines that are as long as a node's commands may be.
    fn of_commands(self) -> Self {
        Self { longest: LONGEST_COMMAND, ..self }
    }

    /// What can be read now, as far as it can be understood. None: the other side has gone.
    pub fn read<T: DeserializeOwned>(&mut self) -> Option<Vec<T>> {
        let mut part = [0; 4096];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return None,
                Ok(count) => self.unread.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
            if self.unread.len() > self.longest {
                return None;
            }
        }
        let whole = self.unread.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.unread.drain(..whole).collect();
        Some(lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// Writes a line. Answers false if the other side does not take it: it has gone, or does not read.
    #[must_use]
    pub fn write(&mut self, value: &impl Serialize) -> bool {
        let Ok(mut line) = serde_json::to_vec(value) else { return false };
        line.push(b'\n');
        self.stream.write_all(&line).is_ok()
    }
}

impl AsFd for Lines {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Takes whoever waits to be let in.
pub fn accept(listener: &UnixListener) -> Vec<Lines> {
    std::iter::from_fn(|| listener.accept().ok()).filter_map(|(stream, _)| Lines::new(stream).ok().map(Lines::of_commands)).collect()
}
