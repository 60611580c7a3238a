//! A world in memory: the plainest `View`, and an audit of everything that must always hold.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that unwraps fails where it should")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use gureum_model::{
    IdSource, Refusal, Scope, Timestamp,
    id::{
        AllocationId, AssociationId, AttachmentId, InstanceId, InternetGatewayId, NetworkInterfaceId, ResourceId, RouteTableAssociationId,
        RouteTableId, SecurityGroupId, SubnetId, VpcId,
    },
};
use gureum_network_domain::{
    Changes, Draft, ElasticAddress, EndedInstance, HoldMark, InternetGateway, Limits, NetworkInterface, PublicPool, RouteTable, Row, Rules,
    ScopeBirth, Subnet, View, Vpc,
    address::AssociationState,
    cidr,
    hold::{self, HoldPlan},
    interface::{Group, InterfaceState},
    pool::Ranges,
    route_table::{RouteState, RouteTarget},
    scope::{self, DefaultVpcIds},
    vpc::{self, VpcPlan},
};

pub struct World {
    pub scope: Scope,
    pub rules: Rules,
    pub ids: IdSource,
    pub now: Timestamp,
    pub vpcs: BTreeMap<VpcId, Vpc>,
    pub subnets: BTreeMap<SubnetId, Subnet>,
    pub gateways: BTreeMap<InternetGatewayId, InternetGateway>,
    pub route_tables: BTreeMap<RouteTableId, RouteTable>,
    pub interfaces: BTreeMap<NetworkInterfaceId, NetworkInterface>,
    pub addresses: BTreeMap<AllocationId, ElasticAddress>,
    pub marks: BTreeMap<NetworkInterfaceId, HoldMark>,
    pub ended: BTreeMap<InstanceId, EndedInstance>,
    pub birth: Option<ScopeBirth>,
    pub pool: PublicPool,
    /// What security would hold.
    pub held: BTreeMap<NetworkInterfaceId, Vec<SecurityGroupId>>,
    /// VPCs that security knows.
    pub registered: BTreeSet<VpcId>,
}

impl World {
    /// An unborn scope and a public pool of one network.
    pub fn empty(pool: &str) -> Self {
        Self {
            scope: Scope::default(),
            rules: Rules { limits: Limits::default(), public: Ranges::public(&[pool.parse().unwrap()]).unwrap() },
            ids: IdSource::seeded(7),
            now: now(),
            vpcs: BTreeMap::new(),
            subnets: BTreeMap::new(),
            gateways: BTreeMap::new(),
            route_tables: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            addresses: BTreeMap::new(),
            marks: BTreeMap::new(),
            ended: BTreeMap::new(),
            birth: None,
            pool: PublicPool::default(),
            held: BTreeMap::new(),
            registered: BTreeSet::new(),
        }
    }

    /// A born scope.
    pub fn born(pool: &str) -> Self {
        let mut world = Self::empty(pool);
        let ids = DefaultVpcIds::new(&world.ids);
        let now = world.now;
        world.write(|draft| scope::birth(draft, ids, now));
        world.converge();
        world
    }

