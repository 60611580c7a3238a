//! Lines of JSON over sockets that never wait, and the open files that go with them.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    os::unix::net::{UnixListener, UnixStream},
};

use rustix::{
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg},
};
use serde::{Serialize, de::DeserializeOwned};

/// A longer line is none that the other side writes.
const LONGEST_LINE: usize = 256 << 10;
/// The same for a node that tells rules: 15 interfaces, each with 16 groups of 240 rules, of 150 bytes, come to 9 MiB.
const LONGEST_COMMAND: usize = 16 << 20;
/// Open files that go with one line: those of a program without a terminal.
const MOST_FILES: usize = 3;
/// Open files that wait for whoever reads their lines; more of them are none that the other side sends.
const MOST_WAITING: usize = 192;

/// A stream of lines.
pub struct Lines {
    stream: UnixStream,
    unread: Vec<u8>,
    longest: usize,
    files: VecDeque<OwnedFd>,
    ended: bool,
}

impl Lines {
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, unread: Vec::new(), longest: LONGEST_LINE, files: VecDeque::new(), ended: false })
    }

    /// Takes lines that are as long as a node's commands may be.
    fn of_commands(self) -> Self {
        Self { longest: LONGEST_COMMAND, ..self }
    }

    /// The same stream, for whoever only writes.
    pub fn writer(&self) -> io::Result<Self> {
        Self::new(self.stream.try_clone()?)
    }

    /// Says and hears nothing more.
    pub fn shutdown(&self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Both)
    }

    /// What can be read now, as far as it can be understood. None: the other side has gone, and all that it said was read.
    pub fn read<T: DeserializeOwned>(&mut self) -> Option<Vec<T>> {
        let mut part = [0; 4096];
        while !self.ended {
            match self.receive(&mut part) {
                Ok(0) => self.ended = true,
                Ok(count) => self.unread.extend_from_slice(&part[..count]),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => self.ended = true,
            }
            if self.unread.len() > self.longest || self.files.len() > MOST_WAITING {
                return None;
            }
        }
        let whole = self.unread.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if self.ended && whole == 0 {
            return None;
        }
        let lines: Vec<u8> = self.unread.drain(..whole).collect();
        Some(lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    fn receive(&mut self, part: &mut [u8]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(&self.stream, &mut [IoSliceMut::new(part)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files);
            }
        }
        Ok(received.bytes)
    }

    /// The open files that came with lines that were read, in the lines' order.
    pub fn take_files(&mut self) -> VecDeque<OwnedFd> {
        std::mem::take(&mut self.files)
    }

    /// Writes a line. Answers false if the other side does not take it: it has gone, or does not read.
    #[must_use]
    pub fn write(&mut self, value: &impl Serialize) -> bool {
        self.write_with(value, &[])
    }

    /// Writes a line that open files go with, three at most.
    #[must_use]
    pub fn write_with(&mut self, value: &impl Serialize, files: &[BorrowedFd<'_>]) -> bool {
        let Ok(mut line) = serde_json::to_vec(value) else { return false };
        line.push(b'\n');
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
            return false;
        }
        let mut left = line.as_slice();
        while !left.is_empty() {
            match sendmsg(&self.stream, &[IoSlice::new(left)], &mut control, SendFlags::NOSIGNAL) {
                Ok(0) => return false,
                // They went with the first bytes.
                Ok(count) => {
                    control.clear();
                    left = &left[count..];
                }
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    }
}

impl AsFd for Lines {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsRawFd for Lines {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// Takes whoever waits to be let in.
pub fn accept(listener: &UnixListener) -> Vec<Lines> {
    std::iter::from_fn(|| listener.accept().ok()).filter_map(|(stream, _)| Lines::new(stream).ok().map(Lines::of_commands)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn open_files_go_with_their_lines_and_last_words_are_heard() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (Lines::new(ours).unwrap(), Lines::new(theirs).unwrap());
        let (mut near, far) = UnixStream::pair().unwrap();
        assert!(one.write(&1) && one.write_with(&2, &[far.as_fd(), far.as_fd()]) && one.write(&3));
        drop((one, far));
        assert_eq!(other.read::<u32>(), Some(vec![1, 2, 3]));
        let mut files = other.take_files();
        assert_eq!(files.len(), 2);
        UnixStream::from(files.pop_front().unwrap()).write_all(b"x").unwrap();
        drop(files);
        let mut got = Vec::new();
        near.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"x");
        assert_eq!(other.read::<u32>(), None);
    }
}
