//! Logging in by SSH: the host's `sshd`, run within the instance as its user, with the key that it was launched with.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::SigSet,
};
use serde::{Deserialize, Serialize};

use crate::{
    Doing, Failure, SHIM, SSHD,
    limits::{self, EachProcess},
    root,
};

/// Who may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The image's user: `ec2-user`.
    pub user: String,
    /// In OpenSSH form; none: nobody can log in, and no server runs.
    pub public_key: Option<String>,
    /// It was never up before: the key is put beside those that the image has.
    pub first: bool,
}

const SERVER: &str = "/usr/sbin/sshd";
const KEYGEN: &str = "/usr/bin/ssh-keygen";
const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";
const CONFIGURATION: &str = "/run/sshd_config";
/// The user's number where the instance has but one, which is root's by its own name.
const ALONE: u32 = 1000;
const ALONE_ARGUMENT: &str = "alone";

/// Puts the key in place and starts the server, if the instance can have one. Answers why it has none.
pub fn start(login: &Login, has_many_ids: bool, limits: Option<EachProcess>) -> io::Result<Option<String>> {
    let Some(key) = &login.public_key else { return Ok(None) };
    let home = Path::new("/home").join(&login.user);
    add_user(login, &home, has_many_ids)?;
    if login.first {
        add_key(&home, key)?;
    }
    if !Path::new(SERVER).exists() || !Path::new(KEYGEN).exists() {
        return Ok(Some("nobody can log in by ssh: the host has no OpenSSH server (Debian: openssh-server)".into()));
    }
    if login.first {
        // The image's would be known to whoever made the image.
        remove(HOST_KEY)?;
    }
    fs::create_dir_all("/run/sshd")?;
    fs::write(CONFIGURATION, configuration())?;
    let ids = if has_many_ids { "many" } else { ALONE_ARGUMENT };
    let limits = limits::argument(limits);
    Command::new("/proc/self/exe")
        .args([SHIM, SSHD, ids, &limits])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()?;
    Ok(None)
}

fn remove(path: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn configuration() -> String {
    format!(
        "Port 22\nHostKey {HOST_KEY}\nAuthorizedKeysFile .ssh/authorized_keys\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nUsePAM no\nStrictModes no\nPidFile none\n\
         PrintMotd no\nAcceptEnv LANG LC_*\nSetEnv PATH={}\nSubsystem sftp internal-sftp\nLogLevel ERROR\n",
        root::PATH
    )
}

/// The user is the instance's root by another name: it may do all that the instance may.
fn add_user(login: &Login, home: &Path, has_many_ids: bool) -> io::Result<()> {
    let id = if has_many_ids { 0 } else { ALONE };
    let shell = if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
    let lines = [
        (login.user.as_str(), format!("{}:*:{id}:{id}::{}:{shell}\n", login.user, home.display())),
        ("sshd", "sshd:*:74:65534::/run/sshd:/usr/sbin/nologin\n".to_owned()),
    ];
    let mut users = fs::read_to_string("/etc/passwd")?;
    let before = users.len();
    for (name, line) in lines {
        if !users.lines().any(|line| line.split(':').next() == Some(name)) {
            users.push_str(&line);
        }
    }
    if users.len() > before {
        fs::write("/etc/passwd", users)?;
    }
    Ok(())
}

fn add_key(home: &Path, key: &str) -> io::Result<()> {
    let directory = home.join(".ssh");
    fs::create_dir_all(&directory)?;
    fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
    let path = directory.join("authorized_keys");
    let known = fs::read_to_string(&path).unwrap_or_default();
    if known.lines().any(|line| line == key.trim()) {
        return Ok(());
    }
    let mut file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
    let separator = if known.is_empty() || known.ends_with('\n') { "" } else { "\n" };
    writeln!(file, "{separator}{}", key.trim())?;
    file.set_permissions(Permissions::from_mode(0o600))
}

/// Takes longer than an instance to boot, so nobody waits for it.
fn make_host_key() -> io::Result<()> {
    if Path::new(HOST_KEY).exists() {
        return Ok(());
    }
    fs::create_dir_all("/etc/ssh")?;
    let unfinished = format!("{HOST_KEY}.new");
    remove(&unfinished)?;
    let made = Command::new(KEYGEN).args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", &unfinished]).stdin(Stdio::null()).output()?;
    if !made.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&made.stderr).trim().to_owned()));
    }
    fs::rename(format!("{unfinished}.pub"), format!("{HOST_KEY}.pub"))?;
    fs::rename(unfinished, HOST_KEY)
}

/// Is the server. Where the instance has but one id, no user can be left for another, which the server does where it is
/// root: there it runs as the only user of a namespace of its own.
pub fn become_server(ids: &OsStr, limits: &OsStr) -> Result<ExitCode, Failure> {
    SigSet::empty().thread_set_mask().doing(|| "unblocking signals".into())?;
    make_host_key().doing(|| format!("making {HOST_KEY}"))?;
    if ids == ALONE_ARGUMENT {
        unshare(CloneFlags::CLONE_NEWUSER).doing(|| "making a namespace for the ssh server".into())?;
        let write = |file: &str, text: String| fs::write(format!("/proc/self/{file}"), text);
        write("setgroups", "deny".into())
            .and_then(|()| write("uid_map", format!("{ALONE} 0 1")))
            .and_then(|()| write("gid_map", format!("{ALONE} 0 1")))
            .doing(|| "naming the user of the ssh server".into())?;
    }
    limits::apply(limits)?;
    let error = Command::new(SERVER).args(["-D", "-e", "-f", CONFIGURATION]).exec();
    Err(error).doing(|| format!("running {SERVER}"))
}
