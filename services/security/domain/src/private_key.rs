//! New keys: made once, written down once in the form that the user wants, then forgotten.
//!
//! A private key lives in a [`PrivateKeyText`] only, which cannot be stored, copied or printed, and
//! leaves zeros behind. Making an RSA key takes a tenth of a second or more and is no decision about
//! records, so it is a step of its own: do it before the transaction that stores the public half.

use std::fmt::{self, Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, Mac as _};
use rsa::{
    RsaPrivateKey,
    pkcs1::EncodeRsaPrivateKey as _,
    pkcs8::{EncodePrivateKey as _, LineEnding},
    traits::PrivateKeyParts as _,
};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use zeroize::Zeroizing;

use crate::{
    key_pair::KeyName,
    public_key::{KeyType, PublicHalf, ed25519, hex_with_colons, openssh, rsa_data},
};

/// What a generator of random numbers for keys must be. The one of the operating system is
/// `rand_core::OsRng`; in tests a seeded ChaCha gives the same keys twice.
pub use rsa::rand_core::CryptoRngCore;

/// Length in bits of the RSA keys that are made here, as EC2 makes them.
pub const RSA_BITS: usize = 2048;

/// The form of a new private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFormat {
    /// What `ssh -i` takes: PKCS#1 for RSA, OpenSSH's own PEM for Ed25519.
    Pem,
    /// What PuTTY takes: its file version 3, without a passphrase.
    Ppk,
}

/// The text of a private key. It shows itself to nobody who does not ask, and is wiped when dropped.
pub struct PrivateKeyText(Zeroizing<String>);

impl PrivateKeyText {
    /// The text, to be given to the user who asked for the key and to nobody else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PrivateKeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKeyText(…)")
    }
}

/// A key that was just made.
#[derive(Debug)]
pub struct NewKey {
    /// What is stored.
    pub public: PublicHalf,
    /// What is given away once.
    pub private: PrivateKeyText,
}

/// A key could not be made or written down: no fault of the caller's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("could not {step} the new key")]
pub struct GenerateError {
    step: &'static str,
}

fn failed<E>(step: &'static str) -> impl Fn(E) -> GenerateError {
    move |_| GenerateError { step }
}

/// Makes a key. The name becomes its comment.
///
/// The fingerprint is EC2's for created keys. RSA: SHA-1 of the private key as DER of PKCS#8, in
/// hexadecimal with colons. Ed25519: as for imported ones, see [`crate::public_key::import`].
pub fn generate(key_type: KeyType, format: KeyFormat, name: &KeyName, rng: &mut impl CryptoRngCore) -> Result<NewKey, GenerateError> {
    match key_type {
        KeyType::Rsa => write_rsa(&RsaPrivateKey::new(rng, RSA_BITS).map_err(failed("generate"))?, format, name),
        KeyType::Ed25519 => write_ed25519(&Ed25519Keypair::random(rng), format, name),
    }
}

fn write_rsa(key: &RsaPrivateKey, format: KeyFormat, name: &KeyName) -> Result<NewKey, GenerateError> {
    let der = key.to_pkcs8_der().map_err(failed("encode"))?;
    let data = rsa_data(key.as_ref()).map_err(failed("encode"))?;
    let public = PublicHalf {
        key_type: KeyType::Rsa,
        fingerprint: hex_with_colons(&Sha1::digest(der.as_bytes())),
        openssh: openssh(data.clone(), name).map_err(failed("encode"))?,
    };
    let private = match format {
        KeyFormat::Pem => key.to_pkcs1_pem(LineEnding::LF).map_err(failed("encode"))?,
        KeyFormat::Ppk => {
            let blob = ssh_key::PublicKey::from(data).to_bytes().map_err(failed("encode"))?;
            write_ppk("ssh-rsa", name, &blob, &ppk_rsa_private(key)?)?
        }
    };
    Ok(NewKey { public, private: PrivateKeyText(private) })
}

