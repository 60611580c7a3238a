//! What a call carries from its caller to the peers it leads to: request id, trace, scope, deadline.

use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::FutureExt;
use gureum_model::{IdSource, Refusal, Scope};
use gureum_proto::declared::Declared;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::Instrument;

use crate::{
    activity::Activity,
    bare,
    clock::monotonic,
    contract::{gathers, streams},
    drain::Draining,
    error,
    fitting::fit,
    metrics::CallMetrics,
    sequences::{COMMITTED_HEADER, Learned, Sequences},
    telemetry,
};

/// Metadata with the account: 12 digits.
pub const ACCOUNT_HEADER: &str = "gureum-account";
/// Metadata with the region.
pub const REGION_HEADER: &str = "gureum-region";
/// Metadata with the request's id, of the caller's choice or made at the door.
pub const REQUEST_ID_HEADER: &str = "x-request-id";
/// W3C Trace Context.
pub const TRACEPARENT_HEADER: &str = "traceparent";

/// Time that a call without a deadline of its own may take. Longer than any healthy call, short enough
/// that a stuck one is seen.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// The longest request id that is taken over; a longer one is replaced.
const MAX_REQUEST_ID: usize = 128;

/// What a call carries.
#[derive(Debug, Clone)]
pub struct RequestContext {
    pub scope: Scope,
    pub request_id: Arc<str>,
    /// `00-<trace id>-<span id>-<flags>` as it goes to peers.
    pub traceparent: Arc<str>,
    pub deadline: Instant,
    /// What its answer must show at least.
    demanded: Arc<Sequences>,
    /// What peers have answered on the way.
    learned: Arc<Learned>,
    /// What its request breaks of the rules that its proto declares.
    declared: Declared,
}

tokio::task_local! {
    static CURRENT: RequestContext;
}

/// The context of the call that this task serves, if it serves one.
pub fn current() -> Option<RequestContext> {
    CURRENT.try_with(Clone::clone).ok()
}

/// The id of the call that this task serves; "none" outside calls.
pub fn request_id() -> Arc<str> {
    CURRENT.try_with(|context| context.request_id.clone()).unwrap_or_else(|_| Arc::from("none"))
}

/// The scope of the call that this task serves.
pub fn scope() -> Scope {
    CURRENT.try_with(|context| context.scope.clone()).unwrap_or_default()
}

/// Whether what this task does may change anything: not if it serves a call whose request breaks a declared rule.
/// Such a call's handler runs so that its caller learns of everything that is wrong; stores and peers ask this first.
pub fn may_change() -> bool {
    CURRENT.try_with(|context| !context.declared.is_broken()).unwrap_or(true)
}

/// Runs `work` as if it served a call with this context: what a reconciler does for a resource.
pub async fn with<F: Future>(context: RequestContext, work: F) -> F::Output {
    CURRENT.scope(context, work).await
}

impl RequestContext {
    /// The context of work that no call asked for: a reconciler's step for a resource in `scope`.
    pub fn background(scope: Scope, ids: &IdSource, deadline: Duration) -> Self {
        Self {
            scope,
            request_id: Arc::from(format!("{:032x}", ids.next_number())),
            traceparent: Arc::from(child_of(None, ids)),
            deadline: monotonic() + deadline,
            demanded: Arc::default(),
            learned: Arc::default(),
            // Work of its own, but still not a way to change something for a call that may not.
            declared: current().map(|context| context.declared).unwrap_or_default(),
        }
    }

    /// The same call in another scope.
    pub fn in_scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// The same call, which must show this too.
    pub fn reading_after(self, sequences: &Sequences) -> Self {
        let mut demanded = Sequences::clone(&self.demanded);
        demanded.raise_all(sequences);
        Self { demanded: Arc::new(demanded), ..self }
    }

    /// What the call must show at least: what its caller demands and what its peers have answered.
    pub fn read_after(&self) -> Sequences {
        let mut all = self.learned.all();
        all.raise_all(&self.demanded);
        all
    }

    /// What peers have answered on the way.
    pub fn learned(&self) -> &Arc<Learned> {
        &self.learned
    }

    fn from_headers(headers: &HeaderMap, ids: &IdSource) -> Result<Self, Refusal> {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("not text"));
        let default = Scope::default();
        if let Some(name) = [ACCOUNT_HEADER, REGION_HEADER].into_iter().find(|name| headers.get_all(*name).iter().nth(1).is_some()) {
            return Err(Refusal::invalid(name, format!("the metadata {name} is given more than once: give it once")));
        }
        let scope = Scope {
            account: text(ACCOUNT_HEADER).map_or(Ok(default.account), str::parse)?,
            region: text(REGION_HEADER).map_or(Ok(default.region), str::parse)?,
        };
        let request_id = request_id_of(headers, ids);
        let deadline = text("grpc-timeout").and_then(parse_timeout).unwrap_or(DEFAULT_DEADLINE);
        Ok(Self {
            scope,
            request_id: Arc::from(request_id),
            traceparent: Arc::from(child_of(text(TRACEPARENT_HEADER), ids)),
            // A deadline of years would overflow the clock.
            deadline: monotonic() + deadline.min(Duration::from_secs(24 * 3600)),
            demanded: Arc::new(Sequences::demanded(headers)?),
            learned: Arc::default(),
            declared: Declared::default(),
        })
    }
}

