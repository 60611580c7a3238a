//! The event log after whatever befell it: each event once, in order for each resource, and the last one as things are.

use std::collections::{BTreeMap, BTreeSet};

use gureum_proto::{
    compute::v1::InstanceState,
    gateway::v1::{CloudEvent, SubscribeRequest, event_service_client::EventServiceClient, subscribe_response::Message},
};
use prost_types::value::Kind;

use crate::{
    audit::Account,
    harness::{Door, attempt, until},
};

/// Everything that an account's log tells, up to now.
pub async fn read(door: &Door) -> Result<Vec<CloudEvent>, String> {
    let request = SubscribeRequest { after_place: Some(0), ..Default::default() };
    let mut stream = attempt!(door, EventServiceClient, subscribe, request).map_err(|status| status.to_string())?;
    let mut events = Vec::new();
    loop {
        match stream.message().await.map_err(|status| status.to_string())?.and_then(|next| next.message) {
            Some(Message::Event(event)) => events.push(event),
            Some(Message::CaughtUpToPlace(_)) => return Ok(events),
            None => return Err("the log ended".to_owned()),
        }
    }
}

/// The log of an account against what its clients know. The gateway may be a moment behind, so it is read until it tells
/// all; what it tells twice or in the wrong order is never mended.
pub async fn audit(account: &Account) -> usize {
    until("the log to tell all", async || {
        let events = read(&account.door).await?;
        each_once_and_in_order(&events);
        everything_is_told(account, &events)?;
        Ok(events.len())
    })
    .await
}

fn each_once_and_in_order(events: &[CloudEvent]) {
    let mut ids = BTreeSet::new();
    let mut last: BTreeMap<&str, &CloudEvent> = BTreeMap::new();
    for event in events {
        assert!(ids.insert((&event.source, &event.id)), "an event is told twice: {event:?}");
        let before = last.insert(&event.subject, event);
        assert!(before.is_none_or(|before| before.place < event.place), "places do not grow at {event:?}");
        let time = |event: &CloudEvent| event.time.map(|time| (time.seconds, time.nanos));
        assert!(before.is_none_or(|before| time(before) <= time(event)), "told out of order: {event:?}");
        // Nothing is told of what is gone.
        assert!(before.is_none_or(|before| !before.deleted), "{} is told of after its end", event.subject);
    }
}

fn is_birth(event: &CloudEvent) -> bool {
    ["Created", "Launched", "Allocated"].iter().any(|verb| event.r#type.ends_with(verb))
}

/// Subjects of a kind whose birth, and whose end, is told; each once. A part of another resource, such as a template's
/// version, has a slash in its name.
fn told<'a>(events: &'a [CloudEvent], prefix: &str) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
    let (mut born, mut gone) = (BTreeSet::new(), BTreeSet::new());
    for event in events.iter().filter(|event| event.subject.starts_with(prefix) && !event.subject.contains('/')) {
        if is_birth(event) {
            assert!(born.insert(event.subject.as_str()), "born twice: {event:?}");
        }
        if event.deleted {
            assert!(gone.insert(event.subject.as_str()), "gone twice: {event:?}");
        }
    }
    (born, gone)
}

fn same(what: &str, told: &BTreeSet<&str>, known: &BTreeSet<&str>) -> Result<(), String> {
    let unknown: Vec<_> = told.difference(known).collect();
    assert!(unknown.is_empty(), "{what} are told of that nobody was acknowledged: {unknown:?}");
    let missing: Vec<_> = known.difference(told).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("{what} are missing: {missing:?}")) }
}

fn texts<'a>(some: impl Iterator<Item = &'a String>) -> BTreeSet<&'a str> {
    some.map(String::as_str).collect()
}

fn everything_is_told(account: &Account, events: &[CloudEvent]) -> Result<(), String> {
    let known = &account.known;
    let (born, _) = told(events, "i-");
    same("launched instances", &born, &texts(known.instances.all.keys()))?;
    let (born, gone) = told(events, "lt-");
    same("created templates", &born, &texts(known.templates.living.keys().chain(&known.templates.deleted)))?;
    same("deleted templates", &gone, &texts(known.templates.deleted.iter()))?;
    let (born, gone) = told(events, "eipalloc-");
    same("allocated addresses", &born, &texts(known.addresses.living.keys().chain(&known.addresses.released)))?;
    same("released addresses", &gone, &texts(known.addresses.released.iter()))?;
    let (born, _) = told(events, "vol-");
    let launched = known.instances.all.values().flat_map(|it| &it.volumes);
    same("created volumes", &born, &texts(known.volumes.living.keys().chain(&known.volumes.deleted).chain(launched)))?;
    groups(account, events)?;
    vpcs(account, events)?;
    interfaces(account, events)?;
    states(account, events)
}

