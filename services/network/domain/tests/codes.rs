//! EC2's exact codes and rules, one example each.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails where it should")]

mod common;

use std::net::Ipv4Addr;

use common::{World, group, now, reason};
use gureum_model::{
    Refusal, Region, Tags,
    id::{AllocationId, InstanceId, NetworkInterfaceId, ResourceId, RouteTableAssociationId, SubnetId, VpcId},
};
use gureum_network_domain::{
    NetworkInterface,
    address::{self, AddressName},
    association::{self, Associate, AssociateInput, AssociationName, Target},
    attachment::{self, Excess},
    gateway, hold,
    instance::{self, InstanceEnd, InstanceInterface, InstanceInterfaceInput, Source},
    interface::{AutoPublic, InterfaceState},
    interface_create::{self, NewInterface, NewInterfaceInput, Secondary},
    launch::{LaunchInput, LaunchInterfaceInput, Resolved, resolve},
    route::{self, RouteInput},
    route_table,
    scope::{self, DefaultVpcIds, ScopePlan},
    subnet::{self, CreateSubnetInput},
    tag::{self, TagChange, TaggedId},
    vpc::{self, CreateVpcInput, VpcIds, VpcState},
};

const POOL: &str = "127.8.0.0/24";

fn make_vpc(world: &mut World, cidr: &str) -> VpcId {
    let (ids, now) = (VpcIds::new(&world.ids), world.now);
    let new = CreateVpcInput { cidr_block: cidr.into(), ..Default::default() }.parse().unwrap();
    world.run(|draft| vpc::create(draft, ids, new, now)).unwrap();
    world.converge();
    ids.vpc
}

fn make_subnet(world: &mut World, vpc: VpcId, cidr: &str) -> Result<SubnetId, Refusal> {
    let id = world.ids.next();
    let input = CreateSubnetInput { vpc_id: vpc.to_string(), cidr_block: cidr.into(), ..Default::default() };
    let new = input.parse(&Region::default())?;
    world.run(|draft| subnet::create(draft, id, new)).map(|_| id)
}

fn new_interface(subnet_id: SubnetId, private: Option<&str>) -> NewInterface {
    NewInterface {
        subnet_id,
        description: String::new(),
        private_address: private.map(|text| text.parse().unwrap()),
        secondary: Secondary::Chosen(0),
        group_ids: Vec::new(),
        group_names: Vec::new(),
        tags: Tags::default(),
    }
}

fn make_interface(world: &mut World, subnet: SubnetId, private: Option<&str>) -> Result<NetworkInterface, Refusal> {
    let (id, now) = (world.ids.next(), world.now);
    world.run(|draft| hold::begin(draft, id, now)).unwrap();
    world.held.insert(id, vec![group(1).id]);
    world.run(|draft| interface_create::create(draft, id, &new_interface(subnet, private), vec![group(1)]))
}

fn item(world: &World, subnet: SubnetId, public: Option<bool>) -> InstanceInterface {
    InstanceInterface {
        interface_id: world.ids.next(),
        attachment_id: world.ids.next(),
        instance_id: world.ids.next(),
        device_index: 0,
        source: Source::Create { new: new_interface(subnet, None), public },
        delete_on_termination: true,
        interface_limit: 2,
    }
}

fn launch(world: &mut World, subnet: SubnetId, public: Option<bool>) -> NetworkInterface {
    let (item, now) = (item(world, subnet, public), world.now);
    world.run(|draft| instance::create(draft, &[(item, vec![group(1)])], now)).unwrap().remove(0)
}

fn allocate(world: &mut World) -> Result<AllocationId, Refusal> {
    let id = world.ids.next();
    world.run(|draft| address::allocate(draft, id, None, Tags::default())).map(|elastic| elastic.id)
}

fn associate(world: &mut World, address: AllocationId, target: Target, allow: bool) -> Result<(), Refusal> {
    let (id, now) = (world.ids.next(), world.now);
    let wanted = Associate { address: AddressName::Allocation(address), target, private_address: None, allow_reassociation: allow };
    world.run(|draft| association::associate(draft, wanted, id, now)).map(drop)
}

fn public_of(world: &World, id: NetworkInterfaceId) -> Option<Ipv4Addr> {
    world.interfaces[&id].primary()?.public.map(|public| public.address())
}

