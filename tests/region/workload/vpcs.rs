//! VPCs and subnets beside the default ones: made, and deleted when they are empty.

use std::collections::{BTreeMap, BTreeSet};

use gureum_proto::{
    network::v1::{network_service_client::NetworkServiceClient, *},
    security::v1::{security_service_client::SecurityServiceClient, *},
};

use super::client::{Client, change};
use crate::{
    audit::Account,
    harness::{all_pages, ask},
};

/// Subnets' CIDR blocks by id, by VPC.
#[derive(Debug, Clone, Default)]
pub struct Vpcs {
    pub living: BTreeMap<String, BTreeMap<String, String>>,
    pub deleted: BTreeSet<String>,
}

impl Vpcs {
    pub fn merge(&mut self, other: Self) {
        self.living.extend(other.living);
        self.deleted.extend(other.deleted);
    }
}

/// Of one client, so that a region is not left with nothing but VPCs.
const MOST: usize = 3;
const SUBNETS: usize = 4;

pub async fn act(client: &mut Client) {
    let all = &client.known.vpcs.living;
    let empty = client.pick(all.iter().filter(|(_, subnets)| subnets.is_empty()).map(|(id, _)| id.clone()));
    let any = client.pick(all.keys().cloned());
    match (client.chance.below(4), empty, any) {
        (0, Some(id), _) => delete(client, id).await,
        (1, _, Some(id)) => delete_subnet(client, id).await,
        (_, _, Some(id)) if all_full(client) || client.chance.below(2) == 0 => create_subnet(client, id).await,
        _ => create(client).await,
    }
}

fn all_full(client: &Client) -> bool {
    client.known.vpcs.living.len() >= MOST
}

/// It is answered as it is by then, so a repeat may show it further on.
async fn create(client: &mut Client) {
    let request = CreateVpcRequest { client_token: client.token(), cidr_block: "10.0.0.0/16".into(), ..Default::default() };
    let made = ask!(client.door, NetworkServiceClient, create_vpc, request.clone()).unwrap().vpc.unwrap();
    if client.repeats() {
        let again = ask!(client.door, NetworkServiceClient, create_vpc, request).unwrap().vpc.unwrap();
        assert_eq!(again.vpc_id, made.vpc_id, "the same token made another VPC");
    }
    assert_eq!(client.known.vpcs.living.insert(made.vpc_id, BTreeMap::new()), None, "a VPC was made twice");
}

async fn create_subnet(client: &mut Client, vpc_id: String) {
    let used = &client.known.vpcs.living[&vpc_id];
    let Some(cidr) = (0..SUBNETS).map(|place| format!("10.0.{place}.0/24")).find(|cidr| used.values().all(|known| known != cidr)) else {
        return delete_subnet(client, vpc_id).await;
    };
    let (vpc, block) = (vpc_id.clone(), cidr.clone());
    let made = change!(client, NetworkServiceClient, create_subnet, CreateSubnetRequest { vpc_id: vpc, cidr_block: block });
    let id = made.unwrap().subnet.unwrap().subnet_id;
    let known = client.known.vpcs.living.get_mut(&vpc_id).unwrap();
    assert_eq!(known.insert(id, cidr), None, "a subnet was made twice");
}

async fn delete_subnet(client: &mut Client, vpc_id: String) {
    let Some(id) = client.known.vpcs.living[&vpc_id].keys().next().cloned() else { return };
    let subnet_id = id.clone();
    change!(client, NetworkServiceClient, delete_subnet, DeleteSubnetRequest { subnet_id: subnet_id }).unwrap();
    client.known.vpcs.living.get_mut(&vpc_id).unwrap().remove(&id);
}

async fn delete(client: &mut Client, id: String) {
    let vpc_id = id.clone();
    change!(client, NetworkServiceClient, delete_vpc, DeleteVpcRequest { vpc_id: vpc_id }).unwrap();
    client.known.vpcs.living.remove(&id);
    client.known.vpcs.deleted.insert(id);
}

pub async fn audit(account: &Account) {
    let vpcs = all_pages!(account.door, NetworkServiceClient, describe_vpcs, DescribeVpcsRequest, vpcs);
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for vpc in vpcs.iter().filter(|vpc| !vpc.is_default) {
        assert_eq!(vpc.state(), VpcState::Available, "{} is not whole", vpc.vpc_id);
        assert_eq!(found.insert(vpc.vpc_id.clone(), BTreeMap::new()), None, "a VPC is listed twice");
    }
    for subnet in all_pages!(account.door, NetworkServiceClient, describe_subnets, DescribeSubnetsRequest, subnets) {
        if let Some(subnets) = found.get_mut(&subnet.vpc_id) {
            assert_eq!(subnets.insert(subnet.subnet_id, subnet.cidr_block), None, "a subnet is listed twice");
        } else {
            assert!(subnet.default_for_az, "{} is of no VPC", subnet.subnet_id);
        }
    }
    assert_eq!(found, account.known.vpcs.living, "VPCs found, and acknowledged");
    // One group that came with each VPC, and none of one that is gone.
    let groups = all_pages!(account.door, SecurityServiceClient, describe_security_groups, DescribeSecurityGroupsRequest, security_groups);
    let mut of_vpcs: Vec<String> = groups.into_iter().filter(|group| group.group_name == "default").map(|group| group.vpc_id).collect();
    let mut wanted: Vec<String> = vpcs.into_iter().map(|vpc| vpc.vpc_id).collect();
    of_vpcs.sort();
    wanted.sort();
    assert_eq!(of_vpcs, wanted, "VPCs with a default group, and VPCs");
}
