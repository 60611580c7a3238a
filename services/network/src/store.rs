//! What the service stores, and how its decisions see it. Everything here is stored; on start only the
//! indexes are rebuilt, and the pool is counted anew in case its ranges were configured otherwise.

use std::net::Ipv4Addr;

use gureum_model::{
    Scope,
    id::{
        AllocationId, AssociationId, AttachmentId, InstanceId, InternetGatewayId, NetworkInterfaceId, RouteTableAssociationId,
        RouteTableId, SubnetId, VpcId,
    },
};
use gureum_network_domain::{
    Changes, ElasticAddress, EndedInstance, HoldMark, InternetGateway, NetworkInterface, PublicPool, RouteTable, Row as DomainRow,
    ScopeBirth, Subnet, View, Vpc, vpc::VpcState,
};
use gureum_proto::{
    Mutation,
    network::v1::{self as proto, event::Resource},
};
use gureum_store::{EventDraft, IndexSink, Listed, Record, TokenKey, Transaction, row, token};
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::api::convert;

gureum_store::schema! {
    /// The tables of the network service.
    pub struct Schema {
        pub vpcs: VpcRow,
        pub subnets: SubnetRow,
        pub gateways: GatewayRow,
        pub route_tables: RouteTableRow,
        pub interfaces: InterfaceRow,
        pub addresses: AddressRow,
        pub hold_marks: HoldMarkRow,
        pub ended: EndedRow,
        pub births: BirthRow,
        pub vpc_deletions: VpcDeletionRow,
        pub pool: PoolRow,
    }
}

/// VPCs by their scope, if they are the default one.
const BY_DEFAULT: &str = "default";
/// Rows for which something is still to be done.
pub const UNSETTLED: &str = "unsettled";
/// Interfaces by subnet and private address.
const BY_PRIVATE: &str = "private address";
/// Interfaces and elastic IPs by public address, whatever their scope.
const BY_PUBLIC: &str = "public address";
/// Interfaces by the public addresses that their instances have yet to let go of.
const BY_RELEASING: &str = "releasing";
/// Interfaces with a public address, by VPC.
const BY_PUBLIC_VPC: &str = "public in vpc";

row! {
    /// VPCs.
    pub struct VpcRow(Vpc) = "vpc";
    filters: ["is-default"];
    also: |vpc, add| {
        if vpc.is_default {
            add(BY_DEFAULT, &vpc.scope);
        }
        match vpc.state {
            VpcState::Pending { .. } | VpcState::Deleting { .. } => add(UNSETTLED, &""),
            VpcState::Available => {}
        }
    };
}

row! {
    /// Subnets, with the cursor of their addresses.
    pub struct SubnetRow(Subnet) = "subnet";
    filters: ["vpc-id", "availability-zone"];
}

row! {
    /// Internet gateways.
    pub struct GatewayRow(InternetGateway) = "internet_gateway";
    filters: ["attachment.vpc-id"];
}

row! {
    /// Route tables, with routes and associations inside.
    pub struct RouteTableRow(RouteTable) = "route_table";
    filters: ["association.route-table-association-id", "association.subnet-id", "vpc-id"];
}

row! {
    /// Interfaces, with all their addresses.
    pub struct InterfaceRow(NetworkInterface) = "network_interface";
    filters: ["attachment.attachment-id", "attachment.instance-id", "private-ip-address", "association.public-ip", "subnet-id", "group-id", "vpc-id"];
    also: |interface, add| {
        for private in &interface.private_addresses {
            add(BY_PRIVATE, &private_value(&interface.scope, interface.subnet_id, private.address));
            if let Some(public) = &private.public {
                add(BY_PUBLIC, &hex(public.address()));
            }
        }
        for known in &interface.releasing {
            add(BY_PUBLIC, &hex(known.address));
            add(BY_RELEASING, &scoped(&interface.scope, known.address));
        }
        if interface.has_public() {
            add(BY_PUBLIC_VPC, &scoped(&interface.scope, interface.vpc_id));
        }
    };
}

row! {
    /// Elastic IPs.
    pub struct AddressRow(ElasticAddress) = "elastic_address";
    filters: ["association-id", "public-ip", "instance-id", "network-interface-id"];
    also: |address, add| add(BY_PUBLIC, &hex(address.address));
}

