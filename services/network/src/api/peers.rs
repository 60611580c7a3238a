//! What only other services call: scopes born, and the interfaces of instances.

use std::collections::BTreeMap;

use gureum_model::{
    Refusal, RefusalKind, Scope,
    id::{InstanceId, NetworkInterfaceId, ResourceId, SecurityGroupId, VpcId},
    refusal::Violations,
};
use gureum_network_domain::{
    Draft, NetworkInterface, View,
    attachment::{self, Excess},
    cidr,
    instance::{self, InstanceEnd, InstanceInterface, InstanceInterfaceInput, Source},
    interface::Group,
    interface_create::NewInterfaceInput,
    launch::{self, Launch, LaunchInput, LaunchInterfaceInput, ResolvedGroups, WantedInterface},
    letting_go,
    scope::{self as birth, DefaultVpcIds, ScopePlan},
};
use gureum_proto::{
    common::v1::Filter,
    network::v1::{self as proto, network_peer_service_server::NetworkPeerService},
    security::v1::{DescribeSecurityGroupsRequest, SecurityGroupHold, security_service_client::SecurityServiceClient},
};
use gureum_service::{
    Error, scope,
    watch::{WatchStream, watch},
    wire,
};
use gureum_store::Listed;
use tonic::{Request, Response};

use super::{Answer, Api, answer, convert, snapshot};
use crate::{
    reconcile::Key,
    store::{Snapshot, SubnetRow, show_interface},
};

#[tonic::async_trait]
impl NetworkPeerService for Api {
    type WatchAllStream = WatchStream<proto::WatchAllResponse>;

    async fn ensure_scope(&self, _request: Request<proto::EnsureScopeRequest>) -> Answer<proto::EnsureScopeResponse> {
        answer(self.ensure(scope()).await)
    }

    async fn resolve_launch_network(
        &self,
        request: Request<proto::ResolveLaunchNetworkRequest>,
    ) -> Answer<proto::ResolveLaunchNetworkResponse> {
        answer(self.resolve(scope(), request.into_inner()).await)
    }

    async fn create_instance_interfaces(
        &self,
        request: Request<proto::CreateInstanceInterfacesRequest>,
    ) -> Answer<proto::CreateInstanceInterfacesResponse> {
        answer(self.create_for_instances(scope(), request.into_inner()).await)
    }

    async fn delete_instance_interfaces(
        &self,
        request: Request<proto::DeleteInstanceInterfacesRequest>,
    ) -> Answer<proto::DeleteInstanceInterfacesResponse> {
        let scope = scope();
        let mut violations = Violations::new();
        let mut ends = Vec::new();
        for (place, end) in request.into_inner().instances.iter().enumerate() {
            let instance = violations.id::<InstanceId>(format!("instances[{place}].instance_id"), &end.instance_id);
            let interface_ids = violations.ids(&format!("instances[{place}].network_interface_ids"), &end.network_interface_ids);
            ends.extend(instance.map(|instance_id| InstanceEnd { instance_id, interface_ids }));
        }
        violations.finish().map_err(Error::from)?;
        let ended = self.driver.commit(&scope, move |draft, now| Ok(instance::delete(draft, &ends, now)?)).await;
        self.driver.waker.wake([Key::Unsettled]);
        answer(ended.map(|()| proto::DeleteInstanceInterfacesResponse {}))
    }

    async fn assign_public_addresses(
        &self,
        request: Request<proto::AssignPublicAddressesRequest>,
    ) -> Answer<proto::AssignPublicAddressesResponse> {
        let (scope, ids) = (scope(), parse_ids("instance_ids", &request.into_inner().instance_ids)?);
        let assigned = self.driver.commit(&scope, move |draft, _| Ok(instance::assign_public(draft, &ids)?)).await;
        answer(assigned.map(|interfaces| proto::AssignPublicAddressesResponse { network_interfaces: self.show(&interfaces) }))
    }

