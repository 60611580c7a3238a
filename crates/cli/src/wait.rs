//! Waiting until resources are what they shall be: woken by the region's events, with a look now and then
//! in case one was missed.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use futures::StreamExt;
use gureum_proto::{
    compute::v1::{
        DescribeImagesRequest, DescribeInstancesRequest, DescribeSnapshotsRequest, Image, ImageState, Instance, InstanceState, Snapshot,
        SnapshotState,
    },
    gateway::v1::{EventFilter, SubscribeRequest, SubscribeResponse},
    network::v1::{Address, AddressAssociationState, DescribeAddressesRequest},
};
use tonic::Streaming;

use crate::{
    client::Client,
    failure::Failure,
    output::Output,
    pages,
    table::{Show, word},
    time::parse_span,
};

/// How often to look although no event came: seldom enough to be no load.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(2);

/// Whether and how long a command waits.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// Wait until it is done
    #[arg(long)]
    pub wait: bool,
    /// Give up waiting after this time; what was asked for goes on
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_span, requires = "wait")]
    pub timeout: Duration,
}

/// How one resource stands to what is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Reached,
    /// Not yet; for what it waits, in words, if that is known.
    Passing(String),
    /// It will not get there any more; in words.
    Failed(String),
}

/// What came of a wait: the resources as they were last seen, also if it failed.
#[derive(Debug)]
pub struct Waited<T> {
    pub items: Vec<T>,
    pub outcome: Result<(), Failure>,
}

/// Waits until instances are in a state.
pub async fn for_instances(client: &Client, out: &Output, ids: &[String], goal: InstanceState, limit: Duration) -> Waited<Instance> {
    let look = async |ids: Vec<String>| {
        let request = DescribeInstancesRequest { instance_ids: ids, ..Default::default() };
        pages!(client.compute().describe_instances(request).instances, None)
    };
    let goal_word = word(goal.as_str_name(), "INSTANCE_STATE_");
    Wait { client, out, goal: &goal_word, limit }.run(ids, look, |instance| judge_instance(instance, goal)).await
}

fn judge_instance(instance: &Instance, goal: InstanceState) -> Verdict {
    let state = instance.state();
    let lost = match state {
        state if state == goal => return Verdict::Reached,
        InstanceState::Unspecified | InstanceState::Pending | InstanceState::Running | InstanceState::Stopping => false,
        InstanceState::Stopped => goal == InstanceState::Running,
        InstanceState::ShuttingDown => goal != InstanceState::Terminated,
        InstanceState::Terminated => true,
    };
    if !lost {
        return Verdict::Passing(instance.waiting_reason.clone());
    }
    let reason = instance.state_reason.as_ref().map_or("", |reason| &reason.message);
    let reason = if reason.is_empty() { instance.state_transition_reason.as_str() } else { reason };
    Verdict::Failed(because(&format!("{} is {}", instance.instance_id, word(state.as_str_name(), "INSTANCE_STATE_")), reason))
}

/// Waits until an image can be launched.
pub async fn for_image(client: &Client, out: &Output, id: &str, limit: Duration) -> Waited<Image> {
    let look = async |ids: Vec<String>| {
        let request = DescribeImagesRequest { image_ids: ids, include_deprecated: true, ..Default::default() };
        pages!(client.compute().describe_images(request).images, None)
    };
    let judge = |image: &Image| match image.state() {
        ImageState::Available => Verdict::Reached,
        ImageState::Unspecified | ImageState::Pending => Verdict::Passing(String::new()),
        state @ (ImageState::Failed | ImageState::Deregistered) => {
            let reason = image.state_reason.as_ref().map_or("", |reason| &reason.message);
            Verdict::Failed(because(&format!("{} is {}", image.image_id, word(state.as_str_name(), "IMAGE_STATE_")), reason))
        }
    };
    Wait { client, out, goal: "available", limit }.run(&[id.to_owned()], look, judge).await
}

