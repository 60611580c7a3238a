//! What a launch says: a request's own words, or a launch template's, or both merged.
//!
//! It is kept as users wrote it. A template may name what does not exist yet; only a launch checks
//! ([`crate::launch`]).

use serde::{Deserialize, Serialize};

use crate::{instance::ShutdownBehavior, metadata_options::MetadataOptionsSpec, user_data::UserData};

/// The parameters of a launch, none of them required here. Stored as it is in launch templates.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LaunchSpec {
    pub image_id: Option<String>,
    pub instance_type: Option<String>,
    pub key_name: Option<String>,
    pub security_group_ids: Vec<String>,
    /// By name, in the default VPC.
    pub security_groups: Vec<String>,
    pub subnet_id: Option<String>,
    pub placement: PlacementSpec,
    pub private_ip_address: Option<String>,
    pub associate_public_ip_address: Option<bool>,
    pub user_data: Option<UserData>,
    pub block_devices: Vec<BlockDeviceSpec>,
    pub tag_specifications: Vec<TagSpecification>,
    pub shutdown_behavior: Option<ShutdownBehavior>,
    pub disable_api_termination: Option<bool>,
    pub disable_api_stop: Option<bool>,
    pub monitoring_enabled: Option<bool>,
    pub metadata_options: MetadataOptionsSpec,
    /// `standard` or `unlimited`.
    pub cpu_credits: Option<String>,
    pub ebs_optimized: Option<bool>,
    pub hibernation: Option<bool>,
    pub iam_instance_profile: Option<String>,
    pub network_interfaces: Vec<InterfaceSpec>,
    pub core_count: Option<i32>,
    pub threads_per_core: Option<i32>,
}

/// Where a caller wants an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlacementSpec {
    pub availability_zone: Option<String>,
    pub tenancy: Option<TenancySpec>,
    pub group_name: Option<String>,
}

/// The tenancies that one may ask for; not all are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenancySpec {
    Default,
    Dedicated,
    Host,
}

/// What is at a device. Absent values come from the image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BlockDeviceSpec {
    pub device_name: String,
    /// Nothing is there, in place of what the image has.
    pub no_device: bool,
    /// Instance storage: `ephemeral0` and on.
    pub virtual_name: Option<String>,
    pub snapshot_id: Option<String>,
    pub size_gib: Option<i32>,
    /// EC2's word: `gp3`.
    pub volume_type: Option<String>,
    pub iops: Option<i32>,
    pub throughput_mibps: Option<i32>,
    pub delete_on_termination: Option<bool>,
    pub encrypted: Option<bool>,
    pub kms_key_id: Option<String>,
}

/// Tags for one kind of resource, as users gave them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TagSpecification {
    pub resource_type: String,
    pub tags: Vec<(String, String)>,
}

/// An interface that the launch makes, or one that exists and is attached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InterfaceSpec {
    pub device_index: i32,
    /// One that exists.
    pub network_interface_id: Option<String>,
    pub subnet_id: Option<String>,
    pub group_ids: Vec<String>,
    pub private_ip_address: Option<String>,
    pub associate_public_ip_address: Option<bool>,
    pub delete_on_termination: Option<bool>,
    pub description: Option<String>,
}

