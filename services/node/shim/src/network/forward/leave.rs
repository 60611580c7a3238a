//! What an instance sends: to its metadata, to a resolver, to others of its VPC, or to the outside.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket as StdUdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use gureum_firewall::Direction;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg};
use tokio::{
    io::{AsyncReadExt, Interest},
    net::{TcpStream, UdpSocket, UnixStream},
    task::AbortHandle,
    time::timeout,
};

use super::{
    enter::QUIET_UDP,
    fabric::{self, Answer, Hello, Unmade},
    flow_log::Flow,
    pump::{Moved, Stream, pump},
    resolver,
    switch::Switch,
    world::{Peer, Question, World, start},
};
use crate::network::{
    Interface, Transport, metadata,
    queue::{Held, Verdict},
};

/// For a connection to the outside to come about.
const CONNECTS_WITHIN: Duration = Duration::from_secs(20);
/// For the instance to take up a connection whose other side is made.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(10);
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);
const LARGEST_DATAGRAM: usize = 65_535;
/// Datagrams that wait while where they go is being found out.
const WAITING: usize = 64;

/// Where an instance asks about itself.
pub const METADATA: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80);
/// The resolver of every VPC ("DNS attributes for your VPC" of the original).
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);

/// Where something goes that an instance sends.
enum Way {
    Metadata,
    /// The host's resolver.
    Resolver(SocketAddrV4),
    /// Another instance of the VPC, or a balancer in it: whoever has the address answered.
    Private(UnixStream, Vec<String>),
    Outside,
    Nowhere(&'static str),
}

/// Takes every connection of the instance.
pub async fn accept(world: Rc<World>, switch: Rc<Switch>) {
    loop {
        match switch.tcp.accept().await {
            Ok((stream, SocketAddr::V4(source))) => {
                let Ok(SocketAddr::V4(destination)) = stream.local_addr() else { continue };
                let _ = stream.set_nodelay(true);
                let world = world.clone();
                let ready = switch.made.borrow_mut().remove(&(source, destination));
                start(move |task| async move {
                    let made = match ready {
                        Some(made) => Ok(made),
                        // The kernel has no queue for it to wait in, so it was accepted before it was known what becomes of it.
                        None => make(&world, source, destination).await,
                    };
                    match made {
                        Ok(made) => carry(&world, stream, made, task).await,
                        Err(_) => Stream::Tcp(stream).reset(),
                    }
                });
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(BETWEEN_ATTEMPTS).await,
        }
    }
}

/// Decides on the connections of the instance that wait in the queue, each when it is known what becomes of it.
pub async fn hold(world: Rc<World>, switch: Rc<Switch>) {
    let Some(queue) = &switch.queue else { return };
    loop {
        let Ok(mut ready) = queue.readable().await else { return };
        // Others could not be kept either: the queue was too long, and whoever wants them tries again.
        let held = ready.try_io(|queue| queue.get_ref().held()).unwrap_or_else(|_| Ok(Vec::new())).unwrap_or_default();
        for Held { packet, source, destination } in held {
            let key = (source, destination);
            if !switch.waiting.borrow_mut().insert(key) {
                // It was sent again meanwhile.
                let _ = queue.get_ref().decide(packet, Verdict::Drop);
                continue;
            }
            let (world, switch) = (world.clone(), switch.clone());
            start(move |_| async move {
                let made = make(&world, source, destination).await;
                switch.waiting.borrow_mut().remove(&key);
                let verdict = match made {
                    Ok(made) => {
                        switch.made.borrow_mut().insert(key, made);
                        Verdict::Accept
                    }
                    Err(Unmade::Refused) => Verdict::Refuse,
                    Err(Unmade::Dropped) => Verdict::Drop,
                };
                if let Some(queue) = &switch.queue {
                    let _ = queue.get_ref().decide(packet, verdict);
                }
                // One that is given up meanwhile is never accepted.
                tokio::time::sleep(ACCEPTED_WITHIN).await;
                switch.made.borrow_mut().remove(&key);
            });
        }
    }
}

/// The other side of a connection that the instance makes.
pub struct Made {
    other: Other,
    sent: Sent,
    question: Question,
    rule: Option<String>,
}

enum Other {
    Metadata,
    Outside(TcpStream),
    /// The shim of whoever is called.
    Instance(UnixStream),
}

/// Makes the other side of a connection, if the rules let it out.
async fn make(world: &World, source: SocketAddrV4, destination: SocketAddrV4) -> Result<Made, Unmade> {
    let interface = world.network().interface_of(*source.ip()).cloned().ok_or(Unmade::Dropped)?;
    let sent = Sent { interface, transport: Transport::Tcp, source, destination };
    let way = sent.way(world).await.unwrap_or(Way::Nowhere("the way to it cannot be found out"));
    let (question, rule) = sent.decide(world, &way).await.map_err(|reason| {
        world.reject(&sent.flow(), reason);
        Unmade::Dropped
    })?;
    let other = match way {
        Way::Metadata => Other::Metadata,
        Way::Private(mut called, _) => {
            let answered = async {
                fabric::hand_over(&called, None).await?;
                fabric::hear::<Result<(), Unmade>>(&mut called).await
            };
            answered.await.unwrap_or(Err(Unmade::Dropped))?;
            Other::Instance(called)
        }
        Way::Resolver(to) => Other::Outside(connect(to).await?),
        Way::Outside => Other::Outside(connect(destination).await?),
        Way::Nowhere(_) => return Err(Unmade::Dropped),
    };
    Ok(Made { other, sent, question, rule })
}

/// Connects by the host's own network.
async fn connect(to: SocketAddrV4) -> Result<TcpStream, Unmade> {
    match timeout(CONNECTS_WITHIN, TcpStream::connect(SocketAddr::V4(to))).await {
        Ok(Ok(stream)) => {
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset) => Err(Unmade::Refused),
        Ok(Err(_)) | Err(_) => Err(Unmade::Dropped),
    }
}

/// Moves the bytes of a connection until it ends.
async fn carry(world: &Rc<World>, inside: TcpStream, made: Made, task: AbortHandle) {
    let Made { other, sent, question, rule } = made;
    if matches!(other, Other::Metadata) {
        return metadata::serve(&world.metadata, || world.network(), inside).await;
    }
    let begun = world.begin(sent.flow(), question, rule, task);
    let ended = match other {
        Other::Instance(called) => hand_over(inside, called, &begun.moved).await,
        Other::Outside(outside) => {
            let (inside, outside) = (Stream::Tcp(inside), Stream::Tcp(outside));
            let ended = pump(&inside, &outside, &begun.moved).await;
            if ended.is_err() {
                inside.reset();
                outside.reset();
            }
            ended
        }
        Other::Metadata => Ok(()),
    };
    if let Err(error) = ended {
        begun.ends_with(error.to_string());
    }
}

/// Gives a connection to the shim of whoever is called, which moves its bytes from then on.
async fn hand_over(inside: TcpStream, mut called: UnixStream, moved: &RefCell<Moved>) -> io::Result<()> {
    let connection = OwnedFd::from(inside.into_std()?);
    fabric::hand_over(&called, Some(&connection)).await?;
    drop(connection);
    let (there, back) = (called.read_u64().await?, called.read_u64().await?);
    moved.replace(Moved { there, back });
    Ok(())
}

/// Something that an instance sends for the first time.
#[derive(Clone)]
struct Sent {
    interface: Interface,
    transport: Transport,
    source: SocketAddrV4,
    destination: SocketAddrV4,
}

impl Sent {
    fn flow(&self) -> Flow {
        Flow {
            interface: self.interface.id.clone(),
            direction: Direction::Egress.as_str(),
            protocol: self.transport,
            source: self.source,
            destination: self.destination,
        }
    }

    /// The rule that lets it out, if one is needed; else why it stays.
    async fn decide(&self, world: &World, way: &Way) -> Result<(Question, Option<String>), &'static str> {
        let groups = match way {
            Way::Private(_, groups) => groups.iter().filter_map(|group| group.parse().ok()).collect(),
            _ => Vec::new(),
        };
        let question = Question {
            interface: self.interface.id.clone(),
            direction: Direction::Egress,
            transport: self.transport,
            port: self.destination.port(),
            peer: Peer { address: self.destination, groups },
        };
        match way {
            Way::Nowhere(reason) => Err(reason),
            // The original's groups do not look at what goes there.
            Way::Metadata | Way::Resolver(_) => Ok((question, None)),
            Way::Private(..) | Way::Outside => match world.decide(&question).await {
                Some(rule) => Ok((question, Some(rule))),
                None => Err("no rule of its security groups lets it out"),
            },
        }
    }

    async fn way(&self, world: &World) -> io::Result<Way> {
        let (network, to) = (world.network(), *self.destination.ip());
        if self.destination == METADATA && self.transport == Transport::Tcp {
            return Ok(Way::Metadata);
        }
        if network.is_resolver(to) && self.destination.port() == resolver::PORT {
            return Ok(resolver::of_host().map_or(Way::Nowhere("the host has no resolver that can be reached by IPv4"), Way::Resolver));
        }
        if let Some(fabric) = &world.fabric
            && let Some(mut called) = fabric.call(&self.interface.vpc, to).await?
        {
            let groups = self.interface.groups.iter().map(|(id, _)| id.clone()).collect();
            let hello = Hello { transport: self.transport, source: self.source, destination: self.destination, groups };
            fabric::say(&mut called, &hello).await?;
            let Answer { groups } = fabric::hear(&mut called).await?;
            return Ok(Way::Private(called, groups));
        }
        if self.interface.is_in_vpc(to) {
            return Ok(Way::Nowhere("nobody in the VPC has this address"));
        }
        if !self.interface.reaches_outside {
            return Ok(Way::Nowhere("its subnet leads to no internet gateway, or it has no public address"));
        }
        Ok(if is_of_host(to) { Way::Nowhere("it is an address of the host itself") } else { Way::Outside })
    }
}

/// Whether an address is the host's own, or no machine's: what an instance sends there would reach the host.
fn is_of_host(address: Ipv4Addr) -> bool {
    let special = address.is_loopback()
        || address.is_unspecified()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.octets()[0] == 0;
    // To itself the host speaks from the same address; nothing is sent for this.
    special
        || StdUdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
            .and_then(|probe| probe.connect((address, 9)).and_then(|()| probe.local_addr()))
            .is_ok_and(|own| own.ip() == IpAddr::V4(address))
}

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
    let (reader, mut writer) = outside.split();
    let mut reader = reader;
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
            Way::Private(called, _) => {
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
                (Receiver::Instance(Frames { reader, unread: Vec::new() }), Sender::Instance(writer))
            }
        }
    }
}

enum Receiver {
    Host(Rc<UdpSocket>),
    Instance(Frames),
}

enum Sender {
    Host(Rc<UdpSocket>),
    Instance(tokio::net::unix::OwnedWriteHalf),
}

/// Datagrams within a stream, read so that whoever stops waiting in between loses nothing.
struct Frames {
    reader: tokio::net::unix::OwnedReadHalf,
    unread: Vec<u8>,
}

impl Receiver {
    async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Host(socket) => socket.recv(buffer).await,
            Self::Instance(frames) => loop {
                if let Some((length, rest)) = frames.unread.split_first_chunk::<2>() {
                    let length = usize::from(u16::from_be_bytes(*length));
                    if let Some(datagram) = rest.get(..length) {
                        buffer[..length].copy_from_slice(datagram);
                        frames.unread.drain(..length + 2);
                        return Ok(length);
                    }
                }
                if frames.reader.read_buf(&mut frames.unread).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            },
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
