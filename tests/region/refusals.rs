//! Every kind of bad input, over the gateway: what is answered, and that nothing was written.
//!
//! What each is answered stands in `golden/refusals.txt`. A row that changes is a promise that changes:
//! GUREUM_BLESS=1 writes the file anew, and the difference is for a reviewer to judge.

use std::{path::PathBuf, time::Duration};

use gureum_service::{clock::monotonic, context::ACCOUNT_HEADER};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

use crate::{
    dynamic::{Caller, retry_after, told},
    region::region,
};

/// What is there before anything is refused.
pub struct World {
    pub mine: Caller,
    image: String,
    pub instance: String,
    pub vpc: String,
    pub subnet: String,
    pub group: String,
    pub allocation: String,
    interface: String,
    other_group: String,
    other_volume: String,
    other_vpc: String,
    other_instance: String,
    other_allocation: String,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

fn rule(port: i32, cidr: &str) -> Value {
    json!({ "ip_protocol": "tcp", "from_port": port, "to_port": port, "ip_ranges": [{ "cidr": cidr }] })
}

impl World {
    pub async fn new(mine: &Caller, other: &Caller) -> Self {
        let shell = json!({ "owners": ["amazon"], "filters": [{ "name": "name", "values": ["gureum-shell"] }] });
        let image = text(&mine.insist("compute.ComputeService/DescribeImages", shell).await.unwrap()["images"][0]["image_id"]);
        let spec = json!({ "image_id": image, "instance_type": "t3.micro", "disable_api_termination": true, "disable_api_stop": true });
        let launch = json!({ "client_token": "launch", "spec": spec, "min_count": 1, "max_count": 1 });
        let make = async |caller: &Caller, method: &str, request: Value| caller.insist(method, request).await.unwrap();
        let instance = make(mine, "compute.ComputeService/RunInstances", launch.clone()).await;
        let other_instance = make(other, "compute.ComputeService/RunInstances", launch).await;
        let vpc = text(
            &make(mine, "network.NetworkService/CreateVpc", json!({ "cidr_block": "10.1.0.0/16", "client_token": "vpc" })).await["vpc"]["vpc_id"],
        );
        let subnet = json!({ "vpc_id": vpc, "cidr_block": "10.1.1.0/24" });
        let subnet = make(mine, "network.NetworkService/CreateSubnet", subnet).await;
        let group = json!({ "group_name": "web", "description": "web" });
        let group = text(&make(mine, "security.SecurityService/CreateSecurityGroup", group).await["security_group"]["group_id"]);
        let permissions = json!({ "group_id": group, "ip_permissions": [rule(22, "0.0.0.0/0")] });
        make(mine, "security.SecurityService/AuthorizeSecurityGroupIngress", permissions).await;
        make(mine, "security.SecurityService/CreateKeyPair", json!({ "key_name": "me", "key_type": "KEY_TYPE_ED25519" })).await;
        let address = json!({ "client_token": "address" });
        let allocation = make(mine, "network.NetworkService/AllocateAddress", address.clone()).await;
        let other_allocation = make(other, "network.NetworkService/AllocateAddress", address).await;
        let volume = json!({ "availability_zone": "us-east-1a", "size_gib": 1 });
        let other_volume = make(other, "compute.ComputeService/CreateVolume", volume).await;
        let other_vpc = make(other, "network.NetworkService/DescribeVpcs", json!({})).await;
        let other_group = json!({ "group_name": "theirs", "description": "theirs" });
        let other_group = make(other, "security.SecurityService/CreateSecurityGroup", other_group).await;
        Self {
            mine: mine.clone(),
            image,
            instance: text(&instance["instances"][0]["instance_id"]),
            interface: text(&instance["instances"][0]["network_interfaces"][0]["network_interface_id"]),
            vpc,
            subnet: text(&subnet["subnet"]["subnet_id"]),
            group,
            allocation: text(&allocation["address"]["allocation_id"]),
            other_group: text(&other_group["security_group"]["group_id"]),
            other_volume: text(&other_volume["volume"]["volume_id"]),
            other_vpc: text(&other_vpc["vpcs"][0]["vpc_id"]),
            other_instance: text(&other_instance["instances"][0]["instance_id"]),
            other_allocation: text(&other_allocation["address"]["allocation_id"]),
        }
    }

