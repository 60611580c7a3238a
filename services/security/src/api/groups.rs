//! Security groups: create, describe, delete.

use gureum_model::{Filters, PageRequest, Refusal, Scope, Tags, id::SecurityGroupId, id::VpcId, refusal::Violations};
use gureum_proto::security::v1 as proto;
use gureum_security_domain::{
    Directory,
    group::{self, GroupError, GroupSelector, NewGroup, by_group_id, name_key},
};
use gureum_service::{Answer, Error, mutate, wire};
use gureum_store::{Listed, Record, State, list, list::get_all};

use super::{Api, convert};
use crate::store::{GroupRow, Happened, Schema, View, write_group};

impl Api {
    pub(super) async fn create_group(
        &self,
        scope: Scope,
        request: proto::CreateSecurityGroupRequest,
    ) -> Result<proto::CreateSecurityGroupResponse, Error> {
        let mut violations = Violations::new();
        let tags = violations.check("", Tags::from_user("tags", wire::tag_pairs(request.tags.clone()))).unwrap_or_default();
        let wanted = violations.optional_id::<VpcId>("vpc_id", &request.vpc_id);
        let new = NewGroup::parse(&request.group_name, &request.description, tags, &mut violations);
        violations.finish()?;
        let new = new.ok_or_else(|| Error::Internal("a group without violations was not read".into()))?;
        let (ids, scope_of_group) = (self.ids.clone(), scope.clone());
        mutate(&self.store, &scope, &request, move |transaction| {
            let view = View { tables: transaction, scope: &scope_of_group };
            let vpc = match wanted {
                Some(id) => view.vpc(id).ok_or_else(|| Refusal::not_found(id).of_field("vpc_id"))?,
                None => view.default_vpc().ok_or(GroupError::NoDefaultVpc)?,
            };
            let created = group::create(new, vpc, view.group_count(), &ids, &view)?;
            let answer = proto::CreateSecurityGroupResponse { security_group: Some(convert::group(&created)) };
            let key = GroupRow::list_key(&created.scope, created.id);
            write_group(transaction, created, Happened::Created);
            Ok(Answer::created::<GroupRow>(answer, key))
        })
        .await
    }

    pub(super) async fn delete_group(
        &self,
        scope: Scope,
        request: proto::DeleteSecurityGroupRequest,
    ) -> Result<proto::DeleteSecurityGroupResponse, Error> {
        let selector = parse_selector(&request.group_id, &request.group_name)?;
        let scope_of_group = scope.clone();
        mutate(&self.store, &scope, &request, move |transaction| {
            let view = View { tables: transaction, scope: &scope_of_group };
            let gone = selector.find(view.default_vpc(), &view)?.clone();
            group::delete(&gone, &view.holders_of(gone.id), &view.naming(gone.id))?;
            let answer = proto::DeleteSecurityGroupResponse { group_id: gone.id.to_string() };
            write_group(transaction, gone, Happened::Deleted);
            Ok(answer)
        })
        .await
    }
}

/// The group that a request names, by id or name.
pub fn parse_selector(group_id: &str, group_name: &str) -> Result<GroupSelector, Refusal> {
    let mut violations = Violations::new();
    let selector = GroupSelector::parse(group_id, group_name, &mut violations);
    violations.finish()?;
    selector.ok_or_else(|| Refusal::missing("group_id"))
}

pub fn describe(
    state: &State<Schema>,
    scope: &Scope,
    request: proto::DescribeSecurityGroupsRequest,
) -> Result<proto::DescribeSecurityGroupsResponse, Refusal> {
    let mut violations = Violations::new();
    let mut ids: Vec<SecurityGroupId> = violations.ids("group_ids", &request.group_ids);
    let filters = violations.check("", Filters::for_kind::<GroupRow>(wire::filters(request.filters))).unwrap_or_default();
    violations.finish()?;
    let asked = filters.clone();
    let filters = by_group_id(filters, |passes| {
        let own = state.groups.scan(&format!("{scope}/"), None);
        own.filter(|row| passes(&row.name)).map(|row| row.id).collect()
    });
    let named = !ids.is_empty() || !request.group_names.is_empty();
    let (by_id, by_name) =
        Refusal::both(get_all(&state.groups, scope, "group_ids", &ids), named_in_default_vpc(state, scope, &request.group_names))?;
    drop(by_id);
    ids.extend(by_name);
    let (rows, next_page_token) = if named {
        let rows = get_all(&state.groups, scope, "group_ids", &ids)?;
        (rows.into_iter().filter(|row| filters.pass(&row.record)).collect(), String::new())
    } else {
        let page = PageRequest::new(request.page_size, &request.page_token, &("groups", scope, &asked))?;
        list(&state.groups, scope, &filters, &page)
    };
    Ok(proto::DescribeSecurityGroupsResponse { security_groups: rows.iter().map(|row| convert::group(row)).collect(), next_page_token })
}

fn named_in_default_vpc(state: &State<Schema>, scope: &Scope, names: &[String]) -> Result<Vec<SecurityGroupId>, Refusal> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let view = View { tables: state, scope };
    let vpc = view.default_vpc().ok_or(GroupError::NoDefaultVpc)?.id;
    let find = |(place, name): (usize, &String)| match view.group_named(vpc, &name_key(name)) {
        Some(group) => Ok(group.id),
        None => Err(Refusal::from(GroupError::NameNotFound { name: name.clone(), vpc }).of_field(format!("group_names[{place}]"))),
    };
    Refusal::all(names.iter().enumerate().map(find))
}

/// Where a rule's group is found by the rule's id.
pub fn group_of_rule(
    state: &Schema,
    scope: &Scope,
    rule: gureum_model::id::SecurityGroupRuleId,
) -> Option<gureum_security_domain::SecurityGroup> {
    let found = state.groups.find(crate::store::BY_RULE, &format!("{scope}/{rule}")).next()?;
    debug_assert!(found.key().starts_with(&scope.to_string()));
    Some(found.record.0.clone())
}
