//! The metadata service as HTTP on one connection of the instance.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    io,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{CONNECTION, CONTENT_TYPE, HeaderValue, SERVER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt::set_ip_ttl;
use tokio::net::TcpStream;

use super::{Asked, Machine, Said, Tokens, answer};
use crate::{clock::now_micros, network::Network};

/// For a request to come, also on a connection that stays open.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a request's head, and of an answer that waits; the least that the server takes.
const LARGEST_HEAD: usize = 8 << 10;
const MOST_HEADERS: usize = 64;
/// Connections that are served at once; further ones are closed, and programs ask again.
const MOST_CONNECTIONS: u32 = 32;
/// Hops of an answer that carries no token: what Linux gives packets.
const USUAL_HOPS: u32 = 64;

const TOKEN: &str = "x-aws-ec2-metadata-token";
const TOKEN_SECONDS: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const FORWARDED: &str = "x-forwarded-for";

/// What is the same for all connections.
pub struct Service {
    machine: RefCell<Machine>,
    tokens: Tokens,
    connections: Cell<u32>,
}

impl Service {
    pub fn new(machine: Machine) -> io::Result<Self> {
        Ok(Self { machine: RefCell::new(machine), tokens: Tokens::random()?, connections: Cell::new(0) })
    }

    /// The instance is this from now on.
    pub fn set(&self, machine: Machine) {
        self.machine.replace(machine);
    }
}

/// A place among the connections, given back when it is dropped.
struct Place<'a>(&'a Cell<u32>);

impl<'a> Place<'a> {
    fn take(connections: &'a Cell<u32>) -> Option<Self> {
        (connections.get() < MOST_CONNECTIONS).then(|| {
            connections.set(connections.get() + 1);
            Self(connections)
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Serves a connection until it ends.
pub async fn serve(service: &Service, network: impl Fn() -> Rc<Network>, stream: TcpStream) {
    let Some(_place) = Place::take(&service.connections) else { return };
    // The stream is the server's; how far its answers go is told by another name of the same socket.
    let Ok(socket) = stream.as_fd().try_clone_to_owned() else { return };
    let respond = service_fn(|request: Request<Incoming>| {
        let said = answer(&asked(&request), &service.machine.borrow(), &network(), &service.tokens, now_micros());
        let response = respond(said, &socket);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN).max_buf_size(LARGEST_HEAD).max_headers(MOST_HEADERS);
    // It fails where the instance breaks off, or sends what is no request: that was answered.
    let _ = server.serve_connection(TokioIo::new(stream), respond).await;
}

fn asked(request: &Request<Incoming>) -> Asked<'_> {
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    Asked {
        method: request.method().as_str(),
        path: request.uri().path(),
        token: header(TOKEN),
        ttl: header(TOKEN_SECONDS),
        is_forwarded: header(FORWARDED).is_some(),
        has_body: !request.body().is_end_stream(),
    }
}

fn respond(said: Said, socket: &OwnedFd) -> Response<Full<Bytes>> {
    // A token that could go further than it may is not handed out.
    if set_ip_ttl(socket, said.hop_limit.unwrap_or(USUAL_HOPS)).is_err() && said.hop_limit.is_some() {
        let mut failed = Response::new(Full::default());
        *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return failed;
    }
    let mut response = Response::new(Full::new(Bytes::from(said.body)));
    *response.status_mut() = StatusCode::from_u16(said.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(said.content_type));
    headers.insert(SERVER, HeaderValue::from_static("EC2ws"));
    // As the original does. What was sent with few hops also ends with few.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(seconds) = said.token_seconds {
        headers.insert(TOKEN_SECONDS, HeaderValue::from(seconds));
    }
    response
}
