//! Intents as they come over the wire, in plain texts and numbers, and how they are read.
//!
//! Whoever sends them is a peer, not a user; a violation here is a fault of that peer, and every one
//! of them is named so that it can be found.

use std::{net::Ipv4Addr, time::Duration};

use gureum_model::{
    Refusal, Scope, Tags,
    id::{ImageId, InstanceId, ReservationId},
    refusal::Violations,
};

use crate::{
    capacity::Demand,
    instance::{Desired, DesiredState, Wanted},
    spec::{
        GroupSpec, ImageSpec, InstanceSpec, InterfaceSpec, KeySpec, MAX_INTERFACES, MAX_USER_DATA_BYTES, MAX_VOLUMES, MetadataOptions,
        PlacementSpec, Platform, ShutdownBehavior, VolumeSpec,
    },
};

/// The longest grace of a stop: what EC2 gives an operating system before it pulls the plug is
/// minutes, and nobody waits an hour.
pub const MAX_STOP_GRACE: Duration = Duration::from_secs(3600);

/// One intent, unread.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DesiredInput {
    pub instance_id: String,
    pub account_id: String,
    pub region: String,
    pub generation: u64,
    pub state: Option<DesiredStateInput>,
    pub boot: u64,
    pub reboot: u64,
    pub spec: Option<SpecInput>,
}

/// The wanted state, unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DesiredStateInput {
    Running,
    Stopped { grace: Duration },
    Terminated,
}

/// A specification, unread. What it leaves out has [`InstanceSpec`]'s meaning.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SpecInput {
    pub type_name: String,
    pub vcpu_milli: u64,
    pub memory_mib: u64,
    pub image_id: String,
    pub image_source: String,
    pub platform: Option<Platform>,
    pub user_data: Vec<u8>,
    pub interfaces: Vec<InterfaceInput>,
    pub volumes: Vec<VolumeInput>,
    pub pulled_volumes: Vec<String>,
    pub key: Option<KeySpec>,
    pub hostname: String,
    pub metadata_options: Option<MetadataOptions>,
    pub tags: Vec<(String, String)>,
    pub shutdown_behavior: Option<ShutdownBehavior>,
    pub zone: String,
    pub reservation_id: String,
    pub launch_index: u32,
}

/// An interface, unread.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InterfaceInput {
    pub network_interface_id: String,
    pub device_index: u32,
    pub mac_address: String,
    pub vpc_id: String,
    pub subnet_id: String,
    pub prefix_length: u32,
    pub private_addresses: Vec<String>,
    /// Empty: none.
    pub public_address: String,
    pub public_name: String,
    /// Ids and names.
    pub groups: Vec<(String, String)>,
    pub source_dest_check: bool,
}

/// A volume, unread.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeInput {
    pub volume_id: String,
    pub device_name: String,
    pub size_gib: u32,
    pub root: bool,
    /// Empty: none.
    pub snapshot_id: String,
    pub delete_on_termination: bool,
}

impl DesiredInput {
    /// Reads the intent; `field` is its path in the request.
    pub fn read(self, field: &str) -> Result<Desired, Refusal> {
        let mut violations = Violations::new();
        let id = violations.id::<InstanceId>(format!("{field}.instance_id"), &self.instance_id);
        let scope = violations.check(field, Scope::parse(&self.account_id, &self.region));
        if self.generation == 0 {
            violations.add(format!("{field}.generation"), "generations begin at 1");
        }
        if self.state == Some(DesiredStateInput::Running) && self.boot == 0 {
            violations.add(format!("{field}.boot"), "a running instance has booted at least once: boots begin at 1");
        }
        let state = match self.state {
            Some(DesiredStateInput::Running) => Some(DesiredState::Running),
            Some(DesiredStateInput::Stopped { grace }) if grace <= MAX_STOP_GRACE => Some(DesiredState::Stopped { grace }),
            Some(DesiredStateInput::Stopped { grace }) => {
                violations.add(
                    format!("{field}.stop_grace"),
                    format!("{} s are more than the {} s that a stop may take", grace.as_secs(), MAX_STOP_GRACE.as_secs()),
                );
                None
            }
            Some(DesiredStateInput::Terminated) => Some(DesiredState::Terminated),
            None => {
                violations.add_as("MissingParameter", format!("{field}.state"), "the wanted state is required");
                None
            }
        };
        let spec = self.spec.and_then(|spec| spec.read(&format!("{field}.spec"), &mut violations));
        violations.finish()?;
        let (Some(id), Some(scope), Some(state)) = (id, scope, state) else {
            return Err(Refusal::missing(field));
        };
        let wanted = Wanted { generation: self.generation, state, boot: self.boot, reboot: self.reboot };
        Ok(Desired { scope, id, wanted, spec })
    }
}

