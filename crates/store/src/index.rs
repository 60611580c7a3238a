//! Secondary indexes: for each index its values in order, and under each value the keys of the rows.
//!
//! ```text
//! index name ─► persistent map: lowest entry ─► leaf: about 40 entries side by side in one text
//! ```
//!
//! A write copies what leads to each entry that it touches, because older snapshots keep the old.
//! With an allocation for each entry, a copy would have to count up those of all its neighbours, each
//! a miss of the cache: measured, 6 µs an entry in a table of 100,000 rows, of which a row has a
//! dozen. A leaf is copied as one piece of memory.

use std::{cmp::Ordering, ops::Bound, sync::Arc};

use equivalent::{Comparable, Equivalent};
use imbl::OrdMap;

/// A leaf with more bytes than this is cut in two. Larger leaves cost more to copy, smaller ones make
/// the map above them larger; between 2 and 8 KiB there is little between them.
const LEAF_BYTES: usize = 4096;

/// A leaf with fewer bytes than this joins the next one if both together leave room to grow.
const SMALL_LEAF_BYTES: usize = LEAF_BYTES / 4;

/// All indexes of a table. A clone is a snapshot and costs nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Indexes(OrdMap<&'static str, Tree>);

/// One index: leaves by an entry that is not above their first. The first leaf's is the lowest of all.
#[derive(Debug, Clone, Default)]
struct Tree(OrdMap<Separator, Arc<Leaf>>);

/// Entries in order. Never empty, but for the first leaf of a tree.
#[derive(Debug, Clone, Default)]
struct Leaf {
    /// Value and key of each entry, one behind the other.
    text: String,
    /// Where each entry's value and key end.
    ends: Vec<(u32, u32)>,
}

/// An index value and a row's key, in the order of the values and then of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry<'a> {
    value: &'a str,
    key: &'a str,
}

/// An entry that a map can own.
#[derive(Debug, Clone)]
struct Separator {
    text: Arc<str>,
    value_length: usize,
}

const LOWEST: Entry<'static> = Entry { value: "", key: "" };

impl Indexes {
    pub fn insert(&mut self, index: &'static str, value: &str, key: &str) {
        self.0.entry(index).or_default().insert(Entry { value, key });
    }

    pub fn remove(&mut self, index: &'static str, value: &str, key: &str) {
        if let Some(tree) = self.0.get_mut(index) {
            tree.remove(Entry { value, key });
        }
    }

    /// The keys under exactly this value that are greater than `after`, in order.
    pub fn find<'a>(&'a self, index: &'static str, value: &str, after: Option<&str>) -> impl Iterator<Item = &'a str> + use<'a> {
        let start = match after {
            Some(key) => Bound::Excluded(Entry { value, key }),
            None => Bound::Included(Entry { value, key: "" }),
        };
        let entries = self.0.get(index).map(|tree| tree.from(start));
        let value: Arc<str> = Arc::from(value);
        entries.into_iter().flatten().take_while(move |entry| entry.value == &*value).map(|entry| entry.key)
    }

    /// Values that are at least `from`, each with a key, in order.
    pub fn find_from<'a>(&'a self, index: &'static str, from: &str) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let entries = self.0.get(index).map(|tree| tree.from(Bound::Included(Entry { value: from, key: "" })));
        entries.into_iter().flatten().map(|entry| (entry.value, entry.key))
    }
}

