//! Whether something can boot from a root volume: its boot script, and where it has programs of its own, its shell.
//!
//! It is found out of the files alone, in an archive that is brought in and in a volume that is made: what would only
//! end with "not found" on a console is refused with what to do.

use std::{
    fs, io,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

/// The program that a root volume has run at every boot, if it is there.
pub const BOOT_SCRIPT: &str = "etc/gureum/boot";
/// Where the host's programs are shown in a volume that has no shell of its own.
const HOSTS: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Links on one way, as the kernel has it.
const LINKS: u32 = 40;
/// Bytes of a program that are looked at: what says how it is started stands at its beginning.
const HEAD: usize = 64 << 10;
const EXECUTABLE: u32 = 0o111;

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Directory,
    File {
        mode: u32,
    },
    Link(PathBuf),
    /// A pipe, a socket, a device.
    Other,
}

/// Files of a root volume, wherever they are. Paths are from its top and lead over no link.
pub trait Files {
    fn find(&self, path: &Path) -> Option<Found>;
    /// The first bytes of a file.
    fn head(&self, path: &Path, most: usize) -> io::Result<Vec<u8>>;
}

/// Refuses a volume whose boot script cannot be run, or that has a shell which cannot.
///
/// # Errors
/// `InvalidData`, with what to do.
pub fn check(files: &impl Files) -> io::Result<()> {
    let objection = match shell(files)? {
        Some(objection) => Some(objection),
        None => boot_script(files)?,
    };
    objection.map_or(Ok(()), |words| Err(io::Error::new(io::ErrorKind::InvalidData, words)))
}

fn has_shell(files: &impl Files) -> bool {
    // Also one that leads nowhere: the host's programs are not shown then.
    resolve(files, Path::new("bin")).is_some_and(|(bin, _)| files.find(&bin.join("sh")).is_some())
}

fn shell(files: &impl Files) -> io::Result<Option<String>> {
    if !has_shell(files) {
        return Ok(None);
    }
    Ok(match resolve(files, Path::new("bin/sh")) {
        Some((path, Found::File { mode })) if mode & EXECUTABLE != 0 => {
            let objection = program(files, &files.head(&path, HEAD)?);
            objection.map(|words| format!("its /bin/sh {words}; nothing can boot from it"))
        }
        Some(_) => Some("its /bin/sh is no program that can be run; add a shell, or leave /bin/sh out".to_owned()),
        None => Some("its /bin/sh is a link that leads nowhere; add the shell, or leave /bin/sh out".to_owned()),
    })
}

fn boot_script(files: &impl Files) -> io::Result<Option<String>> {
    let Some(path) = above(files, Path::new(BOOT_SCRIPT)) else { return Ok(None) };
    let script = match files.find(&path) {
        None => return Ok(None),
        Some(Found::File { mode }) if mode & EXECUTABLE != 0 => files.head(&path, HEAD)?,
        Some(Found::File { .. }) => return Ok(Some(format!("its boot script /{BOOT_SCRIPT} may not be run; chmod +x it"))),
        Some(_) => return Ok(Some(format!("its boot script /{BOOT_SCRIPT} is no file; put a program there, or leave it out"))),
    };
    let Some(program) = run_by(&script) else { return Ok(None) };
    let hosts = !has_shell(files) && HOSTS.iter().any(|directory| program.starts_with(directory));
    Ok(match resolve(files, &program) {
        _ if hosts => None,
        Some((_, Found::File { mode })) if mode & EXECUTABLE != 0 => None,
        Some((_, Found::File { .. })) => Some(format!("its boot script /{} may not be run; chmod +x it", program.display())),
        Some(_) => Some(format!("its boot script /{} is no file", program.display())),
        None => Some(format!("its boot script /{} is not in it", program.display())),
    })
}

/// What a boot script runs that does no more than that, as `gureum images import --boot-script` makes it.
fn run_by(script: &[u8]) -> Option<PathBuf> {
    let text = std::str::from_utf8(script).ok()?;
    let path = text.strip_prefix("#!/bin/sh\nexec /")?.strip_suffix('\n')?;
    (!path.contains([' ', '\n', '$', '\'', '"'])).then(|| PathBuf::from(path))
}

/// Why a program cannot be started, if its first bytes say so: it is for other processors, or its loader is missing.
fn program(files: &impl Files, head: &[u8]) -> Option<String> {
    let number = |at: usize, length: usize| {
        let bytes = head.get(at..at.checked_add(length)?)?;
        usize::try_from(bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))).ok()
    };
    // Only programs of 64 bits, least significant byte first, are taken apart.
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (machine, here) = (number(18, 2)?, std::env::consts::ARCH);
    let known = [(62, "x86_64"), (183, "aarch64"), (243, "riscv64")];
    if known.iter().any(|(_, name)| *name == here)
        && let Some((_, name)) = known.iter().find(|(number, name)| *number == machine && *name != here)
    {
        return Some(format!("is for {name}, and this node runs {here}; take an image for {here}"));
    }
    let (table, entry, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let interpreter = (0..count).map(|index| table + index * entry).find(|at| number(*at, 4) == Some(3))?;
    let (at, length) = (number(interpreter + 8, 8)?, number(interpreter + 32, 8)?);
    let name = head.get(at..at.checked_add(length.checked_sub(1)?)?)?;
    let loader = std::str::from_utf8(name).ok()?;
    let there = matches!(resolve(files, Path::new(loader)), Some((_, Found::File { .. })));
    (!there).then(|| format!("is started by {loader}, which is missing; add it, with the libraries of the shell"))
}

