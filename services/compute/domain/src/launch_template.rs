//! Launch templates: parameters of a launch under a name, in versions that never change.

use std::{borrow::Cow, fmt, str::FromStr};

use gureum_model::{Filterable, Refusal, RefusalKind, Scope, Tags, Timestamp, id::LaunchTemplateId, refusal::Violations};
use serde::{Deserialize, Serialize};

use crate::launch_spec::LaunchSpec;

/// Versions that one template may ever have at once, as EC2 limits them.
pub const MAX_VERSIONS: usize = 10_000;
/// Characters of a template's name at least and at most, as EC2 limits them.
pub const NAME_CHARS: std::ops::RangeInclusive<usize> = 3..=128;
/// Characters of a version's description at most, as EC2 limits them.
pub const MAX_DESCRIPTION_CHARS: usize = 255;

/// A launch template. Stored as it is; its versions have rows of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchTemplate {
    pub scope: Scope,
    pub id: LaunchTemplateId,
    /// Unique in its scope.
    pub name: String,
    pub create_time: Timestamp,
    /// An ARN.
    pub created_by: String,
    pub default_version: u64,
    /// The highest that exists.
    pub latest_version: u64,
    /// The number of the next one: those of deleted versions are not used again.
    pub next_version: u64,
    /// How many exist.
    pub versions: usize,
    pub tags: Tags,
}

/// One version of a template. Stored as it is, and never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchTemplateVersion {
    pub scope: Scope,
    pub template_id: LaunchTemplateId,
    /// From 1.
    pub number: u64,
    pub description: String,
    pub create_time: Timestamp,
    /// An ARN.
    pub created_by: String,
    pub data: LaunchSpec,
}

/// How users name a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionRef {
    Number(u64),
    Latest,
    Default,
}

impl FromStr for VersionRef {
    type Err = Refusal;

    /// `$Latest`, `$Default` or a number from 1; an empty text is `$Default`.
    fn from_str(text: &str) -> Result<Self, Refusal> {
        match text {
            "$Latest" => Ok(Self::Latest),
            "" | "$Default" => Ok(Self::Default),
            _ => match text.parse() {
                Ok(number) if number >= 1 && !text.starts_with('+') => Ok(Self::Number(number)),
                _ => Err(Refusal::invalid(
                    "version",
                    format!("\"{text}\" is no launch template version: expected a number from 1, \"$Latest\" or \"$Default\""),
                )),
            },
        }
    }
}

impl fmt::Display for VersionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Latest => f.write_str("$Latest"),
            Self::Default => f.write_str("$Default"),
        }
    }
}

/// Why a call on a launch template was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchTemplateError {
    #[error("the specified launch template, with template ID {id}, does not exist")]
    NotFound { id: LaunchTemplateId },
    #[error("the specified launch template, with template name {name}, does not exist")]
    NameNotFound { name: String },
    #[error("could not find the specified version {version} for the launch template with ID {id}")]
    VersionNotFound { id: LaunchTemplateId, version: String },
    #[error("launch template name already in use: {name}")]
    NameTaken { name: String },
    #[error("\"{name}\" is no launch template name: expected 3 to 128 letters, digits and ( ) . / _ -")]
    NameMalformed { name: String },
    #[error("the launch template {id} has {MAX_VERSIONS} versions, which is the limit; delete some")]
    TooManyVersions { id: LaunchTemplateId },
    #[error("the version {version} is the default version of the launch template {id}; make another one the default first")]
    IsDefault { id: LaunchTemplateId, version: u64 },
    #[error("the launch template data says nothing; give at least one parameter")]
    Empty,
    #[error("the version description has {chars} characters, more than {MAX_DESCRIPTION_CHARS}")]
    LongDescription { chars: usize },
}

