//! The process outside an instance: it starts it, keeps its console and its state, and obeys the node.

use std::{
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    process::{Child, Command, ExitCode},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getegid, geteuid, pipe2, setsid},
};

use crate::{
    BARE, Doing, Failure, INSIDE, SHIM, bare,
    clock::{monotonic, now_micros},
    console::Console,
    control::{Lines, accept},
    init::{Order, Script, Told},
    last_lines::LastLines,
    limits,
    network::forward::{self, Forwarder, Report},
    process::Process,
    protocol::{
        self, CONTROL_SOCKET, Confinement, InterfaceRules, OffReason, PLAN_FILE, Plan, RULES_FILE, STATE_FILE, State, Status, read_json,
        write_json,
    },
    session,
};

/// How long an instance may take to end when the host ends.
const GRACE_OF_HOST: Duration = Duration::from_secs(10);
/// The same for one that shuts itself down.
const GRACE_OF_ITSELF: Duration = Duration::from_secs(30);
/// Bytes of console that are read at a time.
const READ: usize = 64 << 10;

/// The instance while it runs.
struct Running {
    inside: Child,
    init: Lines,
    /// What all others write, and what user data writes.
    outputs: [Output; 2],
    /// When what still runs is killed.
    deadline: Option<Instant>,
    /// It comes up again when it has ended.
    again: bool,
    /// It ends by its own will.
    by_itself: bool,
}

/// A pipe into the console.
struct Output {
    pipe: std::fs::File,
    last: LastLines,
}

struct Shim {
    plan: Plan,
    state: State,
    console: Console,
    followers: Vec<Lines>,
    sessions: session::Table,
    running: Option<Running>,
    forwarder: Forwarder,
    /// Which connections it lets pass; none until a node has said so.
    rules: Option<Vec<InterfaceRules>>,
}

pub fn run(directory: &Path) -> Result<ExitCode, Failure> {
    // Fails only for who leads a session already.
    let _ = setsid();
    let mut signals = SigSet::empty();
    [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block().doing(|| "taking signals".into())?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).doing(|| "taking signals".into())?;
    let path = directory.join(PLAN_FILE);
    let plan: Plan = read_json(&path).doing(|| format!("reading {}", path.display()))?.ok_or(Failure::Usage)?;
    let shim = Process::current().ok_or(Errno::ESRCH).doing(|| "learning the own start time".into())?;
    // A path below the directory may be too long for a socket.
    std::env::set_current_dir(directory).doing(|| format!("entering {}", directory.display()))?;
    let _ = std::fs::remove_file(CONTROL_SOCKET);
    // Groups may have changed since an earlier boot: what was closed meanwhile must not be open for a moment.
    let _ = std::fs::remove_file(RULES_FILE);
    let listener = UnixListener::bind(CONTROL_SOCKET).doing(|| format!("opening {CONTROL_SOCKET}"))?;
    listener.set_nonblocking(true).doing(|| format!("opening {CONTROL_SOCKET}"))?;
    let console = Console::open(Path::new(".")).doing(|| "opening the console".into())?;
    let is_bare = plan.confinement != Confinement::Namespaces;
    if is_bare {
        // What the end of its process 1 leaves comes to here, and is ended.
        prctl::set_child_subreaper(true).doing(|| "becoming who takes over what others leave".into())?;
    }
    let (limited_by, groups) = limits::prepare(&plan.id, plan.limits);
    let state = State {
        boot: plan.boot,
        reboots: 0,
        shim,
        init: None,
        status: Status::Booting,
        since: now_micros(),
        user_data: None,
        user_data_lines: Vec::new(),
        boot_script: None,
        boot_script_lines: Vec::new(),
        confinement: plan.confinement,
        limited_by,
        groups,
        configured: 0,
        stuck_ports: Vec::new(),
    };
    let forwarder = Forwarder::start(plan.network.clone(), plan.machine.clone()).doing(|| "starting the forwarder".into())?;
    let mut shim =
        Shim { plan, state, console, followers: Vec::new(), sessions: session::Table::default(), running: None, rules: None, forwarder };
    shim.plan.notes.iter().for_each(|note| shim.console.note(note));
    shim.save();
    // To the node that started it: it can be asked now.
    let _ = std::io::stdout().write_all(b"r");
    let _ = std::io::stdout().flush();
    shim.start(true);
    shim.serve(&listener, &signals)
}

