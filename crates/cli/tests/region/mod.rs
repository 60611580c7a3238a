//! A region that answers what a test tells it to: any method, by its path, from the bytes of the request.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::net::TcpListener;
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tonic::{
    Status,
    body::Body,
    server::NamedService,
    transport::{Identity, Server, ServerTlsConfig},
};

/// What a call is answered with: messages, then a status; a stream that stays open has none.
pub struct Answer {
    pub messages: Vec<Vec<u8>>,
    pub end: Option<Status>,
}

impl Answer {
    pub fn one(message: &impl prost::Message) -> Self {
        Self { messages: vec![message.encode_to_vec()], end: Some(Status::ok("")) }
    }

    pub fn refused(status: Status) -> Self {
        Self { messages: Vec::new(), end: Some(status) }
    }
}

/// A call that came in.
#[derive(Debug, Clone)]
pub struct Call {
    /// `DescribeInstances`.
    pub method: String,
    pub metadata: HeaderMap,
    pub message: Bytes,
}

type Answers = Arc<dyn Fn(&Call) -> Answer + Send + Sync>;

/// One service of the region; the gRPC method decides the answer.
#[derive(Clone)]
struct Service<const KIND: usize> {
    answers: Answers,
    calls: Arc<Mutex<Vec<Call>>>,
}

const NAMES: [&str; 5] = [
    "gureum.compute.v1.ComputeService",
    "gureum.security.v1.SecurityService",
    "gureum.gateway.v1.EventService",
    "gureum.gateway.v1.ClockService",
    "gureum.network.v1.NetworkService",
];

impl<const KIND: usize> NamedService for Service<KIND> {
    const NAME: &'static str = NAMES[KIND];
}

impl<const KIND: usize> tower::Service<Request<Body>> for Service<KIND> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (answers, calls) = (self.answers.clone(), self.calls.clone());
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            let metadata = request.headers().clone();
            let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            // One byte of flags and four of length stand before the message.
            let call = Call { method, metadata, message: body.slice(5.min(body.len())..) };
            let answer = answers(&call);
            calls.lock().expect("no test panics while it holds the lock").push(call);
            let response = Response::builder().header("content-type", "application/grpc").body(Body::new(StreamBody::new(frames(answer))));
            Ok(response.expect("the header is well-formed"))
        })
    }
}

fn frames(answer: Answer) -> impl Stream<Item = Result<Frame<Bytes>, Status>> {
    let ends = answer.end.is_some();
    let messages = answer.messages.into_iter().map(|message| {
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).expect("a test's message is short"));
        framed.put_slice(&message);
        Ok(Frame::data(framed.freeze()))
    });
    let trailers = tokio_stream::iter(answer.end).map(|status| {
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))
    });
    // A stream without a status stays open.
    let open: Pin<Box<dyn Stream<Item = _> + Send>> =
        if ends { Box::pin(tokio_stream::empty()) } else { Box::pin(tokio_stream::pending()) };
    tokio_stream::iter(messages.collect::<Vec<_>>()).chain(trailers).chain(open)
}

/// A region at an address of its own.
pub struct Region {
    pub endpoint: String,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Region {
    pub async fn start(answers: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        Self::serve("http", Server::builder(), answers).await
    }

    /// A region whose door has a certificate; and that, for whoever shall trust it.
    pub async fn start_with_tls(answers: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("the name is well-formed");
        let identity = Identity::from_pem(made.cert.pem(), made.signing_key.serialize_pem());
        let server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).expect("the certificate is good");
        (Self::serve("https", server, answers).await, made.cert.pem())
    }

    async fn serve(scheme: &str, mut server: Server, answers: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        let (answers, calls): (Answers, _) = (Arc::new(answers), Arc::default());
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("loopback has a free port");
        let endpoint = format!("{scheme}://{}", listener.local_addr().expect("it is bound"));
        let server = server
            .add_service(Service::<0> { answers: answers.clone(), calls: Arc::clone(&calls) })
            .add_service(Service::<1> { answers: answers.clone(), calls: Arc::clone(&calls) })
            .add_service(Service::<2> { answers: answers.clone(), calls: Arc::clone(&calls) })
            .add_service(Service::<3> { answers: answers.clone(), calls: Arc::clone(&calls) })
            .add_service(Service::<4> { answers, calls: Arc::clone(&calls) });
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { endpoint, calls }
    }

    /// The calls of a method so far.
    pub fn calls(&self, method: &str) -> Vec<Call> {
        let calls = self.calls.lock().expect("no test panics while it holds the lock");
        calls.iter().filter(|call| call.method == method).cloned().collect()
    }

    /// The program's end with these arguments against this region.
    pub async fn run(&self, line: &str) -> Run {
        self.run_with(line, &[]).await
    }

    pub async fn run_with(&self, line: &str, variables: &[(&str, &str)]) -> Run {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_gureum"));
        command.args(line.split(' ')).env("GUREUM_ENDPOINT", &self.endpoint).envs(variables.iter().copied()).kill_on_drop(true);
        let output = tokio::time::timeout(std::time::Duration::from_secs(20), command.output()).await;
        let output = output.expect("it ends in time").expect("the program starts");
        Run {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}
