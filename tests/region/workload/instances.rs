//! Instances: launched one or several at a time, stopped, started, rebooted, ended.

use std::collections::{BTreeMap, BTreeSet};

use gureum_proto::compute::v1::{compute_service_client::ComputeServiceClient, *};

use super::client::{Client, change};
use crate::{audit::Account, harness::all_pages, region::launch_spec};

/// Instances that a client has at once, so that others find room.
const AT_ONCE: usize = 10;

/// By id.
#[derive(Debug, Clone, Default)]
pub struct Instances {
    pub all: BTreeMap<String, Known>,
}

/// What a client knows of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// Where it was last asked to be.
    pub goal: InstanceState,
    pub token: String,
    pub zone: String,
    pub subnet: String,
    pub primary_interface: String,
    pub volumes: BTreeSet<String>,
}

impl Instances {
    pub fn merge(&mut self, other: Self) {
        self.all.extend(other.all);
    }

    pub fn with_goal(&self, goal: InstanceState) -> impl Iterator<Item = &String> {
        self.all.iter().filter(move |(_, known)| known.goal == goal).map(|(id, _)| id)
    }

    pub fn living(&self) -> impl Iterator<Item = (&String, &Known)> {
        self.all.iter().filter(|(_, known)| known.goal != InstanceState::Terminated)
    }
}

pub async fn act(client: &mut Client) {
    let known = &client.known.instances;
    let (running, stopped) =
        (client.pick(known.with_goal(InstanceState::Running)).cloned(), client.pick(known.with_goal(InstanceState::Stopped)).cloned());
    match (client.chance.below(8), running, stopped) {
        (0, Some(id), _) => terminate(client, id).await,
        (1, _, Some(id)) => terminate(client, id).await,
        (2, Some(id), _) => stop(client, id).await,
        (3 | 4, _, Some(id)) => start(client, id).await,
        (5, Some(id), _) => reboot(client, id).await,
        _ if client.known.instances.living().count() < AT_ONCE => launch(client).await,
        (_, Some(id), _) | (_, _, Some(id)) => terminate(client, id).await,
        (_, None, None) => {}
    }
}

async fn launch(client: &mut Client) {
    let some = client.chance.below(2) == 0;
    let own_image = client.pick(client.known.images.images.clone()).filter(|_| client.chance.below(3) == 0);
    let spec = LaunchSpec {
        key_name: client.pick(client.known.keys.living.keys().cloned()).filter(|_| some),
        security_group_ids: client.pick(client.known.groups.living.keys().cloned()).filter(|_| some).into_iter().collect(),
        ..launch_spec(&own_image.unwrap_or_else(|| client.image.clone()))
    };
    // A template says the same again.
    let by_template = client.pick(client.known.templates.living.keys().cloned()).filter(|_| client.chance.below(3) == 0);
    let launch_template = by_template.map(|id| LaunchTemplateSpecification {
        launch_template: Some(launch_template_specification::LaunchTemplate::LaunchTemplateId(id)),
        version: "$Latest".into(),
    });
    let max_count = 1 + client.chance.below(3) as i32;
    let answer = change!(
        client,
        ComputeServiceClient,
        run_instances,
        RunInstancesRequest { spec: Some(spec), launch_template: launch_template, min_count: 1, max_count: max_count }
    );
    match answer {
        Ok(answer) => {
            for it in answer.instances {
                let known = Known {
                    goal: InstanceState::Running,
                    token: it.client_token,
                    zone: it.placement.unwrap().availability_zone,
                    subnet: it.subnet_id,
                    primary_interface: it.network_interfaces[0].network_interface_id.clone(),
                    volumes: it.block_device_mappings.into_iter().map(|mapping| mapping.volume_id).collect(),
                };
                assert_eq!(client.known.instances.all.insert(it.instance_id, known), None, "an instance was launched twice");
            }
        }
        // There is no room, or the image is still being made.
        Err(status) => client.refused("RunInstances", &status, &["InsufficientInstanceCapacity", "InvalidAMIID.Unavailable"]),
    }
}

fn now_at(client: &mut Client, id: &str, goal: InstanceState) {
    client.known.instances.all.get_mut(id).unwrap().goal = goal;
}

async fn stop(client: &mut Client, id: String) {
    let instance_ids = vec![id.clone()];
    match change!(client, ComputeServiceClient, stop_instances, StopInstancesRequest { instance_ids: instance_ids }) {
        Ok(_) => now_at(client, &id, InstanceState::Stopped),
        // It has not run yet.
        Err(status) => client.refused("StopInstances", &status, &["IncorrectInstanceState"]),
    }
}

async fn start(client: &mut Client, id: String) {
    let instance_ids = vec![id.clone()];
    match change!(client, ComputeServiceClient, start_instances, StartInstancesRequest { instance_ids: instance_ids }) {
        Ok(_) => now_at(client, &id, InstanceState::Running),
        // It is still stopping.
        Err(status) => client.refused("StartInstances", &status, &["IncorrectInstanceState", "InsufficientInstanceCapacity"]),
    }
}

async fn reboot(client: &mut Client, id: String) {
    let instance_ids = vec![id];
    match change!(client, ComputeServiceClient, reboot_instances, RebootInstancesRequest { instance_ids: instance_ids }) {
        Ok(_) => {}
        // It is still pending.
        Err(status) => client.refused("RebootInstances", &status, &["IncorrectInstanceState"]),
    }
}

async fn terminate(client: &mut Client, id: String) {
    let instance_ids = vec![id.clone()];
    change!(client, ComputeServiceClient, terminate_instances, TerminateInstancesRequest { instance_ids: instance_ids }).unwrap();
    now_at(client, &id, InstanceState::Terminated);
    let primary = client.known.instances.all[&id].primary_interface.clone();
    client.known.interfaces.freed_by(&id);
    client.known.volumes.freed_by(&id);
    client.known.addresses.freed_by(&primary);
}

pub async fn audit(account: &Account) {
    let all = all_pages!(account.door, ComputeServiceClient, describe_instances, DescribeInstancesRequest, instances);
    let found: BTreeSet<String> = all.iter().map(|it| it.instance_id.clone()).collect();
    assert_eq!(found.len(), all.len(), "an instance is listed twice");
    assert_eq!(found, account.known.instances.all.keys().cloned().collect(), "instances found, and acknowledged");
    for it in &all {
        let known = &account.known.instances.all[&it.instance_id];
        assert_eq!((it.state(), &it.client_token), (known.goal, &known.token), "{}", it.instance_id);
        if known.goal != InstanceState::Terminated {
            let has: BTreeSet<&String> = it.block_device_mappings.iter().map(|mapping| &mapping.volume_id).collect();
            let wanted = known.volumes.iter().chain(account.known.volumes.of(&it.instance_id)).collect();
            assert_eq!(has, wanted, "the volumes of {}", it.instance_id);
        }
    }
}