impl Shim {
    fn serve(mut self, listener: &UnixListener, signals: &SignalFd) -> Result<ExitCode, Failure> {
        let parent = std::io::stdin();
        loop {
            if self.running.is_none() && self.is_over() {
                limits::remove(&self.state.groups);
                self.forwarder.finish();
                return Ok(ExitCode::SUCCESS);
            }
            self.wait(listener, signals, self.plan.with_parent.then_some(&parent)).doing(|| "waiting".into())?;
            self.followers.extend(accept(listener));
            self.obey();
            while let Ok(Some(signal)) = signals.read_signal() {
                let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
                if [Signal::SIGTERM as i32, Signal::SIGINT as i32].contains(&number) {
                    self.stop(GRACE_OF_HOST, false);
                }
            }
            if self.plan.with_parent && parent_is_gone(&parent) {
                self.kill();
            }
            self.hear();
            self.hear_forwarder()?;
            self.overdue();
            self.reap();
        }
    }

    /// Waits until something happens.
    fn wait(&self, listener: &UnixListener, signals: &SignalFd, parent: Option<&std::io::Stdin>) -> nix::Result<()> {
        let mut waited = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        waited.push(PollFd::new(self.forwarder.reports.as_fd(), PollFlags::POLLIN));
        waited.extend(self.followers.iter().map(|follower| PollFd::new(follower.as_fd(), PollFlags::POLLIN)));
        waited.extend(self.sessions.clients().map(|client| PollFd::new(client, PollFlags::POLLIN)));
        waited.extend(parent.map(|parent| PollFd::new(parent.as_fd(), PollFlags::POLLIN)));
        let mut timeout = PollTimeout::NONE;
        if let Some(running) = &self.running {
            waited.push(PollFd::new(running.init.as_fd(), PollFlags::POLLIN));
            waited.extend(running.outputs.iter().map(|output| PollFd::new(output.pipe.as_fd(), PollFlags::POLLIN)));
            if let Some(deadline) = running.deadline {
                // Rounded up, or the last millisecond would be spent in a circle.
                let left = deadline.saturating_duration_since(monotonic()) + Duration::from_millis(1);
                timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            }
        }
        match poll(&mut waited, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.state.status, Status::Off { .. } | Status::Failed { .. })
    }

    /// It has no namespaces of its own.
    fn is_bare(&self) -> bool {
        self.plan.confinement != Confinement::Namespaces
    }

    fn change(&mut self, status: Status) {
        self.state.status = status;
        self.state.since = now_micros();
        self.save();
    }

    /// Writes the state, then tells it: what was told holds also if the shim dies.
    fn save(&mut self) {
        if let Err(error) = write_json(Path::new(STATE_FILE), &self.state) {
            self.console.note(&format!("the state of this instance cannot be written: {error}"));
        }
        let state = &self.state;
        self.followers.retain_mut(|follower| follower.write(state));
    }

    fn start(&mut self, first: bool) {
        if let Err(failure) = self.try_start(first) {
            self.console.note(&failure.to_string());
            self.change(Status::Failed { message: failure.to_string() });
        }
    }

