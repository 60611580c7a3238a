//! What the product is built of: which licences, and which crates twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

use crate::{insist, root};

/// What we ship for; crates of other systems are never built.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Licences that ask for no more than a notice, and MPL's for a file of its own that is changed.
const LICENCES: [&str; 12] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates of which there are several versions, and who is behind.
const TWICE: [(&str, &str); 13] = [
    ("base64", "pem, by rcgen: tests only"),
    ("cpufeatures", "RustCrypto's ciphers, which wait for its next generation"),
    ("getrandom", "rand 0.8 (RSA), 0.9 (ours) and 0.10 (tempfile, proptest)"),
    ("hashbrown", "petgraph, by prost-build: the build only"),
    ("parking_lot", "sled 0.34, which is not developed further"),
    ("parking_lot_core", "see parking_lot"),
    ("prettyplease", "tonic-build: the build only"),
    ("rand", "0.8 by RSA, whose stable release asks for it; 0.10 by proptest"),
    ("rand_chacha", "see rand: a key from a seed in tests"),
    ("rand_core", "see rand"),
    ("syn", "macros: the build only"),
    ("unicode-width", "miette, by protox: the build only"),
    ("winnow", "toml's writer and its parser"),
];

fn metadata() -> Value {
    let arguments = ["metadata", "--format-version", "1", "--locked", "--filter-platform", PLATFORM];
    let told = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    serde_json::from_slice(&told.stdout).unwrap()
}

/// Packages that are built for our platform.
fn built(metadata: &Value) -> Vec<&Value> {
    let nodes: BTreeSet<&str> = metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|node| node["id"].as_str().unwrap()).collect();
    metadata["packages"].as_array().unwrap().iter().filter(|package| nodes.contains(package["id"].as_str().unwrap())).collect()
}

/// Whether an SPDX expression can be met: one alternative, of which all parts are fine. A bracket is an
/// alternative of its own, which is all that crates write.
fn is_met(expression: &str) -> bool {
    let fine = |part: &str| LICENCES.contains(&part.trim().trim_end_matches('+'));
    if let Some((bracket, rest)) = expression.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        return is_met(bracket) && rest.trim().strip_prefix("AND").is_none_or(is_met);
    }
    expression.replace('/', " OR ").split(" OR ").any(|alternative| alternative.split(" AND ").all(fine))
}

#[test]
fn every_licence_is_one_that_we_can_keep() {
    let metadata = metadata();
    let bad = built(&metadata).into_iter().filter(|package| !package["license"].as_str().is_some_and(is_met));
    insist(bad.map(|package| format!("{} {} is under {}", package["name"], package["version"], package["license"])).collect());
    assert!(is_met("(MIT OR Apache-2.0) AND Unicode-3.0") && is_met("MIT/GPL-3.0") && is_met("MPL-2.0+"));
    assert!(!is_met("GPL-3.0") && !is_met("MIT AND GPL-3.0") && !is_met("(MIT OR Apache-2.0) AND GPL-3.0"));
}

#[test]
fn no_crate_is_built_twice_without_a_reason() {
    let metadata = metadata();
    let mut versions = BTreeMap::<&str, BTreeSet<&str>>::new();
    for package in built(&metadata) {
        versions.entry(package["name"].as_str().unwrap()).or_default().insert(package["version"].as_str().unwrap());
    }
    let known = |name: &str| TWICE.iter().any(|(known, _)| *known == name);
    let twice = |name: &str| versions.get(name).is_some_and(|versions| versions.len() > 1);
    let mut wrong: Vec<String> = versions
        .iter()
        .filter(|(name, versions)| versions.len() > 1 && !known(name))
        .map(|(name, versions)| format!("{name} is built as {versions:?}: take one, or say in TWICE who needs the older"))
        .collect();
    wrong.extend(TWICE.iter().filter(|(name, _)| !twice(name)).map(|(name, _)| format!("{name} is built once now: take it out of TWICE")));
    insist(wrong);
}
