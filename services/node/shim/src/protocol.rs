//! What a node and a shim tell each other: files in the instance's directory, and lines on its socket.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use gureum_firewall::Rule;
use serde::{Deserialize, Serialize};

use crate::{
    network::{Network, metadata::Machine},
    process::Process,
    session::SessionRequest,
    ssh::Login,
};

/// What is to run, written by the node before it starts the shim.
pub const PLAN_FILE: &str = "plan.json";
/// How it is, written by the shim whenever that changes.
pub const STATE_FILE: &str = "state.json";
/// The rules that it obeys, written by the shim before it obeys them: a list of [`InterfaceRules`].
pub const RULES_FILE: &str = "rules.json";
/// Where the shim takes commands.
pub const CONTROL_SOCKET: &str = "control.sock";
/// What the instance wrote, newest; older parts have a number behind it.
pub const CONSOLE_FILE: &str = "console.log";

/// One boot of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub id: String,
    pub boot: u64,
    pub hostname: String,
    /// The directory that is the instance's root volume.
    pub root: PathBuf,
    /// The root volume holds a whole file system. Else the host's programs are shown in it, read-only.
    pub whole: bool,
    /// What keeps it from the host and its neighbours.
    #[serde(default)]
    pub confinement: Confinement,
    /// What it sees beside its root.
    #[serde(default)]
    pub volumes: Vec<PlannedVolume>,
    /// The image's boot script, as a path within the root; run at every boot.
    pub boot_script: Option<PathBuf>,
    /// The user data's script, as a path within the root; run at this boot.
    pub user_data: Option<PathBuf>,
    /// What the machine says on its console before anything runs.
    pub notes: Vec<String>,
    /// Names and values.
    pub environment: Vec<(String, String)>,
    /// The host's user id that is 0 within, and as many of the following as [`Plan::ids`]. None: the node's own is 0.
    /// Without namespaces it is the instance's only one.
    pub first_id: Option<u32>,
    pub ids: u32,
    pub limits: Limits,
    #[serde(default)]
    pub network: Network,
    /// What it can learn about itself.
    #[serde(default)]
    pub machine: Machine,
    /// Who may log in by SSH.
    #[serde(default)]
    pub login: Option<Login>,
    /// The shim ends when the process that started it does.
    pub with_parent: bool,
}

/// What keeps an instance from its host and from its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confinement {
    /// Namespaces of its own.
    #[default]
    Namespaces,
    /// A user id of its own without any right, and Landlock where the kernel has it.
    User,
    /// Nothing: its programs may do what the node may.
    Nothing,
}

/// A volume beside the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedVolume {
    pub id: String,
    /// It is at `/media/<name>`: the device's name without what all of them begin with.
    pub name: String,
    pub directory: PathBuf,
}

/// What the instance may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Thousandths of a processor.
    pub cpu_milli: u64,
    pub memory_bytes: u64,
    /// Processes and threads.
    pub tasks: u64,
}

/// How an instance is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub boot: u64,
    /// How often it was rebooted in this boot.
    pub reboots: u64,
    /// The shim.
    pub shim: Process,
    /// Process 1 of the instance, in the host's numbers, while it runs.
    pub init: Option<Process>,
    pub status: Status,
    /// Microseconds since the epoch at which it became so.
    pub since: u64,
    /// How the user data's script ended, when it has.
    pub user_data: Option<i32>,
    /// What it wrote last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_data_lines: Vec<String>,
    /// How the image's boot script ended since the instance last came up, when it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_script: Option<i32>,
    /// What it wrote last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot_script_lines: Vec<String>,
    /// What keeps it from the host.
    #[serde(default)]
    pub confinement: Confinement,
    /// By what it is limited.
    pub limited_by: LimitedBy,
    /// What remains of a control group when the shim is gone.
    pub groups: Vec<PathBuf>,
    /// The generation as which it is connected; 0: as the plan has it.
    #[serde(default)]
    pub configured: u64,
    /// Public ports that cannot be opened, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stuck_ports: Vec<String>,
}

/// What an instance does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum Status {
    Booting,
    Up,
    /// It shuts down, to come up again.
    Rebooting,
    Stopping,
    /// It came to nothing.
    Failed {
        message: String,
    },
    Off {
        reason: OffReason,
    },
}

/// Why an instance is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum OffReason {
    /// The node wanted it.
    Asked,
    /// It shut itself down.
    Itself,
    Crashed {
        message: String,
    },
}

/// By what processors and memory are limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitedBy {
    CgroupV1,
    CgroupV2,
    Rlimit,
}

/// What the node wants of a shim, as a line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command")]
pub enum Command {
    /// Answered with the [`State`], as a line, and with another whenever it changes.
    Follow,
    Stop {
        grace_ms: u64,
    },
    Kill,
    Reboot {
        grace_ms: u64,
    },
    /// The instance is connected so from now on: [`State::configured`] says when it is.
    Configure {
        generation: u64,
        network: Network,
        /// What it can learn about itself; none: as before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        machine: Option<Box<Machine>>,
    },
    /// A line for the console.
    Note {
        text: String,
    },
    /// The rules of all its interfaces from now on, in place of those before.
    Rules {
        interfaces: Vec<InterfaceRules>,
    },
    /// Runs a program in the instance. From then on the connection is its session's, and ends with it.
    Session {
        request: SessionRequest,
    },
}

/// What one interface of the instance lets pass. Without any rule nothing passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceRules {
    /// `eni-…`
    pub interface: String,
    /// Of all its groups, in their order.
    pub rules: Vec<Rule>,
}

/// Replaces a file, so that whoever reads it finds it old or new and never in between, also after a power cut.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&unfinished, path)
}

pub fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write_whole(path, &serde_json::to_vec(value)?)
}

/// A file of JSON; none if there is no such file.
pub fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
