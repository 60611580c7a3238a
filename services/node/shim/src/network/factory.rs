//! Sockets of a switch, made by the process that is in its namespace and sent to the shim, which is not.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::sys::socket::SockType;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::wiring;

/// Sockets that one message carries at most (the kernel's limit is 253).
pub const MOST: usize = 64;

/// Sends file descriptors with some bytes, which must not be none.
pub fn send(stream: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} file descriptors are too many at once", descriptors.len())));
    }
    sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives bytes, and the file descriptors that came with them. No bytes: the other side has gone.
pub fn receive(stream: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => rights.collect(),
        _ => Vec::new(),
    });
    Ok((received.bytes, descriptors.collect()))
}

/// What is asked of the factory: a byte for the kind, and one for how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tcp = 1,
    Udp = 2,
}

pub fn ask(stream: BorrowedFd<'_>, kind: Kind, count: u8) -> io::Result<()> {
    send(stream, &[kind as u8, count], &[])
}

/// Makes what is asked for. Answers false when nobody will ask any more.
pub fn serve(stream: BorrowedFd<'_>) -> io::Result<bool> {
    let mut asked = [0; 2];
    let (length, _) = receive(stream, &mut asked)?;
    if length < asked.len() {
        return Ok(false);
    }
    let kind = if asked[0] == Kind::Udp as u8 { SockType::Datagram } else { SockType::Stream };
    let made = (0..usize::from(asked[1]).min(MOST)).map(|_| wiring::transparent(kind)).collect::<io::Result<Vec<_>>>()?;
    send(stream, &asked[..1], &made.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
    Ok(true)
}