/// Declares the row of a record that nobody lists.
macro_rules! inner_row {
    ($(#[$doc:meta])* $row:ident($record:ty) = $table:literal, |$it:ident| $key:expr $(, also |$also:ident, $add:ident| $body:expr)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $row(pub $record);

        impl Record for $row {
            const TABLE: &'static str = $table;

            fn key(&self) -> String {
                let $it = &self.0;
                $key
            }

            $(fn index(&self, add: IndexSink<'_>) {
                let ($also, $add) = (&self.0, add);
                $body
            })?
        }
    };
}

inner_row! {
    /// What security may still hold for an interface, and must be told.
    HoldMarkRow(HoldMark) = "hold_mark", |mark| scoped(&mark.scope, mark.interface_id), also |_mark, add| add(UNSETTLED, &"")
}

inner_row! {
    /// Instances whose interfaces can never be made again.
    EndedRow(EndedInstance) = "ended_instance", |ended| scoped(&ended.scope, ended.instance_id), also |ended, add| add(UNSETTLED, &format_args!("{:020}", gureum_network_domain::instance::due_at(ended).as_micros()))
}

inner_row! {
    /// That a scope was born.
    BirthRow(ScopeBirth) = "scope_birth", |birth| birth.scope.to_string()
}

inner_row! {
    /// The region's one pool of public addresses.
    PoolRow(PublicPool) = "public_pool", |_pool| POOL_KEY.to_owned()
}

const POOL_KEY: &str = "pool";

/// A DeleteVpc call that is under way: its client token gets its answer in the commit of the deletion, whoever makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VpcDeletionRow {
    vpc: String,
    client_token: String,
    /// Of the call's parameters, in hexadecimal.
    fingerprint: String,
}

impl Record for VpcDeletionRow {
    const TABLE: &'static str = "vpc_deletion";

    fn key(&self) -> String {
        format!("{}/{}", self.vpc, self.client_token)
    }
}

impl VpcDeletionRow {
    /// None for a call without a token.
    pub fn new(scope: &Scope, id: VpcId, request: &proto::DeleteVpcRequest) -> Option<Self> {
        let fingerprint = format!("{:032x}", token::fingerprint(&request.encode_to_vec()));
        let client_token = request.client_token.clone();
        (!client_token.is_empty()).then(|| Self { vpc: VpcRow::list_key(scope, id), client_token, fingerprint })
    }
}

/// Ends the calls that wanted a VPC deleted: with their answer if it is gone, else as if they had not been made.
pub fn end_deletions(transaction: &mut Transaction<'_, Schema>, scope: &Scope, id: VpcId, is_gone: bool) {
    let prefix = format!("{}/", VpcRow::list_key(scope, id));
    let calls: Vec<VpcDeletionRow> = transaction.vpc_deletions.scan(&prefix, None).map(|row| row.record.clone()).collect();
    for call in calls {
        transaction.delete::<VpcDeletionRow>(&call.key());
        if let (true, Ok(fingerprint)) = (is_gone, u128::from_str_radix(&call.fingerprint, 16)) {
            let key = TokenKey::new(scope, proto::DeleteVpcRequest::NAME, &call.client_token);
            transaction.remember(&key, fingerprint, proto::DeleteVpcResponse { vpc_id: id.to_string() }.encode_to_vec());
        }
    }
}

fn scoped(scope: &Scope, id: impl std::fmt::Display) -> String {
    format!("{scope}/{id}")
}

fn hex(address: Ipv4Addr) -> String {
    format!("{:08x}", address.to_bits())
}

fn private_value(scope: &Scope, subnet: SubnetId, address: Ipv4Addr) -> String {
    format!("{scope}/{subnet}/{:08x}", address.to_bits())
}

fn from_hex(text: &str) -> Option<Ipv4Addr> {
    u32::from_str_radix(text, 16).ok().map(Ipv4Addr::from_bits)
}

/// One scope's records as decisions see them.
pub struct Snapshot<'a> {
    pub tables: &'a Schema,
    pub scope: &'a Scope,
}

macro_rules! by_id {
    ($($get:ident($id:ty) -> $record:ty, $table:ident, $row:ident;)*) => {$(
        fn $get(&self, id: $id) -> Option<&$record> {
            self.tables.$table.get(&$row::list_key(self.scope, id)).map(|row| &row.record.0)
        }
    )*};
}

