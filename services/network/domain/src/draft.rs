//! A decision in the making: what it reads, and what it stages.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use gureum_model::{
    Refusal, RefusalKind, Scope,
    id::{
        AllocationId, AssociationId, AttachmentId, InstanceId, InternetGatewayId, NetworkInterfaceId, RouteTableAssociationId,
        RouteTableId, SubnetId, VpcId,
    },
};

use crate::{
    ElasticAddress, EndedInstance, HoldMark, InternetGateway, Missing, NetworkInterface, PublicPool, RouteTable, Rules, ScopeBirth, Subnet,
    View, Vpc,
    pool::{Ranges, cursor_after},
};

/// One row of any table.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    Vpc(Vpc),
    Subnet(Subnet),
    Gateway(InternetGateway),
    RouteTable(RouteTable),
    Interface(NetworkInterface),
    Address(ElasticAddress),
    HoldMark(HoldMark),
    Ended(EndedInstance),
    Birth(ScopeBirth),
    Pool(PublicPool),
}

/// What a decision changes: to be written in one atomic commit, each row with its event.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Changes {
    /// Rows that are new or different.
    pub puts: Vec<Row>,
    /// Rows that go, as they last were.
    pub removes: Vec<Row>,
}

impl Changes {
    /// Nothing changes: the world is already as it was wanted.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.removes.is_empty()
    }
}

/// Why an address cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressingError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error("Address {address} does not fall within the subnet's address range {cidr}")]
    OutsideSubnet { address: Ipv4Addr, cidr: ipnet::Ipv4Net },
    #[error("Address {address} is in subnet's reserved address range: the first four addresses of {cidr} and the last are not given out")]
    Reserved { address: Ipv4Addr, cidr: ipnet::Ipv4Net },
    #[error("Address {0} is in use")]
    InUse(Ipv4Addr),
    #[error("the specified subnet {0} does not have enough free addresses to satisfy the request")]
    SubnetFull(SubnetId),
    #[error("Address {0} is not an address of the public pool")]
    OutsidePool(Ipv4Addr),
    #[error("not enough available addresses to satisfy your request: all {0} addresses of the public pool are held")]
    PoolEmpty(u64),
}

impl From<AddressingError> for Refusal {
    fn from(error: AddressingError) -> Self {
        let text = error.to_string();
        match error {
            AddressingError::Missing(missing) => missing.into(),
            AddressingError::OutsideSubnet { .. } | AddressingError::Reserved { .. } => Self::invalid("private_ip_address", text),
            AddressingError::InUse(_) => Self::wrong_state("InvalidIPAddress.InUse", text),
            AddressingError::SubnetFull(_) => Self::new(RefusalKind::Exhausted, "InsufficientFreeAddressesInSubnet", text),
            AddressingError::OutsidePool(_) => Self::invalid("address", text),
            AddressingError::PoolEmpty(_) => Self::new(RefusalKind::Exhausted, "InsufficientAddressCapacity", text),
        }
    }
}

/// Rows of one kind on top of those that are there; `None` is one that goes.
#[derive(Debug)]
struct Stage<I, R>(BTreeMap<I, Option<R>>);

impl<I: Copy + Ord, R: Clone + PartialEq> Stage<I, R> {
    fn new() -> Self {
        Self(BTreeMap::new())
    }

    fn over<'a>(&'a self, id: I, below: Option<&'a R>) -> Option<&'a R> {
        self.0.get(&id).map_or(below, Option::as_ref)
    }

    fn merge<'a>(&'a self, below: Vec<&'a R>, id: impl Fn(&R) -> I, belongs: impl Fn(&R) -> bool) -> Vec<&'a R> {
        let mut rows: Vec<&R> = below.into_iter().filter(|row| !self.0.contains_key(&id(row))).collect();
        rows.extend(self.0.values().flatten().filter(|row| belongs(row)));
        rows
    }

    fn any(&self, holds: impl Fn(&R) -> bool) -> Option<&R> {
        self.0.values().flatten().find(|row| holds(row))
    }

    fn finish<'v>(self, below: impl Fn(I) -> Option<&'v R>, kind: impl Fn(R) -> Row, changes: &mut Changes)
    where
        R: 'v,
    {
        for (id, staged) in self.0 {
            match (staged, below(id)) {
                (Some(row), Some(same)) if row == *same => {}
                (Some(row), _) => changes.puts.push(kind(row)),
                (None, Some(gone)) => changes.removes.push(kind(gone.clone())),
                (None, None) => {}
            }
        }
    }
}

