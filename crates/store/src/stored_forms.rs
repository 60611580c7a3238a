//! Stored forms that were released: a file with one row of each kind, as it stood on disk.
//!
//! For services' tests. A row that can no longer be read is a store that no longer opens, so each service
//! commits such a file beside its tests and holds its tables against it.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use crate::{
    durable::DurableEngine,
    engine::{Change, EngineError, Snapshot},
    schema::Tables,
    store::State,
};

/// One row of a kind.
struct Form<'a> {
    table: &'a str,
    key: &'a str,
    value: Vec<u8>,
    /// It need only be read.
    older: bool,
}

/// What is wrong with a service's stored forms: rows that are not read, or are written in another way than
/// they were, and tables of which no row is in the file.
pub fn faults<T: Tables>(file: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let forms: Vec<Form<'_>> = file.lines().filter(|line| !line.starts_with('#')).filter_map(|line| read(line, &mut faults)).collect();
    for form in &forms {
        let (table, key) = (form.table, form.key);
        let mut state = State::<T>::default();
        let change = Change { table: table.to_owned(), key: key.to_owned(), value: Some(form.value.clone()) };
        if let Err(error) = state.load(&change) {
            faults.push(format!(
                "{error}. Stores in use hold such rows: give a new field #[serde(default)], or raise FORMAT of the record and read the older form in Record::upgrade"
            ));
            continue;
        }
        let mut written = None;
        let dumped = state.for_each(&mut |_, _, value| {
            written = Some(value);
            Ok(())
        });
        if dumped.is_err() || (!form.older && written.as_deref() != Some(&form.value)) {
            faults.push(format!(
                "table {table}: the row {key} is read, but written in another form. Keep its line, as stores in use hold it, but with \"older \" before it, and record a new one: GUREUM_BLESS=1 cargo test --test region stored_forms"
            ));
        }
    }
    let current = |name: &str| forms.iter().any(|form| form.table == name && !form.older);
    for name in T::NAMES.iter().filter(|name| !current(name)) {
        faults
            .push(format!("no row of the table {name} is in the file: record one by GUREUM_BLESS=1 cargo test --test region stored_forms"));
    }
    faults
}

/// `table key hex`, perhaps after `older`. A key may hold spaces, the others do not.
fn read<'a>(line: &'a str, faults: &mut Vec<String>) -> Option<Form<'a>> {
    let (older, line) = line.strip_prefix("older ").map_or((false, line), |line| (true, line));
    let (table, rest) = line.split_once(' ')?;
    let (key, hex) = rest.rsplit_once(' ')?;
    let byte = |at: usize| hex.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    let value: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    if value.is_none() {
        faults.push(format!("\"{line}\" is no row: expected TABLE KEY HEX"));
    }
    Some(Form { table, key, value: value?, older })
}

/// The fullest row of each kind that a store's files tell of, also of rows that are gone since: lines for
/// the file. The store must not be in use.
pub fn record(directory: &Path) -> Result<BTreeMap<String, String>, EngineError> {
    let mut fullest = BTreeMap::<String, (String, Vec<u8>)>::new();
    let mut note = |change: &Change| {
        if let Some(value) = &change.value {
            let known = fullest.entry(change.table.clone()).or_default();
            if value.len() > known.1.len() {
                *known = (change.key.clone(), value.clone());
            }
        }
    };
    DurableEngine::open(directory)?.read(&mut note, &mut |_| Ok(()))?;
    let line = |table: &str, key: &str, value: &[u8]| {
        let mut line = format!("{table} {key} ");
        for byte in value {
            // Writing to a String cannot fail.
            let _ = write!(line, "{byte:02x}");
        }
        line
    };
    Ok(fullest.into_iter().map(|(table, (key, value))| (table.clone(), line(&table, &key, &value))).collect())
}
