//! What a call knows of how far services have committed, so that whoever wrote reads it back.
//!
//! ```text
//!  caller ── gureum-read-after: network=123 ──────────► service ──► its peers: the same, and what was learned
//!  caller ◄─ gureum-committed-sequence: compute=9,network=124 ─┘
//! ```
//!
//! A service puts the sequence of its last event into every answer, with those that its peers answered on
//! the way. A caller who sends them on with a later call sees in every view what it knows to have happened.
//! What a caller claims is never answered back: it can make nobody else wait.

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::{Mutex, MutexGuard},
};

use gureum_model::Refusal;
use http::{HeaderMap, HeaderValue};

/// Metadata of an answer: how far services had committed by then.
pub const COMMITTED_HEADER: &str = "gureum-committed-sequence";
/// Metadata of a call: what its answer must show at least.
pub const READ_AFTER_HEADER: &str = "gureum-read-after";

/// Services that one header names at most: more than a region has kinds of services.
const MAX_SERVICES: usize = 16;

/// The longest name of a service.
const MAX_NAME: usize = 32;

/// Sequences by service, such as `compute=9,network=124`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sequences(BTreeMap<String, u64>);

impl Sequences {
    /// The sequence of a service; 0, which is before its first event, if nothing is known.
    pub fn of(&self, service: &str) -> u64 {
        self.0.get(service).copied().unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes that a service has committed this far. Never goes back.
    pub fn raise(&mut self, service: &str, sequence: u64) {
        match self.0.get_mut(service) {
            Some(known) => *known = sequence.max(*known),
            None => drop(self.0.insert(service.to_owned(), sequence)),
        }
    }

    /// Notes all that another knows.
    pub fn raise_all(&mut self, other: &Self) {
        for (service, sequence) in &other.0 {
            self.raise(service, *sequence);
        }
    }

    /// What a caller demands. Errors: a value that cannot be read.
    pub fn demanded(headers: &HeaderMap) -> Result<Self, Refusal> {
        match headers.get(READ_AFTER_HEADER) {
            None => Ok(Self::default()),
            Some(value) => value.to_str().unwrap_or("not text").parse(),
        }
    }

    /// What a service answered; nothing if it cannot be read.
    pub fn answered(headers: &HeaderMap) -> Self {
        headers.get(COMMITTED_HEADER).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or_default()
    }

    pub fn write(&self, headers: &mut HeaderMap, name: &'static str) {
        if !self.is_empty()
            && let Ok(value) = HeaderValue::from_str(&self.to_string())
        {
            headers.insert(name, value);
        }
    }
}

impl fmt::Display for Sequences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (service, sequence)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{service}={sequence}")?;
        }
        Ok(())
    }
}

impl FromStr for Sequences {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let mut read = Self::default();
        for (place, pair) in text.split(',').enumerate() {
            let (service, sequence) = parse_pair(pair).filter(|_| place < MAX_SERVICES).ok_or_else(|| {
                let text = format!(
                    "\"{pair}\" is no service and sequence: expected at most {MAX_SERVICES} pairs with commas between, such as network=123"
                );
                Refusal::invalid(READ_AFTER_HEADER, text)
            })?;
            read.raise(service, sequence);
        }
        Ok(read)
    }
}

fn parse_pair(pair: &str) -> Option<(&str, u64)> {
    let (service, digits) = pair.trim().split_once('=')?;
    let named = (1..=MAX_NAME).contains(&service.len()) && service.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let counted = digits.bytes().all(|byte| byte.is_ascii_digit());
    (named && counted).then_some((service, digits.parse().ok()?))
}

/// What a call has learned from its peers' answers.
#[derive(Debug, Default)]
pub struct Learned(Mutex<Sequences>);

impl Learned {
    fn lock(&self) -> MutexGuard<'_, Sequences> {
        // Raising one number is whole or not begun, so a poisoned lock is as good as any.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn raise_all(&self, answered: &Sequences) {
        self.lock().raise_all(answered);
    }

    /// A service is here, wherever it was before: its store may have been put back to an earlier state.
    pub fn begin_at(&self, service: &str, sequence: u64) {
        self.lock().0.insert(service.to_owned(), sequence);
    }

    pub fn all(&self) -> Sequences {
        self.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut sequences = Sequences::default();
        sequences.raise("network", 7);
        sequences.raise("compute", u64::MAX);
        sequences.raise("network", 3);
        assert_eq!(sequences.to_string(), "compute=18446744073709551615,network=7");
        assert_eq!(sequences.to_string().parse(), Ok(sequences.clone()));
        assert_eq!((sequences.of("network"), sequences.of("security")), (7, 0));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_value() {
        let many = vec!["a=1"; MAX_SERVICES + 1].join(",");
        for bad in
            ["", "network", "network=", "=1", "network=-1", "network=+1", "Network=1", "network=1,,", "network=18446744073709551616", &many]
        {
            let refusal = bad.parse::<Sequences>().expect_err(bad);
            assert_eq!(refusal.violations.first().map(|violation| violation.field.as_str()), Some(READ_AFTER_HEADER), "{bad}");
        }
        assert_eq!("network=1, compute=2".parse::<Sequences>().map(|read| read.of("compute")), Ok(2));
    }
}
