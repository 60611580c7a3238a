//! Subscribers: a replay from the log, then every event as it is logged.

use std::{pin::Pin, sync::Arc};

use futures::Stream;
use gureum_model::{IdSource, Refusal, RefusalKind, Scope};
use gureum_proto::{
    codec::ERROR_DOMAIN,
    gateway::v1::{CloudEvent, SubscribeRequest, SubscribeResponse, subscribe_response::Message as Told},
};
use gureum_service::{CancellationToken, Error, error::ending};
use gureum_store::{OutboxEvent, Store};
use prost::Message;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{Schema, webhook::Deliveries};
use crate::filter::EventFilter;

/// Events that a subscriber may fall behind before it is cut. At 1,000 events a second it is four seconds.
const SUBSCRIBER_LAG: usize = 4_096;

/// Messages on their way to one subscriber.
const STREAM_BUFFER: usize = 128;

/// Events read from the log at a time.
const REPLAY_BATCH: usize = 1_024;

/// An event of the log, decoded once for all subscribers.
#[derive(Debug)]
pub struct Logged {
    pub scope: Scope,
    pub event: CloudEvent,
}

impl Logged {
    pub fn read(row: &OutboxEvent) -> Option<Self> {
        let mut event = CloudEvent::decode(row.payload.as_slice()).ok()?;
        event.place = row.sequence;
        Some(Self { scope: row.scope.clone(), event })
    }
}

/// The log, and who listens.
#[derive(Clone)]
pub struct Log {
    pub store: Store<Schema>,
    live: broadcast::Sender<Arc<Logged>>,
}

impl Log {
    pub fn new(store: Store<Schema>) -> Self {
        Self { store, live: broadcast::Sender::new(SUBSCRIBER_LAG) }
    }

    /// Tells subscribers of events as they become durable.
    pub async fn announce(self) {
        let mut sequence = self.store.sequence();
        let mut told = *sequence.borrow();
        while sequence.changed().await.is_ok() {
            let state = self.store.read();
            for row in state.events_after(told) {
                told = row.sequence;
                if let Some(logged) = Logged::read(row) {
                    // Nobody listening is no fault.
                    let _ = self.live.send(Arc::new(logged));
                }
            }
        }
    }
}

/// What EventService needs.
pub struct LogApi {
    pub log: Log,
    pub ids: Arc<IdSource>,
    pub shutdown: CancellationToken,
    pub deliveries: Deliveries,
}

pub type SubscribeStream = Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send>>;

impl LogApi {
    pub fn subscribe_to(&self, scope: Scope, request: SubscribeRequest) -> Result<SubscribeStream, Error> {
        // Listening begins before the log is read, so that nothing falls between the two.
        let live = self.log.live.subscribe();
        let state = self.log.store.read();
        let (oldest, latest) = (state.oldest_after(), state.sequence());
        let after = match request.after_place {
            // "Everything that is kept" is never too old.
            Some(0) => oldest,
            Some(place) if place < oldest => {
                let text = format!("events behind place {place} are no longer kept; the oldest place is {oldest}");
                return Err(Refusal::new(RefusalKind::OutOfRange, "PlaceTooOld", text).into());
            }
            Some(place) if place > latest => {
                let text = format!("there is no place {place} yet; the last one is {latest}: is this the region that told of it?");
                return Err(Refusal::new(RefusalKind::OutOfRange, "PlaceInFuture", text).into());
            }
            Some(place) => place,
            None => latest,
        };
        let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
        let subscriber = Subscriber { scope, filter: request.filter.unwrap_or_default().into(), sender, last: after };
        let (store, shutdown) = (self.log.store.clone(), self.shutdown.clone());
        tokio::spawn(async move {
            let sender = subscriber.sender.clone();
            tokio::select! {
                _ = subscriber.run(store, live) => {}
                () = shutdown.cancelled() => {
                    let _ = sender.try_send(Err(ending("subscribe again after the last place")));
                }
                () = sender.closed() => {}
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

struct Subscriber {
    scope: Scope,
    filter: EventFilter,
    sender: mpsc::Sender<Result<SubscribeResponse, Status>>,
    /// Everything up to here was told or passed over.
    last: u64,
}

impl Subscriber {
    async fn run(mut self, store: Store<Schema>, mut live: broadcast::Receiver<Arc<Logged>>) -> Option<()> {
        let until = store.read().sequence();
        while self.last < until {
            let batch: Vec<_> = store.read().events_after(self.last).take(REPLAY_BATCH).filter_map(Logged::read).collect();
            if batch.is_empty() {
                break;
            }
            for logged in &batch {
                self.tell(logged).await?;
            }
        }
        self.last = self.last.max(until);
        self.send(Told::CaughtUpToPlace(self.last)).await?;
        loop {
            match live.recv().await {
                Ok(logged) if logged.event.place > self.last => self.tell(&logged).await?,
                Ok(_replayed) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    // There may be no room for the reason; the stream's end says enough.
                    let _ = self.sender.try_send(Err(too_slow(self.last, missed)));
                    return None;
                }
            }
        }
    }

    async fn tell(&mut self, logged: &Logged) -> Option<()> {
        self.last = logged.event.place;
        if logged.scope == self.scope && self.filter.passes(&logged.event) {
            self.send(Told::Event(logged.event.clone())).await?;
        }
        Some(())
    }

    async fn send(&self, told: Told) -> Option<()> {
        self.sender.send(Ok(SubscribeResponse { message: Some(told) })).await.ok()
    }
}

fn too_slow(last: u64, missed: u64) -> Status {
    let text = format!("the subscriber is {missed} events behind and was cut; subscribe again after place {last}");
    let details = ErrorDetails::with_error_info("SubscriberTooSlow", ERROR_DOMAIN, [("last_place".to_owned(), last.to_string())]);
    Status::with_error_details(Code::ResourceExhausted, text, details)
}
