//! What there is to know, by path: the original's "Instance metadata categories".

use serde_json::json;

use super::Machine;
use crate::network::{Interface, Network};

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Text(Vec<u8>),
    Json(String),
    /// Nothing, and perhaps why.
    Nothing(Option<&'static str>),
}

/// The versions that the original has. Each shows what the latest does.
const VERSIONS: &str = "1.0\n2007-01-19\n2007-03-01\n2007-08-29\n2007-10-10\n2007-12-15\n2008-02-01\n2008-09-01\n2009-04-04\n\
    2011-01-01\n2011-05-01\n2012-01-12\n2014-02-25\n2014-11-05\n2015-10-20\n2016-04-19\n2016-06-30\n2016-09-02\n2018-03-28\n\
    2018-08-17\n2018-09-24\n2019-10-01\n2020-10-27\n2021-01-03\n2021-03-23\n2021-07-15\n2022-09-24\nlatest";

const NO_ROLE: &str =
    "no role is attached to this instance: roles for instances are not provided; give programs their credentials otherwise";
const NOT_SIGNED: &str =
    "the identity document of this instance is not signed: its node had no key when it booted; it has one when it boots again";

/// A part of the tree.
enum Node {
    Leaf(Vec<u8>),
    /// What is listed, and what is beneath it under which name.
    Directory(Vec<Entry>),
}

struct Entry {
    name: String,
    /// Where it is listed by another name.
    listed: Option<String>,
    node: Node,
}

fn leaf(name: &str, text: impl Into<Vec<u8>>) -> Entry {
    Entry { name: name.to_owned(), listed: None, node: Node::Leaf(text.into()) }
}

fn directory(name: impl Into<String>, entries: Vec<Entry>) -> Entry {
    Entry { name: name.into(), listed: None, node: Node::Directory(entries) }
}

/// Looks up a path.
pub fn find(path: &str, machine: &Machine, network: &Network) -> Found {
    // A slash at the end means nothing, not even where nothing is beneath: botocore asks for `availability-zone/`.
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let Some((version, rest)) = parts.split_first() else { return Found::Text(VERSIONS.into()) };
    if !VERSIONS.lines().any(|known| known == *version) {
        return Found::Nothing(None);
    }
    match rest {
        [] => Found::Text(if machine.user_data.is_empty() { "dynamic\nmeta-data".into() } else { "dynamic\nmeta-data\nuser-data".into() }),
        ["user-data"] if !machine.user_data.is_empty() => Found::Text(machine.user_data.clone()),
        ["dynamic"] => Found::Text("instance-identity/".into()),
        ["dynamic", "instance-identity"] => {
            Found::Text(if machine.identity.is_some() { "document\npkcs7\nrsa2048\nsignature".into() } else { "document".into() })
        }
        ["dynamic", "instance-identity", part @ ("document" | "signature" | "pkcs7" | "rsa2048")] => identity(part, machine, network),
        ["meta-data", "iam", ..] => Found::Nothing(Some(NO_ROLE)),
        ["meta-data", "spot", "instance-action"] => match &machine.interruption {
            Some(notice) => Found::Json(json!({ "action": notice.action, "time": notice.time }).to_string()),
            None => Found::Nothing(None),
        },
        ["meta-data", beneath @ ..] => walk(metadata(machine, network), beneath),
        _ => Found::Nothing(None),
    }
}

/// The document, and what shows that it is true. `pkcs7` is DSA's with the original; it is RSA's here, as `rsa2048`.
fn identity(part: &str, machine: &Machine, network: &Network) -> Found {
    match (part, &machine.identity) {
        ("document", None) => Found::Text(document(machine, network).into_bytes()),
        (_, None) => Found::Nothing(Some(NOT_SIGNED)),
        ("document", Some(signed)) => Found::Text(signed.document.clone().into_bytes()),
        ("signature", Some(signed)) => Found::Text(signed.signature.clone().into_bytes()),
        (_, Some(signed)) => Found::Text(signed.pkcs7.clone().into_bytes()),
    }
}

fn walk(entries: Vec<Entry>, parts: &[&str]) -> Found {
    let mut node = Node::Directory(entries);
    for part in parts {
        let Node::Directory(entries) = node else { return Found::Nothing(None) };
        match entries.into_iter().find(|entry| entry.name == *part) {
            Some(entry) => node = entry.node,
            None => return Found::Nothing(None),
        }
    }
    match node {
        Node::Leaf(text) => Found::Text(text),
        Node::Directory(entries) => Found::Text(list(&entries).into_bytes()),
    }
}

