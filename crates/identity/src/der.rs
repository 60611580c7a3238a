//! As much of DER (X.690) as a certificate and a signature take.

pub const INTEGER: u8 = 0x02;
pub const BIT_STRING: u8 = 0x03;
pub const OCTET_STRING: u8 = 0x04;
pub const OBJECT_IDENTIFIER: u8 = 0x06;
pub const UTF8_STRING: u8 = 0x0c;
pub const GENERALIZED_TIME: u8 = 0x18;
pub const SEQUENCE: u8 = 0x30;
pub const SET: u8 = 0x31;
/// `[0]`, around what it holds.
pub const CONTEXT_0: u8 = 0xa0;
/// `[3]`, around what it holds.
pub const CONTEXT_3: u8 = 0xa3;
pub const NULL: &[u8] = &[0x05, 0x00];
pub const TRUE: &[u8] = &[0x01, 0x01, 0xff];

/// A value with its tag and length.
pub fn value(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len().to_be_bytes();
    let digits = &length[length.iter().position(|digit| *digit != 0).unwrap_or(length.len() - 1)..];
    let mut value = vec![tag];
    // Up to 127 the length is its own byte, above a byte tells how many follow.
    if !(digits.len() == 1 && digits[0] < 0x80) {
        value.push(0x80 | u8::try_from(digits.len()).unwrap_or(8));
    }
    value.extend([digits, contents].concat());
    value
}

/// Values in their order, as one.
pub fn all(tag: u8, values: &[&[u8]]) -> Vec<u8> {
    value(tag, &values.concat())
}

/// A number that is not negative, from its bytes, highest first.
pub fn number(bytes: &[u8]) -> Vec<u8> {
    let from = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let bytes = &bytes[from..];
    // The highest bit is the sign.
    let sign: &[u8] = if bytes.first().is_none_or(|first| *first >= 0x80) { &[0] } else { &[] };
    all(INTEGER, &[sign, bytes])
}

/// Bytes as bits, of which none is unused.
pub fn bits(bytes: &[u8]) -> Vec<u8> {
    all(BIT_STRING, &[&[0], bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_numbers_are_the_shortest() {
        assert_eq!(value(SEQUENCE, &[]), [0x30, 0]);
        assert_eq!(value(OCTET_STRING, &[7; 127])[..2], [4, 127]);
        assert_eq!(value(OCTET_STRING, &[7; 128])[..3], [4, 0x81, 128]);
        assert_eq!(value(OCTET_STRING, &[7; 256])[..4], [4, 0x82, 1, 0]);
        assert_eq!(number(&[0, 0, 5]), [2, 1, 5]);
        assert_eq!(number(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(number(&[]), [2, 1, 0]);
    }
}
