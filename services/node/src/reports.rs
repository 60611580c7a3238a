//! The loop that records what the driver tells.

use std::sync::Arc;

use crate::{driver::Driver, records::Records};

/// Reports that become durable by one commit at most: many enough that the sync costs each little, few
/// enough that no other change waits long.
const BATCH: usize = 512;

/// Takes reports until it is dropped, or until nothing more can be made durable.
pub async fn take(driver: Arc<dyn Driver>, records: Records) {
    loop {
        let reports = driver.reports(BATCH).await;
        let count = reports.len();
        let recorded = records.change(move |draft| reports.iter().for_each(|report| draft.observe(report))).await;
        if let Err(error) = recorded {
            // If the store has stopped, the service ends by itself; the next start asks the driver.
            tracing::error!(count, error = &error as &dyn std::error::Error, "reports of the driver could not be recorded");
            if let gureum_service::Error::Store(gureum_store::StoreError::Stopped(_)) = error {
                return;
            }
        }
    }
}
