//! VPCs and subnets.

use gureum_model::{Refusal, Scope, id::SubnetId, id::VpcId};
use gureum_network_domain::{
    Draft,
    subnet::{self, CreateSubnetInput},
    vpc::{self, CreateVpcInput, VpcIds},
};
use gureum_proto::network::v1 as proto;
use gureum_service::{Answer, Error, wire};
use gureum_store::{Listed, State, Transaction};

use super::{Api, convert, list::page};
use crate::store::{Schema, Snapshot, SubnetRow, VpcDeletionRow, VpcRow};

impl Api {
    pub(super) async fn make_vpc(&self, scope: Scope, request: proto::CreateVpcRequest) -> Result<proto::CreateVpcResponse, Error> {
        let tags = wire::tag_pairs(request.tags.clone()).collect();
        let new =
            CreateVpcInput { cidr_block: request.cidr_block.clone(), instance_tenancy: request.instance_tenancy.clone(), tags }.parse()?;
        let ids = VpcIds::new(&self.driver.ids);
        let decided = self.driver.change(&scope, &request, move |draft, now| {
            let made = vpc::create(draft, ids, new, now)?;
            let key = VpcRow::list_key(&made.scope, made.id);
            Ok(Answer::created::<VpcRow>(proto::CreateVpcResponse { vpc: Some(convert::vpc(&made)) }, key))
        });
        let answer: proto::CreateVpcResponse = decided.await?;
        // A repeat finds the VPC of the first call, wherever that one was interrupted.
        let id = Refusal::parse_id::<VpcId>("vpc_id", &answer.vpc.as_ref().map(|vpc| vpc.vpc_id.clone()).unwrap_or_default())?;
        self.driver.drive_vpc(&scope, id).await?;
        let now = self.driver.store.read().vpcs.get(&VpcRow::list_key(&scope, id)).map(|row| convert::vpc(row));
        Ok(proto::CreateVpcResponse { vpc: now.or(answer.vpc) })
    }

