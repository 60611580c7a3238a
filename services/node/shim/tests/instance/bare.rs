//! Instances without namespaces of their own: with a user each where the shim is root, and without anything.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

use super::*;

/// How a shim is started: root as in a container that grants no namespaces, or a user who is nobody in particular.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    Container,
    Anybody,
}

const CONTAINER: [&str; 4] = ["setpriv", "--bounding-set=-sys_admin,-sys_ptrace,-net_admin,-sys_boot", "--inh-caps=-all", "--"];
const NOBODY: u32 = 65_534;
const ANYBODY: [&str; 5] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];

impl Host {
    /// Those that can be had: only root can be as in a container.
    fn all() -> Vec<Self> {
        if is_root() { vec![Self::Container, Self::Anybody] } else { vec![Self::Anybody] }
    }

    fn boot(self, script: &str) -> Instance {
        self.boot_as(script, |_, _| {})
    }

    fn boot_as(self, script: &str, change: impl FnOnce(&mut Plan, &Path)) -> Instance {
        let starter: &[&str] = match self {
            Self::Container => &CONTAINER,
            Self::Anybody if is_root() => &ANYBODY,
            Self::Anybody => &[],
        };
        Instance::boot_by(starter, script, |plan, folder| {
            match self {
                Self::Container => {
                    // One range of ids for each: what is left of an instance is found by its id.
                    static COUNT: AtomicU32 = AtomicU32::new(0);
                    let id = FIRST_ID + 65_536 * (1 + std::process::id() % 20_000 + COUNT.fetch_add(1, Ordering::Relaxed));
                    plan.confinement = Confinement::User;
                    plan.first_id = Some(id);
                    fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).unwrap();
                }
                Self::Anybody => {
                    plan.confinement = Confinement::Nothing;
                    plan.first_id = None;
                }
            }
            if is_root() {
                let owner = plan.first_id.unwrap_or(NOBODY);
                let root = plan.root.clone();
                [&root.join("user-data"), &root].into_iter().for_each(|path| lchown(path, Some(owner), Some(owner)).unwrap());
                if self == Self::Anybody {
                    lchown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
                }
            }
            change(plan, folder);
        })
    }
}

fn plan(instance: &Instance) -> Plan {
    read_json(&instance.directory().join(PLAN_FILE)).unwrap().unwrap()
}

fn state(instance: &Instance) -> State {
    read_json(&instance.directory().join(STATE_FILE)).unwrap().unwrap()
}

#[test]
fn what_forks_for_ever_ends_too() {
    for host in Host::all() {
        let comet = "echo 'sh $0 & exit' >$GUREUM_ROOT/comet; for n in 1 2 3 4; do sh $GUREUM_ROOT/comet & done; echo ready";
        let mut instance = host.boot(comet);
        instance.wait_for_user_data();
        let id = plan(&instance).id;
        instance.end();
        let mark = format!("GUREUM_INSTANCE_ID={id}").into_bytes();
        let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read(entry.path().join("environ")).ok());
        let left = all.filter(|text| text.split(|byte| *byte == 0).any(|variable| variable == mark)).count();
        assert_eq!(left, 0, "{host:?}");
    }
}

/// The numbers that a script has written to files of its root volume, as processes.
fn processes(instance: &Instance, names: &[&str]) -> Vec<Process> {
    let number = |name: &&str| -> i32 {
        let path = instance.directory().join("root").join(name);
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            match fs::read_to_string(&path).unwrap_or_default().trim().parse() {
                Ok(number) => return number,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{}: {error}\n{}", path.display(), instance.console()),
            }
        }
    };
    names.iter().map(|name| Process::of(number(name)).unwrap()).collect()
}

#[test]
fn user_data_runs_in_its_root_volume_and_its_end_ends_nothing() {
    for host in Host::all() {
        let script = "echo \"$GREETING from $HOSTNAME as $(id -u) in $(pwd)\"; echo \"$HOME and $TMPDIR\"; (sleep 600) & exit 3";
        let mut instance = host.boot(script);
        let (code, console) = instance.wait_for_user_data();
        assert_eq!(code, 3);
        let (plan, state) = (plan(&instance), state(&instance));
        let root = plan.root.display();
        let user = plan.first_id.unwrap_or(if is_root() { NOBODY } else { rustix::process::geteuid().as_raw() });
        assert!(console.contains(&format!("good morning from ip-172-31-0-4 as {user} in {root}/root")), "{host:?}\n{console}");
        assert!(console.contains(&format!("{root}/root and {root}/tmp")), "{host:?}\n{console}");
        assert_eq!(state.status, Status::Up);
        let init = state.init.unwrap();
        let left = init.children();
        assert!(init.lives() && !left.is_empty(), "what it left in the background runs on");
        instance.end();
        assert!(!init.lives() && !left.iter().any(Process::lives), "{host:?}");
    }
}

