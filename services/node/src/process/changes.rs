//! Volumes that come and go while their instance runs.

use std::{
    io,
    path::Path,
    process::{Command, Stdio},
};

use gureum_node_domain::{
    InstanceSpec,
    spec::{MAX_VOLUMES, VolumeSpec},
};
use gureum_shim::{
    PLUG, PULL, SHIM, UNPLUG,
    protocol::{Confinement, PLAN_FILE, Plan, PlannedVolume, read_json, write_json},
    volumes::BUSY,
};

use super::{Shared, volumes};

/// What has to come and to go.
#[derive(Debug, PartialEq, Eq)]
struct Changes {
    coming: Vec<VolumeSpec>,
    going: Vec<PlannedVolume>,
}

/// The name of a device's place within an instance: `/dev/sdf` is `sdf`. What no device is called is left out of it.
fn name_of(device: &str) -> String {
    let name = device.strip_prefix("/dev/").unwrap_or(device);
    name.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '-' }).collect()
}

/// A volume as a plan has it.
pub fn planned(volume: &VolumeSpec, directory: std::path::PathBuf) -> PlannedVolume {
    PlannedVolume { id: volume.id.to_string(), name: name_of(&volume.device_name), directory }
}

fn changes(has: &[PlannedVolume], wanted: &[VolumeSpec]) -> Changes {
    let same = |has: &PlannedVolume, wanted: &VolumeSpec| has.id == wanted.id.to_string() && has.name == name_of(&wanted.device_name);
    let wanted = || wanted.iter().filter(|volume| !volume.root).take(MAX_VOLUMES);
    Changes {
        coming: wanted().filter(|volume| !has.iter().any(|has| same(has, volume))).cloned().collect(),
        going: has.iter().filter(|has| !wanted().any(|wanted| same(has, wanted))).cloned().collect(),
    }
}

/// Gives a running instance the volumes that it is to have, and takes others away. Answers the ids of those that programs
/// still use: they are to be asked for again. What is done is done, also if it is interrupted.
///
/// The plan says of each volume that it is there before it is, and that it is not once it is not, so that a reboot of the
/// instance at any moment has what it is to have.
pub fn apply(shared: &Shared, directory: &Path, spec: &InstanceSpec) -> io::Result<Vec<String>> {
    let path = directory.join(PLAN_FILE);
    let mut plan: Plan = read_json(&path)?.ok_or_else(|| io::Error::other("the plan of its boot is gone"))?;
    let changes = changes(&plan.volumes, &spec.volumes);
    if plan.confinement != Confinement::Namespaces && !(changes.coming.is_empty() && changes.going.is_empty()) {
        let told = "volumes of a running instance change with its next boot where the host grants no namespaces";
        return Err(io::Error::new(io::ErrorKind::Unsupported, told));
    }
    let mut busy = Vec::new();
    for volume in changes.going {
        let forced = spec.pulled_volumes.iter().any(|id| id.to_string() == volume.id);
        let how = if forced { PULL } else { UNPLUG };
        if run(|command| command.arg(how).arg(directory).arg(&volume.name))? == Some(BUSY.into()) {
            busy.push(volume.id);
        } else {
            plan.volumes.retain(|other| *other != volume);
            write_json(&path, &plan)?;
        }
    }
    for volume in changes.coming {
        let made = volumes::make(&shared.places, &volume.id.to_string(), volume.size_gib, shared.disks.contents(&volume), plan.first_id)?;
        let volume = planned(&volume, made);
        plan.volumes.push(volume.clone());
        write_json(&path, &plan)?;
        run(|command| command.arg(PLUG).arg(directory).arg(&volume.name).arg(&volume.directory))?;
    }
    Ok(busy)
}

/// Has the program do a part of a shim's work. The answer is its exit code, or none if that is good.
pub fn run(arguments: impl FnOnce(&mut Command) -> &mut Command) -> io::Result<Option<i32>> {
    let mut command = Command::new("/proc/self/exe");
    arguments(command.arg(SHIM)).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.output()?;
    match output.status.code() {
        Some(0) => Ok(None),
        Some(code) if code == i32::from(BUSY) => Ok(Some(code)),
        _ => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use gureum_model::id::{ResourceId, VolumeId};

    use super::*;

    fn volume(number: u128, device: &str, root: bool) -> VolumeSpec {
        let id = VolumeId::from_number(number);
        VolumeSpec { id, device_name: device.into(), size_gib: 1, root, snapshot: None, delete_on_termination: false }
    }

    #[test]
    fn what_is_elsewhere_goes_and_comes_again_and_the_root_stays() {
        let (one, two, root) = (volume(1, "/dev/sdf", false), volume(2, "/dev/sdg", false), volume(3, "/dev/xvda", true));
        let has = [planned(&one, "/one".into()), planned(&two, "/two".into())];
        assert_eq!(changes(&has, &[root.clone(), two.clone(), one.clone()]), Changes { coming: Vec::new(), going: Vec::new() });
        let moved = volume(2, "/dev/sdh", false);
        let found = changes(&has, &[root, moved.clone()]);
        assert_eq!(found, Changes { coming: vec![moved], going: has.to_vec() });
    }

    #[test]
    fn a_name_stays_within_its_place() {
        assert_eq!(["/dev/sdf", "xvdba", "/dev/sd/../x"].map(name_of), ["sdf", "xvdba", "sd----x"]);
    }
}
