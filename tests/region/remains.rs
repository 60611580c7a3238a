//! What instances that run leave on their host: nothing, whoever was killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use gureum_proto::compute::v1::{compute_service_client::ComputeServiceClient, *};

use crate::{
    harness::{Deployment, ask, until},
    region::{image, launch_spec, until_state},
    tour::region_reached_at,
};

/// A process of a shim: its number, its parent's, and the words by which it was called.
struct Called {
    parent: u32,
    words: Vec<String>,
}

/// All processes of this host's that are shims or parts of theirs.
fn shims() -> BTreeMap<u32, Called> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let called = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<String> = line.split(|byte| *byte == 0).skip(1).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent = stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
        (words.first()? == "shim").then_some((pid, Called { parent, words: words[1..].to_vec() }))
    };
    processes.filter_map(called).collect()
}

/// The directories of a region's shims, once for each shim that lives.
pub fn shims_in(folder: &Path) -> Vec<(u32, PathBuf)> {
    let directory = |(pid, called): (u32, Called)| Some((pid, PathBuf::from(called.words.first()?)));
    shims().into_iter().filter_map(directory).filter(|(_, directory)| directory.starts_with(folder)).collect()
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).map(|entries| entries.flatten().collect()).unwrap_or_else(|_| Vec::new());
    entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// What is on the host of instances of a region that are not to be there, or there twice. Only these instances live, and
/// only these volumes are kept; `shared` has the fabric and the storage of its nodes.
pub fn remains(region: &Deployment, shared: &Path, instances: &BTreeSet<String>, volumes: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let name = |directory: &Path| directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut shimmed = BTreeSet::new();
    for (pid, directory) in shims_in(region.folder()) {
        let id = name(&directory);
        if !instances.contains(&id) || !shimmed.insert(id.clone()) {
            found.push(format!("process {pid} is a shim of {id}, which ended or has another"));
        }
    }
    // Whatever else runs in an instance ends with its process 1, which the kernel sees to.
    let all = shims();
    for (pid, called) in &all {
        let part = called.words.first().map_or("", String::as_str);
        let of = all.get(&called.parent).and_then(|parent| parent.words.first()).map_or("", String::as_str);
        if (part == "inside" && !of.starts_with('/')) || (part == "init" && of != "inside") {
            found.push(format!("process {pid}, {part}, has no shim"));
        }
    }
    for node in region.names().into_iter().filter(|name| name.starts_with("node-")) {
        let left = names_in(&region.directory(&node).join("instances")).into_iter().filter(|id| !instances.contains(id));
        found.extend(left.map(|id| format!("{node} has a directory of {id}")));
    }
    let left = names_in(&shared.join("storage/volumes")).into_iter().filter(|id| !volumes.contains(id));
    found.extend(left.map(|id| format!("the volume {id} has files")));
    if instances.is_empty() {
        let fabric = shared.join("fabric");
        let sockets = names_in(&fabric).into_iter().flat_map(|vpc| names_in(&fabric.join(vpc)));
        found.extend(sockets.map(|address| format!("the address {address} has a socket")));
    }
    for claim in names_in(Path::new("/run/gureum/ids")) {
        let holder = fs::read_to_string(Path::new("/run/gureum/ids").join(&claim)).unwrap_or_default();
        if Path::new(&holder).starts_with(region.folder()) && !instances.contains(&name(Path::new(&holder))) {
            found.push(format!("{holder} has the user ids {claim}"));
        }
    }
    found
}

/// Control groups of instances that ended.
fn groups_of(ended: &BTreeSet<String>) -> Vec<String> {
    let left = ended.iter().flat_map(|id| gureum_shim::groups_of(id)).filter(|group| group.exists());
    left.map(|group| format!("the control group {} is left", group.display())).collect()
}

/// Waits until nothing of these instances is left.
pub async fn until_nothing_remains(region: &Deployment, shared: &Path, ended: &BTreeSet<String>) {
    until("nothing of the instances to be left", async || {
        let mut found = remains(region, shared, &BTreeSet::new(), &BTreeSet::new());
        found.extend(groups_of(ended));
        if found.is_empty() { Ok(()) } else { Err(found.join("; ")) }
    })
    .await;
}

