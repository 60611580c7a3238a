//! Launch templates.

use gureum_proto::compute::v1::{
    self as proto, create_launch_template_version_request::LaunchTemplate as Version,
    delete_launch_template_versions_request::LaunchTemplate as DeleteVersions,
    describe_launch_template_versions_request::LaunchTemplate as Describe, launch_template_specification::LaunchTemplate as Run,
    modify_launch_template_request::LaunchTemplate as Modify,
};

use crate::region::{Options, Region, reason, spec};

async fn web(region: &Region) -> proto::LaunchTemplate {
    let request = proto::CreateLaunchTemplateRequest {
        launch_template_name: "web".to_owned(),
        launch_template_data: Some(spec()),
        ..Default::default()
    };
    region.compute().create_launch_template(request).await.unwrap().into_inner().launch_template.unwrap()
}

async fn second_version(region: &Region) -> proto::LaunchTemplateVersion {
    let request = proto::CreateLaunchTemplateVersionRequest {
        launch_template: Some(Version::LaunchTemplateName("web".to_owned())),
        source_version: "1".to_owned(),
        launch_template_data: Some(proto::LaunchSpec { instance_type: Some("t3.large".to_owned()), ..Default::default() }),
        ..Default::default()
    };
    region.compute().create_launch_template_version(request).await.unwrap().into_inner().launch_template_version.unwrap()
}

#[tokio::test]
async fn a_launch_takes_a_templates_words() {
    let region = Region::start(Options::default()).await;
    let mut compute = region.compute();
    let template = web(&region).await;
    let version = second_version(&region).await;
    assert_eq!((version.version_number, version.default_version), (2, false));
    assert_eq!(version.launch_template_data.unwrap().image_id, spec().image_id);
    let launch = |version: &str| proto::RunInstancesRequest {
        launch_template: Some(proto::LaunchTemplateSpecification {
            launch_template: Some(Run::LaunchTemplateId(template.launch_template_id.clone())),
            version: version.to_owned(),
        }),
        min_count: 1,
        max_count: 1,
        ..Default::default()
    };
    for (version, kind) in [("", "t3.micro"), ("$Latest", "t3.large"), ("1", "t3.micro")] {
        let launched = compute.run_instances(launch(version)).await.unwrap().into_inner().instances.remove(0);
        assert_eq!(launched.instance_type, kind);
    }
    assert_eq!(reason(&compute.run_instances(launch("7")).await.unwrap_err()), "InvalidLaunchTemplateId.VersionNotFound");
}

#[tokio::test]
async fn versions_are_listed_set_and_deleted() {
    let region = Region::start(Options { zones: "a", ..Options::default() }).await;
    let mut compute = region.compute();
    web(&region).await;
    second_version(&region).await;
    let modify = proto::ModifyLaunchTemplateRequest {
        launch_template: Some(Modify::LaunchTemplateName("web".to_owned())),
        default_version: "$Latest".to_owned(),
        ..Default::default()
    };
    assert_eq!(compute.modify_launch_template(modify).await.unwrap().into_inner().launch_template.unwrap().default_version_number, 2);
    let describe = proto::DescribeLaunchTemplateVersionsRequest {
        launch_template: Some(Describe::LaunchTemplateName("web".to_owned())),
        page_size: 1,
        ..Default::default()
    };
    let first = compute.describe_launch_template_versions(describe.clone()).await.unwrap().into_inner();
    assert_eq!(first.launch_template_versions[0].version_number, 2);
    let rest = proto::DescribeLaunchTemplateVersionsRequest { page_token: first.next_page_token, ..describe };
    let rest = compute.describe_launch_template_versions(rest).await.unwrap().into_inner();
    assert_eq!((rest.launch_template_versions[0].version_number, rest.next_page_token.as_str()), (1, ""));
    let delete = proto::DeleteLaunchTemplateVersionsRequest {
        launch_template: Some(DeleteVersions::LaunchTemplateName("web".to_owned())),
        versions: vec!["1".to_owned(), "2".to_owned(), "9".to_owned()],
        ..Default::default()
    };
    let deleted = compute.delete_launch_template_versions(delete).await.unwrap().into_inner();
    assert_eq!(deleted.deleted_version_numbers, [1]);
    let codes: Vec<_> = deleted.failures.iter().map(|failure| failure.code.as_str()).collect();
    assert_eq!(codes, ["unexpectedError", "launchTemplateVersionDoesNotExist"]);
}

#[tokio::test]
async fn names_are_unique_and_free_again() {
    let region = Region::start(Options { zones: "a", ..Options::default() }).await;
    let mut compute = region.compute();
    web(&region).await;
    let again = proto::CreateLaunchTemplateRequest {
        launch_template_name: "web".to_owned(),
        launch_template_data: Some(spec()),
        ..Default::default()
    };
    let refused = compute.create_launch_template(again).await.unwrap_err();
    assert_eq!(reason(&refused), "InvalidLaunchTemplateName.AlreadyExistsException");
    let delete = proto::DeleteLaunchTemplateRequest {
        launch_template: Some(proto::delete_launch_template_request::LaunchTemplate::LaunchTemplateName("web".to_owned())),
        ..Default::default()
    };
    compute.delete_launch_template(delete.clone()).await.unwrap();
    assert_eq!(reason(&compute.delete_launch_template(delete).await.unwrap_err()), "InvalidLaunchTemplateName.NotFoundException");
    web(&region).await;
    let listed =
        compute.describe_launch_templates(proto::DescribeLaunchTemplatesRequest::default()).await.unwrap().into_inner().launch_templates;
    assert_eq!(listed.len(), 1);
}
