//! The file system that an instance sees.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statvfs::{FsFlags, statvfs},
    unistd::pivot_root,
};

use crate::{Doing, Failure, commands, network::forward::RESOLVER, protocol::Plan};

/// Directories of the host's programs, shown read-only where an image has no file system of its own.
const PROGRAMS: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// What those programs look for beside themselves.
const SETTINGS: [&str; 9] = [
    "etc/alternatives",
    "etc/ssl",
    "etc/ld.so.cache",
    "etc/ld.so.conf",
    "etc/ld.so.conf.d",
    "etc/mime.types",
    "etc/protocols",
    "etc/services",
    "etc/terminfo",
];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Where the instance's own commands are: first on its PATH.
pub const COMMANDS: &str = "/opt/gureum/bin";
pub const PATH_OF_HOST: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
pub const PATH: &str = "/opt/gureum/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const NONE: Option<&str> = None;
pub const INERT: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Makes the current directory, which is the root volume, the root of all that process 1 and its children see.
///
/// It is entered before anything is made in it: what an instance left there may be links, and followed from outside they
/// would lead into the host. The host's file system is meanwhile at a place in it whose name nobody within can know.
pub fn enter(plan: &Plan) -> Result<(), Failure> {
    let host = at_unknown_place().doing(|| "making a place for the host's file system".into())?;
    pivot_root(".", &host).doing(|| "entering the root volume".into())?;
    std::env::set_current_dir("/").doing(|| "entering /".into())?;
    let filled = fill(plan, &Path::new("/").join(&host));
    let left = umount2(&host, MntFlags::MNT_DETACH).doing(|| "leaving the host's file system".into());
    let _ = fs::remove_dir(&host);
    filled.and(left)
}

/// Names of the places in which the host's file system is while a root volume is filled.
const HOST: &str = ".host-";

/// An empty directory in the root volume, in the current one. Those are removed that an interrupted boot has left.
fn at_unknown_place() -> io::Result<PathBuf> {
    for entry in fs::read_dir(".")?.filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with(HOST) {
            // One in which something is was made by the instance.
            let _ = fs::remove_dir(entry.path());
        }
    }
    let mut unknown = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut unknown)?;
    let place = PathBuf::from(format!("{HOST}{:032x}", u128::from_ne_bytes(unknown)));
    fs::create_dir(&place)?;
    Ok(place)
}

fn fill(plan: &Plan, host: &Path) -> Result<(), Failure> {
    for name in ["proc", "dev", "etc", "opt/gureum/bin", "root", "run", "tmp", "var/log", "var/tmp", "home"] {
        fs::create_dir_all(name).doing(|| format!("making /{name} in the root volume"))?;
    }
    for name in ["tmp", "var/tmp"] {
        let _ = fs::set_permissions(name, Permissions::from_mode(0o1777));
    }
    if !plan.whole {
        PROGRAMS.iter().try_for_each(|name| show_program_directory(host, name))?;
        SETTINGS.iter().try_for_each(|name| show(host, name))?;
    }
    files(plan).doing(|| "writing /etc in the root volume".into())?;
    mount(Some("proc"), "proc", Some("proc"), INERT, NONE).doing(|| "mounting /proc".into())?;
    mount(Some("tmpfs"), "run", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755,size=64m"))
        .doing(|| "mounting /run".into())?;
    devices(host)
}

/// Shows a directory of programs as the host has it: as itself, or as a link to another.
fn show_program_directory(host: &Path, name: &str) -> Result<(), Failure> {
    match fs::read_link(host.join(name)) {
        Ok(_) if fs::symlink_metadata(name).is_ok() => Ok(()),
        Ok(target) => symlink(target, name).doing(|| format!("linking /{name}")),
        Err(_) => show(host, name),
    }
}

/// Shows a file or directory of the host, read-only.
fn show(host: &Path, name: &str) -> Result<(), Failure> {
    let host = host.join(name);
    let Ok(metadata) = fs::metadata(&host) else { return Ok(()) };
    let place = if metadata.is_dir() { fs::create_dir_all(name) } else { touch(name) };
    place.doing(|| format!("making /{name} in the root volume"))?;
    mount(Some(&host), name, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE).doing(|| format!("showing the host's /{name}"))?;
    // What is locked by the host's mount has to be said again.
    let held = statvfs(name).map(|found| held_flags(found.flags())).unwrap_or(MsFlags::empty());
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | held;
    mount(NONE, name, NONE, flags, NONE).doing(|| format!("showing the host's /{name} read-only"))
}

fn held_flags(found: FsFlags) -> MsFlags {
    let pairs = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    pairs.into_iter().filter(|(has, _)| found.contains(*has)).fold(MsFlags::empty(), |flags, (_, flag)| flags | flag)
}

fn devices(host: &Path) -> Result<(), Failure> {
    mount(Some("tmpfs"), "dev", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, Some("mode=755,size=1m"))
        .doing(|| "mounting /dev".into())?;
    for name in DEVICES {
        let place = format!("dev/{name}");
        touch(&place).doing(|| format!("making /{place}"))?;
        mount(Some(&host.join(&place)), place.as_str(), NONE, MsFlags::MS_BIND, NONE).doing(|| format!("showing the host's /{place}"))?;
    }
    for name in ["dev/pts", "dev/shm"] {
        fs::create_dir(name).doing(|| format!("making /{name}"))?;
    }
    let terminals = Some("newinstance,ptmxmode=0666,mode=0620");
    mount(Some("devpts"), "dev/pts", Some("devpts"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, terminals)
        .doing(|| "mounting /dev/pts".into())?;
    mount(Some("tmpfs"), "dev/shm", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=1777"))
        .doing(|| "mounting /dev/shm".into())?;
    let links = [
        ("pts/ptmx", "ptmx"),
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
    ];
    links.iter().try_for_each(|(to, name)| symlink(to, Path::new("dev").join(name))).doing(|| "linking in /dev".into())
}

fn touch(name: &str) -> io::Result<()> {
    if Path::new(name).exists() { Ok(()) } else { File::create(name).map(drop) }
}

/// What is the machine's own in the root volume, written at every boot; what a user may have changed is left alone.
fn files(plan: &Plan) -> io::Result<()> {
    // What a person at a terminal edits lines in, where there is one.
    let shell = if Path::new("bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
    let passwd = format!("root:x:0:0:root:/root:{shell}\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
    let once = [
        ("etc/passwd", passwd.as_str()),
        ("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ];
    for (name, text) in once {
        if !Path::new(name).exists() {
            fs::write(name, text)?;
        }
    }
    fs::write("etc/hostname", format!("{}\n", plan.hostname))?;
    let primary = plan.network.interfaces.first().and_then(|interface| interface.private_addresses.first());
    let own = primary.map_or_else(|| "127.0.1.1".to_owned(), ToString::to_string);
    fs::write("etc/hosts", format!("127.0.0.1 localhost\n{own} {}\n", plan.hostname))?;
    fs::write("etc/resolv.conf", format!("nameserver {RESOLVER}\n"))?;
    commands::write(Path::new(COMMANDS.trim_start_matches('/')), 1, Path::new("/run"))
}
