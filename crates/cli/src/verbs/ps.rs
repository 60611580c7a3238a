//! `gureum ps`.

use std::collections::BTreeMap;

use clap::Args as ClapArgs;
use gureum_proto::{
    WatchMessage, WatchPart,
    common::v1::Filter,
    compute::v1::{DescribeInstancesRequest, Instance, WatchRequest, event::Resource},
};

use super::instance::troubles;
use crate::{
    client::Client,
    failure::Failure,
    list::ListArgs,
    output::Output,
    pages, parse,
    table::{Show, Table},
};

/// States of instances that still exist.
const LIVE_STATES: [&str; 5] = ["pending", "running", "stopping", "stopped", "shutting-down"];

/// List instances
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum ps
  gureum ps --state running --filter instance-type='t3.*' --filter tag:stage=test,demo
  gureum ps --all
  gureum ps --watch
  gureum ps --wide
  gureum terminate $(gureum ps --filter tag:stage=test -o id)
  gureum ps -o json | jq -r '.[].privateIpAddress'")]
pub struct Args {
    /// Only these, by id or name
    #[arg(value_name = "INSTANCE")]
    instances: Vec<String>,
    /// Only in this state; may be given again
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',', value_parser = ["pending", "running", "stopping", "stopped", "shutting-down", "terminated"])]
    states: Vec<String>,
    /// Also terminated ones
    #[arg(short, long, conflicts_with = "states")]
    all: bool,
    /// Go on with a row for each change that shows, until Ctrl-C
    #[arg(short, long, conflicts_with = "limit")]
    watch: bool,
    /// Also what separates and limits them, and how their scripts ended
    #[arg(short = 'W', long)]
    wide: bool,
    #[command(flatten)]
    list: ListArgs,
}

/// Lists, and follows if that is wanted.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    let ids = crate::resolve::instances(client, &args.instances).await?;
    if !args.instances.is_empty() && ids.is_empty() {
        return out.list::<Instance>(client, &[]).await;
    }
    let states = match (&args.states[..], args.all || !ids.is_empty()) {
        ([], true) => None,
        ([], false) => Some(LIVE_STATES.map(str::to_owned).to_vec()),
        (states, _) => Some(states.to_vec()),
    };
    let mut filters = args.list.filters;
    filters.extend(states.map(|values| Filter { name: "instance-state-name".to_owned(), values }));
    if args.watch {
        return watch(client, out, DescribeInstancesRequest { filters, instance_ids: ids, ..Default::default() }, args.wide).await;
    }
    let request = DescribeInstancesRequest { filters, instance_ids: ids, ..Default::default() };
    let instances: Vec<Instance> = pages!(client.compute().describe_instances(request).instances, args.list.limit)?;
    if !out.is_table() {
        return out.list(client, &instances).await;
    }
    show(client, out, &mut Table::new::<Instance>(out.colour()).wide(args.wide), &instances).await
}

/// The instances as they are, then each change of one of them that shows. An instance that a change took out of the
/// selection by its state is still shown, as it is then.
async fn watch(client: &Client, out: &Output, selection: DescribeInstancesRequest, wide: bool) -> Result<(), Failure> {
    // Opened before the list is asked for, so that no change falls between the two.
    let mut stream =
        client.compute().watch(WatchRequest { after_sequence: None }).await.map_err(|status| client.failed(status))?.into_inner();
    let mut known = BTreeMap::new();
    let mut table = Table::new::<Instance>(out.colour()).wide(wide);
    let mut caught_up = false;
    while let Some(message) = stream.message().await.map_err(|status| client.failed(status))? {
        let event = match message.into_parts() {
            WatchPart::Event(event) if caught_up => event,
            WatchPart::CaughtUp(_) if !caught_up => {
                caught_up = true;
                let instances: Vec<Instance> = pages!(client.compute().describe_instances(selection.clone()).instances, None)?;
                show(client, out, &mut table, &instances).await?;
                known.extend(instances.into_iter().map(|instance| (instance.instance_id.clone(), instance)));
                continue;
            }
            WatchPart::Event(_) | WatchPart::CaughtUp(_) | WatchPart::Unknown => continue,
        };
        let Some(Resource::Instance(instance)) = event.resource else { continue };
        let new = match known.get(&instance.instance_id) {
            Some(before) => looks_new(out, before, &instance),
            None if selected(client, &selection, &instance.instance_id).await? => true,
            None => continue,
        };
        if new {
            show(client, out, &mut table, std::slice::from_ref(&instance)).await?;
        }
        known.insert(instance.instance_id.clone(), instance);
    }
    Err(Failure::Broken("the region ended the stream".to_owned()))
}

/// Whether something that is printed changed. That time goes on is no change.
fn looks_new(out: &Output, before: &Instance, now: &Instance) -> bool {
    let shown = |instance: &Instance| (instance.row(None), instance.wide(), troubles(std::slice::from_ref(instance)));
    if out.is_json() { before != now } else { shown(before) != shown(now) }
}

async fn show(client: &Client, out: &Output, table: &mut Table, instances: &[Instance]) -> Result<(), Failure> {
    let now = client.now().await;
    if out.is_table() {
        out.write(&table.render(instances, now))?;
        troubles(instances).iter().for_each(|line| out.remark(line));
        return Ok(());
    }
    instances.iter().try_for_each(|instance| out.next(table, instance, now))
}

/// Whether an instance that was not among the first is one of those that are wanted.
async fn selected(client: &Client, selection: &DescribeInstancesRequest, id: &str) -> Result<bool, Failure> {
    if !selection.instance_ids.is_empty() {
        return Ok(selection.instance_ids.iter().any(|wanted| wanted == id));
    }
    let mut request = selection.clone();
    request.filters.push(parse::exact("instance-id", id));
    let found: Vec<Instance> = pages!(client.compute().describe_instances(request).instances, None)?;
    Ok(!found.is_empty())
}
