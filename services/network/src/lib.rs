//! Gureum's network service: VPCs, subnets, interfaces, addresses, gateways and routes.
//!
//! ```text
//!  users ────► api ──► decisions (gureum-network-domain) ──► store ──► outbox ──► watchers
//!  compute ──► interfaces of instances                        │
//!  gateway ──► EnsureScope                                     └─► reconcile ──► security
//! ```
//!
//! It owns every address and who has it. It calls security alone: to make VPCs known, and to hold the
//! groups that interfaces use. What waits for security is a row, and the reconciler drives it on after a
//! kill between any two steps.
//!
//! Invariants: an address has one holder or none; a group that an interface uses is held before the
//! interface is; a scope is whole before its first call is answered.

mod api;
mod drive;
mod reconcile;
mod settings;
mod store;
mod taking;

use std::{convert::Infallible, sync::Arc};

use gureum_network_domain::{PublicPool, Rules};
use gureum_proto::network::v1::{network_peer_service_server::NetworkPeerServiceServer, network_service_server::NetworkServiceServer};
use gureum_service::{CancellationToken, Ready, Running, Service, ServiceConfig, StartError, config::ConfigError, reconcile::Waker};
use tonic::service::Routes;

pub use crate::settings::Settings;
use crate::{
    api::Api,
    drive::Driver,
    reconcile::Loop,
    store::{PoolRow, Schema, held_public},
    taking::Taking,
};

/// Runs the service until it is told to stop. `ready` is told once it accepts.
pub fn run(config: ServiceConfig<Settings>, shutdown: CancellationToken, ready: Ready) -> Running {
    Box::pin(open_and_serve(config, shutdown, ready))
}

async fn open_and_serve(config: ServiceConfig<Settings>, shutdown: CancellationToken, ready: Ready) -> Result<(), StartError> {
    config.check()?;
    let rules = config.settings.rules().map_err(|faults| ConfigError { faults })?;
    let service = Service::<Schema>::open("network", &config, shutdown).await?;
    recount_pool(&service, &rules).await?;
    let driver = Driver {
        store: service.store.clone(),
        ids: service.ids.clone(),
        call_ids: service.call_ids.clone(),
        rules: Arc::new(rules),
        security: service.peer("security")?,
        waker: Waker::default(),
        clock: service.clock.clone(),
        under_way: Taking::default(),
    };
    service.run_reconciler(Arc::new(Loop { driver: driver.clone() }), driver.waker.clone());
    let api = Api { driver, shutdown: service.shutdown.clone() };
    let limit = service.max_message_bytes();
    let routes = Routes::default()
        .add_service(NetworkServiceServer::new(api.clone()).max_decoding_message_size(limit))
        .add_service(NetworkPeerServiceServer::new(api).max_decoding_message_size(limit));
    service.serve(routes, ready).await
}

/// The ranges may have been configured otherwise since the pool was counted.
async fn recount_pool(service: &Service<Schema>, rules: &Rules) -> Result<(), StartError> {
    let ranges = rules.public.clone();
    let recounted = service.store.write(move |transaction| -> Result<(), Infallible> {
        let pool = transaction.pool.iter().next().map(|row| row.record.0).unwrap_or_default();
        let next: PublicPool = pool.recounted(&ranges, held_public(transaction).into_iter());
        if next != pool {
            transaction.put(PoolRow(next));
        }
        Ok(())
    });
    recounted.await.map_err(|error| StartError::StoreStopped(error.to_string().into()))
}
