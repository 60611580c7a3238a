//! Snapshots of trees that come to be at random, killed after every step.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::{
    cell::Cell,
    collections::BTreeMap,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
};

use gureum_model::id::ResourceId;
use proptest::prelude::*;

use super::*;

fn id(number: u128) -> SnapshotId {
    SnapshotId::from_number(number)
}

/// All that is in a directory: for each path what it is, what is in it, and its mode.
fn tree(top: &Path) -> BTreeMap<PathBuf, (String, Vec<u8>, u32)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, data) = (entry.path(), fs::symlink_metadata(entry.path()).unwrap());
            let (kind, bytes) = if data.is_dir() {
                folders.push(path.clone());
                ("directory", Vec::new())
            } else if data.is_symlink() {
                ("link", fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes())
            } else {
                ("file", fs::read(&path).unwrap())
            };
            found.insert(path.strip_prefix(top).unwrap().to_owned(), (kind.to_owned(), bytes, data.mode() & 0o7777));
        }
    }
    found
}

/// Bytes and number of all pieces.
fn pieces(store: &Path) -> (u64, usize) {
    let all: Vec<_> = tree(&store.join("pieces")).into_values().filter(|(kind, ..)| kind == "file").collect();
    (all.iter().map(|(_, bytes, _)| bytes.len() as u64).sum(), all.len())
}

/// A change of a volume.
#[derive(Debug, Clone)]
enum Change {
    Write { name: u8, at: u32, byte: u8, length: u32 },
    Folder(u8),
    Link(u8, u8),
    Remove(u8),
    Mode(u8, u32),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<u8>(), 0u32..3_000_000, any::<u8>(), 0u32..40_000)
            .prop_map(|(name, at, byte, length)| Change::Write { name: name % 6, at, byte, length }),
        1 => any::<u8>().prop_map(|name| Change::Folder(name % 6)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(name, target)| Change::Link(name % 6, target % 6)),
        1 => any::<u8>().prop_map(|name| Change::Remove(name % 6)),
        1 => (any::<u8>(), 0o600u32..0o777).prop_map(|(name, mode)| Change::Mode(name % 6, mode | 0o600)),
    ]
}

/// Makes a change where it can be made.
fn make(volume: &Path, change: &Change) {
    let folder = |name: u8| if name.is_multiple_of(2) { volume.to_owned() } else { volume.join("folder") };
    let place = |name: u8| folder(name).join(format!("name{name}"));
    fs::create_dir_all(volume.join("folder")).unwrap();
    match change {
        Change::Write { name, at, byte, length } => {
            let opened = OpenOptions::new().create(true).truncate(false).write(true).open(place(*name));
            let _ = opened.map(|file| file.write_all_at(&vec![*byte; *length as usize], (*at).into()).unwrap());
        }
        Change::Folder(name) => drop(fs::create_dir(place(*name))),
        Change::Link(name, target) => drop(symlink(format!("name{target}"), place(*name))),
        Change::Remove(name) => drop(fs::remove_file(place(*name)).or_else(|_| fs::remove_dir_all(place(*name)))),
        Change::Mode(name, mode) => {
            if fs::symlink_metadata(place(*name)).is_ok_and(|found| found.is_file()) {
                fs::set_permissions(place(*name), fs::Permissions::from_mode(*mode)).unwrap();
            }
        }
    }
}

