//! `gureum up`: a whole region, in one process or with a process for every service.

mod in_process;
mod member;
mod processes;
pub mod region;
mod slice;

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use clap::Args as ClapArgs;
use gureum_model::ClockSetting;
use gureum_node::{DriverSetting, TrackingSetting};
use gureum_service::{CancellationToken, config::TelemetryConfig, telemetry};
use tokio::signal::unix::{SignalKind, signal};

pub use member::run_member;
use region::{Plan, Region};

use crate::{failure::Failure, output::Output};

/// Start a region and run it until Ctrl-C
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum up                                  state in ~/.local/share/gureum, port 4566
  gureum up --memory --port 0                a throw-away region on a free port
  gureum up --driver sim                     nothing runs in instances: for very many of them
  gureum up --processes                      every service its own supervised process
  gureum up --memory --time-scale virtual    time stands still until `gureum clock advance 5m`

The first line on standard output says where the region is reached, once it is:
  gureum is ready at http://127.0.0.1:4566")]
pub struct Args {
    /// Directory of the region's state; made if there is none
    #[arg(long, value_name = "DIR", env = "GUREUM_DIRECTORY")]
    directory: Option<PathBuf>,
    /// Keep everything in memory; it is gone when the region ends
    #[arg(long, conflicts_with = "directory")]
    memory: bool,
    /// Port on 127.0.0.1 for callers; 0 takes a free one
    #[arg(long, default_value_t = 4566)]
    port: u16,
    /// How fast the region's time passes: a factor such as 60, "real" or "virtual"
    #[arg(long, value_name = "SCALE")]
    time_scale: Option<ClockSetting>,
    /// Run every service as its own process, started again when it ends
    #[arg(long)]
    processes: bool,
    /// What makes instances real: "process", programs in namespaces of their own, or "sim", a model in which nothing runs. By
    /// default what the region began with: process, or sim if its time is virtual
    #[arg(long, value_parser = driver)]
    driver: Option<DriverSetting>,
    /// With the process driver: added to each port of a public address, for hosts that keep ports below 1024 for root
    #[arg(long, value_name = "PORTS", default_value_t = 0)]
    port_offset: u16,
    /// With the process driver: run instances also where this host has nothing to keep them from it, neither namespaces nor, as root, users of their own; else launching is refused there
    #[arg(long)]
    unconfined: bool,
    /// With the process driver: what is open when its rule is revoked stays open ("tracked", as in EC2) or is cut ("strict")
    #[arg(long, value_name = "HOW", default_value = "tracked", value_parser = tracking)]
    security_group_tracking: TrackingSetting,
    /// Nodes in each of the three zones
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=5000))]
    nodes_per_zone: u32,
    /// vCPUs of each node
    #[arg(long, default_value_t = 65_536)]
    node_vcpus: u32,
    /// Memory of each node, in GiB
    #[arg(long, default_value_t = 262_144)]
    node_memory_gib: u32,
    /// Calls a second that one account may make in the long run, 1 to 10,000,000; at once it may make twice as many
    #[arg(long, value_name = "CALLS", default_value_t = region::CALLS_PER_SECOND, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    calls_per_second: u32,
    /// Seed of all ids and of what the simulated nodes do: a new region with virtual time that gets the same calls tells the same story
    #[arg(long)]
    seed: Option<u64>,
    /// What is logged to standard error, as tracing filters are written
    #[arg(long, default_value = "warn", env = "GUREUM_LOG")]
    log: String,
    /// Where traces are sent by OTLP over gRPC, such as http://127.0.0.1:4317
    #[arg(long, value_name = "URL", env = "GUREUM_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
}

/// Runs a region until it is told to stop.
pub async fn run(args: Args, out: &Output) -> Result<(), Failure> {
    let telemetry = TelemetryConfig { log: args.log, otlp_endpoint: args.otlp_endpoint, ..TelemetryConfig::default() };
    let _telemetry = telemetry::start(&telemetry, "gureum");
    let plan = Plan {
        directory: if args.memory { None } else { Some(absolute(args.directory.map_or_else(default_directory, Ok)?)?) },
        door: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), args.port),
        clock: args.time_scale,
        nodes_per_zone: args.nodes_per_zone,
        node_vcpus: args.node_vcpus,
        node_memory_gib: args.node_memory_gib,
        calls_per_second: args.calls_per_second,
        telemetry,
        seed: args.seed,
        driver: args.driver,
        port_offset: args.port_offset,
        unconfined: args.unconfined,
        security_group_tracking: args.security_group_tracking,
    };
    let region = Region::prepare(&plan).map_err(Failure::start)?;
    let shutdown = CancellationToken::new();
    stop_on_signal(shutdown.clone()).map_err(Failure::start)?;
    let json = out.is_json();
    let ready = move |door: SocketAddr| announce(door, json);
    if args.processes { processes::run(&region, shutdown, ready).await } else { in_process::run(&region, shutdown, ready).await }
}

fn driver(text: &str) -> Result<DriverSetting, String> {
    match text {
        "sim" => Ok(DriverSetting::Sim),
        "process" => Ok(DriverSetting::Process),
        _ => Err("expected sim or process".to_owned()),
    }
}

fn tracking(text: &str) -> Result<TrackingSetting, String> {
    match text {
        "tracked" => Ok(TrackingSetting::Tracked),
        "strict" => Ok(TrackingSetting::Strict),
        _ => Err("expected tracked or strict".to_owned()),
    }
}

/// The ready line: one line, flushed, so that a script can wait for it.
fn announce(door: SocketAddr, json: bool) {
    let mut stdout = std::io::stdout().lock();
    let line = if json {
        serde_json::json!({ "state": "ready", "endpoint": format!("http://{door}") }).to_string()
    } else {
        format!("gureum is ready at http://{door}")
    };
    // Nobody may be listening; the region runs all the same.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Sockets have to be named from the root.
fn absolute(directory: PathBuf) -> Result<PathBuf, Failure> {
    std::path::absolute(&directory).map_err(|error| Failure::file("find", &directory, &error))
}

fn default_directory() -> Result<PathBuf, Failure> {
    let data = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")));
    data.map(|data| data.join("gureum"))
        .ok_or_else(|| Failure::usage("there is no home directory for the region's state: set --directory DIR or --memory"))
}

/// Ctrl-C or a supervisor's SIGTERM ends the region in order; a second one ends it at once.
pub fn stop_on_signal(shutdown: CancellationToken) -> std::io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if shutdown.is_cancelled() {
                std::process::exit(130);
            }
            shutdown.cancel();
        }
    });
    Ok(())
}
