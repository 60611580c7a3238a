//! Pieces of files, each by the hash of what is in it: what two snapshots have in common is kept once.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// Bytes of a piece at most. What changes in a large file costs so much; smaller pieces would make more files.
pub const LARGEST: usize = 1 << 20;

/// Where pieces are.
#[derive(Debug, Clone)]
pub struct Pieces(PathBuf);

impl Pieces {
    pub fn open(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        Ok(Self(directory))
    }

    /// Where the piece of a hash is. Folders keep any one of them small.
    pub fn place(&self, hash: &str) -> PathBuf {
        self.0.join(hash.get(..2).unwrap_or_default()).join(hash)
    }

    pub fn remove(&self, hash: &str) -> io::Result<()> {
        let place = self.place(hash);
        match fs::remove_file(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Fails as long as there are others.
        let _ = place.parent().map(fs::remove_dir);
        Ok(())
    }
}

/// Pieces of a snapshot that is being taken. They stand in a directory of its own until they are on the disk, and their
/// names stay there until the snapshot is: what a process left that was killed is found by them.
pub struct Incoming<'a> {
    pieces: &'a Pieces,
    pub directory: PathBuf,
    new: BTreeSet<String>,
}

impl<'a> Incoming<'a> {
    pub fn begin(pieces: &'a Pieces, directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        Ok(Self { pieces, directory, new: BTreeSet::new() })
    }

    /// Keeps a piece, unless it is there, and answers its hash.
    pub fn add(&mut self, bytes: &[u8]) -> io::Result<String> {
        let hash = format!("{:x}", Sha256::digest(bytes));
        if !self.new.contains(&hash) && !self.pieces.place(&hash).exists() {
            File::create(self.directory.join(&hash))?.write_all(bytes)?;
            self.new.insert(hash.clone());
        }
        Ok(hash)
    }

    /// Where a piece is that was kept or was there before.
    pub fn find(&self, hash: &str) -> PathBuf {
        if self.new.contains(hash) { self.directory.join(hash) } else { self.pieces.place(hash) }
    }

    /// Puts what is new in its place. It must be on the disk by then, so that whoever finds a piece finds it whole.
    pub fn settle(&self) -> io::Result<()> {
        for hash in &self.new {
            let place = self.pieces.place(hash);
            if let Some(folder) = place.parent() {
                fs::create_dir_all(folder)?;
            }
            match fs::hard_link(self.directory.join(hash), &place) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The pieces that a directory of [`Incoming`] names.
pub fn named_in(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.extend(entry?.file_name().into_string().ok().filter(|name| name.len() == 64));
    }
    Ok(names)
}
