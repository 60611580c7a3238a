//! RunInstances: what is refused, and what a launch makes.

mod common;

use common::{NOW, image, launch_facts, lookups, networked, node, planned, spec};
use gureum_compute_domain::{
    instance::{Capacity, CpuCredits, StateName},
    launch_check::Lookups,
    launch_intent::{self, Launch, LaunchState, LaunchStep, plan_launch},
    launch_spec::{InterfaceSpec, LaunchSpec, PlacementSpec, TagSpecification, TenancySpec},
    metadata_options::{HttpTokens, MetadataOptionsSpec},
    placement::Placement,
};
use gureum_model::{IdSource, Refusal, RefusalKind, Scope};
use proptest::prelude::*;

fn refused(spec: &LaunchSpec, min: i32, max: i32) -> Refusal {
    planned(spec, min, max, lookups()).expect_err("it has to be refused")
}

fn fields(refusal: &Refusal) -> Vec<&str> {
    refusal.violations.iter().map(|violation| violation.field.as_str()).collect()
}

#[test]
fn every_violation_is_named_at_once() {
    let interface = |device_index| InterfaceSpec { device_index, ..InterfaceSpec::default() };
    let bad = LaunchSpec {
        image_id: Some("ami-1".to_owned()),
        subnet_id: Some("subnet-x".to_owned()),
        placement: PlacementSpec { availability_zone: Some("eu-1a".to_owned()), tenancy: Some(TenancySpec::Host), group_name: None },
        metadata_options: MetadataOptionsSpec { hop_limit: Some(65), ..MetadataOptionsSpec::default() },
        cpu_credits: Some("much".to_owned()),
        hibernation: Some(true),
        network_interfaces: vec![interface(1), interface(1)],
        tag_specifications: vec![TagSpecification { resource_type: "planet".to_owned(), tags: vec![("aws:x".to_owned(), String::new())] }],
        core_count: Some(0),
        ..spec()
    };
    let refusal = refused(&bad, 0, 1001);
    assert_eq!(refusal.reason, "InvalidParameterValue");
    assert_eq!(
        fields(&refusal),
        [
            "min_count",
            "max_count",
            "spec.image_id",
            "spec.subnet_id",
            "spec.network_interfaces[1].device_index",
            "spec.network_interfaces",
            "spec.tag_specifications[0].tags[0].key",
            "spec.tag_specifications[0].resource_type",
            "spec.metadata_options.http_put_response_hop_limit",
            "spec.placement.availability_zone",
            "spec.placement.tenancy",
            "spec.cpu_credits",
            "spec.cpu_options.core_count",
            "spec.hibernation_configured",
        ]
    );
}

#[test]
fn combinations_are_refused() {
    let address = LaunchSpec { private_ip_address: Some("172.31.0.9".to_owned()), ..spec() };
    assert_eq!(refused(&address, 1, 2).reason, "InvalidParameterCombination");
    assert!(planned(&address, 1, 1, lookups()).is_ok());
    let named = LaunchSpec { subnet_id: Some("subnet-00000000000000001".to_owned()), security_groups: vec!["web".to_owned()], ..spec() };
    assert_eq!(refused(&named, 1, 1).reason, "InvalidParameterCombination");
    assert_eq!(refused(&LaunchSpec { image_id: None, ..spec() }, 1, 1).reason, "MissingParameter");
    assert_eq!(refused(&spec(), 3, 2).reason, "InvalidParameterValue");
}

#[test]
fn what_does_not_exist_is_refused() {
    let reason = |found: Lookups, spec: LaunchSpec| planned(&spec, 1, 5, found).map_err(|refusal| (refusal.kind, refusal.reason)).err();
    assert_eq!(reason(Lookups { image: None, ..lookups() }, spec()), Some((RefusalKind::NotFound, "InvalidAMIID.NotFound")));
    assert_eq!(reason(Lookups { kind: None, ..lookups() }, spec()), Some((RefusalKind::Invalid, "InvalidParameterValue")));
    let keyed = LaunchSpec { key_name: Some("k".to_owned()), ..spec() };
    assert_eq!(reason(Lookups { key_exists: false, ..lookups() }, keyed), Some((RefusalKind::NotFound, "InvalidKeyPair.NotFound")));
    let sold = gureum_compute_domain::launch_check::ImageFacts { terms_missing: Some("abc".to_owned()), ..image() };
    assert_eq!(reason(Lookups { image: Some(sold), ..lookups() }, spec()), Some((RefusalKind::Denied, "OptInRequired")));
    let arm = gureum_compute_domain::launch_check::ImageFacts { architecture: "arm64".to_owned(), ..image() };
    assert_eq!(reason(Lookups { image: Some(arm), ..lookups() }, spec()), Some((RefusalKind::Invalid, "InvalidParameterValue")));
    let full = Lookups { instances: 10, instance_limit: Some(10), ..lookups() };
    assert_eq!(reason(full, spec()), Some((RefusalKind::Exhausted, "InstanceLimitExceeded")));
    let nearly = Lookups { instances: 8, instance_limit: Some(10), ..lookups() };
    assert_eq!(planned(&spec(), 1, 5, nearly).map(|plan| plan.wanted.max_count), Ok(2));
}