fn write_ed25519(key: &Ed25519Keypair, format: KeyFormat, name: &KeyName) -> Result<NewKey, GenerateError> {
    let public = ed25519(key.public, name).map_err(failed("encode"))?;
    let private = match format {
        KeyFormat::Pem => ssh_key::PrivateKey::new(KeypairData::Ed25519(key.clone()), name.as_str())
            .and_then(|key| key.to_openssh(LineEnding::LF))
            .map_err(failed("encode"))?,
        KeyFormat::Ppk => {
            let blob = ssh_key::PublicKey::from(key.public).to_bytes().map_err(failed("encode"))?;
            let mut private = Zeroizing::new(Vec::new());
            put_string(&mut private, &*Zeroizing::new(key.private.to_bytes()));
            write_ppk("ssh-ed25519", name, &blob, &private)?
        }
    };
    Ok(NewKey { public, private: PrivateKeyText(private) })
}

/// The private part of an RSA key in PuTTY's file: d, p, q and the inverse of q modulo p.
fn ppk_rsa_private(key: &RsaPrivateKey) -> Result<Zeroizing<Vec<u8>>, GenerateError> {
    let [p, q] = key.primes() else { return Err(GenerateError { step: "encode" }) };
    let inverse = key.crt_coefficient().ok_or(GenerateError { step: "encode" })?;
    let mut blob = Zeroizing::new(Vec::new());
    for number in [key.d(), p, q, &inverse] {
        put_mpint(&mut blob, &Zeroizing::new(number.to_bytes_be()));
    }
    Ok(blob)
}

/// SSH's string: its length in four bytes, then itself (RFC 4251). No string here nears 4 GiB.
fn put_string(blob: &mut Vec<u8>, bytes: &[u8]) {
    blob.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    blob.extend_from_slice(bytes);
}

/// SSH's number: a string with a zero in front where its highest bit would make it negative (RFC 4251).
fn put_mpint(blob: &mut Vec<u8>, big_endian: &[u8]) {
    let mut bytes = Zeroizing::new(Vec::with_capacity(big_endian.len() + 1));
    if big_endian.first().is_some_and(|first| *first >= 0x80) {
        bytes.push(0);
    }
    bytes.extend_from_slice(big_endian);
    put_string(blob, &bytes);
}

