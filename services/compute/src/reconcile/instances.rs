//! The loop of instances: carries out what [`plan`] says, in batches by node and by scope.
//!
//! A run reads everything anew, does one step for each of its instances, and commits what the steps
//! led to. It may be killed between a step and its commit: the step is then done again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use gureum_compute_domain::{
    image::shipped,
    instance::Instance,
    node::NodeState,
    observe::{Observation, Report, Seen, forgotten_by, node_dead, observe},
    plan::{Plan, Reach, Step, addresses_assigned, forced, gave_up, interfaces_gone, plan, plan_former, stopped, terminated},
};
use gureum_model::{
    Scope, Timestamp,
    id::{InstanceId, NodeId, VolumeId},
};
use gureum_proto::node::v1::{self as node, ApplyOutcome};
use gureum_service::{
    Error,
    reconcile::{Outcome, Reconcile},
};
use gureum_store::{Listed, Record, Row};

use super::{consoles, nodes};
use crate::{
    convert::desired::{VolumeFacts, desired, ended},
    core::Core,
    fleet::reach_of,
    store::{
        ENDED, InstanceRow, NODE_INDEX, PENDING_WORK, Schema, Tx, VolumeRow, WORK_INDEX, put_instance, release_volumes, remove_instance,
        settle_volumes,
    },
};

/// When what a peer refused is tried again, in domain time: it may have become possible.
const REFUSED_AGAIN: Duration = Duration::from_secs(5);

/// Drives instances; the keys are those of their rows.
pub struct Instances {
    core: Arc<Core>,
    /// The next question for what is unsettled is the first one.
    starting: AtomicBool,
}

impl Instances {
    pub fn new(core: Arc<Core>) -> Self {
        Self { core, starting: AtomicBool::new(true) }
    }
}

pub type InstanceRef = Arc<Row<InstanceRow>>;
type Outcomes = Vec<(String, Outcome)>;

/// A step that only writes.
#[derive(Debug, Clone, Copy)]
enum Write {
    GiveUp,
    Force,
    LoseNode(NodeId),
    Finish,
    Remove,
}

/// The steps of a run, by whom they ask.
#[derive(Default)]
struct Steps {
    writes: Vec<(String, Write)>,
    apply: BTreeMap<NodeId, Vec<InstanceRef>>,
    forget: BTreeMap<NodeId, Vec<InstanceRef>>,
    assign: BTreeMap<Scope, Vec<InstanceRef>>,
    release: BTreeMap<Scope, Vec<InstanceRef>>,
    delete: BTreeMap<Scope, Vec<InstanceRef>>,
}

impl Steps {
    fn add(&mut self, key: &str, row: &InstanceRef, step: Step) {
        let scope = || row.scope.clone();
        match step {
            Step::GiveUp => self.writes.push((key.to_owned(), Write::GiveUp)),
            Step::Force => self.writes.push((key.to_owned(), Write::Force)),
            Step::LoseNode { node } => self.writes.push((key.to_owned(), Write::LoseNode(node))),
            Step::FinishTermination => self.writes.push((key.to_owned(), Write::Finish)),
            Step::Apply { node, .. } => self.apply.entry(node).or_default().push(row.clone()),
            Step::Forget { node } => self.forget.entry(node).or_default().push(row.clone()),
            Step::AssignPublicAddresses => self.assign.entry(scope()).or_default().push(row.clone()),
            Step::ReleasePublicAddresses => self.release.entry(scope()).or_default().push(row.clone()),
            Step::DeleteInterfaces => self.delete.entry(scope()).or_default().push(row.clone()),
        }
    }
}

impl Reconcile for Instances {
    type Key = String;

    const NAME: &'static str = "instances";

    fn unsettled(&self) -> Vec<String> {
        let state = self.core.read();
        let now = self.core.clock.now();
        let mut keys: Vec<String> = state.instances.find(WORK_INDEX, PENDING_WORK).map(|row| row.record.key()).collect();
        // Those that are only shown have a timer, once the first run after a start has set it.
        let starting = self.starting.swap(false, Ordering::SeqCst);
        keys.extend(state.instances.find(WORK_INDEX, ENDED).filter(|row| starting || !row.visible(now)).map(|row| row.record.key()));
        for dead in state.nodes.iter().filter(|row| matches!(row.state, NodeState::Dead { .. })) {
            keys.extend(state.instances.find(NODE_INDEX, &dead.id.to_string()).map(|row| row.record.key()));
        }
        keys
    }

