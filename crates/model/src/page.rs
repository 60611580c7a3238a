//! Paging: a token says behind which key the next page begins, and for which question.

use std::fmt::Write as _;

use crate::refusal::Refusal;

/// The largest page, as EC2 has it. A request for more gets this many.
pub const MAX_PAGE_SIZE: usize = 1000;
/// The page of callers who ask for no size.
pub const DEFAULT_PAGE_SIZE: usize = 1000;

/// Which page of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// Items at most: 1 to [`MAX_PAGE_SIZE`].
    pub size: usize,
    /// Only items whose key is greater.
    pub after: Option<String>,
    question: u32,
}

/// The text by which a caller asks for the next page. Opaque to callers, and bound to the call and
/// the filters for which it was given: with others it is refused rather than answered wrongly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageToken(pub String);

impl PageRequest {
    /// Reads what a request says.
    ///
    /// `question` is anything that tells two lists apart: the call, the scope and the filters.
    pub fn new(page_size: i32, page_token: &str, question: &impl std::fmt::Debug) -> Result<Self, Refusal> {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = write!(text, "{question:?}");
        let question = crc32c::crc32c(text.as_bytes());
        let size = match usize::try_from(page_size) {
            Err(_) => return Err(Refusal::invalid("page_size", format!("the page size {page_size} is negative"))),
            Ok(0) => DEFAULT_PAGE_SIZE,
            Ok(size) => size.min(MAX_PAGE_SIZE),
        };
        let after = (!page_token.is_empty()).then(|| read_token(page_token, question)).transpose()?;
        Ok(Self { size, after, question })
    }

    /// The token of the page that begins behind `last`.
    pub fn token_after(&self, last: &str) -> PageToken {
        let mut text = format!("{:08x}", self.question);
        for byte in last.bytes() {
            let _ = write!(text, "{byte:02x}");
        }
        let check = crc32c::crc32c(text.as_bytes());
        let _ = write!(text, "{check:08x}");
        PageToken(text)
    }

    /// Cuts an ordered list (one item longer than the page if there is more) into this page and the
    /// token of the next, which is empty on the last.
    pub fn cut<T>(&self, mut items: Vec<T>, key: impl Fn(&T) -> String) -> (Vec<T>, String) {
        let more = items.len() > self.size;
        items.truncate(self.size);
        let token = match items.last() {
            Some(last) if more => self.token_after(&key(last)).0,
            _ => String::new(),
        };
        (items, token)
    }

    /// This page of what is in no order, or there twice: in the order of the keys, each once, and only what is behind the page
    /// before; with the token of the next page.
    pub fn select<T>(&self, items: impl IntoIterator<Item = T>, key: impl Fn(&T) -> String) -> (Vec<T>, String) {
        let keyed = items.into_iter().map(|item| (key(&item), item));
        let mut rest: Vec<(String, T)> = keyed.filter(|(key, _)| self.after.as_ref().is_none_or(|after| key > after)).collect();
        rest.sort_by(|(one, _), (other, _)| one.cmp(other));
        rest.dedup_by(|(one, _), (other, _)| one == other);
        let (rows, token) = self.cut(rest, |(key, _)| key.clone());
        (rows.into_iter().map(|(_, item)| item).collect(), token)
    }
}

fn read_token(token: &str, question: u32) -> Result<String, Refusal> {
    let bad = || {
        Refusal::invalid_as(
            "InvalidNextToken",
            "page_token",
            "the page token was not given for this call with these parameters; begin again without one",
        )
    };
    if !token.is_ascii() || token.len() < 16 {
        return Err(bad());
    }
    let (body, check) = token.split_at(token.len() - 8);
    let hex = |text: &str| u32::from_str_radix(text, 16).map_err(|_| bad());
    if hex(check)? != crc32c::crc32c(body.as_bytes()) || hex(&body[..8])? != question {
        return Err(bad());
    }
    let digits = &body.as_bytes()[8..];
    let bytes = digits.chunks(2).map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()));
    bytes.collect::<Option<Vec<u8>>>().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pages_make_up_the_whole(count in 0usize..40, size in 1i32..9) {
            let all: Vec<String> = (0..count).map(|number| format!("{number:03}")).collect();
            let (mut seen, mut token) = (Vec::new(), String::new());
            loop {
                let page = PageRequest::new(size, &token, &"list").map_err(|error| TestCaseError::fail(error.to_string()))?;
                let rest = all.iter().filter(|item| page.after.as_ref().is_none_or(|after| *item > after));
                let (items, next) = page.cut(rest.take(page.size + 1).cloned().collect(), Clone::clone);
                seen.extend(items);
                token = next;
                if token.is_empty() { break; }
            }
            prop_assert_eq!(seen, all);
        }

        #[test]
        fn a_made_up_token_is_refused(token in "[0-9a-f]{16,40}") {
            prop_assert!(PageRequest::new(0, &token, &"list").is_err());
        }
    }

    #[test]
    fn a_token_of_another_question_is_refused() {
        let token = PageRequest::new(1, "", &"one").map(|page| page.token_after("k").0).unwrap_or_default();
        assert!(PageRequest::new(1, &token, &"one").is_ok());
        assert!(PageRequest::new(1, &token, &"two").is_err());
    }
}
