//! Files between here and an instance: as tar streams of its own `tar`, over a session.

pub mod archive;
mod scripts;

use std::path::{Path, PathBuf};

use gureum_proto::{
    common::v1::SessionStart,
    compute::v1::{ConnectInstanceResponse, connect_instance_request::Message as Asked, connect_instance_response::Message as Told},
};
use tokio::sync::mpsc;
use tonic::Streaming;

use self::archive::{Incoming, Outgoing};
use crate::{client::Client, failure::Failure, output::Output, session::Session};

/// Bytes of what the instance's programs complain of that are told.
const LONGEST_COMPLAINT: usize = 4_096;

/// Parts of an archive that wait for a slow disk.
const WAITING: usize = 4;

/// Bytes between two reports of how far a copy has come, and before the first: what is smaller is there at once.
const REPORTED: u64 = 1 << 20;

/// What is copied, besides where to.
pub struct Copy<'a> {
    pub client: &'a Client,
    pub out: &'a Output,
    pub instance_id: String,
    pub user: String,
    pub recursive: bool,
}

/// How far a copy has come: shown in a terminal, for as long as it lasts.
pub struct Progress<'a> {
    out: &'a Output,
    total: Option<u64>,
    copied: u64,
    shown: u64,
}

impl<'a> Progress<'a> {
    fn new(out: &'a Output, total: Option<u64>) -> Self {
        Self { out, total, copied: 0, shown: 0 }
    }

    fn add(&mut self, count: usize) {
        self.copied += count as u64;
        if self.copied >= self.shown + REPORTED {
            self.shown = self.copied;
            let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
            match self.total {
                Some(total) => self.out.progress(&format!("{} of {}", mib(self.copied.min(total)), mib(total))),
                None => self.out.progress(&mib(self.copied)),
            }
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if self.shown > 0 {
            self.out.progress("");
        }
    }
}

impl Copy<'_> {
    /// Copies a file or a directory into the instance.
    pub async fn push(&self, from: &Path, to: &str) -> Result<(), Failure> {
        let found = std::fs::metadata(from).map_err(|error| Failure::file("read", from, &error))?;
        if found.is_dir() && !self.recursive {
            return Err(Failure::usage(format!("{} is a directory: --recursive copies it", from.display())));
        }
        // The name of "." and ".." is that of what they stand for.
        let whole = from.canonicalize().map_err(|error| Failure::file("read", from, &error))?;
        let name = whole.file_name().map_or_else(|| "root".to_owned(), |name| name.to_string_lossy().into_owned());
        let session = self.run(scripts::PUSH, &[to, &name]).await?;
        let mut progress = Progress::new(self.out, found.is_file().then_some(found.len()));
        let (input, source) = (session.input, from.to_owned());
        let (sent, mut sending) = mpsc::unbounded_channel();
        let packing = tokio::task::spawn_blocking(move || {
            let packed = archive::pack(&source, Outgoing::new(&input, &sent));
            // What could not be read is not ended for the other side either: it is hung up instead.
            if packed.is_ok() {
                input.send_waiting(Asked::EndOfInput(gureum_proto::common::v1::EndOfInput {}));
            }
            packed
        });
        let mut output = session.output;
        let packed = async {
            while let Some(count) = sending.recv().await {
                progress.add(count);
            }
            packing.await
        };
        let mut ended = std::pin::pin!(self.listen(&mut output, None));
        let mut packed = std::pin::pin!(packed);
        tokio::select! {
            ended = &mut ended => ended,
            packed = &mut packed => match packed {
                Ok(Ok(())) => ended.await,
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ended.await,
                Ok(Err(error)) => Err(Failure::file("read", from, &error)),
                Err(error) => Err(Failure::Broken(error.to_string())),
            },
        }
    }

    /// Copies a file or a directory out of the instance.
    pub async fn pull(&self, from: &str, to: &Path) -> Result<(), Failure> {
        let session = self.run(scripts::PULL, &[from, if self.recursive { "r" } else { "" }]).await?;
        let mut output = session.output;
        let (sender, receiver) = mpsc::channel(WAITING);
        let (name, place, recursive) = (from.to_owned(), to.to_owned(), self.recursive);
        let unpacking = tokio::task::spawn_blocking(move || archive::unpack(Incoming::new(receiver), &name, &place, recursive));
        let listened = self.listen(&mut output, Some(sender)).await;
        let unpacked = unpacking.await.map_err(|error| Failure::Broken(error.to_string()))?;
        // What went wrong there explains what went wrong here.
        listened?;
        unpacked.map_err(|error| Failure::file("write", to, &error))
    }

    async fn run(&self, script: &str, arguments: &[&str]) -> Result<Session, Failure> {
        let command = ["sh", "-c", script, "gureum-cp"].iter().chain(arguments).map(|word| (*word).to_owned()).collect();
        let start = SessionStart { instance_id: self.instance_id.clone(), command, terminal: None, user: self.user.clone() };
        Session::open(self.client, start).await
    }

    /// Takes what the instance's programs write, to their end: well, or with what they complain of.
    async fn listen(&self, output: &mut Streaming<ConnectInstanceResponse>, to: Option<mpsc::Sender<Vec<u8>>>) -> Result<(), Failure> {
        let mut complaint = Vec::new();
        let mut progress = Progress::new(self.out, None);
        let mut taken = to.is_some();
        loop {
            let told = output.message().await.map_err(|status| self.client.failed(status))?;
            match told.map(|told| told.message) {
                Some(Some(Told::Stdout(bytes))) => {
                    if let Some(to) = to.as_ref().filter(|_| taken) {
                        progress.add(bytes.len());
                        // Whoever takes no more says why himself.
                        taken = to.send(bytes).await.is_ok();
                    }
                }
                Some(Some(Told::Stderr(bytes))) => complaint.extend(bytes.into_iter().take(LONGEST_COMPLAINT - complaint.len())),
                Some(Some(Told::Exit(exit))) if exit.code == 0 => return Ok(()),
                Some(Some(Told::Exit(exit))) => {
                    let told = String::from_utf8_lossy(&complaint);
                    let told = told.trim();
                    let what = if told.is_empty() { format!("the copy ended with exit code {}", exit.code) } else { told.to_owned() };
                    return Err(Failure::Broken(format!("{}: {what}", self.instance_id)));
                }
                Some(None) => {}
                None => return Err(Failure::Broken("the region ended the session without a word".into())),
            }
        }
    }
}

/// Where something of an instance is copied to: into a directory that is there under its own name, else as what is named.
pub fn place(to: &Path, name: &str) -> PathBuf {
    let own = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let has_name = !matches!(own, "" | "." | "..");
    if to.is_dir() && has_name { to.join(own) } else { to.to_owned() }
}
