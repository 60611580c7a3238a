//! Work on volumes and snapshots that takes its time: it goes on when its caller has gone, and is done once.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use gureum_model::id::{SnapshotId, VolumeId};
use gureum_node_domain::spec::VolumeSpec;
use tokio::sync::watch;

use super::{Places, lock, volumes};
use crate::{
    driver::{DiskTask, DriverError, Part},
    snapshots::Snapshots,
};

/// How long a call waits for the work. Its caller's own deadline is longer.
const WAIT: Duration = Duration::from_secs(3);

/// What came of a task, once something has.
type Came = Option<Result<(), Arc<io::Error>>>;

/// The disks of a node, and what is being done to them.
pub struct Disks {
    places: Places,
    pub snapshots: Arc<Snapshots>,
    /// By what the work is for: what is wanted of one volume or snapshot is done in turn.
    under_way: Mutex<HashMap<String, (DiskTask, watch::Receiver<Came>)>>,
}

impl Disks {
    pub fn open(places: Places) -> io::Result<Self> {
        let snapshots = Arc::new(Snapshots::open(&places.snapshots)?);
        volumes::finish_removals(&places)?;
        Ok(Self { places, snapshots, under_way: Mutex::default() })
    }

    /// Begins a task unless it is under way, and answers whether it is done by now.
    pub async fn work(&self, task: DiskTask) -> Result<bool, DriverError> {
        let (other, mut came) = self.begin(&task);
        // Its end is seen also where it ended meanwhile; a task that panicked is begun again by the next call.
        let waited = tokio::time::timeout(WAIT, came.wait_for(Option::is_some)).await;
        let result = match waited {
            Err(_) => return Ok(false),
            Ok(Ok(came)) => came.clone(),
            Ok(Err(_)) => None,
        };
        lock(&self.under_way).remove(&subject(&task));
        match result {
            _ if other => Ok(false),
            None => Ok(false),
            Some(Ok(())) => Ok(true),
            Some(Err(error)) if is_final(&error) => Err(DriverError::Refused(error.to_string())),
            Some(Err(error)) => Err(DriverError::Unavailable(error.to_string())),
        }
    }

    /// Keeps a part of an archive.
    pub async fn receive(&self, id: SnapshotId, part: Part) -> Result<(), DriverError> {
        let snapshots = self.snapshots.clone();
        let kept = tokio::task::spawn_blocking(move || snapshots.receive(id, part.index, &part.bytes, &part.checksum)).await;
        kept.map_err(io::Error::other).flatten().map_err(|error| {
            if is_final(&error) { DriverError::Refused(error.to_string()) } else { DriverError::Unavailable(error.to_string()) }
        })
    }

    /// What a volume has in it that an instance is to have, unless it is there already.
    pub fn contents(&self, volume: &VolumeSpec) -> volumes::Contents<'_> {
        volume.snapshot.map_or(volumes::Contents::Nothing, |id| volumes::Contents::Snapshot {
            snapshots: &self.snapshots,
            id,
            size_gib: volume.size_gib,
        })
    }

    /// What comes of the task, or of another one that is for the same and has to end first.
    fn begin(&self, task: &DiskTask) -> (bool, watch::Receiver<Came>) {
        let mut under_way = lock(&self.under_way);
        if let Some((known, came)) = under_way.get(&subject(task)) {
            return (known != task, came.clone());
        }
        let (sender, came) = watch::channel(None);
        under_way.insert(subject(task), (task.clone(), came.clone()));
        let (places, snapshots, task) = (self.places.clone(), self.snapshots.clone(), task.clone());
        tokio::task::spawn_blocking(move || {
            let done = run(&places, &snapshots, &task);
            sender.send_replace(Some(done.map_err(Arc::new)));
        });
        (false, came)
    }
}

/// What a task is for.
fn subject(task: &DiskTask) -> String {
    match task {
        DiskTask::CreateVolume { volume, .. } | DiskTask::DeleteVolume(volume) => volume.to_string(),
        DiskTask::CreateSnapshot { snapshot, .. } | DiskTask::DeleteSnapshot(snapshot) | DiskTask::ReadSnapshot { snapshot, .. } => {
            snapshot.to_string()
        }
    }
}

/// Whether the same again comes to the same.
fn is_final(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData)
}

