//! Whoever has an answer reads what led to it, also where another service shows it.

use std::time::Duration;

use gureum_proto::{
    compute::v1::{compute_service_client::ComputeServiceClient, *},
    network::v1::{network_service_client::NetworkServiceClient, *},
};
use gureum_service::{
    clock::monotonic,
    sequences::{COMMITTED_HEADER, READ_AFTER_HEADER},
};
use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::{
    harness::{Deployment, Door, insist},
    journeys::{launch, run, shipped_image, wait_for},
    region::region,
};

/// Times that the address is put on and taken off. Each is read back at once.
const ROUNDS: usize = 100;

async fn shown_address(door: &Door, id: &str) -> Result<String, tonic::Status> {
    let request = DescribeInstancesRequest { instance_ids: vec![id.to_owned()], ..Default::default() };
    let found = door
        .call(ComputeServiceClient::new, &request, |mut client, request| async move { client.describe_instances(request).await })
        .await?;
    Ok(found.into_inner().instances.remove(0).public_ip_address)
}

async fn associate(door: &Door, allocation_id: &str, instance_id: &str, token: &str) {
    let request = AssociateAddressRequest {
        client_token: token.into(),
        allocation_id: allocation_id.into(),
        instance_id: instance_id.into(),
        allow_reassociation: true,
        ..Default::default()
    };
    insist(|| door.call(NetworkServiceClient::new, &request, |mut client, request| async move { client.associate_address(request).await }))
        .await
        .unwrap();
}

async fn disassociate(door: &Door, public_ip: &str, token: &str) {
    let request = DisassociateAddressRequest { client_token: token.into(), public_ip: public_ip.into(), ..Default::default() };
    insist(|| {
        door.call(NetworkServiceClient::new, &request, |mut client, request| async move { client.disassociate_address(request).await })
    })
    .await
    .unwrap();
}

async fn allocate(door: &Door, token: &str) -> Address {
    let request = AllocateAddressRequest { client_token: token.into(), ..Default::default() };
    let answer = insist(|| {
        door.call(NetworkServiceClient::new, &request, |mut client, request| async move { client.allocate_address(request).await })
    })
    .await;
    answer.unwrap().address.unwrap()
}

async fn running(door: &Door) -> String {
    let image = shipped_image(door, "gureum-shell").await;
    let id = run(door, &launch(&image, "one")).await.instance_id;
    wait_for(door, &id, InstanceState::Running).await;
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_association_is_seen_by_the_next_read() {
    let mut region = region();
    let door = region.door("000000000201");
    let id = running(&door).await;
    let address = allocate(&door, "ip").await;
    let mut slowest = Duration::ZERO;
    for round in 0..ROUNDS {
        associate(&door, &address.allocation_id, &id, &format!("on {round}")).await;
        let begun = monotonic();
        assert_eq!(shown_address(&door, &id).await.unwrap(), address.public_ip, "round {round}");
        slowest = slowest.max(begun.elapsed());
        disassociate(&door, &address.public_ip, &format!("off {round}")).await;
        assert_ne!(shown_address(&door, &id).await.unwrap(), address.public_ip, "round {round}");
    }
    println!("{ROUNDS} rounds; the slowest read that showed the address took {slowest:?}");

    // What was caught up with stays readable without network, from a gateway that has just begun too.
    associate(&door, &address.allocation_id, &id, "last").await;
    assert_eq!(shown_address(&door, &id).await.unwrap(), address.public_ip);
    region.kill("network");
    assert_eq!(shown_address(&door, &id).await.unwrap(), address.public_ip);
    region.restart("network");
    region.kill("gateway");
    region.restart("gateway");
    let door = region.door("000000000201");
    disassociate(&door, &address.public_ip, "after").await;
    assert_ne!(shown_address(&door, &id).await.unwrap(), address.public_ip);
    region.finish();
}

/// Without a gateway a client may say itself what it has seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_a_gateway_says_what_it_has_seen() {
    const ACCOUNT: &str = "000000000202";
    let region = region();
    let door = region.door(ACCOUNT);
    let id = running(&door).await;
    let address = allocate(&door, "ip").await;
    let associate = AssociateAddressRequest { allocation_id: address.allocation_id, instance_id: id.clone(), ..Default::default() };
    let answer = NetworkServiceClient::new(region.client("network", ACCOUNT)).associate_address(associate).await.unwrap();
    let committed = answer.metadata().get(COMMITTED_HEADER).unwrap().to_str().unwrap().to_owned();
    assert!(committed.contains("network="), "{committed}");
    let shown = describe_after(&region, ACCOUNT, &id, &committed).await.unwrap();
    assert_eq!(shown.public_ip_address, address.public_ip);

    // An event that has not happened is waited for, and not for ever.
    let begun = monotonic();
    let refused = describe_after(&region, ACCOUNT, &id, "network=18446744073709551615").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("network") && refused.get_details_retry_info().is_some(), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(4));
    let refused = describe_after(&region, ACCOUNT, &id, "network=soon").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert_eq!(refused.get_details_bad_request().unwrap().field_violations[0].field, READ_AFTER_HEADER);
    // Nobody else waits for what one caller claims.
    assert_eq!(shown_address(&door, &id).await.unwrap(), address.public_ip);
    region.finish();
}

async fn describe_after(region: &Deployment, account: &str, id: &str, after: &str) -> Result<Instance, tonic::Status> {
    let mut request = Request::new(DescribeInstancesRequest { instance_ids: vec![id.to_owned()], ..Default::default() });
    request.metadata_mut().insert(READ_AFTER_HEADER, after.parse().unwrap());
    let client = region.client("compute", account);
    let answer = ComputeServiceClient::new(client).describe_instances(request).await?;
    Ok(answer.into_inner().instances.remove(0))
}
