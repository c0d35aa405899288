//! [`GroupTable`]: the groups of some rows, found by their keys.

use super::accumulator::{Accumulator, Group, Row};

/// A slot without a group.
const EMPTY: u32 = u32::MAX;

/// The groups of some rows in the order of their first rows, and a hash table of their indices: open addressing with
/// linear probing, at most half full.
pub(super) struct GroupTable<S, E> {
    slots: Vec<u32>,
    /// The bits by which a hash is longer than the number of a slot.
    shift: u32,
    groups: Vec<Group<S, E>>,
}

impl<S: Copy, E: Copy> GroupTable<S, E> {
    /// Creates a table for this many groups.
    pub(super) fn new(max_groups: usize) -> Self {
        let slots = (2 * max_groups).next_power_of_two().max(16);
        Self { slots: vec![EMPTY; slots], shift: u64::BITS - slots.trailing_zeros(), groups: Vec::new() }
    }

    /// The number of groups.
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Adds rows to their groups.
    pub(super) fn add<V: Copy>(&mut self, rows: &[Row<V>])
    where
        S: Accumulator<V>,
        E: Accumulator<V>,
    {
        for row in rows {
            let slot = self.find(row.key);
            match self.groups.get_mut(self.slots[slot] as usize) {
                Some(group) => group.add(row.value),
                None => self.insert(slot, Group::new(row)),
            }
        }
    }

    /// Adds a group of rows that follow those of the table. Doubles the table where it is half full.
    pub(super) fn merge<V>(&mut self, group: Group<S, E>)
    where
        S: Accumulator<V>,
        E: Accumulator<V>,
    {
        if 2 * self.groups.len() >= self.slots.len() {
            self.grow();
        }
        let slot = self.find(group.key);
        match self.groups.get_mut(self.slots[slot] as usize) {
            Some(known) => known.merge(group),
            None => self.insert(slot, group),
        }
    }

    /// Returns the groups, ascending by key.
    pub(super) fn into_sorted(self) -> Vec<Group<S, E>> {
        let mut groups = self.groups;
        groups.sort_unstable_by_key(|group| group.key);
        groups
    }

    /// Returns the groups in the order of their first rows.
    pub(super) fn into_groups(self) -> Vec<Group<S, E>> {
        self.groups
    }

    /// Returns the slot of a key, or the empty one where it belongs.
    fn find(&self, key: u64) -> usize {
        let mut slot = (hash(key) >> self.shift) as usize;
        // The index of an empty slot is that of no group.
        while self.groups.get(self.slots[slot] as usize).is_some_and(|group| group.key != key) {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        slot
    }

    fn insert(&mut self, slot: usize, group: Group<S, E>) {
        self.slots[slot] = self.groups.len() as u32;
        self.groups.push(group);
    }

    fn grow(&mut self) {
        let groups = std::mem::take(&mut self.groups);
        *self = Self::new(2 * groups.len());
        for group in groups {
            let slot = self.find(group.key);
            self.insert(slot, group);
        }
    }
}

/// Multiplicative hashing, of which the high bits are used. Keys that are multiples of a power of two differ in them as
/// well.
fn hash(key: u64) -> u64 {
    (key ^ key >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Returns the groups of rows whose keys are from `min` to `max`, ascending by key: the index of a key's group is looked
/// up by the key itself.
pub(super) fn dense_groups<V: Copy, S, E>(rows: &[Row<V>], min: u64, max: u64) -> Vec<Group<S, E>>
where
    S: Accumulator<V>,
    E: Accumulator<V>,
{
    let mut slots = vec![EMPTY; (max - min) as usize + 1];
    let mut groups: Vec<Group<S, E>> = Vec::new();
    for row in rows {
        let slot = &mut slots[(row.key - min) as usize];
        match groups.get_mut(*slot as usize) {
            Some(group) => group.add(row.value),
            None => {
                *slot = groups.len() as u32;
                groups.push(Group::new(row));
            }
        }
    }
    slots.into_iter().filter_map(|slot| groups.get(slot as usize).copied()).collect()
}
