//! Random lives of an instance: calls, reports, faults, lost nodes and a compute service that is killed
//! between a step and its commit, against a world of a network and two nodes. Whatever happens, the
//! states follow the diagram, nobody sells capacity twice, and in the end the intent is reached and
//! nothing is left behind.

use std::{collections::BTreeMap, time::Duration};

use crate::common::{NOW, launched, networked, node};
use gureum_compute_domain::{
    instance::{Capacity, Decision, Desired, Instance, InstanceState, ShutdownBehavior, StateName, TERMINATED_VISIBLE},
    modify::{self, Change},
    observe::{Observation, Report, Seen, forgotten_by, node_dead, observe},
    placement::Placement,
    plan::{self, Plan, Reach, Step, World, plan_former},
    reboot::reboot,
    start::{needs_place, start},
    stop::{StopMode, stop},
    terminate::terminate,
};
use gureum_model::{
    Refusal, Tags, Timestamp,
    id::{NodeId, ResourceId},
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Command {
    Start,
    Stop {
        force: bool,
    },
    Terminate,
    Reboot,
    Tag(u8),
    MetadataTags(bool),
    ShutdownBehavior(ShutdownBehavior),
    /// Compute does one step; killed before its commit, or not.
    Step {
        killed: bool,
    },
    Former {
        killed: bool,
    },
    /// A node does what it was told, and reports.
    Work(u8),
    /// A node's report arrives once more, late.
    Late,
    OwnShutdown,
    Fault,
    Unreachable,
    Lose(u8),
    Return {
        node: u8,
        empty: bool,
    },
    DeclareDead(u8),
    Pass(u64),
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        3 => Just(Command::Start),
        3 => any::<bool>().prop_map(|force| Command::Stop { force }),
        1 => Just(Command::Terminate),
        1 => Just(Command::Reboot),
        1 => any::<u8>().prop_map(Command::Tag),
        1 => any::<bool>().prop_map(Command::MetadataTags),
        1 => prop_oneof![Just(ShutdownBehavior::Stop), Just(ShutdownBehavior::Terminate)].prop_map(Command::ShutdownBehavior),
        10 => prop::bool::weighted(0.3).prop_map(|killed| Command::Step { killed }),
        2 => prop::bool::weighted(0.3).prop_map(|killed| Command::Former { killed }),
        8 => (1u8..3).prop_map(Command::Work),
        1 => Just(Command::Late),
        1 => Just(Command::OwnShutdown),
        1 => Just(Command::Fault),
        1 => Just(Command::Unreachable),
        1 => (1u8..3).prop_map(Command::Lose),
        2 => (1u8..3, any::<bool>()).prop_map(|(node, empty)| Command::Return { node, empty }),
        1 => (1u8..3).prop_map(Command::DeclareDead),
        2 => (1u64..900).prop_map(Command::Pass),
    ]
}

/// What a node has of the instance.
#[derive(Debug, Clone)]
struct OnNode {
    generation: u64,
    desired: Desired,
    boots: u64,
    booted: u64,
    seen: Seen,
    unreachable: bool,
}

struct Region {
    it: Option<Instance>,
    now: Timestamp,
    nodes: BTreeMap<u128, Reach>,
    on: BTreeMap<u128, OnNode>,
    /// In compute's memory only.
    applied: u64,
    resync: bool,
    interfaces: bool,
    pool_address: bool,
    volumes: (bool, bool),
    placement: Placement,
    late: Option<Report>,
}

impl Region {
    fn new() -> Self {
        let it = launched();
        let mut placement = Placement::new();
        for number in [1, 2] {
            // Room for one instance each.
            placement.set_node(node(number), 'a', Capacity { vcpu_milli: 2000, memory_mib: 1024 }, true);
        }
        placement.adopt(it.id, node(1), it.kind.capacity);
        Self {
            it: Some(it),
            now: NOW,
            nodes: BTreeMap::from([(1, Reach::Up), (2, Reach::Up)]),
            on: BTreeMap::new(),
            applied: 0,
            resync: false,
            interfaces: true,
            pool_address: true,
            volumes: (true, true),
            placement,
            late: None,
        }
    }

    fn reach(&self, id: NodeId) -> Reach {
        self.nodes.get(&id.number()).copied().unwrap_or_default()
    }

