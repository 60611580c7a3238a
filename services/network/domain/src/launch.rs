//! Where the interfaces of a launch will be: decided before anything is written.

use std::{collections::BTreeMap, net::Ipv4Addr};

use gureum_model::{
    Refusal, RefusalKind, Region,
    id::{NetworkInterfaceId, SecurityGroupId, SubnetId, VpcId},
    refusal::Violations,
};

use crate::{Draft, Missing, Subnet, View, attachment::AttachError, cidr, draft::AddressingError, interface::Group, subnet, zone};

/// Parameters of ResolveLaunchNetwork as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaunchInput {
    /// Empty: any.
    pub availability_zone: String,
    pub interfaces: Vec<LaunchInterfaceInput>,
    /// Instances to launch; 0 means 1.
    pub count: u32,
    /// The least of them; 0 means all.
    pub min_count: u32,
    /// Chooses among default subnets.
    pub hint: u64,
}

/// An interface as a launch wants it, as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaunchInterfaceInput {
    /// One that exists; then the others are empty.
    pub network_interface_id: String,
    pub subnet_id: String,
    pub private_ip_address: String,
    pub group_ids: Vec<String>,
    pub group_names: Vec<String>,
}

/// A launch's wishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    pub zone: Option<String>,
    pub interfaces: Vec<WantedInterface>,
    pub count: u32,
    /// From 1 to `count`.
    pub min_count: u32,
    pub hint: u64,
}

/// An interface as a launch wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedInterface {
    Existing(NetworkInterfaceId),
    New { subnet: Option<SubnetId>, private_address: Option<Ipv4Addr>, group_ids: Vec<SecurityGroupId>, group_names: Vec<String> },
}

impl LaunchInput {
    /// Errors: `Invalid….Malformed`, `InvalidParameterValue` (no such zone), `InvalidParameterCombination`.
    pub fn parse(self, region: &Region) -> Result<Launch, Refusal> {
        let mut violations = Violations::new();
        if !self.availability_zone.is_empty() && zone::find(region, &self.availability_zone).is_none() {
            violations.add(
                "availability_zone",
                format!("Invalid availability zone: [{}]; the zones of {region} are {}", self.availability_zone, region.zones().join(", ")),
            );
        }
        let mut interfaces = Vec::with_capacity(self.interfaces.len());
        for (place, input) in self.interfaces.into_iter().enumerate() {
            interfaces.extend(parse_interface(input, &format!("interfaces[{place}]."), &mut violations));
        }
        violations.finish()?;
        let zone = Some(self.availability_zone).filter(|zone| !zone.is_empty());
        let count = self.count.max(1);
        let min_count = if self.min_count == 0 { count } else { self.min_count.min(count) };
        Ok(Launch { zone, interfaces, count, min_count, hint: self.hint })
    }
}

fn parse_interface(input: LaunchInterfaceInput, path: &str, violations: &mut Violations) -> Option<WantedInterface> {
    let alone =
        input.subnet_id.is_empty() && input.private_ip_address.is_empty() && input.group_ids.is_empty() && input.group_names.is_empty();
    if !input.network_interface_id.is_empty() {
        if !alone {
            violations.add_as(
                "InvalidParameterCombination",
                format!("{path}network_interface_id"),
                "an interface that exists has its subnet, address and groups; give none of them",
            );
        }
        return violations.id(format!("{path}network_interface_id"), &input.network_interface_id).map(WantedInterface::Existing);
    }
    let field = format!("{path}private_ip_address");
    Some(WantedInterface::New {
        subnet: violations.optional_id(format!("{path}subnet_id"), &input.subnet_id),
        private_address: violations.check(field.clone(), cidr::parse_optional_address(&field, &input.private_ip_address)).flatten(),
        group_ids: violations.ids(&format!("{path}group_ids"), &input.group_ids),
        group_names: input.group_names,
    })
}

/// Where a launch will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The zone of all the interfaces.
    pub zone: String,
    /// The VPC of all the interfaces.
    pub vpc_id: VpcId,
    /// In the order of the wishes.
    pub interfaces: Vec<ResolvedInterface>,
    /// Instances that there are addresses for: from the launch's least to its count.
    pub room: u32,
}

/// Where one interface of a launch will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedInterface {
    pub subnet_id: SubnetId,
    pub groups: ResolvedGroups,
    /// It gets a public address if the launch says nothing of it.
    pub public_by_default: bool,
}