    async fn release_public_addresses(
        &self,
        request: Request<proto::ReleasePublicAddressesRequest>,
    ) -> Answer<proto::ReleasePublicAddressesResponse> {
        let (scope, ids) = (scope(), parse_ids("instance_ids", &request.into_inner().instance_ids)?);
        let released = self.driver.commit(&scope, move |draft, now| Ok(instance::release_public(draft, &ids, now)?)).await;
        answer(released.map(|interfaces| proto::ReleasePublicAddressesResponse { network_interfaces: self.show(&interfaces) }))
    }

    async fn describe_instance_interfaces(
        &self,
        request: Request<proto::DescribeInstanceInterfacesRequest>,
    ) -> Answer<proto::DescribeInstanceInterfacesResponse> {
        let (scope, ids) = (scope(), parse_ids::<InstanceId>("instance_ids", &request.into_inner().instance_ids)?);
        let state = self.driver.store.read();
        let view = Snapshot { tables: &state, scope: &scope };
        let mut network_interfaces = Vec::new();
        for id in ids {
            let mut interfaces = view.interfaces_of(id);
            interfaces.sort_by_key(|interface| (interface.attachment().map(|attachment| attachment.device_index), interface.id));
            network_interfaces.extend(interfaces.into_iter().map(|interface| show_interface(&state, interface)));
        }
        Ok(Response::new(proto::DescribeInstanceInterfacesResponse { network_interfaces }))
    }

    async fn settle_interface_attachments(
        &self,
        request: Request<proto::SettleInterfaceAttachmentsRequest>,
    ) -> Answer<proto::SettleInterfaceAttachmentsResponse> {
        let (scope, ids) = (scope(), parse_ids("attachment_ids", &request.into_inner().attachment_ids)?);
        let settled = self.driver.commit(&scope, move |draft, now| {
            for id in ids {
                attachment::settle(draft, id, now)?;
            }
            Ok(proto::SettleInterfaceAttachmentsResponse {})
        });
        answer(settled.await)
    }

    async fn settle_public_addresses(
        &self,
        request: Request<proto::SettlePublicAddressesRequest>,
    ) -> Answer<proto::SettlePublicAddressesResponse> {
        let scope = scope();
        let mut violations = Violations::new();
        let mut releases = Vec::new();
        for (place, release) in request.into_inner().releases.into_iter().enumerate() {
            let instance = violations.id::<InstanceId>(format!("releases[{place}].instance_id"), &release.instance_id);
            let field = format!("releases[{place}].addresses");
            let mut parse = |one: &proto::ReleasingAddress| {
                Some((violations.check(field.clone(), cidr::parse_address(&field, &one.public_ip))?, one.release))
            };
            let addresses: Vec<letting_go::Release> = release.addresses.iter().filter_map(&mut parse).collect();
            releases.extend(instance.map(|instance| (instance, addresses, release.node_unreachable)));
        }
        violations.finish().map_err(Error::from)?;
        let settled = self.driver.commit(&scope, move |draft, now| {
            for (instance, addresses, node_unreachable) in releases {
                if node_unreachable {
                    letting_go::unreachable(draft, instance, &addresses);
                } else {
                    letting_go::settle(draft, instance, &addresses, now);
                }
            }
            Ok(proto::SettlePublicAddressesResponse {})
        });
        answer(settled.await)
    }

    async fn set_interface_limits(&self, request: Request<proto::SetInterfaceLimitsRequest>) -> Answer<proto::SetInterfaceLimitsResponse> {
        let (scope, request) = (scope(), request.into_inner());
        let mut violations = Violations::new();
        let mut limits = Vec::new();
        for (place, limit) in request.limits.iter().enumerate() {
            let instance = violations.id::<InstanceId>(format!("limits[{place}].instance_id"), &limit.instance_id);
            limits.extend(instance.map(|instance| (instance, u32::try_from(limit.interface_limit).unwrap_or(0))));
        }
        violations.finish().map_err(Error::from)?;
        let excess = if request.must_fit { Excess::Refused } else { Excess::Stays };
        let set = self.driver.commit(&scope, move |draft, _| {
            for (instance, limit) in limits {
                attachment::set_limit(draft, instance, limit, excess)?;
            }
            Ok(proto::SetInterfaceLimitsResponse {})
        });
        answer(set.await)
    }

