//! User ids of the host for instances: a range each, claimed host-wide, whatever region or node an instance is of.
//!
//! A claim is a file that names the instance's directory, which has a note of it that is written first: so whoever ends the
//! instance knows of a claim that never came into a plan. One whose directory is gone is nobody's.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use crate::snapshots::owner::{FIRST, IDS};

const CLAIMS: &str = "/run/gureum/ids";
/// In the instance's directory: the number of the range that it claims.
const NOTE: &str = "ids";
/// The ranges that there are below the ids that mean something else.
const RANGES: u32 = (u32::MAX - FIRST) / IDS - 1;

/// The first user id of the range of the instance in this directory: the one that it had, if nobody has it, or another.
pub fn claim(instance: &Path, before: Option<u32>) -> io::Result<u32> {
    let claims = Path::new(CLAIMS);
    fs::create_dir_all(claims)?;
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(claims.join("LOCK"))?;
    lock.lock()?;
    let first = |range: u32| FIRST + range * IDS;
    let own = noted(instance)?.or(before.and_then(|id| id.checked_sub(FIRST)).map(|above| above / IDS));
    for range in own.into_iter().chain(0..RANGES) {
        let path = claim_of(claims, range);
        let holder = match fs::read_to_string(&path) {
            Ok(holder) => Some(PathBuf::from(holder)).filter(|holder| holder.exists()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if holder.as_deref().is_none_or(|holder| holder == instance) {
            fs::write(instance.join(NOTE), range.to_string())?;
            fs::write(&path, instance.as_os_str().as_encoded_bytes())?;
            return Ok(first(range));
        }
    }
    Err(io::Error::other("all user ids for instances are taken on this host"))
}

/// Gives the instance's range back.
pub fn release(instance: &Path) -> io::Result<()> {
    let Some(range) = noted(instance)? else { return Ok(()) };
    let claims = Path::new(CLAIMS);
    let lock = match File::open(claims.join("LOCK")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    lock.lock()?;
    let path = claim_of(claims, range);
    if fs::read_to_string(&path).is_ok_and(|holder| Path::new(&holder) == instance) { fs::remove_file(path) } else { Ok(()) }
}

fn noted(instance: &Path) -> io::Result<Option<u32>> {
    match fs::read_to_string(instance.join(NOTE)) {
        // One that was not written whole was followed by no claim.
        Ok(text) => Ok(text.parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn claim_of(claims: &Path, range: u32) -> PathBuf {
    claims.join(range.to_string())
}
