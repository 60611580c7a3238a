//! The one way in which every kind is listed: by ids, or by filters and pages.

use std::sync::Arc;

use gureum_model::{Filters, PageRequest, Scope, id::ResourceId, refusal::Violations};
use gureum_proto::common::v1::Filter;
use gureum_service::{Error, wire};
use gureum_store::{Listed, Row, Table, list, list::get_all};

/// The rows of a page, and the token of the next one.
pub type Page<R> = (Vec<Arc<Row<R>>>, String);

/// A page of a table and the token of the next one. With ids, all of them, each of which must exist.
pub fn page<R: Listed, I: ResourceId>(
    table: &Table<R>,
    scope: &Scope,
    (field, ids): (&str, &[String]),
    filters: Vec<Filter>,
    page_size: i32,
    page_token: &str,
) -> Result<Page<R>, Error> {
    let mut violations = Violations::new();
    let ids: Vec<I> = violations.ids(field, ids);
    let filters = violations.check("", Filters::for_kind::<R>(wire::filters(filters))).unwrap_or_default();
    violations.finish()?;
    if !ids.is_empty() {
        let rows = get_all(table, scope, field, &ids)?;
        return Ok((rows.into_iter().filter(|row| filters.pass(&row.record)).collect(), String::new()));
    }
    let page = PageRequest::new(page_size, page_token, &(R::TABLE, scope, &filters))?;
    Ok(list(table, scope, &filters, &page))
}
