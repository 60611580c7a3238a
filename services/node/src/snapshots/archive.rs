//! Reading tar archives: those of POSIX (ustar and pax) and GNU's, as far as a volume can hold what is in them.
//!
//! Sockets and devices are left out, as from volumes. What stands in an archive twice is as it stands there last.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Read},
    os::unix::ffi::OsStringExt,
    path::{Component, Path, PathBuf},
};

use super::{
    manifest::{Entry, Kind, Manifest, Piece},
    owner::IDS,
    pieces::{Incoming, LARGEST},
};

/// Everything in an archive is in blocks of so many bytes.
const BLOCK: usize = 512;
/// Longer names and attributes no file system takes.
const LONGEST_TEXT: u64 = 1 << 20;

/// What a header, or those that stand before it and belong to it, say of a file.
#[derive(Default)]
struct Said {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    user: Option<u64>,
    group: Option<u64>,
    seconds: Option<i64>,
}

/// Reads an archive to its end: what it holds, as a volume would.
///
/// # Errors
/// `InvalidData`, with the place: it is no archive, it ends too early, or something in it does not stay within it.
pub fn read(from: &mut impl Read, incoming: &mut Incoming<'_>) -> io::Result<Manifest> {
    let mut tree = Tree::default();
    let mut said = Said::default();
    let mut at = 0u64;
    while let Some(header) = block(from, at)? {
        at += BLOCK as u64;
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        if !is_header(&header) {
            return Err(invalid(at, "is no header of a tar archive: is it compressed with what is not known here?"));
        }
        let size = said.size.or_else(|| number(&header[124..136])).ok_or_else(|| invalid(at, "says no size"))?;
        let padded = size.next_multiple_of(BLOCK as u64);
        match header[156] {
            b'x' => attributes(&text(from, size, padded, at)?, &mut said),
            b'g' => drop(text(from, size, padded, at)?),
            b'L' => said.path = Some(until_zero(&text(from, size, padded, at)?)),
            b'K' => said.link = Some(until_zero(&text(from, size, padded, at)?)),
            kind => {
                let file = std::mem::take(&mut said);
                tree.add(kind, &header, file, size, &mut Contents { from, incoming, at })?;
                if !matches!(kind, 0 | b'0' | b'7') {
                    skip(from, padded, at)?;
                }
            }
        }
        at += padded;
    }
    tree.manifest()
}

/// Refuses what nothing can boot from: an archive of nothing, or one that has programs of its own and no shell, which then
/// are hidden by the host's.
pub fn check(manifest: &Manifest) -> io::Result<()> {
    let has = |path: &str| manifest.entries.iter().any(|entry| entry.path == Path::new(path));
    let below = |path: &str| manifest.entries.iter().any(|entry| entry.path.starts_with(path) && entry.path != Path::new(path));
    let refused = |words: &str| Err(io::Error::new(io::ErrorKind::InvalidData, words.to_owned()));
    if manifest.entries.len() < 2 {
        return refused("it holds no file: there is nothing to boot from");
    }
    let shell = has("bin/sh") || has("usr/bin/sh");
    if !shell && (below("bin") || below("usr/bin")) {
        return refused("it has programs in /bin or /usr/bin and no /bin/sh: nothing can boot from it; leave those out, or add a shell");
    }
    Ok(())
}

/// What the next bytes are, and where they go.
struct Contents<'a, 'b, R> {
    from: &'a mut R,
    incoming: &'a mut Incoming<'b>,
    at: u64,
}

#[derive(Default)]
struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
    /// Other names of files: after all of those.
    names: BTreeMap<PathBuf, Entry>,
}

impl Tree {
    fn add(&mut self, kind: u8, header: &[u8], said: Said, size: u64, contents: &mut Contents<'_, '_, impl Read>) -> io::Result<()> {
        let at = contents.at;
        let path = within(&said.path.unwrap_or_else(|| name_in(header))).ok_or_else(|| invalid(at, "names a path that leads out"))?;
        let link = said.link.unwrap_or_else(|| until_zero(&header[157..257]));
        let kind = match kind {
            0 | b'0' | b'7' => Kind::File { length: size, pieces: pieces(contents, size)? },
            b'1' => Kind::Same { first: within(&link).ok_or_else(|| invalid(at, "names a path that leads out"))? },
            b'2' => Kind::Link { target: OsString::from_vec(link).into() },
            b'5' => Kind::Directory,
            b'6' => Kind::Pipe,
            // A device, or what nobody knows any more.
            _ => return Ok(()),
        };
        let id = |said: Option<u64>, field: &[u8]| {
            let id = said.or_else(|| number(field)).and_then(|id| u32::try_from(id).ok());
            id.filter(|id| *id < IDS).unwrap_or(0)
        };
        let entry = Entry {
            path: path.clone(),
            mode: number(&header[100..108]).and_then(|mode| u32::try_from(mode & 0o7777).ok()).unwrap_or(0o644),
            user: id(said.user, &header[108..116]),
            group: id(said.group, &header[116..124]),
            modified: (said.seconds.or_else(|| number(&header[136..148]).and_then(|time| i64::try_from(time).ok())).unwrap_or(0), 0),
            kind,
        };
        self.entries.remove(&path);
        self.names.remove(&path);
        let place = if matches!(entry.kind, Kind::Same { .. }) { &mut self.names } else { &mut self.entries };
        place.insert(path, entry);
        Ok(())
    }