#[test]
fn defaults_come_from_image_and_type() {
    let plan = planned(&spec(), 1, 1, lookups()).expect("a plain launch");
    assert_eq!(plan.metadata_options.http_tokens, HttpTokens::Required);
    let ids = plan.new_ids(1, &IdSource::seeded(1));
    let it = plan.instance(&launch_facts(), 0, &ids[0], node(1), NOW);
    assert_eq!((it.credits, it.ebs_optimized, it.state.name()), (Some(CpuCredits::Unlimited), true, StateName::Pending));
    assert_eq!((it.interfaces.len(), it.volumes.len()), (1, 2));
}

#[test]
fn a_launch_that_nobody_waits_for_is_undone() {
    let plan = planned(&spec(), 2, 2, lookups()).expect("a plain launch");
    let ids = plan.new_ids(2, &IdSource::seeded(1));
    let instances = (0..).zip(&ids).map(|(index, ids)| plan.instance(&launch_facts(), index, ids, node(1), NOW)).collect();
    let facts = launch_facts();
    let launch =
        Launch { scope: Scope::default(), reservation_id: facts.reservation_id, since: NOW, state: LaunchState::Preparing, instances };
    assert_eq!(plan_launch(&launch, true), LaunchStep::Wait);
    let made =
        launch_intent::finish(&launch, |id| launch.instances.iter().find(|it| it.id == id).map(|it| networked(it.interfaces.clone())));
    assert_eq!(made.map(|made| made.iter().filter(|it| it.primary().is_some_and(|first| first.public.is_some())).count()), Some(2));
    assert_eq!(plan_launch(&launch, false), LaunchStep::Undo);
    let undone = launch_intent::undo(&launch, "compute was restarted");
    assert_eq!(plan_launch(&undone, true), LaunchStep::DeleteInterfaces);
    assert_eq!(launch_intent::finish(&undone, |_| Some(Vec::new())), None);
    let bytes = rmp_serde::to_vec_named(&undone).expect("a launch is stored");
    assert_eq!(rmp_serde::from_slice::<Launch>(&bytes).ok(), Some(undone));
}

proptest! {
    /// No input, however odd, does more than be refused.
    #[test]
    fn nothing_a_caller_writes_ends_the_process(
        image in ".{0,24}", subnet in prop::option::of(".{0,28}"), zone in prop::option::of(".{0,12}"),
        address in prop::option::of(".{0,16}"), counts in (any::<i32>(), any::<i32>()), index in any::<i32>(), hops in any::<i32>(),
    ) {
        let odd = LaunchSpec {
            image_id: Some(image),
            placement: PlacementSpec { availability_zone: zone, ..PlacementSpec::default() },
            metadata_options: MetadataOptionsSpec { hop_limit: Some(hops), ..MetadataOptionsSpec::default() },
            network_interfaces: vec![InterfaceSpec { device_index: index, subnet_id: subnet, private_ip_address: address, ..InterfaceSpec::default() }],
            core_count: Some(index),
            ..spec()
        };
        if let Err(refusal) = planned(&odd, counts.0, counts.1, lookups()) {
            prop_assert!(!refusal.violations.is_empty() || refusal.kind != RefusalKind::Invalid);
        }
    }
}

/// 5,000 nodes and 100,000 instances; the goal of 20,000 decisions a second is measured by the benches.
#[test]
fn a_full_region_is_placed_exactly() {
    let mut placement = Placement::new();
    for number in 0..5000 {
        placement.set_node(node(number), 'a', Capacity { vcpu_milli: 40_000, memory_mib: 40_960 }, true);
    }
    let ids = IdSource::seeded(3);
    let need = Capacity { vcpu_milli: 2000, memory_mib: 1024 };
    for seed in 0..100_000 {
        assert!(placement.place(ids.next(), 'a', need, None, seed).is_some());
    }
    assert_eq!(placement.place(ids.next(), 'a', need, None, 1), None);
}
