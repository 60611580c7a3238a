//! Elastic IPs: allocated, associated, moved, disassociated, released.

use std::net::Ipv4Addr;

use gureum_model::{Filters, PageRequest, Refusal, Scope, id::AllocationId, refusal::Violations};
use gureum_network_domain::{
    Missing, View,
    address::{self, AddressName, AllocateInput},
    association::{self, AssociateInput, AssociationName},
    dns,
};
use gureum_proto::network::v1 as proto;
use gureum_service::{Answer, Error, wire};
use gureum_store::{Listed, State, list, list::get_all};

use super::{Api, convert};
use crate::store::{AddressRow, Schema, Snapshot};

impl Api {
    pub(super) async fn allocate(
        &self,
        scope: Scope,
        request: proto::AllocateAddressRequest,
    ) -> Result<proto::AllocateAddressResponse, Error> {
        let tags = wire::tag_pairs(request.tags.clone()).collect();
        let (wanted, tags) = AllocateInput { domain: request.domain.clone(), address: request.address.clone(), tags }.parse()?;
        let id = self.driver.ids.next();
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            let taken = address::allocate(draft, id, wanted, tags)?;
            let key = AddressRow::list_key(&taken.scope, taken.id);
            Ok(Answer::created::<AddressRow>(proto::AllocateAddressResponse { address: Some(convert::address(&taken)) }, key))
        });
        decide.await
    }

    pub(super) async fn associate(
        &self,
        scope: Scope,
        request: proto::AssociateAddressRequest,
    ) -> Result<proto::AssociateAddressResponse, Error> {
        let input = AssociateInput {
            allocation_id: request.allocation_id.clone(),
            public_ip: request.public_ip.clone(),
            network_interface_id: request.network_interface_id.clone(),
            instance_id: request.instance_id.clone(),
            private_ip_address: request.private_ip_address.clone(),
            allow_reassociation: request.allow_reassociation,
        };
        let wanted = input.parse_among(&Snapshot { tables: &self.driver.store.read(), scope: &scope })?;
        let new = self.driver.ids.next();
        let decide = self.driver.change(&scope, &request, move |draft, now| {
            let associated = association::associate(draft, wanted, new, now)?;
            let association_id = associated.association.as_ref().map(|association| association.id.to_string()).unwrap_or_default();
            Ok(proto::AssociateAddressResponse { association_id, address: Some(convert::address(&associated)) })
        });
        decide.await
    }

    pub(super) async fn disassociate(
        &self,
        scope: Scope,
        request: proto::DisassociateAddressRequest,
    ) -> Result<proto::DisassociateAddressResponse, Error> {
        let name = AssociationName::parse(&request.association_id, &request.public_ip)?;
        let decide = self.driver.change(&scope, &request, move |draft, now| {
            let free = association::disassociate(draft, name, now)?;
            Ok(proto::DisassociateAddressResponse { address: Some(convert::address(&free)) })
        });
        decide.await
    }

    pub(super) async fn release(
        &self,
        scope: Scope,
        request: proto::ReleaseAddressRequest,
    ) -> Result<proto::ReleaseAddressResponse, Error> {
        let mut violations = Violations::new();
        let name = AddressName::parse(&request.allocation_id, &request.public_ip, &mut violations);
        violations.finish()?;
        let name = name.ok_or_else(|| Refusal::missing("allocation_id"))?;
        let decide = self.driver.change(&scope, &request, move |draft, _| {
            let gone = address::release(draft, name)?;
            Ok(proto::ReleaseAddressResponse { allocation_id: gone.to_string() })
        });
        decide.await
    }
}

pub fn describe(
    state: &State<Schema>,
    scope: &Scope,
    request: proto::DescribeAddressesRequest,
) -> Result<proto::DescribeAddressesResponse, Error> {
    let mut violations = Violations::new();
    let mut ids: Vec<AllocationId> = violations.ids("allocation_ids", &request.allocation_ids);
    let mut missing: Vec<Refusal> = Vec::new();
    for (place, text) in request.public_ips.iter().enumerate() {
        match text.parse::<Ipv4Addr>() {
            Err(_) => violations.add(format!("public_ips[{place}]"), format!("\"{text}\" is no IPv4 address")),
            Ok(wanted) => match (Snapshot { tables: state, scope }).address_at(wanted) {
                Some(found) => ids.push(found.id),
                None => missing.push(Refusal::from(Missing::Address(wanted)).of_field(format!("public_ips[{place}]"))),
            },
        }
    }
    let filters = violations.check("", Filters::for_kind::<AddressRow>(wire::filters(request.filters))).unwrap_or_default();
    violations.finish()?;
    if let Some(refusal) = missing.into_iter().reduce(Refusal::and) {
        return Err(refusal.into());
    }
    let (rows, next_page_token) = if ids.is_empty() {
        let page = PageRequest::new(request.page_size, &request.page_token, &("addresses", scope, &filters))?;
        list(&state.addresses, scope, &filters, &page)
    } else {
        (
            get_all(&state.addresses, scope, "allocation_ids", &ids)?.into_iter().filter(|row| filters.pass(&row.record)).collect(),
            String::new(),
        )
    };
    Ok(proto::DescribeAddressesResponse { addresses: rows.iter().map(|row| convert::address(row)).collect(), next_page_token })
}

pub fn describe_attribute(
    state: &State<Schema>,
    scope: &Scope,
    request: proto::DescribeAddressesAttributeRequest,
) -> Result<proto::DescribeAddressesAttributeResponse, Error> {
    let listed = proto::DescribeAddressesRequest {
        page_size: request.page_size,
        page_token: request.page_token,
        filters: request.filters,
        allocation_ids: request.allocation_ids,
        public_ips: Vec::new(),
    };
    let page = describe(state, scope, listed)?;
    let named = |address: proto::Address| proto::AddressAttribute {
        ptr_record: address.public_ip.parse().map(|ip| dns::public_name(&scope.region, ip)).unwrap_or_default(),
        public_ip: address.public_ip,
        allocation_id: address.allocation_id,
    };
    Ok(proto::DescribeAddressesAttributeResponse {
        addresses: page.addresses.into_iter().map(named).collect(),
        next_page_token: page.next_page_token,
    })
}
