//! What running instances use, told at an interval of domain time.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::Stream;
use gureum_model::{Refusal, Scope, Timestamp, id::InstanceId, refusal::Violations};
use gureum_node_domain::{ObservedState, Timers};
use gureum_proto::node::v1 as proto;
use gureum_service::{Clock, error::ending, wire};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    api::{Api, read, show},
    store::instance_key,
};

/// Instances in one message.
const PART: usize = 1000;
/// Messages that wait for a slow watcher; one that is slower misses samples, and gets whole ones.
const BUFFER: usize = 16;
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);

/// What WatchUsage answers.
pub type UsageStream = Pin<Box<dyn Stream<Item = Result<proto::WatchUsageResponse, Status>> + Send>>;

/// When each watcher samples next: virtual time does not pass over a sample that is due.
#[derive(Clone)]
pub struct Samplers {
    due: Arc<Mutex<Due>>,
    clock: Clock,
}

#[derive(Default)]
struct Due {
    times: Timers<u64>,
    count: u64,
}

impl Samplers {
    pub fn new(clock: Clock) -> Self {
        Self { due: Arc::default(), clock }
    }

    /// Whether no sample is due.
    pub fn is_idle(&self) -> bool {
        self.due().times.next_at().is_none_or(|next| next > self.clock.now())
    }

    fn due(&self) -> MutexGuard<'_, Due> {
        // A time is set whole or not at all, so a poisoned lock is as good as any.
        self.due.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn join(&self) -> Sampler {
        let mut due = self.due();
        due.count += 1;
        Sampler { number: due.count, samplers: self.clone() }
    }
}

/// One watcher's place; left when dropped.
struct Sampler {
    number: u64,
    samplers: Samplers,
}

impl Sampler {
    fn set(&self, next: Option<Timestamp>) {
        self.samplers.due().times.set(self.number, next);
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.set(None);
    }
}

pub fn stream(api: &Api, request: proto::WatchUsageRequest) -> Result<UsageStream, Refusal> {
    let mut violations = Violations::new();
    let interval = match &request.interval {
        None => DEFAULT_INTERVAL,
        Some(interval) => read::duration("interval", Some(interval), &mut violations),
    };
    if !(SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(&interval) {
        violations.add("interval", format!("{interval:?} is not in 100 ms to an hour"));
    }
    let ids = violations.ids::<InstanceId>("instance_ids", &request.instance_ids);
    violations.finish()?;
    let (sender, receiver) = mpsc::channel(BUFFER);
    let api = api.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = follow(&api, interval, &ids, &sender) => {}
            () = api.shutdown.cancelled() => {
                let _ = sender.try_send(Err(ending("watch again")));
            }
            () = sender.closed() => {}
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

/// Ends when nobody listens any more.
async fn follow(
    api: &Api,
    interval: Duration,
    ids: &[InstanceId],
    sender: &mpsc::Sender<Result<proto::WatchUsageResponse, Status>>,
) -> Option<()> {
    let place = api.samplers.join();
    let mut next = api.clock.now();
    loop {
        api.clock.sleep_until(next).await;
        let working = api.activity.begin();
        // A watcher that is slow holds nothing up.
        place.set(None);
        let time = api.clock.now();
        let parts = sample(api, ids, time).await;
        drop(working);
        for part in parts {
            sender.send(Ok(part)).await.ok()?;
        }
        // Samples that were missed are left out, and the pace is kept.
        let now = api.clock.now();
        let missed = now.since(next).as_micros() / interval.as_micros();
        next = next + interval.saturating_mul(u32::try_from(missed).unwrap_or(u32::MAX).saturating_add(1));
        place.set(Some(next));
    }
}

struct Shown {
    id: InstanceId,
    scope: Scope,
    boot: u64,
    reboot: u64,
}

async fn sample(api: &Api, ids: &[InstanceId], time: Timestamp) -> Vec<proto::WatchUsageResponse> {
    let running = running(api, ids);
    let mut parts = Vec::with_capacity(running.len().div_ceil(PART));
    for part in running.chunks(PART) {
        let wanted: Vec<InstanceId> = part.iter().map(|shown| shown.id).collect();
        let usages = api.driver.usage(&wanted).await;
        // Both are in the order of the ids.
        let mut shown = part.iter();
        let usages = usages.iter().filter_map(|(id, usage)| {
            let shown = shown.by_ref().find(|shown| shown.id == *id)?;
            Some(show::usage(shown.id, &shown.scope, [shown.boot, shown.reboot], usage))
        });
        parts.push(proto::WatchUsageResponse { time: Some(wire::timestamp(time)), usages: usages.collect(), complete: false });
    }
    match parts.last_mut() {
        Some(last) => last.complete = true,
        None => parts.push(proto::WatchUsageResponse { time: Some(wire::timestamp(time)), usages: Vec::new(), complete: true }),
    }
    parts
}

/// Those that run, in the order of their ids.
fn running(api: &Api, ids: &[InstanceId]) -> Vec<Shown> {
    let state = api.records.store().read();
    let shown = |row: &crate::store::InstanceRow| {
        matches!(row.state, ObservedState::Running { .. }).then(|| Shown {
            id: row.id,
            scope: row.scope.clone(),
            boot: row.boot,
            reboot: row.reboot,
        })
    };
    if ids.is_empty() {
        return state.instances.iter().filter_map(|row| shown(&row.record)).collect();
    }
    let mut ids = ids.to_vec();
    ids.sort();
    ids.dedup();
    ids.iter().filter_map(|id| shown(&state.instances.get(&instance_key(*id))?.record)).collect()
}
