//! Webhooks at a real receiver: signed, tried again, given up, asked for again, and never lost.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use gureum_service::clock::monotonic;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use crate::{dynamic::Caller, harness::Deployment, region::region_with};

const SECRET: &str = "a secret of the receiver's";
const ATTEMPTS: usize = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(40);
const PATIENCE: Duration = Duration::from_secs(30);

/// What the receiver does with what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Take,
    Fail,
    Hang,
}

#[derive(Debug, Clone)]
struct Delivery {
    at: Instant,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Delivery {
    fn id(&self) -> String {
        self.headers["webhook-id"].clone()
    }

    /// The name of the group of which it tells.
    fn group(&self) -> String {
        let event: Value = serde_json::from_slice(&self.body).unwrap();
        event["data"]["groupName"].as_str().unwrap_or_default().to_owned()
    }
}

/// An HTTP server that remembers what it got.
#[derive(Clone)]
struct Receiver(Arc<Shared>);

struct Shared {
    url: String,
    mode: Mutex<Mode>,
    got: Mutex<Vec<Delivery>>,
    news: Notify,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let shared = Shared { url, mode: Mutex::new(Mode::Take), got: Mutex::default(), news: Notify::new() };
        let receiver = Self(Arc::new(shared));
        let serving = receiver.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let receiver = serving.clone();
                tokio::spawn(async move { receiver.serve(connection).await });
            }
        });
        receiver
    }

    /// One request a connection: what it answers ends it.
    async fn serve(&self, mut connection: TcpStream) -> Option<()> {
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
                break end;
            }
            (connection.read_buf(&mut bytes).await.ok()? > 0).then_some(())?;
        };
        let text = String::from_utf8(bytes[..head].to_vec()).ok()?;
        assert!(text.starts_with("POST /events HTTP/1.1\r\n"), "{text}");
        let headers = text.lines().skip(1).filter_map(|line| line.split_once(": "));
        let headers: BTreeMap<_, _> = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let length: usize = headers["content-length"].parse().ok()?;
        while bytes.len() < head + 4 + length {
            (connection.read_buf(&mut bytes).await.ok()? > 0).then_some(())?;
        }
        let mode = *self.0.mode.lock().unwrap();
        self.0.got.lock().unwrap().push(Delivery { at: monotonic(), headers, body: bytes[head + 4..].to_vec() });
        self.0.news.notify_waiters();
        let answer = match mode {
            Mode::Take => "204 No Content",
            Mode::Fail => "500 Internal Server Error",
            Mode::Hang => {
                // Until the other side gives up.
                let _ = connection.read_u8().await;
                return None;
            }
        };
        connection.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes()).await.ok()
    }

    fn set(&self, mode: Mode) {
        *self.0.mode.lock().unwrap() = mode;
    }

    fn of(&self, group: &str) -> Vec<Delivery> {
        self.0.got.lock().unwrap().iter().filter(|delivery| delivery.group() == group).cloned().collect()
    }

    /// The deliveries that tell of a group, once there are so many.
    async fn get(&self, group: &str, count: usize) -> Vec<Delivery> {
        let patience = monotonic() + PATIENCE;
        loop {
            let news = self.0.news.notified();
            let got = self.of(group);
            if got.len() >= count {
                return got;
            }
            let wait = tokio::time::timeout_at(patience.into(), news).await;
            assert!(wait.is_ok(), "{group} was delivered {} times, not {count}", got.len());
        }
    }
}

/// As a receiver does it that knows nothing but the documentation.
fn assert_signed(delivery: &Delivery) {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{}.{}.", delivery.id(), delivery.headers["webhook-timestamp"]).as_bytes());
    mac.update(&delivery.body);
    let wanted = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(delivery.headers["webhook-signature"], wanted);
}

struct World {
    region: Deployment,
    account: &'static str,
}

impl World {
    fn new(account: &'static str, timeout_ms: u64) -> Self {
        let settings = vec![
            format!("settings.webhooks.attempts={ATTEMPTS}"),
            format!("settings.webhooks.first_pause_ms={}", FIRST_PAUSE.as_millis()),
            format!("settings.webhooks.timeout_ms={timeout_ms}"),
        ];
        let mut region = region_with(&|name| if name == "gateway" { settings.clone() } else { Vec::new() });
        region.expect_complaint("an event was given up and is a dead letter now");
        Self { region, account }
    }

    fn caller(&self) -> Caller {
        Caller::new(self.region.channel()).of(self.account)
    }

    async fn webhook(&self, receiver: &Receiver) -> String {
        let filter = json!({ "types": ["gureum.security.v1.SecurityGroupCreated"] });
        let request = json!({ "url": receiver.0.url, "secret": SECRET, "filter": filter, "client_token": receiver.0.url });
        let made = self.caller().insist("gateway.EventService/CreateWebhook", request).await.unwrap();
        // An account's first call makes its default group; what comes behind this one comes behind that too.
        let first = format!("first of {}", receiver.0.url.trim_start_matches("http://").replace('/', " "));
        self.group(&first).await;
        receiver.get(&first, 1).await;
        made["webhook"]["webhook_id"].as_str().unwrap().to_owned()
    }

    async fn group(&self, name: &str) {
        let request = json!({ "group_name": name, "description": "told", "client_token": name });
        self.caller().insist("security.SecurityService/CreateSecurityGroup", request).await.unwrap();
    }

