//! A region whose services are processes of their own, started by `gureum serve`, killed and started
//! again at will.
//!
//! Every line that a service logs at WARN or ERROR fails the test at its end, unless the test said that
//! it expects it.

use std::{
    collections::BTreeMap,
    fmt::Display,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use gureum_service::{
    Listen, Peer,
    clock::monotonic,
    context::{ACCOUNT_HEADER, REGION_HEADER},
    peer::PeerChannel,
};
use tonic::{
    Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::{
    gate::{self, Place},
    remains,
};

/// A service must accept again within this time after it was killed, whatever it holds.
pub const READY_WITHIN: Duration = Duration::from_secs(2);

/// Generous, because a loaded machine may take its time to start the very first process.
const FIRST_START_WITHIN: Duration = Duration::from_secs(20);

/// Services as processes, in a folder of their own.
pub struct Deployment {
    folder: tempfile::TempDir,
    running: BTreeMap<String, Running>,
    complaints: Arc<Mutex<Vec<String>>>,
    expected: Vec<&'static str>,
    clock: &'static str,
    // Left when all processes have ended.
    _place: Place,
}

struct Running {
    kind: &'static str,
    settings: Vec<String>,
    child: Child,
    log: Option<JoinHandle<()>>,
    /// What the service printed once it accepted: the gateway's tells its address.
    ready: String,
}

impl Deployment {
    /// An empty folder in which services can be started.
    pub fn new() -> Self {
        Self::at(gate::enter())
    }

    /// As [`Deployment::new`], once no other test has one; nor will any until this one is gone.
    pub fn alone() -> Self {
        Self::at(gate::enter_alone())
    }

    fn at(place: Place) -> Self {
        let folder = tempfile::Builder::new().prefix("gureum-test-").tempdir().unwrap();
        Self { folder, running: BTreeMap::new(), complaints: Arc::default(), expected: Vec::new(), clock: "", _place: place }
    }

    /// Lines with this text may be logged as WARN or ERROR.
    pub fn expect_complaint(&mut self, text: &'static str) {
        self.expected.push(text);
    }

    /// The socket of a service.
    pub fn socket(&self, name: &str) -> Listen {
        Listen::Unix(self.folder.path().join(format!("{name}.sock")))
    }

    /// Starts a service under a name; `peers` are other names; `settings` are `KEY=VALUE`.
    pub fn start(&mut self, name: &str, kind: &'static str, peers: &[&str], settings: &[&str]) {
        let mut all = vec![format!("listen={}", self.socket(name)), format!("store.directory={}", self.folder.path().join(name).display())];
        all.extend(peers.iter().map(|peer| format!("peers.{peer}={}", self.socket(peer))));
        all.extend(settings.iter().map(|setting| (*setting).to_owned()));
        if !self.clock.is_empty() {
            all.push(self.clock.to_owned());
        }
        let mut running = self.spawn(name, kind, &all, &[], FIRST_START_WITHIN);
        if let Some(door) = running.door() {
            // Callers find the next process where they found this one.
            all.retain(|setting| !setting.starts_with("settings.door="));
            all.push(format!("settings.door={door}"));
        }
        running.settings = all;
        self.running.insert(name.to_owned(), running);
    }

    /// SIGKILL: the process gets no chance to do anything more.
    pub fn kill(&mut self, name: &str) {
        let running = self.running.get_mut(name).unwrap();
        running.child.kill().unwrap();
        running.end();
    }

    /// Starts a killed service again and answers how long it took to accept.
    pub fn restart(&mut self, name: &str) -> Duration {
        self.restart_with(name, &[])
    }

    /// As [`Deployment::restart`], with settings that this process alone has.
    pub fn restart_with(&mut self, name: &str, extra: &[String]) -> Duration {
        let dead = self.running.remove(name).unwrap();
        let begun = monotonic();
        let mut running = self.spawn(name, dead.kind, &dead.settings, extra, READY_WITHIN);
        running.settings = dead.settings;
        self.running.insert(name.to_owned(), running);
        begun.elapsed()
    }

    /// Whether a service's process has ended by itself.
    pub fn has_ended(&mut self, name: &str) -> bool {
        let running = self.running.get_mut(name).unwrap();
        let ended = running.child.try_wait().unwrap().is_some();
        if ended {
            running.end();
        }
        ended
    }

    /// Stops a process in its tracks, as a host does that hangs: SIGSTOP.
    pub fn freeze(&self, name: &str) {
        self.signal(name, "STOP");
        // The signal is sent, and a busy thread may still answer a call before it stops.
        let threads = PathBuf::from(format!("/proc/{}/task", self.running[name].child.id()));
        let stands = |thread: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        };
        let patience = monotonic() + PATIENCE;
        while !std::fs::read_dir(&threads).unwrap().flatten().all(stands) {
            assert!(monotonic() < patience, "{name} does not stop");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets a frozen process go on: SIGCONT.
    pub fn thaw(&self, name: &str) {
        self.signal(name, "CONT");
    }

    /// Asks a service to stop, as its supervisor does: SIGTERM.
    pub fn tell_to_stop(&self, name: &str) {
        self.signal(name, "TERM");
    }

    fn signal(&self, name: &str, signal: &str) {
        let process = self.running[name].child.id().to_string();
        let sent = Command::new("kill").args([format!("-{signal}"), process]).status().unwrap();
        assert!(sent.success(), "{signal} to {name}");
    }

    /// How many lines a service has logged that hold all of these texts.
    pub fn logged(&self, name: &str, texts: &[&str]) -> usize {
        let complaints = self.complaints.lock().unwrap();
        let of_it = complaints.iter().filter(|line| line.starts_with(&format!("{name}: ")));
        of_it.filter(|line| texts.iter().all(|text| line.contains(text))).count()
    }

    pub fn names(&self) -> Vec<String> {
        self.running.keys().cloned().collect()
    }

    /// A client's channel to a service, in the scope of an account.
    pub fn client(&self, name: &str, account: &str) -> ScopedChannel {
        let peer = Peer::new("test", &self.socket(name), None).unwrap();
        InterceptedService::new(peer.channel(), InScope { account: account.to_owned(), region: "us-east-1".to_owned() })
    }

    /// Where the gateway's door is.
    pub fn address(&self) -> String {
        self.running["gateway"].door().unwrap().to_owned()
    }

    /// A connection to the region's front door, without TLS.
    pub fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address())).unwrap().connect_lazy()
    }

    /// The region's front door, for an account. Only where a gateway runs.
    pub fn door(&self, account: &str) -> Door {
        let channel = self.channel();
        Door { channel, scope: InScope { account: account.to_owned(), region: "us-east-1".to_owned() } }
    }

    fn spawn(&self, name: &str, kind: &'static str, settings: &[String], extra: &[String], within: Duration) -> Running {
        let mut command = Command::new(program());
        command.arg("serve").arg(kind).arg("--with-parent").args(settings.iter().chain(extra).flat_map(|setting| ["--set", setting]));
        command.args(["--set", "telemetry.log=warn"]).env("NO_COLOR", "1").env("RUST_BACKTRACE", "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (errors, lines) = (child.stderr.take().unwrap(), child.stdout.take().unwrap());
        let (complaints, who) = (self.complaints.clone(), name.to_owned());
        let log = thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                complaints.lock().unwrap().push(format!("{who}: {line}"));
            }
        });
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                // The first line is waited for, later ones by nobody.
                let _ = sender.send(line);
            }
        });
        match receiver.recv_timeout(within) {
            Ok(ready) => Running { kind, settings: Vec::new(), child, log: Some(log), ready },
            // A fault may end it before it is ready.
            Err(mpsc::RecvTimeoutError::Disconnected) if !extra.is_empty() => {
                Running { kind, settings: Vec::new(), child, log: Some(log), ready: String::new() }
            }
            Err(error) => {
                let _ = child.kill();
                let _ = log.join();
                panic!("{name} was not ready within {within:?} ({error}); it said:\n{}", self.complaints.lock().unwrap().join("\n"));
            }
        }
    }

    /// Where a service keeps its state.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Under which all of them keep their state.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process of a service, as long as it is not killed.
    pub fn pid(&self, name: &str) -> u32 {
        self.running[name].child.id()
    }

    /// Ends all services in order, and fails if any complained.
    pub fn finish(mut self) {
        self.end();
        let complaints = self.complaints.lock().unwrap();
        let unexpected: Vec<_> = complaints.iter().filter(|line| !self.expected.iter().any(|text| line.contains(text))).collect();
        assert!(unexpected.is_empty(), "services complained:\n{unexpected:#?}");
    }

    /// Ends all services in order; what they stored stays where it is.
    pub fn end(&mut self) {
        let names = self.names();
        for name in names.iter().rev() {
            let running = self.running.get_mut(name).unwrap();
            // The end of its input tells the service to stop.
            drop(running.child.stdin.take());
            let status = running.child.wait().unwrap();
            if let Some(log) = running.log.take() {
                log.join().unwrap();
            }
            assert!(status.success(), "{name} ended with {status}");
        }
    }
}