impl View for Snapshot<'_> {
    by_id! {
        vpc(VpcId) -> Vpc, vpcs, VpcRow;
        subnet(SubnetId) -> Subnet, subnets, SubnetRow;
        gateway(InternetGatewayId) -> InternetGateway, gateways, GatewayRow;
        route_table(RouteTableId) -> RouteTable, route_tables, RouteTableRow;
        interface(NetworkInterfaceId) -> NetworkInterface, interfaces, InterfaceRow;
        address(AllocationId) -> ElasticAddress, addresses, AddressRow;
    }

    fn scope(&self) -> &Scope {
        self.scope
    }

    fn birth(&self) -> Option<&ScopeBirth> {
        self.tables.births.get(&self.scope.to_string()).map(|row| &row.record.0)
    }

    fn default_vpc(&self) -> Option<&Vpc> {
        self.tables.vpcs.find(BY_DEFAULT, &self.scope.to_string()).next().map(|row| &row.record.0)
    }

    fn vpc_count(&self, up_to: usize) -> usize {
        self.tables.vpcs.scan(&scoped(self.scope, ""), None).take(up_to).count()
    }

    fn subnets_of(&self, vpc: VpcId) -> Vec<&Subnet> {
        self.tables.subnets.find("vpc-id", &scoped(self.scope, vpc)).map(|row| &row.record.0).collect()
    }

    fn gateway_of(&self, vpc: VpcId) -> Option<&InternetGateway> {
        self.tables.gateways.find("attachment.vpc-id", &scoped(self.scope, vpc)).next().map(|row| &row.record.0)
    }

    fn gateway_count(&self, up_to: usize) -> usize {
        self.tables.gateways.scan(&scoped(self.scope, ""), None).take(up_to).count()
    }

    fn route_tables_of(&self, vpc: VpcId) -> Vec<&RouteTable> {
        self.tables.route_tables.find("vpc-id", &scoped(self.scope, vpc)).map(|row| &row.record.0).collect()
    }

    fn route_table_with(&self, association: RouteTableAssociationId) -> Option<&RouteTable> {
        self.tables
            .route_tables
            .find("association.route-table-association-id", &scoped(self.scope, association))
            .next()
            .map(|row| &row.record.0)
    }

    fn interface_with(&self, attachment: AttachmentId) -> Option<&NetworkInterface> {
        self.tables.interfaces.find("attachment.attachment-id", &scoped(self.scope, attachment)).next().map(|row| &row.record.0)
    }

    fn interfaces_of(&self, instance: InstanceId) -> Vec<&NetworkInterface> {
        self.tables.interfaces.find("attachment.instance-id", &scoped(self.scope, instance)).map(|row| &row.record.0).collect()
    }

    fn interfaces_in(&self, subnet: SubnetId, limit: usize) -> Vec<&NetworkInterface> {
        self.tables.interfaces.find("subnet-id", &scoped(self.scope, subnet)).take(limit).map(|row| &row.record.0).collect()
    }

    fn public_interfaces_in(&self, vpc: VpcId, limit: usize) -> Vec<&NetworkInterface> {
        self.tables.interfaces.find(BY_PUBLIC_VPC, &scoped(self.scope, vpc)).take(limit).map(|row| &row.record.0).collect()
    }

    fn next_private(&self, subnet: SubnetId, from: Ipv4Addr) -> Option<Ipv4Addr> {
        let (value, _) = self.tables.interfaces.find_from(BY_PRIVATE, &private_value(self.scope, subnet, from)).next()?;
        from_hex(value.strip_prefix(&format!("{}/{subnet}/", self.scope))?)
    }

    fn address_at(&self, address: Ipv4Addr) -> Option<&ElasticAddress> {
        self.tables.addresses.find("public-ip", &scoped(self.scope, address)).next().map(|row| &row.record.0)
    }

    fn address_with(&self, association: AssociationId) -> Option<&ElasticAddress> {
        self.tables.addresses.find("association-id", &scoped(self.scope, association)).next().map(|row| &row.record.0)
    }

    fn releasing(&self, address: Ipv4Addr) -> Option<&NetworkInterface> {
        self.tables.interfaces.find(BY_RELEASING, &scoped(self.scope, address)).next().map(|row| &row.record.0)
    }

    fn address_count(&self, up_to: usize) -> usize {
        self.tables.addresses.scan(&scoped(self.scope, ""), None).take(up_to).count()
    }

    fn hold_mark(&self, interface: NetworkInterfaceId) -> Option<&HoldMark> {
        self.tables.hold_marks.get(&scoped(self.scope, interface)).map(|row| &row.record.0)
    }

    fn ended(&self, instance: InstanceId) -> Option<&EndedInstance> {
        self.tables.ended.get(&scoped(self.scope, instance)).map(|row| &row.record.0)
    }

    fn next_public(&self, from: Ipv4Addr) -> Option<Ipv4Addr> {
        let from = hex(from);
        let interface = self.tables.interfaces.find_from(BY_PUBLIC, &from).next().and_then(|(value, _)| from_hex(value));
        let elastic = self.tables.addresses.find_from(BY_PUBLIC, &from).next().and_then(|(value, _)| from_hex(value));
        interface.into_iter().chain(elastic).min()
    }

    fn public_pool(&self) -> PublicPool {
        self.tables.pool.get(POOL_KEY).map(|row| row.record.0).unwrap_or_default()
    }
}

