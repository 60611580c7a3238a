//! The `sim` driver: a lock around the model, and no task but the one that takes the reports.
//!
//! Nothing outlives the process, and nothing needs to: the fleet is made again from the records, and
//! what would have happened meanwhile is told with the time at which it was due.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use gureum_model::id::InstanceId;
use gureum_node_domain::{
    BootSpec, Capabilities, DriverReport, FaultError, Found, InstanceSpec, NodeInstance, Usage,
    sim::{Fault, SimFleet, SimSettings, console},
};
use gureum_service::Clock;

use crate::{
    alarm::Alarm,
    driver::{Driver, DriverError, Run},
};

/// Instances without a process.
pub struct SimDriver {
    capabilities: Capabilities,
    clock: Clock,
    fleet: Mutex<Fleet>,
    alarm: Alarm,
}

struct Fleet {
    model: SimFleet,
    /// Reports were handed over and are being recorded.
    recording: bool,
}

impl SimDriver {
    pub fn new(settings: SimSettings, clock: Clock) -> Self {
        Self {
            capabilities: Capabilities::sim(),
            alarm: Alarm::new(clock.clone()),
            clock,
            fleet: Mutex::new(Fleet { model: SimFleet::new(settings), recording: false }),
        }
    }

    fn fleet(&self) -> MutexGuard<'_, Fleet> {
        // At worst one instance's change is lost with the panic; it is asked for again when it is overdue.
        self.fleet.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn change<R>(&self, change: impl FnOnce(&mut SimFleet) -> R) -> R {
        let result = change(&mut self.fleet().model);
        self.alarm.changed();
        result
    }
}

#[async_trait]
impl Driver for SimDriver {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn adopt(&self, records: &[&NodeInstance]) -> Result<Vec<(InstanceId, Found)>, DriverError> {
        Ok(self.change(|fleet| records.iter().map(|record| (record.id, fleet.adopt(record))).collect()))
    }

    async fn boot(&self, spec: &BootSpec) -> Result<(), DriverError> {
        self.change(|fleet| fleet.boot(spec, self.clock.now()));
        Ok(())
    }

    async fn stop(&self, run: Run, grace: Duration) -> Result<(), DriverError> {
        self.change(|fleet| fleet.stop(run.id, run.boot, grace, self.clock.now()));
        Ok(())
    }

    async fn kill(&self, run: Run) -> Result<(), DriverError> {
        self.change(|fleet| fleet.kill(run.id, run.boot, self.clock.now()));
        Ok(())
    }

    async fn reboot(&self, run: Run, grace: Duration) -> Result<(), DriverError> {
        self.change(|fleet| fleet.reboot(run.id, grace, self.clock.now()));
        Ok(())
    }

    async fn reconfigure(&self, spec: &BootSpec) -> Result<(), DriverError> {
        self.change(|fleet| fleet.reconfigure(spec, self.clock.now()));
        Ok(())
    }

    async fn terminate(&self, run: Run, _spec: Option<&InstanceSpec>) -> Result<(), DriverError> {
        self.change(|fleet| fleet.terminate(run.id, run.boot, self.clock.now()));
        Ok(())
    }

    async fn usage(&self, ids: &[InstanceId]) -> Vec<(InstanceId, Usage)> {
        let (now, fleet) = (self.clock.now(), self.fleet());
        ids.iter().filter_map(|id| Some((*id, fleet.model.usage(*id, now)?))).collect()
    }

    async fn console(&self, record: &NodeInstance) -> Result<Vec<u8>, DriverError> {
        Ok(console(record, self.clock.now()).into_bytes())
    }

    async fn reports(&self, most: usize) -> Vec<DriverReport> {
        loop {
            // Cleared only here: until then nobody may take the fleet for idle.
            self.fleet().recording = false;
            self.alarm.due(|| self.fleet().model.next_at()).await;
            let (now, mut fleet) = (self.clock.now(), self.fleet());
            let reports: Vec<DriverReport> = std::iter::from_fn(|| fleet.model.pop_due(now)).take(most).collect();
            // What was due may have been taken back meanwhile.
            if !reports.is_empty() {
                fleet.recording = true;
                return reports;
            }
        }
    }

    fn is_idle(&self) -> bool {
        let fleet = self.fleet();
        let next = fleet.model.next_at();
        !fleet.recording && next.is_none_or(|next| next > self.clock.now()) && self.alarm.is_set_for(next)
    }

    async fn inject(&self, fault: Fault) -> Result<(), FaultError> {
        self.change(|fleet| fleet.inject(fault, self.clock.now()))
    }
}
