//! Decisions of placement on 5,000 nodes, beside looking at every node for each.

use std::{collections::VecDeque, time::Instant};

use gureum_compute_domain::{instance::Capacity, placement::Placement};
use gureum_model::id::{InstanceId, NodeId, ResourceId};

use crate::{
    Failure,
    measure::{median, spread},
};

const NODES: u128 = 5_000;
const ROUNDS: usize = 5;
const DECISIONS: u128 = 100_000;
/// Looking at all is slow.
const PLAIN_DECISIONS: u128 = 2_000;
const NODE: Capacity = Capacity { vcpu_milli: 64_000, memory_mib: 256 << 10 };

/// A mixture: from 1 vCPU and 1 GiB to 8 vCPUs and 32 GiB.
fn need(number: u128) -> Capacity {
    let size = 1 << (number % 4);
    Capacity { vcpu_milli: size * 1000, memory_mib: size * size.min(4) * 1024 }
}

/// What a node has left, by number: the plainest bookkeeping.
type Plain = Vec<Capacity>;

pub fn run() -> Result<(), Failure> {
    println!("\n## Placement on {NODES} nodes: a decision gives one instance's place back and places another of its size\n");
    println!("| how full | decisions a second (goal: 20,000) | rounds | looking at all nodes |\n| --- | --- | --- | --- |");
    for percent in [50, 95, 99] {
        let mut fleet = Fleet::filled(percent)?;
        let (mut rates, mut plain_rates) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            rates.push(fleet.decide()?);
            plain_rates.push(look_at_all(&mut fleet.plain));
        }
        let (low, high) = spread(&rates);
        println!("| {percent} % | {:.0} | {low:.0} to {high:.0} | {:.0} |", median(rates), median(plain_rates));
    }
    Ok(())
}

struct Fleet {
    placement: Placement,
    /// Who has a place, the oldest first.
    placed: VecDeque<(InstanceId, Capacity)>,
    next: u128,
    plain: Plain,
}

impl Fleet {
    /// Nodes with so much of their vCPUs given away.
    fn filled(percent: u64) -> Result<Self, Failure> {
        let mut placement = Placement::new();
        for number in 0..NODES {
            placement.set_node(NodeId::from_number(number), 'a', NODE, true);
        }
        let wanted = NODE.vcpu_milli * NODES as u64 / 100 * percent;
        let (mut placed, mut given, mut next) = (VecDeque::new(), 0, 0);
        while given < wanted {
            let (instance, need) = (InstanceId::from_number(next), need(next));
            // The large ones may not fit any more; smaller ones follow.
            if placement.place(instance, 'a', need, None, next as u64).is_some() {
                placed.push_back((instance, need));
                given += need.vcpu_milli;
            }
            next += 1;
        }
        let nodes = (0..NODES).filter_map(|number| placement.of_node(NodeId::from_number(number)));
        let plain = nodes.map(|(free, _)| free).collect();
        Ok(Self { placement, placed, next, plain })
    }

    /// Decisions a second.
    fn decide(&mut self) -> Result<f64, Failure> {
        let begun = Instant::now();
        for _ in 0..DECISIONS {
            let (oldest, need) = self.placed.pop_front().ok_or("nothing is placed")?;
            self.placement.release(oldest);
            let instance = InstanceId::from_number(self.next);
            self.placement.place(instance, 'a', need, None, self.next as u64).ok_or("no room, although as much was given back")?;
            self.placed.push_back((instance, need));
            self.next += 1;
        }
        Ok(DECISIONS as f64 / begun.elapsed().as_secs_f64())
    }
}

/// Decisions a second when each looks at every node for the one that is freest afterwards.
fn look_at_all(plain: &mut Plain) -> f64 {
    let begun = Instant::now();
    for number in 0..PLAIN_DECISIONS {
        let need = need(number);
        let fits = |free: &&mut Capacity| free.vcpu_milli >= need.vcpu_milli && free.memory_mib >= need.memory_mib;
        let left = |free: &&mut Capacity| (free.vcpu_milli - need.vcpu_milli).min(free.memory_mib - need.memory_mib);
        if let Some(best) = plain.iter_mut().filter(fits).max_by_key(left) {
            best.vcpu_milli -= need.vcpu_milli;
            best.memory_mib -= need.memory_mib;
        }
        // Given back at once, somewhere: what matters is the time.
        let place = number as usize % plain.len();
        plain[place].vcpu_milli += need.vcpu_milli;
        plain[place].memory_mib += need.memory_mib;
    }
    PLAIN_DECISIONS as f64 / begun.elapsed().as_secs_f64()
}
