//! What comes to an instance: from the outside by its public address, from the VPC by its private ones.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    rc::Rc,
    time::Duration,
};

use gureum_firewall::Direction;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket, UnixStream},
    sync::mpsc,
    task::AbortHandle,
    time::timeout,
};

use super::{
    fabric::{self, Answer, Datagrams, Hello, Place, Unmade},
    flow_log::Flow,
    pump::{Moved, Stream, pump},
    world::{Begun, Peer, Question, World, seen_as, start},
};
use crate::network::{Interface, Transport};

/// How long UDP between two addresses may be quiet before it is forgotten ("Connection tracking" of the original: 180 s
/// for what went both ways).
pub const QUIET_UDP: Duration = Duration::from_secs(180);
/// For what a caller has to say before its connection is handed over.
const CALLER_SPEAKS_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at a listener that cannot accept now: it is out of file descriptors.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);
const LARGEST_DATAGRAM: usize = 65_535;
/// Datagrams of one source that wait while it is being let in.
const WAITING: usize = 64;

/// What is called, and by whom.
struct Call {
    interface: Interface,
    transport: Transport,
    peer: Peer,
    /// As the caller has it.
    called: SocketAddrV4,
    /// Where it leads within.
    private: SocketAddrV4,
}

impl Call {
    fn flow(&self) -> Flow {
        Flow {
            interface: self.interface.id.clone(),
            direction: Direction::Ingress.as_str(),
            protocol: self.transport,
            source: self.peer.address,
            destination: self.called,
        }
    }

    fn question(&self) -> Question {
        Question {
            interface: self.interface.id.clone(),
            direction: Direction::Ingress,
            transport: self.transport,
            port: self.private.port(),
            peer: self.peer.clone(),
        }
    }

    /// The rule that lets it in. None, which is written down: it stays out.
    async fn admit(&self, world: &World) -> Option<String> {
        // What came by the public address is answered to the outside.
        let is_outside = self.interface.public_address == Some(*self.called.ip());
        let barrier = is_outside.then(|| self.interface.barrier(*self.peer.address.ip())).flatten();
        let admitted = match barrier {
            Some(barrier) => Err(barrier),
            None => world.decide(&self.question()).await.ok_or("no rule of its security groups lets it in"),
        };
        admitted.inspect_err(|reason| world.reject(&self.flow(), reason)).ok()
    }
}

/// Takes connections at a port of a public address.
pub async fn accept(world: Rc<World>, listener: TcpListener, interface: String, port: u16) {
    loop {
        let Ok((outside, SocketAddr::V4(source))) = listener.accept().await else {
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
            continue;
        };
        let Ok(SocketAddr::V4(called)) = outside.local_addr() else { continue };
        let Some(interface) = world.network().interface(&interface).cloned() else { return };
        let Some(primary) = interface.private_addresses.first().copied() else { return };
        let peer = Peer { address: source, groups: Vec::new() };
        let call = Call { interface, transport: Transport::Tcp, peer, called, private: SocketAddrV4::new(primary, port) };
        let _ = outside.set_nodelay(true);
        let world = world.clone();
        start(move |task| async move {
            match reach(&world, &call).await {
                Ok(reached) => carry(&world, &call, Stream::Tcp(outside), reached, task, None).await,
                Err(_) => Stream::Tcp(outside).reset(),
            }
        });
    }
}

/// A connection to the instance, and the rule that lets it in.
struct Reached {
    inside: TcpStream,
    rule: String,
}

/// Connects to the instance, if the rules let that in.
async fn reach(world: &Rc<World>, call: &Call) -> Result<Reached, Unmade> {
    let rule = call.admit(world).await.ok_or(Unmade::Dropped)?;
    let inside = world.inside().ok_or(Unmade::Dropped)?;
    let inside = inside.connect(seen_as(call.peer.address, &call.interface), call.private).await.map_err(|_| Unmade::Refused)?;
    Ok(Reached { inside, rule })
}

