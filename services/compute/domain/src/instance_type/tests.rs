use gureum_model::{Filter, Filterable, Filters, Refusal};
use proptest::prelude::*;

use super::*;

fn named(name: &str) -> &'static InstanceType {
    find(name).expect(name)
}

fn passing(filters: &[(&str, &[&str])]) -> Vec<&'static str> {
    let filters = filters
        .iter()
        .map(|(name, values)| Filter { name: (*name).to_owned(), values: values.iter().map(|value| (*value).to_owned()).collect() });
    let filters = Filters::for_kind::<InstanceType>(filters.collect()).expect("known filters");
    all().iter().filter(|it| filters.pass(*it)).map(|it| it.name).collect()
}

#[test]
fn facts_are_as_aws_publishes_them() {
    let micro = named("t3.micro");
    assert_eq!((micro.vcpus, micro.cores, micro.memory_mib), (2, 1, 1024));
    assert_eq!(micro.network_performance(), "Up to 5 Gigabit");
    assert_eq!(micro.burst, Some(Burst { millicredits_per_hour: 12_000, baseline_milli_per_vcpu: 100 }));
    assert_eq!((micro.price_microdollars_per_hour, micro.price_class()), (10_400, PriceClass::Low));
    assert_eq!(named("t2.micro").architectures(), ["i386", "x86_64"]);
    assert_eq!((named("t2.micro").main_architecture(), named("t2.micro").ebs_optimized()), ("x86_64", "unsupported"));
    assert_eq!(
        (named("m5.12xlarge").network_performance().as_ref(), named("m6i.xlarge").network_performance().as_ref()),
        ("12 Gigabit", "Up to 12.5 Gigabit")
    );
    assert_eq!((named("i3.metal").vcpus, named("i3.metal").cores, named("i3.metal").hypervisor()), (72, 36, ""));
    assert_eq!((named("m6g.metal").boot_modes(), named("m5.metal").boot_modes()), (["uefi"].as_slice(), ["legacy-bios"].as_slice()));
    assert_eq!(named("p4d.24xlarge").accelerators.map(|gpu| (gpu.count, gpu.name, gpu.memory_mib)), Some((8, "A100", 40_960)));
    assert_eq!(
        (named("c3.large").ebs_optimized(), named("c3.xlarge").ebs_optimized(), named("c5.large").ebs_optimized()),
        ("unsupported", "supported", "default")
    );
    assert!(named("m5.8xlarge").hibernation() && !named("m5.12xlarge").hibernation());
}

#[test]
fn the_table_is_plausible() {
    for it in all() {
        assert!(it.vcpus >= 1 && it.memory_mib >= 512 && it.cores * it.family.threads_per_core == it.vcpus, "{}", it.name);
        assert!(it.network.max_interfaces >= 2 && it.network.addresses_per_interface >= 2, "{}", it.name);
        assert_eq!(it.burst.is_some(), it.family.class == FamilyClass::Burstable, "{}", it.name);
        assert_eq!(it.accelerators.is_some(), it.family.class == FamilyClass::Accelerated, "{}", it.name);
        assert_eq!(it.disks.is_some(), !it.family.disk_type.is_empty(), "{}", it.name);
        assert!(it.ebs.is_none_or(|ebs| ebs.baseline_mbps <= ebs.peak_mbps && ebs.baseline_iops <= ebs.peak_iops), "{}", it.name);
        assert!(it.price_microdollars_per_hour > 0 && !it.network_performance().is_empty() && !it.boot_modes().is_empty(), "{}", it.name);
        for name in InstanceType::FILTER_NAMES {
            let optional = name.contains("ebs-optimized-info")
                || name.contains("instance-storage-info")
                || name.contains("clock")
                || *name == "hypervisor";
            assert!(optional || !it.filter_values(name).is_empty(), "{} has no value for {name}", it.name);
        }
    }
    for class in [
        FamilyClass::General,
        FamilyClass::Burstable,
        FamilyClass::Compute,
        FamilyClass::Memory,
        FamilyClass::Storage,
        FamilyClass::Accelerated,
    ] {
        assert!(all().iter().any(|it| it.family.class == class), "{class:?}");
    }
}

#[test]
fn filters_choose() {
    assert_eq!(passing(&[("free-tier-eligible", &["true"])]), ["t2.micro", "t3.micro"]);
    assert_eq!(passing(&[("instance-type", &["hpc*"]), ("vcpu-info.default-vcpus", &["16", "32"])]), ["hpc7g.4xlarge", "hpc7g.8xlarge"]);
    let small_arm = passing(&[("processor-info.supported-architecture", &["arm64"]), ("memory-info.size-in-mib", &["512", "1024"])]);
    assert_eq!(small_arm, ["t4g.micro", "t4g.nano"]);
    let cores = |count: &'static str| passing(&[("instance-type", &["m5.*large"]), ("vcpu-info.valid-cores", &[count])]);
    assert!(cores("1").contains(&"m5.large") && !cores("2").contains(&"m5.large") && cores("2").contains(&"m5.xlarge"));
    assert!(passing(&[("current-generation", &["false"])]).iter().all(|name| name.starts_with("c3.")));
    assert!(passing(&[("hypervisor", &["xen"]), ("bare-metal", &["true"])]).is_empty());
}

#[test]
fn unknown_types_are_all_named() {
    let refusal = Refusal::from(find_all(&["t3.micro", "t9.huge", "x"]).expect_err("two are unknown"));
    assert_eq!(refusal.reason, "InvalidInstanceType");
    assert!(refusal.message.contains("[t9.huge, x]"), "{}", refusal.message);
    assert_eq!(find_all(&["m5.large", "c5.large", "m5.large"]).map(|found| found.len()), Ok(2));
}

#[test]
fn everything_is_offered_everywhere() {
    let zones = ["us-east-1a", "us-east-1b", "us-east-1c"].map(str::to_owned);
    assert_eq!(offerings(&zones).count(), all().len() * 3);
    let filters = vec![Filter { name: "location".to_owned(), values: vec!["*b".to_owned()] }];
    let filters = Filters::for_kind::<Offering>(filters).expect("a known filter");
    assert_eq!(offerings(&zones).filter(|offering| filters.pass(offering)).count(), all().len());
}

proptest! {
    #[test]
    fn finding_is_as_searching_all(name in "[a-z0-9.]{0,12}", place in any::<prop::sample::Index>()) {
        let known = all()[place.index(all().len())].name;
        prop_assert_eq!(find(known).map(|it| it.name), Some(known));
        prop_assert_eq!(find(&name).is_some(), all().iter().any(|it| it.name == name));
    }
}
