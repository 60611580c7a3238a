//! The other ways: one writer thread that groups what waits, over an engine that makes a group durable.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
    thread,
};

use tokio::sync::{mpsc, oneshot};

use crate::Failure;

/// A row and its one index entry.
#[derive(Debug, Clone)]
pub struct Put {
    pub key: String,
    pub index: String,
    pub value: Vec<u8>,
}

/// Makes a group durable before it returns.
pub trait Way: Send + Sized + 'static {
    /// What is whole or not there.
    type Write: Send + 'static;

    fn open(folder: &Path) -> Result<Self, Failure>;
    fn commit(&mut self, group: &[Self::Write]) -> Result<(), Failure>;
    /// Counts all rows, so that opening again is opening for use.
    fn rows(&self) -> usize;
}

/// As many writes as the store groups at most.
const GROUP: usize = 512;

type Queued<W> = (W, oneshot::Sender<()>);

pub struct Writer<W = Put>(mpsc::Sender<Queued<W>>);

impl<W> Clone for Writer<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W: Send + 'static> Writer<W> {
    pub fn start(mut way: impl Way<Write = W>) -> (Self, thread::JoinHandle<()>) {
        let (sender, mut queue) = mpsc::channel::<Queued<W>>(1024);
        let writer = thread::spawn(move || {
            while let Some(first) = queue.blocking_recv() {
                let (mut puts, mut answers) = (vec![first.0], vec![first.1]);
                while puts.len() < GROUP
                    && let Ok((put, answer)) = queue.try_recv()
                {
                    puts.push(put);
                    answers.push(answer);
                }
                if let Err(error) = way.commit(&puts) {
                    eprintln!("the writer stops: {error}");
                    return;
                }
                for answer in answers {
                    let _ = answer.send(());
                }
            }
        });
        (Self(sender), writer)
    }

    pub async fn put(&self, put: W) -> Result<(), Failure> {
        let (answer, durable) = oneshot::channel();
        self.0.send((put, answer)).await.map_err(|_| "the writer has stopped")?;
        Ok(durable.await?)
    }
}

/// Way (a): the group as one sled batch, a blocking flush, then fdatasync of sled's own file.
pub struct SledBatch {
    database: sled::Db,
    file: File,
}

impl SledBatch {
    pub fn database(&self) -> &sled::Db {
        &self.database
    }

    pub fn commit_batch(&mut self, batch: sled::Batch) -> Result<(), Failure> {
        self.database.apply_batch(batch)?;
        self.database.flush()?;
        Ok(self.file.sync_data()?)
    }
}

impl Way for SledBatch {
    type Write = Put;

    fn open(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join("sled");
        let database = loop {
            match sled::Config::new().path(&path).flush_every_ms(None).open() {
                Err(sled::Error::Io(error)) if error.to_string().contains("lock") => thread::yield_now(),
                opened => break opened?,
            }
        };
        Ok(Self { database, file: OpenOptions::new().write(true).open(path.join("db"))? })
    }

    fn commit(&mut self, group: &[Put]) -> Result<(), Failure> {
        let mut batch = sled::Batch::default();
        for put in group {
            batch.insert(put.key.as_bytes(), put.value.as_slice());
            batch.insert([put.index.as_bytes(), put.key.as_bytes()].concat(), &[]);
        }
        self.commit_batch(batch)
    }

    fn rows(&self) -> usize {
        self.database.scan_prefix("row/").filter(Result::is_ok).count()
    }
}

/// The least that a disk lets one do: the group's bytes at the end of a file, and fdatasync.
pub struct RawAppend(File);

impl Way for RawAppend {
    type Write = Put;

    fn open(folder: &Path) -> Result<Self, Failure> {
        Ok(Self(OpenOptions::new().create(true).append(true).open(folder.join("raw"))?))
    }

    fn commit(&mut self, group: &[Put]) -> Result<(), Failure> {
        let bytes: Vec<u8> = group.iter().flat_map(|put| [put.key.as_bytes(), put.index.as_bytes(), &put.value].concat()).collect();
        self.0.write_all(&bytes)?;
        Ok(self.0.sync_data()?)
    }

    fn rows(&self) -> usize {
        0
    }
}
