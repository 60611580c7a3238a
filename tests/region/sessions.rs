//! Programs that are run in instances, files that go in and out, and consoles that are followed: by the program, through all
//! services.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Output, Stdio},
};

use gureum_proto::compute::v1::{compute_service_client::ComputeServiceClient, *};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcgetattr, tcsetwinsize},
};

use crate::{
    harness::{Deployment, ask, until},
    region::until_state,
    running::{launch, running_region, state, until_console},
};

const ACCOUNT: &str = "000000000911";
/// For a program to say what it is expected to.
const SHOWN_WITHIN: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

fn gureum(region: &Deployment, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gureum"));
    let endpoint = format!("http://{}", region.address());
    let connection = ["--endpoint", &endpoint, "--account", ACCOUNT];
    // What follows "--" is the instance's.
    let verb = arguments.iter().position(|argument| *argument == "--").unwrap_or(arguments.len());
    command.args(&arguments[..verb]).args(connection).args(&arguments[verb..]).stdin(Stdio::null());
    command
}

fn run(region: &Deployment, arguments: &[&str]) -> Output {
    gureum(region, arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeed(region: &Deployment, arguments: &[&str]) -> String {
    let output = run(region, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    text(&output.stdout)
}

/// The program at a terminal, of which this is the other end.
struct AtTerminal {
    screen: File,
    program: Child,
    before: String,
}

impl AtTerminal {
    fn start(region: &Deployment, arguments: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).unwrap();
        unlockpt(&ours).unwrap();
        tcsetwinsize(&ours, Winsize { ws_row: 31, ws_col: 97, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let theirs = File::from(ioctl_tiocgptpeer(&ours, flags).unwrap());
        let before = format!("{:?}", tcgetattr(&ours).unwrap());
        let mut command = gureum(region, arguments);
        command.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap()).stderr(theirs.try_clone().unwrap());
        let program = command.env("TERM", "vt220").spawn().unwrap();
        let screen = File::from(ours);
        // The program has the only other ends: its own end is seen.
        Self { screen, program, before }
    }

    fn press(&mut self, keys: &str) {
        self.screen.write_all(keys.as_bytes()).unwrap();
    }

    fn until(&mut self, text: &str) -> String {
        let mut shown = String::new();
        while !shown.contains(text) {
            let mut part = [0; 1024];
            let mut waited = [PollFd::new(&self.screen, PollFlags::IN)];
            assert_eq!(poll(&mut waited, Some(&SHOWN_WITHIN)).unwrap(), 1, "no \"{text}\" in {shown}");
            let count = self.screen.read(&mut part).unwrap_or_else(|error| panic!("{error}: no \"{text}\" in {shown}"));
            shown.push_str(&String::from_utf8_lossy(&part[..count]));
        }
        shown
    }

    /// Its exit code. The terminal is as it was, whatever happened.
    fn end(mut self) -> i32 {
        let code = self.program.wait().unwrap().code().unwrap();
        assert_eq!(format!("{:?}", tcgetattr(&self.screen).unwrap()), self.before, "the terminal is not as it was");
        code
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_run_in_an_instance_files_go_in_and_out_and_its_console_is_followed() {
    let mut region = running_region();
    let door = region.door(ACCOUNT);
    let id = launch(&door, "echo begun\n(while ! [ -e /say ]; do sleep 0.05; done; echo said) &", |_| {}).await;
    until_console(&door, &id, "exit code 0").await;

    // Output and errors apart, input to its end, and the program's exit code.
    let output = run(&region, &["connect", &id, "--", "sh", "-c", "echo \"to $1\"; echo and errors >&2; exit 42", "sh", "you all"]);
    assert_eq!(
        (text(&output.stdout), text(&output.stderr), output.status.code()),
        ("to you all\n".into(), "and errors\n".into(), Some(42))
    );
    let mut counting =
        gureum(&region, &["connect", &id, "--", "sh", "-c", "cat | wc -c"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    counting.stdin.take().unwrap().write_all(&vec![b'x'; 3_000_000]).unwrap();
    assert_eq!(text(&counting.wait_with_output().unwrap().stdout).trim(), "3000000");

    // A terminal: its size, Ctrl-C, and the mode that it had.
    let mut shell = AtTerminal::start(&region, &["connect", &id]);
    // A shell may throw away what is typed before it asks for it.
    let prompted = shell.until("# ");
    assert!(!prompted.is_empty());
    shell.press("PS1='ne''xt: '; stty size; sh -c 'echo \"$TERM on $(tty)\"; exec sleep 600'\n");
    let shown = shell.until("vt220 on /dev/pts/0");
    assert!(shown.contains("31 97\r\n"), "{shown}");
    shell.press("\x03");
    shell.until("next: ");
    shell.press("echo code$?\n");
    shell.until("code130");
    tcsetwinsize(&shell.screen, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let process = shell.program.id().to_string();
    assert!(Command::new("kill").args(["-WINCH", &process]).status().unwrap().success());
    // The size is on its way, and a shell that reads its next line may be faster.
    shell.press("while [ \"$(stty size)\" != '40 120' ]; do sleep 0.01; done; echo wide$((1 + 1)); exit 6\n");
    shell.until("wide2");
    assert_eq!(shell.end(), 6);

    // Files, with their modes; directories with what is in them.
    let folder = tempfile::tempdir().unwrap();
    let (site, script) = (folder.path().join("site"), folder.path().join("script"));
    fs::create_dir(&site).unwrap();
    fs::write(site.join("index.html"), "x".repeat(300_000)).unwrap();
    fs::write(&script, "#!/bin/sh\necho from a file\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o750)).unwrap();
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    assert_eq!(succeed(&region, &["cp", &path(&script), &format!("{id}:/usr-script")]), "");
    assert_eq!(succeed(&region, &["connect", &id, "--", "/usr-script"]), "from a file\n");
    assert_eq!(succeed(&region, &["connect", &id, "--", "stat", "-c", "%a %u", "/usr-script"]), "750 0\n");
    succeed(&region, &["cp", "-r", &path(&site), &format!("{id}:/srv")]);
    succeed(&region, &["cp", "-r", &format!("{id}:/srv"), &path(&folder.path().join("back"))]);
    assert_eq!(fs::read(folder.path().join("back/index.html")).unwrap(), fs::read(site.join("index.html")).unwrap());
    succeed(&region, &["cp", &format!("{id}:/usr-script"), &path(folder.path())]);
    assert_eq!(fs::metadata(folder.path().join("usr-script")).unwrap().permissions().mode() & 0o777, 0o750);
    let refused = run(&region, &["cp", &path(&script), &format!("{id}:/no/such/place")]);
    assert!(refused.status.code() == Some(1) && text(&refused.stderr).contains("/no/such: no such directory"), "{refused:?}");

    // The console, from its beginning and on while it is written.
    let mut following = gureum(&region, &["logs", "-f", &id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "begun"));
    succeed(&region, &["connect", &id, "--", "touch", "/say"]);
    assert!(lines.any(|line| line == "said"));
    let whole = succeed(&region, &["logs", &id]);
    assert_eq!((whole.matches("begun\n").count(), whole.matches("said\n").count()), (1, 1), "{whole}");

    // Its node dies: sessions end, the terminal is put back, and the instance never noticed.
    let before = state(&region, &id);
    let mut shell = AtTerminal::start(&region, &["connect", &id]);
    shell.press("echo up$((1 + 1))\n");
    shell.until("up2");
    region.kill("node-a");
    assert_eq!(shell.end(), 1);
    region.restart("node-a");
    // Compute may not have heard yet that it is back.
    until("a session after the node is back", async || match run(&region, &["connect", &id, "--", "true"]) {
        output if output.status.success() => Ok(()),
        output => Err(text(&output.stderr)),
    })
    .await;
    assert_eq!(state(&region, &id), before, "it is another");
    let _ = (following.kill(), following.wait());

    // It is stopped: sessions are told, and none begins.
    let mut shell = AtTerminal::start(&region, &["connect", &id]);
    shell.press("echo up$((1 + 1))\n");
    shell.until("up2");
    ask!(door, ComputeServiceClient, stop_instances, StopInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() })
        .unwrap();
    let told = shell.until("ended with it");
    assert!(told.contains("IncorrectInstanceState"), "{told}");
    assert_eq!(shell.end(), 1);
    until_state(&door, &id, InstanceState::Stopped).await;
    let refused = run(&region, &["connect", &id, "--", "true"]);
    assert!(refused.status.code() == Some(1) && text(&refused.stderr).contains("is stopped; a program can be run in a running one"));
    assert_eq!(succeed(&region, &["logs", &id]), whole, "what it wrote is kept");
    ask!(
        door,
        ComputeServiceClient,
        terminate_instances,
        TerminateInstancesRequest { instance_ids: vec![id.clone()], ..Default::default() }
    )
    .unwrap();
    until_state(&door, &id, InstanceState::Terminated).await;
    region.finish();
}
