//! Making files in a root volume from outside, while nothing runs in it.
//!
//! An instance that ran may have left links in its volume, and so may an image that was made of one. Followed from
//! outside they lead into the host, so none is.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, lchown},
    path::{Path, PathBuf},
};

use gureum_shim::protocol::write_whole;

/// A directory in the volume, made with those above it where they are not there, for the user `owner`.
///
/// # Errors
/// Something on the way is no directory: the path is named.
pub fn directory(root: &Path, path: &str, owner: Option<u32>) -> io::Result<PathBuf> {
    let mut place = root.to_owned();
    for part in Path::new(path).components() {
        place.push(part);
        match fs::symlink_metadata(&place) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                let within = place.strip_prefix(root).unwrap_or(&place).display();
                return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("/{within} in the root volume is no directory")));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&place)?;
                lchown(&place, owner, owner)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(place)
}

/// Puts a program in the volume, in place of whatever has its name.
pub fn program(root: &Path, path: &str, bytes: &[u8], owner: Option<u32>) -> io::Result<()> {
    let (folder, name) = path.rsplit_once('/').ok_or(io::ErrorKind::InvalidInput)?;
    let place = directory(root, folder, owner)?.join(name);
    // What is written first may have become a link too.
    match fs::remove_file(place.with_extension("new")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_whole(&place, bytes)?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o700))?;
    lchown(&place, owner, owner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_that_an_instance_left_lead_nowhere() {
        let (root, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        program(root.path(), "var/lib/data", b"one", None).unwrap();
        fs::remove_file(root.path().join("var/lib/data")).unwrap();
        fs::write(host.path().join("file"), "the host's").unwrap();
        symlink(host.path().join("file"), root.path().join("var/lib/data.new")).unwrap();
        symlink(host.path().join("file"), root.path().join("var/lib/data")).unwrap();
        program(root.path(), "var/lib/data", b"two", None).unwrap();
        assert_eq!(fs::read(root.path().join("var/lib/data")).unwrap(), b"two");
        assert_eq!(fs::read(host.path().join("file")).unwrap(), b"the host's");
        symlink(host.path(), root.path().join("media")).unwrap();
        let told = directory(root.path(), "media/sdf", None).unwrap_err().to_string();
        assert_eq!(told, "/media in the root volume is no directory");
        assert!(!host.path().join("sdf").exists());
    }
}