    fn try_start(&mut self, first: bool) -> Result<(), Failure> {
        let (output, input) = Output::open().doing(|| "making the console's pipe".into())?;
        let (of_user_data, errors) = Output::open().doing(|| "making the console's pipe for user data".into())?;
        let (ours, theirs) = UnixStream::pair().doing(|| "making the stream to process 1".into())?;
        let mut inside = Command::new("/proc/self/exe");
        // The path as it was given: who reads it is still in the host's file system, in the shim's directory.
        let part = if self.is_bare() { BARE } else { INSIDE };
        inside.env_clear().args([SHIM, part]).arg(".").stdin(OwnedFd::from(theirs)).stdout(input).stderr(errors);
        if self.is_bare() {
            // It is found by this, too.
            inside.env(bare::MARK, &self.plan.id);
        }
        let child = inside.spawn().doing(|| "starting the inside".into())?;
        if !first {
            self.plan.user_data = None;
            (self.state.boot_script, self.state.boot_script_lines) = (None, Vec::new());
        }
        self.running = Some(Running {
            inside: child,
            init: Lines::new(ours).doing(|| "making the stream to process 1".into())?,
            outputs: [output, of_user_data],
            deadline: None,
            again: false,
            by_itself: false,
        });
        Ok(())
    }

    /// Does what the node wants.
    fn obey(&mut self) {
        let mut commands = Vec::new();
        let state = &self.state;
        for mut follower in std::mem::take(&mut self.followers) {
            let Some(mut read) = follower.read::<protocol::Command>() else { continue };
            if let Some(protocol::Command::Session { request }) = read.pop_if(|last| matches!(last, protocol::Command::Session { .. })) {
                let up = self.running.as_mut().filter(|_| state.status == Status::Up);
                self.sessions.begin(follower, request, up.map(|running| &mut running.init));
                continue;
            }
            let asked = read.contains(&protocol::Command::Follow);
            commands.extend(read);
            if !asked || follower.write(state) {
                self.followers.push(follower);
            }
        }
        self.sessions.obey(self.running.as_mut().map(|running| &mut running.init));
        for command in commands {
            match command {
                protocol::Command::Follow | protocol::Command::Session { .. } => {}
                protocol::Command::Stop { grace_ms } => self.stop(Duration::from_millis(grace_ms), false),
                protocol::Command::Reboot { grace_ms } => self.stop(Duration::from_millis(grace_ms), true),
                protocol::Command::Kill => self.kill(),
                protocol::Command::Configure { generation, network, machine } => {
                    // A reboot has it too.
                    self.plan.network = network.clone();
                    if let Some(machine) = &machine {
                        self.plan.machine = (**machine).clone();
                    }
                    self.forwarder.order(forward::Order::Configure { generation, network, machine });
                }
                protocol::Command::Note { text } => self.console.note(&text),
                protocol::Command::Rules { interfaces } => self.take_rules(interfaces),
            }
        }
    }

    /// Keeps the rules, then obeys them. A node that comes back tells those again that it knows.
    fn take_rules(&mut self, interfaces: Vec<InterfaceRules>) {
        if self.rules.as_ref() == Some(&interfaces) {
            return;
        }
        // One that was revoked is not obeyed for longer because a disk is full.
        if let Err(error) = write_json(Path::new(RULES_FILE), &interfaces) {
            self.console.note(&format!("the rules of this instance cannot be written: {error}"));
        }
        self.rules = Some(interfaces.clone());
        self.forwarder.order(forward::Order::Rules(interfaces));
    }

