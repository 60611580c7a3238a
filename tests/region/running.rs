//! Instances that run: programs of this host under the process driver, followed through the region.

use std::{fs, path::PathBuf};

use gureum_proto::{
    compute::v1::{compute_service_client::ComputeServiceClient, *},
    node::v1::{InstanceUsage, WatchUsageRequest, node_service_client::NodeServiceClient},
};
use gureum_shim::{
    process::Process,
    protocol::{STATE_FILE, State, read_json},
};

use crate::{
    harness::{Deployment, Door, ask, until},
    region::{LAUNCHABLE, image, launch_spec, region_with, until_state},
};

pub fn running_region() -> Deployment {
    region_with(&|name| if name.starts_with("node") { vec!["settings.driver=process".into()] } else { Vec::new() })
}

pub async fn launch(door: &Door, script: &str, more: impl FnOnce(&mut LaunchSpec)) -> String {
    let placement = PlacementSpec { availability_zone: Some("us-east-1a".into()), ..Default::default() };
    let mut spec = LaunchSpec {
        placement: Some(placement),
        user_data: format!("#!/bin/sh\n{script}\n").into_bytes().into(),
        ..launch_spec(&image(door, LAUNCHABLE).await)
    };
    more(&mut spec);
    let request = RunInstancesRequest { spec: Some(spec), min_count: 1, max_count: 1, ..Default::default() };
    ask!(door, ComputeServiceClient, run_instances, request).unwrap().instances[0].instance_id.clone()
}

pub async fn until_console(door: &Door, id: &str, text: &str) -> String {
    until(format!("\"{text}\" in the console of {id}"), async || {
        let request = GetConsoleOutputRequest { instance_id: id.to_owned(), ..Default::default() };
        let output = ask!(door, ComputeServiceClient, get_console_output, request).unwrap().output;
        let output = String::from_utf8_lossy(&output).into_owned();
        if output.contains(text) { Ok(output) } else { Err(output) }
    })
    .await
}

/// What the shim of an instance on the node in zone a says.
pub fn state(region: &Deployment, id: &str) -> State {
    read_json(&region.directory("node-a").join("instances").join(id).join(STATE_FILE)).unwrap().unwrap()
}

/// The first sample that is wanted of what the instance on the node in zone a uses.
async fn until_usage(region: &Deployment, id: &str, wanted: impl Fn(&InstanceUsage) -> bool) -> InstanceUsage {
    let request = WatchUsageRequest { instance_ids: vec![id.to_owned()], ..Default::default() };
    let mut samples = NodeServiceClient::new(region.client("node-a", "000000000901")).watch_usage(request).await.unwrap().into_inner();
    // One each second.
    for _ in 0..30 {
        let sample = samples.message().await.unwrap().expect("it goes on");
        if let Some(used) = sample.usages.into_iter().find(&wanted) {
            return used;
        }
    }
    panic!("what {id} uses is something else")
}

/// The root volume of the only instance that there is on the node in zone a.
pub fn root_volume(region: &Deployment) -> PathBuf {
    let entries = fs::read_dir(region.directory("node-a").join("volumes")).unwrap();
    entries.map(|entry| entry.unwrap().path()).next().unwrap()
}

