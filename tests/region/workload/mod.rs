//! What clients do all day, what they know for certain of it, and whether the region agrees.
//!
//! A kind of resource is a file: what a client does with it, what it then knows, and what an audit must find. A later
//! service adds a file, a field of [`Known`] and a line of [`KINDS`]. Whoever kills services meanwhile is not their
//! business: a client insists with the same token until the answer is definite.

mod addresses;
mod client;
mod groups;
mod images;
mod instances;
mod interfaces;
mod keys;
mod tags;
mod templates;
mod volumes;
mod vpcs;

use futures::future::BoxFuture;

pub use client::{Client, Counts};

/// What a client was told, and nobody has changed since: by kind.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub groups: groups::Groups,
    pub keys: keys::Keys,
    pub instances: instances::Instances,
    pub interfaces: interfaces::Interfaces,
    pub addresses: addresses::Addresses,
    pub volumes: volumes::Volumes,
    pub images: images::Images,
    pub templates: templates::Templates,
    pub tags: tags::Tags,
    pub vpcs: vpcs::Vpcs,
}

impl Known {
    /// What two clients of one account know together; each keeps to what it has made.
    pub fn merge(&mut self, other: Self) {
        self.groups.merge(other.groups);
        self.keys.merge(other.keys);
        self.instances.merge(other.instances);
        self.interfaces.merge(other.interfaces);
        self.addresses.merge(other.addresses);
        self.volumes.merge(other.volumes);
        self.images.merge(other.images);
        self.templates.merge(other.templates);
        self.tags.merge(other.tags);
        self.vpcs.merge(other.vpcs);
    }
}

/// One kind of resource.
pub struct Kind {
    /// How often clients turn to it.
    weight: u64,
    /// Does something with it.
    act: for<'a> fn(&'a mut Client) -> BoxFuture<'a, ()>,
    /// Finds in an account what its clients know, and nothing else.
    pub audit: for<'a> fn(&'a super::audit::Account) -> BoxFuture<'a, ()>,
}

macro_rules! kind {
    ($kind:ident, $weight:literal) => {
        Kind { weight: $weight, act: |client| Box::pin($kind::act(client)), audit: |account| Box::pin($kind::audit(account)) }
    };
}

/// Everything that clients do.
pub const KINDS: &[Kind] = &[
    kind!(groups, 3),
    kind!(keys, 1),
    kind!(instances, 8),
    kind!(interfaces, 5),
    kind!(addresses, 5),
    kind!(volumes, 4),
    kind!(images, 2),
    kind!(templates, 1),
    kind!(tags, 2),
    kind!(vpcs, 2),
];
