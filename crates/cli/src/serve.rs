//! `gureum serve`: one service of a region as this process.

use std::{io::Write, net::SocketAddr, path::PathBuf};

use clap::{Args as ClapArgs, ValueEnum};
use gureum_service::{CancellationToken, ServiceConfig, config::Settings, telemetry};
use tokio::io::AsyncReadExt;

use crate::{
    failure::Failure,
    output::Output,
    up::{region::Member, run_member, stop_on_signal},
};

/// Run one service from a configuration
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum serve security --config /etc/gureum/security.toml
  gureum serve gateway --config gateway.toml --set settings.door=127.0.0.1:4600
  GUREUM_STORE__DIRECTORY=/var/lib/gureum/network gureum serve network --config network.toml

Defaults, then the file, then GUREUM_… variables (two underscores between levels), then --set.
Prints `ready` on standard output once it accepts.")]
pub struct Args {
    /// The service
    #[arg(value_enum)]
    kind: Kind,
    /// Configuration file, in TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, over file and environment; may be given again
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Only check the configuration
    #[arg(long)]
    check: bool,
    /// End when standard input ends: a supervisor holds it open
    #[arg(long, hide = true)]
    with_parent: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Security,
    Network,
    Compute,
    Node,
    Gateway,
}

/// Runs the service until it is told to stop.
pub async fn run(args: Args, _out: &Output) -> Result<(), Failure> {
    let member = load(&args)?;
    if args.check {
        return Ok(());
    }
    let kind = member.kind();
    let _telemetry = telemetry::start(member.telemetry(), &format!("gureum-{kind}"));
    let shutdown = CancellationToken::new();
    stop_on_signal(shutdown.clone()).map_err(Failure::start)?;
    if args.with_parent {
        tokio::spawn(stop_with_parent(shutdown.clone()));
    }
    run_member(member, shutdown, Box::new(announce)).await.map_err(|error| Failure::service(kind, &error))
}

fn load(args: &Args) -> Result<Member, Failure> {
    Ok(match args.kind {
        Kind::Security => Member::Security(read(args)?),
        Kind::Network => Member::Network(read(args)?),
        Kind::Compute => Member::Compute(read(args)?),
        Kind::Node => Member::Node(read(args)?),
        Kind::Gateway => Member::Gateway(read(args)?),
    })
}

fn read<S: Settings>(args: &Args) -> Result<ServiceConfig<S>, Failure> {
    ServiceConfig::load(args.config.as_deref(), std::env::vars(), &args.set).map_err(|error| Failure::usage(error.to_string()))
}

fn announce(door: Option<SocketAddr>) {
    let mut stdout = std::io::stdout().lock();
    let line = door.map_or_else(|| "ready".to_owned(), |door| format!("ready {door}"));
    // Nobody may be listening; the service runs all the same.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

async fn stop_with_parent(shutdown: CancellationToken) {
    let mut nothing = [0; 64];
    let mut input = tokio::io::stdin();
    // The supervisor writes nothing; the end of the input, or an error of it, is its end.
    while matches!(input.read(&mut nothing).await, Ok(count) if count > 0) {}
    shutdown.cancel();
    // A blocked read of standard input would keep the runtime from ending.
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    std::process::exit(0);
}
