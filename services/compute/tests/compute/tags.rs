//! Tags, and watching.

use futures::StreamExt;
use gureum_proto::{
    common::v1::{Filter, Tag, TagSelector},
    compute::v1::{self as proto, event::Resource, watch_response::Message},
};

use crate::region::{Options, Region, reason};

#[tokio::test]
async fn tags_are_written_listed_and_removed() {
    let region = Region::start(Options::default()).await;
    let mut compute = region.compute();
    let ids: Vec<String> = region.launch(3).await.into_iter().map(|instance| instance.instance_id).collect();
    let tag = |key: &str, value: &str| Tag { key: key.to_owned(), value: value.to_owned() };
    let create = |resource_ids: Vec<String>| proto::CreateTagsRequest {
        resource_ids,
        tags: vec![tag("app", "web"), tag("stage", "test")],
        ..Default::default()
    };
    compute.create_tags(create(ids.clone())).await.unwrap();
    let missing = [ids.clone(), vec!["i-00000000000000001".to_owned()]].concat();
    assert_eq!(reason(&compute.create_tags(create(missing)).await.unwrap_err()), "InvalidInstanceID.NotFound");
    assert_eq!(reason(&compute.create_tags(create(vec!["sg-00000000000000001".to_owned()])).await.unwrap_err()), "InvalidID");
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = proto::DescribeTagsRequest { page_size: 4, page_token, filters: Vec::new() };
        let answer = compute.describe_tags(request).await.unwrap().into_inner();
        seen.extend(answer.tags.into_iter().map(|tag| (tag.resource_id, tag.key)));
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let mut expected: Vec<_> = ids.iter().flat_map(|id| [(id.clone(), "app".to_owned()), (id.clone(), "stage".to_owned())]).collect();
    expected.sort();
    assert_eq!(seen, expected);
    // A volume carries its own.
    let volume = region.instance(&ids[0]).await.block_device_mappings[0].volume_id.clone();
    compute.create_tags(create(vec![volume.clone()])).await.unwrap();
    let of_volumes = Filter { name: "resource-type".to_owned(), values: vec!["volume".to_owned()] };
    let tagged = compute.describe_tags(proto::DescribeTagsRequest { filters: vec![of_volumes], ..Default::default() }).await.unwrap();
    assert!(tagged.into_inner().tags.iter().all(|tag| tag.resource_id == volume));
    let by_tag = Filter { name: "tag:app".to_owned(), values: vec!["web".to_owned()] };
    let listed = compute.describe_instances(proto::DescribeInstancesRequest { filters: vec![by_tag], ..Default::default() }).await;
    assert_eq!(listed.unwrap().into_inner().instances.len(), 3);
    let delete = proto::DeleteTagsRequest {
        resource_ids: vec![ids[0].clone()],
        tags: vec![TagSelector { key: "app".to_owned(), value: None }],
        ..Default::default()
    };
    compute.delete_tags(delete).await.unwrap();
    let of_one = Filter { name: "resource-id".to_owned(), values: vec![ids[0].clone()] };
    let left = compute.describe_tags(proto::DescribeTagsRequest { filters: vec![of_one], ..Default::default() }).await.unwrap();
    assert_eq!(left.into_inner().tags.len(), 1);
}

#[tokio::test]
async fn a_watcher_sees_the_whole_life_and_no_nodes() {
    let region = Region::start(Options { zones: "a", ..Options::default() }).await;
    let mut stream = region.compute().watch(proto::WatchRequest { after_sequence: Some(0) }).await.unwrap().into_inner();
    let id = region.launch(1).await.remove(0).instance_id;
    let mut states = Vec::new();
    let mut terminated = false;
    while let Some(message) = stream.next().await {
        let Some(Message::Event(event)) = message.unwrap().message else { continue };
        match event.resource.unwrap() {
            Resource::Instance(instance) => {
                if states.last() != Some(&instance.state()) {
                    states.push(instance.state());
                }
                match instance.state() {
                    proto::InstanceState::Running if !terminated => {
                        terminated = true;
                        region.compute().terminate_instances(crate::lifecycle::terminate(&[&id])).await.unwrap();
                    }
                    proto::InstanceState::Terminated => break,
                    _ => {}
                }
            }
            Resource::Node(_) => panic!("nodes belong to no scope"),
            _ => {}
        }
    }
    use proto::InstanceState::{Pending, Running, ShuttingDown, Terminated};
    assert_eq!(states, [Pending, Running, ShuttingDown, Terminated]);
}
