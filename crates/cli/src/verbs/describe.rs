//! `gureum describe`: everything about one resource, whatever it is.

use clap::Args as ClapArgs;
use gureum_model::{Region, scope::ZONE_LETTERS};
use gureum_proto::{
    compute::v1::{
        DescribeImagesRequest, DescribeInstanceAttributeRequest, DescribeInstanceStatusRequest, DescribeInstancesRequest,
        DescribeLaunchTemplatesRequest, DescribeSnapshotsRequest, DescribeVolumesRequest, Instance, InstanceAttributeName, InstanceStatus,
        describe_instance_attribute_response::Value,
    },
    gateway::v1::DescribeWebhooksRequest,
    network::v1::{
        AvailabilityZone, DescribeAddressesRequest, DescribeAvailabilityZonesRequest, DescribeInternetGatewaysRequest,
        DescribeNetworkInterfacesRequest, DescribeRouteTablesRequest, DescribeSubnetsRequest, DescribeVpcsRequest,
    },
    security::v1::{
        DescribeKeyPairsRequest, DescribeManagedPrefixListsRequest, DescribeSecurityGroupRulesRequest, DescribeSecurityGroupsRequest,
    },
};

use crate::{
    call,
    client::Client,
    failure::Failure,
    output::Output,
    pages, parse, resolve,
    table::{Cell, Show, word},
    time::Timestamp,
};

/// Show everything about one resource
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum describe web
  gureum describe i-00000000000000001 -o json | jq .networkInterfaces
  gureum describe sg-00000000000000001
  gureum describe t3.micro
  gureum describe us-east-1a")]
pub struct Args {
    /// Any resource's id, an instance's name, an instance type, or a zone
    resource: String,
}

/// How ids begin, as a message about one that begins otherwise tells it.
const KNOWN: &str = "i-, vol-, snap-, ami-, lt-, sg-, sgr-, key-, pl-, vpc-, subnet-, eni-, eni-attach-, eipalloc-, eipassoc-, igw-, \
                     rtb-, rtbassoc- or wh-";

/// Lists one resource by its id, or whatever has that id in it, and shows it; the kind follows from the id.
macro_rules! show {
    ($client:ident, $out:ident, $id:ident, $service:ident . $method:ident ($request:ident where $filter:literal) . $items:ident) => {{
        let request = $request { filters: vec![parse::exact($filter, $id)], ..Default::default() };
        let found = pages!($client.$service().$method(request).$items, None)?;
        only($client, $out, $id, &found).await
    }};
    ($client:ident, $out:ident, $id:ident, $service:ident . $method:ident ($request:ident . $ids:ident) . $items:ident) => {{
        let request = $request { $ids: vec![$id.to_owned()], ..Default::default() };
        let found = pages!($client.$service().$method(request).$items, None)?;
        only($client, $out, $id, &found).await
    }};
}

/// Shows the resource.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    let id = args.resource.as_str();
    // The longest prefix decides: "eipalloc-" before what it begins with.
    let kind = id.rsplit_once('-').filter(|(kind, _)| resolve::is_id(id, &format!("{kind}-"))).map_or("", |(kind, _)| kind);
    match kind {
        "i" => instance(id, client, out).await,
        "vol" => show!(client, out, id, compute.describe_volumes(DescribeVolumesRequest.volume_ids).volumes),
        "snap" => show!(client, out, id, compute.describe_snapshots(DescribeSnapshotsRequest.snapshot_ids).snapshots),
        "ami" => {
            let request = DescribeImagesRequest { image_ids: vec![id.to_owned()], include_deprecated: true, ..Default::default() };
            let found = pages!(client.compute().describe_images(request).images, None)?;
            only(client, out, id, &found).await
        }
        "lt" => {
            show!(client, out, id, compute.describe_launch_templates(DescribeLaunchTemplatesRequest.launch_template_ids).launch_templates)
        }
        "sg" => show!(client, out, id, security.describe_security_groups(DescribeSecurityGroupsRequest.group_ids).security_groups),
        "sgr" => show!(
            client,
            out,
            id,
            security.describe_security_group_rules(DescribeSecurityGroupRulesRequest.security_group_rule_ids).security_group_rules
        ),
        "key" => show!(client, out, id, security.describe_key_pairs(DescribeKeyPairsRequest.key_pair_ids).key_pairs),
        "pl" => {
            show!(client, out, id, security.describe_managed_prefix_lists(DescribeManagedPrefixListsRequest.prefix_list_ids).prefix_lists)
        }
        "vpc" => show!(client, out, id, network.describe_vpcs(DescribeVpcsRequest.vpc_ids).vpcs),
        "subnet" => show!(client, out, id, network.describe_subnets(DescribeSubnetsRequest.subnet_ids).subnets),
        "eni" => show!(
            client,
            out,
            id,
            network.describe_network_interfaces(DescribeNetworkInterfacesRequest.network_interface_ids).network_interfaces
        ),
        "eni-attach" => show!(
            client,
            out,
            id,
            network
                .describe_network_interfaces(DescribeNetworkInterfacesRequest where "attachment.attachment-id")
                .network_interfaces
        ),
        "eipassoc" => show!(client, out, id, network.describe_addresses(DescribeAddressesRequest where "association-id").addresses),
        "eipalloc" => show!(client, out, id, network.describe_addresses(DescribeAddressesRequest.allocation_ids).addresses),
        "igw" => show!(
            client,
            out,
            id,
            network.describe_internet_gateways(DescribeInternetGatewaysRequest.internet_gateway_ids).internet_gateways
        ),
        "rtb" => show!(client, out, id, network.describe_route_tables(DescribeRouteTablesRequest.route_table_ids).route_tables),
        "rtbassoc" => show!(
            client,
            out,
            id,
            network.describe_route_tables(DescribeRouteTablesRequest where "association.route-table-association-id").route_tables
        ),
        "wh" => show!(client, out, id, events.describe_webhooks(DescribeWebhooksRequest.webhook_ids).webhooks),
        _ if is_type(id) => instance_type(id, client, out).await,
        _ => named(id, client, out).await,
    }
}

