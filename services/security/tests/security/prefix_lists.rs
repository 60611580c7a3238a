//! Prefix lists: made, named in rules, changed under them, and deleted.

use gureum_proto::{
    common::v1::{Filter, Tag},
    security::v1::{watch_response::Message, *},
};
use tonic::Code;

use crate::support::{Region, reason};

fn entry(cidr: &str) -> PrefixListEntry {
    PrefixListEntry { cidr: cidr.into(), description: format!("for {cidr}") }
}

async fn create(region: &Region, name: &str, max_entries: i32, cidrs: &[&str]) -> ManagedPrefixList {
    let request = CreateManagedPrefixListRequest {
        client_token: format!("make {name}"),
        prefix_list_name: name.into(),
        address_family: "IPv4".into(),
        max_entries,
        entries: cidrs.iter().map(|cidr| entry(cidr)).collect(),
        tags: vec![Tag { key: "for".into(), value: name.into() }],
        ..Default::default()
    };
    let made = region.user().create_managed_prefix_list(request.clone()).await.unwrap().into_inner().prefix_list.unwrap();
    let again = region.user().create_managed_prefix_list(request).await.unwrap().into_inner().prefix_list.unwrap();
    assert_eq!(made, again, "the same token makes nothing more");
    made
}

async fn modify(region: &Region, change: ModifyManagedPrefixListRequest) -> Result<ManagedPrefixList, tonic::Status> {
    region.user().modify_managed_prefix_list(change).await.map(|answer| answer.into_inner().prefix_list.unwrap())
}

async fn cidrs(region: &Region, id: &str, target_version: Option<i64>) -> Vec<String> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = GetManagedPrefixListEntriesRequest { prefix_list_id: id.into(), target_version, page_size: 2, page_token };
        let page = region.user().get_managed_prefix_list_entries(request).await.unwrap().into_inner();
        assert!(page.entries.len() <= 2);
        found.extend(page.entries.into_iter().map(|entry| entry.cidr));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

/// A group that takes everything from a list.
async fn group_with(region: &Region, list: &str) -> SecurityGroup {
    region.default_group("1").await;
    let group = region.create_group("web").await;
    authorize(region, &group.group_id, list).await.unwrap();
    group
}

async fn authorize(region: &Region, group_id: &str, list: &str) -> Result<(), tonic::Status> {
    let permission = IpPermission {
        ip_protocol: "-1".into(),
        prefix_lists: vec![PrefixListPeer { prefix_list_id: list.into(), ..Default::default() }],
        ..Default::default()
    };
    let request =
        AuthorizeSecurityGroupIngressRequest { group_id: group_id.into(), ip_permissions: vec![permission], ..Default::default() };
    region.user().authorize_security_group_ingress(request).await.map(drop)
}

async fn allows(region: &Region, group: &SecurityGroup, source: &str) -> bool {
    let request = EvaluateRequest {
        source: Some(Endpoint { address: source.into(), ..Default::default() }),
        destination: Some(Endpoint { address: "172.31.0.9".into(), group_ids: vec![group.group_id.clone()] }),
        ip_protocol: "tcp".into(),
        port: 22,
        ..Default::default()
    };
    region.user().evaluate(request).await.unwrap().into_inner().allowed
}

#[tokio::test]
async fn a_rule_means_what_its_list_has_at_the_time() {
    let region = Region::start().await;
    let list = create(&region, "offices", 3, &["203.0.113.0/24", "198.51.100.7/24"]).await;
    assert_eq!((list.version, list.state()), (1, PrefixListState::CreateComplete));
    let group = group_with(&region, &list.prefix_list_id).await;
    assert!(allows(&region, &group, "198.51.100.1").await && !allows(&region, &group, "192.0.2.1").await);
    let id = list.prefix_list_id.clone();
    let change = ModifyManagedPrefixListRequest {
        prefix_list_id: id.clone(),
        current_version: Some(1),
        add_entries: vec![entry("192.0.2.0/24")],
        remove_entries: vec![RemovePrefixListEntry { cidr: "198.51.100.0/24".into() }],
        ..Default::default()
    };
    let changed = modify(&region, change.clone()).await.unwrap();
    assert_eq!((changed.version, changed.state()), (2, PrefixListState::ModifyComplete));
    assert!(!allows(&region, &group, "198.51.100.1").await && allows(&region, &group, "192.0.2.1").await);
    assert_eq!(cidrs(&region, &id, None).await, ["192.0.2.0/24", "203.0.113.0/24"]);
    assert_eq!(cidrs(&region, &id, Some(1)).await, ["198.51.100.0/24", "203.0.113.0/24"]);
    // The same change again comes too late.
    assert_eq!(reason(modify(&region, change).await), (Code::Aborted, "PrefixListVersionMismatch".into()));
    // Nothing of it is lost by a restart.
    let region = region.stop().await.restart().await;
    assert!(allows(&region, &group, "192.0.2.1").await);
    assert_eq!(cidrs(&region, &id, Some(1)).await, ["198.51.100.0/24", "203.0.113.0/24"]);
}