fn left(region: &Deployment) -> Vec<PathBuf> {
    let places = ["instances", "volumes"].map(|place| region.directory("node-a").join(place));
    places.iter().flat_map(|place| fs::read_dir(place).unwrap()).map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_runs_through_its_life_and_through_the_death_of_its_node() {
    let mut region = running_region();
    let door = region.door("000000000901");
    let script = "echo \"user data of $(hostname)\"; echo kept > /kept; dd if=/dev/zero of=/big bs=1M count=2 conv=fsync
        python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(bytes(1000), (\"172.31.255.254\", 9))'
        (while ! [ -e /end ]; do sleep 0.05; done; echo going; poweroff) &";
    let id = launch(&door, script, |_| {}).await;
    let running = until_state(&door, &id, InstanceState::Running).await;
    let name = running.private_dns_name.split('.').next().unwrap().to_owned();
    until_console(&door, &id, &format!("user data of {name}")).await;
    until_console(&door, &id, "the user data ended with exit code 0").await;

    // What it wrote and sent is counted. Where volumes are in memory nothing is written to a disk.
    let used = until_usage(&region, &id, |used| used.network_sent_bytes > 1_000 && used.network_sent_packets > 0).await;
    assert!(used.memory_used_bytes > 0 && used.memory_total_bytes > used.memory_used_bytes, "{used:?}");
    let in_memory = fs::read_to_string("/proc/self/mounts").unwrap().lines().any(|line| line.contains(" /tmp tmpfs "));
    assert!(in_memory || used.disk_written_bytes >= 2 << 20 && used.disk_write_operations >= 8, "{used:?}");

    // Its node and all else dies and comes back; the instance never noticed.
    let before = state(&region, &id);
    let init = before.init.unwrap();
    for service in ["node-a", "compute", "network", "gateway"] {
        region.kill(service);
        region.restart(service);
    }
    let found = until_state(&door, &id, InstanceState::Running).await;
    assert_eq!(found.launch_time, running.launch_time);
    assert_eq!(state(&region, &id), before, "it is another");
    assert!(init.lives());

    // It shuts itself down, and starts again with its disk and without its user data.
    let volume = root_volume(&region);
    fs::write(volume.join("end"), "").unwrap();
    let stopped = until_state(&door, &id, InstanceState::Stopped).await;
    assert_eq!(stopped.state_reason.unwrap().code, "Client.InstanceInitiatedShutdown");
    assert!(!init.lives());
    ask!(door, ComputeServiceClient, start_instances, StartInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() })
        .unwrap();
    until_state(&door, &id, InstanceState::Running).await;
    assert_eq!(fs::read_to_string(volume.join("kept")).unwrap(), "kept\n");
    let console = until_console(&door, &id, "going").await;
    assert_eq!(console.matches("user data of").count(), 1, "{console}");

    // It is rebooted, stopped, and terminated.
    let reboot = RebootInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() };
    ask!(door, ComputeServiceClient, reboot_instances, reboot).unwrap();
    until("the reboot", async || match state(&region, &id) {
        state if state.reboots == 1 && state.init.is_some() => Ok(()),
        state => Err(format!("{state:?}")),
    })
    .await;
    // Every run counts from the beginning.
    let used = until_usage(&region, &id, |used| used.reboot == 1).await;
    assert!(used.network_sent_bytes < 1_000, "{used:?}");
    let last = state(&region, &id);
    let terminate = TerminateInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() };
    ask!(door, ComputeServiceClient, terminate_instances, terminate).unwrap();
    until_state(&door, &id, InstanceState::Terminated).await;
    assert!(![last.shim, last.init.unwrap()].iter().any(Process::lives), "processes are left");
    assert_eq!(left(&region), Vec::<PathBuf>::new());
    assert!(last.groups.iter().all(|group| !group.exists()), "control groups are left");
    region.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_to_be_terminated_when_it_shuts_down_leaves_nothing() {
    let region = running_region();
    let door = region.door("000000000902");
    let terminates = |spec: &mut LaunchSpec| spec.set_instance_initiated_shutdown_behavior(ShutdownBehavior::Terminate);
    let id = launch(&door, "shutdown now", terminates).await;
    let gone = until_state(&door, &id, InstanceState::Terminated).await;
    assert_eq!(gone.state_reason.unwrap().code, "Client.InstanceInitiatedShutdown");
    assert_eq!(left(&region), Vec::<PathBuf>::new());
    region.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_whose_shim_is_killed_is_stopped_with_the_reason() {
    let region = running_region();
    let door = region.door("000000000903");
    let id = launch(&door, "sleep 600 &", |_| {}).await;
    until_state(&door, &id, InstanceState::Running).await;
    until_console(&door, &id, "exit code 0").await;
    let found = state(&region, &id);
    found.shim.kill().unwrap();
    until_state(&door, &id, InstanceState::Stopped).await;
    assert!(!found.init.unwrap().lives());
    let vpcs = fs::read_dir(region.directory("node-a").join("fabric")).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(vpcs.collect::<Vec<_>>(), Vec::<PathBuf>::new(), "sockets are left at its addresses");
    // It is whole, and starts again.
    ask!(door, ComputeServiceClient, start_instances, StartInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() })
        .unwrap();
    until_state(&door, &id, InstanceState::Running).await;
    let terminate = TerminateInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() };
    ask!(door, ComputeServiceClient, terminate_instances, terminate).unwrap();
    until_state(&door, &id, InstanceState::Terminated).await;
    region.finish();
}

/// Shims of an instance that live.
fn shims(id: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok());
    let is_one = |line: &Vec<u8>| {
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.get(1) == Some(&b"shim".as_slice()) && words.get(2).is_some_and(|directory| directory.ends_with(id.as_bytes()))
    };
    processes.filter(is_one).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_while_it_boots_an_instance_boots_it_once() {
    let mut region = running_region();
    let door = region.door("000000000905");
    for round in 0..8u32 {
        let id = launch(&door, "echo once >> /count; sleep 600 &", |_| {}).await;
        // At another moment each time: from before it hears of the instance to after it is up.
        let begun = gureum_service::clock::monotonic();
        while begun.elapsed().as_millis() < u128::from(round) * 8 {
            tokio::task::yield_now().await;
        }
        region.kill("node-a");
        region.restart("node-a");
        until_state(&door, &id, InstanceState::Running).await;
        until_console(&door, &id, "exit code 0").await;
        assert_eq!(shims(&id), 1, "round {round}");
        assert_eq!(fs::read_to_string(root_volume(&region).join("count")).unwrap(), "once\n", "round {round}");
        let terminate = TerminateInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() };
        ask!(door, ComputeServiceClient, terminate_instances, terminate).unwrap();
        until_state(&door, &id, InstanceState::Terminated).await;
        assert_eq!(left(&region), Vec::<PathBuf>::new(), "round {round}");
        assert_eq!(shims(&id), 0, "round {round}");
    }
    region.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_data_that_is_no_script_is_not_run_and_the_console_says_so() {
    let region = running_region();
    let door = region.door("000000000904");
    let id = launch(&door, "", |spec| spec.user_data = Some(b"colour = blue\n".to_vec())).await;
    until_state(&door, &id, InstanceState::Running).await;
    until_console(&door, &id, "the user data is not run").await;
    let terminate = TerminateInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() };
    ask!(door, ComputeServiceClient, terminate_instances, terminate).unwrap();
    until_state(&door, &id, InstanceState::Terminated).await;
    region.finish();
}