impl SpecInput {
    fn read(self, field: &str, violations: &mut Violations) -> Option<InstanceSpec> {
        self.check_sizes(field, violations);
        let image = violations.id::<ImageId>(format!("{field}.image_id"), &self.image_id);
        let reservation = violations.id::<ReservationId>(format!("{field}.reservation_id"), &self.reservation_id);
        let mut interfaces = Vec::with_capacity(self.interfaces.len());
        for (place, interface) in self.interfaces.into_iter().enumerate() {
            interfaces.extend(interface.read(&format!("{field}.interfaces[{place}]"), violations));
        }
        interfaces.sort_by_key(|interface| interface.device_index);
        if let Some(twice) = interfaces.windows(2).find(|pair| pair[0].device_index == pair[1].device_index) {
            violations.add(format!("{field}.interfaces"), format!("the device index {} is given twice", twice[0].device_index));
        }
        let mut volumes = Vec::with_capacity(self.volumes.len());
        for (place, volume) in self.volumes.into_iter().enumerate() {
            volumes.extend(volume.read(&format!("{field}.volumes[{place}]"), violations));
        }
        // The root volume first, all others as they came.
        volumes.sort_by_key(|volume| !volume.root);
        if volumes.get(1).is_some_and(|volume| volume.root) {
            violations.add(format!("{field}.volumes"), "more than one volume is the root volume");
        }
        let pulled_volumes = violations.ids(&format!("{field}.pulled_volume_ids"), &self.pulled_volumes);
        // System tags ("aws:…") belong to an instance too, so the users' rules do not apply here.
        let tags = Tags(self.tags.into_iter().collect());
        Some(InstanceSpec {
            type_name: self.type_name,
            demand: Demand::new(self.vcpu_milli, self.memory_mib),
            image: ImageSpec { id: image?, source: self.image_source, platform: self.platform.unwrap_or(Platform::Linux) },
            user_data: self.user_data,
            interfaces,
            volumes,
            pulled_volumes,
            key: self.key,
            hostname: self.hostname,
            metadata_options: self.metadata_options.unwrap_or_default(),
            tags,
            shutdown_behavior: self.shutdown_behavior.unwrap_or(ShutdownBehavior::Stop),
            placement: PlacementSpec { zone: self.zone, reservation: reservation?, launch_index: self.launch_index },
        })
    }

    fn check_sizes(&self, field: &str, violations: &mut Violations) {
        for (name, value) in [("vcpu_milli", self.vcpu_milli), ("memory_mib", self.memory_mib)] {
            if value == 0 {
                violations.add(format!("{field}.{name}"), format!("{name} must be above 0"));
            }
        }
        let counts = [
            ("user_data", self.user_data.len(), MAX_USER_DATA_BYTES),
            ("interfaces", self.interfaces.len(), MAX_INTERFACES),
            ("volumes", self.volumes.len(), MAX_VOLUMES),
            ("pulled_volume_ids", self.pulled_volumes.len(), MAX_VOLUMES),
        ];
        for (name, count, limit) in counts {
            if count > limit {
                violations.add(format!("{field}.{name}"), format!("{count} is more than the limit of {limit}"));
            }
        }
    }
}

impl InterfaceInput {
    fn read(self, field: &str, violations: &mut Violations) -> Option<InterfaceSpec> {
        let id = violations.id(format!("{field}.network_interface_id"), &self.network_interface_id);
        let vpc = violations.id(format!("{field}.vpc_id"), &self.vpc_id);
        let subnet = violations.id(format!("{field}.subnet_id"), &self.subnet_id);
        let prefix_length = u8::try_from(self.prefix_length).ok().filter(|length| (16..=28).contains(length));
        if prefix_length.is_none() {
            violations.add(format!("{field}.prefix_length"), format!("{} is not in 16 to 28", self.prefix_length));
        }
        let mut private_addresses = Vec::with_capacity(self.private_addresses.len());
        for (place, text) in self.private_addresses.iter().enumerate() {
            private_addresses.extend(address(format!("{field}.private_ip_addresses[{place}]"), text, violations));
        }
        if self.private_addresses.is_empty() {
            violations.add_as("MissingParameter", format!("{field}.private_ip_addresses"), "an interface has at least one private address");
        }
        let public_address = match self.public_address.as_str() {
            "" => None,
            text => address(format!("{field}.public_ip"), text, violations),
        };
        let mut groups = Vec::with_capacity(self.groups.len());
        for (place, (id, name)) in self.groups.into_iter().enumerate() {
            let id = violations.id(format!("{field}.groups[{place}].group_id"), &id);
            groups.extend(id.map(|id| GroupSpec { id, name }));
        }
        Some(InterfaceSpec {
            id: id?,
            device_index: self.device_index,
            mac_address: self.mac_address,
            vpc: vpc?,
            subnet: subnet?,
            prefix_length: prefix_length?,
            private_addresses,
            public_address,
            public_name: self.public_name,
            groups,
            source_dest_check: self.source_dest_check,
        })
    }
}

