//! Making things go wrong.

use std::time::Duration;

use gureum_model::{Refusal, id::InstanceId, refusal::Violations};
use gureum_node_domain::{FaultError, sim::Fault};
use gureum_proto::node::v1::{self as proto, inject_fault_request::Fault as Wanted};
use gureum_service::Error;

use crate::api::{Api, instances, read};

/// The longest pause of heartbeats.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);
const DEFAULT_MESSAGE: &str = "injected";

/// What was asked for, read.
enum Asked {
    Pause(Duration),
    /// Of the driver; with the instance that must be up for it.
    Driver(Fault, Option<InstanceId>),
}

pub async fn inject(api: &Api, request: proto::InjectFaultRequest) -> Result<proto::InjectFaultResponse, Error> {
    match parse(request)? {
        Asked::Pause(duration) => api.pause.set(duration),
        Asked::Driver(fault, id) => {
            if let Some(id) = id {
                instances::find(&api.records.store().read(), Some(id))?;
            }
            let injected = api.driver.inject(fault).await;
            // The node knows it, so a driver that has nothing of it says that it is off.
            injected
                .map_err(|error| match error {
                    FaultError::Unknown { id } => FaultError::NotUp { id },
                    FaultError::NotSimulated { .. } | FaultError::NotUp { .. } => error,
                })
                .map_err(Refusal::from)?;
        }
    }
    Ok(proto::InjectFaultResponse {})
}

fn parse(request: proto::InjectFaultRequest) -> Result<Asked, Refusal> {
    let mut violations = Violations::new();
    let asked = match request.fault {
        None => return Err(Refusal::missing("fault")),
        Some(Wanted::PauseHeartbeats(pause)) => {
            let field = "pause_heartbeats.duration";
            let duration = read::duration(field, pause.duration.as_ref(), &mut violations);
            if duration > LONGEST_PAUSE {
                violations.add(field, format!("{} s are more than a day", duration.as_secs()));
            }
            Some(Asked::Pause(duration))
        }
        Some(Wanted::FailBoots(fail)) => {
            let id = violations.optional_id("fail_boots.instance_id", &fail.instance_id);
            Some(Asked::Driver(Fault::FailBoots { count: fail.count, id, message: message(fail.message) }, None))
        }
        Some(Wanted::KillInstance(kill)) => {
            let id = violations.id("kill_instance.instance_id", &kill.instance_id);
            id.map(|id| Asked::Driver(Fault::Kill { id, message: message(kill.message) }, Some(id)))
        }
        Some(Wanted::HangInstance(hang)) => {
            let id = violations.id("hang_instance.instance_id", &hang.instance_id);
            id.map(|id| Asked::Driver(Fault::Hang { id, hangs: !hang.resume }, Some(id)))
        }
        Some(Wanted::ShutDownInstance(shut_down)) => {
            let id = violations.id("shut_down_instance.instance_id", &shut_down.instance_id);
            id.map(|id| Asked::Driver(Fault::ShutDown { id }, Some(id)))
        }
    };
    violations.finish()?;
    asked.ok_or_else(|| Refusal::missing("fault"))
}

fn message(given: String) -> String {
    if given.is_empty() { DEFAULT_MESSAGE.to_owned() } else { given }
}
