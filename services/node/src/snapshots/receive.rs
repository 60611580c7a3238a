//! Archives that are brought in part by part: `receiving/<id>/<part>`, and read once all parts are there.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use gureum_model::id::SnapshotId;
use gureum_shim::protocol::write_whole;
use sha2::{Digest, Sha256};

use super::{
    GIB, GO_ON, Snapshots, archive, give_up,
    manifest::{Entry, Kind, Manifest},
    pieces::Incoming,
};
use crate::bootable::{self, Files, Found};

/// What is said of an archive that is complete.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Complete {
    pub blocks: u32,
    /// SHA-256 of all blocks in order, in hexadecimal.
    pub checksum: String,
    /// What volumes of it have at least.
    pub size_gib: u32,
}

impl Snapshots {
    fn receiving(&self, id: SnapshotId) -> PathBuf {
        self.directory.join("receiving").join(id.to_string())
    }

    /// Keeps a part. It is on the disk when this returns.
    ///
    /// # Errors
    /// `InvalidData`: it is another than its checksum says.
    pub fn receive(&self, id: SnapshotId, index: u32, bytes: &[u8], checksum: &[u8]) -> io::Result<()> {
        if Sha256::digest(bytes).as_slice() != checksum {
            return Err(invalid(format!("the block {index} of {id} is another than its checksum says; send it again")));
        }
        let directory = self.receiving(id);
        fs::create_dir_all(&directory)?;
        write_whole(&directory.join(index.to_string()), bytes)?;
        File::open(directory)?.sync_all()
    }

    /// Makes a snapshot of the archive whose parts are all there, unless it is made.
    ///
    /// # Errors
    /// `InvalidData`: a part is missing, it is another archive than the checksum says, or it is none from which something
    /// could boot.
    pub fn read_received(&self, id: SnapshotId, complete: &Complete) -> io::Result<()> {
        let _lock = self.reading()?;
        if !self.contains(id) {
            let mut incoming = self.incoming(id)?;
            let parts = Parts { directory: self.receiving(id), count: complete.blocks, next: 0, part: None, hash: Sha256::new() };
            let manifest = parts.read_all(&mut incoming, complete).map_err(|error| give_up(&incoming, error))?;
            self.put(id, &manifest, incoming, GO_ON)?;
        }
        self.forget_received(id)
    }

    /// Removes the parts that there are of one.
    pub fn forget_received(&self, id: SnapshotId) -> io::Result<()> {
        match fs::remove_dir_all(self.receiving(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// What an archive holds, before it is anywhere else.
struct Archived<'a> {
    entries: BTreeMap<&'a Path, &'a Entry>,
    incoming: &'a Incoming<'a>,
}

impl<'a> Archived<'a> {
    fn new(manifest: &'a Manifest, incoming: &'a Incoming<'a>) -> Self {
        Self { entries: manifest.entries.iter().map(|entry| (entry.path.as_path(), entry)).collect(), incoming }
    }

    /// The entry of a path; of a file's other name the file's.
    fn entry(&self, path: &Path) -> Option<&'a Entry> {
        let entry = self.entries.get(path)?;
        match &entry.kind {
            Kind::Same { first } => self.entries.get(first.as_path()).copied(),
            Kind::Directory | Kind::File { .. } | Kind::Link { .. } | Kind::Pipe => Some(entry),
        }
    }
}

impl Files for Archived<'_> {
    fn find(&self, path: &Path) -> Option<Found> {
        let entry = self.entry(path)?;
        Some(match &entry.kind {
            Kind::Directory => Found::Directory,
            Kind::File { .. } => Found::File { mode: entry.mode },
            Kind::Link { target } => Found::Link(target.clone()),
            Kind::Same { .. } | Kind::Pipe => Found::Other,
        })
    }

    fn head(&self, path: &Path, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if let Some(Entry { kind: Kind::File { pieces, .. }, .. }) = self.entry(path)
            && let Some(first) = pieces.first().filter(|piece| piece.at == 0)
        {
            File::open(self.incoming.find(&first.hash))?.take(most as u64).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    }
}

fn invalid(words: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words)
}

/// All parts, one after another.
struct Parts {
    directory: PathBuf,
    count: u32,
    next: u32,
    part: Option<File>,
    hash: Sha256,
}

impl Parts {
    fn read_all(mut self, incoming: &mut Incoming<'_>, complete: &Complete) -> io::Result<Manifest> {
        let manifest = archive::read(&mut self, incoming)?;
        // What follows the archive's end belongs to it.
        io::copy(&mut self, &mut io::sink())?;
        let hash = format!("{:x}", self.hash.finalize());
        if hash != complete.checksum {
            return Err(invalid(format!("the archive's checksum is {hash}, and {} was said", complete.checksum)));
        }
        archive::check(&manifest)?;
        bootable::check(&Archived::new(&manifest, incoming))?;
        let (holds, may) = (manifest.bytes(), u64::from(complete.size_gib) * GIB);
        if holds > may {
            let words = format!("it holds {holds} bytes, and its volumes have {} GiB ({may} bytes); give them more", complete.size_gib);
            return Err(invalid(words));
        }
        Ok(manifest)
    }
}

impl Read for Parts {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(part) = &mut self.part {
                let count = part.read(bytes)?;
                if count > 0 {
                    self.hash.update(&bytes[..count]);
                    return Ok(count);
                }
            }
            if self.next == self.count {
                return Ok(0);
            }
            let index = self.next;
            self.part = Some(File::open(self.directory.join(index.to_string())).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => invalid(format!("the block {index} of {} is missing", self.count)),
                _ => error,
            })?);
            self.next += 1;
        }
    }
}
