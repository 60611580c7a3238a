//! Gureum's node service: the instances on one host.
//!
//! ```text
//!             ApplyInstances                 begin: one commit per batch
//!  compute ──► api ──► records ──► waker ──► converge ──► driver (sim │ process │ container │ vm)
//!     ▲                 │   ▲                                │
//!     └─ WatchInstances ┘   └──── reports: one commit per batch ◄─┘
//!
//!  security, network ── WatchAll ──► firewall, topology ──► driver, if it has connections to decide on
//! ```
//!
//! It owns what runs on its host: a record of each instance (what compute wants, what is), and the books
//! of what is promised. It calls compute only to say that it is there ([`registration`]), and of security and
//! network it only watches what groups' rules and subnets' routes are ([`firewall`], [`topology`]).
//!
//! Everything goes through the records: an intent is durable before it is acknowledged, a step before
//! the driver is called, a report before it is told. The driver is called for one instance at a time in
//! the order of the commits, because only one loop calls it, which runs no key twice at once. After a
//! start [`recovery`] holds the records against what the driver has; then the loops go on.
//!
//! Invariants: a node never has more promised than it has; nothing boots twice for one boot number;
//! what compute has not acknowledged as terminated is never forgotten.
//!
//! It never moves an instance, never asks another service about one (groups reach it as a stream of all), and decides nothing that users
//! decide: whether an instance that shut itself down is then terminated is for compute to say.
//!
//! A node serves all accounts and regions, so its rows are keyed by the id alone, unlike those of
//! services that users call.

mod alarm;
mod api;
mod bootable;
mod converge;
pub mod driver;
pub mod firewall;
pub mod followed;
mod process;
mod records;
mod recovery;
mod registration;
mod reports;
pub mod session;
mod settings;
mod sim_driver;
mod snapshots;
mod store;
pub mod topology;
mod user_data;

use std::{ffi::OsString, sync::Arc};

use gureum_proto::node::v1::node_service_server::NodeServiceServer;
use gureum_service::{CancellationToken, Clock, Ready, Running, Service, ServiceConfig, StartError, reconcile::Waker};
use tonic::service::Routes;

pub use crate::settings::{DriverSetting, Settings, TrackingSetting};
use crate::{
    api::{Api, usage::Samplers},
    converge::Converge,
    driver::Driver,
    firewall::Groups,
    process::{Connections, ProcessDriver, Signer},
    records::Records,
    registration::{Pause, Registration},
    sim_driver::SimDriver,
    store::Schema,
    topology::RouteTables,
};

/// Runs the node until it is told to stop. `ready` is told once it accepts.
///
/// # Errors
/// Settings that cannot be used, a store that is another node's, and all that ends any service.
pub fn run(config: ServiceConfig<Settings>, shutdown: CancellationToken, ready: Ready) -> Running {
    Box::pin(open_and_serve(config, shutdown, ready))
}

/// What follows `shim` on the command line, if this process is to be an instance's shim.
pub fn shim_arguments() -> Option<Vec<OsString>> {
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == gureum_shim::SHIM).then(|| arguments.collect())
}

/// Is an instance's shim, or what is within it. Must be called before this process has another thread.
pub use gureum_shim::main as shim;

/// Instances stand beside the node's store, or without one where the host keeps what ends with its processes.
fn process_driver(
    config: &ServiceConfig<Settings>,
    clock: Clock,
    groups: Groups,
    route_tables: RouteTables,
    signer: Signer,
) -> Result<ProcessDriver, StartError> {
    let volatile = config.store.directory.is_none();
    let temporary = || std::env::temp_dir().join(format!("gureum-{}-{}", config.settings.name, std::process::id()));
    let directory = config.store.directory.clone().unwrap_or_else(temporary);
    let refused = |reason: String| StartError::Setting { name: "settings.driver", reason };
    if clock.is_virtual() {
        return Err(refused("programs run in real time: where the clock is virtual, set it to sim".into()));
    }
    let storage = config.settings.storage.clone().unwrap_or_else(|| directory.clone());
    let connections = Connections {
        fabric: config.settings.fabric.clone().unwrap_or_else(|| directory.join("fabric")),
        port_offset: config.settings.port_offset,
        strict_tracking: config.settings.security_group_tracking == TrackingSetting::Strict,
        groups,
        route_tables,
    };
    ProcessDriver::new(&directory, &storage, volatile, clock, connections, signer, config.settings.unconfined)
        .map_err(|error| refused(format!("{}: {error}", directory.display())))
}

async fn open_and_serve(config: ServiceConfig<Settings>, shutdown: CancellationToken, ready: Ready) -> Result<(), StartError> {
    config.check()?;
    let settings = &config.settings;
    let mut service = Service::<Schema>::open("node", &config, shutdown).await?;
    let compute = service.peer("compute")?;
    let signer = Signer::default();
    let driver: Arc<dyn Driver> = match settings.driver {
        DriverSetting::Sim => Arc::new(SimDriver::new(settings.sim_settings(), service.clock.clone())),
        DriverSetting::Process => {
            let (groups, tables) = (Groups::default(), RouteTables::default());
            let driver = process_driver(&config, service.clock.clone(), groups.clone(), tables.clone(), signer.clone())?;
            service.spawn(firewall::follow(service.peer("security")?, groups));
            service.spawn(topology::follow(service.peer("network")?, tables));
            Arc::new(driver)
        }
    };
    let waker = Waker::default();
    let records =
        Records::open(service.store.clone(), settings.total(), driver.capabilities().clone(), service.clock.clone(), waker.clone());
    let volatile = config.store.directory.is_none();
    let identity = recovery::identity(&service.store, &settings.name, volatile).await?;
    service.known_as = identity.id.to_string();
    recovery::recover_all(&records, &*driver).await?;

    let converge = Converge { records: records.clone(), driver: driver.clone(), clock: service.clock.clone() };
    service.run_reconciler(Arc::new(converge), waker);
    let (idle_driver, idle_records, samplers) = (driver.clone(), records.clone(), Samplers::new(service.clock.clone()));
    let idle_samplers = samplers.clone();
    service.activity.add_loop(move || idle_driver.is_idle() && idle_records.is_idle() && idle_samplers.is_idle());
    service.spawn(reports::take(driver.clone(), records.clone()));
    service.spawn(records.clone().watch_deadlines());

    let pause = Pause::default();
    let registration = Registration {
        compute,
        call_ids: service.call_ids.clone(),
        clock: service.clock.clone(),
        identity,
        zone: settings.zone,
        total: settings.total(),
        driver: driver.capabilities().driver,
        endpoint: config.listen.to_string(),
        interval: settings.heartbeat_interval(),
        pause: pause.clone(),
        signer: (settings.driver == DriverSetting::Process).then_some(signer),
    };
    service.spawn(registration.run());

    let api = Api {
        records,
        driver,
        identity,
        zone: settings.zone,
        clock: service.clock.clone(),
        activity: service.activity.clone(),
        samplers,
        pause,
        shutdown: service.shutdown.clone(),
    };
    let routes = Routes::default().add_service(NodeServiceServer::new(api).max_decoding_message_size(service.max_message_bytes()));
    service.serve(routes, ready).await
}
