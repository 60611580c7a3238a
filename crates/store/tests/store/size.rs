//! How much disk a store takes.

use std::path::Path;

use gureum_store::Store;

use crate::support::{Counter, Item, ItemRow, Random, Schema, TestClock, engine, fast_folder, files, item};

const ROWS: u64 = 12_000;
const BODY: usize = 1_000;

fn bytes_on_disk(directory: &Path) -> u64 {
    files(directory).iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

/// 12 MB of rows, each overwritten six times in random order, with the thresholds of production.
#[tokio::test]
async fn many_overwrites_leave_less_than_three_times_the_live_data() {
    let folder = fast_folder();
    let open = || Store::<Schema>::open(engine(folder.path(), 2 << 20), TestClock::default().options()).unwrap();
    let store = open();
    let mut random = Random(7);
    let (live, mut most) = (ROWS * BODY as u64, 0);
    assert!(live > 8 << 20);
    for round in 0..7 * ROWS / 100 {
        let numbers: Vec<u64> = (0..100).map(|place| if round < ROWS / 100 { round * 100 + place } else { random.below(ROWS) }).collect();
        // Nothing that a checkpoint could compress, of which each byte is stored as one.
        let bodies: Vec<Vec<u8>> = numbers.iter().map(|_| (0..BODY).map(|_| random.below(128) as u8).collect()).collect();
        let write = store.write(move |transaction| {
            numbers.into_iter().zip(bodies).for_each(|(number, body)| transaction.put(ItemRow(Item { body, ..item(number) })));
            transaction.put(Counter { name: "rounds".into(), value: round });
            Ok::<_, ()>(())
        });
        write.await.unwrap();
        if round % 20 == 0 && round > ROWS / 50 {
            most = most.max(bytes_on_disk(folder.path()));
        }
    }
    drop(store);
    // Opening waits until the last checkpoint is in its place, and begins another if the journal behind it is long.
    drop(open());
    let store = open();
    assert_eq!(store.read().items.len() as u64, ROWS);
    let at_rest = bytes_on_disk(folder.path());
    let times = |bytes: u64| bytes as f64 / live as f64;
    println!("{live} live bytes: at rest {:.2} times as many on disk, {:.2} times at most meanwhile", times(at_rest), times(most));
    assert!(at_rest < 3 * live);
    assert!(most < 8 * live, "two checkpoints and two journals at most");
}