/// Where a path leads, and what is there. Links are followed within the volume.
fn resolve(files: &impl Files, path: &Path) -> Option<(PathBuf, Found)> {
    let (mut place, mut links) = (PathBuf::new(), 0);
    let mut rest: Vec<PathBuf> = parts(path);
    let mut found = Found::Directory;
    while let Some(part) = rest.pop() {
        if found != Found::Directory {
            return None;
        }
        if part == Path::new("..") {
            place.pop();
            continue;
        }
        found = files.find(&place.join(&part))?;
        match &found {
            Found::Link(target) if links < LINKS => {
                links += 1;
                if target.is_absolute() {
                    place = PathBuf::new();
                }
                rest.extend(parts(target));
                found = Found::Directory;
            }
            Found::Link(_) => return None,
            Found::Directory | Found::File { .. } | Found::Other => place.push(part),
        }
    }
    Some((place, found))
}

/// The place of a path whose directories are followed, and whose last part is not.
fn above(files: &impl Files, path: &Path) -> Option<PathBuf> {
    let (directory, found) = resolve(files, path.parent()?)?;
    (found == Found::Directory).then(|| directory.join(path.file_name().unwrap_or_default()))
}

/// What a path goes over, last first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    parts.map(|part| PathBuf::from(part.as_os_str())).rev().collect()
}

/// A root volume as a directory, in which nothing runs.
pub struct Volume<'a>(pub &'a Path);

impl Files for Volume<'_> {
    fn find(&self, path: &Path) -> Option<Found> {
        let place = self.0.join(path);
        let found = fs::symlink_metadata(&place).ok()?;
        Some(match found.file_type() {
            kind if kind.is_dir() => Found::Directory,
            kind if kind.is_symlink() => Found::Link(fs::read_link(&place).ok()?),
            kind if kind.is_file() => Found::File { mode: found.permissions().mode() },
            _ => Found::Other,
        })
    }

    fn head(&self, path: &Path, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        fs::File::open(self.0.join(path))?.take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn objection(root: &Path) -> String {
        check(&Volume(root)).err().map(|error| error.to_string()).unwrap_or_default()
    }

    fn write(root: &Path, path: &str, bytes: impl AsRef<[u8]>, mode: u32) {
        let place = root.join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, bytes).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_boot_script_that_cannot_be_run_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "srv/index.html", "", 0o644);
        assert_eq!(objection(root), "", "files alone are enough: user data runs the host's programs");
        write(root, BOOT_SCRIPT, "#!/bin/sh\nexec /start\n", 0o644);
        assert_eq!(objection(root), "its boot script /etc/gureum/boot may not be run; chmod +x it");
        write(root, BOOT_SCRIPT, "#!/bin/sh\nexec /start\n", 0o755);
        assert_eq!(objection(root), "its boot script /start is not in it");
        write(root, "start", "", 0o644);
        assert_eq!(objection(root), "its boot script /start may not be run; chmod +x it");
        write(root, "start", "", 0o755);
        assert_eq!(objection(root), "");
        write(root, BOOT_SCRIPT, "#!/bin/sh\nexec /usr/bin/python3\n", 0o755);
        assert_eq!(objection(root), "", "it is the host's");
        fs::remove_file(root.join(BOOT_SCRIPT)).unwrap();
        symlink("/start", root.join(BOOT_SCRIPT)).unwrap();
        assert!(objection(root).contains("is no file"));
    }

    #[test]
    fn a_shell_that_cannot_be_started_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        // The host's own shell, which is for this host and has a loader.
        let mut shell = fs::read("/bin/sh").unwrap();
        write(root, "usr/bin/dash", &shell, 0o755);
        symlink("usr/bin", root.join("bin")).unwrap();
        symlink("/bin/dash", root.join("usr/bin/sh")).unwrap();
        let words = objection(root);
        if let Some(loader) = words.strip_prefix("its /bin/sh is started by ").and_then(|rest| rest.split(',').next()) {
            write(root, loader.trim_start_matches('/'), "", 0o755);
        }
        assert_eq!(objection(root), "", "{words}");
        if std::env::consts::ARCH == "x86_64" {
            (shell[18], shell[19]) = (183, 0);
            write(root, "usr/bin/dash", &shell, 0o755);
            assert!(objection(root).starts_with("its /bin/sh is for aarch64, and this node runs x86_64"), "{}", objection(root));
        }
        write(root, "usr/bin/dash", "", 0o644);
        assert!(objection(root).contains("no program that can be run"));
        fs::remove_file(root.join("usr/bin/dash")).unwrap();
        assert!(objection(root).contains("leads nowhere"));
        fs::remove_file(root.join("usr/bin/sh")).unwrap();
        symlink("sh", root.join("usr/bin/sh")).unwrap();
        assert!(objection(root).contains("leads nowhere"), "a link to itself");
    }

    #[test]
    fn links_lead_nowhere_out_of_the_volume() {
        let root = tempfile::tempdir().unwrap();
        symlink("../../../../etc", root.path().join("out")).unwrap();
        assert_eq!(resolve(&Volume(root.path()), Path::new("out/passwd")), None);
        write(root.path(), "etc/passwd", "", 0o600);
        let (place, found) = resolve(&Volume(root.path()), Path::new("/out/passwd")).unwrap();
        assert_eq!(place, Path::new("etc/passwd"));
        assert!(matches!(found, Found::File { .. }));
    }
}
