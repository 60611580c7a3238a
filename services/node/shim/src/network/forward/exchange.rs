//! Datagrams that an instance sends, and what comes back for them.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::AsRawFd,
    rc::Rc,
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg};
use tokio::{
    io::Interest,
    net::{UdpSocket, UnixStream},
    task::AbortHandle,
};

use super::{
    enter::QUIET_UDP,
    fabric::{self, Datagrams},
    leave::{BETWEEN_ATTEMPTS, Sent, Way},
    switch::Switch,
    world::{World, start},
};
use crate::network::Transport;

const LARGEST_DATAGRAM: usize = 65_535;
/// Datagrams that wait while where they go is being found out.
const WAITING: usize = 64;

type Flows = Rc<RefCell<HashMap<(SocketAddrV4, SocketAddrV4), tokio::sync::mpsc::Sender<Vec<u8>>>>>;

/// Takes every datagram of the instance that no socket of its own waits for.
pub async fn datagrams(world: Rc<World>, switch: Rc<Switch>) {
    let flows = Flows::default();
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    loop {
        let received = switch.udp.async_io(Interest::READABLE, || receive(&switch.udp, &mut buffer)).await;
        let Ok((length, source, destination)) = received else {
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
            continue;
        };
        let datagram = buffer[..length].to_vec();
        let key = (source, destination);
        let known = flows.borrow().get(&key).cloned();
        if let Some(known) = known {
            // One that has too many waiting loses some, as datagrams are lost.
            let _ = known.try_send(datagram);
            continue;
        }
        let Some(interface) = world.network().interface_of(*source.ip()).cloned() else { continue };
        let (first, following) = tokio::sync::mpsc::channel(WAITING);
        let _ = first.try_send(datagram);
        flows.borrow_mut().insert(key, first);
        let sent = Sent { interface, transport: Transport::Udp, source, destination };
        let (world, switch, flows) = (world.clone(), switch.clone(), flows.clone());
        start(move |task| async move {
            let _ = exchange(&world, &switch, &sent, following, task).await;
            flows.borrow_mut().remove(&key);
        });
    }
}

/// A datagram, from whom it comes and to whom it was sent.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV4, SocketAddrV4)> {
    let mut space = nix::cmsg_space!(nix::libc::sockaddr_in);
    let mut parts = [io::IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
    let source = message.address.ok_or(io::ErrorKind::InvalidData)?;
    let mut controls = message.cmsgs()?;
    let destination = controls.find_map(|control| match control {
        ControlMessageOwned::Ipv4OrigDstAddr(destination) => Some(SockaddrIn::from(destination)),
        _ => None,
    });
    let destination = destination.ok_or(io::ErrorKind::InvalidData)?;
    Ok((message.bytes, SocketAddrV4::new(source.ip(), source.port()), SocketAddrV4::new(destination.ip(), destination.port())))
}

/// Moves datagrams between the instance and one other address, until both are quiet.
async fn exchange(
    world: &Rc<World>,
    switch: &Switch,
    sent: &Sent,
    mut following: tokio::sync::mpsc::Receiver<Vec<u8>>,
    task: AbortHandle,
) -> io::Result<()> {
    let way = sent.way(world).await?;
    let (question, rule) = match sent.decide(world, &way).await {
        Ok(decided) => decided,
        Err(reason) => {
            world.reject(&sent.flow(), reason);
            return Ok(());
        }
    };
    // From here on the instance's datagrams to there come to this socket.
    let inside = switch.datagrams(sent.destination, sent.source).await?;
    let begun = world.begin(sent.flow(), question, rule, task);
    let outside = Outside::open(way, sent.destination).await?;
    let (mut answer, mut datagram) = (vec![0; LARGEST_DATAGRAM], vec![0; LARGEST_DATAGRAM]);
    let (mut reader, mut writer) = outside.split();
    loop {
        let event = tokio::select! {
            Some(datagram) = following.recv() => Event::Sent(datagram),
            length = inside.recv(&mut datagram) => Event::Sent(datagram[..length?].to_vec()),
            length = reader.receive(&mut answer) => Event::Received(length?),
            () = tokio::time::sleep(QUIET_UDP) => return Ok(()),
        };
        match event {
            Event::Sent(datagram) => {
                begun.moved.borrow_mut().there += datagram.len() as u64;
                writer.send(&datagram).await?;
            }
            Event::Received(length) => {
                begun.moved.borrow_mut().back += length as u64;
                let _ = inside.send(&answer[..length]).await;
            }
        }
    }
}

enum Event {
    Sent(Vec<u8>),
    Received(usize),
}

/// The other side of an exchange.
enum Outside {
    Host(Rc<UdpSocket>),
    Instance(UnixStream),
}

impl Outside {
    async fn open(way: Way, destination: SocketAddrV4) -> io::Result<Self> {
        let to = match way {
            Way::Instance(called, _) => {
                fabric::hand_over(&called, None).await?;
                return Ok(Self::Instance(called));
            }
            Way::Resolver(resolver) => resolver,
            Way::Outside | Way::Metadata | Way::Nowhere(_) => destination,
        };
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect(SocketAddr::V4(to)).await?;
        Ok(Self::Host(Rc::new(socket)))
    }

    fn split(self) -> (Receiver, Sender) {
        match self {
            Self::Host(socket) => (Receiver::Host(socket.clone()), Sender::Host(socket)),
            Self::Instance(stream) => {
                let (reader, writer) = stream.into_split();
                (Receiver::Instance(Datagrams::of(reader)), Sender::Instance(writer))
            }
        }
    }
}

enum Receiver {
    Host(Rc<UdpSocket>),
    Instance(Datagrams),
}

enum Sender {
    Host(Rc<UdpSocket>),
    Instance(tokio::net::unix::OwnedWriteHalf),
}

impl Receiver {
    async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Host(socket) => socket.recv(buffer).await,
            Self::Instance(datagrams) => datagrams.receive(buffer).await,
        }
    }
}

impl Sender {
    async fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        match self {
            // The host may say that an earlier one was not wanted; this one may be.
            Self::Host(socket) => {
                let _ = socket.send(datagram).await;
                Ok(())
            }
            Self::Instance(writer) => fabric::send_datagram(writer, datagram).await,
        }
    }
}