    async fn watch_all(&self, request: Request<proto::WatchAllRequest>) -> Answer<Self::WatchAllStream> {
        let after = request.into_inner().after_sequence;
        Ok(Response::new(watch(self.driver.store.clone(), None, after, |state| snapshot(state, ""), self.shutdown.clone())?))
    }
}

fn parse_ids<I: ResourceId>(field: &str, texts: &[String]) -> Result<Vec<I>, Error> {
    let mut violations = Violations::new();
    let ids = violations.ids(field, texts);
    violations.finish()?;
    Ok(ids)
}

impl Api {
    fn show(&self, interfaces: &[NetworkInterface]) -> Vec<proto::NetworkInterface> {
        let state = self.driver.store.read();
        interfaces.iter().map(|interface| show_interface(&state, interface)).collect()
    }

    /// Takes a scope from nothing to whole, wherever an earlier call was interrupted.
    async fn ensure(&self, scope: Scope) -> Result<proto::EnsureScopeResponse, Error> {
        loop {
            let plan = {
                let state = self.driver.store.read();
                let view = Snapshot { tables: &state, scope: &scope };
                birth::plan(&Draft::new(&view, &self.driver.rules))
            };
            match plan {
                ScopePlan::Birth => {
                    let ids = DefaultVpcIds::new(&self.driver.ids);
                    let born = self.driver.commit(&scope, move |draft, now| {
                        birth::birth(draft, ids, now);
                        Ok(())
                    });
                    born.await?;
                }
                ScopePlan::Finish { vpc } => self.driver.drive_vpc(&scope, vpc).await?,
                ScopePlan::Born { default_vpc } => {
                    let default_vpc_id = default_vpc.map(|id| id.to_string()).unwrap_or_default();
                    return Ok(proto::EnsureScopeResponse { default_vpc_id });
                }
            }
        }
    }

    pub(super) async fn make_default_vpc(
        &self,
        scope: Scope,
        request: proto::CreateDefaultVpcRequest,
    ) -> Result<proto::CreateDefaultVpcResponse, Error> {
        let ids = DefaultVpcIds::new(&self.driver.ids);
        let decided = self.driver.change(&scope, &request, move |draft, now| {
            let made = birth::create_default_vpc(draft, ids, now)?;
            let key = crate::store::VpcRow::list_key(&made.scope, made.id);
            Ok(gureum_service::Answer::created::<crate::store::VpcRow>(
                proto::CreateDefaultVpcResponse { vpc: Some(convert::vpc(&made)) },
                key,
            ))
        });
        let answer: proto::CreateDefaultVpcResponse = decided.await?;
        let id: VpcId = Refusal::parse_id("vpc_id", &answer.vpc.as_ref().map(|vpc| vpc.vpc_id.clone()).unwrap_or_default())?;
        self.driver.drive_vpc(&scope, id).await?;
        let now = self.driver.store.read().vpcs.get(&crate::store::VpcRow::list_key(&scope, id)).map(|row| convert::vpc(row));
        Ok(proto::CreateDefaultVpcResponse { vpc: now.or(answer.vpc) })
    }

