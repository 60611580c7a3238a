//! Tags, over the gateway's one call for the resources of all services.

use std::collections::BTreeMap;

use gureum_proto::{
    common::v1::{Tag, TagSelector},
    gateway::v1::{CreateTagsRequest, DeleteTagsRequest, DescribeTagsRequest, tagging_service_client::TaggingServiceClient},
};

use super::client::{Client, change};
use crate::{audit::Account, harness::all_pages};

/// Values by resource and key.
#[derive(Debug, Clone, Default)]
pub struct Tags {
    pub all: BTreeMap<(String, String), String>,
}

impl Tags {
    pub fn merge(&mut self, other: Self) {
        self.all.extend(other.all);
    }
}

/// Every resource of the client that can be tagged.
fn resources(known: &super::Known) -> Vec<String> {
    let living = known.groups.living.keys().chain(known.interfaces.living.keys()).chain(known.addresses.living.keys());
    let living = living.chain(known.volumes.living.keys()).chain(&known.images.images);
    living.chain(known.templates.living.keys()).chain(known.instances.living().map(|(id, _)| id)).cloned().collect()
}

pub async fn act(client: &mut Client) {
    let all = resources(&client.known);
    let (Some(one), Some(other)) = (client.pick(all.clone()), client.pick(all)) else { return };
    let mut resource_ids = vec![one, other];
    resource_ids.dedup();
    let (ids, key) = (resource_ids.clone(), format!("key-{}", client.chance.below(3)));
    if client.chance.below(4) == 0 {
        let tags = vec![TagSelector { key: key.clone(), ..Default::default() }];
        change!(client, TaggingServiceClient, delete_tags, DeleteTagsRequest { resource_ids: ids, tags: tags.clone() }).unwrap();
        for id in resource_ids {
            client.known.tags.all.remove(&(id, key.clone()));
        }
    } else {
        let value = client.name("value");
        let tags = vec![Tag { key: key.clone(), value: value.clone() }];
        change!(client, TaggingServiceClient, create_tags, CreateTagsRequest { resource_ids: ids, tags: tags.clone() }).unwrap();
        for id in resource_ids {
            client.known.tags.all.insert((id, key.clone()), value.clone());
        }
    }
}

/// What is gone has no tags; what ended is shown for a while with them.
pub async fn audit(account: &Account) {
    let all = all_pages!(account.door, TaggingServiceClient, describe_tags, DescribeTagsRequest, tags);
    let living = resources(&account.known);
    let found: BTreeMap<(String, String), String> =
        all.into_iter().filter(|tag| living.contains(&tag.resource_id)).map(|tag| ((tag.resource_id, tag.key), tag.value)).collect();
    let mut wanted = account.known.tags.all.clone();
    wanted.retain(|(resource, _), _| living.contains(resource));
    assert_eq!(found, wanted, "tags found, and acknowledged");
}