/// A new span in the caller's trace, or a new trace. <https://www.w3.org/TR/trace-context/>
fn child_of(parent: Option<&str>, ids: &IdSource) -> String {
    let span = (ids.next_number() as u64).max(1);
    let hex =
        |text: &str, digits: usize| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let parts: Vec<&str> = parent.unwrap_or_default().split('-').collect();
    match parts[..] {
        ["00", trace, parent, flags] if hex(trace, 32) && hex(parent, 16) && hex(flags, 2) && trace.bytes().any(|byte| byte != b'0') => {
            format!("00-{trace}-{span:016x}-{flags}")
        }
        _ => format!("00-{:032x}-{span:016x}-01", ids.next_number().max(1)),
    }
}

/// gRPC's timeout: at most eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// A duration as gRPC's timeout, rounded down to what eight digits can say.
pub fn format_timeout(duration: Duration) -> String {
    let micros = duration.as_micros();
    if micros < 100_000_000 { format!("{micros}u") } else { format!("{}m", duration.as_millis().min(99_999_999)) }
}

/// Gives every call its context, its deadline, its metrics, and a guard against panics.
#[derive(Clone)]
pub struct ContextLayer {
    pub service: &'static str,
    pub ids: Arc<IdSource>,
    pub metrics: CallMetrics,
    pub activity: Activity,
    /// The sequence of the service's last event.
    pub committed: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Cancelled when the service is told to stop.
    pub drain: Arc<CancellationToken>,
}

impl<S> Layer<S> for ContextLayer {
    type Service = ContextService<S>;

    fn layer(&self, inner: S) -> ContextService<S> {
        ContextService { inner, layer: self.clone() }
    }
}

/// See [`ContextLayer`].
#[derive(Clone)]
pub struct ContextService<S> {
    inner: S,
    layer: ContextLayer,
}

impl<S> Service<Request<Body>> for ContextService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that was polled ready is used, its clone waits for the next call.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(serve(inner, self.layer.clone(), request))
    }
}

async fn serve<S>(mut inner: S, layer: ContextLayer, request: Request<Body>) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send,
    S::Future: Send,
{
    let started = monotonic();
    let method: Arc<str> = Arc::from(request.uri().path().trim_start_matches('/'));
    // Whoever asks about the clock waits for quiet; that question is not work.
    let _active = (!method.starts_with("gureum.clock.")).then(|| layer.activity.begin());
    let caller = request.headers().get(TRACEPARENT_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut context = match RequestContext::from_headers(request.headers(), &layer.ids) {
        Ok(context) => context,
        Err(refusal) => return Ok(layer.refuse(request.headers(), &method, &refusal, started)),
    };
    let span = tracing::info_span!("call", otel.name = &*method, otel.kind = "server", service = layer.service, method = &*method, request_id = &*context.request_id, traceparent = &*context.traceparent, scope = %context.scope);
    telemetry::continue_trace(&span, caller.as_deref());
    if let Some(traceparent) = telemetry::traceparent_of(&span) {
        context.traceparent = Arc::from(traceparent);
    }
    let (request_id, deadline, learned) = (context.request_id.clone(), context.deadline, context.learned.clone());
    let declared = context.declared.clone();
    let work = CURRENT.scope(context.clone(), inner.call(request));
    let work = if gathers(&method) { declared.clone().gather(work).left_future() } else { work.right_future() };
    let guarded = AssertUnwindSafe(tokio::time::timeout_at(deadline.into(), work)).catch_unwind();
    let mut response = match guarded.instrument(span.clone()).await {
        Ok(Ok(Ok(response))) => bare::explain(&method, response),
        Ok(Ok(Err(never))) => match never {},
        Ok(Err(_elapsed)) => Status::deadline_exceeded("the deadline passed before there was an answer").into_http(),
        Err(_panic) => {
            CURRENT.scope(context, async { Status::from(error::Error::Internal(format!("{method} panicked"))) }).await.into_http()
        }
    };
    // Whatever its handler answered: it saw a request that is refused.
    if let Some(refusal) = declared.refusal(Status::from_header_map(response.headers()).as_ref()) {
        response = refusal.into_http();
    }
    response = fit(response);
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID_HEADER, value);
    }
    let mut committed = learned.all();
    committed.raise(layer.service, (layer.committed)());
    committed.write(response.headers_mut(), COMMITTED_HEADER);
    // A unary refusal has its code in the headers; streams and successes begin well.
    let code = response.headers().get("grpc-status").map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()));
    layer.metrics.record(&method, code, started.elapsed());
    span.in_scope(|| tracing::debug!(?code, elapsed_us = started.elapsed().as_micros() as u64, "answered"));
    // What is not a stream ends by itself, also where its body comes later than its head: it is waited for.
    Ok(if streams(&method) { response.map(|body| Draining::of(body, layer.drain)) } else { response })
}

