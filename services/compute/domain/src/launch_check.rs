//! RunInstances, second half: what a caller wants, checked against what exists; and the records that
//! follow from it.

use gureum_model::{
    IdSource, Refusal, RefusalKind, Scope, Timestamp,
    id::{AttachmentId, ImageId, InstanceId, NetworkInterfaceId, NodeId, ReservationId, SubnetId, VolumeId, VpcId},
};

use crate::{
    instance::{AttachedVolume, BootMode, Instance, InstanceState, Interface, Kind, Observed, Origin, Platform},
    launch::{InterfaceSource, Wanted, unknown_kind},
    metadata_options::MetadataOptions,
    modify::default_credits,
};

/// What the caller's words refer to, as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Lookups {
    /// The image, if the caller may see it.
    pub image: Option<ImageFacts>,
    /// The type, if there is one of that name.
    pub kind: Option<KindFacts>,
    /// Whether the key pair exists; true where none was named.
    pub key_exists: bool,
    /// The volumes, root first, as the block device mappings of image and caller come to.
    pub volumes: Result<Vec<VolumeFacts>, Refusal>,
    /// Instances that the scope has and that are not terminated.
    pub instances: usize,
    /// How many it may have; none for no limit.
    pub instance_limit: Option<usize>,
}

/// What a launch needs to know of its image.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageFacts {
    pub id: ImageId,
    /// It is in the state available.
    pub available: bool,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    pub platform: Platform,
    pub platform_details: String,
    pub usage_operation: String,
    pub root_device_name: String,
    pub boot_mode: BootMode,
    /// Its instances demand tokens of the metadata endpoint.
    pub demands_tokens: bool,
    pub product_codes: Vec<String>,
    /// A marketplace product whose terms this account has not accepted.
    pub terms_missing: Option<String>,
}

/// What a launch needs to know of its type.
#[derive(Debug, Clone, PartialEq)]
pub struct KindFacts {
    /// With the architecture that the image needs, where the type has several.
    pub kind: Kind,
    pub architectures: Vec<String>,
    pub max_interfaces: usize,
    /// Throughput to volumes is dedicated unless the caller says otherwise.
    pub ebs_optimized_by_default: bool,
    pub ebs_optimized_supported: bool,
}

/// One volume of each instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFacts {
    pub device_name: String,
    pub delete_on_termination: bool,
}

/// A launch that may happen.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchPlan {
    pub wanted: Wanted,
    pub image: ImageFacts,
    pub kind: Kind,
    pub volumes: Vec<VolumeFacts>,
    pub ebs_optimized: bool,
    pub metadata_options: MetadataOptions,
}

/// Checks what a caller wants against what exists.
///
/// Errors, all at once with the code of the first, what is malformed before what only does not exist or fit: `InvalidAMIID.NotFound`, `InvalidAMIID.Unavailable`,
/// `OptInRequired`, `InvalidParameterValue` (type; architecture of type and image; cores and threads),
/// `InvalidKeyPair.NotFound`, those of the block device mappings, `AttachmentLimitExceeded`,
/// `InvalidParameterCombination` (credits for a type without), `InstanceLimitExceeded`.
pub fn check(wanted: Wanted, found: Lookups) -> Result<LaunchPlan, Refusal> {
    let mut refusals = Vec::new();
    check_image(&wanted, found.image.as_ref(), &mut refusals);
    check_kind(&wanted, found.kind.as_ref(), found.image.as_ref(), &mut refusals);
    if let (Some(name), false) = (&wanted.key_name, found.key_exists) {
        refusals.push(no_key(name));
    }
    if let Some(limit) = found.instance_limit
        && found.instances + wanted.min_count > limit
    {
        let words = format!(
            "you have {} instances and asked for {} more, and your limit is {limit}; terminate some first",
            found.instances, wanted.min_count
        );
        refusals.push(Refusal::new(RefusalKind::Exhausted, "InstanceLimitExceeded", words));
    }
    let volumes = found.volumes.map_err(|refusal| refusals.push(refusal));
    match (found.image, found.kind, volumes) {
        (Some(image), Some(facts), Ok(volumes)) if refusals.is_empty() => {
            Ok(plan(wanted, image, facts, volumes, found.instances, found.instance_limit))
        }
        (_, _, _) => Err(joined(refusals)),
    }
}