/// Open files of a service.
fn files(region: &Deployment, name: &str) -> usize {
    names_in(&Path::new("/proc").join(region.pid(name).to_string()).join("fd")).len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_instances_come_and_go_and_leave_no_trace() {
    const ROUNDS: usize = 8;
    const AT_ONCE: i32 = 25;
    let shared = tempfile::tempdir().unwrap();
    let region = region_reached_at("127.248.2.0/24", &shared);
    let door = region.door("000000000941");
    let image = image(&door, "gureum-web").await;
    let (mut ended, mut after_first) = (BTreeSet::new(), BTreeMap::new());
    for round in 0..ROUNDS {
        let spec = LaunchSpec { instance_type: Some("t3.nano".into()), ..launch_spec(&image) };
        let request = RunInstancesRequest { spec: Some(spec), min_count: AT_ONCE, max_count: AT_ONCE, ..Default::default() };
        let launched = ask!(door, ComputeServiceClient, run_instances, request).unwrap().instances;
        let instance_ids: Vec<String> = launched.into_iter().map(|it| it.instance_id).collect();
        for id in &instance_ids {
            until_state(&door, id, InstanceState::Running).await;
        }
        assert_eq!(shims_in(region.folder()).len(), instance_ids.len(), "round {round}");
        let terminate = TerminateInstancesRequest { instance_ids: instance_ids.clone(), ..Default::default() };
        ask!(door, ComputeServiceClient, terminate_instances, terminate).unwrap();
        for id in &instance_ids {
            until_state(&door, id, InstanceState::Terminated).await;
        }
        ended.extend(instance_ids);
        until_nothing_remains(&region, shared.path(), &ended).await;
        for node in ["node-a", "node-b", "node-c"] {
            let files = files(&region, node);
            let before = *after_first.entry(node).or_insert(files);
            // Connections to peers come and go by themselves.
            assert!(files <= before + 8, "{node} holds {files} files after {} instances, and {before} after {AT_ONCE}", ended.len());
        }
    }
    region.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_part_of_an_instance_is_killed_it_stops_and_nothing_of_it_remains() {
    let shared = tempfile::tempdir().unwrap();
    let mut region = region_reached_at("127.248.3.0/24", &shared);
    let door = region.door("000000000942");
    let spec = LaunchSpec { instance_type: Some("t3.nano".into()), ..launch_spec(&image(&door, "gureum-web").await) };
    let request = RunInstancesRequest { spec: Some(spec), min_count: 6, max_count: 6, ..Default::default() };
    let launched = ask!(door, ComputeServiceClient, run_instances, request).unwrap().instances;
    let ids: BTreeSet<String> = launched.into_iter().map(|it| it.instance_id).collect();
    for id in &ids {
        until_state(&door, id, InstanceState::Running).await;
    }
    // Of each two instances the shim, its inside, or process 1; of the second while no node looks.
    let mut parts = ids.iter().zip(["shim", "inside", "init", "shim", "inside", "init"]);
    let mut kill_next = |region: &Deployment| {
        let (id, part) = parts.next().unwrap();
        let all = shims();
        let shim = shims_in(region.folder()).into_iter().find(|(_, directory)| directory.ends_with(id)).unwrap().0;
        let child = |of: u32| all.iter().find(|(_, called)| called.parent == of).map(|(pid, _)| *pid).unwrap();
        let pid = match part {
            "shim" => shim,
            "inside" => child(shim),
            _ => child(child(shim)),
        };
        assert!(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    };
    (0..3).for_each(|_| kill_next(&region));
    let nodes = ["node-a", "node-b", "node-c"];
    nodes.into_iter().for_each(|node| region.kill(node));
    (0..3).for_each(|_| kill_next(&region));
    for node in nodes {
        region.restart(node);
    }
    for id in &ids {
        let stopped = until_state(&door, id, InstanceState::Stopped).await;
        assert_eq!(stopped.state_reason.unwrap_or_default().code, "Server.InternalError", "{id}");
    }
    let terminate = TerminateInstancesRequest { instance_ids: ids.iter().cloned().collect(), ..Default::default() };
    ask!(door, ComputeServiceClient, terminate_instances, terminate).unwrap();
    for id in &ids {
        until_state(&door, id, InstanceState::Terminated).await;
    }
    until_nothing_remains(&region, shared.path(), &ids).await;
    region.finish();
}
