//! One change told to 1,000 subscribers, beside etcd's watch.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use gureum_proto::{
    common::v1::Tag,
    gateway::v1::{SubscribeRequest, event_service_client::EventServiceClient, subscribe_response::Message},
    security::v1::{
        CreateKeyPairRequest, CreateTagsRequest, KeyType, WatchRequest, security_service_client::SecurityServiceClient,
        watch_response::Message as Watched,
    },
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tonic::transport::Channel;

use crate::{
    Failure,
    etcd::{self, Etcd},
    measure::{median, milliseconds, percentile, spread},
    program::Running,
};

const SUBSCRIBERS: usize = 1_000;
const CONNECTIONS: usize = 20;
const ROUNDS: usize = 3;
/// One after another, each once the one before has reached everybody.
const SINGLES: usize = 20;
/// As fast as they are answered.
const BURST: usize = 50;

/// Counts what arrives: every subscriber says one word for each event. They end when this is dropped.
struct Arrivals {
    words: mpsc::UnboundedReceiver<()>,
    subscribers: JoinSet<Result<(), Failure>>,
}

impl Arrivals {
    async fn wait_for(&mut self, count: usize) -> Result<(), Failure> {
        for _ in 0..count {
            tokio::select! {
                biased;
                word = self.words.recv() => word.ok_or("all subscribers have ended")?,
                Some(ended) = self.subscribers.join_next() => return Err(format!("a subscriber has ended: {ended:?}").into()),
                () = tokio::time::sleep(Duration::from_secs(60)) => return Err("events did not arrive within a minute".into()),
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Measured {
    /// From before the write until the last subscriber has it.
    last: Vec<f64>,
    per_second: Vec<f64>,
}

impl Measured {
    fn print(&self, what: &str) {
        let (low, high) = spread(&self.per_second);
        let last = milliseconds(Duration::from_secs_f64(median(self.last.clone())));
        println!("| {what} | {:.0} | {low:.0} to {high:.0} | {last} |", median(self.per_second.clone()));
    }

    async fn round<F>(&mut self, arrivals: &mut Arrivals, write: impl Fn(usize) -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let mut times = Vec::new();
        for number in 0..SINGLES {
            let begun = Instant::now();
            write(number).await?;
            arrivals.wait_for(SUBSCRIBERS).await?;
            times.push(begun.elapsed());
        }
        self.last.push(percentile(&mut times, 50).as_secs_f64());
        let begun = Instant::now();
        for number in 0..BURST {
            write(SINGLES + number).await?;
        }
        arrivals.wait_for(BURST * SUBSCRIBERS).await?;
        self.per_second.push((BURST * SUBSCRIBERS) as f64 / begun.elapsed().as_secs_f64());
        Ok(())
    }
}

pub async fn run(folder: &Path) -> Result<(), Failure> {
    println!("\n## A change told to {SUBSCRIBERS} subscribers over {CONNECTIONS} connections, {ROUNDS} rounds in turn\n");
    let (mut subscribe, mut watch, mut theirs) = (Measured::default(), Measured::default(), Measured::default());
    for round in 0..ROUNDS {
        let region = Running::region(Some(&folder.join(format!("watch-{round}"))), &[]).await?;
        let (channel, key) = with_key_pair(&region).await?;
        let write = |number| tag(channel.clone(), key.clone(), number);
        subscribe.round(&mut subscribers(&region, subscribe_one).await?, write).await?;
        watch.round(&mut subscribers(&region, watch_one).await?, write).await?;
        region.kill().await?;
        if let Some(etcd) = Etcd::start(&folder.join(format!("etcd-watch-{round}"))).await? {
            let channel = etcd.connect().await?;
            let write = |number: usize| etcd_put(channel.clone(), number);
            theirs.round(&mut etcd_watchers(&etcd).await?, write).await?;
        }
    }
    println!("| what | deliveries a second | rounds | a write until the last has it, p50 |\n| --- | --- | --- | --- |");
    subscribe.print("Subscribe (the gateway's event log)");
    watch.print("Watch (of a service, through the gateway)");
    if !theirs.last.is_empty() {
        theirs.print("etcd watch");
    }
    Ok(())
}

async fn with_key_pair(region: &Running) -> Result<(Channel, String), Failure> {
    let channel = region.door().await?;
    let request = CreateKeyPairRequest { key_name: "bench".into(), key_type: KeyType::Ed25519.into(), ..Default::default() };
    let made = SecurityServiceClient::new(channel.clone()).create_key_pair(request).await?.into_inner();
    Ok((channel, made.key_pair.unwrap_or_default().key_pair_id))
}

async fn tag(channel: Channel, key: String, number: usize) -> Result<(), Failure> {
    let tags = vec![Tag { key: "number".into(), value: number.to_string() }];
    SecurityServiceClient::new(channel).create_tags(CreateTagsRequest { resource_ids: vec![key], tags, ..Default::default() }).await?;
    Ok(())
}

async fn etcd_put(channel: Channel, number: usize) -> Result<(), Failure> {
    etcd::put(&channel, b"watched".to_vec(), format!("{number:0300}").into_bytes()).await
}

/// Tells that it is ready, then of every event. Ends with its stream.
type Told = (Arc<Notify>, mpsc::UnboundedSender<()>);

async fn subscribe_one(channel: Channel, (ready, words): Told) -> Result<(), Failure> {
    let mut stream = EventServiceClient::new(channel).subscribe(SubscribeRequest::default()).await?.into_inner();
    while let Some(message) = stream.message().await? {
        match message.message {
            Some(Message::Event(_)) => words.send(())?,
            Some(Message::CaughtUpToPlace(_)) => ready.notify_one(),
            None => {}
        }
    }
    Ok(())
}

async fn watch_one(channel: Channel, (ready, words): Told) -> Result<(), Failure> {
    let mut stream = SecurityServiceClient::new(channel).watch(WatchRequest::default()).await?.into_inner();
    let mut snapshot = true;
    while let Some(message) = stream.message().await? {
        match message.message {
            Some(Watched::CaughtUpToSequence(_)) if snapshot => {
                snapshot = false;
                ready.notify_one();
            }
            Some(Watched::Event(_)) if !snapshot => words.send(())?,
            Some(_) | None => {}
        }
    }
    Ok(())
}

async fn subscribers<F>(region: &Running, one: impl Fn(Channel, Told) -> F) -> Result<Arrivals, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let (sender, words) = mpsc::unbounded_channel();
    let mut subscribers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let channel = region.door().await?;
        for _ in 0..SUBSCRIBERS / CONNECTIONS {
            let ready = Arc::new(Notify::new());
            subscribers.spawn(one(channel.clone(), (ready.clone(), sender.clone())));
            tokio::select! {
                () = ready.notified() => {}
                Some(ended) = subscribers.join_next() => return Err(format!("a subscriber has ended: {ended:?}").into()),
            }
        }
    }
    Ok(Arrivals { words, subscribers })
}

async fn etcd_watchers(etcd: &Etcd) -> Result<Arrivals, Failure> {
    let (sender, words) = mpsc::unbounded_channel();
    let mut subscribers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let channel = etcd.connect().await?;
        for _ in 0..SUBSCRIBERS / CONNECTIONS {
            let mut stream = etcd::watch(&channel, b"watched".to_vec()).await?;
            let sender = sender.clone();
            subscribers.spawn(async move {
                while let Some(message) = stream.message().await? {
                    message.events.iter().try_for_each(|_| sender.send(()))?;
                }
                Ok(())
            });
        }
    }
    Ok(Arrivals { words, subscribers })
}
