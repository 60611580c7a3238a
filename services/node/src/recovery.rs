//! What happens before a node serves: it learns who it is and what its driver still has.

use std::collections::{BTreeMap, BTreeSet};

use gureum_model::{
    Refusal, Timestamp,
    id::{InstanceId, NodeId, ResourceId},
};
use gureum_node_domain::{Found, NodeInstance, recover};
use gureum_service::{Clock, Error, StartError};
use gureum_store::{Store, token::fingerprint};

use crate::{
    driver::{Driver, DriverError, Run},
    records::{Draft, Records},
    store::{NodeRow, Schema},
};

/// Records that are held against the driver in one commit.
const BATCH: usize = 512;

/// Who a node is in this life of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub id: NodeId,
    pub incarnation: u64,
}

/// Learns who the node is, and counts this start.
///
/// A `volatile` store forgets how often the node was started, and compute takes no lower incarnation
/// than it knows; there the wall clock counts.
pub async fn identity(store: &Store<Schema>, name: &str, volatile: bool) -> Result<Identity, StartError> {
    let name = name.to_owned();
    let least = if volatile { Clock::origin_now().as_micros() } else { 1 };
    let counted = store.write(move |transaction| {
        let known = transaction.node.get(NodeRow::KEY).map(|row| row.record.clone());
        if let Some(known) = known.as_ref().filter(|known| known.name != name) {
            let text = format!("the store is of the node \"{}\", not of \"{name}\": a node keeps its name", known.name);
            return Err(Refusal::invalid("settings.name", text));
        }
        let id = known.as_ref().map_or_else(|| NodeId::from_number(fingerprint(format!("node/{name}").as_bytes())), |known| known.id);
        let incarnation = known.map_or(0, |known| known.incarnation).saturating_add(1).max(least);
        transaction.put(NodeRow { id, name, incarnation });
        Ok(Identity { id, incarnation })
    });
    counted.await.map_err(|error| start_error(error.into()))
}

/// Holds every record against what the driver has. What the driver has and nobody knows, it ends.
pub async fn recover_all(records: &Records, driver: &dyn Driver) -> Result<(), StartError> {
    let state = records.store().read();
    let known: Vec<&NodeInstance> = state.instances.iter().map(|row| &row.record.0).collect();
    let ids: BTreeSet<InstanceId> = known.iter().map(|record| record.id).collect();
    let mut found: BTreeMap<InstanceId, Found> = driver.adopt(&known).await.map_err(driver_failed)?.into_iter().collect();
    for id in found.keys().filter(|id| !ids.contains(id)) {
        tracing::info!(%id, "the driver has an instance that nobody knows; it is removed");
        driver.terminate(Run { id: *id, boot: 0 }, None).await.map_err(driver_failed)?;
    }
    let ids: Vec<InstanceId> = ids.into_iter().collect();
    for batch in ids.chunks(BATCH) {
        let batch: Vec<(InstanceId, Found)> = batch.iter().map(|id| (*id, found.remove(id).unwrap_or(Found::Absent))).collect();
        let kills = records
            .change(move |draft| batch.iter().filter_map(|(id, found)| recover_one(draft, *id, found)).collect::<Vec<Run>>())
            .await
            .map_err(start_error)?;
        for run in kills {
            driver.kill(run).await.map_err(driver_failed)?;
        }
    }
    Ok(())
}

/// Answers what is to be killed before anything else.
fn recover_one(draft: &mut Draft<'_, '_>, id: InstanceId, found: &Found) -> Option<Run> {
    let row = draft.row(id)?;
    let now: Timestamp = draft.now();
    let recovered = recover(&row, found, draft.room(), now);
    if let Some(next) = recovered.next {
        draft.put(next);
    } else {
        draft.touch(id);
    }
    let boot = match found {
        Found::Booting { boot } | Found::Up { boot, .. } | Found::Off { boot, .. } => *boot,
        Found::Absent => row.boot,
    };
    recovered.kill.then_some(Run { id, boot })
}

fn start_error(error: Error) -> StartError {
    match error {
        Error::Store(error) => StartError::StoreStopped(error.to_string().into()),
        Error::Refused(refusal) => StartError::Setting { name: "settings.name", reason: refusal.message },
        Error::Peer { .. } | Error::Internal(_) => StartError::StoreStopped(error.to_string().into()),
    }
}

fn driver_failed(error: DriverError) -> StartError {
    StartError::Setting { name: "settings.driver", reason: format!("the driver could not take back its instances: {error}") }
}
