//! What is told of how an instance runs, over its boots.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::time::Duration;

use common::{TOTAL, World, id, run};
use gureum_node_domain::{
    DriverEvent, DriverReport, NodeInstance, RuntimeReport, ScriptEnd, Step, begin, driver::Limit, observed, plan, sim::SimSettings,
};

fn told(world: &World, boot: u64, runtime: &RuntimeReport) -> Option<NodeInstance> {
    let event = DriverEvent::Told { runtime: Box::new(runtime.clone()) };
    observed(world.record(1), &DriverReport { id: id(1), boot, at: world.now, event }, world.ledger.room(&world.capabilities))
}

fn end(exit_code: i32) -> Option<ScriptEnd> {
    Some(ScriptEnd { exit_code, last_lines: vec!["no such file".into()] })
}

#[test]
fn what_came_of_user_data_is_kept_and_what_is_of_one_boot_goes_with_it() {
    let mut world = World::new(SimSettings::default(), TOTAL);
    world.apply(&run(1)).unwrap();
    world.advance(Duration::from_secs(60));
    // A driver that tells nothing runs all of its instances in the same way.
    assert_eq!(world.record(1).runtime, Some(RuntimeReport::of(&world.capabilities)));

    let first = RuntimeReport {
        cpu_limit: Limit::Rlimit,
        user_data: end(3),
        boot_script: end(1),
        stuck_ports: vec!["port 80 is taken".into()],
        ..RuntimeReport::of(&world.capabilities)
    };
    let next = told(&world, 1, &first).unwrap();
    assert_eq!((&next.observation().runtime, &next.state), (&Some(first.clone()), &world.record(1).state));
    world.commit(next);
    assert_eq!(told(&world, 1, &first), None, "it is no news");
    assert_eq!(told(&world, 2, &RuntimeReport::of(&world.capabilities)), None, "it is of another boot");

    let mut again = run(1);
    (again.wanted.generation, again.wanted.boot) = (2, 2);
    world.apply(&again).unwrap();
    world.advance(Duration::from_secs(60));
    let record = world.record(1).clone();
    let second = record.runtime.clone().unwrap();
    assert_eq!(record.boot, 2);
    assert_eq!((second.user_data, second.boot_script, second.stuck_ports.len()), (end(3), None, 0));
    world.commit(told(&world, 2, &RuntimeReport::of(&world.capabilities)).unwrap());
    assert_eq!(world.record(1).runtime.clone().unwrap().user_data, end(3), "user data is not run again");
    assert!(!matches!(plan(world.record(1), world.now), Step::Boot(_)));
    assert_eq!(begin(world.record(1), &Step::Terminate, world.now).runtime, world.record(1).runtime);
}
