//! The reconcile loop: VPCs that wait for security, groups that security must be told of, and instances
//! that ended so long ago that they can be forgotten.

use std::{collections::BTreeMap, time::Duration};

use gureum_model::{
    Scope, Timestamp,
    id::{NetworkInterfaceId, SecurityGroupId, VpcId},
};
use gureum_network_domain::{
    NetworkInterface, View,
    hold::{self, HoldPlan},
    instance,
};
use gureum_proto::security::v1::SecurityGroupHold;
use gureum_service::{
    Error,
    context::{self, RequestContext},
    reconcile::{Outcome, Reconcile},
};

use crate::{
    drive::Driver,
    store::{Snapshot, UNSETTLED},
};

/// Time that one step may take.
const STEP_DEADLINE: Duration = Duration::from_secs(10);

/// Rows of each kind that one run takes on.
const ROWS_PER_RUN: usize = 256;

/// There is one key: a run looks at everything that is unsettled, which is nothing most of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Unsettled,
}

/// See the module.
pub struct Loop {
    pub driver: Driver,
}

impl Reconcile for Loop {
    type Key = Key;
    const NAME: &'static str = "network";

    fn unsettled(&self) -> Vec<Key> {
        let state = self.driver.store.read();
        let some = state.vpcs.find(UNSETTLED, "").next().is_some()
            || state.hold_marks.find(UNSETTLED, "").next().is_some()
            || state.ended.find_from(UNSETTLED, "").next().is_some();
        some.then_some(Key::Unsettled).into_iter().collect()
    }

    async fn run(&self, _keys: Vec<Key>) -> Vec<(Key, Outcome)> {
        let mut failed = None;
        for step in [self.vpcs().await, self.marks().await, self.forget().await] {
            if let Err(error) = step {
                failed = Some(error.to_string());
            }
        }
        let rest = self.next_expiry().map_or(Outcome::Settled, |until| Outcome::Waiting { until });
        let outcome = failed.map_or(rest, |reason| Outcome::Retry { reason });
        vec![(Key::Unsettled, outcome)]
    }
}

impl Loop {
    /// Work for a resource of this scope, with a deadline of its own.
    async fn in_scope<F: Future>(&self, scope: &Scope, work: F) -> F::Output {
        context::with(RequestContext::background(scope.clone(), &self.driver.call_ids, STEP_DEADLINE), work).await
    }

    async fn vpcs(&self) -> Result<(), Error> {
        let state = self.driver.store.read();
        let due: Vec<_> = state.vpcs.find(UNSETTLED, "").take(ROWS_PER_RUN).map(|row| (row.scope.clone(), row.id)).collect();
        drop(state);
        for (scope, id) in due {
            match self.in_scope(&scope, self.driver.drive_vpc(&scope, id)).await {
                // A refused deletion is an end too: the VPC is as it was.
                Err(error) if error.is_transient() => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    async fn marks(&self) -> Result<(), Error> {
        let state = self.driver.store.read();
        let due: Vec<_> = state.hold_marks.find(UNSETTLED, "").take(ROWS_PER_RUN).map(|row| row.record.0.clone()).collect();
        drop(state);
        let mut released: BTreeMap<Scope, Vec<NetworkInterfaceId>> = BTreeMap::new();
        for mark in due {
            let (scope, id) = (mark.scope.clone(), mark.interface_id);
            let state = self.driver.store.read();
            let interface: Option<NetworkInterface> = Snapshot { tables: &state, scope: &scope }.interface(id).cloned();
            drop(state);
            match hold::plan(&mark, interface.as_ref(), self.driver.is_taking(id)) {
                // Many instances end together, and no release is ever refused.
                HoldPlan::Release => released.entry(scope).or_default().push(id),
                HoldPlan::Leave => {}
                HoldPlan::TakeOver => self.take_over(&scope, id).await?,
                HoldPlan::Hold { vpc_id, groups } => self.in_scope(&scope, self.hold(&scope, id, vpc_id, groups)).await?,
            }
        }
        for (scope, ids) in released {
            self.in_scope(&scope, self.release(&scope, ids)).await?;
        }
        Ok(())
    }

    async fn take_over(&self, scope: &Scope, id: NetworkInterfaceId) -> Result<(), Error> {
        let take = self.driver.commit(scope, move |draft, now| {
            hold::settle(draft, id, now);
            Ok(())
        });
        take.await?;
        // The next look tells security.
        self.driver.waker.wake([Key::Unsettled]);
        Ok(())
    }

    async fn hold(&self, scope: &Scope, id: NetworkInterfaceId, vpc_id: VpcId, groups: Vec<SecurityGroupId>) -> Result<(), Error> {
        let hold = SecurityGroupHold {
            holder_id: id.to_string(),
            vpc_id: vpc_id.to_string(),
            group_ids: groups.iter().map(ToString::to_string).collect(),
            ..SecurityGroupHold::default()
        };
        self.driver.hold(vec![hold]).await?;
        self.told(scope, vec![id], groups).await
    }

    async fn release(&self, scope: &Scope, ids: Vec<NetworkInterfaceId>) -> Result<(), Error> {
        let nothing = |id: &NetworkInterfaceId| SecurityGroupHold { holder_id: id.to_string(), ..SecurityGroupHold::default() };
        self.driver.hold(ids.iter().map(nothing).collect()).await?;
        self.told(scope, ids, Vec::new()).await
    }

    /// Notes what security holds for these interfaces from now on.
    async fn told(&self, scope: &Scope, ids: Vec<NetworkInterfaceId>, groups: Vec<SecurityGroupId>) -> Result<(), Error> {
        let told = self.driver.commit(scope, move |draft, _| {
            for id in ids {
                hold::told(draft, id, &groups);
            }
            Ok(())
        });
        told.await
    }

    /// Launches that ended so long ago that no call for them can still be under way.
    async fn forget(&self) -> Result<(), Error> {
        let state = self.driver.store.read();
        let now = self.driver.clock.now();
        let due: Vec<_> = state
            .ended
            .find_from(UNSETTLED, "")
            .map(|(_, row)| row.record.0.clone())
            .take_while(|ended| instance::due_at(ended) <= now)
            .take(ROWS_PER_RUN)
            .collect();
        drop(state);
        for ended in due {
            let id = ended.instance_id;
            let forgotten = self.driver.commit(&ended.scope, move |draft, now| {
                instance::expire(draft, id, now);
                Ok(())
            });
            forgotten.await?;
        }
        Ok(())
    }

    /// When the next ended launch can be forgotten.
    fn next_expiry(&self) -> Option<Timestamp> {
        let state = self.driver.store.read();
        let first = state.ended.find_from(UNSETTLED, "").next();
        first.map(|(_, row)| instance::due_at(&row.record.0))
    }
}
