//! Measures a region over gRPC, beside etcd where etcd does the like.
//!
//! `GUREUM=path/to/gureum gureum-bench-region [WHAT] [DIRECTORY]`: what is one of write, launch, describe,
//! watch, placement, start, boot, forward and sample; without it all are run. State goes to a new folder in the directory, which should be
//! on the disk that is asked about; it is the system's temporary one by default. `answer ADDRESS` is the program that is
//! called within instances and beside them, and `ask ADDRESS CALLERS KIBIBYTES SECONDS` calls one.

#![allow(clippy::disallowed_methods, reason = "a bench measures real time, and there is no region here")]

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

mod answer;
mod boot;
mod describe;
mod etcd;
mod forward;
mod guests;
mod launch;
mod machine;
mod measure;
mod placement;
mod program;
mod start;
mod watch;
mod write;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

const ALL: [&str; 9] = ["write", "launch", "describe", "watch", "placement", "start", "boot", "forward", "sample"];

async fn run(what: &str, folder: &Path) -> Result<(), Failure> {
    match what {
        "write" => write::run(folder).await,
        "launch" => launch::run(folder).await,
        "describe" => describe::run(folder).await,
        "watch" => watch::run(folder).await,
        "placement" => placement::run(),
        "start" => start::run(folder).await,
        "boot" => boot::run(folder).await,
        "forward" => forward::run(folder).await,
        "sample" => boot::sample(folder).await,
        other => Err(format!("\"{other}\" is not measured here: expected {}", ALL.join(", ")).into()),
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let what = env::args().nth(1);
    let argument = |place| env::args().nth(place).ok_or("an argument is missing");
    match what.as_deref() {
        Some("answer") => return answer::serve(&argument(2)?),
        Some("ask") => {
            let seconds = Duration::from_secs(argument(5)?.parse()?);
            let answers = answer::drive(argument(2)?.parse()?, argument(3)?.parse()?, argument(4)?.parse()?, seconds)?;
            return Ok(println!("{answers:.0} answers a second"));
        }
        _ => {}
    }
    let folder = env::args().nth(2).map_or_else(env::temp_dir, PathBuf::from);
    let folder = tempfile::Builder::new().prefix("gureum-bench-").tempdir_in(folder)?;
    machine::print(folder.path())?;
    match what.as_deref() {
        Some(what) => run(what, folder.path()).await,
        None => {
            for what in ALL {
                run(what, folder.path()).await?;
            }
            Ok(())
        }
    }
}
