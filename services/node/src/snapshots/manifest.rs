//! What a snapshot says of each file: enough to make the volume again, whoever owns the copy.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// Directories stand before what is in them; the first is the volume itself, whose path is empty.
    pub entries: Vec<Entry>,
}

/// One file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// From the top of the volume.
    #[serde(with = "text")]
    pub path: PathBuf,
    /// Permissions, with the bits above them that change who a program runs as.
    pub mode: u32,
    /// As the instance sees it: 0 is its root.
    pub user: u32,
    pub group: u32,
    /// Seconds since the epoch, and nanoseconds.
    pub modified: (i64, u32),
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Directory,
    File {
        /// Bytes, with those that are in no piece: they are zero, and take no room.
        length: u64,
        pieces: Vec<Piece>,
    },
    Link {
        #[serde(with = "text")]
        target: PathBuf,
    },
    /// Another name of a file that stands before it.
    Same {
        #[serde(with = "text")]
        first: PathBuf,
    },
    Pipe,
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Bytes from the beginning of the file.
    pub at: u64,
    pub length: u32,
    /// SHA-256 in hexadecimal.
    pub hash: String,
}

impl Manifest {
    /// The pieces that it needs.
    pub fn hashes(&self) -> impl Iterator<Item = &str> {
        self.pieces().map(|piece| piece.hash.as_str())
    }

    /// Bytes that its files take.
    pub fn bytes(&self) -> u64 {
        self.pieces().map(|piece| u64::from(piece.length)).sum()
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.entries.iter().flat_map(|entry| match &entry.kind {
            Kind::File { pieces, .. } => pieces.as_slice(),
            Kind::Directory | Kind::Link { .. } | Kind::Same { .. } | Kind::Pipe => &[],
        })
    }

    /// Whether each entry stays within the volume, whatever links are in it.
    ///
    /// # Errors
    /// `InvalidData`, which names the path.
    pub fn check(&self) -> io::Result<()> {
        let mut directories = BTreeSet::new();
        let mut files = BTreeSet::new();
        for (place, entry) in self.entries.iter().enumerate() {
            let path = entry.path.as_path();
            let wrong = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, format!("the path \"{}\" {why}", path.display())));
            let is_top = path.as_os_str().is_empty();
            if is_top != (place == 0) || !path.components().all(|part| matches!(part, Component::Normal(_))) {
                return wrong("does not stay within the volume");
            }
            if !is_top && !path.parent().is_some_and(|parent| directories.contains(parent)) {
                return wrong("is in no directory that stands before it");
            }
            match &entry.kind {
                Kind::Directory => drop(directories.insert(path)),
                Kind::File { pieces, .. } if pieces.iter().all(|piece| is_hash(&piece.hash)) => drop(files.insert(path)),
                Kind::File { .. } => return wrong("has a piece whose name is none"),
                Kind::Same { first } if files.contains(first.as_path()) => {}
                Kind::Same { .. } => return wrong("is another name of a file that does not stand before it"),
                Kind::Link { .. } | Kind::Pipe => {}
            }
        }
        Ok(())
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A path as text: names are bytes, of which those that are no UTF-8, and the percent sign, are written as `%` and two digits.
fn to_text(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        text.push_str(&chunk.valid().replace('%', "%25"));
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("%{byte:02x}")));
    }
    text
}

fn from_text(text: &str) -> Option<PathBuf> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

mod text {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::to_text(path))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::from_text(&text).ok_or_else(|| D::Error::custom(format!("\"{text}\" is no path")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry { path: path.into(), mode: 0o755, user: 0, group: 0, modified: (0, 0), kind }
    }

    #[test]
    fn every_name_is_read_as_it_was_written() {
        let names: [&[u8]; 6] = [b"plain", "a b/\u{e9}".as_bytes(), b"100%", b"\xff\xfe", b"%25", b"a\nb\xc3"];
        for name in names {
            let path = PathBuf::from(OsString::from_vec(name.to_vec()));
            assert_eq!(from_text(&to_text(&path)), Some(path));
        }
        assert_eq!(from_text("%f"), None);
    }

    #[test]
    fn what_would_leave_the_volume_is_refused() {
        let manifest = |more: Vec<Entry>| Manifest { entries: [vec![entry("", Kind::Directory)], more].concat() };
        let file = || Kind::File { length: 0, pieces: Vec::new() };
        let link = || Kind::Link { target: "/etc".into() };
        assert!(
            manifest(vec![entry("a", Kind::Directory), entry("a/b", file()), entry("c", Kind::Same { first: "a/b".into() })])
                .check()
                .is_ok()
        );
        let wrong = [
            vec![entry("../a", file())],
            vec![entry("/etc/passwd", file())],
            vec![entry("a", link()), entry("a/passwd", file())],
            vec![entry("b/c", file())],
            vec![entry("c", Kind::Same { first: "/etc/shadow".into() })],
            vec![entry("", Kind::Directory)],
            vec![entry("a", Kind::File { length: 1, pieces: vec![Piece { at: 0, length: 1, hash: "../../x".into() }] })],
        ];
        for more in wrong {
            assert!(manifest(more.clone()).check().is_err(), "{more:?}");
        }
        assert!(Manifest { entries: vec![entry("a", file())] }.check().is_err(), "without a top");
    }
}
