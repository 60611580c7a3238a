//! Aliases of the host's loopback interface, one for each instance that has no network of its own: claimed host-wide, whatever
//! region, node or user an instance is of.
//!
//! A claim is a file that names the instance's directory, which has a note of it that is written first: so whoever ends the
//! instance knows of a claim that never came into a plan. One whose directory is gone is nobody's.

use std::{
    fs::{self, OpenOptions, Permissions},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Write},
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Above the slices of 127.0.0.0/8 from which regions have their public addresses.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 240, 0, 0);
const COUNT: u32 = 6 << 16;
/// Aliases that are tried. So many in a row are taken only where someone takes them all.
const TRIES: u32 = 4_096;
/// In the instance's directory: the alias that it claims.
const NOTE: &str = "alias";

/// The alias of the instance in this directory: the one that it had, if nobody has it, or another.
pub fn claim(instance: &Path, before: Option<Ipv4Addr>) -> io::Result<Ipv4Addr> {
    claim_in(&place(), instance, before)
}

/// Gives the instance's alias back, if it has one.
pub fn release(instance: &Path) -> io::Result<()> {
    let Some(alias) = noted(instance)? else { return Ok(()) };
    let claim = place().join(alias.to_string());
    if holder(&claim)?.as_deref() == Some(instance) { fs::remove_file(claim) } else { Ok(()) }
}

/// Regions of other users have theirs here, too.
fn place() -> PathBuf {
    std::env::temp_dir().join("gureum-aliases")
}

fn claim_in(claims: &Path, instance: &Path, before: Option<Ipv4Addr>) -> io::Result<Ipv4Addr> {
    if !claims.exists() {
        fs::create_dir_all(claims)?;
        let _ = fs::set_permissions(claims, Permissions::from_mode(0o1777));
    }
    for alias in noted(instance)?.into_iter().chain(before).chain(candidates(instance)) {
        fs::write(instance.join(NOTE), alias.to_string())?;
        if claim_one(&claims.join(alias.to_string()), instance)? {
            return Ok(alias);
        }
    }
    Err(io::Error::other(format!("the aliases of the loopback interface that instances can have are taken (see {})", claims.display())))
}

fn noted(instance: &Path) -> io::Result<Option<Ipv4Addr>> {
    match fs::read_to_string(instance.join(NOTE)) {
        // One that was not written whole was followed by no claim.
        Ok(text) => Ok(text.parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Neither the first nor the last of their networks, which some programs take for those.
fn candidates(instance: &Path) -> impl Iterator<Item = Ipv4Addr> {
    let mut hasher = DefaultHasher::new();
    instance.hash(&mut hasher);
    let start = u32::try_from(hasher.finish() % u64::from(COUNT)).unwrap_or_default();
    let all = (0..TRIES).map(move |more| Ipv4Addr::from_bits(FIRST.to_bits() + (start + more) % COUNT));
    all.filter(|alias| !matches!(alias.octets()[3], 0 | 255))
}

/// Two who find a claim that is nobody's cannot both have it: each removes what it read, and makes what is not there.
fn claim_one(claim: &Path, instance: &Path) -> io::Result<bool> {
    match holder(claim) {
        Ok(None) => {}
        Ok(Some(holder)) if holder == instance => return Ok(true),
        // One that cannot be looked for is another user's, and there for all that can be known.
        Ok(Some(holder)) if !matches!(holder.try_exists(), Ok(false)) => return Ok(false),
        Ok(Some(_)) if fs::remove_file(claim).is_ok() => {}
        Ok(Some(_)) | Err(_) => return Ok(false),
    }
    match OpenOptions::new().create_new(true).write(true).open(claim) {
        Ok(mut file) => file.write_all(instance.as_os_str().as_encoded_bytes()).map(|()| true),
        Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::PermissionDenied) => Ok(false),
        Err(error) => Err(error),
    }
}

fn holder(claim: &Path) -> io::Result<Option<PathBuf>> {
    match fs::read_to_string(claim) {
        Ok(holder) => Ok(Some(PathBuf::from(holder))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn an_alias_has_one_instance_which_keeps_it_until_it_is_gone() {
        let (claims, instances) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let instance = |name: &str| {
            fs::create_dir_all(instances.path().join(name)).unwrap();
            instances.path().join(name)
        };
        let (one, other, third) = (instance("one"), instance("other"), instance("third"));
        let first = claim_in(claims.path(), &one, None).unwrap();
        assert!(first.octets()[0] == 127 && (240..246).contains(&first.octets()[1]), "{first}");
        assert_eq!(claim_in(claims.path(), &one, Some(first)).unwrap(), first);
        let second = claim_in(claims.path(), &other, Some(first)).unwrap();
        assert_ne!(second, first);
        fs::remove_dir_all(&one).unwrap();
        assert_eq!(claim_in(claims.path(), &third, Some(first)).unwrap(), first, "it is nobody's");
        assert_eq!(claim_in(claims.path(), &other, Some(first)).unwrap(), second, "it knows its own without a plan");
    }
}
