//! Calls to peers: over a Unix socket or mTLS, with the caller's scope, trace and what is left of its
//! deadline.

use std::{
    ops::RangeInclusive,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use gureum_proto::codec::ERROR_DOMAIN;
use http::{HeaderValue, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Code, Status, TimeoutExpired,
    body::Body,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_types::{ErrorDetails, StatusExt};
use tower::Service;

use crate::{
    broken::Whole,
    clock::monotonic,
    config::{Listen, TlsConfig},
    context::{ACCOUNT_HEADER, REGION_HEADER, REQUEST_ID_HEADER, RequestContext, TRACEPARENT_HEADER, current, format_timeout, may_change},
    contract::only_tells,
    error::Error,
    faults::{Fault, FaultKind, Faults, exit},
    sequences::{READ_AFTER_HEADER, Sequences},
    server::{CONNECTION_WINDOW, STREAM_WINDOW},
};

/// Time a connection may take. Peers are on this host or near it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Time kept back from the caller's deadline, so that the answer about a late peer still arrives: a twentieth of what
/// is left, because some clients round up the deadline that they send, within these bounds; never more than half.
const DEADLINE_MARGIN: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(2);

/// A peer service. Clones share its connection, which is made at the first call and again whenever it
/// was lost.
#[derive(Debug, Clone)]
pub struct Peer {
    name: &'static str,
    channel: Channel,
    faults: Faults,
}

/// Why a peer's address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("the address of the peer \"{0}\" is not configured: set peers.{0}")]
    Missing(&'static str),
    #[error("reading {}", path.display())]
    Certificate {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the address of the peer \"{name}\" cannot be used")]
    Address {
        name: &'static str,
        #[source]
        source: tonic::transport::Error,
    },
}

impl Peer {
    /// A peer at an address. Nothing is connected yet.
    pub fn new(name: &'static str, address: &Listen, tls: Option<&TlsConfig>) -> Result<Self, PeerError> {
        let invalid = |source| PeerError::Address { name, source };
        let channel = match address {
            Listen::Unix(path) => {
                let path = Arc::new(path.clone());
                // The address of an HTTP request needs a host; a Unix socket has none.
                let endpoint = Endpoint::from_static("http://gureum").connect_timeout(CONNECT_TIMEOUT);
                let endpoint = endpoint.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
                endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                    let path = path.clone();
                    async move { UnixStream::connect(&*path).await.map(TokioIo::new) }
                }))
            }
            Listen::Tcp(address) => {
                let mut endpoint = Endpoint::from_shared(format!("https://{address}"))
                    .map_err(invalid)?
                    .connect_timeout(CONNECT_TIMEOUT)
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .tcp_nodelay(true);
                if let Some(tls) = tls {
                    endpoint = endpoint.tls_config(client_tls(tls)?).map_err(invalid)?;
                }
                endpoint.connect_lazy()
            }
        };
        Ok(Self { name, channel, faults: Faults::default() })
    }

    /// Has its calls meet these faults.
    #[must_use]
    pub fn with_faults(self, faults: Faults) -> Self {
        Self { faults, ..self }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The channel for a generated client: `SecurityPeerServiceClient::new(peer.channel())`.
    pub fn channel(&self) -> PeerChannel {
        PeerChannel { channel: self.channel.clone(), faults: self.faults.clone() }
    }

    /// Turns a peer's status into this service's error.
    pub fn error(&self, status: Status) -> Error {
        Error::Peer { peer: self.name, status: Box::new(status) }
    }
}

fn client_tls(tls: &TlsConfig) -> Result<ClientTlsConfig, PeerError> {
    Ok(ClientTlsConfig::new()
        .domain_name(&tls.server_name)
        .ca_certificate(Certificate::from_pem(read(&tls.authority)?))
        .identity(Identity::from_pem(read(&tls.certificate)?, read(&tls.key)?)))
}

pub(crate) fn read(path: &PathBuf) -> Result<Vec<u8>, PeerError> {
    std::fs::read(path).map_err(|source| PeerError::Certificate { path: path.clone(), source })
}

/// A channel that adds what the current call carries, and on which configured faults strike.
#[derive(Debug, Clone)]
pub struct PeerChannel {
    channel: Channel,
    faults: Faults,
}

