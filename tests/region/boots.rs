//! What came of an instance's boot, as its user is told it; and cloud-config.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener},
    process::Command,
};

use gureum_proto::{
    common::v1::{RuntimeReport, ScriptEnd},
    compute::v1::{compute_service_client::ComputeServiceClient, *},
    security::v1::{security_service_client::SecurityServiceClient, *},
};

use crate::{
    harness::{Deployment, Door, ask, until},
    region::until_state,
    running::{launch, running_region, until_console},
    tour::{OFFSET, http, page, region_reached_at},
};

async fn runtime_of(door: &Door, id: &str) -> RuntimeReport {
    let request = DescribeInstancesRequest { instance_ids: vec![id.to_owned()], ..Default::default() };
    ask!(door, ComputeServiceClient, describe_instances, request).unwrap().instances.remove(0).runtime.unwrap_or_default()
}

async fn until_user_data(door: &Door, id: &str) -> ScriptEnd {
    until(format!("the end of the user data of {id}"), async || {
        let runtime = runtime_of(door, id).await;
        runtime.user_data.clone().ok_or_else(|| format!("{runtime:?}"))
    })
    .await
}

/// What the program prints: for people, and beside it.
fn gureum(region: &Deployment, account: &str, arguments: &[&str]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gureum"));
    command.args(arguments).args(["--endpoint", &format!("http://{}", region.address()), "--account", account]);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

async fn launch_with(door: &Door, user_data: &str) -> String {
    launch(door, "", |spec| spec.user_data = Some(user_data.as_bytes().to_vec())).await
}

async fn terminate(door: &Door, id: &str) {
    let request = TerminateInstancesRequest { instance_ids: vec![id.to_owned()], ..Default::default() };
    ask!(door, ComputeServiceClient, terminate_instances, request).unwrap();
    until_state(door, id, InstanceState::Terminated).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_data_that_fails_is_told_with_its_last_lines() {
    let mut region = running_region();
    let account = "000000000931";
    let door = region.door(account);
    let id = launch(&door, "echo preparing; until [ -e /go ]; do sleep 0.05; done; echo 'no such thing' >&2; exit 3", |_| {}).await;
    until_state(&door, &id, InstanceState::Running).await;
    until_console(&door, &id, "preparing").await;
    let runtime = runtime_of(&door, &id).await;
    assert_eq!((runtime.isolation.as_str(), runtime.address_mode.as_str()), ("namespaces", "own-interface"));
    assert!(["cgroup-v1", "cgroup-v2", "rlimit"].contains(&runtime.cpu_limit.as_str()), "{runtime:?}");
    assert_eq!(runtime.user_data, None, "it runs still");
    let (table, beside) = gureum(&region, account, &["ps", "--wide"]);
    assert!(table.contains("own-interface") && beside.is_empty(), "{table}{beside}");

    // It fails while its node is away.
    let volume = fs::read_dir(region.directory("node-a").join("volumes")).unwrap().next().unwrap().unwrap().path();
    region.kill("node-a");
    fs::write(volume.join("go"), "").unwrap();
    region.kill("compute");
    region.restart("compute");
    region.restart("node-a");
    let end = until_user_data(&door, &id).await;
    assert_eq!((end.exit_code(), end.last_lines), (3, vec!["preparing".to_owned(), "no such thing".to_owned()]));
    assert_eq!(until_state(&door, &id, InstanceState::Running).await.state_reason, None);
    let (table, beside) = gureum(&region, account, &["ps"]);
    assert!(table.contains("running") && beside.contains("its user data failed with exit code 3"), "{table}{beside}");
    assert!(beside.ends_with("    preparing\n    no such thing\n"), "{beside}");
    let (table, _) = gureum(&region, account, &["ps", "-W"]);
    assert!(table.contains("failed(3)"), "{table}");
    let (page, _) = gureum(&region, account, &["describe", &id]);
    assert!(page.contains("  user data:\n    exit code: 3\n    last lines: preparing\n    last lines: no such thing\n"), "{page}");
    let (json, _) = gureum(&region, account, &["ps", "-o", "json"]);
    assert!(json.contains("\"exitCode\": 3"), "{json}");

    // It is run once, and so is told of the next boot too.
    ask!(door, ComputeServiceClient, stop_instances, StopInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() })
        .unwrap();
    until_state(&door, &id, InstanceState::Stopped).await;
    ask!(door, ComputeServiceClient, start_instances, StartInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() })
        .unwrap();
    until_state(&door, &id, InstanceState::Running).await;
    assert_eq!(until_user_data(&door, &id).await.exit_code(), 3);
    terminate(&door, &id).await;
    region.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloud_config_that_cannot_be_done_fails_and_says_why() {
    let region = running_region();
    let door = region.door("000000000932");
    let told = [
        ("#cloud-config\nruncmd:\n  - echo a\n - echo b\n", "line 4: "),
        ("#cloud-config\npackages: [nginx]\n", "packages are not installed here"),
        ("Content-Type: multipart/mixed; boundary=\"==x==\"\nMIME-Version: 1.0\n\n", "is a MIME message"),
        ("#cloud-config\nruncmd: [[ls, /missing]]\n", "item 1 of runcmd failed"),
    ];
    for (user_data, words) in told {
        let id = launch_with(&door, user_data).await;
        until_state(&door, &id, InstanceState::Running).await;
        let end = until_user_data(&door, &id).await;
        assert!(end.exit_code() != 0 && end.last_lines.concat().contains(words), "{user_data}: {end:?}");
        until_console(&door, &id, words).await;
        terminate(&door, &id).await;
    }
    region.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloud_config_writes_a_page_and_serves_it_and_a_port_that_is_taken_is_told() {
    let shared = tempfile::tempdir().unwrap();
    let region = region_reached_at("127.247.0.0/24", &shared);
    let account = "000000000933";
    let door = region.door(account);
    let group = CreateSecurityGroupRequest { group_name: "web".into(), description: "web".into(), ..Default::default() };
    let group = ask!(door, SecurityServiceClient, create_security_group, group).unwrap().security_group.unwrap().group_id;
    let allow = AuthorizeSecurityGroupIngressRequest { group_id: group.clone(), ip_permissions: vec![http()], ..Default::default() };
    ask!(door, SecurityServiceClient, authorize_security_group_ingress, allow).unwrap();
    let config = "#cloud-config
hostname: ignored
write_files:
  - path: /srv/www/index.html
    content: |
      it's served, 100%
    permissions: '0644'
runcmd:
  - cd /srv/www
  - until [ -e /go ]; do sleep 0.05; done
  - python3 -m http.server 80 >/var/log/web.log 2>&1 &
";
    let id = launch(&door, "", |spec| {
        spec.user_data = Some(config.as_bytes().to_vec());
        spec.security_group_ids = vec![group.clone()];
    })
    .await;
    let running = until_state(&door, &id, InstanceState::Running).await;
    until_console(&door, &id, "cloud-config: these keys are ignored: hostname").await;
    let address = SocketAddr::new(running.public_ip_address.parse::<IpAddr>().unwrap(), 80 + OFFSET);
    let taken = TcpListener::bind(address).unwrap();
    let volume = running.block_device_mappings[0].volume_id.clone();
    fs::write(shared.path().join("storage/volumes").join(volume).join("go"), "").unwrap();
    assert_eq!(until_user_data(&door, &id).await.exit_code(), 0);
    let stuck = until("the port that is stuck", async || {
        let runtime = runtime_of(&door, &id).await;
        if runtime.stuck_ports.is_empty() { Err(format!("{runtime:?}")) } else { Ok(runtime.stuck_ports) }
    })
    .await;
    assert!(stuck[0].contains("another program of the host has it"), "{stuck:?}");
    let (_, beside) = gureum(&region, account, &["ps"]);
    assert!(beside.contains("port 80 (tcp) cannot be reached"), "{beside}");
    drop(taken);
    until("no stuck port", async || match runtime_of(&door, &id).await.stuck_ports {
        stuck if stuck.is_empty() => Ok(()),
        stuck => Err(format!("{stuck:?}")),
    })
    .await;
    until("the page", async || match page(address) {
        Ok(page) if page.contains("it's served, 100%") => Ok(()),
        Ok(page) => Err(page),
        Err(error) => Err(error.to_string()),
    })
    .await;
    let (_, beside) = gureum(&region, account, &["ps"]);
    assert_eq!(beside, "", "all is well");
    terminate(&door, &id).await;
    region.finish();
}
