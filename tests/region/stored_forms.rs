//! Every kind of row that a region stores has its stored form in the services' `tests/stored_forms.txt`.
//!
//! The services' own tests hold their tables against these files. GUREUM_BLESS=1 writes them anew, from a
//! region in which one of everything was made.

use std::{collections::BTreeMap, path::PathBuf};

use gureum_proto::network::v1::{DeleteInstanceInterfacesRequest, InstanceEnd, network_peer_service_client::NetworkPeerServiceClient};
use gureum_store::stored_forms::record;
use serde_json::{Value, json};

use crate::{dynamic::Caller, harness::Deployment, region::region_with};

const SERVICES: [(&str, &str); 5] =
    [("security", "security"), ("network", "network"), ("compute", "compute"), ("node", "node-a"), ("gateway", "gateway")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_row_has_its_stored_form() {
    let (once, files) = (vec!["settings.webhooks.attempts=1".to_owned()], vec!["settings.driver=process".to_owned()]);
    let mut region = region_with(&|name| match name {
        "gateway" => once.clone(),
        // A node that keeps files has to be asked for what is done with them.
        "node-a" => files.clone(),
        _ => Vec::new(),
    });
    region.expect_complaint("an event was given up");
    one_of_everything(&region).await;
    region.end();

    let mut missing = Vec::new();
    for (service, name) in SERVICES {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../services/{service}/tests/stored_forms.txt"));
        let golden = std::fs::read_to_string(&path).unwrap();
        let mut forms = record(&region.directory(name)).unwrap();
        if std::env::var_os("GUREUM_BLESS").is_some() {
            std::fs::write(&path, written(&golden, &mut forms)).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap();
        let known = |table: &str| golden.lines().any(|line| line.split(' ').next() == Some(table));
        missing.extend(forms.into_keys().filter(|table| !known(table)).map(|table| format!("{service}: {table}")));
    }
    assert!(missing.is_empty(), "no stored form of {missing:?}; GUREUM_BLESS=1 writes what is missing");
    region.finish();
}

/// The file with what it lacks: a line that is there stays as it was released.
fn written(golden: &str, forms: &mut BTreeMap<String, String>) -> String {
    let mut file = golden.to_owned();
    if file.is_empty() {
        file.push_str("# Rows as they were stored: table, key, and the value in hex. Lines are never changed, only marked as \"older\".\n");
    }
    for (table, line) in forms {
        if !golden.lines().any(|known| known.split(' ').next() == Some(table.as_str())) {
            file.push_str(line);
            file.push('\n');
        }
    }
    file
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

async fn one_of_everything(region: &Deployment) {
    let (mine, other) = (Caller::new(region.channel()).of("000000000801"), Caller::new(region.channel()).of("000000000802"));
    let make = async |method: &str, request: Value| mine.insist(method, request).await.unwrap();
    let tags = json!([{ "key": "Name", "value": "golden" }]);
    let group = json!({ "client_token": "group", "group_name": "web", "description": "web", "tags": tags });
    let group = text(&make("security.SecurityService/CreateSecurityGroup", group).await["security_group"]["group_id"]);
    let rule =
        json!({ "ip_protocol": "tcp", "from_port": 22, "to_port": 22, "ip_ranges": [{ "cidr": "0.0.0.0/0", "description": "all" }] });
    make("security.SecurityService/AuthorizeSecurityGroupIngress", json!({ "group_id": group, "ip_permissions": [rule] })).await;
    let list = json!({ "prefix_list_name": "golden", "address_family": "IPv4", "max_entries": 2, "entries": [{ "cidr": "10.0.0.0/8" }] });
    let list = text(&make("security.SecurityService/CreateManagedPrefixList", list).await["prefix_list"]["prefix_list_id"]);
    // A change keeps the version before it.
    let more = json!({ "prefix_list_id": list, "current_version": "1", "add_entries": [{ "cidr": "10.1.0.0/16" }] });
    make("security.SecurityService/ModifyManagedPrefixList", more).await;
    make("security.SecurityService/CreateKeyPair", json!({ "key_name": "me", "key_type": "KEY_TYPE_ED25519", "tags": tags })).await;
    // Nobody listens there.
    let webhook = json!({ "url": "http://127.0.0.1:9/", "secret": "0123456789abcdef", "client_token": "webhook", "tags": tags });
    let webhook = text(&make("gateway.EventService/CreateWebhook", webhook).await["webhook"]["webhook_id"]);

    let subnets = make("network.NetworkService/DescribeSubnets", json!({})).await;
    // A repeat of its token is answered after it is gone.
    let vpc = text(&make("network.NetworkService/CreateVpc", json!({ "cidr_block": "10.9.0.0/16" })).await["vpc"]["vpc_id"]);
    make("network.NetworkService/DeleteVpc", json!({ "client_token": "vpc", "vpc_id": vpc })).await;
    let interface = json!({ "subnet_id": subnets["subnets"][0]["subnet_id"], "description": "second", "tags": tags });
    make("network.NetworkService/CreateNetworkInterface", interface).await;
    let allocation = text(
        &make("network.NetworkService/AllocateAddress", json!({ "client_token": "address", "tags": tags })).await["address"]["allocation_id"],
    );

    let shell = json!({ "owners": ["amazon"], "filters": [{ "name": "name", "values": ["gureum-shell"] }] });
    let image = text(&make("compute.ComputeService/DescribeImages", shell).await["images"][0]["image_id"]);
    let spec = json!({
        "image_id": image, "instance_type": "t3.micro", "key_name": "me", "security_group_ids": [group],
        "user_data": "Z29sZGVu", "placement": { "availability_zone": "us-east-1a" },
        "tag_specifications": [{ "resource_type": "instance", "tags": tags }],
    });
    let template = json!({ "launch_template_name": "golden", "launch_template_data": spec, "tags": tags });
    make("compute.ComputeService/CreateLaunchTemplate", template).await;
    let launch = json!({ "client_token": "launch", "spec": spec, "min_count": 1, "max_count": 1 });
    let instance = text(&make("compute.ComputeService/RunInstances", launch).await["instances"][0]["instance_id"]);
    let is = |state: &'static str| move |answer: &Value| answer["instances"][0]["state"] == state;
    let one = json!({ "instance_ids": [instance] });
    mine.until("compute.ComputeService/DescribeInstances", one.clone(), is("INSTANCE_STATE_RUNNING")).await;
    make("network.NetworkService/AssociateAddress", json!({ "allocation_id": allocation, "instance_id": instance })).await;

    let volume = json!({ "availability_zone": "us-east-1a", "size_gib": 1, "tags": tags });
    let volume = text(&make("compute.ComputeService/CreateVolume", volume).await["volume"]["volume_id"]);
    mine.until("compute.ComputeService/DescribeVolumes", json!({ "volume_ids": [volume] }), |answer| {
        answer["volumes"][0]["state"] == "VOLUME_STATE_AVAILABLE"
    })
    .await;
    make("compute.ComputeService/CreateSnapshot", json!({ "volume_id": volume, "description": "golden" })).await;
    let own = json!({ "instance_id": instance, "name": "golden", "description": "golden" });
    let own = text(&make("compute.ComputeService/CreateImage", own).await["image"]["image_id"]);
    mine.until("compute.ComputeService/DescribeImages", json!({ "image_ids": [own] }), |answer| {
        answer["images"][0]["state"] == "IMAGE_STATE_AVAILABLE"
    })
    .await;
    let listing = json!({ "image_id": own, "title": "golden", "terms": "none", "price": "1 USD" });
    let product = text(&make("compute.ComputeService/CreateMarketplaceListing", listing).await["listing"]["product_code"]);
    other.insist("compute.ComputeService/AcceptMarketplaceTerms", json!({ "product_code": product })).await.unwrap();

    make("compute.ComputeService/TerminateInstances", one.clone()).await;
    mine.until("compute.ComputeService/DescribeInstances", one, is("INSTANCE_STATE_TERMINATED")).await;
    // Its interfaces go when it has ended.
    mine.until("network.NetworkService/DescribeAddresses", json!({}), |answer| answer["addresses"][0]["association_id"].is_null()).await;
    mine.until("gateway.EventService/DescribeWebhooks", json!({ "webhook_ids": [webhook] }), |answer| {
        answer["webhooks"][0]["dead_letters"].as_u64() > Some(0)
    })
    .await;
    // What compute does for a launch that it undoes before network made an interface.
    let end = InstanceEnd { instance_id: "i-00000000000000001".into(), network_interface_ids: vec!["eni-00000000000000001".into()] };
    let mut network = NetworkPeerServiceClient::new(region.client("network", "000000000801"));
    network.delete_instance_interfaces(DeleteInstanceInterfacesRequest { instances: vec![end] }).await.unwrap();
}
