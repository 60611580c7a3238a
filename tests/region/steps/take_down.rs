//! Takes an account down to what it was born with; whatever refuses to go shows what leaked.

use gureum_proto::{
    compute::v1::{compute_peer_service_client::ComputePeerServiceClient, compute_service_client::ComputeServiceClient, *},
    network::v1::{network_service_client::NetworkServiceClient, *},
    node::v1::{DescribeNodeInstancesRequest, node_service_client::NodeServiceClient},
    security::v1::{security_service_client::SecurityServiceClient, *},
};

use crate::harness::{Deployment, Door, all_pages, ask, until};

/// Ends and deletes everything, in an order in which nothing is in use any more.
pub async fn take_down(door: &Door) {
    let instances = all_pages!(door, ComputeServiceClient, describe_instances, DescribeInstancesRequest, instances);
    let living = instances.iter().filter(|instance| instance.state() != InstanceState::Terminated);
    let instance_ids: Vec<String> = living.map(|instance| instance.instance_id.clone()).collect();
    for instance_ids in instance_ids.chunks(100).map(<[String]>::to_vec) {
        ask!(door, ComputeServiceClient, terminate_instances, TerminateInstancesRequest { instance_ids, ..Default::default() }).unwrap();
    }
    until("every instance's end", async || {
        let instances = all_pages!(door, ComputeServiceClient, describe_instances, DescribeInstancesRequest, instances);
        let left: Vec<_> = instances.iter().filter(|one| one.state() != InstanceState::Terminated).collect();
        let words = |one: &&Instance| format!("{} {:?} {}", one.instance_id, one.state(), one.waiting_reason);
        if left.is_empty() { Ok(()) } else { Err(format!("{:?}", left.iter().map(words).collect::<Vec<_>>())) }
    })
    .await;
    // Their interfaces are gone; what is left is free, or was attached by hand and is free now.
    for interface in
        all_pages!(door, NetworkServiceClient, describe_network_interfaces, DescribeNetworkInterfacesRequest, network_interfaces)
    {
        let network_interface_id = interface.network_interface_id;
        let request = DeleteNetworkInterfaceRequest { network_interface_id, ..Default::default() };
        ask!(door, NetworkServiceClient, delete_network_interface, request).unwrap();
    }
    take_down_disks(door).await;
    for address in all_pages!(door, NetworkServiceClient, describe_addresses, DescribeAddressesRequest, addresses) {
        let request = ReleaseAddressRequest { allocation_id: address.allocation_id, ..Default::default() };
        ask!(door, NetworkServiceClient, release_address, request).unwrap();
    }
    for subnet in all_pages!(door, NetworkServiceClient, describe_subnets, DescribeSubnetsRequest, subnets) {
        if !subnet.default_for_az {
            let request = DeleteSubnetRequest { subnet_id: subnet.subnet_id, ..Default::default() };
            ask!(door, NetworkServiceClient, delete_subnet, request).unwrap();
        }
    }
    for vpc in all_pages!(door, NetworkServiceClient, describe_vpcs, DescribeVpcsRequest, vpcs).into_iter().filter(|vpc| !vpc.is_default) {
        ask!(door, NetworkServiceClient, delete_vpc, DeleteVpcRequest { vpc_id: vpc.vpc_id, ..Default::default() }).unwrap();
    }
    take_down_security(door).await;
}

