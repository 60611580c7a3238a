//! How instances of a VPC find each other: a directory in which each private address is a socket of the shim that has it.
//!
//! ```text
//!  source's shim                         destination's shim
//!  ── Hello {source, destination, groups} ──►
//!  ◄── Answer {groups} ──
//!  ── go on, if the source's rules let it out ──►
//!  ◄── made, or not ──                    if the destination's rules let it in ── instance
//!  ── the connection itself ──►
//!  ◄── bytes that went each way ──        at its end
//! ```
//!
//! A connection is handed over as a file descriptor, so its bytes pass one process and not two. Nothing is looked up
//! at any service: what runs reaches what runs, whoever else is down. Only the user of the region's nodes may enter
//! the directory, so what a Hello says of its source is true.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{fs::MetadataExt, net::UnixListener as StdListener},
    },
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{UnixListener, UnixStream, unix::OwnedReadHalf},
};

use crate::network::{Interface, Transport, factory};

/// What a caller says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub transport: Transport,
    pub source: SocketAddrV4,
    pub destination: SocketAddrV4,
    /// The security groups of the source: `sg-…`.
    pub groups: Vec<String>,
}

/// What the called says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub groups: Vec<String>,
}

/// Why a connection is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unmade {
    /// By who is called: it is answered so.
    Refused,
    /// By rules, or nobody is there: nobody answers.
    Dropped,
}

/// Where public addresses are, whatever their VPC.
pub const PUBLIC: &str = "public";

/// A larger word is none of a shim's.
const LONGEST: u16 = 16 << 10;

/// The directory of a region's private addresses on this host.
pub struct Fabric {
    path: PathBuf,
    directory: File,
}

impl Fabric {
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        Ok(Self { path: path.to_owned(), directory: File::open(path)? })
    }

    /// The same place by a path that is short enough for a socket, whatever the directory's is.
    fn short(&self, vpc: &str, address: Ipv4Addr) -> PathBuf {
        Path::new("/proc/self/fd").join(self.directory.as_raw_fd().to_string()).join(vpc).join(address.to_string())
    }

    /// Is found at a private address from now on, until this is dropped.
    pub fn listen(&self, vpc: &str, address: Ipv4Addr) -> io::Result<Place> {
        fs::create_dir_all(self.path.join(vpc))?;
        let path = self.short(vpc, address);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = StdListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        let inode = fs::metadata(&path)?.ino();
        Ok(Place { listener: UnixListener::from_std(listener)?, path: self.path.join(vpc).join(address.to_string()), inode })
    }

    /// Calls whoever has a private address; none: nobody has.
    pub async fn call(&self, vpc: &str, address: Ipv4Addr) -> io::Result<Option<UnixStream>> {
        match UnixStream::connect(self.short(vpc, address)).await {
            Ok(stream) => Ok(Some(stream)),
            // Without a socket, or with one of a shim that was killed.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A private address at which this shim is found.
pub struct Place {
    pub listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Somebody else may have the address by now.
        if fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes what shims that were killed left of an instance's addresses.
pub fn forget<'a>(fabric: &Path, interfaces: impl IntoIterator<Item = &'a Interface>) {
    let Ok(directory) = Fabric::open(fabric) else { return };
    let places = |it: &'a Interface| {
        let private = it.private_addresses.iter().map(|address| (it.vpc.as_str(), *address));
        private.chain(it.public_address.map(|address| (PUBLIC, address)))
    };
    for (vpc, address) in interfaces.into_iter().flat_map(places) {
        let path = directory.short(vpc, address);
        // One at which somebody answers is another's.
        if std::os::unix::net::UnixStream::connect(&path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            let _ = fs::remove_file(&path);
        }
        let _ = fs::remove_dir(fabric.join(vpc));
    }
}

pub async fn say(stream: &mut UnixStream, word: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(word)?;
    let length = u16::try_from(bytes.len()).ok().filter(|length| *length <= LONGEST).ok_or(io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes(), bytes.as_slice()].concat()).await
}

pub async fn hear<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<T> {
    let length = stream.read_u16().await?;
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Lets the called begin, and gives it the connection if there is one to hand over.
pub async fn hand_over(stream: &UnixStream, connection: Option<&OwnedFd>) -> io::Result<()> {
    let descriptors: Vec<_> = connection.into_iter().map(AsFd::as_fd).collect();
    stream.async_io(Interest::WRITABLE, || factory::send(stream.as_fd(), &[0], &descriptors)).await
}

/// Waits until the caller lets this side begin. An error: it does not.
pub async fn take_over(stream: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let (length, descriptors) = stream.async_io(Interest::READABLE, || factory::receive(stream.as_fd(), &mut byte)).await?;
    if length == 0 { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(descriptors.into_iter().next()) }
}

/// A datagram within a stream.
pub async fn send_datagram(stream: &mut (impl AsyncWriteExt + Unpin), datagram: &[u8]) -> io::Result<()> {
    let length = u16::try_from(datagram.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes(), datagram].concat()).await
}

/// Datagrams within a stream, read so that whoever stops waiting in between loses nothing.
pub struct Datagrams {
    reader: OwnedReadHalf,
    unread: Vec<u8>,
}

impl Datagrams {
    pub fn of(reader: OwnedReadHalf) -> Self {
        Self { reader, unread: Vec::new() }
    }

    /// The next one, at the beginning of the buffer, which has room for the largest.
    pub async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some((length, rest)) = self.unread.split_first_chunk::<2>() {
                let length = usize::from(u16::from_be_bytes(*length));
                if let Some(datagram) = rest.get(..length) {
                    buffer[..length].copy_from_slice(datagram);
                    self.unread.drain(..length + 2);
                    return Ok(length);
                }
            }
            if self.reader.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
