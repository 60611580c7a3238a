//! The loop that drives instances to what is wanted: plan, record, call the driver.
//!
//! A step is durable before the driver hears of it. A driver that does not accept is asked again, or
//! where it never will accept, that is what came of the step. A driver that accepts and then says
//! nothing is dealt with by the plan once its answer is overdue.

use futures::{StreamExt, future::ready, stream};
use gureum_model::{Timestamp, id::InstanceId};
use gureum_node_domain::{DriverEvent, DriverReport, InstanceSpec, NodeInstance, Step, begin, instance::Asked, plan};
use gureum_service::{
    Clock,
    reconcile::{Outcome, Reconcile},
};
use std::sync::Arc;

use crate::{
    driver::{Driver, DriverError, Run},
    records::{Draft, Records},
    store::{BY_LOOK, time_value},
};

/// Calls of the driver at once. Each may copy files; more of them would only queue for the disk.
const CALLS_AT_ONCE: usize = 16;

/// Drives instances to what is wanted.
pub struct Converge {
    pub records: Records,
    pub driver: Arc<dyn Driver>,
    pub clock: Clock,
}

/// A step that is recorded and about to be done.
struct Begun {
    run: Run,
    step: Step,
    asked: Option<Asked>,
    /// For a termination: what goes.
    spec: Option<InstanceSpec>,
}

/// A step that the driver did not accept.
struct Failed {
    begun: Begun,
    error: DriverError,
}

impl Reconcile for Converge {
    type Key = InstanceId;

    const NAME: &'static str = "instances";

    fn unsettled(&self) -> Vec<InstanceId> {
        let (state, now) = (self.records.store().read(), time_value(self.clock.now()));
        let due = state.instances.find_from(BY_LOOK, "").take_while(|(at, _)| **at <= *now);
        due.map(|(_, row)| row.record.id).collect()
    }

    async fn run(&self, keys: Vec<InstanceId>) -> Vec<(InstanceId, Outcome)> {
        let taken = keys.clone();
        let recorded = self.records.change(move |draft| taken.into_iter().filter_map(|id| begin_next(draft, id)).collect::<Vec<_>>());
        let begun = match recorded.await {
            Ok(begun) => begun,
            Err(error) => return keys.into_iter().map(|id| (id, Outcome::Retry { reason: error.to_string() })).collect(),
        };
        let calls = begun.into_iter().map(|begun| call(self.driver.clone(), begun));
        let failed: Vec<Failed> = stream::iter(calls).buffer_unordered(CALLS_AT_ONCE).filter_map(ready).collect().await;
        if failed.is_empty() {
            return Vec::new();
        }
        let outcomes = failed.iter().map(|failed| (failed.begun.run.id, Outcome::Retry { reason: failed.error.to_string() })).collect();
        let taken_back = self.records.change(move |draft| failed.iter().for_each(|failed| take_back(draft, failed))).await;
        if let Err(error) = taken_back {
            // The next start asks again for all that was asked.
            tracing::debug!(error = &error as &dyn std::error::Error, "steps that failed could not be taken back");
        }
        outcomes
    }
}

/// Records the next step, if there is one now. What needs the driver is answered.
fn begin_next(draft: &mut Draft<'_, '_>, id: InstanceId) -> Option<Begun> {
    let (row, now) = (draft.row(id)?, draft.now());
    let record: &NodeInstance = &row;
    let step = plan(record, now);
    let needs_driver = match step {
        Step::WaitUntil(_) | Step::Nothing => return None,
        Step::ReportImpaired { .. } => false,
        Step::Boot(_) | Step::Stop { .. } | Step::Kill | Step::Reboot { .. } | Step::Reconfigure(_) | Step::Terminate => true,
    };
    let next = begin(record, &step, now);
    let spec = if step == Step::Terminate { next.spec.clone() } else { None };
    let begun = Begun { run: Run { id, boot: next.boot }, asked: next.asked, step, spec };
    draft.put(next);
    needs_driver.then_some(begun)
}

