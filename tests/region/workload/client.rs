//! One client: it calls, insists, sometimes repeats, and keeps count.

use std::{
    collections::BTreeMap,
    ops::AddAssign,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tonic::Status;
use tonic_types::StatusExt;

use super::{KINDS, Known};
use crate::harness::{Chance, Door};

/// One of so many calls is repeated with the same token, and must get the same answer.
const REPEATED: u64 = 6;

/// A client with work of its own.
pub struct Client {
    pub door: Door,
    pub number: u64,
    pub image: String,
    pub chance: Chance,
    pub known: Known,
    pub counts: Counts,
}

/// What clients have done.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub calls: u64,
    pub repeats: u64,
    /// By reason.
    pub refused: BTreeMap<String, u64>,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.repeats += other.repeats;
        for (reason, count) in other.refused {
            *self.refused.entry(reason).or_default() += count;
        }
    }
}

impl Client {
    pub fn new(door: Door, number: u64, seed: u64, image: String) -> Self {
        Self { door, number, image, chance: Chance::new(seed ^ (number << 32)), known: Known::default(), counts: Counts::default() }
    }

    /// Works until told to stop.
    pub async fn work(mut self, done: Arc<AtomicBool>) -> Self {
        while !done.load(Ordering::Relaxed) {
            let mut pick = self.chance.below(KINDS.iter().map(|kind| kind.weight).sum());
            for kind in KINDS {
                if pick < kind.weight {
                    (kind.act)(&mut self).await;
                    break;
                }
                pick -= kind.weight;
            }
        }
        self
    }

    /// A token that no other call has.
    pub fn token(&mut self) -> String {
        self.counts.calls += 1;
        format!("{}-{}", self.number, self.counts.calls)
    }

    /// A name that no other resource has.
    pub fn name(&self, what: &str) -> String {
        format!("{what}-{}-{}", self.number, self.counts.calls)
    }

    /// Whether this call is made once more.
    pub fn repeats(&mut self) -> bool {
        let repeats = self.chance.below(REPEATED) == 0;
        self.counts.repeats += u64::from(repeats);
        repeats
    }

    /// One of several, if there are any.
    pub fn pick<T: Clone>(&self, some: impl IntoIterator<Item = T>) -> Option<T> {
        let some: Vec<T> = some.into_iter().collect();
        if some.is_empty() { None } else { Some(some[self.chance.below(some.len() as u64) as usize].clone()) }
    }

    /// Notes a refusal, which must be one of those that may be.
    pub fn refused(&mut self, what: &str, status: &Status, allowed: &[&str]) {
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        assert!(allowed.contains(&reason.as_str()), "{what} was refused for {reason}: {status}");
        *self.counts.refused.entry(reason).or_default() += 1;
    }
}

/// Makes a call with a token of its own until the answer is definite; a repeat must be answered alike.
macro_rules! change {
    ($client:expr, $service:ident, $method:ident, $request:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        let request = $request { $($field: $value,)* client_token: $client.token(), ..Default::default() };
        let answer = $crate::harness::ask!($client.door, $service, $method, request.clone());
        if answer.is_ok() && $client.repeats() {
            let again = $crate::harness::ask!($client.door, $service, $method, request);
            assert_eq!(format!("{again:?}"), format!("{answer:?}"), "the same token was answered otherwise");
        }
        answer
    }};
}

pub(super) use change;