#[test]
fn a_scope_is_born_whole_and_once() {
    let mut world = World::empty(POOL);
    assert_eq!(world.read(scope::plan), ScopePlan::Birth);
    let (ids, now) = (DefaultVpcIds::new(&world.ids), world.now);
    world.write(|draft| scope::birth(draft, ids, now));
    assert_eq!(world.read(scope::plan), ScopePlan::Finish { vpc: ids.vpc.vpc });
    world.converge();
    assert_eq!(world.read(scope::plan), ScopePlan::Born { default_vpc: Some(ids.vpc.vpc) });
    let subnets: Vec<_> =
        world.default_subnets().iter().map(|id| (world.subnets[id].zone.clone(), world.subnets[id].cidr.to_string())).collect();
    let wanted = [("us-east-1a", "172.31.0.0/20"), ("us-east-1b", "172.31.16.0/20"), ("us-east-1c", "172.31.32.0/20")];
    assert_eq!(subnets, wanted.map(|(zone, cidr)| (zone.to_owned(), cidr.to_owned())));
    world.audit();

    // A second birth changes nothing; neither does one after the user deleted all.
    let others = DefaultVpcIds::new(&world.ids);
    world.write(|draft| scope::birth(draft, others, now));
    assert_eq!(world.vpcs.len(), 1);
    assert_eq!(reason(world.run(|draft| scope::create_default_vpc(draft, others, now))), "DefaultVpcAlreadyExists");
    assert_eq!(reason(world.run(|draft| vpc::begin_delete(draft, ids.vpc.vpc, now))), "DependencyViolation");
    for subnet in world.default_subnets() {
        world.run(|draft| subnet::delete(draft, subnet)).unwrap();
    }
    world.run(|draft| gateway::detach(draft, ids.gateway, ids.vpc.vpc)).unwrap();
    world.run(|draft| gateway::delete(draft, ids.gateway)).unwrap();
    world.run(|draft| vpc::begin_delete(draft, ids.vpc.vpc, now)).unwrap();
    world.converge();
    assert!(world.vpcs.is_empty() && world.route_tables.is_empty() && world.registered.is_empty());
    world.write(|draft| scope::birth(draft, others, now));
    assert_eq!(world.read(scope::plan), ScopePlan::Born { default_vpc: None });
    world.run(|draft| scope::create_default_vpc(draft, others, now)).unwrap();
    world.audit();
}

#[test]
fn vpcs_have_sizes_limits_and_states() {
    let parse = |cidr: &str| CreateVpcInput { cidr_block: cidr.into(), ..Default::default() }.parse();
    assert_eq!(reason(parse("10.0.0.0/15")), "InvalidVpc.Range");
    assert_eq!(reason(parse("10.0.0.0/29")), "InvalidVpc.Range");
    assert_eq!(reason(parse("10.0.0/16")), "InvalidParameterValue");
    let mut world = World::born(POOL);
    let (ids, now) = (VpcIds::new(&world.ids), world.now);
    world.run(|draft| vpc::create(draft, ids, parse("10.0.0.0/16").unwrap(), now)).unwrap();
    assert_eq!(reason(world.run(|draft| vpc::begin_delete(draft, ids.vpc, now))), "IncorrectState");
    world.converge();
    assert_eq!(reason(world.run(|draft| vpc::modify(draft, ids.vpc, None, None))), "InvalidParameterCombination");
    assert_eq!(reason(world.run(|draft| vpc::modify(draft, ids.vpc, Some(false), Some(true)))), "InvalidParameterCombination");
    assert!(world.run(|draft| vpc::modify(draft, ids.vpc, None, Some(true))).unwrap().has_public_names());
    world.run(|draft| vpc::begin_delete(draft, ids.vpc, now)).unwrap();
    // Nothing can be made in it meanwhile, and a refusal of security brings it back.
    assert_eq!(reason(make_subnet(&mut world, ids.vpc, "10.0.0.0/24")), "IncorrectState");
    world.write(|draft| vpc::delete_refused(draft, ids.vpc));
    assert_eq!(world.vpcs[&ids.vpc].state, VpcState::Available);
    world.rules.limits.vpcs = 2;
    let more = VpcIds::new(&world.ids);
    assert_eq!(reason(world.run(|draft| vpc::create(draft, more, parse("10.1.0.0/16").unwrap(), now))), "VpcLimitExceeded");
}

#[test]
fn subnets_lie_apart_inside_their_vpc() {
    let mut world = World::born(POOL);
    let vpc = make_vpc(&mut world, "10.0.0.0/16");
    let subnet = make_subnet(&mut world, vpc, "10.0.1.0/24").unwrap();
    assert_eq!(world.subnets[&subnet].available_addresses(), 251);
    assert_eq!(reason(make_subnet(&mut world, vpc, "10.0.1.128/25")), "InvalidSubnet.Conflict");
    assert_eq!(reason(make_subnet(&mut world, vpc, "10.1.0.0/24")), "InvalidSubnet.Range");
    assert_eq!(reason(make_subnet(&mut world, vpc, "10.0.0.0/29")), "InvalidSubnet.Range");
    assert_eq!(reason(make_subnet(&mut world, VpcId::from_number(1), "10.0.2.0/24")), "InvalidVpcID.NotFound");
    let bad =
        CreateSubnetInput { vpc_id: "vpc-1".into(), cidr_block: "x".into(), availability_zone: "eu-west-1a".into(), ..Default::default() };
    let refusal = bad.parse(&Region::default()).unwrap_err();
    assert_eq!(refusal.violations.iter().map(|one| one.field.as_str()).collect::<Vec<_>>(), ["vpc_id", "cidr_block", "availability_zone"]);
    let interface = make_interface(&mut world, subnet, None).unwrap();
    let refusal = world.run(|draft| subnet::delete(draft, subnet)).unwrap_err();
    assert_eq!(refusal.reason, "DependencyViolation");
    assert!(refusal.message.contains(&interface.id.to_string()));
}