impl Running {
    /// Where a gateway accepts callers.
    fn door(&self) -> Option<&str> {
        self.ready.strip_prefix("ready ")
    }

    fn end(&mut self) {
        self.child.wait().unwrap();
        if let Some(log) = self.log.take() {
            log.join().unwrap();
        }
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for running in self.running.values_mut() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
        // Of a test that has failed: instances outlive their region.
        for (pid, _) in remains::shims_in(self.folder.path()) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_gureum"))
}

/// Puts account and region into every call.
#[derive(Clone)]
pub struct InScope {
    account: String,
    region: String,
}

impl Interceptor for InScope {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        request.metadata_mut().insert(ACCOUNT_HEADER, MetadataValue::try_from(&self.account).unwrap());
        request.metadata_mut().insert(REGION_HEADER, MetadataValue::try_from(&self.region).unwrap());
        Ok(request)
    }
}

/// The one port of a region, as an account's clients see it.
#[derive(Clone)]
pub struct Door {
    channel: Channel,
    scope: InScope,
}

impl Door {
    /// One attempt of a call that may be repeated: with a client and a request of its own.
    pub fn call<C, Q: Clone, F>(&self, client: impl FnOnce(DoorChannel) -> C, request: &Q, call: impl FnOnce(C, Q) -> F) -> F {
        call(client(InterceptedService::new(self.channel.clone(), self.scope.clone())), request.clone())
    }
}

