//! Volumes: a directory each, beside the instances, whom they outlive.
//!
//! A volume is made under another name and put in its place whole: one that is in its place is ready.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown},
    path::{Path, PathBuf},
};

use super::images::Image;

/// User ids that an instance has.
pub const IDS: u32 = 65_536;

/// Where a volume is, made or not.
fn place(volumes: &Path, id: &str) -> PathBuf {
    volumes.join(id)
}

/// Makes the root volume of an instance from its image, unless it is there.
pub fn make_root(volumes: &Path, id: &str, image: &Image, owner: Option<u32>) -> io::Result<PathBuf> {
    make(volumes, id, owner, |directory| {
        image.files.iter().try_for_each(|file| {
            let path = directory.join(file.path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&path, file.text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(if file.program { 0o755 } else { 0o644 }))
        })
    })
}

/// Makes an empty volume, unless it is there.
pub fn make_empty(volumes: &Path, id: &str, owner: Option<u32>) -> io::Result<PathBuf> {
    make(volumes, id, owner, |_| Ok(()))
}

fn make(volumes: &Path, id: &str, owner: Option<u32>, fill: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<PathBuf> {
    let place = place(volumes, id);
    if !place.exists() {
        let unfinished = unfinished(volumes, id);
        remove_directory(&unfinished)?;
        fs::create_dir_all(&unfinished)?;
        fill(&unfinished)?;
        fs::rename(&unfinished, &place)?;
    }
    if let Some(owner) = owner {
        let before = fs::metadata(&place)?.uid();
        if before != owner {
            give(&place, before, owner)?;
        }
    }
    Ok(place)
}

/// Shifts the owners of files: who was the user `from` and so many more is the user `to` and as many more. The top goes
/// last, so that one that was interrupted is done again; what was shifted is left alone then.
fn give(path: &Path, from: u32, to: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if found.is_dir() {
        fs::read_dir(path)?.try_for_each(|entry| give(&entry?.path(), from, to))?;
    }
    let shifted = |id: u32| id.checked_sub(from).filter(|within| *within < IDS).map_or(id, |within| to + within);
    lchown(path, Some(shifted(found.uid())), Some(shifted(found.gid())))
}

fn unfinished(volumes: &Path, id: &str) -> PathBuf {
    volumes.join(format!("{id}.new"))
}

/// Removes a volume, also one that was never finished.
pub fn remove(volumes: &Path, id: &str) -> io::Result<()> {
    remove_directory(&place(volumes, id)).and_then(|()| remove_directory(&unfinished(volumes, id)))
}

/// Removes a directory, or whatever else may be half removed already.
pub fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
