//! What an instance can learn about itself beside how it is connected.

use serde::{Deserialize, Serialize};

/// The instance, as its metadata tells of it. Its addresses and groups are in [`Network`](crate::network::Network).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// `i-…`.
    pub id: String,
    /// Twelve digits.
    pub account: String,
    /// `us-east-1`.
    pub region: String,
    /// `us-east-1a`.
    pub zone: String,
    /// `use1-az1`.
    pub zone_id: String,
    /// `ami-…`.
    pub image: String,
    /// `t3.micro`.
    pub instance_type: String,
    /// `ip-172-31-0-4.ec2.internal`.
    pub hostname: String,
    /// By which the outside calls its public address; none without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_hostname: Option<String>,
    /// Its place among the instances of its reservation, from 0.
    pub launch_index: u32,
    /// `r-…`.
    pub reservation: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// When it began to boot: `2026-01-31T08:30:00Z`.
    pub pending_time: String,
    /// As the user gave it; empty: none.
    #[serde(with = "base64_text", skip_serializing_if = "Vec::is_empty")]
    pub user_data: Vec<u8>,
    /// Shown only where [`Options::tags_enabled`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// The root volume first.
    pub block_devices: Vec<BlockDevice>,
    pub options: Options,
    /// What it may show of itself to others; none: nobody signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// What is going to happen to it by its host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scheduled_events: Vec<ScheduledEvent>,
    /// When it is going to be taken away, if it is of the spot market.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interruption: Option<Interruption>,
}

/// A document of who the instance is, and what shows that the region says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// As it was signed, to the byte.
    pub document: String,
    /// In Base64.
    pub signature: String,
    /// The document with the signature, as PKCS#7 in Base64.
    pub pkcs7: String,
}

/// Who may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub name: String,
    /// In OpenSSH form.
    pub public_key: String,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockDevice {
    /// `/dev/xvda`.
    pub device: String,
    pub root: bool,
}

/// How the instance may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Options {
    pub enabled: bool,
    /// Only with a session token (IMDSv2).
    pub tokens_required: bool,
    /// How many hops a token may go: 1 to 64.
    pub hop_limit: u32,
    pub tags_enabled: bool,
}

/// What `events/maintenance/scheduled` lists, named as there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ScheduledEvent {
    pub code: String,
    pub description: String,
    pub event_id: String,
    /// `21 Jan 2026 09:00:43 GMT`, as the original writes it.
    pub not_before: String,
    pub not_after: String,
    pub state: String,
}

/// What `spot/instance-action` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interruption {
    /// `terminate`, `stop` or `hibernate`.
    pub action: String,
    /// `2026-01-31T08:30:00Z`.
    pub time: String,
}

/// Bytes as text that is short in JSON.
mod base64_text {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
