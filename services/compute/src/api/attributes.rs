//! Attributes of instances, one at a time.

use std::{borrow::Cow, sync::Arc};

use gureum_compute_domain::{
    batch,
    instance::{Decision, Instance},
    instance_type,
    launch_check::KindFacts,
    modify::{self, Change},
    user_data::UserData,
};
use gureum_model::{Filterable, Filters, PageRequest, Refusal, RefusalKind, Timestamp, id::InstanceId, refusal::Violations};
use gureum_proto::{Mutation, compute::v1 as proto, network::v1 as network};
use gureum_service::{Error, mutate, scope, wire};
use gureum_store::{Listed, Record, token::fingerprint};
use prost::Message;
use proto::{
    InstanceAttributeName as Name, describe_instance_attribute_response::Value, modify_instance_attribute_request::Change as Wanted,
};

use super::instances::{find, find_all, get, read_for, read_ids, shown};
use crate::{
    convert,
    core::Core,
    network::no_interface,
    store::{InstanceRow, Schema, match_volumes, put_instance},
};

/// Tells one attribute.
pub async fn describe_instance_attribute(
    core: &Arc<Core>,
    request: proto::DescribeInstanceAttributeRequest,
) -> Result<proto::DescribeInstanceAttributeResponse, Error> {
    let id: InstanceId = Refusal::parse_id("instance_id", &request.instance_id)?;
    if matches!(request.attribute(), Name::SourceDestCheck | Name::GroupSet) {
        core.network_followed.catch_up().await?;
    }
    let state = core.read();
    let it = get(&state, &scope(), id, core.clock.now())?;
    Ok(proto::DescribeInstanceAttributeResponse { instance_id: id.to_string(), value: attribute(it, request.attribute()) })
}

/// None where it has no value.
fn attribute(it: &Instance, name: Name) -> Option<Value> {
    let primary = it.primary();
    Some(match name {
        Name::Unspecified | Name::Kernel | Name::Ramdisk => return None,
        Name::InstanceType => Value::InstanceType(it.kind.name.clone()),
        Name::UserData if it.user_data.is_empty() => return None,
        Name::UserData => Value::UserData(it.user_data.as_bytes().to_vec()),
        Name::DisableApiTermination => Value::DisableApiTermination(it.disable_api_termination),
        Name::DisableApiStop => Value::DisableApiStop(it.disable_api_stop),
        Name::InstanceInitiatedShutdownBehavior => {
            Value::InstanceInitiatedShutdownBehavior(convert::instance::shutdown_behavior(it.shutdown_behavior).into())
        }
        Name::RootDeviceName => Value::RootDeviceName(it.root_device_name.clone()),
        Name::BlockDeviceMapping => Value::BlockDeviceMappings(proto::InstanceBlockDeviceMappings {
            block_device_mappings: it.volumes.iter().map(convert::instance::volume).collect(),
        }),
        Name::ProductCodes => Value::ProductCodes(proto::ProductCodes { product_codes: convert::instance::product_codes(it) }),
        Name::SourceDestCheck => Value::SourceDestCheck(primary?.source_dest_check),
        Name::GroupSet => Value::Groups(proto::GroupIdentifiers { groups: primary.map(convert::instance::groups).unwrap_or_default() }),
        Name::EbsOptimized => Value::EbsOptimized(it.ebs_optimized),
        // EC2 tells it only of types with the older driver; ENA has taken its place.
        Name::SriovNetSupport => return None,
        Name::EnaSupport => Value::EnaSupport(it.kind.ena_support),
        Name::EnclaveOptions => Value::EnclaveOptionsEnabled(false),
    })
}

