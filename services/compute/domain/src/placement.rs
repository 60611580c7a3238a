//! Placement: on which node an instance goes.
//!
//! An index in memory over all nodes, by zone and free capacity. It is rebuilt on start from the nodes
//! and from the instances that hold capacity ([`Placement::adopt`]). A place is set aside before the
//! record is committed and given back with the commit that ends it, so that two decisions never get the
//! same capacity.
//!
//! A choice looks at [`SAMPLES`] random nodes and takes the one that is freest afterwards: that spreads
//! instances nearly as well as looking at all, in constant time. Only if none of them has room a
//! tree of maxima finds one that has, in O(log n) for nodes of similar shape; so nothing is refused while
//! there is room.

use std::collections::{BTreeMap, HashMap};

use gureum_model::id::{InstanceId, NodeId};

use crate::instance::Capacity;

/// Random nodes that a choice compares. Two are known to spread well; four cost little more.
pub const SAMPLES: usize = 4;

/// Which node has how much room, and which instance holds how much of it.
#[derive(Debug, Default)]
pub struct Placement {
    zones: BTreeMap<char, Zone>,
    nodes: HashMap<NodeId, (char, usize)>,
    held: HashMap<InstanceId, Held>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    node: NodeId,
    need: Capacity,
}

#[derive(Debug, Default)]
struct Zone {
    slots: Vec<Slot>,
    /// Maxima of what is free: the root at 1, the children of n at 2n and 2n+1, the slots from `leaves` on.
    tree: Vec<Capacity>,
    leaves: usize,
    free: Capacity,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    node: NodeId,
    total: Capacity,
    used: Capacity,
    instances: usize,
    /// Takes new instances.
    open: bool,
}

impl Slot {
    /// What can still be promised: nothing on a closed or overfull node.
    fn free(&self) -> Capacity {
        if !self.open {
            return Capacity::default();
        }
        Capacity {
            vcpu_milli: self.total.vcpu_milli.saturating_sub(self.used.vcpu_milli),
            memory_mib: self.total.memory_mib.saturating_sub(self.used.memory_mib),
        }
    }

    fn fits(&self, need: Capacity) -> bool {
        self.open && holds(self.free(), need)
    }

    /// How free the node is with `need` on it: the scarcer of both, in millionths.
    fn share_after(&self, need: Capacity) -> u64 {
        let free = self.free();
        let share = |free: u64, need: u64, total: u64| free.saturating_sub(need).saturating_mul(1_000_000) / total.max(1);
        share(free.vcpu_milli, need.vcpu_milli, self.total.vcpu_milli).min(share(free.memory_mib, need.memory_mib, self.total.memory_mib))
    }
}

fn holds(free: Capacity, need: Capacity) -> bool {
    free.vcpu_milli >= need.vcpu_milli && free.memory_mib >= need.memory_mib
}

fn larger(one: Capacity, other: Capacity) -> Capacity {
    Capacity { vcpu_milli: one.vcpu_milli.max(other.vcpu_milli), memory_mib: one.memory_mib.max(other.memory_mib) }
}

impl Zone {
    /// Slots stand in the order of their nodes' ids, whoever came first: the same numbers then choose the same nodes.
    fn add(&mut self, slot: Slot) -> usize {
        let place = self.slots.partition_point(|known| known.node < slot.node);
        self.slots.insert(place, slot);
        if self.slots.len() > self.leaves || place + 1 < self.slots.len() {
            self.leaves = self.slots.len().next_power_of_two();
            self.tree = vec![Capacity::default(); 2 * self.leaves];
            for (leaf, slot) in self.tree[self.leaves..].iter_mut().zip(&self.slots) {
                *leaf = slot.free();
            }
            // What `refresh` adds to all that is free.
            self.tree[self.leaves + place] = Capacity::default();
            for inner in (1..self.leaves).rev() {
                self.tree[inner] = larger(self.tree[2 * inner], self.tree[2 * inner + 1]);
            }
        }
        self.refresh(place);
        place
    }

    /// Brings the tree up to date after the slot changed.
    fn refresh(&mut self, place: usize) {
        let (leaf, free) = (self.leaves + place, self.slots[place].free());
        let before = self.tree[leaf];
        self.free.vcpu_milli = self.free.vcpu_milli - before.vcpu_milli + free.vcpu_milli;
        self.free.memory_mib = self.free.memory_mib - before.memory_mib + free.memory_mib;
        self.tree[leaf] = free;
        let mut inner = leaf / 2;
        while inner >= 1 {
            self.tree[inner] = larger(self.tree[2 * inner], self.tree[2 * inner + 1]);
            inner /= 2;
        }
    }

