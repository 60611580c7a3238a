//! A plain instance, made the way a launch makes it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::net::Ipv4Addr;

use gureum_compute_domain::{
    instance::{BootMode, Capacity, Group, Instance, Interface, Kind, Platform, PublicAddress},
    launch,
    launch_check::{ImageFacts, KindFacts, LaunchFacts, LaunchPlan, Lookups, VolumeFacts, check},
    launch_spec::LaunchSpec,
};
use gureum_model::{
    IdSource, Refusal, Scope, Timestamp,
    id::{ImageId, NodeId, ReservationId, ResourceId, SecurityGroupId, SubnetId, VpcId},
};

pub const NOW: Timestamp = Timestamp::from_secs(1_769_848_200);

pub fn node(number: u128) -> NodeId {
    NodeId::from_number(number)
}

pub fn image() -> ImageFacts {
    ImageFacts {
        id: ImageId::from_number(1),
        available: true,
        architecture: "x86_64".to_owned(),
        platform: Platform::Linux,
        platform_details: "Linux/UNIX".to_owned(),
        usage_operation: "RunInstances".to_owned(),
        root_device_name: "/dev/xvda".to_owned(),
        boot_mode: BootMode::LegacyBios,
        demands_tokens: true,
        product_codes: Vec::new(),
        terms_missing: None,
    }
}

pub fn kind() -> KindFacts {
    let capacity = Capacity { vcpu_milli: 2000, memory_mib: 1024 };
    KindFacts {
        kind: Kind {
            name: "t3.micro".to_owned(),
            capacity,
            architecture: "x86_64".to_owned(),
            cores: 1,
            threads_per_core: 2,
            ena_support: true,
            burstable: true,
        },
        architectures: vec!["x86_64".to_owned()],
        max_interfaces: 2,
        ebs_optimized_by_default: true,
        ebs_optimized_supported: true,
    }
}

pub fn lookups() -> Lookups {
    let volume = |name: &str, goes| VolumeFacts { device_name: name.to_owned(), delete_on_termination: goes };
    Lookups {
        image: Some(image()),
        kind: Some(kind()),
        key_exists: true,
        volumes: Ok(vec![volume("/dev/xvda", true), volume("/dev/sdf", false)]),
        instances: 0,
        instance_limit: None,
    }
}

pub fn spec() -> LaunchSpec {
    LaunchSpec { image_id: Some(ImageId::from_number(1).to_string()), instance_type: Some("t3.micro".to_owned()), ..LaunchSpec::default() }
}

pub fn planned(spec: &LaunchSpec, min: i32, max: i32, found: Lookups) -> Result<LaunchPlan, Refusal> {
    check(launch::parse(spec, min, max, &Scope::default().region)?, found)
}

pub fn launch_facts() -> LaunchFacts {
    LaunchFacts {
        scope: Scope::default(),
        reservation_id: ReservationId::from_number(1),
        client_token: String::new(),
        zone: 'a',
        image_source: String::new(),
        public_key: String::new(),
        subnets: vec![(SubnetId::from_number(1), VpcId::from_number(1)); 4],
    }
}

/// What network says of the interfaces of an instance.
pub fn networked(mut interfaces: Vec<Interface>) -> Vec<Interface> {
    for (place, interface) in (4u8..).zip(&mut interfaces) {
        interface.prefix_length = 20;
        interface.private_addresses = vec![Ipv4Addr::new(172, 31, 0, place).to_string()];
        interface.private_dns_name = format!("ip-172-31-0-{place}.ec2.internal");
        interface.groups = vec![Group { id: SecurityGroupId::from_number(1), name: "default".to_owned() }];
        if interface.device_index == 0 {
            interface.public = Some(PublicAddress {
                address: "127.8.0.1".to_owned(),
                dns_name: "ec2-127-8-0-1.compute-1.amazonaws.com".to_owned(),
                elastic: None,
            });
        }
    }
    interfaces
}

/// A pending instance on node 1.
pub fn launched() -> Instance {
    let plan = planned(&spec(), 1, 1, lookups()).expect("a plain launch");
    let ids = plan.new_ids(1, &IdSource::seeded(1));
    let mut instance = plan.instance(&launch_facts(), 0, &ids[0], node(1), NOW);
    instance.interfaces = networked(instance.interfaces);
    instance
}