    pub(super) async fn modify_vpc(
        &self,
        scope: Scope,
        request: proto::ModifyVpcAttributeRequest,
    ) -> Result<proto::ModifyVpcAttributeResponse, Error> {
        let id = Refusal::parse_id::<VpcId>("vpc_id", &request.vpc_id)?;
        let (support, hostnames) = (request.enable_dns_support, request.enable_dns_hostnames);
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            let changed = vpc::modify(draft, id, support, hostnames)?;
            Ok(proto::ModifyVpcAttributeResponse { vpc: Some(convert::vpc(&changed)) })
        });
        decide.await
    }

    /// Security is asked first and told last, so that a refusal leaves the VPC as it was. The token is
    /// remembered with the end, whether this call makes it or the reconciler does after it: until then a repeat goes on
    /// where this call was interrupted.
    pub(super) async fn remove_vpc(&self, scope: Scope, request: proto::DeleteVpcRequest) -> Result<proto::DeleteVpcResponse, Error> {
        if let Some(before) = self.driver.recall(&scope, &request).await? {
            return Ok(before);
        }
        let id = Refusal::parse_id::<VpcId>("vpc_id", &request.vpc_id)?;
        let answer = proto::DeleteVpcResponse { vpc_id: id.to_string() };
        if request.dry_run {
            self.driver.unregister(id, true).await?;
            let check = self.driver.change(&scope, &request, move |draft, now| {
                vpc::begin_delete(draft, id, now)?;
                Ok(answer)
            });
            return check.await;
        }
        let call = VpcDeletionRow::new(&scope, id, &request);
        let begin = move |draft: &mut Draft<'_, Snapshot<'_>>, now| Ok(vpc::begin_delete(draft, id, now).map(drop)?);
        let record = move |transaction: &mut Transaction<'_, Schema>| {
            if let Some(call) = call {
                transaction.put(call);
            }
        };
        if let Err(refused) = self.driver.commit_with(&scope, begin, record).await {
            // The reconciler may have come to the end of it since the token was looked up.
            return self.driver.recall(&scope, &request).await?.ok_or(refused);
        }
        if let Err(error) = self.driver.drive_vpc(&scope, id).await {
            self.driver.waker.wake([crate::reconcile::Key::Unsettled]);
            return Err(error);
        }
        self.driver.change(&scope, &request, move |_, _| Ok(answer)).await
    }

    pub(super) async fn make_subnet(
        &self,
        scope: Scope,
        request: proto::CreateSubnetRequest,
    ) -> Result<proto::CreateSubnetResponse, Error> {
        let input = CreateSubnetInput {
            vpc_id: request.vpc_id.clone(),
            cidr_block: request.cidr_block.clone(),
            availability_zone: request.availability_zone.clone(),
            availability_zone_id: request.availability_zone_id.clone(),
            tags: wire::tag_pairs(request.tags.clone()).collect(),
        };
        let new = input.parse_among(&scope.region, &Snapshot { tables: &self.driver.store.read(), scope: &scope })?;
        let id = self.driver.ids.next();
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            let made = subnet::create(draft, id, new)?;
            let key = SubnetRow::list_key(&made.scope, made.id);
            Ok(Answer::created::<SubnetRow>(proto::CreateSubnetResponse { subnet: Some(convert::subnet(&made)) }, key))
        });
        decide.await
    }

    pub(super) async fn modify_subnet(
        &self,
        scope: Scope,
        request: proto::ModifySubnetAttributeRequest,
    ) -> Result<proto::ModifySubnetAttributeResponse, Error> {
        let (id, public) =
            (Refusal::parse_id::<SubnetId>("subnet_id", &request.subnet_id)?, request.map_public_ip_on_launch.unwrap_or_default());
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            let changed = subnet::modify(draft, id, public)?;
            Ok(proto::ModifySubnetAttributeResponse { subnet: Some(convert::subnet(&changed)) })
        });
        decide.await
    }

    pub(super) async fn remove_subnet(
        &self,
        scope: Scope,
        request: proto::DeleteSubnetRequest,
    ) -> Result<proto::DeleteSubnetResponse, Error> {
        let id = Refusal::parse_id::<SubnetId>("subnet_id", &request.subnet_id)?;
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            subnet::delete(draft, id)?;
            Ok(proto::DeleteSubnetResponse { subnet_id: id.to_string() })
        });
        decide.await
    }
}

pub fn describe(state: &State<Schema>, scope: &Scope, request: proto::DescribeVpcsRequest) -> Result<proto::DescribeVpcsResponse, Error> {
    let (rows, next_page_token) =
        page::<VpcRow, VpcId>(&state.vpcs, scope, ("vpc_ids", &request.vpc_ids), request.filters, request.page_size, &request.page_token)?;
    Ok(proto::DescribeVpcsResponse { vpcs: rows.iter().map(|row| convert::vpc(row)).collect(), next_page_token })
}

pub fn describe_attribute(
    state: &State<Schema>,
    scope: &Scope,
    request: &proto::DescribeVpcAttributeRequest,
) -> Result<proto::DescribeVpcAttributeResponse, Error> {
    let id = Refusal::parse_id::<VpcId>("vpc_id", &request.vpc_id)?;
    let vpc = state.vpcs.get(&VpcRow::list_key(scope, id)).ok_or_else(|| Refusal::not_found(id).of_field("vpc_id"))?;
    Ok(proto::DescribeVpcAttributeResponse {
        vpc_id: vpc.id.to_string(),
        enable_dns_support: vpc.dns_support,
        enable_dns_hostnames: vpc.dns_hostnames,
    })
}

pub fn describe_subnets(
    state: &State<Schema>,
    scope: &Scope,
    request: proto::DescribeSubnetsRequest,
) -> Result<proto::DescribeSubnetsResponse, Error> {
    let (rows, next_page_token) = page::<SubnetRow, SubnetId>(
        &state.subnets,
        scope,
        ("subnet_ids", &request.subnet_ids),
        request.filters,
        request.page_size,
        &request.page_token,
    )?;
    Ok(proto::DescribeSubnetsResponse { subnets: rows.iter().map(|row| convert::subnet(row)).collect(), next_page_token })
}
