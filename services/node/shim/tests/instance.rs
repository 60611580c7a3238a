//! Instances that run for real: booted, watched and ended through their shims.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and measures graces in real time")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, lchown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use gureum_shim::{
    console,
    network::{Network, metadata::Machine},
    process::Process,
    protocol::{self, CONTROL_SOCKET, Confinement, Limits, OffReason, PLAN_FILE, Plan, STATE_FILE, State, Status, read_json, write_json},
    ssh::Login,
    usage::Meter,
};

/// Host ids of the instances of these tests, as a node that is root gives them.
const FIRST_ID: u32 = 3_000_000;

#[path = "instance/network.rs"]
mod network;

#[path = "instance/metadata.rs"]
mod metadata;

#[path = "instance/bare.rs"]
mod bare;

#[path = "instance/usage.rs"]
mod usage;

struct Instance {
    folder: tempfile::TempDir,
    shim: Child,
    /// Kept open: the shim sees by it that this process is there.
    _parent: Option<std::process::ChildStdin>,
    states: BufReader<UnixStream>,
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

impl Instance {
    /// Boots one whose user data is this shell script.
    fn boot(script: &str) -> Self {
        Self::boot_with(script, Network::default())
    }

    /// The same, connected so.
    fn boot_with(script: &str, network: Network) -> Self {
        Self::boot_as(script, |plan, _| plan.network = network)
    }

    /// The same, for somebody to log in.
    fn boot_for(script: &str, network: Network, login: Option<Login>) -> Self {
        Self::boot_as(script, |plan, _| (plan.network, plan.login) = (network, login))
    }

    /// Boots one whose plan is changed before: it is told its directory, too.
    fn boot_as(script: &str, change: impl FnOnce(&mut Plan, &Path)) -> Self {
        Self::boot_by(&[], script, change)
    }

