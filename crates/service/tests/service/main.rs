//! What every service gets from the scaffold, through its socket.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{path::Path, time::Duration};

use gureum_model::Scope;
use gureum_proto::clock::v1::{GetStateRequest, SetTimeRequest, clock_peer_service_client::ClockPeerServiceClient};
use gureum_service::{
    CancellationToken, Error, Listen, Peer, Service, ServiceConfig, StartError,
    clock::monotonic,
    config::TlsConfig,
    context::{self, RequestContext},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::oneshot,
    task::JoinHandle,
};
use tonic::{Code, service::Routes};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

gureum_store::schema! {
    /// A service needs no tables to be served.
    pub struct Nothing {}
}

struct Running {
    shutdown: CancellationToken,
    done: JoinHandle<Result<(), StartError>>,
}

async fn start(flags: &[String]) -> Running {
    let config: ServiceConfig = ServiceConfig::load(None, [], flags).unwrap();
    let (shutdown, (sender, ready)) = (CancellationToken::new(), oneshot::channel());
    let stop = shutdown.clone();
    let done = tokio::spawn(async move {
        let service = Service::<Nothing>::open("test", &config, stop).await?;
        service.serve(Routes::default(), Box::new(move || sender.send(()).unwrap())).await
    });
    ready.await.unwrap();
    Running { shutdown, done }
}

fn on_socket(folder: &TempDir) -> (Vec<String>, Listen) {
    let listen = Listen::Unix(folder.path().join("s.sock"));
    (vec![format!("listen={listen}")], listen)
}

#[tokio::test]
async fn health_is_told_and_shutdown_is_orderly() {
    let folder = tempfile::tempdir().unwrap();
    let (flags, listen) = on_socket(&folder);
    let running = start(&flags).await;
    let peer = Peer::new("test", &listen, None).unwrap();
    let mut health = HealthClient::new(peer.channel());
    let answer = health.check(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner();
    assert_eq!(answer.status, tonic_health::pb::health_check_response::ServingStatus::Serving as i32);
    // A watcher's stream must not keep the service from ending.
    let mut watch = health.watch(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    drop(watch);
    running.shutdown.cancel();
    running.done.await.unwrap().unwrap();
    let away = HealthClient::new(peer.channel()).check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(away.code(), Code::Unavailable);
}

#[tokio::test]
async fn the_socket_is_its_users_alone_and_serves_metrics() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (flags, listen) = on_socket(&folder);
    let _running = start(&flags).await;
    let path = folder.path().join("s.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let peer = Peer::new("test", &listen, None).unwrap();
    HealthClient::new(peer.channel()).check(HealthCheckRequest::default()).await.unwrap();
    let page = get(&path, "/metrics").await;
    assert!(page.contains("gureum_calls_total{method=\"grpc.health.v1.Health/Check\",code=\"OK\"} 1"), "{page}");
}

async fn get(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}

#[tokio::test]
async fn a_second_service_on_the_same_socket_or_store_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (mut flags, _) = on_socket(&folder);
    flags.push(format!("store.directory={}", folder.path().join("store").display()));
    let _running = start(&flags).await;
    let config: ServiceConfig = ServiceConfig::load(None, [], &flags).unwrap();
    let refused = Service::<Nothing>::open("test", &config, CancellationToken::new()).await.map(|_| ());
    assert!(matches!(refused, Err(StartError::Store(_))), "{refused:?}");
}

#[tokio::test]
async fn a_scope_that_is_none_is_refused_with_its_field() {
    use tonic_types::StatusExt;
    let folder = tempfile::tempdir().unwrap();
    let (flags, listen) = on_socket(&folder);
    let _running = start(&flags).await;
    let peer = Peer::new("test", &listen, None).unwrap();
    let mut request = tonic::Request::new(GetStateRequest {});
    request.metadata_mut().insert("gureum-account", "12".parse().unwrap());
    let status = ClockPeerServiceClient::new(peer.channel()).get_state(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let field = status.get_details_bad_request().unwrap().field_violations.remove(0).field;
    assert_eq!(field, "gureum-account");
}

#[tokio::test]
async fn a_peer_that_hangs_ends_with_the_callers_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hangs.sock");
    // It accepts and never says a word.
    let _hangs = tokio::net::UnixListener::bind(&path).unwrap();
    let peer = Peer::new("hangs", &Listen::Unix(path), None).unwrap();
    let ids = gureum_model::IdSource::seeded(1);
    let context = RequestContext::background(Scope::default(), &ids, Duration::from_millis(300));
    let begun = monotonic();
    let mut client = ClockPeerServiceClient::new(peer.channel());
    let call = async { client.get_state(GetStateRequest {}).await.map_err(|status| tonic::Status::from(peer.error(status))) };
    let status = context::with(context, call).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the hangs service did not answer in time; try again"));
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn time_is_virtual_only_where_it_was_set_so() {
    let folder = tempfile::tempdir().unwrap();
    let (flags, listen) = on_socket(&folder);
    let _running = start(&flags).await;
    let peer = Peer::new("test", &listen, None).unwrap();
    let later = SetTimeRequest { time: Some(gureum_service::wire::timestamp(gureum_model::Timestamp::from_secs(9_999_999_999))) };
    let status = ClockPeerServiceClient::new(peer.channel()).set_time(later).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let error = Error::Peer { peer: "test", status: Box::new(status) };
    assert_eq!(error.reason().as_deref(), Some("UnsupportedOperation"));
}

#[tokio::test]
async fn a_tcp_port_believes_only_whom_the_authority_signed() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (certificates(folder.path(), "ours"), certificates(folder.path(), "theirs"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let flags = [
        format!("listen={port}"),
        format!("tls.certificate={}", ours.certificate.display()),
        format!("tls.key={}", ours.key.display()),
        format!("tls.authority={}", ours.authority.display()),
    ];
    let _running = start(&flags).await;
    let call = |tls: TlsConfig| async move {
        let peer = Peer::new("test", &Listen::Tcp(port), Some(&tls)).unwrap();
        ClockPeerServiceClient::new(peer.channel()).get_state(GetStateRequest {}).await
    };
    call(ours.clone()).await.unwrap();
    // It knows the authority, but its own certificate is signed by another.
    let stranger = TlsConfig { authority: ours.authority.clone(), ..theirs.clone() };
    assert_eq!(call(stranger).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(call(theirs).await.unwrap_err().code(), Code::Unavailable);
}

/// An authority, and a certificate that it signed.
fn certificates(folder: &Path, name: &str) -> TlsConfig {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let signed = CertificateParams::new(vec!["gureum".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let write = |kind: &str, text: String| {
        let path = folder.join(format!("{name}-{kind}.pem"));
        std::fs::write(&path, text).unwrap();
        path
    };
    TlsConfig {
        certificate: write("certificate", signed.pem()),
        key: write("key", key.serialize_pem()),
        authority: write("authority", authority.pem()),
        server_name: "gureum".to_owned(),
    }
}
