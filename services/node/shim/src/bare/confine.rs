//! What keeps an instance from the host where there are no namespaces: a user id that nobody else has, without any right of
//! root's; and Landlock on top of it, where the kernel has it.
//!
//! The user id alone keeps it from signalling, tracing and reading what is others', for which those have to be closed to
//! others: the node's directories are, and the services' sockets. Landlock adds that what is open to everybody on the host can
//! be read only where programs need it, and that nothing is reached by an abstract socket.
//!
//! Landlock alone, for a node that is not root, is not enough: before its ninth version it lets a process connect to any socket
//! that has a path, the services' among them.

use std::error::Error;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
};
use nix::{
    sys::prctl,
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set, set_capabilities};

use crate::{Doing, Failure, protocol::Plan};

/// What programs of the host read, and the settings beside them.
const PROGRAMS: [&str; 12] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/sys/devices/system/cpu",
    "/run/systemd/resolve",
    "/proc/self/exe",
];
/// The version of which all is asked for; what an older kernel has less goes without saying.
const VERSION: ABI = ABI::V6;

/// Becomes the instance's user for good, in the root volume, which is the current directory. Answers what is to be said of it.
pub fn as_user(plan: &Plan) -> Result<Vec<String>, Failure> {
    let id = plan.first_id.ok_or(Failure::Usage)?;
    // While the volumes can be reached by whoever this is.
    let rules = rules(plan).map_err(std::io::Error::other).doing(|| "making the rules of Landlock".into())?;
    let low_ports = capabilities(None).is_ok_and(|own| own.permitted.contains(CapabilitySet::NET_BIND_SERVICE));
    become_user(id, low_ports)?;
    prctl::set_no_new_privs().doing(|| "giving up new rights".into())?;
    let status = rules.restrict_self().map_err(std::io::Error::other).doing(|| "obeying the rules of Landlock".into())?;
    let note = match status.ruleset {
        RulesetStatus::FullyEnforced => return Ok(Vec::new()),
        RulesetStatus::PartiallyEnforced => "the kernel's Landlock is older: what all on this host may read it may read in part",
        RulesetStatus::NotEnforced => "the kernel has no Landlock: what all on this host may read it may read, as any user",
    };
    Ok(vec![note.to_owned()])
}

/// Becomes a user who has no groups, and no right but that of low ports.
pub fn become_user(id: u32, low_ports: bool) -> Result<(), Failure> {
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    setgroups(&[]).doing(|| "leaving the host's groups".into())?;
    setresgid(group, group, group).doing(|| format!("becoming the group {id}"))?;
    // Else all rights go with the user.
    prctl::set_keepcaps(low_ports).doing(|| "keeping the right of low ports".into())?;
    setresuid(user, user, user).doing(|| format!("becoming the user {id}"))?;
    let kept = if low_ports { CapabilitySet::NET_BIND_SERVICE } else { CapabilitySet::empty() };
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: kept })
        .doing(|| "giving up the rights of root".into())?;
    if low_ports {
        configure_capability_in_ambient_set(CapabilitySet::NET_BIND_SERVICE, true).doing(|| "keeping the right of low ports".into())?;
    }
    Ok(())
}

fn rules(plan: &Plan) -> Result<RulesetCreated, Box<dyn Error + Send + Sync>> {
    let everything = AccessFs::from_all(VERSION);
    let read = AccessFs::from_read(VERSION);
    let write = AccessFs::WriteFile | AccessFs::Truncate;
    let devices: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::IoctlDev | write;
    let own = PathBeneath::new(PathFd::new(".")?, everything);
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(everything)?
        .scope(Scope::from_all(VERSION))?
        .create()?
        .add_rules(path_beneath_rules(PROGRAMS, read))?
        .add_rules(path_beneath_rules(["/dev"], devices))?
        .add_rules(path_beneath_rules(["/dev/shm"], everything))?
        // Where a process says how it is to be treated; whose it is decides what more.
        .add_rules(path_beneath_rules(["/proc"], AccessFs::ReadFile | AccessFs::ReadDir | write))?
        .add_rules(path_beneath_rules(plan.volumes.iter().map(|volume| &volume.directory), everything))?
        .add_rule(own)?;
    Ok(rules)
}
