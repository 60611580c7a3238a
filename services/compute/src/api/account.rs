//! Limits and settings of an account.

use std::sync::Arc;

use gureum_model::refusal::Violations;
use gureum_proto::compute::v1 as proto;
use gureum_service::Error;

use crate::{core::Core, identity};

/// What can be asked for, in the order in which it is told. Limits are the region's defaults, as EC2
/// documents them.
const ATTRIBUTES: [(&str, &str); 6] = [
    ("supported-platforms", "VPC"),
    ("default-vpc", ""),
    ("max-instances", ""),
    ("vpc-max-security-groups-per-interface", "16"),
    ("max-elastic-ips", "5"),
    ("vpc-max-elastic-ips", "5"),
];

/// The value of `max-instances` where there is no limit: the attribute has to be a number.
const UNLIMITED: usize = i32::MAX as usize;

/// Tells limits and settings of the account.
pub async fn describe_account_attributes(
    core: &Arc<Core>,
    request: proto::DescribeAccountAttributesRequest,
) -> Result<proto::DescribeAccountAttributesResponse, Error> {
    let mut violations = Violations::new();
    for (place, name) in request.attribute_names.iter().enumerate() {
        if !ATTRIBUTES.iter().any(|(known, _)| known == name) {
            let known = ATTRIBUTES.map(|(known, _)| known).join(", ");
            violations.add(format!("attribute_names[{place}]"), format!("'{name}' is no account attribute: expected one of {known}"));
        }
    }
    violations.finish()?;
    let wanted = |name: &str| request.attribute_names.is_empty() || request.attribute_names.iter().any(|wanted| wanted == name);
    let mut account_attributes = Vec::with_capacity(ATTRIBUTES.len());
    for (name, value) in ATTRIBUTES.into_iter().filter(|(name, _)| wanted(name)) {
        let value = match name {
            // EC2's word for an account without one.
            "default-vpc" => core.network.default_vpc().await?.unwrap_or_else(|| "none".to_owned()),
            "max-instances" => core.settings.instance_limit.unwrap_or(UNLIMITED).to_string(),
            _ => value.to_owned(),
        };
        account_attributes.push(proto::AccountAttribute { attribute_name: name.to_owned(), attribute_values: vec![value] });
    }
    Ok(proto::DescribeAccountAttributesResponse { account_attributes })
}

/// Tells by which certificate identity documents are verified.
pub async fn get_identity_certificate(
    core: &Arc<Core>,
    _: proto::GetIdentityCertificateRequest,
) -> Result<proto::GetIdentityCertificateResponse, Error> {
    Ok(proto::GetIdentityCertificateResponse { certificate: identity::key(core).await?.certificate() })
}
