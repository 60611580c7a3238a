//! etcd as a peer: one member, and the few calls that are measured.
//!
//! The messages are the part of etcd's contract (`etcdserverpb`) that these calls need.

use std::{
    net::TcpListener,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use prost::Message;
use tokio::process::{Child, Command};
use tokio_stream::StreamExt;
use tonic::{
    Request, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::{Failure, program::resident};

#[derive(Clone, PartialEq, Message)]
pub struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PutResponse {}

#[derive(Clone, PartialEq, Message)]
pub struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    pub create_request: Option<WatchCreateRequest>,
}

#[derive(Clone, PartialEq, Message)]
pub struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct WatchResponse {
    #[prost(bool, tag = "3")]
    pub created: bool,
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
}

/// What changed does not matter here, only that something did.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    #[prost(int32, tag = "1")]
    pub kind: i32,
}

/// A running member, which is killed when this is dropped.
pub struct Etcd {
    child: Child,
    address: String,
    /// From its start until it accepted.
    pub took: Duration,
}

impl Etcd {
    /// Starts a member with its data in a folder; none if etcd is not installed, which is said.
    pub async fn start(folder: &Path) -> Result<Option<Self>, Failure> {
        let [client, peer] = [free_port()?, free_port()?].map(|port| format!("http://127.0.0.1:{port}"));
        let begun = Instant::now();
        let spawned = Command::new("etcd")
            .args(["--name", "one", "--data-dir"])
            .arg(folder)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}"), "--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let child = match spawned {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                println!("SKIPPED: etcd is not installed (apt-get install etcd-server); its rows are missing");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let mut etcd = Self { child, address: client, took: Duration::ZERO };
        while begun.elapsed() < Duration::from_secs(30) {
            if let Ok(channel) = etcd.connect().await
                && put(&channel, b"ready".to_vec(), Vec::new()).await.is_ok()
            {
                etcd.took = begun.elapsed();
                return Ok(Some(etcd));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Err("etcd did not accept within 30 s".into())
    }

    pub async fn connect(&self) -> Result<Channel, Failure> {
        Ok(Endpoint::from_shared(self.address.clone())?.tcp_nodelay(true).connect().await?)
    }

    pub fn memory(&self) -> Result<f64, Failure> {
        resident(self.child.id().ok_or("etcd has ended")?)
    }
}

pub async fn put(channel: &Channel, key: Vec<u8>, value: Vec<u8>) -> Result<(), Failure> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await?;
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let codec: ProstCodec<PutRequest, PutResponse> = ProstCodec::default();
    client.unary(Request::new(PutRequest { key, value }), path, codec).await?;
    Ok(())
}

/// A watch of one key, once etcd has set it up.
pub async fn watch(channel: &Channel, key: Vec<u8>) -> Result<Streaming<WatchResponse>, Failure> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await?;
    let request = WatchRequest { create_request: Some(WatchCreateRequest { key }) };
    // The watch lasts as long as what is sent does not end.
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
    let codec: ProstCodec<WatchRequest, WatchResponse> = ProstCodec::default();
    let mut stream = client.streaming(Request::new(requests), path, codec).await?.into_inner();
    match stream.message().await? {
        Some(first) if first.created => Ok(stream),
        other => Err(format!("etcd answered {other:?} to a watch").into()),
    }
}

fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
