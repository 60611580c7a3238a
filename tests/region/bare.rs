//! Regions on hosts that grant no namespaces: `gureum up` as in a container, and as a user who may do nothing in particular.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use gureum_service::clock::monotonic;
use gureum_shim::protocol::{STATE_FILE, State, read_json};

use crate::gate;

const PATIENCE: Duration = Duration::from_secs(30);
/// For hosts on which low ports are root's.
const OFFSET: u16 = 10_000;
const NOBODY: u32 = 65_534;

/// In a root that was changed nobody gets user namespaces, and root gets none without this right.
const WITHOUT_NAMESPACES: &str = "mount --rbind / \"$0\" && \
    exec setpriv --bounding-set=-sys_admin,-sys_ptrace,-net_admin,-sys_boot --inh-caps=-all -- chroot \"$0\" \"$@\"";
/// The same for who is not root, where there are any: there are none within those that he makes.
const WITHOUT_MORE: &str = "echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all -- \"$@\"";

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A region of `gureum up`, ended with its instances.
struct Up {
    folder: tempfile::TempDir,
    child: Child,
    endpoint: String,
    _place: gate::Place,
}

impl Up {
    /// Starts one, as root in a container or as nobody. `directory` is made if there is none.
    fn start(folder: tempfile::TempDir, nobody: bool, flags: &[&str]) -> Self {
        let place = gate::enter();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let (program, root, home) = (folder.path().join("gureum"), folder.path().join("root"), folder.path().join("home"));
        if !program.exists() {
            fs::hard_link(env!("CARGO_BIN_EXE_gureum"), &program)
                .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_gureum"), &program).map(drop))
                .unwrap();
            [&root, &home].into_iter().for_each(|place| fs::create_dir(place).unwrap());
        }
        let mut command = Command::new("unshare");
        if is_root() {
            command.args(["--mount", "sh", "-c", WITHOUT_NAMESPACES]).arg(&root);
        } else {
            command.args(["--user", "--map-root-user", "sh", "-c", WITHOUT_MORE, "sh"]);
        }
        if nobody && is_root() {
            lchown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
            command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        }
        command.arg(&program).args(["up", "--port", "0", "--driver", "process", "--port-offset", &OFFSET.to_string(), "--directory"]);
        command.arg(home.join("region")).args(flags).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let endpoint = ready.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(endpoint.starts_with("http://"), "it did not start: {ready}");
        Self { folder, child, endpoint, _place: place }
    }

    fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gureum"));
        command.args(arguments).env("GUREUM_ENDPOINT", &self.endpoint).stdin(Stdio::null()).output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A field of the instance that is called "web".
    fn field(&self, name: &str) -> String {
        let shown: serde_json::Value = serde_json::from_str(&self.done(&["ps", "web", "--output", "json"])).unwrap();
        let instance = shown.as_array().map_or(&shown, |all| &all[0]);
        instance[name].as_str().unwrap_or_else(|| panic!("{name} in {shown}")).to_owned()
    }

    fn state(&self, id: &str) -> State {
        let region = self.folder.path().join("home/region");
        let places = ["a1", "b1", "c1"].map(|node| region.join(format!("node-{node}/instances/{id}")).join(STATE_FILE));
        read_json(places.iter().find(|place| place.exists()).unwrap()).unwrap().unwrap()
    }

