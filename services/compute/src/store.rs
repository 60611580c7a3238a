//! What compute stores, by which indexes it finds it, and how each change tells of itself.
//!
//! Rows are the domain's records as they are. Rebuilt on start, and never stored: the placement index
//! ([`crate::places`]) and what is known of nodes beside their rows ([`crate::fleet`]).

use std::{borrow::Cow, collections::BTreeSet, ops::Deref};

use gureum_compute_domain::{
    console::Console,
    disk_work::DiskWork,
    image::{self, Image},
    instance::{Instance, InstanceState},
    launch_intent::Launch,
    launch_template::{LaunchTemplate, LaunchTemplateVersion},
    marketplace::{Acceptance, Listing, ProductCode},
    node::Node,
    snapshot::{self, Snapshot},
    volume::{self, Volume},
};
use gureum_model::{
    AccountId, Filterable, Region, Scope, Tags, Timestamp,
    id::{ImageId, LaunchTemplateId, NodeId, ReservationId, SnapshotId},
};
use gureum_proto::compute::v1 as proto;
use gureum_store::{EventDraft, IndexSink, Listed, Record, Transaction};
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::{convert, places::Places};

mod disk_work;
mod disks;
mod images;

pub use disk_work::{
    choose_node, conclude_work, fail_work, keeper_of_files, keeps_files, left_by, waits, work_for_deleted_snapshot,
    work_for_deleted_volume, work_for_new_snapshot, work_for_new_volume,
};
pub use disks::{decide_snapshot, decide_volume, match_volumes, put_snapshot, put_volume, release_volumes, settle_volumes};
pub use images::{decide_image, put_acceptance, put_image, put_listing, settle_image};

gureum_store::schema! {
    /// Everything that compute keeps.
    pub struct Schema {
        pub instances: InstanceRow,
        /// What instances last wrote, where their nodes may not tell it any more.
        pub consoles: ConsoleRow,
        /// Launches between their being accepted and their being answered.
        pub launches: LaunchRow,
        pub launch_templates: LaunchTemplateRow,
        pub versions: VersionRow,
        pub volumes: VolumeRow,
        pub snapshots: SnapshotRow,
        /// What nodes have still to do for volumes and snapshots.
        pub disk_work: DiskWorkRow,
        /// Those that ship are not here: they follow from a table.
        pub images: ImageRow,
        pub listings: ListingRow,
        pub acceptances: AcceptanceRow,
        /// Hosts, which belong to no scope.
        pub nodes: NodeRow,
        /// How far each node has been followed.
        pub node_cursors: NodeCursor,
        /// The key of the region's identity documents, once it was needed.
        pub identities: IdentityRow,
    }
}

/// A decision of this service in the making.
pub type Tx<'a> = Transaction<'a, Schema>;