async fn call(driver: Arc<dyn Driver>, begun: Begun) -> Option<Failed> {
    let run = begun.run;
    let called = match &begun.step {
        Step::Boot(spec) => driver.boot(spec).await,
        Step::Stop { grace } => driver.stop(run, *grace).await,
        Step::Kill => driver.kill(run).await,
        Step::Reboot { grace } => driver.reboot(run, *grace).await,
        Step::Reconfigure(spec) => driver.reconfigure(spec).await,
        Step::Terminate => driver.terminate(run, begun.spec.as_ref()).await,
        Step::ReportImpaired { .. } | Step::WaitUntil(_) | Step::Nothing => Ok(()),
    };
    called.err().map(|error| Failed { begun, error })
}

/// Makes of a step that was not accepted what it is: one that failed, or one that was never asked for.
fn take_back(draft: &mut Draft<'_, '_>, Failed { begun, error }: &Failed) {
    let Run { id, boot } = begun.run;
    let event = match (error, &begun.step) {
        (DriverError::Refused(message), Step::Boot(_)) => Some(DriverEvent::BootFailed { message: message.clone() }),
        (DriverError::Refused(message), Step::Reconfigure(spec)) => {
            Some(DriverEvent::ReconfigureFailed { generation: spec.generation, message: message.clone() })
        }
        (DriverError::Refused(_) | DriverError::Unavailable(_), _) => None,
    };
    if let Some(event) = event {
        let at: Timestamp = draft.now();
        return draft.observe(&DriverReport { id, boot, at, event });
    }
    // Whatever was asked since is another matter.
    if let Some(row) = draft.row(id).filter(|row| row.asked == begun.asked) {
        draft.put(NodeInstance { asked: None, ..NodeInstance::clone(&row) });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        time::Duration,
    };

    use async_trait::async_trait;
    use gureum_model::{ClockSetting, Scope, Tags, id::ResourceId};
    use gureum_node_domain::{
        Applied, Capabilities, Demand, Desired, DesiredState, Found, Known, ObservedState, Usage, apply,
        instance::Wanted,
        spec::{ImageSpec, MetadataOptions, PlacementSpec, Platform, ShutdownBehavior},
    };
    use gureum_service::reconcile::Waker;
    use gureum_store::{MemoryEngine, Options, Store};

    use super::*;

    /// A driver that does not accept so many calls, and then all.
    struct Stubborn {
        capabilities: Capabilities,
        error: DriverError,
        failures: AtomicU64,
        accepted: AtomicU64,
    }

    impl Stubborn {
        fn answer(&self) -> Result<(), DriverError> {
            if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                return Err(self.error.clone());
            }
            self.accepted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }

    #[async_trait]
    impl Driver for Stubborn {
        fn capabilities(&self) -> &Capabilities {
            &self.capabilities
        }
        async fn adopt(&self, _: &[&NodeInstance]) -> Result<Vec<(InstanceId, Found)>, DriverError> {
            Ok(Vec::new())
        }
        async fn boot(&self, _: &gureum_node_domain::BootSpec) -> Result<(), DriverError> {
            self.answer()
        }
        async fn stop(&self, _: Run, _: Duration) -> Result<(), DriverError> {
            self.answer()
        }
        async fn kill(&self, _: Run) -> Result<(), DriverError> {
            self.answer()
        }
        async fn reboot(&self, _: Run, _: Duration) -> Result<(), DriverError> {
            self.answer()
        }
        async fn reconfigure(&self, _: &gureum_node_domain::BootSpec) -> Result<(), DriverError> {
            self.answer()
        }
        async fn terminate(&self, _: Run, _: Option<&InstanceSpec>) -> Result<(), DriverError> {
            self.answer()
        }
        async fn usage(&self, _: &[InstanceId]) -> Vec<(InstanceId, Usage)> {
            Vec::new()
        }
        async fn console(&self, _: &NodeInstance) -> Result<Vec<u8>, DriverError> {
            Ok(Vec::new())
        }
        async fn reports(&self, _: usize) -> Vec<DriverReport> {
            std::future::pending().await
        }
    }

    fn desired(id: InstanceId) -> Desired {
        let spec = InstanceSpec {
            type_name: "t3.micro".into(),
            demand: Demand::new(1_000, 512),
            image: ImageSpec { id: ResourceId::from_number(1), source: String::new(), platform: Platform::Linux },
            user_data: Vec::new(),
            interfaces: Vec::new(),
            volumes: Vec::new(),
            pulled_volumes: Vec::new(),
            key: None,
            hostname: String::new(),
            metadata_options: MetadataOptions::default(),
            tags: Tags::default(),
            shutdown_behavior: ShutdownBehavior::Stop,
            placement: PlacementSpec { zone: "us-east-1a".into(), reservation: ResourceId::from_number(1), launch_index: 0 },
        };
        let wanted = Wanted { generation: 1, state: DesiredState::Running, boot: 1, reboot: 0 };
        Desired { scope: Scope::default(), id, wanted, spec: Some(spec) }
    }

    /// An instance that is to boot under a driver that does not accept `failures` calls.
    async fn pending(error: DriverError, failures: u64) -> Result<(Converge, Arc<Stubborn>, InstanceId), Box<dyn std::error::Error>> {
        let clock = Clock::new(ClockSetting::Virtual { start: Timestamp::from_secs(1_767_225_600) }, Timestamp::EPOCH);
        let now = clock.clone();
        let store = Store::open(MemoryEngine, Options { name: "node".into(), now: Box::new(move || now.now()) })?;
        let (capabilities, id) = (Capabilities::sim(), InstanceId::from_number(7));
        let records = Records::open(store, Demand::new(8_000, 8_192), capabilities.clone(), clock.clone(), Waker::default());
        records
            .change(move |draft| {
                if let Ok(Applied::Change(next)) = apply(Known::Nothing, &desired(id), draft.room(), draft.now()) {
                    draft.put(*next);
                }
            })
            .await?;
        let driver = Arc::new(Stubborn { capabilities, error, failures: failures.into(), accepted: AtomicU64::new(0) });
        Ok((Converge { records, driver: driver.clone(), clock }, driver, id))
    }

    async fn state_of(converge: &Converge, id: InstanceId) -> Option<ObservedState> {
        converge.records.store().read().instances.get(&id.to_string()).map(|row| row.state.clone())
    }

    #[tokio::test]
    async fn a_driver_that_is_away_is_asked_again() -> Result<(), Box<dyn std::error::Error>> {
        let (converge, driver, id) = pending(DriverError::Unavailable("no shim".into()), 2).await?;
        for _ in 0..2 {
            assert_eq!(converge.unsettled(), [id]);
            assert!(matches!(converge.run(vec![id]).await.as_slice(), [(_, Outcome::Retry { .. })]));
        }
        assert!(converge.run(vec![id]).await.is_empty());
        assert!(matches!(state_of(&converge, id).await, Some(ObservedState::Booting { .. })));
        // Whoever looks again finds nothing to do: the driver is at it.
        assert!(converge.unsettled().is_empty() && converge.run(vec![id]).await.is_empty());
        assert_eq!(driver.accepted.load(Ordering::SeqCst), 1);
        Ok(())
    }

    #[tokio::test]
    async fn a_boot_that_is_refused_has_failed() -> Result<(), Box<dyn std::error::Error>> {
        let (converge, _, id) = pending(DriverError::Refused("no such image".into()), 1).await?;
        converge.run(vec![id]).await;
        let state = state_of(&converge, id).await;
        assert!(matches!(&state, Some(ObservedState::Failed { reason, .. }) if reason.to_string().contains("no such image")), "{state:?}");
        assert_eq!(converge.records.ledger().await?.holders(), 0, "what it held is given back");
        assert!(converge.unsettled().is_empty());
        Ok(())
    }
}
