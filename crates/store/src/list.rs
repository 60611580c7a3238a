//! Lists: paged, filtered, in the order of the keys, from an index where a filter has one.

use std::{borrow::Cow, sync::Arc};

use gureum_model::{Filterable, Filters, PageRequest, Refusal, Scope};

use crate::table::{IndexSink, Record, Row, Table};

/// A record that users list.
///
/// Its key must be [`Listed::list_key`] and its `index` must call [`Listed::index_filters`].
pub trait Listed: Record + Filterable {
    /// Filters that an index answers: what is asked for most, and tells resources apart best.
    const INDEXED_FILTERS: &'static [&'static str] = &[];

    fn scope(&self) -> &Scope;

    /// The key of a resource: its scope, then its id, so that one scope's rows stand together and no
    /// id ever leads into another account.
    fn list_key(scope: &Scope, id: impl std::fmt::Display) -> String
    where
        Self: Sized,
    {
        format!("{scope}/{id}")
    }

    /// Index entries for the filters, tags included.
    fn index_filters(&self, add: IndexSink<'_>) {
        let scope = self.scope();
        for name in Self::INDEXED_FILTERS {
            for value in self.filter_values(name) {
                add(name, &format_args!("{scope}/{value}"));
            }
        }
        for (key, value) in self.filter_tags().into_iter().flat_map(|tags| &tags.0) {
            add(TAG_INDEX, &format_args!("{scope}/{key}={value}"));
        }
    }
}

const TAG_INDEX: &str = "tag:";

/// One page of the scope's rows that pass the filters, and the token of the next page.
///
/// With an exact value for an indexed filter, the work is in proportion to what that filter finds.
pub fn list<R: Listed>(table: &Table<R>, scope: &Scope, filters: &Filters, page: &PageRequest) -> (Vec<Arc<Row<R>>>, String) {
    let after = page.after.as_deref();
    let wanted = page.size + 1;
    let rows: Vec<Arc<Row<R>>> = match best_index(table, scope, filters) {
        Some((index, values)) => {
            let mut rows: Vec<_> = values
                .iter()
                .flat_map(|value| table.find_after(index, value, after).filter(|row| filters.pass(&row.record)).take(wanted))
                .cloned()
                .collect();
            rows.sort_by_cached_key(|row| row.record.key());
            rows.dedup_by(|one, other| Arc::ptr_eq(one, other));
            rows.truncate(wanted);
            rows
        }
        None => {
            let prefix = format!("{scope}/");
            table.scan(&prefix, after).filter(|row| filters.pass(&row.record)).take(wanted).cloned().collect()
        }
    };
    page.cut(rows, |row| row.record.key())
}

/// Entries up to which the filters' indexes are compared. With more in each of them, a page is full early
/// or takes long whichever is read.
const COMPARED: usize = 1_000;

/// An index and the values in it that a filter asks for.
type Found = (&'static str, Vec<String>);

/// Of the indexes that answer one of the filters, the one that finds least.
fn best_index<R: Listed>(table: &Table<R>, scope: &Scope, filters: &Filters) -> Option<Found> {
    let by_name = R::INDEXED_FILTERS.iter().filter_map(|name| {
        let values = filters.exact(name)?;
        Some((*name, values.iter().map(|value| format!("{scope}/{value}")).collect()))
    });
    let by_tag = filters.iter().filter_map(|filter| {
        let key = filter.name.strip_prefix("tag:")?;
        let values = filters.exact(&filter.name)?;
        Some((TAG_INDEX, values.iter().map(|value| format!("{scope}/{key}={value}")).collect()))
    });
    let mut candidates: Vec<Found> = by_name.chain(by_tag).collect();
    let smallest = if candidates.len() > 1 { smallest(table, &candidates) } else { 0 };
    (smallest < candidates.len()).then(|| candidates.swap_remove(smallest))
}

/// Reads all at the same pace: the first to end is the smallest, and nothing is read for longer.
fn smallest<R: Listed>(table: &Table<R>, candidates: &[Found]) -> usize {
    let entries = |(index, values): &'_ Found| {
        let of_value = values.iter().map(|value| table.find(index, value)).collect::<Vec<_>>();
        of_value.into_iter().flatten()
    };
    let mut entries: Vec<_> = candidates.iter().map(entries).collect();
    for _ in 0..COMPARED {
        if let Some(ended) = entries.iter_mut().position(|entries| entries.next().is_none()) {
            return ended;
        }
    }
    0
}

/// The rows with these ids, in the order of their keys; all that do not exist are named in the refusal, each with its
/// place in the request's list `field`.
pub fn get_all<R: Listed, I: gureum_model::id::ResourceId>(
    table: &Table<R>,
    scope: &Scope,
    field: &str,
    ids: &[I],
) -> Result<Vec<Arc<Row<R>>>, Refusal> {
    let mut keys: Vec<(String, usize, I)> = ids.iter().enumerate().map(|(place, id)| (R::list_key(scope, *id), place, *id)).collect();
    keys.sort();
    keys.dedup_by(|one, other| one.0 == other.0);
    let (mut rows, mut absent) = (Vec::with_capacity(keys.len()), Vec::new());
    for (key, place, id) in keys {
        match table.get(&key) {
            Some(row) => rows.push(row.clone()),
            None => absent.push((place, id)),
        }
    }
    // As the caller wrote them.
    absent.sort_unstable();
    if absent.is_empty() { Ok(rows) } else { Err(Refusal::none_found(field, &absent)) }
}

/// A value that an index or filter takes.
pub fn text<'a>(value: impl ToString) -> Cow<'a, str> {
    Cow::Owned(value.to_string())
}
