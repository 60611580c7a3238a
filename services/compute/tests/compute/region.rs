//! A region for one test: security, network, compute and nodes, each on a socket of its own.

use std::{collections::BTreeMap, path::PathBuf, thread::JoinHandle, time::Duration};

use gureum_compute::settings::Settings;
use gureum_compute_domain::image::shipped;
use gureum_node_domain::sim::settings::{SimSettings, Span};
use gureum_proto::{
    compute::v1::{
        self as proto, InstanceState, compute_peer_service_client::ComputePeerServiceClient, compute_service_client::ComputeServiceClient,
    },
    network::v1::{
        EnsureScopeRequest, network_peer_service_client::NetworkPeerServiceClient, network_service_client::NetworkServiceClient,
    },
    node::v1::node_service_client::NodeServiceClient,
    security::v1::security_service_client::SecurityServiceClient,
};
use gureum_service::{
    CancellationToken, Listen, Peer, ServiceConfig, StartError,
    config::{ClockConfig, NoSettings, StoreConfig},
    faults::FaultRule,
    peer::PeerChannel,
};
use gureum_store::EngineError;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tonic::Status;
use tonic_types::StatusExt;

/// How long a test waits for what should take milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// A service that runs in a thread of its own, so that all it had under way ends with it.
struct Running {
    shutdown: CancellationToken,
    killed: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    async fn start<F>(run: impl Fn(CancellationToken, oneshot::Sender<()>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), StartError>>,
    {
        let (shutdown, killed, (ready, accepted)) = (CancellationToken::new(), CancellationToken::new(), oneshot::channel());
        let (stop, kill) = (shutdown.clone(), killed.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let mut ready = Some(ready);
            runtime.block_on(async {
                loop {
                    let (sender, started) = oneshot::channel();
                    let serve = async {
                        tokio::join!(run(stop.clone(), sender), async { started.await.map(|()| ready.take().map(|ready| ready.send(()))) })
                            .0
                    };
                    tokio::select! {
                        () = kill.cancelled() => return,
                        // The writer of the service before ends a moment after it.
                        ended = serve => match ended {
                            Err(StartError::Store(EngineError::InUse { .. })) => tokio::time::sleep(Duration::from_millis(5)).await,
                            ended => return ended.unwrap(),
                        },
                    }
                }
            });
        });
        accepted.await.unwrap();
        Self { shutdown, killed, thread: Some(thread) }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.join().await;
    }

    /// Ends it without a word to anyone.
    async fn kill(self) {
        self.killed.cancel();
        self.join().await;
    }

    async fn join(mut self) {
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.killed.cancel();
    }
}

/// How a region shall be.
pub struct Options {
    pub compute: Settings,
    pub zones: &'static str,
    pub vcpus: u32,
    pub sim: SimSettings,
    /// Compute keeps its state on disk.
    pub durable: bool,
    /// Nodes keep their state on disk.
    pub durable_nodes: bool,
    /// Compute's clock.
    pub clock: ClockConfig,
    /// What befalls compute's calls.
    pub faults: Vec<FaultRule>,
}

impl Default for Options {
    fn default() -> Self {
        let sim =
            SimSettings { boot: Span::millis(0, 30), stop: Span::millis(0, 20), terminate: Span::millis(0, 10), ..SimSettings::default() };
        let compute = Settings { status_initializing_ms: 0, ..Settings::default() };
        Self {
            compute,
            zones: "abc",
            vcpus: 512,
            sim,
            durable: false,
            durable_nodes: false,
            clock: ClockConfig::default(),
            faults: Vec::new(),
        }
    }
}

pub struct Region {
    pub options: Options,
    folder: TempDir,
    compute: Option<Running>,
    nodes: BTreeMap<char, Running>,
    _peers: Vec<Running>,
}

