//! Public keys: what users import, in which form they are kept, and EC2's fingerprints.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use md5::Md5;
use rsa::{
    BigUint, RsaPublicKey,
    pkcs1::DecodeRsaPublicKey as _,
    pkcs8::{DecodePublicKey as _, EncodePublicKey as _},
    traits::PublicKeyParts as _,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use ssh_key::public::{Ed25519PublicKey, KeyData};

use crate::key_pair::{KeyError, KeyName};

/// Lengths in bits of the RSA keys that EC2 imports.
pub const IMPORTED_RSA_BITS: [usize; 3] = [1024, 2048, 4096];
/// The largest key material that is looked at, in bytes; an RSA key of 4096 bits needs less than 1 KiB.
pub const MAX_MATERIAL_BYTES: usize = 16 * 1024;
/// What stands before the 32 bytes of an Ed25519 key in DER (RFC 8410: a SubjectPublicKeyInfo of the
/// algorithm 1.3.101.112 without parameters). DER knows no other way to write it.
const ED25519_DER_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The algorithm of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyType {
    Rsa,
    Ed25519,
}

impl KeyType {
    /// EC2's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// The public half of a key pair in the forms that users see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicHalf {
    pub key_type: KeyType,
    /// As EC2 computes it; see [`import`] and [`crate::private_key::generate`].
    pub fingerprint: String,
    /// In OpenSSH form, with the key pair's name as its comment: `ssh-ed25519 AAAA… name`.
    pub openssh: String,
}

/// Takes a public key that a user made: an OpenSSH line, an RFC 4716 file, PEM (SubjectPublicKeyInfo
/// or PKCS#1), or base64 of DER.
///
/// The fingerprint is EC2's for imported keys. RSA: MD5 of the key as DER of a SubjectPublicKeyInfo, in
/// hexadecimal with colons (EC2's API reference speaks of RFC 4716, its user guide of this, and this is
/// what it answers). Ed25519: base64 with padding of the SHA-256 of the key in SSH's form, which is what
/// `ssh-keygen -l` shows without `SHA256:` and with the `=` that it omits. Errors: `InvalidKey.Format`.
pub fn import(material: &[u8], name: &KeyName) -> Result<PublicHalf, KeyError> {
    match decode(material)? {
        Decoded::Rsa(key) => {
            let bits = key.n().bits();
            if !IMPORTED_RSA_BITS.contains(&bits) {
                return Err(KeyError::Length { bits });
            }
            let der = key.to_public_key_der().map_err(|_| KeyError::Format)?;
            let fingerprint = hex_with_colons(&Md5::digest(der.as_bytes()));
            Ok(PublicHalf { key_type: KeyType::Rsa, fingerprint, openssh: openssh(rsa_data(&key)?, name)? })
        }
        Decoded::Ed25519(key) => ed25519(key, name),
    }
}

/// The public half of an Ed25519 key: created and imported ones look the same.
pub(crate) fn ed25519(key: Ed25519PublicKey, name: &KeyName) -> Result<PublicHalf, KeyError> {
    let data = KeyData::Ed25519(key);
    let blob = ssh_key::PublicKey::from(data.clone()).to_bytes().map_err(|_| KeyError::Format)?;
    let fingerprint = BASE64.encode(Sha256::digest(blob));
    Ok(PublicHalf { key_type: KeyType::Ed25519, fingerprint, openssh: openssh(data, name)? })
}

/// The key in SSH's form.
pub(crate) fn rsa_data(key: &RsaPublicKey) -> Result<KeyData, KeyError> {
    let key = ssh_key::public::RsaPublicKey::try_from(key).map_err(|_| KeyError::Format)?;
    Ok(KeyData::Rsa(key))
}

/// The OpenSSH line of a key with the name as its comment.
pub(crate) fn openssh(data: KeyData, name: &KeyName) -> Result<String, KeyError> {
    ssh_key::PublicKey::new(data, name.as_str()).to_openssh().map_err(|_| KeyError::Format)
}

/// Bytes as EC2 shows them in fingerprints: `1f:51:ae`.
pub(crate) fn hex_with_colons(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for (place, byte) in bytes.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}{byte:02x}", if place == 0 { "" } else { ":" });
    }
    text
}

