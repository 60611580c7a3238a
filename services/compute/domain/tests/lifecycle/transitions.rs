//! Single decisions: what each refuses, and what each leads to.

use std::time::Duration;

use crate::common::{NOW, kind, launched, node};
use gureum_compute_domain::{
    instance::{Decision, Instance, InstanceState, Kind, Origin, Reason, StateName},
    modify::{self, Change},
    node::NodeState,
    observe::{Observation, Report, Seen, forgotten_by, observe},
    plan::{Reach, Step, addresses_assigned, plan_former},
    reboot::reboot,
    runtime::RuntimeReport,
    start::start,
    status_check::{Check, DEFAULT_INITIALIZING, status},
    stop::{StopMode, stop},
    terminate::terminate,
};
use gureum_model::{Filter, Filters, Refusal, id::ResourceId};

fn running() -> Instance {
    Instance { state: InstanceState::Running { since: NOW }, ..launched() }
}

fn reason(error: gureum_compute_domain::instance::InstanceError) -> &'static str {
    Refusal::from(error).reason
}

fn with_state(state: InstanceState) -> Instance {
    Instance { state, ..launched() }
}

fn stopped() -> Instance {
    Instance { holds_capacity: false, ..with_state(InstanceState::Stopped { since: NOW, reason: Reason::User }) }
}

fn terminated() -> Instance {
    with_state(InstanceState::Terminated { since: NOW, reason: Reason::User })
}

#[test]
fn refusals_have_ec2s_codes() {
    let soft = StopMode::default();
    assert_eq!(stop(&terminated(), soft, NOW).map_err(reason), Err("IncorrectInstanceState"));
    assert_eq!(stop(&launched(), soft, NOW).map_err(reason), Err("IncorrectInstanceState"));
    assert_eq!(start(&terminated(), None, NOW).map_err(reason), Err("IncorrectInstanceState"));
    assert_eq!(start(&stopped(), None, NOW).map_err(reason), Err("InsufficientInstanceCapacity"));
    assert_eq!(start(&running(), None, NOW), Ok(Decision::Unchanged));
    assert_eq!(stop(&stopped(), soft, NOW), Ok(Decision::Unchanged));
    assert_eq!(terminate(&terminated(), false, NOW), Ok(Decision::Unchanged));
    assert_eq!(reboot(&stopped()).map_err(reason), Err("IncorrectInstanceState"));
    let pending = Instance { state: InstanceState::Pending { since: NOW, origin: Origin::Start, addresses_ready: true }, ..running() };
    assert_eq!(reboot(&pending).map_err(reason), Err("IncorrectInstanceState"));
    let hibernate = StopMode { hibernate: true, ..soft };
    assert_eq!(stop(&running(), hibernate, NOW).map_err(reason), Err("UnsupportedOperation"));
    let guarded = Instance { disable_api_termination: true, ..running() };
    assert_eq!(terminate(&guarded, false, NOW).map_err(reason), Err("OperationNotPermitted"));
    assert!(stop(&guarded, soft, NOW).is_ok());
    let kept = Instance { disable_api_stop: true, ..running() };
    assert_eq!(stop(&kept, soft, NOW).map_err(reason), Err("OperationNotPermitted"));
    assert_eq!(terminate(&kept, false, NOW).map_err(reason), Err("OperationNotPermitted"));
    assert_eq!(modify::modify(&running(), &Change::Kind(kind().kind)).map_err(reason), Err("IncorrectInstanceState"));
    assert!(modify::modify(&stopped(), &Change::Kind(kind().kind)).is_ok());
    let devices = Change::DeleteOnTermination(vec![("/dev/sdz".to_owned(), true)]);
    assert_eq!(modify::modify(&running(), &devices).map_err(reason), Err("InvalidInstanceAttributeValue"));
}

