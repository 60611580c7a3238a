//! Runs one step of one workflow under one fault.

use std::time::Duration;

use gureum_proto::compute::v1::{DescribeInstancesRequest, compute_service_client::ComputeServiceClient};
use gureum_service::clock::monotonic;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{
    Step, Told,
    workflows::{Things, Workflow},
};
use crate::{
    harness::{Deployment, Door, ask, attempt, is_transient, until},
    region::{Shape, region_like},
};

/// A call whose peer is away must say so well before its deadline.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// A region, and an account of its own for each run.
pub struct Stage {
    region: Deployment,
    runs: u32,
}

impl Stage {
    pub fn new() -> Self {
        Self::with(None)
    }

    /// As [`Stage::new`], where time passes only when somebody says so.
    pub fn with_virtual_time() -> Self {
        Self::with(Some(1))
    }

    fn with(seed: Option<u64>) -> Self {
        let mut region = region_like(&Shape { zones: &["a"], quick_boots: true, seed, ..Shape::default() });
        region.expect_complaint("a configured fault strikes");
        Self { region, runs: 0 }
    }

    pub fn finish(self, what: &str, steps: usize) {
        println!("{steps} steps {what}, {} runs", self.runs);
        assert!(steps > 0 && self.runs as usize >= steps);
        self.region.finish();
    }

    /// The first call is not made, the second is made and its answer lost, the third goes well.
    pub async fn failed_once_and_run_twice(&mut self, step: &Step) {
        let run = self.begin(step.workflow).await;
        let before = self.struck(step, "unavailable") + self.struck(step, "lost");
        self.inject(step, &[("unavailable", 1, step.after), ("lost", 1, step.after)]);
        run.insist().await;
        until(format!("{step:?}, failed once and run twice"), async || {
            let struck = self.struck(step, "unavailable") + self.struck(step, "lost") - before;
            if struck == 2 { Ok(()) } else { Err(format!("{struck} of its 2 faults struck")) }
        })
        .await;
        run.reached_and_nothing_left(&self.region).await;
    }

    /// The call is made, and the process dies before it learns the answer.
    pub async fn dies_after_call(&mut self, step: &Step) {
        let run = self.begin(step.workflow).await;
        self.inject(step, &[("exit", 1, step.after)]);
        self.dies(run, step.by, &format!("{step:?}")).await;
    }

    /// The commit is durable, and the process dies before anyone learns of it.
    pub async fn dies_after_commit(&mut self, workflow: Workflow, by: &str, event: &str) {
        let run = self.begin(workflow).await;
        let fault = format!("faults=[{{ commit = \"{event}\", fault = \"exit\" }}]");
        self.restart(by, &[fault]);
        self.dies(run, by, &format!("{workflow:?} after {by}'s commit of {event}")).await;
    }

