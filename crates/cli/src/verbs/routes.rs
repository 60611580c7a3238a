//! `gureum routes`: route tables and the routes in them.

use clap::{Args as ClapArgs, Subcommand};
use gureum_proto::{
    common::v1::Tag,
    network::v1::{
        AssociateRouteTableRequest, CreateRouteRequest, CreateRouteTableRequest, DeleteRouteRequest, DeleteRouteTableRequest,
        DescribeRouteTablesRequest, DisassociateRouteTableRequest, Route, RouteTable, RouteTableAssociation, create_route_request,
        route::Target,
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

/// Route tables: where packets of a subnet go
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum routes ls
  gureum routes create vpc-00000000000000001
  gureum routes add rtb-00000000000000001 0.0.0.0/0 igw-00000000000000001
  gureum routes associate rtb-00000000000000001 subnet-00000000000000001
  gureum routes show rtb-00000000000000001")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List route tables
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  gureum routes ls\n  gureum routes ls --filter vpc-id=vpc-00000000000000001"
    )]
    Ls(ListArgs),
    /// List the routes of a table
    #[command(after_help = "Examples:\n  gureum routes show rtb-00000000000000001")]
    Show {
        /// Route table
        table: String,
    },
    /// Make a route table
    #[command(after_help = "Examples:\n  gureum routes create vpc-00000000000000001")]
    Create {
        /// VPC
        vpc: String,
        /// Tag; may be given again
        #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse::tag)]
        tags: Vec<Tag>,
    },
    /// Add a route
    #[command(
        after_help = "Examples:\n  gureum routes add rtb-00000000000000001 0.0.0.0/0 igw-00000000000000001\n  gureum routes add rtb-00000000000000001 10.9.0.0/16 nat"
    )]
    Add {
        /// Route table
        table: String,
        /// Packets to these addresses
        #[arg(value_name = "CIDR")]
        destination: String,
        /// Gateway or interface by id, or instance by id or name
        target: String,
    },
    /// Remove a route
    #[command(after_help = "Examples:\n  gureum routes remove rtb-00000000000000001 0.0.0.0/0")]
    Remove {
        /// Route table
        table: String,
        /// Packets to these addresses
        #[arg(value_name = "CIDR")]
        destination: String,
    },
    /// Have a subnet use a route table
    #[command(after_help = "Examples:\n  gureum routes associate rtb-00000000000000001 subnet-00000000000000001")]
    Associate {
        /// Route table
        table: String,
        /// Subnet
        subnet: String,
    },
    /// Have a subnet use the main route table of its VPC again
    #[command(after_help = "Examples:\n  gureum routes disassociate rtbassoc-00000000000000001")]
    Disassociate {
        /// Association, as `describe` of the route table tells it
        association: String,
    },
    /// Delete route tables
    #[command(visible_alias = "rm", after_help = "Examples:\n  gureum routes delete rtb-00000000000000001")]
    Delete {
        /// Route tables
        #[arg(value_name = "TABLE", required = true)]
        tables: Vec<String>,
    },
}

