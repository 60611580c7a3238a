//! The last lines that a script wrote, for whoever asks why it failed.

/// Lines that are kept.
const LINES: usize = 10;
/// Bytes of them together. What is longer loses its beginning.
const BYTES: usize = 1 << 10;

/// The end of what was written.
#[derive(Debug, Default)]
pub struct LastLines {
    end: Vec<u8>,
}

impl LastLines {
    pub fn push(&mut self, bytes: &[u8]) {
        self.end.extend_from_slice(&bytes[bytes.len().saturating_sub(BYTES)..]);
        self.end.drain(..self.end.len().saturating_sub(BYTES));
    }

    /// The lines, oldest first; empty ones say nothing.
    pub fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.end);
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let mut left = BYTES;
        // What is no text becomes longer than it was.
        let mut kept: Vec<String> = lines.iter().rev().take(LINES).map_while(|line| fitting(line, &mut left)).collect();
        kept.reverse();
        kept
    }
}

fn fitting(line: &str, left: &mut usize) -> Option<String> {
    *left = left.checked_sub(line.len())?;
    Some(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(parts: &[&[u8]]) -> Vec<String> {
        let mut last = LastLines::default();
        parts.iter().for_each(|part| last.push(part));
        last.lines()
    }

    #[test]
    fn the_last_lines_are_kept_however_they_came() {
        assert_eq!(lines(&[b"one\nt", b"wo\r\n\nthree"]), ["one", "two", "three"]);
        let many: String = (0..30).map(|number| format!("line {number}\n")).collect();
        let kept = lines(&[many.as_bytes()]);
        assert_eq!((kept.len(), kept[0].as_str(), kept[9].as_str()), (10, "line 20", "line 29"));
        assert_eq!(lines(&[]), Vec::<String>::new());
    }

    #[test]
    fn they_are_never_more_than_they_may_be() {
        for part in [vec![b'x'; 5_000], vec![0xff; 5_000], [vec![b'a'; 600], vec![b'\n'], vec![b'b'; 600]].concat()] {
            let kept = lines(&[&part, &part[..300], b"\nthe end\n"]);
            assert!(kept.iter().map(String::len).sum::<usize>() <= BYTES, "{kept:?}");
            assert_eq!(kept.last().map(String::as_str), Some("the end"));
        }
    }
}