/// Moves the bytes of a connection until it ends.
async fn carry(world: &Rc<World>, call: &Call, outside: Stream, reached: Reached, task: AbortHandle, caller: Option<UnixStream>) {
    let begun = world.begin(call.flow(), call.question(), Some(reached.rule), task);
    let inside = Stream::Tcp(reached.inside);
    let pumped = pump(&outside, &inside, &begun.moved);
    // Whoever handed the connection over goes on counting it, and breaks it off by going away.
    let ended = match caller {
        Some(mut caller) => {
            let ended = tokio::select! {
                ended = pumped => ended,
                _ = caller.read_u8() => Err(io::ErrorKind::ConnectionAborted.into()),
            };
            let Moved { there, back } = *begun.moved.borrow();
            let _ = caller.write_all(&[there.to_be_bytes(), back.to_be_bytes()].concat()).await;
            ended
        }
        None => pumped.await,
    };
    if let Err(error) = ended {
        begun.ends_with(error.to_string());
        outside.reset();
        inside.reset();
    }
}

/// Takes datagrams at a port of a public address.
pub async fn datagrams(world: Rc<World>, outside: UdpSocket, interface: String, port: u16) {
    let outside = Rc::new(outside);
    let Ok(SocketAddr::V4(called)) = outside.local_addr() else { return };
    let sources = Sources::default();
    let mut datagram = vec![0; LARGEST_DATAGRAM];
    loop {
        let Ok((length, SocketAddr::V4(source))) = outside.recv_from(&mut datagram).await else { continue };
        let known = sources.0.borrow().get(&source).map(|(first, _)| first.clone());
        if let Some(known) = known {
            // A source that sends faster than it is let in loses some, as datagrams are lost.
            let _ = known.try_send(datagram[..length].to_vec());
            continue;
        }
        let Some(interface) = world.network().interface(&interface).cloned() else { return };
        let Some(primary) = interface.private_addresses.first().copied() else { return };
        let (first, following) = mpsc::channel(WAITING);
        let _ = first.try_send(datagram[..length].to_vec());
        let peer = Peer { address: source, groups: Vec::new() };
        let call = Call { interface, transport: Transport::Udp, peer, called, private: SocketAddrV4::new(primary, port) };
        let (world, outside, known) = (world.clone(), outside.clone(), Rc::downgrade(&sources.0));
        let task = start(move |task| async move {
            let _ = answer_source(&world, &call, &outside, following, task).await;
            if let Some(known) = known.upgrade() {
                known.borrow_mut().remove(&source);
            }
        });
        sources.0.borrow_mut().insert(source, (first, task));
    }
}

/// Who sends datagrams to a port. What was let in ends with the port.
#[derive(Default)]
struct Sources(Rc<RefCell<HashMap<SocketAddrV4, Source>>>);

/// Where its datagrams go, and what moves them.
type Source = (mpsc::Sender<Vec<u8>>, AbortHandle);

impl Drop for Sources {
    fn drop(&mut self) {
        self.0.borrow().values().for_each(|(_, task)| task.abort());
    }
}

/// Moves datagrams of one source, if the rules let them in, until both sides are quiet.
async fn answer_source(
    world: &Rc<World>,
    call: &Call,
    outside: &UdpSocket,
    mut following: mpsc::Receiver<Vec<u8>>,
    task: AbortHandle,
) -> io::Result<()> {
    let Some((inside, begun)) = let_datagrams_in(world, call, task).await else { return Ok(()) };
    let mut answer = vec![0; LARGEST_DATAGRAM];
    loop {
        tokio::select! {
            Some(datagram) = following.recv() => {
                begun.moved.borrow_mut().there += datagram.len() as u64;
                let _ = inside.send(&datagram).await;
            }
            // Refused by the instance, where nothing listens any more: another may listen soon.
            received = inside.recv(&mut answer) => if let Ok(length) = received {
                begun.moved.borrow_mut().back += length as u64;
                let _ = outside.send_to(&answer[..length], SocketAddr::V4(call.peer.address)).await;
            },
            () = tokio::time::sleep(QUIET_UDP) => return Ok(()),
        }
    }
}

/// A socket towards the instance, if the rules let in what comes.
async fn let_datagrams_in(world: &Rc<World>, call: &Call, task: AbortHandle) -> Option<(UdpSocket, Begun)> {
    let rule = call.admit(world).await?;
    let inside = world.inside()?.datagrams(seen_as(call.peer.address, &call.interface), call.private).await.ok()?;
    Some((inside, world.begin(call.flow(), call.question(), Some(rule), task)))
}

