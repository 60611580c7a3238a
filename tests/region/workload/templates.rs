//! Launch templates and their versions.

use std::collections::{BTreeMap, BTreeSet};

use gureum_proto::compute::v1::{compute_service_client::ComputeServiceClient, *};

use super::client::{Client, change};
use crate::{audit::Account, harness::all_pages, region::launch_spec};

/// The latest version of each.
#[derive(Debug, Clone, Default)]
pub struct Templates {
    pub living: BTreeMap<String, i64>,
    pub deleted: BTreeSet<String>,
}

impl Templates {
    pub fn merge(&mut self, other: Self) {
        self.living.extend(other.living);
        self.deleted.extend(other.deleted);
    }
}

pub async fn act(client: &mut Client) {
    let spec = Some(launch_spec(&client.image));
    match (client.chance.below(3), client.pick(client.known.templates.living.keys().cloned())) {
        (0, Some(id)) => {
            let named = delete_launch_template_request::LaunchTemplate::LaunchTemplateId(id.clone());
            let request = DeleteLaunchTemplateRequest { launch_template: Some(named.clone()), ..Default::default() };
            let launch_template = request.launch_template;
            change!(client, ComputeServiceClient, delete_launch_template, DeleteLaunchTemplateRequest { launch_template: launch_template })
                .unwrap();
            client.known.templates.living.remove(&id);
            client.known.templates.deleted.insert(id);
        }
        (1, Some(id)) => {
            let named = create_launch_template_version_request::LaunchTemplate::LaunchTemplateId(id.clone());
            change!(
                client,
                ComputeServiceClient,
                create_launch_template_version,
                CreateLaunchTemplateVersionRequest { launch_template: Some(named.clone()), launch_template_data: spec }
            )
            .unwrap();
            *client.known.templates.living.get_mut(&id).unwrap() += 1;
        }
        _ => {
            let launch_template_name = client.name("template");
            let made = change!(
                client,
                ComputeServiceClient,
                create_launch_template,
                CreateLaunchTemplateRequest { launch_template_name: launch_template_name, launch_template_data: spec }
            );
            client.known.templates.living.insert(made.unwrap().launch_template.unwrap().launch_template_id, 1);
        }
    }
}

pub async fn audit(account: &Account) {
    let all = all_pages!(account.door, ComputeServiceClient, describe_launch_templates, DescribeLaunchTemplatesRequest, launch_templates);
    let found: BTreeMap<String, i64> = all.into_iter().map(|one| (one.launch_template_id, one.latest_version_number)).collect();
    assert_eq!(found, account.known.templates.living, "launch templates found, and acknowledged");
}