/// All public addresses in use, each once: what the pool is counted by when its ranges change.
pub fn held_public(tables: &Schema) -> std::collections::BTreeSet<Ipv4Addr> {
    let interfaces = tables.interfaces.find_from(BY_PUBLIC, "").filter_map(|(value, _)| from_hex(value));
    let elastic = tables.addresses.find_from(BY_PUBLIC, "").filter_map(|(value, _)| from_hex(value));
    interfaces.chain(elastic).collect()
}

/// Writes what a decision changed, each row with the event that tells of it; part of one commit.
pub fn apply(transaction: &mut Transaction<'_, Schema>, changes: Changes) {
    for row in changes.puts {
        put(transaction, row);
    }
    for row in changes.removes {
        remove(transaction, row);
    }
}

fn put(transaction: &mut Transaction<'_, Schema>, row: DomainRow) {
    match row {
        DomainRow::Vpc(vpc) => {
            let new = transaction.vpcs.get(&VpcRow(vpc.clone()).key()).is_none();
            let kind = if new { "VpcCreated" } else { "VpcChanged" };
            tell(transaction, kind, &vpc.scope, vpc.id, false, Resource::Vpc(convert::vpc(&vpc)));
            transaction.put(VpcRow(vpc));
        }
        DomainRow::Subnet(subnet) => {
            let before = transaction.subnets.get(&SubnetRow(subnet.clone()).key()).map(|row| row.record.0.clone());
            // Which addresses are used is told by the interfaces; the subnet's own count is no event.
            let same =
                before.as_ref().is_some_and(|before| Subnet { used: subnet.used, cursor: subnet.cursor, ..before.clone() } == subnet);
            if !same {
                let kind = if before.is_none() { "SubnetCreated" } else { "SubnetChanged" };
                tell(transaction, kind, &subnet.scope, subnet.id, false, Resource::Subnet(convert::subnet(&subnet)));
            }
            transaction.put(SubnetRow(subnet));
        }
        DomainRow::Gateway(gateway) => {
            let new = transaction.gateways.get(&GatewayRow(gateway.clone()).key()).is_none();
            let kind = if new { "InternetGatewayCreated" } else { "InternetGatewayChanged" };
            tell(transaction, kind, &gateway.scope, gateway.id, false, Resource::InternetGateway(convert::gateway(&gateway)));
            transaction.put(GatewayRow(gateway));
        }
        DomainRow::RouteTable(table) => {
            let new = transaction.route_tables.get(&RouteTableRow(table.clone()).key()).is_none();
            let kind = if new { "RouteTableCreated" } else { "RouteTableChanged" };
            let shown = convert::route_table(&table);
            tell(transaction, kind, &table.scope, table.id, false, Resource::RouteTable(shown));
            transaction.put(RouteTableRow(table));
        }
        DomainRow::Interface(interface) => {
            let new = transaction.interfaces.get(&InterfaceRow(interface.clone()).key()).is_none();
            let kind = if new { "NetworkInterfaceCreated" } else { "NetworkInterfaceChanged" };
            let shown = show_interface(transaction, &interface);
            tell(transaction, kind, &interface.scope, interface.id, false, Resource::NetworkInterface(shown));
            transaction.put(InterfaceRow(interface));
        }
        DomainRow::Address(address) => {
            let before = transaction.addresses.get(&AddressRow(address.clone()).key()).map(|row| row.record.0.clone());
            let kind = match &before {
                None => "AddressAllocated",
                Some(before) if before.association != address.association => "AddressMoved",
                Some(_) => "AddressChanged",
            };
            tell(transaction, kind, &address.scope, address.id, false, Resource::Address(convert::address(&address)));
            transaction.put(AddressRow(address));
        }
        DomainRow::HoldMark(mark) => transaction.put(HoldMarkRow(mark)),
        DomainRow::Ended(ended) => transaction.put(EndedRow(ended)),
        DomainRow::Birth(birth) => transaction.put(BirthRow(birth)),
        DomainRow::Pool(pool) => transaction.put(PoolRow(pool)),
    }
}

