//! Which address is given out next: next-fit over ranges.
//!
//! The pool knows no list of what is free. Who uses an address says so in its own record, and an ordered
//! index over those records answers "which is the first used address from here on". A cursor stands
//! behind the address given out last; the next one is the first free address from the cursor on, around
//! the end of the ranges. So an address that was given back is not given out again before all others
//! that were free then: a client that still talks to the old address rarely meets its new holder.
//!
//! Cost: one lookup (O(log n)) for each used address passed over. The cursor passes over each address
//! once per lap, so a lap that gives out `f` of `n` addresses costs `n / f` lookups for each: below 16
//! as long as a sixteenth of the pool is free. An exhausted pool is known by its count, without a lap.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Addresses of a subnet that are not given out at its beginning (network, router, resolver, reserve),
/// as in EC2. At its end it is one (broadcast).
pub const RESERVED_FIRST: u32 = 4;

/// Addresses that can be given out: disjoint runs in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranges {
    runs: Vec<(u32, u32)>,
    /// Passes over addresses that end in 0 or 255: some software takes them for networks and broadcasts.
    skips_ends: bool,
    capacity: u64,
}

/// Why networks are no pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangesError {
    #[error("the networks {0} and {1} of the public pool overlap; leave one out")]
    Overlap(Ipv4Net, Ipv4Net),
    #[error("the public pool has no address: name at least one network such as 127.8.0.0/16")]
    Empty,
}

impl Ranges {
    /// The public pool: all addresses of these networks but those that end in 0 or 255.
    pub fn public(networks: &[Ipv4Net]) -> Result<Self, RangesError> {
        let mut networks: Vec<_> = networks.iter().map(Ipv4Net::trunc).collect();
        networks.sort();
        for pair in networks.windows(2) {
            if pair[0].broadcast() >= pair[1].network() {
                return Err(RangesError::Overlap(pair[0], pair[1]));
            }
        }
        let runs = networks.iter().map(|network| (network.network().to_bits(), network.broadcast().to_bits())).collect();
        let ranges = Self::new(runs, true);
        if ranges.capacity == 0 { Err(RangesError::Empty) } else { Ok(ranges) }
    }

    /// A subnet: all its addresses but the first four and the last, as in EC2.
    pub fn subnet(network: Ipv4Net) -> Self {
        let (first, last) = (network.network().to_bits(), network.broadcast().to_bits());
        Self::new(vec![(first.saturating_add(RESERVED_FIRST), last.saturating_sub(1))], false)
    }

    fn new(mut runs: Vec<(u32, u32)>, skips_ends: bool) -> Self {
        runs.retain(|(first, last)| first <= last);
        let count = |(first, last): &(u32, u32)| {
            let all = u64::from(last - first) + 1;
            if !skips_ends {
                return all;
            }
            // How many addresses below a bound end in 0 or in 255.
            let ends_below = |bound: u64| bound.div_ceil(256) + bound / 256;
            all - (ends_below(u64::from(*last) + 1) - ends_below(u64::from(*first)))
        };
        let capacity = runs.iter().map(count).sum();
        Self { runs, skips_ends, capacity }
    }

    /// How many addresses there are to give.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Whether the address can be given out at all.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.at_or_after(address.to_bits()) == Some(address.to_bits())
    }

    fn at_or_after(&self, from: u32) -> Option<u32> {
        let place = self.runs.partition_point(|(_, last)| *last < from);
        self.runs[place..].iter().find_map(|(first, last)| {
            let mut address = from.max(*first);
            while self.skips_ends && matches!(address & 255, 0 | 255) && address < *last {
                address += 1;
            }
            let fits = !self.skips_ends || !matches!(address & 255, 0 | 255);
            fits.then_some(address)
        })
    }

    /// The first free address from `cursor` on, around the end. `next_used` answers the first used
    /// address that is not before the one given.
    pub fn next_free(&self, cursor: Ipv4Addr, next_used: impl Fn(Ipv4Addr) -> Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let cursor = cursor.to_bits();
        let behind = self.free_within(cursor, u32::MAX, &next_used);
        let found = behind.or_else(|| self.free_within(0, cursor.checked_sub(1)?, &next_used));
        found.map(Ipv4Addr::from_bits)
    }

    fn free_within(&self, from: u32, to: u32, next_used: &impl Fn(Ipv4Addr) -> Option<Ipv4Addr>) -> Option<u32> {
        let mut candidate = self.at_or_after(from)?;
        while candidate <= to {
            if next_used(Ipv4Addr::from_bits(candidate)) != Some(Ipv4Addr::from_bits(candidate)) {
                return Some(candidate);
            }
            candidate = self.at_or_after(candidate.checked_add(1)?)?;
        }
        None
    }
}

/// Where the search begins after this address was given out.
pub fn cursor_after(address: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits().wrapping_add(1))
}

/// The state of the region's public pool. There is one, shared by all scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicPool {
    /// Behind the address given out last.
    pub cursor: Ipv4Addr,
    /// Addresses of the configured ranges that are held.
    pub used: u64,
}

