//! The switch of an instance as the shim has it: sockets in the namespace on the instance's side.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap, HashSet},
    io,
    net::{SocketAddr, SocketAddrV4},
    os::fd::{AsFd, OwnedFd},
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket, UnixStream},
    sync::Mutex,
};

use super::leave::Made;
use crate::network::{
    factory::{self, Kind},
    listening::{Listening, listening},
    netlink::Netlink,
    queue::Queue,
};

/// Sockets that are asked for at once, and how few there may be before more are.
const BATCH: u8 = 32;

/// What connects a shim with the namespace of its instance, as long as the instance runs.
pub struct Switch {
    pub tcp: TcpListener,
    pub udp: UdpSocket,
    /// Connections of the instance that wait until it is known what becomes of them, if the kernel can keep them.
    pub queue: Option<AsyncFd<Queue>>,
    /// Those that wait, from where and to where.
    pub waiting: RefCell<HashSet<(SocketAddrV4, SocketAddrV4)>>,
    /// Those whose other side is made.
    pub made: RefCell<HashMap<(SocketAddrV4, SocketAddrV4), Made>>,
    listening: Netlink,
    factory: Mutex<UnixStream>,
    spare: RefCell<Vec<OwnedFd>>,
}

impl Switch {
    /// Takes over what the process within sends first: the sockets of the switch, and one that knows who listens.
    pub async fn open(factory: UnixStream) -> io::Result<Self> {
        let mut descriptors = receive(&factory).await?.into_iter();
        let (Some(tcp), Some(udp), Some(listening)) = (descriptors.next(), descriptors.next(), descriptors.next()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the switch came without its sockets"));
        };
        let queue = descriptors.next().map(Queue::from_socket).transpose()?;
        let queue = queue.map(ready_when_readable).transpose()?;
        Ok(Self {
            tcp: TcpListener::from_std(tcp.into())?,
            udp: UdpSocket::from_std(udp.into())?,
            queue,
            waiting: RefCell::default(),
            made: RefCell::default(),
            listening: Netlink::from_socket(listening)?,
            factory: Mutex::new(factory),
            spare: RefCell::default(),
        })
    }

    /// The ports on which the instance listens.
    pub fn listening(&self) -> io::Result<BTreeSet<Listening>> {
        listening(&self.listening)
    }

    async fn tcp_socket(&self) -> io::Result<OwnedFd> {
        if let Some(spare) = self.spare.borrow_mut().pop() {
            return Ok(spare);
        }
        let factory = self.factory.lock().await;
        if let Some(spare) = self.spare.borrow_mut().pop() {
            return Ok(spare);
        }
        factory::ask(factory.as_fd(), Kind::Tcp, BATCH)?;
        let mut made = receive(&factory).await?;
        let socket = made.pop().ok_or(io::ErrorKind::BrokenPipe)?;
        self.spare.borrow_mut().extend(made);
        Ok(socket)
    }

    /// A connection to the instance, as if it came from `source`.
    pub async fn connect(&self, source: SocketAddrV4, destination: SocketAddrV4) -> io::Result<TcpStream> {
        let socket = TcpSocket::from_std_stream(self.tcp_socket().await?.into());
        if socket.bind(SocketAddr::V4(source)).is_err() {
            // Its port is in use by another connection from there.
            socket.bind(SocketAddr::V4(SocketAddrV4::new(*source.ip(), 0)))?;
        }
        socket.set_nodelay(true)?;
        socket.connect(SocketAddr::V4(destination)).await
    }

    /// A socket for datagrams between the instance and `other`, which is not the instance's.
    pub async fn datagrams(&self, other: SocketAddrV4, instance: SocketAddrV4) -> io::Result<UdpSocket> {
        let factory = self.factory.lock().await;
        factory::ask(factory.as_fd(), Kind::Udp, 1)?;
        let made = receive(&factory).await?.pop().ok_or(io::ErrorKind::BrokenPipe)?;
        drop(factory);
        let socket = UdpSocket::from_std(made.into())?;
        let bound = rustix::net::bind(&socket, &other);
        if bound.is_err() {
            rustix::net::bind(&socket, &SocketAddrV4::new(*other.ip(), 0))?;
        }
        socket.connect(SocketAddr::V4(instance)).await?;
        Ok(socket)
    }
}

/// Its successor is unsafe, for types whose descriptor may change under it; a queue's is one and the same.
#[allow(deprecated, reason = "what takes its place asks for unsafe code")]
fn ready_when_readable(queue: Queue) -> io::Result<AsyncFd<Queue>> {
    AsyncFd::with_interest(queue, Interest::READABLE)
}

async fn receive(factory: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut kind = [0];
    let (length, descriptors) = factory.async_io(Interest::READABLE, || factory::receive(factory.as_fd(), &mut kind)).await?;
    if length == 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(descriptors) }
}