fn remove(transaction: &mut Transaction<'_, Schema>, row: DomainRow) {
    match row {
        DomainRow::Vpc(vpc) => {
            tell(transaction, "VpcDeleted", &vpc.scope, vpc.id, true, Resource::Vpc(convert::vpc(&vpc)));
            transaction.delete::<VpcRow>(&VpcRow(vpc).key());
        }
        DomainRow::Subnet(subnet) => {
            tell(transaction, "SubnetDeleted", &subnet.scope, subnet.id, true, Resource::Subnet(convert::subnet(&subnet)));
            transaction.delete::<SubnetRow>(&SubnetRow(subnet).key());
        }
        DomainRow::Gateway(gateway) => {
            tell(
                transaction,
                "InternetGatewayDeleted",
                &gateway.scope,
                gateway.id,
                true,
                Resource::InternetGateway(convert::gateway(&gateway)),
            );
            transaction.delete::<GatewayRow>(&GatewayRow(gateway).key());
        }
        DomainRow::RouteTable(table) => {
            let shown = convert::route_table(&table);
            tell(transaction, "RouteTableDeleted", &table.scope, table.id, true, Resource::RouteTable(shown));
            transaction.delete::<RouteTableRow>(&RouteTableRow(table).key());
        }
        DomainRow::Interface(interface) => {
            let shown = show_interface(transaction, &interface);
            tell(transaction, "NetworkInterfaceDeleted", &interface.scope, interface.id, true, Resource::NetworkInterface(shown));
            transaction.delete::<InterfaceRow>(&InterfaceRow(interface).key());
        }
        DomainRow::Address(address) => {
            tell(transaction, "AddressReleased", &address.scope, address.id, true, Resource::Address(convert::address(&address)));
            transaction.delete::<AddressRow>(&AddressRow(address).key());
        }
        DomainRow::HoldMark(mark) => drop(transaction.delete::<HoldMarkRow>(&HoldMarkRow(mark).key())),
        DomainRow::Ended(ended) => drop(transaction.delete::<EndedRow>(&EndedRow(ended).key())),
        DomainRow::Birth(birth) => drop(transaction.delete::<BirthRow>(&BirthRow(birth).key())),
        DomainRow::Pool(pool) => drop(transaction.delete::<PoolRow>(&PoolRow(pool).key())),
    }
}

/// An interface with the names that its VPC gives its addresses.
pub fn show_interface(tables: &Schema, interface: &NetworkInterface) -> proto::NetworkInterface {
    let view = Snapshot { tables, scope: &interface.scope };
    convert::interface(interface, view.vpc(interface.vpc_id).is_some_and(Vpc::has_public_names))
}

fn tell(
    transaction: &mut Transaction<'_, Schema>,
    kind: &'static str,
    scope: &Scope,
    id: impl std::fmt::Display,
    deleted: bool,
    resource: Resource,
) {
    transaction.emit(EventDraft {
        kind,
        scope: scope.clone(),
        resource_id: id.to_string(),
        causation_id: String::new(),
        deleted,
        payload: proto::Event { metadata: None, resource: Some(resource) }.encode_to_vec(),
    });
}

#[cfg(test)]
mod stored_forms {
    #[test]
    fn rows_of_every_kind_are_read_as_they_were_written() {
        let faults = gureum_store::stored_forms::faults::<super::Schema>(include_str!("../tests/stored_forms.txt"));
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}