impl From<LaunchTemplateError> for Refusal {
    fn from(error: LaunchTemplateError) -> Self {
        let text = error.to_string();
        match error {
            LaunchTemplateError::NotFound { .. } => {
                Self::new(RefusalKind::NotFound, "InvalidLaunchTemplateId.NotFound", text).of_field("launch_template_id")
            }
            LaunchTemplateError::NameNotFound { .. } => {
                Self::new(RefusalKind::NotFound, "InvalidLaunchTemplateName.NotFoundException", text).of_field("launch_template_name")
            }
            LaunchTemplateError::VersionNotFound { .. } => {
                Self::new(RefusalKind::NotFound, "InvalidLaunchTemplateId.VersionNotFound", text)
            }
            LaunchTemplateError::NameTaken { .. } => {
                Self::new(RefusalKind::AlreadyExists, "InvalidLaunchTemplateName.AlreadyExistsException", text)
                    .of_field("launch_template_name")
            }
            LaunchTemplateError::NameMalformed { .. } => {
                Self::invalid_as("InvalidLaunchTemplateName.MalformedException", "launch_template_name", text)
            }
            LaunchTemplateError::TooManyVersions { .. } => Self::new(RefusalKind::Exhausted, "VersionLimitExceeded", text),
            LaunchTemplateError::IsDefault { .. } => Self::wrong_state("OperationNotPermitted", text),
            LaunchTemplateError::Empty => Self::invalid_as("MissingParameter", "launch_template_data", text),
            LaunchTemplateError::LongDescription { .. } => Self::invalid("version_description", text),
        }
    }
}

/// What a call says of a new template or version.
#[derive(Debug, Clone, PartialEq)]
pub struct NewVersion {
    pub description: String,
    pub data: LaunchSpec,
    /// The caller, as an ARN.
    pub created_by: String,
}

fn check(name: Option<&str>, new: &NewVersion) -> Result<(), Refusal> {
    let mut violations = Violations::new();
    if let Some(name) = name {
        let plain = |character: char| character.is_ascii_alphanumeric() || "().-/_".contains(character);
        if !NAME_CHARS.contains(&name.chars().count()) || !name.chars().all(plain) {
            violations.check("", Err::<(), _>(LaunchTemplateError::NameMalformed { name: name.to_owned() }));
        }
    }
    let chars = new.description.chars().count();
    if chars > MAX_DESCRIPTION_CHARS {
        violations.check("", Err::<(), _>(LaunchTemplateError::LongDescription { chars }));
    }
    if new.data.is_empty() {
        violations.check("", Err::<(), _>(LaunchTemplateError::Empty));
    }
    violations.finish()
}

/// Makes a template with its version 1, which is its default.
///
/// Errors: `InvalidLaunchTemplateName.MalformedException`, `InvalidLaunchTemplateName.AlreadyExistsException`,
/// `MissingParameter` (no data), `InvalidParameterValue`.
pub fn create(
    scope: Scope,
    id: LaunchTemplateId,
    name: &str,
    name_taken: bool,
    tags: Tags,
    new: NewVersion,
    now: Timestamp,
) -> Result<(LaunchTemplate, LaunchTemplateVersion), Refusal> {
    check(Some(name), &new)?;
    if name_taken {
        return Err(LaunchTemplateError::NameTaken { name: name.to_owned() }.into());
    }
    let template = LaunchTemplate {
        scope,
        id,
        name: name.to_owned(),
        create_time: now,
        created_by: new.created_by.clone(),
        default_version: 1,
        latest_version: 0,
        next_version: 1,
        versions: 0,
        tags,
    };
    Ok(add(&template, new, now))
}

/// Makes a further version. What its data does not say comes from `source`; the default stays.
///
/// Errors: `VersionLimitExceeded`, `MissingParameter` (no data), `InvalidParameterValue`.
pub fn create_version(
    template: &LaunchTemplate,
    source: Option<&LaunchTemplateVersion>,
    mut new: NewVersion,
    now: Timestamp,
) -> Result<(LaunchTemplate, LaunchTemplateVersion), Refusal> {
    if let Some(source) = source {
        new.data = new.data.over(source.data.clone());
    }
    check(None, &new)?;
    if template.versions >= MAX_VERSIONS {
        return Err(LaunchTemplateError::TooManyVersions { id: template.id }.into());
    }
    Ok(add(template, new, now))
}

