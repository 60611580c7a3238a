//! How an instance is connected, as its shim is told.

use std::path::PathBuf;

use gureum_node_domain::{InstanceSpec, spec::InterfaceSpec};
use gureum_shim::network::{Interface, Network};

/// What is the same for all instances of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Connections {
    /// The directory by which the instances of the region find each other on this host.
    pub fabric: PathBuf,
    /// Added to each port of a public address.
    pub port_offset: u16,
    /// Whether what a revoked rule allowed is cut.
    pub strict_tracking: bool,
}

impl Connections {
    pub fn of(&self, spec: &InstanceSpec) -> Network {
        Network {
            interfaces: spec.interfaces.iter().map(interface).collect(),
            fabric: self.fabric.clone(),
            alias: None,
            port_offset: self.port_offset,
            strict_tracking: self.strict_tracking,
        }
    }
}

fn interface(spec: &InterfaceSpec) -> Interface {
    Interface {
        id: spec.id.to_string(),
        device_index: spec.device_index,
        mac_address: spec.mac_address.clone(),
        vpc: spec.vpc.to_string(),
        subnet: spec.subnet.to_string(),
        prefix_length: spec.prefix_length,
        private_addresses: spec.private_addresses.clone(),
        public_address: spec.public_address,
        groups: spec.groups.iter().map(|group| (group.id.to_string(), group.name.clone())).collect(),
        source_dest_check: spec.source_dest_check,
        vpc_cidr_blocks: Vec::new(),
        reaches_outside: spec.public_address.is_some(),
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
