//! On which ports the programs of an instance listen, as the kernel's socket tables have it (`sock_diag(7)`).

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4},
};

use gureum_firewall::Packet;
use serde::{Deserialize, Serialize};

use super::netlink::{Message, Netlink};

/// A transport that is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    /// Its number in IP.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// What asks for a port, as rules look at it.
    pub fn packet(self, port: u16) -> Packet {
        Packet { protocol: self.number(), point: port }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// The state of a socket that takes what comes from anybody: listening, or of UDP one that is bound and not connected.
    fn open_state(self) -> u32 {
        const CLOSE: u32 = 7;
        const LISTEN: u32 = 10;
        match self {
            Self::Tcp => 1 << LISTEN,
            Self::Udp => 1 << CLOSE,
        }
    }
}

/// A port on which something listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listening {
    pub transport: Transport,
    pub port: u16,
    /// Only at this address; none: at every one.
    pub address: Option<Ipv4Addr>,
}

/// A socket to which anybody may send, as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    pub transport: Transport,
    pub port: u16,
    pub address: IpAddr,
    /// Whose it is.
    pub user: u32,
    pub inode: u32,
}

const BY_FAMILY: u16 = 20;
const IPV4: u8 = 2;
const FAMILIES: [u8; 2] = [IPV4, 10];

/// All ports on which something listens that an IPv4 client can reach, in the namespace of the socket. What is bound to a
/// loopback address is not among them.
pub fn listening(netlink: &Netlink) -> io::Result<BTreeSet<Listening>> {
    Ok(bound(netlink)?.into_iter().filter_map(reachable).collect())
}

/// All sockets to which anybody may send, in the namespace of the netlink socket.
pub fn bound(netlink: &Netlink) -> io::Result<Vec<Bound>> {
    let mut found = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        for family in FAMILIES {
            let question = question(family, transport, transport.open_state(), (0, 0));
            netlink.dump(question, |answer| found.extend(read(transport, answer)))?;
        }
    }
    Ok(found)
}

/// The user who has made a TCP connection on this host; none: nobody has.
pub fn user_of_connection(netlink: &Netlink, from: SocketAddrV4, to: SocketAddrV4) -> io::Result<Option<u32>> {
    const ALL: u32 = u32::MAX;
    let mut found = None;
    netlink.dump(question(IPV4, Transport::Tcp, ALL, (from.port(), to.port())), |answer| {
        if let Some((address, user)) =
            other_side(answer).filter(|_| read(Transport::Tcp, answer).is_some_and(|one| one.address == *from.ip()))
            && address == *to.ip()
        {
            found = Some(user);
        }
    })?;
    Ok(found)
}

/// An `inet_diag_req_v2`: family, protocol, nothing more than the socket itself, states, and of the socket its ports, if any.
fn question(family: u8, transport: Transport, states: u32, (own, other): (u16, u16)) -> Message {
    let head = [family, transport.number(), 0, 0];
    let body = [head.as_slice(), &states.to_ne_bytes(), &own.to_be_bytes(), &other.to_be_bytes(), &[0; 44]].concat();
    Message::new(BY_FAMILY, 0, &body)
}

/// Reads an `inet_diag_msg`.
fn read(transport: Transport, answer: &[u8]) -> Option<Bound> {
    let port = u16::from_be_bytes(*answer.get(4..)?.first_chunk()?);
    let address: IpAddr = match *answer.first()? {
        IPV4 => Ipv4Addr::from(*answer.get(8..)?.first_chunk::<4>()?).into(),
        // A socket for every IPv6 address takes IPv4 too, unless it was asked not to; that does not stand here.
        _ => Ipv6Addr::from(*answer.get(8..)?.first_chunk::<16>()?).to_canonical(),
    };
    let number = |at: usize| Some(u32::from_ne_bytes(*answer.get(at..)?.first_chunk()?));
    Some(Bound { transport, port, address, user: number(64)?, inode: number(68)? }).filter(|_| port > 0)
}

/// The address to which an IPv4 socket is connected, and whose it is.
fn other_side(answer: &[u8]) -> Option<(Ipv4Addr, u32)> {
    let user = u32::from_ne_bytes(*answer.get(64..)?.first_chunk()?);
    Some((Ipv4Addr::from(*answer.get(24..)?.first_chunk::<4>()?), user))
}

fn reachable(one: Bound) -> Option<Listening> {
    let address = match one.address {
        any if any.is_unspecified() => None,
        IpAddr::V4(own) if !own.is_loopback() => Some(own),
        IpAddr::V4(_) | IpAddr::V6(_) => return None,
    };
    Some(Listening { transport: one.transport, port: one.port, address })
}
