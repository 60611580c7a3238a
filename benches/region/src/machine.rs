//! On what is measured.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use crate::{Failure, measure::milliseconds, measure::percentile};

/// Appends of this size stand for a small commit.
const APPEND: usize = 512;
const APPENDS: usize = 500;

/// Prints processor, memory, load, and what the disk below the folder takes for an fdatasync.
pub fn print(folder: &Path) -> Result<(), Failure> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let field = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_owned());
    let model = processors.lines().find(|line| line.starts_with("model name")).and_then(field).unwrap_or_default();
    let cores = processors.lines().filter(|line| line.starts_with("processor")).count();
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or_default() >> 20;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("{cores} cores ({model}), {memory} GiB, Linux {}; load {}", kernel.trim(), load());
    let mut times = sync_times(folder)?;
    let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
    println!("{APPEND} bytes and an fdatasync in {}: p50 {}, p99 {}", folder.display(), milliseconds(p50), milliseconds(p99));
    Ok(())
}

/// How busy the machine was in the last minute: what else runs on it takes its part of every number.
pub fn load() -> String {
    fs::read_to_string("/proc/loadavg").map(|text| text.split(' ').next().unwrap_or_default().to_owned()).unwrap_or_default()
}

fn sync_times(folder: &Path) -> Result<Vec<Duration>, Failure> {
    let path = folder.join("append");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..APPENDS {
        let begun = Instant::now();
        file.write_all(&[b'x'; APPEND])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    fs::remove_file(path)?;
    Ok(times)
}
