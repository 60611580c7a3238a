//! Launch templates as users see them.

use gureum_compute_domain::launch_template::{LaunchTemplate, LaunchTemplateVersion};
use gureum_proto::compute::v1 as proto;
use gureum_service::wire;

use super::launch_spec;

pub fn template(template: &LaunchTemplate) -> proto::LaunchTemplate {
    proto::LaunchTemplate {
        launch_template_id: template.id.to_string(),
        launch_template_name: template.name.clone(),
        create_time: Some(wire::timestamp(template.create_time)),
        created_by: template.created_by.clone(),
        default_version_number: number(template.default_version),
        latest_version_number: number(template.latest_version),
        tags: wire::tags(&template.tags),
    }
}

pub fn version(template: &LaunchTemplate, version: &LaunchTemplateVersion) -> proto::LaunchTemplateVersion {
    proto::LaunchTemplateVersion {
        launch_template_id: template.id.to_string(),
        launch_template_name: template.name.clone(),
        version_number: number(version.number),
        version_description: version.description.clone(),
        create_time: Some(wire::timestamp(version.create_time)),
        created_by: version.created_by.clone(),
        default_version: version.number == template.default_version,
        launch_template_data: Some(launch_spec::shown(&version.data)),
    }
}

/// Versions are counted by ones; nobody gets near the limit.
pub fn number(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}
