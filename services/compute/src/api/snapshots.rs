//! Snapshots of volumes.

use std::sync::Arc;

use gureum_proto::compute::v1 as proto;
use gureum_service::Error;

use crate::core::Core;

not_offered! {
    create_snapshot(CreateSnapshotRequest) -> CreateSnapshotResponse;
    describe_snapshots(DescribeSnapshotsRequest) -> DescribeSnapshotsResponse;
    delete_snapshot(DeleteSnapshotRequest) -> DeleteSnapshotResponse;
    modify_snapshot_attribute(ModifySnapshotAttributeRequest) -> ModifySnapshotAttributeResponse;
}