    pub fn launch(&self, change: Value) -> Value {
        let mut request = json!({ "spec": { "image_id": self.image, "instance_type": "t3.micro" }, "min_count": 1, "max_count": 1 });
        for (name, value) in change.as_object().unwrap() {
            match value.as_object().filter(|_| name == "spec") {
                Some(fields) => fields.iter().for_each(|(name, value)| request["spec"][name] = value.clone()),
                None => request[name] = value.clone(),
            }
        }
        request
    }

    /// Name, method, request.
    fn rows(&self) -> Vec<(&'static str, &'static str, Value)> {
        [self.instances(), self.networks(), self.groups(), self.of_others(), self.at_once(), self.elsewhere()].concat()
    }

    fn instances(&self) -> Vec<(&'static str, &'static str, Value)> {
        let (run, one) = ("compute.ComputeService/RunInstances", json!({ "instance_ids": [self.instance] }));
        let many = "x".repeat(16_385);
        vec![
            ("unknown instance", "compute.ComputeService/DescribeInstances", json!({ "instance_ids": ["i-0123456789abcdef0"] })),
            ("unknown instance to end", "compute.ComputeService/TerminateInstances", json!({ "instance_ids": ["i-0123456789abcdef0"] })),
            ("no instance id", "compute.ComputeService/DescribeInstances", json!({ "instance_ids": ["nonsense"] })),
            ("no type", run, self.launch(json!({ "spec": { "instance_type": "t9.huge" } }))),
            ("unknown image", run, self.launch(json!({ "spec": { "image_id": "ami-0123456789abcdef0" } }))),
            ("unknown key pair", run, self.launch(json!({ "spec": { "key_name": "nobody" } }))),
            ("unknown subnet", run, self.launch(json!({ "spec": { "subnet_id": "subnet-0123456789abcdef0" } }))),
            ("unknown zone", run, self.launch(json!({ "spec": { "placement": { "availability_zone": "us-east-1z" } } }))),
            ("no placement group", run, self.launch(json!({ "spec": { "placement": { "group_name": "together" } } }))),
            ("no instance profile", run, self.launch(json!({ "spec": { "iam_instance_profile": "web" } }))),
            (
                "no template to launch from",
                run,
                self.launch(json!({ "launch_template": { "launch_template_name": "nobodys", "version": "zz" } })),
            ),
            ("count 0", run, self.launch(json!({ "min_count": 0, "max_count": 0 }))),
            ("count below 0", run, self.launch(json!({ "min_count": -1 }))),
            ("count above the limit", run, self.launch(json!({ "max_count": 1001 }))),
            ("more at least than at most", run, self.launch(json!({ "min_count": 2 }))),
            ("user data over 16 KiB", run, self.launch(json!({ "spec": { "user_data": base64(&many) } }))),
            ("hibernation", run, self.launch(json!({ "spec": { "hibernation_configured": true } }))),
            ("protected from its end", "compute.ComputeService/TerminateInstances", one.clone()),
            ("protected from a stop", "compute.ComputeService/StopInstances", one),
            (
                "another type while it runs",
                "compute.ComputeService/ModifyInstanceAttribute",
                json!({ "instance_id": self.instance, "instance_type": "t3.small" }),
            ),
            (
                "a group that is not there for an instance",
                "compute.ComputeService/ModifyInstanceAttribute",
                json!({ "instance_id": self.instance, "groups": { "group_ids": [self.group, "sg-0123456789abcdef0"] } }),
            ),
            (
                "no shutdown behavior",
                "compute.ComputeService/ModifyInstanceAttribute",
                json!({ "instance_id": self.instance, "instance_initiated_shutdown_behavior": 0 }),
            ),
            (
                "no metadata option",
                "compute.ComputeService/ModifyInstanceMetadataOptions",
                json!({ "instance_id": self.instance, "metadata_options": {} }),
            ),
            (
                "an image for nobody",
                "compute.ComputeService/ModifyImageAttribute",
                json!({ "image_id": self.image, "launch_permission": {} }),
            ),
            ("a snapshot for nobody", "compute.ComputeService/ModifySnapshotAttribute", json!({ "snapshot_id": "snap-0123456789abcdef0" })),
            (
                "an image of the house for others",
                "compute.ComputeService/ModifyImageAttribute",
                json!({ "image_id": self.image, "launch_permission": { "add": [{ "group": "all" }] } }),
            ),
            ("token used for other parameters", run, self.launch(json!({ "client_token": "launch", "max_count": 2 }))),
            ("no size of a volume", "compute.ComputeService/CreateVolume", json!({ "availability_zone": "us-east-1a" })),
            ("a volume of 0 GiB", "compute.ComputeService/CreateVolume", json!({ "availability_zone": "us-east-1a", "size_gib": 0 })),
            (
                "a volume that is too large",
                "compute.ComputeService/CreateVolume",
                json!({ "availability_zone": "us-east-1a", "size_gib": 99_999 }),
            ),
            (
                "unknown snapshot",
                "compute.ComputeService/CreateVolume",
                json!({ "availability_zone": "us-east-1a", "snapshot_id": "snap-0123456789abcdef0" }),
            ),
            ("zone of no volume", "compute.ComputeService/CreateVolume", json!({ "availability_zone": "mars-1a", "size_gib": 1 })),
            ("an image of nothing", "compute.ComputeService/CreateImage", json!({ "instance_id": "i-0123456789abcdef0", "name": "mine" })),
            ("an image of the house", "compute.ComputeService/DeregisterImage", json!({ "image_id": self.image })),
            ("unknown template", run, self.launch(json!({ "launch_template": { "launch_template_id": "lt-0123456789abcdef0" } }))),
        ]
    }

