//! What is in images: those that ship have programs of the host and for some a boot script, others are snapshots.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use gureum_model::id::SnapshotId;
use gureum_node_domain::spec::ImageSpec;

use super::volumes::Contents;
use crate::{bootable::BOOT_SCRIPT, snapshots::Snapshots};

/// An image whose instances run the host's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Files in the root volume, from its top, with their contents and whether they are programs.
    pub files: &'static [File],
    /// Who logs in by SSH.
    pub user: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    pub path: &'static str,
    pub text: &'static str,
    pub program: bool,
}

/// The user of the original's own images.
const AMAZON: &str = "ec2-user";

const PLAIN: Image = Image { files: &[], user: AMAZON };

const WEB: Image = Image {
    files: &[
        File { path: "var/www/html/index.html", text: include_str!("../../images/web/index.html"), program: false },
        File { path: BOOT_SCRIPT, text: include_str!("../../images/web/boot"), program: true },
    ],
    user: AMAZON,
};

/// The distributions' names stand for what the host has: their instances run its programs too.
/// Each has the user that the distribution's images have.
const WITH_PROGRAMS_OF_THE_HOST: [(&str, &str); 5] = [
    ("amazon-linux-", "ec2-user"),
    ("ubuntu-", "ubuntu"),
    ("debian-", "admin"),
    ("gureum-shell", "ec2-user"),
    ("gureum-python", "ec2-user"),
];

/// What an image that ships has in it.
fn find(source: &str) -> Option<Image> {
    if source.starts_with("gureum-web") {
        return Some(WEB);
    }
    let known = WITH_PROGRAMS_OF_THE_HOST.iter().find(|(prefix, _)| source.starts_with(prefix));
    known.map(|(_, user)| Image { user, ..PLAIN })
}

/// What a root volume of this size has in it at first.
///
/// # Errors
/// The image is none that ships, and no snapshot of it is on this host.
pub fn contents<'a>(image: &ImageSpec, size_gib: u32, snapshots: &'a Snapshots) -> io::Result<Contents<'a>> {
    let source = image.source.as_str();
    if let Ok(id) = source.parse::<SnapshotId>() {
        return Ok(Contents::Snapshot { snapshots, id, size_gib });
    }
    let absent = || io::Error::other(format!("the contents of image {} (\"{source}\") are not on this node", image.id));
    find(source).map(Contents::Image).ok_or_else(absent)
}

/// Who logs in by SSH: the user of the image that ships, or of the one of which this root volume was made.
pub fn user(source: &str, root: &Path) -> &'static str {
    let shipped = find(source).map(|image| image.user);
    let of_home = || WITH_PROGRAMS_OF_THE_HOST.iter().map(|(_, user)| *user).find(|user| root.join("home").join(user).is_dir());
    shipped.or_else(of_home).unwrap_or(AMAZON)
}

/// The boot script of a root volume, from its top.
pub fn boot_script(root: &Path) -> Option<PathBuf> {
    let found = fs::symlink_metadata(within(root, BOOT_SCRIPT)?).ok()?;
    found.is_file().then(|| PathBuf::from(BOOT_SCRIPT))
}

/// Whether a root volume has programs of its own, and does not need the host's.
pub fn is_whole(root: &Path) -> bool {
    within(root, "bin/sh").is_some_and(|shell| fs::symlink_metadata(shell).is_ok())
}

/// A file of a root volume. Directories may be links to others at its top, as /bin is to /usr/bin, but lead nowhere else.
fn within(root: &Path, path: &str) -> Option<PathBuf> {
    let (folder, name) = path.rsplit_once('/')?;
    let mut place = root.to_owned();
    for part in Path::new(folder).components() {
        place.push(part);
        if let Ok(target) = fs::read_link(&place) {
            let target = target.strip_prefix("/").unwrap_or(&target).to_owned();
            let plain = target.components().all(|part| matches!(part, std::path::Component::Normal(_)));
            place = root.join(Some(target).filter(|_| plain)?);
        }
        // What it leads to is a directory, and no link to another.
        fs::symlink_metadata(&place).ok().filter(fs::Metadata::is_dir)?;
    }
    Some(place.join(name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_root_volume_is_whole_if_it_has_a_shell_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        symlink("usr/bin", root.join("bin")).unwrap();
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        assert!(!is_whole(root), "the host's programs are shown there");
        symlink("/bin/busybox", root.join("usr/bin/sh")).unwrap();
        assert!(is_whole(root));
        fs::remove_file(root.join("bin")).unwrap();
        symlink("/usr/bin", root.join("bin")).unwrap();
        assert!(is_whole(root), "a link is within the volume");
        fs::remove_file(root.join("bin")).unwrap();
        symlink("../../../../usr/bin", root.join("bin")).unwrap();
        assert!(!is_whole(root), "one that leads out is none");
    }

    #[test]
    fn a_boot_script_is_a_file_of_the_volume_itself() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(boot_script(root), None);
        fs::create_dir_all(root.join("etc/gureum")).unwrap();
        symlink("/etc/passwd", root.join(BOOT_SCRIPT)).unwrap();
        assert_eq!(boot_script(root), None);
        fs::remove_file(root.join(BOOT_SCRIPT)).unwrap();
        fs::write(root.join(BOOT_SCRIPT), "#!/bin/sh").unwrap();
        assert_eq!(boot_script(root), Some(BOOT_SCRIPT.into()));
    }
}