fn list(entries: &[Entry]) -> String {
    let names = entries.iter().map(|entry| match (&entry.listed, &entry.node) {
        (Some(listed), _) => listed.clone(),
        (None, Node::Directory(_)) => format!("{}/", entry.name),
        (None, Node::Leaf(_)) => entry.name.clone(),
    });
    names.collect::<Vec<_>>().join("\n")
}

fn metadata(machine: &Machine, network: &Network) -> Vec<Entry> {
    let primary = network.interfaces.first();
    let mut entries = vec![
        leaf("ami-id", machine.image.as_str()),
        leaf("ami-launch-index", machine.launch_index.to_string()),
        leaf("ami-manifest-path", "(unknown)"),
        directory("block-device-mapping", block_devices(machine)),
        directory("events", vec![directory("maintenance", maintenance(machine))]),
        leaf("hostname", machine.hostname.as_str()),
        leaf("instance-action", "none"),
        leaf("instance-id", machine.id.as_str()),
        leaf("instance-life-cycle", "on-demand"),
        leaf("instance-type", machine.instance_type.as_str()),
        leaf("local-hostname", machine.hostname.as_str()),
    ];
    if let Some(primary) = primary {
        entries.extend(primary.private_addresses.first().map(|address| leaf("local-ipv4", address.to_string())));
        entries.push(leaf("mac", primary.mac_address.as_str()));
        let macs = network.interfaces.iter().map(|it| directory(it.mac_address.as_str(), interface(machine, it))).collect();
        entries.push(directory("network", vec![directory("interfaces", vec![directory("macs", macs)])]));
    }
    entries.push(directory(
        "placement",
        vec![
            leaf("availability-zone", machine.zone.as_str()),
            leaf("availability-zone-id", machine.zone_id.as_str()),
            leaf("region", machine.region.as_str()),
        ],
    ));
    entries.push(leaf("profile", "default-hvm"));
    if let Some(address) = primary.and_then(|primary| primary.public_address) {
        entries.extend(machine.public_hostname.as_ref().map(|name| leaf("public-hostname", name.as_str())));
        entries.push(leaf("public-ipv4", address.to_string()));
    }
    if let Some(key) = &machine.key {
        let openssh = format!("{}\n", key.public_key.trim_end());
        let key = Entry { listed: Some(format!("0={}", key.name)), ..directory("0", vec![leaf("openssh-key", openssh)]) };
        entries.push(directory("public-keys", vec![key]));
    }
    entries.push(leaf("reservation-id", machine.reservation.as_str()));
    if let Some(primary) = primary {
        entries.push(leaf("security-groups", lines(primary.groups.iter().map(|(_, name)| name))));
    }
    entries.push(directory("services", vec![leaf("domain", "amazonaws.com"), leaf("partition", "aws")]));
    if let Some(notice) = &machine.interruption {
        let time = (notice.action == "terminate").then(|| leaf("termination-time", notice.time.as_str()));
        entries.push(directory("spot", [leaf("instance-action", "")].into_iter().chain(time).collect()));
    }
    if machine.options.tags_enabled && !machine.tags.is_empty() {
        let tags = machine.tags.iter().filter(|(key, _)| is_shown(key)).map(|(key, value)| leaf(key, value.as_str())).collect();
        entries.push(directory("tags", vec![directory("instance", tags)]));
    }
    entries
}

/// Whether a tag has a key that can be part of a path, as the original requires of tags that are shown.
fn is_shown(key: &str) -> bool {
    !matches!(key, "." | ".." | "_index") && key.chars().all(|one| one.is_ascii_alphanumeric() || "+-=._:@,".contains(one))
}

fn block_devices(machine: &Machine) -> Vec<Entry> {
    let root = machine.block_devices.iter().find(|it| it.root).map(|it| it.device.as_str());
    let others = machine.block_devices.iter().filter(|it| !it.root);
    let numbered = (1..).zip(others).map(|(number, it)| leaf(&format!("ebs{number}"), it.device.trim_start_matches("/dev/")));
    root.map(|device| leaf("ami", device)).into_iter().chain(numbered).chain(root.map(|device| leaf("root", device))).collect()
}

fn maintenance(machine: &Machine) -> Vec<Entry> {
    let scheduled = serde_json::to_string(&machine.scheduled_events).unwrap_or_else(|_| "[]".into());
    vec![leaf("history", "[]"), leaf("scheduled", scheduled)]
}

fn lines<T: ToString>(items: impl Iterator<Item = T>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join("\n")
}

