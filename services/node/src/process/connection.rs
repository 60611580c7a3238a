//! How an instance is connected, as its shim is told.

use std::path::PathBuf;

use gureum_model::Scope;
use gureum_node_domain::{InstanceSpec, spec::InterfaceSpec};
use gureum_shim::network::{Interface, Network};

use crate::{
    firewall::Groups,
    topology::{Interest, RouteTables},
};

/// What is the same for all instances of a node.
#[derive(Clone, Default)]
pub struct Connections {
    /// The directory by which the instances of the region find each other on this host.
    pub fabric: PathBuf,
    /// Added to each port of a public address.
    pub port_offset: u16,
    /// Whether what a revoked rule allowed is cut.
    pub strict_tracking: bool,
    /// The rules of security groups.
    pub groups: Groups,
    /// Where traffic may go.
    pub route_tables: RouteTables,
}

impl Connections {
    /// How an instance is to be connected. While nobody knows of its routes, they are as they were before.
    pub fn of(&self, scope: &Scope, spec: &InstanceSpec, before: Option<&Network>) -> Network {
        let network = Network {
            interfaces: spec.interfaces.iter().map(|it| interface(it, before)).collect(),
            fabric: self.fabric.clone(),
            alias: before.and_then(|network| network.alias),
            port_offset: self.port_offset,
            strict_tracking: self.strict_tracking,
        };
        self.routed(scope, &network)
    }

    /// The same with the routes as they are now, or if nobody knows, as it is.
    pub fn routed(&self, scope: &Scope, network: &Network) -> Network {
        let mut network = network.clone();
        for interface in &mut network.interfaces {
            let (Ok(vpc), Ok(subnet)) = (interface.vpc.parse(), interface.subnet.parse()) else { continue };
            let known = self.route_tables.with(|tables| {
                let blocks = tables.blocks_of(scope, vpc).into_iter().collect();
                (blocks, tables.routes_of(scope, vpc, subnet).to_vec())
            });
            if let Some((blocks, routes)) = known {
                (interface.vpc_cidr_blocks, interface.routes) = (blocks, routes);
            }
        }
        network
    }

    pub fn interest(&self) -> Interest {
        self.route_tables.interest()
    }
}

fn interface(spec: &InterfaceSpec, before: Option<&Network>) -> Interface {
    let id = spec.id.to_string();
    let before = before.and_then(|network| network.interface(&id));
    Interface {
        device_index: spec.device_index,
        mac_address: spec.mac_address.clone(),
        vpc: spec.vpc.to_string(),
        subnet: spec.subnet.to_string(),
        prefix_length: spec.prefix_length,
        private_addresses: spec.private_addresses.clone(),
        public_address: spec.public_address,
        groups: spec.groups.iter().map(|group| (group.id.to_string(), group.name.clone())).collect(),
        source_dest_check: spec.source_dest_check,
        vpc_cidr_blocks: before.map(|before| before.vpc_cidr_blocks.clone()).unwrap_or_default(),
        routes: before.map(|before| before.routes.clone()).unwrap_or_default(),
        id,
    }
}

/// Why a change of interfaces waits for the next boot: what is plugged in within is made when an instance boots.
pub fn objection(before: &Network, now: &Network) -> Option<String> {
    let plugged = |network: &Network| -> Vec<_> {
        let cable = |it: &Interface| (it.id.clone(), it.device_index, it.mac_address.clone(), it.private_addresses.clone());
        network.interfaces.iter().map(cable).collect()
    };
    (plugged(before) != plugged(now))
        .then(|| "interfaces and private addresses of a running instance of this driver change with its next boot".to_owned())
}
