//! User ids of the host for instances: a range each, claimed host-wide, whatever region or node an instance is of.
//!
//! A claim is a file that names the instance's directory. One whose directory is gone is nobody's.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use crate::snapshots::owner::{FIRST, IDS};

const CLAIMS: &str = "/run/gureum/ids";
/// The ranges that there are below the ids that mean something else.
const RANGES: u32 = (u32::MAX - FIRST) / IDS - 1;

/// The first user id of the range of the instance in this directory: the one that it had, if nobody has it, or another.
pub fn claim(instance: &Path, before: Option<u32>) -> io::Result<u32> {
    let claims = Path::new(CLAIMS);
    fs::create_dir_all(claims)?;
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(claims.join("LOCK"))?;
    lock.lock()?;
    let first = |range: u32| FIRST + range * IDS;
    let own = before.and_then(|id| id.checked_sub(FIRST)).map(|above| above / IDS);
    for range in own.into_iter().chain(0..RANGES) {
        let path = claim_of(claims, range);
        let holder = match fs::read_to_string(&path) {
            Ok(holder) => Some(PathBuf::from(holder)).filter(|holder| holder.exists()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if holder.as_deref().is_none_or(|holder| holder == instance) {
            fs::write(&path, instance.as_os_str().as_encoded_bytes())?;
            return Ok(first(range));
        }
    }
    Err(io::Error::other("all user ids for instances are taken on this host"))
}

/// Gives a range back.
pub fn release(instance: &Path, first: u32) -> io::Result<()> {
    let claims = Path::new(CLAIMS);
    let lock = match File::open(claims.join("LOCK")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    lock.lock()?;
    let path = claim_of(claims, first.saturating_sub(FIRST) / IDS);
    if fs::read_to_string(&path).is_ok_and(|holder| Path::new(&holder) == instance) { fs::remove_file(path) } else { Ok(()) }
}

fn claim_of(claims: &Path, range: u32) -> PathBuf {
    claims.join(range.to_string())
}
