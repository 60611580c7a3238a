//! Key pairs: the public halves of the keys that log in to instances.

use std::{borrow::Cow, fmt};

use gureum_model::{Filterable, Refusal, RefusalKind, Scope, Tags, Timestamp, id::KeyPairId};
use serde::{Deserialize, Serialize};

pub use crate::public_key::KeyType;
use crate::{
    MAX_TEXT_CHARS,
    public_key::{IMPORTED_RSA_BITS, MAX_MATERIAL_BYTES, PublicHalf},
    some_of,
};

/// Key pairs that one scope may have, as EC2 has it. More get `ResourceLimitExceeded`.
pub const MAX_KEY_PAIRS: usize = 5000;

/// The public half of a key pair. There is no field, here or anywhere, for the private half.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    pub scope: Scope,
    pub id: KeyPairId,
    /// Unique in account and region, with regard to case.
    pub name: String,
    pub key_type: KeyType,
    /// As EC2 computes it, which differs between created and imported RSA keys.
    pub fingerprint: String,
    /// In OpenSSH form: `ssh-ed25519 AAAA… name`.
    pub public_key: String,
    /// When it was made or imported.
    pub create_time: Timestamp,
    pub tags: Tags,
}

/// A key pair's name: 1 to 255 printable characters of ASCII, no space at either end, as EC2 has it.
///
/// It becomes a comment in key files, so a line break in it would be a second line there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName(String);

impl KeyName {
    /// Checks a name. Error: `InvalidParameterValue`.
    pub fn parse(name: &str) -> Result<Self, KeyError> {
        let printable = name.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        let fits = (1..=MAX_TEXT_CHARS).contains(&name.len()) && printable && name.trim() == name;
        if fits { Ok(Self(name.to_owned())) } else { Err(KeyError::Name { name: name.to_owned() }) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The rows that a new key pair must be checked against.
#[derive(Debug, Clone, Copy, Default)]
pub struct Present<'a> {
    /// The scope's key pair of the same name.
    pub same_name: Option<&'a KeyPair>,
    /// How many key pairs the scope has.
    pub count: usize,
}

/// Whether a key pair of this name may be made; to be asked before a key is made for nothing, and
/// again by [`add`].
///
/// Errors: `InvalidKeyPair.Duplicate`, `ResourceLimitExceeded`.
pub fn may_add(name: &KeyName, present: Present<'_>) -> Result<(), KeyError> {
    if let Some(taken) = present.same_name {
        return Err(KeyError::Duplicate { name: name.0.clone(), id: taken.id });
    }
    if present.count >= MAX_KEY_PAIRS { Err(KeyError::LimitExceeded) } else { Ok(()) }
}

/// What [`add`] makes a key pair of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKeyPair {
    pub id: KeyPairId,
    pub name: KeyName,
    /// From [`crate::private_key::generate`] or [`crate::public_key::import`].
    pub public: PublicHalf,
    pub tags: Tags,
}

/// Adds a key pair. Errors as for [`may_add`].
pub fn add(scope: &Scope, new: NewKeyPair, present: Present<'_>, now: Timestamp) -> Result<KeyPair, KeyError> {
    may_add(&new.name, present)?;
    Ok(KeyPair {
        scope: scope.clone(),
        id: new.id,
        name: new.name.0,
        key_type: new.public.key_type,
        fingerprint: new.public.fingerprint,
        public_key: new.public.openssh,
        create_time: now,
        tags: new.tags,
    })
}

/// Why a key pair is not made, imported or found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error(
        "Value ({name}) for parameter KeyName is invalid: expected 1 to {MAX_TEXT_CHARS} printable characters of ASCII without a space at either end"
    )]
    Name { name: String },
    #[error("The keypair '{name}' already exists, as {id}; choose another name, or delete it first")]
    Duplicate { name: String, id: KeyPairId },
    #[error("the account has {MAX_KEY_PAIRS} key pairs in this region already; delete one that is not used")]
    LimitExceeded,
    #[error("The key pair '{}' does not exist", some_of(keys))]
    NotFound { keys: Vec<String> },
    #[error(
        "Key is not in valid OpenSSH public key format: expected an RSA or ED25519 public key as one OpenSSH line, as an RFC 4716 file, as PEM, or as base64 of DER"
    )]
    Format,
    #[error("the key material is a private key; keep it to yourself, and import its public half (ssh-keygen -y shows it)")]
    Private,
    #[error("an RSA key of {bits} bits cannot be imported: expected one of {}", some_of(&IMPORTED_RSA_BITS))]
    Length { bits: usize },
    #[error("the key material has {bytes} bytes, and {MAX_MATERIAL_BYTES} are the limit")]
    TooLong { bytes: usize },
}