    /// Lets the instance end, and start again if that is wanted.
    fn stop(&mut self, grace: Duration, again: bool) {
        let Some(running) = &mut self.running else { return };
        let deadline = monotonic() + grace;
        running.deadline = Some(running.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        running.again = again;
        // One that cannot be told is killed when the grace has passed.
        let _ = running.init.write(&Order::Shutdown);
        self.change(if again { Status::Rebooting } else { Status::Stopping });
    }

    fn kill(&mut self) {
        if let Some(running) = &mut self.running {
            running.again = false;
            running.deadline = Some(monotonic());
            if self.state.status != Status::Stopping {
                self.change(Status::Stopping);
            }
        }
    }

    /// Hears what process 1 says, and what the instance writes.
    fn hear(&mut self) {
        let Some(running) = &mut self.running else { return };
        // A little at a time: one that writes without end must not keep the node waiting.
        for output in &mut running.outputs {
            output.read(&mut self.console);
        }
        let told = running.init.read::<Told>().unwrap_or_default();
        let mut files = running.init.take_files();
        for told in told {
            match told {
                Told::Unshared => self.map(),
                Told::Up => self.up(),
                Told::Failed { message } => {
                    self.console.note(&message);
                    self.change(Status::Failed { message });
                }
                Told::Ended { script, code } => self.script_ended(script, code),
                Told::PowerOff => self.shut_itself_down(false),
                Told::Reboot => self.shut_itself_down(true),
                Told::Session { number, told, files: count } => self.sessions.told(number, &told, &mut files, count),
            }
        }
    }

    /// Notes how a script ended, with what it wrote last: a pipe holds no more than what is read at a time.
    fn script_ended(&mut self, script: Script, code: i32) {
        let Some(running) = &mut self.running else { return };
        let output = &mut running.outputs[usize::from(script == Script::UserData)];
        output.read(&mut self.console);
        let lines = output.last.lines();
        self.console.note(&format!("the {} ended with exit code {code}", script.name()));
        let state = &mut self.state;
        match script {
            Script::UserData => (state.user_data, state.user_data_lines) = (Some(code), lines),
            Script::OfImage => (state.boot_script, state.boot_script_lines) = (Some(code), lines),
        }
        self.save();
    }

    /// Hears what the forwarder says. Without it the instance would be cut off and nobody knew.
    fn hear_forwarder(&mut self) -> Result<(), Failure> {
        let reports = self.forwarder.reports.read::<Report>().ok_or(Errno::EPIPE).doing(|| "hearing the forwarder".into())?;
        for report in reports {
            match report {
                Report::Configured { generation } => self.state.configured = generation,
                Report::Stuck { doors } => self.state.stuck_ports = doors,
                Report::Removed => {
                    self.kill();
                    continue;
                }
                Report::Note { text } => {
                    self.console.note(&text);
                    continue;
                }
            }
            self.save();
        }
        Ok(())
    }

    /// Lets ids within stand for ids of the host's, limits what will run, and lets process 1 begin.
    fn map(&mut self) {
        let plan = Box::new(self.plan.clone());
        let Some(running) = &mut self.running else { return };
        let pid = running.inside.id();
        let mapped = if plan.confinement == Confinement::Namespaces { map_ids(pid, plan.first_id, plan.ids) } else { Ok(()) };
        if let Err(error) = mapped.and_then(|()| limits::join(&self.state.groups, pid)) {
            self.console.note(&format!("the ids of this instance cannot be mapped, or it cannot be limited: {error}"));
            running.deadline = Some(monotonic());
            return;
        }
        if let (true, Some(address)) = (plan.confinement != Confinement::Namespaces, plan.network.alias) {
            let user = plan.first_id.filter(|_| plan.confinement == Confinement::User);
            self.forwarder.order(forward::Order::OnAlias { address, user });
        }
        // What was changed since the plan was written is within it. If it does not hear it, it has ended.
        let _ = running.init.write(&Order::Mapped { network: plan.network.clone() })
            && running.init.write(&Order::Boot { plan, limited_by: self.state.limited_by });
    }

    fn shut_itself_down(&mut self, again: bool) {
        if self.state.status == Status::Up {
            self.stop(GRACE_OF_ITSELF, again);
            if let Some(running) = &mut self.running {
                running.by_itself = true;
            }
        }
    }

    /// Kills what should have ended by now.
    fn overdue(&mut self) {
        if let Some(running) = self.running.as_mut().filter(|running| running.deadline.is_some_and(|deadline| deadline <= monotonic())) {
            running.deadline = None;
            // Process 1 takes all else with it, and its parent ends when all of them have. Until it is known, it dies with its parent.
            let killed = self.state.init.map(|init| init.kill());
            if !matches!(killed, Some(Ok(()))) {
                let _ = running.inside.kill();
            }
        }
    }

    /// Notices that the instance has ended.
    fn reap(&mut self) {
        let Some(running) = &mut self.running else { return };
        let Ok(Some(status)) = running.inside.try_wait() else { return };
        if self.plan.confinement != Confinement::Namespaces {
            self.end_what_is_left();
        }
        let Some(running) = &mut self.running else { return };
        for output in &mut running.outputs {
            while output.read(&mut self.console) > 0 {}
        }
        let (again, by_itself) = (running.again, running.by_itself);
        self.sessions.close(if again { "the instance restarts" } else { "the instance ended" });
        self.running = None;
        self.state.init = None;
        self.forwarder.order(forward::Order::Off);
        if again {
            return self.start(false);
        }
        match &self.state.status {
            Status::Failed { .. } => self.save(),
            Status::Stopping if by_itself => self.change(Status::Off { reason: OffReason::Itself }),
            Status::Stopping => self.change(Status::Off { reason: OffReason::Asked }),
            Status::Booting | Status::Rebooting => {
                let message = format!("it ended before it was up ({status}); the console says why");
                self.change(Status::Failed { message });
            }
            Status::Up | Status::Off { .. } => {
                let message = format!("process 1 of the instance ended ({status})");
                self.change(Status::Off { reason: OffReason::Crashed { message } });
            }
        }
    }

    /// Ends what no kernel ends with process 1, and takes it out of the list of processes.
    fn end_what_is_left(&mut self) {
        let left = bare::end(&self.plan, &self.state.groups, Some(self.state.shim.pid));
        if !left.is_empty() {
            let pids: Vec<String> = left.iter().map(|process| process.pid.to_string()).collect();
            self.console.note(&format!("processes of this instance cannot be ended: {}", pids.join(", ")));
        }
        while matches!(waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
    }

    fn up(&mut self) {
        let inside = self.running.as_ref().and_then(|running| Process::of(i32::try_from(running.inside.id()).ok()?));
        self.state.init = if self.is_bare() { inside } else { inside.and_then(|inside| inside.children().into_iter().next()) };
        if self.state.status == Status::Rebooting {
            self.state.reboots += 1;
        }
        self.change(Status::Up);
    }
}

impl Output {
    /// One that is read without waiting, and the end that is written to.
    fn open() -> nix::Result<(Self, OwnedFd)> {
        let (output, input) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((Self { pipe: output.into(), last: LastLines::default() }, input))
    }

    /// Takes what is there, at most [`READ`] bytes of it.
    fn read(&mut self, console: &mut Console) -> usize {
        let mut bytes = vec![0; READ];
        let count = self.pipe.read(&mut bytes).unwrap_or_default();
        console.write(&bytes[..count]);
        self.last.push(&bytes[..count]);
        count
    }
}

/// Makes ids within stand for ids of the host's (`user_namespaces(7)`).
pub fn map_ids(pid: u32, first: Option<u32>, ids: u32) -> std::io::Result<()> {
    let write = |file: &str, text: &str| std::fs::write(format!("/proc/{pid}/{file}"), text);
    match first {
        Some(first) => {
            let map = format!("0 {first} {ids}");
            write("uid_map", &map).and_then(|()| write("gid_map", &map))
        }
        None => {
            // Whoever is not root may map himself alone, and only where groups cannot be left.
            write("setgroups", "deny")?;
            write("uid_map", &format!("0 {} 1", geteuid()))?;
            write("gid_map", &format!("0 {} 1", getegid()))
        }
    }
}

fn parent_is_gone(parent: &std::io::Stdin) -> bool {
    let mut waited = [PollFd::new(parent.as_fd(), PollFlags::POLLIN)];
    poll(&mut waited, PollTimeout::ZERO).is_ok() && waited[0].revents().is_some_and(|found| found.contains(PollFlags::POLLHUP))
}
