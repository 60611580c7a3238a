//! What compute asks of network, and how it reads the answers.
//!
//! Every call is in the scope of the current context. All are idempotent by ids that compute made before.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard},
};

use gureum_compute_domain::{
    instance::{Elastic, Group, Instance, Interface, PublicAddress},
    launch::{InterfaceSource, Wanted},
    modify,
};
use gureum_model::{
    IdError, Refusal, Region,
    id::{AttachmentId, InstanceId, SubnetId, VpcId},
};
use gureum_proto::network::v1::{
    self as proto, network_peer_service_client::NetworkPeerServiceClient, network_service_client::NetworkServiceClient,
};
use gureum_service::{Error, Peer, peer::PeerChannel, wire};
use tonic::{Response, Status, Streaming};
use tonic_types::{FieldViolation, StatusExt};

/// Interfaces that one call makes, and instances that one call names, at most: network's own limits.
const CALL_ITEMS: usize = 1000;

/// EC2's code where a subnet has too few free addresses.
pub const SUBNET_FULL: &str = "InsufficientFreeAddressesInSubnet";

/// Subnets whose prefix is remembered. Beyond it all are asked for anew.
const PREFIXES_KEPT: usize = 10_000;

/// Network, as compute calls it.
pub struct Network {
    peer: Peer,
    /// Bits of subnets' prefixes, which never change.
    prefixes: Mutex<HashMap<SubnetId, u8>>,
}

/// Where a launch's interfaces will be.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    pub zone: char,
    /// One for each wanted interface.
    pub interfaces: Vec<ResolvedInterface>,
    /// Instances that there are addresses for.
    pub room: usize,
}

/// Where one interface will be.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedInterface {
    pub subnet: SubnetId,
    pub vpc: VpcId,
    pub groups: Vec<String>,
}

/// The interfaces of instances, as network has them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// By instance; those that are being pulled out are left out.
    pub interfaces: BTreeMap<InstanceId, Vec<Interface>>,
    /// Attachments that are being plugged in or pulled out.
    pub moving: BTreeMap<InstanceId, Vec<AttachmentId>>,
    /// Public addresses that instances have lost and have yet to let go of.
    pub releasing: BTreeMap<InstanceId, Vec<proto::ReleasingAddress>>,
    /// How many interfaces instances may have, as network knows it of each of their interfaces.
    pub limits: BTreeMap<InstanceId, BTreeSet<u32>>,
}

/// What an instance's node has done about addresses that the instance has lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub instance: InstanceId,
    pub addresses: Vec<proto::ReleasingAddress>,
    /// Nothing, because it is not heard of.
    pub node_unreachable: bool,
}

impl Seen {
    /// An instance's interfaces; none at all are an answer too.
    pub fn of(&self, instance: InstanceId) -> Vec<Interface> {
        self.interfaces.get(&instance).cloned().unwrap_or_default()
    }

    /// Whether network knows another limit of an instance's interfaces than its type has.
    pub fn has_other_limit(&self, it: &Instance) -> bool {
        let limit = modify::interface_limit(&it.kind);
        self.limits.get(&it.id).is_some_and(|known| known.iter().any(|known| *known != limit))
    }
}

impl Network {
    pub fn new(peer: Peer) -> Self {
        Self { peer, prefixes: Mutex::default() }
    }

    pub fn client(&self) -> NetworkPeerServiceClient<PeerChannel> {
        NetworkPeerServiceClient::new(self.peer.channel())
    }

    fn prefixes(&self) -> MutexGuard<'_, HashMap<SubnetId, u8>> {
        // Each change is one insert, so a poisoned lock is as good as any.
        self.prefixes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Where a launch's interfaces will be. `zone` is where there is most room, for a launch that may go
    /// anywhere.
    ///
    /// Errors: what network refuses, `InvalidSubnetID.NotFound` and `InvalidGroup.NotFound` among it.
    pub async fn resolve(&self, wanted: &Wanted, region: &Region, zone: Option<char>, hint: u64) -> Result<Resolved, Error> {
        let free = wanted.zone.is_none() && wanted.interfaces.iter().all(|interface| is_anywhere(&interface.source));
        if let (true, Some(zone)) = (free, zone) {
            match self.resolve_in(wanted, region, Some(zone), hint).await {
                // There is no default subnet in the roomiest zone, or it is full, but maybe not in another.
                Err(error) if matches!(error.reason().as_deref(), Some("MissingInput" | SUBNET_FULL)) => {}
                other => return other,
            }
        }
        self.resolve_in(wanted, region, wanted.zone, hint).await
    }

