//! Images of instances and of snapshots, shared and sold.

use std::time::Duration;

use gureum_model::{IdSource, Scope};
use gureum_proto::{
    common::v1::{Filter, Tag},
    compute::v1::{self as proto, ImageState, InstanceState},
};
use gureum_service::context::{self, RequestContext};

use crate::{
    region::{Options, Region, reason, run, spec, until},
    volumes::{completed, volume},
};

/// Calls as another account.
async fn as_account<F: Future>(account: &str, call: F) -> F::Output {
    let scope = Scope { account: account.parse().unwrap(), ..Scope::default() };
    context::with(RequestContext::background(scope, &IdSource::random(), Duration::from_secs(10)), call).await
}

const OTHER: &str = "000000000042";

async fn images(region: &Region, request: proto::DescribeImagesRequest) -> Vec<proto::Image> {
    region.compute().describe_images(request).await.unwrap().into_inner().images
}

fn named(id: &str) -> proto::DescribeImagesRequest {
    proto::DescribeImagesRequest { image_ids: vec![id.to_owned()], ..Default::default() }
}

async fn until_available(region: &Region, id: &str) -> proto::Image {
    until(id, async || images(region, named(id)).await[0].state() == ImageState::Available).await;
    images(region, named(id)).await.remove(0)
}

fn of_instance(instance_id: &str, name: &str) -> proto::CreateImageRequest {
    let tags = |kind: &str| proto::TagSpecification {
        resource_type: kind.to_owned(),
        tags: vec![Tag { key: "of".to_owned(), value: kind.to_owned() }],
    };
    proto::CreateImageRequest {
        instance_id: instance_id.to_owned(),
        name: name.to_owned(),
        tag_specifications: vec![tags("image"), tags("snapshot")],
        ..Default::default()
    }
}

fn launch_of(image_id: &str) -> proto::RunInstancesRequest {
    proto::RunInstancesRequest { spec: Some(proto::LaunchSpec { image_id: Some(image_id.to_owned()), ..spec() }), ..run(1) }
}

async fn made(region: &Region, name: &str) -> (String, proto::Image) {
    let instance = region.running().await.instance_id;
    let image = region.compute().create_image(of_instance(&instance, name)).await.unwrap().into_inner().image.unwrap();
    assert_eq!(image.state(), ImageState::Pending);
    (instance, until_available(region, &image.image_id).await)
}

