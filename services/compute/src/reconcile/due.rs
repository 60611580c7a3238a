//! The loop of what time alone changes: volumes, snapshots and images.
//!
//! A snapshot that is complete settles the images that wait for it in the same commit, so no loop polls for them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use gureum_compute_domain::{image, snapshot, volume};
use gureum_model::{
    Timestamp,
    id::{ImageId, ResourceId, SnapshotId, VolumeId},
};
use gureum_service::reconcile::{Outcome, Reconcile};
use gureum_store::{Record, Table};

use crate::{
    core::Core,
    store::{DUE_INDEX, Schema, Tx, decide_snapshot, decide_volume, due_value, settle_image},
};

/// What has a time at which it changes, by the key of its row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DueKey {
    Image(String),
    Snapshot(String),
    Volume(String),
}

impl DueKey {
    /// The key of the resource that an event tells of; none if time changes nothing of such.
    pub fn of(scope: &impl std::fmt::Display, resource_id: &str) -> Option<Self> {
        let key = || format!("{scope}/{resource_id}");
        let is = |prefix| resource_id.starts_with(prefix);
        if is(VolumeId::PREFIX) {
            Some(Self::Volume(key()))
        } else if is(SnapshotId::PREFIX) {
            Some(Self::Snapshot(key()))
        } else if is(ImageId::PREFIX) {
            Some(Self::Image(key()))
        } else {
            None
        }
    }

    /// When time will next change it; none as long as a node has still to do something for it.
    fn due(&self, tables: &Schema) -> Option<Timestamp> {
        match self {
            Self::Snapshot(key) | Self::Volume(key) if tables.disk_work.get(key).is_some() => None,
            Self::Image(key) => image::due(tables.images.get(key)?),
            Self::Snapshot(key) => snapshot::due(tables.snapshots.get(key)?),
            Self::Volume(key) => volume::due(tables.volumes.get(key)?),
        }
    }

    fn settle(&self, tx: &mut Tx<'_>) {
        let now = tx.now();
        match self {
            Self::Image(key) => {
                if let Some(row) = tx.images.get(key).cloned() {
                    settle_image(tx, &row);
                }
            }
            Self::Snapshot(key) => {
                if let Some(row) = tx.snapshots.get(key).cloned() {
                    decide_snapshot(tx, "SnapshotStateChanged", &row, snapshot::settle(&row, now));
                }
            }
            Self::Volume(key) => {
                if let Some(row) = tx.volumes.get(key).cloned() {
                    decide_volume(tx, "VolumeStateChanged", &row, volume::settle(&row, now));
                }
            }
        }
    }
}

/// Drives what is due.
pub struct Due {
    core: Arc<Core>,
    /// The next question for what is unsettled is the first one.
    starting: AtomicBool,
}

impl Due {
    pub fn new(core: Arc<Core>) -> Self {
        Self { core, starting: AtomicBool::new(true) }
    }
}

/// The keys of rows that are due until then.
fn until<'a, R: Record>(table: &'a Table<R>, last: &'a str) -> impl Iterator<Item = String> + use<'a, R> {
    table.find_from(DUE_INDEX, "").take_while(move |(time, _)| *time <= last).map(|(_, row)| row.record.key())
}

impl Reconcile for Due {
    type Key = DueKey;

    const NAME: &'static str = "due";

    /// Those whose time has come; at the start all that have one, so that their timers are set.
    fn unsettled(&self) -> Vec<DueKey> {
        let state = self.core.read();
        let starting = self.starting.swap(false, Ordering::SeqCst);
        let last = due_value(if starting { Timestamp::from_micros(u64::MAX) } else { self.core.clock.now() });
        let images = until(&state.images, &last).map(DueKey::Image);
        let snapshots = until(&state.snapshots, &last).map(DueKey::Snapshot);
        images.chain(snapshots).chain(until(&state.volumes, &last).map(DueKey::Volume)).collect()
    }

    async fn run(&self, keys: Vec<DueKey>) -> Vec<(DueKey, Outcome)> {
        let (state, now) = (self.core.read(), self.core.clock.now());
        let mut outcomes = Vec::with_capacity(keys.len());
        let mut ripe = Vec::new();
        for key in keys {
            match key.due(&state) {
                Some(due) if due <= now => ripe.push(key),
                Some(until) => outcomes.push((key, Outcome::Waiting { until })),
                None => outcomes.push((key, Outcome::Settled)),
            }
        }
        if ripe.is_empty() {
            return outcomes;
        }
        let settled = ripe.clone();
        let written = self.core.commit(move |tx| settled.iter().for_each(|key| key.settle(tx))).await;
        let outcome = written.map_or_else(|error| Outcome::Retry { reason: error.to_string() }, |()| Outcome::Moved);
        outcomes.extend(ripe.into_iter().map(|key| (key, outcome.clone())));
        outcomes
    }
}
