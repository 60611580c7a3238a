//! Bytes in a record: `#[serde(with = "crate::bytes")]`. Formats without bytes, such as JSON, write a list of
//! numbers.

use std::{fmt, sync::Arc};

use serde::{Deserializer, Serializer, de};

pub fn serialize<S: Serializer>(bytes: &Arc<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[u8]>, D::Error> {
    struct Bytes;
    impl<'de> de::Visitor<'de> for Bytes {
        type Value = Arc<[u8]>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Arc<[u8]>, E> {
            Ok(Arc::from(bytes))
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Arc<[u8]>, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = items.next_element::<u8>()? {
                bytes.push(byte);
            }
            Ok(Arc::from(bytes))
        }
    }
    deserializer.deserialize_bytes(Bytes)
}
