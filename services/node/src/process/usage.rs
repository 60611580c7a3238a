//! What instances use. Whoever watches asks for all of them every second, so nothing is read that does not change.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use gureum_model::id::InstanceId;
use gureum_node_domain::Usage;
use gureum_service::clock::monotonic;
use gureum_shim::{
    protocol::{Limits, State},
    usage::{KEPT_FILES, Meter, Used},
};
use rustix::process::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lock;

/// Of the files that this process may have open, one of so many may be a meter's. Meters beyond open theirs at each look.
const SHARE_OF_FILES: u64 = 4;
/// Where nothing bounds them.
const MOST_METERS: u64 = 10_000;

/// The meters of the instances that run.
pub struct Meters {
    running: Mutex<BTreeMap<InstanceId, Arc<Mutex<Running>>>>,
    /// Meters that may yet keep their files open.
    keeping: Arc<Semaphore>,
}

struct Running {
    state: State,
    limits: Limits,
    /// Made by the first look, with the right to keep its files open.
    meter: Option<(Meter, Option<OwnedSemaphorePermit>)>,
    /// Its processor time at the last look.
    last: Option<(Instant, Duration)>,
}

impl Meters {
    pub fn new() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let meters = (files / SHARE_OF_FILES / KEPT_FILES as u64).min(MOST_METERS);
        Self { running: Mutex::default(), keeping: Arc::new(Semaphore::new(usize::try_from(meters).unwrap_or_default())) }
    }

    /// An instance is so; what it may use is asked for where it begins to run.
    pub fn is(&self, id: InstanceId, state: &State, limits: Limits) {
        let mut running = lock(&self.running);
        if state.init.is_none() {
            running.remove(&id);
        } else if running.get(&id).is_none_or(|known| lock(known).state.init != state.init) {
            running.insert(id, Arc::new(Mutex::new(Running { state: state.clone(), limits, meter: None, last: None })));
        }
    }

    /// It runs no more.
    pub fn ended(&self, id: InstanceId) {
        lock(&self.running).remove(&id);
    }

    /// What those of these use that run.
    pub fn look(&self, ids: &[InstanceId]) -> Vec<(InstanceId, Usage)> {
        let look = |id: &InstanceId| {
            let running = lock(&self.running).get(id).cloned()?;
            let usage = lock(&running).look(&self.keeping)?;
            Some((*id, usage))
        };
        ids.iter().filter_map(look).collect()
    }
}

impl Running {
    fn look(&mut self, keeping: &Arc<Semaphore>) -> Option<Usage> {
        if self.meter.is_none() {
            let permit = keeping.clone().try_acquire_owned().ok();
            self.meter = Some((Meter::new(&self.state, permit.is_some())?, permit));
        }
        let (meter, _) = self.meter.as_mut()?;
        let used = meter.read()?;
        let now = monotonic();
        let last = self.last.replace((now, used.cpu));
        let cpu_percent = last.map_or(0.0, |(then, cpu)| {
            let allowed = now.duration_since(then).as_secs_f64() * self.limits.cpu_milli as f64 / 1_000.0;
            let share = if allowed > 0.0 { used.cpu.saturating_sub(cpu).as_secs_f64() / allowed } else { 0.0 };
            (share * 1_000.0).round().clamp(0.0, 1_000.0) / 10.0
        });
        Some(usage(&used, cpu_percent, self.limits.memory_bytes))
    }
}

fn usage(used: &Used, cpu_percent: f64, memory_total_bytes: u64) -> Usage {
    Usage {
        cpu_percent,
        memory_used_bytes: used.memory_bytes,
        memory_total_bytes,
        disk_read_bytes: used.disk_read.bytes,
        disk_written_bytes: used.disk_written.bytes,
        disk_read_operations: used.disk_read.count,
        disk_write_operations: used.disk_written.count,
        network_received_bytes: used.received.bytes,
        network_sent_bytes: used.sent.bytes,
        network_received_packets: used.received.count,
        network_sent_packets: used.sent.count,
    }
}