/// What instances left, and what was made of them. A snapshot goes after the images that are made of it.
async fn take_down_disks(door: &Door) {
    for image in all_pages!(door, ComputeServiceClient, describe_images, DescribeImagesRequest, images) {
        if image.owner_alias.is_empty() {
            let request = DeregisterImageRequest { image_id: image.image_id, ..Default::default() };
            ask!(door, ComputeServiceClient, deregister_image, request).unwrap();
        }
    }
    until("every disk's end", async || {
        let mut kept = Vec::new();
        for snapshot in all_pages!(door, ComputeServiceClient, describe_snapshots, DescribeSnapshotsRequest, snapshots) {
            let request = DeleteSnapshotRequest { snapshot_id: snapshot.snapshot_id, ..Default::default() };
            if snapshot.owner_alias.is_empty() {
                kept.extend(ask!(door, ComputeServiceClient, delete_snapshot, request).err());
            }
        }
        for volume in all_pages!(door, ComputeServiceClient, describe_volumes, DescribeVolumesRequest, volumes) {
            let request = DeleteVolumeRequest { volume_id: volume.volume_id.clone(), ..Default::default() };
            match ask!(door, ComputeServiceClient, delete_volume, request) {
                Ok(_) => kept.push(tonic::Status::aborted(format!("{} is being deleted", volume.volume_id))),
                Err(status) => kept.push(status),
            }
        }
        if kept.is_empty() { Ok(()) } else { Err(format!("{kept:?}")) }
    })
    .await;
}

/// A group that a hold still keeps after its interfaces are gone is a leak; security learns of their end a moment later.
async fn take_down_security(door: &Door) {
    for pair in all_pages!(door, SecurityServiceClient, describe_key_pairs, DescribeKeyPairsRequest, key_pairs) {
        let request = DeleteKeyPairRequest { key_name: pair.key_name, ..Default::default() };
        ask!(door, SecurityServiceClient, delete_key_pair, request).unwrap();
    }
    until("every group's end", async || {
        let groups = all_pages!(door, SecurityServiceClient, describe_security_groups, DescribeSecurityGroupsRequest, security_groups);
        let mut kept = Vec::new();
        for group in groups.into_iter().filter(|group| group.group_name != "default") {
            let request = DeleteSecurityGroupRequest { group_id: group.group_id, ..Default::default() };
            kept.extend(ask!(door, SecurityServiceClient, delete_security_group, request).err().map(|status| status.message().to_owned()));
        }
        if kept.is_empty() { Ok(()) } else { Err(kept.join("; ")) }
    })
    .await;
}

/// Nothing of an account is anywhere any more, and nothing of the nodes is promised.
pub async fn nothing_left(door: &Door, region: &Deployment) {
    let addresses = all_pages!(door, NetworkServiceClient, describe_addresses, DescribeAddressesRequest, addresses);
    assert_eq!(addresses, vec![], "an elastic IP leaked");
    let interfaces =
        all_pages!(door, NetworkServiceClient, describe_network_interfaces, DescribeNetworkInterfacesRequest, network_interfaces);
    assert_eq!(interfaces, vec![], "an interface leaked");
    let volumes = all_pages!(door, ComputeServiceClient, describe_volumes, DescribeVolumesRequest, volumes);
    assert_eq!(volumes, vec![], "a volume leaked");
    for subnet in all_pages!(door, NetworkServiceClient, describe_subnets, DescribeSubnetsRequest, subnets) {
        let bits: u32 = subnet.cidr_block.rsplit('/').next().unwrap().parse().unwrap();
        assert_eq!(i64::from(subnet.available_ip_address_count), (1 << (32 - bits)) - 5, "{} lacks an address", subnet.subnet_id);
    }
    until("the nodes to be empty", || nodes_empty(region)).await;
}

/// What compute has promised of the nodes, and what they have.
async fn nodes_empty(region: &Deployment) -> Result<(), String> {
    let mut compute = ComputePeerServiceClient::new(region.client("compute", crate::region::OPERATOR));
    let nodes = compute.describe_nodes(DescribeNodesRequest::default()).await.map_err(|status| status.to_string())?.into_inner().nodes;
    if let Some(node) = nodes.iter().find(|node| node.capacity != node.available) {
        return Err(format!("{:?} of {:?} are free", node.available, node.capacity));
    }
    for name in region.names().into_iter().filter(|name| name.starts_with("node-")) {
        let mut node = NodeServiceClient::new(region.client(&name, crate::region::OPERATOR));
        let known = node.describe_node_instances(DescribeNodeInstancesRequest::default()).await.map_err(|status| status.to_string())?;
        let known = known.into_inner().instances;
        if !known.is_empty() {
            return Err(format!("{name} has {} instances", known.len()));
        }
    }
    Ok(())
}
