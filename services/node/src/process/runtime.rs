//! How an instance of this driver runs, as its shim tells it.

use gureum_node_domain::{
    RuntimeReport, ScriptEnd,
    driver::{AddressMode, Isolation, Limit},
};
use gureum_shim::protocol::{Confinement, LimitedBy, State};

pub fn isolation(confinement: Confinement) -> Isolation {
    match confinement {
        Confinement::Namespaces => Isolation::Namespaces,
        Confinement::User => Isolation::User,
        Confinement::Nothing => Isolation::None,
    }
}

pub fn address_mode(confinement: Confinement) -> AddressMode {
    if confinement == Confinement::Namespaces { AddressMode::OwnInterface } else { AddressMode::LoopbackAlias }
}

/// What the state of a shim says beside whether it is up.
pub fn of(state: &State) -> RuntimeReport {
    let end = |code: Option<i32>, lines: &Vec<String>| code.map(|exit_code| ScriptEnd { exit_code, last_lines: lines.clone() });
    RuntimeReport {
        isolation: isolation(state.confinement),
        cpu_limit: limit(state.limited_by),
        memory_limit: limit(state.limited_by),
        address_mode: address_mode(state.confinement),
        user_data: end(state.user_data, &state.user_data_lines),
        boot_script: end(state.boot_script, &state.boot_script_lines),
        stuck_ports: ports(&state.stuck_ports),
    }
}

/// Ports that are told one by one: an instance may listen on all there are.
const PORTS: usize = 10;

fn ports(stuck: &[String]) -> Vec<String> {
    let more = stuck.len().saturating_sub(PORTS);
    let rest = (more > 0).then(|| format!("{more} more cannot be opened; the console names them"));
    stuck.iter().take(PORTS).cloned().chain(rest).collect()
}

pub fn limit(by: LimitedBy) -> Limit {
    match by {
        LimitedBy::CgroupV1 => Limit::CgroupV1,
        LimitedBy::CgroupV2 => Limit::CgroupV2,
        LimitedBy::Rlimit => Limit::Rlimit,
    }
}
