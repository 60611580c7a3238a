//! The network service's own settings.

use gureum_network_domain::{Limits, Rules, pool::Ranges};
use gureum_service::config;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// What only the network service is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Networks from which public addresses and elastic IPs come. Default 127.2.0.0/15, a slice of the
    /// loopback range; two regions on one host must not share any.
    #[serde(default = "default_pool")]
    pub public_pool: Vec<String>,
    /// Elastic IPs that one account may have in a region. Default 5, as in EC2.
    #[serde(default = "default_elastic_addresses")]
    pub elastic_addresses: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { public_pool: default_pool(), elastic_addresses: default_elastic_addresses() }
    }
}

fn default_pool() -> Vec<String> {
    vec!["127.2.0.0/15".to_owned()]
}

fn default_elastic_addresses() -> usize {
    Limits::default().elastic_addresses
}

impl config::Settings for Settings {
    const PEERS: &'static [&'static str] = &["security"];

    fn faults(&self) -> Vec<String> {
        self.rules().err().unwrap_or_default()
    }
}

impl Settings {
    /// The rules that decisions follow. Error: everything that is wrong with the settings.
    pub fn rules(&self) -> Result<Rules, Vec<String>> {
        let mut faults = Vec::new();
        let mut networks = Vec::new();
        for text in &self.public_pool {
            match text.parse::<Ipv4Net>() {
                Ok(network) => networks.push(network),
                Err(_) => faults.push(format!("settings.public_pool: \"{text}\" is no IPv4 network: expected such as 127.2.0.0/15")),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let public = Ranges::public(&networks).map_err(|error| vec![format!("settings.public_pool: {error}")])?;
        Ok(Rules { limits: Limits { elastic_addresses: self.elastic_addresses, ..Limits::default() }, public })
    }
}