fn snapshot_of(image: &proto::Image) -> String {
    match image.block_device_mappings[0].device.clone().unwrap() {
        proto::block_device_mapping::Device::Ebs(ebs) => ebs.snapshot_id.unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_image_of_an_instance_is_launched_and_deregistered() {
    let region = Region::start(Options { zones: "a", ..Options::default() }).await;
    let mut compute = region.compute();
    let (instance, image) = made(&region, "golden").await;
    assert_eq!((image.source_instance_id.as_str(), image.public), (instance.as_str(), false));
    let snapshot = completed(&region, &snapshot_of(&image)).await;
    assert_eq!((image.tags[0].value.as_str(), snapshot.tags[0].value.as_str()), ("image", "snapshot"));
    assert_eq!(reason(&compute.create_image(of_instance(&instance, "golden")).await.unwrap_err()), "InvalidAMIName.Duplicate");
    let by_tag = Filter { name: "tag:of".to_owned(), values: vec!["image".to_owned()] };
    let found = images(&region, proto::DescribeImagesRequest { filters: vec![by_tag], ..Default::default() }).await;
    assert_eq!(found.iter().map(|it| it.image_id.as_str()).collect::<Vec<_>>(), [image.image_id.as_str()]);

    let launched = compute.run_instances(launch_of(&image.image_id)).await.unwrap().into_inner().instances.remove(0);
    region.until_instance(&launched.instance_id, InstanceState::Running).await;
    let root = volume(&region, &launched.block_device_mappings[0].volume_id).await;
    assert_eq!(root.snapshot_id, snapshot.snapshot_id);
    let last = proto::DescribeImageAttributeRequest {
        image_id: image.image_id.clone(),
        attribute: proto::ImageAttributeName::LastLaunchedTime.into(),
    };
    assert!(compute.describe_image_attribute(last).await.unwrap().into_inner().value.is_some());

    let delete = proto::DeleteSnapshotRequest { snapshot_id: snapshot.snapshot_id.clone(), ..Default::default() };
    assert_eq!(reason(&compute.delete_snapshot(delete.clone()).await.unwrap_err()), "InvalidSnapshot.InUse");
    let deregister = proto::DeregisterImageRequest { image_id: image.image_id.clone(), ..Default::default() };
    compute.deregister_image(deregister.clone()).await.unwrap();
    assert_eq!(reason(&compute.deregister_image(deregister).await.unwrap_err()), "InvalidAMIID.Unavailable");
    assert_eq!(reason(&compute.run_instances(launch_of(&image.image_id)).await.unwrap_err()), "InvalidAMIID.Unavailable");
    assert_eq!(region.instance(&launched.instance_id).await.state(), InstanceState::Running);
    compute.delete_snapshot(delete).await.unwrap();
    // The name is free again.
    compute.create_image(of_instance(&instance, "golden")).await.unwrap();
}

#[tokio::test]
async fn an_image_is_registered_of_a_snapshot() {
    let region = Region::start(Options { zones: "a", ..Options::default() }).await;
    let mut compute = region.compute();
    let (_, image) = made(&region, "source").await;
    let ebs = proto::EbsBlockDevice { snapshot_id: Some(snapshot_of(&image)), ..Default::default() };
    let root =
        proto::BlockDeviceMapping { device_name: "/dev/xvda".to_owned(), device: Some(proto::block_device_mapping::Device::Ebs(ebs)) };
    let register = proto::RegisterImageRequest {
        name: "registered".to_owned(),
        root_device_name: "/dev/xvda".to_owned(),
        block_device_mappings: vec![root],
        imds_support: "v2.0".to_owned(),
        ..Default::default()
    };
    let bad = proto::RegisterImageRequest { name: "bad*name".to_owned(), architecture: "vax".to_owned(), ..register.clone() };
    let refused = compute.register_image(bad).await.unwrap_err();
    let violations = tonic_types::StatusExt::get_details_bad_request(&refused).unwrap().field_violations;
    assert_eq!(violations.iter().map(|it| it.field.as_str()).collect::<Vec<_>>(), ["name", "architecture"]);
    let registered = compute.register_image(register).await.unwrap().into_inner().image.unwrap();
    assert_eq!((registered.state(), registered.imds_support.as_str()), (ImageState::Available, "v2.0"));
    let launched = compute.run_instances(launch_of(&registered.image_id)).await.unwrap().into_inner().instances.remove(0);
    region.until_instance(&launched.instance_id, InstanceState::Running).await;
}

#[tokio::test]
async fn an_image_is_shared_with_one_account_and_with_all() {
    let region = Region::start(Options { zones: "a", ..Options::default() }).await;
    let mut compute = region.compute();
    let (_, image) = made(&region, "shared").await;
    as_account(OTHER, region.network_peer().ensure_scope(gureum_proto::network::v1::EnsureScopeRequest {})).await.unwrap();
    let other = |request| as_account(OTHER, images(&region, request));
    let refused = as_account(OTHER, region.compute().describe_images(named(&image.image_id))).await.unwrap_err();
    assert_eq!(reason(&refused), "InvalidAMIID.NotFound");

    let grant = |grantee| proto::ModifyImageAttributeRequest {
        image_id: image.image_id.clone(),
        change: Some(proto::modify_image_attribute_request::Change::LaunchPermission(proto::LaunchPermissionChange {
            add: vec![proto::Permission { grantee: Some(grantee) }],
            remove: Vec::new(),
        })),
        ..Default::default()
    };
    compute.modify_image_attribute(grant(proto::permission::Grantee::UserId(OTHER.to_owned()))).await.unwrap();
    let seen = other(named(&image.image_id)).await.remove(0);
    assert_eq!((seen.tags, seen.public), (vec![], false));
    let launched = as_account(OTHER, region.compute().run_instances(launch_of(&image.image_id))).await.unwrap().into_inner();
    assert_eq!(launched.instances[0].image_id, image.image_id);
    let deregister = proto::DeregisterImageRequest { image_id: image.image_id.clone(), ..Default::default() };
    let refused = as_account(OTHER, region.compute().deregister_image(deregister)).await.unwrap_err();
    assert_eq!(reason(&refused), "AuthFailure");

    let modified = compute.modify_image_attribute(grant(proto::permission::Grantee::Group("all".to_owned()))).await.unwrap();
    assert!(modified.into_inner().image.unwrap().public);
    let of_all = proto::DescribeImagesRequest { executable_users: vec!["all".to_owned()], ..Default::default() };
    let third = as_account("000000000043", images(&region, of_all)).await;
    assert!(third.iter().any(|it| it.image_id == image.image_id));
    let wrong = compute.modify_image_attribute(grant(proto::permission::Grantee::UserId("7".to_owned()))).await.unwrap_err();
    assert_eq!(reason(&wrong), "InvalidAMIAttributeItemValue");
    let permissions = proto::DescribeImageAttributeRequest {
        image_id: image.image_id.clone(),
        attribute: proto::ImageAttributeName::LaunchPermission.into(),
    };
    match compute.describe_image_attribute(permissions).await.unwrap().into_inner().value.unwrap() {
        proto::describe_image_attribute_response::Value::LaunchPermissions(list) => assert_eq!(list.permissions.len(), 2),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_product_is_launched_once_its_terms_are_accepted() {
    let region = Region::start(Options { zones: "a", ..Options::default() }).await;
    let mut compute = region.compute();
    let (_, image) = made(&region, "product").await;
    let offer = proto::CreateMarketplaceListingRequest {
        image_id: image.image_id.clone(),
        title: "Router".to_owned(),
        terms: "No warranty.".to_owned(),
        ..Default::default()
    };
    let listing = compute.create_marketplace_listing(offer.clone()).await.unwrap().into_inner().listing.unwrap();
    assert_eq!(reason(&compute.create_marketplace_listing(offer).await.unwrap_err()), "OperationNotPermitted");

    as_account(OTHER, region.network_peer().ensure_scope(gureum_proto::network::v1::EnsureScopeRequest {})).await.unwrap();
    let offers = async || {
        let all = proto::DescribeMarketplaceListingsRequest::default();
        as_account(OTHER, region.compute().describe_marketplace_listings(all)).await
    };
    let found = offers().await.unwrap().into_inner().listings;
    assert_eq!((found.len(), found[0].product_code.as_str(), found[0].accepted), (1, listing.product_code.as_str(), false));
    let refused = as_account(OTHER, region.compute().run_instances(launch_of(&image.image_id))).await.unwrap_err();
    assert_eq!(reason(&refused), "OptInRequired");
    let accept = proto::AcceptMarketplaceTermsRequest { product_code: listing.product_code.clone(), ..Default::default() };
    let accepted = as_account(OTHER, region.compute().accept_marketplace_terms(accept)).await.unwrap().into_inner();
    assert!(accepted.listing.unwrap().accepted && offers().await.unwrap().into_inner().listings[0].accepted);
    let launched = as_account(OTHER, region.compute().run_instances(launch_of(&image.image_id))).await.unwrap().into_inner();
    assert_eq!(launched.instances[0].product_codes[0].product_code_id, listing.product_code);

    compute.deregister_image(proto::DeregisterImageRequest { image_id: image.image_id, ..Default::default() }).await.unwrap();
    assert_eq!(offers().await.unwrap().into_inner().listings, vec![], "what cannot be launched is not on offer");
}
