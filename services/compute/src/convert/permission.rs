//! Who may use an image or a snapshot, both ways.

use gureum_compute_domain::image::permission::{Grantee, GranteeSpec, Permissions};
use gureum_proto::compute::v1::{self as proto, permission::Grantee as Wire};

/// Grantees as a caller names them. The contract demands that each names one.
pub fn read(permissions: Vec<proto::Permission>) -> Vec<GranteeSpec> {
    let one = |permission: proto::Permission| match permission.grantee {
        Some(Wire::UserId(id)) => GranteeSpec::UserId(id),
        Some(Wire::Group(group)) => GranteeSpec::Group(group),
        None => GranteeSpec::Group(String::new()),
    };
    permissions.into_iter().map(one).collect()
}

pub fn shown(permissions: &Permissions) -> Vec<proto::Permission> {
    let one = |grantee| match grantee {
        Grantee::All => Wire::Group("all".to_owned()),
        Grantee::Account(account) => Wire::UserId(account.to_string()),
    };
    permissions.iter().map(|grantee| proto::Permission { grantee: Some(one(grantee)) }).collect()
}
