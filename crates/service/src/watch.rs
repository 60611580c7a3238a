//! Watching: a snapshot or a place in the outbox, then every change in order.

use std::pin::Pin;

use futures::Stream;
use gureum_model::{Refusal, RefusalKind, Scope, id::ResourceId};
use gureum_proto::{EventMessage, WatchMessage, common::v1::EventMetadata};
use gureum_store::{OutboxEvent, State, Store, Tables};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    error::{ending, refused},
    wire,
};

/// Messages that wait for a slow watcher. Beyond it the watcher is waited for; it falls behind alone,
/// and if it falls behind what the outbox keeps, it is told so.
const WATCH_BUFFER: usize = 256;

/// Events read from one state at a time, so that a long replay holds no old state for long.
const REPLAY_BATCH: usize = 1_024;

/// What a Watch call answers.
pub type WatchStream<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

/// A resource as a snapshot shows it.
pub struct SnapshotItem<E> {
    /// The event's type without the package: `SecurityGroupState`.
    pub kind: &'static str,
    pub scope: Scope,
    pub resource_id: String,
    pub event: E,
}

/// Follows a store's changes: of one scope, or of all.
///
/// Without `after` it begins with everything that `snapshot` shows of the state.
pub fn watch<T, M>(
    store: Store<T>,
    scope: Option<Scope>,
    after: Option<u64>,
    snapshot: impl FnOnce(&State<T>) -> Vec<SnapshotItem<M::Event>> + Send + 'static,
    shutdown: CancellationToken,
) -> Result<WatchStream<M>, Status>
where
    T: Tables,
    M: WatchMessage,
{
    let state = store.read();
    if let Some(after) = after {
        check_place(&state, after).map_err(|refusal| refused(&refusal))?;
    }
    let (sender, receiver) = mpsc::channel(WATCH_BUFFER);
    tokio::spawn(async move {
        let follow = async {
            let start = match after {
                Some(after) => after,
                None => {
                    let items = snapshot(&state);
                    let sequence = state.sequence();
                    for item in items {
                        sender.send(Ok(M::event(snapshot_event(item, sequence)))).await.ok()?;
                    }
                    sender.send(Ok(M::caught_up(sequence))).await.ok()?;
                    sequence
                }
            };
            drop(state);
            follow::<T, M>(&store, scope.as_ref(), start, &sender).await
        };
        tokio::select! {
            _ = follow => {}
            () = shutdown.cancelled() => {
                // The watcher comes back to the restarted service with the sequence it has.
                let _ = sender.try_send(Err(ending("watch again after the last sequence")));
            }
            () = sender.closed() => {}
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

async fn follow<T: Tables, M: WatchMessage>(
    store: &Store<T>,
    scope: Option<&Scope>,
    mut after: u64,
    sender: &mpsc::Sender<Result<M, Status>>,
) -> Option<()> {
    let mut sequence = store.sequence();
    loop {
        let latest = *sequence.borrow_and_update();
        let mut told = after;
        while after < latest {
            let state = store.read();
            if let Err(refusal) = check_place(&state, after) {
                sender.send(Err(refused(&refusal))).await.ok()?;
                return None;
            }
            let batch: Vec<OutboxEvent> = state.events_after(after).take(REPLAY_BATCH).cloned().collect();
            drop(state);
            let last = batch.last()?.sequence;
            for event in batch.into_iter().filter(|event| scope.is_none_or(|scope| *scope == event.scope)) {
                told = event.sequence;
                sender.send(decode::<M>(event)).await.ok()?;
            }
            after = last;
        }
        if told < after {
            sender.send(Ok(M::caught_up(after))).await.ok()?;
        }
        sequence.changed().await.ok()?;
    }
}

fn check_place<T: Tables>(state: &State<T>, after: u64) -> Result<(), Refusal> {
    let oldest = state.oldest_after();
    if after < oldest {
        let text = format!("events after {after} are no longer kept; the oldest place is {oldest}: begin again with a snapshot");
        return Err(Refusal::new(RefusalKind::OutOfRange, "SequenceTooOld", text));
    }
    if after > state.sequence() {
        // The watcher has seen more than there is: the store was put back to an earlier state.
        let latest = state.sequence();
        let text = format!("there is no event {after} yet; the last one is {latest}: begin again with a snapshot");
        return Err(Refusal::new(RefusalKind::OutOfRange, "SequenceInFuture", text));
    }
    Ok(())
}

fn decode<M: WatchMessage>(event: OutboxEvent) -> Result<M, Status> {
    let mut message = M::Event::decode(event.payload.as_slice())
        .map_err(|error| Status::from(crate::Error::Internal(format!("the event {} cannot be read: {error}", event.sequence))))?;
    message.set_metadata(metadata::<M::Event>(&event));
    Ok(M::event(message))
}

fn metadata<E: EventMessage>(event: &OutboxEvent) -> EventMetadata {
    EventMetadata {
        sequence: event.sequence,
        id: event_id(E::PACKAGE, event),
        r#type: format!("{}.{}", E::PACKAGE, event.kind),
        time: Some(wire::timestamp(event.time)),
        account_id: event.scope.account.to_string(),
        region: event.scope.region.to_string(),
        resource_id: event.resource_id.clone(),
        causation_id: event.causation_id.clone(),
        deleted: event.deleted,
    }
}

/// The same for every repeat: derived from what never changes. Of all that the event is, because a store that was put
/// back to an earlier state gives the same sequence to another event.
fn event_id(package: &str, event: &OutboxEvent) -> String {
    let OutboxEvent { sequence, time, kind, scope, resource_id, .. } = event;
    let mut whole = format!("{package}/{sequence}/{}/{kind}/{scope}/{resource_id}/", time.as_micros()).into_bytes();
    whole.extend_from_slice(&event.payload);
    let number = gureum_store::token::fingerprint(&whole);
    gureum_model::id::EventId::from_number(number).to_string()
}

fn snapshot_event<E: EventMessage>(item: SnapshotItem<E>, sequence: u64) -> E {
    let SnapshotItem { kind, scope, resource_id, mut event } = item;
    event.set_metadata(EventMetadata {
        sequence,
        id: String::new(),
        r#type: format!("{}.{kind}", E::PACKAGE),
        time: None,
        account_id: scope.account.to_string(),
        region: scope.region.to_string(),
        resource_id,
        causation_id: String::new(),
        deleted: false,
    });
    event
}