    fn networks(&self) -> Vec<(&'static str, &'static str, Value)> {
        let (vpc, subnet) = ("network.NetworkService/CreateVpc", "network.NetworkService/CreateSubnet");
        vec![
            ("malformed CIDR", vpc, json!({ "cidr_block": "10.0.0.0/40" })),
            ("an address without a mask", vpc, json!({ "cidr_block": "10.0.0.1" })),
            ("a VPC that is too large", vpc, json!({ "cidr_block": "10.0.0.0/8" })),
            ("token used for another VPC", vpc, json!({ "cidr_block": "10.2.0.0/16", "client_token": "vpc" })),
            ("overlapping subnet", subnet, json!({ "vpc_id": self.vpc, "cidr_block": "10.1.1.128/25" })),
            ("subnet outside its VPC", subnet, json!({ "vpc_id": self.vpc, "cidr_block": "10.9.0.0/24" })),
            ("subnet that is too small", subnet, json!({ "vpc_id": self.vpc, "cidr_block": "10.1.2.0/29" })),
            ("subnet of an unknown VPC", subnet, json!({ "vpc_id": "vpc-0123456789abcdef0", "cidr_block": "10.1.2.0/24" })),
            ("VPC in use", "network.NetworkService/DeleteVpc", json!({ "vpc_id": self.vpc })),
            ("unknown allocation", "network.NetworkService/ReleaseAddress", json!({ "allocation_id": "eipalloc-0123456789abcdef0" })),
            ("an address for nothing", "network.NetworkService/AssociateAddress", json!({ "allocation_id": self.allocation })),
            (
                "a group that is not there for an interface",
                "network.NetworkService/ModifyNetworkInterfaceAttribute",
                json!({ "network_interface_id": self.interface, "group_ids": [self.group, "sg-0123456789abcdef0"] }),
            ),
            (
                "another's group for a new interface",
                "network.NetworkService/CreateNetworkInterface",
                json!({ "subnet_id": self.subnet, "group_ids": [self.other_group] }),
            ),
            (
                "an address that is not free",
                "network.NetworkService/CreateNetworkInterface",
                json!({ "subnet_id": self.subnet, "private_ip_address": "10.1.1.1" }),
            ),
        ]
    }