#[test]
fn all_that_does_not_exist_is_named_at_once() {
    let mut world = World::born(POOL);
    let refusal = world.run(|draft| gateway::attach(draft, ResourceId::from_number(7), VpcId::from_number(8))).unwrap_err();
    let fields: Vec<_> = refusal.violations.iter().map(|one| one.field.as_str()).collect();
    assert_eq!((refusal.reason, fields), ("InvalidInternetGatewayID.NotFound", vec!["internet_gateway_id", "vpc_id"]));
    let input = association::AssociateInput {
        allocation_id: "eipalloc-00000000000000001".into(),
        instance_id: "i-00000000000000001".into(),
        ..Default::default()
    };
    let (wanted, now) = (input.parse().unwrap(), world.now);
    let refusal = world.run(|draft| association::associate(draft, wanted, ResourceId::from_number(1), now)).unwrap_err();
    let fields: Vec<_> = refusal.violations.iter().map(|one| one.field.as_str()).collect();
    assert_eq!((refusal.reason, fields), ("InvalidAllocationID.NotFound", vec!["allocation_id", "instance_id"]));
}

#[test]
fn private_addresses_are_the_subnets() {
    let mut world = World::born(POOL);
    let vpc = make_vpc(&mut world, "10.0.0.0/16");
    let subnet = make_subnet(&mut world, vpc, "10.0.0.0/28").unwrap();
    let mine = make_interface(&mut world, subnet, Some("10.0.0.5")).unwrap();
    assert!(mine.mac_address().starts_with("02:") && mine.mac_address().ends_with(":00:05"));
    assert_eq!(reason(make_interface(&mut world, subnet, Some("10.0.0.5"))), "InvalidIPAddress.InUse");
    for outside in ["10.0.0.3", "10.0.0.15", "10.0.1.5"] {
        assert_eq!(reason(make_interface(&mut world, subnet, Some(outside))), "InvalidParameterValue", "{outside}");
    }
    assert_eq!(make_interface(&mut world, subnet, None).unwrap().primary().unwrap().address, Ipv4Addr::new(10, 0, 0, 4));
    for _ in 0..9 {
        make_interface(&mut world, subnet, None).unwrap();
    }
    assert_eq!(reason(make_interface(&mut world, subnet, None)), "InsufficientFreeAddressesInSubnet");
    let now = world.now;
    world.run(|draft| interface_create::delete(draft, mine.id, now)).unwrap();
    assert_eq!(make_interface(&mut world, subnet, None).unwrap().primary().unwrap().address, Ipv4Addr::new(10, 0, 0, 5));
    world.audit();
}

#[test]
fn only_a_subnet_with_a_way_out_gives_public_addresses() {
    let mut world = World::born(POOL);
    let subnet = world.default_subnets()[0];
    let first = launch(&mut world, subnet, None);
    assert_eq!(public_of(&world, first.id), Some(Ipv4Addr::new(127, 8, 0, 1)));
    assert_eq!(first.attachment().unwrap().auto_public, AutoPublic::Running);
    let without = launch(&mut world, subnet, Some(false));
    assert_eq!(public_of(&world, without.id), None);
    // A table of its own, without a route out, makes the subnet private, whatever the launch says.
    let (table, association, vpc) = (world.ids.next(), world.ids.next(), world.default_vpc_id());
    world.run(|draft| route_table::create(draft, table, vpc, Tags::default())).unwrap();
    world.run(|draft| route_table::associate(draft, table, subnet, association)).unwrap();
    let inside = launch(&mut world, subnet, Some(true));
    assert_eq!(public_of(&world, inside.id), None);
    // With the way out back, it gets one when it starts.
    world.run(|draft| route_table::disassociate(draft, association)).unwrap();
    let instance = inside.instance().unwrap();
    world.run(|draft| instance::release_public(draft, &[instance], now())).unwrap();
    let interfaces = world.run(|draft| instance::assign_public(draft, &[instance])).unwrap();
    assert_eq!(interfaces.iter().map(|one| one.id).collect::<Vec<_>>(), [inside.id]);
    assert!(public_of(&world, inside.id).is_some());
    assert_eq!(reason(world.run(|draft| instance::assign_public(draft, &[InstanceId::from_number(9)]))), "InvalidInstanceID.NotFound");
    world.audit();
}

#[test]
fn a_public_address_changes_on_stop_and_start_and_an_elastic_one_stays() {
    let mut world = World::born(POOL);
    let subnet = world.default_subnets()[0];
    let interface = launch(&mut world, subnet, None);
    let instance = interface.instance().unwrap();
    let before = public_of(&world, interface.id);
    world.run(|draft| instance::release_public(draft, &[instance], now())).unwrap();
    assert_eq!(public_of(&world, interface.id), None);
    world.run(|draft| instance::assign_public(draft, &[instance])).unwrap();
    let after = public_of(&world, interface.id);
    assert!(after.is_some() && after != before);

    let elastic = allocate(&mut world).unwrap();
    associate(&mut world, elastic, Target::Instance(instance), false).unwrap();
    let held = public_of(&world, interface.id);
    assert_eq!(held, Some(world.addresses[&elastic].address));
    world.run(|draft| instance::release_public(draft, &[instance], now())).unwrap();
    world.run(|draft| instance::assign_public(draft, &[instance])).unwrap();
    assert_eq!(public_of(&world, interface.id), held);
    world.audit();
    // Without it, the running instance gets an address of the pool again; a stopped one would not.
    world.run(|draft| association::disassociate(draft, AssociationName::Public(held.unwrap()), now())).unwrap();
    assert!(public_of(&world, interface.id).is_some_and(|address| Some(address) != held));
    associate(&mut world, elastic, Target::Instance(instance), false).unwrap();
    world.run(|draft| instance::release_public(draft, &[instance], now())).unwrap();
    world.run(|draft| association::disassociate(draft, AssociationName::Public(held.unwrap()), now())).unwrap();
    assert_eq!(public_of(&world, interface.id), None);
    world.audit();
}

