//! What drives decisions into the store, and workflows with security to their ends.

use std::sync::Arc;

use gureum_model::{
    IdSource, Refusal, Scope, Timestamp,
    id::{NetworkInterfaceId, SecurityGroupId, VpcId},
};
use gureum_network_domain::{
    Draft, Rules,
    interface::Group,
    vpc::{self, VpcPlan},
};
use gureum_proto::{
    Mutation,
    security::v1::{
        RegisterVpcRequest, SecurityGroupHold, SetSecurityGroupHoldsRequest, UnregisterVpcRequest,
        security_peer_service_client::SecurityPeerServiceClient,
    },
};
use gureum_service::{Answer, Clock, Error, Peer, mutate, mutate::recall, reconcile::Waker};
use gureum_store::{Listed, Store, TokenKey, Transaction, token::fingerprint};
use prost::Message;

use crate::{
    reconcile::Key,
    store::{Schema, Snapshot, VpcRow, apply, end_deletions},
    taking::{Taking, TakingGuard},
};

/// Holders that one call to security names at most: what its contract allows.
pub const HOLDS_PER_CALL: usize = 1_000;

/// The store, the rules, and the one peer.
#[derive(Clone)]
pub struct Driver {
    pub store: Store<Schema>,
    pub ids: Arc<IdSource>,
    /// Tells the calls of loops apart.
    pub call_ids: Arc<IdSource>,
    pub rules: Arc<Rules>,
    pub security: Peer,
    pub waker: Waker<Key>,
    pub clock: Clock,
    /// Interfaces whose groups a call of this process is taking right now.
    pub under_way: Taking,
}

impl Driver {
    /// One decision for one call: idempotent by its token, refusable by dry run, one commit.
    pub async fn change<Q, A, D, F>(&self, scope: &Scope, request: &Q, decide: F) -> Result<A, Error>
    where
        Q: Mutation,
        A: Message + Default + 'static,
        D: Into<Answer<A>>,
        F: FnOnce(&mut Draft<'_, Snapshot<'_>>, Timestamp) -> Result<D, Refusal> + Send + 'static,
    {
        let (rules, own) = (self.rules.clone(), scope.clone());
        mutate(&self.store, scope, request, move |transaction| decided(transaction, &own, &rules, decide)).await
    }

    /// One decision that is no call of a user: a step of a workflow, or a peer's call.
    pub async fn commit<A, F>(&self, scope: &Scope, decide: F) -> Result<A, Error>
    where
        A: Send + 'static,
        F: FnOnce(&mut Draft<'_, Snapshot<'_>>, Timestamp) -> Result<A, Refusal> + Send + 'static,
    {
        self.commit_with(scope, decide, |_| {}).await
    }

    /// As [`Driver::commit`], with what else stands in the same commit.
    pub async fn commit_with<A, F>(
        &self,
        scope: &Scope,
        decide: F,
        also: impl FnOnce(&mut Transaction<'_, Schema>) + Send + 'static,
    ) -> Result<A, Error>
    where
        A: Send + 'static,
        F: FnOnce(&mut Draft<'_, Snapshot<'_>>, Timestamp) -> Result<A, Refusal> + Send + 'static,
    {
        let (rules, own) = (self.rules.clone(), scope.clone());
        let decide = move |transaction: &mut Transaction<'_, Schema>| {
            let answer = decided(transaction, &own, &rules, decide)?;
            also(transaction);
            Ok(answer)
        };
        Ok(self.store.write(decide).await?)
    }

