//! EC2's filters on images.

use std::borrow::Cow;

use gureum_model::{Filterable, Tags};

use super::{Image, ImageSource};
use crate::{block_device::Ebs, instance::Platform};

impl Filterable for Image {
    const FILTER_NAMES: &'static [&'static str] = &[
        "architecture",
        "block-device-mapping.delete-on-termination",
        "block-device-mapping.device-name",
        "block-device-mapping.encrypted",
        "block-device-mapping.snapshot-id",
        "block-device-mapping.volume-size",
        "block-device-mapping.volume-type",
        "boot-mode",
        "creation-date",
        "description",
        "ena-support",
        "hypervisor",
        "image-id",
        "image-type",
        "imds-support",
        "is-public",
        "manifest-location",
        "name",
        "owner-alias",
        "owner-id",
        "platform",
        "product-code",
        "product-code.type",
        "root-device-name",
        "root-device-type",
        "source-image-id",
        "source-image-region",
        "source-instance-id",
        "sriov-net-support",
        "state",
        "state-reason-code",
        "state-reason-message",
        "virtualization-type",
    ];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        if let Some(name) = name.strip_prefix("block-device-mapping.") {
            return device_values(self, name);
        }
        let one = |value: String| vec![Cow::from(value)];
        match name {
            "architecture" => vec![self.architecture.as_str().into()],
            "boot-mode" => self.boot_mode.iter().map(|mode| Cow::from(mode.as_str())).collect(),
            "creation-date" => one(self.create_time.to_string()),
            "description" => vec![self.description.as_str().into()],
            "ena-support" => one(self.ena_support.to_string()),
            // EC2 says xen for both of its hypervisors.
            "hypervisor" => vec!["xen".into()],
            "image-id" => one(self.id.to_string()),
            "image-type" => vec!["machine".into()],
            "imds-support" => self.demands_tokens.then_some("v2.0".into()).into_iter().collect(),
            "is-public" => one(self.permissions.all.to_string()),
            "manifest-location" => one(self.location()),
            "name" => vec![self.name.as_str().into()],
            "owner-alias" => self.owner_alias().map(Cow::from).into_iter().collect(),
            "owner-id" => one(self.scope.account.to_string()),
            "platform" => match self.platform {
                Platform::Windows => vec!["windows".into()],
                Platform::Linux => Vec::new(),
            },
            "product-code" => self.product_codes.iter().map(|code| Cow::from(code.as_str())).collect(),
            "product-code.type" => self.product_codes.iter().map(|_| Cow::from("marketplace")).collect(),
            "root-device-name" => vec![self.root_device_name.as_str().into()],
            "root-device-type" => vec!["ebs".into()],
            "source-image-id" => match &self.source {
                ImageSource::FromInstance { image_id, .. } => one(image_id.to_string()),
                ImageSource::Shipped { .. } | ImageSource::Registered => Vec::new(),
            },
            // An image is made of an instance where that is, and launched where it is itself.
            "source-image-region" => match &self.source {
                ImageSource::FromInstance { .. } => one(self.scope.region.to_string()),
                ImageSource::Shipped { .. } | ImageSource::Registered => Vec::new(),
            },
            // Every image has enhanced networking.
            "sriov-net-support" => vec!["simple".into()],
            "source-instance-id" => self.source_instance().map(|id| Cow::from(id.to_string())).into_iter().collect(),
            "state" => vec![self.state.as_str().into()],
            "state-reason-code" => self.state.reason().map(|(code, _)| Cow::from(code)).into_iter().collect(),
            "state-reason-message" => self.state.reason().map(|(_, message)| Cow::from(message)).into_iter().collect(),
            "virtualization-type" => vec!["hvm".into()],
            _ => Vec::new(),
        }
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }
}

fn device_values<'a>(it: &'a Image, name: &str) -> Vec<Cow<'a, str>> {
    let volumes = it.block_devices.iter().filter_map(|mapping| mapping.ebs());
    let text = |value: fn(&Ebs) -> String| volumes.clone().map(value).map(Cow::from).collect();
    match name {
        "delete-on-termination" => text(|ebs| ebs.delete_on_termination.to_string()),
        "device-name" => it.block_devices.iter().map(|mapping| Cow::from(mapping.device_name.as_str())).collect(),
        "encrypted" => text(|ebs| ebs.encrypted.to_string()),
        "snapshot-id" => volumes.clone().filter_map(|ebs| ebs.snapshot_id).map(|id| Cow::from(id.to_string())).collect(),
        "volume-size" => text(|ebs| ebs.size_gib.to_string()),
        "volume-type" => text(|ebs| ebs.volume_type.as_str().to_owned()),
        _ => Vec::new(),
    }
}
