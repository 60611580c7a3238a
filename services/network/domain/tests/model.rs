//! Random commands against the audit of everything that must always hold, and kills between the steps of each
//! workflow: whatever was refused, repeated or left half done, nothing is held twice or lost.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails where it should")]

mod common;

use common::{World, group};
use gureum_model::{
    Tags,
    id::{InstanceId, NetworkInterfaceId, ResourceId},
};
use gureum_network_domain::{
    address::{self, AddressName},
    association::{self, Associate, AssociationName, Target},
    attachment, gateway, hold,
    instance::{self, InstanceEnd, InstanceInterface, Source},
    interface_create::{self, NewInterface, Secondary},
    interface_modify::{self, Modify},
    letting_go,
    route::{self, NewRoute, WantedTarget},
    route_table,
    subnet::{self, CreateSubnetInput},
    vpc,
};
use proptest::{prelude::*, sample::Index};

/// How far a workflow gets before its process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Begun,
    Held,
    Done,
}

#[derive(Debug, Clone)]
enum Command {
    Launch { count: usize, subnet: Index, public: Option<bool>, keep: bool, secondary: u32, reach: Reach },
    Terminate(Index),
    Start(Index),
    Stop(Index),
    CreateInterface { subnet: Index, reach: Reach },
    ModifyGroups { interface: Index, groups: u128, reach: Reach },
    DeleteInterface(Index),
    Attach { interface: Index, instance: Index, device: u32 },
    Detach { interface: Index, force: bool },
    Settle(Index),
    Allocate,
    Associate { address: Index, interface: Index, second: bool, allow: bool },
    AssociateInstance { address: Index, instance: Index },
    Disassociate(Index),
    Release(Index),
    LetGo(Index),
    AttachGateway(Index),
    DetachGateway(Index),
    CreateSubnet { vpc: Index, block: u8 },
    DeleteSubnet(Index),
    Route { table: Index, interface: Index, replaces: bool },
    DeleteRoute(Index),
    AssociateTable { table: Index, subnet: Index },
    ReplaceMain { table: Index },
    DeleteVpc { vpc: Index, refused: bool },
    Converge,
}

fn reach() -> impl Strategy<Value = Reach> {
    prop_oneof![1 => Just(Reach::Begun), 1 => Just(Reach::Held), 4 => Just(Reach::Done)]
}

fn command() -> impl Strategy<Value = Command> {
    let index = any::<Index>;
    prop_oneof![
        6 => (1..4usize, index(), any::<Option<bool>>(), any::<bool>(), 0..3u32, reach())
            .prop_map(|(count, subnet, public, keep, secondary, reach)| Command::Launch { count, subnet, public, keep, secondary, reach }),
        3 => index().prop_map(Command::Terminate),
        2 => index().prop_map(Command::Start),
        2 => index().prop_map(Command::Stop),
        4 => (index(), reach()).prop_map(|(subnet, reach)| Command::CreateInterface { subnet, reach }),
        2 => (index(), 1..5u128, reach()).prop_map(|(interface, groups, reach)| Command::ModifyGroups { interface, groups, reach }),
        2 => index().prop_map(Command::DeleteInterface),
        3 => (index(), index(), 0..4u32).prop_map(|(interface, instance, device)| Command::Attach { interface, instance, device }),
        2 => (index(), any::<bool>()).prop_map(|(interface, force)| Command::Detach { interface, force }),
        2 => index().prop_map(Command::Settle),
        3 => Just(Command::Allocate),
        5 => (index(), index(), any::<bool>(), any::<bool>())
            .prop_map(|(address, interface, second, allow)| Command::Associate { address, interface, second, allow }),
        2 => (index(), index()).prop_map(|(address, instance)| Command::AssociateInstance { address, instance }),
        2 => index().prop_map(Command::Disassociate),
        2 => index().prop_map(Command::Release),
        3 => index().prop_map(Command::LetGo),
        1 => index().prop_map(Command::AttachGateway),
        1 => index().prop_map(Command::DetachGateway),
        2 => (index(), any::<u8>()).prop_map(|(vpc, block)| Command::CreateSubnet { vpc, block }),
        1 => index().prop_map(Command::DeleteSubnet),
        2 => (index(), index(), any::<bool>()).prop_map(|(table, interface, replaces)| Command::Route { table, interface, replaces }),
        1 => index().prop_map(Command::DeleteRoute),
        2 => (index(), index()).prop_map(|(table, subnet)| Command::AssociateTable { table, subnet }),
        1 => index().prop_map(|table| Command::ReplaceMain { table }),
        1 => (index(), any::<bool>()).prop_map(|(vpc, refused)| Command::DeleteVpc { vpc, refused }),
        2 => Just(Command::Converge),
    ]
}

