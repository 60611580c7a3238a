//! RunInstances, first half: what a caller wants, read from what he wrote.
//!
//! Everything that can be said without looking anything up is checked here, and all of it at once.
//! [`crate::launch_check`] then checks it against what exists.

use std::net::Ipv4Addr;

use gureum_model::{
    Refusal, Region, Tags,
    id::{ImageId, NetworkInterfaceId, SecurityGroupId, SubnetId},
    refusal::Violations,
};

use crate::{
    instance::{CpuCredits, ShutdownBehavior, Tenancy},
    instance_type,
    launch_spec::{InterfaceSpec, LaunchSpec, PlacementSpec, TagSpecification, TenancySpec},
    metadata_options::{MetadataOptions, MetadataOptionsSpec},
    tag_specification,
    user_data::UserData,
};

/// Instances that one call may launch, as EC2 has it for most types.
pub const MAX_COUNT: i32 = 1000;
/// The type of a launch that names none. EC2 documents m1.small, which it has long retired and which is not
/// offered here; this is the smallest that every x86 image boots on.
pub const DEFAULT_INSTANCE_TYPE: &str = "t2.micro";
/// Groups of one interface, as EC2 limits them at most.
pub const MAX_GROUPS: usize = 16;

/// What a caller wants, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    pub image: ImageId,
    pub instance_type: String,
    /// From 1 to `max_count`.
    pub min_count: usize,
    /// From `min_count` to [`MAX_COUNT`].
    pub max_count: usize,
    pub key_name: Option<String>,
    pub zone: Option<char>,
    pub tenancy: Tenancy,
    pub placement_group: String,
    /// By device index; at least one, and the first is 0.
    pub interfaces: Vec<WantedInterface>,
    pub user_data: UserData,
    pub tags: LaunchTags,
    pub shutdown_behavior: ShutdownBehavior,
    pub disable_api_termination: bool,
    pub disable_api_stop: bool,
    pub detailed_monitoring: bool,
    pub metadata_options: MetadataOptionsSpec,
    pub credits: Option<CpuCredits>,
    pub ebs_optimized: Option<bool>,
    /// Empty for none.
    pub iam_instance_profile: String,
    pub core_count: Option<u32>,
    pub threads_per_core: Option<u32>,
}

/// One interface of each instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedInterface {
    /// Where the request says it: `spec`, or `spec.network_interfaces[2]`.
    pub field: String,
    pub device_index: u32,
    pub delete_on_termination: bool,
    pub source: InterfaceSource,
}

/// Where an interface comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterfaceSource {
    /// It exists and is attached.
    Existing(NetworkInterfaceId),
    /// Network makes it.
    New {
        /// None: a default subnet of the zone.
        subnet: Option<SubnetId>,
        groups: Vec<SecurityGroupId>,
        group_names: Vec<String>,
        private_address: Option<Ipv4Addr>,
        /// None: as the subnet says.
        public_address: Option<bool>,
        description: String,
    },
}

/// Tags for what a launch makes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LaunchTags {
    pub instance: Tags,
    pub volume: Tags,
    pub network_interface: Tags,
}

