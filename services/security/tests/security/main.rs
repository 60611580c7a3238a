//! What the security service promises, through gRPC over its socket.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod prefix_lists;
mod support;

use gureum_proto::{common::v1::Filter, security::v1::*};
use support::{Region, reason, tcp};
use tonic::Code;

#[tokio::test]
async fn a_vpc_is_born_with_a_default_group_that_nobody_can_delete() {
    let region = Region::start().await;
    let group = region.default_group("1").await;
    assert_eq!(group.group_name, "default");
    assert_eq!(group.rules.len(), 2, "ingress from itself, egress to everywhere");
    // Told again, network gets the same group.
    assert_eq!(region.default_group("1").await.group_id, group.group_id);
    let refused = region.user().delete_security_group(DeleteSecurityGroupRequest { group_id: group.group_id, ..Default::default() }).await;
    assert_eq!(reason(refused), (Code::FailedPrecondition, "CannotDelete".into()));
}

#[tokio::test]
async fn rules_are_added_all_or_none_and_found_again() {
    let region = Region::start().await;
    region.default_group("1").await;
    let group = region.create_group("web").await;
    let add = |permissions| AuthorizeSecurityGroupIngressRequest {
        group_id: group.group_id.clone(),
        ip_permissions: permissions,
        ..Default::default()
    };
    let added =
        region.user().authorize_security_group_ingress(add(vec![tcp(22, "0.0.0.0/0"), tcp(80, "10.0.0.7/8")])).await.unwrap().into_inner();
    let cidr = |rule: &SecurityGroupRule| rule.peer.clone();
    assert_eq!(
        cidr(&added.security_group_rules[1]),
        Some(security_group_rule::Peer::CidrIpv4("10.0.0.0/8".into())),
        "bits behind the mask are dropped"
    );
    let refused = region.user().authorize_security_group_ingress(add(vec![tcp(443, "0.0.0.0/0"), tcp(22, "0.0.0.0/0")])).await;
    assert_eq!(reason(refused), (Code::AlreadyExists, "InvalidPermission.Duplicate".into()));

    let filter = Filter { name: "group-id".into(), values: vec![group.group_id.clone()] };
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = DescribeSecurityGroupRulesRequest { page_size: 1, page_token, filters: vec![filter.clone()], ..Default::default() };
        let page = region.user().describe_security_group_rules(request).await.unwrap().into_inner();
        assert!(page.security_group_rules.len() <= 1);
        seen.extend(page.security_group_rules.into_iter().map(|rule| rule.security_group_rule_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 3, "one egress rule by default, two that were added, none of the refused call");
    assert!(seen.is_sorted());
}

#[tokio::test]
async fn every_violation_of_a_request_is_named_before_anything_is_written() {
    let region = Region::start().await;
    region.default_group("1").await;
    let request = CreateSecurityGroupRequest { group_name: String::new(), description: "x".repeat(300), ..Default::default() };
    let status = region.user().create_security_group(request).await.unwrap_err();
    assert_eq!(support::violated_fields(&status), ["group_name", "description"]);
    let group = region.create_group("web").await;
    let bad = AuthorizeSecurityGroupIngressRequest {
        group_id: group.group_id,
        ip_permissions: vec![tcp(70_000, "0.0.0.0/0"), tcp(80, "10.0.0.0/99")],
        ..Default::default()
    };
    let status = region.user().authorize_security_group_ingress(bad).await.unwrap_err();
    let fields = support::violated_fields(&status);
    assert!(
        fields.iter().any(|field| field.starts_with("ip_permissions[0]"))
            && fields.iter().any(|field| field.starts_with("ip_permissions[1]")),
        "{fields:?}"
    );
    assert_eq!(region.groups().await.len(), 2);
}

#[tokio::test]
async fn a_group_that_is_held_or_named_cannot_go() {
    let region = Region::start().await;
    let vpc_id = region.default_group("1").await.vpc_id;
    let (held, named) = (region.create_group("held").await, region.create_group("named").await);
    let hold = |group_ids| SetSecurityGroupHoldsRequest {
        holds: vec![SecurityGroupHold {
            holder_id: "eni-00000000000000001".into(),
            vpc_id: vpc_id.clone(),
            group_ids,
            ..Default::default()
        }],
    };
    region.peer().set_security_group_holds(hold(vec![held.group_id.clone()])).await.unwrap();
    let delete = |group_id: &str| DeleteSecurityGroupRequest { group_id: group_id.into(), ..Default::default() };
    let refused = region.user().delete_security_group(delete(&held.group_id)).await.unwrap_err();
    assert!(refused.message().contains("eni-00000000000000001"), "{}", refused.message());
    assert_eq!(reason::<()>(Err(refused)), (Code::FailedPrecondition, "DependencyViolation".into()));

    let by_group = IpPermission {
        ip_protocol: "-1".into(),
        groups: vec![GroupPeer { group_id: named.group_id.clone(), ..Default::default() }],
        ..Default::default()
    };
    let request =
        AuthorizeSecurityGroupIngressRequest { group_id: held.group_id.clone(), ip_permissions: vec![by_group], ..Default::default() };
    region.user().authorize_security_group_ingress(request).await.unwrap();
    assert_eq!(reason(region.user().delete_security_group(delete(&named.group_id)).await).1, "DependencyViolation");

    region.peer().set_security_group_holds(hold(vec![])).await.unwrap();
    region.user().delete_security_group(delete(&held.group_id)).await.unwrap();
    region.user().delete_security_group(delete(&named.group_id)).await.unwrap();
}

#[tokio::test]
async fn a_client_token_makes_a_call_happen_once() {
    let region = Region::start().await;
    region.default_group("1").await;
    let request =
        CreateSecurityGroupRequest { client_token: "once".into(), group_name: "web".into(), description: "d".into(), ..Default::default() };
    let first = region.user().create_security_group(request.clone()).await.unwrap().into_inner();
    let again = region.user().create_security_group(request.clone()).await.unwrap().into_inner();
    assert_eq!(first, again);
    let other = CreateSecurityGroupRequest { group_name: "other".into(), ..request.clone() };
    assert_eq!(reason(region.user().create_security_group(other).await), (Code::FailedPrecondition, "IdempotentParameterMismatch".into()));
    let dry = CreateSecurityGroupRequest { client_token: String::new(), dry_run: true, group_name: "dry".into(), ..request };
    assert_eq!(reason(region.user().create_security_group(dry).await), (Code::FailedPrecondition, "DryRunOperation".into()));
    assert_eq!(region.groups().await.len(), 2);
}

#[tokio::test]
async fn a_private_key_is_given_once() {
    let region = Region::start().await;
    let request =
        CreateKeyPairRequest { client_token: "k".into(), key_name: "me".into(), key_type: KeyType::Ed25519.into(), ..Default::default() };
    let first = region.user().create_key_pair(request.clone()).await.unwrap().into_inner();
    assert!(first.key_material.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
    let again = region.user().create_key_pair(request).await.unwrap().into_inner();
    assert_eq!((again.key_pair, again.key_material.as_str()), (first.key_pair.clone(), ""));
    let secret: String = first.key_material.lines().nth(2).unwrap().chars().take(40).collect();
    let region = region.stop().await;
    assert!(!region.contains(&secret), "the private key is on disk");
    let region = region.restart().await;
    let pairs = region.user().describe_key_pairs(DescribeKeyPairsRequest::default()).await.unwrap().into_inner().key_pairs;
    assert_eq!(pairs, Vec::from_iter(first.key_pair));
}

#[tokio::test]
async fn accounts_never_see_each_other() {
    let region = Region::start().await;
    let mine = region.default_group("1").await;
    let other = region.of_account("000000000042");
    let request = DescribeSecurityGroupsRequest { group_ids: vec![mine.group_id], ..Default::default() };
    assert_eq!(reason(other.user().describe_security_groups(request).await), (Code::NotFound, "InvalidGroup.NotFound".into()));
    assert!(other.groups().await.is_empty());
}

#[tokio::test]
async fn a_watcher_sees_what_is_and_then_every_change_in_order() {
    let region = Region::start().await;
    region.default_group("1").await;
    let mut stream = region.user().watch(WatchRequest::default()).await.unwrap().into_inner();
    let first = support::next_event(&mut stream).await.metadata.unwrap();
    assert_eq!(first.r#type, "gureum.security.v1.SecurityGroupState");
    let web = region.create_group("web").await;
    let created = support::next_event(&mut stream).await.metadata.unwrap();
    assert_eq!((created.r#type.as_str(), created.resource_id), ("gureum.security.v1.SecurityGroupCreated", web.group_id.clone()));
    // Another account's change is passed over, and its place is told.
    let other = region.of_account("000000000042");
    other.default_group("2").await;
    region.user().delete_security_group(DeleteSecurityGroupRequest { group_id: web.group_id, ..Default::default() }).await.unwrap();
    let deleted = support::next_event(&mut stream).await.metadata.unwrap();
    assert!(deleted.deleted && deleted.sequence == created.sequence + 2);
    let mut replay = region.user().watch(WatchRequest { after_sequence: Some(created.sequence) }).await.unwrap().into_inner();
    assert_eq!(support::next_event(&mut replay).await.metadata.unwrap(), deleted);
    let future = region.user().watch(WatchRequest { after_sequence: Some(1_000_000) }).await;
    assert_eq!(reason(future), (Code::OutOfRange, "SequenceInFuture".into()));
}

#[tokio::test]
async fn a_flow_passes_if_both_sides_allow_it() {
    let region = Region::start().await;
    region.default_group("1").await;
    let group = region.create_group("web").await;
    let outside = Endpoint { address: "203.0.113.9".into(), group_ids: vec![] };
    let inside = Endpoint { address: "172.31.0.4".into(), group_ids: vec![group.group_id.clone()] };
    let ask = |port| EvaluateRequest {
        source: Some(outside.clone()),
        destination: Some(inside.clone()),
        ip_protocol: "tcp".into(),
        port,
        icmp_code: 0,
    };
    assert!(!region.user().evaluate(ask(80)).await.unwrap().into_inner().allowed);
    let request = AuthorizeSecurityGroupIngressRequest {
        group_id: group.group_id,
        ip_permissions: vec![tcp(80, "203.0.113.0/24")],
        ..Default::default()
    };
    let rule = region.user().authorize_security_group_ingress(request).await.unwrap().into_inner().security_group_rules.remove(0);
    let verdict = region.user().evaluate(ask(80)).await.unwrap().into_inner();
    assert_eq!((verdict.allowed, verdict.ingress_rule_id), (true, rule.security_group_rule_id));
    assert!(!region.user().evaluate(ask(81)).await.unwrap().into_inner().allowed);
}

#[tokio::test]
async fn a_message_too_large_and_garbage_end_nothing() {
    let region = Region::start().await;
    region.default_group("1").await;
    let huge = CreateSecurityGroupRequest { group_name: "x".repeat(5 << 20), description: "d".into(), ..Default::default() };
    assert_eq!(region.user().create_security_group(huge).await.unwrap_err().code(), Code::OutOfRange);
    region.send_garbage().await;
    assert_eq!(region.groups().await.len(), 1);
}