impl Tree {
    /// Entries from `start` on, in order.
    fn from<'a>(&'a self, start: Bound<Entry<'_>>) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let (entry, past) = match start {
            Bound::Included(entry) => (entry, false),
            Bound::Excluded(entry) => (entry, true),
            Bound::Unbounded => (LOWEST, false),
        };
        let first = self.0.get_prev(&entry).map(|(separator, leaf)| {
            let place = leaf.place(entry).map_or_else(|place| place, |place| place + usize::from(past));
            let rest = self.0.range((Bound::Excluded(separator.entry()), Bound::Unbounded));
            leaf.entries(place).chain(rest.flat_map(|(_, leaf)| leaf.entries(0)))
        });
        first.into_iter().flatten()
    }

    fn insert(&mut self, entry: Entry<'_>) {
        if self.0.is_empty() {
            self.0.insert(Separator::new(LOWEST), Arc::default());
        }
        let Some((_, leaf)) = self.0.get_prev_mut(&entry) else { return };
        let Err(place) = leaf.place(entry) else { return };
        let mut lower = leaf.with(place, entry);
        let upper = (lower.text.len() > LEAF_BYTES && lower.ends.len() > 1).then(|| lower.split());
        *leaf = Arc::new(lower);
        if let Some(upper) = upper {
            self.0.insert(Separator::new(upper.entry(0)), Arc::new(upper));
        }
    }

    fn remove(&mut self, entry: Entry<'_>) {
        let Some((separator, leaf)) = self.0.get_prev_mut(&entry) else { return };
        let Ok(place) = leaf.place(entry) else { return };
        *leaf = Arc::new(leaf.without(place));
        if leaf.text.len() >= SMALL_LEAF_BYTES {
            return;
        }
        let (separator, bytes, empty) = (separator.clone(), leaf.text.len(), leaf.ends.is_empty());
        let next = self.0.range((Bound::Excluded(separator.entry()), Bound::Unbounded)).next();
        let next = next.filter(|(_, next)| bytes + next.text.len() <= LEAF_BYTES / 2).map(|(next, _)| next.clone());
        if let Some(upper) = next.and_then(|next| self.0.remove(&next)) {
            if let Some(leaf) = self.0.get_mut(&separator) {
                Arc::make_mut(leaf).join(&upper);
            }
        } else if empty && separator.entry() != LOWEST {
            self.0.remove(&separator);
        }
    }
}

impl Leaf {
    fn entry(&self, place: usize) -> Entry<'_> {
        let (value_end, key_end) = self.ends[place];
        let (value_end, key_end) = (value_end as usize, key_end as usize);
        Entry { value: &self.text[self.start(place)..value_end], key: &self.text[value_end..key_end] }
    }

    fn entries(&self, from: usize) -> impl Iterator<Item = Entry<'_>> {
        (from..self.ends.len()).map(|place| self.entry(place))
    }

    fn start(&self, place: usize) -> usize {
        place.checked_sub(1).map_or(0, |before| self.ends[before].1 as usize)
    }

    /// Where the entry is, or where it would be.
    fn place(&self, entry: Entry<'_>) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.entry(middle).cmp(&entry) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// These entries and one more, made in one piece.
    fn with(&self, place: usize, entry: Entry<'_>) -> Self {
        let start = self.start(place);
        let (value, whole) = (entry.value.len() as u32, (entry.value.len() + entry.key.len()) as u32);
        let mut text = String::with_capacity(self.text.len() + whole as usize);
        let (before, behind) = self.text.split_at(start);
        [before, entry.value, entry.key, behind].into_iter().for_each(|part| text.push_str(part));
        let mut ends = Vec::with_capacity(self.ends.len() + 1);
        let (before, behind) = self.ends.split_at(place);
        ends.extend_from_slice(before);
        ends.push((start as u32 + value, start as u32 + whole));
        ends.extend(behind.iter().map(|(value_end, key_end)| (value_end + whole, key_end + whole)));
        Self { text, ends }
    }

    /// These entries but one.
    fn without(&self, place: usize) -> Self {
        let (start, end) = (self.start(place), self.ends[place].1);
        let text = [&self.text[..start], &self.text[end as usize..]].concat();
        let gone = end - start as u32;
        let mut ends = Vec::with_capacity(self.ends.len() - 1);
        ends.extend_from_slice(&self.ends[..place]);
        ends.extend(self.ends[place + 1..].iter().map(|(value_end, key_end)| (value_end - gone, key_end - gone)));
        Self { text, ends }
    }

    /// Keeps the lower half and answers the upper. There must be two entries at least.
    fn split(&mut self) -> Self {
        let place = self.ends.len() / 2;
        let start = self.start(place);
        let mut upper = Self { text: self.text.split_off(start), ends: self.ends.split_off(place) };
        for (value_end, key_end) in &mut upper.ends {
            (*value_end, *key_end) = (*value_end - start as u32, *key_end - start as u32);
        }
        upper
    }

    /// Takes over all entries of the leaf behind it.
    fn join(&mut self, upper: &Self) {
        let start = self.text.len() as u32;
        self.text.push_str(&upper.text);
        self.ends.extend(upper.ends.iter().map(|(value_end, key_end)| (value_end + start, key_end + start)));
    }
}