/// Reads a [`View`], its own staged rows included, and stages more.
pub struct Draft<'v, V> {
    view: &'v V,
    rules: &'v Rules,
    vpcs: Stage<VpcId, Vpc>,
    subnets: Stage<SubnetId, Subnet>,
    gateways: Stage<InternetGatewayId, InternetGateway>,
    route_tables: Stage<RouteTableId, RouteTable>,
    interfaces: Stage<NetworkInterfaceId, NetworkInterface>,
    addresses: Stage<AllocationId, ElasticAddress>,
    hold_marks: Stage<NetworkInterfaceId, HoldMark>,
    ended: Stage<InstanceId, EndedInstance>,
    birth: Option<ScopeBirth>,
    pool: PublicPool,
    /// Addresses taken by this draft. Those it frees are not given out again by it.
    taken_private: BTreeMap<SubnetId, BTreeSet<Ipv4Addr>>,
    taken_public: BTreeSet<Ipv4Addr>,
}

impl<'v, V: View> Draft<'v, V> {
    pub fn new(view: &'v V, rules: &'v Rules) -> Self {
        Self {
            view,
            rules,
            vpcs: Stage::new(),
            subnets: Stage::new(),
            gateways: Stage::new(),
            route_tables: Stage::new(),
            interfaces: Stage::new(),
            addresses: Stage::new(),
            hold_marks: Stage::new(),
            ended: Stage::new(),
            birth: None,
            pool: view.public_pool(),
            taken_private: BTreeMap::new(),
            taken_public: BTreeSet::new(),
        }
    }

    /// What really changed. The order is that of ids within a kind, and of kinds as [`Row`] names them.
    pub fn finish(self) -> Changes {
        let mut changes = Changes::default();
        let view = self.view;
        self.vpcs.finish(|id| view.vpc(id), Row::Vpc, &mut changes);
        self.subnets.finish(|id| view.subnet(id), Row::Subnet, &mut changes);
        self.gateways.finish(|id| view.gateway(id), Row::Gateway, &mut changes);
        self.route_tables.finish(|id| view.route_table(id), Row::RouteTable, &mut changes);
        self.interfaces.finish(|id| view.interface(id), Row::Interface, &mut changes);
        self.addresses.finish(|id| view.address(id), Row::Address, &mut changes);
        self.hold_marks.finish(|id| view.hold_mark(id), Row::HoldMark, &mut changes);
        self.ended.finish(|id| view.ended(id), Row::Ended, &mut changes);
        changes.puts.extend(self.birth.map(Row::Birth));
        if self.pool != view.public_pool() {
            changes.puts.push(Row::Pool(self.pool));
        }
        changes
    }

    pub fn scope(&self) -> &'v Scope {
        self.view.scope()
    }

    pub fn rules(&self) -> &'v Rules {
        self.rules
    }
}

macro_rules! kinds {
    ($($stage:ident $get:ident $put:ident $remove:ident $id:ty => $record:ty, $missing:ident;)*) => {
        impl<V: View> Draft<'_, V> {$(
            pub fn $get(&self, id: $id) -> Result<&$record, Missing> {
                self.$stage.over(id, self.view.$get(id)).ok_or(Missing::$missing(id))
            }

            pub fn $put(&mut self, row: $record) {
                self.$stage.0.insert(row.id, Some(row));
            }

            pub fn $remove(&mut self, id: $id) {
                self.$stage.0.insert(id, None);
            }
        )*}
    };
}

kinds! {
    vpcs vpc put_vpc remove_vpc VpcId => Vpc, Vpc;
    subnets subnet put_subnet remove_subnet SubnetId => Subnet, Subnet;
    gateways gateway put_gateway remove_gateway InternetGatewayId => InternetGateway, Gateway;
    route_tables route_table put_route_table remove_route_table RouteTableId => RouteTable, RouteTable;
    interfaces interface put_interface remove_interface NetworkInterfaceId => NetworkInterface, Interface;
    addresses address put_address remove_address AllocationId => ElasticAddress, Allocation;
}