enum Decoded {
    Rsa(RsaPublicKey),
    Ed25519(Ed25519PublicKey),
}

fn decode(material: &[u8]) -> Result<Decoded, KeyError> {
    if material.len() > MAX_MATERIAL_BYTES {
        return Err(KeyError::TooLong { bytes: material.len() });
    }
    let text = std::str::from_utf8(material).map_err(|_| KeyError::Format)?.trim();
    if text.contains("PRIVATE KEY") {
        return Err(KeyError::Private);
    }
    let decoded = if text.starts_with("-----BEGIN RSA PUBLIC KEY-----") {
        RsaPublicKey::from_pkcs1_pem(&with_unix_lines(text)).ok().map(Decoded::Rsa)
    } else if let Some(body) = between(text, "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----") {
        from_der(&BASE64.decode(without_white_space(body)).map_err(|_| KeyError::Format)?)
    } else if let Some(body) = between(text, "---- BEGIN SSH2 PUBLIC KEY ----", "---- END SSH2 PUBLIC KEY ----") {
        rfc4716_blob(body).and_then(|blob| from_ssh(ssh_key::PublicKey::from_bytes(&blob).ok()?))
    } else if text.starts_with("ssh-") && !text.contains(['\n', '\r']) {
        ssh_key::PublicKey::from_openssh(text).ok().and_then(from_ssh)
    } else {
        BASE64.decode(without_white_space(text)).ok().and_then(|der| from_der(&der))
    };
    decoded.ok_or(KeyError::Format)
}

fn from_der(der: &[u8]) -> Option<Decoded> {
    if let Some(point) = der.strip_prefix(&ED25519_DER_PREFIX) {
        return Some(Decoded::Ed25519(Ed25519PublicKey(point.try_into().ok()?)));
    }
    RsaPublicKey::from_public_key_der(der).ok().map(Decoded::Rsa)
}

fn from_ssh(key: ssh_key::PublicKey) -> Option<Decoded> {
    match key.key_data() {
        KeyData::Ed25519(key) => Some(Decoded::Ed25519(*key)),
        KeyData::Rsa(key) => {
            // Not by ssh-key's own conversion: it refuses 1024 bits, which EC2 still imports.
            let (n, e) = (BigUint::try_from(&key.n).ok()?, BigUint::try_from(&key.e).ok()?);
            RsaPublicKey::new(n, e).ok().map(Decoded::Rsa)
        }
        // EC2 has no other algorithms; the list of those that SSH has is not closed.
        _ => None,
    }
}

/// The body of an RFC 4716 file: headers (`Tag: value`, carried on by a backslash at the end), then base64.
fn rfc4716_blob(body: &str) -> Option<Vec<u8>> {
    let (mut base64, mut in_header) = (String::new(), false);
    for line in body.lines().map(str::trim) {
        if in_header || line.contains(':') {
            in_header = line.ends_with('\\');
        } else {
            base64.push_str(line);
        }
    }
    BASE64.decode(base64).ok()
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    text.strip_prefix(begin)?.strip_suffix(end)
}

fn with_unix_lines(text: &str) -> String {
    text.replace("\r\n", "\n")
}