#[test]
fn an_instance_has_no_more_interfaces_than_its_type_allows() {
    let kind_named = |name: &str| Kind { name: name.to_owned(), ..kind().kind };
    let with = |name: &str, count: usize| {
        let one = stopped().interfaces[0].clone();
        Instance { kind: kind_named(name), interfaces: vec![one; count], ..stopped() }
    };
    let change = |it: &Instance, name: &str| modify::modify(it, &Change::Kind(kind_named(name))).map_err(reason);
    assert!(change(&with("t3.medium", 2), "t3.micro").is_ok());
    assert_eq!(change(&with("t3.medium", 3), "t3.micro"), Err("AttachmentLimitExceeded"));
    // Whatever its record came to: it does not start so.
    assert_eq!(start(&with("t3.micro", 3), Some(node(1)), NOW).map_err(reason), Err("AttachmentLimitExceeded"));
    assert!(start(&with("t3.micro", 2), Some(node(1)), NOW).is_ok());
    // Network hears of a limit only if it is another, and only of a change that can be.
    let before = |it: &Instance, name: &str| modify::limit_before(it, &Change::Kind(kind_named(name)));
    assert_eq!((before(&with("t3.micro", 1), "t3.medium"), before(&with("t3.medium", 2), "t3.micro")), (Some(3), Some(2)));
    assert_eq!(before(&with("t3.medium", 3), "t3.micro"), Some(2), "network says whether they fit: it may know of a detachment already");
    assert_eq!((before(&with("t3.micro", 1), "t3.nano"), before(&running(), "t3.medium")), (None, None));
}

/// Whoever is first to write what network says of an instance that starts, the call that asked or the loop that follows:
/// its record comes to the same.
#[test]
fn a_start_comes_to_the_same_whoever_writes_its_addresses_first() {
    let starting = match start(&stopped(), Some(node(1)), NOW) {
        Ok(Decision::Change(next)) => *next,
        other => panic!("{other:?}"),
    };
    let mut seen = starting.interfaces.clone();
    seen[0].groups.clear();
    let assigned = addresses_assigned(&starting, seen.clone());
    let follow = |it: &Instance| match modify::interfaces(it, seen.clone()) {
        Decision::Change(next) => *next,
        Decision::Unchanged => it.clone(),
    };
    assert_ne!(assigned.interfaces, starting.interfaces);
    assert_eq!(follow(&assigned), assigned);
    assert_eq!(addresses_assigned(&follow(&starting), seen.clone()), assigned);
    // One that boots already is told.
    let booting = addresses_assigned(&starting, starting.interfaces.clone());
    assert_eq!(follow(&booting).generation, booting.generation + 1);
}

#[test]
fn a_batch_is_all_or_nothing() {
    let (one, protected) = (running(), Instance { disable_api_termination: true, id: ResourceId::from_number(9), ..running() });
    let all = [one, protected];
    let find = |id| all.iter().find(|it| it.id == id);
    let batch =
        |ids: &[_]| gureum_compute_domain::batch::decide(ids, find, |it| terminate(it, false, NOW)).map_err(|refusal| refusal.reason);
    assert_eq!(batch(&[all[0].id, all[1].id]), Err("OperationNotPermitted"));
    assert_eq!(batch(&[all[0].id, ResourceId::from_number(77)]), Err("InvalidInstanceID.NotFound"));
    let texts = ["i-x".to_owned(), all[0].id.to_string(), "i-00000000000000077".to_owned()];
    let refused = gureum_compute_domain::batch::read_ids(&texts, find)
        .map_err(|refusal| (refusal.reason, refusal.violations.into_iter().map(|it| it.field).collect::<Vec<_>>()));
    assert_eq!(refused, Err(("InvalidInstanceID.Malformed", vec!["instance_ids[0]".to_owned(), "instance_ids[2]".to_owned()])));
    let outcomes = batch(&[all[0].id, all[0].id]).unwrap_or_default();
    assert_eq!(
        outcomes.iter().map(|outcome| (outcome.before, outcome.after)).collect::<Vec<_>>(),
        [(StateName::Running, StateName::ShuttingDown)]
    );
}

#[test]
fn reasons_read_as_ec2s() {
    let stopping = match stop(&running(), StopMode::default(), NOW) {
        Ok(Decision::Change(next)) => *next,
        other => panic!("{other:?}"),
    };
    assert_eq!(stopping.transition_reason(), "User initiated (2026-01-31 08:30:00 GMT)");
    let message = stopping.state.reason().map(Reason::message);
    assert_eq!(message.as_deref(), Some("Client.UserInitiatedShutdown: User initiated shutdown"));
}

