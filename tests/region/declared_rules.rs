//! The rules that the contracts declare, over the gateway: a request that breaks one is refused with everything that is
//! wrong with it, and its handler, which looks for that, changes nothing.

use std::path::Path;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ServiceDescriptor, Value as Field};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::{
    dynamic::{Caller, told},
    refusals::{World, everything, settled},
    region::region,
};

/// How deep messages in messages are followed: what launches say of their disks is three deep.
const DEPTH: usize = 4;

/// A token that is one character too long, which is all that is wrong.
fn long_token() -> String {
    "x".repeat(65)
}

/// The contracts with their rules, which reflection does not tell.
fn contracts() -> DescriptorPool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (own, foreign) = (root.join("proto"), root.join("third_party/proto"));
    let mut compiler = protox::Compiler::new([&own, &foreign]).unwrap();
    let known = DescriptorPool::decode(gureum_proto::PUBLIC_DESCRIPTORS).unwrap();
    let files: Vec<_> = known.files().filter(|file| file.package_name().starts_with("gureum.")).map(|file| own.join(file.name())).collect();
    compiler.include_imports(true).open_files(files).unwrap();
    compiler.descriptor_pool()
}

/// What callers of a region reach.
fn is_public(service: &ServiceDescriptor) -> bool {
    let known = DescriptorPool::decode(gureum_proto::PUBLIC_DESCRIPTORS).unwrap();
    service.full_name().starts_with("gureum.") && known.get_service_by_name(service.full_name()).is_some()
}

/// One rule of a field, as `(place in FieldRules, value)`.
fn rules_of(pool: &DescriptorPool, field: &FieldDescriptor) -> Vec<(String, Field)> {
    fn flatten(message: &DynamicMessage, prefix: &str, rules: &mut Vec<(String, Field)>) {
        for (field, value) in message.fields() {
            let path = format!("{prefix}{}", field.name());
            match value {
                Field::Message(inner) => flatten(inner, &format!("{path}."), rules),
                other => rules.push((path, other.clone())),
            }
        }
    }
    let extension = pool.get_extension_by_name("buf.validate.field").unwrap();
    let mut rules = Vec::new();
    if let Field::Message(message) = field.options().get_extension(&extension).into_owned() {
        flatten(&message, "", &mut rules);
    }
    rules
}

/// A whole number as the field holds it.
fn whole(kind: &Kind, number: i64) -> Option<Field> {
    Some(match kind {
        Kind::Int32 => Field::I32(i32::try_from(number).ok()?),
        Kind::Int64 => Field::I64(number),
        Kind::Uint32 => Field::U32(u32::try_from(number).ok()?),
        Kind::Uint64 => Field::U64(u64::try_from(number).ok()?),
        _ => return None,
    })
}

fn number(value: &Field) -> i64 {
    match value {
        Field::I32(number) => i64::from(*number),
        Field::I64(number) => *number,
        Field::U32(number) => i64::from(*number),
        Field::U64(number) => i64::try_from(*number).unwrap(),
        other => panic!("{other:?} is no number"),
    }
}

/// A value of one field that breaks the rule, and as extreme a one where a handler might take it for a size.
fn breaking(kind: &Kind, rule: &str, limit: &Field) -> Vec<Field> {
    match rule.rsplit_once('.').map_or(rule, |(_, last)| last) {
        "max_len" if matches!(kind, Kind::Bytes) => vec![Field::Bytes(vec![b'x'; usize::try_from(number(limit)).unwrap() + 1].into())],
        "max_len" => vec![Field::String("x".repeat(usize::try_from(number(limit)).unwrap() + 1)), Field::String("€".repeat(20_000))],
        "min_len" if matches!(kind, Kind::Bytes) => vec![Field::Bytes(Vec::new().into())],
        "min_len" => vec![Field::String(String::new())],
        "ip" | "in" => vec![Field::String("nowhere".into())],
        "gte" | "gt" | "lte" | "lt" if matches!(kind, Kind::Double | Kind::Float) => {
            let all = if rule.ends_with("gte") { [-1.0e300, f64::NAN] } else { [1.0e300, f64::INFINITY] };
            all.into_iter().map(|it| if matches!(kind, Kind::Float) { Field::F32(it as f32) } else { Field::F64(it) }).collect()
        }
        "gte" | "gt" => [number(limit) - 1, i64::from(i32::MIN)].into_iter().filter_map(|it| whole(kind, it)).collect(),
        "lte" | "lt" => [number(limit) + 1, i64::from(i32::MAX), i64::MAX].into_iter().filter_map(|it| whole(kind, it)).collect(),
        "defined_only" => vec![Field::EnumNumber(999)],
        "not_in" => vec![Field::EnumNumber(0)],
        _ => Vec::new(),
    }
}

