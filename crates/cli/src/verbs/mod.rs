//! The verbs: a file for each noun, and for each verb of instances that has a story.

pub mod attribute;
pub mod clock;
pub mod completion;
pub mod connect;
pub mod console;
pub mod cp;
pub mod describe;
pub mod eip;
pub mod events;
pub mod gateways;
pub mod identity_certificate;
pub mod images;
mod import;
pub mod instance;
pub mod interfaces;
pub mod keys;
pub mod launch;
pub mod logs;
mod marketplace;
pub mod power;
pub mod prefix_lists;
pub mod ps;
pub mod routes;
pub mod sg;
pub mod snapshots;
pub mod spec;
pub mod subnets;
pub mod tags;
pub mod templates;
pub mod tour;
pub mod types;
pub mod volumes;
pub mod vpcs;
pub mod webhooks;
pub mod zones;

#[cfg(test)]
mod tests {
    use gureum_proto::{
        common::v1 as common, compute::v1 as compute, gateway::v1 as gateway, network::v1 as network, security::v1 as security,
    };

    use crate::{message::to_json, table::Show};

    fn check<T: Show + Default>() {
        let empty = T::default();
        assert!(to_json(&empty).is_ok(), "the contracts have no {}", T::NAME);
        assert_eq!(empty.row(None).len(), T::COLUMNS.len(), "{}", T::NAME);
    }

    #[test]
    fn whatever_is_shown_is_in_the_contracts_and_has_a_cell_for_each_column() {
        check::<common::TagDescription>();
        check::<compute::GetConsoleOutputResponse>();
        check::<compute::GetIdentityCertificateResponse>();
        check::<compute::Image>();
        check::<compute::Instance>();
        check::<compute::InstanceStateChange>();
        check::<compute::InstanceStatus>();
        check::<compute::InstanceTypeInfo>();
        check::<compute::LaunchTemplate>();
        check::<compute::LaunchTemplateVersion>();
        check::<compute::MarketplaceListing>();
        check::<compute::Snapshot>();
        check::<compute::Volume>();
        check::<compute::VolumeAttachment>();
        check::<gateway::AdvanceClockResponse>();
        check::<gateway::CloudEvent>();
        check::<gateway::DeadLetter>();
        check::<gateway::GetClockResponse>();
        check::<gateway::RedriveDeadLettersResponse>();
        check::<gateway::Webhook>();
        check::<network::Address>();
        check::<network::AvailabilityZone>();
        check::<network::InternetGateway>();
        check::<network::NetworkInterface>();
        check::<network::Route>();
        check::<network::RouteTable>();
        check::<network::RouteTableAssociation>();
        check::<network::Subnet>();
        check::<network::Vpc>();
        check::<security::CreateKeyPairResponse>();
        check::<security::EvaluateResponse>();
        check::<security::KeyPair>();
        check::<security::ManagedPrefixList>();
        check::<security::PrefixListEntry>();
        check::<security::SecurityGroup>();
        check::<security::SecurityGroupRule>();
    }
}
