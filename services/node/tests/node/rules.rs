//! Rules of security groups reach whoever asked for them, whatever becomes of security.

use std::path::Path;

use gureum_model::{Scope, id::SecurityGroupId};
use gureum_node::firewall::{Groups, Interest, follow};
use gureum_proto::{
    common::v1::EventMetadata,
    security::v1::{
        security_group_rule::Peer as RulePeer,
        security_peer_service_server::{SecurityPeerService, SecurityPeerServiceServer},
        *,
    },
};
use gureum_service::{Listen, Peer, server::bind_unix, watch::WatchStream};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};

use crate::support::PATIENCE;

const GROUP: &str = "sg-00000000000000001";

type Answer = Result<WatchAllResponse, Status>;

/// A security that says what it is told to say: each stream that is opened is handed to the test, with its place.
#[derive(Clone)]
struct FakeSecurity(mpsc::UnboundedSender<(Option<u64>, mpsc::Sender<Answer>)>);

#[tonic::async_trait]
impl SecurityPeerService for FakeSecurity {
    type WatchAllStream = WatchStream<WatchAllResponse>;

    async fn watch_all(&self, request: Request<WatchAllRequest>) -> Result<Response<Self::WatchAllStream>, Status> {
        let (sender, receiver) = mpsc::channel(16);
        let _ = self.0.send((request.into_inner().after_sequence, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn register_vpc(&self, _: Request<RegisterVpcRequest>) -> Result<Response<RegisterVpcResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn unregister_vpc(&self, _: Request<UnregisterVpcRequest>) -> Result<Response<UnregisterVpcResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn set_security_group_holds(
        &self,
        _: Request<SetSecurityGroupHoldsRequest>,
    ) -> Result<Response<SetSecurityGroupHoldsResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

fn serve(folder: &Path, security: &FakeSecurity) -> JoinHandle<()> {
    let path = folder.join("security.sock");
    let _ = std::fs::remove_file(&path);
    let listener = bind_unix(&path).unwrap();
    let router = tonic::transport::Server::builder().add_service(SecurityPeerServiceServer::new(security.clone()));
    tokio::spawn(async move { router.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap_or_default() })
}

/// The group with one rule for each of these ports.
fn group(sequence: u64, ports: &[i32]) -> Answer {
    let rule = |port: &i32| SecurityGroupRule {
        security_group_rule_id: format!("sgr-{port:017x}"),
        group_id: GROUP.into(),
        ip_protocol: "tcp".into(),
        from_port: *port,
        to_port: *port,
        peer: Some(RulePeer::CidrIpv4("10.0.0.0/8".into())),
        ..Default::default()
    };
    let group = SecurityGroup { group_id: GROUP.into(), rules: ports.iter().map(rule).collect(), ..Default::default() };
    let scope = Scope::default();
    let metadata =
        EventMetadata { sequence, account_id: scope.account.to_string(), region: scope.region.to_string(), ..Default::default() };
    let event = Event { metadata: Some(metadata), resource: Some(event::Resource::SecurityGroup(group)) };
    Ok(WatchAllResponse { message: Some(watch_all_response::Message::Event(event)) })
}

fn caught_up(sequence: u64) -> Answer {
    Ok(WatchAllResponse { message: Some(watch_all_response::Message::CaughtUpToSequence(sequence)) })
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what} never happened"))
}

/// Waits until the group has rules for exactly these ports, woken by nothing but the interest.
async fn until_ports(interest: &Interest, wanted: &[u16]) {
    let group: SecurityGroupId = GROUP.parse().unwrap();
    let ports = || interest.rules_of(&Scope::default(), &[group]).map(|rules| rules.iter().map(|rule| rule.first).collect::<Vec<_>>());
    while ports().as_deref() != Some(wanted) {
        within(&format!("{wanted:?}"), interest.changed()).await;
    }
}

#[tokio::test]
async fn rules_reach_who_asked_and_stand_while_security_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let (sender, mut streams) = mpsc::unbounded_channel();
    let security = FakeSecurity(sender);
    let (groups, peer) = (Groups::default(), Peer::new("security", &Listen::Unix(folder.path().join("security.sock")), None).unwrap());
    // Security is away: it is followed all the same, and nobody knows any rule.
    let following = tokio::spawn(follow(peer, groups.clone()));
    let mut interest = groups.interest();
    let id: SecurityGroupId = GROUP.parse().unwrap();
    interest.set(&Scope::default(), [id]);
    assert_eq!(interest.rules_of(&Scope::default(), &[id]), None);

    let serving = serve(folder.path(), &security);
    let (after, stream) = within("the first stream", streams.recv()).await.unwrap();
    assert_eq!(after, None);
    stream.send(group(3, &[80])).await.unwrap();
    assert_eq!(interest.rules_of(&Scope::default(), &[id]), None, "half a snapshot is none");
    stream.send(caught_up(3)).await.unwrap();
    until_ports(&interest, &[80]).await;
    stream.send(group(4, &[80, 443])).await.unwrap();
    until_ports(&interest, &[80, 443]).await;

    // It goes, and the rules stand; it comes back, and is followed from where it was.
    drop(stream);
    serving.abort();
    let _ = serving.await;
    assert_eq!(interest.rules_of(&Scope::default(), &[id]).map(|rules| rules.len()), Some(2));
    while streams.try_recv().is_ok() {}
    let _serving = serve(folder.path(), &security);
    let (after, stream) = within("the second stream", streams.recv()).await.unwrap();
    assert_eq!(after, Some(4));
    stream.send(group(5, &[443])).await.unwrap();
    until_ports(&interest, &[443]).await;

    // What it has to tell is no longer kept: a snapshot takes the place of all.
    stream.send(Err(Status::out_of_range("begin again with a snapshot"))).await.unwrap();
    let (after, stream) = within("the third stream", streams.recv()).await.unwrap();
    assert_eq!(after, None);
    stream.send(group(2, &[22])).await.unwrap();
    assert_eq!(interest.rules_of(&Scope::default(), &[id]).map(|rules| rules[0].first), Some(443));
    stream.send(caught_up(2)).await.unwrap();
    until_ports(&interest, &[22]).await;
    following.abort();
}
