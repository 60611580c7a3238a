//! Attributes of images, one at a time.

use std::sync::Arc;

use gureum_compute_domain::image::{self, Change, Image, permission};
use gureum_model::{Refusal, id::ImageId};
use gureum_proto::compute::v1 as proto;
use gureum_service::{Error, mutate::mutate, scope, wire};
use proto::{ImageAttributeName as Name, describe_image_attribute_response::Value, modify_image_attribute_request::Change as Wanted};

use crate::{
    catalog,
    convert::{
        image::{mapping, shown},
        permission as grantees,
    },
    core::Core,
    store::decide_image,
};

/// Tells one attribute of one's own image.
pub async fn describe_image_attribute(
    core: &Arc<Core>,
    request: proto::DescribeImageAttributeRequest,
) -> Result<proto::DescribeImageAttributeResponse, Error> {
    let (scope, state) = (scope(), core.read());
    let id: ImageId = Refusal::parse_id("image_id", &request.image_id)?;
    let it = catalog::get_image(&state, &scope, id)?;
    image::check_owner(&it, &scope).map_err(Refusal::from)?;
    Ok(proto::DescribeImageAttributeResponse { image_id: id.to_string(), value: attribute(&it, request.attribute()) })
}

/// None where it has no value.
fn attribute(it: &Image, name: Name) -> Option<Value> {
    Some(match name {
        Name::Unspecified | Name::Kernel | Name::Ramdisk => return None,
        Name::Description => Value::Description(it.description.clone()),
        Name::LaunchPermission => Value::LaunchPermissions(proto::Permissions { permissions: grantees::shown(&it.permissions) }),
        Name::ProductCodes => Value::ProductCodes(proto::ProductCodes { product_codes: shown(it).product_codes }),
        Name::BlockDeviceMapping => {
            Value::BlockDeviceMappings(proto::BlockDeviceMappings { block_device_mappings: it.block_devices.iter().map(mapping).collect() })
        }
        Name::SriovNetSupport => Value::SriovNetSupport(shown(it).sriov_net_support),
        Name::BootMode => Value::BootMode(it.boot_mode?.as_str().to_owned()),
        Name::ImdsSupport => Value::ImdsSupport(shown(it).imds_support),
        Name::LastLaunchedTime => Value::LastLaunchedTime(wire::timestamp(it.last_launched?)),
    })
}

/// What the request changes. Errors: `InvalidAMIAttributeItemValue`, `InvalidParameterValue`.
fn read(wanted: Option<Wanted>) -> Result<Change, Refusal> {
    match wanted.ok_or_else(|| Refusal::missing("change"))? {
        Wanted::Description(text) => Ok(Change::Description(text)),
        Wanted::ImdsSupport(version) if version == "v2.0" => Ok(Change::DemandsTokens),
        Wanted::ImdsSupport(version) => {
            Err(Refusal::invalid("imds_support", format!("'{version}' is no metadata version that can be demanded: expected v2.0")))
        }
        Wanted::LaunchPermission(change) => {
            let fields = ["launch_permission.add", "launch_permission.remove"];
            let (add, remove) = (grantees::read(change.add), grantees::read(change.remove));
            permission::Change::parse(&add, &remove, fields, "InvalidAMIAttributeItemValue").map(Change::Permissions)
        }
    }
}

/// Changes one attribute of one's own image.
pub async fn modify_image_attribute(
    core: &Arc<Core>,
    request: proto::ModifyImageAttributeRequest,
) -> Result<proto::ModifyImageAttributeResponse, Error> {
    let scope = scope();
    let (id, change) = Refusal::both(Refusal::parse_id::<ImageId>("image_id", &request.image_id), read(request.change.clone()))?;
    let caller = scope.clone();
    let modified = mutate(&core.store, &caller, &request, move |tx| {
        let it = catalog::get_image(tx, &scope, id)?.into_owned();
        let decision = image::modify(&it, &scope, &change)?;
        let next = decision.clone().after(&it);
        decide_image(tx, "ImageChanged", &it, decision);
        Ok(proto::ModifyImageAttributeResponse { image: next.as_ref().map(shown) })
    });
    modified.await
}
