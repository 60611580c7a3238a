//! How much disk a store takes.

use std::path::Path;

use gureum_store::Store;

use crate::support::{Counter, Item, ItemRow, Random, Schema, TestClock, engine, fast_folder, files, item};

const ROWS: u64 = 3_000;
/// So large that what else stands in a row does not count.
const BODY: usize = 4_000;

fn bytes_on_disk(directory: &Path) -> u64 {
    files(directory).iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

/// Overwrites 12 MB of rows six times in random order, with the thresholds of production. Answers how many times
/// their size the directory has at rest, and at most meanwhile.
async fn overwrite(mut body: impl FnMut(&mut Random) -> Vec<u8>) -> (f64, f64) {
    let folder = fast_folder();
    let open = || Store::<Schema>::open(engine(folder.path(), 2 << 20), TestClock::default().options()).unwrap();
    let store = open();
    let mut random = Random(7);
    let (live, mut most) = (ROWS * BODY as u64, 0);
    assert!(live > 8 << 20);
    for round in 0..7 * ROWS / 25 {
        let numbers: Vec<u64> = (0..25).map(|place| if round < ROWS / 25 { round * 25 + place } else { random.below(ROWS) }).collect();
        let bodies: Vec<Vec<u8>> = numbers.iter().map(|_| body(&mut random)).collect();
        let write = store.write(move |transaction| {
            numbers.into_iter().zip(bodies).for_each(|(number, body)| transaction.put(ItemRow(Item { body, ..item(number) })));
            transaction.put(Counter { name: "rounds".into(), value: round });
            Ok::<_, ()>(())
        });
        write.await.unwrap();
        if round > 2 * ROWS / 25 {
            most = most.max(bytes_on_disk(folder.path()));
        }
    }
    drop(store);
    // Opening waits until the last checkpoint is in its place, and begins another if the journal behind it is long.
    drop(open());
    let store = open();
    assert_eq!(store.read().items.len() as u64, ROWS);
    let times = |bytes: u64| bytes as f64 / live as f64;
    let (at_rest, most) = (times(bytes_on_disk(folder.path())), times(most));
    println!("{live} live bytes: at rest {at_rest:.2} times as many on disk, {most:.2} times at most meanwhile");
    (at_rest, most)
}

/// Words, as the rows of services have them, compress to about half.
#[tokio::test]
async fn a_store_takes_less_than_three_times_its_live_data_at_every_moment() {
    let words = |random: &mut Random| {
        let mut body = Vec::new();
        while body.len() < BODY {
            body.extend_from_slice(format!("i-{:016x} subnet-{:08x} available ", random.next(), random.below(64)).as_bytes());
        }
        body.truncate(BODY);
        body
    };
    let (at_rest, most) = overwrite(words).await;
    assert!(at_rest < 3.0 && most < 3.0, "{at_rest:.2} times at rest, {most:.2} times at most");
}

/// Nothing that could be compressed, of which each byte is stored as one.
#[tokio::test]
async fn so_does_one_whose_data_cannot_be_compressed() {
    let noise = |random: &mut Random| (0..BODY).map(|_| random.below(128) as u8).collect();
    let (at_rest, most) = overwrite(noise).await;
    assert!(at_rest < 3.0 && most < 3.0, "{at_rest:.2} times at rest, {most:.2} times at most");
}
