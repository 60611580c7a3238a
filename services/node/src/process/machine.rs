//! What an instance can learn about itself, as its shim is told.

use std::net::Ipv4Addr;

use gureum_model::Timestamp;
use gureum_node_domain::{BootSpec, InstanceSpec};
use gureum_shim::network::{
    forward::METADATA_PORT,
    metadata::{BlockDevice, Key, Machine, Options},
};

/// Where programs ask about the instance that they are in.
const ENDPOINT: &str = "http://169.254.169.254";

/// An instance that began to boot at this time.
pub fn of(boot: &BootSpec, pending_time: String) -> Machine {
    let (spec, region) = (&boot.spec, &boot.scope.region);
    let zone = spec.placement.zone.clone();
    Machine {
        id: boot.id.to_string(),
        account: boot.scope.account.to_string(),
        region: region.to_string(),
        zone_id: zone.chars().last().map(|letter| region.zone_id(letter)).unwrap_or_default(),
        zone,
        image: spec.image.id.to_string(),
        instance_type: spec.type_name.clone(),
        hostname: spec.hostname.clone(),
        public_hostname: spec.interfaces.first().map(|it| it.public_name.clone()).filter(|name| !name.is_empty()),
        launch_index: spec.placement.launch_index,
        reservation: spec.placement.reservation.to_string(),
        architecture: architecture().to_owned(),
        pending_time,
        user_data: spec.user_data.clone(),
        tags: spec.tags.0.clone().into_iter().collect(),
        key: spec.key.as_ref().map(|key| Key { name: key.name.clone(), public_key: key.public_key.clone() }),
        block_devices: spec.volumes.iter().map(|it| BlockDevice { device: it.device_name.clone(), root: it.root }).collect(),
        options: Options {
            enabled: spec.metadata_options.enabled,
            tokens_required: spec.metadata_options.tokens_required,
            hop_limit: spec.metadata_options.hop_limit,
            tags_enabled: spec.metadata_options.tags_enabled,
        },
        identity: None,
        scheduled_events: Vec::new(),
        interruption: None,
    }
}

/// A time to the second, as the original's identity document has it.
pub fn pending_time(now: Timestamp) -> String {
    let text = now.to_string();
    text.split_once('.').map_or(text.clone(), |(seconds, _)| format!("{seconds}Z"))
}

/// What its programs find in their environment. With an alias they are reached there, and by none of the VPC's addresses.
pub fn environment(spec: &InstanceSpec, alias: Option<Ipv4Addr>) -> Vec<(String, String)> {
    let endpoint = alias.map_or_else(|| ENDPOINT.to_owned(), |alias| format!("http://{alias}:{METADATA_PORT}"));
    let address = alias.or_else(|| spec.primary_address()).map(|address| ("GUREUM_PRIVATE_IP".to_owned(), address.to_string()));
    [("AWS_EC2_METADATA_SERVICE_ENDPOINT".to_owned(), endpoint)].into_iter().chain(address).collect()
}

/// The host's, as EC2 calls it: instances of this driver are its programs.
fn architecture() -> &'static str {
    if std::env::consts::ARCH == "aarch64" { "arm64" } else { std::env::consts::ARCH }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_pending_time_has_no_fraction() {
        let time = Timestamp::from_secs(1_769_848_200) + Duration::from_millis(7);
        assert_eq!(pending_time(time), "2026-01-31T08:30:00Z");
    }
}
