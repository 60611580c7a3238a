//! An address moves when its holder has let go.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails where it should")]

mod common;

use std::net::Ipv4Addr;

use common::{World, group, now};
use gureum_model::{
    Tags,
    id::{AllocationId, InstanceId, NetworkInterfaceId},
};
use gureum_network_domain::{
    address::{self, AddressName, AssociationState},
    association::{self, Associate, AssociationName, Target},
    attachment,
    instance::{self, InstanceEnd, InstanceInterface, Source},
    interface_create::{NewInterface, Secondary},
    letting_go,
};

struct Scene {
    world: World,
    one: (InstanceId, NetworkInterfaceId),
    other: (InstanceId, NetworkInterfaceId),
    elastic: AllocationId,
    address: Ipv4Addr,
}

impl Scene {
    /// Two instances without public addresses of the pool; an elastic IP leads to the first.
    fn new() -> Self {
        let mut world = World::born("127.8.0.0/28");
        let (one, other) = (launch(&mut world), launch(&mut world));
        let elastic = world.ids.next();
        let address = world.run(|draft| address::allocate(draft, elastic, None, Tags::default())).unwrap().address;
        let mut scene = Self { world, one, other, elastic, address };
        scene.associate(one.0);
        assert!(scene.holds(one.1));
        scene
    }

    fn associate(&mut self, instance: InstanceId) {
        let address = AddressName::Allocation(self.elastic);
        let wanted = Associate { address, target: Target::Instance(instance), private_address: None, allow_reassociation: true };
        let id = self.world.ids.next();
        self.world.run(|draft| association::associate(draft, wanted, id, now())).unwrap();
        self.world.audit();
    }

    /// What the instance has yet to let go of.
    fn releasing(&self, instance: InstanceId) -> Vec<letting_go::Release> {
        let of_instance = self.world.interfaces.values().filter(|interface| interface.instance() == Some(instance));
        of_instance.flat_map(|interface| &interface.releasing).map(|known| (known.address, known.release)).collect()
    }

    fn let_go(&mut self, instance: InstanceId) {
        let all = self.releasing(instance);
        self.has_let_go(instance, &all);
    }

    fn has_let_go(&mut self, instance: InstanceId, done: &[letting_go::Release]) {
        self.world.write(|draft| letting_go::settle(draft, instance, done, now()));
        self.world.audit();
    }

    /// The interface has the elastic IP, and its instance may hold it.
    fn holds(&self, interface: NetworkInterfaceId) -> bool {
        let publics = self.world.interfaces[&interface].private_addresses.iter().filter_map(|private| private.public);
        publics.into_iter().any(|public| public.address() == self.address && !public.is_waiting())
    }

    fn state(&self) -> AssociationState {
        self.world.addresses[&self.elastic].association.as_ref().unwrap().state
    }
}

fn launch(world: &mut World) -> (InstanceId, NetworkInterfaceId) {
    let new = NewInterface {
        subnet_id: world.default_subnets()[0],
        description: String::new(),
        private_address: None,
        secondary: Secondary::Chosen(0),
        group_ids: Vec::new(),
        group_names: Vec::new(),
        tags: Tags::default(),
    };
    let (instance_id, interface_id) = (world.ids.next(), world.ids.next());
    let item = InstanceInterface {
        interface_id,
        attachment_id: world.ids.next(),
        instance_id,
        device_index: 0,
        source: Source::Create { new, public: Some(false) },
        delete_on_termination: true,
        interface_limit: 3,
    };
    world.held.insert(interface_id, Vec::new());
    world.run(|draft| instance::create(draft, &[(item, vec![group(1)])], now())).unwrap();
    (instance_id, interface_id)
}

#[test]
fn a_move_waits_until_the_old_holder_has_let_go() {
    let mut scene = Scene::new();
    let (one, other) = (scene.one, scene.other);
    scene.associate(other.0);
    assert_eq!(scene.state(), AssociationState::Waiting { since: now(), holder: one.0, unreachable: false });
    assert!(scene.state().reason().contains(&one.0.to_string()));
    assert!(!scene.holds(one.1) && !scene.holds(other.1), "nobody but the old holder has it");
    let open = scene.releasing(one.0);
    scene.world.write(|draft| letting_go::unreachable(draft, one.0, &open));
    assert!(scene.state().reason().contains("not heard of"), "{}", scene.state().reason());
    // Only the holder's word counts.
    scene.has_let_go(other.0, &open);
    assert!(!scene.holds(other.1));
    scene.let_go(one.0);
    assert!(scene.holds(other.1));
    assert_eq!(scene.state(), AssociationState::Associated { since: now() });
}

