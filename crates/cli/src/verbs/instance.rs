//! How instances look in tables.

use gureum_proto::{
    common::v1::ScriptEnd,
    compute::v1::{Instance, InstanceState, InstanceStateChange},
};

use crate::{
    table::{Cell, Show, name_of, one_line, word},
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

    const WIDE: &'static [&'static str] = &["ISOLATION", "CPU-LIMIT", "MEMORY-LIMIT", "ADDRESS", "USER-DATA", "BOOT-SCRIPT", "STUCK-PORTS"];

    fn wide(&self) -> Vec<Cell> {
        let runtime = self.runtime.clone().unwrap_or_default();
        let end = |end: &Option<ScriptEnd>| match end {
            None => "".into(),
            Some(end) if end.exit_code() == 0 => "ok".into(),
            Some(end) => Cell::bad(&format!("failed({})", end.exit_code())),
        };
        vec![
            runtime.isolation.into(),
            runtime.cpu_limit.into(),
            runtime.memory_limit.into(),
            runtime.address_mode.into(),
            end(&runtime.user_data),
            end(&runtime.boot_script),
            Cell::number(i64::try_from(runtime.stuck_ports.len()).unwrap_or(i64::MAX)),
        ]
    }
}

/// What is wrong with instances that run, in lines: their state alone would look as if nothing were.
pub fn troubles(instances: &[Instance]) -> Vec<String> {
    instances.iter().filter(|instance| instance.state() == InstanceState::Running).flat_map(troubles_of).collect()
}

fn troubles_of(instance: &Instance) -> Vec<String> {
    let Some(runtime) = &instance.runtime else { return Vec::new() };
    let name = match name_of(&instance.tags) {
        "" => instance.instance_id.clone(),
        name => format!("{} ({})", instance.instance_id, one_line(name)),
    };
    let mut lines = Vec::new();
    for (script, end) in [("user data", &runtime.user_data), ("boot script", &runtime.boot_script)] {
        let Some(end) = end.as_ref().filter(|end| end.exit_code() != 0) else { continue };
        let more = if end.last_lines.is_empty() { "and wrote nothing" } else { "and wrote last:" };
        lines.push(format!("{name}: its {script} failed with exit code {} {more}", end.exit_code()));
        lines.extend(end.last_lines.iter().map(|line| format!("    {}", one_line(line))));
    }
    lines.extend(runtime.stuck_ports.iter().map(|port| format!("{name}: {}", one_line(port))));
    lines
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
        common::v1::{RuntimeReport, Tag},
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

    #[test]
    fn an_instance_whose_scripts_failed_does_not_look_fine() {
        let mut failing = instance(4, "web", InstanceState::Running);
        failing.runtime = Some(RuntimeReport {
            isolation: "namespaces".into(),
            cpu_limit: "cgroup-v2".into(),
            memory_limit: "rlimit".into(),
            address_mode: "own-interface".into(),
            user_data: Some(ScriptEnd { exit_code: Some(3), last_lines: vec!["no such\u{1b}[2J file".into()] }),
            boot_script: Some(ScriptEnd { exit_code: Some(0), last_lines: vec!["ready".into()] }),
            stuck_ports: vec!["port 80 (tcp) cannot be reached".into()],
        });
        let expected = "\
i-00000000000000004 (web): its user data failed with exit code 3 and wrote last:
    no such [2J file
i-00000000000000004 (web): port 80 (tcp) cannot be reached";
        assert_eq!(troubles(&[failing.clone(), instance(5, "", InstanceState::Running)]).join("\n"), expected);
        let wide = Table::new::<Instance>(false).wide(true).render(&[failing.clone()], None);
        assert!(wide.contains("ISOLATION    CPU-LIMIT   MEMORY-LIMIT   ADDRESS         USER-DATA   BOOT-SCRIPT   STUCK-PORTS\n"), "{wide}");
        assert!(wide.contains("namespaces   cgroup-v2   rlimit         own-interface   failed(3)   ok            1\n"), "{wide}");
        failing.set_state(InstanceState::Stopped);
        assert_eq!(troubles(&[failing]), Vec::<String>::new());
    }
}
