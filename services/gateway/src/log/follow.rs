//! Follows one service's outbox into the log, from where it was left.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use futures::StreamExt;
use gureum_model::{Scope, id::NodeId};
use gureum_proto::{EventMessage, WatchMessage, WatchPart};
use gureum_service::Error;
use gureum_store::{EventDraft, Store, Transaction, WriteError};
use prost::Message;
use tonic::{Code, Status, Streaming};

use super::{Cursor, Describer, Schema};
use crate::door::Door;

/// Events that become durable together at most.
const BATCH: usize = 512;

/// Pause before a service that is away is followed again, in real time. It has no effect on order or
/// completeness, only on how late an event is seen after a restart.
const RETRY: Duration = Duration::from_millis(100);

/// One service to follow.
pub struct Source {
    pub service: &'static str,
    pub store: Store<Schema>,
    pub describer: Describer,
    /// Whose answers show what services have committed.
    pub door: Arc<Door>,
}

/// Follows until the store stops or the future is dropped. `watch` opens the service's stream of all
/// scopes after a sequence, or from a snapshot.
pub async fn follow<M, F, W>(source: Source, watch: W)
where
    M: WatchMessage,
    F: Future<Output = Result<Streaming<M>, Status>>,
    W: Fn(Option<u64>) -> F,
{
    let mut after = Some(source.store.read().cursors.get(source.service).map_or(0, |cursor| cursor.sequence));
    loop {
        let ended = match watch(after).await {
            Ok(stream) => source.take(stream, after.is_none()).await,
            Err(status) => Err(Stop::Stream(Box::new(status))),
        };
        let known = source.store.read().cursors.get(source.service).map_or(0, |cursor| cursor.sequence);
        after = match ended {
            Ok(()) => Some(known),
            Err(Stop::Store) => return,
            // The gateway was away for longer than outboxes keep; or the service's store was put back to an earlier state, and
            // what happens there now has sequences that are in the log already, as those of other events.
            Err(Stop::Stream(status)) if status.code() == Code::OutOfRange => {
                tracing::warn!(service = source.service, after = known, "the log goes on with a snapshot: {}", status.message());
                None
            }
            Err(Stop::Stream(status)) => {
                tracing::debug!(service = source.service, %status, "following is interrupted");
                Some(known)
            }
        };
        tokio::time::sleep(RETRY).await;
    }
}

enum Stop {
    Store,
    Stream(Box<Status>),
}

impl Source {
    /// Logs what a stream tells. One that begins with a snapshot says by its end where the service is.
    async fn take<M: WatchMessage>(&self, stream: Streaming<M>, mut in_snapshot: bool) -> Result<(), Stop> {
        let mut batches = stream.ready_chunks(BATCH);
        while let Some(batch) = batches.next().await {
            let (mut events, mut reached, mut broken) = (Vec::new(), 0, None);
            for message in batch {
                match message.map(M::into_parts) {
                    Ok(WatchPart::Event(event)) => {
                        let metadata = event.metadata().cloned().unwrap_or_default();
                        // A snapshot's items tell what is, not what happened; they have no id.
                        if !metadata.id.is_empty() {
                            // Nodes are the operator's and belong to no account, so nobody's log tells of them.
                            if metadata.resource_id.parse::<NodeId>().is_ok() {
                                reached = reached.max(metadata.sequence);
                                continue;
                            }
                            reached = reached.max(metadata.sequence);
                            events.push((metadata.sequence, self.draft(&*event)));
                        }
                    }
                    Ok(WatchPart::CaughtUp(sequence)) if in_snapshot => {
                        in_snapshot = false;
                        self.begin_at(sequence).await?;
                    }
                    Ok(WatchPart::CaughtUp(sequence)) => reached = reached.max(sequence),
                    Ok(WatchPart::Unknown) => {}
                    Err(status) => broken = Some(status),
                }
            }
            if reached > 0 {
                self.commit(events, reached).await?;
            }
            if let Some(status) = broken {
                return Err(Stop::Stream(Box::new(status)));
            }
        }
        Ok(())
    }

    /// The service is here, wherever it was before.
    async fn begin_at(&self, sequence: u64) -> Result<(), Stop> {
        let service = self.service;
        let write = move |transaction: &mut Transaction<'_, Schema>| -> Result<(), Infallible> {
            transaction.put(Cursor { service: service.to_owned(), sequence });
            Ok(())
        };
        let written = self.written(self.store.write(write).await);
        self.door.begin_at(service, sequence);
        written
    }

    fn draft<E: EventMessage>(&self, event: &E) -> EventDraft {
        let described = self.describer.describe(self.service, event);
        let scope = Scope::parse(&described.account_id, &described.region).unwrap_or_default();
        EventDraft {
            kind: self.service,
            scope,
            resource_id: described.subject.clone(),
            causation_id: described.causation_id.clone(),
            deleted: described.deleted,
            payload: described.encode_to_vec(),
        }
    }

    /// Logs events and remembers how far this service is: one commit. What is logged already is passed over.
    async fn commit(&self, events: Vec<(u64, EventDraft)>, reached: u64) -> Result<(), Stop> {
        let service = self.service;
        let write = move |transaction: &mut Transaction<'_, Schema>| -> Result<(), Infallible> {
            let known = transaction.cursors.get(service).map_or(0, |cursor| cursor.sequence);
            for (_, draft) in events.into_iter().filter(|(sequence, _)| *sequence > known) {
                transaction.emit(draft);
            }
            if reached > known {
                transaction.put(Cursor { service: service.to_owned(), sequence: reached });
            }
            Ok(())
        };
        self.written(self.store.write(write).await)
    }

    fn written(&self, written: Result<(), WriteError<Infallible>>) -> Result<(), Stop> {
        match written {
            Ok(()) => Ok(()),
            Err(WriteError::Refused(never)) => match never {},
            Err(WriteError::Store(error)) => {
                tracing::error!(service = self.service, error = %Error::from(error), "the event log cannot be written");
                Err(Stop::Store)
            }
        }
    }
}
