//! Calls that name several instances: all or nothing, as in EC2.

use std::collections::BTreeSet;

use gureum_model::{
    Refusal, RefusalKind,
    id::InstanceId,
    refusal::{Violation, Violations},
};

use crate::instance::{Decision, Instance, InstanceError, StateName};

/// Instances that one call may name, as in EC2.
pub const MAX_BATCH: usize = 1000;

/// What a call did to one instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub id: InstanceId,
    pub before: StateName,
    pub after: StateName,
    /// The record to write; none where it is so already.
    pub next: Option<Box<Instance>>,
}

/// Finds every instance and decides on each; one refusal refuses the call.
///
/// Ids that do not exist are all named at once, and so are all instances whose state does not allow it. An id given twice counts once. The outcomes are in
/// the order of the request.
pub fn decide<'a>(
    ids: &[InstanceId],
    find: impl Fn(InstanceId) -> Option<&'a Instance>,
    mut decision: impl FnMut(&Instance) -> Result<Decision, InstanceError>,
) -> Result<Vec<Outcome>, Refusal> {
    let found = find_all(ids, find)?;
    let mut refusals: Vec<Refusal> = Vec::new();
    let mut outcomes = Vec::with_capacity(found.len());
    for it in found {
        let decided = match decision(it).map_err(|error| of_id(error.into(), ids, it.id)) {
            Ok(decided) => decided,
            Err(refusal) => {
                // What has no field is wrong with the whole call, and said once.
                if !refusal.violations.is_empty() || refusals.iter().all(|earlier| *earlier != refusal) {
                    refusals.push(refusal);
                }
                continue;
            }
        };
        outcomes.push(Outcome {
            id: it.id,
            before: it.state.name(),
            after: decided.after(it).state.name(),
            next: match decided {
                Decision::Unchanged => None,
                Decision::Change(next) => Some(next),
            },
        });
    }
    refusals.into_iter().reduce(Refusal::and).map_or(Ok(outcomes), Err)
}

/// The ids of a request.
///
/// Errors: `InvalidInstanceID.Malformed`, which names all that are malformed, and beside them all that do not exist.
pub fn read_ids<'a>(texts: &[String], find: impl Fn(InstanceId) -> Option<&'a Instance>) -> Result<Vec<InstanceId>, Refusal> {
    let mut violations = Violations::new();
    let read = texts.iter().enumerate().map(|(place, text)| (place, violations.id(format!("instance_ids[{place}]"), text)));
    let read: Vec<(usize, InstanceId)> = read.filter_map(|(place, id)| Some((place, id?))).collect();
    match violations.finish() {
        Ok(()) => Ok(read.into_iter().map(|(_, id)| id).collect()),
        Err(malformed) => Err(find_placed(read, find).err().into_iter().fold(malformed, Refusal::and)),
    }
}

/// A refusal because of one instance, with its place in the request; no field is to blame for a lack of capacity.
fn of_id(refusal: Refusal, ids: &[InstanceId], id: InstanceId) -> Refusal {
    if !refusal.violations.is_empty() || refusal.kind == RefusalKind::Exhausted {
        return refusal;
    }
    let place = ids.iter().position(|named| *named == id).unwrap_or_default();
    refusal.of_field(format!("instance_ids[{place}]"))
}

/// The visible instances with these ids, in the order of the request and each once.
///
/// Errors: `InvalidInstanceID.NotFound` that names all that are missing.
pub fn find_all<'a>(ids: &[InstanceId], find: impl Fn(InstanceId) -> Option<&'a Instance>) -> Result<Vec<&'a Instance>, Refusal> {
    find_placed(ids.iter().copied().enumerate(), find)
}

/// As [`find_all`], of ids with their places in the request.
fn find_placed<'a>(
    ids: impl IntoIterator<Item = (usize, InstanceId)>,
    find: impl Fn(InstanceId) -> Option<&'a Instance>,
) -> Result<Vec<&'a Instance>, Refusal> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for (place, id) in ids {
        if !seen.insert(id) {
            continue;
        }
        match find(id) {
            Some(it) => found.push(it),
            None => missing.push((place, id.to_string())),
        }
    }
    let message = match missing.as_slice() {
        [] => return Ok(found),
        [(_, one)] => format!("the instance ID '{one}' does not exist"),
        several => {
            let names = several.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>();
            format!("the instance IDs '{}' do not exist", names.join(", "))
        }
    };
    let violation =
        |(place, id)| Violation { field: format!("instance_ids[{place}]"), description: format!("the instance ID '{id}' does not exist") };
    let violations = missing.into_iter().map(violation).collect();
    Err(Refusal { violations, ..Refusal::new(RefusalKind::NotFound, "InvalidInstanceID.NotFound", message) })
}
