//! Tar archives as they come and go in parts.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use gureum_proto::compute::v1::connect_instance_request::Message as Asked;
use tokio::sync::mpsc;

use super::place;
use crate::session::{Input, PART};

/// The name of what is copied within an archive that goes into an instance.
const ITEM: &str = "item";

/// Where an archive goes that is written: into a session.
pub struct Outgoing<'a> {
    input: &'a Input,
    sent: &'a mpsc::UnboundedSender<usize>,
}

impl<'a> Outgoing<'a> {
    /// Tells how many bytes were sent, each time.
    pub fn new(input: &'a Input, sent: &'a mpsc::UnboundedSender<usize>) -> BufWriter<Self> {
        BufWriter::with_capacity(PART, Self { input, sent })
    }
}

impl Write for Outgoing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = &bytes[..bytes.len().min(PART)];
        if !self.input.send_waiting(Asked::Input(part.to_vec())) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // Nobody counts any more once the copy has failed.
        let _ = self.sent.send(part.len());
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An archive that is read as it comes.
pub struct Incoming {
    parts: mpsc::Receiver<Vec<u8>>,
    part: Vec<u8>,
    taken: usize,
}

impl Incoming {
    pub fn new(parts: mpsc::Receiver<Vec<u8>>) -> Self {
        Self { parts, part: Vec::new(), taken: 0 }
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.part.len() {
            let Some(part) = self.parts.blocking_recv() else { return Ok(0) };
            (self.part, self.taken) = (part, 0);
        }
        let count = buffer.len().min(self.part.len() - self.taken);
        buffer[..count].copy_from_slice(&self.part[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

/// Writes the archive of a file or a directory.
pub fn pack(from: &Path, to: impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(to);
    archive.follow_symlinks(false);
    // Which not every tar can read.
    archive.sparse(false);
    if from.is_dir() {
        archive.append_dir_all(ITEM, from)?
    } else {
        archive.append_file(ITEM, &mut File::open(from)?)?
    }
    archive.into_inner()?.flush()
}

/// Reads the archive of what has this name in the instance to its place. A file is put in its place whole.
///
/// Whatever the archive says, nothing is written outside the place: an instance may not overwrite what is its caller's.
pub fn unpack(mut from: impl Read, name: &str, to: &Path, recursive: bool) -> io::Result<()> {
    let place = place(to, name);
    let mut first = [0; 512];
    match from.read_exact(&mut first) {
        // The instance says why.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        read => read?,
    }
    let directory = tar::Header::from_byte_slice(&first).entry_type().is_dir();
    let mut archive = tar::Archive::new(first.as_slice().chain(from));
    // Not what makes programs others' than his who runs them.
    archive.set_preserve_permissions(false);
    if directory && recursive {
        fs::create_dir_all(&place)?;
        // Directories get their modes last, and no path or link leads out of the place.
        return archive.unpack(&place);
    }
    let entry = archive.entries()?.next().ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))??;
    if !entry.header().entry_type().is_file() {
        return Err(io::Error::other("it is neither a file nor a directory"));
    }
    write_whole(entry, &place)
}

fn write_whole(mut entry: tar::Entry<'_, impl Read>, place: &Path) -> io::Result<()> {
    let name = place.file_name().ok_or_else(|| io::Error::other("a file needs a name to be copied to"))?;
    let unfinished = place.with_file_name(format!(".{}.gureum-cp-{}", name.to_string_lossy(), std::process::id()));
    let mode = entry.header().mode()? & 0o777;
    let size = entry.size();
    let written = File::create(&unfinished).and_then(|mut file| {
        let count = io::copy(&mut entry, &mut file)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        if count < size { Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the copy broke off")) } else { Ok(()) }
    });
    let written = written.and_then(|()| fs::rename(&unfinished, place));
    if written.is_err() {
        // The failure is told; what is left of the file is not worth another.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn archive(add: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        add(&mut builder);
        builder.into_inner().unwrap()
    }

    fn entry(builder: &mut tar::Builder<Vec<u8>>, path: &str, kind: tar::EntryType, mode: u32, text: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(text.len() as u64);
        // Not by the builder's own ways, which refuse what a hostile archive has.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, text.as_bytes()).unwrap();
    }

    #[test]
    fn a_file_comes_whole_with_its_mode_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = archive(|it| entry(it, "./run", tar::EntryType::Regular, 0o4750, "#!/bin/sh\n"));
        unpack(bytes.as_slice(), "/opt/run", folder.path(), false).unwrap();
        let made = folder.path().join("run");
        assert_eq!(fs::read_to_string(&made).unwrap(), "#!/bin/sh\n");
        assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o7777, 0o750);
        let broken = unpack(&bytes[..515], "/opt/run", &folder.path().join("other"), false);
        assert!(broken.is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a part of it is left");
    }

    #[test]
    fn a_directory_goes_and_comes_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        fs::create_dir_all(from.join("closed")).unwrap();
        fs::write(from.join("closed/file"), "text").unwrap();
        fs::set_permissions(from.join("closed/file"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(from.join("closed"), fs::Permissions::from_mode(0o500)).unwrap();
        symlink("closed/file", from.join("link")).unwrap();
        let mut bytes = Vec::new();
        pack(&from, &mut bytes).unwrap();
        let to = folder.path().join("to");
        unpack(bytes.as_slice(), "/srv/from", &to, true).unwrap();
        assert_eq!(fs::read_to_string(to.join("item/link")).unwrap(), "text");
        let mode = |path: &str| fs::metadata(to.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("item/closed"), mode("item/closed/file")), (0o500, 0o640));
    }

    #[test]
    fn nothing_is_written_outside_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        let climbing = archive(|it| {
            entry(it, "./", tar::EntryType::Directory, 0o755, "");
            entry(it, "./../outside/climbed", tar::EntryType::Regular, 0o644, "x");
        });
        let linked = archive(|it| {
            entry(it, "./", tar::EntryType::Directory, 0o755, "");
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            it.append_link(&mut header, "way", &outside).unwrap();
            entry(it, "way/linked", tar::EntryType::Regular, 0o644, "x");
            entry(it, "way/made", tar::EntryType::Directory, 0o755, "");
        });
        for bytes in [climbing, linked] {
            let _ = unpack(bytes.as_slice(), "/x", &inside, true);
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        }
    }

    #[test]
    fn something_is_copied_into_a_directory_under_its_name_and_else_as_what_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(place(folder.path(), "/etc/hosts"), folder.path().join("hosts"));
        assert_eq!(place(folder.path(), "/srv/www/"), folder.path().join("www"));
        assert_eq!(place(folder.path(), "."), folder.path());
        assert_eq!(place(&folder.path().join("new"), "/etc/hosts"), folder.path().join("new"));
    }
}
