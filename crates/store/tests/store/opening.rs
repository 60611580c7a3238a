//! What opening makes of every state that a crash can leave, and of some that it cannot.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use gureum_store::{
    DurableEngine, Engine, EngineError, Record, Store,
    engine::{Change, Group, RowSink, Snapshot},
};

use crate::support::{Counter, Item, ItemRow, Random, Schema, TestClock, copy, draft, engine, fast_folder, files, item, names, open};

type Rows = Vec<(String, String, Vec<u8>)>;

/// Everything that a directory holds, its revision and sequence.
fn contents(directory: &Path) -> Result<(u64, u64, Rows), EngineError> {
    let mut rows = BTreeMap::new();
    let mut engine = engine(directory, u64::MAX);
    let loaded = engine.load(&mut |Change { table, key, value }| {
        match value {
            Some(value) => rows.insert((table, key), value),
            None => rows.remove(&(table, key)),
        };
        Ok(())
    })?;
    Ok((loaded.revision, loaded.sequence, rows.into_iter().map(|((table, key), value)| (table, key, value)).collect()))
}

fn group(revision: u64) -> Group {
    let mut random = Random(revision);
    let mut put =
        |key: String, size: usize| Change { table: "t".into(), key, value: Some((0..size).map(|_| random.next() as u8).collect()) };
    let gone = Change { table: "t".into(), key: format!("row-{:03}", revision.saturating_sub(10)), value: None };
    Group { revision, sequence: revision * 3, changes: vec![put(format!("row-{revision:03}"), 700), put("hot".into(), 100), gone] }
}

/// All rows as of a revision, told when the gate opens.
struct GatedSnapshot {
    revision: u64,
    rows: Rows,
    gate: Option<mpsc::Receiver<()>>,
}

impl Snapshot for GatedSnapshot {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn sequence(&self) -> u64 {
        self.revision * 3
    }

    fn for_each(&self, entry: RowSink<'_>) -> Result<(), EngineError> {
        for (place, (table, key, value)) in self.rows.iter().enumerate() {
            if let Some(gate) = self.gate.as_ref().filter(|_| place == self.rows.len() / 2) {
                gate.recv_timeout(Duration::from_secs(10)).unwrap();
            }
            entry(table, key, value.clone())?;
        }
        Ok(())
    }
}

/// Directories as kill -9 leaves them, one for each moment around a checkpoint.
struct Moments {
    folder: tempfile::TempDir,
    /// Revision of all of them.
    expected: (u64, u64, Rows),
}

const BEFORE: &str = "before a checkpoint";
const BEGUN: &str = "the checkpoint is half written";
const DONE: &str = "the checkpoint has replaced its predecessors";

impl Moments {
    fn path(&self, moment: &str) -> PathBuf {
        self.folder.path().join(moment)
    }
}

fn moments() -> Moments {
    let folder = fast_folder();
    let live = folder.path().join("live");
    let mut model = BTreeMap::new();
    let mut append = |engine: &mut DurableEngine, revision: u64| {
        let group = group(revision);
        engine.append(&group).unwrap();
        for change in group.changes {
            match change.value {
                Some(value) => model.insert(change.key, value),
                None => model.remove(&change.key),
            };
        }
        model.iter().map(|(key, value)| ("t".to_owned(), key.clone(), value.clone())).collect::<Rows>()
    };
    let mut engine = engine(&live, 1);
    engine.load(&mut |_| Ok(())).unwrap();
    let mut rows = Rows::new();
    (1..=30).for_each(|revision| rows = append(&mut engine, revision));
    let snapshot = GatedSnapshot { revision: 30, rows, gate: None };
    engine.checkpoint(Box::new(snapshot)).unwrap();
    let mut rows = Rows::new();
    (31..=60).for_each(|revision| rows = append(&mut engine, revision));
    while names(&live, "checkpoint-") != ["checkpoint-0000000001", "checkpoint-0000000001.copy"]
        || names(&live, "journal-") != ["journal-0000000001"]
    {
        std::thread::sleep(Duration::from_millis(1));
    }
    copy(&live, &folder.path().join(BEFORE));
    let (open_gate, gate) = mpsc::channel();
    engine.checkpoint(Box::new(GatedSnapshot { revision: 60, rows, gate: Some(gate) })).unwrap();
    while !names(&live, "checkpoint-").contains(&"checkpoint-0000000002.new".to_owned()) {
        std::thread::sleep(Duration::from_millis(1));
    }
    copy(&live, &folder.path().join(BEGUN));
    // The journal goes on meanwhile.
    append(&mut engine, 61);
    let expected_rows = append(&mut engine, 62);
    copy(&live, &folder.path().join("with groups behind it"));
    open_gate.send(()).unwrap();
    drop(engine);
    copy(&live, &folder.path().join(DONE));
    Moments { folder, expected: (62, 186, expected_rows) }
}