fn interface(machine: &Machine, it: &Interface) -> Vec<Entry> {
    let mut entries = vec![leaf("device-number", it.device_index.to_string()), leaf("interface-id", it.id.as_str())];
    if let (Some(public), Some(private)) = (it.public_address, it.private_addresses.first()) {
        entries.push(directory("ipv4-associations", vec![leaf(&public.to_string(), private.to_string())]));
    }
    entries.extend([
        leaf("local-hostname", machine.hostname.as_str()),
        leaf("local-ipv4s", lines(it.private_addresses.iter())),
        leaf("mac", it.mac_address.as_str()),
        leaf("owner-id", machine.account.as_str()),
    ]);
    if let Some(public) = it.public_address {
        let name = machine.public_hostname.as_ref().filter(|_| it.device_index == 0);
        entries.extend(name.map(|name| leaf("public-hostname", name.as_str())));
        entries.push(leaf("public-ipv4s", public.to_string()));
    }
    entries.extend([
        leaf("security-group-ids", lines(it.groups.iter().map(|(id, _)| id))),
        leaf("security-groups", lines(it.groups.iter().map(|(_, name)| name))),
        leaf("subnet-id", it.subnet.as_str()),
        leaf("subnet-ipv4-cidr-block", it.subnet_block().map(|block| block.to_string()).unwrap_or_default()),
        leaf("vpc-id", it.vpc.as_str()),
    ]);
    if let Some(first) = it.vpc_cidr_blocks.first() {
        entries.push(leaf("vpc-ipv4-cidr-block", first.to_string()));
        entries.push(leaf("vpc-ipv4-cidr-blocks", lines(it.vpc_cidr_blocks.iter())));
    }
    entries
}

