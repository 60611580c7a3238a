//! How an instance is connected: interfaces of its own, each by a virtual cable to a switch that only its shim holds.
//!
//! ```text
//!  instance's namespace             switch's namespace                       host's namespace
//!  programs ── eth0 ═══════════════ port0 ── one socket for TCP, one ──────► shim: forwarder
//!              172.31.0.4           gateway  for UDP: whatever the address
//! ```
//!
//! The switch takes every packet of the instance for its own, whatever its destination, and hands it to the shim's
//! sockets (`tproxy` of `nf_tables`, no address rewritten). So the shim sees where each connection goes before it
//! goes anywhere, and the instance sees where it comes from. None of it needs a right that a user namespace does not give.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    net::if_::if_nametoindex,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn, bind, getsockname, listen, setsockopt, socket, sockopt,
    },
};

use super::{
    Interface, divert,
    netlink::{CREATE, EXCLUSIVE, Message, Netlink, attributes},
    queue::Queue,
};

/// What of a switch the shim needs.
pub struct Switch {
    /// Where every connection of the instance arrives.
    pub tcp: OwnedFd,
    /// Where every datagram of the instance arrives that belongs to no socket yet.
    pub udp: OwnedFd,
    /// Where connections wait until it is known what becomes of them; none: the kernel has no queues for it.
    pub queue: Option<Queue>,
}

/// The routing table in which every destination is the switch itself.
const ALL_IS_LOCAL: u32 = 100;
/// The loopback addresses that are an instance's own, as the length of their prefix. Beyond there may be public ones: of a
/// region that is reached from its host alone.
const OWN_LOOPBACK: u8 = 16;
/// Bytes of a packet on the cable: as in a VPC of the original ("Network MTU for your EC2 instance").
const MTU: u32 = 9_001;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const REMOVE_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const NEW_RULE: u16 = 32;
const IPV4: u8 = 2;
/// `IFF_UP`, of the flags of an interface.
const UP: u32 = 1;

/// Makes the switch of the namespace in which this is called: its sockets, and that everything arrives at them.
pub fn make_switch() -> io::Result<Switch> {
    let tcp = transparent(SockType::Stream)?;
    bind(tcp.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)))?;
    let address: SockaddrIn = getsockname(tcp.as_raw_fd())?;
    let port = address.port();
    listen(&tcp, Backlog::MAXCONN)?;
    let udp = transparent(SockType::Datagram)?;
    setsockopt(&udp, sockopt::Ipv4OrigDstAddr, &true)?;
    bind(udp.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)))?;
    let routes = Netlink::open(SockProtocol::NetlinkRoute)?;
    routes.change_all(vec![up(if_nametoindex("lo")?), route(ALL_IS_LOCAL, LOCAL, if_nametoindex("lo")?, None)])?;
    let netfilter = Netlink::open(SockProtocol::NetlinkNetFilter)?;
    netfilter.change_all(divert::to_sockets(port))?;
    let queue = divert::ways_to_hold().into_iter().any(|way| netfilter.change_all(way).is_ok()).then(Queue::open).transpose()?;
    Ok(Switch { tcp, udp, queue })
}

/// A socket that may have any address for its own (`IP_TRANSPARENT` of `ip(7)`).
pub fn transparent(kind: SockType) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    setsockopt(&socket, sockopt::IpTransparent, &true)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    Ok(socket)
}

/// Gives the namespace in which this is called its interfaces, connected to the switch whose namespace is given.
pub fn connect(switch: &Netlink, namespace: BorrowedFd<'_>, interfaces: &[Interface]) -> io::Result<()> {
    let own = Netlink::open(SockProtocol::NetlinkRoute)?;
    let loopback = if_nametoindex("lo")?;
    own.change(up(loopback))?;
    // As it comes up it has all of them.
    own.change_all(vec![own_address(loopback, Ipv4Addr::LOCALHOST, OWN_LOOPBACK), not_own_address(loopback, Ipv4Addr::LOCALHOST, 8)])?;
    for interface in interfaces {
        let (name, port) = (format!("eth{}", interface.device_index), format!("port{}", interface.device_index));
        own.change(cable(&name, &port, namespace, interface))?;
        let index = if_nametoindex(name.as_str())?;
        own.change_all(vec![up(index), with_loopback_beyond(index)])?;
        for address in &interface.private_addresses {
            own.change(own_address(index, *address, interface.prefix_length))?;
        }
        if interface.device_index == 0 {
            own.change(route(MAIN, UNICAST, index, Some(interface.gateway())))?;
        }
        let port_index = index_at(switch, &port)?;
        switch.change_all(vec![
            up(port_index),
            with_loopback_beyond(port_index),
            own_address(port_index, interface.gateway(), interface.prefix_length),
            everything_local_from(&port),
        ])?;
    }
    Ok(())
}

const MAIN: u32 = 254;
const LOCAL: u8 = 2;
const UNICAST: u8 = 1;
/// Seen within alone.
const OF_HOST: u8 = 254;

/// `ifinfomsg`: family, kind, number, flags and which of them are meant.
fn link(index: u32, flags: u32) -> Vec<u8> {
    [&[0; 4], index.to_ne_bytes().as_slice(), &flags.to_ne_bytes(), &flags.to_ne_bytes()].concat()
}