impl LaunchSpec {
    /// Says nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This with `base` where it says nothing: a request over its template, or the data of a new
    /// version over its source version.
    ///
    /// AWS: what the request says overrides the template's, and nothing can be taken away. Lists
    /// override as a whole; groups by id and by name are one list; tags of the same kind of resource
    /// are joined by key.
    pub fn over(self, base: Self) -> Self {
        let own_groups = !self.security_group_ids.is_empty() || !self.security_groups.is_empty();
        let (security_group_ids, security_groups) =
            if own_groups { (self.security_group_ids, self.security_groups) } else { (base.security_group_ids, base.security_groups) };
        Self {
            image_id: self.image_id.or(base.image_id),
            instance_type: self.instance_type.or(base.instance_type),
            key_name: self.key_name.or(base.key_name),
            security_group_ids,
            security_groups,
            subnet_id: self.subnet_id.or(base.subnet_id),
            placement: PlacementSpec {
                availability_zone: self.placement.availability_zone.or(base.placement.availability_zone),
                tenancy: self.placement.tenancy.or(base.placement.tenancy),
                group_name: self.placement.group_name.or(base.placement.group_name),
            },
            private_ip_address: self.private_ip_address.or(base.private_ip_address),
            associate_public_ip_address: self.associate_public_ip_address.or(base.associate_public_ip_address),
            user_data: self.user_data.or(base.user_data),
            block_devices: list_over(self.block_devices, base.block_devices),
            tag_specifications: tags_over(self.tag_specifications, base.tag_specifications),
            shutdown_behavior: self.shutdown_behavior.or(base.shutdown_behavior),
            disable_api_termination: self.disable_api_termination.or(base.disable_api_termination),
            disable_api_stop: self.disable_api_stop.or(base.disable_api_stop),
            monitoring_enabled: self.monitoring_enabled.or(base.monitoring_enabled),
            metadata_options: self.metadata_options.or(base.metadata_options),
            cpu_credits: self.cpu_credits.or(base.cpu_credits),
            ebs_optimized: self.ebs_optimized.or(base.ebs_optimized),
            hibernation: self.hibernation.or(base.hibernation),
            iam_instance_profile: self.iam_instance_profile.or(base.iam_instance_profile),
            network_interfaces: list_over(self.network_interfaces, base.network_interfaces),
            core_count: self.core_count.or(base.core_count),
            threads_per_core: self.threads_per_core.or(base.threads_per_core),
        }
    }
}

fn list_over<T>(own: Vec<T>, base: Vec<T>) -> Vec<T> {
    if own.is_empty() { base } else { own }
}

fn tags_over(own: Vec<TagSpecification>, base: Vec<TagSpecification>) -> Vec<TagSpecification> {
    let mut merged = own;
    for inherited in base {
        match merged.iter_mut().find(|specification| specification.resource_type == inherited.resource_type) {
            Some(specification) => {
                let known: Vec<String> = specification.tags.iter().map(|(key, _)| key.clone()).collect();
                specification.tags.extend(inherited.tags.into_iter().filter(|(key, _)| !known.contains(key)));
            }
            None => merged.push(inherited),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(kind: &str, tags: &[(&str, &str)]) -> TagSpecification {
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        TagSpecification { resource_type: kind.to_owned(), tags }
    }

    #[test]
    fn the_request_wins_and_the_rest_stays() {
        let template = LaunchSpec {
            image_id: Some("ami-1".into()),
            instance_type: Some("t3.micro".into()),
            security_groups: vec!["web".into()],
            tag_specifications: vec![tagged("instance", &[("a", "1"), ("b", "1")]), tagged("volume", &[("v", "1")])],
            ..LaunchSpec::default()
        };
        let request = LaunchSpec {
            instance_type: Some("m5.large".into()),
            security_group_ids: vec!["sg-1".into()],
            tag_specifications: vec![tagged("instance", &[("b", "2")])],
            ..LaunchSpec::default()
        };
        let merged = request.over(template);
        assert_eq!(merged.image_id.as_deref(), Some("ami-1"));
        assert_eq!(merged.instance_type.as_deref(), Some("m5.large"));
        assert_eq!((merged.security_group_ids.len(), merged.security_groups.len()), (1, 0));
        assert_eq!(merged.tag_specifications, [tagged("instance", &[("b", "2"), ("a", "1")]), tagged("volume", &[("v", "1")])]);
    }

    #[test]
    fn nothing_over_something_is_something() {
        let base = LaunchSpec { core_count: Some(2), ..LaunchSpec::default() };
        assert_eq!(LaunchSpec::default().over(base.clone()), base);
        assert_eq!(base.clone().over(LaunchSpec::default()), base);
        assert!(LaunchSpec::default().is_empty() && !base.is_empty());
    }
}
