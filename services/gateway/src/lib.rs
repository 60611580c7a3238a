//! Gureum's gateway: the one port of a region, and what only the whole can know.
//!
//! ```text
//!  callers ──► door (scope, limits) ──┬─► EventService, TaggingService, ClockService, health, reflection
//!              gRPC and gRPC-web      └─► proxy ──► the service that the path names
//!
//!  security ┐
//!  network  ├─ WatchAll ──► follow ──► log ──► subscribers, webhooks
//!  compute  ┘
//! ```
//!
//! It owns the event log, the webhooks and how far each service has been followed; nothing else.
//! Invariants: an event is logged once, with its place and its source's cursor in one commit; a call's
//! body is never decoded on its way to a service; no caller reaches what services offer each other.

mod clock;
mod door;
mod filter;
mod health;
mod limits;
mod log;
mod patience;
pub mod settings;
mod tagging;
mod web;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use gureum_proto::{
    compute::v1::{WatchAllRequest as ComputeWatch, compute_peer_service_client::ComputePeerServiceClient},
    gateway::v1::{
        clock_service_server::ClockServiceServer, event_service_server::EventServiceServer, tagging_service_server::TaggingServiceServer,
    },
    network::v1::{WatchAllRequest as NetworkWatch, network_peer_service_client::NetworkPeerServiceClient},
    security::v1::{WatchAllRequest as SecurityWatch, security_peer_service_client::SecurityPeerServiceClient},
};
use gureum_service::{
    CancellationToken, Peer, Reflection, Running, Service, ServiceConfig, StartError,
    config::ConfigError,
    metrics::{self, CallMetrics, render},
};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tonic::{
    service::Routes,
    transport::{Server, ServerTlsConfig, server::TcpIncoming},
};

use crate::{
    door::{AdmitLayer, Door, Proxy},
    health::Health,
    log::{Deliveries, Describer, Log, LogApi, Schema, Source, follow},
    patience::{FIRST_WORDS, Patient},
    settings::Settings,
};

/// Runs the gateway until it is told to stop. `ready` is told the door's address once it accepts.
pub fn run(config: ServiceConfig<Settings>, shutdown: CancellationToken, ready: Box<dyn FnOnce(SocketAddr) + Send>) -> Running {
    Box::pin(open_and_serve(config, shutdown, ready))
}

async fn open_and_serve(
    config: ServiceConfig<Settings>,
    shutdown: CancellationToken,
    ready: Box<dyn FnOnce(SocketAddr) + Send>,
) -> Result<(), StartError> {
    config.check()?;
    let settings = config.settings.clone();
    let tls = settings.tls().map_err(|faults| ConfigError { faults })?;
    let mut service = Service::<Schema>::open("gateway", &config, shutdown).await?;
    let (security, network, compute) = (service.peer("security")?, service.peer("network")?, service.peer("compute")?);
    let log = Log::new(service.store.clone());
    service.spawn(log.clone().announce());
    let deliveries = Deliveries::new(service.store.clone(), settings.webhooks.clone())
        .map_err(|error| StartError::Setting { name: "webhooks", reason: format!("the system's certificates cannot be read: {error}") })?;
    service.run_reconciler(Arc::new(deliveries.clone()), deliveries.waker());
    service.spawn(deliveries.clone().follow_log());

    let routes = BTreeMap::from([
        ("gureum.security.v1".to_owned(), security.clone()),
        ("gureum.network.v1".to_owned(), network.clone()),
        ("gureum.compute.v1".to_owned(), compute.clone()),
    ]);
    let door = Arc::new(Door::new(settings.clone(), routes, network.clone(), service.store.clone()));
    follow_all(&service, &door, &security, &network, &compute)?;
    let clock = clock::ClockApi {
        clock: service.clock.clone(),
        setting: config.clock.setting.to_string(),
        // Nodes too: that is where instances' timers are.
        services: [vec![security.clone(), network.clone(), compute.clone()], service.peers_like("node")?].concat(),
        store: service.store.clone(),
        advancing: tokio::sync::Mutex::default(),
    };
    let own = Routes::default()
        .add_service(EventServiceServer::new(LogApi { log, ids: service.ids.clone(), shutdown: service.shutdown.clone(), deliveries }))
        .add_service(TaggingServiceServer::new(tagging::Tagging { security, network, compute }))
        .add_service(ClockServiceServer::new(clock));
    open_door(&mut service, &settings, tls, own, door, ready).await?;
    service.serve(Routes::default(), Box::new(|| {})).await
}