#[test]
fn elastic_addresses_move_only_when_allowed() {
    let mut world = World::born(POOL);
    let subnet = world.default_subnets()[0];
    let (one, other) = (launch(&mut world, subnet, None), launch(&mut world, subnet, None));
    let (first, second) = (allocate(&mut world).unwrap(), allocate(&mut world).unwrap());
    associate(&mut world, first, Target::Interface(one.id), false).unwrap();
    let id = world.addresses[&first].association.as_ref().unwrap().id;
    // The same target again is no change, whether moves are allowed or not.
    associate(&mut world, first, Target::Instance(one.instance().unwrap()), false).unwrap();
    assert_eq!(world.addresses[&first].association.as_ref().unwrap().id, id);
    assert_eq!(reason(associate(&mut world, first, Target::Interface(other.id), false)), "Resource.AlreadyAssociated");
    assert_eq!(reason(associate(&mut world, second, Target::Interface(one.id), false)), "Resource.AlreadyAssociated");
    associate(&mut world, first, Target::Interface(other.id), true).unwrap();
    assert_eq!(public_of(&world, other.id), Some(world.addresses[&first].address));
    assert!(public_of(&world, one.id).is_some(), "the old holder has an address of the pool again");
    associate(&mut world, second, Target::Interface(other.id), true).unwrap();
    assert!(world.addresses[&first].association.is_none());
    world.audit();

    assert_eq!(reason(world.run(|draft| address::release(draft, AddressName::Allocation(second)))), "InvalidIPAddress.InUse");
    assert_eq!(reason(world.run(|draft| address::release(draft, AddressName::Public(Ipv4Addr::LOCALHOST)))), "InvalidAddress.NotFound");
    world.run(|draft| address::release(draft, AddressName::Allocation(first))).unwrap();
    assert_eq!(reason(world.run(|draft| address::release(draft, AddressName::Allocation(first)))), "InvalidAllocationID.NotFound");
    let gone = AssociationName::Association(world.ids.next());
    assert_eq!(reason(world.run(|draft| association::disassociate(draft, gone, now()))), "InvalidAssociationID.NotFound");
    for _ in 0..4 {
        allocate(&mut world).unwrap();
    }
    assert_eq!(reason(allocate(&mut world)), "AddressLimitExceeded");
    world.audit();
}

#[test]
fn an_elastic_address_needs_a_gateway() {
    let mut world = World::born(POOL);
    let vpc = make_vpc(&mut world, "10.0.0.0/16");
    let subnet = make_subnet(&mut world, vpc, "10.0.1.0/24").unwrap();
    let interface = make_interface(&mut world, subnet, None).unwrap();
    let elastic = allocate(&mut world).unwrap();
    assert_eq!(reason(associate(&mut world, elastic, Target::Interface(interface.id), false)), "Gateway.NotAttached");
    let gateway = world.ids.next();
    world.run(|draft| gateway::create(draft, gateway, Tags::default())).unwrap();
    world.run(|draft| gateway::attach(draft, gateway, vpc)).unwrap();
    associate(&mut world, elastic, Target::Interface(interface.id), false).unwrap();
    let refusal = world.run(|draft| gateway::detach(draft, gateway, vpc)).unwrap_err();
    assert_eq!(refusal.reason, "DependencyViolation");
    assert!(refusal.message.contains(&interface.id.to_string()));
    let default = world.default_vpc_id();
    assert_eq!(reason(world.run(|draft| gateway::attach(draft, gateway, default))), "Resource.AlreadyAssociated");
    assert_eq!(reason(world.run(|draft| gateway::detach(draft, gateway, default))), "Gateway.NotAttached");
    assert_eq!(reason(world.run(|draft| gateway::delete(draft, gateway))), "DependencyViolation");
    let another = world.ids.next();
    world.run(|draft| gateway::create(draft, another, Tags::default())).unwrap();
    assert_eq!(reason(world.run(|draft| gateway::attach(draft, another, vpc))), "InvalidParameterValue");
}

#[test]
fn association_requests_name_one_address_and_one_target() {
    let id = AllocationId::from_number(1).to_string();
    let instance = InstanceId::from_number(1).to_string();
    let parse = |input: AssociateInput| input.parse().map(drop);
    assert_eq!(reason(parse(AssociateInput { instance_id: instance.clone(), ..Default::default() })), "MissingParameter");
    assert_eq!(reason(parse(AssociateInput { allocation_id: id.clone(), ..Default::default() })), "MissingParameter");
    let both =
        AssociateInput { allocation_id: id.clone(), public_ip: "127.8.0.1".into(), instance_id: instance.clone(), ..Default::default() };
    assert_eq!(reason(parse(both)), "InvalidParameterCombination");
    let bad = AssociateInput {
        allocation_id: "eipalloc-x".into(),
        instance_id: "i-x".into(),
        private_ip_address: "y".into(),
        ..Default::default()
    };
    let refusal = bad.parse().unwrap_err();
    assert_eq!((refusal.reason, refusal.violations.len()), ("InvalidAllocationID.Malformed", 3));
    assert!(parse(AssociateInput { allocation_id: id, instance_id: instance, ..Default::default() }).is_ok());
}

