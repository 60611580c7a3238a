//! Sizes of volumes, where the host's file system has project quotas: ext4 and f2fs that are mounted with `prjquota`, xfs
//! with `pquota`, and this process is root.
//!
//! A volume's directory has a project of its own, which all that is made in it inherits, and the project a limit. What asks
//! for more gets "Disk quota exceeded", or of xfs "No space left on device", and nobody else's space goes. Within, `df` shows
//! the size of the volume. The limits are set by the host's `chattr` (e2fsprogs) and `setquota` (quota), for what the kernel
//! offers cannot be called by safe code.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
};

const FILE_SYSTEMS: [&str; 3] = ["ext4", "f2fs", "xfs"];
const OPTIONS: [&str; 2] = ["prjquota", "pquota"];
/// A project's number is that of its directory's inode and this: no two volumes of a file system have the same, whatever
/// region they are of, and an operator's own projects have smaller ones.
const FIRST_PROJECT: u64 = 1 << 31;
/// KiB of a GiB, in which limits are told.
const GIB: u64 = 1 << 20;

/// Sets limits on one file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    mount: String,
}

impl Quota {
    /// If limits are kept where volumes are: found by setting one.
    pub fn find(volumes: &Path) -> Option<Self> {
        let device = fs::metadata(volumes).ok()?.dev();
        let mount = mounted(&fs::read_to_string("/proc/self/mountinfo").ok()?, device)?;
        let quota = Self { mount };
        let tried = project_of(volumes).and_then(|project| quota.set(project, GIB).and_then(|()| quota.set(project, 0)));
        match tried {
            Ok(()) => Some(quota),
            Err(error) => {
                tracing::info!(mount = quota.mount, %error, "this file system has project quotas, and sizes of volumes cannot be set");
                None
            }
        }
    }

    /// Lets an empty directory hold so much at most.
    pub fn limit(&self, directory: &Path, size_gib: u32) -> io::Result<()> {
        let project = project_of(directory)?;
        self.set(project, u64::from(size_gib) * GIB)?;
        run(Command::new("chattr").args(["+P", "-p", &project.to_string()]).arg(directory))
    }

    /// Forgets the limit of a project whose directory is gone. One that stays harms nobody: who has its number next sets his own.
    pub fn forget(&self, project: u32) {
        if let Err(error) = self.set(project, 0) {
            tracing::debug!(project, %error, "the limit of a volume that is gone stays");
        }
    }

    fn set(&self, project: u32, kib: u64) -> io::Result<()> {
        run(Command::new("setquota").args(["-P", &project.to_string(), "0", &kib.to_string(), "0", "0", &self.mount]))
    }
}

/// The project that a directory has, or is to have.
pub fn project_of(directory: &Path) -> io::Result<u32> {
    let inode = fs::symlink_metadata(directory)?.ino();
    let project = inode.checked_add(FIRST_PROJECT).and_then(|project| u32::try_from(project).ok());
    project.ok_or_else(|| io::Error::other(format!("the inode {inode} of {} has no project: it is too large", directory.display())))
}

/// Where a device is mounted whole, with project quotas (`proc_pid_mountinfo(5)`).
fn mounted(mounts: &str, device: u64) -> Option<String> {
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    mounts.lines().rev().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let (mount, file_system): (Vec<&str>, Vec<&str>) = (mount.split(' ').collect(), file_system.split(' ').collect());
        let ([_, _, number, root, place, ..], [kind, _, options]) = (mount.as_slice(), file_system.as_slice()) else { return None };
        let has_quota = options.split(',').any(|option| OPTIONS.contains(&option));
        // A place with signs in it that are written otherwise is not one that a quota is usually set on.
        let plain = *root == "/" && !place.contains('\\');
        (*number == device && plain && FILE_SYSTEMS.contains(kind) && has_quota).then(|| (*place).to_owned())
    })
}

fn run(command: &mut Command) -> io::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output();
    let output = output.map_err(|error| io::Error::new(error.kind(), format!("{program} cannot be run: {error}; install it")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_with_project_quotas_is_found() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            30 22 8:2 / /srv rw - ext4 /dev/sda2 rw,prjquota\n\
            31 22 8:2 /a /bound rw - ext4 /dev/sda2 rw,prjquota\n\
            32 22 8:3 / /data rw - xfs /dev/sda3 rw,attr2,prjquota\n\
            33 22 8:4 / /with\\040blank rw - ext4 /dev/sda4 rw,prjquota\n";
        let at = |minor| mounted(mounts, rustix::fs::makedev(8, minor));
        assert_eq!([1, 2, 3, 4, 5].map(at), [None, Some("/srv".into()), Some("/data".into()), None, None]);
    }

    const LIMITED_DISK: &str = "GUREUM_TEST_LIMITED_DISK";

    #[test]
    fn a_volume_that_is_full_takes_nothing_of_others() {
        use crate::{
            process::{Places, volumes},
            snapshots::owner,
        };

        let Some(disk) = std::env::var_os(LIMITED_DISK) else {
            // Once more, with a disk that nobody else sees, which is made in a file.
            let folder = tempfile::tempdir().unwrap();
            let name = "process::quota::tests::a_volume_that_is_full_takes_nothing_of_others";
            let script = "truncate -s 4G \"$1/image\" && mkfs.ext4 -q -O quota,project -E quotatype=prjquota \"$1/image\" &&
                mkdir \"$1/disk\" && mount -o loop,prjquota \"$1/image\" \"$1/disk\" && command -v setquota || exit 77
                exec \"$2\" --exact \"$3\" --nocapture";
            let mut again = Command::new("unshare");
            again.args(["--mount", "sh", "-c", script, "sh"]).arg(folder.path()).arg(std::env::current_exe().unwrap()).arg(name);
            match again.env(LIMITED_DISK, folder.path().join("disk")).output() {
                Ok(ran) if ran.status.success() => assert!(String::from_utf8_lossy(&ran.stdout).contains("1 passed"), "{ran:?}"),
                Ok(ran) if ran.status.code() == Some(101) => panic!("{}", String::from_utf8_lossy(&ran.stderr)),
                ran => println!("not tried: this host has no project quotas, or no setquota: {ran:?}"),
            }
            return;
        };
        let volumes = Path::new(&disk).join("volumes");
        fs::create_dir(&volumes).unwrap();
        let quota = Quota::find(&volumes);
        assert!(quota.is_some(), "it has quotas");
        let places = Places { instances: volumes.clone(), snapshots: volumes.clone(), volumes, quota };
        let make = |id| volumes::make(&places, id, 1, volumes::Contents::Nothing, Some(owner::FIRST)).unwrap();
        let (full, other) = (make("full"), make("other"));
        // As root of an instance: the host's own is bound by no quota.
        let fill = |volume: &Path, size: &str| {
            let user = owner::FIRST.to_string();
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &user, "--clear-groups", "fallocate", "-l", size]).arg(volume.join("file"));
            let output = command.output().unwrap();
            (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (taken, said) = fill(&full, "1100M");
        assert!(!taken && said.contains("quota exceeded"), "{said}");
        assert_eq!(fill(&other, "900M"), (true, String::new()));
        let size = rustix::fs::statvfs(&other).unwrap();
        assert_eq!(size.f_blocks * size.f_frsize, 1 << 30);
        // Another volume may be made in its place, of its inode.
        volumes::remove(&places, "full").unwrap();
        assert_eq!(fill(&make("again"), "900M"), (true, String::new()));
    }
}