#[test]
fn it_shuts_itself_down_and_restarts_with_its_disk() {
    for host in Host::all() {
        for command in ["poweroff", "halt", "shutdown now"] {
            let mut instance = host.boot(&format!("{command}; sleep 600"));
            instance.wait(|state| state.status == Status::Off { reason: OffReason::Itself });
        }
        let mut instance = host.boot("echo once >> $GUREUM_ROOT/count; reboot");
        instance.wait(|state| state.reboots == 1 && state.status == Status::Up);
        assert_eq!(fs::read_to_string(instance.directory().join("root/count")).unwrap(), "once\n");
        instance.order(&protocol::Command::Reboot { grace_ms: 5_000 });
        instance.wait(|state| state.reboots == 2 && state.status == Status::Up);
        instance.end();
    }
}

/// Ends neither when asked nor with its parent, and is in a session of its own.
const STUBBORN: &str = "setsid sh -c 'trap \"\" TERM HUP; echo $$ >$GUREUM_ROOT/stubborn; while :; do sleep 0.05; done' &
    sh -c 'sleep 600 & echo $! >$GUREUM_ROOT/orphan'; echo $$ >$GUREUM_ROOT/script; echo ready; wait";

#[test]
fn what_does_not_end_when_asked_is_killed_after_the_grace() {
    for host in Host::all() {
        let mut instance = host.boot(STUBBORN);
        let all = processes(&instance, &["stubborn", "orphan", "script"]);
        let began = std::time::Instant::now();
        instance.order(&protocol::Command::Stop { grace_ms: 400 });
        instance.wait(|state| state.status == Status::Off { reason: OffReason::Asked });
        assert!(began.elapsed() >= Duration::from_millis(400), "it had no grace");
        assert!(!all.iter().any(Process::lives), "{host:?}: {all:?}");
    }
}

#[test]
fn nothing_of_an_instance_outlives_its_process_1_or_its_shim() {
    for host in Host::all() {
        let mut instance = host.boot(STUBBORN);
        let all = processes(&instance, &["stubborn", "orphan", "script"]);
        instance.wait(|state| state.init.is_some()).init.unwrap().kill().unwrap();
        instance.wait(|state| matches!(state.status, Status::Off { reason: OffReason::Crashed { .. } }));
        assert!(!all.iter().any(Process::lives), "process 1 of {host:?}: {all:?}");

        let mut instance = host.boot(STUBBORN);
        let all = processes(&instance, &["stubborn", "orphan", "script"]);
        let before = instance.wait(|state| state.init.is_some());
        before.shim.kill().unwrap();
        instance.shim.wait().unwrap();
        for process in all.iter().chain(&before.init) {
            assert!(process.ends_within(Duration::from_secs(10)), "the shim of {host:?}: {process:?}");
        }
        gureum_shim::remove_groups(&before.groups);
    }
}

#[test]
fn what_is_left_when_both_were_killed_is_found() {
    for host in Host::all() {
        let mut instance = host.boot(STUBBORN);
        let all = processes(&instance, &["stubborn", "orphan", "script"]);
        let before = instance.wait(|state| state.init.is_some());
        // Process 1 cannot notice the end of the shim.
        let init = before.init.unwrap();
        init.signal(nix::sys::signal::Signal::SIGSTOP).unwrap();
        before.shim.kill().unwrap();
        instance.shim.wait().unwrap();
        init.kill().unwrap();
        assert!(all.iter().any(Process::lives), "the test shows nothing");
        assert_eq!(shim(&[gureum_shim::END.as_ref(), instance.directory().as_os_str()]), 0);
        assert!(!all.iter().any(Process::lives), "{host:?}: {all:?}");
        gureum_shim::remove_groups(&before.groups);
    }
}