fn config<S>(folder: &TempDir, name: &str, peers: &[&str], durable: bool, settings: S) -> ServiceConfig<S> {
    let socket = |name: &str| Listen::Unix(folder.path().join(format!("{name}.sock")));
    ServiceConfig {
        listen: socket(name),
        store: StoreConfig { directory: durable.then(|| folder.path().join(name)) },
        peers: peers.iter().map(|peer| ((*peer).to_owned(), socket(peer))).collect(),
        tls: None,
        clock: Default::default(),
        seed: None,
        telemetry: Default::default(),
        drain_timeout_ms: 2_000,
        max_message_bytes: 4 << 20,
        faults: Vec::new(),
        settings,
    }
}

impl Region {
    pub async fn start(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let security = config(&folder, "security", &[], false, NoSettings::default());
        let security = Running::start(move |shutdown, ready| {
            gureum_security::run(security.clone(), shutdown, Box::new(move || ready.send(()).unwrap_or_default()))
        })
        .await;
        let network = config(&folder, "network", &["security"], false, gureum_network::Settings::default());
        let network = Running::start(move |shutdown, ready| {
            gureum_network::run(network.clone(), shutdown, Box::new(move || ready.send(()).unwrap_or_default()))
        })
        .await;
        let mut region = Self { options, folder, compute: None, nodes: BTreeMap::new(), _peers: vec![security, network] };
        region.start_compute().await;
        for zone in region.options.zones.chars() {
            region.start_node(zone).await;
        }
        region.network_peer().ensure_scope(EnsureScopeRequest {}).await.unwrap();
        region.until_nodes(region.options.zones.len(), proto::NodeState::Up).await;
        region
    }

    pub async fn start_compute(&mut self) {
        let Options { compute, durable, clock, faults, .. } = &self.options;
        let config = config(&self.folder, "compute", &["security", "network"], *durable, compute.clone());
        let config = ServiceConfig { clock: clock.clone(), faults: faults.clone(), ..config };
        self.compute = Some(
            Running::start(move |shutdown, ready| {
                gureum_compute::run(config.clone(), shutdown, Box::new(move || ready.send(()).unwrap_or_default()))
            })
            .await,
        );
    }

    pub async fn kill_compute(&mut self) {
        self.compute.take().unwrap().kill().await;
    }

    pub async fn stop_compute(&mut self) {
        self.compute.take().unwrap().stop().await;
    }

    pub async fn start_node(&mut self, zone: char) {
        let settings = gureum_node::Settings {
            name: format!("node-{zone}"),
            // A capital letter is a second node of the zone.
            zone: zone.to_ascii_lowercase(),
            vcpus: self.options.vcpus,
            memory_mib: 1 << 20,
            driver: gureum_node::DriverSetting::Sim,
            sim: self.options.sim.clone(),
            ..gureum_node::Settings::default()
        };
        let config =
            config(&self.folder, &format!("node-{zone}"), &["compute", "network", "security"], self.options.durable_nodes, settings);
        let node = Running::start(move |shutdown, ready| {
            gureum_node::run(config.clone(), shutdown, Box::new(move || ready.send(()).unwrap_or_default()))
        })
        .await;
        self.nodes.insert(zone, node);
    }

    pub async fn stop_node(&mut self, zone: char) {
        self.nodes.remove(&zone).unwrap().stop().await;
    }

