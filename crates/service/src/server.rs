//! A service as a whole: opened, served, drained.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::routing::get;
use futures::future::BoxFuture;
use gureum_model::IdSource;
use gureum_proto::clock::v1::clock_peer_service_server::ClockPeerServiceServer;
use gureum_store::{DurableEngine, EngineError, MemoryEngine, Options, Store, Tables};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    service::Routes,
    transport::{
        Server,
        server::{Router, TcpIncoming},
    },
};

use crate::{
    activity::Activity,
    clock::Clock,
    clock_service::ClockApi,
    config::{ConfigError, Listen, ServiceConfig, TlsConfig, server_tls},
    context::{self, ContextLayer},
    faults::{Faults, FaultyEngine},
    metrics::{self, CallMetrics, render},
    peer::{Peer, PeerError},
    reconcile::{Reconcile, Waker},
    reflection::Reflection,
};

/// Streams that one connection may have at once. The gateway multiplexes its callers over few
/// connections; beyond this it opens another or waits.
const MAX_STREAMS_PER_CONNECTION: u32 = 4_096;

/// Bytes of one call that may wait unread, in each direction: HTTP/2's flow control stops the sender beyond it.
pub(crate) const STREAM_WINDOW: u32 = 256 << 10;

/// Bytes that may wait unread on one connection: as many as all its calls may have. Callers share the connections between
/// services, and with less a few who do not read what they asked for would stop all others.
pub(crate) const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS_PER_CONNECTION;

/// How often a quiet connection is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

type LayeredRouter = Router<tower::layer::util::Stack<ContextLayer, tower::layer::util::Identity>>;

