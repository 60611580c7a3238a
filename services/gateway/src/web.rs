//! Browsers at the door: gRPC-web, and which pages may call.
//!
//! A page's call has a content type of gRPC-web, so every browser asks first (CORS preflight) and keeps
//! the answer from a page whose origin is not let in. That is what stands between any page that a user
//! happens to look at and a region on the user's own machine.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{
    HeaderName, HeaderValue, Method, Request, Response, Uri, Version,
    header::{CONTENT_LENGTH, CONTENT_TYPE, ORIGIN},
};
use http_body_util::{BodyStream, StreamBody};
use tonic::body::Body;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, Service};
use tower_http::cors::{AllowHeaders, AllowOrigin, Cors, CorsLayer};

/// What a page may read of an answer. A refusal without a body has its whole status in these.
const EXPOSED: [HeaderName; 4] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
    HeaderName::from_static("x-request-id"),
];

/// A browser asks again after this time; Chromium forgets after two hours anyway.
const PREFLIGHT_GOOD_FOR: std::time::Duration = std::time::Duration::from_secs(3600);

/// Answers preflights and marks answers for pages of these origins: those given, or without any those of
/// this host. "*" is every origin.
fn cors(origins: &[String]) -> CorsLayer {
    let origins = origins.to_vec();
    let allowed = AllowOrigin::predicate(move |origin: &HeaderValue, _| origin.to_str().is_ok_and(|origin| may_call(&origins, origin)));
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::POST])
        // A client may send any metadata.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED)
        .max_age(PREFLIGHT_GOOD_FOR)
}

fn may_call(origins: &[String], origin: &str) -> bool {
    if origins.is_empty() {
        return is_loopback(origin);
    }
    origins.iter().any(|allowed| allowed == "*" || allowed.trim_end_matches('/') == origin)
}

/// Whether a page comes from a server on the browser's own host.
fn is_loopback(origin: &str) -> bool {
    let Some(host) = origin.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)) else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Serves browsers, and lets everyone else through as they are.
#[derive(Clone)]
pub struct WebLayer(CorsLayer);

impl WebLayer {
    /// For pages of these origins.
    pub fn new(origins: &[String]) -> Self {
        Self(cors(origins))
    }
}

impl<S: Clone> Layer<S> for WebLayer {
    type Service = Web<S>;

    fn layer(&self, inner: S) -> Web<S> {
        Web { browsers: self.0.layer(GrpcWebLayer::new().layer(inner.clone())), others: inner }
    }
}

/// See [`WebLayer`].
#[derive(Clone)]
pub struct Web<S> {
    browsers: Cors<GrpcWebService<S>>,
    others: S,
}

/// Whether this is for the translator, which refuses all that is neither gRPC-web nor HTTP/2.
fn is_web<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    // The metrics are a page like any other, and are asked for by HTTP/1.
    let is_page = request.method() == Method::GET && kind.is_empty();
    headers.contains_key(ORIGIN) || kind.starts_with(b"application/grpc-web") || !(is_page || request.version() == Version::HTTP_2)
}

/// Whether messages are in base64, as clients write them that stream to browsers of before.
fn is_text<B>(request: &Request<B>) -> bool {
    request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc-web-text"))
}

impl<S> Service<Request<Body>> for Web<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        std::task::ready!(Service::<Request<Body>>::poll_ready(&mut self.browsers, cx))?;
        self.others.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if is_text(&request) {
            // The length is that in base64, and not of what is passed on; a stream has none.
            request.headers_mut().remove(CONTENT_LENGTH);
            request = request.map(|body| Body::new(StreamBody::new(BodyStream::new(body))));
        }
        if is_web(&request) { Box::pin(self.browsers.call(request)) } else { Box::pin(self.others.call(request)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_this_host_call_where_nothing_is_said() {
        for origin in ["http://localhost:3000", "http://127.0.0.1", "https://127.9.8.7:1", "http://[::1]:8080"] {
            assert!(may_call(&[], origin), "{origin}");
        }
        for origin in ["https://example.org", "http://localhost.example.org", "http://10.0.0.1", "null", "file://", ""] {
            assert!(!may_call(&[], origin), "{origin}");
        }
    }

    #[test]
    fn origins_that_are_given_are_the_only_ones() {
        let given = ["https://console.example.org/".to_owned()];
        assert!(may_call(&given, "https://console.example.org"));
        assert!(!may_call(&given, "http://console.example.org") && !may_call(&given, "http://localhost:3000"));
        assert!(may_call(&["*".to_owned()], "https://anything.example"));
    }
}