/// Changes one attribute. What is the interface's is changed at network, and read from there.
pub async fn modify_instance_attribute(
    core: &Arc<Core>,
    request: proto::ModifyInstanceAttributeRequest,
) -> Result<proto::ModifyInstanceAttributeResponse, Error> {
    let wanted = request.change.clone().ok_or_else(|| Refusal::missing("change"));
    let (id, wanted) = read_for(core, &request.instance_id, wanted.and_then(well_formed))?;
    match wanted {
        Wanted::InstanceType(name) => modify_kind(core, &request, id, name).await,
        Wanted::UserData(bytes) => modify_plainly(core, &request, id, Change::UserData(UserData::new(&bytes)?)).await,
        Wanted::DisableApiTermination(on) => modify_plainly(core, &request, id, Change::DisableApiTermination(on)).await,
        Wanted::DisableApiStop(on) => modify_plainly(core, &request, id, Change::DisableApiStop(on)).await,
        Wanted::InstanceInitiatedShutdownBehavior(behavior) => {
            let behavior = proto::ShutdownBehavior::try_from(behavior).unwrap_or_default();
            let behavior = convert::launch_spec::read_shutdown_behavior(behavior);
            let behavior = behavior.ok_or_else(|| Refusal::missing("instance_initiated_shutdown_behavior"))?;
            modify_plainly(core, &request, id, Change::ShutdownBehavior(behavior)).await
        }
        Wanted::EbsOptimized(on) => modify_plainly(core, &request, id, Change::EbsOptimized(on)).await,
        Wanted::EnaSupport(on) => modify_plainly(core, &request, id, Change::EnaSupport(on)).await,
        Wanted::BlockDeviceMappings(changes) => {
            let devices = changes.changes.into_iter().map(|change| (change.device_name, change.delete_on_termination)).collect();
            modify_plainly(core, &request, id, Change::DeleteOnTermination(devices)).await
        }
        Wanted::SourceDestCheck(on) => modify_interface(core, &request, id, |it| it.source_dest_check = Some(on)).await,
        Wanted::Groups(groups) => modify_interface(core, &request, id, |it| it.group_ids = groups.group_ids).await,
    }
}

/// The change, if no instance is needed to see that it is wrong: such is told together with an unknown instance.
fn well_formed(wanted: Wanted) -> Result<Wanted, Refusal> {
    match &wanted {
        Wanted::InstanceType(name) => facts(name).map(drop)?,
        Wanted::UserData(bytes) => UserData::new(bytes).map(drop)?,
        _ => {}
    }
    Ok(wanted)
}

/// The type with this name. Errors: `InvalidInstanceAttributeValue`.
fn facts(name: &str) -> Result<KindFacts, Refusal> {
    instance_type::find(name).map(instance_type::InstanceType::facts).ok_or_else(|| {
        let words = format!("invalid value '{name}' for instanceType; DescribeInstanceTypes lists all");
        Refusal::invalid_as("InvalidInstanceAttributeValue", "instance_type", words)
    })
}

/// As [`facts`], on the architecture that the instance has.
fn kind(it: &Instance, name: &str) -> Result<gureum_compute_domain::instance::Kind, Refusal> {
    Ok(on_architecture(facts(name)?, &it.kind.architecture))
}

fn on_architecture(facts: KindFacts, architecture: &str) -> gureum_compute_domain::instance::Kind {
    let mut kind = facts.kind;
    if facts.architectures.iter().any(|offered| offered == architecture) {
        architecture.clone_into(&mut kind.architecture);
    }
    kind
}

/// Changes the type. Network is asked first, for its limit of interfaces: only network knows what is being attached, and from then on
/// nobody attaches more than the new type allows. Whatever comes of the call, network tells of the new limit, and the loop of
/// interfaces makes it that of the type on record.
async fn modify_kind(
    core: &Arc<Core>,
    request: &proto::ModifyInstanceAttributeRequest,
    id: InstanceId,
    name: String,
) -> Result<proto::ModifyInstanceAttributeResponse, Error> {
    // Until the decision is on the writer's queue: behind it there the loop reads which type it came to.
    let _turn = core.limiting.take(&scope(), &id.to_string()).await;
    // What was detached before this call was made is not in its way.
    core.network_followed.catch_up().await?;
    let limit = {
        let state = core.read();
        let it = get(&state, &scope(), id, core.clock.now())?;
        kind(it, &name).ok().and_then(|kind| modify::limit_before(it, &Change::Kind(kind)))
    };
    if let Some(limit) = limit.filter(|_| !request.dry_run) {
        core.network.fit(id, limit).await?;
    }
    let dry_run = request.dry_run;
    modify_with(core, request, id, move |it| {
        let change = Change::Kind(kind(it, &name)?);
        // It may have stopped, or its type may have been changed, since network was asked.
        let unasked = modify::limit_before(it, &change).is_some_and(|needed| limit != Some(needed));
        if unasked && !dry_run {
            let words = format!("the instance '{id}' changed while its type was about to be changed; try again");
            return Err(Refusal::new(RefusalKind::Unavailable, "ServiceUnavailable", words));
        }
        modify::modify(it, &change).map_err(Refusal::from)
    })
    .await
}

async fn modify_plainly(
    core: &Arc<Core>,
    request: &proto::ModifyInstanceAttributeRequest,
    id: InstanceId,
    change: Change,
) -> Result<proto::ModifyInstanceAttributeResponse, Error> {
    modify_with(core, request, id, move |it| modify::modify(it, &change).map_err(Refusal::from)).await
}

