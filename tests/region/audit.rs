//! The accounts of a region after whatever befell it, in both directions: everything that was acknowledged is there as
//! it was acknowledged, and nothing is there that nobody was told of.
//!
//! What is one service's alone is audited beside the work ([`crate::workload`]); here stands what several services must
//! agree on. A later service adds what it shares with others to [`Region`].

use std::collections::{BTreeMap, BTreeSet};

use gureum_proto::{
    clock::v1::{GetStateRequest, clock_peer_service_client::ClockPeerServiceClient},
    compute::v1::{compute_peer_service_client::ComputePeerServiceClient, compute_service_client::ComputeServiceClient, *},
    network::v1::{network_service_client::NetworkServiceClient, *},
    node::v1::{DescribeNodeInstancesRequest, NodeInstance, node_service_client::NodeServiceClient},
};

use crate::{
    harness::{Deployment, Door, all_pages, until},
    region::OPERATOR,
    workload::{KINDS, Known},
};

/// An account and what its clients know.
pub struct Account {
    pub door: Door,
    pub known: Known,
}

impl Account {
    /// Waits until every instance has come to where it was asked to be.
    pub async fn settled(&self) {
        until("every instance's goal", async || {
            let all = all_pages!(self.door, ComputeServiceClient, describe_instances, DescribeInstancesRequest, instances);
            let goal = |it: &Instance| self.known.instances.all.get(&it.instance_id).map(|known| known.goal);
            let late = all.iter().filter(|it| goal(it).is_some_and(|goal| goal != it.state()) || !it.waiting_reason.is_empty());
            let late: Vec<String> =
                late.map(|it| format!("{} {:?} {} {:?}", it.instance_id, it.state(), it.waiting_reason, goal(it))).collect();
            if late.is_empty() { Ok(()) } else { Err(late.join("; ")) }
        })
        .await;
    }

    /// What each kind of work has to find.
    pub async fn audit(&self) {
        for kind in KINDS {
            (kind.audit)(self).await;
        }
    }
}