    /// The same, its shim started by another program.
    fn boot_by(starter: &[&str], script: &str, change: impl FnOnce(&mut Plan, &Path)) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::tempdir().unwrap();
        // As a state directory is: closed to all but its owner.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        let path = root.join("user-data");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let first_id = is_root().then_some(FIRST_ID);
        if let Some(owner) = first_id {
            [&path, &root].into_iter().for_each(|path| lchown(path, Some(owner), Some(owner)).unwrap());
        }
        let mut plan = Plan {
            // Its control groups are of its own.
            id: format!("i-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)),
            boot: 1,
            hostname: "ip-172-31-0-4".into(),
            root,
            whole: false,
            confinement: Confinement::Namespaces,
            volumes: Vec::new(),
            boot_script: None,
            user_data: Some("user-data".into()),
            notes: vec!["booting".into()],
            environment: vec![("GREETING".into(), "good morning".into())],
            first_id,
            ids: 65_536,
            limits: Limits { cpu_milli: 500, memory_bytes: 128 << 20, tasks: 64 },
            network: Network::default(),
            machine: Machine::default(),
            login: None,
            with_parent: true,
        };
        change(&mut plan, folder.path());
        write_json(&folder.path().join(PLAN_FILE), &plan).unwrap();
        let program = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/instance");
        let mut command = Command::new(starter.first().map_or(program.as_os_str(), |first| first.as_ref()));
        if let [_, arguments @ ..] = starter {
            command.args(arguments).arg(&program);
        }
        let mut shim = command.arg("shim").arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        shim.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let mut stream = UnixStream::connect(folder.path().join(CONTROL_SOCKET)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(b"{\"command\":\"follow\"}\n").unwrap();
        let parent = shim.stdin.take();
        Self { folder, shim, _parent: parent, states: BufReader::new(stream) }
    }

    fn directory(&self) -> &Path {
        self.folder.path()
    }

    fn order(&mut self, command: &protocol::Command) {
        let mut line = serde_json::to_vec(command).unwrap();
        line.push(b'\n');
        self.states.get_mut().write_all(&line).unwrap();
    }

    /// The first state that is wanted.
    fn wait(&mut self, wanted: impl Fn(&State) -> bool) -> State {
        loop {
            let mut line = String::new();
            if self.states.read_line(&mut line).unwrap() == 0 {
                // It has ended: its file is the last word.
                let last = read_json::<State>(&self.directory().join(STATE_FILE)).unwrap().unwrap();
                assert!(wanted(&last), "it ended as {last:?}\n{}", self.console());
                return last;
            }
            let state: State = serde_json::from_str(&line).unwrap();
            if wanted(&state) {
                return state;
            }
        }
    }

    fn wait_for_user_data(&mut self) -> (i32, String) {
        let code = self.wait(|state| state.user_data.is_some()).user_data.unwrap();
        // What it wrote was written before its end was told, but may still be on its way through the pipe.
        while !self.console().contains("user data ended") {
            std::thread::yield_now();
        }
        (code, self.console())
    }

    fn console(&self) -> String {
        String::from_utf8_lossy(&console::tail(self.directory(), 64 << 10).unwrap()).into_owned()
    }

    fn end(mut self) {
        self.order(&protocol::Command::Kill);
        self.wait(|state| state.status == Status::Off { reason: OffReason::Asked });
        assert!(self.shim.wait().unwrap().success());
    }
}

#[test]
fn user_data_runs_as_root_of_its_own_machine_and_its_end_ends_nothing() {
    let mut instance = Instance::boot("echo \"$GREETING from $(hostname) as $(id -u) in $(pwd)\"; (sleep 600) & exit 3");
    let (code, console) = instance.wait_for_user_data();
    assert_eq!(code, 3);
    assert!(console.contains("good morning from ip-172-31-0-4 as 0 in /root"), "{console}");
    let state = read_json::<State>(&instance.directory().join(STATE_FILE)).unwrap().unwrap();
    assert_eq!(state.status, Status::Up);
    let init = state.init.unwrap();
    assert!(init.lives() && !init.children().is_empty(), "what it left in the background runs on");
    instance.end();
    assert!(!init.lives());
    assert!(state.groups.iter().all(|group| !group.exists()), "its control groups are left");
}

#[test]
fn the_last_lines_of_a_script_that_failed_are_told() {
    let noise = "for word in one two three; do echo $word; done; printf 'out\\n'; echo 'cannot be done' >&2; exit 3";
    let mut instance = Instance::boot_as(noise, |plan, _| {
        let boot = plan.root.join("boot");
        // What it leaves in the background is none of user data's lines.
        fs::write(&boot, "#!/bin/sh\necho ready\n(while :; do echo noise; sleep 0.01; done) &\nexit 4\n").unwrap();
        fs::set_permissions(&boot, fs::Permissions::from_mode(0o755)).unwrap();
        plan.boot_script = Some("boot".into());
    });
    let state = instance.wait(|state| state.user_data.is_some());
    assert_eq!((state.user_data, state.boot_script), (Some(3), Some(4)));
    assert_eq!(state.user_data_lines, ["one", "two", "three", "out", "cannot be done"]);
    assert!(state.boot_script_lines.contains(&"ready".to_owned()), "{state:?}");
    // After a reboot the boot script is run anew, and user data is not.
    instance.order(&protocol::Command::Reboot { grace_ms: 5_000 });
    instance.wait(|state| state.reboots == 1 && state.boot_script.is_none());
    let state = instance.wait(|state| state.boot_script.is_some());
    assert_eq!((state.user_data, state.user_data_lines.len()), (Some(3), 5));
    instance.end();
}

#[test]
fn nothing_of_the_host_can_be_read_written_traced_or_ended() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "secret").unwrap();
    let own = std::process::id();
    let script = format!(
        "cat {secret} && echo READ; ls / | grep -q work && echo SEEN
         kill -0 {own} && echo REACHED; [ -d /proc/{own} ] && [ {own} -gt 100 ] && echo TRACED
         touch /usr/bin/mine && echo WRITTEN; mount -o remount,rw /usr && echo REMOUNTED
         echo 1 > /proc/sys/kernel/panic && echo CONFIGURED; [ -e /dev/vda ] && echo DISK
         mknod /dev/own b 8 0 && echo DEVICE; hostname changed && echo own name
         ls /sys/fs/cgroup 2>/dev/null | grep -q . && echo GROUPS
         cat /proc/1/environ | tr '\\0' ' ' | grep -q . && echo ENVIRONMENT; echo done",
        secret = secret.path().display()
    );
    let before = nix::unistd::gethostname().unwrap();
    let mut instance = Instance::boot(&script);
    let (_, console) = instance.wait_for_user_data();
    for broken in ["READ", "SEEN", "REACHED", "TRACED", "WRITTEN", "REMOUNTED", "CONFIGURED", "DISK", "DEVICE", "GROUPS", "ENVIRONMENT"] {
        assert!(!console.lines().any(|line| line == broken), "{broken}\n{console}");
    }
    assert!(console.contains("own name") && console.contains("done"), "{console}");
    assert_eq!(nix::unistd::gethostname().unwrap(), before, "the host has another name");
    instance.end();
}

#[test]
fn it_shuts_itself_down_as_a_machine_does() {
    for command in ["poweroff", "halt", "shutdown now", "shutdown -h now"] {
        let mut instance = Instance::boot(&format!("{command}; sleep 600"));
        instance.wait(|state| state.status == Status::Off { reason: OffReason::Itself });
    }
}