    /// One commit: checks the edge, and keeps capacity as the record says.
    fn commit(&mut self, next: Instance) -> Result<(), TestCaseError> {
        let Some(before) = self.it.replace(next.clone()) else { return Err(TestCaseError::fail("a commit after the end")) };
        let (from, to) = (before.state.name(), next.state.name());
        prop_assert!(from == to || edge(from, to), "{} became {}", from, to);
        prop_assert!(next.generation >= before.generation);
        if before.node != next.node {
            self.applied = 0;
        }
        if !next.holds_capacity {
            self.placement.release(next.id);
        }
        let holds = match to {
            StateName::Pending | StateName::Running => Some(true),
            StateName::Stopped | StateName::Terminated => Some(false),
            StateName::Stopping | StateName::ShuttingDown => None,
        };
        prop_assert!(holds.is_none_or(|holds| holds == next.holds_capacity), "{:?}", next.state);
        prop_assert_eq!(self.placement.place_of(next.id).is_some(), next.holds_capacity);
        Ok(())
    }

    fn decide(&mut self, decision: Decision) -> Result<(), TestCaseError> {
        match decision {
            Decision::Unchanged => Ok(()),
            Decision::Change(next) => self.commit(*next),
        }
    }

    fn visible(&self) -> Option<Instance> {
        self.it.clone().filter(|it| it.visible(self.now))
    }

    fn call(&mut self, command: &Command) -> Result<(), TestCaseError> {
        let Some(it) = self.visible() else { return Ok(()) };
        let before = it.state.name();
        let decided = match command {
            Command::Start => {
                let place = needs_place(&it).then(|| self.placement.place(it.id, it.zone, it.kind.capacity, it.node, 7)).flatten();
                let decided = start(&it, place, self.now);
                if decided.is_err() {
                    self.placement.release(it.id);
                    if let Some(held) = it.node.filter(|_| it.holds_capacity) {
                        self.placement.adopt(it.id, held, it.kind.capacity);
                    }
                }
                prop_assert_eq!(decided == Ok(Decision::Unchanged), matches!(before, StateName::Pending | StateName::Running));
                decided
            }
            Command::Stop { force } => stop(&it, StopMode { force: *force, hibernate: false }, self.now),
            Command::Terminate => {
                let decided = terminate(&it, false, self.now);
                prop_assert!(decided.is_ok());
                decided
            }
            Command::Reboot => {
                let decided = reboot(&it);
                prop_assert_eq!(decided.is_ok(), before == StateName::Running);
                decided
            }
            Command::Tag(value) => {
                let tags = Tags([("name".to_owned(), value.to_string())].into());
                Ok(modify::tags(&it, tags))
            }
            Command::MetadataTags(on) => {
                let spec = gureum_compute_domain::metadata_options::MetadataOptionsSpec { tags_enabled: Some(*on), ..Default::default() };
                modify::modify(&it, &Change::MetadataOptions(spec))
            }
            Command::ShutdownBehavior(behavior) => modify::modify(&it, &Change::ShutdownBehavior(*behavior)),
            _ => return Ok(()),
        };
        match decided {
            Ok(decision) => self.decide(decision),
            Err(refused) => {
                let reason = Refusal::from(refused).reason;
                prop_assert!(["IncorrectInstanceState", "InsufficientInstanceCapacity"].contains(&reason), "{}", reason);
                Ok(())
            }
        }
    }

    fn plan(&self) -> Plan {
        let Some(it) = &self.it else { return Plan::Gone };
        let reach = it.node.map_or(Reach::Up, |node| self.reach(node));
        plan::plan(it, &World { node: reach, applied: self.applied, resync: self.resync }, self.now)
    }

    fn step(&mut self, killed: bool) -> Result<(), TestCaseError> {
        match self.plan() {
            Plan::Do(step) => self.perform(step, killed),
            Plan::Wait { .. } | Plan::Settled => Ok(()),
            Plan::Gone => {
                self.it = None;
                Ok(())
            }
        }
    }