#[test]
fn every_moment_around_a_checkpoint_opens_to_the_same_store() {
    let moments = moments();
    let half_done = moments.path("with groups behind it");
    assert_eq!(names(&half_done, "checkpoint-"), ["checkpoint-0000000001", "checkpoint-0000000002.new"]);
    assert_eq!(names(&half_done, "journal-"), ["journal-0000000001", "journal-0000000002"]);
    let done = moments.path(DONE);
    assert_eq!(names(&done, "checkpoint-"), ["checkpoint-0000000002", "checkpoint-0000000002.copy"]);
    assert_eq!(names(&done, "journal-"), ["journal-0000000002"]);
    // Killed between the rename and the removal of what came before: all of it, and part of it.
    let all = moments.path("nothing is removed yet");
    copy(&done, &all);
    copy(&moments.path(BEFORE), &all);
    let some = moments.path("some is removed");
    copy(&all, &some);
    fs::remove_file(some.join("checkpoint-0000000001/db")).unwrap();

    for moment in [&half_done, &done, &all, &some] {
        // What a service keeps beside its store, and was killed over.
        fs::write(moment.join("virtual-time.new"), b"half").unwrap();
        assert_eq!(contents(moment).unwrap(), moments.expected, "{}", moment.display());
        assert_eq!(contents(moment).unwrap(), moments.expected, "{} opened twice", moment.display());
        assert!(names(moment, "checkpoint-").iter().all(|name| !name.ends_with(".new")), "an unfinished checkpoint is left");
        assert!(moment.join("virtual-time.new").exists(), "another's file is gone");
    }
    for moment in [&done, &all, &some] {
        assert_eq!(names(moment, "checkpoint-"), ["checkpoint-0000000002", "checkpoint-0000000002.copy"]);
        assert_eq!(names(moment, "journal-"), ["journal-0000000002"]);
    }
    let (revision, ..) = contents(&moments.path(BEGUN)).unwrap();
    assert_eq!(revision, 60);
}

#[test]
fn two_journals_are_gone_on_with_and_replaced_by_the_next_checkpoint() {
    let moments = moments();
    let directory = moments.path("with groups behind it");
    {
        let mut engine = engine(&directory, 1);
        engine.load(&mut |_| Ok(())).unwrap();
        engine.append(&group(63)).unwrap();
        // The older journal counts too, or a process that is killed again and again would pile them up.
        assert!(engine.wants_checkpoint());
        let rows = contents_of(&moments, 63);
        engine.checkpoint(Box::new(GatedSnapshot { revision: 63, rows, gate: None })).unwrap();
        engine.append(&group(64)).unwrap();
    }
    assert_eq!(
        (names(&directory, "checkpoint-"), names(&directory, "journal-").len()),
        (vec!["checkpoint-0000000003".into(), "checkpoint-0000000003.copy".into()], 1)
    );
    assert_eq!(contents(&directory).unwrap(), (64, 192, contents_of(&moments, 64)));
}

