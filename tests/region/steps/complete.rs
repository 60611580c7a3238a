//! The table of steps is complete: every method that a service calls on another stands in it, or here with a reason.
//!
//! What is called is read from the services' sources: a crate that names a service's generated client calls those of
//! its methods whose names stand there as method calls. That may find too much, which then has to be explained, but
//! misses nothing that is written as calls are written here.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use prost::Message;
use prost_types::FileDescriptorSet;

use super::{CLOCK_TABLE, TABLE};

/// Calls that are in no table: by whom, of which method, and why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "compute",
        "SettleInterfaceAttachments",
        "no driver has anything to plug: network settles an attachment in the commit that makes it, so this call never comes to be made",
    ),
    ("compute", "ConnectInstance", "a session lasts as long as its caller listens: nothing of it is kept, nothing is to be made up for"),
    ("compute", "WatchConsole", "a stream that tells and changes nothing"),
    ("compute", "CompleteSnapshot", "made for a caller's call and not by a loop, and repeated by the caller; `disks` brings an archive"),
    (
        "compute",
        "CreateSnapshot",
        "the nodes of these regions keep no files and are never asked; `disks` kills compute and node while they are",
    ),
    (
        "compute",
        "CreateVolume",
        "the nodes of these regions keep no files and are never asked; `disks` kills compute and node while they are",
    ),
    (
        "compute",
        "DeleteSnapshot",
        "the nodes of these regions keep no files and are never asked; `disks` kills compute and node while they are",
    ),
    (
        "compute",
        "DeleteVolume",
        "the nodes of these regions keep no files and are never asked; `disks` kills compute and node while they are",
    ),
    ("compute", "PutSnapshotBlock", "made for a caller's call and not by a loop, and repeated by the caller; `disks` brings an archive"),
    ("compute", "Watch", "no call: the word is that of `Network::watch`, which calls WatchAll"),
    ("node", "GetIdentityKey", "changes nothing, and is asked again until it is answered; `identity` kills compute, which keeps the key"),
    (
        "node",
        "WatchAll",
        "only a node whose driver has connections to decide on follows security and network; these tests' nodes are simulated",
    ),
    ("gateway", "Watch", "no call of these services: the word is that of a service's health, whose stream `door` tries"),
];

/// The services' crates.
const SERVICES: [&str; 5] = ["security", "network", "compute", "node", "gateway"];

fn sources(folder: &Path, text: &mut String) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
            text.push('\n');
        }
    }
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// The methods of every service of the contract, by the service's name.
fn methods() -> BTreeMap<String, Vec<String>> {
    let files = FileDescriptorSet::decode(gureum_proto::DESCRIPTORS).unwrap().file;
    let services = files.into_iter().filter(|file| file.package().starts_with("gureum.")).flat_map(|file| file.service);
    services.map(|service| (service.name().to_owned(), service.method.iter().map(|method| method.name().to_owned()).collect())).collect()
}

/// Who calls which method of another service.
fn called() -> BTreeSet<(String, String)> {
    let methods = methods();
    assert!(methods.len() >= SERVICES.len(), "{methods:?}");
    let mut called = BTreeSet::new();
    for by in SERVICES {
        let mut text = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../services").join(by).join("src"), &mut text);
        let clients = methods.iter().filter(|(service, _)| text.contains(&format!("{service}Client")));
        for method in clients.flat_map(|(_, methods)| methods) {
            let word = snake_case(method);
            // As a call, or as the argument of a macro that makes the call.
            let is_called = text.contains(&format!(".{word}(")) || text.lines().any(|line| line.trim() == format!("{word},"));
            if is_called {
                called.insert((by.to_owned(), method.clone()));
            }
        }
    }
    called
}

#[test]
fn every_call_between_services_is_in_the_table_or_says_why_not() {
    let called = called();
    // What is found at all, so that a change of style does not leave this test with nothing to say.
    for (by, method) in [("compute", "CreateInstanceInterfaces"), ("gateway", "DeleteTags"), ("node", "RegisterNode")] {
        assert!(called.contains(&(by.to_owned(), method.to_owned())), "{by} is not seen to call {method}");
    }
    let steps: BTreeSet<(String, String)> = TABLE
        .iter()
        .chain(CLOCK_TABLE)
        .map(|step| {
            let by = if step.by.starts_with("node-") { "node" } else { step.by };
            (by.to_owned(), step.call.rsplit('/').next().unwrap_or_default().to_owned())
        })
        .collect();
    let excepted: BTreeSet<(String, String)> = EXCEPTIONS.iter().map(|(by, method, _)| ((*by).to_owned(), (*method).to_owned())).collect();
    let missing: Vec<_> = called.iter().filter(|call| !steps.contains(call) && !excepted.contains(call)).collect();
    assert!(missing.is_empty(), "calls that no step is there for: add them to the table of steps, or an exception: {missing:?}");
    let needless: Vec<_> = excepted.iter().filter(|call| !called.contains(call) || steps.contains(call)).collect();
    assert!(needless.is_empty(), "exceptions of what nobody calls, or of what is in the table: take them out: {needless:?}");
}
