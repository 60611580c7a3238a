//! Transport only: scope, parse, decide, commit, convert. One file per resource.

pub mod convert;
mod groups;
mod keys;
mod peers;
mod prefix_lists;
mod rules;
mod tags;

use std::sync::Arc;

use gureum_model::{IdSource, refusal::Violations};
use gureum_proto::security::v1::{self as proto, security_service_server::SecurityService};
use gureum_security_domain::evaluate::{Flow, evaluate};
use gureum_service::{
    CancellationToken, Error, scope,
    watch::{SnapshotItem, WatchStream, watch},
};
use gureum_store::{State, Store};
use tonic::{Request, Response, Status};

use crate::store::{Schema, View};

/// Serves SecurityService and SecurityPeerService.
#[derive(Clone)]
pub struct Api {
    pub store: Store<Schema>,
    pub ids: Arc<IdSource>,
    pub shutdown: CancellationToken,
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(result: Result<T, Error>) -> Answer<T> {
    Ok(Response::new(result?))
}

#[tonic::async_trait]
impl SecurityService for Api {
    type WatchStream = WatchStream<proto::WatchResponse>;

    async fn create_security_group(
        &self,
        request: Request<proto::CreateSecurityGroupRequest>,
    ) -> Answer<proto::CreateSecurityGroupResponse> {
        answer(self.create_group(scope(), request.into_inner()).await)
    }

    async fn describe_security_groups(
        &self,
        request: Request<proto::DescribeSecurityGroupsRequest>,
    ) -> Answer<proto::DescribeSecurityGroupsResponse> {
        answer(groups::describe(&self.store.read(), &scope(), request.into_inner()).map_err(Error::from))
    }

    async fn delete_security_group(
        &self,
        request: Request<proto::DeleteSecurityGroupRequest>,
    ) -> Answer<proto::DeleteSecurityGroupResponse> {
        answer(self.delete_group(scope(), request.into_inner()).await)
    }

    async fn authorize_security_group_ingress(
        &self,
        request: Request<proto::AuthorizeSecurityGroupIngressRequest>,
    ) -> Answer<proto::AuthorizeSecurityGroupIngressResponse> {
        answer(self.authorize_ingress(scope(), request.into_inner()).await)
    }

    async fn authorize_security_group_egress(
        &self,
        request: Request<proto::AuthorizeSecurityGroupEgressRequest>,
    ) -> Answer<proto::AuthorizeSecurityGroupEgressResponse> {
        answer(self.authorize_egress(scope(), request.into_inner()).await)
    }

    async fn revoke_security_group_ingress(
        &self,
        request: Request<proto::RevokeSecurityGroupIngressRequest>,
    ) -> Answer<proto::RevokeSecurityGroupIngressResponse> {
        answer(self.revoke_ingress(scope(), request.into_inner()).await)
    }

    async fn revoke_security_group_egress(
        &self,
        request: Request<proto::RevokeSecurityGroupEgressRequest>,
    ) -> Answer<proto::RevokeSecurityGroupEgressResponse> {
        answer(self.revoke_egress(scope(), request.into_inner()).await)
    }

    async fn describe_security_group_rules(
        &self,
        request: Request<proto::DescribeSecurityGroupRulesRequest>,
    ) -> Answer<proto::DescribeSecurityGroupRulesResponse> {
        answer(rules::describe(&self.store.read(), &scope(), request.into_inner()).map_err(Error::from))
    }

    async fn modify_security_group_rules(
        &self,
        request: Request<proto::ModifySecurityGroupRulesRequest>,
    ) -> Answer<proto::ModifySecurityGroupRulesResponse> {
        answer(self.modify_rules(scope(), request.into_inner()).await)
    }

    async fn create_key_pair(&self, request: Request<proto::CreateKeyPairRequest>) -> Answer<proto::CreateKeyPairResponse> {
        answer(self.create_key(scope(), request.into_inner()).await)
    }

    async fn import_key_pair(&self, request: Request<proto::ImportKeyPairRequest>) -> Answer<proto::ImportKeyPairResponse> {
        answer(self.import_key(scope(), request.into_inner()).await)
    }

    async fn describe_key_pairs(&self, request: Request<proto::DescribeKeyPairsRequest>) -> Answer<proto::DescribeKeyPairsResponse> {
        answer(keys::describe(&self.store.read(), &scope(), request.into_inner()).map_err(Error::from))
    }

    async fn delete_key_pair(&self, request: Request<proto::DeleteKeyPairRequest>) -> Answer<proto::DeleteKeyPairResponse> {
        answer(self.delete_key(scope(), request.into_inner()).await)
    }

