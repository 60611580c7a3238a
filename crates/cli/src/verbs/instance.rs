//! How instances look in tables.

use gureum_proto::compute::v1::{Instance, InstanceStateChange};

use crate::{
    table::{Cell, Show, name_of, word},
    time::Timestamp,
};

const STATE: &str = "INSTANCE_STATE_";

impl Show for Instance {
    const NAME: &'static str = "gureum.compute.v1.Instance";
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "STATE", "TYPE", "ZONE", "PRIVATE", "PUBLIC", "KEY", "LAUNCHED"];
    const TELLS_TIME: bool = true;

    fn id(&self) -> &str {
        &self.instance_id
    }

    fn row(&self, now: Option<Timestamp>) -> Vec<Cell> {
        let zone = self.placement.as_ref().map_or("", |placement| &placement.availability_zone);
        vec![
            self.id().into(),
            name_of(&self.tags).into(),
            Cell::state(&word(self.state().as_str_name(), STATE)),
            (&self.instance_type).into(),
            zone.into(),
            (&self.private_ip_address).into(),
            (&self.public_ip_address).into(),
            (&self.key_name).into(),
            Cell::ago(self.launch_time.as_ref(), now),
        ]
    }
}

impl Show for InstanceStateChange {
    const NAME: &'static str = "gureum.compute.v1.InstanceStateChange";
    const COLUMNS: &'static [&'static str] = &["ID", "FROM", "TO"];

    fn id(&self) -> &str {
        &self.instance_id
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        let word = |state: &str| Cell::state(&word(state, STATE));
        vec![self.id().into(), word(self.previous_state().as_str_name()), word(self.current_state().as_str_name())]
    }
}

#[cfg(test)]
mod tests {
    use gureum_proto::{
        common::v1::Tag,
        compute::v1::{InstanceState, Placement},
    };

    use super::*;
    use crate::table::Table;

    fn instance(number: u32, name: &str, state: InstanceState) -> Instance {
        Instance {
            instance_id: format!("i-{number:017x}"),
            instance_type: "t3.micro".into(),
            state: state.into(),
            placement: Some(Placement { availability_zone: "us-east-1a".into(), ..Default::default() }),
            private_ip_address: format!("172.31.0.{number}"),
            public_ip_address: if state == InstanceState::Running { "127.2.0.1".into() } else { String::new() },
            launch_time: Some(prost_types::Timestamp { seconds: 1_767_225_600, nanos: 0 }),
            tags: vec![Tag { key: "Name".into(), value: name.into() }],
            ..Default::default()
        }
    }

    #[test]
    fn instances_as_ps_shows_them() {
        let instances = [instance(4, "web", InstanceState::Running), instance(5, "", InstanceState::ShuttingDown)];
        let table = Table::new::<Instance>(false).render(&instances, Some(Timestamp::from_secs(1_767_225_600 + 7200)));
        let expected = "\
ID                    NAME   STATE           TYPE       ZONE         PRIVATE      PUBLIC      KEY   LAUNCHED
i-00000000000000004   web    running         t3.micro   us-east-1a   172.31.0.4   127.2.0.1   -     2h ago
i-00000000000000005   -      shutting-down   t3.micro   us-east-1a   172.31.0.5   -           -     2h ago
";
        assert_eq!(table, expected);
    }
}