/// The instance's identity, as the original writes it.
pub fn document(machine: &Machine, network: &Network) -> String {
    let private = network.interfaces.first().and_then(|it| it.private_addresses.first()).map(ToString::to_string);
    let document = json!({
        "accountId": machine.account,
        "architecture": machine.architecture,
        "availabilityZone": machine.zone,
        "billingProducts": null,
        "devpayProductCodes": null,
        "imageId": machine.image,
        "instanceId": machine.id,
        "instanceType": machine.instance_type,
        "kernelId": null,
        "marketplaceProductCodes": null,
        "pendingTime": machine.pending_time,
        "privateIp": private,
        "ramdiskId": null,
        "region": machine.region,
        "version": "2017-09-30",
    });
    format!("{document:#}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::network::metadata::{BlockDevice, Identity, Interruption, Key, Options};

    fn machine() -> Machine {
        Machine {
            id: "i-0123456789abcdef0".into(),
            account: "000000000000".into(),
            zone: "us-east-1a".into(),
            region: "us-east-1".into(),
            image: "ami-1".into(),
            user_data: b"#!/bin/sh\n".into(),
            tags: vec![("Name".into(), "web".into()), ("a b".into(), "hidden".into())],
            key: Some(Key { name: "my-key".into(), public_key: "ssh-ed25519 AAAA my-key".into() }),
            block_devices: ["/dev/xvda", "/dev/sdf"]
                .map(|device| BlockDevice { device: device.into(), root: device == "/dev/xvda" })
                .into(),
            options: Options { enabled: true, tokens_required: false, hop_limit: 1, tags_enabled: true },
            ..Machine::default()
        }
    }

    fn network() -> Network {
        let interface = Interface {
            id: "eni-1".into(),
            mac_address: "0a:00:00:00:00:01".into(),
            prefix_length: 20,
            private_addresses: vec!["172.31.16.4".parse().unwrap()],
            groups: vec![("sg-1".into(), "default".into()), ("sg-2".into(), "web".into())],
            ..Interface::default()
        };
        Network { interfaces: vec![interface], ..Network::default() }
    }

    fn text(path: &str) -> Option<String> {
        text_of(path, &machine(), &network())
    }

    fn text_of(path: &str, machine: &Machine, network: &Network) -> Option<String> {
        match find(path, machine, network) {
            Found::Text(text) => Some(String::from_utf8(text).unwrap()),
            Found::Json(text) => Some(text),
            Found::Nothing(_) => None,
        }
    }

    #[test]
    fn leaves_and_listings_are_the_originals() {
        let meta = |path: &str| text(&format!("/latest/meta-data/{path}"));
        assert_eq!(meta("instance-id").as_deref(), Some("i-0123456789abcdef0"));
        assert_eq!(text("/2021-07-15/meta-data/instance-id"), meta("instance-id"));
        assert_eq!(text("/1999-01-01/meta-data/instance-id"), None);
        assert_eq!(meta("placement/availability-zone/").as_deref(), Some("us-east-1a"));
        assert_eq!(meta("instance-id/more"), None);
        assert_eq!(meta("placement"), meta("placement/"));
        assert_eq!(meta("placement/").as_deref(), Some("availability-zone\navailability-zone-id\nregion"));
        assert_eq!(meta("public-keys/").as_deref(), Some("0=my-key"));
        assert_eq!(meta("public-keys/0/openssh-key").as_deref(), Some("ssh-ed25519 AAAA my-key\n"));
        assert_eq!(meta("block-device-mapping/").as_deref(), Some("ami\nebs1\nroot"));
        assert_eq!(meta("block-device-mapping/ebs1").as_deref(), Some("sdf"));
        assert_eq!(meta("security-groups").as_deref(), Some("default\nweb"));
        assert_eq!(meta("network/interfaces/macs/").as_deref(), Some("0a:00:00:00:00:01/"));
        assert_eq!(meta("network/interfaces/macs/0a:00:00:00:00:01/subnet-ipv4-cidr-block").as_deref(), Some("172.31.16.0/20"));
        assert_eq!(text("/latest/").as_deref(), Some("dynamic\nmeta-data\nuser-data"));
        assert_eq!(text("/latest/user-data").as_deref(), Some("#!/bin/sh\n"));
        assert!(text("/").unwrap().ends_with("\nlatest"));
    }

    #[test]
    fn every_listed_path_leads_somewhere() {
        let (mut open, mut leaves) = (vec!["/latest/meta-data/".to_owned()], 0);
        while let Some(path) = open.pop() {
            for name in text(&path).unwrap().lines() {
                let name = name.split_once('=').map_or(name.to_owned(), |(number, _)| format!("{number}/"));
                let beneath = format!("{path}{name}");
                assert!(text(&beneath).is_some(), "{beneath}");
                if beneath.ends_with('/') { open.push(beneath) } else { leaves += 1 }
            }
        }
        assert!(leaves > 30, "{leaves}");
    }

    #[test]
    fn what_is_not_there_is_said_not_to_be() {
        let mut machine = machine();
        (machine.user_data, machine.key, machine.options.tags_enabled) = (Vec::new(), None, false);
        let hidden = ["user-data", "meta-data/public-keys/", "meta-data/tags/instance/Name", "meta-data/public-ipv4", "meta-data/spot/"];
        hidden.iter().for_each(|path| assert_eq!(text_of(&format!("/latest/{path}"), &machine, &network()), None, "{path}"));
        assert_eq!(find("/latest/meta-data/iam/security-credentials/", &machine, &network()), Found::Nothing(Some(NO_ROLE)));
        assert_eq!(find("/latest/dynamic/instance-identity/signature", &machine, &network()), Found::Nothing(Some(NOT_SIGNED)));
    }

    #[test]
    fn what_was_signed_is_shown_as_it_was_signed() {
        let [document, signature, pkcs7] = ["{ }", "c2lnbmVk", "cGtjczc="].map(str::to_owned);
        let machine = Machine { identity: Some(Identity { document, signature, pkcs7 }), ..machine() };
        let shown = |part: &str| text_of(&format!("/latest/dynamic/instance-identity/{part}"), &machine, &network()).unwrap();
        assert_eq!(shown("").lines().map(shown).collect::<Vec<_>>(), ["{ }", "cGtjczc=", "cGtjczc=", "c2lnbmVk"]);
    }

    #[test]
    fn tags_are_shown_where_that_is_wanted_and_notices_where_there_are_some() {
        assert_eq!(text("/latest/meta-data/tags/instance/").as_deref(), Some("Name"));
        assert_eq!(text("/latest/meta-data/spot/instance-action"), None);
        let notice = Interruption { action: "terminate".into(), time: "2026-01-31T08:30:00Z".into() };
        let machine = Machine { interruption: Some(notice), ..machine() };
        let action = text_of("/latest/meta-data/spot/instance-action", &machine, &network());
        assert_eq!(action.as_deref(), Some(r#"{"action":"terminate","time":"2026-01-31T08:30:00Z"}"#));
        let time = text_of("/latest/meta-data/spot/termination-time", &machine, &network());
        assert_eq!(time.as_deref(), Some("2026-01-31T08:30:00Z"));
    }

    #[test]
    fn the_identity_document_is_json_and_a_machine_is_the_same_after_it_was_written() {
        let document: serde_json::Value = serde_json::from_str(&text("/latest/dynamic/instance-identity/document").unwrap()).unwrap();
        assert_eq!((document["instanceId"].as_str(), document["privateIp"].as_str()), (Some("i-0123456789abcdef0"), Some("172.31.16.4")));
        let written = serde_json::to_string(&machine()).unwrap();
        assert_eq!(serde_json::from_str::<Machine>(&written).unwrap(), machine());
        assert_eq!(serde_json::from_str::<Machine>("{}").unwrap(), Machine::default());
    }
}
