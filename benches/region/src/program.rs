//! The program under test, and processes in general.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use tonic::transport::{Channel, Endpoint};

use crate::Failure;

/// Nothing that is measured here takes longer to start, whatever it holds.
const STARTS_WITHIN: Duration = Duration::from_secs(120);

/// The release build of `gureum`.
pub fn path() -> Result<PathBuf, Failure> {
    let path = env::var_os("GUREUM").map_or_else(|| PathBuf::from("../../target/release/gureum"), PathBuf::from);
    if !path.exists() {
        let text = format!("{} does not exist: build it (cargo build --release) or name it by GUREUM=PATH", path.display());
        return Err(text.into());
    }
    Ok(path)
}

/// A running process, which is killed when this is dropped.
pub struct Running {
    child: Child,
    /// From its start until it said that it is ready.
    pub took: Duration,
    /// The line by which it said so.
    pub ready: String,
}

impl Running {
    /// Starts the program and waits for its line that begins with `ready`.
    pub async fn start(arguments: &[&str], ready: &str) -> Result<Self, Failure> {
        let begun = Instant::now();
        let mut child = Command::new(path()?)
            .args(arguments)
            .env("GUREUM_LOG", "error")
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let line = tokio::time::timeout(STARTS_WITHIN, lines.next_line()).await??.unwrap_or_default();
        if !line.starts_with(ready) {
            return Err(format!("gureum {} said \"{line}\" instead of \"{ready}\"", arguments.join(" ")).into());
        }
        Ok(Self { child, took: begun.elapsed(), ready: line })
    }

    /// A region with its state in a folder, or in memory; `more` are further arguments of `gureum up`. Nothing runs in its
    /// instances unless they say otherwise.
    pub async fn region(folder: Option<&Path>, more: &[&str]) -> Result<Self, Failure> {
        let folder = folder.map(|folder| folder.display().to_string());
        let state = folder.as_ref().map_or_else(|| vec!["--memory"], |folder| vec!["--directory", folder]);
        let driver: &[&str] = if more.contains(&"--driver") { &[] } else { &["--driver", "sim"] };
        Self::start(&[&["up", "--port", "0"], state.as_slice(), driver, more].concat(), "gureum is ready at ").await
    }

    /// A channel to a region's front door.
    pub async fn door(&self) -> Result<Channel, Failure> {
        let address = self.ready.rsplit(' ').next().unwrap_or_default().to_owned();
        Ok(Endpoint::from_shared(address)?.tcp_nodelay(true).connect().await?)
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(mut self) -> Result<(), Failure> {
        self.child.kill().await?;
        Ok(())
    }

    /// The number of the process.
    pub fn id(&self) -> Result<u32, Failure> {
        Ok(self.child.id().ok_or("the process has ended")?)
    }

    /// Resident memory in MiB.
    pub fn memory(&self) -> Result<f64, Failure> {
        resident(self.id()?)
    }
}

/// A process's resident memory in MiB.
pub fn resident(process: u32) -> Result<f64, Failure> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).ok_or("no VmRSS")?;
    let kibibytes: f64 = line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse()?;
    Ok(kibibytes / 1024.0)
}
