//! Every service its own process, started again when it ends.
//!
//! A child is `gureum serve KIND --config FILE --with-parent`: it ends when its standard input does, so
//! none outlives its supervisor, however that ends.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use gureum_service::{CancellationToken, clock::monotonic};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
    task::JoinSet,
};

use super::region::{Member, Region};
use crate::failure::Failure;

/// Pause before a child that ended is started again: doubled each time it ends soon, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The longest for one that was ready: whoever is killed again and again is to be back in two seconds each time.
const LONGEST_PAUSE_WHEN_READY: Duration = Duration::from_millis(800);

/// A child that ran this long was well, and the next pause is the first again.
const WELL_AFTER: Duration = Duration::from_secs(10);

/// A child that fails this often in a row before it was ready will not get well by itself.
const HOPELESS_AFTER: u32 = 8;

/// Time that a child is given to end in order.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the region until it is told to stop, or a child cannot be started.
pub async fn run(region: &Region, shutdown: CancellationToken, ready: impl FnOnce(SocketAddr)) -> Result<(), Failure> {
    let program = std::env::current_exe().map_err(Failure::start)?;
    let (sender, mut accepted) = mpsc::unbounded_channel();
    let mut supervised = JoinSet::new();
    for (name, member) in &region.members {
        let file = write_config(&region.run_directory, name, member)?;
        let supervisor = Supervisor {
            name: name.clone(),
            kind: member.kind(),
            program: program.clone(),
            file,
            shutdown: shutdown.clone(),
            ready: sender.clone(),
        };
        supervised.spawn(supervisor.run());
    }
    drop(sender);
    let (mut waiting, mut door, mut ready) = (region.members.len(), None, Some(ready));
    let mut outcome = Ok(());
    loop {
        tokio::select! {
            Some(address) = accepted.recv(), if ready.is_some() => {
                waiting -= 1;
                door = door.or(address);
                if let (0, Some(door)) = (waiting, door)
                    && let Some(ready) = ready.take()
                {
                    ready(door);
                }
            }
            ended = supervised.join_next() => match ended {
                None => return outcome,
                Some(ended) => {
                    let ended = ended.unwrap_or_else(|error| Err(Failure::service("a supervisor", &error)));
                    if let (Err(failure), Ok(())) = (ended, &outcome) {
                        outcome = Err(failure);
                    }
                    shutdown.cancel();
                }
            },
        }
    }
}

fn write_config(directory: &Path, name: &str, member: &Member) -> Result<PathBuf, Failure> {
    let path = directory.join(format!("{name}.toml"));
    let text = member.to_toml().map_err(Failure::start)?;
    std::fs::write(&path, text).map_err(Failure::start)?;
    Ok(path)
}

struct Supervisor {
    name: String,
    kind: &'static str,
    program: PathBuf,
    file: PathBuf,
    shutdown: CancellationToken,
    /// Told once, when the child accepts for the first time.
    ready: mpsc::UnboundedSender<Option<SocketAddr>>,
}

/// What a supervisor knows of its child since that accepted for the first time.
#[derive(Debug, Default)]
struct Accepted {
    once: bool,
    /// Where the gateway accepts callers.
    door: Option<SocketAddr>,
}

impl Supervisor {
    async fn run(self) -> Result<(), Failure> {
        let (mut pause, mut failures, mut accepted) = (FIRST_PAUSE, 0, Accepted::default());
        while !self.shutdown.is_cancelled() {
            let started = monotonic();
            let mut child = self.start(accepted.door)?;
            let was_ready = self.watch(&mut child, &mut accepted).await;
            if self.shutdown.is_cancelled() {
                return Ok(());
            }
            failures = if was_ready { 0 } else { failures + 1 };
            if failures >= HOPELESS_AFTER {
                return Err(Failure::usage(format!("{} ended {failures} times before it was ready; its log says why", self.name)));
            }
            pause = if started.elapsed() > WELL_AFTER { FIRST_PAUSE } else { pause };
            pause = if was_ready { pause.min(LONGEST_PAUSE_WHEN_READY) } else { pause };
            tracing::warn!(service = self.name, pause_ms = pause.as_millis() as u64, "ended; it is started again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.shutdown.cancelled() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(())
    }

    fn start(&self, door: Option<SocketAddr>) -> Result<Child, Failure> {
        let mut command = Command::new(&self.program);
        command.arg("serve").arg(self.kind).arg("--config").arg(&self.file).arg("--with-parent");
        if let Some(door) = door {
            // Callers know it by now, also where it was any free port.
            command.arg("--set").arg(format!("settings.door={door}"));
        }
        // In a group of its own, so that Ctrl-C reaches the supervisor, which ends its children in order.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        command.spawn().map_err(Failure::start)
    }

    /// Waits for the child's end; ends it itself when told to stop. Answers whether it was ever ready.
    async fn watch(&self, child: &mut Child, accepted: &mut Accepted) -> bool {
        let input = child.stdin.take();
        let mut lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        let mut was_ready = false;
        loop {
            let line = async {
                match &mut lines {
                    Some(lines) => lines.next_line().await.ok().flatten(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                line = line => match line {
                    None => lines = None,
                    Some(line) => if let Some(door) = ready_line(&line) {
                        was_ready = true;
                        if !std::mem::replace(&mut accepted.once, true) {
                            accepted.door = door;
                            let _ = self.ready.send(door);
                        }
                    },
                },
                _ = child.wait() => return was_ready,
                () = self.shutdown.cancelled() => {
                    // The child takes the end of its input as the order to stop.
                    drop(input);
                    if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
                        let _ = child.kill().await;
                    }
                    return was_ready;
                }
            }
        }
    }
}

/// What `gureum serve` prints once it accepts: `ready`, or `ready ADDRESS` from the gateway.
fn ready_line(line: &str) -> Option<Option<SocketAddr>> {
    let rest = line.strip_prefix("ready")?;
    Some(rest.trim().parse().ok())
}
