//! A service's worth of tables, and helpers that every test needs.

use std::{
    borrow::Cow,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gureum_model::{Filterable, Scope, Tags, Timestamp};
use gureum_store::{DurableEngine, Engine, EngineError, EventDraft, Options, Record, Store, row};
use serde::{Deserialize, Serialize};

gureum_model::resource_ids! {
    /// What the tests keep.
    ItemId("item-", "item", "InvalidItem");
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    pub scope: Scope,
    pub id: ItemId,
    pub name: String,
    pub colors: Vec<String>,
    pub peer: Option<String>,
    pub tags: Tags,
    #[serde(with = "serde_bytes_list")]
    pub body: Vec<u8>,
}

mod serde_bytes_list {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        String::deserialize(deserializer).map(String::into_bytes)
    }
}

impl Filterable for Item {
    const FILTER_NAMES: &'static [&'static str] = &["name", "color", "size"];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "name" => vec![self.name.as_str().into()],
            "color" => self.colors.iter().map(|color| color.as_str().into()).collect(),
            "size" => vec![self.body.len().to_string().into()],
            _ => Vec::new(),
        }
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }
}

row! {
    /// Items by scope and id.
    pub struct ItemRow(Item) = "item";
    filters: ["color", "name"];
    also: |item, add| if let Some(peer) = &item.peer { add("peer", &peer) };
}

/// A row whose encoding can be made to fail.
#[derive(Debug, Clone, Deserialize)]
pub struct Counter {
    pub name: String,
    pub value: u64,
}

/// No counter with this value can be stored.
pub const UNSTORABLE: u64 = u64::MAX;

impl Serialize for Counter {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Stored<'a> {
            name: &'a str,
            value: u64,
        }
        if self.value == UNSTORABLE {
            return Err(serde::ser::Error::custom("this counter cannot be stored"));
        }
        Stored { name: &self.name, value: self.value }.serialize(serializer)
    }
}

impl Record for Counter {
    const TABLE: &'static str = "counter";

    fn key(&self) -> String {
        self.name.clone()
    }
}

gureum_store::schema! {
    /// The tables of the tests.
    pub struct Schema {
        pub items: ItemRow,
        pub counters: Counter,
    }
}

/// A clock that the test sets.
#[derive(Debug, Clone)]
pub struct TestClock(Arc<AtomicU64>);

impl Default for TestClock {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(Timestamp::from_secs(1_767_225_600).as_micros())))
    }
}

impl TestClock {
    pub fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }

    pub fn advance(&self, time: Duration) {
        self.0.fetch_add(time.as_micros() as u64, Ordering::SeqCst);
    }

    pub fn options(&self) -> Options {
        let clock = self.clone();
        Options { name: "test".into(), now: Box::new(move || clock.now()) }
    }
}

pub fn open(engine: impl Engine) -> Store<Schema> {
    Store::open(engine, TestClock::default().options()).unwrap()
}

/// Opens a directory whose last user in this process may still be closing it.
pub fn engine(directory: &Path, smallest_journal: u64) -> DurableEngine {
    loop {
        match DurableEngine::open(directory) {
            Err(EngineError::InUse { .. }) => std::thread::sleep(Duration::from_millis(1)),
            opened => return opened.unwrap().with_smallest_journal(smallest_journal),
        }
    }
}

/// A folder in memory where there is one: for tests that need no disk, only its behaviour.
pub fn fast_folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

pub fn item(number: u64) -> Item {
    use gureum_model::id::ResourceId;
    Item {
        scope: Scope::default(),
        id: ItemId::from_number(number.into()),
        name: format!("name-{number}"),
        colors: Vec::new(),
        peer: None,
        tags: Tags::default(),
        body: Vec::new(),
    }
}

pub fn draft(resource_id: impl Into<String>, deleted: bool) -> EventDraft {
    EventDraft {
        kind: "ItemChanged",
        scope: Scope::default(),
        resource_id: resource_id.into(),
        causation_id: String::new(),
        deleted,
        payload: vec![7; 8],
    }
}

/// Names in a directory that begin so, sorted.
pub fn names(directory: &Path, prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
}

/// All files below a directory.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // A file may go while it is looked for.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

pub fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap();
    }
    // sled wants its folder for blobs even if it is empty.
    for name in names(from, "checkpoint-").into_iter().filter(|name| from.join(name).is_dir()) {
        fs::create_dir_all(to.join(name).join("blobs")).unwrap();
    }
}

/// A small generator, so that a printed seed gives the same run again.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
