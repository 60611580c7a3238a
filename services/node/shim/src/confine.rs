//! The process that leaves the host's namespaces, and starts process 1 of the instance in new ones.
//!
//! It has no thread but one, as leaving a user namespace demands. Its ids are mapped by the shim, which is outside.

use std::{
    env,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns, unshare},
    sys::{prctl, signal::Signal, socket::SockProtocol},
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::{
    Doing, Failure, INIT, PROBE, SHIM,
    init::{Order, Told},
    network::{Interface, Netlink, Network, factory, forward::SWITCH_SOCKET, wiring},
    protocol::{PLAN_FILE, Plan, read_json},
    root, volumes,
};

/// Exit code of an instance whose first process was killed by a signal, less the signal's number: the shell's custom.
const KILLED: i32 = 128;

pub fn run(directory: &Path) -> Result<ExitCode, Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL).doing(|| "asking to end with the shim".into())?;
    let plan = directory.join(PLAN_FILE);
    let plan: Plan = read_json(&plan).doing(|| format!("reading {}", plan.display()))?.ok_or(Failure::Usage)?;
    // The stream to the shim is this process's standard input, and that of process 1 after it.
    let mut shim = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().doing(|| "taking the shim's stream".into())?);
    let factory = UnixStream::connect(directory.join(SWITCH_SOCKET)).doing(|| "reaching the shim's forwarder".into())?;

    leave_host()?;
    // While this process still is who may look into the state directory, which nobody within may.
    let none: Option<&str> = None;
    mount(Some(&plan.root), &plan.root, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .doing(|| format!("mounting the root volume {}", plan.root.display()))?;
    env::set_current_dir(&plan.root).doing(|| format!("entering {}", plan.root.display()))?;
    volumes::mount_all(&plan);

    let mut line = serde_json::to_vec(&Told::Unshared).map_err(std::io::Error::from).doing(|| "telling the shim".into())?;
    line.push(b'\n');
    let line = shim.write_all(&line).and_then(|()| read_line(&mut shim)).doing(|| "waiting for the ids to be mapped".into())?;
    let Order::Mapped { network } = serde_json::from_slice(&line).map_err(std::io::Error::from).doing(|| "hearing the shim".into())? else {
        return Err(Failure::Usage);
    };
    become_root(plan.first_id.is_some())?;
    // Changing ids has cleared it.
    prctl::set_pdeathsig(Signal::SIGKILL).doing(|| "asking to end with the shim".into())?;

    let switch = connect(&network, &factory).doing(|| "connecting the instance (has the kernel veth, nf_tables and its tproxy?)".into())?;
    let stream = Stdio::from(OwnedFd::from(shim));
    let mut init = Command::new("/proc/self/exe");
    let mut init = init.args([SHIM, INIT, "-"]).env_clear().stdin(stream).spawn().doing(|| "starting process 1".into())?;
    setns(switch, CloneFlags::CLONE_NEWNET).doing(|| "returning to the switch".into())?;
    serve(&init, &factory).doing(|| "making sockets of the switch".into())?;
    let status = init.wait().doing(|| "waiting for process 1".into())?;
    let code = status.code().or_else(|| status.signal().map(|signal| KILLED + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Leaves the host's namespaces. The network namespace is the switch's then; that of the instance is made beside it.
fn leave_host() -> Result<(), Failure> {
    let namespaces = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(namespaces).doing(|| "making namespaces (does the host grant user namespaces?)".into())?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).doing(|| "making the mounts private".into())
}

fn become_root(has_many_ids: bool) -> Result<(), Failure> {
    let (group, user) = (Gid::from_raw(0), Uid::from_raw(0));
    if has_many_ids {
        setgroups(&[]).doing(|| "leaving the host's groups".into())?;
    }
    setresgid(group, group, group).doing(|| "becoming root within (group)".into())?;
    setresuid(user, user, user).doing(|| "becoming root within".into())
}

/// Does what needs rights of namespaces for an instance, and nothing with them. Says when its ids can be mapped, and waits
/// until it hears that they are. `proc` is what a process within is called to be, which does [`try_proc`].
pub fn try_namespaces(has_many_ids: bool, proc: &str) -> Result<ExitCode, Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL).doing(|| "asking to end with who asked".into())?;
    leave_host()?;
    let mut output = std::io::stdout();
    output.write_all(b"u").and_then(|()| output.flush()).doing(|| "telling who asked".into())?;
    std::io::stdin().read_exact(&mut [0]).doing(|| "waiting for the ids to be mapped".into())?;
    become_root(has_many_ids)?;
    let try_network = || {
        let namespace = File::open("/proc/self/ns/net")?;
        let _switch = wiring::make_switch()?;
        let routes = Netlink::open(SockProtocol::NetlinkRoute)?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        let interface = Interface { private_addresses: vec![[10, 0, 0, 4].into()], prefix_length: 24, ..Interface::default() };
        wiring::connect(&routes, namespace.as_fd(), &[interface])
    };
    try_network().doing(|| "connecting an instance (has the kernel veth, nf_tables and its tproxy?)".into())?;
    let status = Command::new("/proc/self/exe").args([SHIM, PROBE, proc]).env_clear().status();
    let status = status.doing(|| "starting a process within".into())?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Mounts what a container's host may have closed in part, and then closes altogether.
pub fn try_proc() -> Result<ExitCode, Failure> {
    let none: Option<&str> = None;
    mount(Some("proc"), "/proc", Some("proc"), root::INERT, none).doing(|| "mounting /proc".into())?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the switch of the namespace in which this process is, enters a new one, connects both, and hands the sockets to
/// the forwarder. Answers the switch's namespace.
fn connect(network: &Network, factory: &UnixStream) -> io::Result<File> {
    let namespace = File::open("/proc/self/ns/net")?;
    let switch = wiring::make_switch()?;
    let routes = Netlink::open(SockProtocol::NetlinkRoute)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    wiring::connect(&routes, namespace.as_fd(), &network.interfaces)?;
    let listening = Netlink::open(SockProtocol::NetlinkSockDiag)?;
    // So that who is not root within may listen on low ports too: they are the instance's own.
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    let sockets = [switch.tcp.as_fd(), switch.udp.as_fd(), listening.as_fd()].into_iter().chain(switch.queue.as_ref().map(AsFd::as_fd));
    factory::send(factory.as_fd(), &[0], &sockets.collect::<Vec<_>>())?;
    Ok(namespace)
}

/// Makes sockets for the forwarder until process 1 has ended.
fn serve(init: &Child, factory: &UnixStream) -> io::Result<()> {
    let pid = i32::try_from(init.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let init = pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        let mut waited = [PollFd::new(init.as_fd(), PollFlags::POLLIN), PollFd::new(factory.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waited, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|found| !found.is_empty());
        if is_ready(&waited[0]) || (is_ready(&waited[1]) && !factory::serve(factory.as_fd())?) {
            return Ok(());
        }
    }
}

/// Reads to the end of a line and no further: what follows is for process 1.
fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while byte != *b"\n" {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(line)
}