    fn perform(&mut self, step: Step, killed: bool) -> Result<(), TestCaseError> {
        let Some(it) = self.it.clone() else { return Ok(()) };
        let next = match step {
            Step::AssignPublicAddresses => {
                prop_assert!(self.interfaces);
                self.pool_address = true;
                Some(plan::addresses_assigned(&it, networked(it.interfaces.clone())))
            }
            Step::Apply { node, generation, desired } => {
                prop_assert_eq!(self.reach(node), Reach::Up);
                self.apply(node.number(), generation, desired, it.boots);
                if !killed {
                    self.applied = generation;
                }
                None
            }
            Step::GiveUp => Some(plan::gave_up(&it, self.now)),
            Step::Force => Some(plan::forced(&it)),
            Step::LoseNode { node } => Some(node_dead(&it, node, self.now)),
            Step::ReleasePublicAddresses => {
                self.pool_address = false;
                Some(plan::stopped(&it, self.now))
            }
            Step::DeleteInterfaces => {
                (self.interfaces, self.pool_address) = (false, false);
                Some(plan::interfaces_gone(&it))
            }
            Step::FinishTermination => {
                let end = plan::terminated(&it, self.now).expect("it was planned");
                if !killed {
                    prop_assert_eq!((end.delete.len(), end.detach.len()), (1, 1));
                    self.volumes = (false, true);
                }
                Some(end.next)
            }
            Step::Forget { node } => {
                self.on.remove(&node.number());
                Some(forgotten_by(&it, node))
            }
        };
        match next {
            Some(next) if !killed => self.commit(next),
            Some(_) | None => Ok(()),
        }
    }

    fn apply(&mut self, number: u128, generation: u64, desired: Desired, boots: u64) {
        let fresh = OnNode { generation: 0, desired, boots, booted: 0, seen: Seen::Stopped, unreachable: false };
        let on = self.on.entry(number).or_insert(fresh);
        if generation > on.generation {
            (on.generation, on.desired, on.boots) = (generation, desired, boots);
        }
    }

    /// The node converges at once and reports what it sees.
    fn work(&mut self, number: u128) -> Result<(), TestCaseError> {
        let Some(on) = self.on.get_mut(&number) else { return Ok(()) };
        match on.desired {
            Desired::Run if on.booted < on.boots => (on.booted, on.seen) = (on.boots, Seen::Running),
            Desired::Run => {}
            Desired::Stop { .. } => on.seen = Seen::Stopped,
            Desired::Terminate { .. } => on.seen = Seen::Terminated,
        }
        self.report(number)
    }

    fn report(&mut self, number: u128) -> Result<(), TestCaseError> {
        let Some(on) = self.on.get(&number).filter(|_| self.nodes.get(&number) == Some(&Reach::Up)) else { return Ok(()) };
        let instance = launched().id;
        let report = Report {
            instance,
            node: node(number),
            generation: on.generation,
            live_generation: on.generation,
            seen: on.seen.clone(),
            reboots: None,
            unreachable: on.unreachable,
            runtime: None,
        };
        self.late.get_or_insert(report.clone());
        self.receive(&report)
    }

    fn receive(&mut self, report: &Report) -> Result<(), TestCaseError> {
        // A removed record is an unknown instance: the service disowns it.
        let observation = self.it.as_ref().map_or(Observation::Disowned, |it| observe(it, report, self.now));
        match observation {
            Observation::Unchanged | Observation::Stale => Ok(()),
            Observation::Disowned => {
                self.on.remove(&report.node.number());
                Ok(())
            }
            Observation::Change(next) => self.commit(*next),
        }
    }

    fn run(&mut self, command: &Command) -> Result<(), TestCaseError> {
        match command {
            Command::Step { killed } => {
                if *killed {
                    self.step(true)?;
                    // The process starts anew: what was only in memory is gone.
                    (self.applied, self.resync) = (0, false);
                    return Ok(());
                }
                self.step(false)
            }
            Command::Former { killed } => match self.it.as_ref().and_then(|it| plan_former(it, |id| self.reach(id))) {
                Some(step) => self.perform(step, *killed),
                None => Ok(()),
            },
            Command::Work(number) => self.work(u128::from(*number)),
            Command::Late => match self.late.take() {
                Some(report) if self.reach(report.node) == Reach::Up => self.receive(&report),
                Some(_) | None => Ok(()),
            },
            Command::OwnShutdown | Command::Fault | Command::Unreachable => self.happens(command),
            Command::Lose(number) => {
                self.set_reach(*number, |reach| if reach == Reach::Up { Reach::Lost } else { reach });
                Ok(())
            }
            Command::DeclareDead(number) => {
                self.set_reach(*number, |reach| if reach == Reach::Lost { Reach::Dead } else { reach });
                Ok(())
            }
            Command::Return { node, empty } => self.returns(*node, *empty),
            Command::Pass(secs) => {
                self.now = self.now + Duration::from_secs(*secs);
                Ok(())
            }
            call => self.call(call),
        }
    }