#[test]
fn an_older_generation_is_ignored() {
    let stopping = match stop(&running(), StopMode::default(), NOW) {
        Ok(Decision::Change(next)) => *next,
        other => panic!("{other:?}"),
    };
    let report = |generation, from| Report {
        instance: stopping.id,
        node: node(from),
        generation,
        live_generation: generation,
        seen: Seen::Stopped,
        reboots: None,
        unreachable: false,
        runtime: None,
    };
    assert_eq!(observe(&stopping, &report(stopping.generation - 1, 1), NOW), Observation::Stale);
    assert_eq!(observe(&stopping, &report(stopping.generation, 2), NOW), Observation::Disowned);
    assert!(matches!(observe(&stopping, &report(stopping.generation, 1), NOW), Observation::Change(_)));
}

#[test]
fn an_address_is_let_go_when_the_node_runs_without_it() {
    const ADDRESS: [&str; 1] = ["127.8.0.1"];
    let reported = |it: Instance, live_generation| {
        let generation = it.generation;
        let report = Report {
            instance: it.id,
            node: node(1),
            generation,
            live_generation,
            seen: Seen::Running,
            reboots: None,
            unreachable: false,
            runtime: None,
        };
        match observe(&it, &report, NOW) {
            Observation::Change(next) => *next,
            other => panic!("{other:?}"),
        }
    };
    let first = running().generation;
    let holding = reported(running(), first);
    assert!(!modify::has_let_go(&holding, ADDRESS), "the record says that it has it");
    let mut without = holding.interfaces.clone();
    without[0].public = None;
    let lost = match modify::interfaces(&holding, without) {
        Decision::Change(next) => *next,
        other => panic!("{other:?}"),
    };
    assert_eq!(lost.generation, first + 1, "the node hears of it");
    assert!(!modify::has_let_go(&lost, ADDRESS));
    let told = reported(lost, first);
    assert!(!modify::has_let_go(&told, ADDRESS), "the node knows, and still runs as before");
    assert!(modify::has_let_go(&reported(told, first + 1), ADDRESS));
    assert!(modify::has_let_go(&stopped(), ADDRESS), "what is off holds nothing");
}

#[test]
fn how_it_runs_is_noted_once_it_is_up_and_when_that_changes() {
    let runtime = |words: &str| Some(RuntimeReport { isolation: words.into(), ..Default::default() });
    let report = |it: &Instance, seen, runtime| Report {
        instance: it.id,
        node: node(1),
        generation: it.generation,
        live_generation: it.generation,
        seen,
        reboots: None,
        unreachable: false,
        runtime,
    };
    let it = launched();
    let booting = observe(&it, &report(&it, Seen::Booting, runtime("a")), NOW);
    assert!(matches!(booting, Observation::Change(next) if next.runtime.is_none()), "it comes with the change of its state");
    let up = match observe(&it, &report(&it, Seen::Running, runtime("a")), NOW) {
        Observation::Change(next) => *next,
        other => panic!("{other:?}"),
    };
    assert_eq!((up.state.name(), &up.runtime), (StateName::Running, &runtime("a")));
    assert_eq!(observe(&up, &report(&up, Seen::Running, runtime("a")), NOW), Observation::Unchanged);
    assert_eq!(observe(&up, &report(&up, Seen::Running, None), NOW), Observation::Unchanged, "nothing was told");
    let changed = observe(&up, &report(&up, Seen::Running, runtime("b")), NOW);
    assert!(matches!(changed, Observation::Change(next) if next.runtime == runtime("b") && next.state == up.state));
}

#[test]
fn a_failed_launch_is_undone_and_a_failed_start_is_stopped() {
    let failed = |it: &Instance| {
        let report = Report {
            instance: it.id,
            node: node(1),
            generation: it.generation,
            live_generation: it.generation,
            seen: Seen::Failed("no disk".to_owned()),
            reboots: None,
            unreachable: false,
            runtime: None,
        };
        match observe(it, &report, NOW) {
            Observation::Change(next) => *next,
            other => panic!("{other:?}"),
        }
    };
    let launch = failed(&launched());
    assert_eq!(launch.state.name(), StateName::ShuttingDown);
    assert_eq!(launch.state.reason().map(Reason::code), Some("Server.InternalError"));
    let started = with_state(InstanceState::Pending { since: NOW, origin: Origin::Start, addresses_ready: true });
    assert_eq!(failed(&started).state.name(), StateName::Stopping);
}

