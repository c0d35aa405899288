//! [`WeightTable`]: sums of weights by key.

use std::ops::AddAssign;

/// A slot without a key. Keys are nodes, labels or communities, which are below [`MAX_NODES`](super::csr::MAX_NODES).
const EMPTY: u32 = u32::MAX;
/// The fewest slots.
const MIN_SLOTS: usize = 16;

/// A hash table of weights, to which others with the same key are added: open addressing with linear probing, at most
/// half full. Sums fit into the type of the weights; those of the arcs of a graph fit into `u32`.
#[derive(Debug, Default)]
pub(super) struct WeightTable<W> {
    keys: Vec<u32>,
    weights: Vec<W>,
    /// The slots with a key, in the order in which they got it.
    used: Vec<u32>,
    /// The bits by which a hash is longer than the number of a slot, and the slots that are used, less 1.
    shift: u32,
    mask: usize,
}

impl<W: Copy + Default + AddAssign> WeightTable<W> {
    /// Removes all keys, and makes room for this many.
    pub(super) fn clear(&mut self, max_keys: usize) {
        for &slot in &self.used {
            self.keys[slot as usize] = EMPTY;
        }
        // A few keys use the first slots of a large table, so that they are in the processor's cache.
        let slots = (2 * max_keys).next_power_of_two().max(MIN_SLOTS);
        if slots > self.keys.len() {
            self.keys.resize(slots, EMPTY);
            self.weights.resize(slots, W::default());
        }
        self.shift = u32::BITS - slots.trailing_zeros();
        self.mask = slots - 1;
        self.used.clear();
    }

    /// Adds to the weight of a key, and returns the sum.
    #[inline]
    pub(super) fn add(&mut self, key: u32, weight: W) -> W {
        // Multiplicative hashing, of which the high bits are used.
        let mut slot = (key.wrapping_mul(0x9e37_79b1) >> self.shift) as usize;
        loop {
            if self.keys[slot] == key {
                self.weights[slot] += weight;
                return self.weights[slot];
            }
            if self.keys[slot] == EMPTY {
                self.keys[slot] = key;
                self.weights[slot] = weight;
                self.used.push(slot as u32);
                return weight;
            }
            slot = (slot + 1) & self.mask;
        }
    }

    /// Returns the keys and their weights, in the order in which the keys were added first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, W)> + '_ {
        self.used.iter().map(|&slot| (self.keys[slot as usize], self.weights[slot as usize]))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::kernels::authoring::Random;

    #[test]
    fn weights_are_the_sums_by_key() {
        let mut random = Random::new(5);
        let mut table = WeightTable::default();
        for keys in [1, 7, 3, 1_000, 20, 5_000] {
            table.clear(keys);
            let mut expected = HashMap::new();
            for _ in 0..3 * keys {
                // Among them keys whose low bits are the same.
                let (key, weight) = ((random.below(keys as u64) as u32) << 15, random.below(100) as u32);
                let sum = expected.entry(key).or_insert(0);
                *sum += weight;
                assert_eq!(table.add(key, weight), *sum);
            }
            assert_eq!(table.iter().count(), expected.len());
            assert!(table.iter().all(|(key, weight)| expected[&key] == weight));
        }
    }
}
