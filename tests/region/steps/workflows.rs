//! The workflows whose steps are tried: what each needs, the call that begins it, and how its end looks.

use gureum_proto::{
    common::v1::{Tag, TagSelector},
    compute::v1::{compute_service_client::ComputeServiceClient, *},
    gateway::v1::{
        AdvanceClockRequest, CreateTagsRequest as TagAll, DeleteTagsRequest as UntagAll, DescribeTagsRequest as AllTags, GetClockRequest,
        clock_service_client::ClockServiceClient, tagging_service_client::TaggingServiceClient as TaggingClient,
    },
    network::v1::{network_service_client::NetworkServiceClient, *},
    security::v1::{security_service_client::SecurityServiceClient, *},
};
use gureum_service::clock::monotonic;
use tonic::Status;

use crate::{
    harness::{Door, PATIENCE, ask, attempt, is_transient, until},
    region::{LAUNCHABLE, image, launch_spec},
};

pub use super::take_down::{nothing_left, take_down};

/// What a user wants, and what it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workflow {
    /// The first call of a new account.
    Birth,
    CreateVpc,
    DeleteVpc,
    Launch,
    /// A launch that the event log tells of.
    Log,
    /// A launch whose interfaces are made, and whose call learns of a fault instead.
    UndoneLaunch,
    Stop,
    Start,
    Reboot,
    Terminate,
    CreateInterface,
    ChangeGroups,
    DeleteInterface,
    AttachInterface,
    DetachInterface,
    CreateVolume,
    AttachVolume,
    DetachVolume,
    /// An image of a running instance, which is rebooted for it.
    CreateImage,
    /// An elastic IP from an interface to an instance.
    MoveAddress,
    /// An elastic IP from an instance, which has to let go of it first, to an interface.
    TakeAddress,
    ChangeInstanceGroups,
    /// A stopped instance becomes one of a type that allows more interfaces.
    ChangeType,
    /// Two services' resources in one call.
    Tag,
    Untag,
    /// The tags of all services' resources.
    ListTags,
    /// What an account has, its default VPC among it.
    Account,
    /// A minute of virtual time, in every service.
    Advance,
}

/// What a workflow works on; what it does not need is empty.
#[derive(Debug, Clone, Default)]
pub struct Things {
    pub image: String,
    pub group: String,
    pub other_group: String,
    pub vpc: String,
    pub instance: String,
    pub interface: String,
    pub attachment: String,
    pub volume: String,
    pub allocation: String,
    /// Virtual time before, in seconds.
    pub time: i64,
}

/// Allows three interfaces, one more than what is launched.
const LARGER: &str = "t3.medium";

const MINUTE: i64 = 60;

const CIDR: &str = "10.9.0.0/16";

fn token(what: &str) -> String {
    format!("recovery-{what}")
}

