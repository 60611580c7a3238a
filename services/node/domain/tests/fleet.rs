//! The fleet at its size, what it uses and prints, and the stored form of a record.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::time::Duration;

use common::{TOTAL, World, desired, id, run, spec};
use gureum_model::{Filter, Filters};
use gureum_node_domain::{
    Demand, DesiredState, NodeInstance,
    sim::{Fault, SimSettings, Span, console},
};
use proptest::prelude::*;

#[test]
fn a_hundred_thousand_instances_boot_and_cost_nothing_while_they_run() {
    const COUNT: u32 = 100_000;
    let mut fleet = gureum_node_domain::sim::SimFleet::new(SimSettings::default());
    let mut world = World::new(SimSettings::default(), TOTAL);
    world.apply(&run(1)).unwrap();
    let begin = world.now;
    let template = world.fleet.get(id(1)).map(|instance| instance.boot);
    assert_eq!(template, Some(1));
    let boot_spec = gureum_node_domain::BootSpec {
        scope: gureum_model::Scope::default(),
        id: id(0),
        boot: 1,
        generation: 1,
        first: true,
        spec: spec(""),
    };
    let mut one = boot_spec;
    for number in 0..COUNT {
        one.id = id(number.into());
        fleet.boot(&one, begin);
    }
    let mut ups = 0;
    let mut last = begin;
    while let Some(report) = fleet.pop_due(begin + Duration::from_secs(2)) {
        assert!(report.at >= last, "reports come in the order of time");
        last = report.at;
        ups += 1;
    }
    assert_eq!((ups, fleet.len()), (COUNT, COUNT as usize));
    assert_eq!(fleet.next_at(), None);
    assert_eq!(fleet.usages(begin + Duration::from_secs(60)).count(), COUNT as usize);
}

proptest! {
    #[test]
    fn counters_grow_and_percentages_are_percentages(seed in any::<u64>(), number in any::<u64>(), steps in prop::collection::vec(0u64..100_000_000_000, 1..20)) {
        let mut world = World::new(SimSettings { seed, ..SimSettings::instant() }, TOTAL);
        world.apply(&run(number.into())).unwrap();
        world.settle();
        let mut last = world.fleet.usage(id(number.into()), world.now).unwrap();
        for step in steps {
            world.now = world.now + Duration::from_micros(step);
            let usage = world.fleet.usage(id(number.into()), world.now).unwrap();
            prop_assert!((0.0..=100.0).contains(&usage.cpu_percent));
            prop_assert!(usage.memory_used_bytes <= usage.memory_total_bytes);
            let pairs = [
                (last.disk_read_bytes, usage.disk_read_bytes),
                (last.disk_written_bytes, usage.disk_written_bytes),
                (last.network_received_bytes, usage.network_received_bytes),
                (last.network_sent_packets, usage.network_sent_packets),
            ];
            for (before, after) in pairs {
                prop_assert!(before <= after);
            }
            last = usage;
        }
    }

    #[test]
    fn boot_times_stay_in_their_span(seed in any::<u64>(), number in any::<u64>(), min in 0u64..500, width in 0u64..5_000) {
        let settings = SimSettings { seed, boot: Span::millis(min, min + width), ..SimSettings::default() };
        let mut world = World::new(settings, TOTAL);
        let begin = world.now;
        world.apply(&run(number.into())).unwrap();
        let reports = world.advance(Duration::from_millis(min + width));
        let took = reports[0].at.since(begin);
        prop_assert!(took >= Duration::from_millis(min), "{took:?}");
    }
}

#[test]
fn the_first_fault_that_fits_strikes_and_only_as_often_as_it_was_told() {
    let mut world = World::new(SimSettings::instant(), TOTAL);
    let fail = |count, id| Fault::FailBoots { count, id, message: "no root device".into() };
    world.fleet.inject(fail(1, None), world.now).unwrap();
    world.fleet.inject(fail(1, Some(id(2))), world.now).unwrap();
    for number in [2, 1, 3] {
        world.apply(&run(number)).unwrap();
        world.settle();
    }
    let states: Vec<_> = [1, 2, 3].map(|number| world.record(number).state.name()).into();
    assert_eq!(states, ["failed", "failed", "running"]);
    assert!(world.fleet.inject(Fault::Kill { id: id(1), message: String::new() }, world.now).is_err());
    assert!(world.fleet.inject(Fault::Kill { id: id(9), message: String::new() }, world.now).is_err());
}

#[test]
fn settings_that_make_no_sense_are_all_named() {
    let settings = SimSettings { boot: Span::millis(2, 1), boot_failures_per_million: 1_000_001, ..SimSettings::default() };
    let fields: Vec<_> = settings.check().unwrap_err().violations.into_iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["boot", "boot_failures_per_million"]);
    assert_eq!(SimSettings::default().check(), Ok(()));
}

#[test]
fn the_console_says_that_nothing_was_run() {
    let mut world = World::new(SimSettings::default(), TOTAL);
    assert_eq!(world.records.len(), 0);
    world.apply(&desired(1, 1, DesiredState::Running, 1, spec("#!/bin/sh\necho hello\n#gureum-sim cpu=700"))).unwrap();
    world.advance(Duration::from_secs(10));
    let text = console(world.record(1), world.now);
    assert!(text.starts_with("[    0.000000] gureum-sim: this instance is simulated"), "{text}");
    assert!(text.contains("bytes of user data were NOT executed"), "{text}");
    assert!(text.contains("the setting \"cpu=700\" is not understood"), "{text}");
    assert!(text.contains("ip-172-31-0-4 login: "), "{text}");
    world.fleet.inject(Fault::Kill { id: id(1), message: "power loss".into() }, world.now).unwrap();
    world.settle();
    let text = console(world.record(1), world.now);
    assert!(text.ends_with("the instance ended by a fault: power loss\r\n"), "{text}");
}

#[test]
fn records_are_stored_and_read_as_they_are() {
    let mut world = World::new(SimSettings::default(), TOTAL);
    let mut large = run(7);
    large.spec.as_mut().unwrap().demand = Demand::new(64_000, 1);
    world.apply(&large).unwrap();
    world.apply(&run(1)).unwrap();
    world.advance(Duration::from_secs(1));
    world.apply(&desired(1, 2, DesiredState::Stopped { grace: Duration::from_secs(9) }, 1, spec(""))).unwrap();
    for record in world.records.values() {
        let stored = rmp_serde::to_vec_named(record).unwrap();
        assert_eq!(&rmp_serde::from_slice::<NodeInstance>(&stored).unwrap(), record);
    }
    assert!(rmp_serde::to_vec_named(world.record(1)).unwrap().len() < 2_000);
}

#[test]
fn records_are_filtered_by_ec2s_names() {
    let mut world = World::new(SimSettings::instant(), TOTAL);
    world.apply(&run(1)).unwrap();
    world.settle();
    let passes = |name: &str, value: &str| {
        let filters = vec![Filter { name: name.into(), values: vec![value.into()] }];
        Filters::for_kind::<NodeInstance>(filters).unwrap().pass(world.record(1))
    };
    assert!(passes("instance-state-name", "running") && passes("instance-type", "t3.*") && passes("region", "us-east-1"));
    assert!(!passes("owner-id", "000000000001"));
}
