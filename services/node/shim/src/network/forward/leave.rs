//! What an instance sends: to its metadata, to a resolver, to others of its VPC, or to the outside.

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket as StdUdpSocket},
    os::fd::OwnedFd,
    rc::Rc,
    time::Duration,
};

use gureum_firewall::Direction;
use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, UnixStream},
    task::AbortHandle,
    time::timeout,
};

use super::{
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
pub const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);

/// Where an instance asks about itself.
pub const METADATA: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80);
/// The resolver of every VPC ("DNS attributes for your VPC" of the original).
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);

/// Where something goes that an instance sends.
pub enum Way {
    Metadata,
    /// The host's resolver.
    Resolver(SocketAddrV4),
    /// Another instance, or a balancer: whoever has the address answered. In the same VPC its groups count.
    Instance(UnixStream, Vec<String>),
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
        Way::Instance(mut called, _) => {
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
pub struct Sent {
    pub interface: Interface,
    pub transport: Transport,
    pub source: SocketAddrV4,
    pub destination: SocketAddrV4,
}

impl Sent {
    pub fn flow(&self) -> Flow {
        Flow {
            interface: self.interface.id.clone(),
            direction: Direction::Egress.as_str(),
            protocol: self.transport,
            source: self.source,
            destination: self.destination,
        }
    }

    /// The rule that lets it out, if one is needed; else why it stays.
    pub async fn decide(&self, world: &World, way: &Way) -> Result<(Question, Option<String>), &'static str> {
        let groups = match way {
            Way::Instance(_, groups) => groups.iter().filter_map(|group| group.parse().ok()).collect(),
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
            Way::Instance(..) | Way::Outside => match world.decide(&question).await {
                Some(rule) => Ok((question, Some(rule))),
                None => Err("no rule of its security groups lets it out"),
            },
        }
    }

    pub async fn way(&self, world: &World) -> io::Result<Way> {
        let (network, to) = (world.network(), *self.destination.ip());
        if self.destination == METADATA && self.transport == Transport::Tcp {
            return Ok(Way::Metadata);
        }
        if network.is_resolver(to) && self.destination.port() == resolver::PORT {
            return Ok(resolver::of_host().map_or(Way::Nowhere("the host has no resolver that can be reached by IPv4"), Way::Resolver));
        }
        if let Some(fabric) = &world.fabric
            && let Some(called) = fabric.call(&self.interface.vpc, to).await?
        {
            let groups = self.interface.groups.iter().map(|(id, _)| id.clone()).collect();
            let (called, groups) = self.introduced(called, self.source, groups).await?;
            return Ok(Way::Instance(called, groups));
        }
        if self.interface.is_in_vpc(to) {
            return Ok(Way::Nowhere("nobody in the VPC has this address"));
        }
        if let Some(barrier) = self.interface.barrier(to) {
            return Ok(Way::Nowhere(barrier));
        }
        if let Some(public) = self.interface.public_address
            && let Some(fabric) = &world.fabric
            && let Some(called) = fabric.call(fabric::PUBLIC, to).await?
        {
            // It leaves its VPC and comes back from outside: nobody knows any more of which groups it is.
            let (called, _) = self.introduced(called, SocketAddrV4::new(public, self.source.port()), Vec::new()).await?;
            return Ok(Way::Instance(called, Vec::new()));
        }
        Ok(if is_of_host(to) { Way::Nowhere("it is an address of the host itself") } else { Way::Outside })
    }

    /// Says to the shim of another instance who calls, and hears of which groups that one is.
    async fn introduced(&self, mut called: UnixStream, source: SocketAddrV4, groups: Vec<String>) -> io::Result<(UnixStream, Vec<String>)> {
        fabric::say(&mut called, &Hello { transport: self.transport, source, destination: self.destination, groups }).await?;
        let Answer { groups } = fabric::hear(&mut called).await?;
        Ok((called, groups))
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