/// Answers what of the region calls at a private address or a public one.
pub async fn answer(world: Rc<World>, place: Place, interface: String, address: Ipv4Addr) {
    loop {
        let Ok((caller, _)) = place.listener.accept().await else {
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
            continue;
        };
        let Some(interface) = world.network().interface(&interface).cloned() else { return };
        let world = world.clone();
        start(move |task| async move {
            // A caller that says what is not understood, or goes away, is told nothing.
            let _ = take_call(&world, caller, interface, address, task).await;
        });
    }
}

async fn take_call(
    world: &Rc<World>,
    mut caller: UnixStream,
    interface: Interface,
    address: Ipv4Addr,
    task: AbortHandle,
) -> io::Result<()> {
    let hello = async {
        let hello: Hello = fabric::hear(&mut caller).await?;
        let groups = interface.groups.iter().map(|(id, _)| id.clone()).collect();
        fabric::say(&mut caller, &Answer { groups }).await?;
        fabric::take_over(&caller).await?;
        io::Result::Ok(hello)
    };
    let hello = timeout(CALLER_SPEAKS_WITHIN, hello).await??;
    if *hello.destination.ip() != address {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let groups = hello.groups.iter().filter_map(|group| group.parse().ok()).collect();
    let peer = Peer { address: hello.source, groups };
    let called = hello.destination;
    let to = if interface.public_address == Some(address) { interface.private_addresses.first().copied() } else { Some(address) };
    let private = SocketAddrV4::new(to.ok_or(io::ErrorKind::AddrNotAvailable)?, called.port());
    let call = Call { interface, transport: hello.transport, peer, called, private };
    if hello.transport == Transport::Udp {
        return datagrams_by_stream(world, caller, call, task).await;
    }
    let reached = reach(world, &call).await;
    fabric::say(&mut caller, &reached.as_ref().map(drop).map_err(|unmade| *unmade)).await?;
    let Ok(reached) = reached else { return Ok(()) };
    let connection = timeout(CALLER_SPEAKS_WITHIN, fabric::take_over(&caller)).await??.ok_or(io::ErrorKind::InvalidData)?;
    carry(world, &call, stream(connection)?, reached, task, Some(caller)).await;
    Ok(())
}

/// A connection that was handed over: of an instance's, or of a balancer's, which may be local.
fn stream(connection: std::os::fd::OwnedFd) -> io::Result<Stream> {
    let domain = rustix::net::sockopt::socket_domain(&connection)?;
    if domain == rustix::net::AddressFamily::UNIX {
        let stream = std::os::unix::net::UnixStream::from(connection);
        stream.set_nonblocking(true)?;
        return Ok(Stream::Unix(UnixStream::from_std(stream)?));
    }
    let stream = std::net::TcpStream::from(connection);
    stream.set_nonblocking(true)?;
    Ok(Stream::Tcp(TcpStream::from_std(stream)?))
}

/// Datagrams of one source, each with its length before it.
async fn datagrams_by_stream(world: &Rc<World>, caller: UnixStream, call: Call, task: AbortHandle) -> io::Result<()> {
    let Some((inside, begun)) = let_datagrams_in(world, &call, task).await else { return Ok(()) };
    let (reader, mut writer) = caller.into_split();
    let mut reader = Datagrams::of(reader);
    let there = async {
        let mut datagram = vec![0; LARGEST_DATAGRAM];
        loop {
            let length = reader.receive(&mut datagram).await?;
            begun.moved.borrow_mut().there += length as u64;
            // One that cannot be delivered now is lost, as datagrams are.
            let _ = inside.send(&datagram[..length]).await;
        }
    };
    let back = async {
        let mut datagram = vec![0; LARGEST_DATAGRAM];
        loop {
            let Ok(length) = timeout(QUIET_UDP, inside.recv(&mut datagram)).await? else { continue };
            begun.moved.borrow_mut().back += length as u64;
            fabric::send_datagram(&mut writer, &datagram[..length]).await?;
        }
    };
    let (there, back): (io::Result<()>, io::Result<()>) =
        tokio::select! { there = there => (there, Ok(())), back = back => (Ok(()), back) };
    there.and(back)
}