fn without_white_space(text: &str) -> String {
    text.chars().filter(|character| !character.is_ascii_whitespace()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // All made by ssh-keygen and openssl, and used for nothing but these tests.
    const RSA_LINE: &str = include_str!("../testdata/rsa.pub");
    const ED25519_LINE: &str = include_str!("../testdata/ed25519.pub");
    /// `openssl rsa -in rsa.pem -pubout -outform DER | openssl md5 -c`.
    const RSA_IMPORTED: &str = "1b:f6:05:e8:32:a7:24:41:0a:47:e3:c4:d9:cc:3a:6d";
    /// `ssh-keygen -l -f ed25519.pub`, with padding.
    const ED25519: &str = "px2RRNoUF8UvPxQmDS0WKaxWuCHEMylUmkYPyulZPcs=";

    fn name() -> KeyName {
        KeyName::parse("web").unwrap()
    }

    fn reason(material: &str) -> Result<(), &'static str> {
        import(material.as_bytes(), &name()).map(drop).map_err(|error| gureum_model::Refusal::from(error).reason)
    }

    #[test]
    fn every_form_of_an_rsa_key_is_one_key() {
        let spki = include_str!("../testdata/rsa.spki.pem");
        let body = between(spki.trim(), "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----").unwrap();
        let forms = [
            RSA_LINE.to_owned(),
            RSA_LINE.replace(" web", ""),
            spki.to_owned(),
            spki.replace('\n', "\r\n"),
            body.to_owned(),
            include_str!("../testdata/rsa.pkcs1.pem").to_owned(),
            include_str!("../testdata/rsa.pkcs1.pem").replace('\n', "\r\n"),
            include_str!("../testdata/rsa.rfc4716").to_owned(),
        ];
        for form in forms {
            let half = import(form.as_bytes(), &name()).unwrap_or_else(|error| panic!("{form}: {error}"));
            assert_eq!((half.key_type, half.fingerprint.as_str(), half.openssh.as_str()), (KeyType::Rsa, RSA_IMPORTED, RSA_LINE.trim()));
        }
    }

    #[test]
    fn every_form_of_an_ed25519_key_is_one_key() {
        for form in [ED25519_LINE, include_str!("../testdata/ed25519.spki.pem")] {
            let half = import(form.as_bytes(), &name()).unwrap();
            assert_eq!((half.key_type, half.fingerprint.as_str(), half.openssh.as_str()), (KeyType::Ed25519, ED25519, ED25519_LINE.trim()));
        }
    }

    #[test]
    fn lengths_are_those_of_ec2() {
        let print = |line: &str| import(line.as_bytes(), &name()).map(|half| half.fingerprint);
        assert_eq!(print(include_str!("../testdata/rsa-1024.pub")), Ok("25:41:97:51:7d:35:f8:43:05:07:67:76:c5:65:4f:c5".into()));
        assert_eq!(print(include_str!("../testdata/rsa-4096.pub")), Ok("e7:d9:85:38:e0:ed:04:77:d2:10:e2:fa:5d:24:d6:4f".into()));
        assert_eq!(print(include_str!("../testdata/rsa-3072.pub")), Err(KeyError::Length { bits: 3072 }));
    }

    #[test]
    fn what_is_no_public_key_is_refused() {
        let bad = Err("InvalidKey.Format");
        assert_eq!(reason(""), bad);
        assert_eq!(reason("ssh-rsa AAAA"), bad);
        assert_eq!(reason(include_str!("../testdata/ecdsa.pub")), bad);
        assert_eq!(reason(include_str!("../testdata/rsa.pem")), bad);
        assert_eq!(reason(&format!("{RSA_LINE}{ED25519_LINE}")), bad);
        assert_eq!(reason(&format!("command=\"rm\" {RSA_LINE}")), bad);
        assert_eq!(reason(&"A".repeat(MAX_MATERIAL_BYTES + 1)), bad);
    }

    proptest! {
        #[test]
        fn no_material_breaks_the_reading(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..RSA_LINE.len(), flip in any::<u8>()) {
            let _ = import(&bytes, &name());
            let mut line = RSA_LINE.as_bytes().to_vec();
            line[cut] ^= flip;
            let _ = import(&line, &name());
            line.truncate(cut);
            prop_assert!(import(&line, &name()).is_err() || cut > 370);
            let body = BASE64.encode(&bytes);
            for form in [format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----"), format!("---- BEGIN SSH2 PUBLIC KEY ----\n{body}\n---- END SSH2 PUBLIC KEY ----"), format!("ssh-rsa {body}"), body.clone()] {
                let _ = import(form.as_bytes(), &name());
            }
        }
    }
}
