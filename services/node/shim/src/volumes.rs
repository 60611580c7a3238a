//! Volumes that an instance sees beside its root: mounted at its boot, and while it runs.
//!
//! ```text
//!  node ──► plug    enters the instance's user and mount namespaces, and mounts there what it got
//!            └─ tree  leaves the host's namespaces, and takes the volume's directory out of what is mounted there
//! ```
//!
//! Nobody can mount a directory of the host within an instance by its path: the host's file system is not there any more.
//! A mount that stands nowhere yet can be handed over, though, and whoever is root in namespaces of his own can make one
//! of what he sees: so that no root of the host's is needed for it.

use std::{
    fs::{self, File},
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::MetadataExt, net::UnixStream},
    },
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::prctl,
    sys::signal::Signal,
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg},
};

use crate::{
    Doing, Failure, SHIM, TREE,
    protocol::{Plan, STATE_FILE, State, read_json},
};

/// Where volumes are within an instance.
pub const MEDIA: &str = "media";
/// The exit code of who could not take a volume away because programs use it.
pub const BUSY: u8 = 3;

/// Mounts volumes in the root volume, which is the current directory, whose places the node has made there. Whoever calls
/// this sees the host's file system, and has left its namespaces. An instance that has removed such a place comes up without
/// the volume, and says so.
pub fn mount_all(plan: &Plan) {
    let none: Option<&str> = None;
    for volume in &plan.volumes {
        let place = Path::new(MEDIA).join(&volume.name);
        if let Err(error) = mount(Some(&volume.directory), &place, none, MsFlags::MS_BIND, none) {
            println!("[gureum] the volume {} cannot be mounted at /{}: {error}", volume.id, place.display());
        }
    }
}

/// Mounts a directory of the host within the instance that runs. That it is there already is no error.
pub fn plug(instance: &Path, name: &str, directory: &Path) -> Result<ExitCode, Failure> {
    let place = Path::new("/").join(MEDIA).join(name);
    let tree = tree_of(directory)?;
    enter(instance)?;
    fs::create_dir_all(&place).doing(|| format!("making {}", place.display()))?;
    let (given, there) = (File::from(tree), fs::metadata(&place).doing(|| format!("looking at {}", place.display()))?);
    let wanted = given.metadata().doing(|| format!("looking at {}", directory.display()))?;
    if (wanted.dev(), wanted.ino()) == (there.dev(), there.ino()) {
        return Ok(ExitCode::SUCCESS);
    }
    move_mount(&given, "", CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).doing(|| format!("mounting at {}", place.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Takes a volume away from the instance that runs; by force, also where programs use it. That it is gone is no error.
pub fn unplug(instance: &Path, name: &str, force: bool) -> Result<ExitCode, Failure> {
    let place = Path::new("/").join(MEDIA).join(name);
    enter(instance)?;
    let how = MntFlags::UMOUNT_NOFOLLOW | if force { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    match umount2(&place, how) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
        Err(nix::errno::Errno::EBUSY) => return Ok(ExitCode::from(BUSY)),
        Err(error) => return Err(error).doing(|| format!("unmounting {}", place.display())),
    }
    // Whoever has put something there keeps it.
    let _ = fs::remove_dir(&place);
    Ok(ExitCode::SUCCESS)
}

/// Is in the instance's namespaces from here on, as its root.
fn enter(instance: &Path) -> Result<(), Failure> {
    let path = instance.join(STATE_FILE);
    let state: State = read_json(&path).doing(|| format!("reading {}", path.display()))?.ok_or(Failure::Usage)?;
    let gone = || std::io::Error::other("the instance does not run");
    let init = state.init.filter(|init| init.lives()).ok_or_else(gone).doing(|| "entering the instance".into())?;
    let open = |name: &str| File::open(format!("/proc/{}/ns/{name}", init.pid)).doing(|| format!("entering the instance ({name})"));
    let (user, mounts) = (open("user")?, open("mnt")?);
    // The number may have become another process's between the two.
    Some(init).filter(|init| init.lives()).ok_or_else(gone).doing(|| "entering the instance".into())?;
    setns(&user, CloneFlags::CLONE_NEWUSER).doing(|| "entering the instance's user namespace".into())?;
    setns(&mounts, CloneFlags::CLONE_NEWNS).doing(|| "entering the instance's mount namespace".into())?;
    // Not allowed to who may map himself alone, and has no others.
    let _ = setgroups(&[]);
    let (group, user) = (Gid::from_raw(0), Uid::from_raw(0));
    setresgid(group, group, group).doing(|| "becoming root within (group)".into())?;
    setresuid(user, user, user).doing(|| "becoming root within".into())
}

/// A mount of a directory that stands nowhere: from a process that has left the host's namespaces for it.
fn tree_of(directory: &Path) -> Result<OwnedFd, Failure> {
    let (ours, theirs) = UnixStream::pair().doing(|| "making a stream".into())?;
    let mut command = Command::new("/proc/self/exe");
    command.args([SHIM, TREE]).arg(directory).env_clear().stdin(Stdio::from(OwnedFd::from(theirs)));
    let mut child = command.spawn().doing(|| "starting who takes the volume's directory".into())?;
    // Or it would never be seen that there is nobody else at the other end.
    drop(command);
    let received = receive(&ours);
    let _ = child.wait();
    received.doing(|| format!("taking the volume's directory {}", directory.display()))
}

pub fn send_tree(directory: &Path) -> Result<ExitCode, Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL).doing(|| "asking to end with who asked".into())?;
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).doing(|| "making namespaces".into())?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, directory, flags).doing(|| format!("taking the volume's directory {}", directory.display()))?;
    let handed = [tree.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&handed));
    sendmsg(std::io::stdin(), &[IoSlice::new(b"t")], &mut control, SendFlags::empty())
        .doing(|| "handing the volume's directory over".into())?;
    Ok(ExitCode::SUCCESS)
}

fn receive(stream: &UnixStream) -> std::io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut handed = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    handed.next().ok_or_else(|| std::io::Error::other("nothing was handed over; the log says why"))
}