/// Reads what a caller wants; `spec` is the request's over the template's.
///
/// Errors, all at once: `MissingParameter`, `InvalidParameterValue`, `InvalidParameterCombination`,
/// `InvalidAMIID.Malformed` and its like, `UnsupportedOperation`, `InvalidPlacementGroup.Unknown`, `TagLimitExceeded`.
pub fn parse(spec: &LaunchSpec, min_count: i32, max_count: i32, region: &Region) -> Result<Wanted, Refusal> {
    let mut violations = Violations::new();
    let (min_count, max_count) = counts(min_count, max_count, &mut violations);
    let image = image(spec, &mut violations);
    let interfaces = interfaces(spec, max_count, &mut violations);
    let tags = tags(&spec.tag_specifications, &mut violations);
    // The defaults depend on the image, but what is wrong with the options does not.
    MetadataOptions::default_for(false).with(&spec.metadata_options, "spec.metadata_options", &mut violations);
    let wanted = Wanted {
        image: image.unwrap_or(gureum_model::id::ResourceId::from_number(0)),
        instance_type: kind(spec, &mut violations),
        min_count,
        max_count,
        key_name: spec.key_name.clone().filter(|name| !name.is_empty()),
        zone: zone(spec, region, &mut violations),
        tenancy: tenancy(spec, &mut violations),
        placement_group: spec.placement.group_name.clone().unwrap_or_default(),
        interfaces,
        user_data: spec.user_data.clone().unwrap_or_default(),
        tags,
        shutdown_behavior: spec.shutdown_behavior.unwrap_or_default(),
        disable_api_termination: spec.disable_api_termination.unwrap_or_default(),
        disable_api_stop: spec.disable_api_stop.unwrap_or_default(),
        detailed_monitoring: spec.monitoring_enabled.unwrap_or_default(),
        metadata_options: spec.metadata_options,
        credits: credits(spec, &mut violations),
        ebs_optimized: spec.ebs_optimized,
        iam_instance_profile: spec.iam_instance_profile.clone().unwrap_or_default(),
        core_count: positive("spec.cpu_options.core_count", spec.core_count, &mut violations),
        threads_per_core: positive("spec.cpu_options.threads_per_core", spec.threads_per_core, &mut violations),
    };
    if spec.hibernation == Some(true) {
        violations.add_as("UnsupportedOperation", "spec.hibernation_configured", "hibernation is not offered; leave it out");
    }
    named_elsewhere(spec, &mut violations);
    violations.finish()?;
    Ok(wanted)
}

/// Where a launch would be, of a spec that cannot be read: so that what its subnets and groups are is told with the rest.
/// None if that cannot be read either.
pub fn parse_network(spec: &LaunchSpec, region: &Region) -> Option<Wanted> {
    let stand_in: ImageId = gureum_model::id::ResourceId::from_number(0);
    let network = LaunchSpec {
        image_id: Some(stand_in.to_string()),
        security_group_ids: spec.security_group_ids.clone(),
        security_groups: spec.security_groups.clone(),
        subnet_id: spec.subnet_id.clone(),
        private_ip_address: spec.private_ip_address.clone(),
        network_interfaces: spec.network_interfaces.clone(),
        placement: PlacementSpec { availability_zone: spec.placement.availability_zone.clone(), ..PlacementSpec::default() },
        ..LaunchSpec::default()
    };
    parse(&network, 1, 1, region).ok()
}

fn counts(min: i32, max: i32, violations: &mut Violations) -> (usize, usize) {
    for (field, count) in [("min_count", min), ("max_count", max)] {
        if !(1..=MAX_COUNT).contains(&count) {
            violations.add(field, format!("invalid value '{count}' for {field}: expected 1 to {MAX_COUNT}"));
        }
    }
    if min > max {
        violations.add("min_count", format!("min_count {min} is more than max_count {max}"));
    }
    let count = |count: i32| usize::try_from(count).unwrap_or_default();
    (count(min), count(max))
}

fn image(spec: &LaunchSpec, violations: &mut Violations) -> Option<ImageId> {
    match spec.image_id.as_deref().unwrap_or_default() {
        "" => {
            violations.check("", Err::<(), _>(Refusal::missing("spec.image_id")));
            None
        }
        text => violations.id("spec.image_id", text),
    }
}

fn kind(spec: &LaunchSpec, violations: &mut Violations) -> String {
    let name = spec.instance_type.as_deref().unwrap_or(DEFAULT_INSTANCE_TYPE);
    if instance_type::find(name).is_none() {
        violations.add("spec.instance_type", unknown_kind(name));
    }
    name.to_owned()
}

/// What is told of a type that does not exist.
pub fn unknown_kind(name: &str) -> String {
    format!("invalid value '{name}' for InstanceType; DescribeInstanceTypes lists all")
}

fn zone(spec: &LaunchSpec, region: &Region, violations: &mut Violations) -> Option<char> {
    let name = spec.placement.availability_zone.as_deref().filter(|name| !name.is_empty())?;
    let letter = region.zone_letter(name);
    if letter.is_none() {
        violations.add(
            "spec.placement.availability_zone",
            format!("invalid availability zone: [{name}]; expected one of {}", region.zones().join(", ")),
        );
    }
    letter
}

