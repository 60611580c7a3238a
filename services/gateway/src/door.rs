//! The door: who calls, from which scope, how often, and which service answers.
//!
//! A call's body is never decoded here. The path names the service; the scope is proven, put into the
//! metadata in place of what the caller claimed, and born if it is new.

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use gureum_model::{AccountId, Refusal, RefusalKind, Scope};
use gureum_proto::{
    codec::ERROR_DOMAIN,
    network::v1::{EnsureScopeRequest, network_peer_service_client::NetworkPeerServiceClient},
};
use gureum_service::{
    Error, Peer,
    clock::monotonic,
    context::{self, ACCOUNT_HEADER},
    sequences::{Learned, Sequences},
};
use gureum_store::Store;
use http::{Method, Request, Response, StatusCode, header::AUTHORIZATION};
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt};
use tower::Service;

use crate::{limits::Limits, log::Schema, settings::Settings};

/// Scopes known to be born. Asking network again is harmless, so beyond this all are forgotten.
const MAX_KNOWN_SCOPES: usize = 100_000;

/// What the door knows. Shared by all connections.
pub struct Door {
    settings: Settings,
    limits: Limits,
    /// By package, such as `gureum.security.v1`.
    routes: BTreeMap<String, Peer>,
    network: Peer,
    born: Mutex<HashSet<Scope>>,
    /// How far services have committed, as their answers said.
    answered: Learned,
    /// How far they have committed, as the event log knows: a restarted gateway begins with it.
    log: Store<Schema>,
}

impl Door {
    pub fn new(settings: Settings, routes: BTreeMap<String, Peer>, network: Peer, log: Store<Schema>) -> Self {
        let limits = Limits::new(settings.calls_per_second, settings.calls_burst);
        Self { settings, limits, routes, network, born: Mutex::default(), answered: Learned::default(), log }
    }

    /// A service is here, wherever it was before. Also what network was seen to have made may be gone: it is asked again.
    pub fn begin_at(&self, service: &str, sequence: u64) {
        self.answered.begin_at(service, sequence);
        self.born().clear();
    }

    /// How far each service has committed, as far as is known here: what the next answers must show.
    fn committed(&self) -> Sequences {
        let mut committed = self.answered.all();
        for row in self.log.read().cursors.iter() {
            committed.raise(&row.service, row.sequence);
        }
        committed
    }

    /// Which service answers for which package.
    pub fn routes(&self) -> &BTreeMap<String, Peer> {
        &self.routes
    }

    /// The caller's scope: from the access key where keys are demanded, else as claimed.
    fn prove(&self, headers: &http::HeaderMap, claimed: Scope) -> Result<Scope, Status> {
        if !self.settings.require_credentials {
            return Ok(claimed);
        }
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
        let known = shown
            .and_then(|shown| shown.split_once(':'))
            .and_then(|(id, secret)| self.settings.access_keys.iter().find(|key| same(&key.id, id) & same(&key.secret, secret)));
        let Some(key) = known else {
            let text = "this region demands an access key: send the metadata \"authorization: Bearer ID:SECRET\"";
            return Err(Status::with_error_details(
                Code::Unauthenticated,
                text,
                ErrorDetails::with_error_info("AuthFailure", ERROR_DOMAIN, []),
            ));
        };
        let account: AccountId = key.account.parse().map_err(|refusal: Refusal| Status::from(Error::from(refusal)))?;
        if headers.contains_key(ACCOUNT_HEADER) && claimed.account != account {
            let text = format!("the access key {} belongs to account {account}, not to {}", key.id, claimed.account);
            return Err(Error::from(Refusal::new(RefusalKind::Denied, "UnauthorizedOperation", text)).into());
        }
        Ok(Scope { account, ..claimed })
    }

    fn count(&self, account: AccountId) -> Result<(), Status> {
        self.limits.take(account, monotonic()).map_err(|wait| {
            let mut details = ErrorDetails::with_error_info("RequestLimitExceeded", ERROR_DOMAIN, []);
            details.set_retry_info(Some(wait));
            let text = format!("the account {account} makes too many calls; try again in {} ms", wait.as_millis() + 1);
            Status::with_error_details(Code::ResourceExhausted, text, details)
        })
    }