async fn modify_with(
    core: &Arc<Core>,
    request: &proto::ModifyInstanceAttributeRequest,
    id: InstanceId,
    decide: impl FnOnce(&Instance) -> Result<Decision, Refusal> + Send + 'static,
) -> Result<proto::ModifyInstanceAttributeResponse, Error> {
    change_one(core, request, id, decide, |tables, it, now| proto::ModifyInstanceAttributeResponse {
        instance: Some(shown(tables, it, now)),
    })
    .await
}

/// Decides on one instance and writes it if it changes.
async fn change_one<Q, A>(
    core: &Arc<Core>,
    request: &Q,
    id: InstanceId,
    decide: impl FnOnce(&Instance) -> Result<Decision, Refusal> + Send + 'static,
    answer: impl FnOnce(&Schema, &Instance, Timestamp) -> A + Send + 'static,
) -> Result<A, Error>
where
    Q: Mutation,
    A: Message + Default + 'static,
{
    let (scope, places) = (scope(), core.places.clone());
    mutate(&core.store, &scope.clone(), request, move |tx| {
        let now = tx.now();
        let (answer, next) = {
            let tables: &Schema = tx;
            let it = get(tables, &scope, id, now)?;
            let decision = decide(it)?;
            let answer = answer(tables, decision.after(it), now);
            match decision {
                Decision::Unchanged => (answer, None),
                Decision::Change(next) => (answer, Some(next)),
            }
        };
        if let Some(next) = next {
            match_volumes(tx, &next);
            put_instance(tx, &places, *next, "");
        }
        Ok(answer)
    })
    .await
}

/// Changes the first interface at network, and commits what network has then.
async fn modify_interface(
    core: &Arc<Core>,
    request: &proto::ModifyInstanceAttributeRequest,
    id: InstanceId,
    fill: impl FnOnce(&mut network::ModifyNetworkInterfaceAttributeRequest),
) -> Result<proto::ModifyInstanceAttributeResponse, Error> {
    let interface = {
        let state = core.read();
        let it = get(&state, &scope(), id, core.clock.now())?;
        // A tag that stays as it is changes nothing, but is refused in the states in which nothing may change.
        modify::modify(it, &Change::DetailedMonitoring(it.detailed_monitoring)).map_err(Refusal::from)?;
        it.primary().map(|interface| interface.id).ok_or_else(|| no_interface(id))?
    };
    let mut wanted = network::ModifyNetworkInterfaceAttributeRequest {
        client_token: derived_token(&request.client_token),
        dry_run: request.dry_run,
        network_interface_id: interface.to_string(),
        ..Default::default()
    };
    fill(&mut wanted);
    core.network.modify(wanted).await.map_err(|error| error.of_fields(|field| Some(as_here(field))))?;
    let mut seen = core.network.describe(&[id]).await?;
    let interfaces = seen.interfaces.remove(&id).unwrap_or_default();
    let modified = modify_with(core, request, id, move |it| Ok(modify::interfaces(it, interfaces))).await;
    core.read_interfaces_again(&[InstanceRow::list_key(&scope(), id)]);
    modified
}

/// A field of network's request, as the caller's own request names it.
fn as_here(field: &str) -> String {
    match field {
        "network_interface_id" => "instance_id".to_owned(),
        field if field.starts_with("group_ids") => format!("groups.{field}"),
        field => field.to_owned(),
    }
}

/// A token for the part of a call that network does.
fn derived_token(token: &str) -> String {
    if token.is_empty() { String::new() } else { format!("{:032x}", fingerprint(format!("compute/{token}").as_bytes())) }
}

/// Changes how an instance may ask about itself.
pub async fn modify_instance_metadata_options(
    core: &Arc<Core>,
    request: proto::ModifyInstanceMetadataOptionsRequest,
) -> Result<proto::ModifyInstanceMetadataOptionsResponse, Error> {
    let spec = request.metadata_options.map(convert::launch_spec::metadata_options).unwrap_or_default();
    let (id, _) = read_for(core, &request.instance_id, spec.check_any("metadata_options"))?;
    let answer = |_: &Schema, it: &Instance, _| proto::ModifyInstanceMetadataOptionsResponse {
        instance_id: it.id.to_string(),
        metadata_options: Some(convert::instance::metadata_options(&it.metadata_options, it.observed.generation == it.generation)),
    };
    let decide = move |it: &Instance| modify::modify(it, &Change::MetadataOptions(spec)).map_err(Refusal::from);
    change_one(core, &request, id, decide, answer).await
}

