//! Snapshots: what volumes held, kept so that a second one costs what changed since the first.
//!
//! ```text
//!  snapshots/manifests/<id>   what files there were, and of which pieces they are     put in place whole, last of all
//!  snapshots/pieces/ab/<hash> what was in them, each once
//!  snapshots/incoming/<id>.…  pieces of a snapshot that is being taken
//!  snapshots/receiving/<id>/  parts of an archive that is brought in from outside
//!  snapshots/leaving/<id>     the manifest of a snapshot that is being removed
//!  snapshots/LOCK             shared by who takes or reads, held alone by who removes
//! ```
//!
//! The directory may belong to several nodes of a host. A process may be killed between any two steps: a snapshot is
//! there once its manifest is, and then it is on the disk with all its pieces; it is gone once its manifest is. What is in
//! `incoming` and `leaving` beside that names the pieces that nobody may need any more, and whoever next holds the lock alone
//! removes those that nobody does.

mod archive;
mod manifest;
pub mod owner;
mod pieces;
pub mod receive;
mod restore;
mod take;

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use gureum_model::id::SnapshotId;

use self::{
    manifest::Manifest,
    owner::Range,
    pieces::{Incoming, Pieces},
};

/// Bytes in a GiB, in which volumes are measured.
const GIB: u64 = 1 << 30;

/// The snapshots in a directory.
#[derive(Debug)]
pub struct Snapshots {
    directory: PathBuf,
    pieces: Pieces,
    /// Tells apart what this process takes.
    taken: AtomicU64,
}

/// After which step something went wrong, for tests that end there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Read,
    Settled,
    Written,
    Named,
    Leaving,
    Swept,
}

/// What ends a piece of work after a step. Nothing but a test does.
type AtStep<'a> = &'a dyn Fn(Step) -> io::Result<()>;

const GO_ON: AtStep<'static> = &|_| Ok(());

impl Snapshots {
    /// Opens the directory, and removes what processes left there that were killed, unless another one is at work.
    pub fn open(directory: &Path) -> io::Result<Self> {
        for name in ["manifests", "incoming", "leaving", "receiving"] {
            fs::create_dir_all(directory.join(name))?;
        }
        let pieces = Pieces::open(directory.join("pieces"))?;
        let snapshots = Self { directory: directory.to_owned(), pieces, taken: AtomicU64::new(0) };
        let lock = snapshots.lock_file()?;
        if lock.try_lock().is_ok() {
            snapshots.sweep()?;
        }
        Ok(snapshots)
    }

    fn lock_file(&self) -> io::Result<File> {
        OpenOptions::new().create(true).truncate(false).write(true).open(self.directory.join("LOCK"))
    }

    /// Held as long as the answer lives: no piece goes meanwhile.
    fn reading(&self) -> io::Result<File> {
        let lock = self.lock_file()?;
        lock.lock_shared()?;
        Ok(lock)
    }

    fn manifest_place(&self, id: SnapshotId) -> PathBuf {
        self.directory.join("manifests").join(id.to_string())
    }

    pub fn contains(&self, id: SnapshotId) -> bool {
        self.manifest_place(id).exists()
    }

    /// Takes a snapshot of a directory, unless it is there. `None`: of nothing.
    pub fn take(&self, id: SnapshotId, volume: Option<&Path>) -> io::Result<()> {
        self.take_until(id, volume, GO_ON)
    }

    fn take_until(&self, id: SnapshotId, volume: Option<&Path>, at: AtStep<'_>) -> io::Result<()> {
        let _lock = self.reading()?;
        if self.contains(id) {
            return Ok(());
        }
        let mut incoming = self.incoming(id)?;
        let read = volume.map_or_else(|| Ok(Manifest::default()), |volume| take::read(volume, &mut incoming));
        let manifest = read.map_err(|error| give_up(&incoming, error))?;
        at(Step::Read)?;
        self.put(id, &manifest, incoming, at)
    }