impl Workflow {
    /// Makes what it needs, while all is well.
    pub async fn prepare(self, door: &Door) -> Things {
        let mut things = Things::default();
        if self == Self::Birth {
            return things;
        }
        if self == Self::Advance {
            things.time = time(door).await;
            return things;
        }
        things.image = image(door, LAUNCHABLE).await;
        things.group = make_group(door, "one").await;
        things.other_group = make_group(door, "other").await;
        let key_type = KeyType::Ed25519.into();
        let key = CreateKeyPairRequest { key_name: "key".into(), key_type, client_token: token("key"), ..Default::default() };
        ask!(door, SecurityServiceClient, create_key_pair, key).unwrap();
        if self == Self::DeleteVpc {
            things.vpc = ask!(door, NetworkServiceClient, create_vpc, create_vpc_request()).unwrap().vpc.unwrap().vpc_id;
        }
        if self.needs_instance() {
            things.instance =
                ask!(door, ComputeServiceClient, run_instances, launch_request(&things)).unwrap().instances[0].instance_id.clone();
            until_state(door, &things.instance, InstanceState::Running).await;
        }
        if matches!(self, Self::Start | Self::ChangeType) {
            ask!(door, ComputeServiceClient, stop_instances, stop_request(&things)).unwrap();
            until_state(door, &things.instance, InstanceState::Stopped).await;
        }
        if self.needs_interface() {
            let made = ask!(door, NetworkServiceClient, create_network_interface, interface_request(door, &things).await).unwrap();
            things.interface = made.network_interface.unwrap().network_interface_id;
        }
        if matches!(self, Self::Untag | Self::ListTags) {
            ask!(door, TaggingClient, create_tags, tag_request(&things)).unwrap();
        }
        if self == Self::DetachInterface {
            let attached = ask!(door, NetworkServiceClient, attach_network_interface, attach_request(&things)).unwrap();
            things.attachment = attached.attachment_id;
            until("the second interface to show", || shows_interfaces(door, &things, 2)).await;
        }
        if matches!(self, Self::AttachVolume | Self::DetachVolume) {
            let availability_zone = instances(door).await[0].placement.clone().unwrap().availability_zone;
            things.volume =
                ask!(door, ComputeServiceClient, create_volume, volume_request(availability_zone)).unwrap().volume.unwrap().volume_id;
            until("the volume to be there", || volume_is(door, &things, VolumeState::Available)).await;
        }
        if self == Self::DetachVolume {
            ask!(door, ComputeServiceClient, attach_volume, attach_volume_request(&things)).unwrap();
            until("the volume to be attached", || volume_is(door, &things, VolumeState::InUse)).await;
        }
        if matches!(self, Self::MoveAddress | Self::TakeAddress) {
            let holder = if self == Self::MoveAddress { things.interface.clone() } else { primary(door, &things).await };
            let address = ask!(door, NetworkServiceClient, allocate_address, AllocateAddressRequest::default()).unwrap().address.unwrap();
            things.allocation = address.allocation_id;
            let first =
                AssociateAddressRequest { allocation_id: things.allocation.clone(), network_interface_id: holder, ..Default::default() };
            ask!(door, NetworkServiceClient, associate_address, first).unwrap();
        }
        if self == Self::TakeAddress {
            until("the instance to have the address", || has_address(door, &things, true)).await;
        }
        things
    }

    fn needs_instance(self) -> bool {
        match self {
            Self::Stop
            | Self::Start
            | Self::Reboot
            | Self::Terminate
            | Self::AttachInterface
            | Self::DetachInterface
            | Self::AttachVolume
            | Self::DetachVolume
            | Self::CreateImage
            | Self::MoveAddress
            | Self::TakeAddress
            | Self::ChangeInstanceGroups
            | Self::ChangeType => true,
            Self::Birth
            | Self::CreateVpc
            | Self::DeleteVpc
            | Self::Launch
            | Self::Log
            | Self::UndoneLaunch
            | Self::CreateInterface
            | Self::ChangeGroups
            | Self::DeleteInterface
            | Self::CreateVolume
            | Self::Tag
            | Self::Untag
            | Self::ListTags
            | Self::Account
            | Self::Advance => false,
        }
    }

    fn needs_interface(self) -> bool {
        let its_own = [
            Self::ChangeGroups,
            Self::DeleteInterface,
            Self::AttachInterface,
            Self::DetachInterface,
            Self::MoveAddress,
            Self::TakeAddress,
            Self::Tag,
            Self::Untag,
            Self::ListTags,
        ];
        its_own.contains(&self)
    }

