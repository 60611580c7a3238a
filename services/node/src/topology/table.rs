//! What is known of route tables.

use std::collections::{BTreeMap, BTreeSet};

use gureum_model::{
    Scope,
    id::{RouteTableId, SubnetId, VpcId},
};
use gureum_proto::network::v1 as proto;
use gureum_shim::network::{Route, Target};

use super::convert;
use crate::followed;

/// A route table, as far as traffic follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTable {
    pub routes: Vec<Route>,
    /// It serves the subnets of its VPC that no other does.
    pub main: bool,
    pub subnets: BTreeSet<SubnetId>,
}

/// A route table that is as it now is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub id: RouteTableId,
    pub vpc: VpcId,
    /// None: it is gone.
    pub table: Option<RouteTable>,
}

/// The tables of each VPC of each scope.
#[derive(Debug, Default)]
pub struct Table(BTreeMap<(Scope, VpcId), BTreeMap<RouteTableId, RouteTable>>);

impl followed::Table for Table {
    type Event = proto::Event;
    type Change = Change;
    type Key = VpcId;

    fn change(event: proto::Event) -> Option<(Scope, Change)> {
        convert::change(event)
    }

    fn apply(&mut self, scope: &Scope, Change { id, vpc, table }: Change) -> BTreeSet<VpcId> {
        let tables = self.0.entry((scope.clone(), vpc)).or_default();
        let is_new = tables.get(&id) != table.as_ref();
        match table {
            Some(table) => drop(tables.insert(id, table)),
            None => drop(tables.remove(&id)),
        }
        if tables.is_empty() {
            self.0.remove(&(scope.clone(), vpc));
        }
        is_new.then_some(vpc).into_iter().collect()
    }

    fn is_same(&self, other: &Self, scope: &Scope, vpc: &VpcId) -> bool {
        let key = (scope.clone(), *vpc);
        self.0.get(&key) == other.0.get(&key)
    }
}

impl Table {
    /// The routes of a subnet: of the table that is its own, or else of its VPC's main one. None where no table is known:
    /// from there nothing leads anywhere.
    pub fn routes_of(&self, scope: &Scope, vpc: VpcId, subnet: SubnetId) -> &[Route] {
        let Some(tables) = self.0.get(&(scope.clone(), vpc)) else { return &[] };
        let own = tables.values().find(|table| table.subnets.contains(&subnet));
        own.or_else(|| tables.values().find(|table| table.main)).map_or(&[], |table| &table.routes)
    }

    /// The VPC's addresses: where its tables say that they are local.
    pub fn blocks_of(&self, scope: &Scope, vpc: VpcId) -> BTreeSet<ipnet::Ipv4Net> {
        let tables = self.0.get(&(scope.clone(), vpc)).into_iter().flat_map(BTreeMap::values);
        tables.flat_map(|table| &table.routes).filter(|route| route.target == Target::Local).map(|route| route.destination).collect()
    }
}

#[cfg(test)]
mod tests {
    use gureum_model::id::ResourceId;

    use super::*;
    use crate::followed::Table as _;

    const VPC: u128 = 1;

    fn route(destination: &str, target: Target) -> Route {
        Route { destination: destination.parse().unwrap(), target }
    }

    fn table(id: u128, main: bool, subnets: &[u128], routes: Vec<Route>) -> Change {
        let subnets = subnets.iter().map(|subnet| SubnetId::from_number(*subnet)).collect();
        Change { table: Some(RouteTable { routes, main, subnets }), ..gone(id) }
    }

    fn gone(id: u128) -> Change {
        Change { id: RouteTableId::from_number(id), vpc: VpcId::from_number(VPC), table: None }
    }

    #[test]
    fn a_subnet_has_the_routes_of_its_own_table_or_of_the_main_one() {
        let (mut known, scope, vpc) = (Table::default(), Scope::default(), VpcId::from_number(VPC));
        let subnet = SubnetId::from_number;
        let local = route("10.0.0.0/16", Target::Local);
        let out = route("0.0.0.0/0", Target::InternetGateway);
        assert!(known.routes_of(&scope, vpc, subnet(7)).is_empty(), "nothing is known");
        let main = table(1, true, &[], vec![local.clone()]);
        assert_eq!(known.apply(&scope, main.clone()), BTreeSet::from([vpc]));
        assert_eq!(known.apply(&scope, main), BTreeSet::new(), "it says nothing new");
        known.apply(&scope, table(2, false, &[7], vec![local.clone(), out.clone()]));
        assert_eq!(known.routes_of(&scope, vpc, subnet(7)), [local.clone(), out]);
        assert_eq!(known.routes_of(&scope, vpc, subnet(8)), std::slice::from_ref(&local));
        assert_eq!(known.blocks_of(&scope, vpc), BTreeSet::from([local.destination]));
        // Its own is gone.
        assert_eq!(known.apply(&scope, gone(2)), BTreeSet::from([vpc]));
        assert_eq!(known.routes_of(&scope, vpc, subnet(7)), [local]);
        known.apply(&scope, gone(1));
        assert!(known.0.is_empty());
    }

    #[test]
    fn a_table_of_another_scope_is_another() -> Result<(), gureum_model::Refusal> {
        let (mut known, scope, other) = (Table::default(), Scope::default(), Scope::parse("000000000042", "eu-west-1")?);
        known.apply(&scope, table(1, true, &[], vec![route("10.0.0.0/16", Target::Local)]));
        let vpc = VpcId::from_number(VPC);
        assert!(known.routes_of(&other, vpc, SubnetId::from_number(7)).is_empty());
        assert_eq!(known.apply(&other, gone(1)), BTreeSet::new());
        assert!(known.is_same(&Table::default(), &other, &vpc) && !known.is_same(&Table::default(), &scope, &vpc));
        Ok(())
    }
}
