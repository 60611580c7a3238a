//! A console that somebody follows: its file is looked at for as long as he does.

use std::{path::PathBuf, time::Duration};

use gureum_service::clock::monotonic;
use gureum_shim::follow::Follower;
use tokio::sync::mpsc;

use crate::session::{ConsoleStream, WAITING};

/// Bytes in one message.
const READ: usize = 32 << 10;

/// Between two looks at a file in which nothing new was: nobody sees a line later than by this.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// How long an instance that this node knows may take to have a directory: it is made when it boots.
const MADE_WITHIN: Duration = Duration::from_secs(120);

/// Reads the console of the instance of a directory, from so many bytes before its end on.
pub fn console(directory: PathBuf, follow: bool, tail: u64) -> ConsoleStream {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let place = directory.clone();
        let mut follower = tokio::task::spawn_blocking(move || Follower::open(&place, tail)).await.map_err(std::io::Error::other).flatten();
        let deadline = monotonic() + MADE_WITHIN;
        let mut made = false;
        loop {
            let mut reader = match follower {
                Ok(reader) => reader,
                Err(error) => return drop(sender.send(Err(error)).await),
            };
            // What an instance that is gone had written before can still be read.
            let exists = directory.exists();
            made |= exists;
            let gone = !exists && (made || monotonic() >= deadline);
            let read = tokio::task::spawn_blocking(move || reader.read(READ).map(|bytes| (reader, bytes)));
            let (reader, bytes) = match read.await.map_err(std::io::Error::other).flatten() {
                Ok(read) => read,
                Err(error) => return drop(sender.send(Err(error)).await),
            };
            follower = Ok(reader);
            if !bytes.is_empty() {
                if sender.send(Ok(bytes)).await.is_err() {
                    return;
                }
                continue;
            }
            if gone || !follow {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(BETWEEN_LOOKS) => {}
                () = sender.closed() => return,
            }
        }
    });
    receiver
}
