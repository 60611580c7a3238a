//! An answer that breaks off: its sender died, or was cut off, after its first byte.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tonic::{Status, body::Body};

use crate::error::unavailable;

/// An answer's body that ends with UNAVAILABLE and RetryInfo where it breaks off, in place of the transport's error:
/// callers know what to do with the one, and take the other for a fault of ours.
pub struct Whole {
    body: Body,
    broken: bool,
}

impl Whole {
    pub fn of(body: Body) -> Body {
        Body::new(Self { body, broken: false })
    }
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.broken {
            return Poll::Ready(None);
        }
        let error = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Err(error)) => error,
            whole => return Poll::Ready(whole),
        };
        tracing::debug!(%error, "a peer's answer broke off");
        self.broken = true;
        let mut trailers = HeaderMap::new();
        let status = unavailable("ServiceUnavailable", "the service ended in the midst of its answer; try again");
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.broken || self.body.is_end_stream()
    }
}
