//! Each step of each workflow run twice, failed once, killed after, and failing for good; each by its name.
//!
//! A workflow's steps are the calls to peers that it leads to, and its commits. A row of the table names one; the
//! service that takes the step is started with a fault for it ([`gureum_service::faults`]). Whatever the fault, the
//! intent must be reached or undone, and when all is taken down again nothing may be left.
//!
//! Every call that one service makes to another stands in a table, or says why not ([`complete`]).
//!
//! A later service adds its workflows to [`workflows`] and its steps to [`TABLE`].

mod complete;
mod runner;
pub mod take_down;
mod workflows;

use runner::Stage;
use workflows::Workflow;

/// How users learn that a step fails for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The call answers UNAVAILABLE, names the peer, and says when to try again.
    Call,
    /// The call is accepted; the instance says for which call of which service it waits.
    Instance,
    /// The call is accepted; the instance says this.
    Waiting(&'static str),
    /// The call is accepted; who then asks for the instance is answered UNAVAILABLE, with the peer whose part is missing.
    Reader,
    /// What the user asked for is reached without the step, which only cleans up behind it.
    Nobody,
}

/// One step of a workflow.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub workflow: Workflow,
    /// The service that takes it.
    pub by: &'static str,
    /// The peer that it calls.
    pub peer: &'static str,
    pub call: &'static str,
    /// The calls of the same name in the workflow before this one.
    pub after: u32,
    pub told: Told,
}

const fn step(workflow: Workflow, by: &'static str, peer: &'static str, call: &'static str, told: Told) -> Step {
    Step { workflow, by, peer, call, after: 0, told }
}