/// Waits until a snapshot is complete.
pub async fn for_snapshot(client: &Client, out: &Output, id: &str, limit: Duration) -> Waited<Snapshot> {
    let look = async |ids: Vec<String>| {
        let request = DescribeSnapshotsRequest { snapshot_ids: ids, ..Default::default() };
        pages!(client.compute().describe_snapshots(request).snapshots, None)
    };
    let judge = |snapshot: &Snapshot| match snapshot.state() {
        SnapshotState::Completed => Verdict::Reached,
        SnapshotState::Unspecified | SnapshotState::Pending => Verdict::Passing(String::new()),
        SnapshotState::Error => Verdict::Failed(because(&format!("{} failed", snapshot.snapshot_id), &snapshot.state_message)),
    };
    Wait { client, out, goal: "completed", limit }.run(&[id.to_owned()], look, judge).await
}

/// Waits until an elastic IP leads where an association says: until then another instance may hold it.
pub async fn for_association(client: &Client, out: &Output, allocation_id: &str, association_id: &str, limit: Duration) -> Waited<Address> {
    let look = async |ids: Vec<String>| {
        let request = DescribeAddressesRequest { allocation_ids: ids, ..Default::default() };
        pages!(client.network().describe_addresses(request).addresses, None)
    };
    Wait { client, out, goal: "associated", limit }
        .run(&[allocation_id.to_owned()], look, |address| judge_association(address, association_id))
        .await
}

fn judge_association(address: &Address, association_id: &str) -> Verdict {
    let Some(association) = &address.association else {
        return Verdict::Failed(format!("{} points at nothing any more: it was disassociated meanwhile", address.public_ip));
    };
    if association.association_id != association_id {
        let target = if association.instance_id.is_empty() { &association.network_interface_id } else { &association.instance_id };
        return Verdict::Failed(format!("{} points at {target} now: it was moved again meanwhile", address.public_ip));
    }
    match association.state() {
        AddressAssociationState::Associated => Verdict::Reached,
        AddressAssociationState::Unspecified | AddressAssociationState::Waiting => Verdict::Passing(association.state_reason.clone()),
    }
}

fn because(what: &str, reason: &str) -> String {
    if reason.is_empty() { what.to_owned() } else { format!("{what}: {reason}") }
}

struct Wait<'a> {
    client: &'a Client,
    out: &'a Output,
    goal: &'a str,
    limit: Duration,
}

impl Wait<'_> {
    async fn run<T: Show>(
        &self,
        ids: &[String],
        look: impl AsyncFn(Vec<String>) -> Result<Vec<T>, Failure>,
        judge: impl Fn(&T) -> Verdict,
    ) -> Waited<T> {
        let (mut seen, mut reason) = (BTreeMap::new(), String::new());
        let outcome = match tokio::time::timeout(self.limit, self.follow(ids, look, judge, &mut seen, &mut reason)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                let limit = humantime::format_duration(self.limit);
                let told = format!("not all are {} after {limit}: gave up waiting; they go on", self.goal);
                Err(Failure::NotReached(because(&told, &reason)))
            }
        };
        self.out.progress("");
        Waited { items: ids.iter().filter_map(|id| seen.remove(id)).collect(), outcome }
    }

    async fn follow<T: Show>(
        &self,
        ids: &[String],
        look: impl AsyncFn(Vec<String>) -> Result<Vec<T>, Failure>,
        judge: impl Fn(&T) -> Verdict,
        seen: &mut BTreeMap<String, T>,
        reason: &mut String,
    ) -> Result<(), Failure> {
        // Subscribed before the first look, so that no change falls between the two.
        let mut events = subscribe(self.client, ids).await;
        let mut waiting = ids.to_vec();
        let mut failed = Vec::new();
        loop {
            reason.clear();
            for item in look(waiting.clone()).await? {
                match judge(&item) {
                    // Of several the last one's: one line has room for no more.
                    Verdict::Passing(why) if !why.is_empty() => *reason = why,
                    Verdict::Passing(_) => {}
                    Verdict::Reached => waiting.retain(|id| id != item.id()),
                    Verdict::Failed(reason) => {
                        waiting.retain(|id| id != item.id());
                        failed.push(reason);
                    }
                }
                seen.insert(item.id().to_owned(), item);
            }
            if waiting.is_empty() {
                return if failed.is_empty() { Ok(()) } else { Err(Failure::NotReached(failed.join("\n  "))) };
            }
            let reached = ids.len() - waiting.len() - failed.len();
            self.out.progress(&because(&format!("{reached} of {} {}", ids.len(), self.goal), reason));
            next_reason_to_look(&mut events).await;
        }
    }
}

