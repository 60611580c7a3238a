//! Reading a console on while it is written, and while its file is put aside.
//!
//! A part is known by its inode, which it keeps when it is put aside, and which nobody else gets while it is open here. A
//! part that has a number gets nothing more, so it is read to its end and then the one before it. Parts are put aside
//! from the oldest to the newest: as long as a part is where it was, so are all that are newer.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    console::{PARTS, part},
    protocol::CONSOLE_FILE,
};

/// A reader of a console, at some place in it.
pub struct Follower {
    directory: PathBuf,
    /// The part that is read; none: nothing was written yet.
    file: Option<File>,
}

/// A part that there is: its device and inode, and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    identity: (u64, u64),
    length: u64,
}

impl Follower {
    /// Begins so many bytes before the end, or where that is more than is kept, or 0, with all that is kept.
    pub fn open(directory: &Path, tail: u64) -> io::Result<Self> {
        let mut this = Self { directory: directory.to_owned(), file: None };
        loop {
            let before = this.parts()?;
            let tail = if tail == 0 { u64::MAX } else { tail };
            let Some((number, offset)) = place_before_end(&before, tail) else { return Ok(this) };
            let Some(mut file) = this.open_part(number)? else { continue };
            // Else a part may have been put aside meanwhile, and this is another.
            if before.get(number).is_some_and(|part| Some(part.identity) == identity(&file).ok()) {
                file.seek(SeekFrom::Start(offset))?;
                this.file = Some(file);
                return Ok(this);
            }
        }
    }

    /// What follows, at most so much. Nothing: no more was written yet.
    pub fn read(&mut self, most: usize) -> io::Result<Vec<u8>> {
        loop {
            let Some(file) = &mut self.file else {
                self.file = Self::open(&self.directory, 0)?.file;
                if self.file.is_none() {
                    return Ok(Vec::new());
                }
                continue;
            };
            let bytes = read_some(file, most)?;
            if !bytes.is_empty() {
                return Ok(bytes);
            }
            let own = identity(file)?;
            let number = self.parts()?.iter().position(|part| part.identity == own);
            match number {
                Some(0) => return Ok(Vec::new()),
                Some(number) => {
                    // What came before it was put aside.
                    let Some(file) = &mut self.file else { continue };
                    let bytes = read_some(file, most)?;
                    if !bytes.is_empty() {
                        return Ok(bytes);
                    }
                    // The newest is missing for a moment when it was just put aside.
                    let Some(next) = self.open_part(number - 1)? else { return Ok(Vec::new()) };
                    if self.parts()?.get(number).is_some_and(|part| part.identity == own) {
                        self.file = Some(next);
                    }
                }
                // More was written meanwhile than is kept; or the instance is gone.
                None => {
                    let Some(file) = Self::open(&self.directory, 0)?.file else { return Ok(Vec::new()) };
                    self.file = Some(file);
                }
            }
        }
    }

    fn open_part(&self, number: usize) -> io::Result<Option<File>> {
        found(File::open(self.path(number)))
    }

    fn path(&self, number: usize) -> PathBuf {
        let newest = self.directory.join(CONSOLE_FILE);
        u32::try_from(number).ok().filter(|number| *number > 0).map_or(newest.clone(), |number| part(&newest, number))
    }

    /// The parts that there are, newest first. The newest may be missing for a moment: it has no identity then.
    fn parts(&self) -> io::Result<Vec<Part>> {
        let mut parts = Vec::new();
        for number in 0..=PARTS as usize {
            match found(fs::metadata(self.path(number)))? {
                Some(metadata) => parts.push(Part { identity: (metadata.dev(), metadata.ino()), length: metadata.len() }),
                None if number == 0 => parts.push(Part { identity: (0, 0), length: 0 }),
                None => break,
            }
        }
        if parts.len() == 1 && parts[0].identity == (0, 0) {
            parts.clear();
        }
        Ok(parts)
    }
}

/// Which part a place before the end is in, and where in it.
fn place_before_end(parts: &[Part], mut tail: u64) -> Option<(usize, u64)> {
    for (number, part) in parts.iter().enumerate() {
        let last = number + 1 == parts.len();
        if part.length >= tail || last {
            return Some((number, part.length.saturating_sub(tail)));
        }
        tail -= part.length;
    }
    None
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

fn read_some(file: &mut File, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::console::Console;

    /// Lines that can be told apart, of a length that does not divide a part's.
    fn line(number: u32) -> Vec<u8> {
        format!("{number:0>999}\n").into_bytes()
    }

    #[test]
    fn a_follower_goes_over_parts_that_are_put_aside_and_neither_loses_nor_doubles() {
        let folder = tempfile::tempdir().unwrap();
        let mut follower = Follower::open(folder.path(), 0).unwrap();
        assert_eq!(follower.read(100).unwrap(), b"");
        let mut console = Console::open(folder.path()).unwrap();
        let (mut got, mut written) = (Vec::new(), 0);
        // More than is kept, but never more of it unread: the follower stops in all places of a part.
        while written < 30_000 {
            for _ in 0..1 + written % 7_919 {
                console.write(&line(written));
                written += 1;
            }
            while let Some(bytes) = Some(follower.read(64 << 10).unwrap()).filter(|bytes| !bytes.is_empty()) {
                got.extend(bytes);
            }
        }
        assert!(got == (0..written).flat_map(line).collect::<Vec<u8>>(), "{} of {written} lines", got.len() / 1_000);
    }

    #[test]
    fn a_follower_that_is_too_slow_goes_on_with_what_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut console = Console::open(folder.path()).unwrap();
        console.write(&line(0));
        let mut follower = Follower::open(folder.path(), 0).unwrap();
        assert_eq!(follower.read(64 << 10).unwrap(), line(0));
        for number in 1..40_000 {
            console.write(&line(number));
        }
        let mut got = Vec::new();
        while let Some(bytes) = Some(follower.read(64 << 10).unwrap()).filter(|bytes| !bytes.is_empty()) {
            got.extend(bytes);
        }
        assert!(got.len() > 16 << 20 && got.ends_with(&line(39_999)) && got.len() % 1_000 == 0);
    }

    #[test]
    fn a_follower_begins_before_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut console = Console::open(folder.path()).unwrap();
        (0..5_000).for_each(|number| console.write(&line(number)));
        for (tail, first) in [(1_000, 4_999), (2_000_000, 3_000), (0, 0), (1 << 40, 0)] {
            let got = Follower::open(folder.path(), tail).unwrap().read(1_000).unwrap();
            assert!(got == line(first), "{tail}: {}", String::from_utf8_lossy(&got));
        }
        fs::remove_dir_all(folder.path()).unwrap();
        assert_eq!(Follower::open(folder.path(), 0).unwrap().read(10).unwrap(), b"");
    }
}
