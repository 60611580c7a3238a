//! How long a caller may take to say what he wants.
//!
//! A connection costs a descriptor, of which there are few: one that is opened and then says nothing, or never ends what it
//! began to say, is closed. After its first words, HTTP/2's own pings tell whether a caller is still there.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};
use tonic::transport::server::Connected;

/// Time for the first words.
pub const FIRST_WORDS: Duration = Duration::from_secs(10);

/// HTTP/2 begins with so many bytes (RFC 9113, 3.4), the first three of which begin no HTTP/1 request.
const PREFACE: usize = 24;
const HTTP2: &[u8] = b"PRI";
/// A TLS record with a handshake (RFC 8446, 5.1).
const TLS: u8 = 0x16;
/// An HTTP/1 head that is longer is refused by whoever reads it.
const LONGEST_HEAD: usize = 1 << 20;

/// A connection that is closed unless its first words come in time.
pub struct Patient<S> {
    stream: S,
    waiting: Option<Waiting>,
}

struct Waiting {
    deadline: Pin<Box<Sleep>>,
    words: FirstWords,
}

/// What was read so far: as much as is needed to tell whether the first words are whole.
#[derive(Debug, Default)]
struct FirstWords {
    count: usize,
    first: Vec<u8>,
    last: [u8; 4],
}

impl FirstWords {
    fn read(&mut self, bytes: &[u8]) {
        self.count += bytes.len();
        self.first.extend(bytes.iter().take(HTTP2.len().saturating_sub(self.first.len())));
        // The end of a head may stand anywhere in what came, and then all that follows is not of the head any more.
        for byte in bytes {
            if self.last == *b"\r\n\r\n" {
                return;
            }
            self.last.rotate_left(1);
            self.last[3] = *byte;
        }
    }

    fn are_whole(&self) -> bool {
        if self.first == HTTP2 || self.first.first() == Some(&TLS) {
            return self.count >= PREFACE;
        }
        self.last == *b"\r\n\r\n" || self.count > LONGEST_HEAD
    }
}

impl<S> Patient<S> {
    pub fn new(stream: S) -> Self {
        Self::within(stream, FIRST_WORDS)
    }

    fn within(stream: S, limit: Duration) -> Self {
        let waiting = Waiting { deadline: Box::pin(tokio::time::sleep(limit)), words: FirstWords::default() };
        Self { stream, waiting: Some(waiting) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let Some(waiting) = &mut this.waiting else { return read };
        if read.is_ready() {
            waiting.words.read(&buffer.filled()[before..]);
            if waiting.words.are_whole() {
                this.waiting = None;
            }
            return read;
        }
        if waiting.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the caller did not say what he wants")));
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl<S: Connected> Connected for Patient<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What becomes of a caller who says this, in pieces, and then nothing.
    async fn said(pieces: &[&[u8]]) -> io::Result<usize> {
        let (mut caller, door) = tokio::io::duplex(1 << 16);
        let limit = Duration::from_millis(50);
        let mut door = Patient::within(door, limit);
        let mut read = 0;
        for piece in pieces {
            caller.write_all(piece).await?;
            read += door.read(&mut vec![0; 1 << 16]).await?;
        }
        let more = tokio::time::timeout(4 * limit, door.read(&mut [0; 16])).await;
        // Who has said enough may be silent for as long as he likes.
        more.map_or(Ok(read), |ended| ended)
    }

    #[tokio::test]
    async fn whoever_does_not_say_what_he_wants_is_not_waited_for() {
        let unfinished: [&[&[u8]]; 5] = [&[], &[b"PRI * HT"], &[b"GET / HTTP/1.1\r\n"], &[b"P", b"RI"], &[&[TLS, 3, 1]]];
        for pieces in unfinished {
            let ended = said(pieces).await.map_err(|error| error.kind());
            assert_eq!(ended, Err(io::ErrorKind::TimedOut), "{pieces:?}");
        }
        let whole: [&[&[u8]]; 4] = [
            &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
            &[b"GET / HTTP/1.1\r\nhost: x\r\n\r", b"\nbody and more"],
            &[b"POST / HTTP/1.1\r\n\r\n", b"x"],
            &[&[TLS; 24]],
        ];
        for pieces in whole {
            assert!(said(pieces).await.is_ok(), "{pieces:?}");
        }
    }
}