#[tokio::test]
async fn what_is_named_cannot_go_and_what_does_not_exist_cannot_be_named() {
    let region = Region::start().await;
    let list = create(&region, "offices", 3, &["203.0.113.0/24"]).await;
    let group = group_with(&region, &list.prefix_list_id).await;
    let delete = || DeleteManagedPrefixListRequest { prefix_list_id: list.prefix_list_id.clone(), ..Default::default() };
    let refused = region.user().delete_managed_prefix_list(delete()).await.unwrap_err();
    assert!(refused.message().contains(&group.group_id), "{refused}");
    assert_eq!(reason::<()>(Err(refused)), (Code::FailedPrecondition, "DependencyViolation".into()));
    let gone = DeleteSecurityGroupRequest { group_id: group.group_id.clone(), ..Default::default() };
    region.user().delete_security_group(gone).await.unwrap();
    let deleted = region.user().delete_managed_prefix_list(delete()).await.unwrap().into_inner().prefix_list.unwrap();
    assert_eq!(deleted.state(), PrefixListState::DeleteComplete);
    let missing = (Code::NotFound, "InvalidPrefixListID.NotFound".to_owned());
    assert_eq!(reason(region.user().delete_managed_prefix_list(delete()).await), missing);
    let other = region.create_group("other").await;
    let refused = authorize(&region, &other.group_id, &list.prefix_list_id).await;
    assert_eq!(reason(refused), missing);
}

#[tokio::test]
async fn lists_are_filtered_tagged_watched_and_kept_apart() {
    let region = Region::start().await;
    let (one, other) = (create(&region, "one", 1, &["10.0.0.0/8"]).await, create(&region, "other", 1, &[]).await);
    let describe = |name: &str, value: &str| DescribeManagedPrefixListsRequest {
        filters: vec![Filter { name: name.into(), values: vec![value.into()] }],
        ..Default::default()
    };
    for (name, value) in [("prefix-list-name", "on?"), ("tag:for", "one"), ("prefix-list-id", one.prefix_list_id.as_str())] {
        let found = region.user().describe_managed_prefix_lists(describe(name, value)).await.unwrap().into_inner().prefix_lists;
        assert_eq!(found, std::slice::from_ref(&one), "{name}");
    }
    let tag = CreateTagsRequest {
        resource_ids: vec![other.prefix_list_id.clone()],
        tags: vec![Tag { key: "stage".into(), value: "test".into() }],
        ..Default::default()
    };
    region.user().create_tags(tag).await.unwrap();
    let tags = region.user().describe_tags(DescribeTagsRequest::default()).await.unwrap().into_inner().tags;
    assert_eq!(tags.iter().filter(|tag| tag.resource_type == "prefix-list").count(), 3);
    let named = DescribeManagedPrefixListsRequest { prefix_list_ids: vec![one.prefix_list_id.clone()], ..Default::default() };
    let elsewhere = region.of_account("000000000007").user().describe_managed_prefix_lists(named).await;
    assert_eq!(reason(elsewhere), (Code::NotFound, "InvalidPrefixListID.NotFound".into()));

    let mut events = region.user().watch(WatchRequest { after_sequence: Some(0) }).await.unwrap().into_inner();
    let first = events.message().await.unwrap().unwrap();
    let Some(Message::Event(event)) = first.message else { panic!("no event: {first:?}") };
    assert!(event.metadata.unwrap().r#type.ends_with("PrefixListCreated"));
    let Some(event::Resource::PrefixList(contents)) = event.resource else { panic!("no list") };
    assert_eq!((contents.prefix_list, contents.entries), (Some(one), vec![entry("10.0.0.0/8")]));
}

#[tokio::test]
async fn every_violation_of_a_list_is_named() {
    let region = Region::start().await;
    let request = CreateManagedPrefixListRequest {
        prefix_list_name: "com.amazonaws.mine".into(),
        address_family: "IPv6".into(),
        max_entries: 5000,
        entries: vec![entry("10.0.0.0/99")],
        ..Default::default()
    };
    let status = region.user().create_managed_prefix_list(request).await.unwrap_err();
    assert_eq!(crate::support::violated_fields(&status), ["prefix_list_name", "max_entries", "entries[0].cidr"]);
    let list = create(&region, "small", 1, &["10.0.0.0/8"]).await;
    let more = ModifyManagedPrefixListRequest {
        prefix_list_id: list.prefix_list_id.clone(),
        add_entries: vec![entry("11.0.0.0/8")],
        ..Default::default()
    };
    let refused = modify(&region, more).await;
    assert_eq!(reason(refused), (Code::ResourceExhausted, "PrefixListMaxEntriesExceeded".into()));
    let lists = region.user().describe_managed_prefix_lists(DescribeManagedPrefixListsRequest::default()).await.unwrap().into_inner();
    assert_eq!(lists.prefix_lists, [list]);
}
