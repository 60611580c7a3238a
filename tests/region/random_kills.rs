//! Every service is killed at random moments under a mixed workload; then everything is accounted for.
//!
//! `GUREUM_TEST_SEED` repeats a failure's choices, `GUREUM_TEST_SECONDS` makes the day longer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use gureum_service::clock::monotonic;

use crate::{
    audit::{Account, Region, quiet},
    audit_events,
    harness::{Chance, Deployment, READY_WITHIN, seed},
    region::{LAUNCHABLE, Shape, image, region_like, started},
    remains::until_nothing_remains,
    steps::take_down::{nothing_left, take_down},
    workload::{Client, Counts},
};

/// Two clients share each account.
const ACCOUNTS: u64 = 3;
const CLIENTS: u64 = 6;

/// Room for fewer instances than clients would like to have.
const VCPUS: u32 = 32;

/// How long clients work unless told otherwise.
const SECONDS: u64 = 20;

/// What the killer did.
struct Killed {
    region: Deployment,
    kills: BTreeMap<String, u32>,
    slowest: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_leaked_or_doubled_whoever_is_killed_whenever() {
    let region = region_like(&Shape { vcpus: VCPUS, alone: true, ..Shape::default() });
    day(region).await.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_run_leave_nothing_whoever_is_killed_whenever() {
    let shared = tempfile::tempdir().unwrap();
    let place = |name: &str| format!("settings.{name}=\"{}\"", shared.path().join(name).display());
    let mut region = started(&Shape { vcpus: VCPUS, alone: true, ..Shape::default() }, &|name| {
        let settings = ["settings.driver=process".to_owned(), "settings.port_offset=10000".into(), place("fabric"), place("storage")];
        if name.starts_with("node-") { settings.into() } else { Vec::new() }
    });
    region = day(region).await;
    until_nothing_remains(&region, shared.path(), &BTreeSet::new()).await;
    region.finish();
}

/// Clients work, services are killed, everything is accounted for, and taken down.
async fn day(region: Deployment) -> Deployment {
    let seed = seed();
    let seconds = std::env::var("GUREUM_TEST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    println!("seed {seed}: {seconds} s of work");
    let account = |number: u64| format!("{:012}", 400 + number % ACCOUNTS);
    let image = image(&region.door(&account(0)), LAUNCHABLE).await;
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| Client::new(region.door(&account(number)), number, seed, image.clone()))
        .map(|client| tokio::spawn(client.work(done.clone())))
        .collect();
    let killer = thread::spawn(move || kill_at_random(region, seed, Duration::from_secs(seconds)));
    let killed = tokio::task::spawn_blocking(move || killer.join().unwrap()).await.unwrap();
    done.store(true, Ordering::Relaxed);

    let mut counts = Counts::default();
    let mut accounts: BTreeMap<u64, Account> = BTreeMap::new();
    for client in clients {
        let client = client.await.unwrap();
        counts += client.counts;
        match accounts.get_mut(&(client.number % ACCOUNTS)) {
            Some(account) => account.known.merge(client.known),
            None => drop(accounts.insert(client.number % ACCOUNTS, Account { door: client.door, known: client.known })),
        }
    }
    let accounts: Vec<Account> = accounts.into_values().collect();
    let (Killed { region, kills, slowest }, begun) = (killed, monotonic());
    let events = audit(&region, &accounts).await;
    println!(
        "seed {seed}: {} kills {kills:?}, ready again within {slowest:?}; {} calls, {} repeated, refused {:?}; {} instances, {} interfaces, \
         {} elastic IPs, {} groups, {events} events; audited in {:?}",
        kills.values().sum::<u32>(),
        counts.calls,
        counts.repeats,
        counts.refused,
        accounts.iter().map(|account| account.known.instances.all.len()).sum::<usize>(),
        accounts.iter().map(|account| account.known.interfaces.living.len()).sum::<usize>(),
        accounts.iter().map(|account| account.known.addresses.living.len()).sum::<usize>(),
        accounts.iter().map(|account| account.known.groups.living.len()).sum::<usize>(),
        begun.elapsed(),
    );
    assert!(slowest <= READY_WITHIN, "a service needed {slowest:?}");
    assert!(counts.calls > seconds * 5 && kills.len() == region.names().len(), "too little happened to show anything");
    for account in &accounts {
        take_down(&account.door).await;
    }
    for account in &accounts {
        nothing_left(&account.door, &region).await;
    }
    region
}

/// Kills one service, or two at once, and starts them again, for as long as clients shall work; each at least once.
fn kill_at_random(mut region: Deployment, seed: u64, time: Duration) -> Killed {
    let (chance, names, end) = (Chance::new(seed), region.names(), monotonic() + time);
    let (mut kills, mut slowest): (BTreeMap<String, u32>, _) = (BTreeMap::new(), Duration::ZERO);
    while monotonic() < end || kills.len() < names.len() {
        thread::sleep(Duration::from_millis(30 + chance.below(250)));
        let never = names.iter().filter(|name| !kills.contains_key(*name)).cloned().collect::<Vec<_>>();
        let pool = if never.is_empty() || monotonic() < end { &names } else { &never };
        let first = pool[chance.below(pool.len() as u64) as usize].clone();
        let second = names[chance.below(names.len() as u64) as usize].clone();
        let victims = if first != second && chance.below(4) == 0 { vec![first, second] } else { vec![first] };
        for name in &victims {
            region.kill(name);
            *kills.entry(name.clone()).or_default() += 1;
        }
        for name in &victims {
            slowest = slowest.max(region.restart(name));
        }
    }
    Killed { region, kills, slowest }
}

/// Everything, once all is quiet. Answers how many events were told.
async fn audit(region: &Deployment, accounts: &[Account]) -> usize {
    for account in accounts {
        account.settled().await;
    }
    quiet(region).await;
    for account in accounts {
        account.audit().await;
    }
    Region::agreed(region, accounts).await.audit();
    let mut events = 0;
    for account in accounts {
        events += audit_events::audit(account).await;
    }
    events
}