    async fn dies(&mut self, run: Run, by: &str, what: &str) {
        // Nobody answers any more while it is away, so the caller insists beside us.
        let caller = run.clone();
        let calling = tokio::spawn(async move { caller.insist().await });
        let patience = monotonic() + Duration::from_secs(20);
        while !self.region.has_ended(by) {
            assert!(monotonic() < patience, "{what}: {by} never came to it");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.region.restart(by);
        calling.await.unwrap();
        run.reached_and_nothing_left(&self.region).await;
    }

    /// The peer is away at this call for good: users are told, and nothing leaks. When it is back, all goes on.
    pub async fn fails_for_good(&mut self, step: &Step) {
        let run = self.begin(step.workflow).await;
        let before = self.struck(step, "unavailable");
        self.inject(step, &[("unavailable", 0, step.after)]);
        let begun = monotonic();
        let answer = run.workflow.call(&run.door, &run.things).await;
        let took = begun.elapsed();
        assert!(took < TOLD_WITHIN, "{step:?} kept its caller waiting for {took:?}");
        match (step.told, answer) {
            (Told::Call, Err(status)) => assert_away(step, &status),
            (Told::Instance | Told::Waiting(_) | Told::Reader | Told::Nobody, Ok(())) => {}
            // The service that was restarted for the fault was not yet reached.
            (Told::Instance | Told::Waiting(_) | Told::Reader | Told::Nobody, Err(status)) if is_transient(&status) => run.insist().await,
            (_, answer) => panic!("{step:?} was answered {answer:?}"),
        }
        match step.told {
            Told::Call | Told::Nobody => {}
            Told::Reader => run.reader_is_told(step).await,
            Told::Instance => run.instance_waits(step, &[step.call, &format!("the {} service", step.peer)]).await,
            Told::Waiting(words) => run.instance_waits(step, &[words]).await,
        }
        until(
            format!("{step:?}"),
            async || {
                if self.struck(step, "unavailable") > before { Ok(()) } else { Err("it was never taken".to_owned()) }
            },
        )
        .await;
        self.restart(step.by, &[]);
        run.insist().await;
        run.reached_and_nothing_left(&self.region).await;
    }

    async fn begin(&mut self, workflow: Workflow) -> Run {
        self.runs += 1;
        let door = self.region.door(&format!("{:012}", 200_000_000_000 + u64::from(self.runs)));
        let things = workflow.prepare(&door).await;
        Run { workflow, door, things }
    }

    fn inject(&mut self, step: &Step, faults: &[(&str, u32, u32)]) {
        let mut rules: Vec<String> = faults
            .iter()
            .map(|(fault, times, after)| format!("{{ call = \"{}\", fault = \"{fault}\", times = {times}, after = {after} }}", step.call))
            .collect();
        if step.workflow == Workflow::UndoneLaunch {
            rules.push("{ call = \"CreateInstanceInterfaces\", fault = \"lost\" }".to_owned());
        }
        self.restart(step.by, &[format!("faults=[{}]", rules.join(", "))]);
    }

    fn restart(&mut self, name: &str, settings: &[String]) {
        self.region.kill(name);
        self.region.restart_with(name, settings);
    }

    fn struck(&self, step: &Step, fault: &str) -> usize {
        self.region.logged(step.by, &["a configured fault strikes", &format!("/{}\"", step.call), &format!("fault={fault}")])
    }
}

/// UNAVAILABLE, with the peer's name and a time to try again.
fn assert_away(step: &Step, status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{step:?}: {status}");
    assert!(status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()), "{step:?}: {status}");
    let named = status.message().contains(&format!("the {} service", step.peer));
    assert!(named, "{step:?} does not name its peer: {}", status.message());
}

/// One workflow in one account.
#[derive(Clone)]
struct Run {
    workflow: Workflow,
    door: Door,
    things: Things,
}

impl Run {
    async fn insist(&self) {
        self.workflow.insist(&self.door, &self.things).await;
    }

    async fn reached_and_nothing_left(self, region: &Deployment) {
        let what = format!("the intent of {:?}", self.workflow);
        until(what, || self.workflow.reached(&self.door, &self.things)).await;
        self.workflow.take_down(&self.door, &self.things).await;
        super::workflows::nothing_left(&self.door, region).await;
    }

    /// Whoever reads what the step would bring is told that it is missing, and of which service.
    async fn reader_is_told(&self, step: &Step) {
        until(format!("{step:?} to be told to a reader"), async || {
            match attempt!(self.door, ComputeServiceClient, describe_instances, DescribeInstancesRequest::default()) {
                Err(status) if status.message().contains(&format!("the {} service", step.peer)) => {
                    assert_away(step, &status);
                    Ok(())
                }
                other => Err(format!("{:?}", other.map(|found| found.instances.len()))),
            }
        })
        .await;
    }

    /// The instance says for what it waits.
    async fn instance_waits(&self, step: &Step, words: &[&str]) {
        until(format!("{step:?} to be told by its instance"), async || {
            let found = ask!(self.door, ComputeServiceClient, describe_instances, DescribeInstancesRequest::default()).unwrap();
            let said: Vec<String> = found.instances.into_iter().map(|instance| instance.waiting_reason).collect();
            let tells = said.iter().any(|reason| words.iter().all(|word| reason.contains(word)));
            if tells { Ok(()) } else { Err(format!("{said:?}")) }
        })
        .await;
    }
}