struct Model {
    world: World,
    instances: Vec<InstanceId>,
}

fn pick<K: Copy>(keys: impl Iterator<Item = K>, index: Index) -> Option<K> {
    let keys: Vec<K> = keys.collect();
    if keys.is_empty() { None } else { Some(*index.get(&keys)) }
}

impl Model {
    /// Runs a command; what is refused or has nobody to act on changes nothing.
    fn run(&mut self, command: &Command) -> Option<()> {
        match command {
            Command::Launch { .. } | Command::Terminate(_) | Command::Start(_) | Command::Stop(_) => self.run_instance(command),
            Command::CreateInterface { .. }
            | Command::ModifyGroups { .. }
            | Command::DeleteInterface(_)
            | Command::Attach { .. }
            | Command::Detach { .. }
            | Command::Settle(_) => self.run_interface(command),
            Command::Allocate
            | Command::Associate { .. }
            | Command::AssociateInstance { .. }
            | Command::Disassociate(_)
            | Command::LetGo(_)
            | Command::Release(_) => self.run_address(command),
            Command::AttachGateway(_)
            | Command::DetachGateway(_)
            | Command::CreateSubnet { .. }
            | Command::DeleteSubnet(_)
            | Command::Route { .. }
            | Command::DeleteRoute(_)
            | Command::AssociateTable { .. }
            | Command::ReplaceMain { .. }
            | Command::DeleteVpc { .. } => self.run_topology(command),
            Command::Converge => {
                self.world.converge();
                self.world.audit_holds();
                Some(())
            }
        }
    }

    fn run_instance(&mut self, command: &Command) -> Option<()> {
        let (instances, now) = (&self.instances, self.world.now);
        match command {
            Command::Launch { count, subnet, public, keep, secondary, reach } => {
                let subnet = pick(self.world.subnets.keys().copied(), *subnet)?;
                self.launch(*count, subnet, *public, *keep, *secondary, *reach)
            }
            Command::Terminate(which) => {
                let id = pick(instances.iter().copied(), *which)?;
                let end = [InstanceEnd { instance_id: id, interface_ids: Vec::new() }];
                self.world.run(|draft| instance::delete(draft, &end, now)).unwrap();
                self.instances.retain(|known| *known != id);
                Some(())
            }
            Command::Start(which) => {
                let id = pick(instances.iter().copied(), *which)?;
                self.world.run(|draft| instance::assign_public(draft, &[id])).ok().map(drop)
            }
            Command::Stop(which) => {
                let id = pick(instances.iter().copied(), *which)?;
                self.world.run(|draft| instance::release_public(draft, &[id], now)).ok().map(drop)
            }
            _ => None,
        }
    }