impl<V: View> Draft<'_, V> {
    pub fn default_vpc(&self) -> Option<&Vpc> {
        self.vpcs.any(|vpc| vpc.is_default).or_else(|| {
            let below = self.view.default_vpc()?;
            self.vpcs.over(below.id, Some(below)).filter(|vpc| vpc.is_default)
        })
    }

    pub fn vpc_count(&self, up_to: usize) -> usize {
        self.view.vpc_count(up_to)
    }

    pub fn gateway_count(&self, up_to: usize) -> usize {
        self.view.gateway_count(up_to)
    }

    pub fn address_count(&self, up_to: usize) -> usize {
        self.view.address_count(up_to)
    }

    pub fn subnets_of(&self, vpc: VpcId) -> Vec<&Subnet> {
        self.subnets.merge(self.view.subnets_of(vpc), |row| row.id, |row| row.vpc_id == vpc)
    }

    pub fn gateway_of(&self, vpc: VpcId) -> Option<&InternetGateway> {
        self.gateways.merge(self.view.gateway_of(vpc).into_iter().collect(), |row| row.id, |row| row.vpc_id == Some(vpc)).pop()
    }

    pub fn route_tables_of(&self, vpc: VpcId) -> Vec<&RouteTable> {
        self.route_tables.merge(self.view.route_tables_of(vpc), |row| row.id, |row| row.vpc_id == vpc)
    }

    pub fn route_table_with(&self, association: RouteTableAssociationId) -> Result<&RouteTable, Missing> {
        let has = |row: &RouteTable| row.associations.iter().any(|known| known.id == association);
        let below = self.view.route_table_with(association);
        let found = self.route_tables.merge(below.into_iter().collect(), |row| row.id, has).pop();
        found.ok_or(Missing::RouteTableAssociation(association))
    }

    pub fn interface_with(&self, attachment: AttachmentId) -> Result<&NetworkInterface, Missing> {
        let has = |row: &NetworkInterface| row.attachment().is_some_and(|known| known.id == attachment);
        let below = self.view.interface_with(attachment);
        self.interfaces.merge(below.into_iter().collect(), |row| row.id, has).pop().ok_or(Missing::Attachment(attachment))
    }

    /// The interfaces of an instance, in the order of their device indexes.
    pub fn interfaces_of(&self, instance: InstanceId) -> Vec<&NetworkInterface> {
        let has = |row: &NetworkInterface| row.attachment().is_some_and(|attachment| attachment.instance_id == instance);
        let mut rows = self.interfaces.merge(self.view.interfaces_of(instance), |row| row.id, has);
        rows.sort_by_key(|row| (row.attachment().map(|attachment| attachment.device_index), row.id));
        rows
    }

    pub fn interfaces_in(&self, subnet: SubnetId, limit: usize) -> Vec<&NetworkInterface> {
        // As many more as this draft may have removed.
        let below = self.view.interfaces_in(subnet, limit + self.interfaces.0.len());
        self.interfaces.merge(below, |row| row.id, |row| row.subnet_id == subnet)
    }

    pub fn public_interfaces_in(&self, vpc: VpcId, limit: usize) -> Vec<&NetworkInterface> {
        let below = self.view.public_interfaces_in(vpc, limit + self.interfaces.0.len());
        self.interfaces.merge(below, |row| row.id, |row| row.vpc_id == vpc && row.has_public())
    }

    pub fn address_at(&self, address: Ipv4Addr) -> Result<&ElasticAddress, Missing> {
        let below = self.view.address_at(address);
        let found = self.addresses.merge(below.into_iter().collect(), |row| row.id, |row| row.address == address).pop();
        found.ok_or(Missing::Address(address))
    }

    pub fn address_with(&self, association: AssociationId) -> Result<&ElasticAddress, Missing> {
        let has = |row: &ElasticAddress| row.association.as_ref().is_some_and(|known| known.id == association);
        let below = self.view.address_with(association);
        self.addresses.merge(below.into_iter().collect(), |row| row.id, has).pop().ok_or(Missing::Association(association))
    }

    /// The interface whose instance has yet to let go of this public address.
    pub fn releasing(&self, address: Ipv4Addr) -> Option<&NetworkInterface> {
        let has = |row: &NetworkInterface| row.releasing.iter().any(|known| known.address == address);
        let below = self.view.releasing(address);
        self.interfaces.merge(below.into_iter().collect(), |row| row.id, has).pop()
    }

    pub fn hold_mark(&self, interface: NetworkInterfaceId) -> Option<&HoldMark> {
        self.hold_marks.over(interface, self.view.hold_mark(interface))
    }

    pub fn put_hold_mark(&mut self, mark: HoldMark) {
        self.hold_marks.0.insert(mark.interface_id, Some(mark));
    }

    pub fn remove_hold_mark(&mut self, interface: NetworkInterfaceId) {
        self.hold_marks.0.insert(interface, None);
    }

    pub fn ended(&self, instance: InstanceId) -> Option<&EndedInstance> {
        self.ended.over(instance, self.view.ended(instance))
    }

    pub fn put_ended(&mut self, ended: EndedInstance) {
        self.ended.0.insert(ended.instance_id, Some(ended));
    }

    pub fn remove_ended(&mut self, instance: InstanceId) {
        self.ended.0.insert(instance, None);
    }

    pub fn birth(&self) -> Option<&ScopeBirth> {
        self.birth.as_ref().or_else(|| self.view.birth())
    }

    pub fn put_birth(&mut self, birth: ScopeBirth) {
        self.birth = Some(birth);
    }
}