    /// The user's call, once.
    pub async fn call(self, door: &Door, things: &Things) -> Result<(), Status> {
        let ids = || vec![things.instance.clone()];
        match self {
            Self::Birth => attempt!(door, NetworkServiceClient, describe_vpcs, DescribeVpcsRequest::default()).map(drop),
            Self::CreateVpc => attempt!(door, NetworkServiceClient, create_vpc, create_vpc_request()).map(drop),
            Self::DeleteVpc => {
                let request = DeleteVpcRequest { vpc_id: things.vpc.clone(), client_token: token("delete"), ..Default::default() };
                attempt!(door, NetworkServiceClient, delete_vpc, request).map(drop)
            }
            Self::Launch | Self::Log | Self::UndoneLaunch => {
                attempt!(door, ComputeServiceClient, run_instances, launch_request(things)).map(drop)
            }
            Self::Stop => attempt!(door, ComputeServiceClient, stop_instances, stop_request(things)).map(drop),
            Self::Start => {
                let request = StartInstancesRequest { instance_ids: ids(), client_token: token("start"), ..Default::default() };
                attempt!(door, ComputeServiceClient, start_instances, request).map(drop)
            }
            Self::Reboot => {
                let request = RebootInstancesRequest { instance_ids: ids(), client_token: token("reboot"), ..Default::default() };
                attempt!(door, ComputeServiceClient, reboot_instances, request).map(drop)
            }
            Self::Terminate => {
                let request = TerminateInstancesRequest { instance_ids: ids(), client_token: token("end"), ..Default::default() };
                attempt!(door, ComputeServiceClient, terminate_instances, request).map(drop)
            }
            Self::CreateInterface => {
                attempt!(door, NetworkServiceClient, create_network_interface, interface_request(door, things).await).map(drop)
            }
            Self::ChangeGroups => {
                let request = ModifyNetworkInterfaceAttributeRequest {
                    network_interface_id: things.interface.clone(),
                    group_ids: vec![things.other_group.clone()],
                    client_token: token("groups"),
                    ..Default::default()
                };
                attempt!(door, NetworkServiceClient, modify_network_interface_attribute, request).map(drop)
            }
            Self::DeleteInterface => {
                let network_interface_id = things.interface.clone();
                let request = DeleteNetworkInterfaceRequest { network_interface_id, client_token: token("delete"), ..Default::default() };
                attempt!(door, NetworkServiceClient, delete_network_interface, request).map(drop)
            }
            Self::AttachInterface => attempt!(door, NetworkServiceClient, attach_network_interface, attach_request(things)).map(drop),
            Self::DetachInterface => {
                let attachment_id = things.attachment.clone();
                let request = DetachNetworkInterfaceRequest { attachment_id, client_token: token("detach"), ..Default::default() };
                attempt!(door, NetworkServiceClient, detach_network_interface, request).map(drop)
            }
            Self::CreateVolume => attempt!(door, ComputeServiceClient, create_volume, volume_request("us-east-1a".into())).map(drop),
            Self::CreateImage => {
                let request = CreateImageRequest {
                    instance_id: things.instance.clone(),
                    name: "recovered".into(),
                    client_token: token("image"),
                    ..Default::default()
                };
                attempt!(door, ComputeServiceClient, create_image, request).map(drop)
            }
            Self::AttachVolume => attempt!(door, ComputeServiceClient, attach_volume, attach_volume_request(things)).map(drop),
            Self::DetachVolume => {
                let volume_id = things.volume.clone();
                let request = DetachVolumeRequest { volume_id, client_token: token("detach"), ..Default::default() };
                attempt!(door, ComputeServiceClient, detach_volume, request).map(drop)
            }
            Self::MoveAddress | Self::TakeAddress => {
                let to = if self == Self::MoveAddress { primary(door, things).await } else { things.interface.clone() };
                let request = AssociateAddressRequest {
                    allocation_id: things.allocation.clone(),
                    network_interface_id: to,
                    allow_reassociation: true,
                    client_token: token("move"),
                    ..Default::default()
                };
                attempt!(door, NetworkServiceClient, associate_address, request).map(drop)
            }
            Self::ChangeInstanceGroups => {
                let groups = GroupIds { group_ids: vec![things.other_group.clone()] };
                let request = ModifyInstanceAttributeRequest {
                    instance_id: things.instance.clone(),
                    client_token: token("groups"),
                    change: Some(modify_instance_attribute_request::Change::Groups(groups)),
                    ..Default::default()
                };
                attempt!(door, ComputeServiceClient, modify_instance_attribute, request).map(drop)
            }
            Self::ChangeType => {
                let request = ModifyInstanceAttributeRequest {
                    instance_id: things.instance.clone(),
                    client_token: token("type"),
                    change: Some(modify_instance_attribute_request::Change::InstanceType(LARGER.into())),
                    ..Default::default()
                };
                attempt!(door, ComputeServiceClient, modify_instance_attribute, request).map(drop)
            }
            Self::Tag => attempt!(door, TaggingClient, create_tags, tag_request(things)).map(drop),
            Self::Untag => {
                let TagAll { resource_ids, tags, .. } = tag_request(things);
                let tags = tags.into_iter().map(|tag| TagSelector { key: tag.key, ..Default::default() }).collect();
                let request = UntagAll { client_token: token("untag"), resource_ids, tags, ..Default::default() };
                attempt!(door, TaggingClient, delete_tags, request).map(drop)
            }
            Self::ListTags => attempt!(door, TaggingClient, describe_tags, AllTags::default()).map(drop),
            Self::Account => attempt!(door, ComputeServiceClient, describe_account_attributes, account_request()).map(drop),
            Self::Advance => {
                let request = AdvanceClockRequest { by: Some(prost_types::Duration { seconds: MINUTE, nanos: 0 }) };
                attempt!(door, ClockServiceClient, advance_clock, request).map(drop)
            }
        }
    }