    async fn resolve_in(&self, wanted: &Wanted, region: &Region, zone: Option<char>, hint: u64) -> Result<Resolved, Error> {
        let request = proto::ResolveLaunchNetworkRequest {
            availability_zone: zone.map(|letter| region.zone(letter)).unwrap_or_default(),
            interfaces: wanted.interfaces.iter().map(|interface| launch_interface(&interface.source)).collect(),
            count: i32::try_from(wanted.max_count).unwrap_or(i32::MAX),
            hint,
            min_count: i32::try_from(wanted.min_count).unwrap_or(i32::MAX),
        };
        let answer = self.client().resolve_launch_network(request).await;
        let answer = answer.map_err(|status| self.peer.error(in_words_of_the_launch(status, wanted)))?.into_inner();
        let interface = |resolved: proto::ResolvedInterface| {
            Ok(ResolvedInterface {
                subnet: resolved.subnet_id.parse()?,
                vpc: resolved.vpc_id.parse()?,
                groups: resolved.groups.into_iter().map(|group| group.group_id).collect(),
            })
        };
        let interfaces: Result<Vec<_>, IdError> = answer.interfaces.into_iter().map(interface).collect();
        // A network that does not say has looked for addresses for all.
        let room = usize::try_from(answer.room).ok().filter(|room| *room > 0).unwrap_or(wanted.max_count);
        let zone = region.zone_letter(&answer.availability_zone);
        match (zone, interfaces) {
            (Some(zone), Ok(interfaces)) if interfaces.len() == wanted.interfaces.len() => Ok(Resolved { zone, interfaces, room }),
            (_, Err(error)) => Err(unreadable(&error)),
            (_, Ok(_)) => Err(Error::Internal(format!("network resolved a launch to \"{}\", which is none", answer.availability_zone))),
        }
    }

    /// Makes the interfaces of a launch's instances.
    pub async fn create(&self, instances: &[Instance], wanted: &Wanted, resolved: &Resolved) -> Result<Seen, Error> {
        let mut seen = Seen::default();
        let per_call = (CALL_ITEMS / wanted.interfaces.len().max(1)).max(1);
        for some in instances.chunks(per_call) {
            let interfaces = some.iter().flat_map(|it| instance_interfaces(it, wanted, resolved)).collect();
            let request = proto::CreateInstanceInterfacesRequest { interfaces };
            let answer = self.client().create_instance_interfaces(request).await.map_err(|status| self.peer.error(status))?;
            self.read(answer.into_inner().network_interfaces, &mut seen).await?;
        }
        Ok(seen)
    }

    /// Lets go of everything of instances that end, also of what a launch may have made of it.
    pub async fn delete(&self, instances: &[Instance]) -> Result<(), Error> {
        for some in instances.chunks(CALL_ITEMS) {
            let end = |it: &Instance| proto::InstanceEnd {
                instance_id: it.id.to_string(),
                network_interface_ids: it.interfaces.iter().map(|interface| interface.id.to_string()).collect(),
            };
            let request = proto::DeleteInstanceInterfacesRequest { instances: some.iter().map(end).collect() };
            self.client().delete_instance_interfaces(request).await.map_err(|status| self.peer.error(status))?;
        }
        Ok(())
    }

    /// Gives instances that start their public addresses. At most 1000.
    pub async fn assign(&self, instances: &[InstanceId]) -> Result<Seen, Error> {
        let request = proto::AssignPublicAddressesRequest { instance_ids: texts(instances) };
        let answer = self.client().assign_public_addresses(request).await.map_err(|status| self.peer.error(status))?;
        self.seen(answer.into_inner().network_interfaces).await
    }

    /// Takes the public addresses of instances that stopped back. At most 1000.
    pub async fn release(&self, instances: &[InstanceId]) -> Result<(), Error> {
        let request = proto::ReleasePublicAddressesRequest { instance_ids: texts(instances) };
        self.client().release_public_addresses(request).await.map_err(|status| self.peer.error(status))?;
        Ok(())
    }

