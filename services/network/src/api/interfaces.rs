//! Network interfaces: made, changed, attached, detached, deleted.

use gureum_model::{
    Refusal, Scope,
    id::{AttachmentId, InstanceId, NetworkInterfaceId, VpcId},
    refusal::Violations,
};
use gureum_network_domain::{
    attachment, hold,
    interface::Group,
    interface_create::{self, NewInterface, NewInterfaceInput},
    interface_modify::{self, Modify, ModifyInput},
};
use gureum_proto::{
    network::v1 as proto,
    security::v1::{DescribeSecurityGroupsRequest, SecurityGroupHold, security_service_client::SecurityServiceClient},
};
use gureum_service::{Answer, Error, wire};
use gureum_store::{Listed, State};

use super::{Api, convert, list::page};
use crate::store::{InterfaceRow, Schema, SubnetRow, show_interface};

impl Api {
    /// Mark, hold, make: see [`gureum_network_domain::hold`].
    pub(super) async fn create_interface(
        &self,
        scope: Scope,
        request: proto::CreateNetworkInterfaceRequest,
    ) -> Result<proto::CreateNetworkInterfaceResponse, Error> {
        if let Some(before) = self.driver.recall(&scope, &request).await? {
            return Ok(before);
        }
        let new = parse_new(&request)?;
        let vpc = match self.vpc_of_subnet(&scope, new.subnet_id) {
            Ok(vpc) => vpc,
            Err(absent) => return Err(self.with_absent_groups(absent, &new).await),
        };
        let id: NetworkInterfaceId = self.driver.ids.next();
        let _taking = self.driver.taking(id);
        self.driver.commit(&scope, move |draft, now| Ok(hold::begin(draft, id, now)?)).await?;
        let groups = self.hold_for(id, vpc, &new).await?;
        let made = self.driver.change(&scope, &request, move |draft, _| {
            let made = interface_create::create(draft, id, &new, groups)?;
            let key = InterfaceRow::list_key(&made.scope, made.id);
            let shown = convert::interface(&made, false);
            Ok(Answer::created::<InterfaceRow>(proto::CreateNetworkInterfaceResponse { network_interface: Some(shown) }, key))
        });
        made.await
    }

    fn vpc_of_subnet(&self, scope: &Scope, subnet: gureum_model::id::SubnetId) -> Result<VpcId, Error> {
        let state = self.driver.store.read();
        let found =
            state.subnets.get(&SubnetRow::list_key(scope, subnet)).ok_or_else(|| Refusal::not_found(subnet).of_field("subnet_id"))?;
        Ok(found.vpc_id)
    }

    /// Without a subnet there is no VPC in which to hold groups; those that do not exist at all are told nevertheless.
    async fn with_absent_groups(&self, absent: Error, new: &NewInterface) -> Error {
        if new.group_ids.is_empty() {
            return absent;
        }
        let group_ids = new.group_ids.iter().map(ToString::to_string).collect();
        let request = DescribeSecurityGroupsRequest { group_ids, ..DescribeSecurityGroupsRequest::default() };
        let security = &self.driver.security;
        match SecurityServiceClient::new(security.channel()).describe_security_groups(request).await {
            Ok(_) => absent,
            Err(status) => absent.and(security.error(status)),
        }
    }

    async fn hold_for(&self, id: NetworkInterfaceId, vpc: VpcId, new: &NewInterface) -> Result<Vec<Group>, Error> {
        let hold = SecurityGroupHold {
            holder_id: id.to_string(),
            vpc_id: vpc.to_string(),
            group_ids: new.group_ids.iter().map(ToString::to_string).collect(),
            group_names: new.group_names.clone(),
            default_if_empty: true,
        };
        Ok(self.driver.hold(vec![hold]).await.map_err(of_groups)?.pop().unwrap_or_default())
    }