    async fn run(&self, keys: Vec<String>) -> Outcomes {
        let mut outcomes = Vec::with_capacity(keys.len());
        let setbacks = self.core.setbacks.begin(Self::NAME, &keys);
        let steps = self.steps(keys, &mut outcomes);
        let Steps { writes, apply, forget, assign, release, delete } = steps;
        let (written, applied, forgotten, assigned, released, deleted) = tokio::join!(
            self.write(writes),
            join_all(apply.into_iter().map(|(node, rows)| self.apply(node, rows))),
            join_all(forget.into_iter().map(|(node, rows)| self.forget(node, rows))),
            join_all(assign.into_iter().map(|(scope, rows)| self.assign(scope, rows))),
            join_all(release.into_iter().map(|(scope, rows)| self.release(scope, rows))),
            join_all(delete.into_iter().map(|(scope, rows)| self.delete(scope, rows))),
        );
        outcomes.extend(written);
        outcomes.extend([applied, forgotten, assigned, released, deleted].into_iter().flatten().flatten());
        self.core.setbacks.end(setbacks);
        merged(outcomes)
    }
}

/// One outcome for each key: the most urgent.
fn merged(outcomes: Outcomes) -> Outcomes {
    let urgency = |outcome: &Outcome| match outcome {
        Outcome::Moved => 3,
        Outcome::Retry { .. } => 2,
        Outcome::Waiting { .. } => 1,
        Outcome::Settled => 0,
    };
    let mut merged: BTreeMap<String, Outcome> = BTreeMap::new();
    for (key, outcome) in outcomes {
        match merged.get(&key) {
            Some(known) if urgency(known) >= urgency(&outcome) => {}
            Some(_) | None => drop(merged.insert(key, outcome)),
        }
    }
    merged.into_iter().collect()
}

fn all(rows: &[InstanceRef], outcome: &Outcome) -> Outcomes {
    rows.iter().map(|row| (row.record.key(), outcome.clone())).collect()
}

impl Instances {
    /// What is due for these instances; those for which nothing is get their outcome at once.
    fn steps(&self, keys: Vec<String>, outcomes: &mut Outcomes) -> Steps {
        let (state, now) = (self.core.read(), self.core.clock.now());
        let mut steps = Steps::default();
        for key in keys {
            let Some(row) = state.instances.get(&key) else { continue };
            if let Some(step) = plan_former(row, |node| reach_of(&state, node)) {
                steps.add(&key, row, step);
            }
            match plan(row, &self.core.fleet.world(&state, row), now) {
                Plan::Do(step) => steps.add(&key, row, step),
                Plan::Wait { until: Some(until), .. } => outcomes.push((key, Outcome::Waiting { until })),
                // Whoever it waits for wakes this loop.
                Plan::Wait { until: None, .. } | Plan::Settled => outcomes.push((key, Outcome::Settled)),
                Plan::Gone => steps.writes.push((key, Write::Remove)),
            }
        }
        steps
    }

    /// What a failed call to network comes to: a peer that is away is tried again soon, one that refuses later.
    fn failed(&self, rows: &[InstanceRef], call: &str, error: &Error) -> Outcomes {
        if error.is_transient() {
            return self.away(rows, call, error);
        }
        tracing::warn!(call, %error, "a step of an instance was refused and will be tried again");
        self.note(rows, call, error);
        all(rows, &Outcome::Waiting { until: self.core.clock.now() + REFUSED_AGAIN })
    }

    /// A peer is away: the same again, and users read of it.
    fn away(&self, rows: &[InstanceRef], call: &str, error: &Error) -> Outcomes {
        self.note(rows, call, error);
        all(rows, &Outcome::Retry { reason: error.to_string() })
    }

    fn note(&self, rows: &[InstanceRef], call: &str, error: &Error) {
        let keys: Vec<String> = rows.iter().map(|row| row.record.key()).collect();
        self.core.setbacks.note(Self::NAME, keys.iter().map(String::as_str), call, error);
    }