    /// The user's call, with the same token until the answer is definite.
    pub async fn insist(self, door: &Door, things: &Things) {
        let patience = monotonic() + PATIENCE;
        loop {
            match self.call(door, things).await {
                Ok(()) => return,
                Err(status) if is_transient(&status) => assert!(monotonic() < patience, "{self:?}: nothing definite: {status}"),
                Err(status) => panic!("{self:?} was refused: {status}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Whether all is as the user wants it, in every service.
    pub async fn reached(self, door: &Door, things: &Things) -> Result<(), String> {
        match self {
            Self::Birth | Self::DeleteVpc => vpcs(door, 1).await,
            Self::CreateVpc => vpcs(door, 2).await,
            Self::Launch | Self::UndoneLaunch | Self::Start => {
                let instance = only_instance(door, InstanceState::Running).await?;
                let interface = only_interface(door).await?;
                let public = interface.association.map(|association| association.public_ip).unwrap_or_default();
                same(("public address", &instance.public_ip_address), &public)?;
                same(("private address", &instance.private_ip_address), &interface.private_ip_address)?;
                if public.is_empty() { Err("no public address".into()) } else { Ok(()) }
            }
            Self::Log => {
                let id = only_instance(door, InstanceState::Running).await?.instance_id;
                let told = crate::audit_events::read(door).await?;
                let kinds: Vec<&str> = told.iter().filter(|event| event.subject == id).map(|event| event.r#type.as_str()).collect();
                let is_whole = kinds.len() > 1
                    && kinds[0].ends_with("InstanceLaunched")
                    && kinds.iter().any(|kind| kind.ends_with("InstanceStateChanged"));
                if is_whole { Ok(()) } else { Err(format!("the log tells {kinds:?}")) }
            }
            Self::Reboot => settled(&only_instance(door, InstanceState::Running).await?),
            Self::Stop => {
                let instance = only_instance(door, InstanceState::Stopped).await?;
                same(("public address", &instance.public_ip_address), "")?;
                same(("association", &format!("{:?}", only_interface(door).await?.association)), "None")
            }
            Self::Terminate => {
                only_instance(door, InstanceState::Terminated).await?;
                count("interfaces", interfaces(door).await.len(), 0)
            }
            Self::CreateInterface => only_interface(door).await.map(drop),
            Self::ChangeGroups => {
                let groups: Vec<String> = only_interface(door).await?.groups.into_iter().map(|group| group.group_id).collect();
                same(("groups", &groups.join(",")), &things.other_group)
            }
            Self::DeleteInterface => count("interfaces", interfaces(door).await.len(), 0),
            Self::AttachInterface => shows_interfaces(door, things, 2).await,
            Self::DetachInterface => shows_interfaces(door, things, 1).await,
            Self::CreateVolume => {
                let volumes = ask!(door, ComputeServiceClient, describe_volumes, DescribeVolumesRequest::default()).unwrap().volumes;
                count("volumes", volumes.len(), 1)?;
                same(("volume", volumes[0].state().as_str_name()), VolumeState::Available.as_str_name())
            }
            Self::CreateImage => {
                let own = DescribeImagesRequest { owners: vec!["self".into()], ..Default::default() };
                let images = ask!(door, ComputeServiceClient, describe_images, own).unwrap().images;
                count("images", images.len(), 1)?;
                same(("image", images[0].state().as_str_name()), ImageState::Available.as_str_name())?;
                let own = DescribeSnapshotsRequest { owner_ids: vec!["self".into()], ..Default::default() };
                let snapshots = ask!(door, ComputeServiceClient, describe_snapshots, own).unwrap().snapshots;
                count("snapshots", snapshots.len(), 1)?;
                same(("snapshot", snapshots[0].state().as_str_name()), SnapshotState::Completed.as_str_name())?;
                settled(&only_instance(door, InstanceState::Running).await?)
            }
            Self::AttachVolume => volume_is(door, things, VolumeState::InUse).await,
            Self::DetachVolume => volume_is(door, things, VolumeState::Available).await,
            Self::MoveAddress => {
                let instance = only_instance(door, InstanceState::Running).await?;
                let address =
                    ask!(door, NetworkServiceClient, describe_addresses, DescribeAddressesRequest::default()).unwrap().addresses.remove(0);
                same(("address", &instance.public_ip_address), &address.public_ip)?;
                same(("instance", &address.association.unwrap_or_default().instance_id), &things.instance)?;
                settled(&instance)
            }
            Self::TakeAddress => {
                let association = association(door).await;
                same(("interface", &association.network_interface_id), &things.interface)?;
                same(("association", association.state().as_str_name()), AddressAssociationState::Associated.as_str_name())?;
                has_address(door, things, false).await
            }
            Self::ChangeInstanceGroups => {
                let groups: Vec<String> =
                    only_instance(door, InstanceState::Running).await?.security_groups.into_iter().map(|group| group.group_id).collect();
                same(("groups", &groups.join(",")), &things.other_group)
            }
            Self::ChangeType => {
                same(("type", &only_instance(door, InstanceState::Stopped).await?.instance_type), LARGER)?;
                let limit = only_interface(door).await?.attachment.unwrap_or_default().interface_limit;
                count("interfaces allowed", usize::try_from(limit).unwrap(), 3)
            }
            Self::Tag | Self::Untag | Self::ListTags => {
                let tags = ask!(door, TaggingClient, describe_tags, AllTags::default()).unwrap().tags;
                let wanted = if self == Self::Untag { 0 } else { 2 };
                count("tags", tags.iter().filter(|tag| tag.key == "recovered").count(), wanted)
            }
            Self::Account => {
                let told = ask!(door, ComputeServiceClient, describe_account_attributes, account_request()).unwrap().account_attributes;
                let vpcs = ask!(door, NetworkServiceClient, describe_vpcs, DescribeVpcsRequest::default()).unwrap().vpcs;
                same(("default VPC", &told[0].attribute_values.join(",")), &vpcs[0].vpc_id)
            }
            Self::Advance => {
                // An advance that failed half-way may have been made by a repeat and then once more.
                let passed = time(door).await - things.time;
                if passed >= MINUTE { Ok(()) } else { Err(format!("{passed} s have passed")) }
            }
        }
    }

    pub async fn take_down(self, door: &Door, _things: &Things) {
        take_down(door).await;
    }
}

fn account_request() -> DescribeAccountAttributesRequest {
    DescribeAccountAttributesRequest { attribute_names: vec!["default-vpc".into()] }
}

/// Virtual time, as the gateway tells it: never ahead of any service.
async fn time(door: &Door) -> i64 {
    ask!(door, ClockServiceClient, get_clock, GetClockRequest {}).unwrap().now.unwrap().seconds
}

async fn association(door: &Door) -> AddressAssociation {
    let all = ask!(door, NetworkServiceClient, describe_addresses, DescribeAddressesRequest::default()).unwrap().addresses;
    all.into_iter().next().and_then(|address| address.association).unwrap_or_default()
}

/// Whether the instance has the elastic IP, in the eyes of all, and its node knows.
async fn has_address(door: &Door, things: &Things, wanted: bool) -> Result<(), String> {
    let instance = only_instance(door, InstanceState::Running).await?;
    let elastic = ask!(door, NetworkServiceClient, describe_addresses, DescribeAddressesRequest::default()).unwrap().addresses;
    let elastic = elastic.into_iter().find(|address| address.allocation_id == things.allocation).unwrap_or_default().public_ip;
    if (instance.public_ip_address == elastic) != wanted {
        return Err(format!("the instance shows {}, the elastic IP is {elastic}", instance.public_ip_address));
    }
    settled(&instance)
}

async fn make_group(door: &Door, name: &str) -> String {
    let request = CreateSecurityGroupRequest {
        group_name: name.into(),
        description: "recovery".into(),
        client_token: token(name),
        ..Default::default()
    };
    ask!(door, SecurityServiceClient, create_security_group, request).unwrap().security_group.unwrap().group_id
}

fn create_vpc_request() -> CreateVpcRequest {
    CreateVpcRequest { cidr_block: CIDR.into(), client_token: token("vpc"), ..Default::default() }
}

fn launch_request(things: &Things) -> RunInstancesRequest {
    let spec = LaunchSpec { key_name: Some("key".into()), security_group_ids: vec![things.group.clone()], ..launch_spec(&things.image) };
    RunInstancesRequest { client_token: token("launch"), spec: Some(spec), min_count: 1, max_count: 1, ..Default::default() }
}

fn stop_request(things: &Things) -> StopInstancesRequest {
    StopInstancesRequest { instance_ids: vec![things.instance.clone()], client_token: token("stop"), ..Default::default() }
}

/// Where the instance is, or in any default subnet.
async fn interface_request(door: &Door, things: &Things) -> CreateNetworkInterfaceRequest {
    let subnet_id = match things.instance.is_empty() {
        false => instances(door).await[0].subnet_id.clone(),
        true => ask!(door, NetworkServiceClient, describe_subnets, DescribeSubnetsRequest::default()).unwrap().subnets[0].subnet_id.clone(),
    };
    CreateNetworkInterfaceRequest {
        subnet_id,
        group_ids: vec![things.group.clone()],
        client_token: token("interface"),
        ..Default::default()
    }
}

fn attach_request(things: &Things) -> AttachNetworkInterfaceRequest {
    AttachNetworkInterfaceRequest {
        network_interface_id: things.interface.clone(),
        instance_id: things.instance.clone(),
        device_index: 1,
        client_token: token("attach"),
        ..Default::default()
    }
}

fn volume_request(availability_zone: String) -> CreateVolumeRequest {
    CreateVolumeRequest { availability_zone, size_gib: Some(1), client_token: token("volume"), ..Default::default() }
}

fn attach_volume_request(things: &Things) -> AttachVolumeRequest {
    AttachVolumeRequest {
        volume_id: things.volume.clone(),
        instance_id: things.instance.clone(),
        device: "/dev/sdf".into(),
        client_token: token("volume"),
        ..Default::default()
    }
}

/// The volume is so, the instance shows it accordingly, and its node knows.
async fn volume_is(door: &Door, things: &Things, state: VolumeState) -> Result<(), String> {
    let request = DescribeVolumesRequest { volume_ids: vec![things.volume.clone()], ..Default::default() };
    let volume = ask!(door, ComputeServiceClient, describe_volumes, request).unwrap().volumes.remove(0);
    let passing = volume.attachments.iter().filter(|at| at.state() != VolumeAttachmentState::Attached).count();
    if volume.state() != state || passing > 0 {
        return Err(format!("{:?} {:?}", volume.state(), volume.attachments));
    }
    let instance = only_instance(door, InstanceState::Running).await?;
    count("volumes of the instance", instance.block_device_mappings.len(), if state == VolumeState::InUse { 2 } else { 1 })?;
    settled(&instance)
}

fn tag_request(things: &Things) -> TagAll {
    TagAll {
        client_token: token("tag"),
        resource_ids: vec![things.group.clone(), things.interface.clone()],
        tags: vec![Tag { key: "recovered".into(), value: "yes".into() }],
        ..Default::default()
    }
}

async fn primary(door: &Door, things: &Things) -> String {
    let all = interfaces(door).await;
    let of_it = |interface: &&NetworkInterface| interface.attachment.as_ref().is_some_and(|at| at.instance_id == things.instance);
    all.iter().find(of_it).unwrap().network_interface_id.clone()
}

async fn instances(door: &Door) -> Vec<Instance> {
    ask!(door, ComputeServiceClient, describe_instances, DescribeInstancesRequest::default()).unwrap().instances
}

async fn interfaces(door: &Door) -> Vec<NetworkInterface> {
    let request = DescribeNetworkInterfacesRequest::default();
    ask!(door, NetworkServiceClient, describe_network_interfaces, request).unwrap().network_interfaces
}

async fn until_state(door: &Door, id: &str, state: InstanceState) {
    until(format!("{id} {state:?}"), || async move { only_instance(door, state).await.map(drop) }).await;
}

async fn only_instance(door: &Door, state: InstanceState) -> Result<Instance, String> {
    let mut all = instances(door).await;
    count("instances", all.len(), 1)?;
    let instance = all.remove(0);
    if instance.state() == state { Ok(instance) } else { Err(format!("{:?}: {}", instance.state(), instance.waiting_reason)) }
}

async fn only_interface(door: &Door) -> Result<NetworkInterface, String> {
    let mut all = interfaces(door).await;
    count("interfaces", all.len(), 1)?;
    Ok(all.remove(0))
}

/// Nothing is due any more.
fn settled(instance: &Instance) -> Result<(), String> {
    same(("waiting reason", &instance.waiting_reason), "")
}

async fn shows_interfaces(door: &Door, things: &Things, wanted: usize) -> Result<(), String> {
    let instance = only_instance(door, InstanceState::Running).await?;
    count("interfaces", instance.network_interfaces.len(), wanted)?;
    let attached = interfaces(door).await;
    let attached = attached.iter().filter(|interface| interface.attachment.as_ref().is_some_and(|at| at.instance_id == things.instance));
    count("attached interfaces", attached.count(), wanted)?;
    settled(&instance)
}

/// So many VPCs, all of them whole.
async fn vpcs(door: &Door, wanted: usize) -> Result<(), String> {
    let vpcs = ask!(door, NetworkServiceClient, describe_vpcs, DescribeVpcsRequest::default()).unwrap().vpcs;
    count("VPCs", vpcs.len(), wanted)?;
    count("whole VPCs", vpcs.iter().filter(|vpc| vpc.state() == VpcState::Available).count(), wanted)?;
    let groups = ask!(door, SecurityServiceClient, describe_security_groups, DescribeSecurityGroupsRequest::default()).unwrap();
    count("default groups", groups.security_groups.iter().filter(|group| group.group_name == "default").count(), wanted)?;
    let subnets = ask!(door, NetworkServiceClient, describe_subnets, DescribeSubnetsRequest::default()).unwrap();
    count("subnets", subnets.subnets.len(), 3)
}

fn count(what: &str, found: usize, wanted: usize) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{found} {what}, not {wanted}")) }
}

fn same((what, found): (&str, &str), wanted: &str) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("the {what} is \"{found}\", not \"{wanted}\"")) }
}