    /// The interfaces of instances as they are now. At most 1000.
    pub async fn describe(&self, instances: &[InstanceId]) -> Result<Seen, Error> {
        let request = proto::DescribeInstanceInterfacesRequest { instance_ids: texts(instances) };
        let answer = self.client().describe_instance_interfaces(request).await.map_err(|status| self.peer.error(status))?;
        self.seen(answer.into_inner().network_interfaces).await
    }

    /// Tells that what was being plugged in or pulled out is so. At most 1000.
    pub async fn settle(&self, attachments: &[AttachmentId]) -> Result<(), Error> {
        let attachment_ids = attachments.iter().map(ToString::to_string).collect();
        let request = proto::SettleInterfaceAttachmentsRequest { attachment_ids };
        self.client().settle_interface_attachments(request).await.map_err(|status| self.peer.error(status))?;
        Ok(())
    }

    /// Tells what nodes have done about addresses that instances have lost. At most 1000.
    pub async fn settle_addresses(&self, releases: Vec<Release>) -> Result<(), Error> {
        let one = |release: Release| proto::PublicAddressRelease {
            instance_id: release.instance.to_string(),
            addresses: release.addresses,
            node_unreachable: release.node_unreachable,
        };
        let request = proto::SettlePublicAddressesRequest { releases: releases.into_iter().map(one).collect() };
        self.client().settle_public_addresses(request).await.map_err(|status| self.peer.error(status))?;
        Ok(())
    }

    /// Says how many interfaces an instance may have, which is about to be of another type. Network has the last
    /// word on whether those that it has fit.
    pub async fn fit(&self, instance: InstanceId, limit: u32) -> Result<(), Error> {
        self.set_limit(instance, limit, true).await
    }

    /// Says how many interfaces an instance may have, also if it has more.
    pub async fn limit(&self, instance: InstanceId, limit: u32) -> Result<(), Error> {
        self.set_limit(instance, limit, false).await
    }

    async fn set_limit(&self, instance: InstanceId, limit: u32, must_fit: bool) -> Result<(), Error> {
        let limit = proto::InterfaceLimit { instance_id: instance.to_string(), interface_limit: i32::try_from(limit).unwrap_or(i32::MAX) };
        let request = proto::SetInterfaceLimitsRequest { limits: vec![limit], must_fit };
        self.client().set_interface_limits(request).await.map_err(|status| self.peer.error(status))?;
        Ok(())
    }

    /// Changes an interface: its source/destination check, or its groups (none: as they are).
    pub async fn modify(&self, request: proto::ModifyNetworkInterfaceAttributeRequest) -> Result<(), Error> {
        let mut client = NetworkServiceClient::new(self.peer.channel());
        client.modify_network_interface_attribute(request).await.map_err(|status| self.peer.error(status))?;
        Ok(())
    }

    /// The id of the scope's default VPC; none if it was deleted.
    pub async fn default_vpc(&self) -> Result<Option<String>, Error> {
        let answer = self.client().ensure_scope(proto::EnsureScopeRequest {}).await.map_err(|status| self.peer.error(status))?.into_inner();
        Ok(Some(answer.default_vpc_id).filter(|id| !id.is_empty()))
    }

    /// An interface as an event tells of it: enough to see whether an instance knows it so. The prefix of a
    /// subnet that was not seen before is 0.
    pub fn peek(&self, interface: proto::NetworkInterface) -> Seen {
        let mut seen = Seen::default();
        match self.read_one(interface, &mut seen) {
            Ok(()) => seen,
            Err(error) => {
                tracing::error!(%error, "network told of an interface that cannot be read");
                Seen::default()
            }
        }
    }

    /// Follows all changes of all scopes.
    pub async fn watch(&self, after_sequence: Option<u64>) -> Result<Streaming<proto::WatchAllResponse>, Status> {
        self.client().watch_all(proto::WatchAllRequest { after_sequence }).await.map(Response::into_inner)
    }

    async fn seen(&self, interfaces: Vec<proto::NetworkInterface>) -> Result<Seen, Error> {
        let mut seen = Seen::default();
        self.read(interfaces, &mut seen).await?;
        Ok(seen)
    }

