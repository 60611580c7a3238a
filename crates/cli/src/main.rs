//! The `gureum` program: `up` and `serve` run a region, all other verbs speak to one.

mod cli;
mod client;
mod copy;
mod details;
mod failure;
mod list;
mod message;
mod output;
mod parse;
mod resolve;
mod rule;
#[cfg(feature = "region")]
mod serve;
mod session;
mod table;
mod terminal;
mod time;
#[cfg(feature = "region")]
mod up;
mod verbs;
mod wait;

use std::process::ExitCode;

use clap::Parser;

use crate::{cli::Cli, failure::Failure, output::Output};

/// A service's work is many small allocations that one thread makes and another frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "region")]
    if let Some(arguments) = gureum_node::shim_arguments() {
        return gureum_node::shim(&arguments);
    }
    more_files();
    let cli = Cli::parse();
    let threads = cli.worker_threads();
    match tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(run(cli));
            // All work has ended by then, but for a read of standard input, which nobody can call off.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            eprintln!("error: the runtime cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Every caller, watcher and peer is an open file, and the usual limit of 1,024 is there for programs that call select(2).
fn more_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // It goes on with what it has.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

async fn run(cli: Cli) -> ExitCode {
    let out = Output::new(cli.output);
    match cli.run(&out).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure @ (Failure::Closed | Failure::Exit(_))) => failure.exit_code(),
        Err(failure) => {
            out.failure(&failure);
            failure.exit_code()
        }
    }
}
