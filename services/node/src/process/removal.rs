//! What is left of an instance: by a shim that was killed, and when the instance goes.

use std::{io, path::Path, time::Duration};

use gureum_shim::{
    END,
    network::forward,
    protocol::{Confinement, PLAN_FILE, Plan, STATE_FILE, State, read_json},
};

use super::{Shared, aliases, changes, ids, volumes};

/// The kernel's time to end what was killed.
pub const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// Ends what a shim left that was killed. In namespaces process 1 dies with it, and takes all else with it; this makes sure.
pub fn end_what_is_left(directory: &Path, state: &State) -> io::Result<()> {
    let plan = read_json::<Plan>(&directory.join(PLAN_FILE))?;
    if plan.is_some_and(|plan| plan.confinement != Confinement::Namespaces) {
        return changes::run(|command| command.arg(END).arg(directory)).map(drop);
    }
    [Some(state.shim), state.init].into_iter().flatten().try_for_each(|process| process.kill())
}

/// Removes what a shim that was killed left in the fabric. Where another has an address by now, its socket stays.
pub fn leave_addresses(directory: &Path) {
    let Some(plan) = read_json::<Plan>(&directory.join(PLAN_FILE)).ok().flatten() else { return };
    forward::forget(&plan.network.fabric, &plan.network.interfaces);
}

pub fn remove(shared: &Shared, directory: &Path, going: &[String]) -> io::Result<()> {
    if let Some(state) = read_json::<State>(&directory.join(STATE_FILE)).ok().flatten() {
        end_what_is_left(directory, &state)?;
        if ![Some(state.shim), state.init].into_iter().flatten().all(|process| process.ends_within(KILLED_WITHIN)) {
            return Err(io::Error::other("its processes are still there"));
        }
    }
    // Also where a shim made them and was killed before it could say so.
    let id = directory.file_name().unwrap_or_default().to_string_lossy();
    gureum_shim::remove_groups(&gureum_shim::groups_of(&id));
    for id in going {
        volumes::remove(&shared.places, id)?;
    }
    leave_addresses(directory);
    ids::release(directory)?;
    aliases::release(directory)?;
    volumes::remove_directory(directory)
}
