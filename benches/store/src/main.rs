use std::{path::Path, thread, time::Duration};

use gureum_model::Timestamp;
use gureum_store::{DurableEngine, EngineError, Options};

mod costs;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

pub fn options() -> Options {
    Options { name: "bench".into(), now: Box::new(|| Timestamp::from_system(std::time::SystemTime::now())) }
}

pub fn open_patiently(path: &Path) -> Result<DurableEngine, EngineError> {
    loop {
        match DurableEngine::open(path) {
            Err(EngineError::InUse { .. }) => thread::sleep(Duration::from_millis(1)),
            opened => return opened,
        }
    }
}

pub fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    costs::puts().await?;
    costs::loads(Path::new("/var/tmp")).await
}
