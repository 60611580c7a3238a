//! Volumes: a directory each, beside the instances, whom they outlive.
//!
//! A volume is made under another name and put in its place whole: one that is in its place is ready.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown},
    path::{Path, PathBuf},
};

use gureum_model::id::SnapshotId;

use super::{Places, images::Image, quota};
use crate::snapshots::{Snapshots, owner::Range};

/// What a new volume has in it.
#[derive(Debug, Clone, Copy)]
pub enum Contents<'a> {
    Nothing,
    /// What an image that ships has.
    Image(Image),
    Snapshot {
        snapshots: &'a Snapshots,
        id: SnapshotId,
        /// What the volume may hold.
        size_gib: u32,
    },
}

/// Where a volume is, made or not.
pub fn place(volumes: &Path, id: &str) -> PathBuf {
    volumes.join(id)
}

/// Makes a volume of a size unless it is there, and gives it to the instance whose ids begin at `owner`; without one, it
/// belongs to whoever runs this. One that cannot be made leaves nothing.
///
/// # Errors
/// What went wrong, with the volume, and where the disk is full that it is.
pub fn make(places: &Places, id: &str, size_gib: u32, contents: Contents<'_>, owner: Option<u32>) -> io::Result<PathBuf> {
    let place = place(&places.volumes, id);
    let made = make_in_place(places, id, size_gib, contents, owner, &place);
    made.map_err(|error| failed(&error, &format!("the volume {id} cannot be made in {}", places.volumes.display()), "launch again"))?;
    Ok(place)
}

/// What went wrong, with what it was for, and where the disk is full what to do.
pub fn failed(error: &io::Error, what: &str, then: &str) -> io::Error {
    let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let advice = if is_full { format!(": free some of the disk, and {then}") } else { String::new() };
    io::Error::new(error.kind(), format!("{what}: {error}{advice}"))
}

fn make_in_place(places: &Places, id: &str, size_gib: u32, contents: Contents<'_>, owner: Option<u32>, place: &Path) -> io::Result<()> {
    if !place.try_exists()? {
        let unfinished = unfinished(&places.volumes, id);
        remove_limited(places, &unfinished)?;
        fs::create_dir_all(&unfinished)?;
        // What is made in it from now on counts.
        let limited = places.quota.as_ref().map_or(Ok(()), |quota| quota.limit(&unfinished, size_gib));
        if let Err(error) = limited.and_then(|()| fill(&unfinished, contents, owner)) {
            // What is in the way is removed by the next who makes it, or with the volume.
            let _ = remove_limited(places, &unfinished);
            return Err(error);
        }
        fs::rename(&unfinished, place)?;
    }
    if let Some(owner) = owner {
        let (before, after) = (range_of(fs::metadata(place)?.uid()), range_of(owner));
        if before != after {
            give(place, before, after)?;
        }
    }
    Ok(())
}

fn fill(directory: &Path, contents: Contents<'_>, owner: Option<u32>) -> io::Result<()> {
    match contents {
        Contents::Nothing => Ok(()),
        Contents::Image(image) => image.files.iter().try_for_each(|file| {
            let path = directory.join(file.path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&path, file.text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(if file.program { 0o755 } else { 0o644 }))
        }),
        Contents::Snapshot { snapshots, id, size_gib } => {
            // Users within a volume that nobody has yet are told apart all the same.
            snapshots.restore(id, directory, size_gib, owner.or_else(|| rustix::process::geteuid().is_root().then_some(0)))?;
            // It is in its place once all of it is on the disk.
            Ok(rustix::fs::syncfs(File::open(directory)?)?)
        }
    }
}

fn range_of(id: u32) -> Range {
    Range::of(id, rustix::process::geteuid().as_raw())
}

/// Shifts the owners of files: who was the user `from` and so many more is the user `to` and as many more. The top goes
/// last, so that one that was interrupted is done again; what was shifted is left alone then.
fn give(path: &Path, from: Range, to: Range) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if found.is_dir() {
        fs::read_dir(path)?.try_for_each(|entry| give(&entry?.path(), from, to))?;
    }
    // What is the new owner's was shifted before.
    let shifted = |id: u32| if range_of(id) == to { id } else { to.host(from.within(id)) };
    lchown(path, Some(shifted(found.uid())), Some(shifted(found.gid())))
}