fn add(template: &LaunchTemplate, new: NewVersion, now: Timestamp) -> (LaunchTemplate, LaunchTemplateVersion) {
    let number = template.next_version;
    let version = LaunchTemplateVersion {
        scope: template.scope.clone(),
        template_id: template.id,
        number,
        description: new.description,
        create_time: now,
        created_by: new.created_by,
        data: new.data,
    };
    let template = LaunchTemplate { latest_version: number, next_version: number + 1, versions: template.versions + 1, ..template.clone() };
    (template, version)
}

impl LaunchTemplate {
    /// The number for which a reference stands now. Whether a version has it is for the caller to look up.
    pub fn resolve(&self, version: VersionRef) -> u64 {
        match version {
            VersionRef::Number(number) => number,
            VersionRef::Latest => self.latest_version,
            VersionRef::Default => self.default_version,
        }
    }

    /// The refusal for a version that does not exist.
    pub fn version_not_found(&self, version: VersionRef) -> LaunchTemplateError {
        LaunchTemplateError::VersionNotFound { id: self.id, version: version.to_string() }
    }
}

/// The template with another default, which `exists`; none if it is the default already.
///
/// Errors: `InvalidLaunchTemplateId.VersionNotFound`.
pub fn set_default(template: &LaunchTemplate, version: VersionRef, exists: bool) -> Result<Option<LaunchTemplate>, LaunchTemplateError> {
    let number = template.resolve(version);
    if !exists {
        return Err(template.version_not_found(version));
    }
    Ok((number != template.default_version).then(|| LaunchTemplate { default_version: number, ..template.clone() }))
}

/// The template without a version. `latest_left` is the highest number that exists beside it.
///
/// Errors: `InvalidLaunchTemplateId.VersionNotFound`, `OperationNotPermitted` (the default).
pub fn delete_version(
    template: &LaunchTemplate,
    number: u64,
    exists: bool,
    latest_left: u64,
) -> Result<LaunchTemplate, LaunchTemplateError> {
    if !exists {
        return Err(template.version_not_found(VersionRef::Number(number)));
    }
    if number == template.default_version {
        return Err(LaunchTemplateError::IsDefault { id: template.id, version: number });
    }
    Ok(LaunchTemplate { latest_version: latest_left, versions: template.versions.saturating_sub(1), ..template.clone() })
}

impl Filterable for LaunchTemplate {
    const FILTER_NAMES: &'static [&'static str] = &["create-time", "launch-template-name"];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "create-time" => vec![Cow::from(self.create_time.to_string())],
            "launch-template-name" => vec![Cow::from(self.name.as_str())],
            _ => Vec::new(),
        }
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }
}

/// A version beside its template: what DescribeLaunchTemplateVersions filters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VersionOf<'a> {
    pub template: &'a LaunchTemplate,
    pub version: &'a LaunchTemplateVersion,
}

