//! What a start makes of every record, whatever its driver kept or lost; and calls and reports that come
//! twice or late.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::time::Duration;

use common::{TOTAL, World, desired, id, run, spec};
use gureum_model::Timestamp;
use gureum_node_domain::{
    BootSpec, Demand, DesiredState, DriverEvent, DriverReport, ExitReason, Found, NodeInstance, ObservedState, Recovered, RuntimeReport,
    Step, observed, plan, recover,
    sim::{SimFleet, SimSettings},
};
use proptest::prelude::*;

const GRACE: Duration = Duration::from_secs(20);

/// A node with one instance in the state of that name.
fn world_in(state: &str) -> World {
    let mut world = World::new(SimSettings::default(), TOTAL);
    let user_data = if state == "failed" { "#gureum-sim fail=boot" } else { "#gureum-sim stop=10s" };
    let spec = spec(user_data);
    world.apply(&desired(1, 1, DesiredState::Running, 1, spec.clone())).unwrap();
    if state != "booting" {
        world.advance(Duration::from_secs(5));
    }
    let mut next = desired(1, 2, DesiredState::Running, 1, spec);
    match state {
        "booting" | "running" | "failed" => return world,
        "rebooting" => next.wanted.reboot = 1,
        "stopping" | "stopped" => next.wanted.state = DesiredState::Stopped { grace: GRACE },
        _ => next.wanted.state = DesiredState::Terminated,
    }
    world.apply(&next).unwrap();
    if matches!(state, "stopped" | "terminated") {
        world.advance(Duration::from_secs(30));
    }
    assert_eq!(world.record(1).state.name(), state);
    world
}

const STATES: [&str; 8] = ["booting", "running", "rebooting", "stopping", "stopped", "failed", "terminating", "terminated"];

fn after(world: &World, found: &Found) -> (NodeInstance, bool) {
    let record = world.record(1);
    let Recovered { next, kill } = recover(record, found, world.ledger.room(&world.capabilities), world.now);
    (next.unwrap_or_else(|| record.clone()), kill)
}

/// The state after the start, the first letters of the step that follows, and whether something is killed.
fn outcome(state: &str, found: impl Fn(&World) -> Found) -> (&'static str, String, bool) {
    let world = world_in(state);
    let (next, kill) = after(&world, &found(&world));
    let step = format!("{:?}", plan(&next, world.now));
    (next.state.name(), step.chars().take_while(|letter| letter.is_alphabetic()).collect(), kill)
}

fn expect(state: &str, found: impl Fn(&World) -> Found, expected: (&str, &str, bool)) {
    let (name, step, kill) = outcome(state, found);
    assert_eq!((name, step.as_str(), kill), expected, "{state}");
}

#[test]
fn a_driver_that_lost_everything_or_was_never_called() {
    let absent = |_: &World| Found::Absent;
    expect("booting", absent, ("pending", "Boot", false));
    expect("running", absent, ("stopped", "Nothing", false));
    expect("rebooting", absent, ("stopped", "Nothing", false));
    expect("stopping", absent, ("stopped", "Nothing", false));
    expect("stopped", absent, ("stopped", "Nothing", false));
    expect("failed", absent, ("failed", "Nothing", false));
    expect("terminating", absent, ("terminating", "Terminate", false));
    expect("terminated", absent, ("terminated", "Nothing", false));
    let (next, _) = after(&world_in("running"), &Found::Absent);
    assert_eq!(next.held, Demand::NOTHING);
}

#[test]
fn a_driver_whose_instance_is_up() {
    let up = |world: &World| Found::Up { boot: 1, since: world.record(1).up_at.unwrap_or(world.now) };
    expect("booting", up, ("running", "Nothing", false));
    expect("running", up, ("running", "Nothing", false));
    // The reboot was recorded and the driver never heard of it.
    expect("rebooting", up, ("rebooting", "Reboot", false));
    expect("stopping", up, ("stopping", "Stop", false));
    expect("stopped", up, ("stopped", "Nothing", true));
    expect("failed", up, ("failed", "Nothing", true));
    expect("terminating", up, ("terminating", "Terminate", false));
    expect("terminated", up, ("terminated", "Nothing", true));
    // The reboot happened while nobody looked.
    let later = |world: &World| Found::Up { boot: 1, since: world.now + Duration::from_secs(1) };
    expect("rebooting", later, ("running", "Nothing", false));
}

#[test]
fn a_driver_whose_instance_ended_meanwhile() {
    let off = |world: &World| Found::Off { boot: 1, at: world.now, reason: ExitReason::InstanceInitiated };
    expect("booting", off, ("stopped", "Nothing", false));
    expect("running", off, ("stopped", "Nothing", false));
    expect("stopping", off, ("stopped", "Nothing", false));
    expect("terminating", off, ("terminating", "Terminate", false));
    let world = world_in("running");
    let (next, _) = after(&world, &off(&world));
    assert_eq!(next.state, ObservedState::Stopped { since: world.now, reason: ExitReason::InstanceInitiated });
}

