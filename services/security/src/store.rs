//! What the service stores, and how its decisions see it. Everything here is stored; nothing is rebuilt
//! on start but the indexes.

use gureum_model::{
    Scope,
    id::{PrefixListId, SecurityGroupId, VpcId},
};
use gureum_proto::security::v1::{self as proto, event::Resource};
use gureum_security_domain::{
    Directory, Hold, KeyPair, PrefixList, SecurityGroup, Vpc,
    group::name_key,
    prefix_list::{PrefixListEntry, oldest_kept},
};
use gureum_store::{EventDraft, IndexSink, Listed, Record, Transaction, row};
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::api::convert;

gureum_store::schema! {
    /// The tables of the security service.
    pub struct Schema {
        pub groups: GroupRow,
        pub key_pairs: KeyPairRow,
        pub vpcs: VpcRow,
        pub holds: HoldRow,
        pub prefix_lists: PrefixListRow,
        pub prefix_list_versions: VersionRow,
    }
}

row! {
    /// Groups, with their rules inside.
    pub struct GroupRow(SecurityGroup) = "security_group";
    filters: ["group-name", "vpc-id"];
    also: |group, add| {
        add(BY_NAME, &format_args!("{}/{}/{}", group.scope, group.vpc_id, name_key(&group.name)));
        for rule in &group.rules {
            add(BY_RULE, &format_args!("{}/{}", group.scope, rule.id));
        }
        for named in group.references() {
            add(BY_REFERENCE, &format_args!("{}/{named}", group.scope));
        }
        for list in group.prefix_lists() {
            add(BY_PREFIX_LIST, &scoped(&group.scope, list));
        }
    };
}

row! {
    /// The public halves of key pairs.
    pub struct KeyPairRow(KeyPair) = "key_pair";
    filters: ["key-name", "fingerprint"];
}

row! {
    /// Prefix lists, with the entries of their current version.
    pub struct PrefixListRow(PrefixList) = "prefix_list";
    filters: ["prefix-list-name"];
}

/// The entries of a prefix list's earlier version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VersionRow {
    scope: Scope,
    list: PrefixListId,
    version: u64,
    entries: Vec<PrefixListEntry>,
}

impl VersionRow {
    fn key_of(scope: &Scope, list: PrefixListId, version: u64) -> String {
        format!("{scope}/{list}/{version:020}")
    }
}

impl Record for VersionRow {
    const TABLE: &'static str = "prefix_list_version";

    fn key(&self) -> String {
        Self::key_of(&self.scope, self.list, self.version)
    }
}

/// Groups by VPC and name, which are unique together.
const BY_NAME: &str = "vpc and name";
/// Groups by the ids of their rules.
pub const BY_RULE: &str = "rule";
/// Groups by the other groups that their rules name.
const BY_REFERENCE: &str = "reference";
/// Groups by the prefix lists that their rules name.
const BY_PREFIX_LIST: &str = "prefix list";
/// Holds by the groups that they hold.
const BY_GROUP: &str = "group";
/// The default VPC of a scope.
const BY_DEFAULT: &str = "default";

/// A VPC that network made known.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VpcRow(pub Vpc);

impl Record for VpcRow {
    const TABLE: &'static str = "vpc";

    fn key(&self) -> String {
        scoped(&self.0.scope, self.0.id)
    }

    fn index(&self, add: IndexSink<'_>) {
        if self.0.is_default {
            add(BY_DEFAULT, &self.0.scope);
        }
    }
}

/// Which groups a holder uses.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HoldRow(pub Hold);

impl Record for HoldRow {
    const TABLE: &'static str = "hold";

    fn key(&self) -> String {
        scoped(&self.0.scope, &self.0.holder_id)
    }

    fn index(&self, add: IndexSink<'_>) {
        for group in &self.0.groups {
            add(BY_GROUP, &scoped(&self.0.scope, group));
        }
    }
}

/// A key in a scope, for what is not listed.
pub fn scoped(scope: &Scope, id: impl std::fmt::Display) -> String {
    format!("{scope}/{id}")
}

/// One scope's groups as decisions see them.
pub struct View<'a> {
    pub tables: &'a Schema,
    pub scope: &'a Scope,
}

impl<'a> View<'a> {
    pub fn default_vpc(&self) -> Option<&'a Vpc> {
        self.tables.vpcs.find(BY_DEFAULT, &self.scope.to_string()).next().map(|row| &row.record.0)
    }

    pub fn vpc(&self, id: VpcId) -> Option<&'a Vpc> {
        self.tables.vpcs.get(&scoped(self.scope, id)).map(|row| &row.record.0)
    }

    pub fn group_count(&self) -> usize {
        self.tables.groups.scan(&format!("{}/", self.scope), None).count()
    }

    pub fn groups_of(&self, vpc: VpcId) -> Vec<&'a SecurityGroup> {
        self.tables.groups.find("vpc-id", &scoped(self.scope, vpc)).map(|row| &row.record.0).collect()
    }

    /// The holds on a group.
    pub fn holders_of(&self, group: SecurityGroupId) -> Vec<&'a Hold> {
        self.tables.holds.find(BY_GROUP, &scoped(self.scope, group)).map(|row| &row.record.0).collect()
    }

    /// The other groups whose rules name a group.
    pub fn naming(&self, group: SecurityGroupId) -> Vec<&'a SecurityGroup> {
        self.tables.groups.find(BY_REFERENCE, &scoped(self.scope, group)).map(|row| &row.record.0).collect()
    }

    /// The groups whose rules name a prefix list.
    pub fn naming_list(&self, list: PrefixListId) -> Vec<&'a SecurityGroup> {
        self.tables.groups.find(BY_PREFIX_LIST, &scoped(self.scope, list)).map(|row| &row.record.0).collect()
    }

    pub fn prefix_list_count(&self) -> usize {
        self.tables.prefix_lists.scan(&format!("{}/", self.scope), None).count()
    }

    /// The entries of an earlier version, if it is kept.
    pub fn prefix_list_version(&self, list: PrefixListId, version: u64) -> Option<&'a [PrefixListEntry]> {
        let row = self.tables.prefix_list_versions.get(&VersionRow::key_of(self.scope, list, version));
        row.map(|row| row.record.entries.as_slice())
    }

    pub fn hold(&self, holder: &str) -> Option<&'a Hold> {
        self.tables.holds.get(&scoped(self.scope, holder)).map(|row| &row.record.0)
    }

    pub fn key_pair_named(&self, name: &str) -> Option<&'a KeyPair> {
        self.tables.key_pairs.find("key-name", &scoped(self.scope, name)).next().map(|row| &row.record.0)
    }

    pub fn key_pair_count(&self) -> usize {
        self.tables.key_pairs.scan(&format!("{}/", self.scope), None).count()
    }
}