/// Every message of this kind that breaks one declared rule (or more: what is missing is missing), with the field.
fn broken(pool: &DescriptorPool, kind: &MessageDescriptor, depth: usize) -> Vec<(String, DynamicMessage)> {
    let with = |field: &FieldDescriptor, value: Field| {
        let mut message = DynamicMessage::new(kind.clone());
        message.set_field(field, value);
        message
    };
    let mut all = Vec::new();
    for field in kind.fields().filter(|field| !field.is_map()) {
        let (name, rules) = (field.name().to_owned(), rules_of(pool, &field));
        for (rule, limit) in rules {
            if rule == "required" || rule == "repeated.min_items" {
                all.push((name.clone(), DynamicMessage::new(kind.clone())));
            } else if rule == "repeated.max_items" {
                let item = match field.kind() {
                    Kind::Message(inner) => Field::Message(DynamicMessage::new(inner)),
                    Kind::String => Field::String("i-0123456789abcdef0".into()),
                    other => Field::default_value(&other),
                };
                for count in [usize::try_from(number(&limit)).unwrap() + 1, 5_000] {
                    all.push((name.clone(), with(&field, Field::List(vec![item.clone(); count]))));
                }
            } else if rule.starts_with("repeated.items.") {
                let values = breaking(&field.kind(), &rule, &limit);
                all.extend(values.into_iter().map(|value| (format!("{name}[0]"), with(&field, Field::List(vec![value])))));
            } else {
                all.extend(breaking(&field.kind(), &rule, &limit).into_iter().map(|value| (name.clone(), with(&field, value))));
            }
        }
        if let Kind::Message(inner) = field.kind()
            && depth > 0
            && inner.package_name().starts_with("gureum.")
        {
            for (path, value) in broken(pool, &inner, depth - 1) {
                let value = Field::Message(value);
                all.push(if field.is_list() {
                    (format!("{name}[0].{path}"), with(&field, Field::List(vec![value])))
                } else {
                    (format!("{name}.{path}"), with(&field, value))
                });
            }
        }
    }
    all
}

