//! What is seen of what instances use.

use std::time::Instant;

use gureum_shim::usage::{KEPT_FILES, Used};

use super::{network::network, *};

/// Looks that a cost is averaged over.
const LOOKS: u32 = 500;

fn until(meter: &mut Meter, enough: impl Fn(&Used) -> bool) -> Used {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let used = meter.read().expect("it runs");
        if enough(&used) {
            return used;
        }
        assert!(Instant::now() < deadline, "{used:?}");
        std::thread::yield_now();
    }
}

#[test]
fn what_it_writes_and_sends_is_counted_and_what_it_counts_never_goes_back() {
    // What ended counts on: it was reaped by its shell, and that by process 1.
    let script = "until [ -e /go ]; do sleep 0.01; done; (dd if=/dev/zero of=/big bs=1M count=4 conv=fsync; echo written) 2>&1
        python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); [s.sendto(bytes(1000), (\"172.31.0.9\", 9)) for _ in range(100)]'
        sleep 600 & echo done";
    let fabric = tempfile::tempdir().unwrap();
    let connected = network(fabric.path(), [172, 31, 0, 61], None, "sg-00000000000000001");
    let mut instance = Instance::boot_with(script, connected);
    let state = instance.wait(|state| state.status == Status::Up);
    let mut meter = Meter::new(&state, true).unwrap();
    let before = meter.read().unwrap();
    assert!(before.disk_written.bytes < 4 << 20 && before.sent.bytes < 100_000, "{before:?}");
    fs::write(instance.directory().join("root/go"), "").unwrap();
    let (_, console) = instance.wait_for_user_data();
    assert!(console.contains("written"), "{console}");
    let used = until(&mut meter, |used| used.sent.count >= before.sent.count + 100);
    assert!(used.sent.bytes >= before.sent.bytes + 100_000, "{used:?}");
    // A file system in memory has no disk beneath it.
    let has_disk = !matches!(rustix::fs::statfs(instance.directory()).unwrap().f_type, 0x0102_1994 | 0x794c_7630);
    if has_disk {
        assert!((4 << 20..64 << 20).contains(&used.disk_written.bytes) && used.disk_written.count >= 4, "{used:?}");
    } else {
        println!("what is written to a disk is not looked at: {} has none", instance.directory().display());
    }
    for keeps in [false, true] {
        let mut meter = Meter::new(&state, keeps).unwrap();
        let mut last = meter.read().unwrap();
        let open = || fs::read_dir("/proc/self/fd").unwrap().count();
        let (files, began) = (open(), Instant::now());
        for _ in 0..LOOKS {
            let used = meter.read().unwrap();
            let counters = |used: Used| [used.disk_read, used.disk_written, used.received, used.sent].map(|it| (it.bytes, it.count));
            assert!(counters(last).iter().zip(counters(used)).all(|(last, used)| last.0 <= used.0 && last.1 <= used.1), "{used:?}");
            last = used;
        }
        println!(
            "a look at an instance of three processes, {:?}, files kept open: {keeps}: {:?}",
            state.limited_by,
            began.elapsed() / LOOKS
        );
        assert!(open() <= files + KEPT_FILES, "of this and of other tests");
    }
    instance.end();
    assert!(Meter::new(&state, true).is_none(), "it has ended");
}
