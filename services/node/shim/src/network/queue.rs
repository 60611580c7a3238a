//! Connections that an instance wants to make, each held until it is known what becomes of it (`nfnetlink_queue`): so one
//! that is refused elsewhere is refused here, and one that nobody lets pass is not answered.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::sys::socket::SockProtocol;

use super::netlink::{Message, Netlink, attributes};

/// The number of the queue within a switch.
pub const NUMBER: u16 = 1;
/// The mark of what is to be answered with a reset.
pub const REFUSED: u32 = 2;
/// Connections that may wait at once; further ones are tried again by who wants them.
const MOST: u32 = 4_096;
/// Bytes of a packet that are looked at: both headers with all their options.
const LOOKED_AT: u32 = 120;

const OF_QUEUES: u16 = 3 << 8;
const VERDICT_ON: u16 = OF_QUEUES | 1;
const CONFIGURE: u16 = OF_QUEUES | 2;

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Accept,
    /// It is answered with a reset.
    Refuse,
    /// Nobody answers.
    Drop,
}

/// The first packet of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The packet's number in the queue.
    pub packet: u32,
    pub source: SocketAddrV4,
    pub destination: SocketAddrV4,
}

/// A queue of a switch.
pub struct Queue(Netlink);

impl Queue {
    /// Opens that of the namespace in which this is called.
    pub fn open() -> io::Result<Self> {
        const COMMAND: u16 = 1;
        const PARAMETERS: u16 = 2;
        const LENGTH: u16 = 3;
        const BIND: u8 = 1;
        const COPY_PACKET: u8 = 2;
        let netlink = Netlink::open(SockProtocol::NetlinkNetFilter)?;
        let message = || Message::new(CONFIGURE, 0, &header());
        netlink.change(message().with(COMMAND, &[BIND, 0, 0, 2]))?;
        netlink.change(message().with(PARAMETERS, &[LOOKED_AT.to_be_bytes().as_slice(), &[COPY_PACKET]].concat()))?;
        netlink.change(message().with(LENGTH, &MOST.to_be_bytes()))?;
        Ok(Self(netlink))
    }

    /// Takes one that was opened elsewhere. It does not wait.
    pub fn from_socket(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self(Netlink::from_socket(socket)?))
    }

    /// What waits now.
    pub fn held(&self) -> io::Result<Vec<Held>> {
        self.0.messages(read)
    }

    pub fn decide(&self, packet: u32, verdict: Verdict) -> io::Result<()> {
        const VERDICT: u16 = 2;
        const MARK: u16 = 3;
        let code: u32 = if verdict == Verdict::Drop { 0 } else { 1 };
        let message = Message::new(VERDICT_ON, 0, &header()).unacknowledged();
        let message = message.with(VERDICT, &[code.to_be_bytes(), packet.to_be_bytes()].concat());
        self.0.send(if verdict == Verdict::Refuse { message.with(MARK, &REFUSED.to_be_bytes()) } else { message })
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// `nfgenmsg`: any family, the version, and which queue.
fn header() -> Vec<u8> {
    [&[0, 0], NUMBER.to_be_bytes().as_slice()].concat()
}

fn read(body: &[u8]) -> Option<Held> {
    const PACKET: u16 = 1;
    const PAYLOAD: u16 = 10;
    let find = |wanted| attributes(body.get(4..).unwrap_or_default()).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let packet = u32::from_be_bytes(*find(PACKET)?.first_chunk()?);
    let (source, destination) = ends(find(PAYLOAD)?)?;
    Some(Held { packet, source, destination })
}

/// From where and to where a packet of TCP goes (RFC 791, RFC 9293).
fn ends(packet: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4)> {
    let words = usize::from(packet.first()? & 0x0f);
    let address = |at: usize| packet.get(at..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets));
    let segment = packet.get(words * 4..)?;
    let port = |at: usize| segment.get(at..)?.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes));
    Some((SocketAddrV4::new(address(12)?, port(0)?), SocketAddrV4::new(address(16)?, port(2)?)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_a_packet_are_read_behind_its_options() {
        let mut packet = vec![0x46, 0, 0, 44, 0, 0, 0x40, 0, 64, 6, 0, 0, 172, 31, 0, 4, 10, 0, 0, 9, 1, 1, 1, 1];
        packet.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 0]);
        let (source, destination) = ends(&packet).unwrap();
        assert_eq!((source.to_string(), destination.to_string()), ("172.31.0.4:40000".into(), "10.0.0.9:80".into()));
        (0..packet.len() - 4).for_each(|length| assert_eq!(ends(&packet[..length]), None));
    }
}
