//! Whole regions as the tests use them.

use std::sync::atomic::{AtomicU8, Ordering};

use gureum_model::clock::VIRTUAL_START;
use gureum_proto::{
    common::v1::Filter,
    compute::v1::{
        DescribeImagesRequest, DescribeInstancesRequest, Instance, InstanceState, LaunchSpec, compute_service_client::ComputeServiceClient,
    },
};

use crate::harness::{Deployment, Door, READY_WITHIN, ask, until};

/// Who asks services what belongs to no account.
pub const OPERATOR: &str = "000000000000";

/// An image that ships with the region.
pub const LAUNCHABLE: &str = "gureum-shell";

/// The id of an image that ships.
pub async fn image(door: &Door, name: &str) -> String {
    let filter = Filter { name: "name".into(), values: vec![name.into()] };
    let request = DescribeImagesRequest { filters: vec![filter], owners: vec!["amazon".into()], ..Default::default() };
    ask!(door, ComputeServiceClient, describe_images, request).unwrap().images.remove(0).image_id
}

/// An instance as its owner sees it.
pub async fn instance(door: &Door, id: &str) -> Instance {
    let request = DescribeInstancesRequest { instance_ids: vec![id.to_owned()], ..Default::default() };
    ask!(door, ComputeServiceClient, describe_instances, request).unwrap().instances.remove(0)
}

/// Waits until an instance is so.
pub async fn until_state(door: &Door, id: &str, state: InstanceState) -> Instance {
    until(format!("{id} {state:?}"), async || {
        let found = instance(door, id).await;
        if found.state() == state { Ok(found) } else { Err(format!("{:?} {}", found.state(), found.waiting_reason)) }
    })
    .await
}

/// The least that a launch has to say.
pub fn launch_spec(image_id: &str) -> LaunchSpec {
    LaunchSpec { image_id: Some(image_id.to_owned()), instance_type: Some("t3.micro".into()), ..Default::default() }
}

/// What a region shall be like, where it matters.
pub struct Shape {
    pub zones: &'static [&'static str],
    pub vcpus: u32,
    /// How long compute waits for a node before it is lost.
    pub lease_ms: u32,
    /// Boots take next to no time.
    pub quick_boots: bool,
    /// No other test runs beside.
    pub alone: bool,
    /// Time is virtual, and all ids come from this.
    pub seed: Option<u64>,
}

impl Default for Shape {
    fn default() -> Self {
        Self { zones: &["a", "b", "c"], vcpus: 64, lease_ms: 10_000, quick_boots: false, alone: false, seed: None }
    }
}

/// A whole region, each service its own process, a node in each zone.
pub fn region() -> Deployment {
    region_like(&Shape::default())
}

/// A whole region of this shape.
pub fn region_like(shape: &Shape) -> Deployment {
    started(shape, &|_| Vec::new())
}

/// A whole region with more settings for the service of a name.
pub fn region_with(more: &dyn Fn(&str) -> Vec<String>) -> Deployment {
    started(&Shape::default(), more)
}

/// A whole region of this shape with more settings for the service of a name.
pub fn started(shape: &Shape, more: &dyn Fn(&str) -> Vec<String>) -> Deployment {
    // An address for the door that no other test has, so that nobody takes its port while it is away.
    static DOORS: AtomicU8 = AtomicU8::new(1);
    let door = format!("settings.door=127.251.{}.1:0", DOORS.fetch_add(1, Ordering::Relaxed));
    let mut region = if shape.alone { Deployment::alone() } else { Deployment::new() };
    let clock = shape.seed.map(virtual_time).into_iter().flatten().collect::<Vec<_>>();
    // Virtual time is moved in the nodes too.
    let moved: Vec<String> = shape.zones.iter().filter(|_| shape.seed.is_some()).map(|zone| format!("node-{zone}")).collect();
    let mut start = |name: &str, kind: &'static str, peers: &[&str], settings: &[&str]| {
        let more = more(name);
        let more: Vec<&str> = more.iter().chain(&clock).map(String::as_str).collect();
        region.start(name, kind, peers, &[settings, &more].concat());
    };
    start("security", "security", &[], &[]);
    // A slice of the loopback range of this test's own.
    start("network", "network", &["security"], &["settings.public_pool=[\"127.250.0.0/16\"]"]);
    start("compute", "compute", &["security", "network"], &[&format!("settings.node_lease_ms={}", shape.lease_ms)]);
    for zone in shape.zones {
        let name = format!("node-{zone}");
        let mut settings = vec![
            format!("settings.name={name}"),
            format!("settings.zone={zone}"),
            format!("settings.vcpus={}", shape.vcpus),
            "settings.memory_mib=262144".to_owned(),
            "settings.driver=sim".to_owned(),
        ];
        if shape.quick_boots {
            settings.extend(["boot", "stop", "terminate"].map(|what| format!("settings.sim.{what}={}", QUICK)));
        }
        start(&name, "node", &["compute", "network", "security"], &settings.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let peers: Vec<&str> = ["security", "network", "compute"].into_iter().chain(moved.iter().map(String::as_str)).collect();
    start("gateway", "gateway", &peers, &[&door]);
    // Whoever is killed is missed by those who watch it.
    region.expect_complaint("registered");
    // The kernel ends a write between two pages for a process that is killed.
    region.expect_complaint("what a crash left unfinished");
    region
}

/// Settings of a service whose time is virtual and whose ids are made from a seed.
pub fn virtual_time(seed: u64) -> [String; 2] {
    [format!("seed={seed}"), format!("clock.setting={{ virtual = {{ start = {} }} }}", VIRTUAL_START.as_micros())]
}

/// 1 to 20 ms.
const QUICK: &str = "{ min = { secs = 0, nanos = 1000000 }, max = { secs = 0, nanos = 20000000 } }";

/// Kills every service in turn; each must be back in time.
pub fn kill_all(region: &mut Deployment) {
    for name in region.names() {
        region.kill(&name);
        let took = region.restart(&name);
        assert!(took <= READY_WITHIN, "{name} needed {took:?}");
    }
}