fn tenancy(spec: &LaunchSpec, violations: &mut Violations) -> Tenancy {
    match spec.placement.tenancy {
        None | Some(TenancySpec::Default) => Tenancy::Default,
        Some(TenancySpec::Dedicated) => Tenancy::Dedicated,
        Some(TenancySpec::Host) => {
            let words = "hosts of one's own are not offered; choose the tenancy default or dedicated";
            violations.add_as("UnsupportedOperation", "spec.placement.tenancy", words);
            Tenancy::Default
        }
    }
}

fn credits(spec: &LaunchSpec, violations: &mut Violations) -> Option<CpuCredits> {
    match spec.cpu_credits.as_deref()? {
        "standard" => Some(CpuCredits::Standard),
        "unlimited" => Some(CpuCredits::Unlimited),
        other => {
            violations.add("spec.cpu_credits", format!("\"{other}\" is no credit option: expected \"standard\" or \"unlimited\""));
            None
        }
    }
}

fn positive(field: &str, value: Option<i32>, violations: &mut Violations) -> Option<u32> {
    let value = value?;
    let positive = u32::try_from(value).ok().filter(|value| *value >= 1);
    if positive.is_none() {
        violations.add(field, format!("{value} is not at least 1"));
    }
    positive
}

fn tags(specifications: &[TagSpecification], violations: &mut Violations) -> LaunchTags {
    let kinds = ["instance", "volume", "network-interface"];
    let [instance, volume, network_interface] = tag_specification::read(specifications, "spec.tag_specifications", kinds, violations);
    LaunchTags { instance, volume, network_interface }
}

fn interfaces(spec: &LaunchSpec, max_count: usize, violations: &mut Violations) -> Vec<WantedInterface> {
    if spec.network_interfaces.is_empty() {
        return vec![plain_interface(spec, max_count, violations)];
    }
    let on_instance = [
        ("spec.subnet_id", "subnet", spec.subnet_id.is_some()),
        ("spec.security_group_ids", "security groups", !spec.security_group_ids.is_empty()),
        ("spec.security_groups", "security groups", !spec.security_groups.is_empty()),
        ("spec.private_ip_address", "private address", spec.private_ip_address.is_some()),
        ("spec.associate_public_ip_address", "public address", spec.associate_public_ip_address.is_some()),
    ];
    for (field, what, _) in on_instance.into_iter().filter(|(_, _, given)| *given) {
        violations.add_as(
            "InvalidParameterCombination",
            field,
            format!("network interfaces and an instance-level {what} may not be specified on the same request; give it on the interface"),
        );
    }
    let mut wanted: Vec<WantedInterface> = Vec::with_capacity(spec.network_interfaces.len());
    for (place, interface) in spec.network_interfaces.iter().enumerate() {
        let field = format!("spec.network_interfaces[{place}]");
        let read = listed_interface(interface, &field, max_count, violations);
        if wanted.iter().any(|other| other.device_index == read.device_index) {
            violations.add(format!("{field}.device_index"), format!("the device index {} is given twice", read.device_index));
        }
        wanted.push(read);
    }
    wanted.sort_by_key(|interface| interface.device_index);
    if wanted.first().is_none_or(|first| first.device_index != 0) {
        violations.add("spec.network_interfaces", "no interface has the device index 0; the first interface needs it");
    }
    wanted
}

/// What EC2 has and this region has none of: a launch that names one would be less than its caller thinks.
fn named_elsewhere(spec: &LaunchSpec, violations: &mut Violations) {
    if let Some(name) = spec.placement.group_name.as_deref().filter(|name| !name.is_empty()) {
        let text = format!("the placement group '{name}' is unknown: this region has none; leave it out");
        violations.add_as("InvalidPlacementGroup.Unknown", "spec.placement.group_name", text);
    }
    if let Some(name) = spec.iam_instance_profile.as_deref().filter(|name| !name.is_empty()) {
        let text =
            format!("Value ({name}) for parameter iamInstanceProfile is invalid: this region has no instance profiles; leave it out");
        violations.add("spec.iam_instance_profile", text);
    }
}