    pub(super) async fn modify_interface(
        &self,
        scope: Scope,
        request: proto::ModifyNetworkInterfaceAttributeRequest,
    ) -> Result<proto::ModifyNetworkInterfaceAttributeResponse, Error> {
        let change = ModifyInput {
            network_interface_id: request.network_interface_id.clone(),
            description: request.description.clone(),
            source_dest_check: request.source_dest_check,
            group_ids: request.group_ids.clone(),
            delete_on_termination: request.attachment.as_ref().map(|change| (change.attachment_id.clone(), change.delete_on_termination)),
        }
        .parse()?;
        if change.group_ids.is_empty() {
            return self.modify(&scope, &request, change, None).await;
        }
        if let Some(before) = self.driver.recall(&scope, &request).await? {
            return Ok(before);
        }
        let _taking = self.driver.taking(change.id);
        let groups = self.swap_groups(&scope, &change).await?;
        self.modify(&scope, &request, change, Some(groups)).await
    }

    /// Has security hold old and new groups together; answers the new ones with their names.
    async fn swap_groups(&self, scope: &Scope, change: &Modify) -> Result<Vec<Group>, Error> {
        let (id, wanted) = (change.id, change.group_ids.clone());
        let begun = self.driver.commit(scope, move |draft, now| {
            let interface = draft.interface(id)?.clone();
            hold::begin(draft, id, now)?;
            Ok(interface)
        });
        let interface = begun.await?;
        // The wanted ones stand first, at the places that they have in the request.
        let both = hold::both(&interface.group_ids(), &wanted).map_err(Refusal::from)?;
        let hold = SecurityGroupHold {
            holder_id: id.to_string(),
            vpc_id: interface.vpc_id.to_string(),
            group_ids: both.iter().map(ToString::to_string).collect(),
            ..SecurityGroupHold::default()
        };
        let held = self.driver.hold(vec![hold]).await.map_err(of_groups)?.pop().unwrap_or_default();
        Ok(held.into_iter().filter(|group| wanted.contains(&group.id)).collect())
    }

    async fn modify(
        &self,
        scope: &Scope,
        request: &proto::ModifyNetworkInterfaceAttributeRequest,
        change: Modify,
        groups: Option<Vec<Group>>,
    ) -> Result<proto::ModifyNetworkInterfaceAttributeResponse, Error> {
        let decide = self.driver.change(scope, request, move |draft, now| {
            let changed = interface_modify::modify(draft, &change, groups, now)?;
            Ok(proto::ModifyNetworkInterfaceAttributeResponse { network_interface: Some(convert::interface(&changed, false)) })
        });
        decide.await
    }

    pub(super) async fn attach_interface(
        &self,
        scope: Scope,
        request: proto::AttachNetworkInterfaceRequest,
    ) -> Result<proto::AttachNetworkInterfaceResponse, Error> {
        let mut violations = Violations::new();
        let id = violations.id::<NetworkInterfaceId>("network_interface_id", &request.network_interface_id);
        let instance = violations.id::<InstanceId>("instance_id", &request.instance_id);
        let index = u32::try_from(request.device_index).ok();
        if index.is_none() {
            violations.add("device_index", format!("the device index {} is negative", request.device_index));
        }
        violations.finish()?;
        let (Some(id), Some(instance), Some(index)) = (id, instance, index) else { return Err(Refusal::missing("instance_id").into()) };
        let new: AttachmentId = self.driver.ids.next();
        let decide = self.driver.change(&scope, &request, move |draft, now| {
            attachment::attach(draft, id, instance, index, new, now)?;
            // No driver has anything to plug yet, so the instance's side is done at once.
            attachment::settle(draft, new, now)?;
            let attached = draft.interface(id)?.clone();
            let attachment_id = attached.attachment().map(|attachment| attachment.id.to_string()).unwrap_or_default();
            Ok(proto::AttachNetworkInterfaceResponse { attachment_id, network_interface: Some(convert::interface(&attached, false)) })
        });
        decide.await
    }