/// Carries the command out.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    match args.verb.unwrap_or_else(|| Verb::Ls(ListArgs::default())) {
        Verb::Ls(list) => {
            let request = DescribeRouteTablesRequest { filters: list.filters, ..Default::default() };
            let tables: Vec<RouteTable> = pages!(client.network().describe_route_tables(request).route_tables, list.limit)?;
            out.list(client, &tables).await
        }
        Verb::Show { table } => {
            let request = DescribeRouteTablesRequest { route_table_ids: vec![table], ..Default::default() };
            let tables: Vec<RouteTable> = pages!(client.network().describe_route_tables(request).route_tables, None)?;
            let routes: Vec<Route> = tables.into_iter().flat_map(|table| table.routes).collect();
            out.list(client, &routes).await
        }
        Verb::Create { vpc, tags } => {
            let request = CreateRouteTableRequest { vpc_id: vpc, tags, ..Default::default() };
            shown(call!(client.network().create_route_table(request))?.route_table, client, out).await
        }
        Verb::Add { table, destination, target } => add(table, destination, target, client, out).await,
        Verb::Remove { table, destination } => {
            let request = DeleteRouteRequest { route_table_id: table.clone(), destination_cidr_block: destination, ..Default::default() };
            call!(client.network().delete_route(request))?;
            out.done(&table, "changed")
        }
        Verb::Associate { table, subnet } => {
            let request = AssociateRouteTableRequest { route_table_id: table, subnet_id: subnet, ..Default::default() };
            match call!(client.network().associate_route_table(request))?.association {
                Some(association) => out.one(client, &association).await,
                None => Ok(()),
            }
        }
        Verb::Disassociate { association } => {
            let request = DisassociateRouteTableRequest { association_id: association.clone(), ..Default::default() };
            call!(client.network().disassociate_route_table(request))?;
            out.done(&association, "disassociated")
        }
        Verb::Delete { tables } => {
            for id in tables {
                call!(client.network().delete_route_table(DeleteRouteTableRequest { route_table_id: id.clone(), ..Default::default() }))?;
                out.done(&id, "deleted")?;
            }
            Ok(())
        }
    }
}

async fn add(table: String, destination: String, target: String, client: &Client, out: &Output) -> Result<(), Failure> {
    use create_route_request::Target;
    let target = if resolve::is_id(&target, "igw-") {
        Target::GatewayId(target)
    } else if resolve::is_id(&target, "eni-") {
        Target::NetworkInterfaceId(target)
    } else {
        Target::InstanceId(resolve::instance(client, &target).await?)
    };
    let request =
        CreateRouteRequest { route_table_id: table, destination_cidr_block: destination, target: Some(target), ..Default::default() };
    shown(call!(client.network().create_route(request))?.route_table, client, out).await
}

async fn shown(table: Option<RouteTable>, client: &Client, out: &Output) -> Result<(), Failure> {
    match table {
        Some(table) => out.one(client, &table).await,
        None => Ok(()),
    }
}

fn target(route: &Route) -> &str {
    match &route.target {
        None => "",
        Some(Target::GatewayId(id) | Target::NetworkInterfaceId(id)) => id,
    }
}

impl Show for RouteTable {
    const NAME: &'static str = "gureum.network.v1.RouteTable";
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "VPC", "MAIN", "SUBNETS", "ROUTES"];

    fn id(&self) -> &str {
        &self.route_table_id
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        let subnets = self.associations.iter().filter(|association| !association.main).count();
        let routes = self.routes.iter().map(|route| format!("{}>{}", route.destination_cidr_block, target(route)));
        vec![
            self.id().into(),
            name_of(&self.tags).into(),
            (&self.vpc_id).into(),
            Cell::flag(self.associations.iter().any(|association| association.main)),
            subnets.to_string().into(),
            Cell::join(routes),
        ]
    }
}

impl Show for Route {
    const NAME: &'static str = "gureum.network.v1.Route";
    const COLUMNS: &'static [&'static str] = &["DESTINATION", "TARGET", "INSTANCE", "STATE"];

    fn id(&self) -> &str {
        &self.destination_cidr_block
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        vec![
            self.id().into(),
            target(self).into(),
            (&self.instance_id).into(),
            Cell::state(&word(self.state().as_str_name(), "ROUTE_STATE_")),
        ]
    }
}

impl Show for RouteTableAssociation {
    const NAME: &'static str = "gureum.network.v1.RouteTableAssociation";
    const COLUMNS: &'static [&'static str] = &["ID", "TABLE", "SUBNET", "MAIN"];

    fn id(&self) -> &str {
        &self.route_table_association_id
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        vec![self.id().into(), (&self.route_table_id).into(), (&self.subnet_id).into(), Cell::flag(self.main)]
    }
}