fn counts_the_rest(status: &Status) -> bool {
    status.message().len() > 1_000 || status.message().split("; ").count() >= 100
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_breaks_any_declared_rule_is_refused_and_changes_nothing() {
    let region = region();
    let (mine, other) = (Caller::new(region.channel()).of("000000000411"), Caller::new(region.channel()).of("000000000412"));
    let world = World::new(&mine, &other).await;
    let before = settled(&mine).await;
    let pool = contracts();
    let mut sent = 0;
    for service in pool.services().filter(is_public) {
        for method in service.methods().filter(|method| !method.is_server_streaming() && !method.is_client_streaming()) {
            let package = service.package_name().trim_start_matches("gureum.").trim_end_matches(".v1");
            let call = format!("{package}.{}/{}", service.name(), method.name());
            for (field, request) in broken(&pool, &method.input(), DEPTH) {
                sent += 1;
                let refused =
                    mine.call_bytes(&call, request.encode_to_vec()).await.err().unwrap_or_else(|| panic!("{call} took a bad {field}"));
                let (code, reason, fields) = told(&refused);
                assert!(code == Code::InvalidArgument && !reason.is_empty(), "{call}: {field}: {refused:?}");
                assert!(fields.contains(&field) || counts_the_rest(&refused), "{call}: {field} is not in {fields:?}: {refused:?}");
            }
        }
    }
    assert!(sent > 500, "only {sent} requests were made");
    changes_that_are_refused_for_their_token(&world).await;
    assert_eq!(before, everything(&mine).await, "a refused call wrote something");
    region.finish();
}

/// Everything else is right with these, as a dry run shows: only what bars their changes keeps them from writing.
async fn changes_that_are_refused_for_their_token(world: &World) {
    for (method, mut request) in valid(world) {
        request["dry_run"] = true.into();
        let tried = world.mine.call(method, request.clone()).await.expect_err(method);
        assert_eq!(told(&tried).1, "DryRunOperation", "{method}: {tried:?}");
        request["dry_run"] = false.into();
        request["client_token"] = long_token().into();
        let refused = world.mine.call(method, request).await.expect_err(method);
        assert_eq!(told(&refused), (Code::InvalidArgument, "InvalidParameterValue".into(), vec!["client_token".into()]), "{method}");
    }
}

fn valid(world: &World) -> Vec<(&'static str, Value)> {
    let one = json!({ "instance_ids": [world.instance] });
    let tag = json!({ "resource_ids": [world.instance, world.vpc, world.group], "tags": [{ "key": "a", "value": "b" }] });
    let ssh = json!({ "ip_protocol": "tcp", "from_port": 2222, "to_port": 2222, "ip_ranges": [{ "cidr": "10.0.0.0/8" }] });
    vec![
        ("compute.ComputeService/RunInstances", world.launch(json!({}))),
        ("compute.ComputeService/RebootInstances", one.clone()),
        ("compute.ComputeService/MonitorInstances", one),
        ("compute.ComputeService/ModifyInstanceAttribute", json!({ "instance_id": world.instance, "disable_api_termination": false })),
        ("compute.ComputeService/CreateVolume", json!({ "availability_zone": "us-east-1a", "size_gib": 1 })),
        ("compute.ComputeService/CreateImage", json!({ "instance_id": world.instance, "name": "mine" })),
        (
            "compute.ComputeService/CreateLaunchTemplate",
            json!({ "launch_template_name": "web", "launch_template_data": { "instance_type": "t3.micro" } }),
        ),
        ("network.NetworkService/CreateVpc", json!({ "cidr_block": "10.5.0.0/16" })),
        ("network.NetworkService/CreateSubnet", json!({ "vpc_id": world.vpc, "cidr_block": "10.1.9.0/24" })),
        ("network.NetworkService/DeleteSubnet", json!({ "subnet_id": world.subnet })),
        ("network.NetworkService/CreateNetworkInterface", json!({ "subnet_id": world.subnet })),
        ("network.NetworkService/AllocateAddress", json!({})),
        ("network.NetworkService/AssociateAddress", json!({ "allocation_id": world.allocation, "instance_id": world.instance })),
        ("network.NetworkService/ReleaseAddress", json!({ "allocation_id": world.allocation })),
        ("network.NetworkService/CreateInternetGateway", json!({})),
        ("security.SecurityService/CreateSecurityGroup", json!({ "group_name": "db", "description": "db" })),
        ("security.SecurityService/AuthorizeSecurityGroupIngress", json!({ "group_id": world.group, "ip_permissions": [ssh] })),
        ("security.SecurityService/CreateKeyPair", json!({ "key_name": "you", "key_type": "KEY_TYPE_ED25519" })),
        ("security.SecurityService/DeleteKeyPair", json!({ "key_name": "me" })),
        ("gateway.TaggingService/CreateTags", tag),
        ("gateway.EventService/CreateWebhook", json!({ "url": "http://127.0.0.1:1/", "secret": "0123456789abcdef" })),
    ]
}
