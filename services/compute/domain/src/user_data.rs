//! User data: the bytes that a user hands to an instance.

use std::{fmt, sync::Arc};

use gureum_model::Refusal;
use serde::{Deserialize, Serialize};

/// Bytes that user data may have before base64, as EC2 limits them. More is refused.
pub const MAX_USER_DATA_BYTES: usize = 16 * 1024;

/// What a user hands to an instance: raw bytes, not base64. The instances of one launch share them.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserData(#[serde(with = "crate::bytes")] Arc<[u8]>);

impl UserData {
    /// Takes at most [`MAX_USER_DATA_BYTES`]; more is `InvalidParameterValue`, as in EC2.
    pub fn new(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > MAX_USER_DATA_BYTES {
            return Err(Refusal::invalid(
                "user_data",
                format!("user data is limited to {MAX_USER_DATA_BYTES} bytes, and {} were given", bytes.len()),
            ));
        }
        Ok(Self(Arc::from(bytes)))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The length only: user data often holds secrets, and must not get into logs.
impl fmt::Debug for UserData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserData({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_too_many_is_refused() {
        assert!(UserData::new(&[0; MAX_USER_DATA_BYTES]).is_ok());
        let refused = UserData::new(&[0; MAX_USER_DATA_BYTES + 1]).map_err(|refusal| refusal.reason);
        assert_eq!(refused, Err("InvalidParameterValue"));
    }

    #[test]
    fn a_log_does_not_show_it() {
        let shown = UserData::new(b"secret").map(|data| format!("{data:?}"));
        assert_eq!(shown.as_deref(), Ok("UserData(6 bytes)"));
    }
}
