//! An instance without namespaces of its own, for hosts that grant none: a default container, or an ordinary user where user
//! namespaces are off.
//!
//! ```text
//!  shim ──► process 1 ──► whatever the instance runs         all in the host's namespaces, and as the host's programs
//! ```
//!
//! There is no file system of its own: programs begin in the root volume and have its place in `GUREUM_ROOT`, with their home
//! and their temporary files in it. The place of process 1 is a subreaper's: what its programs leave behind becomes its
//! child, and the shim's when it is killed. Nothing of an instance is left when it has ended, for it is looked for ([`left`]).
//!
//! What keeps such an instance from the host is in [`confine`].

mod confine;
mod left;
pub mod probe;

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::ExitCode,
};

use nix::sys::prctl;
use rustix::process::geteuid;

pub(crate) use self::left::{become_sweeper, descendants, end, end_left};
use crate::{
    Doing, Failure, commands,
    init::{self, Ground, House},
    protocol::{Confinement, Plan},
    root,
    session::User,
    volumes::MEDIA,
};

/// By which a process of an instance is known where its user is the node's.
pub(crate) const MARK: &str = "GUREUM_INSTANCE_ID";

/// Is process 1 of the instance of the current directory.
pub fn run(_: &Path) -> Result<ExitCode, Failure> {
    prctl::set_child_subreaper(true).doing(|| "becoming who takes over what others leave".into())?;
    init::serve(Ground::Host)
}

/// Enters the root volume and gives up what an instance may not do.
pub(crate) fn enter(plan: &Plan) -> Result<House, Failure> {
    std::env::set_current_dir(&plan.root).doing(|| format!("entering the root volume {}", plan.root.display()))?;
    if plan.confinement == Confinement::User {
        confine::as_user(plan)?.iter().for_each(|note| init::note(note));
    }
    fill(plan).doing(|| format!("filling the root volume {}", plan.root.display()))?;
    let within = |path: &str| plan.root.join(path).to_string_lossy().into_owned();
    let shell = if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
    let name = plan.login.as_ref().map_or("root", |login| login.user.as_str());
    let home = within("root");
    let environment = [
        ("PATH", format!("{}:{}", within(root::COMMANDS.trim_start_matches('/')), root::PATH_OF_HOST)),
        ("HOME", home.clone()),
        ("TMPDIR", within("tmp")),
        ("GUREUM_ROOT", plan.root.to_string_lossy().into_owned()),
        (MARK, plan.id.clone()),
        ("HOSTNAME", plan.hostname.clone()),
        ("USER", name.to_owned()),
        ("LOGNAME", name.to_owned()),
        ("SHELL", "/bin/sh".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
    ];
    let id = geteuid().as_raw();
    let user = User { name: name.to_owned(), id, group: id, groups: Vec::new(), home, shell: shell.to_owned() };
    let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Ok(House { top: plan.root.clone(), environment, only_user: Some(user), limits: None })
}

/// Makes what programs expect to be there. The root volume is the current directory.
fn fill(plan: &Plan) -> io::Result<()> {
    for name in ["etc", "home", MEDIA, "opt/gureum/bin", "root", "run", "tmp", "var/log", "var/tmp"] {
        fs::create_dir_all(name)?;
    }
    fs::set_permissions("tmp", Permissions::from_mode(0o700))?;
    // What an earlier boot left.
    let _ = fs::remove_file("run/shutdown");
    fs::write("etc/hostname", format!("{}\n", plan.hostname))?;
    commands::write(Path::new(root::COMMANDS.trim_start_matches('/')), std::process::id(), &plan.root.join("run"))?;
    show_volumes(plan)
}

/// Shows volumes in their places as links: nothing can be mounted. A place that the instance has filled itself it keeps.
fn show_volumes(plan: &Plan) -> io::Result<()> {
    for entry in fs::read_dir(MEDIA)? {
        let place = entry?.path();
        if place.is_symlink() {
            fs::remove_file(place)?;
        }
    }
    for volume in &plan.volumes {
        let place = Path::new(MEDIA).join(&volume.name);
        // An empty one may be of a boot with namespaces.
        let _ = fs::remove_dir(&place);
        if let Err(error) = symlink(&volume.directory, &place) {
            init::note(&format!("the volume {} cannot be shown at {}: {error}", volume.id, place.display()));
        }
    }
    Ok(())
}