    fn incoming(&self, id: SnapshotId) -> io::Result<Incoming<'_>> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let name = format!("{id}.{}.{number}", std::process::id());
        Incoming::begin(&self.pieces, self.directory.join("incoming").join(name))
    }

    /// Puts a snapshot in place whose pieces have come. They are on the disk before anybody can find them.
    fn put(&self, id: SnapshotId, manifest: &Manifest, incoming: Incoming<'_>, at: AtStep<'_>) -> io::Result<()> {
        let disk = File::open(&self.directory)?;
        rustix::fs::syncfs(&disk)?;
        incoming.settle()?;
        at(Step::Settled)?;
        let unfinished = incoming.directory.join("manifest");
        let mut file = File::create(&unfinished)?;
        file.write_all(&serde_json::to_vec(manifest)?)?;
        rustix::fs::syncfs(&disk)?;
        at(Step::Written)?;
        fs::rename(&unfinished, self.manifest_place(id))?;
        sync_directory(&self.directory.join("manifests"))?;
        at(Step::Named)?;
        fs::remove_dir_all(&incoming.directory)
    }

    /// Fills a new directory with what a snapshot holds, for a volume of this size in GiB.
    ///
    /// # Errors
    /// The snapshot is not here, or holds more than the volume may.
    pub fn restore(&self, id: SnapshotId, directory: &Path, size_gib: u32, first_id: Option<u32>) -> io::Result<()> {
        let _lock = self.reading()?;
        let manifest = self.manifest(&self.manifest_place(id)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                io::Error::new(error.kind(), format!("the snapshot {id} is not on this host: it is where it was taken"))
            }
            _ => error,
        })?;
        let (holds, may) = (manifest.bytes(), u64::from(size_gib) * GIB);
        if holds > may {
            let words =
                format!("the snapshot {id} holds {holds} bytes, and its volume is to have {size_gib} GiB ({may} bytes); make it larger");
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        if manifest.entries.is_empty() {
            return Ok(());
        }
        restore::fill(directory, &manifest, &self.pieces, first_id.map(|first| Range::of(first, first)))
    }

    fn manifest(&self, place: &Path) -> io::Result<Manifest> {
        let bytes = fs::read(place)?;
        serde_json::from_slice(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", place.display())))
    }

    /// Removes a snapshot, if it is there, and the pieces that no other needs. Waits for who takes or reads one.
    pub fn remove(&self, id: SnapshotId) -> io::Result<()> {
        self.remove_until(id, GO_ON)
    }

    fn remove_until(&self, id: SnapshotId, at: AtStep<'_>) -> io::Result<()> {
        let lock = self.lock_file()?;
        lock.lock()?;
        match fs::rename(self.manifest_place(id), self.directory.join("leaving").join(id.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.forget_received(id)?;
        sync_directory(&self.directory.join("manifests"))?;
        sync_directory(&self.directory.join("leaving"))?;
        at(Step::Leaving)?;
        self.sweep_until(at)
    }

    fn sweep(&self) -> io::Result<()> {
        self.sweep_until(GO_ON)
    }

    /// Removes the pieces that something in `incoming` or `leaving` names and no snapshot needs, then what named them.
    /// Whoever calls this holds the lock alone.
    fn sweep_until(&self, at: AtStep<'_>) -> io::Result<()> {
        let (incoming, leaving) = (self.entries("incoming")?, self.entries("leaving")?);
        if incoming.is_empty() && leaving.is_empty() {
            return Ok(());
        }
        let mut unneeded = BTreeSet::new();
        for directory in &incoming {
            unneeded.extend(pieces::named_in(directory)?);
        }
        for place in &leaving {
            unneeded.extend(self.manifest(place)?.hashes().map(str::to_owned));
        }
        for place in self.entries("manifests")? {
            for hash in self.manifest(&place)?.hashes() {
                unneeded.remove(hash);
            }
        }
        unneeded.iter().try_for_each(|hash| self.pieces.remove(hash))?;
        at(Step::Swept)?;
        incoming.iter().try_for_each(fs::remove_dir_all)?;
        leaving.iter().try_for_each(fs::remove_file)
    }

    fn entries(&self, name: &str) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(self.directory.join(name))?.map(|entry| Ok(entry?.path())).collect()
    }
}

/// Removes what came of a snapshot that cannot be taken: none of it is in its place yet. What made it fail may be that the disk
/// is full.
fn give_up(incoming: &Incoming<'_>, error: io::Error) -> io::Error {
    // What is left is swept later.
    let _ = fs::remove_dir_all(&incoming.directory);
    error
}

/// What was renamed in a directory is so also after a power cut.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests;
