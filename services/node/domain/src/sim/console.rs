//! What a simulated instance would print.
//!
//! It says on its first line that it is simulated, and of user data it says that nothing was run: a user
//! who looks here for the output of a script must not wonder where it is.

use std::{fmt::Write as _, time::Duration};

use gureum_model::Timestamp;

use super::steer::Steer;
use crate::{
    driver::ExitReason,
    instance::{FailReason, Health, NodeInstance, ObservedState},
    spec::{InstanceSpec, Platform},
};

/// The tail of the console that is kept, in bytes, as EC2 keeps it.
pub const MAX_CONSOLE_BYTES: usize = 64 * 1024;

/// The console since the last boot began, as it stands at `now`. Empty before the first boot.
pub fn console(record: &NodeInstance, now: Timestamp) -> String {
    let (Some(spec), Some(began)) = (&record.spec, record.boot_began_at) else {
        return String::new();
    };
    let up_at = record.up_at.filter(|up_at| *up_at >= began);
    // Until the length of the boot is known, its lines come as in a boot of a second.
    let length = up_at.map_or(Duration::from_secs(1), |up_at| up_at.since(began));
    let shown_until = up_at.unwrap_or(now).min(now);
    let mut text = String::new();
    for (permille, line) in boot_lines(record, spec) {
        let at = length * permille / 1000;
        if began + at > shown_until {
            break;
        }
        print(&mut text, at, &line);
    }
    if let Some(up_at) = up_at {
        // Writing to a String cannot fail, here and below.
        let _ = write!(text, "\r\n{}\r\n", greeting(spec));
        if let Health::Impaired { since, message } = &record.health {
            print(&mut text, since.since(began), &format!("watchdog: BUG: soft lockup - {message}"));
        }
        end_lines(&mut text, &record.state, began.min(up_at));
    } else {
        end_lines(&mut text, &record.state, began);
    }
    tail(text)
}

fn print(text: &mut String, at: Duration, line: &str) {
    let _ = write!(text, "[{:>5}.{:06}] {line}\r\n", at.as_secs(), at.subsec_micros());
}

fn boot_lines(record: &NodeInstance, spec: &InstanceSpec) -> Vec<(u32, String)> {
    let sim = "gureum-sim: this instance is simulated: no program runs in it, and these lines are what a boot would print";
    let mut lines = vec![(0, sim.to_owned())];
    match spec.image.platform {
        Platform::Linux => linux_lines(&mut lines, record, spec),
        Platform::Windows => {
            lines.push((200, format!("Windows is booting from {}", spec.image.id)));
            lines.push((900, "Windows is ready to use".to_owned()));
        }
    }
    lines
}

fn linux_lines(lines: &mut Vec<(u32, String)>, record: &NodeInstance, spec: &InstanceSpec) {
    let Demands { cpus, memory_kib } = Demands::of(spec);
    lines.push((0, format!("Linux version 6.1.0-gureum-sim ({}) #1 SMP", spec.image.id)));
    lines.push((0, "Command line: root=/dev/xvda1 ro console=ttyS0".to_owned()));
    lines.push((40, format!("Memory: {memory_kib}K available")));
    lines.push((90, format!("smp: Brought up 1 node, {cpus} CPU{}", if cpus == 1 { "" } else { "s" })));
    for volume in &spec.volumes {
        lines.push((220, format!("nvme: {} {} {} GiB", volume.id, volume.device_name, volume.size_gib)));
    }
    lines.push((300, "EXT4-fs (xvda1): mounted filesystem with ordered data mode".to_owned()));
    lines.push((380, "systemd[1]: Detected virtualization gureum-sim.".to_owned()));
    lines.push((390, format!("systemd[1]: Hostname set to <{}>.", spec.hostname)));
    for interface in &spec.interfaces {
        let address = interface.private_addresses.first().map(ToString::to_string).unwrap_or_default();
        let (index, length) = (interface.device_index, interface.prefix_length);
        lines
            .push((520, format!("cloud-init[312]: ci-info: | ens{} | True | {address}/{length} | {} |", 5 + index, interface.mac_address)));
    }
    if let Some(key) = &spec.key {
        lines.push((700, format!("cloud-init[377]: ci-info: authorized keys: {}", key.name)));
    }
    user_data_lines(lines, record, spec);
    lines.push((980, format!("cloud-init[402]: Cloud-init finished. Datasource DataSourceEc2Local. Boot {}", record.boot)));
}

fn user_data_lines(lines: &mut Vec<(u32, String)>, record: &NodeInstance, spec: &InstanceSpec) {
    let first_run = record.first_up_at.is_none_or(|first| record.up_at == Some(first));
    let size = spec.user_data.len();
    if size == 0 {
        lines.push((800, "cloud-init[377]: no user data".to_owned()));
        return;
    }
    lines.push(if first_run {
        (800, format!("gureum-sim: {size} bytes of user data were NOT executed: the sim driver runs nothing; use a node with another driver to run them"))
    } else {
        (800, format!("cloud-init[377]: {size} bytes of user data are for the first boot only"))
    });
    for unknown in Steer::from_user_data(&spec.user_data).unknown {
        lines.push((810, format!("gureum-sim: the setting \"{}\" is not understood and has no effect", unknown.escape_debug())));
    }
}

struct Demands {
    cpus: u64,
    memory_kib: u64,
}

impl Demands {
    fn of(spec: &InstanceSpec) -> Self {
        Self { cpus: spec.demand.vcpu_milli.div_ceil(1000), memory_kib: spec.demand.memory_mib.saturating_mul(1024) }
    }
}

fn greeting(spec: &InstanceSpec) -> String {
    let host = spec.hostname.split('.').next().unwrap_or_default();
    match spec.image.platform {
        Platform::Linux => format!("{host} login: "),
        Platform::Windows => String::new(),
    }
}

fn end_lines(text: &mut String, state: &ObservedState, began: Timestamp) {
    let at = state.since().since(began);
    match state {
        ObservedState::Stopping { .. } | ObservedState::Terminating { .. } | ObservedState::Terminated { .. } => {
            print(text, at, "systemd[1]: Stopping all services: power off was asked for.");
        }
        ObservedState::Stopped { reason: ExitReason::Asked, .. } => print(text, at, "reboot: Power down"),
        ObservedState::Stopped { reason: ExitReason::InstanceInitiated, .. } => {
            print(text, at, "systemd[1]: Shutting down.");
            print(text, at, "reboot: Power down");
        }
        ObservedState::Stopped { reason: ExitReason::Crashed { message }, .. } => {
            print(text, at, &format!("gureum-sim: the instance ended by a fault: {message}"));
        }
        ObservedState::Failed { reason, .. } => match reason {
            FailReason::BootFailed { message } => {
                print(text, at, &format!("Kernel panic - not syncing: {message}"));
                print(text, at, "gureum-sim: the boot failed");
            }
            FailReason::NoRoom { .. } | FailReason::TooMany { .. } | FailReason::Unsupported { .. } | FailReason::BootTimedOut { .. } => {
                print(text, at, &format!("gureum-sim: {reason}"));
            }
        },
        ObservedState::Pending { .. } | ObservedState::Booting { .. } | ObservedState::Running { .. } | ObservedState::Rebooting { .. } => {
        }
    }
}

/// The last [`MAX_CONSOLE_BYTES`], from the beginning of a character on.
fn tail(text: String) -> String {
    let mut from = text.len().saturating_sub(MAX_CONSOLE_BYTES);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    if from == 0 { text } else { text[from..].to_owned() }
}
