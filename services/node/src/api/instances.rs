//! Taking intents over, listing instances, forgetting them.

use std::sync::Arc;

use gureum_model::{Filters, PageRequest, Refusal, id::InstanceId, refusal::Violations};
use gureum_node_domain::{Applied, Desired, NodeInstance, apply, forget};
use gureum_proto::node::v1 as proto;
use gureum_service::{Error, wire};
use gureum_store::{Row, State};
use prost::Message;

use crate::{
    api::{read, show},
    records::{Draft, Records},
    store::{InstanceRow, Schema, instance_key},
};

/// Bytes at which a page with specifications ends: with the last item it still fits a message of 4 MiB.
const PAGE_BYTES: usize = 3 << 20;

pub async fn apply_all(records: &Records, request: proto::ApplyInstancesRequest) -> Result<proto::ApplyInstancesResponse, Error> {
    let mut violations = Violations::new();
    let mut desired = Vec::with_capacity(request.instances.len());
    for (place, item) in request.instances.into_iter().enumerate() {
        desired.extend(violations.check("", read::desired(item, &format!("instances[{place}]"))));
    }
    violations.finish()?;
    records
        .change(move |draft| {
            let results = desired.iter().map(|desired| apply_one(draft, desired)).collect();
            proto::ApplyInstancesResponse { results, sequence: draft.sequence() }
        })
        .await
}

fn apply_one(draft: &mut Draft<'_, '_>, desired: &Desired) -> proto::ApplyResult {
    let (id, now) = (desired.id, draft.now());
    let has = draft.with_known(id, show::generation_of);
    let result = |outcome: proto::ApplyOutcome, generation| proto::ApplyResult {
        instance_id: id.to_string(),
        outcome: outcome.into(),
        generation,
        ..Default::default()
    };
    match draft.with_known(id, |known| apply(known, desired, draft.room(), now)) {
        Ok(Applied::Unchanged) => result(proto::ApplyOutcome::Unchanged, has),
        Ok(Applied::Superseded { generation }) => result(proto::ApplyOutcome::Superseded, generation),
        Ok(Applied::Gone { newer }) => {
            let generation = newer.as_ref().map_or(has, |newer| newer.generation);
            if let Some(newer) = newer {
                draft.remember_end(newer);
            }
            result(proto::ApplyOutcome::Gone, generation)
        }
        Ok(Applied::Change(next)) => {
            draft.put(*next);
            result(proto::ApplyOutcome::Applied, desired.wanted.generation)
        }
        Err(error) => {
            let refusal = Refusal::from(error);
            let refused = result(proto::ApplyOutcome::Refused, has);
            proto::ApplyResult { reason: refusal.reason.to_owned(), message: refusal.message, ..refused }
        }
    }
}

pub async fn forget_all(records: &Records, request: proto::ForgetTerminatedRequest) -> Result<proto::ForgetTerminatedResponse, Error> {
    let mut violations = Violations::new();
    let mut ended = Vec::with_capacity(request.instances.len());
    for (place, item) in request.instances.iter().enumerate() {
        let id = violations.id::<InstanceId>(format!("instances[{place}].instance_id"), &item.instance_id);
        ended.extend(id.map(|id| (id, item.generation)));
    }
    violations.finish()?;
    records
        .change(move |draft| {
            let mut answer = proto::ForgetTerminatedResponse::default();
            for (id, generation) in ended {
                let place =
                    if forget_one(draft, id, generation) { &mut answer.forgotten_instance_ids } else { &mut answer.kept_instance_ids };
                place.push(id.to_string());
            }
            answer
        })
        .await
}

/// Whether the node no longer has it.
fn forget_one(draft: &mut Draft<'_, '_>, id: InstanceId, generation: u64) -> bool {
    let Some(row) = draft.row(id) else { return true };
    match forget(&row, generation, draft.now()) {
        Ok(tombstone) => {
            draft.bury(&row, tombstone);
            true
        }
        Err(refused) => {
            tracing::debug!(reason = %refused, "an instance is kept");
            false
        }
    }
}

/// The instance of an id that was read without a violation.
pub fn find(state: &State<Schema>, id: Option<InstanceId>) -> Result<Arc<Row<InstanceRow>>, Refusal> {
    let id = id.ok_or_else(|| Refusal::missing("instance_id"))?;
    state.instances.get(&instance_key(id)).cloned().ok_or_else(|| Refusal::not_found(id))
}

pub fn describe(
    state: &State<Schema>,
    request: proto::DescribeNodeInstancesRequest,
) -> Result<proto::DescribeNodeInstancesResponse, Refusal> {
    let filters = Filters::for_kind::<NodeInstance>(wire::filters(request.filters))?;
    let mut violations = Violations::new();
    let mut ids = violations.ids::<InstanceId>("instance_ids", &request.instance_ids);
    violations.finish()?;
    ids.sort();
    ids.dedup();
    let question = ("node instances", &ids, &filters, request.include_desired);
    let page = PageRequest::new(request.page_size, &request.page_token, &question)?;
    let after = page.after.as_deref();
    if ids.is_empty() {
        return Ok(page_of(state.instances.scan("", after), &filters, &page, request.include_desired));
    }
    let rows = ids.iter().map(|id| find(state, Some(*id))).collect::<Result<Vec<_>, Refusal>>()?;
    let rest = rows.iter().filter(|row| after.is_none_or(|after| *instance_key(row.id) > *after));
    Ok(page_of(rest, &filters, &page, request.include_desired))
}

fn page_of<'a>(
    rows: impl Iterator<Item = &'a Arc<Row<InstanceRow>>>,
    filters: &Filters,
    page: &PageRequest,
    include_desired: bool,
) -> proto::DescribeNodeInstancesResponse {
    let mut answer = proto::DescribeNodeInstancesResponse::default();
    let (mut bytes, mut last) = (0, None);
    for row in rows.filter(|row| filters.pass::<NodeInstance>(&row.record)) {
        let item = show::instance(row, include_desired);
        bytes += item.encoded_len();
        let full = answer.instances.len() >= page.size || (bytes > PAGE_BYTES && !answer.instances.is_empty());
        if let Some(last) = last.filter(|_| full) {
            answer.next_page_token = page.token_after(&instance_key(last)).0;
            break;
        }
        last = Some(row.id);
        answer.instances.push(item);
    }
    answer
}
