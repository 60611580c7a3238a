//! Bytes from one stream to another and back, by way of a pipe: the kernel moves pages and copies none (`splice(2)`).

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{
    io::Interest,
    net::{TcpStream, UnixStream},
};

/// Bytes that are under way in one direction at most.
const PIPE: usize = 256 << 10;
/// Pipes that are kept for the next stream that needs one.
const KEPT: usize = 64;

/// Whatever has two directions that can be closed by themselves.
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    async fn ready(&self, interest: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.ready(interest).await.map(drop),
            Self::Unix(stream) => stream.ready(interest).await.map(drop),
        }
    }

    fn attempt<T>(&self, interest: Interest, io: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Tcp(stream) => stream.try_io(interest, io),
            Self::Unix(stream) => stream.try_io(interest, io),
        }
    }

    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }

    /// Says that no more is sent. One that has gone has heard it.
    fn end(&self) {
        let _ = rustix::net::shutdown(self.as_fd(), rustix::net::Shutdown::Write);
    }

    /// Breaks it off, so that the other side sees a reset and no orderly end.
    pub fn reset(self) {
        if let Self::Tcp(stream) = self {
            let _ = stream.set_zero_linger();
        }
    }
}

/// Bytes that went each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    pub there: u64,
    pub back: u64,
}

/// Moves bytes both ways until both sides have ended or one has failed. What was moved is counted as it goes.
pub async fn pump(one: &Stream, other: &Stream, moved: &RefCell<Moved>) -> io::Result<()> {
    let there = one_way(one, other, |count| moved.borrow_mut().there += count);
    let back = one_way(other, one, |count| moved.borrow_mut().back += count);
    tokio::try_join!(there, back).map(drop)
}

async fn one_way(from: &Stream, to: &Stream, mut count: impl FnMut(u64)) -> io::Result<()> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        // Only who has something to say needs a pipe: one that is quiet holds none.
        from.ready(Interest::READABLE).await?;
        let pipe = Pipe::take()?;
        loop {
            let filled = from.attempt(Interest::READABLE, || Ok(splice(from.as_fd(), None, &pipe.write, None, PIPE, flags)?));
            let mut left = match filled {
                Ok(0) => {
                    pipe.keep();
                    to.end();
                    return Ok(());
                }
                Ok(filled) => filled,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            while left > 0 {
                to.ready(Interest::WRITABLE).await?;
                match to.attempt(Interest::WRITABLE, || Ok(splice(&pipe.read, None, to.as_fd(), None, left, flags)?)) {
                    Ok(sent) => {
                        left -= sent;
                        count(sent as u64);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
        pipe.keep();
    }
}

/// A pipe without anything in it.
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

thread_local! {
    static SPARE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

impl Pipe {
    fn take() -> io::Result<Self> {
        if let Some(spare) = SPARE.with_borrow_mut(Vec::pop) {
            return Ok(spare);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user who has many pipes is not given larger ones; it works with those of the usual size.
        let _ = fcntl_setpipe_size(&write, PIPE);
        Ok(Self { read, write })
    }

    /// Only one that is empty may be kept: what stays in it would come out in another stream.
    fn keep(self) {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < KEPT {
                spare.push(self);
            }
        });
    }
}