    fn manifest(mut self) -> io::Result<Manifest> {
        // Archives need not name the directories above what they hold.
        let paths: Vec<PathBuf> = self.entries.keys().chain(self.names.keys()).cloned().collect();
        for above in paths.iter().flat_map(|path| path.ancestors().skip(1)).chain([Path::new("")]) {
            self.entries.entry(above.to_owned()).or_insert_with(|| directory(above));
        }
        let manifest = Manifest { entries: self.entries.into_values().chain(self.names.into_values()).collect() };
        manifest.check()?;
        Ok(manifest)
    }
}

fn directory(path: &Path) -> Entry {
    Entry { path: path.to_owned(), mode: 0o755, user: 0, group: 0, modified: (0, 0), kind: Kind::Directory }
}

fn pieces(contents: &mut Contents<'_, '_, impl Read>, size: u64) -> io::Result<Vec<Piece>> {
    let (mut pieces, mut bytes, mut at) = (Vec::new(), vec![0; LARGEST], 0);
    while at < size {
        let count = usize::try_from(size - at).unwrap_or(LARGEST).min(LARGEST);
        fill(contents.from, &mut bytes[..count], contents.at + at)?;
        if bytes[..count].iter().any(|byte| *byte != 0) {
            let hash = contents.incoming.add(&bytes[..count])?;
            pieces.push(Piece { at, length: u32::try_from(count).unwrap_or_default(), hash });
        }
        at += count as u64;
    }
    skip(contents.from, size.next_multiple_of(BLOCK as u64) - size, contents.at + size)?;
    Ok(pieces)
}

fn invalid(at: u64, words: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("what is at byte {at} of the archive {words}"))
}

fn fill(from: &mut impl Read, bytes: &mut [u8], at: u64) -> io::Result<()> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => invalid(at, "is cut off"),
        _ => error,
    })
}

/// The next block; none at the end.
fn block(from: &mut impl Read, at: u64) -> io::Result<Option<[u8; BLOCK]>> {
    let mut bytes = [0; BLOCK];
    let count = from.read(&mut bytes[..1])?;
    if count == 0 {
        return Ok(None);
    }
    fill(from, &mut bytes[1..], at)?;
    Ok(Some(bytes))
}

fn skip(from: &mut impl Read, bytes: u64, at: u64) -> io::Result<()> {
    let skipped = io::copy(&mut from.take(bytes), &mut io::sink())?;
    if skipped == bytes { Ok(()) } else { Err(invalid(at, "is cut off")) }
}

fn text(from: &mut impl Read, size: u64, padded: u64, at: u64) -> io::Result<Vec<u8>> {
    if size > LONGEST_TEXT {
        return Err(invalid(at, "is a longer name than any file has"));
    }
    let mut bytes = vec![0; usize::try_from(padded).unwrap_or_default()];
    fill(from, &mut bytes, at)?;
    bytes.truncate(usize::try_from(size).unwrap_or_default());
    Ok(bytes)
}

/// The sum over a header, in which the sum itself counts as spaces.
fn is_header(header: &[u8; BLOCK]) -> bool {
    let sum: u64 = header.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) }).sum();
    number(&header[148..156]) == Some(sum)
}

/// A number in octal digits, or GNU's way for large ones.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if *first & 0x80 != 0 {
        let large = rest.iter().try_fold(u64::from(first & 0x3f), |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(*byte)));
        return large.filter(|_| first & 0x40 == 0);
    }
    let digits: Vec<u8> = field.iter().copied().filter(|byte| !matches!(byte, 0 | b' ')).collect();
    digits.iter().try_fold(0u64, |sum, digit| match digit {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

fn until_zero(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().take_while(|byte| *byte != 0).collect()
}

/// The name in a header, with what POSIX puts in front of it.
fn name_in(header: &[u8]) -> Vec<u8> {
    let name = until_zero(&header[..100]);
    let prefix = if &header[257..263] == b"ustar\0" { until_zero(&header[345..500]) } else { Vec::new() };
    if prefix.is_empty() { name } else { [prefix, name].join(&b'/') }
}

/// Attributes of POSIX's extended header: `LENGTH NAME=VALUE`, each ended by a line feed that its length counts.
fn attributes(bytes: &[u8], said: &mut Said) {
    let mut rest = bytes;
    while let Some(space) = rest.iter().position(|byte| *byte == b' ') {
        let length = std::str::from_utf8(&rest[..space]).ok().and_then(|digits| digits.parse::<usize>().ok());
        let Some(record) = length.filter(|length| *length > space + 1).and_then(|length| rest.get(space + 1..length - 1)) else { return };
        rest = &rest[(space + 1 + record.len() + 1).min(rest.len())..];
        let Some(equals) = record.iter().position(|byte| *byte == b'=') else { continue };
        let value = &record[equals + 1..];
        let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        match &record[..equals] {
            b"path" => said.path = Some(value.to_vec()),
            b"linkpath" => said.link = Some(value.to_vec()),
            b"size" => said.size = number(),
            b"uid" => said.user = number(),
            b"gid" => said.group = number(),
            b"mtime" => {
                let whole = std::str::from_utf8(value).ok().and_then(|text| text.split('.').next()?.parse().ok());
                said.seconds = whole;
            }
            _ => {}
        }
    }
}

/// A path from the archive's top; none if it leads out.
fn within(bytes: &[u8]) -> Option<PathBuf> {
    let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}
