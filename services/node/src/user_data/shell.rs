//! Words and bytes as the shell of any POSIX system reads them.

use std::fmt::Write as _;

/// A word that is exactly this text, which has no zero byte.
pub fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A command that writes exactly these bytes: printf is built into shells, and knows any byte by its octal number.
pub fn print(bytes: &[u8]) -> String {
    let mut format = String::with_capacity(bytes.len() + 2);
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'\\' | b'%' | b'\'' => escape(&mut format, *byte),
            // It would be an option.
            b'-' if index == 0 => escape(&mut format, *byte),
            b'\n' | b'\t' | b' '..=b'~' => format.push(char::from(*byte)),
            _ => escape(&mut format, *byte),
        }
    }
    format!("printf '{format}'")
}

fn escape(format: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(format, "\\{byte:03o}");
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn written(script: &str) -> Vec<u8> {
        Command::new("/bin/sh").arg("-c").arg(script).output().unwrap().stdout
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_are_written_as_they_are(bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"-\\%'0n\"$`\n".to_vec())], 0..60)) {
            prop_assert_eq!(written(&print(&bytes)), bytes);
        }

        #[test]
        fn any_text_is_one_word(text in "[^\0]{0,40}") {
            prop_assert_eq!(written(&format!("printf %s {}", word(&text))), text.into_bytes());
        }
    }
}
