//! Random commands, faults and restarts against what must always hold, and what must hold at the end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::{collections::BTreeMap, time::Duration};

use common::{TOTAL, World, desired, id, run, spec};
use gureum_model::{Scope, Timestamp};
use gureum_node_domain::{
    Applied, ApplyError, Demand, Desired, DesiredState, ExitReason, ObservedState,
    instance::{FailReason, Health},
    sim::{Fault, SimSettings, Span},
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Command {
    /// A new intent: state, and whether another boot, another reboot and another type are wanted.
    Want {
        number: u128,
        state: u8,
        boot: bool,
        reboot: bool,
        large: bool,
    },
    /// The same intent as last time.
    Repeat {
        number: u128,
    },
    /// An intent that was overtaken.
    Late {
        number: u128,
    },
    Advance {
        millis: u64,
    },
    Restart,
    /// The process ends after a step was recorded and before the driver was called.
    RestartWithin {
        number: u128,
    },
    Fault {
        number: u128,
        kind: u8,
    },
    Forget {
        number: u128,
    },
}

fn command() -> impl Strategy<Value = Command> {
    let number = 0u128..6;
    prop_oneof![
        8 => (number.clone(), 0u8..8, any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(number, state, boot, reboot, large)| Command::Want { number, state, boot, reboot, large }),
        2 => number.clone().prop_map(|number| Command::Repeat { number }),
        2 => number.clone().prop_map(|number| Command::Late { number }),
        8 => (0u64..4_000).prop_map(|millis| Command::Advance { millis }),
        1 => Just(Command::Restart),
        2 => number.clone().prop_map(|number| Command::RestartWithin { number }),
        3 => (number.clone(), 0u8..4).prop_map(|(number, kind)| Command::Fault { number, kind }),
        1 => number.prop_map(|number| Command::Forget { number }),
    ]
}

/// What compute would know: the last intent of each instance.
type Intents = BTreeMap<u128, gureum_node_domain::Desired>;

fn want(intents: &Intents, number: u128, state: u8, boot: bool, reboot: bool, large: bool) -> gureum_node_domain::Desired {
    let wanted = match state {
        0..=3 => DesiredState::Running,
        4..=6 => DesiredState::Stopped { grace: Duration::from_secs(1) },
        _ => DesiredState::Terminated,
    };
    let mut next = match intents.get(&number) {
        Some(last) => last.clone(),
        None => desired(number, 0, wanted, 0, spec("")),
    };
    next.wanted.generation += 1;
    next.wanted.state = wanted;
    next.wanted.boot = (next.wanted.boot + u64::from(boot)).max(1);
    next.wanted.reboot += u64::from(reboot);
    if let Some(spec) = &mut next.spec {
        spec.demand = if large { Demand::new(4_000, 4_096) } else { Demand::new(2_000, 1_024) };
    }
    next
}

fn step(world: &mut World, intents: &mut Intents, command: Command) {
    match command {
        Command::Want { number, state, boot, reboot, large } => {
            let next = want(intents, number, state, boot, reboot, large);
            let final_before = intents.get(&number).is_some_and(|last| last.wanted.state == DesiredState::Terminated);
            let stays_final = next.wanted.state == DesiredState::Terminated;
            let forgotten = !world.records.contains_key(&next.id);
            match world.apply(&next) {
                Ok(_) => {
                    assert!(!final_before || stays_final || forgotten, "what is terminated came back before it was forgotten");
                    intents.insert(number, next);
                }
                Err(error) => assert!(final_before && !forgotten && matches!(error, ApplyError::Terminated { .. }), "{error}"),
            }
        }
        Command::Repeat { number } => {
            if let Some(last) = intents.get(&number) {
                let applied = world.apply(last).unwrap();
                assert!(matches!(applied, Applied::Unchanged | Applied::Gone { newer: None }), "{applied:?}");
            }
        }
        Command::Late { number } => {
            if let Some(last) = intents.get(&number).filter(|last| last.wanted.generation > 1) {
                let mut late = last.clone();
                late.wanted.generation -= 1;
                late.wanted.boot += 1;
                late.wanted.state = DesiredState::Running;
                let gone = !world.records.contains_key(&late.id);
                let applied = world.apply(&late);
                assert!(matches!(applied, Ok(Applied::Superseded { .. })), "a late intent had an effect: {applied:?}");
                assert_eq!(gone, !world.records.contains_key(&late.id));
            }
        }
        Command::Advance { millis } => {
            world.advance(Duration::from_millis(millis));
        }
        Command::Restart => world.restart(),
        Command::RestartWithin { number } => {
            world.begin(id(number));
            world.restart();
        }
        Command::Fault { number, kind } => fault(world, number, kind),
        Command::Forget { number } => {
            let generation = intents.get(&number).map_or(0, |last| last.wanted.generation);
            world.forget(number, generation);
        }
    }
}

fn fault(world: &mut World, number: u128, kind: u8) {
    let (id, message) = (id(number), "injected".to_owned());
    let fault = match kind {
        0 => Fault::FailBoots { count: 1, id: None, message },
        1 => Fault::Kill { id, message },
        2 => Fault::Hang { id, hangs: true },
        _ => Fault::ShutDown { id },
    };
    // Refused where the instance is not up: that is right, and changes nothing.
    let _ = world.fleet.inject(fault, world.now);
    world.settle();
}

/// After a long time without commands everything is as it is wanted, or says why not.
fn check_converged(world: &World, intents: &Intents) {
    for (number, intent) in intents {
        let Some(record) = world.records.get(&id(*number)) else {
            assert_eq!(intent.wanted.state, DesiredState::Terminated, "only what is terminated is forgotten");
            continue;
        };
        assert_eq!(record.asked, None, "{record:?} still waits");
        match intent.wanted.state {
            DesiredState::Terminated => assert!(matches!(record.state, ObservedState::Terminated { .. }), "{record:?}"),
            DesiredState::Stopped { .. } => {
                assert!(matches!(record.state, ObservedState::Stopped { .. } | ObservedState::Failed { .. }), "{record:?}");
            }
            DesiredState::Running => match &record.state {
                ObservedState::Running { .. } => {
                    assert_eq!(record.boot, intent.wanted.boot);
                    assert!(record.reboot >= intent.wanted.reboot);
                    assert_eq!(record.live_generation, intent.wanted.generation);
                }
                ObservedState::Failed { .. } => assert_eq!(record.boot, intent.wanted.boot),
                ObservedState::Stopped { .. } => assert!(record.boot >= intent.wanted.boot),
                other => panic!("{other:?} is not where a running instance comes to rest"),
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_the_books_agree_and_wishes_come_true(commands in prop::collection::vec(command(), 1..60), seed in any::<u64>()) {
        let settings = SimSettings { seed, boot_failures_per_million: 50_000, ..SimSettings::default() };
        let mut world = World::new(settings, TOTAL);
        let mut intents = Intents::new();
        for command in commands {
            step(&mut world, &mut intents, command);
            world.check();
        }
        world.advance(Duration::from_secs(7200));
        world.check();
        check_converged(&world, &intents);

        for (number, intent) in intents.clone() {
            let mut end = intent;
            end.wanted.generation += 1;
            end.wanted.state = DesiredState::Terminated;
            let _ = world.apply(&end).unwrap();
            intents.insert(number, end);
        }
        world.advance(Duration::from_secs(7200));
        check_converged(&world, &intents);
        prop_assert_eq!(world.ledger.used(), Demand::NOTHING);
        prop_assert!(world.fleet.is_empty(), "the fleet keeps something of what was terminated");
    }

    /// The same commands at the same times tell the same story.
    #[test]
    fn a_seed_repeats_the_day(commands in prop::collection::vec(command(), 1..40), seed in any::<u64>()) {
        let day = || {
            let mut world = World::new(SimSettings { seed, boot_failures_per_million: 200_000, ..SimSettings::default() }, TOTAL);
            let mut intents = Intents::new();
            for command in commands.clone() {
                step(&mut world, &mut intents, command);
            }
            world.advance(Duration::from_secs(60));
            world.told
        };
        prop_assert_eq!(day(), day());
    }

    /// A restart changes nothing but what was being asked: the sim's instances go on as they would have.
    #[test]
    fn boots_go_on_over_a_restart(seed in any::<u64>(), at in 0u64..2_500) {
        let boot = |restart: bool| {
            let mut world = World::new(SimSettings { seed, ..SimSettings::default() }, TOTAL);
            world.apply(&run(1)).unwrap();
            world.advance(Duration::from_millis(at));
            if restart { world.restart(); }
            world.advance(Duration::from_secs(10));
            world.record(1).state.clone()
        };
        prop_assert_eq!(boot(true), boot(false));
    }
}

fn world() -> World {
    World::new(SimSettings::default(), TOTAL)
}

fn names(world: &World) -> Vec<&'static str> {
    world.told.iter().map(|observation| observation.state.name()).collect()
}

#[test]
fn a_life_passes_through_the_real_sequence() {
    let mut world = world();
    world.apply(&run(1)).unwrap();
    world.advance(Duration::from_secs(5));
    world.apply(&desired(1, 2, DesiredState::Stopped { grace: Duration::from_secs(30) }, 1, spec(""))).unwrap();
    world.advance(Duration::from_secs(5));
    world.apply(&desired(1, 3, DesiredState::Running, 2, spec(""))).unwrap();
    world.advance(Duration::from_secs(5));
    world.apply(&desired(1, 4, DesiredState::Terminated, 2, spec(""))).unwrap();
    world.advance(Duration::from_secs(5));
    let expected = [
        "pending",
        "booting",
        "running",
        "running",
        "stopping",
        "stopped",
        "pending",
        "booting",
        "running",
        "running",
        "terminating",
        "terminated",
    ];
    assert_eq!(names(&world), expected);
    world.forget(1, 4);
    assert_eq!(world.apply(&desired(1, 4, DesiredState::Terminated, 2, spec(""))), Ok(Applied::Gone { newer: None }));
    assert_eq!(world.apply(&run(1)), Ok(Applied::Superseded { generation: 4 }));
    assert!(world.fleet.is_empty());
}

/// Compute placed it elsewhere, had it ended here, and places it here again within a day.
#[test]
fn a_forgotten_instance_comes_back_with_a_newer_generation_alone() {
    let mut world = world();
    world.apply(&run(1)).unwrap();
    world.advance(Duration::from_secs(5));
    world.apply(&desired(1, 2, DesiredState::Terminated, 1, spec(""))).unwrap();
    world.advance(Duration::from_secs(5));
    world.forget(1, 2);
    assert_eq!(world.apply(&desired(1, 2, DesiredState::Running, 2, spec(""))), Ok(Applied::Superseded { generation: 2 }));
    let mut bare = desired(1, 3, DesiredState::Running, 2, spec(""));
    bare.spec = None;
    assert_eq!(world.apply(&bare), Err(ApplyError::SpecMissing { id: id(1) }));
    let other = Desired { scope: Scope::parse("111111111111", "us-east-1").unwrap(), ..desired(1, 3, DesiredState::Running, 2, spec("")) };
    assert_eq!(world.apply(&other), Err(ApplyError::ScopeChanged { id: id(1), generation: 3 }));

    world.apply(&desired(1, 3, DesiredState::Running, 2, spec(""))).unwrap();
    world.advance(Duration::from_secs(5));
    world.check();
    assert_eq!((world.record(1).state.name(), world.record(1).boot), ("running", 2));
    world.apply(&desired(1, 4, DesiredState::Terminated, 2, spec(""))).unwrap();
    world.advance(Duration::from_secs(5));
    world.forget(1, 4);
    assert_eq!(world.apply(&desired(1, 3, DesiredState::Running, 2, spec(""))), Ok(Applied::Superseded { generation: 4 }));
    assert!(world.fleet.is_empty());
}

#[test]
fn what_does_not_fit_fails_and_says_so() {
    let mut world = world();
    for number in 0..5 {
        world.apply(&run(number)).unwrap();
    }
    let reason = FailReason::NoRoom { wanted: Demand::new(2_000, 1_024), free: Demand::new(0, 4_096) };
    assert_eq!(world.record(4).state, ObservedState::Failed { since: world.now, reason: reason.clone() });
    assert_eq!(reason.to_string(), "the node has no room: 2 vCPU and 1024 MiB are wanted, 0 vCPU and 4096 MiB are free");
    // The same boot is not tried again when room comes; a newer one is.
    world.apply(&desired(0, 2, DesiredState::Terminated, 1, spec(""))).unwrap();
    world.advance(Duration::from_secs(5));
    assert_eq!(world.record(4).state.name(), "failed");
    world.apply(&desired(4, 2, DesiredState::Running, 2, spec(""))).unwrap();
    world.advance(Duration::from_secs(5));
    assert_eq!(world.record(4).state.name(), "running");
}

#[test]
fn user_data_steers() {
    let mut world = world();
    world.apply(&desired(1, 1, DesiredState::Running, 1, spec("#!/bin/sh\n#gureum-sim boot=100ms exit-after=30s cpu=70"))).unwrap();
    world.apply(&desired(2, 1, DesiredState::Running, 1, spec("#gureum-sim boot=0s fail=boot"))).unwrap();
    let began = world.now;
    world.advance(Duration::from_secs(10));
    assert_eq!(world.record(1).state, ObservedState::Running { since: began + Duration::from_millis(100) });
    assert_eq!(world.fleet.usage(id(1), world.now).map(|usage| usage.cpu_percent), Some(70.0));
    assert_eq!(world.record(2).state.name(), "failed");
    world.advance(Duration::from_secs(30));
    let at = began + Duration::from_millis(30_100);
    assert_eq!(world.record(1).state, ObservedState::Stopped { since: at, reason: ExitReason::InstanceInitiated });
    // It stays down although "running" is wanted, also over a restart, until a newer boot is wanted.
    world.restart();
    world.advance(Duration::from_secs(60));
    assert_eq!(world.record(1).state.name(), "stopped");
}

#[test]
fn a_hanging_instance_is_impaired_and_takes_the_whole_grace_to_stop() {
    let mut world = world();
    world.apply(&run(1)).unwrap();
    world.advance(Duration::from_secs(5));
    world.fleet.inject(Fault::Hang { id: id(1), hangs: true }, world.now).unwrap();
    let hung = world.now;
    world.settle();
    assert!(matches!(&world.record(1).health, Health::Impaired { since, .. } if *since == hung));
    world.restart();
    let before = world.fleet.usage(id(1), world.now).unwrap();
    world.advance(Duration::from_secs(100));
    let after = world.fleet.usage(id(1), world.now).unwrap();
    assert_eq!((before.network_sent_bytes, after.cpu_percent), (after.network_sent_bytes, 0.0));
    let asked = world.now;
    world.apply(&desired(1, 2, DesiredState::Stopped { grace: Duration::from_secs(20) }, 1, spec(""))).unwrap();
    world.advance(Duration::from_secs(60));
    let reason = ExitReason::Asked;
    assert_eq!(world.record(1).state, ObservedState::Stopped { since: asked + Duration::from_secs(20), reason });
}

#[test]
fn a_boot_that_never_ends_is_given_up() {
    let settings = SimSettings { boot: Span::millis(3_600_000, 3_600_000), ..SimSettings::default() };
    let mut world = World::new(settings, TOTAL);
    world.apply(&run(1)).unwrap();
    world.advance(Duration::from_secs(599));
    assert_eq!(world.record(1).state.name(), "booting");
    world.advance(Duration::from_secs(10));
    assert!(matches!(&world.record(1).state, ObservedState::Failed { reason: FailReason::BootTimedOut { allowed_secs: 600 }, .. }));
    assert_eq!(world.ledger.used(), Demand::NOTHING);
}

#[test]
fn a_reboot_that_was_only_recorded_happens_after_the_restart() {
    let mut world = world();
    world.apply(&run(1)).unwrap();
    world.advance(Duration::from_secs(5));
    let up_at = world.record(1).up_at.unwrap();
    let mut reboot = run(1);
    reboot.wanted.generation = 2;
    reboot.wanted.reboot = 1;
    world.apply(&reboot).unwrap();
    assert_eq!(world.record(1).state.name(), "rebooting");
    world.restart();
    world.advance(Duration::from_secs(5));
    assert_eq!(world.record(1).state.name(), "running");
    assert!(world.record(1).up_at.unwrap() > up_at);
    assert_eq!(world.record(1).reboot, 1);
}

#[test]
fn an_intent_is_not_rewritten_and_an_unknown_one_needs_its_spec() {
    let mut world = world();
    world.apply(&run(1)).unwrap();
    let other = desired(1, 1, DesiredState::Running, 1, spec("other"));
    assert!(matches!(world.apply(&other), Err(ApplyError::GenerationReused { generation: 1, .. })));
    let mut bare = run(2);
    bare.spec = None;
    assert!(matches!(world.apply(&bare), Err(ApplyError::SpecMissing { .. })));
    bare.wanted.state = DesiredState::Terminated;
    world.apply(&bare).unwrap();
    assert_eq!(world.record(2).state, ObservedState::Terminated { since: Timestamp::from_secs(1_767_225_600) });
}
