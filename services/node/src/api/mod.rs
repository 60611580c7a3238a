//! Transport only: parse, decide, commit, convert. Scope stands in each item, never in the metadata.

mod disks;
mod faults;
mod instances;
mod read;
mod sessions;
pub mod show;
pub mod usage;

use std::sync::Arc;

use gureum_model::refusal::Violations;
use gureum_proto::node::v1::{self as proto, node_service_server::NodeService};
use gureum_service::{
    Activity, CancellationToken, Clock, Error,
    watch::{SnapshotItem, WatchStream, watch},
    wire,
};
use gureum_store::State;
use tonic::{Request, Response, Status};

use crate::{
    api::usage::{Samplers, UsageStream},
    driver::Driver,
    records::Records,
    recovery::Identity,
    registration::Pause,
    store::Schema,
};

/// Serves NodeService.
#[derive(Clone)]
pub struct Api {
    pub records: Records,
    pub driver: Arc<dyn Driver>,
    pub identity: Identity,
    pub zone: char,
    pub clock: Clock,
    pub activity: Activity,
    pub samplers: Samplers,
    pub pause: Pause,
    pub shutdown: CancellationToken,
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(result: Result<T, Error>) -> Answer<T> {
    Ok(Response::new(result?))
}

#[tonic::async_trait]
impl NodeService for Api {
    type WatchInstancesStream = WatchStream<proto::WatchInstancesResponse>;
    type WatchUsageStream = UsageStream;
    type WatchConsoleStream = sessions::WatchConsoleStream;
    type ConnectInstanceStream = sessions::ConnectStream;

    async fn apply_instances(&self, request: Request<proto::ApplyInstancesRequest>) -> Answer<proto::ApplyInstancesResponse> {
        answer(instances::apply_all(&self.records, request.into_inner()).await)
    }

    async fn watch_instances(&self, request: Request<proto::WatchInstancesRequest>) -> Answer<Self::WatchInstancesStream> {
        let after = request.into_inner().after_sequence;
        let stream = watch(self.records.store().clone(), None, after, snapshot, self.shutdown.clone())?;
        Ok(Response::new(stream))
    }

    async fn describe_node_instances(
        &self,
        request: Request<proto::DescribeNodeInstancesRequest>,
    ) -> Answer<proto::DescribeNodeInstancesResponse> {
        answer(instances::describe(&self.records.store().read(), request.into_inner()).map_err(Error::from))
    }

    async fn describe_node(&self, _request: Request<proto::DescribeNodeRequest>) -> Answer<proto::DescribeNodeResponse> {
        let ledger = self.records.ledger().await?;
        let (total, free) = (ledger.total(), ledger.free());
        Ok(Response::new(proto::DescribeNodeResponse {
            node_id: self.identity.id.to_string(),
            zone: self.zone.to_string(),
            incarnation: self.identity.incarnation,
            total_vcpu_milli: total.vcpu_milli,
            total_memory_mib: total.memory_mib,
            free_vcpu_milli: free.vcpu_milli,
            free_memory_mib: free.memory_mib,
            running_count: u32::try_from(ledger.holders()).unwrap_or(u32::MAX),
            capabilities: Some(show::capabilities(self.driver.capabilities())),
        }))
    }

    async fn get_console_output(&self, request: Request<proto::GetConsoleOutputRequest>) -> Answer<proto::GetConsoleOutputResponse> {
        let mut violations = Violations::new();
        let id = violations.id("instance_id", &request.into_inner().instance_id);
        violations.finish().map_err(Error::from)?;
        let row = instances::find(&self.records.store().read(), id).map_err(Error::from)?;
        let output =
            self.driver.console(&row).await.map_err(|error| Error::Internal(format!("reading the console of {}: {error}", row.id)))?;
        Ok(Response::new(proto::GetConsoleOutputResponse { output, time: Some(wire::timestamp(self.clock.now())) }))
    }

    async fn watch_console(&self, request: Request<proto::WatchConsoleRequest>) -> Answer<Self::WatchConsoleStream> {
        answer(sessions::watch_console(self, request.into_inner()).await)
    }

    async fn connect_instance(
        &self,
        request: Request<tonic::Streaming<proto::ConnectInstanceRequest>>,
    ) -> Answer<Self::ConnectInstanceStream> {
        Ok(Response::new(sessions::connect(self, request.into_inner()).await?))
    }

    async fn watch_usage(&self, request: Request<proto::WatchUsageRequest>) -> Answer<Self::WatchUsageStream> {
        Ok(Response::new(usage::stream(self, request.into_inner()).map_err(Error::from)?))
    }

    async fn forget_terminated(&self, request: Request<proto::ForgetTerminatedRequest>) -> Answer<proto::ForgetTerminatedResponse> {
        answer(instances::forget_all(&self.records, request.into_inner()).await)
    }

    async fn inject_fault(&self, request: Request<proto::InjectFaultRequest>) -> Answer<proto::InjectFaultResponse> {
        answer(faults::inject(self, request.into_inner()).await)
    }

    async fn create_volume(&self, request: Request<proto::CreateVolumeRequest>) -> Answer<proto::CreateVolumeResponse> {
        answer(disks::create_volume(&*self.driver, request.into_inner()).await)
    }

    async fn delete_volume(&self, request: Request<proto::DeleteVolumeRequest>) -> Answer<proto::DeleteVolumeResponse> {
        answer(disks::delete_volume(&*self.driver, request.into_inner()).await)
    }

    async fn create_snapshot(&self, request: Request<proto::CreateSnapshotRequest>) -> Answer<proto::CreateSnapshotResponse> {
        answer(disks::create_snapshot(&*self.driver, request.into_inner()).await)
    }

    async fn put_snapshot_block(&self, request: Request<proto::PutSnapshotBlockRequest>) -> Answer<proto::PutSnapshotBlockResponse> {
        answer(disks::put_snapshot_block(&*self.driver, request.into_inner()).await)
    }

    async fn complete_snapshot(&self, request: Request<proto::CompleteSnapshotRequest>) -> Answer<proto::CompleteSnapshotResponse> {
        answer(disks::complete_snapshot(&*self.driver, request.into_inner()).await)
    }

    async fn delete_snapshot(&self, request: Request<proto::DeleteSnapshotRequest>) -> Answer<proto::DeleteSnapshotResponse> {
        answer(disks::delete_snapshot(&*self.driver, request.into_inner()).await)
    }
}

/// Every instance as it is.
fn snapshot(state: &State<Schema>) -> Vec<SnapshotItem<proto::Event>> {
    let item = |row: &crate::store::InstanceRow| SnapshotItem {
        kind: "InstanceState",
        scope: row.scope.clone(),
        resource_id: row.id.to_string(),
        event: proto::Event { metadata: None, resource: Some(proto::event::Resource::Instance(show::observation(row))) },
    };
    state.instances.iter().map(|row| item(&row.record)).collect()
}
