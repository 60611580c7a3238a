//! What came of an instance's boot, as its user is told it.

use std::process::{Command, Output};

use gureum_proto::{
    common::v1::{RuntimeReport, ScriptEnd},
    compute::v1::{compute_service_client::ComputeServiceClient, *},
};

use crate::{
    harness::{Deployment, Door, ask, until},
    region::until_state,
    running::{launch, running_region, until_console},
};

async fn runtime_of(door: &Door, id: &str) -> RuntimeReport {
    let request = DescribeInstancesRequest { instance_ids: vec![id.to_owned()], ..Default::default() };
    ask!(door, ComputeServiceClient, describe_instances, request).unwrap().instances.remove(0).runtime.unwrap_or_default()
}

async fn until_user_data(door: &Door, id: &str) -> ScriptEnd {
    until(format!("the end of the user data of {id}"), async || {
        let runtime = runtime_of(door, id).await;
        runtime.user_data.clone().ok_or_else(|| format!("{runtime:?}"))
    })
    .await
}

fn gureum(region: &Deployment, account: &str, arguments: &[&str]) -> Output {
    let endpoint = region.endpoint();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gureum"));
    command.args(["--endpoint", &endpoint, "--account", account]).args(arguments).output().unwrap()
}

async fn terminate(door: &Door, id: &str) {
    let request = TerminateInstancesRequest { instance_ids: vec![id.to_owned()], ..Default::default() };
    ask!(door, ComputeServiceClient, terminate_instances, request).unwrap();
    until_state(door, id, InstanceState::Terminated).await;
}