/// Why a service cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("opening the store")]
    Store(#[from] EngineError),
    #[error("reading the region's virtual time")]
    Clock(#[source] io::Error),
    #[error("a thread that opens the store ended early")]
    StoreThread,
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("listening on {listen}")]
    Listen {
        listen: Listen,
        #[source]
        source: io::Error,
    },
    #[error("setting up reflection")]
    Reflection(#[source] tonic_reflection::server::Error),
    #[error("serving")]
    Serve(#[source] tonic::transport::Error),
    #[error("the store has stopped: {0}")]
    StoreStopped(Arc<str>),
    #[error("the setting {name} is not usable: {reason}")]
    Setting { name: &'static str, reason: String },
}

/// A service that is about to be served: its store, its clock, its peers, its background work.
pub struct Service<T: Tables> {
    pub name: &'static str,
    /// Who it is to those who follow its outbox: its name, unless there are several of the kind.
    pub known_as: String,
    pub store: Store<T>,
    pub clock: Clock,
    /// Makes the ids of resources. Ask it only on behalf of a caller, in the order of the calls: with a seed, a loop that
    /// drew from it would shift everyone's ids by when it happens to run.
    pub ids: Arc<IdSource>,
    /// Makes what tells calls apart: their ids, their places in traces. Always random.
    pub call_ids: Arc<IdSource>,
    /// Cancelled when the service is told to stop.
    pub shutdown: CancellationToken,
    /// Where background work runs; it is waited for at the end.
    pub tasks: TaskTracker,
    pub metrics: Registry,
    pub activity: Activity,
    listen: Listen,
    peers: BTreeMap<String, Listen>,
    tls: Option<TlsConfig>,
    faults: Faults,
    drain_timeout: Duration,
    max_message_bytes: usize,
}

impl<T: Tables> Service<T> {
    /// Opens the store, which reads everything that is in it, and prepares the rest.
    pub async fn open<S>(name: &'static str, config: &ServiceConfig<S>, shutdown: CancellationToken) -> Result<Self, StartError> {
        let directory = config.store.directory.clone();
        let clock = Clock::open(config.clock.setting, config.clock.origin, directory.as_deref()).map_err(StartError::Clock)?;
        let store_clock = clock.clone();
        let options = Options { name: name.to_owned(), now: Box::new(move || store_clock.now()) };
        let faults = Faults::new(&config.faults);
        let own = faults.clone();
        let open = move || match directory {
            Some(directory) => Store::open(FaultyEngine { engine: DurableEngine::open(&directory)?, faults: own }, options),
            None => Store::open(FaultyEngine { engine: MemoryEngine, faults: own }, options),
        };
        let store: Store<T> = tokio::task::spawn_blocking(open).await.map_err(|_| StartError::StoreThread)??;
        let store = store.guarded(context::may_change);
        let ids = ids(name, config.seed, store.read().revision());
        Ok(Self {
            name,
            known_as: name.to_owned(),
            store,
            clock,
            ids: Arc::new(ids),
            call_ids: Arc::new(IdSource::random()),
            shutdown,
            tasks: TaskTracker::new(),
            metrics: Registry::default(),
            activity: Activity::default(),
            listen: config.listen.clone(),
            peers: config.peers.clone(),
            tls: config.tls.clone(),
            faults,
            drain_timeout: Duration::from_millis(config.drain_timeout_ms),
            max_message_bytes: config.max_message_bytes,
        })
    }

    /// A peer by name, as configured.
    pub fn peer(&self, name: &'static str) -> Result<Peer, StartError> {
        let address = self.peers.get(name).ok_or(PeerError::Missing(name))?;
        Ok(Peer::new(name, address, self.tls.as_ref())?.with_faults(self.faults.clone()))
    }

    /// The faults that befall calls to peers, for peers that are not configured by name.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// All peers whose names begin so, in the order of their names.
    pub fn peers_like(&self, kind: &'static str) -> Result<Vec<Peer>, StartError> {
        let like = self.peers.iter().filter(|(name, _)| name.starts_with(kind));
        let peer = |address| Ok(Peer::new(kind, address, self.tls.as_ref())?.with_faults(self.faults.clone()));
        like.map(|(_, address)| peer(address)).collect()
    }

    /// Runs background work until it ends or the service stops.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = shutdown.cancelled() => {}
            }
        });
    }

    /// What gives every call of a listener its context.
    pub fn context_layer(&self, metrics: CallMetrics) -> ContextLayer {
        let store = self.store.clone();
        let committed = Arc::new(move || store.read().sequence());
        let drain = Arc::new(self.shutdown.clone());
        ContextLayer { service: self.name, ids: self.call_ids.clone(), metrics, activity: self.activity.clone(), committed, drain }
    }

    /// Runs a reconcile loop until the service stops, and answers what wakes it.
    pub fn spawn_reconciler<R: Reconcile>(&self, reconciler: Arc<R>) -> Waker<R::Key> {
        let waker = Waker::default();
        self.run_reconciler(reconciler, waker.clone());
        waker
    }

    /// As [`Service::spawn_reconciler`], for a waker that was handed out before.
    pub fn run_reconciler<R: Reconcile>(&self, reconciler: Arc<R>, waker: Waker<R::Key>) {
        let idle = waker.clone();
        self.activity.add_loop(move || idle.is_idle());
        self.spawn(crate::reconcile::run(reconciler, waker, self.clock.clone()));
    }

    /// The largest message that a generated server should accept.
    pub fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    /// Serves until told to stop, then lets calls under way end. An error if the store stops first.
    ///
    /// `ready` is told once the socket accepts.
    pub async fn serve(mut self, routes: Routes, ready: Ready) -> Result<(), StartError> {
        let calls = CallMetrics::new(&mut self.metrics);
        let store = self.store.clone();
        let server = Serving {
            name: self.name,
            context: self.context_layer(calls),
            clock: ClockApi { clock: self.clock, activity: self.activity, known_as: self.known_as, sequence: store.sequence() },
            shutdown: self.shutdown,
            tasks: self.tasks,
            metrics: Arc::new(self.metrics),
            listen: self.listen,
            tls: self.tls,
            drain_timeout: self.drain_timeout,
        };
        let stopped = Box::pin(async move { store.stopped().await });
        server.run(routes, stopped, ready).await
    }
}

/// Where the ids of a service's resources come from. Only a store in which nothing has ever been committed follows the
/// seed: whoever has made ids before, and were it in a life of which its directory was put back to an earlier state,
/// must never make one of them again, and its peers may still know them.
fn ids(name: &str, seed: Option<u64>, revision: u64) -> IdSource {
    match (seed, revision) {
        (Some(seed), 0) => IdSource::seeded_for(seed, name),
        (Some(_), _) | (None, _) => IdSource::random(),
    }
}

/// What is told once a service accepts.
pub type Ready = Box<dyn FnOnce() + Send>;

/// A service that runs. Boxed, because the code of a future is compiled in each crate that polls it by its own
/// type: so a service is compiled in its own crate alone.
pub type Running = BoxFuture<'static, Result<(), StartError>>;

/// A service as its server needs it, whatever its tables: so the server is compiled once, not once for each.
struct Serving {
    name: &'static str,
    context: ContextLayer,
    clock: ClockApi,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    metrics: Arc<Registry>,
    listen: Listen,
    tls: Option<TlsConfig>,
    drain_timeout: Duration,
}

