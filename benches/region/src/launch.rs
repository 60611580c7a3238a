//! RunInstances through the gateway, durable: one instance a call at 1 and 64 callers, and 100 in one call.
//!
//! Each round has a region of its own, so that none carries what the one before launched. What was launched
//! boots meanwhile: that is part of the load.

use std::{path::Path, time::Duration};

use gureum_proto::compute::v1::{LaunchSpec, RunInstancesRequest, compute_service_client::ComputeServiceClient};
use tonic::transport::Channel;

use crate::{
    Failure,
    etcd::{self, Etcd},
    measure::{ROUNDS_HEAD, Round, Rounds, drive, median, milliseconds, spread},
    program::Running,
};

/// Amazon Linux 2023, which ships.
const IMAGE: &str = "ami-785631745be5cbbd7";
const ROUNDS: usize = 5;
const DURING: Duration = Duration::from_secs(5);
/// The default VPC has room for 12,000.
const CALLS_OF_100: usize = 30;

pub fn request(count: i32, subnet: Option<&str>, token: String) -> RunInstancesRequest {
    let spec = LaunchSpec {
        image_id: Some(IMAGE.into()),
        instance_type: Some("t2.micro".into()),
        subnet_id: subnet.map(str::to_owned),
        ..LaunchSpec::default()
    };
    RunInstancesRequest { client_token: token, spec: Some(spec), min_count: count, max_count: count, ..Default::default() }
}

pub async fn run(folder: &Path) -> Result<(), Failure> {
    println!("\n## RunInstances through the gateway, durable, {ROUNDS} rounds in turn\n");
    let (mut one, mut many, mut hundred) = (Rounds::default(), Rounds::default(), Rounds::default());
    let (mut etcd_one, mut etcd_many) = (Rounds::default(), Rounds::default());
    for round in 0..ROUNDS {
        one.0.push(in_region(&folder.join(format!("one-{round}")), |channel| launches(channel, 1)).await?);
        many.0.push(in_region(&folder.join(format!("many-{round}")), |channel| launches(channel, 64)).await?);
        hundred.0.push(in_region(&folder.join(format!("hundred-{round}")), hundreds).await?);
        if let Some(etcd) = Etcd::start(&folder.join(format!("etcd-{round}"))).await? {
            let channel = etcd.connect().await?;
            etcd_one.0.push(puts(&channel, 1).await?);
            etcd_many.0.push(puts(&channel, 64).await?);
        }
    }
    println!("{ROUNDS_HEAD}");
    println!("{}", one.row("RunInstances of one, 1 caller (goal: p50 below 15 ms)"));
    println!("{}", many.row("RunInstances of one, 64 callers (goal: 400, stretch 1,000)"));
    println!("{}", hundred.row("RunInstances of 100, 1 caller"));
    let rates: Vec<f64> = hundred.0.iter().map(|round| round.per_second * 100.0).collect();
    let (low, high) = spread(&rates);
    println!("| the same in instances (goal: 3,000) | {:.0} | {low:.0} to {high:.0} | – | – |", median(rates));
    if !etcd_one.0.is_empty() {
        println!("{}", etcd_one.row("for comparison: one etcd put, 1 caller"));
        println!("{}", etcd_many.row("for comparison: one etcd put, 64 callers"));
    }
    Ok(())
}

async fn in_region<F: Future<Output = Result<Round, Failure>>>(
    folder: &Path,
    measure: impl FnOnce(Channel) -> F,
) -> Result<Round, Failure> {
    let region = Running::region(Some(folder), &[]).await?;
    let channel = region.door().await?;
    // The scope is born, and the first calls of every path are behind us.
    for number in 0..10 {
        ComputeServiceClient::new(channel.clone()).run_instances(request(1, None, format!("first-{number}"))).await?;
    }
    let measured = measure(channel).await?;
    region.kill().await?;
    std::fs::remove_dir_all(folder)?;
    Ok(measured)
}

async fn launches(channel: Channel, callers: usize) -> Result<Round, Failure> {
    drive(callers, DURING, move |caller, number| {
        let mut client = ComputeServiceClient::new(channel.clone());
        async move {
            client.run_instances(request(1, None, format!("{caller}-{number}"))).await?;
            Ok(())
        }
    })
    .await
}

async fn hundreds(channel: Channel) -> Result<Round, Failure> {
    let (mut times, begun) = (Vec::new(), std::time::Instant::now());
    for number in 0..CALLS_OF_100 {
        let sent = std::time::Instant::now();
        let answer = ComputeServiceClient::new(channel.clone()).run_instances(request(100, None, format!("hundred-{number}"))).await?;
        times.push(sent.elapsed());
        if answer.into_inner().instances.len() != 100 {
            return Err(format!("call {number} answered fewer than 100 instances, after {}", milliseconds(begun.elapsed())).into());
        }
    }
    let per_second = CALLS_OF_100 as f64 / begun.elapsed().as_secs_f64();
    Ok(Round { per_second, p50: crate::measure::percentile(&mut times, 50), p99: crate::measure::percentile(&mut times, 99) })
}

async fn puts(channel: &Channel, callers: usize) -> Result<Round, Failure> {
    let channel = channel.clone();
    drive(callers, DURING, move |caller, number| {
        let (channel, key) = (channel.clone(), format!("instance-{caller}-{number:017x}"));
        async move { etcd::put(&channel, key.into_bytes(), vec![b'x'; 512]).await }
    })
    .await
}
