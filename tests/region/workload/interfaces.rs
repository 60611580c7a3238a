//! Network interfaces made by hand: attached, detached, given other groups, deleted.

use std::collections::{BTreeMap, BTreeSet};

use gureum_proto::{
    compute::v1::InstanceState,
    network::v1::{network_service_client::NetworkServiceClient, *},
};

use super::client::{Client, change};
use crate::{
    audit::Account,
    harness::{all_pages, ask},
};

/// By id.
#[derive(Debug, Clone, Default)]
pub struct Interfaces {
    pub living: BTreeMap<String, Known>,
    pub deleted: BTreeSet<String>,
}

/// What a client knows of one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Known {
    pub zone: String,
    /// Empty: the VPC's default group.
    pub groups: BTreeSet<String>,
    /// The instance and the attachment.
    pub attached: Option<(String, String)>,
}

impl Interfaces {
    pub fn merge(&mut self, other: Self) {
        self.living.extend(other.living);
        self.deleted.extend(other.deleted);
    }

    /// What was attached to an instance by hand outlives it.
    pub fn freed_by(&mut self, instance: &str) {
        for known in self.living.values_mut() {
            known.attached.take_if(|(of, _)| of == instance);
        }
    }

    pub fn of(&self, instance: &str) -> usize {
        self.living.values().filter(|known| known.attached.as_ref().is_some_and(|(of, _)| of == instance)).count()
    }
}

/// What an instance that is about to end may still have.
const ENDING: &str = "InvalidNetworkInterface.InUse";

pub async fn act(client: &mut Client) {
    let all = &client.known.interfaces.living;
    let free = client.pick(all.iter().filter(|(_, known)| known.attached.is_none()).map(|(id, _)| id.clone()));
    let attached = client.pick(all.iter().filter(|(_, known)| known.attached.is_some()).map(|(id, _)| id.clone()));
    match (client.chance.below(6), free, attached) {
        (0, Some(id), _) => delete(client, id).await,
        (1 | 2, Some(id), _) => attach(client, id).await,
        (3, _, Some(id)) => detach(client, id).await,
        (4, Some(id), _) | (4, None, Some(id)) => change_groups(client, id).await,
        _ => create(client).await,
    }
}

async fn create(client: &mut Client) {
    let subnets = ask!(client.door, NetworkServiceClient, describe_subnets, DescribeSubnetsRequest::default()).unwrap().subnets;
    // The groups that it knows are of the default VPC.
    let subnet = client.pick(subnets.into_iter().filter(|subnet| subnet.default_for_az)).unwrap();
    let groups: BTreeSet<String> = client.pick(client.known.groups.living.keys().cloned()).into_iter().collect();
    let (subnet_id, group_ids) = (subnet.subnet_id, groups.iter().cloned().collect());
    let made = change!(
        client,
        NetworkServiceClient,
        create_network_interface,
        CreateNetworkInterfaceRequest { subnet_id: subnet_id, group_ids: group_ids }
    );
    let id = made.unwrap().network_interface.unwrap().network_interface_id;
    let known = Known { zone: subnet.availability_zone, groups, attached: None };
    assert_eq!(client.known.interfaces.living.insert(id, known), None, "an interface was made twice");
}

async fn attach(client: &mut Client, id: String) {
    let zone = &client.known.interfaces.living[&id].zone;
    let running = client.known.instances.living().filter(|(_, known)| known.goal == InstanceState::Running && known.zone == *zone);
    let Some(instance_id) = client.pick(running.map(|(id, _)| id.clone())) else { return };
    let (of, network_interface_id) = (instance_id.clone(), id.clone());
    let attached = change!(
        client,
        NetworkServiceClient,
        attach_network_interface,
        AttachNetworkInterfaceRequest { network_interface_id: network_interface_id, instance_id: of, device_index: 1 }
    );
    match attached {
        Ok(answer) => client.known.interfaces.living.get_mut(&id).unwrap().attached = Some((instance_id, answer.attachment_id)),
        // The instance has one at this index, or an instance that is about to end still has this one.
        Err(status) => client.refused("AttachNetworkInterface", &status, &["InvalidParameterValue", "AttachmentLimitExceeded", ENDING]),
    }
}

async fn detach(client: &mut Client, id: String) {
    let Some((_, attachment_id)) = client.known.interfaces.living[&id].attached.clone() else { return };
    change!(client, NetworkServiceClient, detach_network_interface, DetachNetworkInterfaceRequest { attachment_id: attachment_id })
        .unwrap();
    client.known.interfaces.living.get_mut(&id).unwrap().attached = None;
}

async fn change_groups(client: &mut Client, id: String) {
    let Some(group) = client.pick(client.known.groups.living.keys().cloned()) else { return };
    let (network_interface_id, group_ids) = (id.clone(), vec![group.clone()]);
    change!(
        client,
        NetworkServiceClient,
        modify_network_interface_attribute,
        ModifyNetworkInterfaceAttributeRequest { network_interface_id: network_interface_id, group_ids: group_ids }
    )
    .unwrap();
    client.known.interfaces.living.get_mut(&id).unwrap().groups = BTreeSet::from([group]);
}

async fn delete(client: &mut Client, id: String) {
    let network_interface_id = id.clone();
    let request_name = "DeleteNetworkInterface";
    match change!(
        client,
        NetworkServiceClient,
        delete_network_interface,
        DeleteNetworkInterfaceRequest { network_interface_id: network_interface_id }
    ) {
        Ok(_) => {
            client.known.interfaces.living.remove(&id);
            client.known.addresses.freed_by(&id);
            client.known.interfaces.deleted.insert(id);
        }
        Err(status) => client.refused(request_name, &status, &[ENDING]),
    }
}

pub async fn audit(account: &Account) {
    let all =
        all_pages!(account.door, NetworkServiceClient, describe_network_interfaces, DescribeNetworkInterfacesRequest, network_interfaces);
    let known = &account.known;
    let found: BTreeSet<String> = all.iter().map(|one| one.network_interface_id.clone()).collect();
    let mut wanted: BTreeSet<String> = known.interfaces.living.keys().cloned().collect();
    wanted.extend(known.instances.living().map(|(_, it)| it.primary_interface.clone()));
    assert_eq!(found, wanted, "interfaces found, and acknowledged");
    for one in &all {
        let Some(mine) = known.interfaces.living.get(&one.network_interface_id) else { continue };
        let attached = one.attachment.as_ref().map(|at| (at.instance_id.clone(), at.attachment_id.clone()));
        assert_eq!(attached, mine.attached, "what {} is attached to", one.network_interface_id);
        if !mine.groups.is_empty() {
            let groups: BTreeSet<String> = one.groups.iter().map(|group| group.group_id.clone()).collect();
            assert_eq!(groups, mine.groups, "the groups of {}", one.network_interface_id);
        }
    }
}