fn restored(snapshots: &Snapshots, id: SnapshotId) -> BTreeMap<PathBuf, (String, Vec<u8>, u32)> {
    let folder = tempfile::tempdir().unwrap();
    snapshots.restore(id, folder.path(), 1, None).unwrap();
    tree(folder.path())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever happens to a volume, each snapshot of it is as it was, until none is left, and then nothing is.
    #[test]
    fn every_snapshot_is_as_its_volume_was(rounds in prop::collection::vec(prop::collection::vec(change(), 0..8), 1..5), order in any::<u8>()) {
        let (store, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let snapshots = Snapshots::open(store.path()).unwrap();
        let mut were = BTreeMap::new();
        for (number, changes) in rounds.iter().enumerate() {
            changes.iter().for_each(|change| make(volume.path(), change));
            snapshots.take(id(number as u128), Some(volume.path())).unwrap();
            were.insert(number as u128, tree(volume.path()));
        }
        while let Some(number) = were.keys().nth(usize::from(order) % were.len().max(1)).copied() {
            for (number, was) in &were {
                prop_assert_eq!(&restored(&snapshots, id(*number)), was);
            }
            snapshots.remove(id(number)).unwrap();
            were.remove(&number);
        }
        prop_assert_eq!(pieces(store.path()), (0, 0));
    }
}

/// Fails at a step, as a process that is killed after it.
fn killed_after(step: Step) -> impl Fn(Step) -> io::Result<()> {
    move |at| if at == step { Err(io::Error::other("killed")) } else { Ok(()) }
}

#[test]
fn who_is_killed_after_any_step_leaves_a_snapshot_or_none_and_no_piece_that_nobody_needs() {
    let volume = tempfile::tempdir().unwrap();
    fs::write(volume.path().join("both"), "in both").unwrap();
    for step in [Step::Read, Step::Settled, Step::Written, Step::Named] {
        let store = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(store.path()).unwrap();
        snapshots.take(id(1), Some(volume.path())).unwrap();
        let before = pieces(store.path());
        fs::write(volume.path().join("new"), format!("{step:?}")).unwrap();
        snapshots.take_until(id(2), Some(volume.path()), &killed_after(step)).unwrap_err();
        let again = Snapshots::open(store.path()).unwrap();
        assert_eq!(again.contains(id(2)), step == Step::Named, "{step:?}");
        if step != Step::Named {
            assert_eq!(pieces(store.path()), before, "{step:?}");
        }
        assert!(again.entries("incoming").unwrap().is_empty(), "{step:?}");
        // Whoever asked asks again.
        again.take(id(2), Some(volume.path())).unwrap();
        assert_eq!(restored(&again, id(2)), tree(volume.path()), "{step:?}");
        assert!(restored(&again, id(1)).contains_key(Path::new("both")));
        fs::remove_file(volume.path().join("new")).unwrap();
    }
}

#[test]
fn who_is_killed_while_it_removes_one_leaves_the_others_whole() {
    let volume = tempfile::tempdir().unwrap();
    for step in [Step::Leaving, Step::Swept] {
        let store = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(store.path()).unwrap();
        fs::write(volume.path().join("both"), "in both").unwrap();
        snapshots.take(id(1), Some(volume.path())).unwrap();
        let before = pieces(store.path());
        fs::write(volume.path().join("new"), "only in the second").unwrap();
        snapshots.take(id(2), Some(volume.path())).unwrap();
        snapshots.remove_until(id(2), &killed_after(step)).unwrap_err();
        let again = Snapshots::open(store.path()).unwrap();
        assert!(!again.contains(id(2)) && again.entries("leaving").unwrap().is_empty(), "{step:?}");
        assert_eq!(pieces(store.path()), before, "{step:?}");
        assert!(restored(&again, id(1)).contains_key(Path::new("both")), "{step:?}");
        again.remove(id(2)).unwrap();
    }
}

#[test]
fn a_second_snapshot_costs_what_changed_and_holes_cost_nothing() {
    let (store, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let snapshots = Snapshots::open(store.path()).unwrap();
    let file = File::create(volume.path().join("large")).unwrap();
    file.set_len(1 << 40).unwrap();
    for piece in 0..4u8 {
        let bytes: Vec<u8> = (0..1u32 << 20).map(|at| (at >> 3) as u8 ^ piece ^ 0x55).collect();
        file.write_all_at(&bytes, u64::from(piece) << 30).unwrap();
    }
    snapshots.take(id(1), Some(volume.path())).unwrap();
    let (first, _) = pieces(store.path());
    assert!(first <= 4 << 20, "{first} bytes");
    file.write_all_at(b"changed", (2 << 30) + 5).unwrap();
    snapshots.take(id(2), Some(volume.path())).unwrap();
    let (both, _) = pieces(store.path());
    assert!(both - first <= 1 << 20, "{} bytes", both - first);
    let folder = tempfile::tempdir().unwrap();
    // It names more than a volume may have, and holds less.
    snapshots.restore(id(2), folder.path(), 1, None).unwrap();
    let copy = File::open(folder.path().join("large")).unwrap();
    let mut bytes = [0; 8];
    copy.read_exact_at(&mut bytes, (2 << 30) + 4).unwrap();
    assert_eq!(&bytes[1..], b"changed");
    assert!(copy.metadata().unwrap().blocks() * 512 < 8 << 20, "holes are filled");
}

#[test]
fn names_times_and_pipes_are_kept_and_sockets_are_not() {
    let (store, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let snapshots = Snapshots::open(store.path()).unwrap();
    fs::write(volume.path().join("one"), "same").unwrap();
    fs::hard_link(volume.path().join("one"), volume.path().join("other")).unwrap();
    fs::set_permissions(volume.path().join("one"), fs::Permissions::from_mode(0o4000)).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, volume.path().join("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(volume.path().join("socket")).unwrap();
    let past = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 5);
    File::open(volume.path().join("other"))
        .unwrap_or_else(|_| panic!("root reads it"))
        .set_times(fs::FileTimes::new().set_modified(past))
        .unwrap();
    snapshots.take(id(1), Some(volume.path())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    snapshots.restore(id(1), folder.path(), 1, None).unwrap();
    let of = |name: &str| fs::symlink_metadata(folder.path().join(name)).unwrap();
    assert_eq!((of("one").ino(), of("one").nlink(), of("one").mode() & 0o7777), (of("other").ino(), 2, 0o4000));
    assert_eq!(of("one").modified().unwrap(), past);
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&of("pipe").file_type()));
    assert!(!folder.path().join("socket").exists());
}

#[test]
fn one_that_is_absent_or_too_large_is_refused_with_what_to_do() {
    let (store, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let snapshots = Snapshots::open(store.path()).unwrap();
    let told = snapshots.restore(id(7), volume.path(), 1, None).unwrap_err().to_string();
    assert!(told.contains(&format!("the snapshot {} is not on this host", id(7))), "{told}");
    fs::write(volume.path().join("file"), "something").unwrap();
    snapshots.take(id(1), Some(volume.path())).unwrap();
    let told = snapshots.restore(id(1), volume.path(), 0, None).unwrap_err().to_string();
    assert!(told.contains("holds 9 bytes") && told.contains("make it larger"), "{told}");
    // One of nothing is there and holds nothing.
    snapshots.take(id(2), None).unwrap();
    assert_eq!(restored(&snapshots, id(2)), BTreeMap::new());
    let steps = Cell::new(0);
    snapshots
        .take_until(id(2), Some(volume.path()), &|_| {
            steps.set(steps.get() + 1);
            Ok(())
        })
        .unwrap();
    assert_eq!((steps.get(), restored(&snapshots, id(2))), (0, BTreeMap::new()), "it is taken once");
}

/// What `tar` makes of a directory.
fn archived(directory: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new("tar").args(arguments).arg("-cf-").arg("-C").arg(directory).arg(".").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).to_vec()
}

/// Brings an archive in blocks of this size.
fn bring(snapshots: &Snapshots, id: SnapshotId, archive: &[u8], block: usize) -> io::Result<()> {
    for (index, bytes) in archive.chunks(block).enumerate() {
        snapshots.receive(id, u32::try_from(index).unwrap(), bytes, &sha256(bytes))?;
    }
    let checksum = sha256(archive).iter().map(|byte| format!("{byte:02x}")).collect();
    let blocks = u32::try_from(archive.chunks(block).len()).unwrap();
    snapshots.read_received(id, &receive::Complete { blocks, checksum, size_gib: 1 })
}

#[test]
fn an_archive_becomes_the_tree_that_it_was_made_of() {
    let (store, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let snapshots = Snapshots::open(store.path()).unwrap();
    let long = volume.path().join("long/".repeat(30)).join("name ".repeat(40));
    fs::create_dir_all(long.parent().unwrap()).unwrap();
    fs::write(&long, "found").unwrap();
    fs::write(volume.path().join("large"), vec![7; (3 << 20) + 17]).unwrap();
    fs::set_permissions(volume.path().join("large"), fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("x".repeat(150), volume.path().join("link")).unwrap();
    fs::write(volume.path().join("z"), "both").unwrap();
    fs::hard_link(volume.path().join("z"), volume.path().join("a")).unwrap();
    for (number, format) in ["--format=posix", "--format=gnu"].into_iter().enumerate() {
        let archive = archived(volume.path(), &[format, "--owner=33", "--group=33"]);
        for block in [1 << 20, 1_000] {
            let id = id((number * 10 + block) as u128);
            bring(&snapshots, id, &archive, block).unwrap();
            assert_eq!(restored(&snapshots, id), tree(volume.path()), "{format}");
            snapshots.remove(id).unwrap();
        }
    }
    assert_eq!(pieces(store.path()), (0, 0));
    assert!(snapshots.entries("receiving").unwrap().is_empty());
}

#[test]
fn what_is_no_archive_or_leads_out_or_cannot_boot_is_refused_with_the_reason() {
    let (store, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let snapshots = Snapshots::open(store.path()).unwrap();
    let refused = |archive: &[u8]| bring(&snapshots, id(1), archive, 1 << 20).unwrap_err().to_string();
    assert!(refused(&[1; 2_000]).contains("is no header of a tar archive"));
    assert!(refused(&archived(volume.path(), &[])).contains("nothing to boot from"));
    fs::create_dir(volume.path().join("bin")).unwrap();
    fs::write(volume.path().join("bin/server"), "server").unwrap();
    let archive = archived(volume.path(), &[]);
    assert!(refused(&archive).contains("no /bin/sh"));
    assert!(refused(&archive[..1_100]).contains("is cut off"));
    assert!(refused(&archived(volume.path(), &["--transform=s,^./bin,../../bin,", "-P"])).contains("leads out"));
    fs::remove_dir_all(volume.path().join("bin")).unwrap();
    fs::create_dir_all(volume.path().join("etc/gureum")).unwrap();
    fs::write(volume.path().join("etc/gureum/boot"), "#!/bin/sh\nexec /start\n").unwrap();
    assert!(refused(&archived(volume.path(), &[])).contains("chmod +x"));
    fs::set_permissions(volume.path().join("etc/gureum/boot"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(refused(&archived(volume.path(), &[])).contains("its boot script /start is not in it"));
    let told = snapshots.receive(id(1), 0, b"one", &sha256(b"other")).unwrap_err().to_string();
    assert!(told.contains("send it again"), "{told}");
    let wanted = receive::Complete { blocks: 9, checksum: String::new(), size_gib: 1 };
    assert!(snapshots.read_received(id(2), &wanted).unwrap_err().to_string().contains("is missing"));
    snapshots.remove(id(1)).unwrap();
    assert!(snapshots.entries("receiving").unwrap().is_empty() && snapshots.entries("incoming").unwrap().is_empty());
}
