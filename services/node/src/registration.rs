//! Tells compute that this node is there. Real time: leases are real.
//!
//! It registers until compute answers, then sends heartbeats, and registers again whenever compute says
//! so. Compute may be away for as long as it likes: what runs here goes on.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gureum_model::{IdSource, Scope};
use gureum_node_domain::{Demand, driver::DriverKind};
use gureum_proto::compute::v1::{
    GetIdentityKeyRequest, NodeCapacity, NodeHeartbeatRequest, RegisterNodeRequest, compute_peer_service_client::ComputePeerServiceClient,
};
use gureum_service::{Clock, Peer, RequestContext, clock::monotonic, context, peer::PeerChannel, wire};
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::{process::Signer, recovery::Identity};

/// First and last pause while compute is away.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LAST: Duration = Duration::from_secs(1);

/// The longest that one call may take: well below every lease.
const CALL_DEADLINE: Duration = Duration::from_secs(2);

/// Says until when no heartbeat goes out. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Pause(Arc<watch::Sender<Option<Instant>>>);

impl Pause {
    /// From now on for so long; zero ends it.
    pub fn set(&self, duration: Duration) {
        self.0.send_replace((!duration.is_zero()).then(|| monotonic() + duration));
    }

    /// Ends when heartbeats may go out.
    async fn over(&self) {
        let mut until = self.0.subscribe();
        loop {
            let end = match *until.borrow_and_update() {
                Some(end) if end > monotonic() => end,
                Some(_) | None => return,
            };
            tokio::select! {
                () = tokio::time::sleep_until(end.into()) => {}
                // The sender lives in self.
                _ = until.changed() => {}
            }
        }
    }
}

/// The loop and what it tells.
pub struct Registration {
    pub compute: Peer,
    pub call_ids: Arc<IdSource>,
    /// Takes the region's time over, where that is virtual.
    pub clock: Clock,
    pub identity: Identity,
    pub zone: char,
    pub total: Demand,
    pub driver: DriverKind,
    pub endpoint: String,
    pub interval: Duration,
    pub pause: Pause,
    /// Given the key by which the region vouches for its instances; none where nothing runs that could show it.
    pub signer: Option<Signer>,
}

impl Registration {
    /// Registers and sends heartbeats until it is dropped.
    pub async fn run(self) {
        loop {
            let interval = self.register().await;
            tokio::select! {
                () = self.heartbeats(interval) => {}
                () = self.keep_key() => {}
            }
        }
    }

    /// Registers, however long that takes. Answers how often heartbeats go out.
    async fn register(&self) -> Duration {
        let mut pause = RETRY_FIRST;
        let mut refused = None;
        loop {
            self.pause.over().await;
            let mut client = self.client();
            let status = match context::with(self.context(), client.register_node(self.registration())).await {
                Ok(answer) => {
                    tracing::info!(node = %self.identity.id, incarnation = self.identity.incarnation, "registered with compute");
                    let answer = answer.into_inner();
                    self.take_time(answer.region_time).await;
                    let asked = answer.heartbeat_interval.and_then(|interval| Duration::try_from(interval).ok());
                    return asked.filter(|asked| !asked.is_zero()).map_or(self.interval, |asked| asked.min(self.interval));
                }
                Err(status) => status,
            };
            // Away heals by itself; a refusal needs a person, who is told once.
            if is_refusal(&status) && refused.as_ref() != Some(&status.code()) {
                tracing::warn!(node = %self.identity.id, code = ?status.code(), "compute refuses to register this node: {}", status.message());
                refused = Some(status.code());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LAST);
        }
    }

    /// A node that comes late, or comes back, takes the region's virtual time over: the gateway tells it of the next advance
    /// alone. Time never goes back, so one that is ahead stays there.
    async fn take_time(&self, region_time: Option<prost_types::Timestamp>) {
        let Some(time) = region_time.filter(|_| self.clock.is_virtual()) else { return };
        let (clock, time) = (self.clock.clone(), wire::from_timestamp(&time));
        match tokio::task::spawn_blocking(move || clock.advance_to(time)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(%error, "the region's virtual time cannot be kept; the next AdvanceClock brings it again"),
            Err(error) => tracing::error!(%error, "taking the region's virtual time over ended early"),
        }
    }

    /// Gets the region's key, however long that takes, and never ends.
    async fn keep_key(&self) {
        let Some(signer) = &self.signer else { return std::future::pending().await };
        let mut pause = RETRY_FIRST;
        loop {
            match context::with(self.context(), self.client().get_identity_key(GetIdentityKeyRequest {})).await {
                Ok(answer) => {
                    signer.take(&answer.into_inner().identity_key);
                    return std::future::pending().await;
                }
                // It is made, or compute is away.
                Err(status) => tracing::debug!(code = ?status.code(), "the identity key did not arrive: {}", status.message()),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LAST);
        }
    }

    /// Sends heartbeats until compute asks for a registration.
    async fn heartbeats(&self, interval: Duration) {
        let mut wait = interval;
        loop {
            tokio::time::sleep(wait).await;
            self.pause.over().await;
            let request = NodeHeartbeatRequest { node_id: self.identity.id.to_string(), incarnation: self.identity.incarnation };
            let mut client = self.client();
            match context::with(self.context(), client.node_heartbeat(request)).await {
                Ok(answer) if answer.get_ref().must_register => return,
                Ok(_) => wait = interval,
                // A lease runs: sooner than usual.
                Err(status) => {
                    tracing::debug!(code = ?status.code(), "a heartbeat did not arrive: {}", status.message());
                    wait = (interval / 4).max(RETRY_FIRST);
                }
            }
        }
    }

    fn client(&self) -> ComputePeerServiceClient<PeerChannel> {
        ComputePeerServiceClient::new(self.compute.channel())
    }

    /// Nodes are of no account; their calls carry the default one.
    fn context(&self) -> RequestContext {
        RequestContext::background(Scope::default(), &self.call_ids, CALL_DEADLINE)
    }

    fn registration(&self) -> RegisterNodeRequest {
        let amount = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
        RegisterNodeRequest {
            node_id: self.identity.id.to_string(),
            zone: self.zone.to_string(),
            capacity: Some(NodeCapacity { vcpu_milli: amount(self.total.vcpu_milli), memory_mib: amount(self.total.memory_mib) }),
            driver: self.driver.as_str().to_owned(),
            endpoint: self.endpoint.clone(),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            incarnation: self.identity.incarnation,
        }
    }
}

fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::NotFound
            | Code::AlreadyExists
    )
}
