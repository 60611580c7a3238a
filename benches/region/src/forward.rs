//! What comes to an instance by its public address, beside the same program that is called directly; and an elastic IP
//! that moves under load.

use std::{
    env,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use gureum_proto::{
    compute::v1::Instance,
    network::v1::{AllocateAddressRequest, AssociateAddressRequest, network_service_client::NetworkServiceClient},
};

use crate::{
    Failure,
    answer::{Caller, drive},
    guests::{Guests, PORT, address, ids},
    measure::{median, milliseconds, percentile, spread},
};

const ROUNDS: usize = 5;
const DURING: Duration = Duration::from_secs(3);
const MOVES: usize = 20;
/// What an elastic IP may be refused for at most.
const ADDRESS_MOVES_WITHIN: Duration = Duration::from_millis(100);

/// The program beside the instances, at an address of the host; killed when this is dropped.
struct Beside(Child);

impl Beside {
    fn start(address: SocketAddr) -> Result<Self, Failure> {
        let child = Command::new(env::current_exe()?).args(["answer", &address.to_string()]).stdin(Stdio::null()).spawn()?;
        let begun = Instant::now();
        while Caller::connect(address).is_err() {
            if begun.elapsed() > Duration::from_secs(5) {
                return Err("the program beside does not answer".into());
            }
        }
        Ok(Self(child))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub async fn run(folder: &Path) -> Result<(), Failure> {
    let guests = Guests::start(&folder.join("forward")).await?;
    let instances = guests.running(2).await?;
    let served: Vec<SocketAddr> = instances.iter().map(address).collect::<Result<_, _>>()?;
    for address in &served {
        while Caller::connect(*address).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let direct = SocketAddr::from(([127, 0, 0, 1], PORT));
    let beside = Beside::start(direct)?;
    println!("\n## By the public address of an instance, beside a direct connection, {ROUNDS} rounds in turn of {DURING:?}\n");
    println!("| answers | callers | direct | by the public address | ratio |\n| --- | --- | --- | --- | --- |");
    for (kibibytes, callers) in [(64, 1), (64, 8), (64, 64), (1, 1), (1, 64), (1_024, 8)] {
        let (mut directly, mut forwarded) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            directly.push(drive(direct, callers, kibibytes, DURING)?);
            forwarded.push(drive(served[0], callers, kibibytes, DURING)?);
        }
        let (low, high) = spread(&forwarded);
        let (directly, forwarded) = (median(directly), median(forwarded));
        let ratio = forwarded / directly;
        println!("| {kibibytes} KiB | {callers} | {directly:.0}/s | {forwarded:.0}/s ({low:.0} to {high:.0}) | {ratio:.2} |");
    }
    drop(beside);
    moves(&guests, &instances).await?;
    guests.end(ids(&instances)).await
}

/// When which of two instances answered at an address, or nobody did.
type Seen = Arc<Mutex<Vec<(Instant, bool)>>>;

async fn moves(guests: &Guests, instances: &[Instance]) -> Result<(), Failure> {
    let mut network = NetworkServiceClient::new(guests.channel.clone());
    let allocated = network.allocate_address(AllocateAddressRequest::default()).await?.into_inner().address.ok_or("no address")?;
    let to: SocketAddr = format!("{}:{PORT}", allocated.public_ip).parse()?;
    let associate = |instance: &Instance| AssociateAddressRequest {
        allocation_id: allocated.allocation_id.clone(),
        instance_id: instance.instance_id.clone(),
        allow_reassociation: true,
        ..Default::default()
    };
    network.associate_address(associate(&instances[0])).await?;
    while Caller::connect(to).is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (seen, stop) = (Seen::default(), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (seen, stop) = (seen.clone(), stop.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answered = Caller::connect(to).and_then(|mut caller| caller.ask(1)).is_ok();
                    seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((Instant::now(), answered));
                }
            })
        })
        .collect();
    let (mut calls, mut away) = (Vec::new(), Vec::new());
    for number in 1..=MOVES {
        let begun = Instant::now();
        network.associate_address(associate(&instances[number % 2])).await?;
        calls.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
        away.push(longest_gap(&seen, begun));
    }
    stop.store(true, Ordering::Relaxed);
    callers.into_iter().for_each(|caller| drop(caller.join()));
    let answered = seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).len();
    let late = away.iter().filter(|away| **away > ADDRESS_MOVES_WITHIN).count();
    println!(
        "\nAn elastic IP moved {MOVES} times under {answered} connections of 4 callers: the call p50 {}; nobody answered for p50 {}, at most {} \
         (goal: {}); longer than that: {late}",
        milliseconds(percentile(&mut calls, 50)),
        milliseconds(percentile(&mut away, 50)),
        milliseconds(percentile(&mut away, 100)),
        milliseconds(ADDRESS_MOVES_WITHIN),
    );
    Ok(())
}

/// The longest time since then between two answers.
fn longest_gap(seen: &Seen, since: Instant) -> Duration {
    let seen = seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut answers: Vec<Instant> = seen.iter().filter(|(at, answered)| *answered && *at >= since).map(|(at, _)| *at).collect();
    answers.sort_unstable();
    let first = answers.first().map_or(Duration::MAX, |first| first.duration_since(since));
    answers.windows(2).map(|pair| pair[1].duration_since(pair[0])).fold(first, Duration::max)
}
