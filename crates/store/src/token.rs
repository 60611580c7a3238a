//! Client tokens: the same token and parameters give the same answer, with others it is refused.
//!
//! The record of a token is written in the commit of the change that it names, so a change happens
//! once however often its call is repeated, and whenever the process dies.

use std::time::Duration;

use gureum_model::{Scope, Timestamp};
use serde::{Deserialize, Serialize};

use crate::table::{IndexSink, Record};

/// How long a token of a call that creates nothing is remembered, and one of a call that creates
/// something after that is gone, in domain time. As EC2 documents for its own tokens.
pub const TOKEN_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// A token in its scope and kind of call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKey(String);

impl TokenKey {
    /// `call` is the request's full name, so that one token may serve calls of different kinds.
    pub fn new(scope: &Scope, call: &str, token: &str) -> Self {
        Self(format!("{scope}|{call}|{token}"))
    }
}

/// A fingerprint of a call's parameters.
pub fn fingerprint(parameters: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(parameters)
}

/// What is remembered of a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    key: String,
    pub fingerprint: String,
    #[serde(with = "serde_bytes")]
    pub answer: Vec<u8>,
    /// None while the resource that the call created lives.
    expires: Option<Timestamp>,
    /// The table and key of what the call created.
    created: Option<String>,
}

pub(crate) const BY_EXPIRY: &str = "expires";
pub(crate) const BY_CREATED: &str = "created";

impl Record for TokenRecord {
    const TABLE: &'static str = "client_token";

    fn key(&self) -> String {
        self.key.clone()
    }

    fn index(&self, add: IndexSink<'_>) {
        if let Some(expires) = self.expires {
            add(BY_EXPIRY, &expiry_value(expires));
        }
        if let Some(created) = &self.created {
            add(BY_CREATED, &created);
        }
    }
}

impl TokenRecord {
    pub fn new(key: &TokenKey, fingerprint: u128, answer: Vec<u8>, created: Option<String>, now: Timestamp) -> Self {
        let expires = created.is_none().then(|| now + TOKEN_RETENTION);
        Self { key: key.0.clone(), fingerprint: format!("{fingerprint:032x}"), answer, expires, created }
    }

    /// The same, once what it created is gone.
    pub fn after_resource(&self, now: Timestamp) -> Self {
        Self { expires: Some(now + TOKEN_RETENTION), created: None, ..self.clone() }
    }

    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// How expiry times are ordered in the index.
pub(crate) fn expiry_value(time: Timestamp) -> String {
    format!("{:020}", time.as_micros())
}

impl TokenKey {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the store knows of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recall {
    /// Nothing: go ahead.
    New,
    /// The call was made before; this was its answer.
    Answered(Vec<u8>),
    /// The token was used with other parameters.
    Mismatch,
}