    /// Has network make the scope's default VPC and all that belongs to it, once.
    async fn ensure_born(&self, scope: &Scope) -> Result<(), Status> {
        if self.born().contains(scope) {
            return Ok(());
        }
        let mut network = NetworkPeerServiceClient::new(self.network.channel());
        network.ensure_scope(EnsureScopeRequest {}).await.map_err(|status| Status::from(self.network.error(status)))?;
        let mut born = self.born();
        if born.len() >= MAX_KNOWN_SCOPES {
            born.clear();
        }
        born.insert(scope.clone());
        Ok(())
    }

    fn born(&self) -> std::sync::MutexGuard<'_, HashSet<Scope>> {
        // An insert is whole or not begun, so a poisoned lock is as good as any.
        self.born.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn route(&self, path: &str) -> Result<&Peer, Status> {
        let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let (package, name) = service.rsplit_once('.').unwrap_or_default();
        match self.routes.get(package) {
            // What services offer each other believes the scope that it is told; callers have no business there.
            Some(peer) if !name.ends_with("PeerService") => Ok(peer),
            _ => {
                let text = format!("\"{path}\" names no call of this region; server reflection lists them");
                Err(Error::from(Refusal::new(RefusalKind::Unsupported, "InvalidAction", text)).into())
            }
        }
    }

    /// Everything that is checked before a call goes on. Answers the scope in which it goes on.
    async fn admit(&self, headers: &http::HeaderMap) -> Result<Scope, Status> {
        let scope = self.prove(headers, context::scope())?;
        self.count(scope.account)?;
        Ok(scope)
    }
}

/// Compares in a time that does not tell where two texts differ.
fn same(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}

/// Admits every call to the gateway's own services, which answer by themselves.
#[derive(Clone)]
pub struct Admit<S> {
    door: Arc<Door>,
    inner: S,
}

/// See [`Admit`].
#[derive(Clone)]
pub struct AdmitLayer(pub Arc<Door>);

impl<S> tower::Layer<S> for AdmitLayer {
    type Service = Admit<S>;

    fn layer(&self, inner: S) -> Admit<S> {
        Admit { door: self.0.clone(), inner }
    }
}

type Answered = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S> Service<Request<Body>> for Admit<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answered;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answered {
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let door = self.door.clone();
        Box::pin(async move {
            // Health and reflection tell nothing about anyone.
            if request.uri().path().starts_with("/grpc.") {
                return inner.call(request).await;
            }
            match door.admit(request.headers()).await {
                Err(status) if request.method() == Method::GET => Ok(as_page(&status)),
                Err(status) => Ok(status.into_http()),
                Ok(scope) => match context::current() {
                    Some(current) => {
                        let learned = current.learned().clone();
                        let forwarded = current.in_scope(scope).reading_after(&door.committed());
                        let answer = context::with(forwarded, inner.call(request)).await;
                        door.answered.raise_all(&learned.all());
                        answer
                    }
                    None => inner.call(request).await,
                },
            }
        })
    }
}

/// A refusal for whoever asked for a page, such as the metrics, and knows nothing of gRPC.
fn as_page(status: &Status) -> Response<Body> {
    let mut page = Response::new(Body::new(axum::body::Body::from(format!("{}\n", status.message()))));
    *page.status_mut() = match status.code() {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::FORBIDDEN,
    };
    page
}

/// Hands a call to the service that its path names.
#[derive(Clone)]
pub struct Proxy(pub Arc<Door>);

impl Proxy {
    async fn pass(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let peer = self.0.route(request.uri().path())?;
        self.0.ensure_born(&context::scope()).await?;
        let mut channel = peer.channel();
        std::future::poll_fn(|cx| channel.poll_ready(cx)).await.map_err(|status| Status::from(peer.error(status)))?;
        channel.call(request).await.map_err(|status| Status::from(peer.error(status)))
    }
}

impl Service<Request<axum::body::Body>> for Proxy {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answered;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<axum::body::Body>) -> Answered {
        let (proxy, request) = (self.clone(), request.map(Body::new));
        Box::pin(async move { Ok(proxy.pass(request).await.unwrap_or_else(Status::into_http)) })
    }
}
