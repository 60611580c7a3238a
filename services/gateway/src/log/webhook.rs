//! Deliveries: each webhook gets its events in order, signed, again and again until it takes them.

use std::{
    collections::HashSet,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use gureum_model::{Timestamp, id::WebhookId};
use gureum_proto::gateway::v1::CloudEvent;
use gureum_service::{
    Clock,
    reconcile::{Outcome, Reconcile, Waker},
};
use gureum_store::{Record, Store, WriteError};
use hmac::{Hmac, Mac};
use http::{Method, Request, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use prost::Message;
use serde_json::json;
use sha2::Sha256;

use super::{DeadLetter, Schema, Webhook, cloud_event::to_json, subscribe::Logged};
use crate::settings::Webhooks;

/// Events passed between two commits of how far a webhook is: what may come twice after a crash.
const EVENTS_PER_RUN: usize = 32;

type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Delivers the events of all webhooks: one key a webhook, one run at a time for each.
#[derive(Clone)]
pub struct Deliveries(Arc<Shared>);

struct Shared {
    store: Store<Schema>,
    settings: Webhooks,
    http: Http,
    waker: Waker<String>,
    /// Webhooks that are left alone for now, because they did not take an event. Not stored: a gateway
    /// that starts gives each a whole pause again.
    resting: Mutex<HashSet<String>>,
}

/// What one attempt came to.
type Attempt = Result<(), String>;

impl Deliveries {
    /// Deliveries of the webhooks in this store.
    pub fn new(store: Store<Schema>, settings: Webhooks) -> std::io::Result<Self> {
        let connector = HttpsConnectorBuilder::new().with_native_roots()?.https_or_http().enable_http1().build();
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self(Arc::new(Shared { store, settings, http, waker: Waker::default(), resting: Mutex::default() })))
    }

    /// What runs the deliveries, to be handed to the scaffold.
    pub fn waker(&self) -> Waker<String> {
        self.0.waker.clone()
    }

    /// Wakes all webhooks whenever the log grows.
    pub async fn follow_log(self) {
        let state = self.0.store.read();
        // The pauses in which these were ended with the process that knew of them.
        for webhook in state.webhooks.iter().filter(|webhook| webhook.failed_attempts > 0) {
            self.rest(&webhook.key(), webhook.failed_attempts);
        }
        drop(state);
        let mut sequence = self.0.store.sequence();
        while sequence.changed().await.is_ok() {
            self.0.waker.wake(self.unsettled());
        }
    }

    async fn run_one(&self, key: &str) -> Outcome {
        let Some(webhook) = self.0.store.read().webhooks.get(key).map(|row| row.record.clone()) else {
            return Outcome::Settled;
        };
        if let Some(letter) = self.next_redriven(webhook.id) {
            return self.redrive(&webhook, letter).await;
        }
        if self.resting().contains(key) {
            return Outcome::Settled;
        }
        let state = self.0.store.read();
        let from = webhook.delivered_to.max(state.oldest_after());
        let batch: Vec<Logged> = state.events_after(from).take(EVENTS_PER_RUN).filter_map(Logged::read).collect();
        drop(state);
        let Some(last) = batch.last().map(|logged| logged.event.place) else { return Outcome::Settled };
        let mut done = from;
        for logged in batch.iter().filter(|logged| logged.scope == webhook.scope && webhook.filter.passes(&logged.event)) {
            if let Err(error) = self.deliver(&webhook, &logged.event).await {
                return self.failed(key, done, &logged.event, error).await;
            }
            done = logged.event.place;
        }
        self.record(key, last, 0, String::new(), None).await;
        Outcome::Moved
    }

    async fn failed(&self, key: &str, done: u64, event: &CloudEvent, error: String) -> Outcome {
        let attempts = self.0.store.read().webhooks.get(key).map_or(0, |row| row.failed_attempts) + 1;
        if attempts >= self.0.settings.attempts {
            tracing::warn!(webhook = key, event = event.id, error, "an event was given up and is a dead letter now");
            self.record(key, event.place, 0, error.clone(), Some((event, error))).await;
            return Outcome::Moved;
        }
        // First, so that nothing that wakes it meanwhile makes the pause shorter.
        self.rest(key, attempts);
        self.record(key, done, attempts, error, None).await;
        Outcome::Settled
    }

    /// Leaves a webhook alone for a while. Real time, and not the loop's own retry: its pauses are shorter
    /// than a webhook deserves.
    fn rest(&self, key: &str, attempts: u32) {
        self.resting().insert(key.to_owned());
        let (deliveries, key, pause) = (self.clone(), key.to_owned(), self.0.settings.pause(attempts));
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            deliveries.resting().remove(&key);
            deliveries.0.waker.wake([key]);
        });
    }

    fn resting(&self) -> MutexGuard<'_, HashSet<String>> {
        // An insert or a removal is whole or not begun, so a poisoned lock is as good as any.
        self.0.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn redrive(&self, webhook: &Webhook, letter: DeadLetter) -> Outcome {
        let Ok(event) = CloudEvent::decode(letter.event.as_slice()) else { return Outcome::Settled };
        let outcome = self.deliver(webhook, &event).await;
        let written = self.0.store.write(move |transaction| -> Result<(), Infallible> {
            match outcome {
                Ok(()) => drop(transaction.delete::<DeadLetter>(&letter.key())),
                Err(error) => transaction.put(DeadLetter { error, redrive: false, ..letter }),
            }
            Ok(())
        });
        match written.await {
            Ok(()) => Outcome::Moved,
            Err(WriteError::Refused(never)) => match never {},
            Err(WriteError::Store(_)) => Outcome::Settled,
        }
    }

    fn next_redriven(&self, webhook: WebhookId) -> Option<DeadLetter> {
        let state = self.0.store.read();
        state.dead_letters.scan(&DeadLetter::prefix(webhook), None).find(|letter| letter.redrive).map(|row| row.record.clone())
    }

    async fn deliver(&self, webhook: &Webhook, event: &CloudEvent) -> Attempt {
        // Receivers hold the time of a delivery against their own clock, whatever the region's is.
        let request = signed(webhook, event, Clock::wall_now()).map_err(|error| error.to_string())?;
        let timeout = Duration::from_millis(self.0.settings.timeout_ms);
        match tokio::time::timeout(timeout, self.0.http.request(request)).await {
            Err(_elapsed) => Err(format!("no answer within {} ms", timeout.as_millis())),
            Ok(Err(error)) => Err(chain(&error)),
            Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
            Ok(Ok(answer)) => Err(format!("answered {}", answer.status())),
        }
    }

    /// Remembers how far a webhook is, and what could not be delivered: one commit.
    async fn record(&self, key: &str, delivered_to: u64, failed_attempts: u32, last_error: String, dead: Option<(&CloudEvent, String)>) {
        let key = key.to_owned();
        let dead = dead.map(|(event, error)| (event.place, event.encode_to_vec(), error));
        let write = self.0.store.write(move |transaction| -> Result<(), Infallible> {
            // It may have been deleted while a delivery was under way.
            let Some(webhook) = transaction.webhooks.get(&key).map(|row| row.record.clone()) else { return Ok(()) };
            if let Some((place, event, error)) = dead {
                let letter = DeadLetter { webhook: webhook.id, place, event, time: transaction.now(), error, redrive: false };
                transaction.put(letter);
            }
            transaction.put(Webhook { delivered_to, failed_attempts, last_error, ..webhook });
            Ok(())
        });
        if let Err(WriteError::Store(error)) = write.await {
            tracing::error!(%error, "how far a webhook is cannot be written; its events come again");
        }
    }
}

