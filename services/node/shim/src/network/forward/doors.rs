//! Where an instance can be reached: which sockets are to be open, and which are.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddrV4},
    rc::Rc,
};

use gureum_firewall::{Direction, Firewall};
use tokio::{
    net::{TcpListener, TcpSocket, UdpSocket},
    task::{JoinHandle, spawn_local},
};

use super::{enter, fabric, world::World};
use crate::network::{Network, Transport, listening::Listening};

/// Connections that may wait to be taken.
const BACKLOG: u32 = 4_096;

/// A place at which somebody may call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// A port of a public address, open to the outside.
    Public { interface: String, address: Ipv4Addr, transport: Transport, port: u16 },
    /// A private address, open to what is in the VPC.
    Private { interface: String, vpc: String, address: Ipv4Addr },
    /// A public address, open to the region's other instances, which do not leave the host for it.
    Region { interface: String, address: Ipv4Addr },
}

/// The doors that are to be open: a public port if something listens on it and some rule lets somebody in.
pub fn wanted<'a>(
    network: &Network,
    listening: &BTreeSet<Listening>,
    firewall: impl Fn(&str) -> Option<Rc<Firewall>> + 'a,
) -> BTreeSet<Door> {
    let mut doors = BTreeSet::new();
    for interface in &network.interfaces {
        for address in &interface.private_addresses {
            doors.insert(Door::Private { interface: interface.id.clone(), vpc: interface.vpc.clone(), address: *address });
        }
        let (Some(address), Some(primary)) = (interface.public_address, interface.private_addresses.first()) else { continue };
        // What comes is answered by the same way.
        if !interface.has_gateway() {
            continue;
        }
        doors.insert(Door::Region { interface: interface.id.clone(), address });
        let Some(firewall) = firewall(&interface.id) else { continue };
        for Listening { transport, port, .. } in listening.iter().filter(|one| one.address.is_none_or(|only| only == *primary)) {
            if firewall.could_allow(Direction::Ingress, transport.number(), *port) {
                doors.insert(Door::Public { interface: interface.id.clone(), address, transport: *transport, port: *port });
            }
        }
    }
    doors
}

/// The doors that are open.
#[derive(Default)]
pub struct Doors {
    open: BTreeMap<Door, JoinHandle<()>>,
    /// Those that cannot be opened, and why: told once.
    stuck: BTreeMap<Door, String>,
}

impl Doors {
    /// Opens and closes until these are open. What is to be closed is closed when this returns.
    pub async fn set(&mut self, world: &Rc<World>, wanted: &BTreeSet<Door>) {
        let closing: Vec<Door> = self.open.keys().filter(|door| !wanted.contains(door)).cloned().collect();
        for door in closing {
            if let Some(task) = self.open.remove(&door) {
                task.abort();
                let _ = task.await;
            }
        }
        self.stuck.retain(|door, _| wanted.contains(door));
        for door in wanted {
            if self.open.get(door).is_some_and(|task| !task.is_finished()) {
                continue;
            }
            match open(world, door) {
                Ok(task) => {
                    self.stuck.remove(door);
                    self.open.insert(door.clone(), task);
                }
                Err(error) => {
                    let message = describe(door, world.network().port_offset, &error);
                    if self.stuck.get(door) != Some(&message) {
                        world.note(message.clone());
                        self.stuck.insert(door.clone(), message);
                    }
                }
            }
        }
    }

    pub fn stuck(&self) -> Vec<String> {
        self.stuck.values().cloned().collect()
    }
}

fn open(world: &Rc<World>, door: &Door) -> io::Result<JoinHandle<()>> {
    match door {
        Door::Public { interface, address, transport, port } => {
            let outside = SocketAddrV4::new(*address, offset(*port, world.network().port_offset)?);
            let (world, interface, port) = (world.clone(), interface.clone(), *port);
            Ok(match transport {
                Transport::Tcp => spawn_local(enter::accept(world, listen(outside)?, interface, port)),
                Transport::Udp => {
                    let socket = std::net::UdpSocket::bind(outside)?;
                    socket.set_nonblocking(true)?;
                    spawn_local(enter::datagrams(world, UdpSocket::from_std(socket)?, interface, port))
                }
            })
        }
        Door::Private { interface, vpc, address } => in_fabric(world, interface, vpc, *address),
        Door::Region { interface, address } => in_fabric(world, interface, fabric::PUBLIC, *address),
    }
}