    fn change(&mut self, place: usize, change: impl FnOnce(&mut Slot)) {
        change(&mut self.slots[place]);
        self.refresh(place);
    }

    fn choose(&self, need: Capacity, random: &mut Random) -> Option<usize> {
        if self.slots.is_empty() || !holds(self.tree[1], need) {
            return None;
        }
        let sampled = (0..SAMPLES).map(|_| random.below(self.slots.len())).filter(|place| self.slots[*place].fits(need));
        sampled.max_by_key(|place| self.slots[*place].share_after(need)).or_else(|| self.search(need, random))
    }

    /// Any slot that fits, beginning at a random one so that a nearly full zone does not fill from the left.
    fn search(&self, need: Capacity, random: &mut Random) -> Option<usize> {
        let start = random.below(self.slots.len());
        self.first_from(1, 0, self.leaves, start, need).or_else(|| self.first_from(1, 0, self.leaves, 0, need))
    }

    /// The first slot from `start` on below the tree's `inner` node (which covers `width` leaves from `left`).
    fn first_from(&self, inner: usize, left: usize, width: usize, start: usize, need: Capacity) -> Option<usize> {
        if left + width <= start || !holds(self.tree[inner], need) {
            return None;
        }
        if width == 1 {
            return self.slots.get(left).is_some_and(|slot| slot.fits(need)).then_some(left);
        }
        let half = width / 2;
        self.first_from(2 * inner, left, half, start, need).or_else(|| self.first_from(2 * inner + 1, left + half, half, start, need))
    }
}

/// Numbers that follow from one given number: the same places for the same seed.
struct Random(u64);

impl Random {
    /// SplitMix64, which is plenty for spreading.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        // usize has at most 64 bits on every platform Rust has, so nothing is cut off that matters.
        (self.next() % bound.max(1) as u64) as usize
    }
}

impl Placement {
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a node known, or known anew with other capacity. Only an open one takes new instances.
    pub fn set_node(&mut self, node: NodeId, zone: char, capacity: Capacity, open: bool) {
        match self.nodes.get(&node) {
            Some((zone, place)) => {
                if let Some(zone) = self.zones.get_mut(zone) {
                    zone.change(*place, |slot| (slot.total, slot.open) = (capacity, open));
                }
            }
            None => {
                let slot = Slot { node, total: capacity, used: Capacity::default(), instances: 0, open };
                let slots = self.zones.entry(zone).or_default();
                let place = slots.add(slot);
                for (place, moved) in slots.slots.iter().enumerate().skip(place) {
                    self.nodes.insert(moved.node, (zone, place));
                }
            }
        }
    }

    /// Takes no new instances onto a node that is lost or dead. What is held there stays held until
    /// each instance's own commit releases it.
    pub fn close(&mut self, node: NodeId) {
        self.on_node(node, |slot| slot.open = false);
    }

    /// Sets capacity aside for an instance and says where: on `preferred` if it has room there, else by
    /// sampling. One that has a place keeps it. None if no node of the zone has room.
    pub fn place(&mut self, instance: InstanceId, zone: char, need: Capacity, preferred: Option<NodeId>, random: u64) -> Option<NodeId> {
        if let Some(held) = self.held.get(&instance) {
            return Some(held.node);
        }
        let slots = self.zones.get(&zone)?;
        let at_preferred =
            preferred.and_then(|node| self.nodes.get(&node)).filter(|(at, place)| *at == zone && slots.slots[*place].fits(need));
        let place = match at_preferred {
            Some((_, place)) => *place,
            None => slots.choose(need, &mut Random(random))?,
        };
        let node = slots.slots[place].node;
        self.hold(instance, Held { node, need });
        Some(node)
    }

    /// Places as many of the instances as there is room for, in order, but at least `min` or none.
    pub fn place_all(&mut self, instances: &[InstanceId], min: usize, zone: char, need: Capacity, random: u64) -> Option<Vec<NodeId>> {
        let mut numbers = Random(random);
        let mut places = Vec::with_capacity(instances.len());
        for instance in instances {
            match self.place(*instance, zone, need, None, numbers.next()) {
                Some(node) => places.push(node),
                None => break,
            }
        }
        if places.len() < min.max(1) {
            for instance in &instances[..places.len()] {
                self.release(*instance);
            }
            return None;
        }
        Some(places)
    }

    /// Notes a place that was decided before a restart, even where the node has shrunk meanwhile.
    pub fn adopt(&mut self, instance: InstanceId, node: NodeId, need: Capacity) {
        self.release(instance);
        self.hold(instance, Held { node, need });
    }