    async fn read(&self, interfaces: Vec<proto::NetworkInterface>, seen: &mut Seen) -> Result<(), Error> {
        self.learn_prefixes(&interfaces).await?;
        for interface in interfaces {
            self.read_one(interface, seen).map_err(|error| unreadable(&error))?;
        }
        Ok(())
    }

    /// Asks for the prefixes of subnets that were not seen before.
    async fn learn_prefixes(&self, interfaces: &[proto::NetworkInterface]) -> Result<(), Error> {
        let mut unknown: Vec<String> = {
            let known = self.prefixes();
            let is_new = |text: &str| text.parse::<SubnetId>().is_ok_and(|id| !known.contains_key(&id));
            interfaces.iter().map(|interface| interface.subnet_id.clone()).filter(|id| is_new(id)).collect()
        };
        unknown.sort();
        unknown.dedup();
        for some in unknown.chunks(CALL_ITEMS) {
            let request = proto::DescribeSubnetsRequest { subnet_ids: some.to_vec(), ..Default::default() };
            let mut client = NetworkServiceClient::new(self.peer.channel());
            let answer = client.describe_subnets(request).await.map_err(|status| self.peer.error(status))?.into_inner();
            let mut known = self.prefixes();
            if known.len() > PREFIXES_KEPT {
                known.clear();
            }
            for subnet in answer.subnets {
                let bits = subnet.cidr_block.rsplit('/').next().and_then(|bits| bits.parse().ok());
                if let (Ok(id), Some(bits)) = (subnet.subnet_id.parse(), bits) {
                    known.insert(id, bits);
                }
            }
        }
        Ok(())
    }

    fn read_one(&self, interface: proto::NetworkInterface, seen: &mut Seen) -> Result<(), IdError> {
        // One that is free again belongs to no instance.
        let Some(attachment) = interface.attachment else { return Ok(()) };
        let instance: InstanceId = attachment.instance_id.parse()?;
        let attachment_id: AttachmentId = attachment.attachment_id.parse()?;
        if !interface.releasing_addresses.is_empty() {
            seen.releasing.entry(instance).or_default().extend(interface.releasing_addresses);
        }
        seen.limits.entry(instance).or_default().insert(u32::try_from(attachment.interface_limit).unwrap_or_default());
        match attachment.state() {
            proto::AttachmentState::Attaching => seen.moving.entry(instance).or_default().push(attachment_id),
            proto::AttachmentState::Detaching => {
                seen.moving.entry(instance).or_default().push(attachment_id);
                return Ok(());
            }
            proto::AttachmentState::Attached | proto::AttachmentState::Unspecified => {}
        }
        let subnet_id: SubnetId = interface.subnet_id.parse()?;
        let group = |group: proto::GroupIdentifier| Ok(Group { id: group.group_id.parse()?, name: group.group_name });
        let read = Interface {
            id: interface.network_interface_id.parse()?,
            attachment_id,
            device_index: u32::try_from(attachment.device_index).unwrap_or_default(),
            delete_on_termination: attachment.delete_on_termination,
            attach_time: attachment.attach_time.as_ref().map(wire::from_timestamp).unwrap_or_default(),
            subnet_id,
            vpc_id: interface.vpc_id.parse()?,
            mac_address: interface.mac_address,
            prefix_length: self.prefixes().get(&subnet_id).copied().unwrap_or_default(),
            private_addresses: interface.private_ip_addresses.into_iter().map(|address| address.private_ip_address).collect(),
            private_dns_name: interface.private_dns_name,
            // Another instance may hold it still.
            public: interface.association.filter(|association| !association.waiting).map(public).transpose()?,
            groups: interface.groups.into_iter().map(group).collect::<Result<_, IdError>>()?,
            source_dest_check: interface.source_dest_check,
            description: interface.description,
        };
        let interfaces = seen.interfaces.entry(instance).or_default();
        interfaces.push(read);
        interfaces.sort_by_key(|interface| interface.device_index);
        Ok(())
    }
}

fn unreadable(error: &IdError) -> Error {
    Error::Internal(format!("network answered with what cannot be read: {error}"))
}

/// A refusal of network's, with the fields as the launch's caller knows them.
fn in_words_of_the_launch(status: Status, wanted: &Wanted) -> Status {
    let Some(request) = status.get_details_bad_request() else { return status };
    let violations = request.field_violations.into_iter().map(|it| FieldViolation { field: field_of(&it.field, wanted), ..it });
    let mut details = status.get_error_details();
    details.set_bad_request(violations.collect::<Vec<_>>());
    Status::with_error_details(status.code(), status.message(), details)
}

