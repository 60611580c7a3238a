//! The copy of a checkpoint: its pieces once more, in a plain file.
//!
//! ```text
//! copy   = header · piece · piece …
//! header = magic "GURC" · version u32 · description · crc32c of these u32
//! piece  = length u32 · checksum and bytes, as the checkpoint's sled holds them
//! ```
//!
//! It is read only when sled will not open or a piece of it is not what was written. Compressed, it takes
//! less room than sled's file, and nothing that sled gets wrong can get it wrong too.

use std::{
    fs::{self, File},
    io::{BufReader, BufWriter, Read, Write},
    path::Path,
};

use crate::{
    checkpoint::{Description, Pieces},
    engine::EngineError,
    journal::io_error,
};

const MAGIC: [u8; 4] = *b"GURC";
const VERSION: u32 = 1;
const DESCRIPTION: usize = 32;
const HEADER: usize = MAGIC.len() + 4 + DESCRIPTION + 4;

/// A longer piece is none that was written.
const LONGEST_PIECE: u32 = 2 << 20;

/// Writes the copy of a checkpoint whose sled was just read back, syncs it and puts it in its place, whose name
/// the caller makes durable.
pub fn write(path: &Path, checkpoint: &Path) -> Result<(), EngineError> {
    let unfinished = path.with_extension("copy.new");
    let written =
        write_unfinished(&unfinished, checkpoint).and_then(|()| fs::rename(&unfinished, path).map_err(io_error("rename", &unfinished)));
    if written.is_err() {
        // The next start removes what cannot be removed now.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn write_unfinished(path: &Path, checkpoint: &Path) -> Result<(), EngineError> {
    let unreadable = |reason: String| EngineError::Checkpoint { path: checkpoint.to_owned(), reason };
    let (pieces, description) = Pieces::of_sled(checkpoint).map_err(unreadable)?;
    let mut file = BufWriter::new(File::create(path).map_err(io_error("create", path))?);
    file.write_all(&header(description)).map_err(io_error("write", path))?;
    for piece in pieces {
        let piece = piece.map_err(unreadable)?;
        let length = u32::try_from(piece.len()).map_err(|_| unreadable("a piece has 4 GiB or more".into()))?;
        file.write_all(&length.to_le_bytes()).and_then(|()| file.write_all(&piece)).map_err(io_error("write", path))?;
    }
    let file = file.into_inner().map_err(|error| io_error("write", path)(error.into_error()))?;
    file.sync_all().map_err(io_error("sync", path))
}

/// Opens a copy. What is wrong with one of its pieces is told by the checks that sled's pieces stand too.
pub fn open(path: &Path) -> Result<(Pieces<'static>, Description), String> {
    let mut file = BufReader::new(File::open(path).map_err(|error| format!("{}: {error}", path.display()))?);
    let mut found = [0; HEADER];
    file.read_exact(&mut found).map_err(|error| format!("{}: {error}", path.display()))?;
    let description = Description::read(&found[8..8 + DESCRIPTION])?;
    if found.as_slice() != header(description) {
        return Err(format!("{} is damaged at its beginning", path.display()));
    }
    Ok((Pieces::new(std::iter::from_fn(move || next_piece(&mut file).transpose())), description))
}

fn next_piece(file: &mut impl Read) -> Result<Option<Vec<u8>>, String> {
    let mut length = Vec::new();
    file.by_ref().take(4).read_to_end(&mut length).map_err(|error| error.to_string())?;
    if length.is_empty() {
        return Ok(None);
    }
    let length = length.try_into().map(u32::from_le_bytes).ok().filter(|length| *length <= LONGEST_PIECE);
    let mut piece = vec![0; length.ok_or("the length of a piece is damaged")? as usize];
    file.read_exact(&mut piece).map_err(|error| error.to_string())?;
    Ok(Some(piece))
}

fn header(description: Description) -> Vec<u8> {
    let mut header = [MAGIC.as_slice(), &VERSION.to_le_bytes(), &description.write()].concat();
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    header
}
