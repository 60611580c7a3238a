//! What an instance has before its shim starts: its volumes, and the plan of its boot.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use gureum_node_domain::BootSpec;
use gureum_service::clock::monotonic;
use gureum_shim::{
    protocol::{Confinement, Limits, PLAN_FILE, Plan, STATE_FILE, read_json, write_json},
    ssh::Login,
    volumes::MEDIA,
};

use super::{BETWEEN_LOOKS, Shared, aliases, bare, changes, ids, images, inside, machine, removal::KILLED_WITHIN, volumes};
use crate::{
    bootable,
    snapshots::owner::IDS,
    user_data::{self, UserData},
};

/// What a shim says to nobody, and by whose lock it is known.
pub const SHIM_LOG: &str = "shim.log";

/// Processes and threads of an instance for each vCPU.
const TASKS_PER_VCPU: u64 = 2_048;

/// Where what is run of the user data stands in the root volume.
const USER_DATA: &str = "var/lib/gureum/user-data";

/// Takes an instance for one shim, by the lock on the log that is the shim's standard error: it has the lock from its
/// first moment on, whatever becomes of this process, and until its last. Waits for the shim of an earlier boot to end.
pub fn hold(directory: &Path) -> io::Result<File> {
    std::fs::create_dir_all(directory)?;
    let log = OpenOptions::new().create(true).append(true).open(directory.join(SHIM_LOG))?;
    let deadline = monotonic() + KILLED_WITHIN;
    loop {
        match log.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if monotonic() < deadline => std::thread::sleep(BETWEEN_LOOKS),
            Err(TryLockError::WouldBlock) => return Err(io::Error::other("the shim of an earlier boot has not ended")),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    log.set_len(0)?;
    Ok(log)
}

/// Whether there is a shim, though it may not yet have written its state.
pub fn is_held(directory: &Path) -> bool {
    let log = File::open(directory.join(SHIM_LOG));
    log.is_ok_and(|log| matches!(log.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Why a boot failed, in words that say what to do where the system's own do not.
pub fn explained(error: &io::Error, directory: &Path) -> String {
    // What has words of its own says it already.
    match error.raw_os_error() {
        Some(_) if error.kind() == io::ErrorKind::StorageFull => {
            format!("the disk of {} is full ({error}): free some of it, and launch again", directory.display())
        }
        _ => error.to_string(),
    }
}

/// Makes volumes and the plan of a boot.
pub fn prepare(shared: &Shared, directory: &Path, boot: &BootSpec) -> io::Result<Plan> {
    let spec = &boot.spec;
    let root = spec.volumes.iter().find(|volume| volume.root).ok_or_else(|| io::Error::other("it has no root volume"))?;
    let before = read_json::<Plan>(&directory.join(PLAN_FILE))?;
    let first_before = before.as_ref().and_then(|plan| plan.first_id);
    let owner = if shared.grants.own_ids { Some(ids::claim(directory, first_before)?) } else { None };
    let places = &shared.places;
    let contents = images::contents(&spec.image, root.size_gib, &shared.disks.snapshots)?;
    let root = volumes::make(places, &root.id.to_string(), root.size_gib, contents, owner)?;
    if boot.first {
        // What became of it later is its user's own.
        let refused = |error: io::Error| io::Error::new(error.kind(), format!("the image {} cannot boot: {error}", spec.image.id));
        bootable::check(&bootable::Volume(&root)).map_err(refused)?;
    }
    let mut planned = Vec::new();
    for volume in spec.volumes.iter().filter(|volume| !volume.root) {
        let made = volumes::make(places, &volume.id.to_string(), volume.size_gib, shared.disks.contents(volume), owner)?;
        planned.push(changes::planned(volume, made));
    }
    let mut notes = vec![format!("boot {} of {}", boot.boot, boot.id)];
    let (confinement, whole) = (shared.grants.confinement, images::is_whole(&root));
    let mut network = shared.connections.of(&boot.scope, spec, before.as_ref().map(|plan| &plan.network));
    if confinement == Confinement::Namespaces {
        network.alias = None;
        for volume in &planned {
            let place = format!("{MEDIA}/{}", volume.name);
            notes.push(match inside::directory(&root, &place, owner) {
                Ok(_) => format!("the volume {} is at /{place}", volume.id),
                Err(error) => format!("the volume {} cannot be shown: {error}", volume.id),
            });
        }
    } else {
        let alias = aliases::claim(directory, before.and_then(|plan| plan.network.alias))?;
        network.alias = Some(alias);
        notes.extend(bare::prepare(confinement, whole, &root, &planned, alias)?);
    }
    let read = if boot.first { user_data::read(&spec.user_data) } else { UserData::default() };
    notes.extend(read.notes);
    let mut user_data = None;
    if let Some(program) = read.program {
        inside::program(&root, USER_DATA, &program, owner)?;
        user_data = Some(PathBuf::from(USER_DATA));
    }
    let login = Login {
        user: images::user(&spec.image.source, &root).to_owned(),
        public_key: spec.key.as_ref().map(|key| key.public_key.clone()),
        first: boot.first,
    };
    let plan = Plan {
        id: boot.id.to_string(),
        boot: boot.boot,
        hostname: spec.hostname.split('.').next().unwrap_or_default().to_owned(),
        whole,
        confinement,
        boot_script: images::boot_script(&root),
        root,
        volumes: planned,
        user_data,
        notes,
        environment: machine::environment(spec, network.alias),
        first_id: owner,
        ids: IDS,
        limits: Limits {
            cpu_milli: spec.demand.vcpu_milli,
            memory_bytes: spec.demand.memory_mib << 20,
            tasks: spec.demand.vcpu_milli.div_ceil(1_000) * TASKS_PER_VCPU,
        },
        machine: shared.signer.sign(machine::of(boot, machine::pending_time(shared.clock.now())), &network),
        network,
        login: Some(login),
        with_parent: shared.volatile,
    };
    // So that nobody takes the state of an earlier boot for this one's.
    match std::fs::remove_file(directory.join(STATE_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_json(&directory.join(PLAN_FILE), &plan)?;
    Ok(plan)
}
