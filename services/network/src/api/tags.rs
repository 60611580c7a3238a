//! Tags of network's resources.

use gureum_model::{Filters, PageRequest, Scope, Tags, refusal::Violations};
use gureum_network_domain::tag::{self, TagChange, TagRow, TaggedId, tag_rows};
use gureum_proto::{common::v1::TagDescription, network::v1 as proto};
use gureum_service::{Error, wire};
use gureum_store::State;

use super::Api;
use crate::store::Schema;

impl Api {
    pub(super) async fn put_tags(&self, scope: Scope, request: proto::CreateTagsRequest) -> Result<proto::CreateTagsResponse, Error> {
        let mut violations = Violations::new();
        let ids = TaggedId::parse_all("resource_ids", &request.resource_ids, &mut violations);
        let tags = violations.check("", Tags::from_user("tags", wire::tag_pairs(request.tags.clone()))).unwrap_or_default();
        violations.finish()?;
        let texts = request.resource_ids.clone();
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            tag::change(draft, &ids, |id| id.field("resource_ids", &texts), &TagChange::Put(tags))?;
            Ok(proto::CreateTagsResponse {})
        });
        decide.await
    }

    pub(super) async fn remove_tags(&self, scope: Scope, request: proto::DeleteTagsRequest) -> Result<proto::DeleteTagsResponse, Error> {
        let mut violations = Violations::new();
        let ids = TaggedId::parse_all("resource_ids", &request.resource_ids, &mut violations);
        violations.finish()?;
        let removed = wire::tag_selectors(request.tags.clone());
        let texts = request.resource_ids.clone();
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            tag::change(draft, &ids, |id| id.field("resource_ids", &texts), &TagChange::Remove(removed))?;
            Ok(proto::DeleteTagsResponse {})
        });
        decide.await
    }
}

/// In the order of resource id and key.
pub fn describe(state: &State<Schema>, scope: &Scope, request: proto::DescribeTagsRequest) -> Result<proto::DescribeTagsResponse, Error> {
    let filters = Filters::for_kind::<TagRow<'_>>(wire::filters(request.filters))?;
    let page = PageRequest::new(request.page_size, &request.page_token, &("tags", scope, &filters))?;
    let prefix = format!("{scope}/");
    let mut rows = Vec::new();
    let mut add =
        |resource: TaggedId, tags: &Tags| rows.extend(tag_rows(resource, tags).filter(|row| filters.pass(row)).map(|row| shown(&row)));
    state.vpcs.scan(&prefix, None).for_each(|row| add(TaggedId::Vpc(row.id), &row.tags));
    state.subnets.scan(&prefix, None).for_each(|row| add(TaggedId::Subnet(row.id), &row.tags));
    state.gateways.scan(&prefix, None).for_each(|row| add(TaggedId::Gateway(row.id), &row.tags));
    state.route_tables.scan(&prefix, None).for_each(|row| add(TaggedId::RouteTable(row.id), &row.tags));
    state.interfaces.scan(&prefix, None).for_each(|row| add(TaggedId::Interface(row.id), &row.tags));
    state.addresses.scan(&prefix, None).for_each(|row| add(TaggedId::Address(row.id), &row.tags));
    let (tags, next_page_token) = page.select(rows, place);
    Ok(proto::DescribeTagsResponse { tags, next_page_token })
}

fn place(row: &TagDescription) -> String {
    format!("{}\0{}", row.resource_id, row.key)
}

fn shown(row: &TagRow<'_>) -> TagDescription {
    TagDescription {
        resource_id: row.resource.to_string(),
        resource_type: row.resource.resource_type().to_owned(),
        key: row.key.to_owned(),
        value: row.value.to_owned(),
    }
}
