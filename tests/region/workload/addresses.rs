//! Elastic IPs: allocated, associated, moved, disassociated, released.

use std::collections::{BTreeMap, BTreeSet};

use gureum_proto::{
    compute::v1::InstanceState,
    network::v1::{network_service_client::NetworkServiceClient, *},
};

use super::client::{Client, change};
use crate::{audit::Account, harness::all_pages};

/// By allocation.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    pub living: BTreeMap<String, Known>,
    pub released: BTreeSet<String>,
}

/// What a client knows of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    pub public_ip: String,
    /// The interface and the association.
    pub leads_to: Option<(String, String)>,
}

impl Addresses {
    pub fn merge(&mut self, other: Self) {
        self.living.extend(other.living);
        self.released.extend(other.released);
    }

    /// The interface is gone, or leads elsewhere from now on.
    pub fn freed_by(&mut self, interface: &str) {
        for known in self.living.values_mut() {
            known.leads_to.take_if(|(to, _)| to == interface);
        }
    }
}

pub async fn act(client: &mut Client) {
    let all = &client.known.addresses.living;
    let any = client.pick(all.keys().cloned());
    let leading = client.pick(all.iter().filter(|(_, known)| known.leads_to.is_some()).map(|(id, _)| id.clone()));
    match (client.chance.below(6), any, leading) {
        (0, Some(id), _) => release(client, id).await,
        (1, _, Some(id)) => disassociate(client, id).await,
        (2..=4, Some(id), _) => associate(client, id).await,
        _ => allocate(client).await,
    }
}

async fn allocate(client: &mut Client) {
    match change!(client, NetworkServiceClient, allocate_address, AllocateAddressRequest {}) {
        Ok(answer) => {
            let address = answer.address.unwrap();
            let known = Known { public_ip: address.public_ip, leads_to: None };
            assert_eq!(client.known.addresses.living.insert(address.allocation_id, known), None, "an address was allocated twice");
        }
        Err(status) => client.refused("AllocateAddress", &status, &["AddressLimitExceeded"]),
    }
}

/// To an interface made by hand, or to an instance that has no other; what leads there gives way.
async fn associate(client: &mut Client, id: String) {
    let known = &client.known;
    let interface = client.pick(known.interfaces.living.keys().cloned());
    let running = known.instances.with_goal(InstanceState::Running).filter(|id| known.interfaces.of(id) == 0);
    let instance = client.pick(running.cloned());
    let (network_interface_id, instance_id) = match (client.chance.below(2), interface, instance) {
        (0, Some(interface), _) | (_, Some(interface), None) => (interface, String::new()),
        (_, _, Some(instance)) => (String::new(), instance),
        (_, None, None) => return,
    };
    let allocation_id = id.clone();
    let answer = change!(
        client,
        NetworkServiceClient,
        associate_address,
        AssociateAddressRequest {
            allocation_id: allocation_id,
            network_interface_id: network_interface_id,
            instance_id: instance_id,
            allow_reassociation: true,
        }
    );
    let association = answer.unwrap().address.unwrap().association.unwrap();
    client.known.addresses.freed_by(&association.network_interface_id);
    let leads_to = Some((association.network_interface_id, association.association_id));
    client.known.addresses.living.get_mut(&id).unwrap().leads_to = leads_to;
}

async fn disassociate(client: &mut Client, id: String) {
    let Some((_, association_id)) = client.known.addresses.living[&id].leads_to.clone() else { return };
    change!(client, NetworkServiceClient, disassociate_address, DisassociateAddressRequest { association_id: association_id }).unwrap();
    client.known.addresses.living.get_mut(&id).unwrap().leads_to = None;
}

async fn release(client: &mut Client, id: String) {
    let allocation_id = id.clone();
    match change!(client, NetworkServiceClient, release_address, ReleaseAddressRequest { allocation_id: allocation_id }) {
        Ok(_) => {
            client.known.addresses.living.remove(&id);
            client.known.addresses.released.insert(id);
        }
        // It leads somewhere; also to an instance that is about to end.
        Err(status) => client.refused("ReleaseAddress", &status, &["InvalidIPAddress.InUse"]),
    }
}

pub async fn audit(account: &Account) {
    let all = all_pages!(account.door, NetworkServiceClient, describe_addresses, DescribeAddressesRequest, addresses);
    let mut found = BTreeMap::new();
    for address in all {
        let leads_to = address.association.map(|at| (at.network_interface_id, at.association_id));
        let before = found.insert(address.allocation_id, Known { public_ip: address.public_ip, leads_to });
        assert_eq!(before, None, "an elastic IP is listed twice");
    }
    assert_eq!(found, account.known.addresses.living, "elastic IPs found, and acknowledged");
}
