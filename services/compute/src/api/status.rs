//! How instances are doing.

use std::sync::Arc;

use gureum_compute_domain::{
    instance::{Instance, StateName},
    status_check::{InstanceStatus, status},
};
use gureum_model::{Filters, PageRequest, Scope, Timestamp, id::InstanceId, refusal::Violations};
use gureum_proto::compute::v1 as proto;
use gureum_service::{Error, scope, wire};
use gureum_store::{Record, Row, State};

use super::instances::find_all;
use crate::{
    convert,
    core::Core,
    store::{INSTANCE_STATE_INDEX, InstanceRow, Schema},
};

/// One page of how the caller's instances are doing.
pub async fn describe_instance_status(
    core: &Arc<Core>,
    request: proto::DescribeInstanceStatusRequest,
) -> Result<proto::DescribeInstanceStatusResponse, Error> {
    let (scope, state, now) = (scope(), core.read(), core.clock.now());
    let mut violations = Violations::new();
    let ids: Vec<InstanceId> = violations.ids("instance_ids", &request.instance_ids);
    let filters = violations.check("", Filters::for_kind::<InstanceStatus<'_>>(wire::filters(request.filters))).unwrap_or_default();
    violations.finish()?;
    let initializing = core.settings.status_initializing();
    let all = request.include_all_instances;
    let question = ("instance status", &scope, &filters, all);
    let page = PageRequest::new(request.page_size, &request.page_token, &question)?;
    let candidates: Vec<Arc<Row<InstanceRow>>> = if ids.is_empty() {
        let passes = |row: &&Arc<Row<InstanceRow>>| row.visible(now) && filters.pass(&status_of(&state, row, initializing, now));
        candidates(&state, &scope, all, &page, passes)
    } else {
        let mut rows = find_all(&state, &scope, &ids, now)?;
        rows.retain(|row| (all || row.state.name() == StateName::Running) && filters.pass(&status_of(&state, row, initializing, now)));
        rows
    };
    let (rows, next_page_token) = page.cut(candidates, |row| row.record.key());
    let shown = rows.iter().map(|row| convert::instance::status(&status_of(&state, row, initializing, now)));
    Ok(proto::DescribeInstanceStatusResponse { instance_statuses: shown.collect(), next_page_token })
}

/// One row more than the page, so that the next page is known of. Running ones come from an index.
fn candidates(
    state: &State<Schema>,
    scope: &Scope,
    all: bool,
    page: &PageRequest,
    passes: impl Fn(&&Arc<Row<InstanceRow>>) -> bool,
) -> Vec<Arc<Row<InstanceRow>>> {
    let (after, wanted) = (page.after.as_deref(), page.size + 1);
    if all {
        state.instances.scan(&format!("{scope}/"), after).filter(passes).take(wanted).cloned().collect()
    } else {
        let running = format!("{scope}/{}", StateName::Running.as_str());
        state.instances.find_after(INSTANCE_STATE_INDEX, &running, after).filter(passes).take(wanted).cloned().collect()
    }
}

fn status_of<'a>(state: &State<Schema>, it: &'a Instance, initializing: std::time::Duration, now: Timestamp) -> InstanceStatus<'a> {
    let node = it.node.and_then(|node| state.nodes.get(&node.to_string())).map(|row| row.state);
    status(it, node, initializing, now)
}