    /// The webhook, once it is as wanted.
    async fn shows(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let request = json!({ "webhook_ids": [id] });
        self.caller().until("gateway.EventService/DescribeWebhooks", request, |answer| wanted(&answer["webhooks"][0])).await["webhooks"][0]
            .clone()
    }

    fn kill_gateway(&mut self) {
        self.region.kill("gateway");
        self.region.restart("gateway");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_gets_each_event_signed_again_and_again_until_it_is_given_up() {
    let world = World::new("000000000701", 10_000);
    let receiver = Receiver::start().await;
    let id = world.webhook(&receiver).await;

    world.group("taken").await;
    let taken = receiver.get("taken", 1).await.remove(0);
    assert_signed(&taken);
    assert_eq!(taken.headers["content-type"], "application/cloudevents+json; charset=utf-8");
    let event: Value = serde_json::from_slice(&taken.body).unwrap();
    let wanted = ("1.0", "/gureum/security", "gureum.security.v1.SecurityGroupCreated", "000000000701");
    let told = ["specversion", "source", "type", "accountid"].map(|name| event[name].as_str().unwrap());
    assert_eq!((told[0], told[1], told[2], told[3]), wanted);
    assert_eq!(event["id"], taken.id().as_str());

    receiver.set(Mode::Fail);
    world.group("given up").await;
    let dead = world.shows(&id, |webhook| webhook["dead_letters"] == 1).await;
    assert_eq!(dead["last_error"], "answered 500 Internal Server Error");
    let tried = receiver.of("given up");
    assert_eq!(tried.len(), ATTEMPTS);
    for (attempt, pair) in tried.windows(2).enumerate() {
        assert_eq!(pair[0].id(), pair[1].id(), "a repeat has the same id");
        assert_signed(&pair[1]);
        let (pause, least) = (pair[1].at - pair[0].at, FIRST_PAUSE * (1 << attempt));
        assert!(pause >= least, "the pause after attempt {} was {pause:?}, and should be {least:?}", attempt + 1);
    }
    let letters = world.caller().call("gateway.EventService/DescribeDeadLetters", json!({ "webhook_id": id })).await.unwrap();
    assert_eq!(letters["dead_letters"][0]["event"]["id"], tried[0].id().as_str());
    assert_eq!(letters["dead_letters"][0]["error"], "answered 500 Internal Server Error");

    receiver.set(Mode::Take);
    world.group("after").await;
    receiver.get("after", 1).await;
    let redriven = world.caller().call("gateway.EventService/RedriveDeadLetters", json!({ "webhook_id": id })).await.unwrap();
    assert_eq!(redriven["redriven"], 1);
    let again = receiver.get("given up", ATTEMPTS + 1).await;
    assert_eq!(again[ATTEMPTS].id(), tried[0].id());
    assert_signed(&again[ATTEMPTS]);
    world.shows(&id, |webhook| webhook["dead_letters"] == 0 && webhook["failed_attempts"] == 0).await;
    assert_eq!(receiver.of("taken").len() + receiver.of("after").len(), 2, "what was taken is not delivered again");
    world.region.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_hangs_is_tried_again_and_holds_up_nobody_else() {
    let world = World::new("000000000702", 2_000);
    let (slow, quick) = (Receiver::start().await, Receiver::start().await);
    let (slow_id, _) = (world.webhook(&slow).await, world.webhook(&quick).await);
    slow.set(Mode::Hang);
    world.group("first").await;
    slow.get("first", 1).await;
    for name in ["second", "third"] {
        world.group(name).await;
        quick.get(name, 1).await;
    }
    assert_eq!(slow.of("first").len(), 1, "the quick one had its events while the slow one kept its first");
    slow.set(Mode::Take);
    let again = slow.get("first", 2).await;
    assert_eq!(again[0].id(), again[1].id());
    assert!(again[1].at - again[0].at >= Duration::from_secs(2));
    slow.get("third", 1).await;
    let well = world.shows(&slow_id, |webhook| webhook["failed_attempts"] == 0).await;
    assert_eq!(well["dead_letters"], 0);
    world.region.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_lost_when_the_gateway_is_killed_on_the_way() {
    let mut world = World::new("000000000703", 10_000);
    let receiver = Receiver::start().await;
    let id = world.webhook(&receiver).await;

    // Killed after the receiver got it and before it answered.
    receiver.set(Mode::Hang);
    world.group("under way").await;
    let first = receiver.get("under way", 1).await.remove(0);
    world.region.kill("gateway");
    receiver.set(Mode::Take);
    world.region.restart("gateway");
    let again = receiver.get("under way", 2).await;
    assert_eq!(again[1].id(), first.id(), "at least once, with the same id");
    assert_signed(&again[1]);

    // Killed in the pause after an attempt that failed.
    receiver.set(Mode::Fail);
    world.group("in a pause").await;
    world.shows(&id, |webhook| webhook["failed_attempts"].as_u64() > Some(0)).await;
    world.region.kill("gateway");
    receiver.set(Mode::Take);
    let before = receiver.of("in a pause");
    world.region.restart("gateway");
    let after = receiver.get("in a pause", before.len() + 1).await;
    assert_eq!(after.last().unwrap().id(), before[0].id());

    // Made known before the kill, happened while the gateway was away.
    world.shows(&id, |webhook| webhook["failed_attempts"] == 0 && webhook["last_error"] == "").await;
    world.kill_gateway();
    world.group("later").await;
    receiver.get("later", 1).await;
    assert_eq!(receiver.of("later").len(), 1);
    world.region.finish();
}