/// What the moments' directories hold when further groups have followed.
fn contents_of(moments: &Moments, revision: u64) -> Rows {
    let mut rows: BTreeMap<_, _> =
        moments.expected.2.iter().map(|(table, key, value)| ((table.clone(), key.clone()), value.clone())).collect();
    for change in (63..=revision).flat_map(|revision| group(revision).changes) {
        match change.value {
            Some(value) => rows.insert((change.table, change.key), value),
            None => rows.remove(&(change.table, change.key)),
        };
    }
    rows.into_iter().map(|((table, key), value)| (table, key, value)).collect()
}

#[test]
fn what_sled_left_half_made_is_removed() {
    let moments = moments();
    let directory = moments.path(DONE);
    let checkpoint = directory.join("checkpoint-0000000002");
    fs::write(checkpoint.join("snap.00000000000000FF.generating"), b"cut").unwrap();
    assert_eq!(contents(&directory).unwrap(), moments.expected);
    assert!(!checkpoint.join("snap.00000000000000FF.generating").exists());
    // The same in one that a crash left unfinished.
    let directory = moments.path(BEGUN);
    fs::write(directory.join("checkpoint-0000000002.new/snap.00.generating"), b"cut").unwrap();
    assert_eq!(contents(&directory).unwrap().0, 60);
}

/// Once in place a checkpoint is never changed: a power cut while it is read finds nothing to harm.
#[test]
fn reading_a_checkpoint_leaves_its_bytes_as_they_are() {
    let moments = moments();
    let directory = moments.path(DONE);
    let bytes = || {
        let files = files(&directory.join("checkpoint-0000000002"));
        files.into_iter().map(|file| (fs::read(&file).unwrap(), file)).collect::<Vec<_>>()
    };
    let before = bytes();
    for _ in 0..3 {
        contents(&directory).unwrap();
        assert!(bytes() == before, "sled changed a checkpoint that it only read");
    }
}

#[test]
fn a_cut_tail_is_dropped_and_a_whole_group_is_not() {
    let moments = moments();
    let directory = moments.path(DONE);
    let journal = directory.join("journal-0000000002");
    let whole = fs::metadata(&journal).unwrap().len();
    for length in (28..whole).rev().step_by(97).chain([28]) {
        let cut = moments.path(&format!("cut at {length}"));
        copy(&directory, &cut);
        OpenOptions::new().write(true).open(cut.join("journal-0000000002")).unwrap().set_len(length).unwrap();
        let (revision, sequence, _) = contents(&cut).unwrap();
        assert!((60..=61).contains(&revision) && sequence == revision * 3, "cut at {length}: revision {revision}");
        // It takes the group again, and finds it again.
        {
            let mut engine = engine(&cut, u64::MAX);
            engine.load(&mut |_| Ok(())).unwrap();
            (revision + 1..=62).for_each(|revision| engine.append(&group(revision)).unwrap());
        }
        assert_eq!(contents(&cut).unwrap(), moments.expected, "cut at {length}");
    }
}

/// The checkpoint was begun after its journal was durable, so no crash leaves it without.
#[test]
fn a_journal_that_is_missing_or_empty_behind_its_checkpoint_is_refused() {
    let moments = moments();
    let directory = moments.path(DONE);
    let journal = directory.join("journal-0000000002");
    for length in [27, 1, 0] {
        OpenOptions::new().write(true).open(&journal).unwrap().set_len(length).unwrap();
        let refusal = contents(&directory).map(|found| found.0).unwrap_err();
        assert!(matches!(&refusal, EngineError::Damaged { path, .. } if *path == journal), "{refusal}");
        assert_eq!(fs::metadata(&journal).unwrap().len(), length, "it was changed");
    }
    fs::remove_file(&journal).unwrap();
    let refusal = contents(&directory).map(|found| found.0).unwrap_err();
    assert!(matches!(&refusal, EngineError::Missing { path } if *path == journal), "{refusal}");
    assert!(!journal.exists(), "it was made");
}