    /// Decides and commits; a refusal commits nothing.
    pub fn run<T, E: Into<Refusal>>(&mut self, decide: impl FnOnce(&mut Draft<'_, World>) -> Result<T, E>) -> Result<T, Refusal> {
        let mut draft = Draft::new(&*self, &self.rules);
        let answer = decide(&mut draft).map_err(Into::into)?;
        let changes = draft.finish();
        self.apply(changes);
        Ok(answer)
    }

    pub fn write(&mut self, decide: impl FnOnce(&mut Draft<'_, World>)) {
        let mut draft = Draft::new(&*self, &self.rules);
        decide(&mut draft);
        let changes = draft.finish();
        self.apply(changes);
    }

    pub fn read<T>(&self, ask: impl FnOnce(&Draft<'_, World>) -> T) -> T {
        ask(&Draft::new(self, &self.rules))
    }

    pub fn apply(&mut self, changes: Changes) {
        for row in changes.puts {
            match row {
                Row::Vpc(row) => drop(self.vpcs.insert(row.id, row)),
                Row::Subnet(row) => drop(self.subnets.insert(row.id, row)),
                Row::Gateway(row) => drop(self.gateways.insert(row.id, row)),
                Row::RouteTable(row) => drop(self.route_tables.insert(row.id, row)),
                Row::Interface(row) => drop(self.interfaces.insert(row.id, row)),
                Row::Address(row) => drop(self.addresses.insert(row.id, row)),
                Row::HoldMark(row) => drop(self.marks.insert(row.interface_id, row)),
                Row::Ended(row) => drop(self.ended.insert(row.instance_id, row)),
                Row::Birth(row) => self.birth = Some(row),
                Row::Pool(row) => self.pool = row,
            }
        }
        for row in changes.removes {
            let was_there = match row {
                Row::Vpc(row) => self.vpcs.remove(&row.id).is_some(),
                Row::Subnet(row) => self.subnets.remove(&row.id).is_some(),
                Row::Gateway(row) => self.gateways.remove(&row.id).is_some(),
                Row::RouteTable(row) => self.route_tables.remove(&row.id).is_some(),
                Row::Interface(row) => self.interfaces.remove(&row.id).is_some(),
                Row::Address(row) => self.addresses.remove(&row.id).is_some(),
                Row::HoldMark(row) => self.marks.remove(&row.interface_id).is_some(),
                Row::Ended(row) => self.ended.remove(&row.instance_id).is_some(),
                Row::Birth(_) | Row::Pool(_) => false,
            };
            assert!(was_there, "a row goes that was not there");
        }
    }

    /// Carries out every plan, as the reconcilers would with no call under way.
    pub fn converge(&mut self) {
        for id in self.vpcs.keys().copied().collect::<Vec<_>>() {
            self.step_vpc(id);
        }
        for _ in 0..3 {
            for id in self.marks.keys().copied().collect::<Vec<_>>() {
                self.step_mark(id);
            }
        }
    }

    pub fn step_vpc(&mut self, id: VpcId) {
        match vpc::plan(&self.vpcs[&id]) {
            VpcPlan::Register { .. } => {
                self.registered.insert(id);
                let group = SecurityGroupId::from_number(id.number());
                self.write(|draft| vpc::registered(draft, id, group));
            }
            VpcPlan::Unregister => {
                self.registered.remove(&id);
                self.write(|draft| vpc::unregistered(draft, id));
            }
            VpcPlan::Settled => {}
        }
    }

    pub fn step_mark(&mut self, id: NetworkInterfaceId) {
        let Some(mark) = self.marks.get(&id) else { return };
        let now = self.now;
        match hold::plan(mark, self.interfaces.get(&id), false) {
            HoldPlan::Leave => {}
            HoldPlan::TakeOver => self.write(|draft| hold::settle(draft, id, now)),
            HoldPlan::Hold { groups, .. } => {
                self.held.insert(id, groups.clone());
                self.write(|draft| hold::told(draft, id, &groups));
            }
            HoldPlan::Release => {
                self.held.remove(&id);
                self.write(|draft| hold::told(draft, id, &[]));
            }
        }
    }

    pub fn default_vpc_id(&self) -> VpcId {
        self.default_vpc().unwrap().id
    }

    /// The default subnets, in the order of their zones.
    pub fn default_subnets(&self) -> Vec<SubnetId> {
        let mut subnets: Vec<_> = self.subnets.values().filter(|subnet| subnet.default_for_zone).collect();
        subnets.sort_by(|one, other| one.zone.cmp(&other.zone));
        subnets.into_iter().map(|subnet| subnet.id).collect()
    }

    /// Everything that must hold whatever was done.
    pub fn audit(&self) {
        self.audit_private();
        self.audit_public();
        self.audit_topology();
        self.audit_instances();
    }

    fn audit_private(&self) {
        for subnet in self.subnets.values() {
            let mut seen = BTreeSet::new();
            let inside = self.interfaces.values().filter(|interface| interface.subnet_id == subnet.id);
            for private in inside.flat_map(|interface| &interface.private_addresses) {
                assert!(Ranges::subnet(subnet.cidr).contains(private.address), "{} outside {}", private.address, subnet.cidr);
                assert!(seen.insert(private.address), "{} is held twice", private.address);
            }
            assert_eq!(subnet.used as usize, seen.len(), "the count of {}", subnet.id);
        }
        for interface in self.interfaces.values() {
            let subnet = &self.subnets[&interface.subnet_id];
            assert_eq!((subnet.vpc_id, &subnet.zone), (interface.vpc_id, &interface.zone));
            assert!(!interface.private_addresses.is_empty());
        }
    }

    fn audit_public(&self) {
        let mut held: BTreeMap<Ipv4Addr, &str> = BTreeMap::new();
        for elastic in self.addresses.values() {
            assert!(held.insert(elastic.address, "elastic").is_none(), "{} is held twice", elastic.address);
            if let Some(association) = &elastic.association {
                let interface = &self.interfaces[&association.interface_id];
                let private = interface.private_addresses.iter().find(|private| private.address == association.private_address).unwrap();
                assert_eq!(private.public.unwrap().elastic(), Some((elastic.id, association.id)));
                assert_eq!(association.instance_id, interface.instance());
            }
        }
        for interface in self.interfaces.values() {
            for public in interface.private_addresses.iter().filter_map(|private| private.public) {
                match public.elastic() {
                    Some((allocation, association)) => {
                        let known = self.addresses[&allocation].association.as_ref().unwrap();
                        assert_eq!(
                            (known.id, known.interface_id, self.addresses[&allocation].address),
                            (association, interface.id, public.address())
                        );
                    }
                    None => assert!(held.insert(public.address(), "pool").is_none(), "{} is held twice", public.address()),
                }
                assert!(self.gateway_of(interface.vpc_id).is_some(), "{} is public in a VPC without a gateway", interface.id);
            }
        }
        self.audit_releasing(&mut held);
        assert!(held.keys().all(|address| self.rules.public.contains(*address)));
        assert_eq!(self.pool.used, held.len() as u64, "the count of the pool");
    }

    /// What an instance has yet to let go of nobody else holds, and it stands at the instance's primary interface.
    fn audit_releasing<'a>(&'a self, held: &mut BTreeMap<Ipv4Addr, &'a str>) {
        let mut releasing = BTreeMap::new();
        for interface in self.interfaces.values() {
            for known in &interface.releasing {
                let attachment = interface.attachment().expect("a free interface has nothing to let go of");
                assert_eq!(attachment.device_index, 0);
                assert!(releasing.insert(known.address, attachment.instance_id).is_none(), "{} is let go of twice", known.address);
            }
        }
        let publics =
            self.interfaces.values().flat_map(|interface| interface.private_addresses.iter().map(move |private| (interface, private)));
        for (interface, public) in publics.filter_map(|(interface, private)| Some((interface, private.public?))) {
            assert_eq!(public.is_waiting(), releasing.contains_key(&public.address()), "{} at {}", public.address(), interface.id);
        }
        for elastic in self.addresses.values() {
            let waits = match elastic.association.as_ref().map(|association| association.state) {
                Some(AssociationState::Waiting { holder, .. }) => Some(holder),
                Some(AssociationState::Associated { .. }) => None,
                None => continue,
            };
            assert_eq!(waits, releasing.get(&elastic.address).copied(), "{}", elastic.address);
        }
        for address in releasing.into_keys() {
            held.entry(address).or_insert("to be let go of");
        }
    }

    fn audit_topology(&self) {
        for vpc in self.vpcs.values() {
            let tables: Vec<_> = self.route_tables.values().filter(|table| table.vpc_id == vpc.id).collect();
            let main: Vec<_> = tables.iter().filter(|table| table.is_main()).collect();
            assert_eq!(main.iter().map(|table| table.id).collect::<Vec<_>>(), [vpc.main_route_table]);
            let subnets: Vec<_> = self.subnets.values().filter(|subnet| subnet.vpc_id == vpc.id).collect();
            for (place, one) in subnets.iter().enumerate() {
                assert!(vpc.cidr.contains(&one.cidr));
                assert!(subnets[place + 1..].iter().all(|other| !cidr::overlap(one.cidr, other.cidr)));
                assert!(tables.iter().filter(|table| table.serves(one.id)).count() <= 1);
            }
            assert!(self.gateways.values().filter(|gateway| gateway.vpc_id == Some(vpc.id)).count() <= 1);
        }
        for table in self.route_tables.values() {
            assert!(self.vpcs.contains_key(&table.vpc_id));
            assert!(table.associations.iter().filter_map(|association| association.subnet).all(|id| self.subnets.contains_key(&id)));
            for route in &table.routes {
                let there = match route.target {
                    RouteTarget::Local => true,
                    RouteTarget::Gateway(id) => self.gateways.get(&id).is_some_and(|gateway| gateway.vpc_id == Some(table.vpc_id)),
                    RouteTarget::Interface(id) => self.interfaces.get(&id).is_some_and(|interface| interface.attachment().is_some()),
                };
                assert_eq!(there, route.state != RouteState::Blackhole, "{} of {}", route.destination, table.id);
            }
        }
        assert!(self.subnets.values().all(|subnet| self.vpcs.contains_key(&subnet.vpc_id)));
        assert!(self.vpcs.values().filter(|vpc| vpc.is_default).count() <= 1);
    }

    fn audit_instances(&self) {
        let mut seen = BTreeSet::new();
        for interface in self.interfaces.values() {
            if let Some(attachment) = interface.attachment() {
                assert!(seen.insert((attachment.instance_id, attachment.device_index)), "a device index is used twice");
            } else {
                assert_eq!(interface.state, InterfaceState::Available);
                assert!(interface.private_addresses.iter().all(|private| private.public.is_none_or(|public| public.elastic().is_some())));
            }
        }
    }

    /// At every moment: security holds at least the groups of each interface.
    pub fn audit_held(&self) {
        for interface in self.interfaces.values() {
            let held = self.held.get(&interface.id).unwrap();
            assert!(interface.group_ids().iter().all(|id| held.contains(id)), "{} is without a hold", interface.id);
        }
    }

    /// After [`World::converge`]: security holds exactly what the records say, and knows exactly the VPCs.
    pub fn audit_holds(&self) {
        assert!(self.marks.is_empty(), "{:?}", self.marks);
        let wanted: BTreeMap<_, _> = self.interfaces.values().map(|interface| (interface.id, interface.group_ids())).collect();
        assert_eq!(self.held, wanted);
        assert_eq!(self.registered, self.vpcs.keys().copied().collect());
    }
}

/// The time at which every world is.
pub fn now() -> Timestamp {
    Timestamp::from_secs(1_000_000)
}

pub fn group(number: u128) -> Group {
    Group { id: SecurityGroupId::from_number(number), name: format!("g{number}") }
}

pub fn reason<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> &'static str {
    answer.map_err(|refusal| refusal.reason).unwrap_err()
}

impl View for World {
    fn scope(&self) -> &Scope {
        &self.scope
    }
    fn birth(&self) -> Option<&ScopeBirth> {
        self.birth.as_ref()
    }
    fn vpc(&self, id: VpcId) -> Option<&Vpc> {
        self.vpcs.get(&id)
    }
    fn default_vpc(&self) -> Option<&Vpc> {
        self.vpcs.values().find(|vpc| vpc.is_default)
    }
    fn vpc_count(&self, up_to: usize) -> usize {
        self.vpcs.len().min(up_to)
    }
    fn subnet(&self, id: SubnetId) -> Option<&Subnet> {
        self.subnets.get(&id)
    }
    fn subnets_of(&self, vpc: VpcId) -> Vec<&Subnet> {
        self.subnets.values().filter(|subnet| subnet.vpc_id == vpc).collect()
    }
    fn gateway(&self, id: InternetGatewayId) -> Option<&InternetGateway> {
        self.gateways.get(&id)
    }
    fn gateway_of(&self, vpc: VpcId) -> Option<&InternetGateway> {
        self.gateways.values().find(|gateway| gateway.vpc_id == Some(vpc))
    }
    fn gateway_count(&self, up_to: usize) -> usize {
        self.gateways.len().min(up_to)
    }
    fn route_table(&self, id: RouteTableId) -> Option<&RouteTable> {
        self.route_tables.get(&id)
    }
    fn route_tables_of(&self, vpc: VpcId) -> Vec<&RouteTable> {
        self.route_tables.values().filter(|table| table.vpc_id == vpc).collect()
    }
    fn route_table_with(&self, association: RouteTableAssociationId) -> Option<&RouteTable> {
        self.route_tables.values().find(|table| table.associations.iter().any(|known| known.id == association))
    }
    fn interface(&self, id: NetworkInterfaceId) -> Option<&NetworkInterface> {
        self.interfaces.get(&id)
    }
    fn interface_with(&self, attachment: AttachmentId) -> Option<&NetworkInterface> {
        self.interfaces.values().find(|interface| interface.attachment().is_some_and(|known| known.id == attachment))
    }
    fn interfaces_of(&self, instance: InstanceId) -> Vec<&NetworkInterface> {
        self.interfaces.values().filter(|interface| interface.instance() == Some(instance)).collect()
    }
    fn interfaces_in(&self, subnet: SubnetId, limit: usize) -> Vec<&NetworkInterface> {
        self.interfaces.values().filter(|interface| interface.subnet_id == subnet).take(limit).collect()
    }
    fn public_interfaces_in(&self, vpc: VpcId, limit: usize) -> Vec<&NetworkInterface> {
        self.interfaces.values().filter(|interface| interface.vpc_id == vpc && interface.has_public()).take(limit).collect()
    }
    fn next_private(&self, subnet: SubnetId, from: Ipv4Addr) -> Option<Ipv4Addr> {
        let inside = self.interfaces.values().filter(|interface| interface.subnet_id == subnet);
        inside.flat_map(|interface| &interface.private_addresses).map(|private| private.address).filter(|address| *address >= from).min()
    }
    fn address(&self, id: AllocationId) -> Option<&ElasticAddress> {
        self.addresses.get(&id)
    }
    fn address_at(&self, address: Ipv4Addr) -> Option<&ElasticAddress> {
        self.addresses.values().find(|elastic| elastic.address == address)
    }
    fn address_with(&self, association: AssociationId) -> Option<&ElasticAddress> {
        self.addresses.values().find(|elastic| elastic.association.as_ref().is_some_and(|known| known.id == association))
    }
    fn releasing(&self, address: Ipv4Addr) -> Option<&NetworkInterface> {
        self.interfaces.values().find(|interface| interface.releasing.iter().any(|known| known.address == address))
    }
    fn address_count(&self, up_to: usize) -> usize {
        self.addresses.len().min(up_to)
    }
    fn hold_mark(&self, interface: NetworkInterfaceId) -> Option<&HoldMark> {
        self.marks.get(&interface)
    }
    fn ended(&self, instance: InstanceId) -> Option<&EndedInstance> {
        self.ended.get(&instance)
    }
    fn next_public(&self, from: Ipv4Addr) -> Option<Ipv4Addr> {
        let of_interfaces =
            self.interfaces.values().flat_map(|interface| &interface.private_addresses).filter_map(|private| private.public);
        let left = self.interfaces.values().flat_map(|interface| &interface.releasing).map(|known| known.address);
        let all = of_interfaces.map(|public| public.address()).chain(self.addresses.values().map(|elastic| elastic.address)).chain(left);
        all.filter(|address| *address >= from).min()
    }
    fn public_pool(&self) -> PublicPool {
        self.pool
    }
}