/// The events of these resources. None if the region does not tell: looking now and then serves too.
async fn subscribe(client: &Client, ids: &[String]) -> Option<Streaming<SubscribeResponse>> {
    let filter = EventFilter { subjects: ids.to_vec(), ..EventFilter::default() };
    let request = SubscribeRequest { filter: Some(filter), after_place: None };
    let open = async {
        let mut stream = client.events().subscribe(request).await.ok()?.into_inner();
        // The first message says that nothing from here on will be missed.
        stream.message().await.ok()??;
        Some(stream)
    };
    tokio::time::timeout(LOOK_AT_LEAST_EVERY, open).await.ok().flatten()
}

async fn next_reason_to_look(events: &mut Option<Streaming<SubscribeResponse>>) {
    let Some(stream) = events else {
        tokio::time::sleep(LOOK_AT_LEAST_EVERY).await;
        return;
    };
    if let Ok(None | Some(Err(_))) = tokio::time::timeout(LOOK_AT_LEAST_EVERY, stream.next()).await {
        *events = None;
    }
}

#[cfg(test)]
mod tests {
    use gureum_proto::{compute::v1::StateReason, network::v1::AddressAssociation};

    use super::*;

    fn instance(state: InstanceState) -> Instance {
        let state_reason = Some(StateReason { code: "Server.InternalError".into(), message: "it did not boot".into() });
        Instance { instance_id: "i-1".into(), state: state.into(), state_reason, ..Default::default() }
    }

    #[test]
    fn a_wait_ends_when_its_goal_cannot_be_reached_any_more() {
        use InstanceState::{Pending, Running, ShuttingDown, Stopped, Stopping, Terminated};
        let failed = |state, goal| matches!(judge_instance(&instance(state), goal), Verdict::Failed(_));
        for goal in [Running, Stopped, Terminated] {
            assert_eq!(judge_instance(&instance(goal), goal), Verdict::Reached);
            for passing in [Pending, Stopping].into_iter().filter(|state| *state != goal) {
                assert_eq!(judge_instance(&instance(passing), goal), Verdict::Passing(String::new()));
            }
        }
        assert!(failed(ShuttingDown, Running) && failed(Terminated, Running) && failed(Stopped, Running));
        assert!(failed(ShuttingDown, Stopped) && failed(Terminated, Stopped) && !failed(Running, Stopped));
        assert!(!failed(Stopped, Terminated) && !failed(ShuttingDown, Terminated));
        let told = judge_instance(&instance(Terminated), Running);
        assert_eq!(told, Verdict::Failed("i-1 is terminated: it did not boot".into()));
    }

    #[test]
    fn an_association_is_waited_for_until_another_takes_its_place() {
        use AddressAssociationState::{Associated, Waiting};
        let judge = |id: &str, state: AddressAssociationState| {
            let association = AddressAssociation {
                association_id: id.into(),
                instance_id: "i-1".into(),
                state: state.into(),
                state_reason: if state == Waiting { "i-2 has it".into() } else { String::new() },
                ..Default::default()
            };
            judge_association(&Address { association: Some(association), ..Default::default() }, "eipassoc-1")
        };
        assert_eq!(judge("eipassoc-1", Waiting), Verdict::Passing("i-2 has it".into()));
        assert_eq!(judge("eipassoc-1", Associated), Verdict::Reached);
        assert!(matches!(judge("eipassoc-2", Associated), Verdict::Failed(text) if text.contains("points at i-1 now")));
        let nowhere = judge_association(&Address::default(), "eipassoc-1");
        assert!(matches!(nowhere, Verdict::Failed(text) if text.contains("points at nothing any more")));
    }
}
