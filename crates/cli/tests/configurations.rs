//! `gureum serve` with configurations that cannot be used: every fault is told in one refusal, with and without
//! `--check`, and nothing is made.
#![cfg(feature = "region")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    path::Path,
    process::{Command, Output},
};

use rcgen::{CertificateParams, KeyPair};

fn serve(kind: &str, settings: &[&str], check: bool) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gureum"));
    command.arg("serve").arg(kind).args(settings.iter().flat_map(|setting| ["--set", setting])).args(check.then_some("--check"));
    command.env("NO_COLOR", "1").output().unwrap()
}

/// Has `serve` refuse the settings, and answers what it says.
fn refusal(kind: &str, settings: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let (listen, directory) =
        (format!("listen=unix:{}", state.join("s.sock").display()), format!("store.directory={}", state.join("store").display()));
    let settings = [&[listen.as_str(), directory.as_str()], settings].concat();
    let told = [true, false].map(|check| {
        let ended = serve(kind, &settings, check);
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(2), "{kind} {settings:?} --check {check}: {told}");
        assert!(ended.stdout.is_empty() && !state.exists(), "{kind} {settings:?} --check {check}");
        told
    });
    let [checked, started] = told;
    // A refusal of a clock tells the time.
    assert_eq!(checked.lines().count(), started.lines().count(), "{checked}{started}");
    checked
}

