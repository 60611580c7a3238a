//! What an instance says of itself: signed by the region, and as it is now.

use std::{collections::HashMap, fs, path::Path, process::Command};

use gureum_proto::{
    common::v1::Tag,
    compute::v1::{compute_service_client::ComputeServiceClient, *},
    network::v1::{AttachNetworkInterfaceRequest, CreateNetworkInterfaceRequest, network_service_client::NetworkServiceClient},
};

use crate::{
    harness::{ask, until},
    region::{instance, until_state},
    running::{launch, root_volume, running_region, until_console},
};

/// Keeps what it is told of itself, and its tag `stage` as soon as there is one.
const SCRIPT: &str = r#"exec python3 -c '
import time, urllib.request, urllib.error
BASE = "http://169.254.169.254/latest/"
def ask(path):
    try:
        return urllib.request.urlopen(BASE + path, timeout=10).read()
    except urllib.error.HTTPError as error:
        return b""
def keep(name, path):
    told = ask(path)
    with open("/" + name, "wb") as file:
        file.write(told)
    return told
for part in ("document", "signature", "pkcs7", "rsa2048"):
    keep(part, "dynamic/instance-identity/" + part)
print("name", ask("meta-data/public-hostname").decode())
print("asked", flush=True)
while not keep("stage", "meta-data/tags/instance/stage"):
    time.sleep(0.1)
print("tagged", flush=True)
'"#;

fn openssl(folder: &Path, arguments: &str) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{arguments}: {output:?}");
    output.stdout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_shows_who_it_is_and_hears_of_a_tag_also_beside_what_waits_for_its_next_boot() {
    let mut region = running_region();
    let door = region.door("000000000911");
    let id = launch(&door, SCRIPT, |spec| {
        spec.metadata_options = Some(InstanceMetadataOptionsSpec { instance_metadata_tags_enabled: Some(true), ..Default::default() });
    })
    .await;
    let running = until_state(&door, &id, InstanceState::Running).await;
    let console = until_console(&door, &id, "asked").await;
    assert!(!running.public_dns_name.is_empty() && console.contains(&format!("name {}\n", running.public_dns_name)), "{console}");

    // Its key is kept by compute: what was signed before is verified after.
    region.kill("compute");
    region.restart("compute");
    let asked = async || ask!(door, ComputeServiceClient, get_identity_certificate, GetIdentityCertificateRequest {});
    let certificate = until("the certificate", async || asked().await.map_err(|status| status.to_string())).await.certificate;
    let volume = root_volume(&region);
    let told = |part: &str| fs::read_to_string(volume.join(part)).unwrap();
    let document: HashMap<String, serde_json::Value> = serde_json::from_str(&told("document")).unwrap();
    assert_eq!((&document["instanceId"], &document["accountId"]), (&id.as_str().into(), &"000000000911".into()));
    assert_eq!(document["privateIp"], running.private_ip_address);
    if Command::new("openssl").arg("version").output().is_ok() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("certificate.pem", &certificate);
        for part in ["pkcs7", "rsa2048"] {
            write("signed", &format!("-----BEGIN PKCS7-----\n{}\n-----END PKCS7-----\n", told(part)));
            let verify = "smime -verify -in signed -inform PEM -certfile certificate.pem -nointern -noverify";
            assert_eq!(String::from_utf8(openssl(folder.path(), verify)).unwrap(), told("document"));
        }
        write("document", &told("document"));
        write("signature.txt", &format!("{}\n", told("signature")));
        openssl(folder.path(), "base64 -d -in signature.txt -out signature");
        fs::write(folder.path().join("key.pem"), openssl(folder.path(), "x509 -in certificate.pem -noout -pubkey")).unwrap();
        openssl(folder.path(), "dgst -sha256 -verify key.pem -signature signature document");
    } else {
        println!("signatures are not verified: there is no openssl program here");
    }

    // An interface that this driver does not plug in keeps nothing else from changing.
    let subnet_id = running.subnet_id.clone();
    let create = CreateNetworkInterfaceRequest { subnet_id, ..Default::default() };
    let made = ask!(door, NetworkServiceClient, create_network_interface, create).unwrap().network_interface.unwrap();
    let attach = AttachNetworkInterfaceRequest {
        network_interface_id: made.network_interface_id,
        instance_id: id.clone(),
        device_index: 1,
        ..Default::default()
    };
    ask!(door, NetworkServiceClient, attach_network_interface, attach).unwrap();
    until("the second interface", async || match instance(&door, &id).await.network_interfaces.len() {
        2 => Ok(()),
        count => Err(count.to_string()),
    })
    .await;
    let tag = Tag { key: "stage".into(), value: "test".into() };
    let create = CreateTagsRequest { resource_ids: vec![id.clone()], tags: vec![tag], ..Default::default() };
    ask!(door, ComputeServiceClient, create_tags, create).unwrap();
    until_console(&door, &id, "tagged").await;
    assert_eq!(told("stage"), "test");
    let terminate = TerminateInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() };
    ask!(door, ComputeServiceClient, terminate_instances, terminate).unwrap();
    until_state(&door, &id, InstanceState::Terminated).await;
    region.finish();
}
