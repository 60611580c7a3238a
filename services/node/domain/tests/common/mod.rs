//! A node without a network: records, books, fleet and clock, driven as the service drives them.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{collections::BTreeMap, time::Duration};

use gureum_model::{
    Scope, Tags, Timestamp,
    id::{ImageId, InstanceId, ReservationId, ResourceId},
};
use gureum_node_domain::{
    Applied, ApplyError, Capabilities, Demand, Desired, DesiredState, DriverReport, InstanceSpec, Known, Ledger, NodeInstance, Observation,
    Step, Tombstone, apply, begin, forget,
    instance::Wanted,
    observed, plan, recover,
    sim::{SimFleet, SimSettings},
    spec::{ImageSpec, MetadataOptions, PlacementSpec, Platform, ShutdownBehavior, VolumeSpec},
};

pub const TOTAL: Demand = Demand::new(8_000, 8_192);

pub fn id(number: u128) -> InstanceId {
    InstanceId::from_number(number)
}

pub fn spec(user_data: &str) -> InstanceSpec {
    InstanceSpec {
        type_name: "t3.micro".into(),
        demand: Demand::new(2_000, 1_024),
        image: ImageSpec { id: ImageId::from_number(1), source: String::new(), platform: Platform::Linux },
        user_data: user_data.into(),
        interfaces: Vec::new(),
        volumes: vec![VolumeSpec {
            id: gureum_model::id::VolumeId::from_number(9),
            device_name: "/dev/xvda".into(),
            size_gib: 8,
            root: true,
            snapshot: None,
            delete_on_termination: true,
        }],
        pulled_volumes: Vec::new(),
        key: None,
        hostname: "ip-172-31-0-4.ec2.internal".into(),
        metadata_options: MetadataOptions::default(),
        tags: Tags::default(),
        shutdown_behavior: ShutdownBehavior::Stop,
        placement: PlacementSpec { zone: "us-east-1a".into(), reservation: ReservationId::from_number(1), launch_index: 0 },
    }
}

pub fn desired(number: u128, generation: u64, state: DesiredState, boot: u64, spec: InstanceSpec) -> Desired {
    Desired { scope: Scope::default(), id: id(number), wanted: Wanted { generation, state, boot, reboot: 0 }, spec: Some(spec) }
}

pub fn run(number: u128) -> Desired {
    desired(number, 1, DesiredState::Running, 1, spec(""))
}

pub struct World {
    pub now: Timestamp,
    pub records: BTreeMap<InstanceId, NodeInstance>,
    pub tombstones: BTreeMap<InstanceId, Tombstone>,
    pub ledger: Ledger,
    pub fleet: SimFleet,
    pub capabilities: Capabilities,
    /// Everything that was told, in order.
    pub told: Vec<Observation>,
}

impl World {
    pub fn new(settings: SimSettings, total: Demand) -> Self {
        Self {
            now: Timestamp::from_secs(1_767_225_600),
            records: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            ledger: Ledger::new(total, []),
            fleet: SimFleet::new(settings),
            capabilities: Capabilities::sim(),
            told: Vec::new(),
        }
    }

    pub fn record(&self, number: u128) -> &NodeInstance {
        &self.records[&id(number)]
    }

    pub fn apply(&mut self, desired: &Desired) -> Result<Applied, ApplyError> {
        let known = match (self.records.get(&desired.id), self.tombstones.get(&desired.id)) {
            (Some(record), _) => Known::Instance(record),
            (None, Some(tombstone)) => Known::Forgotten(tombstone),
            (None, None) => Known::Nothing,
        };
        let applied = apply(known, desired, self.ledger.room(&self.capabilities), self.now)?;
        if let Applied::Change(next) = &applied {
            self.commit(NodeInstance::clone(next));
            self.drive(desired.id);
        }
        if let Applied::Gone { newer: Some(newer) } = &applied {
            self.tombstones.insert(desired.id, newer.clone());
        }
        Ok(applied)
    }

    pub fn commit(&mut self, next: NodeInstance) {
        let before = self.records.get(&next.id);
        self.ledger.replace(before, Some(&next));
        if before.map(NodeInstance::observation) != Some(next.observation()) {
            self.told.push(next.observation());
        }
        self.records.insert(next.id, next);
    }