    /// Gives an instance's place back. One that holds none is no error.
    pub fn release(&mut self, instance: InstanceId) {
        let Some(held) = self.held.remove(&instance) else { return };
        self.on_node(held.node, |slot| {
            slot.used.vcpu_milli = slot.used.vcpu_milli.saturating_sub(held.need.vcpu_milli);
            slot.used.memory_mib = slot.used.memory_mib.saturating_sub(held.need.memory_mib);
            slot.instances = slot.instances.saturating_sub(1);
        });
    }

    fn hold(&mut self, instance: InstanceId, held: Held) {
        self.held.insert(instance, held);
        self.on_node(held.node, |slot| {
            slot.used.vcpu_milli = slot.used.vcpu_milli.saturating_add(held.need.vcpu_milli);
            slot.used.memory_mib = slot.used.memory_mib.saturating_add(held.need.memory_mib);
            slot.instances += 1;
        });
    }

    fn on_node(&mut self, node: NodeId, change: impl FnOnce(&mut Slot)) {
        if let Some((zone, place)) = self.nodes.get(&node)
            && let Some(zone) = self.zones.get_mut(zone)
        {
            zone.change(*place, change);
        }
    }

    /// Where an instance's capacity is set aside.
    pub fn place_of(&self, instance: InstanceId) -> Option<NodeId> {
        self.held.get(&instance).map(|held| held.node)
    }

    /// What a node has free, and how many instances hold the rest. None if it is unknown.
    pub fn of_node(&self, node: NodeId) -> Option<(Capacity, usize)> {
        let (zone, place) = self.nodes.get(&node)?;
        let slot = self.zones.get(zone)?.slots.get(*place)?;
        Some((slot.free(), slot.instances))
    }

