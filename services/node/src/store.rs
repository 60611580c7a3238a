//! What the node stores. Rebuilt on start: the indexes, the books and the deadlines; and by a driver,
//! what runs.

use gureum_model::{
    Timestamp,
    id::{InstanceId, NodeId},
};
use gureum_node_domain::{NodeInstance, Step, Tombstone, plan};
use gureum_store::{IndexSink, Record};
use serde::{Deserialize, Serialize};

gureum_store::schema! {
    /// The tables of a node.
    pub struct Schema {
        pub node: NodeRow,
        pub instances: InstanceRow,
        pub tombstones: TombstoneRow,
    }
}

/// Who the node is. One row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    pub id: NodeId,
    /// From which the id follows.
    pub name: String,
    /// Grows with each start.
    pub incarnation: u64,
}

impl NodeRow {
    pub const KEY: &'static str = "self";
}

impl Record for NodeRow {
    const TABLE: &'static str = "node";

    fn key(&self) -> String {
        Self::KEY.to_owned()
    }
}

/// Instances, by id.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceRow(pub NodeInstance);

/// Instances that are not at rest, by when they are to be looked at.
pub const BY_LOOK: &str = "look";

impl Record for InstanceRow {
    const TABLE: &'static str = "instance";

    fn key(&self) -> String {
        instance_key(self.0.id)
    }

    fn index(&self, add: IndexSink<'_>) {
        if let Some(at) = next_look(&self.0) {
            add(BY_LOOK, &time_value(at));
        }
    }
}

impl std::ops::Deref for InstanceRow {
    type Target = NodeInstance;

    fn deref(&self) -> &NodeInstance {
        &self.0
    }
}

/// What is left of forgotten instances, by id.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TombstoneRow(pub Tombstone);

/// Tombstones by when they go.
pub const BY_UNTIL: &str = "until";

impl Record for TombstoneRow {
    const TABLE: &'static str = "tombstone";

    fn key(&self) -> String {
        instance_key(self.0.id)
    }

    fn index(&self, add: IndexSink<'_>) {
        add(BY_UNTIL, &time_value(self.0.until));
    }
}

pub fn instance_key(id: InstanceId) -> String {
    id.to_string()
}

/// Times as index values, in the order of time.
pub fn time_value(at: Timestamp) -> String {
    format!("{:020}", at.as_micros())
}

/// When something is to be done about an instance if nobody interferes: at once is the epoch, and none
/// is for what is at rest.
pub fn next_look(record: &NodeInstance) -> Option<Timestamp> {
    match plan(record, Timestamp::EPOCH) {
        Step::Nothing => None,
        Step::WaitUntil(at) => Some(at),
        Step::Boot(_)
        | Step::Stop { .. }
        | Step::Kill
        | Step::Reboot { .. }
        | Step::Reconfigure(_)
        | Step::Terminate
        | Step::ReportImpaired { .. } => Some(Timestamp::EPOCH),
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
