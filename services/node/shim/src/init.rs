//! Process 1 of an instance: its file system, its boot, its power switch, and the reaping of what others leave.
//!
//! It ends when the instance does, and the kernel ends with it whatever still runs in the instance.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, dup2_stderr, sethostname},
};
use serde::{Deserialize, Serialize};

use crate::{
    Doing, Failure, RUN, SHIM, bare,
    control::Lines,
    ending,
    limits::{self, EachProcess},
    network::Network,
    protocol::{Confinement, LimitedBy, Plan},
    root,
    session::{Exit, Inside, SessionRequest, SessionTold, User},
    ssh,
};

/// What the shim tells process 1, as a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// First of all, to the process that becomes the parent of process 1: its ids are mapped, and this is its network.
    Mapped {
        network: Network,
    },
    Boot {
        plan: Box<Plan>,
        limited_by: LimitedBy,
    },
    /// Everything gets SIGTERM, and the instance ends when nothing runs any more.
    Shutdown,
    /// A program is to be run for somebody; what is told of it has this number.
    OpenSession {
        number: u64,
        request: SessionRequest,
    },
    /// A session's processes get a signal, by its number.
    SignalSession {
        number: u64,
        signal: i32,
    },
    /// Whoever asked for a session has gone.
    HangUp {
        number: u64,
    },
}

/// What process 1 tells the shim, as a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// The parent of process 1 has left the host's namespaces.
    Unshared,
    /// It boots: its file system is there and its programs are being started.
    Up,
    Failed {
        message: String,
    },
    /// A script of the boot ended. What it wrote was written before.
    Ended {
        script: Script,
        code: i32,
    },
    /// The instance wants to be off.
    PowerOff,
    /// The instance wants to come up again.
    Reboot,
    /// What came of a session; so many open files go with it.
    Session {
        number: u64,
        told: SessionTold,
        files: usize,
    },
}

/// What process 1 is the first of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// Namespaces of the instance's own, which end with it.
    Namespaces,
    /// Nothing: it is a process of the host like any other.
    Host,
}

/// Where an instance's programs are, and as whom.
pub struct House {
    /// The top of what a boot's paths are in.
    pub top: PathBuf,
    pub environment: Vec<(String, String)>,
    /// Whom sessions run as, whoever is asked for; none: whom `/etc/passwd` knows.
    pub only_user: Option<User>,
    /// What holds each program, if no group holds them all.
    pub limits: Option<EachProcess>,
}

/// What is written to the console for the machine itself.
pub fn note(text: &str) {
    println!("[gureum] {text}");
}

/// Scripts of a boot, one after another.
struct Boot {
    /// What is run next, last first.
    waiting: Vec<(Script, String)>,
    running: Option<(Script, Pid)>,
    house: House,
    /// Where user data writes: the shim tells it from what others write.
    output_of_user_data: OwnedFd,
}

/// What is run at a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Script {
    OfImage,
    UserData,
}

impl Script {
    pub fn name(self) -> &'static str {
        match self {
            Self::OfImage => "boot script",
            Self::UserData => "user data",
        }
    }
}

/// What a shell says of a script that it cannot run.
const CANNOT_BE_RUN: u8 = 127;
/// What a shell adds to the number of the signal that ended a process.
const BY_SIGNAL: i32 = 128;

pub fn run(_: &Path) -> Result<ExitCode, Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL).doing(|| "asking to end with the shim".into())?;
    serve(Ground::Namespaces)
}

