//! What an instance writes: a file that is put aside when it is long.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::protocol::CONSOLE_FILE;

/// Bytes at which the file is put aside.
const PART: u64 = 4 << 20;
/// Files that are put aside; the oldest goes.
pub(crate) const PARTS: u32 = 4;

/// The console's file.
pub struct Console {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Console {
    pub fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(CONSOLE_FILE);
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(Self { length: file.metadata()?.len(), path, file })
    }

    /// Adds what was written. What a full disk does not take is lost: an instance must not wait for its console.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.length >= PART && self.put_aside().is_ok() {
            self.length = 0;
        }
        if self.file.write_all(bytes).is_ok() {
            self.length += bytes.len() as u64;
        }
    }

    /// A line of the machine's own.
    pub fn note(&mut self, text: &str) {
        self.write(format!("[gureum] {text}\n").as_bytes());
    }

    fn put_aside(&mut self) -> io::Result<()> {
        for number in (1..PARTS).rev() {
            let _ = fs::rename(part(&self.path, number), part(&self.path, number + 1));
        }
        fs::rename(&self.path, part(&self.path, 1))?;
        self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        Ok(())
    }
}

/// The last bytes of a console, at most `most`.
pub fn tail(directory: &Path, most: usize) -> io::Result<Vec<u8>> {
    let path = directory.join(CONSOLE_FILE);
    let newest = end_of(&path, most)?;
    let before = end_of(&part(&path, 1), most - newest.len())?;
    Ok([before, newest].concat())
}

fn end_of(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most as u64)))?;
    let mut bytes = Vec::new();
    file.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn part(path: &Path, number: u32) -> PathBuf {
    path.with_file_name(format!("{CONSOLE_FILE}.{number}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_long_console_is_put_aside_and_its_tail_goes_over_the_parts() {
        let folder = tempfile::tempdir().unwrap();
        let mut console = Console::open(folder.path()).unwrap();
        let line = vec![b'x'; 64 << 10];
        for _ in 0..(PART * u64::from(PARTS + 3)) / line.len() as u64 {
            console.write(&line);
        }
        console.write(b"the end");
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, PARTS as usize + 1, "the newest and those put aside");
        let tail = tail(folder.path(), 64 << 10).unwrap();
        assert!(tail.len() == 64 << 10 && tail.ends_with(b"xthe end"));
    }

    #[test]
    fn nothing_was_written_yet() {
        assert_eq!(tail(tempfile::tempdir().unwrap().path(), 100).unwrap(), b"");
    }
}
