//! `gureum interfaces`: network interfaces.

use clap::{Args as ClapArgs, Subcommand};
use gureum_proto::{
    common::v1::Tag,
    network::v1::{
        AttachNetworkInterfaceRequest, CreateNetworkInterfaceRequest, DeleteNetworkInterfaceRequest, DescribeNetworkInterfacesRequest,
        DetachNetworkInterfaceRequest, NetworkInterface,
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
};

/// Network interfaces
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum interfaces ls --instance web
  gureum interfaces create subnet-00000000000000001 --group web
  gureum interfaces attach eni-00000000000000001 web --index 1
  gureum interfaces detach eni-00000000000000001
  gureum interfaces delete eni-00000000000000001")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List interfaces
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  gureum interfaces ls\n  gureum interfaces ls --instance web\n  gureum interfaces ls --filter status=available"
    )]
    Ls(LsArgs),
    /// Make an interface
    #[command(after_help = "Examples:\n  gureum interfaces create subnet-00000000000000001 --private-ip 10.0.1.7 --group web")]
    Create(CreateArgs),
    /// Attach an interface to an instance
    #[command(after_help = "Examples:\n  gureum interfaces attach eni-00000000000000001 web --index 1")]
    Attach {
        /// Interface
        interface: String,
        /// Instance, by id or name
        instance: String,
        /// Place among the instance's interfaces
        #[arg(long, value_name = "NUMBER", default_value_t = 1)]
        index: i32,
    },
    /// Detach an interface from its instance
    #[command(after_help = "Examples:\n  gureum interfaces detach eni-00000000000000001")]
    Detach {
        /// Interface
        interface: String,
        /// Although the instance still uses it
        #[arg(long)]
        force: bool,
    },
    /// Delete interfaces
    #[command(visible_alias = "rm", after_help = "Examples:\n  gureum interfaces delete eni-00000000000000001")]
    Delete {
        /// Interfaces
        #[arg(value_name = "INTERFACE", required = true)]
        interfaces: Vec<String>,
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
struct CreateArgs {
    /// Subnet
    subnet: String,
    /// Private address in the subnet; a free one if not given
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    private_ip: String,
    /// Security group, by id or name; may be given again
    #[arg(short, long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
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
            let request = DescribeNetworkInterfacesRequest { filters, ..Default::default() };
            let found: Vec<NetworkInterface> =
                pages!(client.network().describe_network_interfaces(request).network_interfaces, args.list.limit)?;
            out.list(client, &found).await
        }
        Verb::Create(args) => create(args, client, out).await,
        Verb::Attach { interface, instance, index } => {
            let request = AttachNetworkInterfaceRequest {
                network_interface_id: interface,
                instance_id: resolve::instance(client, &instance).await?,
                device_index: index,
                ..Default::default()
            };
            shown(call!(client.network().attach_network_interface(request))?.network_interface, client, out).await
        }
        Verb::Detach { interface, force } => {
            let attachment_id = attachment(&interface, client).await?;
            let request = DetachNetworkInterfaceRequest { attachment_id, force, ..Default::default() };
            shown(call!(client.network().detach_network_interface(request))?.network_interface, client, out).await
        }
        Verb::Delete { interfaces } => {
            for id in interfaces {
                let request = DeleteNetworkInterfaceRequest { network_interface_id: id.clone(), ..Default::default() };
                call!(client.network().delete_network_interface(request))?;
                out.done(&id, "deleted")?;
            }
            Ok(())
        }
    }
}

async fn create(args: CreateArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let mut group_ids = Vec::with_capacity(args.groups.len());
    for group in &args.groups {
        group_ids.push(resolve::group(client, group).await?);
    }
    let request = CreateNetworkInterfaceRequest {
        subnet_id: args.subnet,
        description: args.description,
        private_ip_address: args.private_ip,
        group_ids,
        tags: args.tags,
        ..Default::default()
    };
    shown(call!(client.network().create_network_interface(request))?.network_interface, client, out).await
}

async fn shown(interface: Option<NetworkInterface>, client: &Client, out: &Output) -> Result<(), Failure> {
    match interface {
        Some(interface) => out.one(client, &interface).await,
        None => Ok(()),
    }
}

/// The contract detaches attachments; people think of interfaces.
async fn attachment(interface: &str, client: &Client) -> Result<String, Failure> {
    if resolve::is_id(interface, "eni-attach-") {
        return Ok(interface.to_owned());
    }
    let request = DescribeNetworkInterfacesRequest { network_interface_ids: vec![interface.to_owned()], ..Default::default() };
    let found: Vec<NetworkInterface> = pages!(client.network().describe_network_interfaces(request).network_interfaces, None)?;
    let attachment = found.into_iter().find_map(|interface| interface.attachment);
    attachment.map(|attachment| attachment.attachment_id).ok_or_else(|| Failure::NotFound {
        reason: "InvalidAttachmentID.NotFound",
        message: format!("the interface {interface} is not attached"),
    })
}

impl Show for NetworkInterface {
    const NAME: &'static str = "gureum.network.v1.NetworkInterface";
    const COLUMNS: &'static [&'static str] = &["ID", "STATE", "SUBNET", "ZONE", "PRIVATE", "PUBLIC", "INSTANCE", "INDEX", "GROUPS"];

    fn id(&self) -> &str {
        &self.network_interface_id
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        let attachment = self.attachment.as_ref();
        vec![
            self.id().into(),
            Cell::state(&word(self.state().as_str_name(), "NETWORK_INTERFACE_STATE_")),
            (&self.subnet_id).into(),
            (&self.availability_zone).into(),
            (&self.private_ip_address).into(),
            self.association.as_ref().map_or("", |association| association.public_ip.as_str()).into(),
            attachment.map_or("", |attachment| attachment.instance_id.as_str()).into(),
            attachment.map(|attachment| attachment.device_index.to_string()).unwrap_or_default().into(),
            Cell::join(self.groups.iter().map(|group| if group.group_name.is_empty() { &group.group_id } else { &group.group_name })),
        ]
    }
}
