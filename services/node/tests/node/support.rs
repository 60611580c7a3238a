//! A node over a socket of its own, a compute that only listens to it, and clients.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use gureum_model::{ClockSetting, Timestamp};
use gureum_node::{DriverSetting, Settings};
use gureum_node_domain::sim::{SimSettings, Span};
use gureum_proto::{
    clock::v1::clock_peer_service_client::ClockPeerServiceClient,
    compute::v1::{
        self as compute,
        compute_peer_service_server::{ComputePeerService, ComputePeerServiceServer},
    },
    node::v1::{node_service_client::NodeServiceClient, *},
};
use gureum_service::{
    CancellationToken, Listen, Peer, ServiceConfig, clock::monotonic, config::ClockConfig, peer::PeerChannel, server::bind_unix,
    watch::WatchStream,
};
use tokio::{runtime::Runtime, sync::oneshot};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::StatusExt;

/// Generous: a loaded machine takes its time.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What compute hears.
#[derive(Default)]
pub struct Heard {
    pub registrations: Mutex<Vec<compute::RegisterNodeRequest>>,
    pub heartbeats: AtomicUsize,
    /// The next heartbeat is answered by this.
    pub must_register: AtomicBool,
}

/// A compute that only listens.
#[derive(Clone, Default)]
pub struct FakeCompute(pub Arc<Heard>);

impl FakeCompute {
    pub fn serve(&self, folder: &Path) {
        let listener = bind_unix(&folder.join("compute.sock")).unwrap();
        let router = tonic::transport::Server::builder().add_service(ComputePeerServiceServer::new(self.clone()));
        tokio::spawn(router.serve_with_incoming(UnixListenerStream::new(listener)));
    }

    pub fn registrations(&self) -> Vec<compute::RegisterNodeRequest> {
        self.0.registrations.lock().unwrap().clone()
    }

    pub fn heartbeats(&self) -> usize {
        self.0.heartbeats.load(Ordering::SeqCst)
    }
}

#[tonic::async_trait]
impl ComputePeerService for FakeCompute {
    type WatchAllStream = WatchStream<compute::WatchAllResponse>;

    async fn register_node(
        &self,
        request: Request<compute::RegisterNodeRequest>,
    ) -> Result<Response<compute::RegisterNodeResponse>, Status> {
        self.0.registrations.lock().unwrap().push(request.into_inner());
        Ok(Response::new(compute::RegisterNodeResponse::default()))
    }

    async fn node_heartbeat(&self, _: Request<compute::NodeHeartbeatRequest>) -> Result<Response<compute::NodeHeartbeatResponse>, Status> {
        self.0.heartbeats.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(compute::NodeHeartbeatResponse { must_register: self.0.must_register.swap(false, Ordering::SeqCst) }))
    }

    async fn get_identity_key(
        &self,
        _: Request<compute::GetIdentityKeyRequest>,
    ) -> Result<Response<compute::GetIdentityKeyResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn describe_nodes(&self, _: Request<compute::DescribeNodesRequest>) -> Result<Response<compute::DescribeNodesResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn declare_node_dead(
        &self,
        _: Request<compute::DeclareNodeDeadRequest>,
    ) -> Result<Response<compute::DeclareNodeDeadResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn watch_all(&self, _: Request<compute::WatchAllRequest>) -> Result<Response<Self::WatchAllStream>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

/// A running node, in a runtime of its own, so that it can be killed with all its tasks.
pub struct Node {
    /// Kept as long as it runs.
    _folder: Arc<tempfile::TempDir>,
    runtime: Option<Runtime>,
    stopped: oneshot::Receiver<()>,
    shutdown: CancellationToken,
    peer: Peer,
}

/// How a node is started.
#[derive(Clone)]
pub struct Setup {
    pub folder: Arc<tempfile::TempDir>,
    pub settings: Settings,
    pub durable: bool,
    pub clock: ClockConfig,
}

