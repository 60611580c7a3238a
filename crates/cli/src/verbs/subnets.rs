//! `gureum subnets`.

use clap::{Args as ClapArgs, Subcommand};
use gureum_proto::{
    common::v1::Tag,
    network::v1::{CreateSubnetRequest, DeleteSubnetRequest, DescribeSubnetsRequest, ModifySubnetAttributeRequest, Subnet},
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

/// Subnets: a VPC's addresses in a zone
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum subnets ls
  gureum subnets create vpc-00000000000000001 10.0.1.0/24 --zone us-east-1a
  gureum subnets public-ip subnet-00000000000000001 on
  gureum subnets delete subnet-00000000000000001")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List subnets
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  gureum subnets ls\n  gureum subnets ls --filter vpc-id=vpc-00000000000000001"
    )]
    Ls(ListArgs),
    /// Make a subnet
    #[command(after_help = "Examples:\n  gureum subnets create vpc-00000000000000001 10.0.1.0/24 --zone us-east-1a --name front")]
    Create(CreateArgs),
    /// Say whether instances get a public address on launch
    #[command(after_help = "Examples:\n  gureum subnets public-ip subnet-00000000000000001 on")]
    PublicIp {
        /// Subnet
        subnet: String,
        /// on or off
        #[arg(value_parser = ["on", "off"])]
        setting: String,
    },
    /// Delete subnets
    #[command(visible_alias = "rm", after_help = "Examples:\n  gureum subnets delete subnet-00000000000000001")]
    Delete {
        /// Subnets
        #[arg(value_name = "SUBNET", required = true)]
        subnets: Vec<String>,
    },
}

#[derive(Debug, ClapArgs)]
struct CreateArgs {
    /// VPC
    vpc: String,
    /// Its addresses, a part of the VPC's
    cidr: String,
    /// Zone; one of the region's if not given
    #[arg(long, value_name = "ZONE", default_value = "", hide_default_value = true)]
    zone: String,
    /// Name, which is the tag Name
    #[arg(long)]
    name: Option<String>,
    /// Tag; may be given again
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse::tag)]
    tags: Vec<Tag>,
}

/// Carries the command out.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    match args.verb.unwrap_or_else(|| Verb::Ls(ListArgs::default())) {
        Verb::Ls(list) => {
            let request = DescribeSubnetsRequest { filters: list.filters, ..Default::default() };
            let subnets: Vec<Subnet> = pages!(client.network().describe_subnets(request).subnets, list.limit)?;
            out.list(client, &subnets).await
        }
        Verb::Create(args) => {
            let mut tags = args.tags;
            tags.extend(args.name.map(|value| Tag { key: "Name".to_owned(), value }));
            let request =
                CreateSubnetRequest { vpc_id: args.vpc, cidr_block: args.cidr, availability_zone: args.zone, tags, ..Default::default() };
            subnet(call!(client.network().create_subnet(request))?.subnet, client, out).await
        }
        Verb::PublicIp { subnet: subnet_id, setting } => {
            let request = ModifySubnetAttributeRequest { subnet_id, map_public_ip_on_launch: Some(setting == "on"), ..Default::default() };
            subnet(call!(client.network().modify_subnet_attribute(request))?.subnet, client, out).await
        }
        Verb::Delete { subnets } => {
            for subnet_id in subnets {
                call!(client.network().delete_subnet(DeleteSubnetRequest { subnet_id: subnet_id.clone(), ..Default::default() }))?;
                out.done(&subnet_id, "deleted")?;
            }
            Ok(())
        }
    }
}

async fn subnet(subnet: Option<Subnet>, client: &Client, out: &Output) -> Result<(), Failure> {
    match subnet {
        Some(subnet) => out.one(client, &subnet).await,
        None => Ok(()),
    }
}

impl Show for Subnet {
    const NAME: &'static str = "gureum.network.v1.Subnet";
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "STATE", "VPC", "CIDR", "ZONE", "FREE", "PUBLIC IP", "DEFAULT"];

    fn id(&self) -> &str {
        &self.subnet_id
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        vec![
            self.id().into(),
            name_of(&self.tags).into(),
            Cell::state(&word(self.state().as_str_name(), "SUBNET_STATE_")),
            (&self.vpc_id).into(),
            (&self.cidr_block).into(),
            (&self.availability_zone).into(),
            self.available_ip_address_count.to_string().into(),
            Cell::flag(self.map_public_ip_on_launch),
            Cell::flag(self.default_for_az),
        ]
    }
}