    /// Commits, and answers the same outcome for all.
    async fn commit(&self, keys: Vec<String>, write: impl FnOnce(&mut Tx<'_>, &[String]) + Send + 'static) -> Outcomes {
        let of = keys.clone();
        let outcome = match self.core.commit(move |tx| write(tx, &of)).await {
            Ok(()) => Outcome::Moved,
            Err(error) => Outcome::Retry { reason: error.to_string() },
        };
        keys.into_iter().map(|key| (key, outcome.clone())).collect()
    }

    async fn write(&self, writes: Vec<(String, Write)>) -> Outcomes {
        if writes.is_empty() {
            return Vec::new();
        }
        let core = self.core.clone();
        let keys = writes.iter().map(|(key, _)| key.clone()).collect();
        self.commit(keys, move |tx, _| {
            for (key, write) in writes {
                write_one(&core, tx, &key, write);
            }
        })
        .await
    }

    /// Tells a node what its instances shall be.
    async fn apply(&self, node: NodeId, rows: Vec<InstanceRef>) -> Outcomes {
        let core = &self.core;
        let intents = {
            let state = core.read();
            rows.iter().map(|row| desired(row, |id| volume_facts(&state, &row.scope, id))).collect()
        };
        let results = match nodes::apply(core, node, intents).await {
            Ok(results) => results,
            // The node is away: its lease decides what follows.
            Err(error) => return self.away(&rows, "ApplyInstances", &error),
        };
        let mut outcomes = Vec::with_capacity(rows.len());
        let mut reports = Vec::new();
        for (row, result) in rows.iter().zip(&results) {
            match result.outcome() {
                ApplyOutcome::Applied | ApplyOutcome::Unchanged => {
                    core.fleet.note_applied(row.id, node, row.generation);
                    outcomes.push((row.record.key(), Outcome::Moved));
                }
                ApplyOutcome::Gone => reports.push((row.clone(), Seen::Terminated)),
                ApplyOutcome::Superseded => outcomes.push(self.raise(row, result.generation).await),
                ApplyOutcome::Refused | ApplyOutcome::Unspecified => match self.refused(node, row, result).await {
                    Ok(outcome) => outcomes.push((row.record.key(), outcome)),
                    Err(seen) => reports.push((row.clone(), seen)),
                },
            }
        }
        outcomes.extend(self.report(node, reports).await);
        outcomes
    }

    /// What a refusal comes to: an outcome, or what is seen of an instance that this node will never run.
    async fn refused(&self, node: NodeId, row: &InstanceRef, result: &node::ApplyResult) -> Result<Outcome, Seen> {
        match result.reason.as_str() {
            // The node has this generation with contents of before; what differs comes with the next one.
            "IdempotentParameterMismatch" => {
                self.core.fleet.note_applied(row.id, node, row.generation);
                Ok(Outcome::Moved)
            }
            "IncorrectInstanceState" => self.come_back(node, row, result).await,
            _ => {
                tracing::error!(%node, instance = %row.id, reason = result.reason, message = result.message, "a node refused an intent");
                Err(Seen::Failed(result.message.clone()))
            }
        }
    }

    /// An instance once ended on this node and comes back: the node has to forget its end first.
    async fn come_back(&self, node: NodeId, row: &InstanceRef, refused: &node::ApplyResult) -> Result<Outcome, Seen> {
        let core = &self.core;
        let over = node::TerminatedInstance { instance_id: row.id.to_string(), generation: refused.generation };
        let intent = {
            let state = core.read();
            desired(row, |id| volume_facts(&state, &row.scope, id))
        };
        let again = match nodes::forget(core, node, vec![over]).await {
            Ok(_) => nodes::apply(core, node, vec![intent]).await,
            Err(error) => Err(error),
        };
        match again.map(|results| results.first().map(node::ApplyResult::outcome)) {
            Ok(Some(ApplyOutcome::Applied | ApplyOutcome::Unchanged)) => {
                core.fleet.note_applied(row.id, node, row.generation);
                Ok(Outcome::Moved)
            }
            Ok(_) => Err(Seen::Failed(refused.message.clone())),
            Err(error) => {
                self.note(std::slice::from_ref(row), "ApplyInstances", &error);
                Ok(Outcome::Retry { reason: error.to_string() })
            }
        }
    }

    /// Goes beyond a generation that the node has and compute has not: it was told to end what had
    /// been placed elsewhere, and now the instance is placed here.
    async fn raise(&self, row: &InstanceRef, at_node: u64) -> (String, Outcome) {
        let (key, places) = (row.record.key(), self.core.places.clone());
        let outcomes = self.commit(vec![key.clone()], move |tx, keys| {
            for row in keys.iter().filter_map(|key| tx.instances.get(key).cloned()).collect::<Vec<_>>() {
                if row.generation <= at_node {
                    put_instance(tx, &places, Instance { generation: at_node + 1, ..row.record.0.clone() }, "");
                }
            }
        });
        outcomes.await.pop().unwrap_or((key, Outcome::Moved))
    }

    /// Commits what the node's answer tells of instances of the generation that was applied.
    async fn report(&self, node: NodeId, reports: Vec<(InstanceRef, Seen)>) -> Outcomes {
        if reports.is_empty() {
            return Vec::new();
        }
        let places = self.core.places.clone();
        let keys = reports.iter().map(|(row, _)| row.record.key()).collect();
        self.commit(keys, move |tx, _| {
            let now = tx.now();
            for (row, seen) in reports {
                let Some(recorded) = tx.instances.get(&row.record.key()).cloned() else { continue };
                let report = Report {
                    instance: row.id,
                    node,
                    generation: row.generation,
                    live_generation: 0,
                    seen,
                    reboots: None,
                    unreachable: false,
                    runtime: None,
                };
                if let Observation::Change(next) = observe(&recorded, &report, now) {
                    put_instance(tx, &places, *next, "");
                }
            }
        })
        .await
    }

    /// Has a node end and forget what is no longer its own, once nothing is lost by that.
    async fn forget(&self, node: NodeId, rows: Vec<InstanceRef>) -> Outcomes {
        let consoles::Kept { kept, failed } = consoles::keep_last(&self.core, node, rows).await;
        let mut outcomes = Vec::new();
        if let Some((rows, error)) = failed {
            outcomes = self.away(&rows, "GetConsoleOutput", &error);
        }
        if !kept.is_empty() {
            outcomes.extend(self.forget_kept(node, kept).await);
        }
        outcomes
    }

    async fn forget_kept(&self, node: NodeId, rows: Vec<InstanceRef>) -> Outcomes {
        let core = &self.core;
        let over = |row: &InstanceRef| node::TerminatedInstance { instance_id: row.id.to_string(), generation: row.generation };
        let forgotten = match nodes::forget(core, node, rows.iter().map(over).collect()).await {
            Ok(forgotten) => forgotten,
            Err(error) => return self.away(&rows, "ForgetTerminated", &error),
        };
        let is_forgotten = |row: &InstanceRef| forgotten.contains(&row.id.to_string());
        let (gone, kept): (Vec<InstanceRef>, Vec<InstanceRef>) = rows.into_iter().partition(is_forgotten);
        let places = core.places.clone();
        let mut outcomes = Vec::new();
        if !gone.is_empty() {
            let keys = gone.iter().map(|row| row.record.key()).collect();
            let write = move |tx: &mut Tx<'_>, keys: &[String]| change_all(tx, &places, keys, |it, _| forgotten_by(it, node));
            outcomes = self.commit(keys, write).await;
        }
        outcomes.extend(self.end(node, kept).await);
        outcomes
    }

    /// Tells a node to end what it keeps; its report on that wakes this loop again.
    async fn end(&self, node: NodeId, rows: Vec<InstanceRef>) -> Outcomes {
        if rows.is_empty() {
            return Vec::new();
        }
        let first = rows.iter().map(|row| ended(&row.scope, row.id, row.generation)).collect();
        let again: Vec<_> = match nodes::apply(&self.core, node, first).await {
            Ok(results) => {
                let newer = rows.iter().zip(&results).filter(|(_, result)| result.outcome() == ApplyOutcome::Superseded);
                newer.map(|(row, result)| ended(&row.scope, row.id, result.generation + 1)).collect()
            }
            Err(error) => return self.away(&rows, "ApplyInstances", &error),
        };
        match nodes::apply(&self.core, node, again).await {
            Ok(_) => all(&rows, &Outcome::Settled),
            Err(error) => self.away(&rows, "ApplyInstances", &error),
        }
    }

    async fn assign(&self, scope: Scope, rows: Vec<InstanceRef>) -> Outcomes {
        let core = &self.core;
        let seen = match core.in_scope(&scope, core.network.assign(&ids(&rows))).await {
            Ok(seen) => seen,
            Err(error) => return self.failed(&rows, "AssignPublicAddresses", &error),
        };
        let places = core.places.clone();
        let keys: Vec<String> = rows.iter().map(|row| row.record.key()).collect();
        let assign = move |tx: &mut Tx<'_>, keys: &[String]| change_all(tx, &places, keys, |it, _| addresses_assigned(it, seen.of(it.id)));
        let outcomes = self.commit(keys.clone(), assign).await;
        core.read_interfaces_again(&keys);
        outcomes
    }

    async fn release(&self, scope: Scope, rows: Vec<InstanceRef>) -> Outcomes {
        let core = &self.core;
        if let Err(error) = core.in_scope(&scope, core.network.release(&ids(&rows))).await {
            return self.failed(&rows, "ReleasePublicAddresses", &error);
        }
        let places = core.places.clone();
        let keys = rows.iter().map(|row| row.record.key()).collect();
        self.commit(keys, move |tx, keys| change_all(tx, &places, keys, stopped)).await
    }

    /// Network lets go of what the instances had, and they are terminated.
    async fn delete(&self, scope: Scope, rows: Vec<InstanceRef>) -> Outcomes {
        let core = &self.core;
        let instances: Vec<Instance> = rows.iter().map(|row| row.record.0.clone()).collect();
        if let Err(error) = core.in_scope(&scope, core.network.delete(&instances)).await {
            return self.failed(&rows, "DeleteInstanceInterfaces", &error);
        }
        let places = core.places.clone();
        let keys = rows.iter().map(|row| row.record.key()).collect();
        self.commit(keys, move |tx, keys| {
            change_all(tx, &places, keys, |it, _| interfaces_gone(it));
            for key in keys {
                finish(tx, &places, key);
            }
        })
        .await
    }
}

fn ids(rows: &[InstanceRef]) -> Vec<InstanceId> {
    rows.iter().map(|row| row.id).collect()
}

fn volume_facts(tables: &Schema, scope: &Scope, id: VolumeId) -> VolumeFacts {
    tables.volumes.get(&VolumeRow::list_key(scope, id)).map_or(VolumeFacts { size_gib: 1, snapshot_id: String::new() }, |row| VolumeFacts {
        size_gib: row.size_gib,
        // Of what ships no node has a snapshot.
        snapshot_id: row.snapshot_id.filter(|id| shipped::find_snapshot(*id).is_none()).map(|id| id.to_string()).unwrap_or_default(),
    })
}

/// Writes what becomes of each instance that is still there.
fn change_all(tx: &mut Tx<'_>, places: &crate::places::Places, keys: &[String], change: impl Fn(&Instance, Timestamp) -> Instance) {
    let now = tx.now();
    for key in keys {
        let Some(row) = tx.instances.get(key).cloned() else { continue };
        let next = change(&row, now);
        if next != row.record.0 {
            put_instance(tx, places, next.clone(), "");
            settle_volumes(tx, &next);
        }
    }
}

/// Ends an instance whose interfaces are gone, together with its volumes.
fn finish(tx: &mut Tx<'_>, places: &crate::places::Places, key: &str) {
    let Some(row) = tx.instances.get(key).cloned() else { return };
    if let Some(termination) = terminated(&row, tx.now()) {
        release_volumes(tx, &row);
        put_instance(tx, places, termination.next, "");
    }
}

fn write_one(core: &Core, tx: &mut Tx<'_>, key: &str, write: Write) {
    let Some(row) = tx.instances.get(key).cloned() else { return };
    let now = tx.now();
    let next = match write {
        Write::GiveUp => gave_up(&row, now),
        Write::Force => forced(&row),
        // It may have registered again since.
        Write::LoseNode(node) if reach_of(tx, node) != Reach::Dead => return,
        Write::LoseNode(node) => node_dead(&row, node, now),
        Write::Finish => return finish(tx, &core.places, key),
        Write::Remove => {
            if !row.visible(now) {
                core.fleet.forget_applied(row.id);
                remove_instance(tx, &core.places, key);
            }
            return;
        }
    };
    if next != row.record.0 {
        put_instance(tx, &core.places, next, "");
    }
}