/// Serves the shim until the instance ends.
pub fn serve(ground: Ground) -> Result<ExitCode, Failure> {
    let signals = signals();
    signals.thread_block().doing(|| "taking signals".into())?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).doing(|| "taking signals".into())?;
    let stream: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned().doing(|| "taking the shim's stream".into())?;
    let mut shim = Lines::new(UnixStream::from(stream)).doing(|| "taking the shim's stream".into())?;
    // It is the pipe for user data. All others write where process 1 writes.
    let user_data = std::io::stderr().as_fd().try_clone_to_owned().doing(|| "taking the console".into())?;
    dup2_stderr(std::io::stdout()).doing(|| "taking the console".into())?;
    let mut boot: Option<Boot> = None;
    let mut sessions = Inside::default();
    if ground == Ground::Host {
        // Nothing else is to be done before it may boot.
        let _ = shim.write(&Told::Unshared);
    }
    loop {
        let mut waited = [PollFd::new(shim.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waited, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).doing(|| "waiting".into()),
        }
        // Without its shim nobody would know of the instance any more.
        let Some(orders) = shim.read::<Order>() else { return Ok(ending::abandon(ground)) };
        for order in orders {
            match order {
                Order::Boot { plan, limited_by } => match begin(ground, &plan, limited_by, &user_data) {
                    Ok(begun) => {
                        let _ = shim.write(&Told::Up);
                        boot = Some(begun);
                    }
                    Err(failure) => {
                        let _ = shim.write(&Told::Failed { message: failure.to_string() });
                        return Ok(ExitCode::FAILURE);
                    }
                },
                Order::Mapped { .. } => {}
                Order::Shutdown => return ending::shut_down(ground, &sessions, &mut shim),
                Order::OpenSession { number, request } => {
                    if let Some(boot) = &boot {
                        sessions.open(number, &request, &boot.house, &mut shim);
                    }
                }
                Order::SignalSession { number, signal } => sessions.signal(number, signal),
                Order::HangUp { number } => sessions.hang_up(number),
            }
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            match i32::try_from(signal.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGTERM | Signal::SIGINT) => drop(shim.write(&Told::Reboot)),
                Some(Signal::SIGUSR1 | Signal::SIGUSR2 | Signal::SIGPWR) => drop(shim.write(&Told::PowerOff)),
                _ => {}
            }
        }
        while let Some((pid, exit)) = reap(Some(WaitPidFlag::WNOHANG)) {
            sessions.ended(pid, exit, &mut shim);
            if let Some(boot) = &mut boot {
                boot.ended(pid, exit.code, &mut shim);
            }
        }
        if let Some(boot) = &mut boot {
            boot.go_on(&mut shim);
        }
    }
}

/// Those that mean something to process 1, as to the inits of BusyBox and sysvinit.
fn signals() -> SigSet {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGPWR, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals
}

fn begin(ground: Ground, plan: &Plan, limited_by: LimitedBy, user_data: &OwnedFd) -> Result<Boot, Failure> {
    let output_of_user_data = user_data.try_clone().doing(|| "taking the console".into())?;
    let mut house = match ground {
        Ground::Namespaces => enter_own(plan)?,
        Ground::Host => bare::enter(plan)?,
    };
    house.limits = (limited_by == LimitedBy::Rlimit).then(|| EachProcess::of(plan.limits, plan.confinement != Confinement::Nothing));
    let mut waiting = Vec::new();
    for (script, path) in [(Script::UserData, &plan.user_data), (Script::OfImage, &plan.boot_script)] {
        let Some(path) = path else { continue };
        let path = house.top.join(path);
        if !path.is_file() {
            let error = io::Error::from(io::ErrorKind::NotFound);
            return Err(Failure::System { doing: format!("the {} {}", script.name(), path.display()), error });
        }
        waiting.push((script, path.to_string_lossy().into_owned()));
    }
    if let Some(login) = &plan.login {
        match ground {
            Ground::Namespaces => match ssh::start(login, plan.first_id.is_some(), house.limits) {
                Ok(why_not) => why_not.iter().for_each(|reason| note(reason)),
                Err(error) => note(&format!("nobody can log in by ssh: {error}")),
            },
            Ground::Host if login.public_key.is_some() => note("nobody can log in by ssh without namespaces: use gureum connect"),
            Ground::Host => {}
        }
    }
    house.environment.extend(plan.environment.iter().cloned());
    Ok(Boot { waiting, running: None, house, output_of_user_data })
}