    async fn create_managed_prefix_list(
        &self,
        request: Request<proto::CreateManagedPrefixListRequest>,
    ) -> Answer<proto::CreateManagedPrefixListResponse> {
        answer(self.create_prefix_list(scope(), request.into_inner()).await)
    }

    async fn describe_managed_prefix_lists(
        &self,
        request: Request<proto::DescribeManagedPrefixListsRequest>,
    ) -> Answer<proto::DescribeManagedPrefixListsResponse> {
        answer(prefix_lists::describe(&self.store.read(), &scope(), request.into_inner()).map_err(Error::from))
    }

    async fn get_managed_prefix_list_entries(
        &self,
        request: Request<proto::GetManagedPrefixListEntriesRequest>,
    ) -> Answer<proto::GetManagedPrefixListEntriesResponse> {
        answer(prefix_lists::entries(&self.store.read(), &scope(), request.into_inner()).map_err(Error::from))
    }

    async fn modify_managed_prefix_list(
        &self,
        request: Request<proto::ModifyManagedPrefixListRequest>,
    ) -> Answer<proto::ModifyManagedPrefixListResponse> {
        answer(self.modify_prefix_list(scope(), request.into_inner()).await)
    }

    async fn delete_managed_prefix_list(
        &self,
        request: Request<proto::DeleteManagedPrefixListRequest>,
    ) -> Answer<proto::DeleteManagedPrefixListResponse> {
        answer(self.delete_prefix_list(scope(), request.into_inner()).await)
    }

    async fn evaluate(&self, request: Request<proto::EvaluateRequest>) -> Answer<proto::EvaluateResponse> {
        let (scope, state) = (scope(), self.store.read());
        let mut violations = Violations::new();
        let flow = Flow::parse(&convert::flow_input(request.into_inner()), &mut violations);
        violations.finish().map_err(Error::from)?;
        let view = View { tables: &state.tables, scope: &scope };
        // Without a violation there is a flow.
        let flow = flow.ok_or_else(|| Error::Internal("a flow without violations was not read".into()))?;
        answer(evaluate(&flow, &view).map(|verdict| convert::verdict(&verdict)).map_err(|error| gureum_model::Refusal::from(error).into()))
    }

    async fn create_tags(&self, request: Request<proto::CreateTagsRequest>) -> Answer<proto::CreateTagsResponse> {
        answer(self.put_tags(scope(), request.into_inner()).await)
    }

    async fn delete_tags(&self, request: Request<proto::DeleteTagsRequest>) -> Answer<proto::DeleteTagsResponse> {
        answer(self.remove_tags(scope(), request.into_inner()).await)
    }

    async fn describe_tags(&self, request: Request<proto::DescribeTagsRequest>) -> Answer<proto::DescribeTagsResponse> {
        answer(tags::describe(&self.store.read(), &scope(), request.into_inner()).map_err(Error::from))
    }

    async fn watch(&self, request: Request<proto::WatchRequest>) -> Answer<Self::WatchStream> {
        let (scope, after) = (scope(), request.into_inner().after_sequence);
        let shown = scope.clone();
        let stream =
            watch(self.store.clone(), Some(scope), after, move |state| snapshot(state, &format!("{shown}/")), self.shutdown.clone())?;
        Ok(Response::new(stream))
    }
}

/// Every resource whose key begins with `prefix`, as it is.
fn snapshot(state: &State<Schema>, prefix: &str) -> Vec<SnapshotItem<proto::Event>> {
    use proto::event::Resource;
    let item = |kind, scope: &gureum_model::Scope, resource_id, resource| SnapshotItem {
        kind,
        scope: scope.clone(),
        resource_id,
        event: proto::Event { metadata: None, resource: Some(resource) },
    };
    let groups = state.groups.scan(prefix, None).map(|row| {
        let group = &row.record.0;
        item("SecurityGroupState", &group.scope, group.id.to_string(), Resource::SecurityGroup(convert::group(group)))
    });
    let pairs = state.key_pairs.scan(prefix, None).map(|row| {
        let pair = &row.record.0;
        item("KeyPairState", &pair.scope, pair.id.to_string(), Resource::KeyPair(convert::key_pair(pair)))
    });
    let lists = state.prefix_lists.scan(prefix, None).map(|row| {
        let list = &row.record.0;
        item("PrefixListState", &list.scope, list.id.to_string(), Resource::PrefixList(convert::prefix_list_contents(list)))
    });
    groups.chain(pairs).chain(lists).collect()
}