fn unfinished(volumes: &Path, id: &str) -> PathBuf {
    volumes.join(format!("{id}.new"))
}

fn leaving(volumes: &Path, id: &str) -> PathBuf {
    volumes.join(format!("{id}.leaving"))
}

/// Removes a volume, also one that was never finished. From its first moment on it is not there any more, for nobody may
/// take what is left of it for the volume.
pub fn remove(places: &Places, id: &str) -> io::Result<()> {
    let volumes = &places.volumes;
    let leaving = leaving(volumes, id);
    match fs::rename(place(volumes, id), &leaving) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => return Err(error),
        _ => {}
    }
    [leaving, place(volumes, id), unfinished(volumes, id)].iter().try_for_each(|path| remove_limited(places, path))
}

/// Goes on with removals that were interrupted.
pub fn finish_removals(places: &Places) -> io::Result<()> {
    for entry in fs::read_dir(&places.volumes)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "leaving") {
            remove_limited(places, &path)?;
        }
    }
    Ok(())
}

/// Removes the directory of a volume, and its limit.
fn remove_limited(places: &Places, path: &Path) -> io::Result<()> {
    let limited = places.quota.as_ref().and_then(|quota| Some((quota, quota::project_of(path).ok()?)));
    remove_directory(path)?;
    if let Some((quota, project)) = limited {
        quota.forget(project);
    }
    Ok(())
}

/// Removes a directory, or whatever else may be half removed already.
pub fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::{env, process::Command};

    use gureum_model::id::ResourceId;

    use super::*;

    /// A directory on a small disk of its own, told to the same test as it runs in a namespace of mounts.
    const SMALL_DISK: &str = "GUREUM_TEST_SMALL_DISK";

    #[test]
    fn a_volume_for_which_the_disk_is_too_full_leaves_nothing_and_says_what_to_do() {
        let Some(disk) = env::var_os(SMALL_DISK) else { return in_namespace() };
        let (volumes, others) = (PathBuf::from(disk), tempfile::tempdir().unwrap());
        let (snapshots, source) = (Snapshots::open(&others.path().join("snapshots")).unwrap(), others.path().join("source"));
        fs::create_dir(&source).unwrap();
        fs::write(source.join("large"), vec![7; 1 << 20]).unwrap();
        let id = SnapshotId::from_number(1);
        snapshots.take(id, Some(&source)).unwrap();
        let elsewhere = others.path().to_owned();
        let places = Places { instances: elsewhere.clone(), volumes: volumes.clone(), snapshots: elsewhere, quota: None };
        let error = make(&places, "vol-1", 1, Contents::Snapshot { snapshots: &snapshots, id, size_gib: 1 }, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let told = error.to_string();
        assert!(told.contains("vol-1 cannot be made in") && told.ends_with("free some of the disk, and launch again"), "{told}");
        assert_eq!(fs::read_dir(&volumes).unwrap().count(), 0, "what was begun is left");
    }

    fn in_namespace() {
        let disk = tempfile::tempdir().unwrap();
        let name = std::thread::current().name().unwrap().to_owned();
        let script = "mount -t tmpfs -o size=256k none \"$1\" || exit 99; exec \"$2\" --exact \"$3\"";
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(disk.path());
        let ran = command.arg(env::current_exe().unwrap()).arg(name).env(SMALL_DISK, disk.path()).output();
        match ran {
            Ok(ran) if ran.status.success() => assert!(String::from_utf8_lossy(&ran.stdout).contains("1 passed"), "{ran:?}"),
            Ok(ran) if ran.status.code() == Some(101) => panic!("{}", String::from_utf8_lossy(&ran.stdout)),
            skipped => eprintln!("skipped: this host gives no namespace with a small disk: {skipped:?}"),
        }
    }
}