fn plan(
    mut wanted: Wanted,
    image: ImageFacts,
    facts: KindFacts,
    volumes: Vec<VolumeFacts>,
    instances: usize,
    limit: Option<usize>,
) -> LaunchPlan {
    if let Some(limit) = limit {
        wanted.max_count = wanted.max_count.min(limit.saturating_sub(instances));
    }
    let mut kind = facts.kind;
    kind.cores = wanted.core_count.unwrap_or(kind.cores);
    kind.threads_per_core = wanted.threads_per_core.unwrap_or(kind.threads_per_core);
    kind.architecture.clone_from(&image.architecture);
    // What is wrong with the options was found when they were parsed.
    let mut checked = gureum_model::refusal::Violations::new();
    let metadata_options = MetadataOptions::default_for(image.demands_tokens).with(&wanted.metadata_options, "", &mut checked);
    let ebs_optimized = wanted.ebs_optimized.unwrap_or(facts.ebs_optimized_by_default);
    LaunchPlan { wanted, image, kind, volumes, ebs_optimized, metadata_options }
}

fn check_image(wanted: &Wanted, image: Option<&ImageFacts>, refusals: &mut Vec<Refusal>) {
    let Some(image) = image else {
        refusals.push(no_image(wanted.image));
        return;
    };
    if !image.available {
        let words = format!("the image id '[{}]' is not available; choose one in the state available", wanted.image);
        refusals.push(Refusal::wrong_state("InvalidAMIID.Unavailable", words));
    }
    if let Some(product) = &image.terms_missing {
        let words =
            format!("in order to use the Marketplace product {product} you need to accept its terms; AcceptMarketplaceTerms does that");
        refusals.push(Refusal::new(RefusalKind::Denied, "OptInRequired", words));
    }
}

fn check_kind(wanted: &Wanted, facts: Option<&KindFacts>, image: Option<&ImageFacts>, refusals: &mut Vec<Refusal>) {
    let name = &wanted.instance_type;
    let Some(facts) = facts else {
        refusals.push(Refusal::invalid("spec.instance_type", unknown_kind(name)));
        return;
    };
    if let Some(image) = image.filter(|image| !facts.architectures.contains(&image.architecture)) {
        let words = format!(
            "the architecture '{}' of the specified instance type does not match the architecture '{}' of the specified AMI; specify an instance type and an AMI that have matching architectures",
            facts.architectures.join(", "),
            image.architecture
        );
        refusals.push(Refusal::invalid("spec.instance_type", words));
    }
    if wanted.interfaces.len() > facts.max_interfaces {
        let words = format!("{} interfaces are more than the {} that {name} may have", wanted.interfaces.len(), facts.max_interfaces);
        refusals.push(Refusal::invalid_as("AttachmentLimitExceeded", "spec.network_interfaces", words));
    }
    if wanted.credits.is_some() && !facts.kind.burstable {
        let words = format!("the instance type '{name}' has no CPU credits; leave cpu_credits out or choose a burstable type");
        refusals.push(Refusal::invalid_as("InvalidParameterCombination", "spec.cpu_credits", words));
    }
    if wanted.ebs_optimized == Some(true) && !facts.ebs_optimized_supported {
        let words = format!("EBS-optimized instances are not supported for the instance type '{name}'; leave ebs_optimized out");
        refusals.push(Refusal::invalid_as("InvalidParameterCombination", "spec.ebs_optimized", words));
    }
    let limits = [
        ("spec.cpu_options.core_count", wanted.core_count, facts.kind.cores),
        ("spec.cpu_options.threads_per_core", wanted.threads_per_core, facts.kind.threads_per_core),
    ];
    for (field, value, most) in limits {
        if let Some(value) = value.filter(|value| *value > most) {
            refusals.push(Refusal::invalid(field, format!("{value} is more than the {most} of {name}")));
        }
    }
}

/// No image with this id that the caller may launch.
pub fn no_image(id: ImageId) -> Refusal {
    Refusal::new(RefusalKind::NotFound, "InvalidAMIID.NotFound", format!("the image id '[{id}]' does not exist")).of_field("spec.image_id")
}

/// No key pair with this name.
pub fn no_key(name: &str) -> Refusal {
    Refusal::new(RefusalKind::NotFound, "InvalidKeyPair.NotFound", format!("the key pair '{name}' does not exist"))
        .of_field("spec.key_name")
}

/// All refusals as one: everyone's words and violations.
fn joined(refusals: Vec<Refusal>) -> Refusal {
    // It is only called with at least one; were there none, refusing is the safe side.
    refusals.into_iter().reduce(Refusal::and).unwrap_or_else(|| Refusal::invalid("spec", "the launch cannot happen"))
}

/// The ids of one new instance and of what comes with it: made before any peer is called, so that
/// every call can be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewIds {
    pub instance: InstanceId,
    /// One for each wanted interface; existing ones keep their own id.
    pub interfaces: Vec<(NetworkInterfaceId, AttachmentId)>,
    /// One for each volume.
    pub volumes: Vec<VolumeId>,
}