impl ContextLayer {
    /// The answer to a call whose own context cannot be read.
    fn refuse(&self, headers: &HeaderMap, method: &str, refusal: &Refusal, started: Instant) -> Response<Body> {
        let request_id = request_id_of(headers, &self.ids);
        let status = error::refused(refusal);
        self.metrics.record(method, status.code(), started.elapsed());
        tracing::debug!(method, %request_id, %refusal, "a call without a context was refused");
        let mut response = status.into_http();
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert(REQUEST_ID_HEADER, value);
        }
        response
    }
}

/// The caller's own id of the request, or a new one.
fn request_id_of(headers: &HeaderMap, ids: &IdSource) -> String {
    let own = headers.get(REQUEST_ID_HEADER).and_then(|value| value.to_str().ok());
    own.filter(|id| !id.is_empty() && id.len() <= MAX_REQUEST_ID).map_or_else(|| format!("{:032x}", ids.next_number()), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_goes_on_and_a_bad_one_is_replaced() {
        let ids = IdSource::seeded(1);
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let child = child_of(Some(parent), &ids);
        assert!(child.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && child.ends_with("-01") && child != parent);
        for bad in
            ["", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "ff-x", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"]
        {
            assert!(!child_of(Some(bad), &ids).contains("0af7651916cd43dd8448eb211c80319c"));
        }
    }

    #[test]
    fn timeouts_are_read_and_written() {
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parse_timeout("123456789m"), None);
        assert_eq!(parse_timeout("€"), None);
        assert_eq!(format_timeout(Duration::from_secs(3)), "3000000u");
        assert_eq!(parse_timeout(&format_timeout(Duration::from_secs(7200))), Some(Duration::from_secs(7200)));
    }

    #[test]
    fn a_scope_that_is_given_twice_is_refused() {
        for name in [ACCOUNT_HEADER, REGION_HEADER] {
            let mut headers = HeaderMap::new();
            headers.append(name, HeaderValue::from_static("000000000001"));
            headers.append(name, HeaderValue::from_static("000000000002"));
            let refused = RequestContext::from_headers(&headers, &IdSource::seeded(1)).map(|context| context.scope);
            assert!(refused.is_err_and(|refusal| refusal.violations.first().is_some_and(|violation| violation.field == name)), "{name}");
        }
    }

    #[test]
    fn a_bad_account_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCOUNT_HEADER, HeaderValue::from_static("12"));
        let refused = RequestContext::from_headers(&headers, &IdSource::seeded(1)).map(|context| context.scope);
        assert!(refused.is_err());
    }

    /// What a caller gets of an answer whose body comes only when the service drains already.
    async fn answered_while_draining(method: &'static str) -> Vec<http_body::Frame<bytes::Bytes>> {
        use http_body_util::{BodyExt, StreamBody};
        let drain = Arc::new(CancellationToken::new());
        let layer = ContextLayer {
            service: "compute",
            ids: Arc::new(IdSource::seeded(1)),
            metrics: CallMetrics::new(&mut prometheus_client::registry::Registry::default()),
            activity: Activity::default(),
            committed: Arc::new(|| 1),
            drain: drain.clone(),
        };
        let (sender, frames) = tokio::sync::mpsc::channel(1);
        let body = Body::new(StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(frames)));
        let answer = std::sync::Mutex::new(Some(Response::new(body)));
        let inner = tower::service_fn(move |_: Request<Body>| {
            let answer = answer.lock().expect("a lock").take().expect("one call");
            async move { Ok::<_, Infallible>(answer) }
        });
        let request = Request::builder().uri(method).body(Body::empty()).expect("a request");
        let Ok(answer) = serve(inner, layer, request).await;
        drain.cancel();
        let mut body = answer.into_body();
        let first = tokio::spawn(async move { (body.frame().await.and_then(Result::ok), body) });
        // The caller waits for the body by now; if it was cut off, nobody takes this.
        tokio::task::yield_now().await;
        let _ = sender.send(Ok::<_, Status>(http_body::Frame::data(bytes::Bytes::from_static(b"late")))).await;
        drop(sender);
        let (first, mut body) = first.await.expect("a caller");
        first.into_iter().chain(body.frame().await.and_then(Result::ok)).collect()
    }

    #[tokio::test]
    async fn a_drain_ends_streams_and_waits_for_answers() {
        let frames = answered_while_draining("/gureum.compute.v1.ComputeService/DescribeInstances").await;
        assert_eq!(frames.iter().filter_map(|frame| frame.data_ref()).collect::<Vec<_>>(), [&b"late"[..]]);
        let frames = answered_while_draining("/gureum.compute.v1.ComputeService/Watch").await;
        let trailers = frames.first().and_then(|frame| frame.trailers_ref()).and_then(Status::from_header_map);
        assert_eq!(trailers.map(|status| status.code()), Some(Code::Unavailable));
    }
}
