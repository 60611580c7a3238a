//! The network of an instance: its interfaces, and the forwarder that stands between them and everything else.

mod divert;
pub mod factory;
pub mod forward;
mod listening;
pub mod metadata;
mod netlink;
mod queue;
pub mod wiring;

use std::{net::Ipv4Addr, path::PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

pub use self::{listening::Transport, netlink::Netlink};
pub use crate::protocol::InterfaceRules;

/// What an instance is connected to, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Network {
    /// By device index.
    pub interfaces: Vec<Interface>,
    /// The directory by which the instances of the region find each other on this host.
    pub fabric: PathBuf,
    /// A port of a public address is the instance's port and this: for hosts that keep low ports to themselves.
    pub port_offset: u16,
    /// The host's loopback address at which the instance is reached, where it has no network of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<Ipv4Addr>,
    /// What a rule allowed is cut when it no longer does. Else what is open stays, as with the original's tracked connections.
    pub strict_tracking: bool,
}

/// An interface, as the instance has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Interface {
    /// `eni-…`.
    pub id: String,
    /// 0 is the primary one; `eth` and this number within.
    pub device_index: u32,
    /// Six bytes in hexadecimal with colons.
    pub mac_address: String,
    /// `vpc-…`.
    pub vpc: String,
    /// `subnet-…`.
    pub subnet: String,
    /// Of the subnet.
    pub prefix_length: u8,
    /// The primary one first.
    pub private_addresses: Vec<Ipv4Addr>,
    /// By which the outside reaches the primary private address.
    pub public_address: Option<Ipv4Addr>,
    /// `sg-…`, with their names.
    pub groups: Vec<(String, String)>,
    /// Off: what it sends may come from others.
    pub source_dest_check: bool,
    /// The VPC's addresses: what is among them never leaves it.
    pub vpc_cidr_blocks: Vec<Ipv4Net>,
    /// Of its subnet's route table.
    pub routes: Vec<Route>,
}

/// Where traffic to some addresses goes. Of the routes that fit, the one with the longest destination holds ("Route
/// priority" of the original).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub destination: Ipv4Net,
    pub target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The VPC itself.
    Local,
    InternetGateway,
    /// An instance that routes for others.
    NetworkInterface,
    /// What it led to is not there.
    Blackhole,
}

impl Network {
    pub fn interface(&self, id: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.id == id)
    }

    /// The interface whose address the instance sends from. What comes from none of them goes nowhere, unless an
    /// interface may send for others.
    pub fn interface_of(&self, source: Ipv4Addr) -> Option<&Interface> {
        let own = self.interfaces.iter().find(|interface| interface.private_addresses.contains(&source));
        own.or_else(|| self.interfaces.iter().find(|interface| !interface.source_dest_check))
    }

    /// Whether this is where instances ask for names: one address everywhere, and the third of every VPC.
    pub fn is_resolver(&self, address: Ipv4Addr) -> bool {
        let third = |block: &Ipv4Net| Ipv4Addr::from_bits(block.network().to_bits().wrapping_add(2));
        address == forward::RESOLVER || self.interfaces.iter().flat_map(|it| &it.vpc_cidr_blocks).any(|block| third(block) == address)
    }

    /// The public addresses that lead here.
    pub fn public_addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.interfaces.iter().filter_map(|interface| interface.public_address)
    }
}

impl Interface {
    /// Whether an address is one of the VPC's, whoever has it. Where its blocks are not known it may be: none is larger than
    /// a /16 ("VPC CIDR blocks" of the original), and what is private beside it is no place for an instance either.
    pub fn is_in_vpc(&self, address: Ipv4Addr) -> bool {
        const LARGEST_BLOCK: u8 = 16;
        let around = Ipv4Net::new(self.gateway(), LARGEST_BLOCK).ok().filter(|_| self.vpc_cidr_blocks.is_empty());
        self.vpc_cidr_blocks.iter().copied().chain(around).any(|block| block.contains(&address))
    }