impl Directory for View<'_> {
    fn group(&self, id: SecurityGroupId) -> Option<&SecurityGroup> {
        self.tables.groups.get(&GroupRow::list_key(self.scope, id)).map(|row| &row.record.0)
    }

    fn group_named(&self, vpc: VpcId, name_key: &str) -> Option<&SecurityGroup> {
        self.tables.groups.find(BY_NAME, &format!("{}/{vpc}/{name_key}", self.scope)).next().map(|row| &row.record.0)
    }

    fn prefix_list(&self, id: PrefixListId) -> Option<&PrefixList> {
        self.tables.prefix_lists.get(&PrefixListRow::list_key(self.scope, id)).map(|row| &row.record.0)
    }
}

/// What happened to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    Created,
    Changed,
    Deleted,
}

/// Writes a group as it is now and tells of it; one commit.
pub fn write_group(transaction: &mut Transaction<'_, Schema>, group: SecurityGroup, happened: Happened) {
    let kind = match happened {
        Happened::Created => "SecurityGroupCreated",
        Happened::Changed => "SecurityGroupChanged",
        Happened::Deleted => "SecurityGroupDeleted",
    };
    let resource = Resource::SecurityGroup(convert::group(&group));
    transaction.emit(draft(kind, &group.scope, group.id.to_string(), happened, resource));
    match happened {
        Happened::Created | Happened::Changed => transaction.put(GroupRow(group)),
        Happened::Deleted => drop(transaction.delete::<GroupRow>(&GroupRow(group).key())),
    }
}

/// Writes a key pair as it is now and tells of it; one commit.
pub fn write_key_pair(transaction: &mut Transaction<'_, Schema>, pair: KeyPair, happened: Happened) {
    let kind = match happened {
        Happened::Created => "KeyPairCreated",
        Happened::Changed => "KeyPairChanged",
        Happened::Deleted => "KeyPairDeleted",
    };
    let resource = Resource::KeyPair(convert::key_pair(&pair));
    transaction.emit(draft(kind, &pair.scope, pair.id.to_string(), happened, resource));
    match happened {
        Happened::Created | Happened::Changed => transaction.put(KeyPairRow(pair)),
        Happened::Deleted => drop(transaction.delete::<KeyPairRow>(&KeyPairRow(pair).key())),
    }
}

/// Writes a prefix list as it is now, keeps the entries that it had before, and tells of it; one commit.
pub fn write_prefix_list(transaction: &mut Transaction<'_, Schema>, list: PrefixList, happened: Happened) {
    let kind = match happened {
        Happened::Created => "PrefixListCreated",
        Happened::Changed => "PrefixListChanged",
        Happened::Deleted => "PrefixListDeleted",
    };
    let resource = Resource::PrefixList(convert::prefix_list_contents(&list));
    transaction.emit(draft(kind, &list.scope, list.id.to_string(), happened, resource));
    let key = PrefixListRow(list.clone()).key();
    match happened {
        Happened::Created => transaction.put(PrefixListRow(list)),
        Happened::Changed => {
            let before = transaction.prefix_lists.get(&key).map(|row| row.record.0.clone());
            if let Some(PrefixList { scope, id, version, entries, .. }) = before.filter(|before| before.version < list.version) {
                transaction.put(VersionRow { scope, list: id, version, entries });
                // One version more, so at most one is now too old.
                if let Some(old) = oldest_kept(list.version).checked_sub(1) {
                    transaction.delete::<VersionRow>(&VersionRow::key_of(&list.scope, id, old));
                }
            }
            transaction.put(PrefixListRow(list));
        }
        Happened::Deleted => {
            for version in oldest_kept(list.version)..list.version {
                transaction.delete::<VersionRow>(&VersionRow::key_of(&list.scope, list.id, version));
            }
            transaction.delete::<PrefixListRow>(&key);
        }
    }
}

fn draft(kind: &'static str, scope: &Scope, resource_id: String, happened: Happened, resource: Resource) -> EventDraft {
    EventDraft {
        kind,
        scope: scope.clone(),
        resource_id,
        causation_id: String::new(),
        deleted: happened == Happened::Deleted,
        payload: proto::Event { metadata: None, resource: Some(resource) }.encode_to_vec(),
    }
}

#[cfg(test)]
mod stored_forms {
    #[test]
    fn rows_of_every_kind_are_read_as_they_were_written() {
        let faults = gureum_store::stored_forms::faults::<super::Schema>(include_str!("../tests/stored_forms.txt"));
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}