    fn launch(
        &mut self,
        count: usize,
        subnet_id: gureum_model::id::SubnetId,
        public: Option<bool>,
        keep: bool,
        secondary: u32,
        reach: Reach,
    ) -> Option<()> {
        let now = self.world.now;
        let new = NewInterface {
            subnet_id,
            description: String::new(),
            private_address: None,
            secondary: Secondary::Chosen(secondary),
            group_ids: Vec::new(),
            group_names: Vec::new(),
            tags: Tags::default(),
        };
        let items: Vec<_> = (0..count)
            .map(|_| {
                let item = InstanceInterface {
                    interface_id: self.world.ids.next(),
                    attachment_id: self.world.ids.next(),
                    instance_id: self.world.ids.next(),
                    device_index: 0,
                    source: Source::Create { new: new.clone(), public },
                    delete_on_termination: !keep,
                    interface_limit: 3,
                };
                (item, vec![group(1)])
            })
            .collect();
        let ids: Vec<NetworkInterfaceId> = items.iter().map(|(item, _)| item.interface_id).collect();
        if reach >= Reach::Held {
            self.world.held.extend(ids.iter().map(|id| (*id, vec![group(1).id])));
        }
        if reach == Reach::Done {
            let made = self.world.run(|draft| instance::create(draft, &items, now));
            if made.is_ok() {
                // A repeat changes nothing.
                let before = self.world.interfaces.clone();
                self.world.run(|draft| instance::create(draft, &items, now)).unwrap();
                assert_eq!(self.world.interfaces, before);
                self.instances.extend(items.iter().map(|(item, _)| item.instance_id));
                return Some(());
            }
            self.world.write(|draft| instance::give_up(draft, &ids, now));
        }
        // Compute undoes what it gave up, whether anything was made or not; a late call must then fail.
        let ends: Vec<_> =
            items.iter().map(|(item, _)| InstanceEnd { instance_id: item.instance_id, interface_ids: vec![item.interface_id] }).collect();
        self.world.run(|draft| instance::delete(draft, &ends, now)).unwrap();
        let late = self.world.run(|draft| instance::create(draft, &items, now));
        assert_eq!(common::reason(late), "IncorrectInstanceState");
        Some(())
    }

    fn run_interface(&mut self, command: &Command) -> Option<()> {
        let world = &mut self.world;
        let now = world.now;
        let interface = |world: &World, which: &Index| pick(world.interfaces.keys().copied(), *which);
        match command {
            Command::CreateInterface { subnet, reach } => {
                let subnet_id = pick(world.subnets.keys().copied(), *subnet)?;
                let id = world.ids.next();
                let new = NewInterface {
                    subnet_id,
                    description: "d".into(),
                    private_address: None,
                    secondary: Secondary::Chosen(1),
                    group_ids: Vec::new(),
                    group_names: Vec::new(),
                    tags: Tags::default(),
                };
                world.run(|draft| hold::begin(draft, id, now)).unwrap();
                if *reach >= Reach::Held {
                    world.held.insert(id, vec![group(1).id]);
                }
                if *reach == Reach::Done && world.run(|draft| interface_create::create(draft, id, &new, vec![group(1)])).is_err() {
                    world.write(|draft| hold::settle(draft, id, now));
                }
            }
            Command::ModifyGroups { interface: which, groups, reach } => {
                let id = interface(world, which)?;
                let next: Vec<_> = (1..=*groups).map(group).collect();
                world.run(|draft| hold::begin(draft, id, now)).ok()?;
                if *reach >= Reach::Held {
                    let both = hold::both(&world.interfaces[&id].group_ids(), &next.iter().map(|group| group.id).collect::<Vec<_>>());
                    world.held.insert(id, both.unwrap());
                }
                if *reach == Reach::Done {
                    let change =
                        Modify { id, description: None, source_dest_check: None, group_ids: Vec::new(), delete_on_termination: None };
                    world.run(|draft| interface_modify::modify(draft, &change, Some(next), now)).unwrap();
                }
            }
            Command::DeleteInterface(which) => {
                let id = interface(world, which)?;
                world.run(|draft| interface_create::delete(draft, id, now)).ok()?;
            }
            Command::Attach { interface: which, instance, device } => {
                let (id, instance) = (interface(world, which)?, pick(self.instances.iter().copied(), *instance)?);
                let attachment = world.ids.next();
                world.run(|draft| attachment::attach(draft, id, instance, *device, attachment, now)).ok()?;
            }
            Command::Detach { interface: which, force } => {
                let id = world.interfaces[&interface(world, which)?].attachment()?.id;
                world.run(|draft| attachment::detach(draft, id, *force, now)).ok()?;
            }
            Command::Settle(which) => {
                let id = world.interfaces[&interface(world, which)?].attachment()?.id;
                world.run(|draft| attachment::settle(draft, id, now)).unwrap();
            }
            _ => return None,
        }
        Some(())
    }

