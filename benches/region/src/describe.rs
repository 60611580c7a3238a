//! 1,000, 10,000 and 100,000 instances: listed by page and by filter, killed, restarted, ended.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use gureum_proto::{
    common::v1::Filter,
    compute::v1::{
        CreateTagsRequest, DescribeInstancesRequest, Instance, TerminateInstancesRequest, compute_service_client::ComputeServiceClient,
    },
    network::v1::{CreateSubnetRequest, CreateVpcRequest, network_service_client::NetworkServiceClient},
};
use tonic::transport::Channel;

use crate::{
    Failure,
    launch::request,
    machine,
    measure::{median, milliseconds, percentile},
    program::Running,
};

const TOTALS: [usize; 3] = [1_000, 10_000, 100_000];
const BATCH: usize = 1_000;
/// Launches under way at once.
const LAUNCHERS: usize = 4;
const CALLS: usize = 100;
const PAGE: i32 = 100;
const RESTARTS: usize = 3;
/// Those of one restart that are ended.
const ENDED: usize = 1_000;
/// 100,000 of 1 vCPU and 1 GiB in two of the three zones.
const NODES: [&str; 4] = ["--node-vcpus", "131072", "--node-memory-gib", "262144"];

pub async fn run(folder: &Path) -> Result<(), Failure> {
    println!("\n## {TOTALS:?} instances: DescribeInstances, restart\n");
    let folder = folder.join("many");
    let mut region = Running::region(Some(&folder), &NODES).await?;
    let mut fleet = Fleet { channel: region.door().await?, subnets: Vec::new(), launched: 0 };
    fleet.make_subnets().await?;
    println!("| instances | DescribeInstances | p50 | p99 | found |\n| --- | --- | --- | --- | --- |");
    let mut notes = Vec::new();
    for total in TOTALS {
        let begun = Instant::now();
        let from = fleet.launched;
        fleet.launch_up_to(total).await?;
        let launched = begun.elapsed();
        fleet.wait_for_all_running().await?;
        let (count, rate) = (total - from, (total - from) as f64 / launched.as_secs_f64());
        notes.push(format!(
            "{count} launched, {BATCH} a call, {LAUNCHERS} calls at once: {rate:.0} a second; all running {} after the last answer; {:.0} MiB resident, load {}",
            milliseconds(begun.elapsed().saturating_sub(launched)),
            region.memory()?,
            machine::load(),
        ));
        fleet.measure(total).await?;
    }
    println!();
    notes.iter().for_each(|note| println!("- {note}"));
    let mut ready = Vec::new();
    for _ in 0..RESTARTS {
        region.kill().await?;
        region = Running::region(Some(&folder), &NODES).await?;
        ready.push(region.took.as_secs_f64());
    }
    let (memory, took) = (region.memory()?, Duration::from_secs_f64(median(ready)));
    println!(
        "- killed with {} instances and started again: ready after {} (goal: 5 s), {memory:.0} MiB",
        fleet.launched,
        milliseconds(took)
    );
    fleet.channel = region.door().await?;
    fleet.end_some().await?;
    println!("- {:.0} MiB resident in the end; {:.0} MiB on disk", region.memory()?, on_disk(&folder)? / f64::from(1 << 20));
    region.kill().await?;
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

struct Fleet {
    channel: Channel,
    subnets: Vec<String>,
    launched: usize,
}

impl Fleet {
    fn compute(&self) -> ComputeServiceClient<Channel> {
        ComputeServiceClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    /// A subnet has room for 65,531 at most, so there are two.
    async fn make_subnets(&mut self) -> Result<(), Failure> {
        let mut network = NetworkServiceClient::new(self.channel.clone());
        for (cidr_block, availability_zone) in [("10.0.0.0/16", "us-east-1a"), ("10.1.0.0/16", "us-east-1b")] {
            let vpc = network.create_vpc(CreateVpcRequest { cidr_block: cidr_block.into(), ..Default::default() }).await?.into_inner();
            let vpc_id = vpc.vpc.unwrap_or_default().vpc_id;
            let (cidr_block, availability_zone) = (cidr_block.into(), availability_zone.into());
            let subnet = CreateSubnetRequest { vpc_id, cidr_block, availability_zone, ..Default::default() };
            self.subnets.push(network.create_subnet(subnet).await?.into_inner().subnet.unwrap_or_default().subnet_id);
        }
        Ok(())
    }

    /// Half into each subnet.
    async fn launch_up_to(&mut self, total: usize) -> Result<(), Failure> {
        let mut launches = tokio::task::JoinSet::new();
        while self.launched < total {
            let number = self.launched / BATCH;
            let request = request(BATCH as i32, Some(&self.subnets[number % 2]), format!("batch-{number}"));
            let mut compute = self.compute();
            if launches.len() == LAUNCHERS {
                launches.join_next().await.transpose()?.transpose()?;
            }
            launches.spawn(async move { compute.run_instances(request).await.map(drop) });
            self.launched += BATCH;
        }
        while let Some(done) = launches.join_next().await {
            done??;
        }
        Ok(())
    }

    async fn describe(&self, request: DescribeInstancesRequest) -> Result<(Vec<Instance>, String), Failure> {
        let answer = self.compute().describe_instances(request).await?.into_inner();
        Ok((answer.instances, answer.next_page_token))
    }

    async fn wait_for_all_running(&self) -> Result<(), Failure> {
        let pending =
            DescribeInstancesRequest { page_size: 1, filters: vec![filter("instance-state-name", "pending")], ..Default::default() };
        for _ in 0..6_000 {
            if self.describe(pending.clone()).await?.0.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("instances are pending for five minutes".into())
    }

    async fn measure(&self, total: usize) -> Result<(), Failure> {
        let page = || DescribeInstancesRequest { page_size: PAGE, ..Default::default() };
        let (first, token) = self.describe(page()).await?;
        let one = &first[first.len() / 2];
        let tag = gureum_proto::common::v1::Tag { key: "Name".into(), value: format!("one-of-{total}") };
        let tagged = CreateTagsRequest { resource_ids: vec![one.instance_id.clone()], tags: vec![tag], ..Default::default() };
        self.compute().create_tags(tagged).await?;
        let by = |filters: &[(&str, &str)]| DescribeInstancesRequest {
            filters: filters.iter().map(|(name, value)| filter(name, value)).collect(),
            ..page()
        };
        let ids: Vec<_> = first.iter().map(|it| it.instance_id.clone()).collect();
        let name = format!("one-of-{total}");
        let questions = [
            (format!("a page of {PAGE}"), page()),
            ("a later page".into(), DescribeInstancesRequest { page_token: token, ..page() }),
            (format!("{PAGE} by id"), DescribeInstancesRequest { instance_ids: ids, ..Default::default() }),
            ("by private-ip-address".into(), by(&[("private-ip-address", &one.private_ip_address)])),
            ("by tag:Name".into(), by(&[("tag:Name", &name)])),
            ("by instance-state-name, a page".into(), by(&[("instance-state-name", "running")])),
            ("by instance-state-name, none".into(), by(&[("instance-state-name", "stopped")])),
            ("by subnet-id and tag:Name".into(), by(&[("subnet-id", &one.subnet_id), ("tag:Name", &name)])),
            ("by running and key-name, none".into(), by(&[("instance-state-name", "running"), ("key-name", "nobody")])),
            ("by instance-type, a page".into(), by(&[("instance-type", "t2.micro")])),
            ("by instance-type, none".into(), by(&[("instance-type", "m5.large")])),
            ("by availability-zone, none".into(), by(&[("availability-zone", "us-east-1c")])),
            ("by tag:Name with *, one".into(), by(&[("tag:Name", &format!("{name}*"))])),
        ];
        for (what, request) in questions {
            let (mut times, mut found) = (Vec::new(), 0);
            for _ in 0..CALLS {
                let sent = Instant::now();
                found = self.describe(request.clone()).await?.0.len();
                times.push(sent.elapsed());
            }
            let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
            println!("| {total} | {what} | {} | {} | {found} |", milliseconds(p50), milliseconds(p99));
        }
        Ok(())
    }

    /// Ends some and waits until they have ended; counts what is there before and after.
    async fn end_some(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        let all = self.count().await?;
        println!("- every instance listed, 1,000 a page: {all}, in {}", milliseconds(begun.elapsed()));
        if all != self.launched {
            return Err(format!("{} instances were acknowledged, {all} are there", self.launched).into());
        }
        let page = DescribeInstancesRequest { page_size: ENDED as i32, ..Default::default() };
        let ids: Vec<_> = self.describe(page).await?.0.into_iter().map(|it| it.instance_id).collect();
        let begun = Instant::now();
        self.compute().terminate_instances(TerminateInstancesRequest { instance_ids: ids, ..Default::default() }).await?;
        let answered = begun.elapsed();
        let ended =
            DescribeInstancesRequest { page_size: 1000, filters: vec![filter("instance-state-name", "terminated")], ..Default::default() };
        while self.describe(ended.clone()).await?.0.len() < ENDED {
            if begun.elapsed() > Duration::from_secs(300) {
                return Err("instances that were to end have not ended within five minutes".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!(
            "- {ENDED} of them ended after the restart: answered in {}, all terminated after {}",
            milliseconds(answered),
            milliseconds(begun.elapsed())
        );
        Ok(())
    }

    async fn count(&self) -> Result<usize, Failure> {
        let (mut count, mut token) = (0, String::new());
        loop {
            let (page, next) = self.describe(DescribeInstancesRequest { page_token: token, ..Default::default() }).await?;
            count += page.len();
            if next.is_empty() {
                return Ok(count);
            }
            token = next;
        }
    }
}

fn filter(name: &str, value: &str) -> Filter {
    Filter { name: name.into(), values: vec![value.into()] }
}

fn on_disk(path: &Path) -> Result<f64, Failure> {
    let mut sum = 0.0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() { on_disk(&entry.path())? } else { metadata.len() as f64 };
    }
    Ok(sum)
}
