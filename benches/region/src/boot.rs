//! From a launch to the first answer over the network; many at once; and what it costs to sample many.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use gureum_proto::{
    compute::v1::InstanceState,
    node::v1::{WatchUsageRequest, node_service_client::NodeServiceClient},
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Endpoint, Uri};

use crate::{
    Failure,
    answer::Caller,
    guests::{Guests, address, ids},
    measure::{milliseconds, percentile},
};

const LAUNCHES: usize = 40;
const AT_ONCE: i32 = 100;
/// In calls of so many.
const SAMPLED: i32 = 200;
const LAUNCHED_AT_ONCE: i32 = 50;
const SAMPLES: u32 = 20;
const ZONES: [&str; 3] = ["a", "b", "c"];

pub async fn run(folder: &Path) -> Result<(), Failure> {
    println!("\n## Instances that run\n");
    let guests = Guests::start(&folder.join("boot")).await?;
    let mut times = Vec::new();
    for _ in 0..LAUNCHES {
        let begun = Instant::now();
        let launched = guests.launch(1).await?;
        first_answers(&guests, &launched).await?;
        times.push(begun.elapsed());
        guests.terminate(launched).await?;
    }
    println!(
        "From the call to the first answer, one at a time, {LAUNCHES} times: p50 {} (goal: 150 ms), p90 {}, at most {}",
        milliseconds(percentile(&mut times, 50)),
        milliseconds(percentile(&mut times, 90)),
        milliseconds(percentile(&mut times, 100)),
    );
    let begun = Instant::now();
    let launched = guests.launch(AT_ONCE).await?;
    first_answers(&guests, &launched).await?;
    let answered = begun.elapsed();
    let begun = Instant::now();
    guests.terminate(launched).await?;
    println!("{AT_ONCE} in one call: all answered after {}; all ended {} after their termination", milliseconds(answered), milliseconds(begun.elapsed()));
    guests.region.kill().await
}

/// Waits until each has answered once.
async fn first_answers(guests: &Guests, launched: &[String]) -> Result<(), Failure> {
    let instances = guests.until(launched, |instance| !instance.public_ip_address.is_empty()).await?;
    for instance in &instances {
        let address = address(instance)?;
        while Caller::connect(address).and_then(|mut caller| caller.ask(1)).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(())
}

/// What it costs to tell what many instances use, each second.
pub async fn sample(folder: &Path) -> Result<(), Failure> {
    println!("\n## Sampling {SAMPLED} instances\n");
    let guests = Guests::start(&folder.join("sample")).await?;
    let (mut instances, begun) = (Vec::new(), Instant::now());
    for _ in 0..SAMPLED / LAUNCHED_AT_ONCE {
        instances.extend(guests.running(LAUNCHED_AT_ONCE).await?);
    }
    println!("{SAMPLED} run after {}; {:.1} MiB each", milliseconds(begun.elapsed()), resident_of_shims(instances.len())?);
    let process = guests.region.id()?;
    let idle = processor_time_of(process, Duration::from_secs(u64::from(SAMPLES))).await?;
    let mut streams = Vec::new();
    for zone in ZONES {
        let socket = guests.folder.join(format!("run/node-{zone}1.sock"));
        let connect = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://node").connect_with_connector(connect).await?;
        let stream = NodeServiceClient::new(channel).watch_usage(WatchUsageRequest::default()).await?.into_inner();
        streams.push(tokio::spawn(async move {
            let (mut stream, mut told) = (stream, 0);
            while let Ok(Some(sample)) = stream.message().await {
                told += sample.usages.len();
            }
            told
        }));
    }
    let sampling = processor_time_of(process, Duration::from_secs(u64::from(SAMPLES))).await?;
    println!(
        "Of one core the whole region takes {:.2} % idle, and {:.2} % while each is sampled each second: {:.2} % for the sampling (goal: 5 % for 1,000)",
        idle * 100.0,
        sampling * 100.0,
        (sampling - idle) * 100.0
    );
    guests.until(&ids(&instances), |instance| instance.state() == InstanceState::Running).await?;
    guests.end(ids(&instances)).await?;
    let mut told = 0;
    for stream in streams {
        told += stream.await?;
    }
    println!("{told} usages were told meanwhile");
    Ok(())
}

/// The share of one processor that a process takes over some time.
async fn processor_time_of(process: u32, during: Duration) -> Result<f64, Failure> {
    const TICKS: f64 = 100.0;
    let ticks = || -> Result<f64, Failure> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        Ok(fields.get(11).ok_or("no times")?.parse::<f64>()? + fields.get(12).ok_or("no times")?.parse::<f64>()?)
    };
    let before = ticks()?;
    tokio::time::sleep(during).await;
    Ok((ticks()? - before) / TICKS / during.as_secs_f64())
}

/// MiB of memory that shims hold, for each instance: what is theirs alone, and their part of what they share.
fn resident_of_shims(instances: usize) -> Result<f64, Failure> {
    let mut kibibytes = 0.0;
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let Ok(line) = fs::read(path.join("cmdline")) else { continue };
        if line.split(|byte| *byte == 0).nth(1) != Some(b"shim") {
            continue;
        }
        let rollup = fs::read_to_string(path.join("smaps_rollup")).unwrap_or_default();
        let shared = rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse::<f64>().ok());
        kibibytes += shared.unwrap_or_default();
    }
    Ok(kibibytes / 1024.0 / instances as f64)
}