    fn run_address(&mut self, command: &Command) -> Option<()> {
        let world = &mut self.world;
        let now = world.now;
        let address = |world: &World, which: &Index| pick(world.addresses.keys().copied(), *which);
        match command {
            Command::Allocate => {
                let id = world.ids.next();
                world.run(|draft| address::allocate(draft, id, None, Tags::default())).ok()?;
            }
            Command::Associate { address: which, interface, second, allow } => {
                let allocation = address(world, which)?;
                let interface = pick(world.interfaces.keys().copied(), *interface)?;
                let private = &world.interfaces[&interface].private_addresses;
                let private_address = private.get(usize::from(*second)).map(|private| private.address);
                let wanted = Associate {
                    address: AddressName::Allocation(allocation),
                    target: Target::Interface(interface),
                    private_address,
                    allow_reassociation: *allow,
                };
                let id = world.ids.next();
                let made = world.run(|draft| association::associate(draft, wanted, id, now)).ok()?;
                // The same again is no change, and the same association.
                let again = world.run(|draft| association::associate(draft, wanted, world_id(), now)).unwrap();
                assert_eq!(made, again);
            }
            Command::AssociateInstance { address: which, instance } => {
                let allocation = address(world, which)?;
                let instance = pick(self.instances.iter().copied(), *instance)?;
                let wanted = Associate {
                    address: AddressName::Public(world.addresses[&allocation].address),
                    target: Target::Instance(instance),
                    private_address: None,
                    allow_reassociation: true,
                };
                let id = world.ids.next();
                world.run(|draft| association::associate(draft, wanted, id, now)).ok()?;
            }
            Command::Disassociate(which) => {
                let public = world.addresses[&address(world, which)?].address;
                world.run(|draft| association::disassociate(draft, AssociationName::Public(public), now)).unwrap();
            }
            Command::LetGo(which) => {
                let id = pick(self.instances.iter().copied(), *which)?;
                let all: Vec<_> = world.interfaces.values().filter(|interface| interface.instance() == Some(id)).collect();
                let addresses: Vec<_> =
                    all.iter().flat_map(|interface| &interface.releasing).map(|known| (known.address, known.release)).collect();
                // Also what it has not to let go of, which is passed over.
                let more = [addresses.as_slice(), &[(std::net::Ipv4Addr::new(127, 8, 0, 1), 1)]].concat();
                world.write(|draft| letting_go::unreachable(draft, id, &addresses));
                world.audit();
                world.write(|draft| letting_go::settle(draft, id, &addresses, now));
                world.write(|draft| letting_go::settle(draft, id, &more, now));
            }
            Command::Release(which) => {
                let allocation = address(world, which)?;
                world.run(|draft| address::release(draft, AddressName::Allocation(allocation))).ok()?;
            }
            _ => return None,
        }
        Some(())
    }

