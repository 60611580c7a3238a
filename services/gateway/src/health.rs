//! Health of the region as callers see it: every service by its name, and all of them together.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use gureum_service::Peer;
use prost::{DecodeError, Message};
use prost_types::FileDescriptorSet;
use tokio::sync::Mutex;
use tonic::Status;
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus as Told, health_client::HealthClient},
    server::HealthReporter,
};

/// How often a service whose stream is quiet is asked whether it still answers, in real time: a process
/// that is stopped keeps its connections.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Time that an answer about health may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Pause before a service that is away is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What the door tells about health. Clones are the same.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    /// The public services of each package.
    names: Arc<BTreeMap<String, Vec<String>>>,
    /// Packages whose service does not serve. Held while it is told, so that no older word is the last.
    down: Arc<Mutex<BTreeSet<String>>>,
}

impl Health {
    /// Everything of this region that callers reach; nothing is known to serve yet but the gateway itself.
    pub fn new(reporter: HealthReporter) -> Result<Self, DecodeError> {
        let mut names = BTreeMap::<String, Vec<String>>::new();
        for file in FileDescriptorSet::decode(gureum_proto::PUBLIC_DESCRIPTORS)?.file {
            let services = file.service.iter().map(|service| format!("{}.{}", file.package(), service.name()));
            names.entry(file.package().to_owned()).or_default().extend(services);
        }
        Ok(Self { reporter, names: Arc::new(names), down: Arc::default() })
    }

    /// Asks every service once, so that the first caller is told how it is.
    pub async fn begin(&self, own: &str, routes: &BTreeMap<String, Peer>) {
        self.tell(own, true).await;
        join_all(routes.iter().map(|(package, peer)| async move { self.tell(package, ask(peer).await.is_ok()).await })).await;
    }

    /// Says that the region serves no more: it ends.
    pub async fn end(&self) {
        self.reporter.set_service_status("", ServingStatus::NotServing).await;
    }

    /// Follows one service's health without end.
    pub async fn follow(self, package: String, peer: Peer) {
        loop {
            if let Err(status) = self.watch(&package, &peer).await {
                tracing::debug!(package, %status, "a service's health is not known");
            }
            self.tell(&package, false).await;
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn watch(&self, package: &str, peer: &Peer) -> Result<(), Status> {
        let mut stream = HealthClient::new(peer.channel()).watch(HealthCheckRequest::default()).await?.into_inner();
        loop {
            match tokio::time::timeout(ASK_EVERY, stream.message()).await {
                Ok(message) => match message? {
                    Some(told) => self.tell(package, serves(&told)).await,
                    None => return Ok(()),
                },
                Err(_quiet) => ask(peer).await?,
            }
        }
    }

    async fn tell(&self, package: &str, serving: bool) {
        let status = |serving| if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        let mut down = self.down.lock().await;
        let changed = if serving { down.remove(package) } else { down.insert(package.to_owned()) };
        if changed && !serving {
            tracing::info!(package, "a service does not serve");
        }
        for name in self.names.get(package).into_iter().flatten() {
            self.reporter.set_service_status(name, status(serving)).await;
        }
        self.reporter.set_service_status("", status(down.is_empty())).await;
    }
}

/// Whether a service serves, and answers so in time.
async fn ask(peer: &Peer) -> Result<(), Status> {
    let mut client = HealthClient::new(peer.channel());
    let late = |_| Status::deadline_exceeded("no answer about its health in time");
    let told = tokio::time::timeout(ANSWER_WITHIN, client.check(HealthCheckRequest::default())).await.map_err(late)??;
    if serves(told.get_ref()) { Ok(()) } else { Err(Status::unavailable("it says that it does not serve")) }
}

fn serves(told: &HealthCheckResponse) -> bool {
    told.status() == Told::Serving
}
