//! How far a peer's outbox is followed and applied, and waiting for it.
//!
//! A view of a peer's data catches up to what its reader knows of that peer before it answers. Whoever
//! follows says how far the stream is, and which rows are not yet as it told; whoever reads waits for both.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use gureum_model::{Refusal, RefusalKind, Scope};
use tokio::sync::watch;

use crate::{clock::monotonic, context};

/// The longest wait for a follower. It is milliseconds behind while the peer answers; one that is behind
/// for longer has lost its peer, and the caller had better try again.
pub const CATCH_UP_WITHIN: Duration = Duration::from_secs(2);

/// Time kept back from the caller's deadline, so that the refusal still arrives.
const MARGIN: Duration = Duration::from_millis(50);

/// The following of one peer. Clones share it.
#[derive(Clone)]
pub struct Followed(Arc<Inner>);

struct Inner {
    peer: &'static str,
    progress: Mutex<Progress>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Progress {
    /// Everything up to this sequence was read, and its rows are open or applied.
    reached: u64,
    /// Rows that are not yet as the peer told.
    open: BTreeMap<String, Open>,
}

/// What of a row is not yet applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Open {
    /// Nothing from this sequence on.
    from: u64,
    /// The last sequence that told something.
    to: u64,
}

/// Rows that a run is about to apply, with the sequences that it will have applied.
#[derive(Debug, Default)]
pub struct Applying(Vec<(String, u64)>);

impl Followed {
    pub fn new(peer: &'static str) -> Self {
        Self(Arc::new(Inner { peer, progress: Mutex::default(), changed: watch::Sender::new(()) }))
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Each change is one insert or remove, so a poisoned lock is as good as any.
        self.0.progress.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Notes that rows, named by their keys, are not yet as an event told: before their loop is woken.
    pub fn open<'a>(&self, keys: impl IntoIterator<Item = &'a String>, sequence: u64) {
        let mut progress = self.progress();
        for key in keys {
            let open = progress.open.entry(key.clone()).or_insert(Open { from: sequence, to: sequence });
            *open = Open { from: sequence.min(open.from), to: sequence.max(open.to) };
        }
    }

    /// Whether a row is not yet as the peer told.
    pub fn is_open(&self, key: &str) -> bool {
        self.progress().open.contains_key(key)
    }

    /// The rows that are not yet as the peer told: to be looked at again when a peer that was away is back.
    pub fn open_keys(&self) -> Vec<String> {
        self.progress().open.keys().cloned().collect()
    }

    /// How far the peer was followed, with its name.
    pub fn place(&self) -> (String, u64) {
        (self.0.peer.to_owned(), self.progress().reached)
    }

    /// Notes that everything up to here was read and opened.
    pub fn reached(&self, sequence: u64) {
        let mut progress = self.progress();
        progress.reached = sequence.max(progress.reached);
        drop(progress);
        self.0.changed.send_replace(());
    }

    /// Notes that a snapshot was read and opened. A peer whose store was put back to an earlier state begins again with lower
    /// sequences: what was reached before is of a past that there no longer is.
    pub fn began(&self, sequence: u64) {
        let mut progress = self.progress();
        progress.reached = sequence;
        for open in progress.open.values_mut() {
            // Whoever waits for one of them waits for a sequence that may come again.
            *open = Open { from: open.from.min(sequence), to: open.to.min(sequence) };
        }
        drop(progress);
        self.0.changed.send_replace(());
    }