    pub(super) async fn detach_interface(
        &self,
        scope: Scope,
        request: proto::DetachNetworkInterfaceRequest,
    ) -> Result<proto::DetachNetworkInterfaceResponse, Error> {
        let (id, force) = (Refusal::parse_id::<AttachmentId>("attachment_id", &request.attachment_id)?, request.force);
        let decide = self.driver.change(&scope, &request, move |draft, now| {
            let interface = attachment::detach(draft, id, force, now)?.id;
            if !force {
                // As above: nothing has to be pulled out.
                attachment::settle(draft, id, now)?;
            }
            let detaching = draft.interface(interface)?.clone();
            Ok(proto::DetachNetworkInterfaceResponse { network_interface: Some(convert::interface(&detaching, false)) })
        });
        decide.await
    }

    pub(super) async fn delete_interface(
        &self,
        scope: Scope,
        request: proto::DeleteNetworkInterfaceRequest,
    ) -> Result<proto::DeleteNetworkInterfaceResponse, Error> {
        let id = Refusal::parse_id::<NetworkInterfaceId>("network_interface_id", &request.network_interface_id)?;
        let decide = self.driver.change(&scope, &request, move |draft, now| {
            interface_create::delete(draft, id, now)?;
            Ok(proto::DeleteNetworkInterfaceResponse { network_interface_id: id.to_string() })
        });
        let answer = decide.await?;
        // Its groups are let go of behind the answer.
        self.driver.waker.wake([crate::reconcile::Key::Unsettled]);
        Ok(answer)
    }
}

/// What security refuses of the one hold that it was asked for, in the fields of the caller's request.
fn of_groups(error: Error) -> Error {
    error.of_fields(|field| field.strip_prefix("holds[0].").filter(|field| field.starts_with("group_ids")).map(str::to_owned))
}

fn parse_new(request: &proto::CreateNetworkInterfaceRequest) -> Result<NewInterface, Refusal> {
    let mut violations = Violations::new();
    let input = NewInterfaceInput {
        subnet_id: request.subnet_id.clone(),
        description: request.description.clone(),
        private_ip_address: request.private_ip_address.clone(),
        secondary_private_ip_addresses: request.secondary_private_ip_addresses.clone(),
        secondary_private_ip_address_count: u32::try_from(request.secondary_private_ip_address_count).unwrap_or(0),
        group_ids: request.group_ids.clone(),
        group_names: Vec::new(),
        tags: wire::tag_pairs(request.tags.clone()).collect(),
    };
    let new = input.parse("", &mut violations);
    violations.finish()?;
    new.ok_or_else(|| Refusal::missing("subnet_id"))
}

pub fn describe(
    state: &State<Schema>,
    scope: &Scope,
    request: proto::DescribeNetworkInterfacesRequest,
) -> Result<proto::DescribeNetworkInterfacesResponse, Error> {
    let ids = ("network_interface_ids", request.network_interface_ids.as_slice());
    let (rows, next_page_token) =
        page::<InterfaceRow, NetworkInterfaceId>(&state.interfaces, scope, ids, request.filters, request.page_size, &request.page_token)?;
    Ok(proto::DescribeNetworkInterfacesResponse {
        network_interfaces: rows.iter().map(|row| show_interface(state, row)).collect(),
        next_page_token,
    })
}

pub fn describe_attribute(
    state: &State<Schema>,
    scope: &Scope,
    request: &proto::DescribeNetworkInterfaceAttributeRequest,
) -> Result<proto::DescribeNetworkInterfaceAttributeResponse, Error> {
    let id = Refusal::parse_id::<NetworkInterfaceId>("network_interface_id", &request.network_interface_id)?;
    let found =
        state.interfaces.get(&InterfaceRow::list_key(scope, id)).ok_or_else(|| Refusal::not_found(id).of_field("network_interface_id"))?;
    Ok(proto::DescribeNetworkInterfaceAttributeResponse {
        network_interface_id: id.to_string(),
        description: found.description.clone(),
        source_dest_check: found.source_dest_check,
        groups: convert::groups(&found.groups),
        attachment: convert::attachment(found),
    })
}
