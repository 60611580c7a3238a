//! Tags of network's resources: which resource an id means, and the rows of a tag listing.

use std::borrow::Cow;

use gureum_model::{
    Filterable, Refusal, Tags,
    id::{AllocationId, InternetGatewayId, NetworkInterfaceId, ResourceId, RouteTableId, SubnetId, VpcId},
    refusal::Violations,
};

use crate::{Draft, ElasticAddress, InternetGateway, Missing, NetworkInterface, RouteTable, Subnet, View, Vpc};

/// One of this service's resources that can be tagged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaggedId {
    Address(AllocationId),
    Interface(NetworkInterfaceId),
    Gateway(InternetGatewayId),
    RouteTable(RouteTableId),
    Subnet(SubnetId),
    Vpc(VpcId),
}

impl TaggedId {
    /// Reads an id. Errors: `InvalidID` (another service's), or the kind's own code for a malformed one.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        // No prefix begins with another one that can be tagged; an attachment's would be malformed as an interface's.
        let is = |prefix: &str| text.starts_with(prefix);
        Ok(match text {
            _ if is(AllocationId::PREFIX) => Self::Address(text.parse()?),
            _ if is(NetworkInterfaceId::PREFIX) => Self::Interface(text.parse()?),
            _ if is(InternetGatewayId::PREFIX) => Self::Gateway(text.parse()?),
            _ if is(RouteTableId::PREFIX) => Self::RouteTable(text.parse()?),
            _ if is(SubnetId::PREFIX) => Self::Subnet(text.parse()?),
            _ if is(VpcId::PREFIX) => Self::Vpc(text.parse()?),
            _ => {
                let text = format!(
                    "The ID '{text}' is not valid: expected the id of a VPC (vpc-), a subnet (subnet-), a network interface (eni-), an internet \
                     gateway (igw-), a route table (rtb-) or an elastic IP (eipalloc-)"
                );
                return Err(Refusal::invalid_as("InvalidID", "resource_ids", text));
            }
        })
    }

    /// Reads ids; a bad one is named by its place, one that is given twice counts once.
    pub fn parse_all(field: &str, texts: &[String], violations: &mut Violations) -> Vec<Self> {
        let mut ids = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter().enumerate() {
            ids.extend(violations.check(format!("{field}[{place}]"), Self::parse(text)));
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Where it stands in a request's list of ids.
    pub fn field(self, list: &str, texts: &[String]) -> String {
        let place = texts.iter().position(|text| Self::parse(text) == Ok(self)).unwrap_or_default();
        format!("{list}[{place}]")
    }

    /// EC2's word for the kind.
    pub fn resource_type(self) -> &'static str {
        match self {
            Self::Address(_) => "elastic-ip",
            Self::Interface(_) => "network-interface",
            Self::Gateway(_) => "internet-gateway",
            Self::RouteTable(_) => "route-table",
            Self::Subnet(_) => "subnet",
            Self::Vpc(_) => "vpc",
        }
    }
}

impl std::fmt::Display for TaggedId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(id) => id.fmt(f),
            Self::Interface(id) => id.fmt(f),
            Self::Gateway(id) => id.fmt(f),
            Self::RouteTable(id) => id.fmt(f),
            Self::Subnet(id) => id.fmt(f),
            Self::Vpc(id) => id.fmt(f),
        }
    }
}

/// A change of tags, the same for every resource that a call names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagChange {
    /// Adds or overwrites.
    Put(Tags),
    /// Removes these keys, a pair with a value only where it has that value; an empty list removes all.
    Remove(Vec<(String, Option<String>)>),
}

impl TagChange {
    /// The tags after the change. Error: `TagLimitExceeded`.
    pub fn apply(&self, tags: &Tags) -> Result<Tags, Refusal> {
        match self {
            Self::Put(added) => tags.with(added),
            Self::Remove(removed) => Ok(tags.without(removed)),
        }
    }
}

/// Changes the tags of all these resources, or of none. Errors: `Invalid….NotFound`, `TagLimitExceeded`.
///
/// `field` says where an id stands in the request; all that do not exist are named.
pub fn change(
    draft: &mut Draft<impl View>,
    ids: &[TaggedId],
    field: impl Fn(TaggedId) -> String,
    change: &TagChange,
) -> Result<(), Refusal> {
    let exists = |id: &TaggedId| find(draft, *id).map(drop).map_err(|missing| Refusal::from(missing).of_field(field(*id)));
    Refusal::all(ids.iter().map(exists))?;
    for id in ids {
        let tags = change.apply(find(draft, *id)?)?;
        match *id {
            TaggedId::Address(id) => {
                let next = ElasticAddress { tags, ..draft.address(id)?.clone() };
                draft.put_address(next);
            }
            TaggedId::Interface(id) => {
                let next = NetworkInterface { tags, ..draft.interface(id)?.clone() };
                draft.put_interface(next);
            }
            TaggedId::Gateway(id) => {
                let next = InternetGateway { tags, ..draft.gateway(id)?.clone() };
                draft.put_gateway(next);
            }
            TaggedId::RouteTable(id) => {
                let next = RouteTable { tags, ..draft.route_table(id)?.clone() };
                draft.put_route_table(next);
            }
            TaggedId::Subnet(id) => {
                let next = Subnet { tags, ..draft.subnet(id)?.clone() };
                draft.put_subnet(next);
            }
            TaggedId::Vpc(id) => {
                let next = Vpc { tags, ..draft.vpc(id)?.clone() };
                draft.put_vpc(next);
            }
        }
    }
    Ok(())
}

fn find<'a>(draft: &'a Draft<impl View>, id: TaggedId) -> Result<&'a Tags, Missing> {
    Ok(match id {
        TaggedId::Address(id) => &draft.address(id)?.tags,
        TaggedId::Interface(id) => &draft.interface(id)?.tags,
        TaggedId::Gateway(id) => &draft.gateway(id)?.tags,
        TaggedId::RouteTable(id) => &draft.route_table(id)?.tags,
        TaggedId::Subnet(id) => &draft.subnet(id)?.tags,
        TaggedId::Vpc(id) => &draft.vpc(id)?.tags,
    })
}

/// One tag of one resource: a row of a tag listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TagRow<'a> {
    pub resource: TaggedId,
    pub key: &'a str,
    pub value: &'a str,
}

/// The rows of one resource's tags, by key.
pub fn tag_rows(resource: TaggedId, tags: &Tags) -> impl Iterator<Item = TagRow<'_>> {
    tags.0.iter().map(move |(key, value)| TagRow { resource, key, value })
}

impl Filterable for TagRow<'_> {
    const FILTER_NAMES: &'static [&'static str] = &["key", "resource-id", "resource-type", "value"];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "key" | "tag-key" => vec![Cow::Borrowed(self.key)],
            "resource-id" => vec![Cow::Owned(self.resource.to_string())],
            "resource-type" => vec![Cow::Borrowed(self.resource.resource_type())],
            "value" => vec![Cow::Borrowed(self.value)],
            _ => Vec::new(),
        }
    }

    /// A row is of one tag.
    fn filter_tag(&self, key: &str) -> Option<&str> {
        (key == self.key).then_some(self.value)
    }
}