/// Every step that calls a peer.
const TABLE: &[Step] = &[
    step(Workflow::Birth, "gateway", "network", "EnsureScope", Told::Call),
    step(Workflow::Birth, "network", "security", "RegisterVpc", Told::Call),
    step(Workflow::CreateVpc, "network", "security", "RegisterVpc", Told::Call),
    step(Workflow::DeleteVpc, "network", "security", "UnregisterVpc", Told::Call),
    step(Workflow::Launch, "gateway", "compute", "RunInstances", Told::Call),
    step(Workflow::Launch, "compute", "security", "DescribeKeyPairs", Told::Call),
    step(Workflow::Launch, "compute", "network", "ResolveLaunchNetwork", Told::Call),
    step(Workflow::Launch, "network", "security", "DescribeSecurityGroups", Told::Call),
    step(Workflow::Launch, "compute", "network", "CreateInstanceInterfaces", Told::Call),
    step(Workflow::Launch, "network", "security", "SetSecurityGroupHolds", Told::Call),
    step(Workflow::Launch, "compute", "network", "DescribeSubnets", Told::Call),
    step(Workflow::Launch, "compute", "node", "ApplyInstances", Told::Instance),
    step(Workflow::Launch, "compute", "node", "WatchInstances", Told::Waiting("waits for its node to boot it")),
    step(Workflow::UndoneLaunch, "compute", "network", "DeleteInstanceInterfaces", Told::Call),
    step(Workflow::Stop, "compute", "node", "ApplyInstances", Told::Instance),
    step(Workflow::Stop, "compute", "network", "ReleasePublicAddresses", Told::Instance),
    step(Workflow::Start, "compute", "network", "AssignPublicAddresses", Told::Instance),
    step(Workflow::Start, "compute", "node", "ApplyInstances", Told::Instance),
    step(Workflow::Reboot, "compute", "node", "ApplyInstances", Told::Instance),
    step(Workflow::Terminate, "compute", "node", "ApplyInstances", Told::Instance),
    step(Workflow::Terminate, "compute", "network", "DeleteInstanceInterfaces", Told::Instance),
    step(Workflow::Terminate, "compute", "node", "GetConsoleOutput", Told::Nobody),
    step(Workflow::Terminate, "compute", "node", "ForgetTerminated", Told::Nobody),
    step(Workflow::Terminate, "network", "security", "SetSecurityGroupHolds", Told::Nobody),
    step(Workflow::CreateInterface, "network", "security", "SetSecurityGroupHolds", Told::Call),
    step(Workflow::ChangeGroups, "network", "security", "SetSecurityGroupHolds", Told::Call),
    Step { after: 1, ..step(Workflow::ChangeGroups, "network", "security", "SetSecurityGroupHolds", Told::Nobody) },
    step(Workflow::DeleteInterface, "network", "security", "SetSecurityGroupHolds", Told::Nobody),
    step(Workflow::AttachInterface, "compute", "network", "DescribeInstanceInterfaces", Told::Reader),
    step(Workflow::AttachInterface, "compute", "node", "ApplyInstances", Told::Instance),
    step(Workflow::AttachInterface, "compute", "network", "WatchAll", Told::Nobody),
    step(Workflow::DetachInterface, "compute", "network", "DescribeInstanceInterfaces", Told::Reader),
    step(Workflow::DetachInterface, "compute", "node", "ApplyInstances", Told::Instance),
    step(Workflow::AttachVolume, "compute", "node", "ApplyInstances", Told::Instance),
    step(Workflow::DetachVolume, "compute", "node", "ApplyInstances", Told::Instance),
    step(Workflow::CreateImage, "compute", "node", "ApplyInstances", Told::Instance),
    step(Workflow::MoveAddress, "compute", "network", "DescribeInstanceInterfaces", Told::Reader),
    step(Workflow::TakeAddress, "compute", "network", "SettlePublicAddresses", Told::Instance),
    step(Workflow::ChangeInstanceGroups, "compute", "network", "ModifyNetworkInterfaceAttribute", Told::Call),
    step(Workflow::ChangeType, "compute", "network", "SetInterfaceLimits", Told::Call),
    step(Workflow::Launch, "node-a", "compute", "RegisterNode", Told::Nobody),
    step(Workflow::Launch, "node-a", "compute", "NodeHeartbeat", Told::Nobody),
    step(Workflow::Log, "gateway", "compute", "gureum.compute.v1.ComputePeerService/WatchAll", Told::Nobody),
    step(Workflow::Log, "gateway", "network", "gureum.network.v1.NetworkPeerService/WatchAll", Told::Nobody),
    step(Workflow::Log, "gateway", "security", "gureum.security.v1.SecurityPeerService/WatchAll", Told::Nobody),
    step(Workflow::Tag, "gateway", "network", "gureum.network.v1.NetworkService/CreateTags", Told::Call),
    step(Workflow::Tag, "gateway", "security", "gureum.security.v1.SecurityService/CreateTags", Told::Call),
    step(Workflow::Untag, "gateway", "network", "gureum.network.v1.NetworkService/DeleteTags", Told::Call),
    step(Workflow::Untag, "gateway", "security", "gureum.security.v1.SecurityService/DeleteTags", Told::Call),
    step(Workflow::ListTags, "gateway", "network", "gureum.network.v1.NetworkService/DescribeTags", Told::Call),
    step(Workflow::ListTags, "gateway", "security", "gureum.security.v1.SecurityService/DescribeTags", Told::Call),
    step(Workflow::ListTags, "gateway", "compute", "gureum.compute.v1.ComputeService/DescribeTags", Told::Call),
    step(Workflow::Account, "compute", "network", "EnsureScope", Told::Call),
];

/// The steps that there are where time is virtual: the services are asked and set one after another.
const CLOCK_TABLE: &[Step] = &[
    step(Workflow::Advance, "gateway", "security", "GetState", Told::Call),
    Step { after: 2, ..step(Workflow::Advance, "gateway", "compute", "GetState", Told::Call) },
    step(Workflow::Advance, "gateway", "security", "SetTime", Told::Call),
    Step { after: 1, ..step(Workflow::Advance, "gateway", "network", "SetTime", Told::Call) },
    Step { after: 3, ..step(Workflow::Advance, "gateway", "node", "SetTime", Told::Call) },
];