    /// What a run applies that now asks the peer about these rows.
    pub fn begin<'a>(&self, keys: impl IntoIterator<Item = &'a String>) -> Applying {
        let progress = self.progress();
        let open = keys.into_iter().filter_map(|key| progress.open.get(key).map(|open| (key.clone(), open.to)));
        Applying(open.collect())
    }

    /// Notes that what a run asked for is committed. Rows of which the peer told more meanwhile stay open for that.
    pub fn applied(&self, applying: Applying) {
        let mut progress = self.progress();
        for (key, to) in applying.0 {
            match progress.open.get_mut(&key) {
                Some(open) if open.to > to => open.from = to + 1,
                Some(_) | None => drop(progress.open.remove(&key)),
            }
        }
        drop(progress);
        self.0.changed.send_replace(());
    }

    fn is_behind(&self, scope: &Scope, wanted: u64) -> bool {
        let progress = self.progress();
        let prefix = format!("{scope}/");
        let of_scope = progress.open.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        progress.reached < wanted || of_scope.into_iter().any(|(_, open)| open.from <= wanted)
    }

    /// Waits until what the current call must show of this peer is there. Costs nothing if it is.
    ///
    /// # Errors
    /// UNAVAILABLE after [`CATCH_UP_WITHIN`], or shortly before the call's deadline.
    pub async fn catch_up(&self) -> Result<(), Refusal> {
        let Some(call) = context::current() else { return Ok(()) };
        let wanted = call.read_after().of(self.0.peer);
        if wanted == 0 {
            return Ok(());
        }
        // Subscribed before it is looked at, so that no change is missed.
        let mut changed = self.0.changed.subscribe();
        let until = (monotonic() + CATCH_UP_WITHIN).min(call.deadline.checked_sub(MARGIN).unwrap_or(call.deadline));
        while self.is_behind(&call.scope, wanted) {
            // The sender lives as long as self.
            if tokio::time::timeout_at(until.into(), changed.changed()).await.is_err() {
                return Err(self.behind(wanted));
            }
        }
        Ok(())
    }

    fn behind(&self, wanted: u64) -> Refusal {
        let (peer, reached) = (self.0.peer, self.progress().reached);
        let text = format!("what is shown of the {peer} service is not up to its event {wanted}: it was followed to {reached}; try again");
        Refusal::new(RefusalKind::Unavailable, "ServiceUnavailable", text)
    }
}

#[cfg(test)]
mod tests {
    use gureum_model::IdSource;

    use super::*;
    use crate::{RequestContext, sequences::Sequences};

    fn call(wanted: u64, deadline: Duration) -> RequestContext {
        let mut demanded = Sequences::default();
        demanded.raise("network", wanted);
        RequestContext::background(Scope::default(), &IdSource::seeded(1), deadline).reading_after(&demanded)
    }

    fn key(scope: &str) -> String {
        format!("{scope}/i-1")
    }

    #[tokio::test]
    async fn a_reader_waits_for_the_stream_and_for_its_rows() {
        let followed = Followed::new("network");
        let mine = key("000000000000/us-east-1");
        let reader = tokio::spawn({
            let followed = followed.clone();
            context::with(call(7, CATCH_UP_WITHIN), async move { followed.catch_up().await })
        });
        followed.open([&mine, &key("000000000001/us-east-1")], 7);
        followed.reached(9);
        let scope = Scope::default();
        // What came later does not hide what came first.
        followed.open([&mine], 8);
        assert!(followed.is_behind(&scope, 7));
        let applying = followed.begin([&mine]);
        followed.open([&mine], 9);
        followed.applied(applying);
        assert!(followed.is_open(&mine), "the peer told more meanwhile");
        assert!(!followed.is_behind(&scope, 8) && followed.is_behind(&scope, 9));
        assert_eq!(reader.await.map_err(|error| error.to_string()), Ok(Ok(())), "another scope's row is no matter");
    }

    #[tokio::test]
    async fn a_peer_that_was_put_back_is_followed_from_where_it_is() {
        let followed = Followed::new("network");
        let mine = key("000000000000/us-east-1");
        followed.reached(90);
        followed.open([&mine], 90);
        followed.began(40);
        let scope = Scope::default();
        assert!(followed.is_behind(&scope, 41), "an event 41 that is yet to come is not the one of before");
        assert!(followed.is_behind(&scope, 40), "the row is not as the snapshot told");
        followed.applied(followed.begin([&mine]));
        assert!(!followed.is_behind(&scope, 40));
        followed.reached(41);
        assert!(!followed.is_behind(&scope, 41));
    }

    #[tokio::test]
    async fn a_wait_ends_before_the_callers_deadline() {
        let followed = Followed::new("network");
        followed.reached(6);
        let begun = monotonic();
        let refused = context::with(call(7, Duration::from_millis(120)), followed.catch_up()).await;
        assert!(begun.elapsed() < Duration::from_millis(500));
        let refusal = refused.expect_err("it is behind");
        assert_eq!(refusal.kind, RefusalKind::Unavailable);
        assert!(refusal.message.contains("network service") && refusal.message.contains('7'), "{refusal}");
        assert_eq!(context::with(call(6, CATCH_UP_WITHIN), followed.catch_up()).await, Ok(()));
    }
}
