//! `gureum vpcs`: networks.

use clap::{Args as ClapArgs, Subcommand};
use gureum_proto::{
    common::v1::Tag,
    network::v1::{CreateDefaultVpcRequest, CreateVpcRequest, DeleteVpcRequest, DescribeVpcsRequest, Vpc},
};

use crate::{
    call,
    client::Client,
    failure::Failure,
    list::ListArgs,
    output::Output,
    pages, parse,
    table::{Cell, Show, name_of, word},
    time::Timestamp,
};

/// VPCs: networks of their own
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum vpcs ls
  gureum vpcs create 10.0.0.0/16 --name test
  gureum vpcs create --default
  gureum vpcs delete vpc-00000000000000001")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List VPCs
    #[command(visible_alias = "list", after_help = "Examples:\n  gureum vpcs ls\n  gureum vpcs ls --filter is-default=true -o id")]
    Ls(ListArgs),
    /// Make a VPC
    #[command(after_help = "Examples:\n  gureum vpcs create 10.0.0.0/16 --name test\n  gureum vpcs create --default")]
    Create {
        /// Its addresses, /16 to /28
        #[arg(value_name = "CIDR", required_unless_present = "default")]
        cidr: Option<String>,
        /// The default VPC once more, with its subnets and gateway
        #[arg(long, conflicts_with_all = ["cidr", "name", "tags"])]
        default: bool,
        /// Name, which is the tag Name
        #[arg(long)]
        name: Option<String>,
        /// Tag; may be given again
        #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse::tag)]
        tags: Vec<Tag>,
    },
    /// Delete VPCs
    #[command(visible_alias = "rm", after_help = "Examples:\n  gureum vpcs delete vpc-00000000000000001")]
    Delete {
        /// VPCs
        #[arg(value_name = "VPC", required = true)]
        vpcs: Vec<String>,
    },
}

/// Carries the command out.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    match args.verb.unwrap_or_else(|| Verb::Ls(ListArgs::default())) {
        Verb::Ls(list) => {
            let request = DescribeVpcsRequest { filters: list.filters, ..Default::default() };
            let vpcs: Vec<Vpc> = pages!(client.network().describe_vpcs(request).vpcs, list.limit)?;
            out.list(client, &vpcs).await
        }
        Verb::Create { cidr, default: _, name, mut tags } => {
            tags.extend(name.map(|value| Tag { key: "Name".to_owned(), value }));
            let vpc = match cidr {
                Some(cidr_block) => call!(client.network().create_vpc(CreateVpcRequest { cidr_block, tags, ..Default::default() }))?.vpc,
                None => call!(client.network().create_default_vpc(CreateDefaultVpcRequest::default()))?.vpc,
            };
            match vpc {
                Some(vpc) => out.one(client, &vpc).await,
                None => Ok(()),
            }
        }
        Verb::Delete { vpcs } => {
            for vpc_id in vpcs {
                call!(client.network().delete_vpc(DeleteVpcRequest { vpc_id: vpc_id.clone(), ..Default::default() }))?;
                out.done(&vpc_id, "deleted")?;
            }
            Ok(())
        }
    }
}

impl Show for Vpc {
    const NAME: &'static str = "gureum.network.v1.Vpc";
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "STATE", "CIDR", "DEFAULT"];

    fn id(&self) -> &str {
        &self.vpc_id
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        vec![
            self.id().into(),
            name_of(&self.tags).into(),
            Cell::state(&word(self.state().as_str_name(), "VPC_STATE_")),
            (&self.cidr_block).into(),
            Cell::flag(self.is_default),
        ]
    }
}