fn run(places: &Places, snapshots: &Snapshots, task: &DiskTask) -> io::Result<()> {
    match task {
        DiskTask::CreateVolume { volume, snapshot, size_gib } => {
            let contents = volumes::Contents::Snapshot { snapshots, id: *snapshot, size_gib: *size_gib };
            // It belongs to nobody until it is attached.
            volumes::make(places, &volume.to_string(), *size_gib, contents, None).map(drop)
        }
        DiskTask::DeleteVolume(volume) => volumes::remove(places, &volume.to_string()),
        DiskTask::CreateSnapshot { snapshot, volume, may_be_unused } => {
            let place = volumes::place(&places.volumes, &volume.to_string());
            let there = there(&place, *volume, *may_be_unused)?;
            let taken = snapshots.take(*snapshot, there.then_some(place.as_path()));
            let what = || format!("the snapshot {snapshot} cannot be taken in {}", places.snapshots.display());
            taken.map_err(|error| volumes::failed(&error, &what(), "it is taken when it is tried again"))
        }
        DiskTask::DeleteSnapshot(snapshot) => snapshots.remove(*snapshot),
        DiskTask::ReadSnapshot { snapshot, archive } => snapshots.read_received(*snapshot, archive),
    }
}

fn there(place: &Path, volume: VolumeId, may_be_unused: bool) -> io::Result<bool> {
    let there = place.try_exists()?;
    if there || may_be_unused {
        return Ok(there);
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("the volume {volume} is not on this host: it is where it was last attached")))
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use gureum_model::id::ResourceId;

    use super::*;

    const SMALL_DISK: &str = "GUREUM_TEST_SMALL_DISK";

    /// Bytes of which no part is like another.
    fn bytes(count: u32) -> Vec<u8> {
        (0..count / 4).flat_map(|number| (number + 1).to_be_bytes()).collect()
    }

    #[test]
    fn what_a_full_disk_has_no_room_for_fails_with_the_reason_and_leaves_nothing() {
        let Some(disk) = std::env::var_os(SMALL_DISK) else {
            // Once more, with a disk of 4 MiB that nobody else sees.
            let folder = tempfile::tempdir().unwrap();
            let name = "process::disks::tests::what_a_full_disk_has_no_room_for_fails_with_the_reason_and_leaves_nothing";
            let script = "mount -t tmpfs -o size=4m none \"$1\" || exit 77; exec \"$2\" --exact \"$3\" --nocapture";
            let mut again = Command::new("unshare");
            again.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(folder.path());
            let ran = again.arg(std::env::current_exe().unwrap()).arg(name).env(SMALL_DISK, folder.path()).output();
            match ran {
                Ok(ran) if ran.status.success() => assert!(String::from_utf8_lossy(&ran.stdout).contains("1 passed"), "{ran:?}"),
                Ok(ran) if ran.status.code() == Some(101) => panic!("{}", String::from_utf8_lossy(&ran.stderr)),
                ran => println!("not tried: this host makes no small disk: {ran:?}"),
            }
            return;
        };
        let disk = Path::new(&disk);
        let places =
            Places { instances: disk.join("instances"), volumes: disk.join("volumes"), snapshots: disk.join("snapshots"), quota: None };
        [&places.volumes, &places.snapshots].iter().for_each(|place| fs::create_dir_all(place).unwrap());
        let snapshots = Snapshots::open(&places.snapshots).unwrap();
        let [small, large, copy] = [1, 2, 3].map(VolumeId::from_number);
        let [one, two] = [1, 2].map(SnapshotId::from_number);
        let work = |task: &DiskTask| run(&places, &snapshots, task).map_err(|error| error.to_string());
        let snapshot = |snapshot, volume| DiskTask::CreateSnapshot { snapshot, volume, may_be_unused: false };
        let fill = |volume: VolumeId, count| {
            fs::create_dir(places.volumes.join(volume.to_string())).unwrap();
            fs::write(places.volumes.join(volume.to_string()).join("file"), bytes(count)).unwrap();
        };
        fill(small, 600 << 10);
        assert_eq!(work(&snapshot(one, small)), Ok(()));
        fill(large, 2 << 20);
        let refused = work(&snapshot(two, large)).unwrap_err();
        assert!(refused.contains(&two.to_string()) && refused.contains("free some of the disk"), "{refused}");
        assert!(!snapshots.contains(two));
        fs::write(disk.join("others"), bytes(600 << 10)).unwrap();
        let refused = work(&DiskTask::CreateVolume { volume: copy, snapshot: one, size_gib: 1 }).unwrap_err();
        assert!(refused.contains(&copy.to_string()) && refused.contains("free some of the disk"), "{refused}");
        assert_eq!(fs::read_dir(&places.volumes).unwrap().count(), 2, "something is left");
        // And when there is room again, it is done.
        fs::remove_file(disk.join("others")).unwrap();
        assert_eq!(work(&DiskTask::CreateVolume { volume: copy, snapshot: one, size_gib: 1 }), Ok(()));
    }
}