impl Reconcile for Deliveries {
    type Key = String;
    const NAME: &'static str = "webhooks";
    // A receiver that hangs holds up its own webhook, and no other.
    const BATCH: usize = 1;
    const RUNS: usize = 64;

    fn unsettled(&self) -> Vec<String> {
        self.0.store.read().webhooks.iter().filter(|webhook| webhook.failed_attempts == 0).map(|webhook| webhook.key()).collect()
    }

    async fn run(&self, keys: Vec<String>) -> Vec<(String, Outcome)> {
        let runs = keys.into_iter().map(|key| async move {
            let outcome = self.run_one(&key).await;
            (key, outcome)
        });
        futures::future::join_all(runs).await
    }
}

/// A delivery as the receiver can check it: the signature is over id, time and body, so neither can be
/// replayed as another. The form is that of the Standard Webhooks specification.
fn signed(webhook: &Webhook, event: &CloudEvent, now: Timestamp) -> Result<Request<Full<Bytes>>, http::Error> {
    let body = serde_json::to_vec(&structured(event)).unwrap_or_default();
    let timestamp = now.as_secs();
    Request::builder()
        .method(Method::POST)
        .uri(&webhook.url)
        .header(CONTENT_TYPE, "application/cloudevents+json; charset=utf-8")
        .header("webhook-id", &event.id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signature(&webhook.secret, &event.id, timestamp, &body))
        .body(Full::new(Bytes::from(body)))
}

/// An error with its causes: "client error (Connect)" alone tells nobody what to do.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn signature(secret: &str, id: &str, timestamp: u64, body: &[u8]) -> String {
    // A key of any length is good for HMAC.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

/// CloudEvents' structured JSON: <https://github.com/cloudevents/spec>, JSON format 1.0.
fn structured(event: &CloudEvent) -> serde_json::Value {
    let time = event.time.as_ref().map(gureum_service::wire::from_timestamp).unwrap_or_default();
    json!({
        "specversion": event.spec_version,
        "id": event.id,
        "source": event.source,
        "type": event.r#type,
        "subject": event.subject,
        "time": time.to_string(),
        "datacontenttype": "application/json",
        "accountid": event.account_id,
        "region": event.region,
        "place": event.place,
        "causationid": event.causation_id,
        "deleted": event.deleted,
        "data": event.data.as_ref().map(to_json),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_openssl_makes_of_it() {
        // printf 'evt-1.5.{}' | openssl dgst -sha256 -hmac 0123456789abcdef -binary | base64
        let made = signature("0123456789abcdef", "evt-1", 5, b"{}");
        assert_eq!(made, "v1,boPENRzv6ReGlI1lr1Jfz5zK6eja7KHyD+d/fXyiQC0=");
    }
}
