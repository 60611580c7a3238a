//! Attributes, read back after each write.

use gureum_proto::{
    compute::v1::{
        self as proto, InstanceAttributeName as Name, InstanceState, describe_instance_attribute_response::Value,
        modify_instance_attribute_request::Change,
    },
    security::v1::CreateSecurityGroupRequest,
};

use crate::region::{Options, Region, reason, run, spec};

async fn modify(region: &Region, id: &str, change: Change) -> Result<proto::Instance, String> {
    let request = proto::ModifyInstanceAttributeRequest { instance_id: id.to_owned(), change: Some(change), ..Default::default() };
    let modified = region.compute().modify_instance_attribute(request).await;
    modified.map(|answer| answer.into_inner().instance.unwrap()).map_err(|status| reason(&status))
}

async fn attribute(region: &Region, id: &str, name: Name) -> Option<Value> {
    let request = proto::DescribeInstanceAttributeRequest { instance_id: id.to_owned(), attribute: name.into() };
    region.compute().describe_instance_attribute(request).await.unwrap().into_inner().value
}

#[tokio::test]
async fn a_type_changes_while_stopped() {
    let region = Region::start(Options::default()).await;
    let id = region.running().await.instance_id;
    let other = || Change::InstanceType("t3.large".to_owned());
    assert_eq!(modify(&region, &id, other()).await, Err("IncorrectInstanceState".to_owned()));
    region.compute().stop_instances(proto::StopInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() }).await.unwrap();
    region.until_instance(&id, InstanceState::Stopped).await;
    let nothing = modify(&region, &id, Change::InstanceType("t9.huge".to_owned())).await;
    assert_eq!(nothing, Err("InvalidInstanceAttributeValue".to_owned()));
    assert!(modify(&region, &id, Change::InstanceType("m6g.large".to_owned())).await.is_err());
    assert_eq!(modify(&region, &id, other()).await.unwrap().instance_type, "t3.large");
    assert!(modify(&region, &id, Change::UserData(b"hello".to_vec())).await.is_ok());
    assert_eq!(attribute(&region, &id, Name::UserData).await, Some(Value::UserData(b"hello".to_vec())));
    let start = proto::StartInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() };
    region.compute().start_instances(start).await.unwrap();
    assert_eq!(region.until_instance(&id, InstanceState::Running).await.instance_type, "t3.large");
}

#[tokio::test]
async fn what_is_the_interfaces_changes_at_network() {
    let region = Region::start(Options::default()).await;
    let launched = region.running().await;
    let id = launched.instance_id;
    assert_eq!(attribute(&region, &id, Name::SourceDestCheck).await, Some(Value::SourceDestCheck(true)));
    assert!(!modify(&region, &id, Change::SourceDestCheck(false)).await.unwrap().source_dest_check);
    let group = CreateSecurityGroupRequest {
        group_name: "web".to_owned(),
        description: "web".to_owned(),
        vpc_id: launched.vpc_id.clone(),
        ..Default::default()
    };
    let group_id = region.security().create_security_group(group).await.unwrap().into_inner().security_group.unwrap().group_id;
    let groups = |ids: &[&str]| Change::Groups(proto::GroupIds { group_ids: ids.iter().map(|id| (*id).to_owned()).collect() });
    let changed = modify(&region, &id, groups(&[&group_id])).await.unwrap();
    assert_eq!(changed.security_groups[0].group_name, "web");
    assert!(modify(&region, &id, groups(&["sg-00000000000000001"])).await.is_err());
}

#[tokio::test]
async fn switches_are_read_back() {
    let region = Region::start(Options::default()).await;
    let id = region.running().await.instance_id;
    modify(&region, &id, Change::DisableApiTermination(true)).await.unwrap();
    assert_eq!(attribute(&region, &id, Name::DisableApiTermination).await, Some(Value::DisableApiTermination(true)));
    let behavior = i32::from(proto::ShutdownBehavior::Terminate);
    modify(&region, &id, Change::InstanceInitiatedShutdownBehavior(behavior)).await.unwrap();
    let read = attribute(&region, &id, Name::InstanceInitiatedShutdownBehavior).await;
    assert_eq!(read, Some(Value::InstanceInitiatedShutdownBehavior(behavior)));
    let monitor = proto::MonitorInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() };
    let monitored = region.compute().monitor_instances(monitor).await.unwrap().into_inner();
    assert_eq!(monitored.instance_monitorings[0].monitoring(), proto::MonitoringState::Enabled);
    assert_eq!(region.instance(&id).await.monitoring(), proto::MonitoringState::Enabled);
    let options = proto::InstanceMetadataOptionsSpec { http_tokens: proto::HttpTokens::Required.into(), ..Default::default() };
    let request =
        proto::ModifyInstanceMetadataOptionsRequest { instance_id: id.clone(), metadata_options: Some(options), ..Default::default() };
    region.compute().modify_instance_metadata_options(request).await.unwrap();
    crate::region::until("the options", async || region.instance(&id).await.metadata_options.unwrap().applied).await;
    assert_eq!(region.instance(&id).await.metadata_options.unwrap().http_tokens(), proto::HttpTokens::Required);
}

#[tokio::test]
async fn credits_are_of_burstable_types_alone() {
    let region = Region::start(Options::default()).await;
    region.launch(1).await;
    let mut request = run(1);
    request.spec = Some(proto::LaunchSpec { instance_type: Some("m5.large".to_owned()), ..spec() });
    let steady = region.compute().run_instances(request).await.unwrap().into_inner().instances.remove(0).instance_id;
    let all = region
        .compute()
        .describe_instance_credit_specifications(proto::DescribeInstanceCreditSpecificationsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let credits: Vec<_> = all.instance_credit_specifications.iter().map(|it| it.cpu_credits.as_str()).collect();
    assert_eq!(credits, ["unlimited"]);
    let asked = proto::DescribeInstanceCreditSpecificationsRequest { instance_ids: vec![steady], ..Default::default() };
    let refused = region.compute().describe_instance_credit_specifications(asked).await.unwrap_err();
    assert_eq!(reason(&refused), "InvalidInstanceCreditSpecification");
}

#[tokio::test]
async fn an_account_has_attributes() {
    let region = Region::start(Options { zones: "a", ..Options::default() }).await;
    let answer =
        region.compute().describe_account_attributes(proto::DescribeAccountAttributesRequest::default()).await.unwrap().into_inner();
    let default_vpc = answer.account_attributes.iter().find(|it| it.attribute_name == "default-vpc").unwrap();
    assert!(default_vpc.attribute_values[0].starts_with("vpc-"));
    let unknown = proto::DescribeAccountAttributesRequest { attribute_names: vec!["colour".to_owned()] };
    assert_eq!(reason(&region.compute().describe_account_attributes(unknown).await.unwrap_err()), "InvalidParameterValue");
}
