//! `gureum volumes`.

use clap::{ArgGroup, Args as ClapArgs, Subcommand};
use gureum_proto::{
    common::v1::Tag,
    compute::v1::{
        AttachVolumeRequest, CreateVolumeRequest, DeleteVolumeRequest, DescribeVolumesRequest, DetachVolumeRequest, Volume,
        VolumeAttachment, VolumeType,
    },
};

use crate::{
    call,
    client::Client,
    failure::Failure,
    list::ListArgs,
    output::Output,
    pages, parse, resolve,
    table::{Cell, Show, name_of, word},
    time::Timestamp,
};

/// Volumes: disks of instances
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum volumes create --zone us-east-1a --size 100 --type gp3 --name data
  gureum volumes attach data web /dev/sdf
  gureum volumes ls --filter status=available
  gureum volumes detach vol-00000000000000001
  gureum volumes delete vol-00000000000000001")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List volumes
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  gureum volumes ls\n  gureum volumes ls --instance web\n  gureum volumes ls --filter status=available"
    )]
    Ls(LsArgs),
    /// Make a volume
    #[command(
        after_help = "Examples:\n  gureum volumes create --zone us-east-1a --size 100 --type gp3\n  gureum volumes create --zone us-east-1b --snapshot snap-00000000000000001"
    )]
    Create(CreateArgs),
    /// Attach a volume to an instance of its zone
    #[command(after_help = "Examples:\n  gureum volumes attach vol-00000000000000001 web /dev/sdf")]
    Attach {
        /// Volume, by id or name
        volume: String,
        /// Instance, by id or name
        instance: String,
        /// Device, such as /dev/sdf
        device: String,
    },
    /// Detach a volume
    #[command(after_help = "Examples:\n  gureum volumes detach vol-00000000000000001")]
    Detach {
        /// Volume, by id or name
        volume: String,
        /// From this instance, by id or name; needed only where several have it
        #[arg(long)]
        instance: Option<String>,
        /// Although the instance still uses it
        #[arg(long)]
        force: bool,
    },
    /// Delete volumes
    #[command(visible_alias = "rm", after_help = "Examples:\n  gureum volumes delete vol-00000000000000001")]
    Delete {
        /// Volumes, by id or name
        #[arg(value_name = "VOLUME", required = true)]
        volumes: Vec<String>,
    },
}

#[derive(Debug, Default, ClapArgs)]
struct LsArgs {
    /// Only of this instance, by id or name
    #[arg(long, value_name = "INSTANCE")]
    instance: Option<String>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("content").args(["size", "snapshot"]).required(true).multiple(true))]
struct CreateArgs {
    /// Zone, such as us-east-1a
    #[arg(long, value_name = "ZONE")]
    zone: String,
    /// GiB; needed unless --snapshot is given, whose size is then the default
    #[arg(long, value_name = "GIB", value_parser = clap::value_parser!(i32).range(1..))]
    size: Option<i32>,
    /// gp2, gp3, io1, io2, st1, sc1 or standard
    #[arg(long = "type", value_name = "KIND", value_parser = parse::volume_type)]
    kind: Option<VolumeType>,
    /// Operations per second
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    iops: Option<i32>,
    /// MiB/s, of gp3
    #[arg(long, value_name = "MIBPS", value_parser = clap::value_parser!(i32).range(1..))]
    throughput: Option<i32>,
    /// Snapshot whose content it has; needed unless --size is given
    #[arg(long, value_name = "ID")]
    snapshot: Option<String>,
    /// Encrypt what is on it
    #[arg(long)]
    encrypted: bool,
    /// Name, which is the tag Name
    #[arg(long)]
    name: Option<String>,
    /// Tag; may be given again
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse::tag)]
    tags: Vec<Tag>,
}