    /// Something that nobody asked for happens in a running instance.
    fn happens(&mut self, command: &Command) -> Result<(), TestCaseError> {
        let running: Vec<u128> = self.on.iter().filter(|(_, on)| on.seen == Seen::Running).map(|(number, _)| *number).collect();
        for number in running {
            if let Some(on) = self.on.get_mut(&number) {
                match command {
                    Command::OwnShutdown => on.seen = Seen::Stopped,
                    Command::Fault => on.seen = Seen::Failed("kernel panic".to_owned()),
                    _ => on.unreachable = !on.unreachable,
                }
            }
            self.report(number)?;
        }
        Ok(())
    }

    fn set_reach(&mut self, number: u8, change: impl Fn(Reach) -> Reach) {
        if let Some(reach) = self.nodes.get_mut(&u128::from(number)) {
            *reach = change(*reach);
            if *reach != Reach::Up {
                self.placement.close(node(u128::from(number)));
            }
        }
    }

    /// The node registers again and tells of all it has.
    fn returns(&mut self, number: u8, empty: bool) -> Result<(), TestCaseError> {
        let number = u128::from(number);
        // What was declared dead has to be carried out before the node may take part again.
        if self.nodes.get(&number) == Some(&Reach::Dead)
            && let Some(it) = self.it.clone()
        {
            self.commit(node_dead(&it, node(number), self.now))?;
        }
        self.nodes.insert(number, Reach::Up);
        self.placement.set_node(node(number), 'a', Capacity { vcpu_milli: 2000, memory_mib: 1024 }, true);
        if empty {
            self.on.remove(&number);
        }
        (self.applied, self.resync) = (0, true);
        self.report(number)
    }

    /// All nodes are back and everybody works until nothing moves.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for number in [1, 2] {
            self.returns(number, false)?;
        }
        for _ in 0..60 {
            self.step(false)?;
            self.run(&Command::Former { killed: false })?;
            for number in [1, 2] {
                self.work(number)?;
            }
        }
        Ok(())
    }

    fn nothing_is_left_behind(&mut self) -> Result<(), TestCaseError> {
        let it = self.it.clone();
        let plan = self.plan();
        match it.as_ref().map(|it| &it.state) {
            Some(InstanceState::Running { .. }) => {
                prop_assert_eq!(plan, Plan::Settled);
                let home = it.and_then(|it| it.node).map(ResourceId::number);
                prop_assert_eq!(self.on.keys().copied().collect::<Vec<_>>(), home.into_iter().collect::<Vec<_>>());
                prop_assert!(self.on.values().all(|on| on.seen == Seen::Running));
                prop_assert!(self.interfaces && self.pool_address);
            }
            Some(InstanceState::Stopped { .. }) => {
                prop_assert_eq!(plan, Plan::Settled);
                prop_assert!(self.on.values().all(|on| on.seen == Seen::Stopped));
                prop_assert!(self.interfaces && !self.pool_address);
            }
            Some(InstanceState::Terminated { since, .. }) => {
                prop_assert!(self.on.is_empty(), "{:?}", self.on);
                prop_assert!(!self.interfaces && !self.pool_address);
                prop_assert_eq!(self.volumes, (false, true));
                self.now = *since + TERMINATED_VISIBLE;
                prop_assert_eq!(self.plan(), Plan::Gone);
            }
            Some(other) => prop_assert!(false, "it rests in {:?}, with {:?}", other, plan),
            None => prop_assert!(self.on.is_empty() && !self.interfaces && self.volumes == (false, true)),
        }
        Ok(())
    }
}

fn edge(from: StateName, to: StateName) -> bool {
    use StateName::{Pending, Running, ShuttingDown, Stopped, Stopping, Terminated};
    match from {
        Pending => matches!(to, Running | Stopping | ShuttingDown),
        Running => matches!(to, Stopping | ShuttingDown),
        Stopping => matches!(to, Stopped | ShuttingDown),
        Stopped => matches!(to, Pending | ShuttingDown),
        ShuttingDown => to == Terminated,
        Terminated => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn every_life_ends_well(commands in prop::collection::vec(command(), 0..80)) {
        let mut world = Region::new();
        for command in &commands {
            world.run(command)?;
        }
        world.settle()?;
        world.nothing_is_left_behind()?;
    }
}
