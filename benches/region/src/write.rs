//! A service's durable write beside etcd's put: 64 callers on one channel, 512 bytes that overwrite.

use std::{path::Path, time::Duration};

use gureum_proto::{
    common::v1::Tag,
    security::v1::{CreateKeyPairRequest, CreateTagsRequest, KeyType, security_service_client::SecurityServiceClient},
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    Failure,
    etcd::{self, Etcd},
    measure::{ROUNDS_HEAD, Round, Rounds, drive},
    program::Running,
};

const CALLERS: usize = 64;
const ROUNDS: usize = 5;
const DURING: Duration = Duration::from_secs(4);
const GOAL: f64 = 1.2;

/// Half of the 512 bytes: a tag's value is 256 characters at most.
const HALF: usize = 256;

pub async fn run(folder: &Path) -> Result<(), Failure> {
    println!("\n## A durable write at {CALLERS} callers, {ROUNDS} rounds of {DURING:?} in turn\n");
    let security = start_security(folder).await?;
    let mut ids = Vec::new();
    for number in 0..CALLERS {
        let request = CreateKeyPairRequest { key_name: format!("bench-{number}"), key_type: KeyType::Ed25519.into(), ..Default::default() };
        let made = SecurityServiceClient::new(security.1.clone()).create_key_pair(request).await?.into_inner();
        ids.push(made.key_pair.unwrap_or_default().key_pair_id);
    }
    let etcd = match Etcd::start(&folder.join("etcd")).await? {
        Some(etcd) => Some((etcd.connect().await?, etcd)),
        None => None,
    };
    let (mut ours, mut with_token, mut theirs) = (Rounds::default(), Rounds::default(), Rounds::default());
    for round in 0..ROUNDS {
        ours.0.push(tags(&security.1, &ids, None).await?);
        with_token.0.push(tags(&security.1, &ids, Some(round)).await?);
        if let Some((channel, _)) = &etcd {
            theirs.0.push(puts(channel).await?);
        }
    }
    println!("{ROUNDS_HEAD}");
    println!("{}", ours.row("security CreateTags"));
    println!("{}", with_token.row("security CreateTags with client tokens"));
    if etcd.is_some() {
        println!("{}", theirs.row("etcd put"));
        let ratio = |rounds: &Rounds| rounds.per_second() / theirs.per_second();
        println!("\nCreateTags over put: {:.2}, with client tokens {:.2} (goal {GOAL})", ratio(&ours), ratio(&with_token));
    }
    Ok(())
}

async fn start_security(folder: &Path) -> Result<(Running, Channel), Failure> {
    let socket = format!("unix:{}", folder.join("security.sock").display());
    let settings =
        [format!("listen={socket}"), format!("store.directory={}", folder.join("security").display()), "telemetry.log=error".into()];
    let arguments: Vec<&str> = ["serve", "security"].into_iter().chain(settings.iter().flat_map(|setting| ["--set", setting])).collect();
    let running = Running::start(&arguments, "ready").await?;
    let channel = Endpoint::from_shared(socket)?.connect().await?;
    Ok((running, channel))
}

async fn tags(channel: &Channel, ids: &[String], round: Option<usize>) -> Result<Round, Failure> {
    let (channel, ids) = (channel.clone(), ids.to_vec());
    drive(CALLERS, DURING, move |caller, number| {
        let tag = |key: &str| Tag { key: key.into(), value: format!("{number:0HALF$}") };
        let request = CreateTagsRequest {
            client_token: round.map(|round| format!("{round}-{caller}-{number}")).unwrap_or_default(),
            resource_ids: vec![ids[caller].clone()],
            tags: vec![tag("one"), tag("two")],
            ..Default::default()
        };
        let mut client = SecurityServiceClient::new(channel.clone());
        async move {
            client.create_tags(request).await?;
            Ok(())
        }
    })
    .await
}

async fn puts(channel: &Channel) -> Result<Round, Failure> {
    let channel = channel.clone();
    drive(CALLERS, DURING, move |caller, number| {
        let (channel, key, value) = (channel.clone(), format!("key-{caller:017x}"), format!("{number:0512}"));
        async move { etcd::put(&channel, key.into_bytes(), value.into_bytes()).await }
    })
    .await
}