    /// Why nothing goes between it and an address outside of the VPC, if so. An internet gateway serves those alone that
    /// have a public address ("Enable internet access" of the original).
    pub fn barrier(&self, outside: Ipv4Addr) -> Option<&'static str> {
        let fits = self.routes.iter().filter(|route| route.destination.contains(&outside));
        match fits.max_by_key(|route| route.destination.prefix_len()).map(|route| route.target) {
            Some(Target::InternetGateway) if self.public_address.is_some() => None,
            Some(Target::InternetGateway) => Some("it has no public address, which an internet gateway demands"),
            Some(Target::Local) => Some("nobody in the VPC has this address"),
            Some(Target::NetworkInterface) => Some("its route leads to a network interface, and instances do not route for others yet"),
            Some(Target::Blackhole) => Some("its route leads to what is not there"),
            None => Some("no route of its subnet leads there"),
        }
    }

    /// Whether the outside is there for it at all.
    pub fn has_gateway(&self) -> bool {
        self.routes.iter().any(|route| route.target == Target::InternetGateway)
    }

    /// The subnet's addresses; none without an address of its own, or if its length is none.
    pub fn subnet_block(&self) -> Option<Ipv4Net> {
        self.private_addresses.first().and_then(|address| Ipv4Net::new(*address, self.prefix_length).ok()).map(|block| block.trunc())
    }

    fn subnet_base(&self) -> u32 {
        let any = self.private_addresses.first().map_or(0, |address| address.to_bits());
        any & u32::MAX.checked_shl(32 - u32::from(self.prefix_length)).unwrap_or(0)
    }

    /// The subnet's router: its second address ("Subnet CIDR blocks" of the original).
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.subnet_base() + 1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_vpc_is_known_also_where_its_blocks_are_not() {
        let is_in = |blocks: &[&str], address: &str| {
            let vpc_cidr_blocks = blocks.iter().map(|block| block.parse().unwrap()).collect();
            let private_addresses = vec!["172.31.16.4".parse().unwrap()];
            let interface = Interface { vpc_cidr_blocks, private_addresses, prefix_length: 20, ..Interface::default() };
            (interface.gateway().to_string(), interface.is_in_vpc(address.parse().unwrap()))
        };
        let gateway = || "172.31.16.1".to_owned();
        assert_eq!(is_in(&[], "172.31.255.9"), (gateway(), true));
        assert_eq!(is_in(&[], "172.30.0.9"), (gateway(), false));
        assert_eq!(is_in(&["172.31.16.0/20", "10.0.0.0/24"], "172.31.255.9"), (gateway(), false));
        assert_eq!(is_in(&["172.31.16.0/20", "10.0.0.0/24"], "10.0.0.9"), (gateway(), true));
    }

    #[test]
    fn the_longest_route_that_fits_holds_and_a_gateway_serves_public_addresses_alone() {
        let route = |destination: &str, target| Route { destination: destination.parse().unwrap(), target };
        let routes = vec![
            route("0.0.0.0/0", Target::InternetGateway),
            route("10.0.0.0/16", Target::Local),
            route("192.0.2.0/24", Target::Blackhole),
            route("192.0.2.128/25", Target::InternetGateway),
        ];
        let interface = Interface { routes, public_address: Some("127.1.0.1".parse().unwrap()), ..Interface::default() };
        let passes = |interface: &Interface, address: &str| interface.barrier(address.parse().unwrap()).is_none();
        let passing = ["198.51.100.1", "192.0.2.129", "192.0.2.1", "10.0.3.4"].map(|address| passes(&interface, address));
        assert_eq!(passing, [true, true, false, false]);
        assert!(!passes(&Interface { public_address: None, ..interface.clone() }, "198.51.100.1"));
        assert!(!passes(&Interface { routes: interface.routes[1..3].to_vec(), ..interface }, "198.51.100.1"));
    }
}