#[test]
fn a_start_elsewhere_makes_the_old_node_forget() {
    let moved = match start(&stopped(), Some(node(2)), NOW) {
        Ok(Decision::Change(next)) => *next,
        other => panic!("{other:?}"),
    };
    assert_eq!((moved.node, moved.former_nodes.as_slice()), (Some(node(2)), [node(1)].as_slice()));
    assert_eq!(plan_former(&moved, |_| Reach::Up), Some(Step::Forget { node: node(1) }));
    assert_eq!(plan_former(&moved, |_| Reach::Lost), None);
    assert_eq!(plan_former(&forgotten_by(&moved, node(1)), |_| Reach::Up), None);
}

#[test]
fn a_lost_node_impairs_and_changes_no_state() {
    let it = running();
    let later = NOW + Duration::from_secs(60);
    let up = status(&it, Some(NodeState::Up { since: NOW }), DEFAULT_INITIALIZING, later);
    assert_eq!((up.instance_check, up.system_check), (Check::Ok, Check::Ok));
    let first = status(&it, Some(NodeState::Up { since: NOW }), DEFAULT_INITIALIZING, NOW);
    assert_eq!(first.instance_check.as_str(), "initializing");
    let lost = status(&it, Some(NodeState::Lost { since: later }), DEFAULT_INITIALIZING, later);
    assert_eq!(lost.system_check, Check::Impaired { since: later });
    let filter = |name: &str, value: &str| Filter { name: name.to_owned(), values: vec![value.to_owned()] };
    let impaired =
        Filters::for_kind::<gureum_compute_domain::status_check::InstanceStatus<'_>>(vec![filter("system-status.status", "impaired")]);
    assert!(impaired.is_ok_and(|filters| filters.pass(&lost) && !filters.pass(&up)));
}

#[test]
fn filters_find_what_they_name() {
    let it = running();
    let finds = |name: &str, value: &str| {
        let filters = Filters::for_kind::<Instance>(vec![Filter { name: name.to_owned(), values: vec![value.to_owned()] }]);
        filters.is_ok_and(|filters| filters.pass(&it))
    };
    for (name, value) in [
        ("instance-state-name", "running"),
        ("instance-state-code", "16"),
        ("instance-type", "t3.*"),
        ("private-ip-address", "172.31.0.4"),
        ("ip-address", "127.8.0.1"),
        ("instance.group-name", "default"),
        ("network-interface.association.ip-owner-id", "amazon"),
        ("network-interface.addresses.primary", "true"),
        ("block-device-mapping.device-name", "/dev/sdf"),
        ("launch-time", "2026-01-31T*"),
        ("availability-zone", "us-east-1a"),
        ("availability-zone-id", "use1-az1"),
        ("network-interface.addresses.association.ip-owner-id", "amazon"),
        ("network-interface.requester-managed", "false"),
        ("metadata-options.http-tokens", "required"),
    ] {
        assert!(finds(name, value), "{name}");
    }
    assert!(!finds("instance-lifecycle", "*") && !finds("platform", "windows") && !finds("no-such-filter", "*"));
}

/// A name in the list that gives no value for an instance that has everything would be a typing error.
#[test]
fn every_filter_name_is_known_to_the_record() {
    use gureum_model::Filterable;
    let mut it = terminated();
    it.platform = gureum_compute_domain::instance::Platform::Windows;
    it.client_token = "token".to_owned();
    it.key_name = "key".to_owned();
    it.placement_group = "group".to_owned();
    it.product_codes = vec!["abc".to_owned()];
    it.iam_instance_profile = "arn:aws:iam::000000000000:instance-profile/web".to_owned();
    for interface in &mut it.interfaces {
        interface.mac_address = "02:00:00:00:00:01".to_owned();
        for public in interface.public.iter_mut() {
            public.elastic = Some(gureum_compute_domain::instance::Elastic {
                allocation_id: ResourceId::from_number(1),
                association_id: ResourceId::from_number(2),
            });
        }
    }
    for name in Instance::FILTER_NAMES.iter().filter(|name| **name != "instance-lifecycle") {
        assert!(!it.filter_values(name).is_empty(), "{name}");
    }
}

#[test]
fn records_are_stored_and_read_as_they_are() {
    let states = [running(), stopped(), terminated(), launched()];
    for it in states {
        let bytes = rmp_serde::to_vec_named(&it).expect("an instance is stored");
        assert_eq!(rmp_serde::from_slice::<Instance>(&bytes).ok(), Some(it));
    }
}