/// The groups of an interface of a launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolvedGroups {
    /// Those that the existing interface has.
    Known(Vec<Group>),
    /// Security has to be asked for these in the VPC; for its default group if both lists are empty.
    Ask { ids: Vec<SecurityGroupId>, names: Vec<String> },
}

/// Decides where a launch will be, and for how many of its instances there are addresses, at least for the least.
///
/// Errors: everything that is wrong with any of its interfaces.
pub fn resolve(draft: &Draft<impl View>, launch: &Launch) -> Result<Resolved, LaunchFaults> {
    let fixed = fixed_zone(draft, launch);
    let default = choose_default(draft, launch, fixed.as_deref());
    let mut interfaces = Vec::with_capacity(launch.interfaces.len());
    // Addresses that each instance needs.
    let mut needed: BTreeMap<SubnetId, u32> = BTreeMap::new();
    let mut place: Option<(String, VpcId)> = None;
    let mut faults = LaunchFaults::default();
    for (number, wanted) in launch.interfaces.iter().enumerate() {
        let (subnet, resolved) = match resolve_one(draft, wanted, &default, &mut needed) {
            Ok(resolved) => resolved,
            Err(error) => {
                faults.0.push((Some(number), error));
                continue;
            }
        };
        let (zone, vpc) = place.get_or_insert_with(|| (fixed.clone().unwrap_or_else(|| subnet.zone.clone()), subnet.vpc_id));
        if subnet.zone != *zone {
            let error = LaunchError::OtherZone { subnet: subnet.id, zone: subnet.zone.clone(), wanted: zone.clone() };
            faults.0.push((Some(number), error));
        }
        if subnet.vpc_id != *vpc {
            faults.0.push((Some(number), LaunchError::OtherVpc { subnet: subnet.id, vpc: subnet.vpc_id, wanted: *vpc }));
        }
        interfaces.push(resolved);
    }
    let mut room = launch.count;
    for (id, of_each) in needed {
        let fit = draft.subnet(id).map_or(0, |subnet| subnet.available_addresses() / of_each.max(1));
        if fit < launch.min_count {
            faults.0.push((None, AddressingError::SubnetFull(id).into()));
        }
        room = room.min(fit);
    }
    match place {
        Some((zone, vpc_id)) if faults.0.is_empty() => Ok(Resolved { zone, vpc_id, interfaces, room }),
        None if faults.0.is_empty() => Err(LaunchFaults(vec![(None, LaunchError::NoInterface)])),
        Some(_) | None => Err(faults),
    }
}

/// The zone that the launch or the first of its subnets or interfaces says.
fn fixed_zone(draft: &Draft<impl View>, launch: &Launch) -> Option<String> {
    let said = launch.interfaces.iter().filter_map(|wanted| match wanted {
        WantedInterface::Existing(id) => Some(draft.interface(*id).ok()?.zone.clone()),
        WantedInterface::New { subnet, .. } => Some(draft.subnet((*subnet)?).ok()?.zone.clone()),
    });
    launch.zone.iter().cloned().chain(said).next()
}

/// The default subnet of the zone; of any zone by the hint, one with room for all before those with most room.
fn choose_default(draft: &Draft<impl View>, launch: &Launch, zone: Option<&str>) -> Result<Subnet, LaunchError> {
    let vpc = draft.default_vpc().ok_or(LaunchError::NoDefaultVpc)?;
    let mut candidates = draft.subnets_of(vpc.id);
    candidates.retain(|subnet| subnet.default_for_zone && zone.is_none_or(|zone| subnet.zone == zone));
    candidates.sort_by(|one, other| one.zone.cmp(&other.zone));
    let most = candidates.iter().map(|subnet| subnet.available_addresses()).max().unwrap_or_default();
    candidates.retain(|subnet| subnet.available_addresses() >= most.min(launch.count));
    let place = launch.hint.checked_rem(candidates.len() as u64).and_then(|place| usize::try_from(place).ok());
    let chosen = place.and_then(|place| candidates.get(place));
    chosen.map(|subnet| (*subnet).clone()).ok_or_else(|| LaunchError::NoDefaultSubnet { vpc: vpc.id, zone: zone.map(str::to_owned) })
}

