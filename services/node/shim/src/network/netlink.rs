//! What is asked of the kernel over netlink: interfaces, addresses and routes (`rtnetlink(7)`), packet rules
//! (`nf_tables`), and which sockets listen (`sock_diag(7)`).
//!
//! A netlink socket speaks for the network namespace in which it was made, wherever its holder is. Only what an
//! instance needs is here: a handful of messages, for which neither `ip` nor `nft` has to be on the host.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
pub const CREATE: u16 = 0x400;
pub const EXCLUSIVE: u16 = 0x200;
pub const APPEND: u16 = 0x800;
pub const DUMP: u16 = 0x300;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
/// The kernel's longest answer to what is asked here.
const LONGEST: usize = 32 << 10;
/// The kernel answers while it is asked; one that does not never will.
const ANSWERS_WITHIN_MS: i64 = 2_000;

/// One message, as it is put together.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Vec<u8>,
    acknowledged: bool,
}

impl Message {
    /// A request of a kind, beginning with the structure that belongs to the kind.
    pub fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(body);
        Self { bytes, acknowledged: true }
    }

    /// Some kernels answer it and some do not, so nobody waits for that.
    pub fn unacknowledged(self) -> Self {
        Self { acknowledged: false, ..self }
    }

    /// Adds an attribute.
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.attribute(kind, value);
        self
    }

    /// Adds an attribute that is a text, ended by a zero byte.
    pub fn with_text(self, kind: u16, text: &str) -> Self {
        self.with(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// Adds an attribute that holds others.
    pub fn with_nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0u16.to_ne_bytes());
        self.bytes.extend_from_slice(&(NESTED | kind).to_ne_bytes());
        let mut filled = fill(self);
        let length = u16::try_from(filled.bytes.len() - start).unwrap_or(u16::MAX);
        filled.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled
    }

    /// Adds what belongs to no attribute, such as the structure that begins a nested one.
    pub fn with_bytes(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self, sequence: u32, flags: u16) -> Vec<u8> {
        let flags = if self.acknowledged { flags } else { 0 };
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// A socket to one part of the kernel, in the namespace in which it was opened.
pub struct Netlink(OwnedFd);

impl Netlink {
    pub fn open(protocol: SockProtocol) -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Self::from_socket(socket)
    }

    /// Takes a socket that was opened elsewhere.
    pub fn from_socket(socket: OwnedFd) -> io::Result<Self> {
        setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(ANSWERS_WITHIN_MS))?;
        Ok(Self(socket))
    }

    /// Asks for a change and waits until it is made.
    pub fn change(&self, message: Message) -> io::Result<()> {
        self.change_all(vec![message])
    }

    /// Asks for changes in one go and waits until they are made, or the first is refused.
    pub fn change_all(&self, messages: Vec<Message>) -> io::Result<()> {
        let bytes: Vec<u8> = (1..).zip(&messages).flat_map(|(sequence, message)| message.clone().finish(sequence, ACKNOWLEDGE)).collect();
        send(self.0.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut open = messages.iter().filter(|message| message.acknowledged).count();
        while open > 0 {
            let answer = self.receive()?;
            for (kind, body) in parts(&answer) {
                if kind == ERROR {
                    refused(body)?;
                    open = open.saturating_sub(1);
                }
            }
        }
        Ok(())
    }

    /// Asks for all that there is of something, and hands each to `take`.
    pub fn dump(&self, message: Message, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        send(self.0.as_raw_fd(), &message.finish(1, DUMP), MsgFlags::empty())?;
        loop {
            let answer = self.receive()?;
            for (kind, body) in parts(&answer) {
                match kind {
                    DONE => return Ok(()),
                    ERROR => refused(body)?,
                    _ => take(body),
                }
            }
        }
    }

    /// Says something to which nobody waits for an answer.
    pub fn send(&self, message: Message) -> io::Result<()> {
        send(self.0.as_raw_fd(), &message.finish(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    /// What has come by itself, as far as it is understood.
    pub fn messages<T>(&self, read: impl Fn(&[u8]) -> Option<T>) -> io::Result<Vec<T>> {
        Ok(parts(&self.receive()?).into_iter().filter_map(|(_, body)| read(body)).collect())
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; LONGEST];
        let length = recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Netlink> for OwnedFd {
    fn from(netlink: Netlink) -> Self {
        netlink.0
    }
}

/// The attributes of a message: kind and contents.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & !NESTED;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The messages in what was received: kind and contents.
fn parts(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut parts = Vec::new();
    while let Some((header, _)) = bytes.split_at_checked(HEADER) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if length < HEADER || length > bytes.len() {
            break;
        }
        parts.push((u16::from_ne_bytes([header[4], header[5]]), &bytes[HEADER..length]));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    parts
}

/// What an answer of the kind `ERROR` says; zero is a consent.
fn refused(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}
