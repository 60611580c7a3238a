//! A region whose services are processes of their own, started by `gureum serve`, killed and started
//! again at will.
//!
//! Every line that a service logs at WARN or ERROR fails the test at its end, unless the test said that
//! it expects it.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::PathBuf,
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
        let folder = tempfile::Builder::new().prefix("gureum-test-").tempdir().unwrap();
        Self { folder, running: BTreeMap::new(), complaints: Arc::default(), expected: Vec::new(), clock: "" }
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
        let running = self.spawn(name, kind, all, FIRST_START_WITHIN);
        self.running.insert(name.to_owned(), running);
    }

    /// SIGKILL: the process gets no chance to do anything more.
    pub fn kill(&mut self, name: &str) {
        let running = self.running.get_mut(name).unwrap();
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        if let Some(log) = running.log.take() {
            log.join().unwrap();
        }
    }

    /// SIGSTOP or SIGCONT: the process stands still, and goes on.
    pub fn signal(&self, name: &str, signal: &str) {
        let pid = self.running[name].child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Starts a killed service again and answers how long it took to accept.
    pub fn restart(&mut self, name: &str) -> Duration {
        let dead = self.running.remove(name).unwrap();
        let begun = monotonic();
        let running = self.spawn(name, dead.kind, dead.settings, READY_WITHIN);
        self.running.insert(name.to_owned(), running);
        begun.elapsed()
    }

    pub fn names(&self) -> Vec<String> {
        self.running.keys().cloned().collect()
    }

    /// A client's channel to a service, in the scope of an account.
    pub fn client(&self, name: &'static str, account: &str) -> ScopedChannel {
        let peer = Peer::new(name, &self.socket(name), None).unwrap();
        InterceptedService::new(peer.channel(), InScope { account: account.to_owned(), region: "us-east-1".to_owned() })
    }

    /// The region's front door, for an account. Only where a gateway runs.
    pub fn door(&self, account: &str) -> Door {
        let address = self.running["gateway"].ready.trim_start_matches("ready ").to_owned();
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        Door { channel, scope: InScope { account: account.to_owned(), region: "us-east-1".to_owned() } }
    }

    fn spawn(&self, name: &str, kind: &'static str, settings: Vec<String>, within: Duration) -> Running {
        let mut command = Command::new(program());
        command.arg("serve").arg(kind).arg("--with-parent").args(settings.iter().flat_map(|setting| ["--set", setting]));
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
            Ok(ready) => Running { kind, settings, child, log: Some(log), ready },
            Err(error) => {
                let _ = child.kill();
                let _ = log.join();
                panic!("{name} was not ready within {within:?} ({error}); it said:\n{}", self.complaints.lock().unwrap().join("\n"));
            }
        }
    }

    /// Ends all services in order, and fails if any complained.
    pub fn finish(mut self) {
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
        let complaints = self.complaints.lock().unwrap();
        let unexpected: Vec<_> = complaints.iter().filter(|line| !self.expected.iter().any(|text| line.contains(text))).collect();
        assert!(unexpected.is_empty(), "services complained:\n{unexpected:#?}");
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for running in self.running.values_mut() {
            let _ = running.child.kill();
            let _ = running.child.wait();
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
    use tonic::Code::{Cancelled, DeadlineExceeded, Unavailable, Unknown};
    let patience = monotonic() + Duration::from_secs(60);
    loop {
        match call().await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) if matches!(status.code(), Unavailable | Unknown | Cancelled | DeadlineExceeded) => {
                assert!(monotonic() < patience, "nothing definite for a minute: {status}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(status) => return Err(status),
        }
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
