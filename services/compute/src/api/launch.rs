//! RunInstances.
//!
//! ```text
//!  look up ──▶ commit the launch, with places ──▶ network makes the interfaces ──▶ commit the instances ──▶ answer
//!                      │                                  │ refused, or away
//!                      └───────── undone by its loop ◀────┘
//! ```
//!
//! As many instances are launched as nodes have places and subnets have addresses for, if that is the least that is asked for.
//!
//! The call runs as a task of its own: a caller who goes away leaves no launch half-made. A repeat with
//! the same client token waits for the first call, and gets its answer.

use std::sync::Arc;

use gureum_compute_domain::{
    block_device::PlannedVolume,
    image::Image,
    instance::{Instance, InstanceError, StateName},
    instance_type,
    launch::{self, Wanted},
    launch_check::{LaunchFacts, LaunchPlan, Lookups, NewIds, check, no_image, no_key},
    launch_intent::{Launch, LaunchState, finish},
    launch_spec::LaunchSpec,
    launch_template::VersionRef,
    volume,
};
use gureum_model::{Refusal, RefusalKind, Scope, id::ReservationId, refusal::Violation};
use gureum_proto::{Mutation, compute::v1 as proto};
use gureum_service::{
    Answer, Error, context,
    mutate::{self, mutate},
    scope,
};
use gureum_store::{Listed, State, TokenKey, token::fingerprint};
use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tracing::Instrument;

use super::templates::{Named, find_template, find_version};
use crate::{
    catalog, convert,
    core::Core,
    network::{Resolved, SUBNET_FULL, Seen},
    reconcile::launches::take_back,
    store::{ID_INDEX, INSTANCE_STATE_INDEX, InstanceRow, LaunchRow, Schema, put_image, put_instance, put_volume},
};

/// How often a launch is tried whose addresses others take between their being counted and their being taken.
const ATTEMPTS: u32 = 3;

/// Launches instances, whether or not the caller waits for them.
pub async fn run_instances(core: &Arc<Core>, request: proto::RunInstancesRequest) -> Result<proto::RunInstancesResponse, Error> {
    let work = {
        let (core, active) = (core.clone(), core.activity.begin());
        async move {
            let launched = run(&core, request).await;
            drop(active);
            launched
        }
    };
    let task = match context::current() {
        Some(context) => core.tasks.spawn(context::with(context, work).in_current_span()),
        None => core.tasks.spawn(work),
    };
    task.await.map_err(|error| Error::Internal(format!("a launch ended early: {error}")))?
}