impl From<KeyError> for Refusal {
    fn from(error: KeyError) -> Self {
        let text = error.to_string();
        match error {
            KeyError::Name { .. } => Self::invalid("key_name", text),
            KeyError::Duplicate { .. } => Self::new(RefusalKind::AlreadyExists, "InvalidKeyPair.Duplicate", text).of_field("key_name"),
            KeyError::LimitExceeded => Self::new(RefusalKind::Exhausted, "ResourceLimitExceeded", text),
            KeyError::NotFound { .. } => Self::new(RefusalKind::NotFound, "InvalidKeyPair.NotFound", text).of_field("key_name"),
            KeyError::Format | KeyError::Private | KeyError::Length { .. } | KeyError::TooLong { .. } => {
                Self::invalid_as("InvalidKey.Format", "public_key_material", text)
            }
        }
    }
}

impl Filterable for KeyPair {
    const FILTER_NAMES: &'static [&'static str] = &["fingerprint", "key-name", "key-pair-id"];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "fingerprint" => vec![Cow::Borrowed(&self.fingerprint)],
            "key-name" => vec![Cow::Borrowed(&self.name)],
            "key-pair-id" => vec![Cow::Owned(self.id.to_string())],
            _ => Vec::new(),
        }
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::public_key::import;
    use gureum_model::{Filter, Filters, id::ResourceId};

    fn pair(name: &str) -> KeyPair {
        let name = KeyName::parse(name).unwrap();
        let public = import(include_bytes!("../testdata/ed25519.pub"), &name).unwrap();
        let new = NewKeyPair { id: KeyPairId::from_number(1), name, public, tags: Tags::default() };
        add(&Scope::default(), new, Present::default(), Timestamp::from_secs(1)).unwrap()
    }

    #[test]
    fn names_are_plain_and_short() {
        for good in ["a", "my key", "a@b:c/d", &"x".repeat(255)] {
            assert!(KeyName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", " a", "a ", "a\nssh-rsa AAAA", "schlüssel", "a\tb", &"x".repeat(256)] {
            assert_eq!(KeyName::parse(bad).map_err(|error| Refusal::from(error).reason), Err("InvalidParameterValue"), "{bad}");
        }
    }

    #[test]
    fn a_name_is_taken_once() {
        let taken = pair("web");
        let name = KeyName::parse("web").unwrap();
        let reason = |present| may_add(&name, present).map_err(|error| Refusal::from(error).reason);
        assert_eq!(reason(Present { same_name: Some(&taken), count: 1 }), Err("InvalidKeyPair.Duplicate"));
        assert_eq!(reason(Present { same_name: None, count: MAX_KEY_PAIRS }), Err("ResourceLimitExceeded"));
        assert_eq!(reason(Present::default()), Ok(()));
    }

    #[test]
    fn filters_are_those_of_ec2() {
        let pair = pair("web");
        let passes = |name: &str, value: &str| {
            let filter = Filter { name: name.into(), values: vec![value.into()] };
            Filters::for_kind::<KeyPair>(vec![filter]).unwrap().pass(&pair)
        };
        assert!(passes("key-name", "w*") && passes("fingerprint", "px2R*") && passes("key-pair-id", &pair.id.to_string()));
        assert!(!passes("key-name", "db"));
    }
}