#[test]
fn routes_have_targets_in_their_vpc() {
    let mut world = World::born(POOL);
    let vpc = make_vpc(&mut world, "10.0.0.0/16");
    let table = world.vpcs[&vpc].main_route_table;
    let gateway = world.ids.next();
    world.run(|draft| gateway::create(draft, gateway, Tags::default())).unwrap();
    let route = |destination: &str, gateway: String| RouteInput {
        route_table_id: table.to_string(),
        destination_cidr_block: destination.into(),
        gateway_id: gateway,
        ..Default::default()
    };
    let out = route("0.0.0.0/0", gateway.to_string()).parse().unwrap();
    let refusal = world.run(|draft| route::create(draft, out)).unwrap_err();
    assert_eq!(refusal.reason, "InvalidParameterValue");
    assert!(refusal.message.contains("belong to different networks"));
    assert_eq!(reason(world.run(|draft| route::replace(draft, out))), "InvalidRoute.NotFound");
    world.run(|draft| gateway::attach(draft, gateway, vpc)).unwrap();
    world.run(|draft| route::create(draft, out)).unwrap();
    assert_eq!(reason(world.run(|draft| route::create(draft, out))), "RouteAlreadyExists");
    world.run(|draft| gateway::detach(draft, gateway, vpc)).unwrap();
    assert_eq!(world.route_tables[&table].routes[1].state.as_str(), "blackhole");
    world.run(|draft| gateway::attach(draft, gateway, vpc)).unwrap();
    assert_eq!(world.route_tables[&table].routes[1].state.as_str(), "active");
    let within = route("10.0.3.0/24", gateway.to_string()).parse().unwrap();
    assert_eq!(reason(world.run(|draft| route::create(draft, within))), "InvalidParameterValue");
    let local = "10.0.0.0/16".parse().unwrap();
    assert_eq!(reason(world.run(|draft| route::delete(draft, table, local))), "InvalidParameterValue");
    assert_eq!(reason(world.run(|draft| route::delete(draft, table, "9.0.0.0/8".parse().unwrap()))), "InvalidRoute.NotFound");
    world.run(|draft| route::delete(draft, table, out.destination)).unwrap();
    assert_eq!(reason(route("0.0.0.0/0", String::new()).parse()), "MissingParameter");
    let two = RouteInput { instance_id: InstanceId::from_number(1).to_string(), ..route("0.0.0.0/0", gateway.to_string()) };
    assert_eq!(reason(two.parse()), "InvalidParameterCombination");
    world.audit();
}

#[test]
fn the_main_table_moves_and_does_not_vanish() {
    let mut world = World::born(POOL);
    let vpc = make_vpc(&mut world, "10.0.0.0/16");
    let subnet = make_subnet(&mut world, vpc, "10.0.1.0/24").unwrap();
    let (main, other) = (world.vpcs[&vpc].main_route_table, world.ids.next());
    let old = world.route_tables[&main].associations[0].id;
    world.run(|draft| route_table::create(draft, other, vpc, Tags::default())).unwrap();
    assert_eq!(reason(world.run(|draft| route_table::delete(draft, main))), "DependencyViolation");
    assert_eq!(reason(world.run(|draft| route_table::disassociate(draft, old))), "InvalidParameterValue");
    let (one, two, three) = (world.ids.next(), world.ids.next(), world.ids.next());
    world.run(|draft| route_table::associate(draft, other, subnet, one)).unwrap();
    let again = world.run(|draft| route_table::associate(draft, other, subnet, two)).unwrap();
    assert_eq!(again.id, one);
    assert_eq!(reason(world.run(|draft| route_table::associate(draft, main, subnet, two))), "Resource.AlreadyAssociated");
    assert_eq!(reason(world.run(|draft| route_table::delete(draft, other))), "DependencyViolation");
    let default = world.vpcs[&world.default_vpc_id()].main_route_table;
    assert_eq!(reason(world.run(|draft| route_table::associate(draft, default, subnet, two))), "InvalidParameterValue");
    world.run(|draft| route_table::replace_association(draft, one, main, two)).unwrap();
    world.run(|draft| route_table::replace_association(draft, old, other, three)).unwrap();
    assert_eq!(world.vpcs[&vpc].main_route_table, other);
    assert_eq!(reason(world.run(|draft| route_table::disassociate(draft, old))), RouteTableAssociationId::NOT_FOUND);
    world.run(|draft| subnet::delete(draft, subnet)).unwrap();
    world.run(|draft| route_table::delete(draft, main)).unwrap();
    world.audit();
}

