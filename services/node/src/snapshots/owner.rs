//! Whose files: user ids of the host, and what an instance sees of them.

/// User ids that an instance has.
pub const IDS: u32 = 65_536;
/// The host's user ids from here on are instances': above those that hosts give to people and to containers.
pub const FIRST: u32 = 1 << 30;

/// The ids that stand for an instance's own, as many as [`IDS`] from this one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range(u32);

impl Range {
    /// The range in which an id is. What belongs to no instance belongs to the range of who runs the node, `own`: of an
    /// ordinary user, who has no others, or of root, to whom volumes belong that no instance has.
    pub fn of(id: u32, own: u32) -> Self {
        Self(id.checked_sub(FIRST).map_or(own, |above| FIRST + above / IDS * IDS))
    }

    /// An id of the host as the instance sees it. What is not in the range was made for it from outside: its root's.
    pub fn within(self, id: u32) -> u32 {
        id.checked_sub(self.0).filter(|within| *within < IDS).unwrap_or(0)
    }

    /// An id that the instance sees as the host has it.
    pub fn host(self, within: u32) -> u32 {
        self.0 + within % IDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_same_within_whatever_range_they_are_moved_to() {
        let (one, other) = (Range::of(FIRST + 3 * IDS + 1_000, 0), Range::of(FIRST + 9 * IDS, 0));
        assert_eq!(one.within(FIRST + 3 * IDS + 1_000), 1_000);
        assert_eq!(other.host(one.within(FIRST + 3 * IDS + 33)), FIRST + 9 * IDS + 33);
        assert_eq!(one.within(0), 0, "what the host's root made is the instance's root's");
        // An instance that gave its volume's top to another of its users is no other instance.
        assert_eq!(Range::of(FIRST + 3 * IDS, 0), one);
        assert_eq!(Range::of(1_000, 1_000).within(1_000), 0);
        assert_eq!(Range::of(33, 0).within(33), 33, "a volume that no instance has");
    }
}