    /// The zone with the most free vCPUs among those with a node on which `need` fits.
    pub fn best_zone(&self, need: Capacity) -> Option<char> {
        let roomy = self.zones.iter().filter(|(_, zone)| zone.tree.get(1).is_some_and(|most| holds(*most, need)));
        // The first of equals, so that the answer does not depend on the order of nodes.
        roomy.rev().max_by_key(|(_, zone)| zone.free.vcpu_milli).map(|(letter, _)| *letter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gureum_model::id::ResourceId;
    use proptest::prelude::*;

    fn node(number: u128) -> NodeId {
        NodeId::from_number(number)
    }

    fn instance(number: u128) -> InstanceId {
        InstanceId::from_number(number)
    }

    const fn capacity(vcpu_milli: u64, memory_mib: u64) -> Capacity {
        Capacity { vcpu_milli, memory_mib }
    }

    #[derive(Debug, Clone)]
    enum Command {
        Node { number: u128, zone: char, capacity: Capacity, open: bool },
        Close(u128),
        Place { instance: u128, zone: char, need: Capacity, preferred: Option<u128>, random: u64 },
        Release(u128),
    }

    fn command() -> impl Strategy<Value = Command> {
        let zone = || prop_oneof![Just('a'), Just('b')];
        let size = || (1u64..9, 1u64..9).prop_map(|(cpu, memory)| capacity(cpu * 500, memory * 512));
        prop_oneof![
            1 => (0u128..12, zone(), size(), prop::bool::weighted(0.9)).prop_map(|(number, zone, capacity, open)| Command::Node { number, zone, capacity, open }),
            1 => (0u128..12).prop_map(Command::Close),
            6 => (0u128..60, zone(), size(), prop::option::of(0u128..12), any::<u64>()).prop_map(|(instance, zone, need, preferred, random)| Command::Place {
                instance, zone, need: capacity(need.vcpu_milli / 4, need.memory_mib / 4), preferred, random
            }),
            3 => (0u128..60).prop_map(Command::Release),
        ]
    }

    /// The plainest bookkeeping, as a model.
    #[derive(Default)]
    struct Model {
        nodes: BTreeMap<u128, (char, Capacity, bool)>,
        held: BTreeMap<u128, (u128, Capacity)>,
    }

    impl Model {
        fn used(&self, number: u128) -> Capacity {
            self.held
                .values()
                .filter(|(node, _)| *node == number)
                .fold(Capacity::default(), |sum, (_, need)| capacity(sum.vcpu_milli + need.vcpu_milli, sum.memory_mib + need.memory_mib))
        }

        fn fits(&self, number: u128, zone: char, need: Capacity) -> bool {
            self.nodes.get(&number).is_some_and(|(at, total, open)| {
                let used = self.used(number);
                *open
                    && *at == zone
                    && used.vcpu_milli + need.vcpu_milli <= total.vcpu_milli
                    && used.memory_mib + need.memory_mib <= total.memory_mib
            })
        }
    }

    proptest! {
        #[test]
        fn never_oversold_and_never_refused_while_there_is_room(commands in prop::collection::vec(command(), 1..160)) {
            let (mut placement, mut model) = (Placement::new(), Model::default());
            for command in commands {
                match command {
                    Command::Node { number, zone, capacity, open } => {
                        let zone = model.nodes.get(&number).map_or(zone, |(at, _, _)| *at);
                        placement.set_node(node(number), zone, capacity, open);
                        model.nodes.insert(number, (zone, capacity, open));
                    }
                    Command::Close(number) => {
                        placement.close(node(number));
                        if let Some(known) = model.nodes.get_mut(&number) { known.2 = false; }
                    }
                    Command::Place { instance: number, zone, need, preferred, random } => {
                        let room = (0..12).any(|candidate| model.fits(candidate, zone, need));
                        let got = placement.place(instance(number), zone, need, preferred.map(node), random);
                        match model.held.get(&number) {
                            Some((at, _)) => prop_assert_eq!(got, Some(node(*at))),
                            None => {
                                prop_assert_eq!(got.is_some(), room);
                                if let Some(got) = got {
                                    prop_assert!(model.fits(got.number(), zone, need));
                                    if let Some(preferred) = preferred.filter(|preferred| model.fits(*preferred, zone, need)) {
                                        prop_assert_eq!(got, node(preferred));
                                    }
                                    model.held.insert(number, (got.number(), need));
                                }
                            }
                        }
                    }
                    Command::Release(number) => {
                        placement.release(instance(number));
                        model.held.remove(&number);
                    }
                }
                for (number, (_, total, open)) in &model.nodes {
                    let used = model.used(*number);
                    let free = if *open {
                        capacity(total.vcpu_milli.saturating_sub(used.vcpu_milli), total.memory_mib.saturating_sub(used.memory_mib))
                    } else { Capacity::default() };
                    let count = model.held.values().filter(|(at, _)| at == number).count();
                    prop_assert_eq!(placement.of_node(node(*number)), Some((free, count)));
                }
            }
        }

        #[test]
        fn a_batch_is_whole_or_nothing(nodes in 1u128..6, wanted in 1usize..20, min in 1usize..20, random in any::<u64>()) {
            let min = min.min(wanted);
            let mut placement = Placement::new();
            for number in 0..nodes { placement.set_node(node(number), 'a', capacity(2000, 2048), true); }
            let room = usize::try_from(nodes * 2).unwrap_or(usize::MAX);
            let ids: Vec<_> = (0..wanted as u128).map(instance).collect();
            let got = placement.place_all(&ids, min, 'a', capacity(1000, 1024), random);
            prop_assert_eq!(got.map(|places| places.len()), (room >= min).then_some(room.min(wanted)));
            let held = ids.iter().filter(|id| placement.place_of(**id).is_some()).count();
            prop_assert_eq!(held, if room >= min { room.min(wanted) } else { 0 });
        }
    }

    #[test]
    fn instances_are_spread() {
        let mut placement = Placement::new();
        for number in 0..100 {
            placement.set_node(node(number), 'a', capacity(64_000, 262_144), true);
        }
        for number in 0..1600 {
            assert!(placement.place(instance(number), 'a', capacity(2000, 4096), None, number as u64).is_some());
        }
        let most = (0..100).filter_map(|number| placement.of_node(node(number))).map(|(_, count)| count).max();
        // 16 on average; the best of four samples stays close to it.
        assert!(most.is_some_and(|most| most <= 20), "{most:?}");
    }

    #[test]
    fn the_same_number_gives_the_same_place() {
        // Whatever the order in which nodes come, and whatever is on them already.
        let build = |order: &mut dyn Iterator<Item = u128>| {
            let mut placement = Placement::new();
            for number in order {
                placement.set_node(node(number), 'a', capacity(8000, 8192), true);
                placement.adopt(instance(100 + number), node(number), capacity(100 * number as u64, 1));
            }
            placement
        };
        let (mut one, mut two) = (build(&mut (0..10)), build(&mut (0..10).map(|number| (number * 7) % 10)));
        for number in 0..40 {
            let need = capacity(1500, 1);
            assert_eq!(
                one.place(instance(number), 'a', need, None, number as u64),
                two.place(instance(number), 'a', need, None, number as u64)
            );
        }
        for number in 0..10 {
            assert_eq!(one.of_node(node(number)), two.of_node(node(number)));
            let on_it = (0..40).filter(|it| one.held.get(&instance(*it)).is_some_and(|held| held.node == node(number))).count();
            assert_eq!(one.of_node(node(number)).map(|(_, count)| count), Some(on_it + 1));
        }
        let (mut one, _) = (build(&mut (0..0)), ());
        one.set_node(node(1), 'a', capacity(8000, 8192), true);
        assert_eq!(one.best_zone(capacity(8000, 8192)), Some('a'));
        assert_eq!(one.best_zone(capacity(8001, 1)), None);
    }
}
