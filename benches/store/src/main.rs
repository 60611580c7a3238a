//! Measures Gureum's store beside the other ways to be durable.
//!
//! `gureum-bench-store [compare|costs|kills] [DIRECTORY]`: the directory should be on the disk that is asked
//! about; it is the system's temporary one by default.

#![allow(clippy::disallowed_methods, reason = "a bench measures real time, and there is no region here")]

use std::{
    env,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use gureum_model::Timestamp;
use gureum_store::{DurableEngine, EngineError, Options};

mod compare;
mod costs;
mod kills;
mod ways;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

pub fn options() -> Options {
    Options { name: "bench".into(), now: Box::new(|| Timestamp::from_system(std::time::SystemTime::now())) }
}

/// Opens a store that this process may not have let go of yet.
pub fn open_patiently(path: &Path) -> Result<DurableEngine, EngineError> {
    loop {
        match DurableEngine::open(path) {
            Err(EngineError::InUse { .. }) => thread::sleep(Duration::from_millis(1)),
            opened => return opened,
        }
    }
}

/// The value that so many of a hundred do not exceed.
pub fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let what = env::args().nth(1);
    let folder = env::args().nth(2).map_or_else(env::temp_dir, PathBuf::from);
    match what.as_deref() {
        Some("compare") => compare::run(&folder).await,
        Some("costs") => costs::run(&folder).await,
        Some("kills") => kills::run(&folder),
        Some(kills::CHILD) => kills::child(&folder).await,
        None => {
            compare::run(&folder).await?;
            costs::run(&folder).await
        }
        Some(other) => Err(format!("\"{other}\" is not measured here: expected compare, costs or kills").into()),
    }
}
