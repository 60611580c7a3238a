//! What this host grants to instances, and what keeps them from it then.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use gureum_shim::{bare::probe, protocol::Confinement};

use crate::snapshots::owner::{FIRST, IDS};

/// What all instances of this node get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    pub confinement: Confinement,
    /// Why no instance is booted.
    pub refusal: Option<String>,
    /// Instances have user ids of the host's that nobody else has.
    pub own_ids: bool,
}

impl Grants {
    /// Looks what there is, and opens the way to the volumes for users who have to pass.
    pub fn find(storage: &Path, volumes: &Path, root: bool, unconfined: bool) -> io::Result<Self> {
        let found = probe::look(root.then_some(FIRST), IDS);
        let mut closed = None;
        if found.namespaces.is_some() && found.user.is_none() {
            for place in [storage, volumes] {
                // They see nothing but what they know the name of, and volumes are closed to all but their own.
                fs::set_permissions(place, fs::Permissions::from_mode(0o711))?;
            }
            closed = closed_to_others(&volumes.canonicalize()?);
        }
        Ok(decide(&found, closed.as_deref(), root, unconfined))
    }
}

/// The directory on the way to a place that users without rights cannot pass.
fn closed_to_others(place: &Path) -> Option<PathBuf> {
    let is_closed = |directory: &&Path| fs::metadata(directory).is_ok_and(|found| found.permissions().mode() & 0o001 == 0);
    place.ancestors().find(is_closed).map(Path::to_owned)
}

fn decide(found: &probe::Grants, closed: Option<&Path>, root: bool, unconfined: bool) -> Grants {
    let Some(namespaces) = &found.namespaces else {
        return Grants { confinement: Confinement::Namespaces, refusal: None, own_ids: root };
    };
    let user = match (&found.user, closed) {
        (None, None) => return Grants { confinement: Confinement::User, refusal: None, own_ids: true },
        (None, Some(closed)) => format!(
            "they could not get to their volumes, since {} is closed to all but its owner: keep the region elsewhere, by --directory or \
             settings.storage of the node",
            closed.display()
        ),
        (Some(reason), _) => reason.clone(),
    };
    let refusal = format!(
        "nothing on this host would keep an instance from it: it can have no namespaces ({namespaces}) and no user of its own ({user}). \
         With --unconfined (settings.unconfined of the node) instances run all the same, and may do whatever the node's user may"
    );
    Grants { confinement: Confinement::Nothing, refusal: (!unconfined).then_some(refusal), own_ids: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(namespaces: Option<&str>, user: Option<&str>) -> probe::Grants {
        probe::Grants { namespaces: namespaces.map(str::to_owned), user: user.map(str::to_owned) }
    }

    #[test]
    fn the_strongest_that_there_is_keeps_instances_and_without_any_consent_is_needed() {
        let confinement = |found: &probe::Grants, closed, unconfined| {
            let decided = decide(found, closed, true, unconfined);
            (decided.confinement, decided.refusal.is_some())
        };
        assert_eq!(confinement(&found(None, None), None, true), (Confinement::Namespaces, false), "consent weakens nothing");
        assert_eq!(confinement(&found(Some("off"), None), None, true), (Confinement::User, false));
        assert_eq!(confinement(&found(Some("off"), None), Some(Path::new("/root")), false), (Confinement::Nothing, true));
        assert_eq!(confinement(&found(Some("off"), Some("not root")), None, true), (Confinement::Nothing, false));
        let refusal = decide(&found(Some("namespaces are off"), Some("the node is not root")), None, false, false).refusal;
        let told = refusal.unwrap_or_default();
        assert!(["namespaces are off", "the node is not root", "--unconfined"].iter().all(|part| told.contains(part)), "{told}");
    }
}
