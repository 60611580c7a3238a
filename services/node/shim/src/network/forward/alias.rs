//! An instance that has no network of its own: its programs are reached at an alias of the host's loopback interface, which
//! they bind by name. What they send goes out as the host's own, and no rule is asked about it.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    rc::Rc,
};

use nix::sys::socket::SockProtocol;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::{leave::BETWEEN_ATTEMPTS, world::World};
use crate::{
    bare::descendants,
    network::{
        Transport,
        listening::{Bound, Listening, bound, user_of_connection},
        metadata,
        netlink::Netlink,
    },
};

/// Where programs ask about the instance that they are in, at its alias: the port of tools that stand in for the original's.
pub const METADATA_PORT: u16 = 1_338;
/// Datagrams of what asks come to ports from here on (`net.ipv4.ip_local_port_range` by custom), which serve nobody.
const FIRST_OF_CLIENTS: u16 = 32_768;

/// Where an instance is reached, and by which sockets are known to be its.
pub struct Alias {
    pub address: Ipv4Addr,
    /// The user that nobody else is; none: it is the node's.
    pub user: Option<u32>,
    netlink: Netlink,
    /// Sockets that were looked at and need no explanation, or were explained.
    seen: RefCell<BTreeSet<u32>>,
    explained: RefCell<BTreeSet<(Transport, u16)>>,
}

impl Alias {
    pub fn open(address: Ipv4Addr, user: Option<u32>) -> io::Result<Self> {
        let netlink = Netlink::open(SockProtocol::NetlinkSockDiag)?;
        Ok(Self { address, user, netlink, seen: RefCell::default(), explained: RefCell::default() })
    }

    /// The ports on which something listens at the alias, and what is to be said to programs that listen elsewhere.
    pub fn listening(&self) -> io::Result<(BTreeSet<Listening>, Vec<String>)> {
        let all = bound(&self.netlink)?;
        let own = all.iter().filter(|one| one.address == IpAddr::V4(self.address) && self.may_be_own(one));
        let is_metadata = |one: &Bound| one.transport == Transport::Tcp && one.port == METADATA_PORT;
        let ports = own.filter(|one| !is_metadata(one)).map(|one| Listening { transport: one.transport, port: one.port, address: None });
        Ok((ports.collect(), self.explain(&all)))
    }

    fn may_be_own(&self, one: &Bound) -> bool {
        self.user.is_none_or(|user| user == one.user)
    }

    /// Explains each port once that a program of the instance has at every address.
    fn explain(&self, all: &[Bound]) -> Vec<String> {
        let everywhere = all.iter().filter(|one| one.address.is_unspecified() && self.may_be_own(one));
        let mut unknown: Vec<&Bound> = everywhere.filter(|one| is_service(one) && self.seen.borrow_mut().insert(one.inode)).collect();
        if self.user.is_none() && !unknown.is_empty() {
            let own = sockets_of(std::process::id().cast_signed());
            unknown.retain(|one| own.contains(&one.inode));
        }
        unknown.retain(|one| self.explained.borrow_mut().insert((one.transport, one.port)));
        unknown.into_iter().map(|one| explanation(one, self.address)).collect()
    }

    /// A connection to the instance. It comes from the host's loopback address, whoever made it.
    pub async fn connect(&self, destination: SocketAddrV4) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((self.address, destination.port())).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    pub async fn datagrams(&self, destination: SocketAddrV4) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.connect((self.address, destination.port())).await?;
        Ok(socket)
    }
}

fn is_service(one: &Bound) -> bool {
    one.transport == Transport::Tcp || one.port < FIRST_OF_CLIENTS
}

fn explanation(one: &Bound, address: Ipv4Addr) -> String {
    let Bound { transport, port, .. } = one;
    format!(
        "a program listens on port {port} ({}) at all addresses, which are the whole host's here: no rule is asked who may reach it, \
         and no other instance can have the port. Have it listen at {address} ($GUREUM_PRIVATE_IP)",
        transport.as_str()
    )
}

/// The inodes of the sockets that the processes below this one have open.
fn sockets_of(shim: i32) -> BTreeSet<u32> {
    let files = descendants(shim).into_iter().flat_map(|process| fs::read_dir(format!("/proc/{}/fd", process.pid)).into_iter().flatten());
    let links = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

/// Serves the metadata at the alias, to the instance's own user where it has one.
pub async fn serve_metadata(world: Rc<World>, alias: Rc<Alias>) {
    let listener = match TcpListener::bind((alias.address, METADATA_PORT)).await {
        Ok(listener) => listener,
        Err(error) => return world.note(format!("there is no metadata service at {}:{METADATA_PORT}: {error}", alias.address)),
    };
    loop {
        let Ok((stream, SocketAddr::V4(source))) = listener.accept().await else {
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
            continue;
        };
        let asks = user_of_connection(&alias.netlink, source, SocketAddrV4::new(alias.address, METADATA_PORT));
        // What it knows may be a secret of the instance's.
        if alias.user.is_none() || asks.is_ok_and(|asks| asks == alias.user) {
            let world = world.clone();
            tokio::task::spawn_local(async move { metadata::serve(&world.metadata, || world.network(), stream).await });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn what_listens_at_the_alias_is_found_and_who_asks_is_known() {
        let address: Ipv4Addr = [127, 247, 255, 1].into();
        let own = rustix::process::geteuid().as_raw();
        let alias = Alias::open(address, Some(own)).unwrap();
        let listener = std::net::TcpListener::bind((address, 0)).unwrap();
        let _elsewhere = std::net::TcpListener::bind((Ipv4Addr::new(127, 247, 255, 2), 0)).unwrap();
        let everywhere = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (found, told) = alias.listening().unwrap();
        assert_eq!(found, BTreeSet::from([Listening { transport: Transport::Tcp, port, address: None }]));
        let everywhere = format!("port {} (tcp)", everywhere.local_addr().unwrap().port());
        assert_eq!(told.iter().filter(|text| text.contains(&everywhere)).count(), 1, "{told:?}");
        assert!(!alias.listening().unwrap().1.iter().any(|text| text.contains(&everywhere)), "it was told before");
        assert_eq!(Alias::open(address, Some(own + 1)).unwrap().listening().unwrap().0, BTreeSet::new(), "another's");

        let stream = alias.connect(SocketAddrV4::new(Ipv4Addr::new(172, 31, 0, 4), port)).await.unwrap();
        let SocketAddr::V4(source) = stream.local_addr().unwrap() else { panic!("another family") };
        let destination = SocketAddrV4::new(address, port);
        assert_eq!(user_of_connection(&alias.netlink, source, destination).unwrap(), Some(own));
    }
}