#[test]
fn interfaces_are_plugged_in_and_pulled_out() {
    let mut world = World::born(POOL);
    let subnets = world.default_subnets();
    let primary = launch(&mut world, subnets[0], None);
    let (instance, now) = (primary.instance().unwrap(), world.now);
    let near = make_interface(&mut world, subnets[0], None).unwrap();
    let far = make_interface(&mut world, subnets[1], None).unwrap();
    let attach = |world: &mut World, id, instance, device| {
        let attachment = world.ids.next();
        world.run(|draft| attachment::attach(draft, id, instance, device, attachment, now)).map(|_| attachment)
    };
    assert_eq!(reason(attach(&mut world, near.id, InstanceId::from_number(1), 1)), "InvalidInstanceID.NotFound");
    assert_eq!(reason(attach(&mut world, near.id, instance, 0)), "InvalidParameterValue");
    assert_eq!(reason(attach(&mut world, far.id, instance, 1)), "InvalidParameterValue");
    let attachment = attach(&mut world, near.id, instance, 1).unwrap();
    assert!(matches!(world.interfaces[&near.id].state, InterfaceState::Attaching { .. }));
    assert_eq!(reason(attach(&mut world, near.id, instance, 2)), "InvalidNetworkInterface.InUse");
    let third = make_interface(&mut world, subnets[0], None).unwrap();
    assert_eq!(reason(attach(&mut world, third.id, instance, 2)), "AttachmentLimitExceeded");
    // Another type has another limit. What is attached already counts, also while it is being plugged in.
    world.run(|draft| attachment::set_limit(draft, instance, 3, Excess::Refused)).unwrap();
    let attached = attach(&mut world, third.id, instance, 2).unwrap();
    let limits = |world: &World| -> Vec<u32> {
        world.interfaces.values().filter_map(|interface| Some(interface.attachment()?.interface_limit)).collect()
    };
    assert_eq!(limits(&world), [3, 3, 3]);
    assert_eq!(reason(world.run(|draft| attachment::set_limit(draft, instance, 2, Excess::Refused))), "AttachmentLimitExceeded");
    assert_eq!(limits(&world), [3, 3, 3]);
    world.run(|draft| attachment::set_limit(draft, instance, 2, Excess::Stays)).unwrap();
    world.run(|draft| attachment::detach(draft, attached, true, now)).unwrap();
    assert_eq!(reason(attach(&mut world, third.id, instance, 2)), "AttachmentLimitExceeded");
    world.run(|draft| attachment::set_limit(draft, InstanceId::from_number(1), 2, Excess::Refused)).unwrap();
    assert_eq!(reason(world.run(|draft| attachment::detach(draft, attachment, false, now))), "IncorrectState");
    world.run(|draft| attachment::settle(draft, attachment, now)).unwrap();
    assert_eq!(world.interfaces[&near.id].state.as_str(), "in-use");
    assert_eq!(reason(world.run(|draft| interface_create::delete(draft, near.id, now))), "InvalidNetworkInterface.InUse");
    let root = primary.attachment().unwrap().id;
    assert_eq!(reason(world.run(|draft| attachment::detach(draft, root, true, now))), "OperationNotPermitted");
    // An instance with two interfaces does not say which one an elastic IP shall lead to.
    let elastic = allocate(&mut world).unwrap();
    assert_eq!(reason(associate(&mut world, elastic, Target::Instance(instance), false)), "InvalidInstanceID");
    associate(&mut world, elastic, Target::Interface(near.id), false).unwrap();
    world.run(|draft| attachment::detach(draft, attachment, false, now)).unwrap();
    world.run(|draft| attachment::settle(draft, attachment, now)).unwrap();
    assert_eq!(world.interfaces[&near.id].state, InterfaceState::Available);
    assert_eq!(world.addresses[&elastic].association.as_ref().map(|known| known.instance_id), Some(None));
    world.run(|draft| interface_create::delete(draft, near.id, now)).unwrap();
    assert!(world.addresses[&elastic].association.is_none());
    world.audit();
}

#[test]
fn the_end_of_an_instance_gives_everything_back() {
    let mut world = World::born(POOL);
    let (subnet, now) = (world.default_subnets()[0], world.now);
    let (interface, kept) = (launch(&mut world, subnet, None), make_interface(&mut world, subnet, None).unwrap());
    let (instance, attachment) = (interface.instance().unwrap(), world.ids.next());
    world.run(|draft| attachment::attach(draft, kept.id, instance, 1, attachment, now)).unwrap();
    let (goes, stays) = (allocate(&mut world).unwrap(), allocate(&mut world).unwrap());
    associate(&mut world, goes, Target::Interface(interface.id), false).unwrap();
    associate(&mut world, stays, Target::Interface(kept.id), false).unwrap();
    let end = [InstanceEnd { instance_id: instance, interface_ids: Vec::new() }];
    for _ in 0..2 {
        world.run(|draft| instance::delete(draft, &end, now)).unwrap();
        assert!(!world.interfaces.contains_key(&interface.id) && world.addresses[&goes].association.is_none());
        assert_eq!(world.interfaces[&kept.id].state, InterfaceState::Available);
        assert!(world.addresses[&stays].association.is_some());
        world.audit();
    }
    assert!(world.ended.is_empty());
    world.converge();
    world.audit_holds();
}

#[test]
fn an_undone_launch_cannot_come_late() {
    let mut world = World::born(POOL);
    let (item, now) = (item(&world, world.default_subnets()[0], None), world.now);
    let (instance, interface) = (item.instance_id, item.interface_id);
    let end = [InstanceEnd { instance_id: instance, interface_ids: vec![interface] }];
    world.held.insert(interface, vec![group(1).id]);
    world.run(|draft| instance::delete(draft, &end, now)).unwrap();
    world.converge();
    world.audit_holds();
    let late = [(item, vec![group(1)])];
    assert_eq!(reason(world.run(|draft| instance::create(draft, &late, now))), "IncorrectInstanceState");
    // Its hold came even later, and nobody is there to tell it so; it is released soon, and when the row goes.
    for left in [1, 0] {
        world.held.insert(interface, vec![group(1).id]);
        let then = instance::due_at(&world.ended[&instance]);
        world.write(|draft| instance::expire(draft, instance, now));
        assert_eq!(instance::due_at(&world.ended[&instance]), then, "too early");
        world.write(|draft| instance::expire(draft, instance, then));
        assert_eq!(world.ended.len(), left);
        world.converge();
        world.audit_holds();
    }
}

