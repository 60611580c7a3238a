//! A region's slice of 127.0.0.0/8: where its public addresses come from.
//!
//! Several regions on one host never share an address: each claims one of the slices under a lock that
//! ends with its process, and keeps it as long as its state lives.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

/// Slices of 131,072 addresses each. The lowest ones are left alone: 127.0.0.1 and its neighbours have
/// other users.
const SLICES: std::ops::Range<u8> = 1..120;

/// A slice that this process holds.
#[derive(Debug)]
pub struct Slice {
    pub number: u8,
    /// Held as long as the region runs.
    _lock: File,
}

/// Why there is no slice.
#[derive(Debug, thiserror::Error)]
pub enum SliceError {
    #[error("the lock of a slice of 127.0.0.0/8, {}", path.display())]
    Lock {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "slice {0} of 127.0.0.0/8, from which this region's addresses come, is in use by another region on this host; stop that one first"
    )]
    Taken(u8),
    #[error("all {} slices of 127.0.0.0/8 are in use by other regions on this host", SLICES.len())]
    None,
}

impl Slice {
    /// The slice that a region had before, or any free one.
    pub fn claim(before: Option<u8>) -> Result<Self, SliceError> {
        match before {
            Some(number) => try_lock(number)?.ok_or(SliceError::Taken(number)),
            None => {
                for number in SLICES {
                    if let Some(slice) = try_lock(number)? {
                        return Ok(slice);
                    }
                }
                Err(SliceError::None)
            }
        }
    }

    /// The slice's addresses: `127.2.0.0/15` and so on.
    pub fn network(&self) -> String {
        format!("{}/15", Ipv4Addr::new(127, self.number * 2, 0, 0))
    }
}

fn try_lock(number: u8) -> Result<Option<Slice>, SliceError> {
    let directory = std::env::temp_dir().join("gureum-slices");
    let path = directory.join(format!("{number}.lock"));
    let failed = |source| SliceError::Lock { path: path.clone(), source };
    if !directory.exists() {
        fs::create_dir_all(&directory).map_err(failed)?;
        // Other users' regions take their locks here too.
        let _ = fs::set_permissions(&directory, fs::Permissions::from_mode(0o1777));
    }
    let lock = match OpenOptions::new().create(true).truncate(false).write(true).open(&path) {
        Ok(lock) => lock,
        // Another user's: in use, for all that can be known.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    match lock.try_lock() {
        Ok(()) => Ok(Some(Slice { number, _lock: lock })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_regions_never_share() {
        let (one, two) = (Slice::claim(None).unwrap(), Slice::claim(None).unwrap());
        assert_ne!(one.network(), two.network());
        assert!(matches!(Slice::claim(Some(one.number)), Err(SliceError::Taken(_))));
        let number = one.number;
        drop(one);
        assert!(Slice::claim(Some(number)).is_ok());
    }
}
