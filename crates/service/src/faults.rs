//! Faults on purpose: what a region's services make of a call that is lost, or of a process that dies.
//!
//! ```toml
//! [[faults]]
//! call = "CreateInstanceInterfaces"     # or gureum.network.v1.NetworkPeerService/CreateInstanceInterfaces
//! fault = "lost"
//! ```
//!
//! A rule names a call that this service makes to a peer, or the event of a commit of its own, and what befalls it.
//! Whoever tries a distributed deployment finds out by it what each service does when a step fails, and the
//! recovery tests go through every step by it. Without rules nothing is different.
//!
//! | fault | of a call | of a commit |
//! | --- | --- | --- |
//! | `unavailable` | it is not made; UNAVAILABLE is answered | – |
//! | `lost` | it is made; its answer is dropped and UNAVAILABLE answered, so that the step is done twice | – |
//! | `delay` | it is made; its answer comes `delay_ms` later | – |
//! | `exit` | it is made; the process aborts before it learns the answer | it is durable; the process aborts before anyone learns it |
//!
//! Each fault is logged as a warning. Counts begin anew with the process.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gureum_store::{
    Engine, EngineError,
    engine::{Change, Group, Loaded, Snapshot},
};
use serde::{Deserialize, Serialize};

use crate::contract::methods;

/// The longest delay. Longer than any deadline, so more of it would show nothing new.
const LONGEST_DELAY_MS: u64 = 600_000;

/// One rule, as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FaultRule {
    /// A call to a peer: its method's name, alone or after its service's full name and "/".
    #[serde(skip_serializing_if = "String::is_empty")]
    pub call: String,
    /// In place of a call: the event, such as "InstanceCreated", whose commit is the last thing that the process does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub commit: String,
    /// What happens.
    pub fault: FaultKind,
    /// How many times it happens; 0: every time. Default 1.
    pub times: u64,
    /// How many times it does not happen before. Default 0.
    pub after: u64,
    /// For `delay`: for how long, in milliseconds of real time. Default 1,000.
    pub delay_ms: u64,
}

/// What befalls a call or a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultKind {
    /// The call is not made.
    #[default]
    Unavailable,
    /// The call is made and its answer dropped.
    Lost,
    /// The call is made and its answer comes late.
    Delay,
    /// The process aborts once it is done.
    Exit,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "unavailable",
            Self::Lost => "lost",
            Self::Delay => "delay",
            Self::Exit => "exit",
        })
    }
}

impl Default for FaultRule {
    fn default() -> Self {
        Self { call: String::new(), commit: String::new(), fault: FaultKind::default(), times: 1, after: 0, delay_ms: 1_000 }
    }
}

impl FaultRule {
    /// Everything that is wrong with it.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        match (self.call.as_str(), self.commit.as_str()) {
            ("", "") => faults.push("faults: a rule names neither a call nor a commit".to_owned()),
            ("", _) if self.fault == FaultKind::Exit => {}
            ("", commit) => faults.push(format!("faults: after the commit of {commit} only exit can happen, not {}", self.fault)),
            (call, "") if !is_known(call) => {
                faults.push(format!("faults: \"{call}\" is no call of this region: expected such as CreateInstanceInterfaces"));
            }
            (_, "") => {}
            (call, commit) => faults.push(format!("faults: a rule names the call {call} and the commit {commit}; use a rule for each")),
        }
        if self.delay_ms > LONGEST_DELAY_MS {
            faults.push(format!("faults: delay_ms is {}, expected at most {LONGEST_DELAY_MS}", self.delay_ms));
        }
        faults
    }

    fn is_of_call(&self, path: &str) -> bool {
        let path = path.trim_start_matches('/');
        !self.call.is_empty() && (path == self.call || path.rsplit_once('/').is_some_and(|(_, method)| method == self.call))
    }
}

/// Whether there is such a method, by its name or its full name.
fn is_known(call: &str) -> bool {
    methods().keys().any(|full| full == call || full.rsplit_once('/').is_some_and(|(_, method)| method == call))
}

/// The rules of one service and how often each has met its call. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<[Rule]>);

#[derive(Debug)]
struct Rule {
    rule: FaultRule,
    met: AtomicU64,
}

impl Rule {
    /// Counts one more, and answers whether it is one of those that fail.
    fn strikes(&self) -> bool {
        let met = self.met.fetch_add(1, Ordering::Relaxed);
        met >= self.rule.after && (self.rule.times == 0 || met < self.rule.after.saturating_add(self.rule.times))
    }
}

