//! Instances: what there are, and starting, stopping, rebooting and ending them.

use std::sync::Arc;

use gureum_compute_domain::{
    batch::{self, Outcome},
    instance::{Decision, Instance, InstanceError, StateName},
    reboot, start,
    stop::{self, StopMode},
    terminate,
};
use gureum_model::{Filters, PageRequest, Refusal, Scope, Timestamp, id::InstanceId, refusal::Violations};
use gureum_proto::{Mutation, compute::v1 as proto};
use gureum_service::{Error, mutate, reconcile::Reconcile, scope, wire};
use gureum_store::{Listed, Record, Row, State, list};
use prost::Message;

use crate::{
    convert,
    core::Core,
    fleet::reach_of,
    reconcile::{instances::Instances, interfaces::Interfaces},
    store::{InstanceRow, Schema, Tx, put_instance},
};

/// One page of the caller's instances.
pub async fn describe_instances(
    core: &Arc<Core>,
    request: proto::DescribeInstancesRequest,
) -> Result<proto::DescribeInstancesResponse, Error> {
    let mut violations = Violations::new();
    let filters = violations.check("", Filters::for_kind::<Instance>(wire::filters(request.filters))).unwrap_or_default();
    let (ids, ()) = Refusal::both(read_ids(core, &request.instance_ids), violations.finish())?;
    core.network_followed.catch_up().await?;
    let (scope, state, now) = (scope(), core.read(), core.clock.now());
    let (rows, next_page_token) = if ids.is_empty() {
        let page = PageRequest::new(request.page_size, &request.page_token, &("instances", &scope, &filters))?;
        list(&state.instances, &scope, &filters, &page)
    } else {
        (find_all(&state, &scope, &ids, now)?, String::new())
    };
    let passing = rows.iter().filter(|row| row.visible(now) && filters.pass(&row.record));
    let instances = passing.map(|row| with_setback(core, row, shown(&state, row, now)));
    Ok(proto::DescribeInstancesResponse { instances: instances.collect(), next_page_token })
}

/// A step that fails says more than what it would lead to.
fn with_setback(core: &Core, row: &InstanceRow, shown: proto::Instance) -> proto::Instance {
    let key = row.key();
    let setback = core.setbacks.of(Instances::NAME, &key).or_else(|| core.setbacks.of(Interfaces::NAME, &key));
    match setback {
        // What is over lacks nothing that its user could see.
        Some(waiting_reason) if row.state.name() != StateName::Terminated => proto::Instance { waiting_reason, ..shown },
        Some(_) | None => shown,
    }
}

/// An instance as a call shows it.
pub fn shown(tables: &Schema, it: &Instance, now: Timestamp) -> proto::Instance {
    let node = it.node.map_or(gureum_compute_domain::plan::Reach::Lost, |node| reach_of(tables, node));
    convert::instance::shown(it, node, now)
}

/// The visible instances with these ids, in ascending order. Errors: `InvalidInstanceID.NotFound`, all named.
pub fn find_all(state: &State<Schema>, scope: &Scope, ids: &[InstanceId], now: Timestamp) -> Result<Vec<Arc<Row<InstanceRow>>>, Refusal> {
    let mut found = batch::find_all(ids, |id| find(state, scope, id, now))?;
    found.sort_unstable_by_key(|it| it.id);
    Ok(found.iter().filter_map(|it| state.instances.get(&InstanceRow::list_key(scope, it.id)).cloned()).collect())
}

/// An instance that users still see.
pub fn find<'a>(tables: &'a Schema, scope: &Scope, id: InstanceId, now: Timestamp) -> Option<&'a Instance> {
    tables.instances.get(&InstanceRow::list_key(scope, id)).map(|row| &row.record.0).filter(|it| it.visible(now))
}

/// As [`find`], but refuses with `InvalidInstanceID.NotFound`.
pub fn get<'a>(tables: &'a Schema, scope: &Scope, id: InstanceId, now: Timestamp) -> Result<&'a Instance, Refusal> {
    Ok(find(tables, scope, id, now).ok_or(InstanceError::NotFound { id })?)
}

/// The instances that a call names. Errors: `InvalidInstanceID.Malformed`, each named, and beside them each that does not exist.
pub fn read_ids(core: &Core, texts: &[String]) -> Result<Vec<InstanceId>, Refusal> {
    let (scope, state, now) = (scope(), core.read(), core.clock.now());
    batch::read_ids(texts, |id| find(&state, &scope, id, now))
}

