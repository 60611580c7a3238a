//! Tags of groups, rules, key pairs and prefix lists.

use gureum_model::{Filters, PageRequest, Refusal, RefusalKind, Scope, Tags, refusal::Violations};
use gureum_proto::{common::v1::TagDescription, security::v1 as proto};
use gureum_security_domain::{
    Directory,
    tag::{TagChange, TagRow, TaggedId},
};
use gureum_service::{Error, mutate, wire};
use gureum_store::{Listed, State};

use super::{Api, groups::group_of_rule};
use crate::store::{Happened, KeyPairRow, Schema, View, write_group, write_key_pair, write_prefix_list};

impl Api {
    pub(super) async fn put_tags(&self, scope: Scope, request: proto::CreateTagsRequest) -> Result<proto::CreateTagsResponse, Error> {
        let mut violations = Violations::new();
        let ids = TaggedId::parse_all("resource_ids", &request.resource_ids, &mut violations);
        let tags = violations.check("", Tags::from_user("tags", wire::tag_pairs(request.tags.clone()))).unwrap_or_default();
        violations.finish()?;
        let decide = change(scope.clone(), request.resource_ids.clone(), ids, TagChange::Put(tags));
        mutate(&self.store, &scope, &request, move |transaction| decide(transaction).map(|()| proto::CreateTagsResponse {})).await
    }

    pub(super) async fn remove_tags(&self, scope: Scope, request: proto::DeleteTagsRequest) -> Result<proto::DeleteTagsResponse, Error> {
        let mut violations = Violations::new();
        let ids = TaggedId::parse_all("resource_ids", &request.resource_ids, &mut violations);
        violations.finish()?;
        let decide = change(scope.clone(), request.resource_ids.clone(), ids, TagChange::Remove(wire::tag_selectors(request.tags.clone())));
        mutate(&self.store, &scope, &request, move |transaction| decide(transaction).map(|()| proto::DeleteTagsResponse {})).await
    }
}

type Transaction<'a> = gureum_store::Transaction<'a, Schema>;

/// All resources are changed or none: a refusal leaves nothing of the write.
fn change(
    scope: Scope,
    texts: Vec<String>,
    ids: Vec<TaggedId>,
    change: TagChange,
) -> impl FnOnce(&mut Transaction<'_>) -> Result<(), Refusal> + Send + 'static {
    move |transaction| {
        let changed = ids.iter().map(|id| {
            let at = |refusal: Refusal| {
                if refusal.kind == RefusalKind::NotFound { refusal.of_field(id.field("resource_ids", &texts)) } else { refusal }
            };
            change_one(transaction, &scope, *id, &change).map_err(at)
        });
        Refusal::all(changed).map(drop)
    }
}

fn change_one(transaction: &mut Transaction<'_>, scope: &Scope, id: TaggedId, change: &TagChange) -> Result<(), Refusal> {
    let view = View { tables: transaction, scope };
    match id {
        TaggedId::Group(group) => {
            let next = change.apply_to_group(view.group(group).ok_or_else(|| id.not_found())?)?;
            write_group(transaction, next, Happened::Changed);
        }
        TaggedId::Rule(rule) => {
            let group = group_of_rule(transaction, scope, rule).ok_or_else(|| id.not_found())?;
            write_group(transaction, change.apply_to_rule(&group, rule)?, Happened::Changed);
        }
        TaggedId::KeyPair(pair) => {
            let found = transaction.key_pairs.get(&KeyPairRow::list_key(scope, pair)).ok_or_else(|| id.not_found())?;
            let next = change.apply_to_key_pair(&found.record.0)?;
            write_key_pair(transaction, next, Happened::Changed);
        }
        TaggedId::PrefixList(list) => {
            let next = change.apply_to_prefix_list(view.prefix_list(list).ok_or_else(|| id.not_found())?)?;
            write_prefix_list(transaction, next, Happened::Changed);
        }
    }
    Ok(())
}

/// In the order of resource id and key.
pub fn describe(state: &State<Schema>, scope: &Scope, request: proto::DescribeTagsRequest) -> Result<proto::DescribeTagsResponse, Refusal> {
    let filters = Filters::for_kind::<TagRow<'_>>(wire::filters(request.filters))?;
    let page = PageRequest::new(request.page_size, &request.page_token, &("tags", scope, &filters))?;
    let prefix = format!("{scope}/");
    let mut rows = Vec::new();
    for row in state.groups.scan(&prefix, None) {
        rows.extend(row.record.0.tag_rows().filter(|row| filters.pass(row)).map(|row| shown(&row)));
    }
    for row in state.key_pairs.scan(&prefix, None) {
        rows.extend(row.record.0.tag_rows().filter(|row| filters.pass(row)).map(|row| shown(&row)));
    }
    for row in state.prefix_lists.scan(&prefix, None) {
        rows.extend(row.record.0.tag_rows().filter(|row| filters.pass(row)).map(|row| shown(&row)));
    }
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