#[test]
fn damage_is_refused_with_its_place() {
    let moments = moments();
    let directory = moments.path(BEFORE);
    let journal = directory.join("journal-0000000001");
    let mut bytes = fs::read(&journal).unwrap();
    // Within the second record: the length of the first stands in its header.
    let record = 16 + u32::from_le_bytes(bytes[36..40].try_into().unwrap()) as usize;
    bytes[28 + record + record / 2] ^= 1;
    fs::write(&journal, &bytes).unwrap();
    let refusal = contents(&directory).unwrap_err();
    let EngineError::Damaged { path, offset } = &refusal else { panic!("{refusal}") };
    assert_eq!((path, *offset as usize), (&journal, 28 + record));
    let text = refusal.to_string();
    assert!(text.contains("journal-0000000001") && text.contains(&offset.to_string()) && text.contains("backup"), "{text}");
    // Refusing takes nothing away.
    assert_eq!(fs::read(&journal).unwrap(), bytes);
    assert!(matches!(contents(&directory), Err(EngineError::Damaged { .. })));
}

#[test]
fn a_cut_in_a_journal_that_others_follow_is_damage() {
    let moments = moments();
    let directory = moments.path("with groups behind it");
    let earlier = directory.join("journal-0000000001");
    let length = fs::metadata(&earlier).unwrap().len();
    OpenOptions::new().write(true).open(&earlier).unwrap().set_len(length - 1).unwrap();
    let refusal = contents(&directory).unwrap_err();
    assert!(matches!(&refusal, EngineError::Damaged { path, .. } if *path == earlier), "{refusal}");
}

#[test]
fn a_missing_file_is_refused_instead_of_opening_with_a_hole() {
    let moments = moments();
    let check = |moment: &str, gone: &str| {
        let directory = moments.path(&format!("{moment} without {gone}"));
        copy(&moments.path(moment), &directory);
        remove(&directory.join(gone));
        let refusal = contents(&directory).unwrap_err();
        assert!(matches!(refusal, EngineError::Gap { .. } | EngineError::Missing { .. }), "{refusal}");
        assert!(refusal.to_string().contains("missing"));
    };
    check("with groups behind it", "journal-0000000001");
    check("with groups behind it", "checkpoint-0000000001");
    // One of a checkpoint and its copy is enough.
    for (kept, gone) in [("checkpoint-0000000002.copy", "checkpoint-0000000002"), ("checkpoint-0000000002", "checkpoint-0000000002.copy")] {
        let directory = moments.path(&format!("{kept} alone"));
        copy(&moments.path(DONE), &directory);
        remove(&directory.join(gone));
        assert_eq!(contents(&directory).unwrap(), moments.expected, "{kept} alone");
    }
    let directory = moments.path(DONE);
    remove(&directory.join("checkpoint-0000000002.copy"));
    check(DONE, "checkpoint-0000000002");
}

fn remove(path: &Path) {
    if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
}