fn plain_interface(spec: &LaunchSpec, max_count: usize, violations: &mut Violations) -> WantedInterface {
    let subnet = spec.subnet_id.as_deref().and_then(|text| violations.optional_id("spec.subnet_id", text));
    let groups: Vec<SecurityGroupId> = violations.ids("spec.security_group_ids", &spec.security_group_ids);
    if subnet.is_some() && !spec.security_groups.is_empty() {
        violations.add_as(
            "InvalidParameterCombination",
            "spec.security_groups",
            "groups by name are of the default VPC and cannot be used with the parameter subnet; give their ids",
        );
    }
    too_many_groups("spec.security_group_ids", groups.len() + spec.security_groups.len(), violations);
    WantedInterface {
        field: "spec".to_owned(),
        device_index: 0,
        delete_on_termination: true,
        source: InterfaceSource::New {
            subnet,
            groups,
            group_names: spec.security_groups.clone(),
            private_address: address("spec.private_ip_address", spec.private_ip_address.as_deref(), max_count, violations),
            public_address: spec.associate_public_ip_address,
            description: String::new(),
        },
    }
}

fn listed_interface(spec: &InterfaceSpec, field: &str, max_count: usize, violations: &mut Violations) -> WantedInterface {
    let device_index = u32::try_from(spec.device_index).unwrap_or_else(|_| {
        violations.add(format!("{field}.device_index"), format!("the device index {} is negative", spec.device_index));
        u32::MAX
    });
    if let Some(text) = spec.network_interface_id.as_deref().filter(|text| !text.is_empty()) {
        let id = existing_interface(spec, text, field, max_count, violations);
        return WantedInterface {
            field: field.to_owned(),
            device_index,
            delete_on_termination: spec.delete_on_termination.unwrap_or(false),
            source: InterfaceSource::Existing(id.unwrap_or(gureum_model::id::ResourceId::from_number(0))),
        };
    }
    if spec.associate_public_ip_address == Some(true) && device_index != 0 {
        violations.add_as(
            "InvalidParameterCombination",
            format!("{field}.associate_public_ip_address"),
            "the associatePublicIPAddress parameter can only be specified for the network interface with DeviceIndex 0",
        );
    }
    let groups: Vec<SecurityGroupId> = violations.ids(&format!("{field}.group_ids"), &spec.group_ids);
    too_many_groups(&format!("{field}.group_ids"), groups.len(), violations);
    WantedInterface {
        field: field.to_owned(),
        device_index,
        delete_on_termination: spec.delete_on_termination.unwrap_or(true),
        source: InterfaceSource::New {
            subnet: spec.subnet_id.as_deref().and_then(|text| violations.optional_id(format!("{field}.subnet_id"), text)),
            groups,
            group_names: Vec::new(),
            private_address: address(&format!("{field}.private_ip_address"), spec.private_ip_address.as_deref(), max_count, violations),
            public_address: spec.associate_public_ip_address,
            description: spec.description.clone().unwrap_or_default(),
        },
    }
}

fn existing_interface(
    spec: &InterfaceSpec,
    text: &str,
    field: &str,
    max_count: usize,
    violations: &mut Violations,
) -> Option<NetworkInterfaceId> {
    let others = spec.subnet_id.is_some()
        || !spec.group_ids.is_empty()
        || spec.private_ip_address.is_some()
        || spec.associate_public_ip_address.is_some()
        || spec.description.is_some();
    if others {
        violations.add_as(
            "InvalidParameterCombination",
            field,
            "a network interface id may not be specified together with a subnet, groups, addresses or a description",
        );
    }
    if max_count > 1 {
        violations.add_as(
            "InvalidParameterCombination",
            format!("{field}.network_interface_id"),
            format!("an interface that exists can be attached to one instance, and max_count is {max_count}"),
        );
    }
    violations.id(format!("{field}.network_interface_id"), text)
}

fn too_many_groups(field: &str, count: usize, violations: &mut Violations) {
    if count > MAX_GROUPS {
        violations.add_as(
            "SecurityGroupsPerInterfaceLimitExceeded",
            field,
            format!("{count} groups are more than the {MAX_GROUPS} that an interface may have"),
        );
    }
}

fn address(field: &str, text: Option<&str>, max_count: usize, violations: &mut Violations) -> Option<Ipv4Addr> {
    let text = text.filter(|text| !text.is_empty())?;
    if max_count > 1 {
        violations.add_as(
            "InvalidParameterCombination",
            field,
            format!("a private address can be given to one instance, and max_count is {max_count}"),
        );
    }
    let address = text.parse().ok();
    if address.is_none() {
        violations.add(field, format!("invalid value '{text}' for a private address: expected an IPv4 address"));
    }
    address
}