#[test]
fn a_driver_that_runs_another_boot() {
    let other = |world: &World| Found::Up { boot: 7, since: world.now };
    expect("booting", other, ("pending", "Boot", true));
    expect("running", other, ("stopped", "Nothing", true));
    expect("stopped", other, ("stopped", "Nothing", true));
}

fn found() -> impl Strategy<Value = Found> {
    let at = (0u64..60).prop_map(|secs| Timestamp::from_secs(1_767_225_600 + secs));
    let reason =
        prop_oneof![Just(ExitReason::Asked), Just(ExitReason::InstanceInitiated), Just(ExitReason::Crashed { message: "oom".into() })];
    prop_oneof![
        (0u64..3).prop_map(|boot| Found::Booting { boot }),
        (0u64..3, at.clone()).prop_map(|(boot, since)| Found::Up { boot, since }),
        (0u64..3, at, reason).prop_map(|(boot, at, reason)| Found::Off { boot, at, reason }),
        Just(Found::Absent),
    ]
}

proptest! {
    /// Whatever is found: the books stay right, nothing that was final changes, and a second start
    /// that finds the same has nothing more to say.
    #[test]
    fn recovering_is_safe_and_settles(state in prop::sample::select(STATES.to_vec()), found in found()) {
        let mut world = world_in(state);
        let before = world.record(1).clone();
        let (next, _) = after(&world, &found);
        prop_assert_eq!(before.state.is_off() && state == "terminated", next.state.name() == "terminated");
        prop_assert!(!next.state.is_off() || next.held == Demand::NOTHING);
        prop_assert!(next.state.is_off() || next.held == before.held);
        world.commit(next.clone());
        world.check();
        let (again, _) = after(&world, &found);
        prop_assert_eq!(again, next);
    }

    /// A report of another boot changes nothing, whatever it says.
    #[test]
    fn late_reports_change_nothing(state in prop::sample::select(STATES.to_vec()), boot in prop_oneof![Just(0u64), 2u64..5], kind in 0u8..9) {
        let world = world_in(state);
        let message = "late".to_owned();
        let event = match kind {
            0 => DriverEvent::Up,
            1 => DriverEvent::BootFailed { message },
            2 => DriverEvent::Rebooted,
            3 => DriverEvent::Exited { reason: ExitReason::InstanceInitiated },
            4 => DriverEvent::Unresponsive { message },
            5 => DriverEvent::Responsive,
            6 => DriverEvent::Reconfigured { generation: 99 },
            7 => DriverEvent::Told { runtime: Box::new(RuntimeReport::of(&world.capabilities)) },
            _ => DriverEvent::ReconfigureFailed { generation: 99, message },
        };
        let report = DriverReport { id: id(1), boot, at: world.now, event };
        prop_assert_eq!(observed(world.record(1), &report, world.ledger.room(&world.capabilities)), None);
    }
}

#[test]
fn a_fleets_calls_can_be_repeated() {
    let now = Timestamp::from_secs(1_767_225_600);
    let mut fleet = SimFleet::new(SimSettings::default());
    let boot = |boot| BootSpec { scope: run(1).scope, id: id(1), boot, generation: 1, first: true, spec: spec("") };
    fleet.boot(&boot(1), now);
    let until = fleet.next_at();
    // Neither the same boot again nor an earlier one begins anything.
    fleet.boot(&boot(1), now + Duration::from_millis(100));
    fleet.boot(&boot(0), now + Duration::from_millis(100));
    assert_eq!(fleet.next_at(), until);
    let later = now + Duration::from_secs(10);
    assert_eq!(fleet.pop_due(later).map(|report| report.event), Some(DriverEvent::Up));
    let exited = Some(DriverEvent::Exited { reason: ExitReason::Asked });
    fleet.kill(id(1), 1, later);
    assert_eq!(fleet.pop_due(later).map(|report| report.event), exited);
    // Whoever lost the report asks again and is told again, also about what never was.
    for unknown in [1, 2] {
        fleet.stop(id(unknown), 1, GRACE, later);
        assert_eq!(fleet.pop_due(later).map(|report| report.event), exited);
        assert_eq!(fleet.pop_due(later), None);
    }
    fleet.boot(&boot(1), later);
    assert_eq!(fleet.next_at(), None, "a boot that is over begins again");
}

#[test]
fn an_overdue_driver_is_asked_again_or_overruled() {
    let mut world = world_in("stopping");
    assert_eq!(plan(world.record(1), world.now), Step::WaitUntil(world.now + GRACE + Duration::from_secs(5)));
    world.now = world.now + Duration::from_secs(25);
    assert_eq!(plan(world.record(1), world.now), Step::Kill);
    let mut world = world_in("terminating");
    world.now = world.now + Duration::from_secs(120);
    assert_eq!(plan(world.record(1), world.now), Step::Terminate);
    let mut world = world_in("rebooting");
    world.now = world.now + Duration::from_secs(630);
    assert!(matches!(plan(world.record(1), world.now), Step::ReportImpaired { .. }));
}
