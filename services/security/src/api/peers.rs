//! What only other services call: VPCs made known, groups held.

use gureum_model::refusal::Violations;
use gureum_model::{Refusal, Scope, id::VpcId};
use gureum_proto::security::v1::{self as proto, security_peer_service_server::SecurityPeerService};
use gureum_security_domain::{
    Directory,
    hold::{self, HoldDecision, HoldRequest, parse_holds},
    vpc::{self, Registration},
};
use gureum_service::{
    Error,
    mutate::dry_run_refusal,
    scope,
    watch::{WatchStream, watch},
};
use gureum_store::Record;
use tonic::{Request, Response};

use super::{Answer, Api, answer, convert, snapshot};
use crate::store::{Happened, HoldRow, Schema, View, VpcRow, scoped, write_group};

type Transaction<'a> = gureum_store::Transaction<'a, Schema>;

#[tonic::async_trait]
impl SecurityPeerService for Api {
    type WatchAllStream = WatchStream<proto::WatchAllResponse>;

    async fn register_vpc(&self, request: Request<proto::RegisterVpcRequest>) -> Answer<proto::RegisterVpcResponse> {
        let (scope, request) = (scope(), request.into_inner());
        let id = parse_vpc(&request.vpc_id)?;
        let ids = self.ids.clone();
        let decide = move |transaction: &mut Transaction<'_>| register(transaction, &scope, id, request.is_default, &ids);
        answer(self.store.write(decide).await.map_err(Error::from))
    }

    async fn unregister_vpc(&self, request: Request<proto::UnregisterVpcRequest>) -> Answer<proto::UnregisterVpcResponse> {
        let (scope, request) = (scope(), request.into_inner());
        let id = parse_vpc(&request.vpc_id)?;
        let decide = move |transaction: &mut Transaction<'_>| {
            unregister(transaction, &scope, id)?;
            if request.dry_run { Err(dry_run_refusal()) } else { Ok(proto::UnregisterVpcResponse {}) }
        };
        answer(self.store.write(decide).await.map_err(Error::from))
    }

    async fn set_security_group_holds(
        &self,
        request: Request<proto::SetSecurityGroupHoldsRequest>,
    ) -> Answer<proto::SetSecurityGroupHoldsResponse> {
        let scope = scope();
        let mut violations = Violations::new();
        let requests = parse_holds("holds", &convert::holds(request.into_inner().holds), &mut violations);
        violations.finish().map_err(Error::from)?;
        let decide = move |transaction: &mut Transaction<'_>| {
            let of = |place: usize| move |refusal: Refusal| refusal.under(&format!("holds[{place}]"));
            let numbered = requests.iter().enumerate();
            let held = numbered.map(|(place, request)| set_hold(transaction, &scope, request).map_err(of(place)));
            let held = held.collect::<Result<_, Refusal>>()?;
            Ok::<_, Refusal>(proto::SetSecurityGroupHoldsResponse { held })
        };
        answer(self.store.write(decide).await.map_err(Error::from))
    }

    async fn watch_all(&self, request: Request<proto::WatchAllRequest>) -> Answer<Self::WatchAllStream> {
        let after = request.into_inner().after_sequence;
        Ok(Response::new(watch(self.store.clone(), None, after, |state| snapshot(state, ""), self.shutdown.clone())?))
    }
}

fn parse_vpc(text: &str) -> Result<VpcId, Error> {
    Ok(text.parse::<VpcId>().map_err(Refusal::from)?)
}

fn register(
    transaction: &mut Transaction<'_>,
    scope: &Scope,
    id: VpcId,
    is_default: bool,
    ids: &gureum_model::IdSource,
) -> Result<proto::RegisterVpcResponse, Refusal> {
    let view = View { tables: transaction, scope };
    match vpc::register(scope, id, is_default, view.vpc(id), view.default_vpc(), ids)? {
        Registration::Unchanged => {}
        Registration::Changed(vpc) => transaction.put(VpcRow(vpc)),
        Registration::New(vpc, group) => {
            transaction.put(VpcRow(vpc));
            write_group(transaction, group, Happened::Created);
        }
    }
    let view = View { tables: transaction, scope };
    let default = view.groups_of(id).into_iter().find(|group| group.is_default()).map(convert::group);
    Ok(proto::RegisterVpcResponse { default_security_group: default })
}

fn unregister(transaction: &mut Transaction<'_>, scope: &Scope, id: VpcId) -> Result<(), Refusal> {
    let view = View { tables: transaction, scope };
    // A repeat finds nothing left to forget.
    let Some(known) = view.vpc(id) else { return Ok(()) };
    let groups = view.groups_of(id);
    let default = groups.iter().find(|group| group.is_default()).map(|group| (*group).clone());
    let holders = default.as_ref().map(|group| view.holders_of(group.id)).unwrap_or_default();
    vpc::unregister(known, &groups, &holders)?;
    if let Some(group) = default {
        write_group(transaction, group, Happened::Deleted);
    }
    transaction.delete::<VpcRow>(&scoped(scope, id));
    Ok(())
}

fn set_hold(transaction: &mut Transaction<'_>, scope: &Scope, request: &HoldRequest) -> Result<proto::HeldSecurityGroups, Refusal> {
    let view = View { tables: transaction, scope };
    let before = view.hold(&request.holder_id).cloned();
    let groups = match hold::set(scope, request, before.as_ref(), &view)? {
        HoldDecision::Unchanged => before.map(|hold| hold.groups).unwrap_or_default(),
        HoldDecision::Set(hold) => {
            let groups = hold.groups.clone();
            transaction.put(HoldRow(hold));
            groups
        }
        HoldDecision::Release => {
            if let Some(hold) = before {
                transaction.delete::<HoldRow>(&HoldRow(hold).key());
            }
            Vec::new()
        }
    };
    let view = View { tables: transaction, scope };
    // A group that is held exists.
    let group_names = groups.iter().filter_map(|id| view.group(*id)).map(|group| group.name.clone()).collect();
    Ok(proto::HeldSecurityGroups {
        holder_id: request.holder_id.clone(),
        group_ids: groups.iter().map(ToString::to_string).collect(),
        group_names,
    })
}