/// What is no id: a zone, or an instance by its name.
async fn named(name: &str, client: &Client, out: &Output) -> Result<(), Failure> {
    if is_zone(name) {
        let request = DescribeAvailabilityZonesRequest { filters: vec![parse::exact("zone-name", name)], ..Default::default() };
        let found: Vec<AvailabilityZone> = pages!(client.network().describe_availability_zones(request).availability_zones, None)?;
        if let Some(zone) = found.first() {
            return out.details(client, zone).await;
        }
    }
    match resolve::instance(client, name).await {
        Ok(id) => instance(&id, client, out).await,
        Err(Failure::NotFound { reason, message }) => {
            Err(Failure::NotFound { reason, message: format!("{message}, nor is it a zone or an instance type; ids begin with {KNOWN}") })
        }
        Err(failure) => Err(failure),
    }
}

async fn only<T: Show>(client: &Client, out: &Output, id: &str, found: &[T]) -> Result<(), Failure> {
    match found.first() {
        Some(resource) => out.details(client, resource).await,
        None => Err(Failure::NotFound { reason: "InvalidID", message: format!("there is no resource {id}") }),
    }
}

/// `t3.micro`: a family, a point, a size.
fn is_type(text: &str) -> bool {
    let plain =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    text.split_once('.').is_some_and(|(family, size)| plain(family) && plain(size) && family.bytes().any(|byte| byte.is_ascii_digit()))
}

/// `us-east-1a`: a region and a letter. Instances may have such names too.
fn is_zone(text: &str) -> bool {
    text.strip_suffix(ZONE_LETTERS).is_some_and(|region| region.parse::<Region>().is_ok())
}

async fn instance_type(name: &str, client: &Client, out: &Output) -> Result<(), Failure> {
    use gureum_proto::compute::v1::DescribeInstanceTypesRequest;
    show!(client, out, name, compute.describe_instance_types(DescribeInstanceTypesRequest.instance_types).instance_types)
}

/// The instance, and for people also its checks and its protection, which other calls tell.
async fn instance(id: &str, client: &Client, out: &Output) -> Result<(), Failure> {
    let request = DescribeInstancesRequest { instance_ids: vec![id.to_owned()], ..Default::default() };
    let found: Vec<Instance> = pages!(client.compute().describe_instances(request).instances, None)?;
    only(client, out, id, &found).await?;
    if !out.is_table() {
        return Ok(());
    }
    let request = DescribeInstanceStatusRequest { instance_ids: vec![id.to_owned()], include_all_instances: true, ..Default::default() };
    let statuses: Vec<InstanceStatus> = pages!(client.compute().describe_instance_status(request).instance_statuses, None)?;
    let mut text = String::new();
    for (name, check) in statuses.iter().flat_map(checks) {
        text.push_str(&format!("{name}: {check}\n"));
    }
    for (name, attribute) in [
        ("termination protection", InstanceAttributeName::DisableApiTermination),
        ("stop protection", InstanceAttributeName::DisableApiStop),
    ] {
        let request = DescribeInstanceAttributeRequest { instance_id: id.to_owned(), attribute: attribute.into() };
        let answer = call!(client.compute().describe_instance_attribute(request))?;
        let protected = matches!(answer.value, Some(Value::DisableApiTermination(true) | Value::DisableApiStop(true)));
        text.push_str(&format!("{name}: {}\n", if protected { "yes" } else { "no" }));
    }
    out.write(&text)
}

fn checks(status: &InstanceStatus) -> [(&'static str, String); 2] {
    let shown = |summary: Option<&gureum_proto::compute::v1::StatusSummary>| {
        summary.map(|summary| word(summary.status().as_str_name(), "CHECK_STATUS_")).unwrap_or_default()
    };
    [("instance check", shown(status.instance_status.as_ref())), ("system check", shown(status.system_status.as_ref()))]
}

impl Show for InstanceStatus {
    const NAME: &'static str = "gureum.compute.v1.InstanceStatus";
    const COLUMNS: &'static [&'static str] = &["ID", "INSTANCE", "SYSTEM"];

    fn id(&self) -> &str {
        &self.instance_id
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        let [(_, instance), (_, system)] = checks(self);
        vec![self.id().into(), Cell::state(&instance), Cell::state(&system)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_from_names() {
        assert!(is_type("t3.micro") && is_type("u-6tb1.metal") && is_type("m5.24xlarge"));
        assert!(!is_type("web") && !is_type("web.local") && !is_type(".micro") && !is_type("t3."));
    }

    #[test]
    fn zones_are_told_from_names() {
        assert!(is_zone("us-east-1a") && is_zone("ap-northeast-2c"));
        assert!(!is_zone("us-east-1") && !is_zone("us-east-1z") && !is_zone("data") && !is_zone("a"));
    }
}