/// What a call says, and of which instance. Errors: all that is wrong with either, also that there is no such instance.
pub fn read_for<T>(core: &Core, id: &str, read: Result<T, Refusal>) -> Result<(InstanceId, T), Refusal> {
    let id = Refusal::parse_id("instance_id", id);
    let id = if read.is_ok() { id } else { id.and_then(|id| get(&core.read(), &scope(), id, core.clock.now()).map(|it| it.id)) };
    Refusal::both(id, read)
}

/// Decides on several instances, all or nothing, and writes those that change.
///
/// `settle` runs once all decisions stand, before anything is written.
async fn change<Q, A, S>(
    core: &Arc<Core>,
    request: &Q,
    ids: Vec<InstanceId>,
    mut decide: impl FnMut(&Instance, Timestamp) -> Result<Decision, InstanceError> + Send + 'static,
    settle: S,
) -> Result<A, Error>
where
    Q: Mutation,
    A: Message + Default + 'static,
    S: FnOnce(&[Outcome], &mut Tx<'_>) -> A + Send + 'static,
{
    let (scope, places) = (scope(), core.places.clone());
    mutate(&core.store, &scope.clone(), request, move |tx| {
        let now = tx.now();
        let outcomes = {
            let tables: &Schema = tx;
            batch::decide(&ids, |id| find(tables, &scope, id, now), |it| decide(it, now))?
        };
        let answer = settle(&outcomes, tx);
        for next in outcomes.into_iter().filter_map(|outcome| outcome.next) {
            put_instance(tx, &places, *next, "");
        }
        Ok(answer)
    })
    .await
}

fn changes(outcomes: &[Outcome]) -> Vec<proto::InstanceStateChange> {
    let change = |outcome: &Outcome| proto::InstanceStateChange {
        instance_id: outcome.id.to_string(),
        previous_state: convert::instance::state(outcome.before).into(),
        current_state: convert::instance::state(outcome.after).into(),
    };
    outcomes.iter().map(change).collect()
}

/// Starts stopped instances. Their places are set aside in the decision, and given back if it refuses.
pub async fn start_instances(core: &Arc<Core>, request: proto::StartInstancesRequest) -> Result<proto::StartInstancesResponse, Error> {
    let ids = read_ids(core, &request.instance_ids)?;
    let (scope, places, random, dry_run) = (scope(), core.places.clone(), core.random(), request.dry_run);
    mutate(&core.store, &scope.clone(), &request, move |tx| {
        let now = tx.now();
        let mut reservation = places.reserve();
        let outcomes = {
            let tables: &Schema = tx;
            let mut number = random;
            let decide = |it: &Instance| {
                let place = start::needs_place(it).then(|| {
                    number = number.wrapping_add(1);
                    reservation.one(it.id, it.zone, it.kind.capacity, it.node, number)
                });
                start::start(it, place.flatten(), now)
            };
            batch::decide(&ids, |id| find(tables, &scope, id, now), decide)?
        };
        let answer = proto::StartInstancesResponse { changes: changes(&outcomes) };
        if dry_run {
            // What follows is refused with DryRunOperation; the places go back here.
            return Ok(answer);
        }
        for next in outcomes.into_iter().filter_map(|outcome| outcome.next) {
            put_instance(tx, &places, *next, "");
        }
        reservation.keep();
        Ok(answer)
    })
    .await
}

/// Stops instances.
pub async fn stop_instances(core: &Arc<Core>, request: proto::StopInstancesRequest) -> Result<proto::StopInstancesResponse, Error> {
    let ids = read_ids(core, &request.instance_ids)?;
    let mode = StopMode { force: request.force, hibernate: request.hibernate };
    let decide = move |it: &Instance, now| stop::stop(it, mode, now);
    change(core, &request, ids, decide, |outcomes, _| proto::StopInstancesResponse { changes: changes(outcomes) }).await
}

/// Reboots running instances.
pub async fn reboot_instances(core: &Arc<Core>, request: proto::RebootInstancesRequest) -> Result<proto::RebootInstancesResponse, Error> {
    let ids = read_ids(core, &request.instance_ids)?;
    change(core, &request, ids, |it, _| reboot::reboot(it), |_, _| proto::RebootInstancesResponse {}).await
}

/// Ends instances for good.
pub async fn terminate_instances(
    core: &Arc<Core>,
    request: proto::TerminateInstancesRequest,
) -> Result<proto::TerminateInstancesResponse, Error> {
    let ids = read_ids(core, &request.instance_ids)?;
    let force = request.force;
    let decide = move |it: &Instance, now| terminate::terminate(it, force, now);
    change(core, &request, ids, decide, |outcomes, _| proto::TerminateInstancesResponse { changes: changes(outcomes) }).await
}