/// Waits until no service has anything left to do.
pub async fn quiet(region: &Deployment) {
    for name in region.names() {
        until(format!("{name} idle"), async || {
            let state = ClockPeerServiceClient::new(region.client(&name, OPERATOR)).get_state(GetStateRequest::default()).await;
            match state {
                Ok(state) if state.get_ref().idle => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}

/// What the services of a region have of several accounts, side by side.
pub struct Region {
    instances: BTreeMap<String, Instance>,
    interfaces: Vec<NetworkInterface>,
    addresses: Vec<Address>,
    subnets: Vec<Subnet>,
    nodes: Vec<Node>,
    on_nodes: BTreeMap<String, Vec<NodeInstance>>,
}

impl Region {
    async fn read(region: &Deployment, accounts: &[Account]) -> Self {
        let mut compute = ComputePeerServiceClient::new(region.client("compute", OPERATOR));
        let nodes = compute.describe_nodes(DescribeNodesRequest::default()).await.unwrap().into_inner().nodes;
        let mut all = Self {
            instances: BTreeMap::new(),
            interfaces: Vec::new(),
            addresses: Vec::new(),
            subnets: Vec::new(),
            nodes,
            on_nodes: BTreeMap::new(),
        };
        for Account { door, .. } in accounts {
            let instances = all_pages!(door, ComputeServiceClient, describe_instances, DescribeInstancesRequest, instances);
            all.instances.extend(instances.into_iter().map(|it| (it.instance_id.clone(), it)));
            all.interfaces.extend(all_pages!(
                door,
                NetworkServiceClient,
                describe_network_interfaces,
                DescribeNetworkInterfacesRequest,
                network_interfaces
            ));
            all.addresses.extend(all_pages!(door, NetworkServiceClient, describe_addresses, DescribeAddressesRequest, addresses));
            all.subnets.extend(all_pages!(door, NetworkServiceClient, describe_subnets, DescribeSubnetsRequest, subnets));
        }
        for name in region.names().into_iter().filter(|name| name.starts_with("node-")) {
            let mut node = NodeServiceClient::new(region.client(&name, OPERATOR));
            let request = DescribeNodeInstancesRequest { page_size: 1000, ..Default::default() };
            all.on_nodes.insert(name, node.describe_node_instances(request).await.unwrap().into_inner().instances);
        }
        all
    }

    /// Compute follows network and the nodes, and a node takes its time for a boot: all agree a moment after the last change.
    pub async fn agreed(region: &Deployment, accounts: &[Account]) -> Self {
        until("compute, network and nodes to agree", async || {
            let all = Self::read(region, accounts).await;
            all.instances_and_interfaces_agree().and_then(|()| all.instances_and_nodes_agree()).map(|()| all)
        })
        .await
    }

    pub fn audit(&self) {
        self.no_address_is_held_twice();
        self.no_address_is_lost();
        self.what_is_promised_is_held();
    }

    fn no_address_is_held_twice(&self) {
        let mut public: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut private = BTreeSet::new();
        for one in &self.interfaces {
            if let Some(association) = &one.association {
                let holder = if association.allocation_id.is_empty() { &one.network_interface_id } else { &association.allocation_id };
                public.entry(association.public_ip.clone()).or_default().insert(holder.clone());
            }
            for address in &one.private_ip_addresses {
                let place = (one.subnet_id.clone(), address.private_ip_address.clone());
                assert!(private.insert(place.clone()), "two interfaces have {place:?}");
            }
        }
        for address in &self.addresses {
            public.entry(address.public_ip.clone()).or_default().insert(address.allocation_id.clone());
        }
        for (address, holders) in public {
            assert_eq!(holders.len(), 1, "{address} is held by {holders:?}");
        }
        // An association stands in the elastic IP and in the interface.
        for address in &self.addresses {
            let Some(association) = &address.association else { continue };
            let to = self.interfaces.iter().find(|one| one.network_interface_id == association.network_interface_id);
            let at = to.and_then(|one| one.association.as_ref()).unwrap_or_else(|| panic!("{} leads nowhere", address.public_ip));
            assert_eq!((&at.public_ip, &at.allocation_id), (&address.public_ip, &address.allocation_id));
        }
    }

    /// What is not held is free.
    fn no_address_is_lost(&self) {
        for subnet in &self.subnets {
            let bits: u32 = subnet.cidr_block.rsplit('/').next().unwrap().parse().unwrap();
            let of_it = self.interfaces.iter().filter(|one| one.subnet_id == subnet.subnet_id);
            let held: usize = of_it.map(|one| one.private_ip_addresses.len()).sum();
            let free = (1 << (32 - bits)) - 5 - i32::try_from(held).unwrap();
            assert_eq!(subnet.available_ip_address_count, free, "free addresses of {}", subnet.subnet_id);
        }
    }

    fn living(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values().filter(|it| it.state() != InstanceState::Terminated)
    }

    fn instances_and_interfaces_agree(&self) -> Result<(), String> {
        type Shown = (String, String, String, BTreeSet<String>);
        let mut of_network: BTreeMap<String, BTreeSet<Shown>> = BTreeMap::new();
        for one in &self.interfaces {
            let Some(at) = &one.attachment else { continue };
            let public = one.association.as_ref().map(|association| association.public_ip.clone()).unwrap_or_default();
            let groups = one.groups.iter().map(|group| group.group_id.clone()).collect();
            let shown = (one.network_interface_id.clone(), one.private_ip_address.clone(), public, groups);
            of_network.entry(at.instance_id.clone()).or_default().insert(shown);
        }
        let of_compute: BTreeMap<String, BTreeSet<Shown>> = self
            .living()
            .map(|it| {
                let shown = it.network_interfaces.iter().map(|one| {
                    let groups = one.groups.iter().map(|group| group.group_id.clone()).collect();
                    (one.network_interface_id.clone(), one.private_ip_address.clone(), one.public_ip_address.clone(), groups)
                });
                (it.instance_id.clone(), shown.collect())
            })
            .collect();
        let differs = |id: &&String| of_compute.get(*id) != of_network.get(*id);
        let ids: BTreeSet<&String> = of_compute.keys().chain(of_network.keys()).collect();
        let Some(id) = ids.into_iter().find(differs) else { return Ok(()) };
        Err(format!("{id} has {:?} for compute, and {:?} for network", of_compute.get(id), of_network.get(id)))
    }

    /// Each instance is on one node, as compute wants it there, and no node has another.
    fn instances_and_nodes_agree(&self) -> Result<(), String> {
        let mut found = BTreeMap::new();
        for (node, instances) in &self.on_nodes {
            for one in instances {
                let seen = one.observation.clone().unwrap();
                let running = seen.state() == gureum_proto::node::v1::ObservedState::Running;
                let before = found.insert(seen.instance_id.clone(), (running, seen.generation));
                assert_eq!(before, None, "{} is on two nodes, {node} among them", seen.instance_id);
            }
        }
        let wanted: BTreeMap<String, (bool, u64)> =
            self.living().map(|it| (it.instance_id.clone(), (it.state() == InstanceState::Running, it.generation))).collect();
        let ids: BTreeSet<&String> = found.keys().chain(wanted.keys()).collect();
        let Some(id) = ids.into_iter().find(|id| found.get(*id) != wanted.get(*id)) else { return Ok(()) };
        Err(format!("{id} is {:?} for its node, and {:?} for compute", found.get(id), wanted.get(id)))
    }

    /// Compute gives out what instances hold, and no more.
    fn what_is_promised_is_held(&self) {
        for node in &self.nodes {
            let (capacity, available) = (node.capacity.unwrap(), node.available.unwrap());
            let held = self.on_nodes.values().flatten().filter(|one| self.zone_of(one).ends_with(&node.zone));
            let (cpu, memory) = held.fold((0, 0), |(cpu, memory), one| (cpu + one.held_vcpu_milli, memory + one.held_memory_mib));
            let promised = (capacity.vcpu_milli - available.vcpu_milli, capacity.memory_mib - available.memory_mib);
            assert_eq!(promised, (cpu as i64, memory as i64), "what is promised of the node in zone {}", node.zone);
        }
    }

    fn zone_of(&self, one: &NodeInstance) -> &str {
        let id = &one.observation.as_ref().unwrap().instance_id;
        &self.instances[id].placement.as_ref().unwrap().availability_zone
    }
}
