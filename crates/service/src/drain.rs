//! Answers that never end by themselves, when their service has to.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, body::Body};

use crate::error::ending;

/// An answer's body that ends with UNAVAILABLE and RetryInfo once its service drains and there is nothing more to
/// send at the moment: a watch would hold the service up for as long as anybody listens. What is under way is sent first.
pub struct Draining {
    body: Body,
    drain: Arc<CancellationToken>,
    /// From when the body had nothing to send.
    drained: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    ended: bool,
}

impl Draining {
    pub fn of(body: Body, drain: Arc<CancellationToken>) -> Body {
        if http_body::Body::is_end_stream(&body) {
            return body;
        }
        Body::new(Self { body, drain, drained: None, ended: false })
    }
}

impl http_body::Body for Draining {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let drained = this.drained.get_or_insert_with(|| Box::pin(CancellationToken::clone(&this.drain).cancelled_owned()));
        ready!(drained.as_mut().poll(cx));
        this.ended = true;
        let mut trailers = HeaderMap::new();
        let status = ending("ask again where you left off");
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};
    use tokio_stream::StreamExt;
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn a_stream_sends_what_it_has_and_then_ends_with_its_service() {
        let drain = Arc::new(CancellationToken::new());
        let data = tokio_stream::once(Ok::<_, Status>(Frame::data(Bytes::from_static(b"said")))).chain(tokio_stream::pending());
        let mut body = Draining::of(Body::new(StreamBody::new(data)), drain.clone());
        drain.cancel();
        let said = body.frame().await.and_then(Result::ok).and_then(|frame| frame.into_data().ok());
        assert_eq!(said, Some(Bytes::from_static(b"said")));
        let trailers = body.frame().await.and_then(Result::ok).and_then(|frame| frame.into_trailers().ok()).unwrap_or_default();
        assert_eq!(Status::from_header_map(&trailers).map(|status| status.code()), Some(Code::Unavailable));
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn an_answer_that_ends_by_itself_is_whole() {
        let drain = Arc::new(CancellationToken::new());
        drain.cancel();
        let body = Draining::of(Body::new(http_body_util::Full::new(Bytes::from_static(b"all")).map_err(|never| match never {})), drain);
        assert_eq!(body.collect().await.map(|all| all.to_bytes()).ok(), Some(Bytes::from_static(b"all")));
    }
}