    fn until(&self, is_so: impl Fn() -> bool, otherwise: &str) {
        let deadline = monotonic() + PATIENCE;
        while !is_so() {
            assert!(monotonic() < deadline, "{otherwise}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn left(&self) -> Vec<PathBuf> {
        let region = self.folder.path().join("home/region");
        let places = ["storage/volumes", "node-a1/instances", "node-b1/instances", "node-c1/instances"].map(|place| region.join(place));
        places.iter().flat_map(|place| fs::read_dir(place).unwrap()).map(|entry| entry.unwrap().path()).collect()
    }

    /// Ends the region, and hands over what it has kept.
    fn end(mut self) -> tempfile::TempDir {
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Also where the test has failed: it must not run on without its directory.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Processes with the instance's id in their environment.
fn processes(id: &str) -> Vec<PathBuf> {
    let mark = format!("GUREUM_INSTANCE_ID={id}");
    let has_mark = |place: &Path| {
        fs::read(place.join("environ")).is_ok_and(|text| text.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()))
    };
    fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path()).filter(|place| has_mark(place)).collect()
}

fn page(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((address, 8080 + OFFSET))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.contains(" 200 ") { Ok(answer) } else { Err(std::io::Error::other(answer)) }
}

fn page_when_served(region: &Up) -> String {
    let (address, deadline) = (region.field("publicIpAddress"), monotonic() + PATIENCE);
    loop {
        match page(&address) {
            Ok(page) => return page,
            Err(error) => assert!(monotonic() < deadline, "{address}: {error}\n{}", region.done(&["logs", "web"])),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// From the launch of a web server to its termination. Answers the number of the user that it was.
fn live_and_die(region: &Up) -> u32 {
    let script = "#!/bin/sh\necho \"hello as $(id -u)\" >$GUREUM_ROOT/root/index.html\n\
        cat >$GUREUM_ROOT/serve <<'E'\ncd $GUREUM_ROOT/root && exec python3 -m http.server --bind $GUREUM_PRIVATE_IP 8080\nE\n\
        setsid sh $GUREUM_ROOT/serve & sleep 600 &";
    region.done(&["sg", "create", "web", "--description", "web"]);
    region.done(&["sg", "allow", "web", "tcp:8080", "--from", "any"]);
    let launch = ["launch", "--image", "gureum-shell", "--type", "t3.micro", "--name", "web", "--group", "web", "--wait", "--user-data"];
    region.done(&[&launch[..], &[script]].concat());
    let page_text = page_when_served(region);
    let (_, user) = page_text.trim().rsplit_once("hello as ").unwrap();
    let id = region.field("instanceId");
    assert!(!processes(&id).is_empty() || !is_root());
    assert_eq!(region.done(&["connect", "web", "--", "sh", "-c", "cat index.html"]), format!("hello as {user}\n"));
    let asked = "python3 -c 'import urllib.request as u, os; \
        print(u.urlopen(os.environ[\"AWS_EC2_METADATA_SERVICE_ENDPOINT\"] + \"/latest/meta-data/instance-id\").read().decode())'";
    assert_eq!(region.done(&["connect", "web", "--", "sh", "-c", asked]).trim(), id);

    let address = region.field("publicIpAddress");
    region.done(&["stop", "web", "--wait"]);
    assert!(page(&address).is_err());
    assert_eq!(processes(&id), Vec::<PathBuf>::new());
    region.done(&["start", "web", "--wait"]);
    region.done(&["connect", "web", "--", "sh", "-c", "cat index.html"]);
    // One whose shim and process 1 are killed at once leaves nothing either.
    region.done(&["connect", "web", "--", "sh", "-c", "setsid sleep 600 </dev/null >/dev/null 2>&1 &"]);
    let state = region.state(&id);
    let init = state.init.unwrap();
    assert!(Command::new("kill").args(["-STOP", &init.pid.to_string()]).status().unwrap().success());
    state.shim.kill().unwrap();
    region.until(|| region.field("state") == "INSTANCE_STATE_STOPPED", "it is not stopped");
    assert!(!init.lives());
    assert_eq!(processes(&id), Vec::<PathBuf>::new());
    region.done(&["terminate", "web", "--wait"]);
    assert_eq!(processes(&id), Vec::<PathBuf>::new());
    assert_eq!(region.left(), Vec::<PathBuf>::new());
    user.parse().unwrap()
}

#[test]
fn without_namespaces_and_users_nothing_is_launched_unless_that_is_wanted() {
    let region = Up::start(tempfile::tempdir().unwrap(), true, &[]);
    let refused = region.command(&["launch", "--image", "gureum-shell", "--type", "t3.micro", "--name", "refused", "--wait"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("--unconfined") && told.contains("no namespaces"), "{told}");
    let folder = region.end();
    let region = Up::start(folder, true, &["--unconfined"]);
    let user = if is_root() { NOBODY } else { 0 };
    assert_eq!(live_and_die(&region), user);
    region.end();
}

#[test]
fn root_in_a_container_gives_each_instance_a_user_of_its_own() {
    if !is_root() {
        return;
    }
    let region = Up::start(tempfile::tempdir().unwrap(), false, &[]);
    region.done(&["launch", "--image", "gureum-shell", "--type", "t3.micro", "--name", "one", "--wait"]);
    let user: u32 = region.done(&["connect", "one", "--", "id", "-u"]).trim().parse().unwrap();
    assert!(user >= 1 << 30, "{user}");
    // It is not let near what the region keeps, and its neighbours are others.
    let region_directory = region.folder.path().join("home/region");
    let tries = format!(
        "ls {0}; ls {0}/run; ls {0}/compute; cat {0}/node-a1/LOCK; ls {0}/storage; cat {0}/region.toml; \
         python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"{0}/run/compute.sock\")'; kill -0 {1}; cat /proc/{1}/environ",
        region_directory.display(),
        region.child.id()
    );
    for attempt in tries.split("; ") {
        assert!(!region.command(&["connect", "one", "--", "sh", "-c", attempt]).status.success(), "{attempt}");
    }
    region.done(&["terminate", "one", "--wait"]);
    assert!(live_and_die(&region) >= 1 << 30);
    region.end();
}
