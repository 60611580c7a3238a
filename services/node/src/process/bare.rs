//! What is made ready for an instance without namespaces, and what it is told of how it is.

use std::{
    fs::{self, Permissions},
    io,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use gureum_shim::{
    protocol::{Confinement, PlannedVolume},
    volumes::MEDIA,
};

/// The least port, which is the least likely to be one's own already.
const LOW_PORT: u16 = 1;

/// Makes the volumes of an instance ready. Answers what its console is to say.
///
/// # Errors
/// The image has programs of its own, which cannot be run: there is no root file system for them.
pub fn prepare(confinement: Confinement, whole: bool, root: &Path, volumes: &[PlannedVolume], alias: Ipv4Addr) -> io::Result<Vec<String>> {
    if whole {
        let told = "the image is a whole root file system, for which the host would have to grant namespaces: \
            here only images run that use the host's programs";
        return Err(io::Error::other(told));
    }
    if confinement == Confinement::User {
        // Neighbours may pass the directory in which they are.
        for place in volumes.iter().map(|volume| volume.directory.as_path()).chain([root]) {
            fs::set_permissions(place, Permissions::from_mode(0o700))?;
        }
    }
    let mut notes = vec![
        format!("without namespaces: the root volume is at {} ($GUREUM_ROOT), and programs are the host's", root.display()),
        format!("programs that listen have to bind {alias} ($GUREUM_PRIVATE_IP): 0.0.0.0 is all instances' here"),
    ];
    notes.extend(low_ports(alias));
    notes.extend(volumes.iter().map(|volume| format!("the volume {} is at $GUREUM_ROOT/{MEDIA}/{}", volume.id, volume.name)));
    Ok(notes)
}

/// Why programs cannot have low ports, if so. They have the right to them that this process has.
fn low_ports(alias: Ipv4Addr) -> Option<String> {
    let refused = TcpListener::bind((alias, LOW_PORT)).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    refused.then(|| {
        format!(
            "ports below {} are closed to programs here: lower the host's net.ipv4.ip_unprivileged_port_start, give the node \
             CAP_NET_BIND_SERVICE, which its instances then have too, or listen on a higher port",
            text.trim().parse().unwrap_or(1_024)
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_closed_to_neighbours_and_root_file_systems_are_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        let prepare = |whole| prepare(Confinement::User, whole, root.path(), &[], Ipv4Addr::LOCALHOST);
        assert!(prepare(true).unwrap_err().to_string().contains("namespaces"));
        let told = prepare(false).unwrap().join("\n");
        assert!(told.contains("$GUREUM_ROOT") && told.contains("127.0.0.1 ($GUREUM_PRIVATE_IP)"), "{told}");
        assert_eq!(fs::metadata(root.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
