//! A security service over a socket of its own, and clients of it.

use std::{path::PathBuf, sync::Arc};

use gureum_proto::security::v1::{
    security_peer_service_client::SecurityPeerServiceClient, security_service_client::SecurityServiceClient, *,
};
use gureum_service::{CancellationToken, Listen, Peer, ServiceConfig, context, peer::PeerChannel};
use tokio::{io::AsyncWriteExt, sync::oneshot, task::JoinHandle};
use tonic::{Code, Status, Streaming, metadata::MetadataValue, service::Interceptor, service::interceptor::InterceptedService};
use tonic_types::StatusExt;

/// A running service. Clones are the same one.
#[derive(Clone)]
pub struct Region {
    folder: Arc<tempfile::TempDir>,
    shutdown: CancellationToken,
    running: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
    peer: Peer,
    account: String,
}

/// A region whose service has stopped.
pub struct Stopped(Arc<tempfile::TempDir>);

#[derive(Clone)]
pub struct Account(String);

impl Interceptor for Account {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        request.metadata_mut().insert(context::ACCOUNT_HEADER, MetadataValue::try_from(&self.0).unwrap());
        Ok(request)
    }
}

type Channel = InterceptedService<PeerChannel, Account>;

impl Region {
    pub async fn start() -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap())).await
    }

    async fn start_in(folder: Arc<tempfile::TempDir>) -> Self {
        let listen = Listen::Unix(folder.path().join("s.sock"));
        let flags = [format!("listen={listen}"), format!("store.directory={}", folder.path().join("store").display())];
        let config: ServiceConfig<_> = ServiceConfig::load(None, [], &flags).unwrap();
        let (shutdown, (sender, ready)) = (CancellationToken::new(), oneshot::channel());
        let stop = shutdown.clone();
        let running =
            tokio::spawn(async move { gureum_security::run(config, stop, Box::new(move || sender.send(()).unwrap())).await.unwrap() });
        ready.await.unwrap();
        let peer = Peer::new("security", &listen, None).unwrap();
        Self { folder, shutdown, running: Arc::new(tokio::sync::Mutex::new(Some(running))), peer, account: "000000000000".into() }
    }

    /// The same service, called by another account.
    pub fn of_account(&self, account: &str) -> Self {
        Self { account: account.to_owned(), ..self.clone() }
    }

    pub fn user(&self) -> SecurityServiceClient<Channel> {
        SecurityServiceClient::with_interceptor(self.peer.channel(), Account(self.account.clone()))
    }

    pub fn peer(&self) -> SecurityPeerServiceClient<Channel> {
        SecurityPeerServiceClient::with_interceptor(self.peer.channel(), Account(self.account.clone()))
    }

    pub async fn default_group(&self, vpc: &str) -> SecurityGroup {
        let request = RegisterVpcRequest { vpc_id: format!("vpc-{vpc:0>17}"), is_default: true };
        self.peer().register_vpc(request).await.unwrap().into_inner().default_security_group.unwrap()
    }

    pub async fn create_group(&self, name: &str) -> SecurityGroup {
        let request = CreateSecurityGroupRequest { group_name: name.into(), description: "for a test".into(), ..Default::default() };
        self.user().create_security_group(request).await.unwrap().into_inner().security_group.unwrap()
    }

    pub async fn groups(&self) -> Vec<SecurityGroup> {
        self.user().describe_security_groups(DescribeSecurityGroupsRequest::default()).await.unwrap().into_inner().security_groups
    }

    pub async fn stop(self) -> Stopped {
        self.shutdown.cancel();
        if let Some(running) = self.running.lock().await.take() {
            running.await.unwrap();
        }
        Stopped(self.folder)
    }

    /// Bytes that are no HTTP/2, on the service's own socket.
    pub async fn send_garbage(&self) {
        let mut socket = tokio::net::UnixStream::connect(self.folder.path().join("s.sock")).await.unwrap();
        // The service may close before all is written.
        let _ = socket.write_all(&[0xff; 4096]).await;
        let _ = socket.shutdown().await;
    }
}

impl Stopped {
    /// Whether any file of the store holds this text.
    pub fn contains(&self, text: &str) -> bool {
        let mut folders: Vec<PathBuf> = vec![self.0.path().join("store")];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.is_file() {
                    files += 1;
                    if std::fs::read(&path).unwrap().windows(text.len()).any(|window| window == text.as_bytes()) {
                        return true;
                    }
                }
            }
        }
        assert!(files > 0, "nothing was stored at all");
        false
    }

    pub async fn restart(self) -> Region {
        Region::start_in(self.0).await
    }
}

pub fn tcp(port: i32, cidr: &str) -> IpPermission {
    IpPermission {
        ip_protocol: "tcp".into(),
        from_port: Some(port),
        to_port: Some(port),
        ip_ranges: vec![IpRange { cidr: cidr.into(), description: String::new() }],
        ..Default::default()
    }
}

/// Code and EC2 reason of a refusal.
pub fn reason<T>(result: Result<T, Status>) -> (Code, String) {
    let Err(status) = result else { panic!("it was not refused") };
    (status.code(), status.get_details_error_info().map(|info| info.reason).unwrap_or_default())
}

pub fn violated_fields(status: &Status) -> Vec<String> {
    status
        .get_details_bad_request()
        .map(|bad| bad.field_violations.into_iter().map(|violation| violation.field).collect())
        .unwrap_or_default()
}

pub async fn next_event(stream: &mut Streaming<WatchResponse>) -> Event {
    loop {
        if let Some(watch_response::Message::Event(event)) = stream.message().await.unwrap().unwrap().message {
            return event;
        }
    }
}