    fn groups(&self) -> Vec<(&'static str, &'static str, Value)> {
        let allow = "security.SecurityService/AuthorizeSecurityGroupIngress";
        let rules = |rules: Value| json!({ "group_id": self.group, "ip_permissions": rules });
        vec![
            ("rule twice", allow, rules(json!([rule(22, "0.0.0.0/0")]))),
            ("rule twice in one request", allow, rules(json!([rule(80, "0.0.0.0/0"), rule(80, "0.0.0.0/0")]))),
            ("port out of range", allow, rules(json!([rule(70_000, "0.0.0.0/0")]))),
            (
                "ports in the wrong order",
                allow,
                rules(json!([{ "ip_protocol": "tcp", "from_port": 2, "to_port": 1, "ip_ranges": [{ "cidr": "0.0.0.0/0" }] }])),
            ),
            ("malformed CIDR of a rule", allow, rules(json!([rule(80, "1.2.3.4/33")]))),
            (
                "unknown protocol",
                allow,
                rules(json!([{ "ip_protocol": "ham", "from_port": 1, "to_port": 1, "ip_ranges": [{ "cidr": "0.0.0.0/0" }] }])),
            ),
            ("rule for an unknown group", allow, json!({ "group_id": "sg-0123456789abcdef0", "ip_permissions": [rule(1, "0.0.0.0/0")] })),
            ("group twice", "security.SecurityService/CreateSecurityGroup", json!({ "group_name": "web", "description": "web" })),
            ("key pair twice", "security.SecurityService/CreateKeyPair", json!({ "key_name": "me", "key_type": "KEY_TYPE_ED25519" })),
            (
                "no public key",
                "security.SecurityService/ImportKeyPair",
                json!({ "key_name": "you", "public_key_material": base64("ssh-rsa AAAA") }),
            ),
            ("a rule that is not there", "security.SecurityService/RevokeSecurityGroupIngress", rules(json!([rule(443, "0.0.0.0/0")]))),
        ]
    }

    fn of_others(&self) -> Vec<(&'static str, &'static str, Value)> {
        vec![
            ("another's group", "security.SecurityService/DeleteSecurityGroup", json!({ "group_id": self.other_group })),
            ("another's volume", "compute.ComputeService/DeleteVolume", json!({ "volume_id": self.other_volume })),
            ("a snapshot of another's volume", "compute.ComputeService/CreateSnapshot", json!({ "volume_id": self.other_volume })),
            ("another's VPC", "network.NetworkService/DeleteVpc", json!({ "vpc_id": self.other_vpc })),
            ("another's instance", "compute.ComputeService/TerminateInstances", json!({ "instance_ids": [self.other_instance] })),
            (
                "mine and another's",
                "compute.ComputeService/RebootInstances",
                json!({ "instance_ids": [self.instance, self.other_instance] }),
            ),
            ("another's address", "network.NetworkService/ReleaseAddress", json!({ "allocation_id": self.other_allocation })),
            (
                "a launch into another's group",
                "compute.ComputeService/RunInstances",
                self.launch(json!({ "spec": { "security_group_ids": [self.other_group] } })),
            ),
            (
                "a tag on another's",
                "gateway.TaggingService/CreateTags",
                json!({ "resource_ids": [self.instance, self.other_group], "tags": [{ "key": "a", "value": "b" }] }),
            ),
        ]
    }

