//! `gureum snapshots`.

use clap::{Args as ClapArgs, Subcommand};
use gureum_proto::{
    common::v1::Tag,
    compute::v1::{
        CreateSnapshotRequest, DeleteSnapshotRequest, DescribeSnapshotsRequest, ModifySnapshotAttributeRequest, Permission, Snapshot,
    },
};

use crate::{
    call,
    client::Client,
    failure::Failure,
    list::ListArgs,
    output::Output,
    pages, parse, resolve,
    table::{Cell, Show, word},
    time::Timestamp,
    wait::{self, WaitArgs},
};

/// Snapshots: copies of volumes
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum snapshots create vol-00000000000000001 --description nightly --wait
  gureum snapshots ls
  gureum snapshots delete snap-00000000000000001")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List snapshots; your own, unless owners are named
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  gureum snapshots ls\n  gureum snapshots ls --owner amazon\n  gureum snapshots ls --filter volume-id=vol-00000000000000001"
    )]
    Ls(LsArgs),
    /// Take a snapshot of a volume
    #[command(after_help = "Examples:\n  gureum snapshots create vol-00000000000000001 --wait")]
    Create(CreateArgs),
    /// Say who may make volumes of a snapshot
    #[command(
        after_help = "Examples:\n  gureum snapshots share snap-00000000000000001 --with 000000000002\n  gureum snapshots share snap-00000000000000001 --not-with all"
    )]
    Share(ShareArgs),
    /// Delete snapshots
    #[command(visible_alias = "rm", after_help = "Examples:\n  gureum snapshots delete snap-00000000000000001")]
    Delete {
        /// Snapshots
        #[arg(value_name = "SNAPSHOT", required = true)]
        snapshots: Vec<String>,
    },
}

#[derive(Debug, Default, ClapArgs)]
struct LsArgs {
    /// Of this owner: self, amazon or an account; may be given again
    #[arg(long = "owner", value_name = "OWNER")]
    owners: Vec<String>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, ClapArgs)]
struct CreateArgs {
    /// Volume, by id or name
    volume: String,
    /// What it is
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// Tag; may be given again
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse::tag)]
    tags: Vec<Tag>,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, ClapArgs)]
struct ShareArgs {
    /// Snapshot
    snapshot: String,
    /// Account that may use it, or all; may be given again
    #[arg(long = "with", value_name = "ACCOUNT", value_parser = parse::grantee, required_unless_present = "without")]
    with: Vec<Permission>,
    /// Account that may use it no longer, or all; may be given again
    #[arg(long = "not-with", value_name = "ACCOUNT", value_parser = parse::grantee)]
    without: Vec<Permission>,
}

/// Carries the command out.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    match args.verb.unwrap_or_else(|| Verb::Ls(LsArgs::default())) {
        Verb::Ls(args) => {
            let owner_ids = if args.owners.is_empty() { vec!["self".to_owned()] } else { args.owners };
            let request = DescribeSnapshotsRequest { filters: args.list.filters, owner_ids, ..Default::default() };
            let snapshots: Vec<Snapshot> = pages!(client.compute().describe_snapshots(request).snapshots, args.list.limit)?;
            out.list(client, &snapshots).await
        }
        Verb::Create(args) => create(args, client, out).await,
        Verb::Share(args) => {
            let request = ModifySnapshotAttributeRequest {
                snapshot_id: args.snapshot.clone(),
                add_create_volume_permissions: args.with,
                remove_create_volume_permissions: args.without,
                ..Default::default()
            };
            call!(client.compute().modify_snapshot_attribute(request))?;
            out.done(&args.snapshot, "shared as asked")
        }
        Verb::Delete { snapshots } => {
            for snapshot_id in snapshots {
                call!(client.compute().delete_snapshot(DeleteSnapshotRequest { snapshot_id: snapshot_id.clone(), ..Default::default() }))?;
                out.done(&snapshot_id, "deleted")?;
            }
            Ok(())
        }
    }
}

async fn create(args: CreateArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let volume_id = resolve::volume(client, &args.volume).await?;
    let request = CreateSnapshotRequest { volume_id, description: args.description, tags: args.tags, ..Default::default() };
    let Some(snapshot) = call!(client.compute().create_snapshot(request))?.snapshot else { return Ok(()) };
    if !args.wait.wait {
        return out.one(client, &snapshot).await;
    }
    let waited = wait::for_snapshot(client, out, &snapshot.snapshot_id, args.wait.timeout).await;
    out.one(client, waited.items.first().unwrap_or(&snapshot)).await?;
    waited.outcome
}

impl Show for Snapshot {
    const NAME: &'static str = "gureum.compute.v1.Snapshot";
    const COLUMNS: &'static [&'static str] = &["ID", "VOLUME", "STATE", "PROGRESS", "GIB", "DESCRIPTION", "STARTED"];
    const TELLS_TIME: bool = true;

    fn id(&self) -> &str {
        &self.snapshot_id
    }

    fn row(&self, now: Option<Timestamp>) -> Vec<Cell> {
        vec![
            self.id().into(),
            (&self.volume_id).into(),
            Cell::state(&word(self.state().as_str_name(), "SNAPSHOT_STATE_")),
            (&self.progress).into(),
            self.volume_size_gib.to_string().into(),
            (&self.description).into(),
            Cell::ago(self.start_time.as_ref(), now),
        ]
    }
}