/// Listens for callers.
async fn open_door(
    service: &mut Service<Schema>,
    settings: &Settings,
    tls: Option<ServerTlsConfig>,
    own: Routes,
    door: Arc<Door>,
    ready: Box<dyn FnOnce(SocketAddr) + Send>,
) -> Result<(), StartError> {
    let listen_error = |source| StartError::Listen { listen: gureum_service::Listen::Tcp(settings.door), source };
    let listener = TcpListener::bind(settings.door).await.map_err(listen_error)?;
    let address = listener.local_addr().map_err(listen_error)?;
    let mut registry = Registry::default();
    let calls = CallMetrics::new(&mut registry);
    let (reporter, health) = tonic_health::server::health_reporter();
    follow_health(service, Health::new(reporter), door.routes()).await?;
    let reflection = Reflection::of(gureum_proto::PUBLIC_DESCRIPTORS).map_err(StartError::Reflection)?;
    let own = reflection.add_to(own.add_service(health)).into_axum_router();
    let registry = Arc::new(registry);
    let page = axum::routing::get(move || async move { ([(http::header::CONTENT_TYPE, metrics::CONTENT_TYPE)], render(&registry)) });
    let router = own.route("/metrics", page).fallback_service(Proxy(door.clone()));
    let server = Server::builder().accept_http1(true).max_concurrent_streams(Some(MAX_STREAMS));
    // Whoever does not answer these is not there any more.
    let mut server = server.http2_keepalive_interval(Some(ARE_YOU_THERE)).http2_keepalive_timeout(Some(ARE_YOU_THERE));
    if let Some(tls) = tls {
        server = server.tls_config(tls.timeout(FIRST_WORDS)).map_err(StartError::Serve)?;
    }
    let served = server
        .layer(web::WebLayer::new(&settings.web_origins))
        .layer(service.context_layer(calls))
        .layer(AdmitLayer(door))
        .add_routes(Routes::from(router));
    let (stop, failed) = (service.shutdown.clone(), service.shutdown.clone());
    let draining = async move { stop.cancelled().await };
    // The server's own setting is not for listeners that it is handed. Without it an answer of two segments
    // waits 40 ms for the caller's acknowledgement of the first.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).map(|stream| stream.map(Patient::new));
    service.tasks.spawn(async move {
        if let Err(error) = served.serve_with_incoming_shutdown(incoming, draining).await {
            tracing::error!(error = &error as &dyn std::error::Error, "the door is closed");
            failed.cancel();
        }
    });
    tracing::info!(%address, "the door is open");
    ready(address);
    Ok(())
}

/// Tells callers how each service is, beginning with how it is now.
async fn follow_health(
    service: &Service<Schema>,
    health: Result<Health, prost::DecodeError>,
    routes: &BTreeMap<String, Peer>,
) -> Result<(), StartError> {
    let health = health.map_err(|error| StartError::Setting { name: "descriptors", reason: error.to_string() })?;
    health.begin("gureum.gateway.v1", routes).await;
    for (package, peer) in routes {
        service.spawn(health.clone().follow(package.clone(), peer.clone()));
    }
    let shutdown = service.shutdown.clone();
    service.tasks.spawn(async move {
        shutdown.cancelled().await;
        health.end().await;
    });
    Ok(())
}

/// Streams that one caller's connection may have at once.
const MAX_STREAMS: u32 = 4_096;

/// How long a caller may be silent before he is asked whether he is still there, and then to say so.
const ARE_YOU_THERE: Duration = Duration::from_secs(20);

/// Follows every service's outbox into the log.
fn follow_all(service: &Service<Schema>, door: &Arc<Door>, security: &Peer, network: &Peer, compute: &Peer) -> Result<(), StartError> {
    let describer = Describer::new().map_err(|error| StartError::Setting { name: "descriptors", reason: error.to_string() })?;
    let source = |name| Source { service: name, store: service.store.clone(), describer: describer.clone(), door: door.clone() };
    let peer = security.clone();
    service.spawn(follow(source("security"), move |after_sequence| {
        let mut client = SecurityPeerServiceClient::new(peer.channel());
        async move { client.watch_all(SecurityWatch { after_sequence }).await.map(tonic::Response::into_inner) }
    }));
    let peer = network.clone();
    service.spawn(follow(source("network"), move |after_sequence| {
        let mut client = NetworkPeerServiceClient::new(peer.channel());
        async move { client.watch_all(NetworkWatch { after_sequence }).await.map(tonic::Response::into_inner) }
    }));
    let peer = compute.clone();
    service.spawn(follow(source("compute"), move |after_sequence| {
        let mut client = ComputePeerServiceClient::new(peer.channel());
        async move { client.watch_all(ComputeWatch { after_sequence }).await.map(tonic::Response::into_inner) }
    }));
    Ok(())
}