    fn at_once(&self) -> Vec<(&'static str, &'static str, Value)> {
        let many = base64(&"x".repeat(16_385));
        let twice_wrong = json!([rule(70_000, "0.0.0.0/0"), rule(80, "nowhere"), { "ip_protocol": "tcp", "from_port": 2, "to_port": 1, "ip_ranges": [{ "cidr": "::/0" }] }]);
        vec![
            (
                "three limits of a launch",
                "compute.ComputeService/RunInstances",
                self.launch(json!({ "client_token": "x".repeat(65), "max_count": 1001, "spec": { "user_data": many } })),
            ),
            (
                "a token that is too long and four things of a launch",
                "compute.ComputeService/RunInstances",
                self.launch(json!({ "client_token": "x".repeat(70), "max_count": -1, "spec": {
                    "image_id": "ami-0123456789abcdef0", "key_name": "nobody", "subnet_id": "here",
                } })),
            ),
            (
                "a token that is too long and two ids",
                "compute.ComputeService/TerminateInstances",
                json!({ "client_token": "x".repeat(70), "instance_ids": ["one", self.instance, "two"] }),
            ),
            (
                "a token that is too long and an instance of another's",
                "compute.ComputeService/TerminateInstances",
                json!({ "client_token": "x".repeat(70), "instance_ids": [self.other_instance] }),
            ),
            (
                "no description and a name like an id",
                "security.SecurityService/CreateSecurityGroup",
                json!({ "group_name": "sg-mine", "description": "" }),
            ),
            (
                "a volume that is too small, in no zone, with a long token",
                "compute.ComputeService/CreateVolume",
                json!({ "client_token": "x".repeat(70), "availability_zone": "mars-1a", "size_gib": 0, "snapshot_id": "none" }),
            ),
            (
                "three things that a launch names",
                "compute.ComputeService/RunInstances",
                self.launch(
                    json!({ "min_count": 3, "spec": { "instance_type": "t9.huge", "subnet_id": "here", "security_group_ids": ["there"] } }),
                ),
            ),
            (
                "four things that do not exist",
                "compute.ComputeService/RunInstances",
                self.launch(json!({ "spec": {
                    "image_id": "ami-0123456789abcdef0", "key_name": "nobody", "subnet_id": "subnet-0123456789abcdef0",
                    "security_group_ids": ["sg-0123456789abcdef0"],
                } })),
            ),
            (
                "two interfaces",
                "compute.ComputeService/RunInstances",
                self.launch(json!({ "spec": { "network_interfaces": [
                    { "device_index": 1, "subnet_id": "subnet-0123456789abcdef0" },
                    { "device_index": 0, "network_interface_id": "eni-0123456789abcdef0" },
                ] } })),
            ),
            (
                "three rules",
                "security.SecurityService/AuthorizeSecurityGroupIngress",
                json!({ "group_id": self.group, "ip_permissions": twice_wrong }),
            ),
            ("an empty group", "security.SecurityService/CreateSecurityGroup", json!({})),
            ("two ids", "compute.ComputeService/TerminateInstances", json!({ "instance_ids": ["one", self.instance, "two"] })),
        ]
    }