    fn run_topology(&mut self, command: &Command) -> Option<()> {
        let world = &mut self.world;
        let now = world.now;
        let table = |world: &World, which: &Index| pick(world.route_tables.keys().copied(), *which);
        let vpc_of = |world: &World, which: &Index| pick(world.vpcs.keys().copied(), *which);
        match command {
            Command::AttachGateway(which) => {
                let (id, vpc) = (pick(world.gateways.keys().copied(), *which)?, vpc_of(world, which)?);
                world.run(|draft| gateway::attach(draft, id, vpc)).ok()?;
            }
            Command::DetachGateway(which) => {
                let id = pick(world.gateways.keys().copied(), *which)?;
                let vpc = world.gateways[&id].vpc_id?;
                world.run(|draft| gateway::detach(draft, id, vpc)).ok()?;
            }
            Command::CreateSubnet { vpc, block } => {
                let vpc_id = vpc_of(world, vpc)?;
                let base = world.vpcs[&vpc_id].cidr.network().octets();
                let input = CreateSubnetInput {
                    vpc_id: vpc_id.to_string(),
                    cidr_block: format!("{}.{}.{}.{}/28", base[0], base[1], 64 + block / 16, (block % 16) * 16),
                    ..CreateSubnetInput::default()
                };
                let new = input.parse(&world.scope.region).unwrap();
                let id = world.ids.next();
                world.run(|draft| subnet::create(draft, id, new)).ok()?;
            }
            Command::DeleteSubnet(which) => {
                let id = pick(world.subnets.keys().copied(), *which)?;
                world.run(|draft| subnet::delete(draft, id)).ok()?;
            }
            Command::Route { table: which, interface, replaces } => {
                let table = table(world, which)?;
                let interface = pick(world.interfaces.keys().copied(), *interface)?;
                let new = NewRoute { table, destination: "10.9.0.0/16".parse().unwrap(), target: WantedTarget::Interface(interface) };
                if *replaces {
                    world.run(|draft| route::replace(draft, new)).ok()?;
                } else {
                    world.run(|draft| route::create(draft, new)).ok()?;
                }
            }
            Command::DeleteRoute(which) => {
                let table = table(world, which)?;
                world.run(|draft| route::delete(draft, table, "10.9.0.0/16".parse().unwrap())).ok()?;
            }
            Command::AssociateTable { table: which, subnet } => {
                let (table, subnet) = (table(world, which)?, pick(world.subnets.keys().copied(), *subnet)?);
                let id = world.ids.next();
                world.run(|draft| route_table::associate(draft, table, subnet, id)).ok()?;
            }
            Command::ReplaceMain { table: which } => {
                let to = table(world, which)?;
                let vpc = world.route_tables[&to].vpc_id;
                let main = &world.route_tables[&world.vpcs[&vpc].main_route_table];
                let old = main.associations.iter().find(|association| association.is_main())?.id;
                let id = world.ids.next();
                world.run(|draft| route_table::replace_association(draft, old, to, id)).unwrap();
            }
            Command::DeleteVpc { vpc, refused } => {
                let id = vpc_of(world, vpc)?;
                world.run(|draft| vpc::begin_delete(draft, id, now)).ok()?;
                if *refused {
                    world.write(|draft| vpc::delete_refused(draft, id));
                }
            }
            _ => return None,
        }
        Some(())
    }
}

fn world_id<I: ResourceId>() -> I {
    I::from_number(u128::MAX)
}

/// A born scope, a second VPC with a table and a small subnet, a table more in the first, and a public pool of 14.
fn start() -> Model {
    let mut world = World::born("127.8.0.0/28");
    world.rules.limits.elastic_addresses = 6;
    let now = world.now;
    let ids = vpc::VpcIds::new(&world.ids);
    let new = vpc::CreateVpcInput { cidr_block: "10.0.0.0/16".into(), ..Default::default() }.parse().unwrap();
    world.run(|draft| vpc::create(draft, ids, new, now)).unwrap();
    world.converge();
    for vpc in [ids.vpc, world.default_vpc_id()] {
        let id = world.ids.next();
        world.run(|draft| route_table::create(draft, id, vpc, Tags::default())).unwrap();
    }
    let id = world.ids.next();
    world.run(|draft| gateway::create(draft, id, Tags::default())).unwrap();
    let small = CreateSubnetInput { vpc_id: ids.vpc.to_string(), cidr_block: "10.0.0.0/28".into(), ..Default::default() };
    let (small, id) = (small.parse(&world.scope.region).unwrap(), world.ids.next());
    world.run(|draft| subnet::create(draft, id, small)).unwrap();
    Model { world, instances: Vec::new() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_held_twice_or_lost(commands in prop::collection::vec(command(), 1..80)) {
        let mut model = start();
        for command in &commands {
            model.run(command);
            model.world.audit();
            model.world.audit_held();
        }
        model.world.converge();
        model.world.audit();
        model.world.audit_holds();
    }
}