/// Switches detailed monitoring on.
pub async fn monitor_instances(
    core: &Arc<Core>,
    request: proto::MonitorInstancesRequest,
) -> Result<proto::MonitorInstancesResponse, Error> {
    let ids = read_ids(core, &request.instance_ids)?;
    let answer = |instance_monitorings| proto::MonitorInstancesResponse { instance_monitorings };
    set_monitoring(core, &request, ids, true, answer).await
}

/// Switches detailed monitoring off.
pub async fn unmonitor_instances(
    core: &Arc<Core>,
    request: proto::UnmonitorInstancesRequest,
) -> Result<proto::UnmonitorInstancesResponse, Error> {
    let ids = read_ids(core, &request.instance_ids)?;
    let answer = |instance_monitorings| proto::UnmonitorInstancesResponse { instance_monitorings };
    set_monitoring(core, &request, ids, false, answer).await
}

async fn set_monitoring<Q, A>(
    core: &Arc<Core>,
    request: &Q,
    ids: Vec<InstanceId>,
    detailed: bool,
    answer: impl FnOnce(Vec<proto::InstanceMonitoring>) -> A + Send + 'static,
) -> Result<A, Error>
where
    Q: Mutation,
    A: Message + Default + 'static,
{
    let (scope, places) = (scope(), core.places.clone());
    mutate(&core.store, &scope.clone(), request, move |tx| {
        let now = tx.now();
        let outcomes = {
            let tables: &Schema = tx;
            batch::decide(&ids, |id| find(tables, &scope, id, now), |it| modify::modify(it, &Change::DetailedMonitoring(detailed)))?
        };
        let shown = |outcome: &batch::Outcome| proto::InstanceMonitoring {
            instance_id: outcome.id.to_string(),
            monitoring: convert::instance::monitoring(detailed).into(),
        };
        let answer = answer(outcomes.iter().map(shown).collect());
        for next in outcomes.into_iter().filter_map(|outcome| outcome.next) {
            put_instance(tx, &places, *next, "");
        }
        Ok(answer)
    })
    .await
}

/// An instance among those that have credits.
struct Credits<'a>(&'a Instance);

impl Filterable for Credits<'_> {
    const FILTER_NAMES: &'static [&'static str] = &["instance-id"];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "instance-id" => vec![Cow::from(self.0.id.to_string())],
            _ => Vec::new(),
        }
    }
}

/// How burstable instances pay for bursts.
pub async fn describe_instance_credit_specifications(
    core: &Arc<Core>,
    request: proto::DescribeInstanceCreditSpecificationsRequest,
) -> Result<proto::DescribeInstanceCreditSpecificationsResponse, Error> {
    let (scope, state, now) = (scope(), core.read(), core.clock.now());
    let mut violations = Violations::new();
    let ids: Vec<InstanceId> = violations.ids("instance_ids", &request.instance_ids);
    let filters = violations.check("", Filters::for_kind::<Credits<'_>>(wire::filters(request.filters))).unwrap_or_default();
    violations.finish()?;
    let page = PageRequest::new(request.page_size, &request.page_token, &("credits", &scope, &filters))?;
    let (rows, next_page_token) = if ids.is_empty() {
        let prefix = format!("{scope}/");
        let rows = state.instances.scan(&prefix, page.after.as_deref());
        let rows = rows.filter(|row| row.visible(now) && row.credits.is_some() && filters.pass(&Credits(row)));
        page.cut(rows.take(page.size + 1).cloned().collect(), |row| row.record.key())
    } else {
        let rows = find_all(&state, &scope, &ids, now)?;
        if let Some(row) = rows.iter().find(|row| row.credits.is_none()) {
            let words = format!("the instance '{}' is a {}, which has no CPU credits", row.id, row.kind.name);
            return Err(Refusal::invalid_as("InvalidInstanceCreditSpecification", "instance_ids", words).into());
        }
        (rows.into_iter().filter(|row| filters.pass(&Credits(row))).collect(), String::new())
    };
    let shown = rows.iter().filter_map(|row| {
        Some(proto::InstanceCreditSpecification { instance_id: row.id.to_string(), cpu_credits: row.credits?.as_str().to_owned() })
    });
    Ok(proto::DescribeInstanceCreditSpecificationsResponse { instance_credit_specifications: shown.collect(), next_page_token })
}
