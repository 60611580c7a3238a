//! `gureum zones`: where instances can be.

use clap::Args as ClapArgs;
use gureum_proto::network::v1::{AvailabilityZone, DescribeAvailabilityZonesRequest};

use crate::{
    client::Client,
    failure::Failure,
    list::ListArgs,
    output::Output,
    pages,
    table::{Cell, Show},
    time::Timestamp,
};

/// List the region's zones
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum zones
  gureum zones --region eu-west-1 -o id")]
pub struct Args {
    #[command(flatten)]
    list: ListArgs,
}

/// Lists zones.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    let request = DescribeAvailabilityZonesRequest { filters: args.list.filters, ..Default::default() };
    let zones: Vec<AvailabilityZone> = pages!(client.network().describe_availability_zones(request).availability_zones, args.list.limit)?;
    out.list(client, &zones).await
}

impl Show for AvailabilityZone {
    const NAME: &'static str = "gureum.network.v1.AvailabilityZone";
    const COLUMNS: &'static [&'static str] = &["NAME", "ID", "REGION", "STATE"];

    fn id(&self) -> &str {
        &self.zone_name
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        vec![self.id().into(), (&self.zone_id).into(), (&self.region_name).into(), Cell::state(&self.state)]
    }
}
