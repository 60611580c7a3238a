//! Programs that are run in an instance for whoever asks: on a terminal and with pipes, to their end and hung up.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::VecDeque,
    fs,
    fs::File,
    io::{Read, Write},
    os::{
        fd::AsFd,
        unix::{
            fs::{MetadataExt, PermissionsExt, lchown},
            net::UnixStream,
        },
    },
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use gureum_shim::{
    control::Lines,
    protocol::{self, CONTROL_SOCKET, PLAN_FILE, Plan, STATE_FILE, State, Status, read_json, write_json},
    session::{Exit, SessionCommand, SessionRequest, SessionTold, Terminal},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::termios::{Winsize, tcsetwinsize};

/// For a program to say what it is expected to.
const SHOWN_WITHIN_MS: u16 = 30_000;

struct Instance {
    folder: tempfile::TempDir,
    shim: Child,
    control: Lines,
}

/// What is said next. None: nothing more is.
fn next<T: serde::de::DeserializeOwned>(lines: &mut Lines) -> Option<Vec<T>> {
    loop {
        match lines.read::<T>() {
            Some(said) if said.is_empty() => drop(poll(&mut [PollFd::new(lines.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)),
            said => return said,
        }
    }
}

impl Instance {
    fn boot() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let first_id = is_root.then_some(3_000_000);
        if let Some(owner) = first_id {
            lchown(&root, Some(owner), Some(owner)).unwrap();
        }
        let plan: Plan = serde_json::from_value(serde_json::json!({
            "id": format!("i-sessions-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)),
            "boot": 1, "hostname": "ip-172-31-0-4", "root": root, "whole": false, "boot_script": null, "user_data": null,
            "notes": [], "environment": [["GREETING", "good morning"]], "first_id": first_id, "ids": 65_536,
            "limits": { "cpu_milli": 1_000, "memory_bytes": 256 << 20, "tasks": 64 }, "with_parent": true,
        }))
        .unwrap();
        write_json(&folder.path().join(PLAN_FILE), &plan).unwrap();
        let program = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/instance");
        let mut command = Command::new(program);
        let mut shim = command.arg("shim").arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        shim.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let mut control = Lines::new(UnixStream::connect(folder.path().join(CONTROL_SOCKET)).unwrap()).unwrap();
        assert!(control.write(&protocol::Command::Follow));
        while !next::<State>(&mut control).unwrap().iter().any(|state| state.status == Status::Up) {}
        Self { folder, shim, control }
    }

    fn ask(&self, request: SessionRequest) -> (Session, SessionTold) {
        let mut lines = Lines::new(UnixStream::connect(self.folder.path().join(CONTROL_SOCKET)).unwrap()).unwrap();
        assert!(lines.write(&protocol::Command::Session { request }));
        // A program that ends at once is told to have ended in the same breath.
        let mut said: VecDeque<_> = next(&mut lines).unwrap().into();
        let told = said.pop_front().unwrap();
        let files = lines.take_files().into_iter().map(File::from).collect();
        (Session { lines, said, files }, told)
    }

    fn run(&self, command: &[&str]) -> Session {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let (session, told) = self.ask(SessionRequest { command, terminal: None, user: "root".into() });
        assert_eq!(told, SessionTold::Opened);
        session
    }

    fn run_on_terminal(&self, command: &[&str]) -> Session {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let terminal = Some(Terminal { kind: "vt100".into(), rows: 30, columns: 90 });
        let (session, told) = self.ask(SessionRequest { command, terminal, user: "root".into() });
        assert_eq!(told, SessionTold::Opened);
        session
    }

    fn end(mut self) {
        assert!(self.control.write(&protocol::Command::Kill));
        assert!(self.shim.wait().unwrap().success());
    }
}

struct Session {
    lines: Lines,
    /// What was said and is not yet looked at.
    said: VecDeque<SessionTold>,
    files: Vec<File>,
}

impl Session {
    fn told(&mut self) -> SessionTold {
        if self.said.is_empty() {
            self.said.extend(next(&mut self.lines).unwrap());
        }
        self.said.pop_front().unwrap()
    }

    fn ended(&mut self) -> Exit {
        match self.told() {
            SessionTold::Ended(exit) => exit,
            told => panic!("{told:?}"),
        }
    }

    /// Output and errors of a program with pipes, to their ends.
    fn output(&mut self) -> (String, String) {
        let (mut output, mut errors) = (String::new(), String::new());
        self.files[1].read_to_string(&mut output).unwrap();
        self.files[2].read_to_string(&mut errors).unwrap();
        (output, errors)
    }

    /// Reads what a terminal shows until it shows this.
    fn until(&mut self, text: &str) -> String {
        let mut shown = Vec::new();
        while !String::from_utf8_lossy(&shown).contains(text) {
            let mut part = [0; 1024];
            let waited = poll(&mut [PollFd::new(self.files[0].as_fd(), PollFlags::POLLIN)], SHOWN_WITHIN_MS).unwrap();
            assert_eq!(waited, 1, "no \"{text}\" after {}", String::from_utf8_lossy(&shown));
            match self.files[0].read(&mut part) {
                Ok(count) if count > 0 => shown.extend_from_slice(&part[..count]),
                ended => panic!("{ended:?} after {}", String::from_utf8_lossy(&shown)),
            }
        }
        String::from_utf8_lossy(&shown).into_owned()
    }

    fn rest(&mut self) -> String {
        let mut shown = Vec::new();
        // A terminal that nobody has open any more ends with EIO.
        let _ = self.files[0].read_to_end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    }
}

#[test]
fn with_pipes_output_and_errors_are_apart_and_the_exit_code_is_told() {
    let instance = Instance::boot();
    let mut session = instance.run(&["sh", "-c", "echo \"$GREETING $HOME $USER ${TERM:-no terminal} $(pwd)\"; tty >&2; cat; exit 7"]);
    session.files[0].write_all(b"typed\n").unwrap();
    session.files[0] = File::open("/dev/null").unwrap();
    let (output, errors) = session.output();
    assert_eq!(output, "good morning /root root no terminal /root\ntyped\n", "{errors}");
    assert_eq!(session.ended(), Exit { code: 7, signal: None });
    // Nothing more comes.
    assert_eq!(next::<SessionTold>(&mut session.lines), None);
    instance.end();
}

#[test]
fn a_program_that_is_not_there_and_a_user_who_is_not_are_told_of() {
    let instance = Instance::boot();
    let mut session = instance.run(&["no-such-program"]);
    let (_, errors) = session.output();
    assert!(errors.contains("no-such-program cannot be run: No such file"), "{errors}");
    assert_eq!(session.ended().code, 127);
    let (_, told) = instance.ask(SessionRequest { command: Vec::new(), terminal: None, user: "nobody-at-all".into() });
    let SessionTold::Refused { message } = told else { panic!("{told:?}") };
    assert!(message.contains("nobody-at-all"), "{message}");
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        let (mut session, told) =
            instance.ask(SessionRequest { command: vec!["id".into(), "-un".into()], terminal: None, user: "nobody".into() });
        assert_eq!(told, SessionTold::Opened);
        assert_eq!(session.output(), ("nobody\n".into(), String::new()));
    }
    instance.end();
}

#[test]
fn a_terminal_is_the_sessions_own_and_has_the_size_that_it_is_given() {
    let instance = Instance::boot();
    let mut session = instance.run_on_terminal(&[
        "sh",
        "-c",
        "tty; stty size; echo $TERM; trap 'stty size; exit 3' WINCH; echo set; while :; do read x; done",
    ]);
    let shown = session.until("set\r\n");
    assert!(shown.starts_with("/dev/pts/0\r\n30 90\r\nvt100\r\n"), "{shown}");
    tcsetwinsize(&session.files[0], Winsize { ws_row: 50, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    assert_eq!(session.rest(), "50 132\r\n");
    assert_eq!(session.ended().code, 3);
    instance.end();
}

#[test]
fn ctrl_c_ends_what_runs_in_front_and_leaves_the_shell() {
    let instance = Instance::boot();
    let (mut session, told) = instance.ask(SessionRequest {
        command: Vec::new(),
        terminal: Some(Terminal { kind: "dumb".into(), rows: 24, columns: 80 }),
        user: "root".into(),
    });
    assert_eq!(told, SessionTold::Opened);
    // A shell may throw away what is typed before it asks for it.
    session.until("# ");
    session.files[0].write_all(b"PS1='ne''xt: '; sh -c 'echo begin$((1 + 1)); exec sleep 600'\n").unwrap();
    session.until("begin2");
    session.files[0].write_all(b"\x03").unwrap();
    session.until("next: ");
    session.files[0].write_all(b"echo code$?; exit 5\n").unwrap();
    session.until("code130");
    session.rest();
    assert_eq!(session.ended(), Exit { code: 5, signal: None });
    instance.end();
}

#[test]
fn a_signal_reaches_the_programs_group_and_is_told_as_what_ended_it() {
    let instance = Instance::boot();
    let mut session = instance.run(&["sh", "-c", "echo ready; exec sleep 600"]);
    session.files[1].read_exact(&mut [0; 6]).unwrap();
    assert!(session.lines.write(&SessionCommand::Signal(2)));
    assert_eq!(session.ended(), Exit { code: 130, signal: Some(2) });
    instance.end();
}

#[test]
fn whoever_goes_hangs_his_program_up_and_nothing_else() {
    let instance = Instance::boot();
    let mark = |name: &str| instance.folder.path().join("root").join(name);
    // A shell says on its standard error, where nobody is any more, that its child was hung up too.
    let script = "trap '' PIPE; trap 'touch /hung-up; exit' HUP; touch /begun; while :; do sleep 0.01; done";
    for on_terminal in [false, true] {
        let session = if on_terminal { instance.run_on_terminal(&["sh", "-c", script]) } else { instance.run(&["sh", "-c", script]) };
        while !mark("begun").exists() {
            std::thread::yield_now();
        }
        drop(session);
        while !mark("hung-up").exists() {
            std::thread::yield_now();
        }
        ["begun", "hung-up"].iter().for_each(|name| fs::remove_file(mark(name)).unwrap());
    }
    let state = read_json::<State>(&instance.folder.path().join(STATE_FILE)).unwrap().unwrap();
    assert!(state.status == Status::Up && state.shim.lives(), "{state:?}");
    // The next one finds the instance as it was.
    let mut session = instance.run(&["true"]);
    assert_eq!(session.ended().code, 0);
    instance.end();
}

#[test]
fn an_instance_that_is_stopped_ends_its_sessions_and_says_so() {
    let mut instance = Instance::boot();
    // A shell at a terminal takes no notice of SIGTERM; it is hung up.
    let (mut session, told) = instance.ask(SessionRequest {
        command: Vec::new(),
        terminal: Some(Terminal { kind: "dumb".into(), rows: 24, columns: 80 }),
        user: "root".into(),
    });
    assert_eq!(told, SessionTold::Opened);
    session.until("# ");
    session.files[0].write_all(b"echo up$((1 + 1))\n").unwrap();
    session.until("up2");
    assert!(instance.control.write(&protocol::Command::Stop { grace_ms: 600_000 }));
    // A shell that ends waits until what it wrote is taken.
    session.rest();
    let SessionTold::Closed { message } = session.told() else { panic!("it was not told") };
    assert!(message.contains("ended"), "{message}");
    assert!(instance.shim.wait().unwrap().success());
}
