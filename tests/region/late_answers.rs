//! An answer that comes late tells of what is over; what happened meanwhile counts.

use gureum_proto::{
    compute::v1::{compute_service_client::ComputeServiceClient, *},
    network::v1::{network_service_client::NetworkServiceClient, *},
};

use crate::{
    audit::quiet,
    harness::{Door, ask, until},
    region::{LAUNCHABLE, Shape, image, launch_spec, region_like},
};

async fn instance(door: &Door) -> Instance {
    ask!(door, ComputeServiceClient, describe_instances, DescribeInstancesRequest::default()).unwrap().instances.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_shows_no_address_that_was_taken_away_while_compute_read_it() {
    let mut region = region_like(&Shape { zones: &["a"], quick_boots: true, ..Shape::default() });
    region.expect_complaint("a configured fault strikes");
    let door = region.door("000000000304");
    // Without a public address of its own, so that it is in the end as it was in the beginning.
    let spec = LaunchSpec { associate_public_ip_address: Some(false), ..launch_spec(&image(&door, LAUNCHABLE).await) };
    let request = RunInstancesRequest { spec: Some(spec), min_count: 1, max_count: 1, ..Default::default() };
    let instance_id = ask!(door, ComputeServiceClient, run_instances, request).unwrap().instances[0].instance_id.clone();
    until("it runs", async || {
        let state = instance(&door).await.state();
        if state == InstanceState::Running { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    quiet(&region).await;
    region.kill("compute");
    let late = "faults=[{ call = \"DescribeInstanceInterfaces\", fault = \"delay\", delay_ms = 1000 }]";
    region.restart_with("compute", &[late.to_owned()]);

    let address = ask!(door, NetworkServiceClient, allocate_address, AllocateAddressRequest::default()).unwrap().address.unwrap();
    let request = AssociateAddressRequest { allocation_id: address.allocation_id, instance_id, ..Default::default() };
    let association_id = ask!(door, NetworkServiceClient, associate_address, request).unwrap().association_id;
    until("compute reads the interfaces", async || {
        let reads = region.logged("compute", &["/DescribeInstanceInterfaces\"", "fault=delay"]);
        if reads > 0 { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    let request = DisassociateAddressRequest { association_id, ..Default::default() };
    ask!(door, NetworkServiceClient, disassociate_address, request).unwrap();
    quiet(&region).await;
    until("the instance to show no address", async || {
        let shown = instance(&door).await.public_ip_address;
        if shown.is_empty() { Ok(()) } else { Err(shown) }
    })
    .await;
    region.finish();
}