fn resolve_one<'a>(
    draft: &'a Draft<impl View>,
    wanted: &WantedInterface,
    default: &'a Result<Subnet, LaunchError>,
    needed: &mut BTreeMap<SubnetId, u32>,
) -> Result<(&'a Subnet, ResolvedInterface), LaunchError> {
    let (subnet, groups) = match wanted {
        WantedInterface::Existing(id) => {
            let interface = draft.interface(*id)?;
            if let Some(by) = interface.instance() {
                return Err(AttachError::InUse { id: *id, by }.into());
            }
            (draft.subnet(interface.subnet_id)?, ResolvedGroups::Known(interface.groups.clone()))
        }
        WantedInterface::New { subnet, private_address, group_ids, group_names } => {
            let subnet = match subnet {
                Some(id) => draft.subnet(*id)?,
                None => default.as_ref().map_err(Clone::clone)?,
            };
            if let Some(address) = private_address {
                draft.check_private(subnet.id, *address)?;
            }
            *needed.entry(subnet.id).or_default() += 1;
            (subnet, ResolvedGroups::Ask { ids: group_ids.clone(), names: group_names.clone() })
        }
    };
    let public_by_default =
        matches!(wanted, WantedInterface::New { .. }) && subnet.map_public_ip_on_launch && subnet::is_public(draft, subnet);
    Ok((subnet, ResolvedInterface { subnet_id: subnet.id, groups, public_by_default }))
}

/// Why a launch has no place on the network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error(transparent)]
    Addressing(#[from] AddressingError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error("a launch needs at least one interface")]
    NoInterface,
    #[error("No default VPC for this user; name a subnet, or create a default VPC")]
    NoDefaultVpc,
    #[error("No subnets found for the default VPC '{vpc}'{}. Please specify a subnet.", zone.as_ref().map(|zone| format!(" in '{zone}'")).unwrap_or_default())]
    NoDefaultSubnet { vpc: VpcId, zone: Option<String> },
    #[error("the subnet {subnet} is in {zone}, and the launch in {wanted}; an instance is in one zone")]
    OtherZone { subnet: SubnetId, zone: String, wanted: String },
    #[error("the subnet {subnet} is in {vpc}, and another of the launch in {wanted}; an instance is in one VPC")]
    OtherVpc { subnet: SubnetId, vpc: VpcId, wanted: VpcId },
}

/// All that keeps a launch from having a place on the network, each with the number of its interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaunchFaults(Vec<(Option<usize>, LaunchError)>);

impl From<LaunchFaults> for Refusal {
    fn from(faults: LaunchFaults) -> Self {
        let refusal = |(interface, error): (Option<usize>, LaunchError)| {
            let (field, refusal) = (error.field(), Self::from(error));
            match (interface, field) {
                (Some(number), Some(field)) => refusal.of_field(format!("interfaces[{number}].{field}")),
                (_, None) | (None, _) => refusal,
            }
        };
        let all = faults.0.into_iter().map(refusal).reduce(Self::and);
        all.unwrap_or_else(|| Self::missing("interfaces"))
    }
}

impl LaunchError {
    /// The field of an interface that is to blame.
    fn field(&self) -> Option<&'static str> {
        match self {
            Self::Missing(Missing::Interface(_)) | Self::Attach(_) => Some("network_interface_id"),
            Self::Missing(_) | Self::OtherZone { .. } | Self::OtherVpc { .. } => Some("subnet_id"),
            Self::Addressing(AddressingError::SubnetFull(_)) => Some("subnet_id"),
            Self::Addressing(_) => Some("private_ip_address"),
            Self::NoInterface | Self::NoDefaultVpc | Self::NoDefaultSubnet { .. } => None,
        }
    }
}

impl From<LaunchError> for Refusal {
    fn from(error: LaunchError) -> Self {
        let text = error.to_string();
        match error {
            LaunchError::Missing(missing) => missing.into(),
            LaunchError::Addressing(error) => error.into(),
            LaunchError::Attach(error) => error.into(),
            LaunchError::NoInterface => Self::missing("interfaces"),
            LaunchError::NoDefaultVpc => Self::new(RefusalKind::WrongState, "VPCIdNotSpecified", text),
            LaunchError::NoDefaultSubnet { .. } => Self::new(RefusalKind::WrongState, "MissingInput", text),
            LaunchError::OtherZone { .. } | LaunchError::OtherVpc { .. } => Self::invalid("subnet_id", text),
        }
    }
}