/// Wraps records of the domain crate, because their traits are another crate's.
macro_rules! rows {
    ($($(#[$doc:meta])* $row:ident($record:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $row(pub $record);

        impl Deref for $row {
            type Target = $record;

            fn deref(&self) -> &$record {
                &self.0
            }
        }
    )*};
}

/// As `rows!`, for records that users list by id.
macro_rules! listed_rows {
    ($($(#[$doc:meta])* $row:ident($record:ty) in $table:literal, indexed by $filters:expr, and $index:expr;)*) => {$(
        rows! { $(#[$doc])* $row($record); }

        impl Filterable for $row {
            const FILTER_NAMES: &'static [&'static str] = <$record as Filterable>::FILTER_NAMES;

            fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
                self.0.filter_values(name)
            }

            fn filter_tags(&self) -> Option<&Tags> {
                self.0.filter_tags()
            }
        }

        impl Record for $row {
            const TABLE: &'static str = $table;

            fn key(&self) -> String {
                Self::list_key(&self.0.scope, self.0.id)
            }

            fn index(&self, add: IndexSink<'_>) {
                self.index_filters(add);
                let more: fn(&$record, IndexSink<'_>) = $index;
                more(&self.0, add);
            }
        }

        impl Listed for $row {
            const INDEXED_FILTERS: &'static [&'static str] = $filters;

            fn scope(&self) -> &Scope {
                &self.0.scope
            }
        }
    )*};
}

listed_rows! {
    /// An instance.
    InstanceRow(Instance) in "instance", indexed by &[
        "private-ip-address",
        "ip-address",
        "reservation-id",
        "instance.group-id",
        "key-name",
        "image-id",
        "subnet-id",
        "vpc-id",
        "instance-type",
        "availability-zone",
        INSTANCE_STATE_INDEX,
    ], and index_instance;
    /// A launch template.
    LaunchTemplateRow(LaunchTemplate) in "launch_template", indexed by &[TEMPLATE_NAME_INDEX], and |_, _| {};
    /// A volume.
    VolumeRow(Volume) in "volume", indexed by &[ATTACHMENT_INDEX, "snapshot-id", "status"], and |it, add| {
        index_due(volume::due(it), add);
    };
}

rows! {
    /// What an instance last wrote to its console. It goes with the instance's row, and has the same key.
    ConsoleRow(Console);
    /// A snapshot. What users filter is the snapshot at a moment, because its progress is a function of time.
    SnapshotRow(Snapshot);
    /// What a node has still to do for a volume or a snapshot. It has the key of that one's row.
    DiskWorkRow(DiskWork);
    /// An image.
    ImageRow(Image);
    /// A listing on the marketplace.
    ListingRow(Listing);
    /// An account's acceptance of a product's terms.
    AcceptanceRow(Acceptance);
    /// A launch under way.
    LaunchRow(Launch);
    /// A version of a launch template.
    VersionRow(LaunchTemplateVersion);
    /// A node.
    NodeRow(Node);
}

/// Instances of a scope by the name of their state.
pub const INSTANCE_STATE_INDEX: &str = "instance-state-name";
/// Instances by the node that has them, former ones included.
pub const NODE_INDEX: &str = "node";
/// Instances by their interfaces.
pub const INTERFACE_INDEX: &str = "interface";
/// Instances for which something has to be done, by [`PENDING_WORK`] or, once all is done but their
/// being forgotten, [`ENDED`].
pub const WORK_INDEX: &str = "work";
/// See [`WORK_INDEX`].
pub const PENDING_WORK: &str = "pending";
/// See [`WORK_INDEX`].
pub const ENDED: &str = "ended";
/// Volumes of a scope by the instances that have them.
pub const ATTACHMENT_INDEX: &str = "attachment.instance-id";
/// Volumes, snapshots and images by when time alone will next change them: see [`due_value`].
pub const DUE_INDEX: &str = "due";
/// Images and snapshots of all accounts by id, because they can be shared; listings by product code.
pub const ID_INDEX: &str = "id";
/// Images and snapshots by those who see them beside their owner: see [`seen_by_all`] and [`seen_by`].
pub const VISIBLE_INDEX: &str = "visible";
/// Images of a scope by name, but for deregistered ones: a name is unique among them.
pub const IMAGE_NAME_INDEX: &str = "image-name";
/// Images by the snapshots that they hold.
pub const SNAPSHOT_INDEX: &str = "snapshot";
/// Launch templates of a scope by name.
pub const TEMPLATE_NAME_INDEX: &str = "launch-template-name";

fn index_instance(it: &Instance, add: IndexSink<'_>) {
    for interface in &it.interfaces {
        add(INTERFACE_INDEX, &interface.id);
    }
    for node in it.node.iter().chain(&it.former_nodes) {
        add(NODE_INDEX, &node);
    }
    if needs_work(it) {
        add(WORK_INDEX, &PENDING_WORK);
    } else if matches!(it.state, InstanceState::Terminated { .. }) {
        add(WORK_INDEX, &ENDED);
    }
}

/// Whether a reconciler has something to do for an instance, or may have. What a dead node had is found
/// by the node.
pub fn needs_work(it: &Instance) -> bool {
    let by_state = match &it.state {
        InstanceState::Pending { .. } | InstanceState::Stopping { .. } | InstanceState::ShuttingDown { .. } => true,
        InstanceState::Running { .. } => it.observed.generation != it.generation,
        InstanceState::Stopped { .. } => false,
        InstanceState::Terminated { .. } => it.node.is_some(),
    };
    by_state || !it.former_nodes.is_empty()
}

fn index_due(due: Option<Timestamp>, add: IndexSink<'_>) {
    if let Some(due) = due {
        add(DUE_INDEX, &due_value(due));
    }
}

/// How times are ordered in [`DUE_INDEX`].
pub fn due_value(time: Timestamp) -> String {
    format!("{:020}", time.as_micros())
}

/// The value in [`VISIBLE_INDEX`] of what every account of a region sees.
pub fn seen_by_all(region: &Region) -> String {
    format!("{region}/all")
}

/// The value in [`VISIBLE_INDEX`] of what is shared with an account.
pub fn seen_by(viewer: &Scope) -> String {
    format!("{}/{}", viewer.region, viewer.account)
}

fn index_visible(region: &Region, all: bool, accounts: &BTreeSet<AccountId>, add: IndexSink<'_>) {
    if all {
        add(VISIBLE_INDEX, &seen_by_all(region));
    }
    for account in accounts {
        add(VISIBLE_INDEX, &seen_by(&Scope { account: *account, region: region.clone() }));
    }
}

impl Record for ConsoleRow {
    const TABLE: &'static str = "console";

    fn key(&self) -> String {
        InstanceRow::list_key(&self.scope, self.instance_id)
    }
}

impl SnapshotRow {
    pub fn key_of(scope: &Scope, id: SnapshotId) -> String {
        format!("{scope}/{id}")
    }
}

impl Record for SnapshotRow {
    const TABLE: &'static str = "snapshot";

    fn key(&self) -> String {
        Self::key_of(&self.scope, self.id)
    }

    fn index(&self, add: IndexSink<'_>) {
        add(ID_INDEX, &self.id);
        index_due(snapshot::due(self), add);
        index_visible(&self.scope.region, self.permissions.all, &self.permissions.accounts, add);
    }
}

impl ImageRow {
    pub fn key_of(scope: &Scope, id: ImageId) -> String {
        format!("{scope}/{id}")
    }

    /// The value in [`IMAGE_NAME_INDEX`].
    pub fn name_value(scope: &Scope, name: &str) -> String {
        format!("{scope}/{name}")
    }
}

impl Record for ImageRow {
    const TABLE: &'static str = "image";

    fn key(&self) -> String {
        Self::key_of(&self.scope, self.id)
    }

    fn index(&self, add: IndexSink<'_>) {
        add(ID_INDEX, &self.id);
        index_due(image::due(self), add);
        index_visible(&self.scope.region, self.permissions.all || self.listed, &self.permissions.accounts, add);
        if self.holds_snapshots() {
            add(IMAGE_NAME_INDEX, &Self::name_value(&self.scope, &self.name));
            for snapshot in self.snapshots() {
                add(SNAPSHOT_INDEX, &snapshot);
            }
        }
    }
}

impl ListingRow {
    pub fn key_of(scope: &Scope, code: &ProductCode) -> String {
        format!("{scope}/{code}")
    }
}

impl Record for ListingRow {
    const TABLE: &'static str = "listing";

    fn key(&self) -> String {
        Self::key_of(&self.scope, &self.product_code)
    }

    fn index(&self, add: IndexSink<'_>) {
        add(ID_INDEX, &self.product_code);
    }
}

impl AcceptanceRow {
    /// Who has accepted a product's terms has accepted them in every region.
    pub fn key_of(account: AccountId, code: &str) -> String {
        format!("{account}/{code}")
    }
}

impl Record for AcceptanceRow {
    const TABLE: &'static str = "acceptance";

    fn key(&self) -> String {
        Self::key_of(self.scope.account, self.product_code.as_str())
    }
}

impl LaunchRow {
    pub fn key_of(scope: &Scope, reservation: ReservationId) -> String {
        format!("{scope}/{reservation}")
    }
}

impl Record for LaunchRow {
    const TABLE: &'static str = "launch";

    fn key(&self) -> String {
        Self::key_of(&self.scope, self.reservation_id)
    }
}

impl VersionRow {
    /// What the keys of a template's versions begin with; they are in the order of the numbers.
    pub fn prefix(scope: &Scope, template: LaunchTemplateId) -> String {
        format!("{scope}/{template}/")
    }

    pub fn key_of(scope: &Scope, template: LaunchTemplateId, number: u64) -> String {
        format!("{}{number:020}", Self::prefix(scope, template))
    }
}

impl Record for VersionRow {
    const TABLE: &'static str = "launch_template_version";

    fn key(&self) -> String {
        Self::key_of(&self.scope, self.template_id, self.number)
    }
}

impl Record for NodeRow {
    const TABLE: &'static str = "node";

    fn key(&self) -> String {
        self.id.to_string()
    }
}

/// How far a node has been followed. It begins anew with each start of the node's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCursor {
    pub node: NodeId,
    pub incarnation: u64,
    pub sequence: u64,
}

impl Record for NodeCursor {
    const TABLE: &'static str = "node_cursor";

    fn key(&self) -> String {
        self.node.to_string()
    }
}

/// The key by which the region vouches for its instances: PKCS#8 in DER. Secret, so it shows itself to nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityRow {
    pub key: Vec<u8>,
}