async fn run(core: &Arc<Core>, request: proto::RunInstancesRequest) -> Result<proto::RunInstancesResponse, Error> {
    let scope = scope();
    let token = request.client_token.clone();
    let _turn = if token.is_empty() { None } else { Some(core.turns.take(&scope, &token).await) };
    if !token.is_empty()
        && let Some(answer) = repeated(core, &scope, &request)?
    {
        return Ok(answer);
    }
    let mut attempts = 1..=ATTEMPTS;
    loop {
        let prepared = prepare(core, &scope, &request).await?;
        if request.dry_run {
            return Err(mutate::dry_run_refusal().into());
        }
        let reservation: ReservationId = core.ids.next();
        // From here on what is left behind is taken back by the launches' loop.
        let under_way = core.in_flight.begin(&scope, reservation, core.launches.clone());
        let (launch, ids) = accept(core, &scope, reservation, &prepared, &token).await?;
        let last = attempts.next().is_none_or(|attempt| attempt == ATTEMPTS);
        match core.network.create(&launch.instances, &prepared.plan.wanted, &prepared.network).await {
            Ok(seen) => return conclude(core, &scope, &request, launch, prepared, ids, seen).await,
            // Others were quicker. Fewer may fit still: the launch is taken back and tried again with what is left.
            Err(error) if !last && may_shrink(&error, launch.instances.len(), prepared.plan.wanted.min_count) => {
                drop(under_way);
                if !take_back(core, &LaunchRow::key_of(&scope, reservation)).await {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether fewer instances might have what this many had not.
fn may_shrink(error: &Error, asked: usize, least: usize) -> bool {
    asked > least && error.reason().as_deref() == Some(SUBNET_FULL)
}

/// The answer of a call that was made before with this token. What is published will do, without waiting for the
/// writer: a call that is under way has the token's turn.
fn repeated(core: &Core, scope: &Scope, request: &proto::RunInstancesRequest) -> Result<Option<proto::RunInstancesResponse>, Refusal> {
    let key = TokenKey::new(scope, proto::RunInstancesRequest::NAME, request.client_token());
    mutate::answer_of(core.read().recall(&key, fingerprint(&request.encode_to_vec()), core.clock.now()))
}

/// A launch that may happen, and everything that it needs.
struct Prepared {
    plan: LaunchPlan,
    network: Resolved,
    volumes: Vec<PlannedVolume>,
    public_key: String,
    image_source: String,
}

/// Reads what is wanted, looks up what it names, and checks all of it.
async fn prepare(core: &Core, scope: &Scope, request: &proto::RunInstancesRequest) -> Result<Prepared, Error> {
    let state = core.read();
    let spec = spec(&state, scope, request)?;
    let wanted = match launch::parse(&spec, request.min_count, request.max_count, &scope.region) {
        Ok(wanted) => wanted,
        Err(refusal) => return Err(with_absent(refusal, core, &state, scope, &spec).await.into()),
    };
    let zone = instance_type::find(&wanted.instance_type).and_then(|kind| core.places.lock().best_zone(kind.kind().capacity));
    let (key, network) = tokio::join!(
        async {
            match &wanted.key_name {
                Some(name) => core.security.public_key(name).await,
                None => Ok(Some(String::new())),
            }
        },
        core.network.resolve(&wanted, &scope.region, zone, core.random())
    );
    let public_key = key?;
    let (lookups, volumes, image_source) = look_up(core, &state, scope, &wanted, &spec, public_key.is_some());
    match (check(wanted, lookups), network) {
        (Ok(plan), Ok(network)) => Ok(Prepared { plan, network, volumes, public_key: public_key.unwrap_or_default(), image_source }),
        (Ok(_), Err(error)) => Err(error),
        // What is wrong with the request itself is told before what network says of it.
        (Err(refusal), Err(Error::Peer { status, .. })) => Err(beside(refusal, &status).into()),
        (Err(refusal), _) => Err(refusal.into()),
    }
}

/// Beside what is malformed in a launch, what it names that does not exist, so that its caller learns of all at once.
async fn with_absent(refusal: Refusal, core: &Core, tables: &Schema, scope: &Scope, spec: &LaunchSpec) -> Refusal {
    let image = spec.image_id.as_deref().and_then(|text| text.parse().ok());
    let image = image.filter(|id| catalog::image(tables, scope, *id).is_none()).map(no_image);
    let key = match spec.key_name.as_deref().filter(|name| !name.is_empty()) {
        // If security is away, the launch is refused for what is known to be wrong.
        Some(name) => matches!(core.security.public_key(name).await, Ok(None)).then(|| no_key(name)),
        None => None,
    };
    let network = match launch::parse_network(spec, &scope.region) {
        Some(wanted) => core.network.resolve(&wanted, &scope.region, wanted.zone, core.random()).await.err(),
        None => None,
    };
    let refused = image.into_iter().chain(key).fold(refusal, Refusal::and);
    match network {
        Some(Error::Peer { status, .. }) => beside(refused, &status),
        Some(_) | None => refused,
    }
}

/// A refusal with what a peer refused of the same request. One that is only away has nothing to say of it.
fn beside(refusal: Refusal, status: &Status) -> Refusal {
    if !matches!(status.code(), Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition | Code::ResourceExhausted) {
        return refusal;
    }
    let violations = status.get_details_bad_request().map(|request| request.field_violations).unwrap_or_default();
    let violations = violations.into_iter().map(|it| Violation { field: it.field, description: it.description });
    Refusal {
        message: format!("{}; {}", refusal.message, status.message()),
        violations: refusal.violations.into_iter().chain(violations).collect(),
        ..refusal
    }
}

/// The request's words over its template's.
fn spec(tables: &Schema, scope: &Scope, request: &proto::RunInstancesRequest) -> Result<LaunchSpec, Refusal> {
    use proto::launch_template_specification::LaunchTemplate as By;
    let own = convert::launch_spec::read(request.spec.clone().unwrap_or_default())?;
    let Some(reference) = &request.launch_template else { return Ok(own) };
    let named = match reference.launch_template.clone() {
        Some(By::LaunchTemplateId(id)) => Named::Id(id),
        Some(By::LaunchTemplateName(name)) => Named::Name(name),
        None => return Err(Refusal::missing("launch_template")),
    };
    let of = |field: &'static str| move |refusal: Refusal| refusal.of_field(field);
    let version = reference.version.parse::<VersionRef>().map_err(of("launch_template.version"))?;
    let template = find_template(tables, scope, &named).map_err(of("launch_template"))?;
    Ok(own.over(find_version(tables, template, version).map_err(of("launch_template.version"))?.data.clone()))
}

/// What the request names, as it is now; its volumes; and where its image's contents are.
fn look_up(
    core: &Core,
    state: &State<Schema>,
    scope: &Scope,
    wanted: &Wanted,
    spec: &LaunchSpec,
    key_exists: bool,
) -> (Lookups, Vec<PlannedVolume>, String) {
    let image = catalog::image(state, scope, wanted.image);
    let planned = image.as_ref().map_or(Ok(Vec::new()), |image| catalog::volumes(state, scope, image, &spec.block_devices));
    let image_source = image.as_ref().map(|image| catalog::image_source(image)).unwrap_or_default();
    let (volumes, planned) = match planned {
        Ok(planned) => (Ok(planned.iter().map(PlannedVolume::facts).collect()), planned),
        Err(refusal) => (Err(refusal), Vec::new()),
    };
    let lookups = Lookups {
        image: image.map(|image| image.facts(catalog::terms_missing(state, scope, &image))),
        kind: instance_type::find(&wanted.instance_type).map(instance_type::InstanceType::facts),
        key_exists,
        volumes,
        instances: core.settings.instance_limit.map_or(0, |_| count(state, scope)),
        instance_limit: core.settings.instance_limit,
    };
    (lookups, planned, image_source)
}

/// Instances that a scope has beside terminated ones, and those that are being launched.
fn count(tables: &Schema, scope: &Scope) -> usize {
    let living = StateName::ALL.into_iter().filter(|name| *name != StateName::Terminated);
    let of_state = |name: StateName| tables.instances.find(INSTANCE_STATE_INDEX, &format!("{scope}/{name}")).count();
    let prefix = format!("{scope}/");
    let launching: usize = tables.launches.scan(&prefix, None).map(|launch| launch.instances.len()).sum();
    living.map(of_state).sum::<usize>() + launching
}

/// Sets places aside and commits the launch: from now on it is finished or undone, whatever happens.
async fn accept(
    core: &Core,
    scope: &Scope,
    reservation_id: ReservationId,
    prepared: &Prepared,
    token: &str,
) -> Result<(Launch, Vec<NewIds>), Error> {
    let plan = prepared.plan.clone();
    let facts = LaunchFacts {
        scope: scope.clone(),
        reservation_id,
        client_token: token.to_owned(),
        zone: prepared.network.zone,
        image_source: prepared.image_source.clone(),
        public_key: prepared.public_key.clone(),
        subnets: prepared.network.interfaces.iter().map(|interface| (interface.subnet, interface.vpc)).collect(),
    };
    let ids = plan.new_ids(plan.wanted.max_count.min(prepared.network.room), &core.ids);
    let (places, random, limit) = (core.places.clone(), core.random(), core.settings.instance_limit);
    let accepted = core.store.write(move |tx| {
        let mut ids = ids;
        if let Some(limit) = limit {
            // Others may have launched since the check.
            let left = limit.saturating_sub(count(tx, &facts.scope));
            if left < plan.wanted.min_count {
                let words = format!("{left} more instances would reach the limit of {limit}; terminate some first");
                return Err(Refusal::new(RefusalKind::Exhausted, "InstanceLimitExceeded", words));
            }
            ids.truncate(left);
        }
        let mut seats = places.reserve();
        let instances: Vec<_> = ids.iter().map(|ids| ids.instance).collect();
        let nodes = seats
            .all(&instances, plan.wanted.min_count, facts.zone, plan.kind.capacity, random)
            .ok_or_else(|| InstanceError::NoCapacity { kind: plan.kind.name.clone(), zone: facts.scope.region.zone(facts.zone) })?;
        ids.truncate(nodes.len());
        let now = tx.now();
        let numbered = (0u32..).zip(ids.iter().zip(nodes));
        let instances = numbered.map(|(index, (ids, node))| plan.instance(&facts, index, ids, node, now)).collect();
        let launch = Launch {
            scope: facts.scope.clone(),
            reservation_id: facts.reservation_id,
            since: now,
            state: LaunchState::Preparing,
            instances,
        };
        tx.put(LaunchRow(launch.clone()));
        seats.keep();
        Ok((launch, ids))
    });
    Ok(accepted.await?)
}

/// Commits the instances with their volumes in place of the launch, together with the answer.
async fn conclude(
    core: &Core,
    scope: &Scope,
    request: &proto::RunInstancesRequest,
    launch: Launch,
    prepared: Prepared,
    ids: Vec<NewIds>,
    seen: Seen,
) -> Result<proto::RunInstancesResponse, Error> {
    let (places, key) = (core.places.clone(), LaunchRow::key_of(scope, launch.reservation_id));
    let first = launch.instances.first().map(|it| InstanceRow::list_key(scope, it.id)).unwrap_or_default();
    let concluded = mutate(&core.store, scope, request, move |tx| {
        let recorded = tx.launches.get(&key).cloned().ok_or_else(undone)?;
        let instances = finish(&recorded, |id| seen.interfaces.get(&id).cloned()).ok_or_else(undone)?;
        tx.delete::<LaunchRow>(&key);
        note_launched(tx, &instances);
        let answer = proto::RunInstancesResponse {
            reservation_id: recorded.reservation_id.to_string(),
            instances: instances.iter().map(convert::instance::told).collect(),
        };
        for (it, ids) in instances.into_iter().zip(&ids) {
            put_volumes(tx, &it, &prepared, ids);
            put_instance(tx, &places, it, "");
        }
        Ok(Answer::created::<InstanceRow>(answer, first))
    });
    concluded.await
}

/// An account's image knows when it was last launched; what ships is in no store.
fn note_launched(tx: &mut crate::store::Tx<'_>, instances: &[Instance]) {
    let Some(id) = instances.first().map(|it| it.image_id) else { return };
    let now = tx.now();
    let Some(row) = tx.images.find(ID_INDEX, &id.to_string()).next().cloned() else { return };
    put_image(tx, "ImageChanged", Image { last_launched: Some(now), ..row.record.0.clone() });
}

fn put_volumes(tx: &mut crate::store::Tx<'_>, it: &Instance, prepared: &Prepared, ids: &NewIds) {
    let now = tx.now();
    for (planned, id) in prepared.volumes.iter().zip(&ids.volumes) {
        let tags = &prepared.plan.wanted.tags.volume;
        let volume = volume::create::launched(&it.scope, planned, (*id, it.id), it.zone, &it.product_codes, tags, now);
        put_volume(tx, "VolumeCreated", volume);
    }
}

/// Compute was told to stop in the midst of the launch, or network answered with less than was asked for.
fn undone() -> Refusal {
    Refusal::new(RefusalKind::Unavailable, "ServiceUnavailable", "the launch was undone before it was finished; try again")
}