/// Flips a bit of a row's key in a checkpoint's file: what comes first is not compressed.
fn damage(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let place = bytes.windows(4).position(|window| window == b"row-").unwrap();
    bytes[place] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_checkpoint_that_is_damaged_with_its_copy_is_refused_by_name() {
    let moments = moments();
    let directory = moments.path(DONE);
    damage(&directory.join("checkpoint-0000000002/db"));
    damage(&directory.join("checkpoint-0000000002.copy"));
    let refusal = contents(&directory).map(|found| found.0).unwrap_err();
    assert!(matches!(&refusal, EngineError::Checkpoint { .. }) && refusal.to_string().contains("checkpoint-0000000002"), "{refusal}");
}

/// A row that does not compress.
fn large_item(number: u64) -> ItemRow {
    let mut random = Random(number);
    ItemRow(Item { body: (0..600).map(|_| random.below(128) as u8).collect(), ..item(number) })
}

/// Rows of many pieces, as a store writes them, and a checkpoint of them.
async fn large_store(directory: &Path) -> u64 {
    let store = open(engine(directory, 1));
    for round in 0..30 {
        let write = store.write(move |transaction| {
            (0..100).for_each(|number| transaction.put(large_item(round * 100 + number)));
            Ok::<_, ()>(())
        });
        write.await.unwrap();
    }
    store.read().revision()
}

/// Whatever becomes of sled's files, the store opens with all its rows and makes the checkpoint anew.
#[tokio::test]
async fn a_checkpoint_that_is_damaged_is_made_anew_from_its_copy() {
    let folder = fast_folder();
    let whole = folder.path().join("whole");
    let revision = large_store(&whole).await;
    // Ends when the last checkpoint is in its place with its copy.
    drop(open(engine(&whole, u64::MAX)));
    let [checkpoint] = &names(&whole, "checkpoint-").into_iter().filter(|name| !name.ends_with("copy")).collect::<Vec<_>>()[..] else {
        panic!("{:?}", names(&whole, "checkpoint-"))
    };
    let mut random = Random(11);
    for case in 0..60 {
        let directory = folder.path().join(format!("case {case}"));
        copy(&whole, &directory);
        let sled = directory.join(checkpoint);
        let database = sled.join("db");
        match case % 6 {
            0 => fs::remove_file(&database).unwrap(),
            1 => fs::remove_dir_all(&sled).unwrap(),
            2 => fs::write(sled.join("conf"), b"nonsense").unwrap(),
            3 => {
                let length = fs::metadata(&database).unwrap().len();
                OpenOptions::new().write(true).open(&database).unwrap().set_len(random.below(length)).unwrap();
            }
            4 => files(&sled)
                .iter()
                .filter(|file| file.to_string_lossy().contains("snap."))
                .for_each(|file| fs::write(file, b"cut").unwrap()),
            _ => {
                let mut bytes = fs::read(&database).unwrap();
                let place = random.below(bytes.len() as u64) as usize;
                bytes[place..].iter_mut().take(1 + case).for_each(|byte| *byte ^= 0x55);
                fs::write(&database, bytes).unwrap();
            }
        }
        for opening in ["found", "made anew"] {
            let store = open(engine(&directory, u64::MAX));
            let state = store.read();
            assert_eq!((state.revision(), state.items.len()), (revision, 3_000), "case {case}, {opening}");
            let is_whole = |row: ItemRow| state.items.get(&row.key()).is_some_and(|found| found.record == row);
            assert!((0..3_000).map(large_item).all(is_whole), "case {case}");
        }
        let now = names(&directory, "checkpoint-");
        assert_eq!(now.iter().filter(|name| name.ends_with("copy")).count(), 1, "case {case}: {now:?}");
    }
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    let folder = fast_folder();
    {
        let mut engine = engine(folder.path(), u64::MAX);
        engine.load(&mut |_| Ok(())).unwrap();
        engine.append(&group(1)).unwrap();
    }
    let opened = Store::<Schema>::open(engine(folder.path(), u64::MAX), TestClock::default().options());
    let refusal = opened.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refusal.contains("the table t") && refusal.contains("newer"), "{refusal}");
}

#[tokio::test]
async fn a_directory_is_made_with_those_above_it_and_large_rows_come_back() {
    let folder = fast_folder();
    let directory = folder.path().join("deep/er/store");
    let name = "n".repeat(3 << 20);
    for round in 0..3u64 {
        let store = open(engine(&directory, 1));
        assert_eq!(store.read().counters.get(&name).map(|row| row.value), round.checked_sub(1));
        assert_eq!(store.read().sequence(), round);
        let counter = Counter { name: name.clone(), value: round };
        let write = store.write(move |transaction| {
            transaction.emit(draft("large", false));
            transaction.put(counter);
            Ok::<_, ()>(())
        });
        write.await.unwrap();
    }
}

#[test]
fn an_unreadable_directory_is_refused_with_its_name() {
    let folder = fast_folder();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let refusal = DurableEngine::open(&file.join("store")).unwrap_err();
    assert!(matches!(refusal, EngineError::Io { .. }) && refusal.to_string().contains("file"), "{refusal}");
}
