//! A write in the making: what it reads, and what it stages.

use std::sync::Arc;

use gureum_model::Timestamp;

use crate::{
    engine::{Change, EngineError},
    outbox::{EventDraft, OutboxEvent},
    schema::{Has, Tables},
    store::State,
    table::{Record, Row, Table, encode_row},
    token::{BY_CREATED, BY_EXPIRY, Recall, TokenKey, TokenRecord, expiry_value},
};

/// Tokens that one write clears away at most: more than one write makes, so they cannot pile up,
/// and few enough that no write waits for it.
const TOKENS_SWEPT_PER_WRITE: usize = 4;

/// Puts back one row as it was.
type Undo<T> = Box<dyn FnOnce(&mut State<T>)>;

/// Reads the state, its own staged changes included, and stages more. Nothing of it is seen by anyone
/// else before it is durable; if the write refuses, nothing of it ever happened.
///
/// It changes the writer's state in place and notes how to undo that: a copy for each write would have every
/// write of a group copy anew what the one before it has copied.
pub struct Transaction<'a, T> {
    state: &'a mut State<T>,
    changes: Vec<Change>,
    undo: Vec<Undo<T>>,
    /// Revision and sequence before it.
    before: (u64, u64),
    now: Timestamp,
    failure: Option<EngineError>,
}

impl<'a, T: Tables> Transaction<'a, T> {
    pub(crate) fn new(state: &'a mut State<T>, now: Timestamp) -> Self {
        let before = (state.revision, state.sequence);
        state.revision += 1;
        Self { state, changes: Vec::new(), undo: Vec::new(), before, now, failure: None }
    }

    /// The one time of this write, in domain time; never less than that of any write before it.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The sequence of the last event, this write's own included.
    pub fn sequence(&self) -> u64 {
        self.state.sequence
    }

    /// Writes a row.
    pub fn put<R: Record>(&mut self, record: R)
    where
        T: Has<R>,
    {
        let (key, revision) = (self.stage(&record), self.state.revision);
        let old = self.state.tables.table_mut().put(record, revision);
        self.undo.push(Box::new(move |state| state.tables.table_mut().restore(&key, old)));
    }

    /// Deletes a row and answers it. Client tokens of the call that created it expire in a day.
    pub fn delete<R: Record>(&mut self, key: &str) -> Option<Arc<Row<R>>>
    where
        T: Has<R>,
    {
        let row = self.state.tables.table_mut().remove(key)?;
        let (old, at) = (Some(row.clone()), key.to_owned());
        self.undo.push(Box::new(move |state| state.tables.table_mut().restore(&at, old)));
        self.changes.push(Change { table: R::TABLE.to_owned(), key: key.to_owned(), value: None });
        let created = created_value(R::TABLE, key);
        let tokens: Vec<_> = self.state.tokens.find(BY_CREATED, &created).map(|token| token.after_resource(self.now)).collect();
        for token in tokens {
            self.put_token(token);
        }
        Some(row)
    }

    /// Tells of a change, in the same commit. Answers the event's sequence.
    pub fn emit(&mut self, draft: EventDraft) -> u64 {
        self.state.sequence += 1;
        let event = OutboxEvent {
            sequence: self.state.sequence,
            kind: draft.kind.to_owned(),
            time: self.now,
            scope: draft.scope,
            resource_id: draft.resource_id,
            causation_id: draft.causation_id,
            deleted: draft.deleted,
            payload: draft.payload,
        };
        self.stage(&event);
        self.state.outbox.push(event, self.state.revision);
        self.undo.push(Box::new(|state| state.outbox.pop()));
        self.state.sequence
    }

    /// What is known of a client token used with these parameters.
    pub fn recall(&self, key: &TokenKey, fingerprint: u128) -> Recall {
        self.state.recall(key, fingerprint, self.now)
    }

    /// Remembers the answer of a call for its client token, for a day.
    pub fn remember(&mut self, key: &TokenKey, fingerprint: u128, answer: Vec<u8>) {
        self.put_token(TokenRecord::new(key, fingerprint, answer, None, self.now));
    }

    /// Remembers the answer of a call that created the row `created` of `table`, for as long as that
    /// lives and a day more.
    pub fn remember_created(&mut self, table: &str, created: &str, key: &TokenKey, fingerprint: u128, answer: Vec<u8>) {
        let created = Some(created_value(table, created));
        self.put_token(TokenRecord::new(key, fingerprint, answer, created, self.now));
    }

    /// Keeps what was staged and hands over its changes; nothing is kept if one of them cannot be encoded.
    /// Forgets what is older than its retention, a little with each write.
    pub(crate) fn finish(mut self) -> Result<Vec<Change>, EngineError> {
        if let Some(failure) = self.failure.take() {
            self.roll_back();
            return Err(failure);
        }
        if self.changes.is_empty() {
            self.roll_back();
            return Ok(Vec::new());
        }
        self.sweep_tokens();
        self.state.outbox.trim(self.now);
        Ok(self.changes)
    }

    /// Leaves the state as it was before.
    pub(crate) fn roll_back(self) {
        for undo in self.undo.into_iter().rev() {
            undo(self.state);
        }
        (self.state.revision, self.state.sequence) = self.before;
    }

    fn sweep_tokens(&mut self) {
        let limit = expiry_value(self.now);
        let due = self.state.tokens.find_from(BY_EXPIRY, "").take_while(|(expires, _)| **expires <= *limit);
        let keys: Vec<_> = due.take(TOKENS_SWEPT_PER_WRITE).map(|(_, token)| token.key()).collect();
        for key in keys {
            remove(&mut self.state.tokens, &key, &mut self.changes);
        }
    }

    fn put_token(&mut self, token: TokenRecord) {
        let key = self.stage(&token);
        let old = self.state.tokens.put(token, self.state.revision);
        self.undo.push(Box::new(move |state| state.tokens.restore(&key, old)));
    }

    /// Answers the row's key.
    fn stage<R: Record>(&mut self, record: &R) -> String {
        let key = record.key();
        match encode_row(&key, record, self.state.revision) {
            Ok(value) => self.changes.push(Change { table: R::TABLE.to_owned(), key: key.clone(), value: Some(value) }),
            Err(error) => self.failure = Some(error),
        }
        key
    }
}

fn remove<R: Record>(table: &mut Table<R>, key: &str, changes: &mut Vec<Change>) {
    if table.remove(key).is_some() {
        changes.push(Change { table: R::TABLE.to_owned(), key: key.to_owned(), value: None });
    }
}

fn created_value(table: &str, key: &str) -> String {
    format!("{table}/{key}")
}

/// The tables as this write sees them.
impl<T> std::ops::Deref for Transaction<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.state.tables
    }
}