    /// Where a service that is durable keeps its state.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn channel(&self, name: &str) -> PeerChannel {
        let socket: PathBuf = self.folder.path().join(format!("{name}.sock"));
        Peer::new("test", &Listen::Unix(socket), None).unwrap().channel()
    }

    pub fn compute(&self) -> ComputeServiceClient<PeerChannel> {
        ComputeServiceClient::new(self.channel("compute")).max_decoding_message_size(64 << 20)
    }

    pub fn compute_peer(&self) -> ComputePeerServiceClient<PeerChannel> {
        ComputePeerServiceClient::new(self.channel("compute"))
    }

    pub fn network(&self) -> NetworkServiceClient<PeerChannel> {
        NetworkServiceClient::new(self.channel("network"))
    }

    pub fn network_peer(&self) -> NetworkPeerServiceClient<PeerChannel> {
        NetworkPeerServiceClient::new(self.channel("network"))
    }

    pub fn security(&self) -> SecurityServiceClient<PeerChannel> {
        SecurityServiceClient::new(self.channel("security"))
    }

    pub fn node(&self, zone: char) -> NodeServiceClient<PeerChannel> {
        NodeServiceClient::new(self.channel(&format!("node-{zone}")))
    }

    pub async fn nodes(&self) -> Vec<proto::Node> {
        self.compute_peer().describe_nodes(proto::DescribeNodesRequest::default()).await.unwrap().into_inner().nodes
    }

    /// Waits until so many nodes are in a state.
    pub async fn until_nodes(&self, count: usize, state: proto::NodeState) {
        until("the nodes", async || self.nodes().await.iter().filter(|node| node.state() == state).count() == count).await;
    }

    /// All instances that users see.
    pub async fn instances(&self) -> Vec<proto::Instance> {
        self.compute().describe_instances(proto::DescribeInstancesRequest::default()).await.unwrap().into_inner().instances
    }

    pub async fn instance(&self, id: &str) -> proto::Instance {
        let request = proto::DescribeInstancesRequest { instance_ids: vec![id.to_owned()], ..Default::default() };
        self.compute().describe_instances(request).await.unwrap().into_inner().instances.remove(0)
    }

    /// Waits until an instance is in a state.
    pub async fn until_instance(&self, id: &str, state: InstanceState) -> proto::Instance {
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let instance = self.instance(id).await;
                if instance.state() == state {
                    return instance;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        match waited.await {
            Ok(instance) => instance,
            Err(_) => panic!("{id} is not {state:?} but {:?}", self.instance(id).await),
        }
    }

    /// Waits until all instances are in a state.
    pub async fn until_all(&self, count: usize, state: InstanceState) {
        until("all instances", async || {
            let instances = self.instances().await;
            instances.len() == count && instances.iter().all(|instance| instance.state() == state)
        })
        .await;
    }

    /// Launches instances of the default kind.
    pub async fn launch(&self, count: i32) -> Vec<proto::Instance> {
        self.compute().run_instances(run(count)).await.unwrap().into_inner().instances
    }

    /// Launches one instance and waits until it runs.
    pub async fn running(&self) -> proto::Instance {
        let launched = self.launch(1).await.remove(0);
        self.until_instance(&launched.instance_id, InstanceState::Running).await
    }

    /// Interfaces that network has for instances.
    pub async fn interfaces(&self) -> usize {
        let request = gureum_proto::network::v1::DescribeNetworkInterfacesRequest::default();
        self.network().describe_network_interfaces(request).await.unwrap().into_inner().network_interfaces.len()
    }

    /// Places that are given out on nodes that are up, in thousandths of a vCPU.
    pub async fn promised(&self) -> i64 {
        let room = |node: &proto::Node| node.capacity.unwrap_or_default().vcpu_milli - node.available.unwrap_or_default().vcpu_milli;
        self.nodes().await.iter().filter(|node| node.state() == proto::NodeState::Up).map(room).sum()
    }
}

/// Waits until something is so.
pub async fn until(what: &str, is: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: not within {PATIENCE:?}");
}

/// A small image that ships.
pub fn image() -> String {
    shipped::table().iter().find(|image| image.key == "gureum-shell").unwrap().id().to_string()
}

pub fn spec() -> proto::LaunchSpec {
    proto::LaunchSpec { image_id: Some(image()), instance_type: Some("t3.micro".to_owned()), ..Default::default() }
}

pub fn run(count: i32) -> proto::RunInstancesRequest {
    proto::RunInstancesRequest { spec: Some(spec()), min_count: count, max_count: count, ..Default::default() }
}

/// EC2's reason of a refusal.
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_else(|| status.to_string())
}