#[test]
fn a_waiting_address_may_go_on_or_come_back() {
    let mut scene = Scene::new();
    let (one, other) = (scene.one, scene.other);
    let third = launch(&mut scene.world);
    scene.associate(other.0);
    let first = scene.releasing(one.0);
    scene.associate(third.0);
    // The second never held it, so it is the first that is waited for.
    assert!(matches!(scene.state(), AssociationState::Waiting { holder, .. } if holder == one.0));
    scene.associate(one.0);
    assert!(scene.holds(one.1), "what it has not let go of it keeps");
    scene.has_let_go(one.0, &first);
    assert!(scene.holds(one.1), "a late word changes nothing");
    // It loses the address again, and the word about the first time comes again.
    scene.associate(other.0);
    scene.has_let_go(one.0, &first);
    assert!(!scene.holds(other.1));
    scene.let_go(one.0);
    assert!(scene.holds(other.1));
}

#[test]
fn what_is_released_goes_back_only_when_it_is_let_go() {
    let mut scene = Scene::new();
    let (one, elastic, address) = (scene.one, scene.elastic, scene.address);
    let name = AssociationName::Public(address);
    scene.world.run(|draft| association::disassociate(draft, name, now())).unwrap();
    scene.world.run(|draft| address::release(draft, AddressName::Allocation(elastic))).unwrap();
    scene.world.audit();
    let id = scene.world.ids.next();
    let again = |scene: &mut Scene| scene.world.run(|draft| address::allocate(draft, id, Some(address), Tags::default()));
    assert_eq!(again(&mut scene).unwrap_err().reason, "InvalidIPAddress.InUse");
    scene.let_go(one.0);
    assert!(again(&mut scene).is_ok());
    scene.world.audit();
}

#[test]
fn an_instance_that_is_off_or_gone_holds_nothing() {
    let mut scene = Scene::new();
    let (one, other) = (scene.one, scene.other);
    scene.associate(other.0);
    scene.world.run(|draft| instance::release_public(draft, &[one.0], now())).unwrap();
    scene.world.audit();
    assert!(scene.holds(other.1));
    scene.associate(one.0);
    let end = [InstanceEnd { instance_id: other.0, interface_ids: Vec::new() }];
    scene.world.run(|draft| instance::delete(draft, &end, now())).unwrap();
    scene.world.audit();
    assert!(scene.holds(one.1));
}

#[test]
fn an_address_that_goes_with_its_interface_waits_too() {
    let mut scene = Scene::new();
    let (one, other) = (scene.one, scene.other);
    let new = NewInterface {
        subnet_id: scene.world.default_subnets()[0],
        description: String::new(),
        private_address: None,
        secondary: Secondary::Chosen(0),
        group_ids: Vec::new(),
        group_names: Vec::new(),
        tags: Tags::default(),
    };
    let (id, attachment) = (scene.world.ids.next(), scene.world.ids.next());
    scene.world.held.insert(id, Vec::new());
    let item = InstanceInterface {
        interface_id: id,
        attachment_id: attachment,
        instance_id: one.0,
        device_index: 1,
        source: Source::Create { new, public: Some(false) },
        delete_on_termination: false,
        interface_limit: 3,
    };
    scene.world.run(|draft| instance::create(draft, &[(item, vec![group(1)])], now())).unwrap();
    let address = AddressName::Allocation(scene.elastic);
    let wanted = Associate { address, target: Target::Interface(id), private_address: None, allow_reassociation: true };
    let association = scene.world.ids.next();
    scene.world.run(|draft| association::associate(draft, wanted, association, now())).unwrap();
    scene.world.audit();
    assert!(scene.holds(id), "it stays at its instance");
    scene.world.run(|draft| attachment::detach(draft, attachment, true, now())).unwrap();
    scene.world.audit();
    let again = scene.world.ids.next();
    scene.world.run(|draft| attachment::attach(draft, id, other.0, 1, again, now())).unwrap();
    scene.world.audit();
    assert!(!scene.holds(id));
    scene.let_go(one.0);
    assert!(scene.holds(id));
}
