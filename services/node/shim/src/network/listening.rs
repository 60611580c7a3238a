//! On which ports the programs of an instance listen, as the kernel's socket tables have it (`sock_diag(7)`).

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
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

const BY_FAMILY: u16 = 20;
const FAMILIES: [u8; 2] = [2, 10];

/// All ports on which something listens that an IPv4 client can reach, in the namespace of the socket. What is bound to a
/// loopback address is not among them.
pub fn listening(netlink: &Netlink) -> io::Result<BTreeSet<Listening>> {
    let mut found = BTreeSet::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        for family in FAMILIES {
            // inet_diag_req_v2: family, protocol, nothing more than the socket itself, states, any socket.
            let head = [family, transport.number(), 0, 0];
            let body = [head.as_slice(), &transport.open_state().to_ne_bytes(), &[0; 48]].concat();
            netlink.dump(Message::new(BY_FAMILY, 0, &body), |answer| found.extend(read(transport, answer)))?;
        }
    }
    Ok(found)
}

/// Reads an `inet_diag_msg`.
fn read(transport: Transport, answer: &[u8]) -> Option<Listening> {
    let port = u16::from_be_bytes(*answer.get(4..)?.first_chunk()?);
    let address: IpAddr = match answer.first()? {
        2 => Ipv4Addr::from(*answer.get(8..)?.first_chunk::<4>()?).into(),
        // A socket for every IPv6 address takes IPv4 too, unless it was asked not to; that does not stand here.
        _ => Ipv6Addr::from(*answer.get(8..)?.first_chunk::<16>()?).to_canonical(),
    };
    let address = match address {
        any if any.is_unspecified() => None,
        IpAddr::V4(own) if !own.is_loopback() => Some(own),
        IpAddr::V4(_) | IpAddr::V6(_) => return None,
    };
    (port > 0).then_some(Listening { transport, port, address })
}
