//! Where the traffic of instances may go follows their subnets' route tables, while they run.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use gureum_proto::{
    compute::v1::{compute_service_client::ComputeServiceClient, *},
    network::v1::{network_service_client::NetworkServiceClient, route::Target, *},
    security::v1::{AuthorizeSecurityGroupIngressRequest, security_service_client::SecurityServiceClient},
};

use crate::{
    harness::{ask, until},
    region::{image, launch_spec, until_state},
    tour::{OFFSET, http, page, region_reached_at},
};

const EVERYWHERE: &str = "0.0.0.0/0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_reached_by_its_public_address_as_long_as_its_subnet_has_a_route_to_a_gateway() {
    let shared = tempfile::tempdir().unwrap();
    let mut region = region_reached_at("127.248.1.0/24", &shared);
    let door = region.door("000000000931");
    let placement = PlacementSpec { availability_zone: Some("us-east-1a".into()), ..Default::default() };
    let spec = LaunchSpec { placement: Some(placement), ..launch_spec(&image(&door, "gureum-web").await) };
    let request = RunInstancesRequest { spec: Some(spec), min_count: 1, max_count: 1, ..Default::default() };
    let launched = ask!(door, ComputeServiceClient, run_instances, request).unwrap().instances.remove(0);
    let group_id = launched.security_groups[0].group_id.clone();
    let allow = AuthorizeSecurityGroupIngressRequest { group_id, ip_permissions: vec![http()], ..Default::default() };
    ask!(door, SecurityServiceClient, authorize_security_group_ingress, allow).unwrap();
    let running = until_state(&door, &launched.instance_id, InstanceState::Running).await;
    let address: SocketAddr = format!("{}:{}", running.public_ip_address, 80 + OFFSET).parse().unwrap();
    until("the page", async || page(address).map_err(|error| error.to_string())).await;

    // A connection that is open when the route goes.
    let mut open = TcpStream::connect(address).unwrap();
    open.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    open.write_all(b"GET / HTTP/1.0\r\n").unwrap();
    let tables = ask!(door, NetworkServiceClient, describe_route_tables, DescribeRouteTablesRequest::default()).unwrap().route_tables;
    let table = tables.iter().find(|table| table.vpc_id == running.vpc_id).unwrap();
    let out = table.routes.iter().find(|route| route.destination_cidr_block == EVERYWHERE).unwrap();
    let Some(Target::GatewayId(gateway)) = out.target.clone() else { panic!("{out:?}") };
    let route_table_id = table.route_table_id.clone();
    let destination_cidr_block = EVERYWHERE.to_owned();
    let away = DeleteRouteRequest { route_table_id: route_table_id.clone(), destination_cidr_block, ..Default::default() };
    ask!(door, NetworkServiceClient, delete_route, away).unwrap();
    until("nobody is let in", async || if page(address).is_err() { Ok(()) } else { Err("it is still served".to_owned()) }).await;
    let mut rest = Vec::new();
    assert!(matches!(open.read_to_end(&mut rest), Err(_) | Ok(0)), "{}", String::from_utf8_lossy(&rest));

    // A node that was away when the route came again hears of it.
    region.kill("node-a");
    let again = CreateRouteRequest {
        route_table_id,
        destination_cidr_block: EVERYWHERE.into(),
        target: Some(create_route_request::Target::GatewayId(gateway)),
        ..Default::default()
    };
    ask!(door, NetworkServiceClient, create_route, again).unwrap();
    region.restart("node-a");
    until("the page", async || page(address).map_err(|error| error.to_string())).await;

    // It leads elsewhere.
    let interface = running.network_interfaces[0].network_interface_id.clone();
    let elsewhere = ReplaceRouteRequest {
        route_table_id: table.route_table_id.clone(),
        destination_cidr_block: EVERYWHERE.into(),
        target: Some(replace_route_request::Target::NetworkInterfaceId(interface)),
        ..Default::default()
    };
    ask!(door, NetworkServiceClient, replace_route, elsewhere).unwrap();
    until("nobody is let in", async || if page(address).is_err() { Ok(()) } else { Err("it is still served".to_owned()) }).await;
    let terminate = TerminateInstancesRequest { instance_ids: vec![launched.instance_id.clone()], ..Default::default() };
    ask!(door, ComputeServiceClient, terminate_instances, terminate).unwrap();
    until_state(&door, &launched.instance_id, InstanceState::Terminated).await;
    region.finish();
}
