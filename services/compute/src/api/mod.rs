//! Transport: each call is read, decided and shown by the file of its resource.
//!
//! A handler has five steps: scope → parse (all violations) → decide → commit → convert.

mod account;
mod attributes;
mod connect;
mod console;
mod image_attributes;
mod images;
mod instances;
mod launch;
mod make_images;
mod marketplace;
mod nodes;
mod snapshots;
mod status;
mod tags;
mod templates;
mod types;
mod uploads;
mod volumes;
mod watch;

use std::sync::Arc;

use gureum_proto::compute::v1 as proto;
use gureum_proto::compute::v1::{compute_peer_service_server::ComputePeerService, compute_service_server::ComputeService};
use gureum_service::watch::WatchStream;
use tonic::{Request, Response, Status, Streaming};

use crate::core::Core;

/// Serves ComputeService and ComputePeerService.
#[derive(Clone)]
pub struct Api(pub Arc<Core>);

/// A trait of tonic is one impl; this keeps it to a line a call: its name, its messages, its file.
macro_rules! delegate {
    ($service:ident, $stream:ident of $message:ident by $watch:ident($watch_request:ident) in $watch_module:ident {
        $($name:ident($request:ident) -> $response:ident in $module:ident;)*
    } $(and { $($more:tt)* })?) => {
        #[tonic::async_trait]
        impl $service for Api {
            $(async fn $name(&self, request: Request<proto::$request>) -> Result<Response<proto::$response>, Status> {
                Ok(Response::new($module::$name(&self.0, request.into_inner()).await?))
            })*

            $($($more)*)?

            type $stream = WatchStream<proto::$message>;

            async fn $watch(&self, request: Request<proto::$watch_request>) -> Result<Response<Self::$stream>, Status> {
                Ok(Response::new($watch_module::$watch(&self.0, request.into_inner())?))
            }
        }
    };
}

