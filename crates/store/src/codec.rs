//! How changes are written to files: the same in the journal and in a checkpoint.
//!
//! `change = kind u8 (1 put, 0 delete) · table · key · value`, each text as its length u32 and its
//! bytes. All numbers are little-endian.

use crate::engine::Change;

/// Writes one change. Answers false, and nothing of use, if a part of it is 4 GiB or longer.
#[must_use]
pub fn encode_change(table: &str, key: &str, value: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
    out.push(u8::from(value.is_some()));
    [table.as_bytes(), key.as_bytes(), value.unwrap_or_default()].into_iter().all(|text| {
        let Ok(length) = u32::try_from(text.len()) else { return false };
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(text);
        true
    })
}

/// Takes what was written from the front of some bytes; none if they are cut short or not what was
/// written.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn change(&mut self) -> Option<Change> {
        let put = match self.take(1)? {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let (table, key, value) = (self.text()?, self.text()?, self.bytes()?.to_vec());
        Some(Change { table, key, value: put.then_some(value) })
    }

    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    fn text(&mut self) -> Option<String> {
        std::str::from_utf8(self.bytes()?).ok().map(str::to_owned)
    }
}