    /// What a call answered before, if its token says that it was made before.
    pub async fn recall<Q: Mutation, A: Message + Default + 'static>(&self, scope: &Scope, request: &Q) -> Result<Option<A>, Error> {
        if request.client_token().is_empty() {
            return Ok(None);
        }
        let (key, parameters) = (TokenKey::new(scope, Q::NAME, request.client_token()), fingerprint(&request.encode_to_vec()));
        Ok(self.store.write(move |transaction| recall::<Schema, A>(transaction, &key, parameters)).await?)
    }

    fn security(&self) -> SecurityPeerServiceClient<gureum_service::peer::PeerChannel> {
        SecurityPeerServiceClient::new(self.security.channel())
    }

    /// Takes a VPC's workflow to its end. The error of a deletion is security's refusal.
    pub async fn drive_vpc(&self, scope: &Scope, id: VpcId) -> Result<(), Error> {
        let recorded = self.store.read().vpcs.get(&VpcRow::list_key(scope, id)).map(|row| row.record.0.clone());
        let Some(recorded) = recorded else { return Ok(()) };
        match vpc::plan(&recorded) {
            VpcPlan::Settled => Ok(()),
            VpcPlan::Register { is_default } => {
                let request = RegisterVpcRequest { vpc_id: id.to_string(), is_default };
                let answer = self.security().register_vpc(request).await.map_err(|status| self.security.error(status))?.into_inner();
                let group = answer.default_security_group.map(|group| group.group_id).unwrap_or_default();
                let group: SecurityGroupId =
                    group.parse().map_err(|error| Error::Internal(format!("security named a group that is none: {error}")))?;
                self.commit(scope, move |draft, _| {
                    vpc::registered(draft, id, group);
                    Ok(())
                })
                .await
            }
            VpcPlan::Unregister => {
                let refused = match self.unregister(id, false).await {
                    Ok(()) => None,
                    Err(error) if error.is_transient() => return Err(error),
                    Err(refused) => Some(refused),
                };
                let (is_gone, own) = (refused.is_none(), scope.clone());
                let decide = move |draft: &mut Draft<'_, Snapshot<'_>>, _| {
                    if is_gone {
                        vpc::unregistered(draft, id)
                    } else {
                        vpc::delete_refused(draft, id)
                    }
                    Ok(())
                };
                self.commit_with(scope, decide, move |transaction| end_deletions(transaction, &own, id, is_gone)).await?;
                refused.map_or(Ok(()), Err)
            }
        }
    }

    /// Has security forget a VPC, or only say whether it would.
    pub async fn unregister(&self, id: VpcId, dry_run: bool) -> Result<(), Error> {
        let request = UnregisterVpcRequest { vpc_id: id.to_string(), dry_run };
        match self.security().unregister_vpc(request).await {
            Ok(_) => Ok(()),
            Err(status) => match self.security.error(status) {
                error if dry_run && error.reason().as_deref() == Some("DryRunOperation") => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Has security hold groups for interfaces, in place of what it held; answers the groups of each.
    pub async fn hold(&self, holds: Vec<SecurityGroupHold>) -> Result<Vec<Vec<Group>>, Error> {
        let mut held = Vec::with_capacity(holds.len());
        for part in holds.chunks(HOLDS_PER_CALL) {
            let request = SetSecurityGroupHoldsRequest { holds: part.to_vec() };
            let answer = self.security().set_security_group_holds(request).await.map_err(|status| self.security.error(status))?;
            for one in answer.into_inner().held {
                let groups = one.group_ids.iter().zip(one.group_names).map(|(id, name)| id.parse().map(|id| Group { id, name }));
                held.push(
                    groups
                        .collect::<Result<_, _>>()
                        .map_err(|error| Error::Internal(format!("security named a group that is none: {error}")))?,
                );
            }
        }
        Ok(held)
    }

    /// Says, as long as the guard lives, that a call of this process is taking groups for an interface.
    pub fn taking(&self, id: NetworkInterfaceId) -> TakingGuard {
        self.under_way.begin(id, self.waker.clone())
    }

    pub fn is_taking(&self, id: NetworkInterfaceId) -> bool {
        self.under_way.is_under_way(id)
    }
}

/// One decision in a transaction: what it changed is written, or nothing is.
fn decided<A>(
    transaction: &mut Transaction<'_, Schema>,
    scope: &Scope,
    rules: &Rules,
    decide: impl FnOnce(&mut Draft<'_, Snapshot<'_>>, Timestamp) -> Result<A, Refusal>,
) -> Result<A, Refusal> {
    let now = transaction.now();
    let (answer, changes) = {
        let view = Snapshot { tables: transaction, scope };
        let mut draft = Draft::new(&view, rules);
        (decide(&mut draft, now)?, draft.finish())
    };
    apply(transaction, changes);
    Ok(answer)
}