#[test]
fn a_batch_is_all_or_nothing() {
    let mut world = World::born("127.8.0.0/30");
    let (subnet, now) = (world.default_subnets()[0], world.now);
    let batch: Vec<_> = (0..4).map(|_| (item(&world, subnet, None), vec![group(1)])).collect();
    let before = world.pool;
    assert_eq!(reason(world.run(|draft| instance::create(draft, &batch, now))), "InsufficientAddressCapacity");
    assert!(world.interfaces.is_empty() && world.pool == before);
    world.run(|draft| instance::create(draft, &batch[..3], now)).unwrap();
    let mut twin = batch[0].clone();
    twin.0.instance_id = world.ids.next();
    assert_eq!(reason(world.run(|draft| instance::create(draft, &[twin], now))), "InvalidNetworkInterface.InUse");
    let inputs = vec![InstanceInterfaceInput { create: Some((NewInterfaceInput::default(), None)), ..Default::default() }; 2];
    let refusal = instance::parse_batch(inputs).unwrap_err();
    assert_eq!(refusal.violations.iter().filter(|one| one.field == "interfaces[1].create.subnet_id").count(), 1);
    assert!(refusal.violations.iter().any(|one| one.description.contains("given twice")));
    world.audit();
}

fn place(world: &World, input: LaunchInput) -> Result<Resolved, Refusal> {
    let launch = input.parse(&Region::default())?;
    world.read(|draft| resolve(draft, &launch)).map_err(Refusal::from)
}

#[test]
fn a_launch_learns_of_each_interface_what_is_wrong() {
    let world = World::born(POOL);
    let zones = world.default_subnets();
    let interfaces = vec![
        LaunchInterfaceInput { subnet_id: zones[0].to_string(), private_ip_address: "10.9.9.9".into(), ..Default::default() },
        LaunchInterfaceInput { subnet_id: "subnet-0123456789abcdef0".into(), ..Default::default() },
        LaunchInterfaceInput { network_interface_id: "eni-0123456789abcdef0".into(), ..Default::default() },
        LaunchInterfaceInput { subnet_id: zones[1].to_string(), ..Default::default() },
    ];
    let refusal = place(&world, LaunchInput { availability_zone: "us-east-1a".into(), interfaces, ..Default::default() }).unwrap_err();
    assert_eq!(refusal.reason, "InvalidParameterValue");
    let fields: Vec<&str> = refusal.violations.iter().map(|violation| violation.field.as_str()).collect();
    let expected =
        ["interfaces[0].private_ip_address", "interfaces[3].subnet_id", "interfaces[1].subnet_id", "interfaces[2].network_interface_id"];
    for field in expected {
        assert!(fields.contains(&field), "{field} is not among {fields:?}");
    }
    assert_eq!(fields.len(), expected.len(), "{fields:?}");
}