/// Addresses.
impl<V: View> Draft<'_, V> {
    /// Whether an interface has this address of the subnet.
    pub fn private_in_use(&self, subnet: SubnetId, address: Ipv4Addr) -> bool {
        self.next_private(subnet, address) == Some(address)
    }

    fn next_private(&self, subnet: SubnetId, from: Ipv4Addr) -> Option<Ipv4Addr> {
        let taken = self.taken_private.get(&subnet).and_then(|taken| taken.range(from..).next().copied());
        taken.into_iter().chain(self.view.next_private(subnet, from)).min()
    }

    fn next_public(&self, from: Ipv4Addr) -> Option<Ipv4Addr> {
        self.taken_public.range(from..).next().copied().into_iter().chain(self.view.next_public(from)).min()
    }

    /// Checks that an address of the subnet can be had.
    pub fn check_private(&self, subnet: SubnetId, address: Ipv4Addr) -> Result<(), AddressingError> {
        let cidr = self.subnet(subnet)?.cidr;
        if !cidr.contains(&address) {
            return Err(AddressingError::OutsideSubnet { address, cidr });
        }
        if !Ranges::subnet(cidr).contains(address) {
            return Err(AddressingError::Reserved { address, cidr });
        }
        if self.private_in_use(subnet, address) {
            return Err(AddressingError::InUse(address));
        }
        Ok(())
    }

    /// Takes this address of the subnet, or its next free one.
    pub fn take_private(&mut self, id: SubnetId, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, AddressingError> {
        let subnet = self.subnet(id)?;
        let address = match wanted {
            Some(address) => {
                self.check_private(id, address)?;
                address
            }
            None if subnet.available_addresses() == 0 => return Err(AddressingError::SubnetFull(id)),
            None => Ranges::subnet(subnet.cidr)
                .next_free(subnet.cursor, |from| self.next_private(id, from))
                .ok_or(AddressingError::SubnetFull(id))?,
        };
        let mut next = subnet.clone();
        next.used += 1;
        if wanted.is_none() {
            next.cursor = cursor_after(address);
        }
        self.put_subnet(next);
        self.taken_private.entry(id).or_default().insert(address);
        Ok(address)
    }

    /// Gives a private address back to its subnet.
    pub fn give_back_private(&mut self, id: SubnetId) -> Result<(), AddressingError> {
        let mut next = self.subnet(id)?.clone();
        next.used = next.used.saturating_sub(1);
        self.put_subnet(next);
        Ok(())
    }

    /// Takes this address of the public pool, or its next free one.
    pub fn take_public(&mut self, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, AddressingError> {
        let ranges = &self.rules.public;
        let address = match wanted {
            Some(address) if !ranges.contains(address) => return Err(AddressingError::OutsidePool(address)),
            Some(address) if self.next_public(address) == Some(address) => return Err(AddressingError::InUse(address)),
            Some(address) => address,
            None if self.pool.used >= ranges.capacity() => return Err(AddressingError::PoolEmpty(ranges.capacity())),
            None => {
                ranges.next_free(self.pool.cursor, |from| self.next_public(from)).ok_or(AddressingError::PoolEmpty(ranges.capacity()))?
            }
        };
        self.pool.used += 1;
        if wanted.is_none() {
            self.pool.cursor = cursor_after(address);
        }
        self.taken_public.insert(address);
        Ok(address)
    }

    /// Gives a public address back to the pool.
    pub fn give_back_public(&mut self, address: Ipv4Addr) {
        // One that the ranges no longer have was not counted.
        if self.rules.public.contains(address) {
            self.pool.used = self.pool.used.saturating_sub(1);
        }
    }
}