#[test]
fn an_instance_with_a_user_of_its_own_is_kept_from_the_host() {
    if !is_root() {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    fs::set_permissions(host.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let place = |name: &str| host.path().join(name).display().to_string();
    fs::write(place("open"), "all may read it").unwrap();
    fs::write(place("secret"), "secret").unwrap();
    fs::set_permissions(place("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let _service = std::os::unix::net::UnixListener::bind(place("socket")).unwrap();
    fs::set_permissions(place("socket"), fs::Permissions::from_mode(0o600)).unwrap();
    let own = std::process::id();
    let script = format!(
        "cat {secret} && echo READ; cat {open} && echo READ OPEN; ls {folder} && echo LISTED; touch {folder}/new && echo WRITTEN
         cat $GUREUM_ROOT/../plan.json && echo PLAN
         kill -0 {own} && echo REACHED; cat /proc/{own}/environ && echo TRACED; cat /proc/$PPID/mem && echo MEMORY
         /usr/bin/python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"{socket}\")' && echo CONNECTED
         touch /usr/bin/mine && echo INSTALLED; echo 1 >/proc/sys/kernel/panic && echo CONFIGURED
         chroot / true && echo CHROOT; mount -t tmpfs none $TMPDIR && echo MOUNTED; mknod $TMPDIR/disk b 8 0 && echo DEVICE
         su -c true && echo ROOT; setpriv --reuid=0 true && echo USER; /sbin/reboot -f && echo REBOOTED
         grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs|Groups)' /proc/self/status; id; ls $GUREUM_ROOT >$TMPDIR/list && echo own files; echo done",
        secret = place("secret"), open = place("open"), socket = place("socket"), folder = host.path().display()
    );
    let mut instance = Host::Container.boot(&script);
    let (_, console) = instance.wait_for_user_data();
    let broken = [
        "READ",
        "LISTED",
        "WRITTEN",
        "PLAN",
        "REACHED",
        "TRACED",
        "MEMORY",
        "CONNECTED",
        "INSTALLED",
        "CONFIGURED",
        "CHROOT",
        "MOUNTED",
        "DEVICE",
        "ROOT",
        "USER",
        "REBOOTED",
    ];
    for broken in broken {
        assert!(!console.lines().any(|line| line == broken), "{broken}\n{console}");
    }
    // By Landlock, where the kernel has it.
    let has_landlock = !console.contains("Landlock");
    assert_eq!(console.lines().any(|line| line == "READ OPEN"), !has_landlock, "{console}");
    let rights = u64::from_str_radix(console.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim(), 16).unwrap();
    assert_eq!(rights & !(1 << 10), 0, "more than low ports\n{console}");
    assert!(console.contains("NoNewPrivs:\t1") && console.contains("own files") && console.contains("done"), "{console}");
    instance.end();
}

#[test]
fn a_neighbour_is_kept_out_too() {
    if !is_root() {
        return;
    }
    let mut one =
        Host::Container.boot("echo secret >$GUREUM_ROOT/secret; chmod 700 $GUREUM_ROOT; sleep 600 & echo $! >$GUREUM_ROOT/pid; exit 0");
    one.wait_for_user_data();
    let pid = processes(&one, &["pid"])[0].pid;
    let file = plan(&one).root.join("secret");
    let script =
        format!("cat {} && echo READ; kill -0 {pid} && echo REACHED; cat /proc/{pid}/environ && echo TRACED; echo done", file.display());
    let mut other = Host::Container.boot(&script);
    let (_, console) = other.wait_for_user_data();
    assert!(!["READ", "REACHED", "TRACED"].iter().any(|broken| console.lines().any(|line| line == *broken)), "{console}");
    one.end();
    other.end();
}

#[test]
fn a_volume_is_a_link_in_its_place() {
    for host in Host::all() {
        let mut instance = host.boot_as("cat $GUREUM_ROOT/media/sdf/hello; echo inside >$GUREUM_ROOT/media/sdf/answer", |plan, folder| {
            let directory = volume(folder, "sdf");
            if is_root() {
                let owner = Some(plan.first_id.unwrap_or(NOBODY));
                [directory.clone(), directory.join("hello")].iter().for_each(|path| lchown(path, owner, owner).unwrap());
            }
            plan.volumes.push(protocol::PlannedVolume { id: "vol-1".into(), name: "sdf".into(), directory });
        });
        let (code, console) = instance.wait_for_user_data();
        assert!(code == 0 && console.contains("hello from sdf"), "{host:?}\n{console}");
        assert_eq!(fs::read_to_string(instance.directory().join("volume-sdf/answer")).unwrap(), "inside\n");
        instance.end();
    }
}

/// Addresses of these tests that nothing else has.
fn alias() -> Ipv4Addr {
    static LAST: AtomicU32 = AtomicU32::new(1);
    let number = (std::process::id() % 2_000) * 32 + LAST.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(127, 246, 0, 0)) + number)
}

#[test]
fn it_is_reached_at_its_alias_by_its_public_address_as_its_rules_allow() {
    for host in Host::all() {
        let (fabric, alias) = (tempfile::tempdir().unwrap(), alias());
        let public = SocketAddrV4::new(network::public(), 8080);
        if is_root() && host == Host::Anybody {
            lchown(fabric.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let script = "cd $GUREUM_ROOT/root && echo hello >index.html && /usr/bin/python3 -m http.server 8081 & \
            cd $GUREUM_ROOT/root && exec /usr/bin/python3 -m http.server --bind $GUREUM_PRIVATE_IP 8080";
        let mut instance = host.boot_as(script, |plan, _| {
            plan.network = network::network(fabric.path(), [172, 31, 0, 4], Some(*public.ip()), "sg-00000000000000001");
            plan.network.alias = Some(alias);
            plan.environment.push(("GUREUM_PRIVATE_IP".into(), alias.to_string()));
        });
        instance.wait(|state| state.status == Status::Up);
        assert!(network::fetch(public).is_err(), "nothing is open without rules");
        instance.rules("eni-4", vec![network::tcp_in(8080, network::anywhere()), network::tcp_in(8081, network::anywhere())]);
        assert!(network::fetch_when_served(&instance, public).ends_with("hello\n"));
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !instance.console().contains("port 8081 (tcp) at all addresses") {
            assert!(std::time::Instant::now() < deadline, "{host:?}\n{}", instance.console());
            std::thread::yield_now();
        }
        instance.end();
        assert!(network::fetch(public).is_err());
        TcpListener::bind((alias, 8080)).unwrap();
    }
}

#[test]
fn the_metadata_is_at_the_alias_and_another_user_is_told_nothing() {
    for host in Host::all() {
        let alias = alias();
        let script = format!(
            "exec /usr/bin/python3 -c 'import urllib.request as u; print(u.urlopen(\"http://{alias}:{}/latest/meta-data/instance-id\").read())'",
            gureum_shim::network::forward::METADATA_PORT
        );
        let mut instance = host.boot_as(&format!("sleep 600 & {script}"), |plan, _| {
            plan.network = network::network(Path::new("/nowhere"), [172, 31, 0, 4], None, "sg-00000000000000001");
            plan.network.alias = Some(alias);
            plan.machine.id = "i-00000000000000007".into();
            plan.machine.options.enabled = true;
        });
        let (_, console) = instance.wait_for_user_data();
        assert!(console.contains("i-00000000000000007"), "{host:?}\n{console}");
        let told = network::fetch(SocketAddrV4::new(alias, gureum_shim::network::forward::METADATA_PORT));
        assert_eq!(told.is_ok(), host == Host::Anybody, "{told:?}");
        instance.end();
    }
}

#[test]
fn datagrams_reach_its_alias_and_their_answers_who_sent_them() {
    for host in Host::all() {
        let (fabric, alias) = (tempfile::tempdir().unwrap(), alias());
        let public = SocketAddrV4::new(network::public(), 5_353);
        if is_root() && host == Host::Anybody {
            lchown(fabric.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let script = "exec /usr/bin/python3 -c 'import os, socket\ns = socket.socket(type=socket.SOCK_DGRAM)\n\
            s.bind((os.environ[\"GUREUM_PRIVATE_IP\"], 5353))\nwhile True:\n d, a = s.recvfrom(99); s.sendto(b\"got \" + d, a)'";
        let mut instance = host.boot_as(script, |plan, _| {
            plan.network = network::network(fabric.path(), [172, 31, 0, 4], Some(*public.ip()), "sg-00000000000000001");
            plan.network.alias = Some(alias);
            plan.environment.push(("GUREUM_PRIVATE_IP".into(), alias.to_string()));
        });
        instance.wait(|state| state.status == Status::Up);
        instance.rules("eni-4", vec![network::udp_in(5_353, network::anywhere())]);
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (mut answer, deadline) = ([0; 16], std::time::Instant::now() + Duration::from_secs(10));
        let length = loop {
            let _ = socket.send_to(b"this", public);
            match socket.recv(&mut answer) {
                Ok(length) => break length,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{host:?}: {error}\n{}", instance.console()),
            }
        };
        assert_eq!(&answer[..length], b"got this");
        instance.end();
    }
}