impl Setup {
    pub fn new() -> Self {
        let sim =
            SimSettings { boot: Span::millis(20, 60), stop: Span::millis(5, 20), terminate: Span::millis(5, 20), ..Default::default() };
        Self {
            folder: Arc::new(tempfile::tempdir().unwrap()),
            settings: Settings { vcpus: 8, memory_mib: 8 * 1024, sim, heartbeat_interval_ms: 20, ..Settings::default() },
            durable: false,
            clock: ClockConfig::default(),
        }
    }

    pub fn durable() -> Self {
        Self { durable: true, ..Self::new() }
    }

    pub fn virtual_time(start: Timestamp) -> Self {
        Self { clock: ClockConfig { setting: ClockSetting::Virtual { start }, origin: start }, ..Self::new() }
    }

    /// The writer of the life before may still hold the store for a moment; a process would be gone.
    pub async fn start(&self) -> Node {
        for _ in 0..500 {
            match self.try_start().await {
                Ok(node) => return node,
                Err(error) if error.contains("opening the store") => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the store is never let go");
    }

    pub async fn try_start(&self) -> Result<Node, String> {
        let listen = Listen::Unix(self.folder.path().join("node.sock"));
        let peer = |name: &str| format!("peers.{name}=unix:{}", self.folder.path().join(format!("{name}.sock")).display());
        let mut flags = vec![format!("listen={listen}"), peer("compute"), peer("network"), peer("security")];
        if self.durable {
            flags.push(format!("store.directory={}", self.folder.path().join("store").display()));
        }
        let mut config: ServiceConfig<Settings> = ServiceConfig::load(None, [], &flags).unwrap();
        config.settings = self.settings.clone();
        config.settings.driver = DriverSetting::Sim;
        config.clock = self.clock.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (shutdown, (sender, ready), (ended, stopped)) = (CancellationToken::new(), oneshot::channel(), oneshot::channel());
        let stop = shutdown.clone();
        let running = runtime.spawn(async move {
            let outcome = gureum_node::run(config, stop, Box::new(move || sender.send(()).unwrap_or_default())).await;
            let _ = ended.send(());
            outcome
        });
        let node = Node {
            _folder: self.folder.clone(),
            runtime: Some(runtime),
            stopped,
            shutdown,
            peer: Peer::new("node", &listen, None).unwrap(),
        };
        match ready.await {
            Ok(()) => Ok(node),
            Err(_) => Err(running.await.unwrap().unwrap_err().to_string()),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Node {
    pub fn client(&self) -> NodeServiceClient<PeerChannel> {
        NodeServiceClient::new(self.peer.channel())
    }

    pub fn clock(&self) -> ClockPeerServiceClient<PeerChannel> {
        ClockPeerServiceClient::new(self.peer.channel())
    }

    /// Lets calls under way end.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        (&mut self.stopped).await.unwrap();
        self.kill().await;
    }

    /// Ends all its tasks wherever they are.
    pub async fn kill(mut self) {
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(5))).await.unwrap();
    }

    pub async fn apply(&self, instances: Vec<DesiredInstance>) -> ApplyInstancesResponse {
        self.client().apply_instances(ApplyInstancesRequest { instances }).await.unwrap().into_inner()
    }

    pub async fn describe(&self) -> Vec<NodeInstance> {
        self.client().describe_node_instances(DescribeNodeInstancesRequest::default()).await.unwrap().into_inner().instances
    }

    pub async fn node(&self) -> DescribeNodeResponse {
        self.client().describe_node(DescribeNodeRequest {}).await.unwrap().into_inner()
    }

    pub async fn watch(&self, after: Option<u64>) -> Follower {
        let stream = self.client().watch_instances(WatchInstancesRequest { after_sequence: after }).await.unwrap().into_inner();
        Follower { stream, seen: BTreeMap::new(), events: Vec::new(), caught_up: None }
    }

    pub async fn inject(&self, fault: inject_fault_request::Fault) -> Result<(), Status> {
        self.client().inject_fault(InjectFaultRequest { fault: Some(fault) }).await.map(|_| ())
    }

    /// Waits until an instance is in a state.
    pub async fn until(&self, number: u64, state: ObservedState) -> InstanceObservation {
        self.watch(None).await.until(number, state).await
    }
}

/// Follows a node's instances.
pub struct Follower {
    stream: Streaming<WatchInstancesResponse>,
    pub seen: BTreeMap<String, InstanceObservation>,
    pub events: Vec<Event>,
    pub caught_up: Option<u64>,
}

impl Follower {
    pub async fn next(&mut self) {
        let message = tokio::time::timeout(PATIENCE, self.stream.message()).await.expect("nothing happens").unwrap().unwrap();
        match message.message.unwrap() {
            watch_instances_response::Message::Event(event) => {
                let Some(event::Resource::Instance(instance)) = &event.resource else { panic!("an event without an instance") };
                self.seen.insert(instance.instance_id.clone(), instance.clone());
                self.events.push(event);
            }
            watch_instances_response::Message::CaughtUpToSequence(sequence) => self.caught_up = Some(sequence),
        }
    }

    pub async fn until(&mut self, number: u64, state: ObservedState) -> InstanceObservation {
        self.until_all(&[number], |it| it.state() == state).await;
        self.seen[&id(number)].clone()
    }

    pub async fn until_all(&mut self, numbers: &[u64], is: impl Fn(&InstanceObservation) -> bool) {
        let began = monotonic();
        while !numbers.iter().all(|number| self.seen.get(&id(*number)).is_some_and(&is)) {
            assert!(began.elapsed() < PATIENCE, "it never comes: {:?}", self.seen);
            self.next().await;
        }
    }

    /// The states of an instance, in order, without repeats.
    pub fn states(&self, number: u64) -> Vec<ObservedState> {
        let of = |event: &Event| match &event.resource {
            Some(event::Resource::Instance(instance)) if instance.instance_id == id(number) => Some(instance.state()),
            _ => None,
        };
        let mut states: Vec<ObservedState> = self.events.iter().filter_map(of).collect();
        states.dedup();
        states
    }
}

pub fn id(number: u64) -> String {
    format!("i-{number:017x}")
}

/// An instance of a vCPU and half a GiB that shall run: generation 1, boot 1.
pub fn run(number: u64, user_data: &str) -> DesiredInstance {
    let spec = InstanceSpec {
        type_name: "t3.micro".into(),
        vcpu_milli: 1_000,
        memory_mib: 512,
        image_id: "ami-0123456789abcdef0".into(),
        user_data: user_data.into(),
        hostname: "ip-172-31-0-4.ec2.internal".into(),
        availability_zone: "us-east-1a".into(),
        reservation_id: "r-0123456789abcdef0".into(),
        volumes: vec![VolumeSpec {
            volume_id: format!("vol-{number:017x}"),
            device_name: "/dev/xvda".into(),
            size_gib: 8,
            root: true,
            delete_on_termination: true,
            ..Default::default()
        }],
        interfaces: vec![InterfaceSpec {
            network_interface_id: format!("eni-{number:017x}"),
            vpc_id: "vpc-0123456789abcdef0".into(),
            subnet_id: "subnet-0123456789abcdef0".into(),
            prefix_length: 20,
            private_ip_addresses: vec!["172.31.0.4".into()],
            ..Default::default()
        }],
        ..Default::default()
    };
    DesiredInstance {
        instance_id: id(number),
        account_id: "000000000042".into(),
        region: "us-east-1".into(),
        generation: 1,
        state: DesiredState::Running.into(),
        boot: 1,
        spec: Some(spec),
        ..Default::default()
    }
}

/// The same instance, wanted otherwise.
pub fn then(before: &DesiredInstance, generation: u64, state: DesiredState) -> DesiredInstance {
    let stop_grace = (state == DesiredState::Stopped).then_some(prost_types::Duration { seconds: 20, nanos: 0 });
    DesiredInstance { generation, state: state.into(), stop_grace, spec: None, ..before.clone() }
}

/// Waits until it is so.
pub async fn eventually(what: &str, is: impl Fn() -> bool) {
    let began = monotonic();
    while !is() {
        assert!(began.elapsed() < PATIENCE, "{what} never happened");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Code and EC2 reason of a refusal.
pub fn reason<T>(result: Result<T, Status>) -> (Code, String) {
    let Err(status) = result else { panic!("it was not refused") };
    (status.code(), status.get_details_error_info().map(|info| info.reason).unwrap_or_default())
}