delegate! { ComputeService, WatchStream of WatchResponse by watch(WatchRequest) in watch {
    run_instances(RunInstancesRequest) -> RunInstancesResponse in launch;
    describe_instances(DescribeInstancesRequest) -> DescribeInstancesResponse in instances;
    describe_instance_status(DescribeInstanceStatusRequest) -> DescribeInstanceStatusResponse in status;
    start_instances(StartInstancesRequest) -> StartInstancesResponse in instances;
    stop_instances(StopInstancesRequest) -> StopInstancesResponse in instances;
    reboot_instances(RebootInstancesRequest) -> RebootInstancesResponse in instances;
    terminate_instances(TerminateInstancesRequest) -> TerminateInstancesResponse in instances;
    describe_instance_attribute(DescribeInstanceAttributeRequest) -> DescribeInstanceAttributeResponse in attributes;
    modify_instance_attribute(ModifyInstanceAttributeRequest) -> ModifyInstanceAttributeResponse in attributes;
    modify_instance_metadata_options(ModifyInstanceMetadataOptionsRequest) -> ModifyInstanceMetadataOptionsResponse in attributes;
    monitor_instances(MonitorInstancesRequest) -> MonitorInstancesResponse in attributes;
    unmonitor_instances(UnmonitorInstancesRequest) -> UnmonitorInstancesResponse in attributes;
    get_console_output(GetConsoleOutputRequest) -> GetConsoleOutputResponse in console;
    describe_instance_credit_specifications(DescribeInstanceCreditSpecificationsRequest) -> DescribeInstanceCreditSpecificationsResponse in attributes;
    describe_instance_types(DescribeInstanceTypesRequest) -> DescribeInstanceTypesResponse in types;
    describe_instance_type_offerings(DescribeInstanceTypeOfferingsRequest) -> DescribeInstanceTypeOfferingsResponse in types;
    describe_images(DescribeImagesRequest) -> DescribeImagesResponse in images;
    create_image(CreateImageRequest) -> CreateImageResponse in make_images;
    register_image(RegisterImageRequest) -> RegisterImageResponse in make_images;
    deregister_image(DeregisterImageRequest) -> DeregisterImageResponse in make_images;
    describe_image_attribute(DescribeImageAttributeRequest) -> DescribeImageAttributeResponse in image_attributes;
    modify_image_attribute(ModifyImageAttributeRequest) -> ModifyImageAttributeResponse in image_attributes;
    describe_marketplace_listings(DescribeMarketplaceListingsRequest) -> DescribeMarketplaceListingsResponse in marketplace;
    create_marketplace_listing(CreateMarketplaceListingRequest) -> CreateMarketplaceListingResponse in marketplace;
    accept_marketplace_terms(AcceptMarketplaceTermsRequest) -> AcceptMarketplaceTermsResponse in marketplace;
    create_volume(CreateVolumeRequest) -> CreateVolumeResponse in volumes;
    describe_volumes(DescribeVolumesRequest) -> DescribeVolumesResponse in volumes;
    attach_volume(AttachVolumeRequest) -> AttachVolumeResponse in volumes;
    detach_volume(DetachVolumeRequest) -> DetachVolumeResponse in volumes;
    delete_volume(DeleteVolumeRequest) -> DeleteVolumeResponse in volumes;
    create_snapshot(CreateSnapshotRequest) -> CreateSnapshotResponse in snapshots;
    describe_snapshots(DescribeSnapshotsRequest) -> DescribeSnapshotsResponse in snapshots;
    delete_snapshot(DeleteSnapshotRequest) -> DeleteSnapshotResponse in snapshots;
    modify_snapshot_attribute(ModifySnapshotAttributeRequest) -> ModifySnapshotAttributeResponse in snapshots;
    start_snapshot(StartSnapshotRequest) -> StartSnapshotResponse in uploads;
    put_snapshot_block(PutSnapshotBlockRequest) -> PutSnapshotBlockResponse in uploads;
    complete_snapshot(CompleteSnapshotRequest) -> CompleteSnapshotResponse in uploads;
    create_launch_template(CreateLaunchTemplateRequest) -> CreateLaunchTemplateResponse in templates;
    create_launch_template_version(CreateLaunchTemplateVersionRequest) -> CreateLaunchTemplateVersionResponse in templates;
    modify_launch_template(ModifyLaunchTemplateRequest) -> ModifyLaunchTemplateResponse in templates;
    describe_launch_templates(DescribeLaunchTemplatesRequest) -> DescribeLaunchTemplatesResponse in templates;
    describe_launch_template_versions(DescribeLaunchTemplateVersionsRequest) -> DescribeLaunchTemplateVersionsResponse in templates;
    delete_launch_template(DeleteLaunchTemplateRequest) -> DeleteLaunchTemplateResponse in templates;
    delete_launch_template_versions(DeleteLaunchTemplateVersionsRequest) -> DeleteLaunchTemplateVersionsResponse in templates;
    describe_account_attributes(DescribeAccountAttributesRequest) -> DescribeAccountAttributesResponse in account;
    get_identity_certificate(GetIdentityCertificateRequest) -> GetIdentityCertificateResponse in account;
    create_tags(CreateTagsRequest) -> CreateTagsResponse in tags;
    delete_tags(DeleteTagsRequest) -> DeleteTagsResponse in tags;
    describe_tags(DescribeTagsRequest) -> DescribeTagsResponse in tags;
} and {
    type WatchConsoleStream = connect::WatchConsoleStream;
    type ConnectInstanceStream = connect::ConnectStream;

    async fn watch_console(&self, request: Request<proto::WatchConsoleRequest>) -> Result<Response<Self::WatchConsoleStream>, Status> {
        Ok(Response::new(connect::watch_console(&self.0, request.into_inner()).await?))
    }

    async fn connect_instance(
        &self,
        request: Request<Streaming<proto::ConnectInstanceRequest>>,
    ) -> Result<Response<Self::ConnectInstanceStream>, Status> {
        Ok(Response::new(connect::connect_instance(&self.0, request.into_inner()).await?))
    }
} }

delegate! { ComputePeerService, WatchAllStream of WatchAllResponse by watch_all(WatchAllRequest) in watch {
    register_node(RegisterNodeRequest) -> RegisterNodeResponse in nodes;
    get_identity_key(GetIdentityKeyRequest) -> GetIdentityKeyResponse in nodes;
    node_heartbeat(NodeHeartbeatRequest) -> NodeHeartbeatResponse in nodes;
    describe_nodes(DescribeNodesRequest) -> DescribeNodesResponse in nodes;
    declare_node_dead(DeclareNodeDeadRequest) -> DeclareNodeDeadResponse in nodes;
} }