impl Filterable for VersionOf<'_> {
    const FILTER_NAMES: &'static [&'static str] = &[
        "create-time",
        "ebs-optimized",
        "http-endpoint",
        "http-protocol-ipv6",
        "http-tokens",
        "iam-instance-profile",
        "image-id",
        "instance-type",
        "is-default-version",
        "key-name",
    ];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        let data = &self.version.data;
        let text = |value: &Option<String>| value.iter().map(|value| Cow::from(value.clone())).collect::<Vec<_>>();
        let switch =
            |value: Option<bool>| value.map(|on| Cow::from(if on { "enabled" } else { "disabled" })).into_iter().collect::<Vec<_>>();
        match name {
            "create-time" => vec![Cow::from(self.version.create_time.to_string())],
            "ebs-optimized" => data.ebs_optimized.map(|on| Cow::from(on.to_string())).into_iter().collect(),
            "http-endpoint" => switch(data.metadata_options.endpoint_enabled),
            "http-protocol-ipv6" => switch(data.metadata_options.ipv6_enabled),
            "http-tokens" => data.metadata_options.http_tokens.map(|tokens| Cow::from(tokens.as_str())).into_iter().collect(),
            "iam-instance-profile" => text(&data.iam_instance_profile),
            "image-id" => text(&data.image_id),
            "instance-type" => text(&data.instance_type),
            "is-default-version" => vec![Cow::from((self.version.number == self.template.default_version).to_string())],
            "key-name" => text(&data.key_name),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gureum_model::id::ResourceId;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn new(image: &str) -> NewVersion {
        let data = LaunchSpec { image_id: Some(image.to_owned()), ..LaunchSpec::default() };
        NewVersion { description: String::new(), data, created_by: "arn:aws:iam::000000000000:root".to_owned() }
    }

    fn template() -> (LaunchTemplate, LaunchTemplateVersion) {
        let id = LaunchTemplateId::from_number(1);
        create(Scope::default(), id, "web-servers", false, Tags::default(), new("ami-1"), Timestamp::EPOCH).expect("a plain template")
    }

    proptest! {
        /// Against a map of what exists.
        #[test]
        fn numbers_are_never_used_again(commands in prop::collection::vec((0u8..3, 1u64..12), 0..40)) {
            let (mut template, first) = template();
            let mut exist = BTreeMap::from([(first.number, first)]);
            let (mut default, mut highest_ever) = (1, 1);
            for (command, number) in commands {
                match command {
                    0 => {
                        let (next, version) = create_version(&template, exist.get(&number), new("ami-2"), Timestamp::EPOCH).expect("room");
                        highest_ever += 1;
                        prop_assert_eq!(version.number, highest_ever);
                        exist.insert(version.number, version);
                        template = next;
                    }
                    1 => match set_default(&template, VersionRef::Number(number), exist.contains_key(&number)) {
                        Ok(next) => {
                            prop_assert!(exist.contains_key(&number));
                            prop_assert_eq!(next.is_none(), default == number);
                            default = number;
                            template = next.unwrap_or(template);
                        }
                        Err(_) => prop_assert!(!exist.contains_key(&number)),
                    },
                    _ => {
                        let left = exist.keys().rev().find(|other| **other != number).copied().unwrap_or(0);
                        match delete_version(&template, number, exist.contains_key(&number), left) {
                            Ok(next) => {
                                prop_assert!(exist.remove(&number).is_some() && number != default);
                                template = next;
                            }
                            Err(_) => prop_assert!(!exist.contains_key(&number) || number == default),
                        }
                    }
                }
                prop_assert_eq!(template.resolve(VersionRef::Default), default);
                prop_assert_eq!(Some(&template.resolve(VersionRef::Latest)), exist.keys().next_back());
                prop_assert_eq!(template.versions, exist.len());
            }
        }
    }

    #[test]
    fn refusals_have_ec2s_codes() {
        let reason = |error: LaunchTemplateError| Refusal::from(error).reason;
        let (template, _) = template();
        assert_eq!(reason(template.version_not_found(VersionRef::Number(7))), "InvalidLaunchTemplateId.VersionNotFound");
        let named = |name: &str, taken| {
            create(Scope::default(), template.id, name, taken, Tags::default(), new("ami-1"), Timestamp::EPOCH)
                .map_err(|refusal| refusal.reason)
        };
        assert_eq!(named("ab", false).err(), Some("InvalidLaunchTemplateName.MalformedException"));
        assert_eq!(named("web servers", false).err(), Some("InvalidLaunchTemplateName.MalformedException"));
        assert_eq!(named("web", true).err(), Some("InvalidLaunchTemplateName.AlreadyExistsException"));
    }

    #[test]
    fn versions_are_read() {
        assert_eq!("$Latest".parse(), Ok(VersionRef::Latest));
        assert_eq!("".parse(), Ok(VersionRef::Default));
        assert_eq!("12".parse(), Ok(VersionRef::Number(12)));
        for bad in ["0", "-1", "+1", "latest", "$latest", "1.0"] {
            assert!(bad.parse::<VersionRef>().is_err(), "{bad}");
        }
    }
}