impl Separator {
    fn new(entry: Entry<'_>) -> Self {
        Self { text: Arc::from([entry.value, entry.key].concat()), value_length: entry.value.len() }
    }

    fn entry(&self) -> Entry<'_> {
        let (value, key) = self.text.split_at(self.value_length);
        Entry { value, key }
    }
}

impl Ord for Separator {
    fn cmp(&self, other: &Self) -> Ordering {
        self.entry().cmp(&other.entry())
    }
}

impl PartialOrd for Separator {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Separator {
    fn eq(&self, other: &Self) -> bool {
        self.entry() == other.entry()
    }
}

impl Eq for Separator {}

impl Equivalent<Separator> for Entry<'_> {
    fn equivalent(&self, separator: &Separator) -> bool {
        *self == separator.entry()
    }
}

impl Comparable<Separator> for Entry<'_> {
    fn compare(&self, separator: &Separator) -> Ordering {
        self.cmp(&separator.entry())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    /// Values and keys with texts that could run into each other, some too long to share a leaf.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![8 => "[ab\0]{0,3}", 4 => "[a-d]{1,2}x{300}", 1 => "[ab]x{5000}"]
    }

    fn check(tree: &Tree, model: &BTreeSet<(String, String)>) {
        let all: Vec<_> = tree.from(Bound::Unbounded).map(|entry| (entry.value.to_owned(), entry.key.to_owned())).collect();
        assert!(all.iter().eq(model.iter()));
        for (place, (separator, leaf)) in tree.0.iter().enumerate() {
            assert!(place == 0 || !leaf.ends.is_empty(), "an empty leaf is left");
            assert!(leaf.text.len() <= LEAF_BYTES + 10_000, "a leaf was not cut");
            assert!(leaf.entries(0).all(|entry| separator.entry() <= entry));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// An index is a sorted set, and a snapshot of it never changes.
        #[test]
        fn an_index_is_a_sorted_set(commands in prop::collection::vec((prop::bool::weighted(0.6), text(), text()), 0..200), probe in (text(), text())) {
            let (mut tree, mut model) = (Tree::default(), BTreeSet::new());
            let mut snapshots = Vec::new();
            for (number, (insert, value, key)) in commands.into_iter().enumerate() {
                if number % 40 == 0 {
                    snapshots.push((tree.clone(), model.clone()));
                }
                if insert {
                    tree.insert(Entry { value: &value, key: &key });
                    model.insert((value, key));
                } else {
                    let (value, key) = model.range((value.clone(), key.clone())..).next().cloned().unwrap_or((value, key));
                    tree.remove(Entry { value: &value, key: &key });
                    model.remove(&(value, key));
                }
                check(&tree, &model);
            }
            let from = Entry { value: &probe.0, key: &probe.1 };
            let found: Vec<_> = tree.from(Bound::Excluded(from)).map(|entry| (entry.value.to_owned(), entry.key.to_owned())).collect();
            let expected = model.range((Bound::Excluded(&probe), Bound::Unbounded));
            prop_assert!(found.iter().eq(expected));
            for (tree, model) in snapshots {
                check(&tree, &model);
            }
        }
    }

    #[test]
    fn leaves_join_when_most_entries_go() {
        let mut tree = Tree::default();
        let keys: Vec<String> = (0..2000).map(|number| format!("i-{number:017x}")).collect();
        keys.iter().for_each(|key| tree.insert(Entry { value: "running", key }));
        keys.iter().enumerate().filter(|(place, _)| place % 50 != 0).for_each(|(_, key)| tree.remove(Entry { value: "running", key }));
        assert_eq!(tree.from(Bound::Unbounded).count(), 40);
        assert!(tree.0.len() <= 4, "{} leaves are left", tree.0.len());
    }
}
