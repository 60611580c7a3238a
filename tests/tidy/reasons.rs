//! Every reason that a refusal can carry, and its code: `reasons.txt`, where a change is seen and judged.

use std::collections::BTreeMap;

use crate::{files, insist, root};

/// Reasons that have several codes on purpose.
const SEVERAL: [(&str, &str); 9] = [
    ("AttachmentLimitExceeded", "more than any instance of the type can have, or than this one has left"),
    ("IdempotentParameterMismatch", "another call, or the same token in a call that is not yet done: that one may be repeated"),
    ("IncorrectState", "a state that stays, or a change that is under way and will be over"),
    ("InvalidNetworkInterface.InUse", "an interface that is attached, or an id that a service made twice"),
    ("InvalidProductInfo", "a code that cannot be one, or one of no product"),
    ("PrefixListMaxEntriesExceeded", "more entries than the same request gives the list room for, or than it has left"),
    ("SecurityGroupsPerInterfaceLimitExceeded", "more groups than a request may name, or than an interface has left"),
    ("UnsupportedOperation", "a field of a call that is offered, or a whole call"),
    ("VPCIdNotSpecified", "a field that could have been given, or a launch that finds no default VPC"),
];

/// gRPC's code of a kind, as `gureum_service::error::code` has it.
fn code(kind: &str) -> &'static str {
    match kind {
        "Invalid" => "INVALID_ARGUMENT",
        "NotFound" => "NOT_FOUND",
        "WrongState" => "FAILED_PRECONDITION",
        "Conflict" => "ABORTED",
        "AlreadyExists" => "ALREADY_EXISTS",
        "Exhausted" => "RESOURCE_EXHAUSTED",
        "Denied" => "PERMISSION_DENIED",
        "Unavailable" => "UNAVAILABLE",
        "OutOfRange" => "OUT_OF_RANGE",
        "Unsupported" => "UNIMPLEMENTED",
        other => panic!("the kind {other} has no code here"),
    }
}

/// The text between the next pair of quotes, if nothing but white space stands before it.
fn quoted(text: &str) -> Option<&str> {
    text.trim_start().strip_prefix('"')?.split('"').next()
}

/// Reasons and codes as they stand in the sources of the product.
fn told() -> BTreeMap<String, Vec<&'static str>> {
    let mut told = BTreeMap::<String, Vec<&'static str>>::new();
    let mut add = |reason: &str, code: &'static str| {
        let codes = told.entry(reason.to_owned()).or_default();
        if !codes.contains(&code) {
            codes.push(code);
        }
    };
    for (_, text) in files(&[".rs"]).iter().filter(|(path, _)| path.contains("/src/") && !path.starts_with("benches/")) {
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (at, found) in product.match_indices("RefusalKind::") {
            let (kind, rest) = product[at + found.len()..].split_once(',').unwrap_or_default();
            if let Some(reason) = quoted(rest).filter(|_| kind.chars().all(char::is_alphanumeric)) {
                add(reason, code(kind));
            }
        }
        for (call, code) in [("wrong_state(", "FAILED_PRECONDITION"), ("invalid_as(", "INVALID_ARGUMENT"), ("add_as(", "INVALID_ARGUMENT")]
        {
            for (at, _) in product.match_indices(call) {
                if let Some(reason) = quoted(&product[at + call.len()..]) {
                    add(reason, code);
                }
            }
        }
        // `Name("prefix-", "kind", "Stem");` of the ids.
        for line in product.lines().map(str::trim).filter(|line| line.ends_with("\");") && line.contains("Id(\"")) {
            // Prefix, kind, stem, and the stem of malformed ids where that is another.
            let texts: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
            if let [_, _, stem, own @ ..] = texts.as_slice() {
                add(&format!("{stem}.NotFound"), "NOT_FOUND");
                add(&format!("{}.Malformed", own.first().unwrap_or(stem)), "INVALID_ARGUMENT");
            }
        }
    }
    for codes in told.values_mut() {
        codes.sort_unstable();
    }
    told
}

#[test]
fn every_reason_has_the_code_that_it_always_had() {
    let told = told();
    let table: String = told.iter().map(|(reason, codes)| format!("{reason} {}\n", codes.join(" "))).collect();
    let path = root().join("tests/tidy/reasons.txt");
    if std::env::var_os("GUREUM_BLESS").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let changes = |one: &str, other: &str, what: &str| -> Vec<String> {
        one.lines().filter(|line| !other.lines().any(|known| known == *line)).map(|line| format!("{what}: {line}")).collect()
    };
    let mut wrong = changes(&table, &golden, "new");
    wrong.extend(changes(&golden, &table, "gone"));
    if !wrong.is_empty() {
        wrong.push("callers decide by these; GUREUM_BLESS=1 writes tests/tidy/reasons.txt anew".to_owned());
    }
    insist(wrong);
}

#[test]
fn a_reason_has_one_code() {
    let several = told().into_iter().filter(|(reason, codes)| codes.len() > 1 && !SEVERAL.iter().any(|(known, _)| known == reason));
    insist(
        several
            .map(|(reason, codes)| format!("{reason} is {}: a caller cannot tell what to do; or say why in SEVERAL", codes.join(" and ")))
            .collect(),
    );
}