/// Makes the machine that the instance's namespaces are.
fn enter_own(plan: &Plan) -> Result<House, Failure> {
    sethostname(&plan.hostname).doing(|| format!("taking the name {}", plan.hostname))?;
    root::enter(plan)?;
    let fixed = [("PATH", root::PATH), ("HOME", "/root"), ("USER", "root"), ("LOGNAME", "root"), ("SHELL", "/bin/sh"), ("LANG", "C.UTF-8")];
    let environment = fixed.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok(House { top: "/".into(), environment, only_user: None, limits: None })
}

impl Boot {
    /// Starts what is next, unless something runs.
    fn go_on(&mut self, shim: &mut Lines) {
        while self.running.is_none() {
            let Some((script, path)) = self.waiting.pop() else { return };
            match self.start(script, &path) {
                Ok(pid) => self.running = Some((script, pid)),
                Err(error) => {
                    self.note_of(script, &format!("the {} {path} cannot be run: {error}", script.name()));
                    tell(script, CANNOT_BE_RUN.into(), shim);
                }
            }
        }
    }

    /// A note where the script's own output goes, so that it is among its last lines.
    fn note_of(&self, script: Script, text: &str) {
        match (script, self.output_of_user_data.try_clone()) {
            (Script::UserData, Ok(output)) => drop(writeln!(File::from(output), "[gureum] {text}")),
            (Script::OfImage, _) | (Script::UserData, Err(_)) => note(text),
        }
    }

    fn ended(&mut self, pid: Pid, code: i32, shim: &mut Lines) {
        if let Some((script, _)) = self.running.take_if(|(_, running)| *running == pid) {
            tell(script, code, shim);
        }
    }

    fn start(&self, script: Script, path: &str) -> io::Result<Pid> {
        let environment = self.house.environment.iter().map(|(name, value)| (name, value));
        let mut command = Command::new("/proc/self/exe");
        let limits = limits::argument(self.house.limits);
        command.args([SHIM, RUN, &limits, path]).env_clear().envs(environment).current_dir(self.house.top.join("root"));
        command.stdin(Stdio::null()).process_group(0);
        if script == Script::UserData {
            command.stdout(self.output_of_user_data.try_clone()?).stderr(self.output_of_user_data.try_clone()?);
        }
        // It is reaped by its number, with all others.
        let child = command.spawn()?;
        i32::try_from(child.id()).map(Pid::from_raw).map_err(io::Error::other)
    }
}

/// Is a program that process 1 starts. What blocks signals for process 1 would block them in all that it starts, and
/// opening them up for a moment there would lose one that comes in it.
pub fn become_program(limits: &OsStr, program: &OsStr) -> Result<ExitCode, Failure> {
    SigSet::empty().thread_set_mask().doing(|| "unblocking signals".into())?;
    limits::apply(limits)?;
    let error = Command::new(program).exec();
    note(&format!("{} cannot be run: {error}", program.to_string_lossy()));
    Ok(ExitCode::from(CANNOT_BE_RUN))
}

fn tell(script: Script, code: i32, shim: &mut Lines) {
    // If the shim does not hear it, it has gone, which ends the instance.
    let _ = shim.write(&Told::Ended { script, code });
}

/// One process that has ended, and how. None: none has, or with no flags, there is none left.
pub fn reap(flags: Option<WaitPidFlag>) -> Option<(Pid, Exit)> {
    loop {
        match waitpid(Pid::from_raw(-1), flags) {
            Ok(WaitStatus::Exited(pid, code)) => return Some((pid, Exit { code, signal: None })),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                let signal = signal as i32;
                return Some((pid, Exit { code: BY_SIGNAL + signal, signal: Some(signal) }));
            }
            Ok(WaitStatus::StillAlive) => return None,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}