    /// Does what is to be done about one instance, until it has to wait.
    pub fn drive(&mut self, id: InstanceId) {
        for _ in 0..20 {
            let Some((step, _)) = self.begin(id) else {
                return;
            };
            let boot = self.records[&id].boot;
            match step {
                Step::Boot(spec) => self.fleet.boot(&spec, self.now),
                Step::Stop { grace } => self.fleet.stop(id, boot, grace, self.now),
                Step::Kill => self.fleet.kill(id, boot, self.now),
                Step::Reboot { grace } => self.fleet.reboot(id, grace, self.now),
                Step::Reconfigure(spec) => self.fleet.reconfigure(&spec, self.now),
                Step::Terminate => self.fleet.terminate(id, boot, self.now),
                Step::ReportImpaired { .. } | Step::WaitUntil(_) | Step::Nothing => {}
            }
        }
        panic!("{id} never comes to rest: {:?}", self.records[&id]);
    }

    /// The next step, recorded as begun and not yet done; `None`: nothing to do now.
    pub fn begin(&mut self, id: InstanceId) -> Option<(Step, Timestamp)> {
        let record = self.records.get(&id)?;
        let step = plan(record, self.now);
        if matches!(step, Step::WaitUntil(_) | Step::Nothing) {
            return None;
        }
        let next = begin(record, &step, self.now);
        self.commit(next);
        Some((step, self.now))
    }

    /// Takes everything that the fleet has to tell by now.
    pub fn settle(&mut self) -> Vec<DriverReport> {
        let mut reports = Vec::new();
        while let Some(report) = self.fleet.pop_due(self.now) {
            if let Some(record) = self.records.get(&report.id)
                && let Some(next) = observed(record, &report, self.ledger.room(&self.capabilities))
            {
                self.commit(next);
            }
            self.drive(report.id);
            reports.push(report);
            assert!(reports.len() < 100_000, "the fleet never comes to rest");
        }
        reports
    }

    /// The next time at which anything happens: in the fleet, or because an answer is overdue.
    pub fn next_at(&self) -> Option<Timestamp> {
        let waits = self.records.values().filter_map(|record| match plan(record, self.now) {
            Step::WaitUntil(at) => Some(at),
            _ => None,
        });
        waits.chain(self.fleet.next_at()).min()
    }

    pub fn advance(&mut self, duration: Duration) -> Vec<DriverReport> {
        let target = self.now + duration;
        let mut reports = self.settle();
        while let Some(at) = self.next_at().filter(|at| *at <= target) {
            self.now = self.now.max(at);
            for id in self.records.keys().copied().collect::<Vec<_>>() {
                self.drive(id);
            }
            reports.extend(self.settle());
        }
        self.now = self.now.max(target);
        reports
    }

    /// The process ends and begins again: only the records are left.
    pub fn restart(&mut self) {
        self.fleet = SimFleet::new(self.fleet.settings().clone());
        self.ledger = Ledger::new(self.ledger.total(), self.records.values());
        for id in self.records.keys().copied().collect::<Vec<_>>() {
            let record = self.records[&id].clone();
            let found = self.fleet.adopt(&record);
            let recovered = recover(&record, &found, self.ledger.room(&self.capabilities), self.now);
            if recovered.kill {
                self.fleet.kill(id, record.boot, self.now);
            }
            if let Some(next) = recovered.next {
                self.commit(next);
            }
            self.drive(id);
        }
    }

    pub fn forget(&mut self, number: u128, generation: u64) {
        if let Some(tombstone) = self.records.get(&id(number)).and_then(|record| forget(record, generation, self.now).ok()) {
            let gone = self.records.remove(&id(number));
            self.ledger.replace(gone.as_ref(), None);
            self.tombstones.insert(id(number), tombstone);
        }
    }

    /// Books and states that must always agree.
    pub fn check(&self) {
        let held = self.records.values().fold(Demand::NOTHING, |sum, record| sum.plus(record.held));
        assert_eq!(self.ledger.used(), held, "the books are off");
        assert!(held.fits(self.ledger.total()), "oversold: {held:?}");
        for record in self.records.values() {
            let holds = record.held != Demand::NOTHING;
            assert!(!(record.state.is_off() && holds), "{record:?} is off and holds");
            let must_hold = matches!(record.state.name(), "pending" | "booting" | "running" | "rebooting" | "stopping");
            assert!(!must_hold || holds, "{record:?} runs and holds nothing");
            assert!(record.boot <= record.wanted.boot.max(record.boot) && record.live_generation <= record.wanted.generation);
        }
    }
}