    fn elsewhere(&self) -> Vec<(&'static str, &'static str, Value)> {
        let tag = |key: &str| json!({ "resource_ids": [self.instance], "tags": [{ "key": key, "value": "b" }] });
        vec![
            ("a reserved tag", "gateway.TaggingService/CreateTags", tag("aws:mine")),
            ("a tag on nothing", "gateway.TaggingService/CreateTags", json!({ "resource_ids": ["ham-1"], "tags": [{ "key": "a" }] })),
            ("a webhook to nowhere", "gateway.EventService/CreateWebhook", json!({ "url": "nowhere", "secret": "0123456789abcdef" })),
            (
                "a webhook with a short secret",
                "gateway.EventService/CreateWebhook",
                json!({ "url": "http://127.0.0.1:1/", "secret": "short" }),
            ),
            ("unknown webhook", "gateway.EventService/DeleteWebhook", json!({ "webhook_id": "wh-0123456789abcdef0" })),
            ("real time", "gateway.ClockService/AdvanceClock", json!({ "by": "60s" })),
            ("no page token", "compute.ComputeService/DescribeInstances", json!({ "page_token": "nonsense" })),
            ("a page below 0", "compute.ComputeService/DescribeInstances", json!({ "page_size": -1 })),
            ("unknown filter", "compute.ComputeService/DescribeInstances", json!({ "filters": [{ "name": "colour", "values": ["red"] }] })),
        ]
    }
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(text)
}

/// Everything an account has, and everything that its log tells.
pub async fn everything(caller: &Caller) -> Value {
    let mut all = serde_json::Map::new();
    for method in [
        "compute.ComputeService/DescribeInstances",
        "compute.ComputeService/DescribeLaunchTemplates",
        "compute.ComputeService/DescribeVolumes",
        "compute.ComputeService/DescribeSnapshots",
        "compute.ComputeService/DescribeImages",
        "security.SecurityService/DescribeSecurityGroups",
        "security.SecurityService/DescribeKeyPairs",
        "security.SecurityService/DescribeManagedPrefixLists",
        "network.NetworkService/DescribeVpcs",
        "network.NetworkService/DescribeSubnets",
        "network.NetworkService/DescribeNetworkInterfaces",
        "network.NetworkService/DescribeAddresses",
        "network.NetworkService/DescribeRouteTables",
        "network.NetworkService/DescribeInternetGateways",
        "gateway.TaggingService/DescribeTags",
        "gateway.EventService/DescribeWebhooks",
    ] {
        all.insert(method.to_owned(), caller.insist(method, json!({})).await.unwrap());
    }
    let mut log = caller.stream("gateway.EventService/Subscribe", json!({ "after_place": 0 })).await.unwrap();
    let mut events = Vec::new();
    while let Some(message) = log.next().await.unwrap().filter(|message| !message["event"].is_null()) {
        events.push(message["event"].clone());
    }
    all.insert("events".to_owned(), Value::Array(events));
    Value::Object(all)
}

/// Everything once nothing changes by itself any more: instances run, and their checks have passed.
pub async fn settled(caller: &Caller) -> Value {
    let all = json!({ "include_all_instances": true });
    caller
        .until("compute.ComputeService/DescribeInstanceStatus", all, |answer| {
            answer["instance_statuses"].as_array().is_some_and(|all| {
                !all.is_empty()
                    && all.iter().all(|one| one["instance_status"]["status"].as_str().is_some_and(|status| status.ends_with("OK")))
            })
        })
        .await;
    let mut before = everything(caller).await;
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = everything(caller).await;
        if now == before {
            return now;
        }
        before = now;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_with_every_reason_and_nothing_is_written() {
    let region = region();
    let channel = region.channel();
    let (mine, other) = (Caller::new(channel.clone()).of("000000000401"), Caller::new(channel).of("000000000402"));
    let world = World::new(&mine, &other).await;
    let before = (settled(&mine).await, settled(&other).await);

    let mut table = String::new();
    for (name, method, request) in world.rows() {
        let status = world.mine.call(method, request).await.expect_err(name);
        let (code, reason, fields) = told(&status);
        assert!(!reason.is_empty() && !status.message().is_empty(), "{name}: {status:?}");
        table.push_str(&format!("{name} | {code:?} {reason} | {}\n", fields.join(" ")));
    }
    let after = (everything(&mine).await, everything(&other).await);
    compare("refusals.txt", &table);
    assert_eq!(before.0, after.0, "a refused call wrote something");
    assert_eq!(before.1, after.1, "a refused call wrote something of another account's");
    region.finish();
}

/// Holds a text against a file in `golden`.
fn compare(name: &str, text: &str) {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/region/golden")).join(name);
    if std::env::var_os("GUREUM_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    for (line, wanted) in text.lines().zip(golden.lines()) {
        assert_eq!(line, wanted, "{} tells otherwise; GUREUM_BLESS=1 writes it anew", path.display());
    }
    assert_eq!(text.lines().count(), golden.lines().count(), "{} has other rows; GUREUM_BLESS=1 writes it anew", path.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_at_all_is_refused_and_harms_nobody() {
    let region = region();
    let caller = Caller::new(region.channel()).of("000000000403");
    caller.insist("compute.ComputeService/DescribeInstances", json!({})).await.unwrap();

    // One byte above what a message may have; the gateway passes it on, the service refuses it.
    for method in ["compute.ComputeService/RunInstances", "gateway.EventService/CreateWebhook"] {
        let large = caller.call_bytes(method, vec![0; (4 << 20) + 1]).await.unwrap_err();
        assert_eq!(told(&large), (Code::ResourceExhausted, "RequestEntityTooLarge".into(), vec![]), "{large:?}");
        let garbage = caller.call_bytes(method, vec![0xff; 100]).await.unwrap_err();
        assert_eq!(told(&garbage), (Code::InvalidArgument, "MalformedMessage".into(), vec![]), "{garbage:?}");
    }
    for method in ["compute.ComputeService/Nonsense", "compute.ComputePeerService/DescribeNodes", "ham.HamService/Eggs"] {
        let unknown = caller.call_bytes(method, vec![]).await.unwrap_err();
        assert_eq!(told(&unknown), (Code::Unimplemented, "InvalidAction".into(), vec![]), "{method}: {unknown:?}");
    }
    let nobody = Caller::new(region.channel()).with(ACCOUNT_HEADER, "12").call("compute.ComputeService/DescribeInstances", json!({})).await;
    assert_eq!(nobody.unwrap_err().code(), Code::InvalidArgument);

    for garbage in [
        &[0; 4096][..],
        &[0xff; 65_536],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01",
    ] {
        let mut connection = tokio::net::TcpStream::connect(region.address()).await.unwrap();
        // It may be closed before all of it is written.
        let _ = connection.write_all(garbage).await;
        let _ = connection.shutdown().await;
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(10), connection.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "garbage keeps a connection open");
    }
    caller.call("compute.ComputeService/DescribeInstances", json!({})).await.unwrap();
    region.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_away_is_unavailable_with_a_time_to_retry_and_never_a_hang() {
    let mut region = region();
    // A deadline of one second, as gRPC writes it.
    let caller = Caller::new(region.channel()).of("000000000404").with("grpc-timeout", "1000m");
    let shell = json!({ "owners": ["amazon"], "filters": [{ "name": "name", "values": ["gureum-shell"] }] });
    let images = caller.insist("compute.ComputeService/DescribeImages", shell).await.unwrap();
    let spec = json!({ "image_id": images["images"][0]["image_id"], "instance_type": "t3.micro" });
    let launch = json!({ "spec": spec, "min_count": 1, "max_count": 1 });
    let calls = [
        ("compute", "compute.ComputeService/DescribeInstances", json!({})),
        // Asked by compute, not by the gateway.
        ("network", "compute.ComputeService/RunInstances", launch),
        ("security", "security.SecurityService/DescribeSecurityGroups", json!({})),
    ];
    for (service, method, request) in calls {
        let dead: fn(&mut crate::harness::Deployment, &str) = |region, name| region.kill(name);
        let silent: fn(&mut crate::harness::Deployment, &str) = |region, name| region.freeze(name);
        for (how, stop) in [("dead", dead), ("silent", silent)] {
            stop(&mut region, service);
            let mut begun = monotonic();
            let mut away = caller.call(method, request.clone()).await.expect_err(service);
            // The client's own timer may fire a moment before the answer comes that the region gives just in time.
            for _ in 0..5 {
                if away.code() != Code::DeadlineExceeded {
                    break;
                }
                begun = monotonic();
                away = caller.call(method, request.clone()).await.expect_err(service);
            }
            let took = begun.elapsed();
            assert_eq!(away.code(), Code::Unavailable, "{service} is {how}: {away:?}");
            assert!(retry_after(&away).is_some(), "{service} is {how}: {away:?}");
            assert!(took < Duration::from_millis(1_500), "{service} is {how}, and the answer took {took:?}");
            if how == "dead" {
                region.restart(service);
            } else {
                region.thaw(service);
            }
            caller.until("compute.ComputeService/DescribeInstances", json!({}), |_| true).await;
        }
    }
    region.finish();
}

#[test]
fn a_port_beyond_loopback_without_credentials_and_tls_is_refused_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let socket = |name: &str| format!("unix:{}", folder.path().join(name).display());
    let start = |kind: &str, settings: &[String]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gureum"));
        command.arg("serve").arg(kind).args(settings.iter().flat_map(|setting| ["--set", setting.as_str()])).env("NO_COLOR", "1");
        let ended = command.output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    let peers = ["security", "network", "compute"].map(|peer| format!("peers.{peer}={}", socket(peer)));
    let gateway = [peers.to_vec(), vec![format!("listen={}", socket("gateway")), "settings.door=0.0.0.0:0".into()]].concat();
    let (code, told) = start("gateway", &gateway);
    assert_eq!(code, Some(2), "{told}");
    for wanted in ["0.0.0.0:0 is open beyond loopback", "require_credentials must be true", "door_tls must be set"] {
        assert!(told.contains(wanted), "{wanted} is not in:\n{told}");
    }
    let (code, told) = start("security", &["listen=127.0.0.1:0".into()]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("127.0.0.1:0, a TCP port") && told.contains("set tls"), "{told}");
}
