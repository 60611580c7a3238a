//! Security groups and their rules.

use std::collections::{BTreeMap, BTreeSet};

use gureum_proto::security::v1::{security_service_client::SecurityServiceClient, *};

use super::client::{Client, change};
use crate::{audit::Account, harness::all_pages};

/// The ports of each group's rules.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    pub living: BTreeMap<String, BTreeSet<i32>>,
    pub deleted: BTreeSet<String>,
}

impl Groups {
    pub fn merge(&mut self, other: Self) {
        self.living.extend(other.living);
        self.deleted.extend(other.deleted);
    }
}

pub async fn act(client: &mut Client) {
    let Some(group_id) = client.pick(client.known.groups.living.keys().cloned()) else { return create(client).await };
    match client.chance.below(5) {
        0 => delete(client, group_id).await,
        1 | 2 => authorize(client, group_id).await,
        3 => revoke(client, group_id).await,
        _ => create(client).await,
    }
}

async fn create(client: &mut Client) {
    let group_name = client.name("group");
    let made = change!(
        client,
        SecurityServiceClient,
        create_security_group,
        CreateSecurityGroupRequest { group_name: group_name, description: "work".to_owned() }
    );
    client.known.groups.living.insert(made.unwrap().security_group.unwrap().group_id, BTreeSet::new());
}

/// Refused while an interface has it, or until security has learnt that none has any more.
async fn delete(client: &mut Client, group_id: String) {
    let request = group_id.clone();
    match change!(client, SecurityServiceClient, delete_security_group, DeleteSecurityGroupRequest { group_id: request }) {
        Ok(_) => {
            client.known.groups.living.remove(&group_id);
            client.known.groups.deleted.insert(group_id);
        }
        Err(status) => client.refused("DeleteSecurityGroup", &status, &["DependencyViolation"]),
    }
}

fn permission(port: i32) -> IpPermission {
    IpPermission {
        ip_protocol: "tcp".into(),
        from_port: Some(port),
        to_port: Some(port),
        ip_ranges: vec![IpRange { cidr: "0.0.0.0/0".into(), description: String::new() }],
        ..Default::default()
    }
}

async fn authorize(client: &mut Client, group_id: String) {
    let port = 1 + client.known.groups.living[&group_id].last().copied().unwrap_or(0);
    let (id, ip_permissions) = (group_id.clone(), vec![permission(port)]);
    match change!(
        client,
        SecurityServiceClient,
        authorize_security_group_ingress,
        AuthorizeSecurityGroupIngressRequest { group_id: id, ip_permissions: ip_permissions }
    ) {
        Ok(_) => drop(client.known.groups.living.get_mut(&group_id).unwrap().insert(port)),
        Err(status) => client.refused("AuthorizeSecurityGroupIngress", &status, &["RulesPerSecurityGroupLimitExceeded"]),
    }
}

async fn revoke(client: &mut Client, group_id: String) {
    let Some(port) = client.known.groups.living[&group_id].first().copied() else { return };
    let (id, ip_permissions) = (group_id.clone(), vec![permission(port)]);
    change!(
        client,
        SecurityServiceClient,
        revoke_security_group_ingress,
        RevokeSecurityGroupIngressRequest { group_id: id, ip_permissions: ip_permissions }
    )
    .unwrap();
    client.known.groups.living.get_mut(&group_id).unwrap().remove(&port);
}

pub async fn audit(account: &Account) {
    let groups = all_pages!(account.door, SecurityServiceClient, describe_security_groups, DescribeSecurityGroupsRequest, security_groups);
    let mut found = BTreeMap::new();
    for group in groups.into_iter().filter(|group| group.group_name != "default") {
        let ports = group.rules.iter().filter(|rule| !rule.is_egress).map(|rule| rule.from_port).collect();
        assert_eq!(found.insert(group.group_id, ports), None, "a group is listed twice");
    }
    assert_eq!(found, account.known.groups.living, "groups found, and acknowledged");
}
