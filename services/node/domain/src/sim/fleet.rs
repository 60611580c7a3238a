//! All simulated instances of a node, and their times in order.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use gureum_model::{Timestamp, id::InstanceId};

use super::{
    chance::{Purpose, draw_for},
    fault::{BootFault, Fault, strike},
    load,
    machine::{Phase, SimInstance},
    settings::SimSettings,
};
use crate::{
    driver::{BootSpec, DriverEvent, DriverReport, ExitReason, Found, Usage},
    error::FaultError,
    instance::{Health, NodeInstance, ObservedState},
    timers::Timers,
};

/// The fleet. Its calls are those of a driver, and can be repeated as a driver's can.
#[derive(Debug, Clone)]
pub struct SimFleet {
    settings: SimSettings,
    instances: BTreeMap<InstanceId, SimInstance>,
    timers: Timers<InstanceId>,
    boot_faults: Vec<BootFault>,
    /// What happened at once.
    ready: VecDeque<DriverReport>,
}

impl SimFleet {
    pub fn new(settings: SimSettings) -> Self {
        Self { settings, instances: BTreeMap::new(), timers: Timers::new(), boot_faults: Vec::new(), ready: VecDeque::new() }
    }

    pub fn settings(&self) -> &SimSettings {
        &self.settings
    }

    /// Instances that exist, whatever they do.
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// One of them.
    pub fn get(&self, id: InstanceId) -> Option<&SimInstance> {
        self.instances.get(&id)
    }

    /// Boots an instance, unless this boot was asked for before.
    pub fn boot(&mut self, spec: &BootSpec, now: Timestamp) {
        if self.instances.get(&spec.id).is_some_and(|known| known.boot >= spec.boot) {
            return;
        }
        let fault = strike(&mut self.boot_faults, spec.id);
        self.put(SimInstance::boot(&self.settings, spec, fault, now));
    }

    /// Shuts an instance down. The report comes again for one that is off or that does not exist.
    pub fn stop(&mut self, id: InstanceId, boot: u64, grace: Duration, now: Timestamp) {
        let Some(instance) = self.instances.remove(&id) else {
            return self.tell(id, boot, now, DriverEvent::Exited { reason: ExitReason::Asked });
        };
        if let Phase::Off { at, reason } = &instance.phase {
            self.tell(id, instance.boot, *at, DriverEvent::Exited { reason: reason.clone() });
        }
        let stopped = instance.stop(&self.settings, grace, now);
        self.put(stopped);
    }

    /// Ends an instance at once.
    pub fn kill(&mut self, id: InstanceId, boot: u64, now: Timestamp) {
        self.stop(id, boot, Duration::ZERO, now);
    }

    /// Restarts an instance that is up.
    pub fn reboot(&mut self, id: InstanceId, grace: Duration, now: Timestamp) {
        if let Some(instance) = self.instances.remove(&id) {
            let next = match instance.phase {
                Phase::Up { .. } => instance.reboot(&self.settings, grace, now),
                Phase::Booting { .. }
                | Phase::Rebooting { .. }
                | Phase::Stopping { .. }
                | Phase::Off { .. }
                | Phase::Terminating { .. }
                | Phase::Gone => instance,
            };
            self.put(next);
        }
    }

    /// Follows a change of an instance that runs: nothing to do but to say so.
    pub fn reconfigure(&mut self, spec: &BootSpec, now: Timestamp) {
        self.tell(spec.id, spec.boot, now, DriverEvent::Reconfigured { generation: spec.generation });
    }

    /// Removes an instance. The report comes for one that does not exist, too.
    pub fn terminate(&mut self, id: InstanceId, boot: u64, now: Timestamp) {
        match self.instances.remove(&id) {
            Some(instance) => {
                let number = draw_for(self.settings.seed, Purpose::TerminateTime, id, [instance.boot, 0]);
                let until = match instance.phase {
                    Phase::Terminating { until } => until,
                    Phase::Booting { .. }
                    | Phase::Up { .. }
                    | Phase::Rebooting { .. }
                    | Phase::Stopping { .. }
                    | Phase::Off { .. }
                    | Phase::Gone => now + self.settings.terminate.pick(number),
                };
                self.put(SimInstance { phase: Phase::Terminating { until }, ..instance });
            }
            None => self.tell(id, boot, now, DriverEvent::Removed),
        }
    }

