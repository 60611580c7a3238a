//! Security is killed again and again under a mixed workload; then everything is accounted for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gureum_proto::security::v1::{
    security_peer_service_client::SecurityPeerServiceClient, security_service_client::SecurityServiceClient, watch_response::Message, *,
};
use tonic::Code;

use crate::harness::{Chance, Deployment, READY_WITHIN, ScopedChannel, insist, seed};

const ACCOUNT: &str = "000000000000";
const WORKERS: u64 = 12;
const KILLS: u32 = 15;

/// What one worker knows for certain.
#[derive(Default)]
struct Known {
    /// Groups that were acknowledged and not deleted: id and how many ingress rules it has.
    groups: BTreeMap<String, usize>,
    deleted: BTreeSet<String>,
    calls: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_is_done_twice() {
    let seed = seed();
    let mut deployment = Deployment::new();
    deployment.start("security", "security", &[], &[]);
    let vpc = RegisterVpcRequest { vpc_id: "vpc-00000000000000001".into(), is_default: true };
    SecurityPeerServiceClient::new(deployment.client("security", ACCOUNT)).register_vpc(vpc).await.unwrap();

    let done = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            tokio::spawn(work(SecurityServiceClient::new(deployment.client("security", ACCOUNT)), seed ^ number, number, done.clone()))
        })
        .collect();
    let chance = Chance::new(seed);
    let mut slowest = Duration::ZERO;
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(20 + chance.below(120))).await;
        deployment.kill("security");
        slowest = slowest.max(deployment.restart("security"));
    }
    done.store(true, Ordering::Relaxed);
    let mut known = Known::default();
    for worker in workers {
        let one = worker.await.unwrap();
        known.groups.extend(one.groups);
        known.deleted.extend(one.deleted);
        known.calls += one.calls;
    }
    println!(
        "seed {seed}: {KILLS} kills, {} calls, {} groups live, {} deleted, ready again within {slowest:?}",
        known.calls,
        known.groups.len(),
        known.deleted.len()
    );
    assert!(slowest <= READY_WITHIN && known.calls > u64::from(KILLS) * 4);
    audit(SecurityServiceClient::new(deployment.client("security", ACCOUNT)), &known).await;
    deployment.finish();
}

type Client = SecurityServiceClient<ScopedChannel>;

/// One attempt of a call that may be repeated: with a client and a request of its own.
fn calling<Q: Clone, F>(client: &Client, request: &Q, call: impl FnOnce(Client, Q) -> F) -> F {
    call(client.clone(), request.clone())
}

/// Creates, fills and deletes groups, each call with a token of its own, until told to stop.
async fn work(client: Client, seed: u64, worker: u64, done: Arc<AtomicBool>) -> Known {
    let (chance, mut known) = (Chance::new(seed), Known::default());
    let mut number = 0;
    while !done.load(Ordering::Relaxed) {
        number += 1;
        known.calls += 1;
        let token = format!("{worker}-{number}");
        let pick = known.groups.keys().nth(chance.below(known.groups.len().max(1) as u64) as usize).cloned();
        match (chance.below(4), pick) {
            (0, Some(group_id)) => {
                let request = DeleteSecurityGroupRequest { client_token: token, group_id: group_id.clone(), ..Default::default() };
                insist(|| calling(&client, &request, |mut client, request| async move { client.delete_security_group(request).await }))
                    .await
                    .unwrap();
                known.groups.remove(&group_id);
                known.deleted.insert(group_id);
            }
            (1, Some(group_id)) => {
                let rules = known.groups.get_mut(&group_id).unwrap();
                let port = 1 + *rules as i32;
                let permission = IpPermission {
                    ip_protocol: "tcp".into(),
                    from_port: Some(port),
                    to_port: Some(port),
                    ip_ranges: vec![IpRange { cidr: "0.0.0.0/0".into(), description: String::new() }],
                    ..Default::default()
                };
                let request = AuthorizeSecurityGroupIngressRequest {
                    client_token: token,
                    group_id,
                    ip_permissions: vec![permission],
                    ..Default::default()
                };
                match insist(|| {
                    calling(&client, &request, |mut client, request| async move { client.authorize_security_group_ingress(request).await })
                })
                .await
                {
                    Ok(_) => *rules += 1,
                    Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status}"),
                }
            }
            _ => {
                let group_name = format!("group-{worker}-{number}");
                let request =
                    CreateSecurityGroupRequest { client_token: token, group_name, description: "work".into(), ..Default::default() };
                let created =
                    insist(|| calling(&client, &request, |mut client, request| async move { client.create_security_group(request).await }))
                        .await
                        .unwrap();
                known.groups.insert(created.security_group.unwrap().group_id, 0);
            }
        }
    }
    known
}

/// Both ways: all that was acknowledged is there, and nothing is there that was not.
async fn audit(mut client: Client, known: &Known) {
    let mut found = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let request = DescribeSecurityGroupsRequest { page_size: 100, page_token, ..Default::default() };
        let page = client.describe_security_groups(request).await.unwrap().into_inner();
        for group in page.security_groups.into_iter().filter(|group| group.group_name != "default") {
            let ingress = group.rules.iter().filter(|rule| !rule.is_egress).count();
            assert_eq!(found.insert(group.group_id, ingress), None, "a group is listed twice");
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found, known.groups, "found, and acknowledged");

    let mut events = client.watch(WatchRequest { after_sequence: Some(0) }).await.unwrap().into_inner();
    let (mut created, mut deleted, mut sequence) = (BTreeSet::new(), BTreeSet::new(), 0);
    // The default group's creation is the one event beside the workers'.
    while created.len() < 1 + known.groups.len() + known.deleted.len() || deleted.len() < known.deleted.len() {
        let next = tokio::time::timeout(Duration::from_secs(10), events.message()).await.expect("an event is missing").unwrap().unwrap();
        let Some(Message::Event(event)) = next.message else { continue };
        let metadata = event.metadata.unwrap();
        sequence += 1;
        assert_eq!(metadata.sequence, sequence, "the outbox has a gap or a repeat");
        if metadata.r#type.ends_with("SecurityGroupCreated") {
            assert!(created.insert(metadata.resource_id), "a group was created twice");
        } else if metadata.deleted {
            assert!(deleted.insert(metadata.resource_id), "a group was deleted twice");
        }
    }
    assert_eq!(deleted, known.deleted);
}
