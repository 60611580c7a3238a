//! `gureum start`, `stop`, `reboot` and `terminate`.

use clap::Args as ClapArgs;
use gureum_proto::compute::v1::{
    InstanceState, InstanceStateChange, RebootInstancesRequest, StartInstancesRequest, StopInstancesRequest, TerminateInstancesRequest,
};

use crate::{
    call,
    client::Client,
    failure::Failure,
    output::Output,
    resolve,
    wait::{self, WaitArgs},
};

/// Which instances.
#[derive(Debug, Clone, ClapArgs)]
pub struct Which {
    /// Instances: ids, names, or KEY=VALUE for all that have the tag
    #[arg(value_name = "INSTANCE", required = true)]
    instances: Vec<String>,
}

/// Start stopped instances
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum start web
  gureum start i-00000000000000001 i-00000000000000002 --wait
  gureum start stage=test")]
pub struct StartArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Stop running instances
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum stop web --wait
  gureum stop Name='web-*'
  gureum stop --force i-00000000000000001")]
pub struct StopArgs {
    #[command(flatten)]
    which: Which,
    /// Do not wait for the operating system to shut down
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Reboot running instances
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum reboot web
  gureum reboot stage=test")]
pub struct RebootArgs {
    #[command(flatten)]
    which: Which,
}

/// End instances for good
#[derive(Debug, ClapArgs)]
#[command(
    visible_alias = "rm",
    after_help = "Examples:
  gureum terminate web
  gureum terminate stage=test --wait
  gureum terminate $(gureum ps --filter instance-type=t3.micro -o id)"
)]
pub struct TerminateArgs {
    #[command(flatten)]
    which: Which,
    /// Do not wait for the operating system to shut down
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Starts.
pub async fn start(args: StartArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let instance_ids = resolve::instances(client, &args.which.instances).await?;
    let request = StartInstancesRequest { instance_ids, ..Default::default() };
    let changes = call!(client.compute().start_instances(request))?.changes;
    finish(client, out, &changes, InstanceState::Running, &args.wait).await
}

/// Stops.
pub async fn stop(args: StopArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let instance_ids = resolve::instances(client, &args.which.instances).await?;
    let request = StopInstancesRequest { instance_ids, force: args.force, ..Default::default() };
    let changes = call!(client.compute().stop_instances(request))?.changes;
    finish(client, out, &changes, InstanceState::Stopped, &args.wait).await
}

/// Reboots.
pub async fn reboot(args: RebootArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let instance_ids = resolve::instances(client, &args.which.instances).await?;
    let request = RebootInstancesRequest { instance_ids: instance_ids.clone(), ..Default::default() };
    call!(client.compute().reboot_instances(request))?;
    instance_ids.iter().try_for_each(|id| out.done(id, "reboots"))
}

/// Terminates.
pub async fn terminate(args: TerminateArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let instance_ids = resolve::instances(client, &args.which.instances).await?;
    let request = TerminateInstancesRequest { instance_ids, force: args.force, ..Default::default() };
    let changes = call!(client.compute().terminate_instances(request))?.changes;
    finish(client, out, &changes, InstanceState::Terminated, &args.wait).await
}

/// Shows the changes, or waits and shows the instances.
async fn finish(
    client: &Client,
    out: &Output,
    changes: &[InstanceStateChange],
    goal: InstanceState,
    wait: &WaitArgs,
) -> Result<(), Failure> {
    if !wait.wait {
        return out.list(client, changes).await;
    }
    let ids: Vec<_> = changes.iter().map(|change| change.instance_id.clone()).collect();
    let waited = wait::for_instances(client, out, &ids, goal, wait.timeout).await;
    out.list(client, &waited.items).await?;
    waited.outcome
}