fn in_fabric(world: &Rc<World>, interface: &str, network: &str, address: Ipv4Addr) -> io::Result<JoinHandle<()>> {
    let place = world.fabric.as_ref().ok_or(io::ErrorKind::NotFound)?.listen(network, address)?;
    Ok(spawn_local(enter::answer(world.clone(), place, interface.to_owned(), address)))
}

fn listen(address: SocketAddrV4) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address.into())?;
    socket.listen(BACKLOG)
}

fn offset(port: u16, by: u16) -> io::Result<u16> {
    port.checked_add(by).ok_or_else(|| io::Error::other(format!("port {port} and the region's offset {by} are beyond 65535")))
}

/// Why a door cannot be opened, and what may be done.
fn describe(door: &Door, by: u16, error: &io::Error) -> String {
    match door {
        Door::Public { address, transport, port, .. } => {
            let outside = u32::from(*port) + u32::from(by);
            let what = format!("port {port} ({}) cannot be reached at {address}:{outside}: {error}", transport.as_str());
            match error.kind() {
                io::ErrorKind::PermissionDenied => format!(
                    "{what}; the host keeps ports below net.ipv4.ip_unprivileged_port_start for root: lower that, give the program \
                     CAP_NET_BIND_SERVICE, start the region with --port-offset (settings.port_offset of the node), or listen on a higher port"
                ),
                io::ErrorKind::AddrInUse => format!("{what}: another program of the host has it"),
                _ => what,
            }
        }
        Door::Private { vpc, address, .. } => format!("{address} cannot be reached within {vpc}: {error}"),
        Door::Region { address, .. } => format!("{address} cannot be reached by other instances: {error}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use gureum_firewall::{Peer, Rule};

    use super::*;
    use crate::network::{Interface, Route, Target};

    fn network() -> Network {
        let interface = Interface {
            id: "eni-1".into(),
            vpc: "vpc-1".into(),
            prefix_length: 20,
            private_addresses: vec!["172.31.0.4".parse().unwrap(), "172.31.0.5".parse().unwrap()],
            public_address: Some("127.2.0.1".parse().unwrap()),
            routes: vec![Route { destination: "0.0.0.0/0".parse().unwrap(), target: Target::InternetGateway }],
            ..Interface::default()
        };
        Network { interfaces: vec![interface], ..Network::default() }
    }

    fn firewall(first: u16, last: u16) -> Rc<Firewall> {
        let peer = Peer::Network("10.0.0.0/8".parse().unwrap());
        let id = "sgr-00000000000000001".parse().unwrap();
        Rc::new(Firewall::compile([Rule { id, direction: Direction::Ingress, protocol: Some(6), first, last, peer }]))
    }

    fn ports(listening: &[Listening], firewall: Option<Rc<Firewall>>) -> Vec<u16> {
        let doors = wanted(&network(), &listening.iter().copied().collect(), |_| firewall.clone());
        doors.iter().filter_map(|door| if let Door::Public { port, .. } = door { Some(*port) } else { None }).collect()
    }

    fn at(port: u16, address: Option<&str>) -> Listening {
        Listening { transport: Transport::Tcp, port, address: address.map(|address| address.parse().unwrap()) }
    }

    #[test]
    fn a_public_port_is_open_if_something_listens_and_some_rule_lets_somebody_in() {
        assert_eq!(ports(&[at(80, None), at(22, None)], Some(firewall(80, 90))), [80]);
        assert_eq!(ports(&[], Some(firewall(80, 90))), [0u16; 0]);
        assert_eq!(ports(&[at(80, None)], None), [0u16; 0]);
    }

    #[test]
    fn the_public_address_leads_to_the_primary_private_one() {
        let own = at(80, Some("172.31.0.4"));
        let secondary = at(81, Some("172.31.0.5"));
        assert_eq!(ports(&[own, secondary], Some(firewall(0, 65_535))), [80]);
    }

    #[test]
    fn without_a_route_to_a_gateway_no_public_port_is_open() {
        let mut network = network();
        network.interfaces[0].routes.clear();
        let doors = wanted(&network, &BTreeSet::from([at(80, None)]), |_| Some(firewall(80, 80)));
        assert!(doors.iter().all(|door| matches!(door, Door::Private { .. })), "{doors:?}");
    }

    #[test]
    fn every_private_address_is_open_to_the_vpc_whatever_listens() {
        let doors = wanted(&network(), &BTreeSet::new(), |_| None);
        assert_eq!(doors.iter().filter(|door| matches!(door, Door::Private { .. })).count(), 2);
    }
}
