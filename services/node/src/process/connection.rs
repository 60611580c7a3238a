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

/// What of a change can be made while the instance runs, and which interfaces wait for its next start: what is plugged in
/// within is made when it boots. One that goes is let go of at once, with its addresses.
pub fn possible(before: &Network, now: Network) -> (Network, Vec<String>) {
    let mut waiting = Vec::new();
    let mut one = |it: Interface| {
        let was = before.interface(&it.id);
        let plugged = |it: &Interface| (it.device_index, it.mac_address.clone(), it.private_addresses.clone());
        if was.is_none_or(|was| plugged(was) != plugged(&it)) {
            waiting.push(it.id.clone());
        }
        let was = was?.clone();
        let (device_index, mac_address, private_addresses) = (was.device_index, was.mac_address, was.private_addresses);
        Some(Interface { device_index, mac_address, private_addresses, ..it })
    };
    let interfaces = now.interfaces.into_iter().filter_map(&mut one).collect();
    (Network { interfaces, ..now }, waiting)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn what_is_plugged_in_within_waits_and_all_else_is_made_at_once() {
        let interface = |id: &str, last: u8, public: Option<&str>| Interface {
            id: id.into(),
            private_addresses: vec![[10, 0, 0, last].into()],
            public_address: public.map(|address| address.parse().unwrap()),
            ..Interface::default()
        };
        let network = |interfaces: Vec<Interface>| Network { interfaces, ..Network::default() };
        let before = network(vec![interface("eni-1", 4, None), interface("eni-2", 5, Some("127.2.0.2")), interface("eni-3", 6, None)]);
        let now = network(vec![interface("eni-1", 4, Some("127.2.0.1")), interface("eni-3", 7, None), interface("eni-4", 8, None)]);
        let (made, waiting) = possible(&before, now);
        assert_eq!(made.interfaces, [interface("eni-1", 4, Some("127.2.0.1")), interface("eni-3", 6, None)]);
        assert_eq!(waiting, ["eni-3", "eni-4"]);
        assert_eq!(possible(&before, before.clone()), (before.clone(), Vec::new()));
    }
}