    async fn resolve(
        &self,
        scope: Scope,
        request: proto::ResolveLaunchNetworkRequest,
    ) -> Result<proto::ResolveLaunchNetworkResponse, Error> {
        let interface = |wanted: proto::LaunchInterface| LaunchInterfaceInput {
            network_interface_id: wanted.network_interface_id,
            subnet_id: wanted.subnet_id,
            private_ip_address: wanted.private_ip_address,
            group_ids: wanted.group_ids,
            group_names: wanted.group_names,
        };
        let input = LaunchInput {
            availability_zone: request.availability_zone,
            interfaces: request.interfaces.into_iter().map(interface).collect(),
            count: u32::try_from(request.count).unwrap_or(0),
            min_count: u32::try_from(request.min_count).unwrap_or(0),
            hint: request.hint,
        };
        let wanted = input.parse(&scope.region)?;
        let resolved = {
            let state = self.driver.store.read();
            let view = Snapshot { tables: &state, scope: &scope };
            launch::resolve(&Draft::new(&view, &self.driver.rules), &wanted).map_err(Refusal::from)
        };
        let resolved = match resolved {
            Ok(resolved) => resolved,
            Err(refusal) => return Err(self.unknown_groups(&wanted).await.into_iter().fold(refusal, Refusal::and).into()),
        };
        let room = i32::try_from(resolved.room).unwrap_or(i32::MAX);
        let mut interfaces = Vec::with_capacity(resolved.interfaces.len());
        let mut unknown: Option<Refusal> = None;
        for (number, one) in resolved.interfaces.into_iter().enumerate() {
            let groups = match one.groups {
                ResolvedGroups::Known(groups) => groups,
                ResolvedGroups::Ask { ids, names } => match self.ask_groups(Some(resolved.vpc_id), number, &ids, names).await {
                    Ok(groups) => groups,
                    Err(Error::Refused(refusal)) => {
                        unknown = Some(unknown.map_or(refusal.clone(), |before| before.and(refusal)));
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            interfaces.push(proto::ResolvedInterface {
                subnet_id: one.subnet_id.to_string(),
                vpc_id: resolved.vpc_id.to_string(),
                groups: convert::groups(&groups),
                public_by_default: one.public_by_default,
            });
        }
        if let Some(refusal) = unknown {
            return Err(refusal.into());
        }
        let (availability_zone, vpc_id) = (resolved.zone, resolved.vpc_id.to_string());
        Ok(proto::ResolveLaunchNetworkResponse { availability_zone, vpc_id, interfaces, room })
    }

    /// The groups that a launch names and that are in no VPC, for one that is refused anyhow. If security is away, it is
    /// refused for what is known to be wrong.
    async fn unknown_groups(&self, launch: &Launch) -> Vec<Refusal> {
        let mut unknown = Vec::new();
        for (number, wanted) in launch.interfaces.iter().enumerate() {
            if let WantedInterface::New { group_ids, group_names, .. } = wanted
                && !(group_ids.is_empty() && group_names.is_empty())
                && let Err(Error::Refused(refusal)) = self.ask_groups(None, number, group_ids, group_names.clone()).await
            {
                unknown.push(refusal);
            }
        }
        unknown
    }

    /// An interface's groups by id and name, in a VPC if that is known, or its default one; nothing is held by it.
    /// Every group that does not exist is refused.
    async fn ask_groups(
        &self,
        vpc: Option<VpcId>,
        interface: usize,
        ids: &[SecurityGroupId],
        names: Vec<String>,
    ) -> Result<Vec<Group>, Error> {
        let default = ids.is_empty() && names.is_empty();
        let names = if default { vec!["default".to_owned()] } else { names };
        let mut found: Vec<Group> = Vec::new();
        let mut unknown: Vec<Refusal> = Vec::new();
        let asked =
            [("group-id", "group_ids", ids.iter().map(ToString::to_string).collect::<Vec<_>>()), ("group-name", "group_names", names)];
        for (filter, field, values) in asked {
            if values.is_empty() {
                continue;
            }
            let exact: Vec<String> =
                values.iter().map(|value| value.replace('\\', "\\\\").replace('*', "\\*").replace('?', "\\?")).collect();
            let of_vpc = vpc.map(|vpc| Filter { name: "vpc-id".into(), values: vec![vpc.to_string()] });
            let filters = of_vpc.into_iter().chain([Filter { name: filter.into(), values: exact }]).collect();
            let request = DescribeSecurityGroupsRequest { filters, ..DescribeSecurityGroupsRequest::default() };
            let mut security = SecurityServiceClient::new(self.driver.security.channel());
            let answer =
                security.describe_security_groups(request).await.map_err(|status| self.driver.security.error(status))?.into_inner();
            for (place, value) in values.iter().enumerate() {
                let group = answer.security_groups.iter().find(|group| group.group_id == *value || group.group_name == *value);
                let Some(group) = group else {
                    unknown.push(missing_group(value, vpc).of_field(format!("interfaces[{interface}].{field}[{place}]")));
                    continue;
                };
                let id =
                    group.group_id.parse().map_err(|error| Error::Internal(format!("security named a group that is none: {error}")))?;
                if found.iter().all(|known| known.id != id) {
                    found.push(Group { id, name: group.group_name.clone() });
                }
            }
        }
        unknown.into_iter().reduce(Refusal::and).map_or(Ok(found), |refusal| Err(refusal.into()))
    }

    async fn create_for_instances(
        &self,
        scope: Scope,
        request: proto::CreateInstanceInterfacesRequest,
    ) -> Result<proto::CreateInstanceInterfacesResponse, Error> {
        let items = instance::parse_batch(request.interfaces.into_iter().map(input).collect())?;
        let held = self.hold_batch(&scope, &items).await?;
        let new: Vec<NetworkInterfaceId> = held.keys().copied().collect();
        let items: Vec<(InstanceInterface, Vec<Group>)> =
            items.into_iter().map(|item| (item.clone(), held.get(&item.interface_id).cloned().unwrap_or_default())).collect();
        let made = self.driver.commit(&scope, move |draft, now| Ok(instance::create(draft, &items, now)?)).await;
        match made {
            Ok(interfaces) => Ok(proto::CreateInstanceInterfacesResponse { network_interfaces: self.show(&interfaces) }),
            Err(error) => {
                // What was held for interfaces that are not made is let go of.
                let given_up = self.driver.commit(&scope, move |draft, now| {
                    instance::give_up(draft, &new, now);
                    Ok(())
                });
                given_up.await?;
                self.driver.waker.wake([Key::Unsettled]);
                Err(error)
            }
        }
    }

    /// Has security hold the groups of all new interfaces of a batch.
    async fn hold_batch(&self, scope: &Scope, items: &[InstanceInterface]) -> Result<BTreeMap<NetworkInterfaceId, Vec<Group>>, Error> {
        let mut holds = Vec::new();
        let mut ids = Vec::new();
        {
            let state = self.driver.store.read();
            for item in items {
                let Source::Create { new, .. } = &item.source else { continue };
                let subnet =
                    state.subnets.get(&SubnetRow::list_key(scope, new.subnet_id)).ok_or_else(|| Refusal::not_found(new.subnet_id))?;
                ids.push(item.interface_id);
                holds.push(SecurityGroupHold {
                    holder_id: item.interface_id.to_string(),
                    vpc_id: subnet.vpc_id.to_string(),
                    group_ids: new.group_ids.iter().map(ToString::to_string).collect(),
                    group_names: new.group_names.clone(),
                    default_if_empty: true,
                });
            }
        }
        // They were found before; a caller's launch names them elsewhere.
        let held = self.driver.hold(holds).await.map_err(|error| error.of_fields(|_| None))?;
        Ok(ids.into_iter().zip(held).collect())
    }
}

fn missing_group(name: &str, vpc: Option<VpcId>) -> Refusal {
    let place = vpc.map(|vpc| format!(" in VPC '{vpc}'")).unwrap_or_default();
    Refusal::new(RefusalKind::NotFound, "InvalidGroup.NotFound", format!("The security group '{name}' does not exist{place}"))
}

fn input(wanted: proto::InstanceInterface) -> InstanceInterfaceInput {
    use proto::instance_interface::Source as Wanted;
    let create = match wanted.source {
        None | Some(Wanted::Existing(_)) => None,
        Some(Wanted::Create(new)) => Some((
            NewInterfaceInput {
                subnet_id: new.subnet_id,
                description: new.description,
                private_ip_address: new.private_ip_address,
                secondary_private_ip_addresses: new.secondary_private_ip_addresses,
                secondary_private_ip_address_count: u32::try_from(new.secondary_private_ip_address_count).unwrap_or(0),
                group_ids: new.group_ids,
                group_names: new.group_names,
                tags: wire::tag_pairs(new.tags).collect(),
            },
            new.associate_public_ip_address,
        )),
    };
    InstanceInterfaceInput {
        network_interface_id: wanted.network_interface_id,
        attachment_id: wanted.attachment_id,
        instance_id: wanted.instance_id,
        device_index: u32::try_from(wanted.device_index).unwrap_or(0),
        create,
        delete_on_termination: wanted.delete_on_termination,
        interface_limit: u32::try_from(wanted.interface_limit).unwrap_or(0),
    }
}