#[test]
fn it_restarts_with_its_disk_and_without_its_user_data() {
    let mut instance = Instance::boot("echo once >> /count; reboot");
    let state = instance.wait(|state| state.reboots == 1 && state.status == Status::Up);
    assert_eq!(state.boot, 1);
    let count = fs::read_to_string(instance.directory().join("root/count")).unwrap();
    assert_eq!(count, "once\n");
    // And when it is told to, as often as one likes.
    instance.order(&protocol::Command::Reboot { grace_ms: 5_000 });
    instance.wait(|state| state.reboots == 2 && state.status == Status::Up);
    instance.end();
}

#[test]
fn what_does_not_end_when_asked_is_killed_after_the_grace() {
    let mut instance = Instance::boot("trap 'echo not now' TERM; echo ready; while :; do sleep 0.05; done");
    while !instance.console().contains("ready") {
        std::thread::yield_now();
    }
    let began = std::time::Instant::now();
    instance.order(&protocol::Command::Stop { grace_ms: 400 });
    instance.wait(|state| state.status == Status::Off { reason: OffReason::Asked });
    assert!(began.elapsed() >= Duration::from_millis(400), "it had no grace");
    assert!(instance.console().contains("not now"), "it was not asked first");
}

#[test]
fn what_ends_when_asked_needs_no_grace() {
    let mut instance = Instance::boot("sleep 600 & echo ready");
    instance.wait_for_user_data();
    let began = std::time::Instant::now();
    instance.order(&protocol::Command::Stop { grace_ms: 60_000 });
    instance.wait(|state| state.status == Status::Off { reason: OffReason::Asked });
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn nothing_of_an_instance_outlives_its_shim() {
    let mut instance = Instance::boot("sleep 600 & setsid sleep 600 & echo ready");
    instance.wait_for_user_data();
    let state = read_json::<State>(&instance.directory().join(STATE_FILE)).unwrap().unwrap();
    let init = state.init.unwrap();
    let all: Vec<Process> = [vec![init], init.children()].concat();
    assert!(all.len() >= 3, "{all:?}");
    state.shim.kill().unwrap();
    instance.shim.wait().unwrap();
    while all.iter().any(Process::lives) {
        std::thread::yield_now();
    }
    gureum_shim::remove_groups(&state.groups);
}

#[test]
fn an_instance_whose_directory_is_removed_ends() {
    let mut instance = Instance::boot("sleep 600 &");
    let init = instance.wait(|state| state.status == Status::Up).init.unwrap();
    fs::remove_file(instance.directory().join(PLAN_FILE)).unwrap();
    instance.wait(|state| matches!(state.status, Status::Off { .. }));
    assert!(!init.lives());
}

#[test]
fn a_region_in_memory_takes_its_instances_with_it() {
    let mut instance = Instance::boot("sleep 600 & echo ready");
    instance.wait_for_user_data();
    let state = read_json::<State>(&instance.directory().join(STATE_FILE)).unwrap().unwrap();
    instance._parent = None;
    instance.wait(|state| matches!(state.status, Status::Off { .. }));
    instance.shim.wait().unwrap();
    assert!(!state.init.unwrap().lives());
}

#[test]
fn its_memory_and_processors_are_limited() {
    let script = "python3 -c 'sum(range(3_000_000))'; python3 -c 'x = bytearray(512 << 20); print(len(x))' && echo TOO MUCH; echo done";
    let mut instance = Instance::boot(script);
    let (_, console) = instance.wait_for_user_data();
    assert!(console.contains("done") && !console.contains("TOO MUCH"), "{console}");
    let state = read_json::<State>(&instance.directory().join(STATE_FILE)).unwrap().unwrap();
    let used = Meter::new(&state, true).unwrap().read().unwrap();
    assert!(used.cpu > Duration::ZERO && used.memory_bytes <= 128 << 20, "{used:?}");
    instance.end();
}

#[test]
fn a_boot_that_fails_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let missing = PathBuf::from("/nowhere/at/all");
    let plan = Plan {
        id: format!("i-fails-{}", std::process::id()),
        boot: 1,
        hostname: "host".into(),
        root: missing,
        whole: false,
        confinement: Confinement::Namespaces,
        volumes: Vec::new(),
        boot_script: None,
        user_data: None,
        notes: Vec::new(),
        environment: Vec::new(),
        first_id: None,
        ids: 1,
        limits: Limits { cpu_milli: 500, memory_bytes: 64 << 20, tasks: 64 },
        network: Network::default(),
        machine: Machine::default(),
        login: None,
        with_parent: false,
    };
    write_json(&folder.path().join(PLAN_FILE), &plan).unwrap();
    let program = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/instance");
    Command::new(program).arg("shim").arg(folder.path()).stdin(Stdio::null()).status().unwrap();
    let state = read_json::<State>(&folder.path().join(STATE_FILE)).unwrap().unwrap();
    let Status::Failed { message } = &state.status else { panic!("{state:?}") };
    let console = String::from_utf8(console::tail(folder.path(), 4096).unwrap()).unwrap();
    assert!(message.contains("console") && console.contains("/nowhere/at/all"), "{message}\n{console}");
}