/// Every commit after which a process may die before anyone learns of it: by whom, and its event.
const COMMITS: &[(Workflow, &str, &str)] = &[
    (Workflow::Birth, "network", "VpcCreated"),
    (Workflow::Birth, "security", "SecurityGroupCreated"),
    (Workflow::CreateVpc, "network", "VpcCreated"),
    (Workflow::CreateVpc, "network", "VpcChanged"),
    (Workflow::DeleteVpc, "network", "VpcChanged"),
    (Workflow::DeleteVpc, "security", "SecurityGroupDeleted"),
    (Workflow::DeleteVpc, "network", "VpcDeleted"),
    (Workflow::Launch, "network", "NetworkInterfaceCreated"),
    (Workflow::Launch, "compute", "InstanceLaunched"),
    (Workflow::Launch, "compute", "InstanceStateChanged"),
    (Workflow::Launch, "node-a", "InstanceObserved"),
    (Workflow::Stop, "compute", "InstanceStateChanged"),
    (Workflow::Stop, "node-a", "InstanceObserved"),
    (Workflow::Stop, "network", "NetworkInterfaceChanged"),
    (Workflow::Start, "compute", "InstanceStateChanged"),
    (Workflow::Start, "network", "NetworkInterfaceChanged"),
    (Workflow::Terminate, "compute", "InstanceStateChanged"),
    (Workflow::Terminate, "network", "NetworkInterfaceDeleted"),
    (Workflow::Terminate, "node-a", "InstanceForgotten"),
    (Workflow::CreateInterface, "network", "NetworkInterfaceCreated"),
    (Workflow::ChangeGroups, "network", "NetworkInterfaceChanged"),
    (Workflow::DeleteInterface, "network", "NetworkInterfaceDeleted"),
    (Workflow::AttachInterface, "network", "NetworkInterfaceChanged"),
    (Workflow::AttachInterface, "compute", "InstanceChanged"),
    (Workflow::DetachInterface, "network", "NetworkInterfaceChanged"),
    (Workflow::CreateVolume, "compute", "VolumeCreated"),
    (Workflow::CreateVolume, "compute", "VolumeStateChanged"),
    (Workflow::CreateImage, "compute", "ImageCreated"),
    (Workflow::CreateImage, "compute", "SnapshotStateChanged"),
    (Workflow::CreateImage, "compute", "ImageStateChanged"),
    // What the gateway writes down of compute's events, with how far it has followed them.
    (Workflow::Log, "gateway", "compute"),
    (Workflow::AttachVolume, "compute", "VolumeStateChanged"),
    (Workflow::DetachVolume, "compute", "VolumeStateChanged"),
    (Workflow::MoveAddress, "network", "AddressMoved"),
    (Workflow::ChangeType, "network", "NetworkInterfaceChanged"),
    (Workflow::ChangeType, "compute", "InstanceChanged"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_failed_once_and_run_twice_reaches_its_intent() {
    for (mut stage, table) in [(Stage::new(), TABLE), (Stage::with_virtual_time(), CLOCK_TABLE)] {
        for step in table {
            stage.failed_once_and_run_twice(step).await;
        }
        stage.finish("failed once and run twice", table.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_after_a_step_goes_on_where_it_was() {
    let mut stage = Stage::new();
    // A stream is no step that is done.
    let calls = TABLE.iter().filter(|step| !step.call.contains("Watch"));
    for step in calls.clone() {
        stage.dies_after_call(step).await;
    }
    for (workflow, by, event) in COMMITS {
        stage.dies_after_commit(*workflow, by, event).await;
    }
    stage.finish("died after", calls.count() + COMMITS.len());
    let mut stage = Stage::with_virtual_time();
    for step in CLOCK_TABLE {
        stage.dies_after_call(step).await;
    }
    stage.finish("died after", CLOCK_TABLE.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_fails_for_good_is_told_by_its_name() {
    for (mut stage, table) in [(Stage::new(), TABLE), (Stage::with_virtual_time(), CLOCK_TABLE)] {
        for step in table {
            stage.fails_for_good(step).await;
        }
        stage.finish("failed for good", table.len());
    }
}