/// Beside the clients' own there is the default group of each VPC, which comes and goes with it.
fn groups(account: &Account, events: &[CloudEvent]) -> Result<(), String> {
    let (known, vpcs) = (&account.known.groups, &account.known.vpcs);
    let (mut born, mut gone) = told(events, "sg-");
    let all = texts(known.living.keys().chain(&known.deleted));
    let own: BTreeSet<&str> = born.difference(&all).copied().collect();
    let (made, deleted) = (1 + vpcs.living.len() + vpcs.deleted.len(), vpcs.deleted.len());
    assert!(own.len() <= made, "groups are told of that nobody was acknowledged: {own:?}");
    born.retain(|id| !own.contains(id));
    gone.retain(|id| !own.contains(id));
    let gone_with_vpcs = events.iter().filter(|event| event.deleted && own.contains(event.subject.as_str())).count();
    if gone_with_vpcs != deleted {
        return Err(format!("{gone_with_vpcs} default groups went with {deleted} VPCs"));
    }
    same("created groups", &born, &all)?;
    same("deleted groups", &gone, &texts(known.deleted.iter()))
}

/// Beside the clients' own there is the default VPC.
fn vpcs(account: &Account, events: &[CloudEvent]) -> Result<(), String> {
    let known = &account.known.vpcs;
    let (mut born, gone) = told(events, "vpc-");
    let all = texts(known.living.keys().chain(&known.deleted));
    let own: Vec<&str> = born.difference(&all).copied().collect();
    assert!(own.len() <= 1, "VPCs are told of that nobody was acknowledged: {own:?}");
    born.retain(|id| !own.contains(id));
    same("created VPCs", &born, &all)?;
    same("deleted VPCs", &gone, &texts(known.deleted.iter()))
}

/// Interfaces of launches that were undone were never acknowledged: they must have come and gone.
fn interfaces(account: &Account, events: &[CloudEvent]) -> Result<(), String> {
    let known = &account.known;
    let (born, gone) = told(events, "eni-");
    let primaries = known.instances.all.values().map(|it| &it.primary_interface);
    let acknowledged = texts(known.interfaces.living.keys().chain(&known.interfaces.deleted).chain(primaries));
    let unknown: Vec<_> = born.difference(&acknowledged).filter(|id| !gone.contains(*id)).collect();
    if !unknown.is_empty() {
        return Err(format!("interfaces of nobody stay: {unknown:?}"));
    }
    let missing: Vec<_> = acknowledged.difference(&born).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("created interfaces are missing: {missing:?}")) }
}

/// The last that is told of each instance is where it is, and it came there by a way that there is.
fn states(account: &Account, events: &[CloudEvent]) -> Result<(), String> {
    let mut ways: BTreeMap<&str, Vec<InstanceState>> = BTreeMap::new();
    for event in events.iter().filter(|event| event.subject.starts_with("i-")) {
        let state = event.data.as_ref().and_then(|data| data.fields.get("state")).and_then(|value| value.kind.clone());
        let Some(Kind::StringValue(state)) = state else { panic!("no state in {event:?}") };
        let state = InstanceState::from_str_name(&state).unwrap();
        let way = ways.entry(event.subject.as_str()).or_default();
        if way.last() != Some(&state) {
            way.push(state);
        }
    }
    for (id, known) in &account.known.instances.all {
        let way = &ways[id.as_str()];
        assert!(way.windows(2).all(|step| leads_to(step[0], step[1])), "{id} went {way:?}");
        if way.last() != Some(&known.goal) {
            return Err(format!("{id} is told to be {:?}, not {:?}", way.last(), known.goal));
        }
    }
    Ok(())
}

fn leads_to(from: InstanceState, to: InstanceState) -> bool {
    use InstanceState::{Pending, Running, ShuttingDown, Stopped, Stopping, Terminated};
    let next: &[InstanceState] = match from {
        Pending => &[Running, Stopping, ShuttingDown],
        Running => &[Stopping, ShuttingDown],
        Stopping => &[Stopped, ShuttingDown],
        Stopped => &[Pending, ShuttingDown],
        ShuttingDown => &[Terminated],
        Terminated | InstanceState::Unspecified => &[],
    };
    next.contains(&to)
}
