//! Reading a volume: its tree, as a manifest and pieces.
//!
//! What runs meanwhile goes on. Each file is as it was at some moment while it was read; a file that goes away in
//! between is left out.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{OFlags, SeekFrom, seek};

use super::{
    manifest::{Entry, Kind, Manifest, Piece},
    owner::Range,
    pieces::{Incoming, LARGEST},
};

/// The bits of a mode that are kept.
const MODE: u32 = 0o7777;

/// Reads all that is in a directory.
pub fn read(top: &Path, incoming: &mut Incoming<'_>) -> io::Result<Manifest> {
    let found = fs::symlink_metadata(top)?;
    let mut reading = Reading {
        top,
        range: Range::of(found.uid(), rustix::process::geteuid().as_raw()),
        incoming,
        names: BTreeMap::new(),
        manifest: Manifest::default(),
    };
    reading.add(PathBuf::new(), &found)?;
    Ok(reading.manifest)
}

struct Reading<'a, 'b> {
    top: &'a Path,
    /// Whose ids the files have.
    range: Range,
    incoming: &'a mut Incoming<'b>,
    /// The first name of each file that has several, by its number.
    names: BTreeMap<u64, PathBuf>,
    manifest: Manifest,
}

impl Reading<'_, '_> {
    fn add(&mut self, path: PathBuf, found: &Metadata) -> io::Result<()> {
        let Some(kind) = gone_is_none(self.kind(&path, found))?.flatten() else { return Ok(()) };
        let is_directory = kind == Kind::Directory;
        self.manifest.entries.push(Entry {
            path: path.clone(),
            mode: found.mode() & MODE,
            user: self.range.within(found.uid()),
            group: self.range.within(found.gid()),
            modified: (found.mtime(), u32::try_from(found.mtime_nsec()).unwrap_or_default()),
            kind,
        });
        if is_directory {
            self.add_all_in(&path)?;
        }
        Ok(())
    }

    fn add_all_in(&mut self, path: &Path) -> io::Result<()> {
        let Some(entries) = gone_is_none(fs::read_dir(self.top.join(path)))? else { return Ok(()) };
        let mut names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        // So that the same tree has the same manifest.
        names.sort();
        for name in names {
            let path = path.join(name);
            if let Some(found) = gone_is_none(fs::symlink_metadata(self.top.join(&path)))? {
                self.add(path, &found)?;
            }
        }
        Ok(())
    }

    /// What it is; none of what no volume keeps: sockets, and devices, which nobody without the host's root can make.
    fn kind(&mut self, path: &Path, found: &Metadata) -> io::Result<Option<Kind>> {
        let (kind, place) = (found.file_type(), self.top.join(path));
        if kind.is_dir() {
            return Ok(Some(Kind::Directory));
        }
        if kind.is_symlink() {
            return Ok(Some(Kind::Link { target: fs::read_link(place)? }));
        }
        if kind.is_fifo() {
            return Ok(Some(Kind::Pipe));
        }
        if !kind.is_file() {
            return Ok(None);
        }
        if found.nlink() > 1
            && let Some(first) = self.names.get(&found.ino())
        {
            return Ok(Some(Kind::Same { first: first.clone() }));
        }
        // It may be a link by now, or a pipe on which nobody writes.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = fs::OpenOptions::new().read(true).custom_flags(i32::try_from(flags.bits()).unwrap_or_default()).open(place)?;
        let kind = self.file(&file)?;
        if found.nlink() > 1 {
            self.names.insert(found.ino(), path.to_owned());
        }
        Ok(Some(kind))
    }

    fn file(&mut self, file: &File) -> io::Result<Kind> {
        let length = file.metadata()?.len();
        let (mut pieces, mut bytes) = (Vec::new(), vec![0; LARGEST]);
        let mut at = 0;
        while at < length {
            at = match seek(file, SeekFrom::Data(at)) {
                // Pieces begin where they always do, or what is the same would not be found to be.
                Ok(data) => data - data % LARGEST as u64,
                Err(rustix::io::Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            let want = usize::try_from(length - at).unwrap_or(LARGEST).min(LARGEST);
            let count = read_at(file, at, &mut bytes[..want])?;
            if bytes[..count].iter().any(|byte| *byte != 0) {
                let hash = self.incoming.add(&bytes[..count])?;
                pieces.push(Piece { at, length: u32::try_from(count).unwrap_or_default(), hash });
            }
            if count < want {
                // It was cut meanwhile.
                return Ok(Kind::File { length: at + count as u64, pieces });
            }
            at += want as u64;
        }
        Ok(Kind::File { length, pieces })
    }
}

/// Reads until the buffer is full or the file ends.
fn read_at(file: &File, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < bytes.len() {
        match file.read_at(&mut bytes[count..], at + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// What went away while it was looked at, or became a link, is no error.
fn gone_is_none<T>(looked: io::Result<T>) -> io::Result<Option<T>> {
    let gone = [rustix::io::Errno::NOENT, rustix::io::Errno::NOTDIR, rustix::io::Errno::LOOP];
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(error) if rustix::io::Errno::from_io_error(&error).is_some_and(|error| gone.contains(&error)) => Ok(None),
        Err(error) => Err(error),
    }
}