impl Serving {
    /// `stopped` ends when the store has stopped, with the reason.
    fn run(self, routes: Routes, stopped: BoxFuture<'static, Arc<str>>, ready: Ready) -> Running {
        Box::pin(self.serve(routes, stopped, ready))
    }

    async fn serve(self, routes: Routes, stopped: BoxFuture<'static, Arc<str>>, ready: Ready) -> Result<(), StartError> {
        let router = self.router(routes).await?;
        let draining = self.shutdown.clone();
        let stop = async move { draining.cancelled().await };
        let listen_error = |source| StartError::Listen { listen: self.listen.clone(), source };
        let served: BoxFuture<'static, _> = match &self.listen {
            Listen::Unix(path) => {
                let incoming = UnixListenerStream::new(bind_unix(path).map_err(listen_error)?);
                Box::pin(router.serve_with_incoming_shutdown(incoming, stop))
            }
            Listen::Tcp(address) => {
                let incoming = TcpIncoming::from(TcpListener::bind(address).await.map_err(listen_error)?).with_nodelay(Some(true));
                Box::pin(router.serve_with_incoming_shutdown(incoming, stop))
            }
        };
        ready();
        tracing::info!(service = self.name, listen = %self.listen, "serving");
        let outcome = tokio::select! {
            served = with_patience(served, &self.shutdown, self.drain_timeout) => served,
            reason = stopped => Err(StartError::StoreStopped(reason)),
        };
        self.shutdown.cancel();
        self.tasks.close();
        // Background work is cancelled at its next await, so this ends; the bound is for what blocks.
        let _ = tokio::time::timeout(self.drain_timeout, self.tasks.wait()).await;
        outcome
    }

    async fn router(&self, routes: Routes) -> Result<LayeredRouter, StartError> {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            shutdown.cancelled().await;
            // Whoever balances over us looks elsewhere while we drain.
            reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        });
        let reflection = Reflection::of_all().map_err(StartError::Reflection)?;
        let clock = ClockPeerServiceServer::new(self.clock.clone());
        let registry = self.metrics.clone();
        let page = get(move || async move { ([(http::header::CONTENT_TYPE, metrics::CONTENT_TYPE)], render(&registry)) });
        let routes =
            Routes::from(reflection.add_to(routes.add_service(health).add_service(clock)).into_axum_router().route("/metrics", page));
        let mut server = Server::builder()
            .accept_http1(true)
            .max_concurrent_streams(Some(MAX_STREAMS_PER_CONNECTION))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keepalive_interval(Some(KEEPALIVE));
        if let (Listen::Tcp(_), Some(tls)) = (&self.listen, &self.tls) {
            let unusable = |faults| ConfigError { faults };
            let tls = server_tls("tls", &tls.certificate, &tls.key, Some(&tls.authority)).map_err(unusable)?;
            server = server.tls_config(tls).map_err(StartError::Serve)?;
        }
        Ok(server.layer(self.context.clone()).add_routes(routes))
    }
}

/// Ends with what is served, or when it has been draining for too long.
async fn with_patience(
    served: impl Future<Output = Result<(), tonic::transport::Error>>,
    shutdown: &CancellationToken,
    patience: Duration,
) -> Result<(), StartError> {
    let too_long = async {
        shutdown.cancelled().await;
        tokio::time::sleep(patience).await;
    };
    tokio::select! {
        served = served => served.map_err(StartError::Serve),
        () = too_long => {
            tracing::warn!(patience_ms = patience.as_millis() as u64, "calls were still under way when the time to drain was over");
            Ok(())
        }
    }
}

/// Listens on a socket that this user alone can open, in place of one that a dead process left.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves this socket"));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // Nobody may connect between bind and chmod: the socket is made under a name of its own, closed
    // to others, and only then gets its real name.
    let private: PathBuf = path.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&private);
    let listener = UnixListener::bind(&private)?;
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&private, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use gureum_model::id::InstanceId;

    use super::ids;

    #[test]
    fn no_service_makes_an_id_that_another_makes_or_that_it_made_before() {
        let first = |name, seed, revision| ids(name, seed, revision).next::<InstanceId>();
        assert_eq!(first("compute", Some(7), 0), first("compute", Some(7), 0));
        assert_ne!(first("compute", Some(7), 0), first("network", Some(7), 0));
        assert_ne!(first("compute", Some(7), 0), first("compute", Some(8), 0));
        // Started again, twice from the same state of its directory.
        assert_ne!(first("compute", Some(7), 5), first("compute", Some(7), 0));
        assert_ne!(first("compute", Some(7), 5), first("compute", Some(7), 5));
        assert_ne!(first("compute", None, 0), first("compute", None, 0));
    }
}
