//! The key by which a region vouches for what an instance says of itself: one for all its nodes, with a certificate that
//! it signs itself. Who has the certificate can tell that a document of the metadata service is the region's.
//!
//! All that a key makes follows from it and what is signed alone, so the same is signed everywhere.

mod der;

use base64::{Engine, engine::general_purpose::STANDARD};
use rand_core::OsRng;
use rsa::{
    Pkcs1v15Sign, RsaPrivateKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey},
    traits::PublicKeyParts,
};
use sha2::{Digest, Sha256};

use self::der::{
    CONTEXT_0, CONTEXT_3, GENERALIZED_TIME, NULL, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, SET, TRUE, UTF8_STRING, all, bits, number,
    value,
};

/// Bits of a key, as of the original's `rsa2048`.
const BITS: usize = 2048;
/// Characters of a line, in the original's `signature` and in a PEM file.
const SIGNATURE_LINE: usize = 76;
const PEM_LINE: usize = 64;
/// Who the certificate is of: EC2's have the company's name there.
const ORGANIZATION: &str = "Gureum";
const COMMON_NAME: &str = "instance identity";
/// A key has no age: nobody has to know a time to make the certificate ("99991231235959Z" is RFC 5280's for no end).
const FROM: &str = "20200101000000Z";
const UNTIL: &str = "99991231235959Z";

const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const SHA256_WITH_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const AT_ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
const AT_COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("an identity key cannot be made: {0}")]
    Make(rsa::Error),
    #[error("an identity key cannot be read or written: {0}")]
    Form(rsa::pkcs8::Error),
    #[error("the public half of an identity key cannot be written: {0}")]
    PublicForm(rsa::pkcs8::spki::Error),
    #[error("nothing can be signed with an identity key: {0}")]
    Sign(rsa::Error),
}

/// A region's key.
pub struct Key {
    private: RsaPrivateKey,
    certificate: Vec<u8>,
}

/// What an instance shows of a document that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// RSA with SHA-256, PKCS#1 version 1.5, in Base64 of 76 characters a line.
    pub signature: String,
    /// The document with its signature, as PKCS#7, in Base64 of 64 characters a line. The certificate is not in it: who
    /// verifies has it from elsewhere.
    pub pkcs7: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Key(…)")
    }
}

impl Key {
    /// Makes one, which takes a tenth of a second or more.
    pub fn make() -> Result<Self, KeyError> {
        Self::of(RsaPrivateKey::new(&mut OsRng, BITS).map_err(KeyError::Make)?)
    }

    /// One that was written as [`Key::to_bytes`] does.
    pub fn from_bytes(pkcs8: &[u8]) -> Result<Self, KeyError> {
        Self::of(RsaPrivateKey::from_pkcs8_der(pkcs8).map_err(KeyError::Form)?)
    }

    /// PKCS#8 in DER, for whoever may sign. An instance never may.
    pub fn to_bytes(&self) -> Result<Vec<u8>, KeyError> {
        Ok(self.private.to_pkcs8_der().map_err(KeyError::Form)?.as_bytes().to_vec())
    }

    /// The certificate in PEM form, for everybody.
    pub fn certificate(&self) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", base64(&self.certificate, PEM_LINE))
    }

    /// Signs a document, which is then to be shown as it is, to the byte.
    pub fn sign(&self, document: &[u8]) -> Result<Signed, KeyError> {
        let signature = signature(&self.private, document)?;
        let pkcs7 = self.pkcs7(document, &signature);
        Ok(Signed { signature: base64(&signature, SIGNATURE_LINE), pkcs7: base64(&pkcs7, PEM_LINE) })
    }

    fn of(private: RsaPrivateKey) -> Result<Self, KeyError> {
        let public = private.to_public_key().to_public_key_der().map_err(KeyError::PublicForm)?;
        let no_authority = all(SEQUENCE, &[]);
        let constraints = all(SEQUENCE, &[&identifier(BASIC_CONSTRAINTS), TRUE, &value(OCTET_STRING, &no_authority)]);
        let version_3 = value(CONTEXT_0, &number(&[2]));
        let ages = [FROM, UNTIL].map(|time| value(GENERALIZED_TIME, time.as_bytes())).concat();
        let tbs = all(
            SEQUENCE,
            &[
                &version_3,
                &serial(&private),
                &algorithm(SHA256_WITH_RSA),
                &name(),
                &value(SEQUENCE, &ages),
                &name(),
                public.as_bytes(),
                &value(CONTEXT_3, &value(SEQUENCE, &constraints)),
            ],
        );
        let signature = signature(&private, &tbs)?;
        let certificate = all(SEQUENCE, &[&tbs, &algorithm(SHA256_WITH_RSA), &bits(&signature)]);
        Ok(Self { private, certificate })
    }

    /// `SignedData` of RFC 2315 around a document, with one signature, which is the one over the document itself.
    fn pkcs7(&self, document: &[u8], signature: &[u8]) -> Vec<u8> {
        let version_1 = number(&[1]);
        let content = value(CONTEXT_0, &value(OCTET_STRING, document));
        let signer = all(
            SEQUENCE,
            &[
                &version_1,
                &all(SEQUENCE, &[&name(), &serial(&self.private)]),
                &algorithm(SHA256),
                &algorithm(RSA_ENCRYPTION),
                &value(OCTET_STRING, signature),
            ],
        );
        let signed = all(
            SEQUENCE,
            &[&version_1, &value(SET, &algorithm(SHA256)), &all(SEQUENCE, &[&identifier(DATA), &content]), &value(SET, &signer)],
        );
        all(SEQUENCE, &[&identifier(SIGNED_DATA), &value(CONTEXT_0, &signed)])
    }
}

fn signature(key: &RsaPrivateKey, bytes: &[u8]) -> Result<Vec<u8>, KeyError> {
    let digest = all(SEQUENCE, &[&algorithm(SHA256), &value(OCTET_STRING, &Sha256::digest(bytes))]);
    // How long it takes tells nothing of the key.
    key.sign_with_rng(&mut OsRng, Pkcs1v15Sign::new_unprefixed(), &digest).map_err(KeyError::Sign)
}

/// The certificate's number, which tells it from those of other keys.
fn serial(key: &RsaPrivateKey) -> Vec<u8> {
    number(&Sha256::digest(key.n().to_bytes_be())[..16])
}

fn name() -> Vec<u8> {
    let part = |kind: &[u8], text: &str| value(SET, &all(SEQUENCE, &[&identifier(kind), &value(UTF8_STRING, text.as_bytes())]));
    all(SEQUENCE, &[&part(AT_ORGANIZATION, ORGANIZATION), &part(AT_COMMON_NAME, COMMON_NAME)])
}

fn identifier(bytes: &[u8]) -> Vec<u8> {
    value(OBJECT_IDENTIFIER, bytes)
}

fn algorithm(bytes: &[u8]) -> Vec<u8> {
    all(SEQUENCE, &[&identifier(bytes), NULL])
}

fn base64(bytes: &[u8], line: usize) -> String {
    let text = STANDARD.encode(bytes);
    let lines: Vec<&str> = (0..text.len()).step_by(line).map(|from| &text[from..text.len().min(from + line)]).collect();
    lines.join("\n")
}