/// `interfaces[0].group_ids[1]` is `spec.security_group_ids[1]` where the launch lists no interfaces.
fn field_of(field: &str, wanted: &Wanted) -> String {
    let parts = field.strip_prefix("interfaces[").and_then(|rest| rest.split_once("]."));
    let interface = parts.and_then(|(number, rest)| Some((wanted.interfaces.get(number.parse::<usize>().ok()?)?, rest)));
    match interface {
        None => field.to_owned(),
        Some((interface, rest)) if interface.field == "spec" => {
            format!("spec.{}", rest.replacen("group_ids", "security_group_ids", 1).replacen("group_names", "security_groups", 1))
        }
        Some((interface, rest)) => format!("{}.{rest}", interface.field),
    }
}

fn texts(instances: &[InstanceId]) -> Vec<String> {
    instances.iter().map(ToString::to_string).collect()
}

/// It may be made in any zone.
fn is_anywhere(source: &InterfaceSource) -> bool {
    match source {
        InterfaceSource::Existing(_) => false,
        InterfaceSource::New { subnet, .. } => subnet.is_none(),
    }
}

fn launch_interface(source: &InterfaceSource) -> proto::LaunchInterface {
    match source {
        InterfaceSource::Existing(id) => proto::LaunchInterface { network_interface_id: id.to_string(), ..Default::default() },
        InterfaceSource::New { subnet, groups, group_names, private_address, .. } => proto::LaunchInterface {
            network_interface_id: String::new(),
            subnet_id: subnet.map(|id| id.to_string()).unwrap_or_default(),
            private_ip_address: private_address.map(|address| address.to_string()).unwrap_or_default(),
            group_ids: groups.iter().map(ToString::to_string).collect(),
            group_names: group_names.clone(),
        },
    }
}

/// The interfaces of one instance, with the ids that its record has for them.
fn instance_interfaces<'a>(
    it: &'a Instance,
    wanted: &'a Wanted,
    resolved: &'a Resolved,
) -> impl Iterator<Item = proto::InstanceInterface> + 'a {
    it.interfaces.iter().zip(&wanted.interfaces).zip(&resolved.interfaces).map(|((recorded, wanted_interface), place)| {
        let source = match &wanted_interface.source {
            InterfaceSource::Existing(_) => proto::instance_interface::Source::Existing(proto::ExistingInterface {}),
            InterfaceSource::New { private_address, public_address, description, .. } => {
                proto::instance_interface::Source::Create(proto::NewInterface {
                    subnet_id: place.subnet.to_string(),
                    private_ip_address: private_address.map(|address| address.to_string()).unwrap_or_default(),
                    group_ids: place.groups.clone(),
                    associate_public_ip_address: *public_address,
                    description: description.clone(),
                    tags: wire::tags(&wanted.tags.network_interface),
                    ..Default::default()
                })
            }
        };
        proto::InstanceInterface {
            network_interface_id: recorded.id.to_string(),
            attachment_id: recorded.attachment_id.to_string(),
            instance_id: it.id.to_string(),
            device_index: i32::try_from(recorded.device_index).unwrap_or(i32::MAX),
            source: Some(source),
            delete_on_termination: recorded.delete_on_termination,
            interface_limit: limit_of(it),
        }
    })
}

/// Interfaces that an instance may have, as network takes it. No type allows more than the 64 of the contract.
fn limit_of(it: &Instance) -> i32 {
    i32::try_from(modify::interface_limit(&it.kind)).unwrap_or(i32::MAX)
}

fn public(association: proto::NetworkInterfaceAssociation) -> Result<PublicAddress, IdError> {
    let elastic = if association.allocation_id.is_empty() {
        None
    } else {
        Some(Elastic { allocation_id: association.allocation_id.parse()?, association_id: association.association_id.parse()? })
    };
    Ok(PublicAddress { address: association.public_ip, dns_name: association.public_dns_name, elastic })
}

/// The refusal for an interface that an instance has lost.
pub fn no_interface(instance: InstanceId) -> Refusal {
    Refusal::wrong_state("IncorrectInstanceState", format!("the instance '{instance}' has no network interface any more"))
}