impl Default for PublicPool {
    fn default() -> Self {
        Self { cursor: Ipv4Addr::UNSPECIFIED, used: 0 }
    }
}

impl PublicPool {
    /// The state after the configured ranges may have changed: counts anew what is held. `held` are all
    /// public addresses in use, each once, whatever the ranges; those outside stay with their holders.
    pub fn recounted(self, ranges: &Ranges, held: impl Iterator<Item = Ipv4Addr>) -> Self {
        Self { used: held.filter(|address| ranges.contains(*address)).count() as u64, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeSet, VecDeque};

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn members(ranges: &Ranges, networks: &[Ipv4Net]) -> Vec<Ipv4Addr> {
        networks
            .iter()
            .flat_map(|network| (network.network().to_bits()..=network.broadcast().to_bits()).map(Ipv4Addr::from_bits))
            .filter(|address| ranges.contains(*address))
            .collect()
    }

    #[test]
    fn capacity_is_what_can_be_given() {
        for texts in [&["127.8.0.0/24"][..], &["127.8.0.0/28", "127.8.1.240/28"], &["10.0.0.5/32"], &["127.8.0.0/22", "127.9.0.128/25"]] {
            let networks: Vec<_> = texts.iter().map(|text| net(text)).collect();
            let ranges = Ranges::public(&networks).unwrap();
            let members = members(&ranges, &networks);
            assert_eq!(ranges.capacity(), members.len() as u64, "{texts:?}");
            assert!(members.iter().all(|address| !matches!(address.octets()[3], 0 | 255)));
        }
        assert_eq!(Ranges::subnet(net("172.31.0.0/20")).capacity(), 4091);
        assert_eq!(Ranges::subnet(net("10.0.0.0/28")).capacity(), 11);
        assert_eq!(Ranges::public(&[net("10.0.0.0/32")]), Err(RangesError::Empty));
        assert!(matches!(Ranges::public(&[net("10.0.0.0/8"), net("10.1.0.0/16")]), Err(RangesError::Overlap(..))));
        let whole = Ranges::public(&[net("0.0.0.0/0")]).unwrap();
        assert_eq!(whole.capacity(), (1 << 32) - 2 * (1 << 24));
    }

    proptest! {
        /// Against a set: never twice, never lost, exhausted exactly when all are out, and an address
        /// given back comes last.
        #[test]
        fn as_a_queue_of_free_addresses(commands in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..300)) {
            let networks = [net("127.8.0.250/29"), net("127.8.3.252/30"), net("127.8.9.7/32")];
            let ranges = Ranges::public(&networks).unwrap();
            let all = members(&ranges, &networks);
            let mut used: BTreeSet<Ipv4Addr> = BTreeSet::new();
            let mut cursor = Ipv4Addr::UNSPECIFIED;
            // The model: which were given back, and after how many others each may come again.
            let mut given_back: VecDeque<(Ipv4Addr, BTreeSet<Ipv4Addr>)> = VecDeque::new();
            for (gives_back, which) in commands {
                if gives_back && !used.is_empty() {
                    let address = *used.iter().nth(which.index(used.len())).unwrap();
                    let free: BTreeSet<_> = all.iter().copied().filter(|address| !used.contains(address)).collect();
                    used.remove(&address);
                    // Those free ones that lie between the cursor and the address, on the way round, come first.
                    let distance = |to: Ipv4Addr| to.to_bits().wrapping_sub(cursor.to_bits());
                    let before = free.into_iter().filter(|other| distance(*other) < distance(address)).collect();
                    given_back.push_back((address, before));
                    continue;
                }
                match ranges.next_free(cursor, |from| used.range(from..).next().copied()) {
                    Some(address) => {
                        prop_assert!(all.contains(&address));
                        prop_assert!(used.insert(address));
                        if let Some(place) = given_back.iter().position(|(back, _)| *back == address) {
                            let (_, before) = given_back.remove(place).unwrap();
                            prop_assert!(before.is_subset(&used) || before.iter().all(|other| used.contains(other) || given_back.iter().any(|(back, _)| back == other)));
                        }
                        cursor = cursor_after(address);
                    }
                    None => prop_assert_eq!(used.len(), all.len()),
                }
            }
        }
    }

    #[test]
    fn what_was_given_back_is_not_given_out_again_first() {
        let ranges = Ranges::subnet(net("10.0.0.0/28"));
        let mut used: BTreeSet<Ipv4Addr> = BTreeSet::new();
        let mut cursor = Ipv4Addr::UNSPECIFIED;
        let mut seen = BTreeSet::new();
        for _ in 0..ranges.capacity() {
            let address = ranges.next_free(cursor, |from| used.range(from..).next().copied()).unwrap();
            assert!(seen.insert(address), "{address} came again before the others");
            used.insert(address);
            cursor = cursor_after(address);
            used.remove(&address);
        }
    }
}
