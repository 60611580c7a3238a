//! Prefix lists: create, describe, entries, modify, delete.

use gureum_model::{Filters, PageRequest, Refusal, Scope, Tags, id::PrefixListId, refusal::Violations};
use gureum_proto::security::v1 as proto;
use gureum_security_domain::{
    Directory, PrefixList,
    prefix_list::{self, EntryInput, ModifyInput, NewList, PrefixListEntry, PrefixListError},
};
use gureum_service::{Answer, Error, mutate, wire};
use gureum_store::{Listed, State, list, list::get_all};

use super::{Api, convert};
use crate::store::{Happened, PrefixListRow, Schema, View, write_prefix_list};

impl Api {
    pub(super) async fn create_prefix_list(
        &self,
        scope: Scope,
        request: proto::CreateManagedPrefixListRequest,
    ) -> Result<proto::CreateManagedPrefixListResponse, Error> {
        let mut violations = Violations::new();
        let tags = violations.check("", Tags::from_user("tags", wire::tag_pairs(request.tags.clone()))).unwrap_or_default();
        let entries = inputs(&request.entries);
        let (name, family) = (&request.prefix_list_name, &request.address_family);
        let new = NewList::parse(name, family, request.max_entries, &entries, tags, &mut violations);
        violations.finish()?;
        let new = new.ok_or_else(|| Error::Internal("a prefix list without violations was not read".into()))?;
        let (id, scope_of_list) = (self.ids.next(), scope.clone());
        mutate(&self.store, &scope, &request, move |transaction| {
            let view = View { tables: transaction, scope: &scope_of_list };
            let created = prefix_list::create(new, &scope_of_list, id, view.prefix_list_count())?;
            let answer = proto::CreateManagedPrefixListResponse { prefix_list: Some(convert::prefix_list(&created)) };
            let key = PrefixListRow::list_key(&created.scope, created.id);
            write_prefix_list(transaction, created, Happened::Created);
            Ok(Answer::created::<PrefixListRow>(answer, key))
        })
        .await
    }

    pub(super) async fn modify_prefix_list(
        &self,
        scope: Scope,
        request: proto::ModifyManagedPrefixListRequest,
    ) -> Result<proto::ModifyManagedPrefixListResponse, Error> {
        let mut violations = Violations::new();
        let id: Option<PrefixListId> = violations.id("prefix_list_id", &request.prefix_list_id);
        let input = ModifyInput {
            current_version: request.current_version,
            name: request.prefix_list_name.clone(),
            add: inputs(&request.add_entries),
            remove: request.remove_entries.iter().map(|entry| entry.cidr.clone()).collect(),
            max_entries: request.max_entries,
        };
        let change = input.parse(&mut violations);
        violations.finish()?;
        let id = id.ok_or_else(|| Refusal::missing("prefix_list_id"))?;
        let scope_of_list = scope.clone();
        mutate(&self.store, &scope, &request, move |transaction| {
            let view = View { tables: transaction, scope: &scope_of_list };
            let next = prefix_list::modify(find(&view, id)?, &change, &view.naming_list(id), &view)?;
            let answer = proto::ModifyManagedPrefixListResponse { prefix_list: Some(convert::prefix_list(&next)) };
            write_prefix_list(transaction, next, Happened::Changed);
            Ok(answer)
        })
        .await
    }

    pub(super) async fn delete_prefix_list(
        &self,
        scope: Scope,
        request: proto::DeleteManagedPrefixListRequest,
    ) -> Result<proto::DeleteManagedPrefixListResponse, Error> {
        let id: PrefixListId = Refusal::parse_id("prefix_list_id", &request.prefix_list_id)?;
        let scope_of_list = scope.clone();
        mutate(&self.store, &scope, &request, move |transaction| {
            let view = View { tables: transaction, scope: &scope_of_list };
            let gone = find(&view, id)?.clone();
            prefix_list::delete(&gone, &view.naming_list(id))?;
            let state = proto::PrefixListState::DeleteComplete.into();
            let last = proto::ManagedPrefixList { state, ..convert::prefix_list(&gone) };
            write_prefix_list(transaction, gone, Happened::Deleted);
            Ok(proto::DeleteManagedPrefixListResponse { prefix_list: Some(last) })
        })
        .await
    }
}

fn inputs(entries: &[proto::PrefixListEntry]) -> Vec<EntryInput> {
    entries.iter().map(|entry| EntryInput { cidr: entry.cidr.clone(), description: entry.description.clone() }).collect()
}

fn find<'a>(view: &'a View<'_>, id: PrefixListId) -> Result<&'a PrefixList, Refusal> {
    view.prefix_list(id).ok_or_else(|| Refusal::not_found(id).of_field("prefix_list_id"))
}

pub fn describe(
    state: &State<Schema>,
    scope: &Scope,
    request: proto::DescribeManagedPrefixListsRequest,
) -> Result<proto::DescribeManagedPrefixListsResponse, Refusal> {
    let mut violations = Violations::new();
    let ids: Vec<PrefixListId> = violations.ids("prefix_list_ids", &request.prefix_list_ids);
    let filters = violations.check("", Filters::for_kind::<PrefixListRow>(wire::filters(request.filters))).unwrap_or_default();
    violations.finish()?;
    let (rows, next_page_token) = if ids.is_empty() {
        let page = PageRequest::new(request.page_size, &request.page_token, &("prefix lists", scope, &filters))?;
        list(&state.prefix_lists, scope, &filters, &page)
    } else {
        (
            get_all(&state.prefix_lists, scope, "prefix_list_ids", &ids)?.into_iter().filter(|row| filters.pass(&row.record)).collect(),
            String::new(),
        )
    };
    let prefix_lists = rows.iter().map(|row| convert::prefix_list(row)).collect();
    Ok(proto::DescribeManagedPrefixListsResponse { prefix_lists, next_page_token })
}

/// The entries of one version, by CIDR.
pub fn entries(
    state: &State<Schema>,
    scope: &Scope,
    request: proto::GetManagedPrefixListEntriesRequest,
) -> Result<proto::GetManagedPrefixListEntriesResponse, Refusal> {
    let id: PrefixListId = Refusal::parse_id("prefix_list_id", &request.prefix_list_id)?;
    let view = View { tables: state, scope };
    let current = find(&view, id)?;
    let wanted = request.target_version.unwrap_or_else(|| i64::try_from(current.version).unwrap_or(i64::MAX));
    let entries = match u64::try_from(wanted) {
        Ok(version) if version == current.version => Some(current.entries.as_slice()),
        Ok(version) => view.prefix_list_version(id, version),
        Err(_) => None,
    };
    let missing =
        || PrefixListError::NoVersion { id, version: wanted, oldest: prefix_list::oldest_kept(current.version), current: current.version };
    let entries = entries.ok_or_else(missing)?;
    let page = PageRequest::new(request.page_size, &request.page_token, &("prefix list entries", scope, id, wanted))?;
    // The next page begins by its place: a version's entries never change.
    let from = page.after.as_deref().and_then(|after| after.parse::<usize>().ok()).map_or(0, |last| last + 1);
    let rest = entries.iter().enumerate().skip(from).take(page.size + 1).collect();
    let (rows, next_page_token) = page.cut(rest, |(place, _): &(usize, &PrefixListEntry)| place.to_string());
    let entries = rows.into_iter().map(|(_, entry)| convert::prefix_list_entry(entry)).collect();
    Ok(proto::GetManagedPrefixListEntriesResponse { entries, next_page_token })
}
