//! The door as an operator sets it up: TLS, access keys, limits, health, metrics.

use std::{collections::BTreeMap, time::Duration};

use gureum_service::clock::monotonic;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tonic::{
    Code,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    dynamic::{Caller, retry_after, told},
    harness::Deployment,
    region::{region, region_with},
};

const ONE: &str = "000000000501";
const TWO: &str = "000000000502";

fn settings() -> Vec<String> {
    let keys = [
        ("AKIAONE", "one-one-one-one-one", ONE),
        ("AKIATWO", "two-two-two-two-two", TWO),
        ("AKIASPENDER", "six-six-six-six-six", "000000000506"),
    ];
    let keys = keys.map(|(id, secret, account)| format!("{{ id = \"{id}\", secret = \"{secret}\", account = \"{account}\" }}"));
    vec![
        "settings.require_credentials=true".into(),
        format!("settings.access_keys=[{}]", keys.join(", ")),
        "settings.calls_per_second=1".into(),
        "settings.calls_burst=30".into(),
    ]
}

/// A region whose door has a certificate; and a connection to it that trusts whoever signed it.
fn closed_region() -> (Deployment, Channel) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let signed = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, secret) = (folder.path().join("door.pem"), folder.path().join("door-key.pem"));
    std::fs::write(&certificate, signed.pem()).unwrap();
    std::fs::write(&secret, key.serialize_pem()).unwrap();
    let mut all = settings();
    all.push(format!("settings.door_tls={{ certificate = \"{}\", key = \"{}\" }}", certificate.display(), secret.display()));
    let region = region_with(&|name| if name == "gateway" { all.clone() } else { Vec::new() });
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem())).domain_name("localhost");
    let channel = Endpoint::from_shared(format!("https://{}", region.address())).unwrap().tls_config(tls).unwrap().connect_lazy();
    (region, channel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_opens_its_own_account_and_no_other() {
    let (region, channel) = closed_region();
    let nobody = Caller::new(channel.clone());
    let with = |key: &str| nobody.with("authorization", &format!("Bearer {key}"));
    let (one, two) = (with("AKIAONE:one-one-one-one-one"), with("AKIATWO:two-two-two-two-two"));
    let (list, create) = ("security.SecurityService/DescribeSecurityGroups", "security.SecurityService/CreateSecurityGroup");

    let group = json!({ "group_name": "web", "description": "my own" });
    let made = one.insist(create, group).await.unwrap()["security_group"].clone();
    assert_eq!(made["owner_id"], ONE);
    assert_eq!(one.of(ONE).call(list, json!({})).await.unwrap()["security_groups"].as_array().unwrap().len(), 2);
    let theirs = two.call(list, json!({})).await.unwrap()["security_groups"].clone();
    assert_eq!(theirs.as_array().unwrap().len(), 1, "{theirs:#}");
    assert_eq!(theirs[0]["owner_id"], TWO);
    // Streams as well as calls, and what the gateway answers by itself.
    let mut log = two.stream("gateway.EventService/Subscribe", json!({ "after_place": 0 })).await.unwrap();
    while let Some(event) = log.next().await.unwrap().filter(|message| !message["event"].is_null()) {
        assert_eq!(event["event"]["account_id"], TWO);
    }

    let wrong = [
        nobody.clone(),
        nobody.of(ONE),
        with("AKIAONE:two-two-two-two-two"),
        with("AKIANONE:one-one-one-one-one"),
        with("AKIAONE"),
        nobody.with("authorization", "Basic AKIAONE:one-one-one-one-one"),
    ];
    for caller in wrong {
        for method in [list, "gateway.EventService/DescribeWebhooks"] {
            let refused = caller.call(method, json!({})).await.unwrap_err();
            assert_eq!(told(&refused), (Code::Unauthenticated, "AuthFailure".into(), vec![]), "{refused:?}");
            assert!(refused.message().contains("authorization: Bearer ID:SECRET"), "{refused:?}");
        }
    }
    for method in [list, "gateway.EventService/DescribeWebhooks"] {
        let refused = one.of(TWO).call(method, json!({})).await.unwrap_err();
        assert_eq!(told(&refused), (Code::PermissionDenied, "UnauthorizedOperation".into(), vec![]), "{refused:?}");
    }

    // Who speaks no TLS, or trusts nobody who signed the certificate, gets nowhere.
    let plain = Caller::new(region.channel());
    assert!(tokio::time::timeout(Duration::from_secs(10), plain.call(list, json!({}))).await.expect("a hang").is_err());
    let mut health = HealthClient::new(channel);
    let told = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(told.status(), ServingStatus::Serving, "health tells nothing about anyone, and asks for no key");
    region.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_calls_too_often_is_told_when_to_come_back() {
    let region = region_with(&|name| if name == "gateway" { settings() } else { Vec::new() });
    let with = |key: &str| Caller::new(region.channel()).with("authorization", &format!("Bearer {key}"));
    let list = "gateway.EventService/DescribeWebhooks";
    let spender = with("AKIASPENDER:six-six-six-six-six");
    let mut passed = 0;
    let refused = loop {
        match spender.call(list, json!({})).await {
            Ok(_) => passed += 1,
            Err(status) => break status,
        }
        assert!(passed < 1000, "there is no limit");
    };
    assert!(passed >= 30, "the burst is 30, and {passed} calls passed");
    assert_eq!(told(&refused), (Code::ResourceExhausted, "RequestLimitExceeded".into(), vec![]));
    let wait = retry_after(&refused).expect("no word about when to try again");
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
    with("AKIATWO:two-two-two-two-two").call(list, json!({})).await.expect("another account's calls are its own affair");

    // The metrics are a page, and ask for a key as everything does.
    let mut connection = tokio::net::TcpStream::connect(region.address()).await.unwrap();
    assert!(get(&mut connection, "/metrics", "").await.starts_with("HTTP/1.1 401"));
    let mut connection = tokio::net::TcpStream::connect(region.address()).await.unwrap();
    let page = get(&mut connection, "/metrics", "authorization: Bearer AKIATWO:two-two-two-two-two\r\n").await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("code=\"RESOURCE_EXHAUSTED\""), "{page}");
    region.finish();
}

/// What `curl` gets.
async fn get(connection: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str, headers: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: gureum\r\nconnection: close\r\n{headers}\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), connection.read_to_string(&mut answer)).await.expect("no end of the page").unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_tells_of_every_service_and_of_the_whole() {
    let mut region = region();
    let client = HealthClient::new(region.channel());
    let ask = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        client.clone().check(request).await.map(|told| told.into_inner().status())
    };
    let (whole, compute, security, events) =
        ("", "gureum.compute.v1.ComputeService", "gureum.security.v1.SecurityService", "gureum.gateway.v1.EventService");
    let is = async |wanted: [(&str, bool); 4]| {
        let patience = monotonic() + Duration::from_secs(20);
        loop {
            let mut told = BTreeMap::new();
            for (service, _) in wanted {
                told.insert(service, ask(service).await.unwrap() == ServingStatus::Serving);
            }
            if told == BTreeMap::from(wanted) {
                return;
            }
            assert!(monotonic() < patience, "told {told:?}, and wanted {wanted:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // At once, and not only after a while: whoever waited for the ready line may ask.
    for service in [whole, compute, security, events] {
        assert_eq!(ask(service).await.unwrap(), ServingStatus::Serving, "{service}");
    }
    assert_eq!(ask("gureum.ham.v1.HamService").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(ask("gureum.compute.v1.ComputePeerService").await.unwrap_err().code(), Code::NotFound);

    region.kill("compute");
    is([(whole, false), (compute, false), (security, true), (events, true)]).await;
    region.restart("compute");
    is([(whole, true), (compute, true), (security, true), (events, true)]).await;
    // It keeps its connections and answers nobody.
    region.freeze("security");
    is([(whole, false), (compute, true), (security, false), (events, true)]).await;
    region.thaw("security");
    is([(whole, true), (compute, true), (security, true), (events, true)]).await;
    region.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_service_has_a_page_of_metrics() {
    let region = region();
    let caller = Caller::new(region.channel()).of("000000000503");
    caller.insist("compute.ComputeService/DescribeInstances", json!({})).await.unwrap();
    let mut door = tokio::net::TcpStream::connect(region.address()).await.unwrap();
    let page = get(&mut door, "/metrics", "").await;
    let counted = "gureum_calls_total{method=\"gureum.compute.v1.ComputeService/DescribeInstances\",code=\"OK\"}";
    assert!(page.starts_with("HTTP/1.1 200") && page.contains(counted), "{page}");
    assert!(page.contains("content-type: application/openmetrics-text"), "{page}");
    for name in region.names() {
        let gureum_service::Listen::Unix(socket) = region.socket(&name) else { panic!("{name} has no socket") };
        let mut connection = tokio::net::UnixStream::connect(socket).await.unwrap();
        let page = get(&mut connection, "/metrics", "").await;
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("# EOF"), "{name}: {page}");
        assert!(name != "compute" || page.contains(counted), "{page}");
    }
    region.finish();
}
