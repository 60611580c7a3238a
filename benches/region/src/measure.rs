//! Callers that call without pause, and what is made of their times.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::Failure;

/// The value that so many of a hundred do not exceed.
pub fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

pub fn milliseconds(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1e3;
    if milliseconds < 10.0 { format!("{milliseconds:.2} ms") } else { format!("{milliseconds:.0} ms") }
}

/// What one round measured.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

/// Has so many callers make one call after another for so long. `call` is given the caller and the call's number.
pub async fn drive<C, F>(callers: usize, during: Duration, call: C) -> Result<Round, Failure>
where
    C: Fn(usize, usize) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), Failure>> + Send,
{
    let (call, begun) = (Arc::new(call), Instant::now());
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let call = call.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            while begun.elapsed() < during {
                let sent = Instant::now();
                call(caller, times.len()).await?;
                times.push(sent.elapsed());
            }
            Ok::<_, Failure>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    let per_second = times.len() as f64 / begun.elapsed().as_secs_f64();
    Ok(Round { per_second, p50: percentile(&mut times, 50), p99: percentile(&mut times, 99) })
}

/// The rounds of one subject.
#[derive(Debug, Default)]
pub struct Rounds(pub Vec<Round>);

impl Rounds {
    /// Calls a second: the median of the rounds.
    pub fn per_second(&self) -> f64 {
        median(self.0.iter().map(|round| round.per_second).collect())
    }

    /// A row of a table: median of the rates and their spread, medians of p50 and p99.
    pub fn row(&self, what: &str) -> String {
        let rates: Vec<f64> = self.0.iter().map(|round| round.per_second).collect();
        let (low, high) = spread(&rates);
        let time = |of: fn(&Round) -> Duration| {
            milliseconds(Duration::from_secs_f64(median(self.0.iter().map(|round| of(round).as_secs_f64()).collect())))
        };
        format!("| {what} | {:.0} | {low:.0} to {high:.0} | {} | {} |", median(rates), time(|round| round.p50), time(|round| round.p99))
    }
}

pub const ROUNDS_HEAD: &str = "| what | a second | rounds | p50 | p99 |\n| --- | --- | --- | --- | --- |";

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

pub fn spread(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, 0.0), |(low, high), value| (low.min(*value), high.max(*value)))
}