pub type DoorChannel = InterceptedService<Channel, InScope>;

pub type ScopedChannel = InterceptedService<PeerChannel, InScope>;

/// Repeats a call with the same client token until the service says something definite: what any
/// careful client does.
pub async fn insist<T, F>(mut call: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<tonic::Response<T>, Status>>,
{
    let patience = monotonic() + Duration::from_secs(60);
    loop {
        match call().await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) if is_transient(&status) => {
                assert!(monotonic() < patience, "nothing definite for a minute: {status}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(status) => return Err(status),
        }
    }
}

/// Whether a careful client tries again: nobody has said yes or no, or it came in another's way.
pub fn is_transient(status: &Status) -> bool {
    use tonic::Code::{Aborted, Cancelled, DeadlineExceeded, Unavailable, Unknown};
    matches!(status.code(), Unavailable | Unknown | Cancelled | DeadlineExceeded | Aborted)
}

/// Calls a method through a door until the answer is definite: `ask!(door, ComputeServiceClient, run_instances, request)`.
macro_rules! ask {
    ($door:expr, $client:ident, $method:ident, $request:expr) => {{
        let request = $request;
        $crate::harness::insist(|| $door.call($client::new, &request, |mut client, request| async move { client.$method(request).await }))
            .await
    }};
}

/// Calls a method through a door once, whatever the answer.
macro_rules! attempt {
    ($door:expr, $client:ident, $method:ident, $request:expr) => {{
        let answer = $door.call($client::new, &$request, |mut client, request| async move { client.$method(request).await }).await;
        answer.map(tonic::Response::into_inner)
    }};
}

/// All pages of a list: `all_pages!(door, ComputeServiceClient, describe_volumes, DescribeVolumesRequest, volumes)`.
macro_rules! all_pages {
    ($door:expr, $client:ident, $method:ident, $request:ident, $items:ident) => {{
        let (mut items, mut page_token) = (Vec::new(), String::new());
        loop {
            let page = $crate::harness::ask!($door, $client, $method, $request { page_token, ..Default::default() }).unwrap();
            items.extend(page.$items);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break items;
            }
        }
    }};
}

pub(crate) use {all_pages, ask, attempt};

/// How long anything may take that has to come about by itself.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Looks again and again until it is as told; fails with what was seen last. Polling, because what is waited for has
/// no one place that tells of it.
pub async fn until<T, F: Future<Output = Result<T, String>>>(what: impl Display, mut look: impl FnMut() -> F) -> T {
    let patience = monotonic() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(monotonic() < patience, "{what} does not come about: {seen}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A seed that the test prints, so that a failure can be had again: GUREUM_TEST_SEED=….
pub fn seed() -> u64 {
    let given = std::env::var("GUREUM_TEST_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| gureum_model::IdSource::random().next_number() as u64)
}

/// Numbers from a seed, for when to kill whom.
pub struct Chance(gureum_model::IdSource);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(gureum_model::IdSource::seeded(seed))
    }

    pub fn below(&self, bound: u64) -> u64 {
        (self.0.next_number() as u64) % bound
    }
}