impl IdentityRow {
    /// There is one.
    pub const ONLY: &'static str = "identity";
}

impl std::fmt::Debug for IdentityRow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("IdentityRow(…)")
    }
}

impl Record for IdentityRow {
    const TABLE: &'static str = "identity";

    fn key(&self) -> String {
        Self::ONLY.to_owned()
    }
}

/// What a change tells of: what happened, and which event or call led to it.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    pub kind: &'static str,
    /// Empty if a user's call led to it.
    pub causation: &'a str,
}

impl Told<'static> {
    pub const fn new(kind: &'static str) -> Self {
        Self { kind, causation: "" }
    }
}

/// An event about a resource of a scope.
fn emit(tx: &mut Tx<'_>, told: Told<'_>, scope: Scope, resource_id: String, deleted: bool, resource: proto::event::Resource) {
    tx.emit(EventDraft {
        kind: told.kind,
        scope,
        resource_id,
        causation_id: told.causation.to_owned(),
        deleted,
        payload: proto::Event { metadata: None, resource: Some(resource) }.encode_to_vec(),
    });
}

/// Writes an instance, tells of it, and gives its place back if it holds none any more.
pub fn put_instance(tx: &mut Tx<'_>, places: &Places, it: Instance, causation: &str) {
    let row = InstanceRow(it);
    let before = tx.instances.get(&row.key()).map(|before| before.state.name());
    let kind = match before {
        None => "InstanceLaunched",
        Some(before) if before != row.state.name() => "InstanceStateChanged",
        Some(_) => "InstanceChanged",
    };
    if !row.holds_capacity {
        places.release(row.id);
    }
    let resource = proto::event::Resource::Instance(convert::instance::told(&row));
    emit(tx, Told { kind, causation }, row.scope.clone(), row.id.to_string(), false, resource);
    tx.put(row);
}

