//! `up` until it is ready, memory when nothing happens, and the size of the program; beside etcd's.

use std::{fs, path::Path, time::Duration};

use crate::{
    Failure,
    etcd::Etcd,
    measure::{median, milliseconds, spread},
    program::{Running, path},
};

const ROUNDS: usize = 9;
/// After it no start-up work is left.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

#[derive(Default)]
struct Started {
    took: Vec<f64>,
    memory: Vec<f64>,
}

impl Started {
    fn note(&mut self, took: Duration, memory: Option<f64>) {
        self.took.push(took.as_secs_f64());
        self.memory.extend(memory);
    }

    fn print(&self, what: &str, size: f64) {
        let (low, high) = spread(&self.took);
        let time = |seconds: f64| milliseconds(Duration::from_secs_f64(seconds));
        let (took, memory) = (time(median(self.took.clone())), median(self.memory.clone()));
        println!("| {what} | {took} | {} to {} | {memory:.1} MiB | {size:.1} MiB |", time(low), time(high));
    }
}

pub async fn run(folder: &Path) -> Result<(), Failure> {
    println!("\n## From start to ready, {ROUNDS} rounds in turn\n");
    let mut started: [Started; 4] = Default::default();
    for round in 0..ROUNDS {
        // Memory is looked at in one round: it hardly differs, and the wait is long.
        let settled = round == 0;
        let kept = folder.join("kept");
        for (number, (state, more)) in [(None, &[][..]), (Some(&kept), &[]), (Some(&kept), &["--processes"])].into_iter().enumerate() {
            let region = Running::region(state.map(|path| path.as_path()), more).await?;
            let memory = if settled { Some(settle(|| region.memory()).await?) } else { None };
            started[number].note(region.took, memory);
            region.kill().await?;
        }
        let folder = folder.join(format!("etcd-start-{round}"));
        if let Some(etcd) = Etcd::start(&folder).await? {
            let memory = if settled { Some(settle(|| etcd.memory()).await?) } else { None };
            started[3].note(etcd.took, memory);
        }
    }
    println!(
        "| what | ready after (goal: 150 ms) | rounds | resident when idle (goal: 40 MiB) | program |\n| --- | --- | --- | --- | --- |"
    );
    let size = mebibytes(&path()?)?;
    started[0].print("up --memory", size);
    started[1].print("up --directory", size);
    started[2].print("up --directory --processes (the supervisor alone)", size);
    if !started[3].took.is_empty() {
        let size = mebibytes(Path::new("/usr/bin/etcd")).unwrap_or_default();
        started[3].print("etcd, one new member, until its first put", size);
    }
    Ok(())
}

async fn settle(memory: impl Fn() -> Result<f64, Failure>) -> Result<f64, Failure> {
    tokio::time::sleep(SETTLED_AFTER).await;
    memory()
}

fn mebibytes(path: &Path) -> Result<f64, Failure> {
    Ok(fs::metadata(path)?.len() as f64 / f64::from(1 << 20))
}
