//! Token buckets: how many calls an account may make.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use gureum_model::AccountId;

/// Accounts remembered at once. A full bucket says nothing, so beyond this the full ones are forgotten.
const MAX_BUCKETS: usize = 10_000;

/// A bucket that fills at a rate and lets a burst through.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// Takes one token, or says how long until there is one.
    fn take(&mut self, rate: f64, burst: f64, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * rate).min(burst);
        self.at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::try_from_secs_f64((1.0 - self.tokens) / rate).unwrap_or(Duration::MAX))
    }
}

/// One bucket an account.
#[derive(Debug)]
pub struct Limits {
    rate: f64,
    burst: f64,
    buckets: Mutex<HashMap<AccountId, Bucket>>,
}

impl Limits {
    /// `rate` calls a second in the long run, `burst` at once.
    pub fn new(rate: f64, burst: f64) -> Self {
        Self { rate, burst, buckets: Mutex::default() }
    }

    /// Counts a call, or says how long to wait before the next.
    pub fn take(&self, account: AccountId, now: Instant) -> Result<(), Duration> {
        // A bucket is changed in one step, so a poisoned lock is as good as any.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&account) {
            let (rate, burst) = (self.rate, self.burst);
            buckets.retain(|_, bucket| bucket.tokens + now.saturating_duration_since(bucket.at).as_secs_f64() * rate < burst);
        }
        buckets.entry(account).or_insert(Bucket { tokens: self.burst, at: now }).take(self.rate, self.burst, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However calls are spread, no stretch of time lets more through than rate and burst allow,
        /// and whoever waits as long as told gets through.
        #[test]
        fn never_more_than_rate_and_burst(pauses in prop::collection::vec(0u64..300, 1..200)) {
            let start = gureum_service::clock::monotonic();
            let limits = Limits::new(10.0, 5.0);
            let (mut passed, mut at) = (0u32, Duration::ZERO);
            for pause in pauses {
                at += Duration::from_millis(pause);
                match limits.take(AccountId::DEFAULT, start + at) {
                    Ok(()) => passed += 1,
                    Err(wait) => {
                        at += wait + Duration::from_micros(1);
                        prop_assert!(limits.take(AccountId::DEFAULT, start + at).is_ok());
                        passed += 1;
                    }
                }
                prop_assert!(f64::from(passed) <= 5.0 + at.as_secs_f64() * 10.0 + 0.001);
            }
        }
    }

    #[test]
    fn accounts_do_not_share() {
        let (limits, now) = (Limits::new(1.0, 1.0), gureum_service::clock::monotonic());
        let other = AccountId::from_number(7).unwrap();
        assert!(limits.take(AccountId::DEFAULT, now).is_ok());
        assert!(limits.take(AccountId::DEFAULT, now).is_err());
        assert!(limits.take(other, now).is_ok());
    }
}
