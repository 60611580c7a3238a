//! `gureum gateways`: internet gateways.

use clap::{Args as ClapArgs, Subcommand};
use gureum_proto::{
    common::v1::Tag,
    network::v1::{
        AttachInternetGatewayRequest, CreateInternetGatewayRequest, DeleteInternetGatewayRequest, DescribeInternetGatewaysRequest,
        DetachInternetGatewayRequest, InternetGateway,
    },
};

use crate::{
    call,
    client::Client,
    failure::Failure,
    list::ListArgs,
    output::Output,
    pages, parse,
    table::{Cell, Show, name_of},
    time::Timestamp,
};

/// Internet gateways: the way from a VPC to the world
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum gateways create --vpc vpc-00000000000000001
  gureum gateways ls
  gureum gateways detach igw-00000000000000001 vpc-00000000000000001
  gureum gateways delete igw-00000000000000001")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List internet gateways
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  gureum gateways ls\n  gureum gateways ls --filter attachment.vpc-id=vpc-00000000000000001"
    )]
    Ls(ListArgs),
    /// Make an internet gateway
    #[command(after_help = "Examples:\n  gureum gateways create --vpc vpc-00000000000000001")]
    Create {
        /// Attach it to this VPC
        #[arg(long, value_name = "ID")]
        vpc: Option<String>,
        /// Tag; may be given again
        #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse::tag)]
        tags: Vec<Tag>,
    },
    /// Attach an internet gateway to a VPC
    #[command(after_help = "Examples:\n  gureum gateways attach igw-00000000000000001 vpc-00000000000000001")]
    Attach {
        /// Gateway
        gateway: String,
        /// VPC
        vpc: String,
    },
    /// Detach an internet gateway from its VPC
    #[command(after_help = "Examples:\n  gureum gateways detach igw-00000000000000001 vpc-00000000000000001")]
    Detach {
        /// Gateway
        gateway: String,
        /// VPC
        vpc: String,
    },
    /// Delete internet gateways
    #[command(visible_alias = "rm", after_help = "Examples:\n  gureum gateways delete igw-00000000000000001")]
    Delete {
        /// Gateways
        #[arg(value_name = "GATEWAY", required = true)]
        gateways: Vec<String>,
    },
}

/// Carries the command out.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    match args.verb.unwrap_or_else(|| Verb::Ls(ListArgs::default())) {
        Verb::Ls(list) => {
            let request = DescribeInternetGatewaysRequest { filters: list.filters, ..Default::default() };
            let gateways: Vec<InternetGateway> =
                pages!(client.network().describe_internet_gateways(request).internet_gateways, list.limit)?;
            out.list(client, &gateways).await
        }
        Verb::Create { vpc, tags } => {
            let request = CreateInternetGatewayRequest { tags, ..Default::default() };
            let gateway = call!(client.network().create_internet_gateway(request))?.internet_gateway;
            match (gateway, vpc) {
                (Some(gateway), Some(vpc)) => attach(gateway.internet_gateway_id, vpc, client, out).await,
                (gateway, _) => shown(gateway, client, out).await,
            }
        }
        Verb::Attach { gateway, vpc } => attach(gateway, vpc, client, out).await,
        Verb::Detach { gateway, vpc } => {
            let request = DetachInternetGatewayRequest { internet_gateway_id: gateway, vpc_id: vpc, ..Default::default() };
            shown(call!(client.network().detach_internet_gateway(request))?.internet_gateway, client, out).await
        }
        Verb::Delete { gateways } => {
            for id in gateways {
                let request = DeleteInternetGatewayRequest { internet_gateway_id: id.clone(), ..Default::default() };
                call!(client.network().delete_internet_gateway(request))?;
                out.done(&id, "deleted")?;
            }
            Ok(())
        }
    }
}

async fn attach(gateway: String, vpc: String, client: &Client, out: &Output) -> Result<(), Failure> {
    let request = AttachInternetGatewayRequest { internet_gateway_id: gateway, vpc_id: vpc, ..Default::default() };
    shown(call!(client.network().attach_internet_gateway(request))?.internet_gateway, client, out).await
}

async fn shown(gateway: Option<InternetGateway>, client: &Client, out: &Output) -> Result<(), Failure> {
    match gateway {
        Some(gateway) => out.one(client, &gateway).await,
        None => Ok(()),
    }
}

impl Show for InternetGateway {
    const NAME: &'static str = "gureum.network.v1.InternetGateway";
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "VPC"];

    fn id(&self) -> &str {
        &self.internet_gateway_id
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        vec![self.id().into(), name_of(&self.tags).into(), (&self.vpc_id).into()]
    }
}