/// Keeps what an instance wrote, if it is still there and this is news.
pub fn put_console(tx: &mut Tx<'_>, console: Console) {
    let row = ConsoleRow(console);
    let key = row.key();
    if tx.instances.get(&key).is_some() && row.replaces(tx.consoles.get(&key).map(|kept| &kept.record.0)) {
        tx.put(row);
    }
}

/// Removes an instance that has been shown long enough, and its console.
pub fn remove_instance(tx: &mut Tx<'_>, places: &Places, key: &str) {
    let Some(row) = tx.delete::<InstanceRow>(key) else { return };
    tx.delete::<ConsoleRow>(key);
    places.release(row.id);
    let resource = proto::event::Resource::Instance(convert::instance::told(&row));
    emit(tx, Told::new("InstanceForgotten"), row.scope.clone(), row.id.to_string(), true, resource);
}

/// Writes a launch template and tells of it.
pub fn put_template(tx: &mut Tx<'_>, kind: &'static str, template: LaunchTemplate) {
    let resource = proto::event::Resource::LaunchTemplate(convert::template::template(&template));
    emit(tx, Told::new(kind), template.scope.clone(), template.id.to_string(), false, resource);
    tx.put(LaunchTemplateRow(template));
}

/// Writes a version of a launch template and tells of it.
pub fn put_version(tx: &mut Tx<'_>, template: &LaunchTemplate, version: LaunchTemplateVersion) {
    let resource = proto::event::Resource::LaunchTemplateVersion(convert::template::version(template, &version));
    let id = format!("{}/{}", template.id, version.number);
    emit(tx, Told::new("LaunchTemplateVersionCreated"), version.scope.clone(), id, false, resource);
    tx.put(VersionRow(version));
}

/// Removes a version of a launch template and tells of it.
pub fn remove_version(tx: &mut Tx<'_>, template: &LaunchTemplate, number: u64) {
    let Some(row) = tx.delete::<VersionRow>(&VersionRow::key_of(&template.scope, template.id, number)) else { return };
    let resource = proto::event::Resource::LaunchTemplateVersion(convert::template::version(template, &row));
    let id = format!("{}/{number}", template.id);
    emit(tx, Told::new("LaunchTemplateVersionDeleted"), template.scope.clone(), id, true, resource);
}

/// Removes a launch template, whose versions are gone, and tells of it.
pub fn remove_template(tx: &mut Tx<'_>, template: &LaunchTemplate) {
    tx.delete::<LaunchTemplateRow>(&LaunchTemplateRow::list_key(&template.scope, template.id));
    let resource = proto::event::Resource::LaunchTemplate(convert::template::template(template));
    emit(tx, Told::new("LaunchTemplateDeleted"), template.scope.clone(), template.id.to_string(), true, resource);
}

/// Writes a node, tells of it, and opens or closes it for placement.
///
/// Nodes belong to no scope; their events are told in the default one, and only to other services.
pub fn put_node(tx: &mut Tx<'_>, places: &Places, kind: &'static str, node: Node) {
    let up = matches!(node.state, gureum_compute_domain::node::NodeState::Up { .. });
    let available = {
        let mut placement = places.lock();
        placement.set_node(node.id, node.zone, node.capacity, up);
        placement.of_node(node.id)
    };
    let resource = proto::event::Resource::Node(convert::node::node(&node, available));
    emit(tx, Told::new(kind), Scope::default(), node.id.to_string(), false, resource);
    tx.put(NodeRow(node));
}

#[cfg(test)]
mod stored_forms {
    #[test]
    fn rows_of_every_kind_are_read_as_they_were_written() {
        let faults = gureum_store::stored_forms::faults::<super::Schema>(include_str!("../tests/stored_forms.txt"));
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}
