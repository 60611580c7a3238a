//! How an instance may ask about itself at 169.254.169.254.

use gureum_model::{Refusal, refusal::Violations};
use serde::{Deserialize, Serialize};

/// Whether the endpoint demands a session token (IMDSv2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpTokens {
    Optional,
    Required,
}

impl HttpTokens {
    /// EC2's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

/// An instance's options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataOptions {
    pub http_tokens: HttpTokens,
    /// Network hops that an answer may take: 1 to [`MAX_HOP_LIMIT`].
    pub hop_limit: u32,
    pub endpoint_enabled: bool,
    pub ipv6_enabled: bool,
    pub tags_enabled: bool,
}

/// Hops at most, as EC2 limits them.
pub const MAX_HOP_LIMIT: u32 = 64;

/// What a caller wants; what is absent stays as it is, or becomes the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MetadataOptionsSpec {
    pub http_tokens: Option<HttpTokens>,
    pub hop_limit: Option<i32>,
    pub endpoint_enabled: Option<bool>,
    pub ipv6_enabled: Option<bool>,
    pub tags_enabled: Option<bool>,
}

impl MetadataOptions {
    /// What an instance gets if nobody says otherwise. Images that ask for IMDSv2 (`imds_support`
    /// v2.0) demand tokens and allow two hops, all others neither, as EC2 has it.
    pub fn default_for(image_demands_tokens: bool) -> Self {
        let (http_tokens, hop_limit) = if image_demands_tokens { (HttpTokens::Required, 2) } else { (HttpTokens::Optional, 1) };
        Self { http_tokens, hop_limit, endpoint_enabled: true, ipv6_enabled: false, tags_enabled: false }
    }

    /// These with what `spec` says on top. Violations are recorded under `field`.
    pub fn with(self, spec: &MetadataOptionsSpec, field: &str, violations: &mut Violations) -> Self {
        let hop_limit = match spec.hop_limit.map(u32::try_from) {
            None => self.hop_limit,
            Some(Ok(hops)) if (1..=MAX_HOP_LIMIT).contains(&hops) => hops,
            Some(_) => {
                violations.add(
                    format!("{field}.http_put_response_hop_limit"),
                    format!("the hop limit {} is not in 1 to {MAX_HOP_LIMIT}", spec.hop_limit.unwrap_or_default()),
                );
                self.hop_limit
            }
        };
        Self {
            http_tokens: spec.http_tokens.unwrap_or(self.http_tokens),
            hop_limit,
            endpoint_enabled: spec.endpoint_enabled.unwrap_or(self.endpoint_enabled),
            ipv6_enabled: spec.ipv6_enabled.unwrap_or(self.ipv6_enabled),
            tags_enabled: spec.tags_enabled.unwrap_or(self.tags_enabled),
        }
    }
}

impl MetadataOptionsSpec {
    /// Refuses a change of nothing, as EC2 does where no attribute is given. Errors: `InvalidParameterCombination`.
    pub fn check_any(&self, field: &str) -> Result<(), Refusal> {
        if *self == Self::default() {
            return Err(Refusal::invalid_as("InvalidParameterCombination", field, "no option is given; name one to change"));
        }
        Ok(())
    }

    /// This with `other` where it says nothing.
    pub fn or(self, other: Self) -> Self {
        Self {
            http_tokens: self.http_tokens.or(other.http_tokens),
            hop_limit: self.hop_limit.or(other.hop_limit),
            endpoint_enabled: self.endpoint_enabled.or(other.endpoint_enabled),
            ipv6_enabled: self.ipv6_enabled.or(other.ipv6_enabled),
            tags_enabled: self.tags_enabled.or(other.tags_enabled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_stays() {
        let mut violations = Violations::new();
        let spec = MetadataOptionsSpec { http_tokens: Some(HttpTokens::Required), hop_limit: Some(0), ..Default::default() };
        let options = MetadataOptions::default_for(false).with(&spec, "metadata_options", &mut violations);
        assert_eq!(options.http_tokens, HttpTokens::Required);
        assert!(options.endpoint_enabled);
        let fields = violations.finish().map_err(|refusal| refusal.violations.into_iter().map(|v| v.field).collect::<Vec<_>>());
        assert_eq!(fields, Err(vec!["metadata_options.http_put_response_hop_limit".to_owned()]));
    }
}