impl Service<Request<Body>> for PeerChannel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Pin::new(&mut self.channel).poll_ready(cx).map_err(away)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if !may_change() && !only_tells(request.uri().path()) {
            // The context layer tells why instead.
            return futures::future::err(Status::cancelled("the call that would have a peer change something is refused already")).boxed();
        }
        let context = current();
        let left = context.as_ref().map(|context| context.deadline.saturating_duration_since(monotonic()));
        let deadline = context.as_ref().map(|context| carry(context, &mut request));
        let fault = self.faults.of_call(request.uri().path());
        if fault.is_some_and(|fault| fault.kind == FaultKind::Unavailable) {
            return futures::future::err(away("a configured fault")).boxed();
        }
        let call = self.channel.call(request);
        let answered = async move {
            let answered = call.await.map_err(away);
            match fault {
                None => answered,
                Some(fault) => befall(fault, answered).await,
            }
        };
        async move {
            let answered = match deadline {
                None => answered.await,
                Some(deadline) => match tokio::time::timeout_at(deadline.into(), answered).await {
                    Ok(answered) => answered,
                    Err(_elapsed) => Err(late()),
                },
            };
            let hopeless = left.is_some_and(|left| left < *DEADLINE_MARGIN.start());
            let answered = answered.map_err(|status| if hopeless && is_late(&status) { no_time() } else { status });
            if let (Some(context), Ok(response)) = (context, &answered) {
                context.learned().raise_all(&Sequences::answered(response.headers()));
            }
            answered.map(|response| response.map(Whole::of))
        }
        .boxed()
    }
}

/// What is left of an answer that a fault meets. A unary call is answered when it is done.
async fn befall<T>(fault: Fault, answered: Result<T, Status>) -> Result<T, Status> {
    match fault.kind {
        FaultKind::Unavailable | FaultKind::Lost => Err(away("a configured fault")),
        FaultKind::Delay => {
            tokio::time::sleep(fault.delay).await;
            answered
        }
        FaultKind::Exit => exit(),
    }
}

fn away(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Status {
    let error = error.into();
    tracing::debug!(error = &*error as &dyn std::error::Error, "a peer is away");
    // The channel keeps the call's deadline too, and may be the first to see it pass.
    let first: &dyn std::error::Error = &*error;
    let expired = std::iter::successors(Some(first), |error| error.source()).any(|error| error.is::<TimeoutExpired>());
    if expired { late() } else { Status::unavailable("the peer does not answer") }
}

/// The peer is not to blame for so short a deadline. With details, so that nobody takes it for a late answer.
fn no_time() -> Status {
    let details = ErrorDetails::with_error_info("RequestExpired", ERROR_DOMAIN, []);
    Status::with_error_details(Code::DeadlineExceeded, "the deadline left no time to ask a peer; allow for more", details)
}

fn is_late(status: &Status) -> bool {
    status.code() == Code::DeadlineExceeded && status.get_details_error_info().is_none()
}

fn late() -> Status {
    Status::deadline_exceeded("the peer did not answer within the caller's deadline")
}

/// Writes the current call's context into the request, and answers by when an answer is due.
fn carry(context: &RequestContext, request: &mut Request<Body>) -> std::time::Instant {
    let left = context.deadline.saturating_duration_since(monotonic());
    let left = left.saturating_sub((left / 20).clamp(*DEADLINE_MARGIN.start(), *DEADLINE_MARGIN.end()).min(left / 2));
    let headers = request.headers_mut();
    for (name, value) in [
        (ACCOUNT_HEADER, context.scope.account.to_string()),
        (REGION_HEADER, context.scope.region.to_string()),
        (REQUEST_ID_HEADER, context.request_id.to_string()),
        (TRACEPARENT_HEADER, context.traceparent.to_string()),
        ("grpc-timeout", format_timeout(left)),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    context.read_after().write(headers, READ_AFTER_HEADER);
    monotonic() + left
}

#[cfg(test)]
mod tests {
    use gureum_model::{IdSource, Scope};

    use super::*;
    use crate::context;

    #[tokio::test]
    async fn a_call_without_time_blames_no_peer() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("silent.sock");
        let _silent = tokio::net::UnixListener::bind(&path).expect("a socket");
        let peer = Peer::new("network", &Listen::Unix(path), None).expect("a peer");
        let context = RequestContext::background(Scope::default(), &IdSource::seeded(1), Duration::ZERO);
        let call = async {
            let mut channel = peer.channel();
            futures::future::poll_fn(|cx| channel.poll_ready(cx)).await?;
            channel.call(Request::new(Body::empty())).await
        };
        let status = context::with(context, call).await.expect_err("nobody is there");
        let status = Status::from(peer.error(status));
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(status.get_details_error_info().map(|info| info.reason), Some("RequestExpired".to_owned()));
    }

    #[test]
    fn a_peer_gets_most_of_what_is_left() {
        for (left, least) in [(10, 5), (100, 80), (1_000, 950), (60_000, 57_999)] {
            let context = RequestContext::background(Scope::default(), &IdSource::seeded(1), Duration::from_millis(left));
            let due = carry(&context, &mut Request::new(Body::empty()));
            let given = due.saturating_duration_since(monotonic());
            assert!(given <= Duration::from_millis(left) && given + Duration::from_millis(5) > Duration::from_millis(least), "{given:?}");
        }
    }
}
