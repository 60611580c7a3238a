//! Volumes: those of launches, listed and deleted.

use std::sync::Arc;

use gureum_compute_domain::volume::Volume;
use gureum_model::{Filters, PageRequest, id::VolumeId, refusal::Violations};
use gureum_proto::compute::v1 as proto;
use gureum_service::{Error, scope, wire};
use gureum_store::{list, list::get_all};

use crate::{convert::volume::shown, core::Core};

/// One page of the caller's volumes.
pub async fn describe_volumes(core: &Arc<Core>, request: proto::DescribeVolumesRequest) -> Result<proto::DescribeVolumesResponse, Error> {
    let (scope, state) = (scope(), core.read());
    let mut violations = Violations::new();
    let ids: Vec<VolumeId> = violations.ids("volume_ids", &request.volume_ids);
    let filters = violations.check("", Filters::for_kind::<Volume>(wire::filters(request.filters))).unwrap_or_default();
    violations.finish()?;
    let (rows, next_page_token) = if ids.is_empty() {
        let page = PageRequest::new(request.page_size, &request.page_token, &("volumes", &scope, &filters))?;
        list(&state.volumes, &scope, &filters, &page)
    } else {
        (get_all(&state.volumes, &scope, &ids)?, String::new())
    };
    let passing = rows.iter().filter(|row| row.visible() && filters.pass(&row.record));
    Ok(proto::DescribeVolumesResponse { volumes: passing.map(|row| shown(row)).collect(), next_page_token })
}

not_offered! {
    create_volume(CreateVolumeRequest) -> CreateVolumeResponse;
    attach_volume(AttachVolumeRequest) -> AttachVolumeResponse;
    detach_volume(DetachVolumeRequest) -> DetachVolumeResponse;
    delete_volume(DeleteVolumeRequest) -> DeleteVolumeResponse;
}
