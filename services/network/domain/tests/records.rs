//! Records survive being stored, and let themselves be filtered by every name they declare.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails where it should")]

mod common;

use std::fmt::Debug;

use common::{World, group};
use gureum_model::{Filter, Filterable, Filters, Tags};
use gureum_network_domain::{
    address::{self, AddressName},
    association::{self, Associate, Target},
    attachment,
    hold::{self, HoldMark},
    instance::{self, EndedInstance, InstanceInterface, Source},
    interface_create::{self, NewInterface, Secondary},
    pool::{PublicPool, Ranges},
    route::{self, NewRoute, WantedTarget},
    zone,
};
use serde::{Serialize, de::DeserializeOwned};

fn stored<R: Serialize + DeserializeOwned + PartialEq + Debug>(record: &R) {
    let back: R = rmp_serde::from_slice(&rmp_serde::to_vec_named(record).unwrap()).unwrap();
    assert_eq!(&back, record);
}

/// Every declared filter finds the resource by each of the values it says it has, and by no other.
fn filtered<R: Filterable>(resource: &R) -> Vec<&'static str> {
    let pass = |name: &str, value: &str| {
        let filter = Filter { name: name.into(), values: vec![value.into()] };
        Filters::for_kind::<R>(vec![filter]).unwrap().pass(resource)
    };
    let mut silent = Vec::new();
    for name in R::FILTER_NAMES {
        let values = resource.filter_values(name);
        if values.is_empty() {
            silent.push(*name);
        }
        assert!(values.iter().all(|value| pass(name, value)), "{name}");
        assert!(!pass(name, "no such value"), "{name}");
    }
    silent
}

/// A world in which every kind of record has all its parts.
fn full() -> World {
    let mut world = World::born("127.8.0.0/24");
    let (subnet_id, now) = (world.default_subnets()[0], world.now);
    let new = NewInterface {
        subnet_id,
        description: "web".into(),
        private_address: None,
        secondary: Secondary::Chosen(2),
        group_ids: Vec::new(),
        group_names: Vec::new(),
        tags: Tags([("a".to_owned(), "1".to_owned())].into()),
    };
    let item = InstanceInterface {
        interface_id: world.ids.next(),
        attachment_id: world.ids.next(),
        instance_id: world.ids.next(),
        device_index: 0,
        source: Source::Create { new: new.clone(), public: None },
        delete_on_termination: true,
        interface_limit: 0,
    };
    let (first, instance) = (item.interface_id, item.instance_id);
    world.run(|draft| instance::create(draft, &[(item, vec![group(1)])], now)).unwrap();
    let (second, attachment) = (world.ids.next(), world.ids.next());
    world.run(|draft| hold::begin(draft, second, now)).unwrap();
    world.run(|draft| interface_create::create(draft, second, &new, vec![group(1), group(2)])).unwrap();
    world.run(|draft| attachment::attach(draft, second, instance, 1, attachment, now)).unwrap();
    let (allocation, association) = (world.ids.next(), world.ids.next());
    world.run(|draft| address::allocate(draft, allocation, None, Tags::default())).unwrap();
    let wanted = Associate {
        address: AddressName::Allocation(allocation),
        target: Target::Interface(second),
        private_address: None,
        allow_reassociation: false,
    };
    world.run(|draft| association::associate(draft, wanted, association, now)).unwrap();
    let table = world.default_vpc_main();
    let new = NewRoute { table, destination: "10.0.0.0/8".parse().unwrap(), target: WantedTarget::Interface(first) };
    world.run(|draft| route::create(draft, new)).unwrap();
    world.audit();
    world
}

trait Main {
    fn default_vpc_main(&self) -> gureum_model::id::RouteTableId;
}

impl Main for World {
    fn default_vpc_main(&self) -> gureum_model::id::RouteTableId {
        self.vpcs[&self.default_vpc_id()].main_route_table
    }
}

#[test]
fn records_survive_being_stored() {
    let mut world = full();
    world.vpcs.values().for_each(stored);
    world.subnets.values().for_each(stored);
    world.gateways.values().for_each(stored);
    world.route_tables.values().for_each(stored);
    world.interfaces.values().for_each(stored);
    world.addresses.values().for_each(stored);
    stored(world.birth.as_ref().unwrap());
    stored(&world.pool);
    let (id, now) = (world.ids.next(), world.now);
    world.run(|draft| hold::begin(draft, id, now)).unwrap();
    stored::<HoldMark>(&world.marks[&id]);
    let ended = EndedInstance {
        scope: world.scope.clone(),
        instance_id: world.ids.next(),
        interface_ids: vec![id],
        ended_at: now,
        released: false,
    };
    stored(&ended);
}

#[test]
fn every_filter_finds_its_resource() {
    let world = full();
    assert!(world.vpcs.values().all(|row| filtered(row).is_empty()));
    assert!(world.subnets.values().all(|row| filtered(row).is_empty()));
    assert!(world.gateways.values().all(|row| filtered(row).is_empty()));
    assert!(world.addresses.values().all(|row| filtered(row).is_empty()));
    // The main association has no subnet.
    assert!(world.route_tables.values().all(|row| filtered(row) == ["association.subnet-id"]));
    let silent: Vec<_> = world.interfaces.values().map(filtered).collect();
    assert!(silent.contains(&vec![]), "{silent:?}");
    assert!(zone::zones(&world.scope.region).iter().all(|row| filtered(row).is_empty()));
    assert!(zone::regions(&world.scope.region, true).iter().all(|row| filtered(row).is_empty()));
}

#[test]
fn the_pool_is_counted_anew_when_its_ranges_change() {
    let held = || ["127.8.0.1", "127.9.0.1"].iter().map(|text| text.parse().unwrap());
    let ranges = Ranges::public(&["127.9.0.0/24".parse().unwrap()]).unwrap();
    let pool = PublicPool { used: 2, ..PublicPool::default() };
    assert_eq!(pool.recounted(&ranges, held()).used, 1);
}
