//! The sessions of an instance as process 1 has them: it makes their terminals and pipes, and starts and ends their programs.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    process::{Command, Stdio},
};

use nix::{
    fcntl::OFlag,
    sys::signal::{Signal, kill, killpg},
    unistd::{Gid, Pid, Uid, fchown, pipe2},
};
use rustix::{
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use super::{
    Exit, SessionRequest, SessionTold, Terminal,
    identity::{self, User},
    program::Leader,
};
use crate::{
    SESSION, SHIM,
    control::Lines,
    init::{House, Told},
};

/// The programs of sessions, by the sessions' numbers.
#[derive(Default)]
pub struct Inside(BTreeMap<u64, Program>);

struct Program {
    pid: Pid,
    terminal: bool,
}

/// What a program reads and writes, and what its session's client does.
struct Ends {
    input: OwnedFd,
    output: OwnedFd,
    errors: OwnedFd,
    theirs: Vec<OwnedFd>,
}

impl Inside {
    /// Starts a session's program, and tells the shim.
    pub fn open(&mut self, number: u64, request: &SessionRequest, house: &House, shim: &mut Lines) {
        match start(request, house) {
            Ok((pid, theirs)) => {
                self.0.insert(number, Program { pid, terminal: request.terminal.is_some() });
                let files: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
                // A shim that does not hear it has ended, and the instance with it.
                let _ = shim.write_with(&Told::Session { number, told: SessionTold::Opened, files: files.len() }, &files);
            }
            Err(message) => {
                let _ = shim.write(&Told::Session { number, told: SessionTold::Refused { message }, files: 0 });
            }
        }
    }

    /// Sends a signal, by its number, to a session's program and the other processes of its group.
    pub fn signal(&self, number: u64, signal: i32) {
        if let (Some(program), Ok(signal)) = (self.0.get(&number), Signal::try_from(signal)) {
            send(program.pid, signal);
        }
    }

    /// Hangs a session up: whoever asked for it has gone. With him went his end of its terminal, by which the kernel hangs
    /// up what is on it; to do it twice would end what a program does about the first.
    pub fn hang_up(&mut self, number: u64) {
        if let Some(program) = self.0.remove(&number).filter(|program| !program.terminal) {
            hang_up(&program);
        }
    }

    /// Hangs all sessions up: a shell at a terminal ends by this, and not by SIGTERM.
    /// It may be deaf to it for a moment, so it is done again until nothing runs.
    pub fn hang_all_up(&self) {
        self.0.values().for_each(hang_up);
    }

    /// Tells the shim if what ended is a session's program.
    pub fn ended(&mut self, pid: Pid, exit: Exit, shim: &mut Lines) {
        let Some(number) = self.0.iter().find_map(|(number, leader)| (leader.pid == pid).then_some(*number)) else { return };
        self.0.remove(&number);
        let _ = shim.write(&Told::Session { number, told: SessionTold::Ended(exit), files: 0 });
    }
}

fn hang_up(program: &Program) {
    send(program.pid, Signal::SIGHUP);
    // One that was stopped hears it only then.
    send(program.pid, Signal::SIGCONT);
}

/// That it has ended meanwhile is no error: it is reaped by this process alone, so its number is still its own.
fn send(pid: Pid, signal: Signal) {
    // Until it leads its session, it has no group of its own.
    if killpg(pid, signal).is_err() {
        let _ = kill(pid, signal);
    }
}

/// Starts a program, and answers its number and its client's ends.
fn start(request: &SessionRequest, house: &House) -> Result<(Pid, Vec<OwnedFd>), String> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let user = house
        .only_user
        .clone()
        .or_else(|| identity::find(&request.user, &read("/etc/passwd"), &read("/etc/group")))
        .ok_or_else(|| format!("the instance has no user \"{}\": name one of its /etc/passwd", request.user))?;
    let ends = match &request.terminal {
        Some(terminal) => terminal_for(&user, terminal).map_err(|error| format!("a terminal cannot be made: {error}"))?,
        None => pipes().map_err(|error| format!("pipes cannot be made: {error}"))?,
    };
    let leader = Leader {
        terminal: request.terminal.is_some(),
        login: request.command.is_empty(),
        user: user.id,
        group: user.group,
        groups: user.groups.clone(),
        home: user.home.clone(),
        limits: house.limits,
    };
    let leader = serde_json::to_string(&leader).map_err(|error| format!("the program cannot be described: {error}"))?;
    let mut command = Command::new("/proc/self/exe");
    command.args([SHIM, SESSION, &leader]);
    if request.command.is_empty() {
        command.arg(&user.shell);
    }
    command.args(&request.command).env_clear().envs(house.environment.iter().map(|(name, value)| (name, value)));
    command.envs([("HOME", &user.home), ("USER", &user.name), ("LOGNAME", &user.name), ("SHELL", &user.shell)]);
    if let Some(terminal) = &request.terminal {
        command.env("TERM", &terminal.kind);
    }
    command.stdin(Stdio::from(ends.input)).stdout(Stdio::from(ends.output)).stderr(Stdio::from(ends.errors));
    // It is reaped by its number, with all others.
    let child = command.spawn().map_err(|error| format!("the program cannot be started: {error}"))?;
    let pid = i32::try_from(child.id()).map(Pid::from_raw).map_err(|error| format!("the program cannot be followed: {error}"))?;
    Ok((pid, ends.theirs))
}

/// A terminal of the instance's own devices.
fn terminal_for(user: &User, terminal: &Terminal) -> io::Result<Ends> {
    let ours = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = openpt(ours)?;
    unlockpt(&theirs)?;
    tcsetwinsize(&theirs, Winsize { ws_row: terminal.rows, ws_col: terminal.columns, ws_xpixel: 0, ws_ypixel: 0 })?;
    let input = ioctl_tiocgptpeer(&theirs, ours)?;
    fchown(&input, Some(Uid::from_raw(user.id)), None::<Gid>)?;
    let (output, errors) = (input.try_clone()?, input.try_clone()?);
    Ok(Ends { input, output, errors, theirs: vec![theirs] })
}

fn pipes() -> io::Result<Ends> {
    let (input, to_input) = pipe2(OFlag::O_CLOEXEC)?;
    let (from_output, output) = pipe2(OFlag::O_CLOEXEC)?;
    let (from_errors, errors) = pipe2(OFlag::O_CLOEXEC)?;
    Ok(Ends { input, output, errors, theirs: vec![to_input, from_output, from_errors] })
}
