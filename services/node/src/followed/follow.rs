//! Follows a service: everything as it is, then every change.

use std::time::Duration;

use gureum_proto::{EventMessage, WatchMessage, WatchPart};
use tonic::{Code, Status, Streaming};

use super::{Known, Table};

/// Pause before a service is followed again, in real time. Until then what it told last stands.
const RETRY: Duration = Duration::from_millis(100);

/// Follows a service until it is dropped. `watch` begins after a sequence, or with a snapshot.
pub async fn follow<T, M, F>(known: Known<T>, watch: impl Fn(Option<u64>) -> F)
where
    T: Table<Event = M::Event>,
    M: WatchMessage,
    F: Future<Output = Result<Streaming<M>, Status>>,
{
    let mut after = None;
    loop {
        let followed = match watch(after).await {
            Ok(stream) => take(stream, &known, &mut after).await,
            Err(status) => Err(status),
        };
        if let Err(status) = followed {
            tracing::debug!(%status, "following a service is interrupted");
            if status.code() == Code::OutOfRange {
                // What happened meanwhile is no longer told, or happened in a past that was taken back.
                after = None;
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn take<T, M>(mut stream: Streaming<M>, known: &Known<T>, after: &mut Option<u64>) -> Result<(), Status>
where
    T: Table<Event = M::Event>,
    M: WatchMessage,
{
    // Half a snapshot would be things without what they consist of, so it counts when it is whole.
    let mut snapshot = after.is_none().then(T::default);
    while let Some(message) = stream.message().await? {
        match message.into_parts() {
            WatchPart::Event(event) => {
                let sequence = event.metadata().map(|metadata| metadata.sequence);
                match (&mut snapshot, T::change(*event)) {
                    (Some(table), Some((scope, change))) => drop(table.apply(&scope, change)),
                    (None, Some((scope, change))) => known.apply(&scope, change),
                    (_, None) => {}
                }
                if snapshot.is_none() {
                    *after = sequence.or(*after);
                }
            }
            WatchPart::CaughtUp(sequence) => {
                if let Some(table) = snapshot.take() {
                    known.replace(table);
                }
                *after = Some(sequence);
            }
            WatchPart::Unknown => {}
        }
    }
    Ok(())
}