impl LaunchPlan {
    /// Ids for `count` instances.
    pub fn new_ids(&self, count: usize, ids: &IdSource) -> Vec<NewIds> {
        let interface = |source: &InterfaceSource| match source {
            InterfaceSource::Existing(id) => (*id, ids.next()),
            InterfaceSource::New { .. } => (ids.next(), ids.next()),
        };
        let one = |_| NewIds {
            instance: ids.next(),
            interfaces: self.wanted.interfaces.iter().map(|wanted| interface(&wanted.source)).collect(),
            volumes: self.volumes.iter().map(|_| ids.next()).collect(),
        };
        (0..count).map(one).collect()
    }

    /// The record of one instance, as it is before network has made its interfaces.
    ///
    /// `subnets` has what network resolved for each wanted interface.
    pub fn instance(&self, launch: &LaunchFacts, index: u32, ids: &NewIds, node: NodeId, now: Timestamp) -> Instance {
        let wanted = &self.wanted;
        let interfaces = wanted.interfaces.iter().zip(&ids.interfaces).zip(&launch.subnets);
        let volumes = self.volumes.iter().zip(&ids.volumes);
        Instance {
            scope: launch.scope.clone(),
            id: ids.instance,
            reservation_id: launch.reservation_id,
            launch_index: index,
            client_token: launch.client_token.clone(),
            state: InstanceState::Pending { since: now, origin: Origin::Launch, addresses_ready: true },
            generation: 1,
            boots: 1,
            reboots: 0,
            observed: Observed::default(),
            runtime: None,
            node: Some(node),
            holds_capacity: true,
            former_nodes: Vec::new(),
            create_time: now,
            launch_time: now,
            image_id: self.image.id,
            image_source: launch.image_source.clone(),
            kind: self.kind.clone(),
            platform: self.image.platform,
            platform_details: self.image.platform_details.clone(),
            usage_operation: self.image.usage_operation.clone(),
            root_device_name: self.image.root_device_name.clone(),
            boot_mode: self.image.boot_mode,
            product_codes: self.image.product_codes.clone(),
            key_name: wanted.key_name.clone().unwrap_or_default(),
            public_key: launch.public_key.clone(),
            user_data: wanted.user_data.clone(),
            zone: launch.zone,
            tenancy: wanted.tenancy,
            placement_group: wanted.placement_group.clone(),
            interfaces: interfaces.map(|((wanted, ids), subnet)| interface(wanted, *ids, *subnet, now)).collect(),
            volumes: volumes.map(|(volume, id)| attached(volume, *id, now)).collect(),
            pulled_volumes: Vec::new(),
            iam_instance_profile: wanted.iam_instance_profile.clone(),
            detailed_monitoring: wanted.detailed_monitoring,
            metadata_options: self.metadata_options,
            credits: default_credits(&self.kind, wanted.credits),
            ebs_optimized: self.ebs_optimized,
            shutdown_behavior: wanted.shutdown_behavior,
            disable_api_termination: wanted.disable_api_termination,
            disable_api_stop: wanted.disable_api_stop,
            tags: wanted.tags.instance.clone(),
        }
    }
}

/// What all instances of a launch share beside the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchFacts {
    pub scope: Scope,
    pub reservation_id: ReservationId,
    /// Empty for none.
    pub client_token: String,
    /// The zone of the subnets.
    pub zone: char,
    /// As the instances have it.
    pub image_source: String,
    /// The key pair's public half; empty for none.
    pub public_key: String,
    /// Subnet and VPC of each wanted interface, in order.
    pub subnets: Vec<(SubnetId, VpcId)>,
}

fn interface(
    wanted: &crate::launch::WantedInterface,
    ids: (NetworkInterfaceId, AttachmentId),
    at: (SubnetId, VpcId),
    now: Timestamp,
) -> Interface {
    let description = match &wanted.source {
        InterfaceSource::Existing(_) => String::new(),
        InterfaceSource::New { description, .. } => description.clone(),
    };
    Interface {
        id: ids.0,
        attachment_id: ids.1,
        device_index: wanted.device_index,
        delete_on_termination: wanted.delete_on_termination,
        attach_time: now,
        subnet_id: at.0,
        vpc_id: at.1,
        mac_address: String::new(),
        prefix_length: 0,
        private_addresses: Vec::new(),
        private_dns_name: String::new(),
        public: None,
        groups: Vec::new(),
        source_dest_check: true,
        description,
    }
}

fn attached(volume: &VolumeFacts, id: VolumeId, now: Timestamp) -> AttachedVolume {
    AttachedVolume {
        device_name: volume.device_name.clone(),
        volume_id: id,
        attach_time: now,
        delete_on_termination: volume.delete_on_termination,
    }
}