fn up(index: u32) -> Message {
    Message::new(NEW_LINK, 0, &link(index, UP))
}

/// An interface by which loopback addresses are reached too (`route_localnet` of the kernel's `ip-sysctl`).
fn with_loopback_beyond(index: u32) -> Message {
    const OF_FAMILIES: u16 = 26;
    const OF_IPV4: u16 = 2;
    const SETTINGS: u16 = 1;
    const ROUTE_LOCALNET: u16 = 26;
    let message = Message::new(NEW_LINK, 0, &link(index, UP));
    message.with_nested(OF_FAMILIES, |families| {
        families.with_nested(OF_IPV4, |ipv4| ipv4.with_nested(SETTINGS, |settings| settings.with(ROUTE_LOCALNET, &1u32.to_ne_bytes())))
    })
}

/// A pair of virtual interfaces, one of them in the other namespace (`veth(4)`).
fn cable(name: &str, port: &str, namespace: BorrowedFd<'_>, interface: &Interface) -> Message {
    const ADDRESS: u16 = 1;
    const NAME: u16 = 3;
    const MTU_OF_LINK: u16 = 4;
    const INFO: u16 = 18;
    const NAMESPACE: u16 = 28;
    const KIND: u16 = 1;
    const DATA: u16 = 2;
    const PEER: u16 = 1;
    let described = Message::new(NEW_LINK, CREATE | EXCLUSIVE, &link(0, 0)).with_text(NAME, name).with(MTU_OF_LINK, &MTU.to_ne_bytes());
    let described = match mac_address(&interface.mac_address) {
        Some(address) => described.with(ADDRESS, &address),
        None => described,
    };
    described.with_nested(INFO, |info| {
        info.with_text(KIND, "veth").with_nested(DATA, |data| {
            data.with_nested(PEER, |peer| {
                let peer = peer.with_bytes(&link(0, 0)).with_text(NAME, port).with(MTU_OF_LINK, &MTU.to_ne_bytes());
                peer.with(NAMESPACE, &namespace.as_raw_fd().to_ne_bytes())
            })
        })
    })
}

fn mac_address(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

fn own_address(index: u32, address: Ipv4Addr, prefix_length: u8) -> Message {
    with_address(Message::new(NEW_ADDRESS, CREATE, &of_address(index, address, prefix_length)), address)
}

fn not_own_address(index: u32, address: Ipv4Addr, prefix_length: u8) -> Message {
    with_address(Message::new(REMOVE_ADDRESS, 0, &of_address(index, address, prefix_length)), address)
}

/// `ifaddrmsg`: family, length of the prefix, flags, who sees it, and the interface.
fn of_address(index: u32, address: Ipv4Addr, prefix_length: u8) -> Vec<u8> {
    let scope = if address.is_loopback() { OF_HOST } else { 0 };
    [&[IPV4, prefix_length, 0, scope], index.to_ne_bytes().as_slice()].concat()
}

fn with_address(message: Message, address: Ipv4Addr) -> Message {
    const ADDRESS: u16 = 1;
    const OWN: u16 = 2;
    message.with(ADDRESS, &address.octets()).with(OWN, &address.octets())
}

/// The route to everything.
fn route(table: u32, kind: u8, index: u32, gateway: Option<Ipv4Addr>) -> Message {
    const INTERFACE: u16 = 4;
    const GATEWAY: u16 = 5;
    const TABLE: u16 = 15;
    const BY_BOOT: u8 = 3;
    let scope = if kind == LOCAL { OF_HOST } else { 0 };
    let body = [IPV4, 0, 0, 0, 0, BY_BOOT, scope, kind, 0, 0, 0, 0];
    let message = Message::new(NEW_ROUTE, CREATE, &body).with(TABLE, &table.to_ne_bytes()).with(INTERFACE, &index.to_ne_bytes());
    match gateway {
        Some(gateway) => message.with(GATEWAY, &gateway.octets()),
        None => message,
    }
}

/// What comes from a port of the switch is looked up where everything is the switch itself.
fn everything_local_from(port: &str) -> Message {
    const FROM_INTERFACE: u16 = 3;
    const TABLE: u16 = 15;
    const LOOK_UP: u8 = 1;
    let body = [IPV4, 0, 0, 0, 0, 0, 0, LOOK_UP, 0, 0, 0, 0];
    Message::new(NEW_RULE, CREATE, &body).with_text(FROM_INTERFACE, port).with(TABLE, &ALL_IS_LOCAL.to_ne_bytes())
}

/// The number that an interface has in the namespace of a socket.
fn index_at(netlink: &Netlink, name: &str) -> io::Result<u32> {
    const GET_LINK: u16 = 18;
    const NAME: u16 = 3;
    let mut found = None;
    netlink.dump(Message::new(GET_LINK, 0, &link(0, 0)), |body| {
        let index = body.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
        let its_name = attributes(body.get(16..).unwrap_or_default()).find(|(kind, _)| *kind == NAME).map(|(_, value)| value);
        if its_name.is_some_and(|value| value.strip_suffix(&[0]) == Some(name.as_bytes())) {
            found = index;
        }
    })?;
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("the switch has no {name}")))
}
