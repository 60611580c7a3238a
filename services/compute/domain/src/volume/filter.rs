//! EC2's filters on volumes.

use std::borrow::Cow;

use gureum_model::{Filterable, Tags};

use super::{Attachment, Volume};

impl Filterable for Volume {
    const FILTER_NAMES: &'static [&'static str] = &[
        "attachment.attach-time",
        "attachment.delete-on-termination",
        "attachment.device",
        "attachment.instance-id",
        "attachment.status",
        "availability-zone",
        "availability-zone-id",
        "create-time",
        "encrypted",
        "multi-attach-enabled",
        "size",
        "snapshot-id",
        "status",
        "volume-id",
        "volume-type",
    ];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        if let Some(name) = name.strip_prefix("attachment.") {
            return self.attachments().iter().filter_map(|attachment| attachment_value(attachment, name)).collect();
        }
        match name {
            "availability-zone" => vec![self.availability_zone().into()],
            "availability-zone-id" => vec![self.scope.region.zone_id(self.zone).into()],
            "create-time" => vec![self.create_time.to_string().into()],
            "encrypted" => vec![self.encrypted.to_string().into()],
            "multi-attach-enabled" => vec![self.multi_attach.to_string().into()],
            "size" => vec![self.size_gib.to_string().into()],
            "snapshot-id" => self.snapshot_id.iter().map(|id| Cow::from(id.to_string())).collect(),
            "status" => vec![self.state.as_str().into()],
            "volume-id" => vec![self.id.to_string().into()],
            "volume-type" => vec![self.volume_type.as_str().into()],
            _ => Vec::new(),
        }
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }
}

fn attachment_value<'a>(attachment: &'a Attachment, name: &str) -> Option<Cow<'a, str>> {
    Some(match name {
        "attach-time" => attachment.attach_time.to_string().into(),
        "delete-on-termination" => attachment.delete_on_termination.to_string().into(),
        "device" => attachment.device.as_str().into(),
        "instance-id" => attachment.instance_id.to_string().into(),
        "status" => attachment.state.as_str().into(),
        _ => return None,
    })
}