/// A volume for an instance of these tests, with a file in it.
fn volume(folder: &Path, name: &str) -> PathBuf {
    let directory = folder.join(format!("volume-{name}"));
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("hello"), format!("hello from {name}\n")).unwrap();
    if is_root() {
        [directory.clone(), directory.join("hello")].iter().for_each(|path| lchown(path, Some(FIRST_ID), Some(FIRST_ID)).unwrap());
    }
    directory
}

/// What the program does with these arguments: its exit code.
fn shim(arguments: &[&std::ffi::OsStr]) -> i32 {
    let program = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/instance");
    Command::new(program).arg("shim").args(arguments).stdin(Stdio::null()).status().unwrap().code().unwrap()
}

#[test]
fn volumes_are_there_from_the_boot_on_and_come_and_go_while_it_runs() {
    let script = "cat /media/sdf/hello > /boot\n\
        until [ -e /media/sdg/hello ]; do sleep 0.02; done; cat /media/sdg/hello > /plugged; echo inside > /media/sdg/answer\n\
        cd /media/sdg; touch /busy; until [ -e /go ]; do sleep 0.02; done; cd /\n\
        while [ -e /media/sdg/hello ]; do sleep 0.02; done; touch /gone; sleep 600";
    let mut instance = Instance::boot_as(script, |plan, folder| {
        let directory = volume(folder, "sdf");
        let media = plan.root.join("media");
        for place in [&media, &media.join("sdf")] {
            fs::create_dir(place).unwrap();
            lchown(place, plan.first_id, plan.first_id).unwrap();
        }
        plan.volumes.push(protocol::PlannedVolume { id: "vol-1".into(), name: "sdf".into(), directory });
    });
    instance.wait(|state| state.init.is_some());
    let root = instance.folder.path().join("root");
    until_there(&root.join("boot"));
    let (folder, added) = (instance.folder.path().to_owned(), volume(instance.folder.path(), "sdg"));
    let plug = || shim(&[gureum_shim::PLUG.as_ref(), folder.as_os_str(), "sdg".as_ref(), added.as_os_str()]);
    assert_eq!((plug(), plug()), (0, 0), "and again");
    until_there(&root.join("busy"));
    assert_eq!(fs::read_to_string(root.join("boot")).unwrap(), "hello from sdf\n");
    assert_eq!(fs::read_to_string(root.join("plugged")).unwrap(), "hello from sdg\n");
    assert_eq!(fs::read_to_string(added.join("answer")).unwrap(), "inside\n");
    let unplug = |how: &str| shim(&[how.as_ref(), folder.as_os_str(), "sdg".as_ref()]);
    assert_eq!(unplug(gureum_shim::UNPLUG), i32::from(gureum_shim::volumes::BUSY), "its shell is in there");
    fs::write(root.join("go"), "").unwrap();
    // As soon as the shell has left.
    while unplug(gureum_shim::UNPLUG) != 0 {
        std::thread::yield_now();
    }
    until_there(&root.join("gone"));
    assert_eq!(unplug(gureum_shim::UNPLUG), 0, "and again");
    assert_eq!(unplug(gureum_shim::PULL), 0);
    assert!(!root.join("media/sdg").exists() && added.join("hello").exists());
    instance.end();
}

fn until_there(path: &Path) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(std::time::Instant::now() < deadline, "{} never comes", path.display());
        std::thread::yield_now();
    }
}

#[test]
fn links_that_an_instance_left_lead_nowhere_when_it_boots() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("hostname"), "the host's").unwrap();
    let path = outside.path().to_owned();
    let mut instance = Instance::boot_as("cat /etc/hostname", |plan, _| {
        std::os::unix::fs::symlink(&path, plan.root.join("etc")).unwrap();
        std::os::unix::fs::symlink(&path, plan.root.join("home")).unwrap();
    });
    let state = instance.wait(|state| state.user_data.is_some() || matches!(state.status, Status::Failed { .. }));
    assert!(matches!(state.status, Status::Failed { .. }), "its /etc leads nowhere: {state:?}\n{}", instance.console());
    assert_eq!(fs::read_to_string(outside.path().join("hostname")).unwrap(), "the host's");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "something was made outside");
}