    /// Takes back an instance after the node's process was away, from the node's record of it.
    ///
    /// What would have happened meanwhile happens now, and is told with the time at which it was due.
    pub fn adopt(&mut self, record: &NodeInstance) -> Found {
        let Some(spec) = &record.spec else {
            return Found::Absent;
        };
        let spec = BootSpec {
            scope: record.scope.clone(),
            id: record.id,
            boot: record.boot,
            generation: record.live_generation,
            first: record.first_up_at.is_none(),
            spec: spec.clone(),
        };
        let booted = |at| SimInstance::boot(&self.settings, &spec, None, at);
        let (instance, found) = match record.state {
            ObservedState::Booting { since } => (booted(since), Found::Booting { boot: record.boot }),
            ObservedState::Running { since } => {
                (as_healthy(booted(since).up(since), &record.health), Found::Up { boot: record.boot, since })
            }
            ObservedState::Rebooting { since } => {
                let up = booted(since).up(record.up_at.unwrap_or(since));
                (up.reboot(&self.settings, Duration::ZERO, since), Found::Booting { boot: record.boot })
            }
            // The node asks again for what it had asked.
            ObservedState::Stopping { since, .. } => {
                let since = record.up_at.unwrap_or(since);
                let mut instance = booted(since).up(since);
                instance.phase = Phase::Up { since, exits_at: None, hangs_at: None };
                (instance, Found::Up { boot: record.boot, since })
            }
            ObservedState::Pending { .. }
            | ObservedState::Stopped { .. }
            | ObservedState::Terminating { .. }
            | ObservedState::Terminated { .. }
            | ObservedState::Failed { .. } => return Found::Absent,
        };
        self.put(instance);
        found
    }

    /// When something will next happen. A time that has passed means: now.
    pub fn next_at(&self) -> Option<Timestamp> {
        let ready = self.ready.front().map(|report| report.at);
        [ready, self.timers.next_at()].into_iter().flatten().min()
    }

    /// What has happened by `now`, one at a time, in order.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<DriverReport> {
        loop {
            if let Some(report) = self.ready.pop_front() {
                return Some(report);
            }
            let (at, id) = self.timers.pop_due(now)?;
            let Some(instance) = self.instances.remove(&id) else {
                continue;
            };
            let (next, event) = instance.happen(at);
            let boot = next.boot;
            self.put(next);
            if let Some(event) = event {
                return Some(DriverReport { id, boot, at, event });
            }
        }
    }

    /// Injects a fault.
    pub fn inject(&mut self, fault: Fault, now: Timestamp) -> Result<(), FaultError> {
        match fault {
            Fault::FailBoots { count: 0, .. } => {}
            Fault::FailBoots { count, id, message } => self.boot_faults.push(BootFault { remaining: count, id, message }),
            Fault::Kill { id, message } => self.end(id, ExitReason::Crashed { message }, now)?,
            Fault::ShutDown { id } => self.end(id, ExitReason::InstanceInitiated, now)?,
            Fault::Hang { id, hangs } => {
                let mut instance = self.running(id)?;
                instance.hung_since = hangs.then(|| instance.hung_since.unwrap_or(now));
                let message = "the simulated instance hangs, as it was told".to_owned();
                let event = if hangs { DriverEvent::Unresponsive { message } } else { DriverEvent::Responsive };
                self.tell(id, instance.boot, now, event);
                self.put(instance);
            }
        }
        Ok(())
    }

    /// What an instance that is up uses now.
    pub fn usage(&self, id: InstanceId, now: Timestamp) -> Option<Usage> {
        self.instances.get(&id).and_then(|instance| load::usage(self.settings.seed, instance, now))
    }

    /// What all instances that are up use now, in the order of their ids.
    pub fn usages(&self, now: Timestamp) -> impl Iterator<Item = (InstanceId, Usage)> {
        let seed = self.settings.seed;
        self.instances.values().filter_map(move |instance| Some((instance.id, load::usage(seed, instance, now)?)))
    }

    fn end(&mut self, id: InstanceId, reason: ExitReason, now: Timestamp) -> Result<(), FaultError> {
        let (next, event) = self.running(id)?.end(reason, now);
        if let Some(event) = event {
            self.tell(id, next.boot, now, event);
        }
        self.put(next);
        Ok(())
    }

    fn running(&self, id: InstanceId) -> Result<SimInstance, FaultError> {
        let instance = self.instances.get(&id).ok_or(FaultError::Unknown { id })?;
        match instance.phase {
            Phase::Up { .. } => Ok(instance.clone()),
            Phase::Booting { .. }
            | Phase::Rebooting { .. }
            | Phase::Stopping { .. }
            | Phase::Off { .. }
            | Phase::Terminating { .. }
            | Phase::Gone => Err(FaultError::NotUp { id }),
        }
    }

    fn tell(&mut self, id: InstanceId, boot: u64, at: Timestamp, event: DriverEvent) {
        self.ready.push_back(DriverReport { id, boot, at, event });
    }

    fn put(&mut self, instance: SimInstance) {
        let id = instance.id;
        self.timers.set(id, instance.next_event_at());
        match instance.phase {
            Phase::Gone => {
                self.instances.remove(&id);
            }
            Phase::Booting { .. }
            | Phase::Up { .. }
            | Phase::Rebooting { .. }
            | Phase::Stopping { .. }
            | Phase::Off { .. }
            | Phase::Terminating { .. } => {
                self.instances.insert(id, instance);
            }
        }
    }
}

/// The instance, hanging as long as it was known to hang.
fn as_healthy(instance: SimInstance, health: &Health) -> SimInstance {
    match (health, &instance.phase) {
        (Health::Impaired { since, .. }, Phase::Up { since: up, .. }) => {
            SimInstance { hung_since: Some(*since), phase: Phase::Up { since: *up, exits_at: None, hangs_at: None }, ..instance }
        }
        _ => instance,
    }
}