/// PuTTY's file version 3 without encryption (appendix C of PuTTY's manual): its MAC is HMAC-SHA-256
/// with an empty key over algorithm, encryption, comment, and both parts.
fn write_ppk(algorithm: &str, name: &KeyName, public: &[u8], private: &[u8]) -> Result<Zeroizing<String>, GenerateError> {
    let mut authenticated = Zeroizing::new(Vec::new());
    for part in [algorithm.as_bytes(), b"none", name.as_str().as_bytes(), public, private] {
        put_string(&mut authenticated, part);
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(&[]).map_err(failed("authenticate"))?;
    mac.update(&authenticated);
    // Enough for an RSA key of 2048 bits, so that no grown copy stays behind unwiped.
    let mut text = Zeroizing::new(String::with_capacity(4096));
    let write = || -> fmt::Result {
        write!(text, "PuTTY-User-Key-File-3: {algorithm}\nEncryption: none\nComment: {}\n", name.as_str())?;
        write_base64(&mut text, "Public-Lines", public)?;
        write_base64(&mut text, "Private-Lines", private)?;
        text.write_str("Private-MAC: ")?;
        mac.finalize().into_bytes().iter().try_for_each(|byte| write!(text, "{byte:02x}"))?;
        text.write_str("\n")
    };
    write().map_err(failed("write"))?;
    Ok(text)
}

fn write_base64(text: &mut String, header: &str, bytes: &[u8]) -> fmt::Result {
    /// Characters on a line of PuTTY's file.
    const LINE: usize = 64;
    let base64 = Zeroizing::new(BASE64.encode(bytes));
    writeln!(text, "{header}: {}", base64.len().div_ceil(LINE))?;
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(LINE));
        writeln!(text, "{line}")?;
        rest = behind;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
    use rsa::{pkcs1::DecodeRsaPrivateKey as _, traits::PublicKeyParts as _};

    // Made by openssl, ssh-keygen and puttygen, and used for nothing but these tests.
    const RSA_PEM: &str = include_str!("../testdata/rsa.pem");
    const ED25519_PEM: &str = include_str!("../testdata/ed25519.pem");

    fn name() -> KeyName {
        KeyName::parse("web").unwrap()
    }

    #[test]
    fn an_rsa_key_is_written_as_openssl_and_putty_write_it() {
        let key = RsaPrivateKey::from_pkcs1_pem(RSA_PEM).unwrap();
        let pem = write_rsa(&key, KeyFormat::Pem, &name()).unwrap();
        assert_eq!(pem.private.reveal(), RSA_PEM);
        assert_eq!(pem.public.openssh, include_str!("../testdata/rsa.pub").trim());
        // openssl pkcs8 -in rsa.pem -topk8 -nocrypt -outform DER | openssl sha1 -c
        assert_eq!(pem.public.fingerprint, "d9:a9:d6:9f:bc:c9:74:ed:59:a9:a7:a7:c3:25:59:c9:f9:2d:71:bc");
        let ppk = write_rsa(&key, KeyFormat::Ppk, &name()).unwrap();
        assert_eq!(ppk.private.reveal(), include_str!("../testdata/rsa.ppk"));
        assert_eq!(ppk.public, pem.public);
    }

    #[test]
    fn an_ed25519_key_is_written_as_ssh_keygen_and_putty_write_it() {
        let key = ssh_key::PrivateKey::from_openssh(ED25519_PEM).unwrap();
        let pair = key.key_data().ed25519().unwrap();
        let pem = write_ed25519(pair, KeyFormat::Pem, &name()).unwrap();
        // ssh-keygen draws two equal random numbers into each file, so the text differs, the key not.
        let again = ssh_key::PrivateKey::from_openssh(pem.private.reveal()).unwrap();
        assert_eq!((again.key_data(), again.comment()), (key.key_data(), "web"));
        assert_eq!(pem.public.openssh, include_str!("../testdata/ed25519.pub").trim());
        // ssh-keygen -l -f ed25519.pub, with padding.
        assert_eq!(pem.public.fingerprint, "px2RRNoUF8UvPxQmDS0WKaxWuCHEMylUmkYPyulZPcs=");
        let ppk = write_ed25519(pair, KeyFormat::Ppk, &name()).unwrap();
        assert_eq!(ppk.private.reveal(), include_str!("../testdata/ed25519.ppk"));
    }

    #[test]
    fn new_keys_work_and_keep_their_secret() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let key = generate(KeyType::Ed25519, KeyFormat::Pem, &name(), &mut rng).unwrap();
        let read = ssh_key::PrivateKey::from_openssh(key.private.reveal()).unwrap();
        assert_eq!(read.public_key().to_openssh().unwrap(), key.public.openssh);
        assert!(!format!("{key:?}").contains("PRIVATE"));
        assert_ne!(generate(KeyType::Ed25519, KeyFormat::Pem, &name(), &mut rng).unwrap().public, key.public);
        let mut again = ChaCha20Rng::seed_from_u64(1);
        assert_eq!(generate(KeyType::Ed25519, KeyFormat::Pem, &name(), &mut again).unwrap().public, key.public);
    }

    #[test]
    fn a_new_rsa_key_has_its_length() {
        let key = generate(KeyType::Rsa, KeyFormat::Pem, &name(), &mut ChaCha20Rng::seed_from_u64(2)).unwrap();
        let read = RsaPrivateKey::from_pkcs1_pem(key.private.reveal()).unwrap();
        assert_eq!(read.n().bits(), RSA_BITS);
        assert!(read.validate().is_ok());
    }
}