impl VolumeInput {
    fn read(self, field: &str, violations: &mut Violations) -> Option<VolumeSpec> {
        let id = violations.id(format!("{field}.volume_id"), &self.volume_id);
        let snapshot = violations.optional_id(format!("{field}.snapshot_id"), &self.snapshot_id);
        if self.size_gib == 0 {
            violations.add(format!("{field}.size_gib"), "a volume has at least 1 GiB");
        }
        Some(VolumeSpec {
            id: id?,
            device_name: self.device_name,
            size_gib: self.size_gib,
            root: self.root,
            snapshot,
            delete_on_termination: self.delete_on_termination,
        })
    }
}

fn address(field: String, text: &str, violations: &mut Violations) -> Option<Ipv4Addr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        violations.add(field, format!("\"{text}\" is no IPv4 address"));
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn good() -> DesiredInput {
        DesiredInput {
            instance_id: "i-0123456789abcdef0".into(),
            account_id: "000000000042".into(),
            region: "us-east-1".into(),
            generation: 1,
            state: Some(DesiredStateInput::Running),
            boot: 1,
            reboot: 0,
            spec: Some(SpecInput {
                type_name: "t3.micro".into(),
                vcpu_milli: 2000,
                memory_mib: 1024,
                image_id: "ami-0123456789abcdef0".into(),
                reservation_id: "r-0123456789abcdef0".into(),
                interfaces: vec![InterfaceInput {
                    network_interface_id: "eni-0123456789abcdef0".into(),
                    vpc_id: "vpc-0123456789abcdef0".into(),
                    subnet_id: "subnet-0123456789abcdef0".into(),
                    prefix_length: 20,
                    private_addresses: vec!["172.31.0.4".into()],
                    ..InterfaceInput::default()
                }],
                volumes: vec![
                    VolumeInput { volume_id: "vol-00000000000000001".into(), size_gib: 1, ..VolumeInput::default() },
                    VolumeInput { volume_id: "vol-00000000000000002".into(), size_gib: 8, root: true, ..VolumeInput::default() },
                ],
                ..SpecInput::default()
            }),
        }
    }

    #[test]
    fn a_good_intent_is_read_whole() {
        let spec = good().read("instances[0]").unwrap().spec.unwrap();
        assert_eq!(spec.primary_address(), Some(Ipv4Addr::new(172, 31, 0, 4)));
        assert_eq!((spec.root_size_gib(), spec.volumes[0].root), (8, true));
    }

    #[test]
    fn every_violation_is_named_by_its_path() {
        let mut input = good();
        input.account_id = "42".into();
        input.generation = 0;
        input.boot = 0;
        let spec = input.spec.as_mut().unwrap();
        spec.memory_mib = 0;
        spec.image_id = "ami-1".into();
        spec.interfaces[0].public_address = "1.2.3".into();
        spec.volumes[0].size_gib = 0;
        let refusal = input.read("instances[3]").unwrap_err();
        let fields: Vec<&str> = refusal.violations.iter().map(|violation| violation.field.as_str()).collect();
        let expected = [
            "instances[3]",
            "instances[3].generation",
            "instances[3].boot",
            "instances[3].spec.memory_mib",
            "instances[3].spec.image_id",
            "instances[3].spec.interfaces[0].public_ip",
            "instances[3].spec.volumes[0].size_gib",
        ];
        assert_eq!(fields, expected);
    }

    proptest! {
        #[test]
        fn no_text_ends_the_process(id in ".{0,30}", address in ".{0,20}", prefix in any::<u32>(), generation in any::<u64>()) {
            let mut input = good();
            input.instance_id = id.clone();
            input.generation = generation;
            let interface = &mut input.spec.as_mut().unwrap().interfaces[0];
            interface.public_address = address;
            interface.prefix_length = prefix;
            if let Ok(desired) = input.read("instances[0]") {
                prop_assert_eq!(desired.id.to_string(), id);
            }
        }
    }
}
