//! The loop of launches: takes back what nobody finishes any more.

use std::sync::Arc;

use gureum_compute_domain::launch_intent::{Launch, LaunchStep, plan_launch, undo};
use gureum_service::reconcile::{Outcome, Reconcile};
use gureum_store::Record;

use crate::{core::Core, store::LaunchRow};

/// Drives launches; the keys are those of their rows.
pub struct Launches(pub Arc<Core>);

impl Reconcile for Launches {
    type Key = String;

    const NAME: &'static str = "launches";

    fn unsettled(&self) -> Vec<String> {
        self.0.read().launches.iter().map(|row| row.record.key()).collect()
    }

    async fn run(&self, keys: Vec<String>) -> Vec<(String, Outcome)> {
        let mut outcomes = Vec::with_capacity(keys.len());
        for key in keys {
            let outcome = self.run_one(&key).await;
            outcomes.push((key, outcome));
        }
        outcomes
    }
}

/// Takes a launch back at once whose call has given it up; the loop does what this cannot. Whether nothing is left of it.
pub async fn take_back(core: &Arc<Core>, key: &str) -> bool {
    let launches = Launches(core.clone());
    while let Outcome::Moved = launches.run_one(key).await {}
    core.read().launches.get(key).is_none()
}

impl Launches {
    async fn run_one(&self, key: &str) -> Outcome {
        let Some(launch) = self.0.read().launches.get(key).map(|row| row.record.0.clone()) else { return Outcome::Settled };
        match plan_launch(&launch, self.0.in_flight.contains(launch.reservation_id)) {
            // The call wakes this loop when it ends.
            LaunchStep::Wait => Outcome::Settled,
            LaunchStep::Undo => self.undo(key).await,
            LaunchStep::DeleteInterfaces => self.delete_interfaces(key, &launch).await,
        }
    }

    async fn undo(&self, key: &str) -> Outcome {
        let key = key.to_owned();
        let written = self.0.commit(move |tx| {
            if let Some(row) = tx.launches.get(&key).cloned() {
                tx.put(LaunchRow(undo(&row, "its call ended before it was finished")));
            }
        });
        written.await.map_or_else(|error| Outcome::Retry { reason: error.to_string() }, |()| Outcome::Moved)
    }

    async fn delete_interfaces(&self, key: &str, launch: &Launch) -> Outcome {
        let core = &self.0;
        if let Err(error) = core.in_scope(&launch.scope, core.network.delete(&launch.instances)).await {
            return Outcome::Retry { reason: error.to_string() };
        }
        let (key, places) = (key.to_owned(), core.places.clone());
        let written = core.commit(move |tx| {
            if let Some(row) = tx.delete::<LaunchRow>(&key) {
                for it in &row.instances {
                    places.release(it.id);
                }
            }
        });
        written.await.map_or_else(|error| Outcome::Retry { reason: error.to_string() }, |()| Outcome::Settled)
    }
}