/// A fault that strikes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    pub delay: Duration,
}

impl Faults {
    pub fn new(rules: &[FaultRule]) -> Self {
        Self(rules.iter().map(|rule| Rule { rule: rule.clone(), met: AtomicU64::new(0) }).collect())
    }

    /// What befalls a call of this path. Of several rules the first that strikes.
    pub(crate) fn of_call(&self, path: &str) -> Option<Fault> {
        let struck = self.0.iter().filter(|rule| rule.rule.is_of_call(path)).find(|rule| rule.strikes())?;
        let rule = &struck.rule;
        tracing::warn!(call = path, fault = %rule.fault, "a configured fault strikes");
        Some(Fault { kind: rule.fault, delay: Duration::from_millis(rule.delay_ms) })
    }

    /// Ends the process if a rule says so of what was just made durable.
    fn after_commit(&self, group: &Group) {
        if self.0.iter().all(|rule| rule.rule.commit.is_empty()) {
            return;
        }
        for event in group.changes.iter().filter_map(Change::event) {
            if self.0.iter().filter(|rule| rule.rule.commit == event.kind).any(Rule::strikes) {
                tracing::warn!(commit = event.kind, fault = %FaultKind::Exit, "a configured fault strikes");
                exit();
            }
        }
    }
}

/// Ends the process as a kill would: nothing is drained, nothing is flushed.
pub(crate) fn exit() -> ! {
    std::process::abort()
}

/// An engine whose commits may be the last thing that the process does.
pub(crate) struct FaultyEngine<E> {
    pub engine: E,
    pub faults: Faults,
}

impl<E: Engine> Engine for FaultyEngine<E> {
    fn load(&mut self, entry: &mut dyn FnMut(Change) -> Result<(), EngineError>) -> Result<Loaded, EngineError> {
        self.engine.load(entry)
    }

    fn append(&mut self, group: &Group) -> Result<(), EngineError> {
        self.engine.append(group)?;
        self.faults.after_commit(group);
        Ok(())
    }

    fn wants_checkpoint(&self) -> bool {
        self.engine.wants_checkpoint()
    }

    fn checkpoint(&mut self, snapshot: Box<dyn Snapshot>) -> Result<(), EngineError> {
        self.engine.checkpoint(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(call: &str, fault: FaultKind, times: u64, after: u64) -> FaultRule {
        FaultRule { call: call.into(), fault, times, after, ..FaultRule::default() }
    }

    #[test]
    fn a_rule_strikes_as_often_as_it_says() {
        let path = "/gureum.network.v1.NetworkPeerService/EnsureScope";
        let faults = Faults::new(&[rule("EnsureScope", FaultKind::Unavailable, 2, 1)]);
        let struck: Vec<bool> = (0..5).map(|_| faults.of_call(path).is_some()).collect();
        assert_eq!(struck, [false, true, true, false, false]);
        assert_eq!(faults.of_call("/gureum.network.v1.NetworkPeerService/WatchAll"), None);
        let always = Faults::new(&[rule("gureum.network.v1.NetworkPeerService/EnsureScope", FaultKind::Lost, 0, 0)]);
        assert!((0..100).all(|_| always.of_call(path).is_some_and(|fault| fault.kind == FaultKind::Lost)));
        assert_eq!(Faults::default().of_call(path), None);
    }

    #[test]
    fn every_fault_of_a_rule_is_told() {
        assert_eq!(rule("EnsureScope", FaultKind::Exit, 1, 0).faults(), Vec::<String>::new());
        assert_eq!(rule("EnsureScoop", FaultKind::Exit, 1, 0).faults().len(), 1);
        assert_eq!(rule("gureum.compute.v1.ComputeService/EnsureScope", FaultKind::Exit, 1, 0).faults().len(), 1);
        assert_eq!(FaultRule { delay_ms: u64::MAX, ..FaultRule::default() }.faults().len(), 2);
        let both = FaultRule { commit: "VpcCreated".into(), ..rule("EnsureScope", FaultKind::Exit, 1, 0) };
        assert_eq!(both.faults().len(), 1);
        let commit = FaultRule { commit: "VpcCreated".into(), ..FaultRule::default() };
        assert_eq!(commit.faults().len(), 1);
        assert!(FaultRule { fault: FaultKind::Exit, ..commit }.faults().is_empty());
    }
}