/// Carries the command out.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    match args.verb.unwrap_or_else(|| Verb::Ls(LsArgs::default())) {
        Verb::Ls(args) => {
            let mut filters = args.list.filters;
            if let Some(instance) = args.instance {
                filters.push(parse::exact("attachment.instance-id", &resolve::instance(client, &instance).await?));
            }
            let request = DescribeVolumesRequest { filters, ..Default::default() };
            let volumes: Vec<Volume> = pages!(client.compute().describe_volumes(request).volumes, args.list.limit)?;
            out.list(client, &volumes).await
        }
        Verb::Create(args) => create(args, client, out).await,
        Verb::Attach { volume, instance, device } => {
            let instance_id = resolve::instance(client, &instance).await?;
            let volume_id = resolve::volume(client, &volume).await?;
            let request = AttachVolumeRequest { volume_id, instance_id, device, ..Default::default() };
            attachment(call!(client.compute().attach_volume(request))?.attachment, client, out).await
        }
        Verb::Detach { volume, instance, force } => {
            let instance_id = match instance {
                Some(instance) => resolve::instance(client, &instance).await?,
                None => String::new(),
            };
            let volume_id = resolve::volume(client, &volume).await?;
            let request = DetachVolumeRequest { volume_id, instance_id, force, ..Default::default() };
            attachment(call!(client.compute().detach_volume(request))?.attachment, client, out).await
        }
        Verb::Delete { volumes } => {
            for volume in volumes {
                let volume_id = resolve::volume(client, &volume).await?;
                call!(client.compute().delete_volume(DeleteVolumeRequest { volume_id: volume_id.clone(), ..Default::default() }))?;
                out.done(&volume_id, "deleted")?;
            }
            Ok(())
        }
    }
}

async fn attachment(attachment: Option<VolumeAttachment>, client: &Client, out: &Output) -> Result<(), Failure> {
    match attachment {
        Some(attachment) => out.one(client, &attachment).await,
        None => Ok(()),
    }
}

async fn create(args: CreateArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let mut tags = args.tags;
    tags.extend(args.name.map(|value| Tag { key: "Name".to_owned(), value }));
    let request = CreateVolumeRequest {
        availability_zone: args.zone,
        size_gib: args.size,
        snapshot_id: args.snapshot.unwrap_or_default(),
        volume_type: args.kind.unwrap_or(VolumeType::Unspecified).into(),
        iops: args.iops,
        throughput_mibps: args.throughput,
        encrypted: args.encrypted.then_some(true),
        tags,
        ..Default::default()
    };
    match call!(client.compute().create_volume(request))?.volume {
        Some(volume) => out.one(client, &volume).await,
        None => Ok(()),
    }
}

impl Show for Volume {
    const NAME: &'static str = "gureum.compute.v1.Volume";
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "STATE", "GIB", "TYPE", "ZONE", "INSTANCE", "DEVICE", "CREATED"];
    const TELLS_TIME: bool = true;

    fn id(&self) -> &str {
        &self.volume_id
    }

    fn row(&self, now: Option<Timestamp>) -> Vec<Cell> {
        vec![
            self.id().into(),
            name_of(&self.tags).into(),
            Cell::state(&word(self.state().as_str_name(), "VOLUME_STATE_")),
            self.size_gib.to_string().into(),
            word(self.volume_type().as_str_name(), "VOLUME_TYPE_").into(),
            (&self.availability_zone).into(),
            Cell::join(self.attachments.iter().map(|attachment| &attachment.instance_id)),
            Cell::join(self.attachments.iter().map(|attachment| &attachment.device)),
            Cell::ago(self.create_time.as_ref(), now),
        ]
    }
}

impl Show for VolumeAttachment {
    const NAME: &'static str = "gureum.compute.v1.VolumeAttachment";
    const COLUMNS: &'static [&'static str] = &["VOLUME", "INSTANCE", "DEVICE", "STATE"];

    fn id(&self) -> &str {
        &self.volume_id
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        let state = word(self.state().as_str_name(), "VOLUME_ATTACHMENT_STATE_");
        vec![self.id().into(), (&self.instance_id).into(), (&self.device).into(), Cell::state(&state)]
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        create: CreateArgs,
    }

    #[test]
    fn a_volume_is_made_of_a_size_or_a_snapshot() {
        let parse = |line: &str| Line::try_parse_from(line.split(' '));
        for line in ["x --zone a --size 1", "x --zone a --snapshot snap-1", "x --zone a --snapshot snap-1 --size 1"] {
            assert!(parse(line).is_ok(), "{line}");
        }
        let told = parse("x --zone a").unwrap_err().to_string();
        assert!(told.contains("<--size <GIB>|--snapshot <ID>>"), "{told}");
    }
}
