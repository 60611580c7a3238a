//! Rules of the house that neither the compiler nor Clippy knows, held against every file.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod crates;
mod reasons;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Beyond so many lines a file tells a second story.
const MAX_LINES: usize = 700;

/// Files that may be longer, and why.
const LONG: [(&str, &str); 2] = [
    ("proto/gureum/compute/v1/instance.proto", "the instance and its calls are one resource; half of the lines are comments"),
    ("proto/gureum/security/v1/security_service.proto", "released; a message that moves to another file breaks who imports it"),
];

/// Files that may ask for the time, and why.
const CLOCKS: [(&str, &str); 4] = [
    ("crates/cli/src/time.rs", "a client of regions elsewhere is built without the services"),
    ("crates/service/src/clock.rs", "the clock"),
    ("services/node/shim/src/clock.rs", "a shim belongs to no service, and outlives them"),
    ("crates/store/src/checkpoint.rs", "waits for a thread of its own, in real time; the store knows no service"),
];

/// What is ours and written by hand.
const FOLDERS: [&str; 6] = ["crates", "services", "tests", "benches", "proto", "deploy"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every file in our folders whose name ends so: its path from the root, and its text.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = FOLDERS.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            let is_ours = !name.starts_with('.') && !["target", "node_modules", "gen"].contains(&name.as_str());
            if entry.file_type().unwrap().is_dir() {
                folders.extend(is_ours.then_some(path));
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push((path.strip_prefix(&root).unwrap().display().to_string(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "nothing ends in {endings:?}");
    found
}

/// Fails with all that is wrong at once.
fn insist(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
}

#[test]
fn a_file_tells_one_story() {
    let all = files(&[".rs", ".proto", ".py", ".js", ".go", ".java", ".sh"]);
    let long = |path: &str| LONG.iter().any(|(known, _)| *known == path);
    let mut wrong: Vec<String> = Vec::new();
    for (path, text) in &all {
        let lines = text.lines().count();
        if lines > MAX_LINES && !long(path) {
            wrong.push(format!("{path} has {lines} lines: look for its second story, or name the reason in LONG"));
        }
        if lines <= MAX_LINES && long(path) {
            wrong.push(format!("{path} has only {lines} lines now: take it out of LONG"));
        }
    }
    insist(wrong);
}

#[test]
fn no_lint_is_put_off_without_a_reason() {
    let mut wrong = Vec::new();
    for (path, text) in files(&[".rs"]) {
        for begin in ["#[allow(", "#![allow(", "#[expect(", "#![expect("] {
            for (at, _) in text.match_indices(begin) {
                let line = text[..at].matches('\n').count() + 1;
                // Not where it is text, as here.
                let is_attribute = text[..at].rsplit('\n').next().unwrap_or_default().trim().is_empty();
                let attribute = text[at..].split_once(")]").map_or("", |(attribute, _)| attribute);
                if is_attribute && !attribute.contains("reason = \"") {
                    wrong.push(format!("{path}:{line}: {begin}…)] without a reason = \"…\""));
                }
            }
        }
    }
    let bans = fs::read_to_string(root().join("clippy.toml")).unwrap();
    let bans = bans.lines().filter(|line| line.contains("path = ") && !line.contains("reason = "));
    wrong.extend(bans.map(|line| format!("clippy.toml: a ban without a reason: {line}")));
    insist(wrong);
}

#[test]
fn only_the_clock_asks_for_the_time() {
    let mut wrong = Vec::new();
    for (path, text) in files(&[".rs"]) {
        let is_product = path.contains("/src/") && !path.starts_with("benches/");
        if !is_product || CLOCKS.iter().any(|(known, _)| *known == path) {
            continue;
        }
        // Tests may measure.
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        for asks in ["Instant::now(", "SystemTime::now(", "Utc::now(", "Local::now(", "now_utc("] {
            if product.contains(asks) {
                wrong.push(format!("{path} asks by {asks}): take the time from gureum_service::Clock or clock::monotonic"));
            }
        }
    }
    insist(wrong);
}

/// What a manifest's table of this name needs, by name.
fn needs(manifest: &str, table: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| line.trim() != format!("[{table}]")).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines.filter_map(|line| line.split(['.', '=', ' ']).next().map(str::to_owned)).collect()
}

#[test]
fn no_service_knows_another_and_no_decision_knows_the_world() {
    let services: Vec<String> =
        fs::read_dir(root().join("services")).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    let mut wrong = Vec::new();
    for service in &services {
        let read = |path: &str| fs::read_to_string(root().join("services").join(service).join(path)).unwrap_or_default();
        let (own, own_domain) = (format!("gureum-{service}"), format!("gureum-{service}-domain"));
        let is_service =
            |name: &String| services.iter().any(|other| *name == format!("gureum-{other}") || *name == format!("gureum-{other}-domain"));
        // Tests may put several together.
        for name in needs(&read("Cargo.toml"), "dependencies").iter().filter(|name| is_service(name) && **name != own_domain) {
            wrong.push(format!("services/{service} depends on {name}: a service knows only another's proto"));
        }
        let domain = read("domain/Cargo.toml");
        // Vocabulary and an engine, both pure.
        let allowed = |name: &str| ["gureum-model", "gureum-firewall"].contains(&name) || !name.starts_with("gureum-");
        for name in ["dependencies", "dev-dependencies"].iter().flat_map(|table| needs(&domain, table)) {
            let worldly = ["tokio", "tonic", "hyper", "axum", "sled", "tower", "tracing"];
            if !allowed(&name) || worldly.iter().any(|crate_name| name.starts_with(crate_name)) {
                wrong.push(format!("services/{service}/domain depends on {name}: decisions are pure"));
            }
        }
        assert!(read("Cargo.toml").contains(&format!("name = \"{own}\"")), "services/{service} is not {own}");
    }
    for (path, manifest) in files(&["Cargo.toml"]).iter().filter(|(path, _)| !path.starts_with("benches/")) {
        // Generated code has lints of its own.
        if path != "crates/proto/Cargo.toml" && !manifest.contains("[lints]\nworkspace = true") {
            wrong.push(format!("{path} does not take the workspace's lints"));
        }
    }
    insist(wrong);
}

#[test]
fn every_rpc_has_a_request_and_a_response_of_its_own() {
    let mut wrong = Vec::new();
    let mut rpcs = 0;
    for (path, text) in files(&[".proto"]) {
        for line in text.lines().map(str::trim).filter(|line| line.starts_with("rpc ")) {
            let words: Vec<&str> = line.split(['(', ')', ' ', ';', '{']).filter(|word| !word.is_empty() && *word != "stream").collect();
            let ["rpc", name, request, "returns", response] = words[..] else {
                wrong.push(format!("{path}: cannot read \"{line}\""));
                continue;
            };
            rpcs += 1;
            if request != format!("{name}Request") || response != format!("{name}Response") {
                wrong.push(format!("{path}: {name} takes {request} and returns {response}, not {name}Request and {name}Response"));
            }
        }
    }
    assert!(rpcs > 100, "only {rpcs} rpcs were found");
    insist(wrong);
}