#[test]
fn a_launch_finds_its_place() {
    let mut world = World::born(POOL);
    let subnets = world.default_subnets();
    let plain = || vec![LaunchInterfaceInput::default()];
    let zones: Vec<_> =
        (0..4).map(|hint| place(&world, LaunchInput { interfaces: plain(), hint, ..Default::default() }).unwrap().zone).collect();
    assert_eq!(zones, ["us-east-1a", "us-east-1b", "us-east-1c", "us-east-1a"]);
    let b = place(&world, LaunchInput { availability_zone: "us-east-1b".into(), interfaces: plain(), ..Default::default() }).unwrap();
    assert_eq!((b.interfaces[0].subnet_id, b.interfaces[0].public_by_default), (subnets[1], true));
    let in_subnet = |id: SubnetId| LaunchInterfaceInput { subnet_id: id.to_string(), ..Default::default() };
    let apart = LaunchInput { availability_zone: "us-east-1b".into(), interfaces: vec![in_subnet(subnets[0])], ..Default::default() };
    assert_eq!(reason(place(&world, apart)), "InvalidParameterValue");
    let nowhere = LaunchInput { availability_zone: "us-east-1d".into(), interfaces: plain(), ..Default::default() };
    assert_eq!(reason(place(&world, nowhere)), "InvalidParameterValue");
    let many = LaunchInput { interfaces: vec![in_subnet(subnets[0])], count: 4092, ..Default::default() };
    assert_eq!(reason(place(&world, many)), "InsufficientFreeAddressesInSubnet");
    // As many as fit, where that is enough; two interfaces of each instance in one subnet are two addresses.
    let least = |min_count, interfaces| LaunchInput { interfaces, count: 9_000, min_count, ..Default::default() };
    assert_eq!(place(&world, least(1, vec![in_subnet(subnets[0])])).unwrap().room, 4_091);
    assert_eq!(place(&world, least(2_045, vec![in_subnet(subnets[0]), in_subnet(subnets[0])])).unwrap().room, 2_045);
    assert_eq!(
        reason(place(&world, least(2_046, vec![in_subnet(subnets[0]), in_subnet(subnets[0])]))),
        "InsufficientFreeAddressesInSubnet"
    );
    let (interface, now) = (launch(&mut world, subnets[2], None), world.now);
    // The default subnet with most room, if none has enough.
    assert_eq!(place(&world, LaunchInput { hint: 1, ..least(1, plain()) }).unwrap().interfaces[0].subnet_id, subnets[1]);
    assert_ne!(place(&world, LaunchInput { hint: 2, ..least(1, plain()) }).unwrap().interfaces[0].subnet_id, subnets[2]);
    let taken = LaunchInterfaceInput { network_interface_id: interface.id.to_string(), ..Default::default() };
    assert_eq!(reason(place(&world, LaunchInput { interfaces: vec![taken], ..Default::default() })), "InvalidNetworkInterface.InUse");
    let wanted = LaunchInterfaceInput { private_ip_address: "172.31.32.4".into(), ..in_subnet(subnets[2]) };
    assert_eq!(reason(place(&world, LaunchInput { interfaces: vec![wanted], ..Default::default() })), "InvalidIPAddress.InUse");
    let free = make_interface(&mut world, subnets[1], None).unwrap();
    let existing = LaunchInterfaceInput { network_interface_id: free.id.to_string(), ..Default::default() };
    // The other interface follows the first into its zone.
    let both = place(&world, LaunchInput { interfaces: vec![existing, LaunchInterfaceInput::default()], ..Default::default() }).unwrap();
    assert_eq!(both.interfaces.iter().map(|one| one.subnet_id).collect::<Vec<_>>(), [subnets[1], subnets[1]]);

    world.run(|draft| subnet::delete(draft, subnets[0])).unwrap();
    let gone = LaunchInput { availability_zone: "us-east-1a".into(), interfaces: plain(), ..Default::default() };
    assert_eq!(reason(place(&world, gone)), "MissingInput");
    let end = [InstanceEnd { instance_id: interface.instance().unwrap(), interface_ids: Vec::new() }];
    world.run(|draft| instance::delete(draft, &end, now)).unwrap();
    world.vpcs.values_mut().for_each(|vpc| vpc.is_default = false);
    assert_eq!(reason(place(&world, LaunchInput { interfaces: plain(), ..Default::default() })), "VPCIdNotSpecified");
}

#[test]
fn tags_change_together_or_not_at_all() {
    let mut world = World::born(POOL);
    let (vpc, subnet) = (world.default_vpc_id(), world.default_subnets()[0]);
    let put = TagChange::Put(Tags([("a".to_owned(), "1".to_owned())].into()));
    let unknown = TaggedId::Subnet(SubnetId::from_number(1));
    assert_eq!(
        reason(world.run(|draft| tag::change(draft, &[TaggedId::Vpc(vpc), unknown], |id| id.to_string(), &put))),
        "InvalidSubnetID.NotFound"
    );
    assert!(world.vpcs[&vpc].tags.is_empty());
    world.run(|draft| tag::change(draft, &[TaggedId::Vpc(vpc), TaggedId::Subnet(subnet)], |id| id.to_string(), &put)).unwrap();
    assert_eq!((world.vpcs[&vpc].tags.get("a"), world.subnets[&subnet].tags.get("a")), (Some("1"), Some("1")));
    assert_eq!(reason(TaggedId::parse("sg-1")), "InvalidID");
    assert_eq!(reason(TaggedId::parse("eni-attach-00000000000000001")), "InvalidNetworkInterfaceId.Malformed");
}

#[test]
fn a_mark_stays_until_security_was_told_what_the_record_says_now() {
    let mut world = World::born(POOL);
    let (interface, now) = (
        {
            let subnet = world.default_subnets()[0];
            launch(&mut world, subnet, None)
        },
        world.now,
    );
    world.write(|draft| hold::settle(draft, interface.id, now));
    // Told of groups that the record no longer has: another change came between.
    world.write(|draft| hold::told(draft, interface.id, &[group(2).id]));
    assert!(world.marks.contains_key(&interface.id));
    world.write(|draft| hold::told(draft, interface.id, &[group(1).id]));
    assert!(world.marks.is_empty());
    // A mark that a call holds is that call's.
    world.run(|draft| hold::begin(draft, interface.id, now)).unwrap();
    assert_eq!(reason(world.run(|draft| hold::begin(draft, interface.id, now))), "IncorrectState");
    world.write(|draft| hold::told(draft, interface.id, &[group(1).id]));
    assert!(world.marks.contains_key(&interface.id));
}

#[test]
fn two_of_a_batch_cannot_have_one_address() {
    let mut world = World::born(POOL);
    let (subnet, now) = (world.default_subnets()[0], world.now);
    let batch: Vec<_> = (0..2)
        .map(|_| {
            let source = Source::Create { new: new_interface(subnet, Some("172.31.0.9")), public: None };
            (InstanceInterface { source, ..item(&world, subnet, None) }, vec![group(1)])
        })
        .collect();
    assert_eq!(reason(world.run(|draft| instance::create(draft, &batch, now))), "InvalidIPAddress.InUse");
    assert!(world.interfaces.is_empty());
}
