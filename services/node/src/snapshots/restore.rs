//! Making a volume of a snapshot.

use std::{
    fs::{self, File, FileTimes, OpenOptions, Permissions},
    io::{self, Seek, SeekFrom},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{
    manifest::{Entry, Kind, Manifest},
    owner::Range,
    pieces::Pieces,
};

/// Fills a directory that is new with what a manifest names. Files belong to the range, or where there is none to whoever
/// runs this.
pub fn fill(top: &Path, manifest: &Manifest, pieces: &Pieces, range: Option<Range>) -> io::Result<()> {
    manifest.check()?;
    for entry in &manifest.entries {
        let place = top.join(&entry.path);
        let made = make(top, &place, entry, pieces);
        made.map_err(|error| io::Error::new(error.kind(), format!("/{}: {error}", entry.path.display())))?;
        let other_name = matches!(entry.kind, Kind::Same { .. });
        if let Some(range) = range.filter(|_| !other_name) {
            lchown(&place, Some(range.host(entry.user)), Some(range.host(entry.group)))?;
        }
        match entry.kind {
            // A directory has to be open to whoever fills it until all is in it.
            Kind::Directory | Kind::Link { .. } | Kind::Same { .. } => {}
            // After the owner, whose change takes some bits away.
            Kind::File { .. } | Kind::Pipe => fs::set_permissions(&place, Permissions::from_mode(entry.mode))?,
        }
    }
    for entry in manifest.entries.iter().rev().filter(|entry| entry.kind == Kind::Directory) {
        let place = top.join(&entry.path);
        File::open(&place)?.set_times(modified(entry))?;
        fs::set_permissions(&place, Permissions::from_mode(entry.mode))?;
    }
    Ok(())
}

fn make(top: &Path, place: &Path, entry: &Entry, pieces: &Pieces) -> io::Result<()> {
    match &entry.kind {
        Kind::Directory if entry.path.as_os_str().is_empty() => Ok(()),
        Kind::Directory => fs::create_dir(place),
        Kind::Link { target } => symlink(target, place),
        Kind::Same { first } => fs::hard_link(top.join(first), place),
        Kind::Pipe => Ok(mknodat(CWD, place, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?),
        Kind::File { length, pieces: parts } => {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(place)?;
            for part in parts {
                let mut piece = File::open(pieces.place(&part.hash))?;
                file.seek(SeekFrom::Start(part.at))?;
                // Within the kernel, and where the file system can, without copying.
                if io::copy(&mut piece, &mut file)? != u64::from(part.length) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the piece {} is not whole", part.hash)));
                }
            }
            file.set_len(*length)?;
            file.set_times(modified(entry))
        }
    }
}

fn modified(entry: &Entry) -> FileTimes {
    let (seconds, nanoseconds) = entry.modified;
    let from_epoch = Duration::from_secs(seconds.unsigned_abs());
    let whole = if seconds < 0 { UNIX_EPOCH.checked_sub(from_epoch) } else { UNIX_EPOCH.checked_add(from_epoch) };
    let time = whole.and_then(|time| time.checked_add(Duration::from_nanos(nanoseconds.into())));
    FileTimes::new().set_modified(time.unwrap_or(SystemTime::UNIX_EPOCH))
}
