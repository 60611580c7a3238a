//! Key pairs.

use std::collections::BTreeMap;

use gureum_proto::security::v1::{security_service_client::SecurityServiceClient, *};

use super::client::{Client, change};
use crate::{
    audit::Account,
    harness::{all_pages, ask},
};

/// Ids by name.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    pub living: BTreeMap<String, String>,
}

impl Keys {
    pub fn merge(&mut self, other: Self) {
        self.living.extend(other.living);
    }
}

pub async fn act(client: &mut Client) {
    match client.pick(client.known.keys.living.keys().cloned()).filter(|_| client.chance.below(2) == 0) {
        Some(name) => {
            let key_name = name.clone();
            change!(client, SecurityServiceClient, delete_key_pair, DeleteKeyPairRequest { key_name: key_name }).unwrap();
            client.known.keys.living.remove(&name);
        }
        // A repeat does not get the private key again, so its answer differs.
        None => {
            let (client_token, key_name) = (client.token(), client.name("key"));
            // An RSA key takes its time to make, and nothing here depends on its kind.
            let key_type = KeyType::Ed25519.into();
            let request = CreateKeyPairRequest { client_token, key_name: key_name.clone(), key_type, ..Default::default() };
            let made = ask!(client.door, SecurityServiceClient, create_key_pair, request).unwrap();
            client.known.keys.living.insert(key_name, made.key_pair.unwrap().key_pair_id);
        }
    }
}

pub async fn audit(account: &Account) {
    let pairs = all_pages!(account.door, SecurityServiceClient, describe_key_pairs, DescribeKeyPairsRequest, key_pairs);
    let found: BTreeMap<String, String> = pairs.into_iter().map(|pair| (pair.key_name, pair.key_pair_id)).collect();
    assert_eq!(found, account.known.keys.living, "key pairs found, and acknowledged");
}
