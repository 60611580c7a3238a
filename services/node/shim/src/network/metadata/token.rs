//! Session tokens of IMDSv2. None is kept: each says until when it is good, and that this shim made it.

use std::{fs::File, io, io::Read};

use base64::{Engine, engine::general_purpose::URL_SAFE};
use hmac::{Hmac, Mac, digest::InvalidLength};
use sha2::Sha256;

/// Seconds that a token may be good for, as the original allows.
pub const TTL_SECONDS: std::ops::RangeInclusive<u64> = 1..=21_600;

/// Makes tokens of one instance, and knows them again.
pub struct Tokens {
    keyed: Hmac<Sha256>,
}

impl Tokens {
    /// With a key that nobody else has. Another process of the same instance does not know its tokens.
    pub fn random() -> io::Result<Self> {
        let mut key = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        Self::new(&key).map_err(io::Error::other)
    }

    fn new(key: &[u8]) -> Result<Self, InvalidLength> {
        Ok(Self { keyed: Hmac::new_from_slice(key)? })
    }

    fn sign(&self, instance: &str, expiry: [u8; 8]) -> Hmac<Sha256> {
        self.keyed.clone().chain_update(expiry).chain_update(instance)
    }

    /// A token that is good until this moment, in microseconds since the epoch.
    pub fn make(&self, instance: &str, expiry_micros: u64) -> String {
        let expiry = expiry_micros.to_be_bytes();
        let signature = self.sign(instance, expiry).finalize().into_bytes();
        URL_SAFE.encode([expiry.as_slice(), &signature].concat())
    }

    /// Until when a token is good; none: it is not, or not any more.
    pub fn check(&self, instance: &str, token: &[u8], now_micros: u64) -> Option<u64> {
        let bytes = URL_SAFE.decode(token).ok()?;
        let (expiry, signature) = bytes.split_first_chunk()?;
        self.sign(instance, *expiry).verify_slice(signature).ok()?;
        Some(u64::from_be_bytes(*expiry)).filter(|expiry| *expiry > now_micros)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_until_it_expires_for_one_instance_and_one_key() {
        let tokens = Tokens::new(&[7; 32]).unwrap();
        let token = tokens.make("i-1", 1_000);
        assert_eq!(token.len(), 56, "as long as the original's");
        assert_eq!(tokens.check("i-1", token.as_bytes(), 999), Some(1_000));
        assert_eq!(tokens.check("i-1", token.as_bytes(), 1_000), None);
        assert_eq!(tokens.check("i-2", token.as_bytes(), 0), None);
        assert_eq!(Tokens::new(&[8; 32]).unwrap().check("i-1", token.as_bytes(), 0), None);
    }

    #[test]
    fn a_token_with_any_byte_changed_is_none() {
        let tokens = Tokens::random().unwrap();
        let token = tokens.make("i-1", u64::MAX).into_bytes();
        for at in 0..token.len() {
            let mut other = token.clone();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(tokens.check("i-1", &other, 0), None, "{at}");
            assert_eq!(tokens.check("i-1", &token[..at], 0), None, "{at}");
        }
    }
}