/// A kind, its peers, further settings, and what the refusal says.
type Refused<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a [&'a str]);

#[test]
fn each_fault_is_named_in_one_refusal_and_nothing_is_made() {
    let peers = |names: &[&str]| names.iter().map(|name| format!("peers.{name}=unix:/nowhere/{name}.sock")).collect::<Vec<_>>();
    let table: [Refused; 11] = [
        ("security", &["network"], &[], &["peers.network is unix:/nowhere/network.sock, but this service calls nobody: leave it out"]),
        (
            "network",
            &["foo"],
            &[r#"settings.public_pool=["x", "8.8.8.0/33"]"#],
            &[
                r#"settings.public_pool: "x" is no IPv4 network"#,
                r#"settings.public_pool: "8.8.8.0/33" is no IPv4 network"#,
                "peers.security is not set: set it to where security listens",
                "peers.foo is unix:/nowhere/foo.sock, but this service calls security: leave it out",
            ],
        ),
        ("network", &["security"], &["settings.public_pool=[]"], &["settings.public_pool: the public pool has no address"]),
        (
            "compute",
            &[],
            &["settings.node_lease_ms=1"],
            &["peers.security is not set", "peers.network is not set", "settings.node_lease_ms is 1"],
        ),
        (
            "node",
            &[],
            &["settings.zone=z", "settings.vcpus=0", "settings.name=a b"],
            &[
                "peers.compute is not set",
                "peers.network is not set",
                "peers.security is not set",
                "settings.zone is 'z'",
                "settings.vcpus is 0",
                r#"settings.name is "a b""#,
            ],
        ),
        (
            "gateway",
            &["compute", "node-a1", "foo"],
            &["settings.calls_per_second=nan", "settings.webhooks.attempts=0", "settings.door=0.0.0.0:0"],
            &[
                "peers.security is not set",
                "peers.network is not set",
                "peers.foo is unix:/nowhere/foo.sock, but this service calls security, network, compute, names that begin with node",
                "settings.calls_per_second is NaN",
                "settings.webhooks.attempts is 0",
                "settings.require_credentials must be true",
                "settings.door_tls must be set",
            ],
        ),
        (
            "security",
            &[],
            &["telemetry.otlp_endpoint=not a url", "clock.setting={scaled={factor=-1.0}}", "max_message_bytes=1"],
            &[
                r#"telemetry.otlp_endpoint is "not a url": expected a URL such as http://127.0.0.1:4317"#,
                "clock.setting.scaled.factor is -1: ",
                "expected a factor above 0",
                "clock.origin is 0, which is 1970-01-01T00:00:00.000Z",
                "max_message_bytes is 1",
            ],
        ),
        ("security", &[], &["clock.setting={scaled={factor=nan}}"], &["clock.setting.scaled.factor is NaN: "]),
        ("security", &[], &["clock.setting={scaled={factor=inf}}"], &["clock.setting.scaled.factor is inf: "]),
        ("security", &[], &["clock.setting={scaled={factor=0.0}}"], &["clock.setting.scaled.factor is 0: "]),
        // In seconds.
        ("security", &[], &["clock.setting={scaled={factor=60.0}}", "clock.origin=1767225600"], &["clock.origin is 1767225600, "]),
    ];
    for (kind, names, settings, wanted) in table {
        let peers = peers(names);
        let settings: Vec<&str> = peers.iter().map(String::as_str).chain(settings.iter().copied()).collect();
        let told = refusal(kind, &settings);
        for wanted in wanted {
            assert!(told.contains(wanted), "{wanted} is not in what {kind} says:\n{told}");
        }
    }
}

/// A certificate and a key, in files.
fn certificate(folder: &Path, name: &str) -> [String; 2] {
    let key = KeyPair::generate().unwrap();
    let signed = CertificateParams::new(vec!["gureum".to_owned()]).unwrap().self_signed(&key).unwrap();
    [("certificate", signed.pem()), ("key", key.serialize_pem())].map(|(kind, text)| {
        let path = folder.join(format!("{name}-{kind}.pem"));
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    })
}

#[test]
fn certificates_are_read_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text").display().to_string();
    std::fs::write(&text, "no PEM").unwrap();
    let ([certificate_one, _], [_, key_two]) = (certificate(folder.path(), "one"), certificate(folder.path(), "two"));
    let peers = ["security", "network", "compute"].map(|name| format!("peers.{name}=unix:/nowhere/{name}.sock"));
    let gateway = |certificate: &str, key: &str| {
        let door = format!("settings.door_tls={{ certificate = \"{certificate}\", key = \"{key}\" }}");
        refusal("gateway", &peers.iter().chain([&door]).map(String::as_str).collect::<Vec<_>>())
    };
    let told = gateway("/nowhere/c.pem", &text);
    for wanted in [
        "settings.door_tls.certificate is \"/nowhere/c.pem\", which cannot be read: No such file".to_owned(),
        format!("settings.door_tls.key is \"{text}\", which holds no private key in PEM"),
    ] {
        assert!(told.contains(&wanted), "{wanted} is not in:\n{told}");
    }
    let told = gateway(&certificate_one, &key_two);
    assert!(told.contains("settings.door_tls has the certificate") && told.contains("the key that belongs to it"), "{told}");

    let tls = format!("tls={{ certificate = \"/nowhere/c.pem\", key = \"{key_two}\", authority = \"{text}\", server_name = \"a b\" }}");
    let told = refusal("security", &[&tls]);
    for wanted in [
        "tls.certificate is \"/nowhere/c.pem\", which cannot be read",
        &format!("tls.authority is \"{text}\", which holds no certificate in PEM"),
        "tls.server_name is \"a b\"",
    ] {
        assert!(told.contains(wanted), "{wanted} is not in:\n{told}");
    }
}

#[test]
fn what_can_be_used_passes() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = certificate(folder.path(), "one");
    let tls = format!("tls={{ certificate = \"{certificate}\", key = \"{key}\", authority = \"{certificate}\" }}");
    let scaled = ["clock.setting={scaled={factor=60.0}}", "clock.origin=1767225600000000", "telemetry.otlp_endpoint=http://127.0.0.1:4317"];
    let door = format!("settings.door_tls={{ certificate = \"{certificate}\", key = \"{key}\" }}");
    let [security, network, compute, node] =
        ["security", "network", "compute", "node-a1"].map(|name| format!("peers.{name}=unix:/nowhere/{name}.sock"));
    let table: [(&str, &[&str]); 5] = [
        ("security", &[&tls]),
        ("network", &[&security]),
        ("compute", &[&security, &network]),
        ("node", &[&compute, &network, &security, "settings.zone=b"]),
        ("gateway", &[&security, &network, &compute, &node, &door]),
    ];
    for (kind, settings) in table {
        let settings = [&["listen=unix:/nowhere/s.sock"], &scaled[..], settings].concat();
        let ended = serve(kind, &settings, true);
        assert!(ended.status.success(), "{kind}: {}", String::from_utf8_lossy(&ended.stderr));
    }
}
