//! Calls that name several instances: all or nothing, as in EC2.

use std::collections::BTreeMap;

use gureum_model::{Refusal, RefusalKind, id::InstanceId};

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

/// Finds every instance and decides on each; the first refusal refuses the call.
///
/// Ids that do not exist are all named at once. An id given twice counts once. The outcomes are in
/// the order of the request.
pub fn decide<'a>(
    ids: &[InstanceId],
    find: impl Fn(InstanceId) -> Option<&'a Instance>,
    mut decision: impl FnMut(&Instance) -> Result<Decision, InstanceError>,
) -> Result<Vec<Outcome>, Refusal> {
    let found = find_all(ids, find)?;
    let mut outcomes = Vec::with_capacity(found.len());
    for it in found {
        let decided = decision(it)?;
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
    Ok(outcomes)
}

/// The visible instances with these ids, in the order of the request and each once.
///
/// Errors: `InvalidInstanceID.NotFound` that names all that are missing.
pub fn find_all<'a>(ids: &[InstanceId], find: impl Fn(InstanceId) -> Option<&'a Instance>) -> Result<Vec<&'a Instance>, Refusal> {
    let mut order = BTreeMap::new();
    let mut found = Vec::with_capacity(ids.len());
    let mut missing = Vec::new();
    for id in ids {
        if order.insert(*id, ()).is_some() {
            continue;
        }
        match find(*id) {
            Some(it) => found.push(it),
            None => missing.push(id.to_string()),
        }
    }
    match missing.as_slice() {
        [] => Ok(found),
        [one] => Err(Refusal::new(RefusalKind::NotFound, "InvalidInstanceID.NotFound", format!("the instance ID '{one}' does not exist"))),
        several => Err(Refusal::new(
            RefusalKind::NotFound,
            "InvalidInstanceID.NotFound",
            format!("the instance IDs '{}' do not exist", several.join(", ")),
        )),
    }
}
