//! The tour, and what goes on while services are dead, with real requests from outside.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use gureum_proto::{
    compute::v1::{compute_service_client::ComputeServiceClient, *},
    security::v1::{security_service_client::SecurityServiceClient, *},
};

use gureum_service::clock::monotonic;

use crate::{
    harness::{Deployment, ask, until},
    region::{image, launch_spec, region_with, until_state},
};

/// For hosts on which low ports are root's.
pub const OFFSET: u16 = 10_000;

/// A region whose instances are reached at addresses of this test's own.
pub fn region_reached_at(pool: &'static str, shared: &tempfile::TempDir) -> Deployment {
    let shared = shared.path().to_owned();
    region_with(&move |name| match name {
        "network" => vec![format!("settings.public_pool=[\"{pool}\"]")],
        node if node.starts_with("node") => vec![
            "settings.driver=process".into(),
            format!("settings.port_offset={OFFSET}"),
            format!("settings.fabric=\"{}\"", shared.join("fabric").display()),
            format!("settings.storage=\"{}\"", shared.join("storage").display()),
        ],
        _ => Vec::new(),
    })
}

#[test]
fn the_tour_is_taken_and_leaves_nothing() {
    let shared = tempfile::tempdir().unwrap();
    let region = region_reached_at("127.249.0.0/24", &shared);
    let endpoint = format!("http://{}", region.address());
    let output = Command::new(env!("CARGO_BIN_EXE_gureum"))
        .args(["tour", "--port-offset", &OFFSET.to_string(), "--endpoint", &endpoint, "--account", "000000000921"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("All 13 steps were proved"), "{told}");
    let left = |place: &str| std::fs::read_dir(shared.path().join(place)).map_or(0, Iterator::count);
    assert_eq!((left("storage/volumes"), left("fabric")), (0, 0), "volumes or addresses are left");
    region.finish();
}

pub fn page(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.contains(" 200 ") { Ok(answer) } else { Err(std::io::Error::other(answer)) }
}

pub fn http() -> IpPermission {
    let anywhere = IpRange { cidr: "0.0.0.0/0".into(), ..Default::default() };
    IpPermission { ip_protocol: "tcp".into(), from_port: Some(80), to_port: Some(80), ip_ranges: vec![anywhere], ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_served_while_services_are_killed_and_rules_change_once_they_are_back() {
    let shared = tempfile::tempdir().unwrap();
    let mut region = region_reached_at("127.248.0.0/24", &shared);
    let door = region.door("000000000922");
    let group = CreateSecurityGroupRequest { group_name: "web".into(), description: "web".into(), ..Default::default() };
    let made = ask!(door, SecurityServiceClient, create_security_group, group).unwrap();
    let group_id = made.security_group.unwrap().group_id;
    let allow = AuthorizeSecurityGroupIngressRequest { group_id: group_id.clone(), ip_permissions: vec![http()], ..Default::default() };
    ask!(door, SecurityServiceClient, authorize_security_group_ingress, allow).unwrap();
    let spec = LaunchSpec { security_group_ids: vec![group_id.clone()], ..launch_spec(&image(&door, "gureum-web").await) };
    let request = RunInstancesRequest { spec: Some(spec), min_count: 1, max_count: 1, ..Default::default() };
    let id = ask!(door, ComputeServiceClient, run_instances, request).unwrap().instances[0].instance_id.clone();
    let running = until_state(&door, &id, InstanceState::Running).await;
    let address: SocketAddr = format!("{}:{}", running.public_ip_address, 80 + OFFSET).parse().unwrap();
    until("the page", async || page(address).map_err(|error| error.to_string())).await;

    // Somebody fetches it all the time.
    let (stop, served, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let visitor = {
        let (stop, served, failed) = (stop.clone(), served.clone(), failed.clone());
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let count = if page(address).is_ok() { &served } else { &failed };
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    for service in ["node-a", "node-b", "node-c", "network", "compute", "security", "gateway"] {
        region.kill(service);
        let before = served.load(Ordering::Relaxed);
        until("pages served without it", async || match served.load(Ordering::Relaxed) {
            now if now > before + 2 => Ok(()),
            now => Err(format!("{now} served, {} failed", failed.load(Ordering::Relaxed))),
        })
        .await;
        region.restart(service);
    }
    stop.store(true, Ordering::Relaxed);
    visitor.join().unwrap();
    assert_eq!(failed.load(Ordering::Relaxed), 0, "of {} pages some were not served", served.load(Ordering::Relaxed));

    // What is revoked then closes at once.
    let revoke = RevokeSecurityGroupIngressRequest { group_id, ip_permissions: vec![http()], ..Default::default() };
    ask!(door, SecurityServiceClient, revoke_security_group_ingress, revoke).unwrap();
    until("nobody is let in", async || if page(address).is_err() { Ok(()) } else { Err("it is still served".to_owned()) }).await;
    let deadline = monotonic() + Duration::from_millis(500);
    while monotonic() < deadline {
        assert!(page(address).is_err());
    }
    let terminate = TerminateInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() };
    ask!(door, ComputeServiceClient, terminate_instances, terminate).unwrap();
    until_state(&door, &id, InstanceState::Terminated).await;
    region.finish();
}
